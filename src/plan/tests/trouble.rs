//! Obstacles to a VM's request: the message for its owner, and the change that removes them.

use uuid::Uuid;

use super::examples::{at, db, foreign, made, plain, waits_in_vain, web, world};
use super::objects::Template;
use super::world::{INSTANCE, World, map, uuid};
use crate::contract::{VmKey, keys, port_uuid};
use crate::ovn::{Elements, LogicalRouterPort, LogicalSwitch, LogicalSwitchPort};
use crate::ovsdb::{Map, Set};
use crate::plan::Problem;

#[test]
fn two_switches_of_one_name_are_an_error_until_one_goes() {
    let config: Map = map([("subnet", "10.16.0.0/16")]);
    let mut world = World::new([("blue", config.clone()), ("blue", config)]);
    made(&mut world, &web(), plain());
    let ambiguous = "The northbound database has 2 logical switches named blue. Rename all but one of them.";
    waits_in_vain(&world, &web(), ambiguous);
    world.edit(|tables| tables.switches.get_mut(&uuid(1, 1)).expect("the second").name = "red".into());
    world.settle(100);
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:10:00:02 10.16.0.2"));
}

#[test]
fn a_missing_switch_is_waited_for() {
    let mut world = World::new([]);
    made(&mut world, &web(), plain());
    let missing = "The northbound database has no logical switch named blue. Create it or name another; the VM gets its \
        port as soon as the switch exists.";
    waits_in_vain(&world, &web(), missing);
    let row =
        LogicalSwitch { name: "blue".into(), other_config: map([("subnet", "10.0.0.0/30")]), ..Default::default() };
    world.edit(|tables| drop(tables.switches.insert(uuid(1, 0), row)));
    world.settle(100);
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:00:00:02 10.0.0.2"));
}

#[test]
fn a_switch_without_a_subnet_serves_as_soon_as_its_router_port_has_networks() {
    let mut world = World::new([("blue", map([]))]);
    made(&mut world, &web(), plain());
    let missing = "The logical switch blue has no subnet, so no address can be allocated on it. Set other_config:subnet or \
        ipv6_prefix, connect the switch to a router port with networks, or request a port with a MAC alone by ip_address \
        \"none\".";
    waits_in_vain(&world, &web(), missing);
    world.edit(|tables| {
        let row = LogicalSwitchPort {
            name: "blue-router".into(),
            kind: "router".into(),
            addresses: Elements::from_iter(["router".to_owned()]),
            options: map([("router-port", "lrp")]),
            ..Default::default()
        };
        tables.put_port(uuid(1, 0), uuid(2, 0), row);
    });
    assert!(world.dirty.is_empty() || world.row(&web()).is_none());
    world.edit(|tables| {
        let networks = Set::from_iter(["10.16.0.1/16".to_owned()]);
        let row =
            LogicalRouterPort { name: "lrp".into(), mac: "02:00:00:00:00:01".into(), networks, ..Default::default() };
        tables.router_ports.insert(uuid(3, 0), row);
    });
    world.settle(100);
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:10:00:02 10.16.0.2"));
    // The gateway's address cannot be requested.
    made(&mut world, &db(), at("10.16.0.1"));
    let held = "10.16.0.1 on the logical switch blue is held by the router port blue-router. \
        Choose another address, or wait: it is granted as soon as it is free.";
    waits_in_vain(&world, &db(), held);
}

#[test]
fn a_router_port_that_is_recreated_in_one_transaction_keeps_its_address() {
    for order in 0..42 {
        let mut world = World::new([("blue", map([("subnet", "10.0.0.0/30")]))]);
        let networks = || Set::from_iter(["10.0.0.1/30".to_owned()]);
        let lrp = || LogicalRouterPort {
            name: "lrp".into(),
            mac: "02:00:00:00:00:01".into(),
            networks: networks(),
            ..Default::default()
        };
        world.edit(|tables| {
            let options = map([("router-port", "lrp")]);
            let row = LogicalSwitchPort { name: "r".into(), kind: "router".into(), options, ..Default::default() };
            tables.put_port(uuid(1, 0), uuid(2, 0), row);
            tables.router_ports.insert(uuid(3, 5), lrp());
        });
        world.order = order;
        world.edit(|tables| {
            tables.router_ports.remove(&uuid(3, 5));
            tables.router_ports.insert(uuid(3, 1), lrp());
        });
        made(&mut world, &web(), plain());
        assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:00:00:02 10.0.0.2"));
    }
}

#[test]
fn a_request_outside_the_subnet_names_the_subnet() {
    for ip in ["10.17.0.1", "10.16.0.0", "10.16.255.255", "fd00::1"] {
        let mut world = world();
        made(&mut world, &web(), at(ip));
        let outside = format!(
            "{ip} cannot be used on the logical switch blue: its subnet is 10.16.0.0/16. Choose a host address in the subnet."
        );
        waits_in_vain(&world, &web(), &outside);
    }
}

#[test]
fn a_held_request_names_its_holder_and_is_granted_when_it_goes() {
    let mut world = world();
    world.edit(|tables| foreign(tables, 0, "printer", &["02:00:00:00:00:09 10.16.0.9"]));
    made(&mut world, &web(), at("10.16.0.9"));
    let held = "10.16.0.9 on the logical switch blue is held by the port printer, which ovn-kubevirt does not manage. \
        Choose another address, or wait: it is granted as soon as it is free.";
    waits_in_vain(&world, &web(), held);
    made(&mut world, &db(), Template::new([("mac_address", "02:00:00:00:00:09")]));
    let held = "MAC 02:00:00:00:00:09 on the logical switch blue is held by the port printer, which ovn-kubevirt does not \
        manage. Choose another MAC, or wait: it is granted as soon as it is free.";
    waits_in_vain(&world, &db(), held);
    world.edit(|tables| tables.remove_port(uuid(2, 0)));
    world.settle(100);
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:10:00:09 10.16.0.9"));
    assert_eq!(world.addresses(&db()).as_deref(), Some("02:00:00:00:00:09 10.16.0.2"));
}

#[test]
fn a_request_that_cannot_be_understood_leaves_the_lease_alone() {
    let mut world = world();
    made(&mut world, &web(), at("10.16.0"));
    let malformed = "The annotation ovn.kubernetes.io/ip_address is \"10.16.0\", which cannot be read. \
        Write one IPv4 address, one IPv6 address, both with a comma between, or none.";
    waits_in_vain(&world, &web(), malformed);
    made(&mut world, &web(), at("10.16.0.15"));
    let row = world.row(&web());
    made(&mut world, &web(), at("10.16.0"));
    assert_eq!((world.complaints(&web()), world.row(&web())), (vec![malformed.to_owned()], row));
}

#[test]
fn a_taken_port_name_gets_the_network_appended_and_the_vm_waits_if_that_is_taken_too() {
    let mut world = world();
    world.edit(|tables| foreign(tables, 0, "web.n", &["unknown"]));
    world.edit(|tables| foreign(tables, 1, "db.n", &["unknown"]));
    world.edit(|tables| foreign(tables, 2, "db.n.default", &["unknown"]));
    made(&mut world, &web(), plain());
    let (port, row) = world.row(&web()).expect("its port");
    assert_eq!((port, row.name.as_str()), (port_uuid(INSTANCE, "web.n.default"), "web.n.default"));
    made(&mut world, &db(), plain());
    let taken = "The port names db.n and db.n.default are taken by rows that do not belong to this NIC. \
        Delete one of these rows, or rename the VM.";
    waits_in_vain(&world, &db(), taken);
    world.edit(|tables| tables.ports.get_mut(&uuid(2, 2)).expect("the third").name = "other".into());
    world.settle(100);
    assert_eq!(world.row(&db()).map(|(_, row)| row.name), Some("db.n.default".into()));
}

#[test]
fn a_request_that_is_held_follows_its_switchs_name() {
    let config = || map([("subnet", "10.0.0.0/29"), ("exclude_ips", "10.0.0.2")]);
    let mut world = World::new([("blue", config()), ("red", config())]);
    world.edit(|tables| foreign(tables, 0, "printer", &["02:00:00:00:00:09 10.0.0.2"]));
    made(&mut world, &web(), at("10.0.0.2"));
    made(&mut world, &db(), Template::new([("mac_address", "02:00:00:00:00:09")]));
    assert_eq!((world.row(&web()), world.row(&db())), (None, None));
    world.edit(|tables| {
        for (slot, name) in [(0, "old"), (1, "blue")] {
            tables.switches.get_mut(&uuid(1, slot)).expect("a switch").name = name.into();
        }
    });
    world.settle(100);
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:00:00:02 10.0.0.2"));
    assert_eq!(world.addresses(&db()).as_deref(), Some("02:00:00:00:00:09 10.0.0.3"));
}

/// A person writes this into the `addresses` of web's row; db has 10.16.0.3.
fn overwritten(addresses: &[&str]) -> World {
    let mut world = world();
    made(&mut world, &web(), plain());
    made(&mut world, &db(), plain());
    let (port, _) = world.row(&web()).expect("its port");
    world.edit(|tables| {
        let row = tables.ports.get_mut(&port).expect("the port");
        row.addresses = addresses.iter().map(|text| (*text).to_owned()).collect();
    });
    world
}

#[test]
fn overwritten_addresses_are_repaired_from_port_security() {
    let others = "0a:58:0a:10:00:02 10.16.0.3";
    for addresses in [&[][..], &["dynamic"], &["unknown"], &["nonsense"], &["0a:58:0a:10:00:02"], &[others]] {
        let mut world = overwritten(addresses);
        world.settle(100);
        let (_, row) = world.row(&web()).expect("its port");
        let expected = Elements::from_iter(["0a:58:0a:10:00:02 10.16.0.2".to_owned()]);
        assert_eq!((&row.addresses, &row.port_security), (&expected, &expected), "overwritten with {addresses:?}");
    }
}

#[test]
fn overwritten_addresses_are_not_allocated_before_they_are_repaired() {
    let mut world = overwritten(&["dynamic"]);
    let third = VmKey::new("m", "third");
    // Decided before the port that is to be repaired, in the same transaction.
    world.dirty = crate::plan::Queue::default();
    world.apply(&third, plain());
    world.mark(web());
    world.settle(100);
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:10:00:02 10.16.0.2"));
    assert_eq!(world.addresses(&third).as_deref(), Some("0a:58:0a:10:00:04 10.16.0.4"));
}

#[test]
fn a_vm_that_loses_the_last_address_within_a_transaction_is_decided_again() {
    let mut world = World::new([("blue", map([("subnet", "10.0.0.0/30")]))]);
    world.apply(&web(), plain());
    world.apply(&db(), plain());
    world.transact(2);
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:00:00:02 10.0.0.2"));
    // The transaction might be refused: only its outcome tells that the subnet is full.
    assert_eq!((world.problems(&db()), world.dirty.is_empty()), (vec![], false));
    world.settle(100);
    let subnet = vec!["10.0.0.0/30".parse().expect("a network")];
    let full = Problem::SubnetExhausted { switch: "blue".into(), subnet, ipv4: true };
    assert_eq!((world.problems(&db()), world.row(&db())), (vec![full], None));
}

#[test]
fn a_port_that_is_put_elsewhere_by_hand_takes_its_addresses_along() {
    let mut northbound = world().northbound;
    let red = LogicalSwitch { name: "red".into(), ..Default::default() };
    northbound.put_switch(uuid(1, 1), red);
    let addresses = Elements::from_iter(["02:00:00:00:00:09 10.16.0.9".to_owned()]);
    northbound.put_port(uuid(2, 0), LogicalSwitchPort { name: "printer".into(), addresses, ..Default::default() });
    let ip = "10.16.0.9".parse().expect("an address");
    let on = |slot: Option<u8>| if slot.is_some() { vec![uuid(2, 0)] } else { vec![] };
    for slot in [Some(0), Some(1), None] {
        northbound.place_port(uuid(2, 0), slot.map(|slot| uuid(1, slot)));
        assert_eq!(northbound.holders(&uuid(1, 0), ip), on(slot.filter(|slot| *slot == 0)));
        assert_eq!(northbound.holders(&uuid(1, 1), ip), on(slot.filter(|slot| *slot == 1)));
        assert!(northbound.rebuilt().holds_the_same(&northbound));
    }
}

#[test]
fn a_reservation_is_not_given_to_another_of_its_transaction() {
    for request in [at("10.16.0.3"), plain()] {
        let mut world = world();
        world.run(&web(), plain(), "n1");
        world.apply(&web(), at("10.16.0.3"));
        world.apply(&db(), request);
        world.transact(2);
        world.settle(100);
        let (_, row) = world.row(&web()).expect("its port");
        assert_eq!(row.external_ids.get(keys::NEXT_ADDRESSES), Some("0a:58:0a:10:00:02 10.16.0.3"));
        assert!(world.addresses(&db()).is_none_or(|text| text.ends_with(" 10.16.0.4")));
    }
}

#[test]
fn a_foreign_duplicate_of_a_reservation_is_named_and_not_followed() {
    // Its UUID stands before ours, and after.
    for printer in [Uuid::from_u128(1), Uuid::max()] {
        let mut world = world();
        world.run(&web(), plain(), "n1");
        made(&mut world, &web(), at("10.16.0.9"));
        world.edit(|tables| {
            let addresses = Elements::from_iter(["02:00:00:00:00:09 10.16.0.9".to_owned()]);
            let row = LogicalSwitchPort { name: "printer".into(), addresses, ..Default::default() };
            tables.put_port(uuid(1, 0), printer, row);
        });
        world.restart(&web(), "n1");
        let held = "10.16.0.9 on the logical switch blue is held by the port printer, which ovn-kubevirt does not manage. \
            Choose another address, or wait: it is granted as soon as it is free.";
        assert_eq!(world.complaints(&web()), [held]);
        assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:10:00:02 10.16.0.2"));
        world.edit(|tables| tables.remove_port(printer));
        world.settle(100);
        assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:10:00:02 10.16.0.9"));
    }
}

#[test]
fn a_mac_generated_from_an_address_gives_way_to_a_requested_mac() {
    let mut world = world();
    let request = [("ip_address", "10.16.0.9"), ("mac_address", "0a:58:0a:10:00:02")];
    world.apply(&web(), Template::new(request));
    world.apply(&db(), plain());
    world.transact(2);
    let mac = |text: String| text.split_once(' ').map(|(mac, ip)| (mac.to_owned(), ip.to_owned()));
    let (mac, ip) = world.addresses(&db()).and_then(mac).expect("its port");
    assert_eq!(ip, "10.16.0.2");
    assert!(mac.starts_with("0a:58:") && mac != "0a:58:0a:10:00:02", "{mac}");
}

#[test]
fn one_name_is_not_given_twice_in_a_transaction() {
    let mut world = world();
    world.edit(|tables| foreign(tables, 0, "a.n", &["unknown"]));
    let (first, second) = (VmKey::new("n", "a"), VmKey::new("m", "a.n"));
    world.apply(&first, Template { network: Some("m".into()), ..Template::default() });
    world.apply(&second, plain());
    world.transact(2);
    world.settle(100);
    let name = |vm| world.row(vm).map(|(_, row)| row.name);
    assert_eq!((name(&first), name(&second)), (Some("a.n.m".into()), Some("a.n.m.default".into())));
}
