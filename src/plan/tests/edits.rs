//! The effect on lease and status of edits of a VM, and of edits of its row by other programs, by example.

use std::borrow::Cow;

use super::attachments::world;
use super::examples::{at, db, made, plain, web};
use super::objects::Template;
use super::world::{World, map, uuid};
use crate::contract::{VmKey, keys};
use crate::intent::Permissions;
use crate::ovn::{Elements, LogicalRouterPort, LogicalSwitchPort};

fn ip(world: &World, vm: &VmKey) -> Option<String> {
    world.addresses(vm).and_then(|text| text.split_once(' ').map(|(_, ip)| ip.to_owned()))
}

#[test]
fn port_security_with_another_vms_address_is_not_followed() {
    for which in [&["0a:58:0a:00:00:03 10.0.0.2"][..], &["0a:58:0a:00:00:03 10.0.0.2", "0a:58:0a:00:00:03 10.0.0.3"]] {
        let mut world = world();
        made(&mut world, &db(), plain());
        world.run(&web(), plain(), "n1");
        assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:00:00:03 10.0.0.3"));
        let (port, _) = world.row(&web()).expect("its port");
        world.edit(|tables| {
            let row = tables.ports.get_mut(&port).expect("the port");
            row.port_security = which.iter().map(|text| (*text).to_owned()).collect();
        });
        world.settle(100);
        assert_eq!(
            (world.addresses(&web()).as_deref(), world.addresses(&db()).as_deref()),
            (Some("0a:58:0a:00:00:03 10.0.0.3"), Some("0a:58:0a:00:00:02 10.0.0.2")),
            "{which:?}"
        );
    }
}

#[test]
fn a_widened_port_security_moves_no_lease() {
    let mut world = world();
    world.run(&web(), at("10.0.0.5"), "n1");
    let before = world.addresses(&web());
    let (port, _) = world.row(&web()).expect("its port");
    made(&mut world, &db(), at("10.0.0.9"));
    world.apply(&web(), plain());
    world.restart(&web(), "n1");
    world.edit(|tables| {
        let row = tables.ports.get_mut(&port).expect("the port");
        let both = row.port_security.iter().map(Cow::into_owned).chain(["0a:58:0a:00:00:05 10.0.0.2".to_owned()]);
        row.port_security = both.collect();
    });
    world.settle(100);
    assert_eq!(world.addresses(&web()), before);
}

#[test]
fn a_request_for_a_missing_switch_leaves_the_lease_unchanged() {
    let mut world = world();
    made(&mut world, &web(), plain());
    let lease = world.addresses(&web());
    made(&mut world, &web(), Template::new([("logical_switch", "violet"), ("ip_address", "10.0.0.9")]));
    assert_eq!(world.addresses(&web()), lease);
}

#[test]
fn a_request_for_a_missing_switch_has_one_problem() {
    let mut world = world();
    made(&mut world, &web(), plain());
    made(&mut world, &web(), Template::new([("logical_switch", "violet"), ("ip_address", "10.9.0.9")]));
    assert_eq!(world.complaints(&web()).len(), 1, "{:?}", world.complaints(&web()));
}

#[test]
fn a_vm_recreated_on_another_switch_while_its_old_launcher_runs_has_one_problem() {
    let mut world = world();
    world.run(&web(), plain(), "n1");
    world.delete(&web());
    world.stop(&web());
    made(&mut world, &web(), Template::new([("logical_switch", "red"), ("ip_address", "10.1.0.9")]));
    assert_eq!(world.complaints(&web()).len(), 1, "{:?}", world.complaints(&web()));
}

#[test]
fn a_reservation_stands_while_the_rest_of_the_request_is_refused() {
    let mut world = world();
    made(&mut world, &db(), Template::new([("mac_address", "02:00:00:00:00:01"), ("ip_address", "10.0.0.100")]));
    world.run(&web(), plain(), "n1");
    made(&mut world, &web(), at("10.0.0.15"));
    assert!(world.row(&web()).expect("port").1.external_ids.get(keys::NEXT_ADDRESSES).is_some());
    made(&mut world, &web(), Template::new([("ip_address", "10.0.0.15"), ("mac_address", "02:00:00:00:00:01")]));
    let third = VmKey::new("m", "third");
    made(&mut world, &third, at("10.0.0.15"));
    assert_eq!(ip(&world, &third), None);
}

#[test]
fn without_port_security_an_overwritten_lease_is_restored() {
    let mut world = world();
    world.settings.policy.allow = Permissions::all();
    world.resting = true;
    world.run(&web(), Template::new([("port_security", "false")]), "n1");
    let before = world.addresses(&web());
    let (port, _) = world.row(&web()).expect("its port");
    world.edit(|tables| {
        tables.ports.get_mut(&port).expect("it").addresses = Elements::from_iter(["unknown".to_owned()])
    });
    world.settle(100);
    assert_eq!(world.addresses(&web()), before);
}

#[test]
fn a_missing_switch_is_reported_at_once_for_a_running_vm() {
    let mut world = world();
    world.run(&web(), plain(), "n1");
    made(&mut world, &web(), Template::new([("logical_switch", "violet")]));
    let told = world.complaints(&web());
    assert!(told.iter().any(|text| text.contains("no logical switch named violet")), "{told:?}");
}

#[test]
fn retention_is_noted_on_a_port_whose_move_is_refused() {
    let mut world = world();
    made(&mut world, &web(), plain());
    made(&mut world, &db(), Template::new([("logical_switch", "red"), ("ip_address", "10.1.0.9")]));
    made(
        &mut world,
        &web(),
        Template::new([("logical_switch", "red"), ("ip_address", "10.1.0.9")])
            .annotated("ovn-kubevirt.io/retain", "72h"),
    );
    world.destroy(&web());
    assert!(world.row(&web()).is_some());
}

#[test]
fn a_mistyped_retention_releases_no_lease() {
    let mut world = world();
    let retain = |text| plain().annotated("ovn-kubevirt.io/retain", text);
    made(&mut world, &web(), retain("72h"));
    made(&mut world, &web(), retain("3 days"));
    world.destroy(&web());
    assert!(world.row(&web()).is_some(), "an unreadable retention does not release the lease");
}

#[test]
fn a_message_for_a_stopped_vm_does_not_say_that_it_runs() {
    let mut world = world();
    made(&mut world, &web(), plain());
    made(&mut world, &web(), Template::new([("ip_pool", "10.9.0.0/16")]));
    let told = world.complaints(&web());
    assert!(!told.iter().any(|text| text.contains("while it runs")), "{told:#?}");
}

#[test]
fn the_broadcast_address_of_one_network_is_not_chosen_by_a_wider_one() {
    let mut world = World::new([("blue", map([]))]);
    world.edit(|tables| {
        let row = LogicalSwitchPort {
            name: "r".into(),
            kind: "router".into(),
            options: map([("router-port", "lrp")]),
            ..Default::default()
        };
        tables.put_port(uuid(1, 0), uuid(2, 0), row);
        let networks = ["10.0.0.1/30", "10.0.0.5/29"].map(String::from).into_iter().collect();
        let row =
            LogicalRouterPort { name: "lrp".into(), mac: "02:00:00:00:00:01".into(), networks, ..Default::default() };
        tables.router_ports.insert(uuid(3, 0), row);
    });
    let mut got = Vec::new();
    for index in 0..6 {
        let vm = VmKey::new("n", format!("vm{index}"));
        made(&mut world, &vm, plain());
        got.extend(ip(&world, &vm));
    }
    assert!(!got.contains(&"10.0.0.3".to_owned()), "{got:?}");
}

#[test]
fn a_lease_that_is_lost_is_allocated_again_from_free_addresses() {
    let mut world = World::new([("blue", map([("subnet", "10.0.0.0/29"), ("exclude_ips", "10.0.0.4..10.0.0.6")]))]);
    made(&mut world, &db(), plain());
    made(&mut world, &web(), plain());
    let (port, _) = world.row(&web()).expect("its port");
    world.edit(|tables| {
        let row = tables.ports.get_mut(&port).expect("the port");
        row.addresses = Elements::default();
        row.port_security = Elements::from_iter(["0a:58:0a:00:00:02 10.0.0.3".to_owned()]);
    });
    world.settle(100);
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:00:00:03 10.0.0.3"));
    assert_eq!(world.addresses(&db()).as_deref(), Some("0a:58:0a:00:00:02 10.0.0.2"));
}

#[test]
fn an_edit_of_a_retained_port_does_not_change_its_lease() {
    let mut world = world();
    made(&mut world, &db(), plain());
    made(&mut world, &web(), plain().annotated("ovn-kubevirt.io/retain", "72h"));
    let lease = world.addresses(&web());
    world.destroy(&web());
    let (port, _) = world.row(&web()).expect("it is retained");
    for written in ["0a:58:0a:00:00:02 10.0.0.2", "0a:58:0a:00:00:03 10.0.0.2"] {
        world.edit(|tables| {
            tables.ports.get_mut(&port).expect("the port").port_security = Elements::from_iter([written.to_owned()]);
        });
        world.settle(100);
        let (_, row) = world.row(&web()).expect("it is retained");
        assert_eq!((world.addresses(&web()), &row.port_security), (lease.clone(), &row.addresses));
    }
}

#[test]
fn an_address_written_into_one_port_is_not_taken_from_the_port_that_holds_it() {
    let mut world = world();
    world.settings.policy.allow = Permissions::all();
    made(&mut world, &web(), Template::new([("port_security", "false")]));
    made(&mut world, &db(), plain());
    let leases = |world: &World| (world.addresses(&web()), world.addresses(&db()));
    let before = leases(&world);
    let (port, _) = world.row(&db()).expect("its port");
    world.edit(|tables| {
        let row = tables.ports.get_mut(&port).expect("the port");
        row.port_security = Elements::from_iter(["0a:58:0a:00:00:03 10.0.0.2".to_owned()]);
    });
    world.settle(100);
    assert_eq!(leases(&world), before);
}

#[test]
fn an_address_written_into_port_security_is_not_reserved() {
    let mut world = world();
    made(&mut world, &web(), plain());
    let (port, row) = world.row(&web()).expect("its port");
    let both: Vec<String> =
        row.addresses.iter().map(Cow::into_owned).chain(["0a:58:0a:00:00:02 10.9.0.9".to_owned()]).collect();
    world.apply(&web(), at("10.9.0.9"));
    world.edit(|tables| tables.ports.get_mut(&port).expect("the port").port_security = both.into_iter().collect());
    world.settle(100);
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.0.0.2"));
    assert_eq!(world.complaints(&web()).len(), 1, "it is no address of the subnet");
}

#[test]
fn a_reservation_from_a_pool_is_released_when_an_address_is_requested() {
    let mut world = world();
    made(&mut world, &db(), at("10.0.0.40"));
    world.run(&web(), plain(), "n1");
    let pool = || Template::new([("ip_pool", "10.0.0.20..10.0.0.50")]);
    made(&mut world, &web(), pool());
    let next = |world: &World| {
        world.row(&web()).and_then(|(_, row)| row.external_ids.get(keys::NEXT_ADDRESSES).map(ToOwned::to_owned))
    };
    assert!(next(&world).is_some_and(|next| next.ends_with(" 10.0.0.20")));
    made(&mut world, &web(), pool().annotated("ovn.kubernetes.io/ip_address", "10.0.0.40"));
    assert_eq!(next(&world), None);
}
