//! Edits of a running VM's network that meet something else: another edit, requests of the start, a lost database, a
//! service that was away, a bound on ports.

use super::examples::{db, plain, web};
use super::network_changes::{
    NEW, OLD, arrive, assert_ports, complaints, edit, lose_the_database, migrate, on, ports, problems, running, world,
};
use super::world::{World, uuid};
use crate::contract::VmKey;
use crate::intent::Policy;
use crate::plan::Problem;

/// The switch of net2 gets the subnet of that of net1.
fn with_one_subnet(world: &mut World) {
    world.edit(|tables| {
        let green = tables.switches.get_mut(&uuid(1, 2)).expect("green");
        green.other_config.insert("subnet", "10.1.0.0/24");
    });
}

/// The service is away from the edit to the end of the migration.
fn move_unseen(world: &mut World, template: super::objects::Template) {
    world.apply(&web(), template);
    world.plug(&web());
    world.migrate(&web(), Some("n2"));
    world.ready(&web());
    world.end_migration(&web(), true);
    world.end_launcher(&web());
    world.remove_launcher(&web());
    world.settle(100);
}

#[test]
fn a_network_on_the_same_switch_is_left_for_another_one_before_the_guest_has_moved() {
    // Nothing has come of the first edit but the name of the network.
    let mut world = running(on("net1"));
    edit(&mut world, on("net4"));
    edit(&mut world, on("net2"));
    assert_ports(&world, &[(OLD, "n1"), (NEW, "-")]);
    migrate(&mut world, "n2");
    assert_ports(&world, &[(OLD, "n1"), (NEW, "n2")]);
    // A pod waits on the network of the first edit.
    let mut world = running(on("net1"));
    edit(&mut world, on("net4"));
    migrate(&mut world, "n2");
    edit(&mut world, on("net2"));
    assert_ports(&world, &[(OLD, "n1,n2"), (NEW, "-")]);
    arrive(&mut world);
    assert_ports(&world, &[(OLD, "n2"), (NEW, "-")]);
    migrate(&mut world, "n1");
    assert_ports(&world, &[(OLD, "n2"), (NEW, "n1")]);
}

#[test]
fn a_port_that_is_named_for_another_network_of_its_switch_is_restored_with_that_name() {
    let mut world = running(on("net1"));
    world.name_ports(&web());
    edit(&mut world, on("net4"));
    migrate(&mut world, "n2");
    world.name_ports(&web());
    arrive(&mut world);
    assert_ports(&world, &[(OLD, "n2")]);
    lose_the_database(&mut world);
    assert_ports(&world, &[(OLD, "n2")]);
}

#[test]
fn a_guest_returns_to_the_switch_that_it_has_just_left() {
    let mut world = running(on("net1"));
    edit(&mut world, on("net2"));
    migrate(&mut world, "n2");
    // The same switch by another network.
    edit(&mut world, on("net4"));
    assert_ports(&world, &[(OLD, "n1"), (NEW, "n2")]);
    arrive(&mut world);
    let found = ports(&world, &web());
    let keeps_its_mac = found.iter().all(|port| port.contains(" 0a:58:0a:01:00:03 "));
    assert!(keeps_its_mac && found[1].starts_with("data: web.n.net4.n.ovn") && found.len() == 2, "{found:?}");
    migrate(&mut world, "n1");
    arrive(&mut world);
    let found = ports(&world, &web());
    assert!(found[0].contains("0a:58:0a:01:00:03 10.1.0.") && found.len() == 1, "{found:?}");
    assert_eq!(complaints(&world), [""; 0]);
    world.a_sweep_changes_no_row();
}

#[test]
fn a_target_on_the_guests_own_node_is_not_the_guests() {
    let mut world = running(on("net1"));
    // The newest of pods that are equally old is the last by name.
    (0..10).for_each(|_| world.apply(&VmKey::new("m", "other"), plain()));
    edit(&mut world, on("net2"));
    migrate(&mut world, "n1");
    assert_ports(&world, &[(OLD, "n1"), (NEW, "-")]);
    arrive(&mut world);
    assert_ports(&world, &[(NEW, "n1")]);
}

#[test]
fn a_switch_that_the_instance_names_since_its_start_is_not_the_next_one() {
    let named = |nad, switch| on(nad).annotated("data.ovn.kubernetes.io/logical_switch", switch);
    // The edit names another one, or none.
    for after in [named("net2", "green"), on("net2")] {
        let mut world = running(named("net1", "red"));
        edit(&mut world, after);
        assert_ports(&world, &[(OLD, "n1"), (NEW, "-")]);
        migrate(&mut world, "n2");
        arrive(&mut world);
        assert_ports(&world, &[(NEW, "n2")]);
        assert_eq!(complaints(&world), [""; 0]);
        lose_the_database(&mut world);
        assert_ports(&world, &[(NEW, "n2")]);
        assert_eq!(complaints(&world), [""; 0]);
        // From here the template names a third one for the next start, and only that is told.
        world.apply(&web(), named("net2", "grey"));
        world.settle(100);
        let problems = world.problems(&web());
        let deferred: Vec<&Problem> =
            problems.iter().filter(|problem| matches!(problem, Problem::SwitchDeferred { .. })).collect();
        let expected = Problem::SwitchDeferred { present: "green".into(), requested: "grey".into() };
        assert_eq!(deferred, [&expected]);
        assert_ports(&world, &[(NEW, "n2")]);
    }
    // The service was away.
    let mut world = running(named("net1", "red"));
    move_unseen(&mut world, on("net2"));
    assert_ports(&world, &[(NEW, "n2")]);
    // A guest that only moves stays on the switch of its start.
    let mut world = running(named("net1", "red"));
    world.apply(&web(), named("net1", "green"));
    migrate(&mut world, "n2");
    arrive(&mut world);
    assert_ports(&world, &[(OLD, "n2")]);
    lose_the_database(&mut world);
    assert_ports(&world, &[(OLD, "n2")]);
}

#[test]
fn a_switch_that_is_edited_on_the_way_waits_for_the_next_start() {
    let named = |nad, switch| on(nad).annotated("data.ovn.kubernetes.io/logical_switch", switch);
    let mut world = running(named("net1", "red"));
    edit(&mut world, on("net2"));
    migrate(&mut world, "n2");
    // The pod that waits has the port, though the template names its network no more.
    edit(&mut world, on("net3"));
    let third = "data: web.n.net3.n.ovn 0a:58:0a:01:00:03 10.3.0.3";
    assert_ports(&world, &[(OLD, "n1"), (NEW, "n2"), (third, "-")]);
    arrive(&mut world);
    assert_ports(&world, &[(NEW, "n2"), (third, "-")]);
    assert_eq!(complaints(&world), [""; 0]);
    lose_the_database(&mut world);
    assert_ports(&world, &[(NEW, "n2"), (third, "-")]);
}

#[test]
fn port_security_is_that_of_the_request_by_which_the_guest_has_come() {
    let lax = |nad| on(nad).annotated("data.ovn.kubernetes.io/port_security", "false");
    for (before, after, secured) in [(lax("net1"), on("net2"), true), (on("net1"), lax("net2"), false)] {
        let mut world = world();
        world.settings.policy.allow = world.settings.policy.allow.with(crate::intent::Permission::PortSecurityOff);
        world.run(&web(), before, "n1");
        edit(&mut world, after);
        migrate(&mut world, "n2");
        let is_secured = |world: &World| {
            let (_, row) = world.tables.port_named("web.n.net2.n.ovn").expect("its port");
            !row.port_security.is_empty()
        };
        assert_eq!(is_secured(&world), secured, "while the guest comes");
        arrive(&mut world);
        assert_eq!(is_secured(&world), secured, "once it is there");
    }
}

#[test]
fn the_dhcp_options_are_those_of_the_request_by_which_the_guest_has_come() {
    let tap = |nad| on(nad).bound_by("managedtap");
    let own = |nad| tap(nad).annotated("data.ovn.kubernetes.io/dhcp-v4-options", "lease_time=600");
    for (before, after, lease_time) in [(own("net1"), tap("net2"), "3600"), (tap("net1"), own("net2"), "600")] {
        let mut world = world();
        world.run(&web(), before, "n1");
        edit(&mut world, after);
        migrate(&mut world, "n2");
        let of_port = |world: &World| {
            let (_, row) = world.tables.port_named("web.n.net2.n.ovn").expect("its port");
            let dhcp = row.dhcpv4_options.map(|row| &world.tables.dhcp[&row].options);
            dhcp.and_then(|options| options.get("lease_time")).map(str::to_owned)
        };
        assert_eq!(of_port(&world).as_deref(), Some(lease_time), "while the guest comes");
        arrive(&mut world);
        assert_eq!(of_port(&world).as_deref(), Some(lease_time), "once it is there");
    }
}

#[test]
fn an_address_of_the_start_is_forgotten_on_the_way() {
    let with = |nad, ip| on(nad).annotated("data.ovn.kubernetes.io/ip_address", ip);
    let mut world = running(with("net1", "10.1.0.77"));
    edit(&mut world, with("net2", "10.2.0.88"));
    migrate(&mut world, "n2");
    arrive(&mut world);
    let new = "data: web.n.net2.n.ovn 0a:58:0a:01:00:4d 10.2.0.88";
    assert_ports(&world, &[(new, "n2")]);
    // The template has another one for the next start.
    world.apply(&web(), with("net2", "10.2.0.99"));
    world.settle(100);
    assert_ports(&world, &[(new, "n2")]);
    assert_eq!(complaints(&world), [""; 0]);
    lose_the_database(&mut world);
    assert_ports(&world, &[(new, "n2")]);
    assert_eq!(complaints(&world), [""; 0]);
    // A second change.
    edit(&mut world, with("net3", "10.3.0.99"));
    let third = "data: web.n.net3.n.ovn 0a:58:0a:01:00:4d 10.3.0.99";
    assert_ports(&world, &[(new, "n2"), (third, "-")]);
    assert_eq!(complaints(&world), [""; 0]);
    lose_the_database(&mut world);
    assert_ports(&world, &[(new, "n2"), (third, "-")]);
}

#[test]
fn an_address_of_the_start_does_not_renumber_a_guest_whose_template_was_edited_since() {
    let with = |nad, ip| on(nad).annotated("data.ovn.kubernetes.io/ip_address", ip);
    let mut world = running(with("net1", "10.1.0.77"));
    with_one_subnet(&mut world);
    edit(&mut world, with("net2", "10.1.0.88"));
    migrate(&mut world, "n2");
    arrive(&mut world);
    let new = "data: web.n.net2.n.ovn 0a:58:0a:01:00:4d 10.1.0.88";
    assert_ports(&world, &[(new, "n2")]);
    world.apply(&web(), with("net2", "10.1.0.99"));
    world.settle(100);
    assert_ports(&world, &[(new, "n2")]);
    edit(&mut world, with("net3", "10.3.0.9"));
    assert_eq!(ports(&world, &web())[0], format!("{new} n2"));
}

#[test]
fn an_unreadable_request_of_the_start_is_forgotten_on_the_way() {
    let with = |nad, ip| on(nad).annotated("data.ovn.kubernetes.io/ip_address", ip);
    let mut world = world();
    world.run(&web(), with("net1", "10.1.0.5"), "n1");
    // The API server lets an instance with another value in only where the webhook was away.
    world.stop(&web());
    world.remove_launcher(&web());
    world.settle(100);
    world.apply(&web(), with("net1", "ten"));
    world.restart_from_stop(&web(), "n1");
    edit(&mut world, with("net2", "10.2.0.88"));
    migrate(&mut world, "n2");
    arrive(&mut world);
    let found = ports(&world, &web());
    assert!(found[0].ends_with("10.2.0.88 n2"), "{found:?}");
    assert_eq!(complaints(&world), [""; 0]);
    lose_the_database(&mut world);
    assert_eq!(ports(&world, &web()), found);
}

#[test]
fn a_guest_brings_its_mac_whatever_the_template_asks_for() {
    let mut world = running(on("net1"));
    edit(&mut world, on("net2").annotated("data.ovn.kubernetes.io/mac_address", "02:00:00:00:00:07"));
    assert_ports(&world, &[(OLD, "n1"), (NEW, "-")]);
    migrate(&mut world, "n2");
    assert_ports(&world, &[(OLD, "n1"), (NEW, "n2")]);
    arrive(&mut world);
    assert_ports(&world, &[(NEW, "n2")]);
    lose_the_database(&mut world);
    assert_ports(&world, &[(NEW, "n2")]);
    world.restart(&web(), "n1");
    assert_ports(&world, &[("data: web.n.net2.n.ovn 02:00:00:00:00:07 10.2.0.3", "n1")]);
}

#[test]
fn a_guest_that_has_moved_unseen_has_a_port_where_no_more_are_allowed() {
    let mut world = running(on("net1"));
    let limit = world.northbound.ports_in("n");
    world.settings.policy = Policy { max_nics: Some(limit), ..world.settings.policy.clone() };
    move_unseen(&mut world, on("net2"));
    assert_ports(&world, &[(NEW, "n2")]);
    // One that is to come is beside the guest's.
    let mut world = running(on("net1"));
    world.settings.policy = Policy { max_nics: Some(limit), ..world.settings.policy.clone() };
    edit(&mut world, on("net2"));
    assert_ports(&world, &[(OLD, "n1")]);
    assert!(matches!(&problems(&world)[..], [Problem::TooManyNics { .. }]), "{:?}", problems(&world));
    // The addresses of the one that goes are free.
    world.destroy(&db());
    assert_ports(&world, &[(OLD, "n1"), ("data: web.n.net2.n.ovn 0a:58:0a:01:00:03 10.2.0.2", "-")]);
}

#[test]
fn a_switch_that_is_made_again_gives_no_other_vm_the_address_of_a_guest_that_is_to_leave_it() {
    let mut world = running(on("net1"));
    edit(&mut world, on("net2"));
    assert_ports(&world, &[(OLD, "n1"), (NEW, "-")]);
    // The rows on the switch are lost, and another VM is decided first.
    let old = world.tables.port_named("web.n.net1.n.ovn").map(|(port, _)| port).expect("its port");
    world.edit(|tables| tables.remove_port(old));
    assert!(world.lost.has(&web()), "its lease is lost");
    let other = VmKey::new("m", "other");
    world.nad("m", "net1", Some("red"));
    world.apply(&other, on("net1").annotated("data.ovn.kubernetes.io/ip_address", "10.1.0.3"));
    let decided = world.look_at(&other);
    assert!(
        decided.status.ports.iter().all(|port| port.network != "data" || port.addresses.is_none()),
        "{:?}",
        decided.status
    );
    world.settle(100);
    assert_ports(&world, &[(OLD, "n1"), (NEW, "-")]);
}
