//! The owner of a row, where a person or another instance has changed its marks.

use super::objects::Template;
use super::world::{INSTANCE, World, map, uuid};
use crate::contract::{VmKey, keys, port_uuid};
use crate::ovn::{LogicalSwitchPort, PortMarks};

fn vm(name: &str) -> VmKey {
    VmKey::new("n", name)
}

/// A VM that runs, with an address that it would not be given now.
fn running() -> World {
    let mut world = World::new([("blue", map([("subnet", "10.0.0.0/24"), ("exclude_ips", "10.0.0.1..10.0.0.9")]))]);
    world.run(&vm("x"), Template::new([]), "n1");
    world.run(&vm("a"), Template::new([]), "n1");
    world.destroy(&vm("x"));
    world
}

fn meddle(world: &mut World, meddle: impl FnOnce(&mut LogicalSwitchPort)) {
    let port = port_uuid(INSTANCE, "a.n");
    world.edit(|tables| meddle(tables.ports.get_mut(&port).expect("a.n")));
    world.settle(1);
}

#[test]
fn a_row_whose_marks_were_removed_is_found_by_its_uuid_and_marked_again() {
    let mut world = running();
    let before = world.tables.clone();
    for key in [keys::VENDOR, keys::INSTANCE, keys::VM, keys::VM_UID, keys::NETWORK] {
        meddle(&mut world, |row| row.external_ids.remove(key));
        assert_eq!(world.tables, before, "without {key}");
    }
    meddle(&mut world, |row| row.external_ids = PortMarks::default());
    assert_eq!(world.tables, before);
    meddle(&mut world, |row| row.external_ids.insert(keys::VM, "n/ghost"));
    assert_eq!(world.tables, before);
    // All at once, and after a restart: the replica never saw the marks.
    world.edit(|tables| {
        let row = tables.ports.get_mut(&port_uuid(INSTANCE, "a.n")).expect("a.n");
        row.external_ids = PortMarks::default();
        row.addresses = Default::default();
    });
    world.northbound = world.tables.replica(INSTANCE);
    world.northbound.take_changes();
    world.vms().into_iter().for_each(|vm| world.mark(vm));
    world.settle(1);
    assert_eq!(world.tables, before);
}

#[test]
fn a_row_without_marks_goes_with_its_vm_and_never_with_another() {
    let mut world = running();
    world.edit(|tables| {
        let port = port_uuid(INSTANCE, "a.n");
        tables.ports.get_mut(&port).expect("a.n").external_ids = PortMarks::default();
        // Its name may be that of `a` in `n`, on the network `red`, or of `a.n` in `red`.
        let row = LogicalSwitchPort { name: "a.n.red".into(), ..Default::default() };
        tables.put_port(uuid(1, 0), port_uuid(INSTANCE, "a.n.red"), row);
    });
    world.settle(1);
    let there = |world: &World, name: &str| world.tables.port_named(name).is_some();
    assert!(there(&world, "a.n") && there(&world, "a.n.red"));
    world.edit(|tables| {
        let port = port_uuid(INSTANCE, "a.n");
        tables.ports.get_mut(&port).expect("a.n").external_ids = PortMarks::default();
    });
    world.destroy(&vm("a"));
    let all = world.vms();
    all.into_iter().for_each(|vm| world.mark(vm));
    world.settle(1);
    assert!(!there(&world, "a.n") && !there(&world, "a.n.red"), "{:#?}", world.tables.ports);
}

#[test]
fn a_row_without_marks_that_may_be_anothers_is_left_alone_but_for_its_lease() {
    // The name a.n.m may be that of `a` in `n` on the network `m`, and is that of `a.n` in `m`.
    let mut world = running();
    let (namesake, port) = (VmKey::new("m", "a.n"), port_uuid(INSTANCE, "a.n.m"));
    world.apply(&namesake, Template::new([]));
    world.settle(1);
    let before = world.tables.ports[&port].clone();
    let anothers = world.tables.ports[&port_uuid(INSTANCE, "a.n")].addresses.clone();
    let strip = |world: &mut World| {
        world.edit(|tables| {
            let row = tables.ports.get_mut(&port).expect("a.n.m");
            (row.external_ids, row.port_security) = (PortMarks::default(), anothers.clone());
        });
    };
    world.delete(&namesake);
    strip(&mut world);
    world.settle(1);
    let left = LogicalSwitchPort { external_ids: PortMarks::default(), ..before };
    assert_eq!(world.tables.ports.get(&port), Some(&left));
    // Drift of a row that stands without its VM is repaired as well.
    strip(&mut world);
    world.settle(1);
    assert_eq!(world.tables.ports.get(&port), Some(&left));
    // Only the end of the other VM shows the owner of the row.
    world.destroy(&vm("a"));
    assert_eq!(world.tables.ports.get(&port), None);
}

/// A person has a port connect a router, with these networks.
pub(super) fn connect_a_router(world: &mut World, port: uuid::Uuid, networks: &[&str]) {
    world.edit(|tables| {
        let networks = networks.iter().map(|network| (*network).to_owned()).collect();
        let row = crate::ovn::LogicalRouterPort { name: "lrp0".into(), networks, ..Default::default() };
        tables.router_ports.insert(uuid(3, 0), row);
        let row = tables.ports.get_mut(&port).expect("the port");
        row.kind = "router".into();
        row.options.insert(keys::ROUTER_PORT, "lrp0");
    });
    world.settle(1);
}

#[test]
fn a_row_gets_its_name_and_its_type_back() {
    let mut world = running();
    let before = world.tables.clone();
    meddle(&mut world, |row| row.name = "renamed".into());
    assert_eq!(world.tables, before);
    for kind in ["virtual", "router", "localnet", "vtep"] {
        meddle(&mut world, |row| row.kind = kind.into());
        assert_eq!(world.tables, before, "{kind}");
    }
}

#[test]
fn a_name_that_another_port_has_and_a_router_connection_are_reported() {
    let mut world = running();
    let port = port_uuid(INSTANCE, "a.n");
    world.edit(|tables| {
        tables.ports.get_mut(&port).expect("a.n").name = "renamed".into();
        let row = LogicalSwitchPort { name: "a.n".into(), ..Default::default() };
        tables.put_port(uuid(1, 0), uuid(2, 0), row);
    });
    world.settle(1);
    assert_eq!(world.tables.ports[&port].name, "renamed");
    assert!(world.complaints(&vm("a"))[0].contains("a.n"), "{:?}", world.complaints(&vm("a")));
    world.edit(|tables| tables.remove_port(uuid(2, 0)));
    world.settle(1);
    assert_eq!((world.tables.ports[&port].name.as_str(), world.complaints(&vm("a"))), ("a.n", vec![]));
    connect_a_router(&mut world, port, &[]);
    assert_eq!(world.tables.ports[&port].kind, "router");
    let problems: Vec<_> = world.problems(&vm("a")).iter().map(|problem| problem.reason()).collect();
    assert_eq!(problems, ["PortTypeConflict"]);
}

#[test]
fn in_a_namespace_that_is_no_longer_selected_ports_follow_their_vms_and_no_port_is_created() {
    let mut world = running();
    world.unselect("n");
    world.settle(1);
    let row = |world: &World| world.row(&vm("a")).expect("a port").1;
    assert_eq!(row(&world).external_ids.get(keys::HANDOVER), Some("true"));
    let problems: Vec<_> = world.problems(&vm("a")).iter().map(|problem| problem.reason()).collect();
    assert_eq!(problems, ["NamespaceNotSelected"]);
    let addresses = world.addresses(&vm("a"));
    world.restart(&vm("a"), "n2");
    assert_eq!(row(&world).options.get(keys::REQUESTED_CHASSIS), Some("n2"));
    world.run(&vm("b"), Template::new([]), "n1");
    assert_eq!((world.addresses(&vm("b")), world.addresses(&vm("a"))), (None, addresses));
    world.namespace("n", None);
    world.settle(1);
    assert_eq!((row(&world).external_ids.get(keys::HANDOVER), world.problems(&vm("a"))), (None, vec![]));
    assert!(world.addresses(&vm("b")).is_some());
    world.unselect("n");
    world.destroy(&vm("a"));
    assert_eq!(world.row(&vm("a")), None);
}

#[test]
fn a_row_that_another_instance_offers_is_taken_over_as_it_is_and_no_other() {
    let mut world = World::new([("blue", map([("subnet", "10.0.0.0/24")]))]);
    let port = port_uuid("other", "a.n");
    let text = "0a:58:0a:00:00:09 10.0.0.9";
    let set = || [text.to_owned()].into_iter().collect();
    world.edit(|tables| {
        let external_ids = map([
            (keys::VENDOR, keys::OUR_VENDOR),
            (keys::INSTANCE, "other"),
            (keys::VM, "n/a"),
            (keys::NETWORK, "default"),
        ]);
        let row = LogicalSwitchPort {
            name: "a.n".into(),
            addresses: set(),
            port_security: set(),
            external_ids,
            ..Default::default()
        };
        tables.put_port(uuid(1, 0), port, row);
    });
    world.run(&vm("a"), Template::new([]), "n1");
    assert_eq!(world.row(&vm("a")), None);
    assert!(world.complaints(&vm("a"))[0].contains("instance other"), "{:?}", world.complaints(&vm("a")));
    world.edit(|tables| {
        tables.ports.get_mut(&port).expect("a.n").external_ids.insert(keys::HANDOVER, "true");
    });
    world.settle(1);
    let (uuid, row) = world.row(&vm("a")).expect("taken over");
    assert_eq!((uuid, world.addresses(&vm("a")).as_deref()), (port, Some(text)));
    assert_eq!((row.external_ids.get(keys::HANDOVER), row.external_ids.get(keys::INSTANCE)), (None, Some(INSTANCE)));
    assert_eq!((row.options.get(keys::REQUESTED_CHASSIS), world.problems(&vm("a"))), (Some("n1"), vec![]));
}

#[test]
fn a_row_that_keeps_the_name_of_another_network_is_found_by_the_annotation_when_its_marks_are_gone() {
    let mut world = running();
    world.nad("n", "net1", Some("blue"));
    world.nad("n", "net2", Some("blue"));
    let on = |nad| Template::new([]).with([("data", nad)]);
    world.run(&vm("b"), on("net1"), "n1");
    world.apply(&vm("b"), on("net2"));
    world.restart(&vm("b"), "n1");
    let port = port_uuid(INSTANCE, "b.n.net1.n.ovn");
    let before = world.tables.ports.clone();
    assert!(before[&port].external_ids.get(keys::BASE_NAME).is_some(), "{before:#?}");
    world.edit(|tables| tables.ports.get_mut(&port).expect("there").external_ids = PortMarks::default());
    world.settle(1);
    assert_eq!(world.tables.ports, before);
}

#[test]
fn a_port_that_connects_a_router_stays_on_its_switch_until_the_router_port_goes() {
    let subnet = |text| map([("subnet", text)]);
    let mut world = World::new([("blue", subnet("10.16.0.0/16")), ("red", subnet("10.17.0.0/16"))]);
    world.apply(&vm("a"), Template::new([]));
    world.settle(1);
    let port = port_uuid(INSTANCE, "a.n");
    connect_a_router(&mut world, port, &[]);
    world.apply(&vm("a"), Template::new([("logical_switch", "red")]));
    world.settle(1);
    assert_eq!(world.tables.switch_of(&port), Some(uuid(1, 0)), "{:?}", world.complaints(&vm("a")));
    assert_eq!(world.complaints(&vm("a")).len(), 1, "{:?}", world.complaints(&vm("a")));
    world.edit(|tables| drop(tables.router_ports.remove(&uuid(3, 0))));
    world.settle(1);
    assert_eq!(world.tables.switch_of(&port), Some(uuid(1, 1)));
    assert_eq!((world.tables.ports[&port].kind.as_str(), world.complaints(&vm("a"))), ("", vec![]));
}

#[test]
fn a_copy_of_a_vms_marks_is_left_alone_and_the_rows_do_not_give_the_status() {
    let mut world = running();
    let (_, row) = world.row(&vm("a")).expect("the port");
    let copy =
        LogicalSwitchPort { name: "copy".into(), external_ids: row.external_ids, ..LogicalSwitchPort::default() };
    world.edit(|tables| tables.put_port(uuid(1, 0), uuid(2, 9), copy));
    world.settle(1);
    let decision = world.look_at(&vm("a"));
    assert_eq!((decision.rows.len(), decision.status.ports.len()), (0, 1));
    assert!(!decision.status.follows_from_rows(), "a ledger has to keep it");
}
