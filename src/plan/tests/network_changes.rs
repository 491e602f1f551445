//! A running VM changes a network: KubeVirt puts the new one into the instance's spec at once, and moves the guest there by
//! live migrations. The steps are those that a virt-controller of KubeVirt 1.9 was seen to make.

use super::examples::{db, made, plain, web};
use super::objects::Template;
use super::world::{INSTANCE, World, map, uuid};
use crate::contract::{VmKey, keys};
use crate::ovn::Owner;
use crate::plan::Problem;

/// The NADs net1, net2 and net3 on switches with subnets of their own, and the pod network on blue.
pub(super) fn world() -> World {
    let subnet = |subnet| map([("subnet", subnet)]);
    let world = World::new([
        ("blue", subnet("10.0.0.0/24")),
        ("red", subnet("10.1.0.0/24")),
        ("green", subnet("10.2.0.0/24")),
        ("grey", subnet("10.3.0.0/24")),
    ]);
    let mut world = world.with_southbound();
    for (nad, switch) in [("net1", "red"), ("net2", "green"), ("net3", "grey"), ("net4", "red")] {
        world.nad("n", nad, Some(switch));
    }
    // A port that lost its lease would get another address.
    made(&mut world, &db(), plain().with([("a", "net1"), ("b", "net2"), ("c", "net3")]));
    world
}

pub(super) fn on(nad: &'static str) -> Template {
    plain().with([("data", nad)])
}

/// A VM that runs on n1.
pub(super) fn running(template: Template) -> World {
    let mut world = world();
    world.run(&web(), template, "n1");
    world
}

/// A VM's ports on NADs: name, addresses and requested chassis, by network.
pub(super) fn ports(world: &World, vm: &VmKey) -> Vec<String> {
    let owned = world.tables.ports.values();
    let owned = owned.filter_map(|row| Some((Owner::of(row.external_ids.map(), INSTANCE)?, row)));
    let mut found: Vec<String> = owned
        .filter(|(owner, _)| owner.vm == *vm && owner.network != "default")
        .map(|(Owner { network, .. }, row)| {
            let addresses = row.addresses.iter().collect::<Vec<_>>().join("|");
            // The chassis of the node n1 is c1.
            let chassis = row.options.get(keys::REQUESTED_CHASSIS).unwrap_or("-").replace('c', "n");
            format!("{network}: {} {addresses} {chassis}", row.name)
        })
        .collect();
    found.sort();
    found
}

pub(super) const OLD: &str = "data: web.n.net1.n.ovn 0a:58:0a:01:00:03 10.1.0.3";
pub(super) const NEW: &str = "data: web.n.net2.n.ovn 0a:58:0a:01:00:03 10.2.0.3";

#[track_caller]
pub(super) fn assert_ports(world: &World, expected: &[(&str, &str)]) {
    let expected: Vec<String> = expected.iter().map(|(port, chassis)| format!("{port} {chassis}")).collect();
    assert_eq!(ports(world, &web()), expected);
    world.a_sweep_changes_no_row();
}

/// The problems of the VM, but for those of chassis: no ovn-controller runs here that would claim ports.
pub(super) fn problems(world: &World) -> Vec<Problem> {
    let mut problems = world.problems(&web());
    problems.retain(|problem| !matches!(problem, Problem::ChassisNotReady { .. }));
    problems
}

pub(super) fn complaints(world: &World) -> Vec<String> {
    problems(world).iter().map(ToString::to_string).collect()
}

/// The owner edits the VM, and virt-controller brings the network to the instance.
pub(super) fn edit(world: &mut World, template: Template) {
    world.apply(&web(), template);
    world.settle(100);
    world.plug(&web());
    world.settle(100);
}

/// A migration to a node, up to the moment before its guest is ready there.
pub(super) fn migrate(world: &mut World, node: &str) {
    world.migrate(&web(), Some(node));
    world.settle(100);
}

pub(super) fn arrive(world: &mut World) {
    world.ready(&web());
    world.settle(100);
    world.end_migration(&web(), true);
    world.settle(100);
}

/// The rows of a VM are lost, and restored from the annotation.
pub(super) fn lose_the_database(world: &mut World) {
    let ports: Vec<_> = world.tables.ports.keys().copied().collect();
    world.edit(|tables| ports.into_iter().for_each(|port| tables.remove_port(port)));
    world.settle(100);
}

#[test]
fn a_network_changes_by_a_migration_that_succeeds() {
    let mut world = running(on("net1"));
    assert_ports(&world, &[(OLD, "n1")]);
    // 0.0 s: the edit. 0.03 s: the instance names the new network, and its pod is where it was.
    world.apply(&web(), on("net2"));
    world.settle(100);
    assert_ports(&world, &[(OLD, "n1")]);
    world.plug(&web());
    world.settle(100);
    assert_ports(&world, &[(OLD, "n1"), (NEW, "-")]);
    assert_eq!(complaints(&world), [""; 0]);
    // 4.5 s: VMIM and target pod. 6.6 s: the pod has a node.
    world.migrate(&web(), None);
    world.settle(100);
    assert_ports(&world, &[(OLD, "n1"), (NEW, "-")]);
    world.end_migration(&web(), false);
    migrate(&mut world, "n2");
    assert_ports(&world, &[(OLD, "n1"), (NEW, "n2")]);
    let (_, pod) = world.tables.port_named("web.n").expect("the port on the pod network");
    assert_eq!(pod.options.get(keys::REQUESTED_CHASSIS), Some("c1,c2"), "the other NIC moves as ever");
    // 10.7 s: the guest is ready there. 11.4 s: the migration is over, and the source's pod is deleted.
    world.ready(&web());
    world.settle(100);
    assert_ports(&world, &[(NEW, "n2")]);
    world.end_migration(&web(), true);
    world.end_launcher(&web());
    world.settle(100);
    assert_ports(&world, &[(NEW, "n2")]);
    assert_eq!(complaints(&world), [""; 0]);
    // The next migration is like any other, and so is the next start.
    world.remove_launcher(&web());
    migrate(&mut world, "n3");
    assert_ports(&world, &[(NEW, "n2,n3")]);
    arrive(&mut world);
    world.restart(&web(), "n1");
    assert_ports(&world, &[(NEW, "n1")]);
}

#[test]
fn a_migration_that_fails_is_tried_again_with_the_same_port() {
    let mut world = running(on("net1"));
    edit(&mut world, on("net2"));
    for (node, other) in [("n2", "10.2.0.4"), ("n3", "10.2.0.5")] {
        migrate(&mut world, node);
        assert_ports(&world, &[(OLD, "n1"), (NEW, node)]);
        // 11.5 s: failed; the target's pod ends. 15.1 s: the next VMIM; 30.9 s: its pod.
        world.end_migration(&web(), false);
        world.settle(100);
        assert_ports(&world, &[(OLD, "n1"), (NEW, "-")]);
        // Meanwhile others choose addresses there.
        made(&mut world, &VmKey::new("n", format!("vm-{node}")), on("net2"));
        let (_, row) = world.tables.port_named(&format!("vm-{node}.n.net2.n.ovn")).expect("its port");
        assert!(row.addresses.iter().any(|text| text.ends_with(other)), "{row:?}");
    }
    migrate(&mut world, "n2");
    arrive(&mut world);
    assert_ports(&world, &[(NEW, "n2")]);
}

#[test]
fn an_edit_that_is_taken_back_leaves_the_port_as_it_was() {
    let mut world = running(on("net1"));
    edit(&mut world, on("net2"));
    edit(&mut world, on("net1"));
    assert_ports(&world, &[(OLD, "n1")]);
    // In the middle of a migration: its pod has the port until it ends.
    edit(&mut world, on("net2"));
    migrate(&mut world, "n2");
    edit(&mut world, on("net1"));
    assert_ports(&world, &[(OLD, "n1"), (NEW, "n2")]);
    world.end_migration(&web(), false);
    world.settle(100);
    assert_ports(&world, &[(OLD, "n1")]);
    migrate(&mut world, "n2");
    assert_ports(&world, &[(OLD, "n1,n2")]);
}

#[test]
fn a_lost_database_leaves_the_running_guest_on_its_network() {
    let mut world = running(on("net1"));
    edit(&mut world, on("net2"));
    lose_the_database(&mut world);
    assert_ports(&world, &[(OLD, "n1"), (NEW, "-")]);
    migrate(&mut world, "n2");
    lose_the_database(&mut world);
    assert_ports(&world, &[(OLD, "n1"), (NEW, "n2")]);
    arrive(&mut world);
    lose_the_database(&mut world);
    assert_ports(&world, &[(NEW, "n2")]);
}

#[test]
fn a_service_that_was_away_finds_each_guest_where_its_pod_is() {
    // It starts after the edit, without any row.
    let mut world = running(on("net1"));
    world.apply(&web(), on("net2"));
    world.plug(&web());
    let before = std::mem::take(&mut world.present.get_mut(&web()).expect("it is there").told);
    assert!(before.is_some());
    lose_the_database(&mut world);
    let other = "data: web.n.net1.n.ovn 0a:58:0a:01:00:02 10.1.0.2";
    assert!(ports(&world, &web())[0].starts_with(&other[..24]), "{:?}", ports(&world, &web()));
    // It was away from the edit to the end of the migration.
    let mut world = running(on("net1"));
    world.apply(&web(), on("net2"));
    world.plug(&web());
    world.migrate(&web(), Some("n2"));
    world.ready(&web());
    world.end_migration(&web(), true);
    world.end_launcher(&web());
    world.remove_launcher(&web());
    world.settle(100);
    let found = ports(&world, &web());
    assert!(
        matches!(&found[..], [port] if port.starts_with("data: web.n.net2.n.ovn") && port.ends_with(" n2")),
        "{found:?}"
    );
    world.a_sweep_changes_no_row();
}

#[test]
fn of_several_nics_one_changes() {
    let nics = |b| plain().with([("a", "net1"), ("b", b), ("c", "net1")]);
    let mut world = running(nics("net1"));
    let [a, b, c] = [("", 3), (".b", 4), (".c", 5)].map(|(name, ip)| {
        let network = ["a", "b", "c"][ip - 3];
        format!("{network}: web.n.net1.n.ovn{name} 0a:58:0a:01:00:0{ip} 10.1.0.{ip}")
    });
    assert_ports(&world, &[(&a, "n1"), (&b, "n1"), (&c, "n1")]);
    edit(&mut world, nics("net2"));
    let new = "b: web.n.net2.n.ovn 0a:58:0a:01:00:04 10.2.0.3";
    assert_ports(&world, &[(&a, "n1"), (&b, "n1"), (new, "-"), (&c, "n1")]);
    migrate(&mut world, "n2");
    assert_ports(&world, &[(&a, "n1,n2"), (&b, "n1"), (new, "n2"), (&c, "n1,n2")]);
    arrive(&mut world);
    assert_ports(&world, &[(&a, "n2"), (new, "n2"), (&c, "n2")]);
}

#[test]
fn two_nics_exchange_their_networks() {
    let nics = |a, b| plain().with([("a", a), ("b", b)]);
    let mut world = running(nics("net1", "net2"));
    let (a, b) = ("a: web.n.net1.n.ovn 0a:58:0a:01:00:03 10.1.0.3", "b: web.n.net2.n.ovn 0a:58:0a:02:00:03 10.2.0.3");
    assert_ports(&world, &[(a, "n1"), (b, "n1")]);
    edit(&mut world, nics("net2", "net1"));
    // Each has its name, its address and its guest's MAC beside the other's.
    let new_a = "a: web.n.net2.n.ovn.a 0a:58:0a:01:00:03 10.2.0.4";
    let new_b = "b: web.n.net1.n.ovn.b 0a:58:0a:02:00:03 10.1.0.4";
    assert_ports(&world, &[(a, "n1"), (new_a, "-"), (new_b, "-"), (b, "n1")]);
    migrate(&mut world, "n2");
    assert_ports(&world, &[(a, "n1"), (new_a, "n2"), (new_b, "n2"), (b, "n1")]);
    lose_the_database(&mut world);
    assert_ports(&world, &[(a, "n1"), (new_a, "n2"), (new_b, "n2"), (b, "n1")]);
    arrive(&mut world);
    assert_ports(&world, &[(new_a, "n2"), (new_b, "n2")]);
    // The interfaces of the guest have the names.
    lose_the_database(&mut world);
    assert_ports(&world, &[(new_a, "n2"), (new_b, "n2")]);
}

#[test]
fn a_second_change_comes_during_the_first() {
    let third = "data: web.n.net3.n.ovn 0a:58:0a:01:00:03 10.3.0.3";
    // Before there is a pod, the first change is forgotten.
    let mut world = running(on("net1"));
    edit(&mut world, on("net2"));
    edit(&mut world, on("net3"));
    assert_ports(&world, &[(OLD, "n1"), (third, "-")]);
    // A pod that waits keeps its port until it ends.
    let mut world = running(on("net1"));
    edit(&mut world, on("net2"));
    migrate(&mut world, "n2");
    edit(&mut world, on("net3"));
    assert_ports(&world, &[(OLD, "n1"), (NEW, "n2"), (third, "-")]);
    // The guest moves to the network of its pod, and from there to the requested network.
    arrive(&mut world);
    assert_ports(&world, &[(NEW, "n2"), (third, "-")]);
    migrate(&mut world, "n3");
    assert_ports(&world, &[(NEW, "n2"), (third, "n3")]);
    arrive(&mut world);
    assert_ports(&world, &[(third, "n3")]);
}

#[test]
fn an_address_for_the_new_network_comes_in_the_same_edit() {
    for key in ["data.ovn.kubernetes.io/ip_address", "net2.n.ovn.kubernetes.io/ip_address"] {
        let mut world = running(on("net1").annotated("data.ovn.kubernetes.io/ip_address", "10.1.0.77"));
        let old = "data: web.n.net1.n.ovn 0a:58:0a:01:00:4d 10.1.0.77";
        assert_ports(&world, &[(old, "n1")]);
        let new = "data: web.n.net2.n.ovn 0a:58:0a:01:00:4d 10.2.0.88";
        edit(&mut world, on("net2").annotated(key, "10.2.0.88"));
        assert_ports(&world, &[(old, "n1"), (new, "-")]);
        migrate(&mut world, "n2");
        // It stays under a pod that has it.
        world.apply(&web(), on("net2").annotated(key, "10.2.0.99"));
        world.settle(100);
        assert_ports(&world, &[(old, "n1"), (new, "n2")]);
        world.apply(&web(), on("net2").annotated(key, "10.2.0.88"));
        world.settle(100);
        arrive(&mut world);
        // KubeVirt does not bring annotations to the instance: it has the request of its start.
        assert_ports(&world, &[(new, "n2")]);
        assert_eq!(complaints(&world), [""; 0], "{key}");
        lose_the_database(&mut world);
        assert_ports(&world, &[(new, "n2")]);
        world.restart(&web(), "n1");
        assert_ports(&world, &[(new, "n1")]);
    }
}

#[test]
fn a_request_of_the_start_does_not_renumber_a_guest_that_has_moved() {
    let mut world = running(on("net1").annotated("data.ovn.kubernetes.io/ip_address", "10.1.0.77"));
    world.edit(|tables| {
        let green = tables.switches.get_mut(&uuid(1, 2)).expect("green");
        green.other_config.insert("subnet", "10.1.0.0/24");
    });
    edit(&mut world, on("net2").annotated("data.ovn.kubernetes.io/ip_address", "10.1.0.88"));
    migrate(&mut world, "n2");
    arrive(&mut world);
    assert_ports(&world, &[("data: web.n.net2.n.ovn 0a:58:0a:01:00:4d 10.1.0.88", "n2")]);
}

#[test]
fn a_full_network_leaves_the_guest_where_it_is() {
    let mut world = running(on("net1"));
    let full = |world: &mut World, excluded: &str| {
        world.edit(|tables| {
            let green = tables.switches.get_mut(&uuid(1, 2)).expect("green");
            green.other_config.insert("exclude_ips", excluded);
        });
        world.settle(100);
    };
    full(&mut world, "10.2.0.1..10.2.0.254");
    edit(&mut world, on("net2"));
    assert_ports(&world, &[(OLD, "n1")]);
    assert!(matches!(&problems(&world)[..], [Problem::SubnetExhausted { switch, .. }] if switch == "green"));
    // A pod that is created in spite of that has no port.
    migrate(&mut world, "n2");
    assert_ports(&world, &[(OLD, "n1")]);
    full(&mut world, "10.2.0.200..10.2.0.254");
    assert_ports(&world, &[(OLD, "n1"), (NEW, "n2")]);
    assert_eq!(complaints(&world), [""; 0]);
}

#[test]
fn a_guest_whose_mac_is_not_free_there_stays_where_it_is() {
    let mut world = running(on("net1"));
    let other = VmKey::new("n", "other");
    made(&mut world, &other, on("net2").annotated("data.ovn.kubernetes.io/mac_address", "0a:58:0a:01:00:03"));
    edit(&mut world, on("net2"));
    assert_ports(&world, &[(OLD, "n1")]);
    assert!(matches!(&problems(&world)[..], [Problem::MacHeld { switch, .. }] if switch == "green"));
    world.destroy(&other);
    assert_ports(&world, &[(OLD, "n1"), (NEW, "-")]);
    assert_eq!(complaints(&world), [""; 0]);
}

#[test]
fn networks_on_one_switch_share_the_port() {
    let mut world = running(on("net1"));
    edit(&mut world, on("net4"));
    assert_ports(&world, &[(OLD, "n1")]);
    migrate(&mut world, "n2");
    assert_ports(&world, &[(OLD, "n1,n2")]);
    arrive(&mut world);
    assert_ports(&world, &[(OLD, "n2")]);
    // From there to another switch, as ever.
    edit(&mut world, on("net2"));
    migrate(&mut world, "n1");
    assert_ports(&world, &[(OLD, "n2"), (NEW, "n1")]);
    arrive(&mut world);
    assert_ports(&world, &[(NEW, "n1")]);
}

#[test]
fn a_vm_that_is_stopped_meanwhile_keeps_one_port_and_a_deleted_vm_keeps_no_port() {
    let mut world = running(on("net1"));
    edit(&mut world, on("net2"));
    migrate(&mut world, "n2");
    world.stop(&web());
    world.settle(100);
    // Its launchers may still run.
    assert_eq!(ports(&world, &web()).len(), 2);
    while !world.present[&web()].pods.is_empty() {
        world.remove_launcher(&web());
    }
    world.settle(100);
    assert_ports(&world, &[(NEW, "-")]);
    let mut world = running(on("net1"));
    edit(&mut world, on("net2"));
    world.destroy(&web());
    assert_ports(&world, &[]);
}

#[test]
fn a_network_that_is_not_ours_is_left_and_entered() {
    let mut world = running(on("net1"));
    world.nad("n", "foreign", None);
    edit(&mut world, on("foreign"));
    assert_ports(&world, &[(OLD, "n1")]);
    migrate(&mut world, "n2");
    assert_ports(&world, &[(OLD, "n1")]);
    arrive(&mut world);
    assert_ports(&world, &[]);
    edit(&mut world, on("net2"));
    let new = "data: web.n.net2.n.ovn 0a:58:0a:02:00:03 10.2.0.3";
    assert_ports(&world, &[(new, "-")]);
    migrate(&mut world, "n1");
    assert_ports(&world, &[(new, "n1")]);
    arrive(&mut world);
    assert_ports(&world, &[(new, "n1")]);
}

#[test]
fn a_nic_that_a_migration_plugs_is_on_the_target_alone() {
    let mut world = running(plain());
    edit(&mut world, on("net1"));
    migrate(&mut world, "n2");
    assert_ports(&world, &[(OLD, "n2")]);
    world.end_migration(&web(), false);
    world.settle(100);
    migrate(&mut world, "n3");
    assert_ports(&world, &[(OLD, "n3")]);
    arrive(&mut world);
    assert_ports(&world, &[(OLD, "n3")]);
    migrate(&mut world, "n1");
    assert_ports(&world, &[(OLD, "n3,n1")]);
}

#[test]
fn a_nic_that_a_migration_unplugs_stays_on_the_source() {
    let mut world = running(plain().with([("a", "net1"), ("data", "net1")]));
    let (a, data) =
        ("a: web.n.net1.n.ovn 0a:58:0a:01:00:03 10.1.0.3", "data: web.n.net1.n.ovn.data 0a:58:0a:01:00:04 10.1.0.4");
    let without = Template { absent: vec!["data"], ..plain().with([("a", "net1"), ("data", "net1")]) };
    edit(&mut world, without);
    migrate(&mut world, "n2");
    assert_ports(&world, &[(a, "n1,n2"), (data, "n1")]);
    world.ready(&web());
    world.settle(100);
    assert_ports(&world, &[(a, "n2"), (data, "-")]);
    // The instance names it no more.
    edit(&mut world, plain().with([("a", "net1")]));
    assert_ports(&world, &[(a, "n2")]);
}
