//! The switch of a port where a namespace names several; and the chassis in a Node's annotation.

use serde_json::json;

use super::examples::{at, db, foreign, made, plain, web};
use super::world::{World, map, uuid};
use crate::contract::{VmKey, keys};
use crate::kubevirt::Change;
use crate::ovn::LogicalSwitch;
use crate::ovsdb::Map;
use crate::plan::Problem;

/// The switches red, with two addresses, and blue; the namespace `n` names both, and one that is not there.
fn world() -> World {
    let red = map([("subnet", "10.1.0.0/29"), ("exclude_ips", "10.1.0.1 10.1.0.4..10.1.0.6")]);
    let mut world = World::new([("red", red), ("blue", blue())]);
    world.namespace("n", Some("none, red,,blue"));
    world
}

fn blue() -> Map {
    map([("subnet", "10.2.0.0/24"), ("exclude_ips", "10.2.0.1")])
}

fn address(world: &World, vm: &VmKey) -> String {
    world.addresses(vm).and_then(|text| text.split(' ').nth(1).map(ToOwned::to_owned)).unwrap_or_default()
}

#[test]
fn the_first_switch_that_can_serve_gets_a_new_port_and_the_port_stays_there() {
    let mut world = world();
    let [first, second, third] = ["a", "b", "c"].map(|name| VmKey::new("n", name));
    made(&mut world, &first, plain());
    made(&mut world, &second, plain());
    // Red is full, and the switch `none` does not exist.
    made(&mut world, &third, plain());
    assert_eq!([&first, &second, &third].map(|vm| address(&world, vm)), ["10.1.0.2", "10.1.0.3", "10.2.0.2"]);
    assert_eq!(world.complaints(&third), [""; 0]);
    // Neither room on red nor the switch that was missing moves a port that stands.
    world.destroy(&first);
    let other_config = map([("subnet", "10.3.0.0/24"), ("exclude_ips", "10.3.0.1")]);
    let row = LogicalSwitch { name: "none".into(), other_config, ..Default::default() };
    world.edit(|tables| drop(tables.switches.insert(uuid(1, 9), row)));
    world.settle(100);
    assert_eq!(address(&world, &third), "10.2.0.2");
    made(&mut world, &first, plain());
    assert_eq!(address(&world, &first), "10.3.0.2");
    world.a_sweep_changes_no_row();
}

#[test]
fn a_requested_address_selects_the_switch_that_has_it() {
    let mut world = world();
    made(&mut world, &web(), at("10.2.0.9"));
    assert_eq!(address(&world, &web()), "10.2.0.9");
    world.edit(|tables| foreign(tables, 1, "printer", &["0a:00:00:00:00:01 10.1.0.2"]));
    // Held on the one switch, outside the other: the first reason is reported, and the VM waits for either end.
    made(&mut world, &db(), at("10.1.0.2"));
    let missing = "The northbound database has no logical switch named none. Create it or name another; the VM gets its \
        port as soon as the switch exists.";
    assert_eq!(world.complaints(&db()), [missing]);
    world.edit(|tables| foreign(tables, 1, "printer", &["0a:00:00:00:00:01 10.1.0.1"]));
    world.settle(100);
    assert_eq!((address(&world, &db()), world.complaints(&db())), ("10.1.0.2".to_owned(), vec![]));
}

#[test]
fn of_two_vms_in_one_transaction_the_one_without_an_address_goes_to_the_next_switch() {
    let mut world = world();
    let vms = ["a", "b", "c", "d"].map(|name| VmKey::new("n", name));
    vms.iter().for_each(|vm| world.apply(vm, plain()));
    world.settle(100);
    let found: std::collections::BTreeSet<String> = vms.iter().map(|vm| address(&world, vm)).collect();
    assert_eq!(found, ["10.1.0.2", "10.1.0.3", "10.2.0.2", "10.2.0.3"].map(ToOwned::to_owned).into());
}

#[test]
fn an_empty_list_counts_as_absent() {
    for empty in ["", "  ", ",", " , ,"] {
        let mut world = World::new([("blue", blue())]);
        world.namespace("n", Some(empty));
        made(&mut world, &web(), plain());
        assert_eq!(address(&world, &web()), "10.2.0.2", "{empty:?}");
    }
}

fn node(world: &mut World, chassis: &str) {
    let metadata = json!({"name": "node-a", "annotations": {"ovn-kubevirt.io/chassis": chassis}});
    world.hear(Change::Node(Box::new(serde_json::from_value(metadata).expect("metadata"))));
    world.settle(100);
}

#[test]
fn an_invalid_chassis_annotation_binds_no_port_and_is_reported() {
    for bad in ["n1,evil", "n1 n2", "n1\tn2", "n1\u{0}", "n1\u{2028}x"] {
        let mut world = World::new([("blue", blue())]);
        node(&mut world, bad);
        world.run(&web(), plain(), "node-a");
        let (_, row) = world.row(&web()).expect("a port");
        assert_eq!(row.options.get(keys::REQUESTED_CHASSIS), None, "{bad:?}");
        assert!(matches!(&world.problems(&web())[..], [Problem::InvalidChassis(..)]), "{:?}", world.complaints(&web()));
        assert_eq!(world.problems(&web())[0].reason(), "InvalidChassisAnnotation");
        // Once for each value.
        assert_eq!(world.cluster.take_notices().len(), 1, "{bad:?}");
        node(&mut world, bad);
        assert_eq!(world.cluster.take_notices(), []);
        node(&mut world, " hv-1 ");
        let (_, row) = world.row(&web()).expect("a port");
        assert_eq!(row.options.get(keys::REQUESTED_CHASSIS), Some("hv-1"));
        assert_eq!(world.complaints(&web()), [""; 0]);
        // An empty one counts as absent.
        node(&mut world, " ");
        let (_, row) = world.row(&web()).expect("a port");
        assert_eq!(row.options.get(keys::REQUESTED_CHASSIS), Some("node-a"));
    }
}
