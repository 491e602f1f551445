//! VMs with several NICs, by example: which row belongs to which NIC, and how a change of one NIC affects the others.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::examples::{db, made, plain, web};
use super::objects::Template;
use super::server::Tables;
use super::world::{INSTANCE, World, every_address, map, uuid};
use crate::contract::VmKey;
use crate::intent::{Permission, Permissions};
use crate::ovn::{LogicalSwitchPort, Owner};
use crate::plan::{AllowRule, Holder, Problem, VmStatus};

/// The switches blue (for pod networks), red and green, and the NADs net1 on red and net2 on green.
fn world() -> World {
    let subnet = |subnet| map([("subnet", subnet)]);
    let mut world =
        World::new([("blue", subnet("10.0.0.0/24")), ("red", subnet("10.1.0.0/24")), ("green", subnet("10.2.0.0/24"))]);
    world.nad("n", "net1", Some("red"));
    world.nad("n", "net2", Some("green"));
    world
}

/// Every row of a VM: its UUID, its name and its address by network.
fn rows(world: &World, vm: &VmKey) -> BTreeMap<String, (Uuid, String, String)> {
    let owned = world
        .tables
        .ports
        .iter()
        .filter_map(|(port, row)| Some((port, row, Owner::of(row.external_ids.map(), INSTANCE)?)));
    let of_vm = owned.filter(|(.., owner)| owner.vm == *vm);
    let ip = |row: &LogicalSwitchPort| {
        let text = row.addresses.iter().next().unwrap_or_default();
        text.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    of_vm.map(|(port, row, owner)| (owner.network, (*port, row.name.clone(), ip(row)))).collect()
}

/// A port of a VM as the holder of an address.
fn holder(vm: &VmKey, port: &str) -> Box<Holder> {
    Box::new(Holder::Vm { key: vm.clone(), port: port.to_owned() })
}

fn ips(world: &World, vm: &VmKey) -> Vec<(String, String)> {
    rows(world, vm).into_iter().map(|(network, (.., ip))| (network, ip)).collect()
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(network, ip)| (network.to_owned(), ip.to_owned())).into()
}

#[test]
fn each_nic_has_its_row_on_its_switch() {
    let mut world = world();
    made(&mut world, &web(), plain().with([("a", "net1"), ("b", "n/net2"), ("c", "m/net1"), ("d", "net1")]));
    let found: Vec<(String, String, String)> =
        rows(&world, &web()).into_iter().map(|(network, (_, name, ip))| (network, name, ip)).collect();
    // c is on a NAD without a switch: it is not ours.
    let expected = [
        ("a", "web.n.net1.n.ovn", "10.1.0.2"),
        ("b", "web.n.net2.n.ovn", "10.2.0.2"),
        ("d", "web.n.net1.n.ovn.d", "10.1.0.3"),
        ("default", "web.n", "10.0.0.2"),
    ];
    assert_eq!(found, expected.map(|(network, name, ip)| (network.into(), name.into(), ip.into())));
    assert_eq!(world.complaints(&web()), [""; 0]);
}

#[test]
fn a_nic_that_is_refused_keeps_no_other_from_its_port() {
    let mut world = world();
    let request = |ip| plain().with([("a", "net1")]).annotated("a.ovn.kubernetes.io/ip_address", ip);
    made(&mut world, &db(), request("10.1.0.9"));
    made(&mut world, &web(), request("10.1.0.9"));
    assert_eq!(ips(&world, &web()), pairs([("default", "10.0.0.3")]));
    let held = Problem::AddressHeld {
        address: [10, 1, 0, 9].into(),
        switch: "red".into(),
        holder: holder(&db(), "db.n.net1.n.ovn"),
    };
    assert_eq!(world.problems(&web()), [held]);
    world.destroy(&db());
    assert_eq!(ips(&world, &web()), pairs([("a", "10.1.0.9"), ("default", "10.0.0.3")]));
}

#[test]
fn a_change_of_one_nic_leaves_the_others_as_they_are() {
    let mut world = world();
    let nics = |template: Template| template.with([("a", "net1"), ("b", "net1")]);
    made(&mut world, &db(), nics(plain()));
    made(&mut world, &web(), nics(plain()));
    // The lowest addresses are free again: a NIC that gets a new address would get one of them.
    world.destroy(&db());
    let mut before = rows(&world, &web());
    let mut template = plain();
    for (key, value, changes) in [
        ("ovn.kubernetes.io/ip_address", "10.0.0.77", "default"),
        ("a.ovn.kubernetes.io/logical_switch", "green", "a"),
        ("b.ovn.kubernetes.io/ip_address", "10.1.0.50", "b"),
        ("net2.n.ovn.kubernetes.io/logical_switch", "blue", ""),
        ("b.ovn.kubernetes.io/logical_switch", "green", ""),
    ] {
        template = template.annotated(key, value);
        made(&mut world, &web(), nics(template.clone()));
        let after = rows(&world, &web());
        let changed: Vec<&str> =
            ["a", "b", "default"].into_iter().filter(|network| before[*network] != after[*network]).collect();
        assert_eq!(changed.join(" "), changes, "{key}: {before:?} became {after:?}");
        before = after;
    }
}

/// The NICs a and b on red, with requests.
pub(super) fn crossed(a: &str, b: &str) -> Template {
    let template = plain().with([("a", "net1"), ("b", "net1")]);
    template.annotated("a.ovn.kubernetes.io/ip_address", a).annotated("b.ovn.kubernetes.io/ip_address", b)
}

fn of_red(world: &World) -> Vec<String> {
    ips(world, &web()).into_iter().filter(|(network, _)| network != "default").map(|(_, ip)| ip).collect()
}

#[test]
fn nics_of_one_vm_exchange_their_addresses_in_one_transaction_or_keep_them() {
    let mut world = world();
    made(&mut world, &web(), crossed("10.1.0.2", "10.1.0.3"));
    made(&mut world, &web(), crossed("10.1.0.3", "10.1.0.2"));
    assert_eq!((of_red(&world), world.complaints(&web())), (vec!["10.1.0.3".into(), "10.1.0.2".into()], vec![]));
    // In a row, too.
    made(&mut world, &web(), crossed("10.1.0.2", "10.1.0.4"));
    assert_eq!((of_red(&world), world.complaints(&web())), (vec!["10.1.0.2".into(), "10.1.0.4".into()], vec![]));
    // The other NIC cannot get its request, and keeps its lease.
    made(&mut world, &db(), plain().with([("a", "net1")]).annotated("a.ovn.kubernetes.io/ip_address", "10.1.0.9"));
    made(&mut world, &web(), crossed("10.1.0.4", "10.1.0.9"));
    assert_eq!(of_red(&world), ["10.1.0.2", "10.1.0.4"]);
    let held = |address: [u8; 4], holder| {
        let switch = "red".into();
        Problem::AddressHeld { address: address.into(), switch, holder }
    };
    let of_web = held([10, 1, 0, 4], holder(&web(), "web.n.net1.n.ovn.b"));
    assert_eq!(world.problems(&web()), [of_web, held([10, 1, 0, 9], holder(&db(), "db.n.net1.n.ovn"))]);
    world.destroy(&db());
    assert_eq!((of_red(&world), world.complaints(&web())), (vec!["10.1.0.4".into(), "10.1.0.9".into()], vec![]));
}

#[test]
fn nics_of_a_vm_that_runs_exchange_their_addresses_at_its_next_start() {
    let mut world = world();
    made(&mut world, &web(), crossed("10.1.0.2", "10.1.0.3"));
    world.run(&web(), crossed("10.1.0.2", "10.1.0.3"), "n1");
    made(&mut world, &web(), crossed("10.1.0.3", "10.1.0.2"));
    assert_eq!(of_red(&world), ["10.1.0.2", "10.1.0.3"]);
    world.stop(&web());
    world.settle(1);
    assert_eq!(of_red(&world), ["10.1.0.2", "10.1.0.3"], "its launcher may run");
    world.end_launcher(&web());
    world.settle(1);
    assert_eq!((of_red(&world), world.complaints(&web())), (vec!["10.1.0.3".into(), "10.1.0.2".into()], vec![]));
}

#[test]
fn a_renamed_network_keeps_its_row_unless_it_might_be_anothers() {
    let mut world = world();
    made(&mut world, &web(), plain().with([("a", "net1"), ("b", "net2")]));
    let before = rows(&world, &web());
    // Each is the only new NIC on its network.
    let mut renamed = plain().with([("c", "net1"), ("d", "net2")]);
    renamed.network = Some("mgmt".into());
    made(&mut world, &web(), renamed);
    let after = rows(&world, &web());
    for (old, new) in [("a", "c"), ("b", "d"), ("default", "mgmt")] {
        assert_eq!(before[old], after[new]);
    }
    // On another NAD it is another network.
    made(&mut world, &web(), plain().with([("e", "net2"), ("d", "net2")]));
    let other = rows(&world, &web());
    assert_eq!((&other["d"], other.contains_key("c")), (&after["d"], false));
    assert_eq!(other["e"].1, "web.n.net2.n.ovn.e");
    // Two at once.
    made(&mut world, &web(), plain().with([("f", "net2"), ("g", "net2")]));
    let two = rows(&world, &web());
    let old: Vec<_> = other.values().filter(|row| row.1.contains("net2")).collect();
    assert!(["f", "g"].iter().all(|new| old.iter().all(|old| old.0 != two[*new].0 && old.2 != two[*new].2)), "{two:?}");
}

#[test]
fn the_lease_of_an_unplugged_nic_is_kept_until_the_vmi_drops_the_nic() {
    let mut world = world();
    let mut template = plain().with([("a", "net1")]);
    world.run(&web(), template.clone(), "n1");
    let before = rows(&world, &web());
    template.absent = vec!["a"];
    made(&mut world, &web(), template.clone());
    assert_eq!(rows(&world, &web()), before, "a change of the template alone does not affect the running VM");
    world.plug(&web());
    world.settle(100);
    assert_eq!(rows(&world, &web()), before);
    made(
        &mut world,
        &db(),
        Template::default().with([("a", "net1")]).annotated("a.ovn.kubernetes.io/ip_address", "10.1.0.2"),
    );
    assert_eq!(ips(&world, &db()), []);
    world.apply(&web(), plain());
    world.plug(&web());
    world.settle(100);
    assert_eq!(ips(&world, &web()), pairs([("default", "10.0.0.2")]));
    assert_eq!(ips(&world, &db()), pairs([("a", "10.1.0.2")]));
}

#[test]
fn a_nic_that_is_absent_from_a_stopped_vm_goes_at_once() {
    let mut world = world();
    let mut template = plain().with([("a", "net1")]);
    made(&mut world, &web(), template.clone());
    template.absent = vec!["a"];
    made(&mut world, &web(), template);
    assert_eq!(ips(&world, &web()), pairs([("default", "10.0.0.2")]));
}

#[test]
fn a_nad_that_loses_its_switch_removes_no_port() {
    let mut world = world();
    let template = Template::default().with([("a", "net1")]);
    made(&mut world, &web(), template.clone());
    let before = rows(&world, &web());
    world.nad("n", "net1", None);
    world.settle(100);
    world.nad_goes("n", "net1");
    world.settle(100);
    made(&mut world, &db(), template);
    assert_eq!((rows(&world, &web()), rows(&world, &db()).len()), (before, 0));
    world.nad("n", "net1", Some("red"));
    world.settle(100);
    assert_eq!(ips(&world, &db()), pairs([("a", "10.1.0.3")]));
}

#[test]
fn port_security_is_off_only_where_owner_and_operator_want_it() {
    let security = |world: &World| world.row(&web()).map(|(_, row)| row.port_security.iter().count());
    let off = || plain().annotated("default.ovn.kubernetes.io/port_security", "false");
    let mut world = world();
    made(&mut world, &web(), off());
    let kept = || {
        let rule = AllowRule { permission: Permission::PortSecurityOff, on_switch: false };
        vec![Problem::PortSecurityKept { network: "default".into(), switch: "blue".into(), rule, keeps: true }]
    };
    assert_eq!((security(&world), world.problems(&web())), (Some(1), kept()));
    world.settings.policy.allow = Permissions::all();
    made(&mut world, &web(), off());
    assert_eq!((security(&world), world.problems(&web())), (Some(0), vec![]));
    // An unreadable request leaves the row as it is, and a restart keeps the lease.
    let lease = world.addresses(&web());
    made(&mut world, &web(), plain().annotated("default.ovn.kubernetes.io/port_security", "off"));
    assert_eq!((security(&world), world.problems(&web()).len(), world.addresses(&web())), (Some(0), 1, lease.clone()));
    made(&mut world, &web(), plain());
    assert_eq!((security(&world), world.addresses(&web())), (Some(1), lease));
    // The operator takes it back.
    made(&mut world, &web(), off());
    world.settings.policy.allow = every_address();
    made(&mut world, &web(), off());
    assert_eq!((security(&world), world.problems(&web())), (Some(1), kept()));
}

#[test]
fn annotations_are_reported_only_for_a_vm_with_a_nic_of_ours_and_then_all_of_them() {
    let keys = |template: Template| {
        let template = template.annotated("net9.n.ovn.kubernetes.io/ip_address", "10.9.0.9");
        template.annotated("plain.n.ovn.kubernetes.io/security_groups", "a").annotated("ovn-kubevirt.io/retain", "soon")
    };
    let mut world = world();
    made(&mut world, &web(), keys(Template::default().with([("a", "plain")])));
    assert_eq!(world.statuses[&web()], VmStatus::default());
    made(&mut world, &web(), keys(plain().with([("a", "plain")])));
    let reasons: Vec<&str> = world.problems(&web()).iter().map(Problem::reason).collect();
    assert_eq!(reasons, ["InvalidRequest", "UnsupportedAnnotation"]);
    let unmatched = Problem::Unmatched(vec!["net9.n.ovn.kubernetes.io/ip_address".into()]);
    assert!(world.problems(&web()).contains(&unmatched));
}

#[test]
fn a_name_that_others_have_is_never_taken_over() {
    let mut world = world();
    let foreign = |tables: &mut Tables, slot: u8, name: &str| {
        let row = LogicalSwitchPort { name: name.into(), ..Default::default() };
        tables.put_port(uuid(1, 0), uuid(2, slot), row);
    };
    world.edit(|tables| foreign(tables, 0, "web.n.net1.n.ovn.b"));
    made(&mut world, &web(), Template::default().with([("a", "net1"), ("b", "net1")]));
    assert_eq!(rows(&world, &web()).keys().collect::<Vec<_>>(), ["a"]);
    let taken = "The port name web.n.net1.n.ovn.b is taken by a row that does not belong to this NIC. \
        Delete that row, or rename the VM.";
    assert_eq!(world.complaints(&web()), [taken]);
    world.edit(|tables| tables.remove_port(uuid(2, 0)));
    world.settle(100);
    assert_eq!(rows(&world, &web())["b"].1, "web.n.net1.n.ovn.b");
}

#[test]
fn a_refused_move_is_decided_again_when_its_switch_is_deleted() {
    let mut world = world();
    made(&mut world, &web(), plain());
    let mut template = Template::new([("logical_switch", "red"), ("ip_address", "x")]);
    template.network = Some("mgmt".into());
    made(&mut world, &web(), template);
    assert_eq!(rows(&world, &web()).into_keys().collect::<Vec<_>>(), ["default"]);
    // Now it stays where it is, which takes no address: the row is the renamed network's.
    world.edit(|tables| drop(tables.switches.remove(&uuid(1, 1))));
    world.settle(100);
    world.a_sweep_changes_no_row();
    assert_eq!(ips(&world, &web()), pairs([("mgmt", "10.0.0.2")]));
}

#[test]
fn a_new_network_takes_over_neither_of_two_leftover_rows() {
    let mut world = world();
    made(&mut world, &web(), Template::default().with([("a", "net1"), ("b", "net1")]));
    let before = rows(&world, &web());
    made(&mut world, &web(), Template::default().with([("c", "net1")]));
    let after = rows(&world, &web());
    assert_eq!(after.len(), 1);
    assert!(before.values().all(|old| old.0 != after["c"].0 && old.2 != after["c"].2), "{before:?} became {after:?}");
}
