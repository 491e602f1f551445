//! NICs that change their network, by example: a NAD, another NAD, the pod network, a network of another system.

use std::collections::BTreeMap;

use super::examples::{db, made, plain, web};
use super::objects::Template;
use super::world::{INSTANCE, World, map};
use crate::contract::VmKey;
use crate::ovn::Owner;

/// The switches blue (for pod networks), red and green, and a NAD on each, which are net3, net1 and net2; macvlan is none
/// of ours.
pub(super) fn world() -> World {
    let subnet = |subnet| map([("subnet", subnet)]);
    let mut world =
        World::new([("blue", subnet("10.0.0.0/24")), ("red", subnet("10.1.0.0/24")), ("green", subnet("10.2.0.0/24"))]);
    for (nad, switch) in [("net1", Some("red")), ("net2", Some("green")), ("net3", Some("blue")), ("macvlan", None)] {
        world.nad("n", nad, switch);
    }
    world
}

/// The lease of each NIC of a VM: `MAC IP`.
pub(super) fn held(world: &World, vm: &VmKey) -> BTreeMap<String, String> {
    let owned = world.tables.ports.values().filter_map(|row| Some((row, Owner::of(row.external_ids.map(), INSTANCE)?)));
    let addresses = |row: &crate::ovn::LogicalSwitchPort| row.addresses.iter().collect::<Vec<_>>().join("|");
    owned.filter(|(_, owner)| owner.vm == *vm).map(|(row, owner)| (owner.network, addresses(row))).collect()
}

/// The one NIC, on a NAD in the pod network's place.
fn default_on(nad: &'static str) -> Template {
    Template::default().with([("default", nad)])
}

#[test]
fn a_port_that_once_was_on_a_nad_stays_when_the_namespaces_default_changes() {
    let mut world = world();
    made(&mut world, &web(), default_on("net1"));
    assert_eq!(held(&world, &web())["default"], "0a:58:0a:01:00:02 10.1.0.2");
    made(&mut world, &web(), plain());
    let lease = world.addresses(&web());
    assert_eq!(lease.as_deref(), Some("0a:58:0a:00:00:02 10.0.0.2"));
    world.namespace("n", Some("green"));
    world.settle(100);
    assert_eq!(world.addresses(&web()), lease);
}

#[test]
fn a_network_that_changed_its_nad_is_renamed_and_keeps_its_lease() {
    let mut world = world();
    made(&mut world, &db(), Template::default().with([("x", "net2")]));
    made(&mut world, &web(), Template::default().with([("a", "net1")]));
    made(&mut world, &web(), Template::default().with([("a", "net2")]));
    let before = held(&world, &web())["a"].clone();
    world.destroy(&db());
    made(&mut world, &web(), Template::default().with([("b", "net2")]));
    assert_eq!(held(&world, &web()), BTreeMap::from([("b".to_owned(), before)]));
}

#[test]
fn a_nic_that_was_on_the_pod_network_first_is_back_on_its_switch() {
    let mut world = world();
    made(&mut world, &web(), plain());
    made(&mut world, &web(), default_on("net1"));
    assert_eq!(held(&world, &web())["default"], "0a:58:0a:01:00:02 10.1.0.2");
    made(&mut world, &web(), plain());
    assert_eq!(held(&world, &web())["default"], "0a:58:0a:00:00:02 10.0.0.2");
}

#[test]
fn a_nic_that_goes_to_a_nad_that_is_not_ours_leaves_no_port_over() {
    let mut world = world();
    made(&mut world, &web(), plain());
    made(&mut world, &web(), default_on("macvlan"));
    assert_eq!(held(&world, &web()), BTreeMap::new());
}

#[test]
fn a_nic_that_comes_from_another_nad_leaves_no_port_over() {
    let mut world = world();
    made(&mut world, &web(), Template::default().with([("a", "net1")]));
    made(&mut world, &web(), Template::default().with([("a", "macvlan")]));
    assert_eq!(held(&world, &web()), BTreeMap::new());
}

#[test]
fn a_key_of_kube_ovns_for_one_of_two_nics_on_a_nad_is_reported() {
    let mut world = world();
    let template = Template::default().with([("a", "net1"), ("b", "net1")]);
    made(&mut world, &web(), template.annotated("net1.n.ovn.net2.kubernetes.io/ip_address", "10.1.0.50"));
    let told = world.complaints(&web());
    assert_ne!(told, [""; 0]);
}

#[test]
fn a_nic_whose_new_nad_is_missing_keeps_its_port_until_the_nad_exists() {
    let mut world = world();
    made(&mut world, &web(), default_on("net1"));
    let before = held(&world, &web());
    made(&mut world, &web(), default_on("late"));
    assert_eq!(held(&world, &web()), before);
    world.nad("n", "late", None);
    world.settle(100);
    assert_eq!(held(&world, &web()), BTreeMap::new());
}

#[test]
fn a_guest_that_runs_keeps_the_port_that_its_next_start_has_not() {
    let mut world = world();
    world.run(&web(), default_on("net1"), "n1");
    let before = held(&world, &web());
    made(&mut world, &web(), default_on("macvlan"));
    assert_eq!(held(&world, &web()), before);
    world.stop(&web());
    world.settle(1);
    assert_eq!(held(&world, &web()), before, "its launcher may run");
    world.end_launcher(&web());
    world.settle(1);
    assert_eq!(held(&world, &web()), BTreeMap::new());
}
