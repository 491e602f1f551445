//! A VM's lost row gets its lease back from the annotation with the last status, and the lease is kept for it meanwhile.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::objects::Template;
use super::policy_rules::{may_use, opens};
use super::rules::claims;
use super::services;
use super::world::{INSTANCE, World, map, uuid};
use crate::contract::{VmKey, keys};
use crate::kubevirt::{AnnotatedPort, PortsAnnotation};
use crate::ovn::{Addresses, LogicalSwitch, LogicalSwitchPort};
use crate::plan::PortChange;

fn told(world: &World, vm: &VmKey) -> Vec<AnnotatedPort> {
    let present = world.present.get(vm).filter(|present| present.template.is_some());
    let told = present.and_then(|present| Some((PortsAnnotation::parse(present.told.as_deref()?)?, &present.uid)));
    let told = told.filter(|(told, uid)| told.is_for(uid)).map(|(told, _)| told);
    told.map(|told| told.ports).unwrap_or_default()
}

/// Switch, MAC and addresses of a port in the annotation.
fn lease(port: &AnnotatedPort) -> Option<(&str, Addresses)> {
    let text = port.last.clone().or_else(|| Some(format!("{} {}", port.mac.as_ref()?, port.ips.join(" "))))?;
    Some((port.switch.as_deref()?, text.parse().ok()?))
}

/// All addresses and MACs in a VM's annotation.
pub(super) fn last(world: &World, vm: &VmKey) -> BTreeSet<String> {
    let told = told(world, vm);
    let leases = told.iter().filter_map(lease).map(|(_, addresses)| addresses.to_string());
    leases.flat_map(|text| text.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>()).collect()
}

/// A recreated port has the lease in its VM's annotation, unless the VM requests another or another port holds it. It has
/// no address from the annotation of another VM with a lost port, unless its VM requests that.
pub(super) fn a_lost_lease_is_restored_from_the_annotation(
    world: &World,
    vm: &VmKey,
    changes: &[PortChange],
    in_company: &[PortChange],
) {
    let Some(intent) = world.intent(vm) else { return };
    for PortChange { uuid, before, after } in changes {
        let (None, Some(after)) = (before, after) else { continue };
        let network = after.row.external_ids.get(keys::NETWORK).expect("our row");
        let switch = &world.tables.switches[&after.switch];
        let new: Addresses = after.row.addresses.iter().next().and_then(|text| text.parse().ok()).expect("addresses");
        let request =
            intent.ports.iter().find(|nic| nic.network == network).and_then(|nic| nic.life.request().clone().ok());
        let request = request.unwrap_or_default();
        let mut held: BTreeSet<String> = services::on_switch(&world.tables, after.switch);
        held.extend(switch.ports.iter().filter(|port| *port != uuid).flat_map(|port| {
            let row: &LogicalSwitchPort = &world.tables.ports[port];
            claims(&world.tables, port, row)
        }));
        let company = in_company.iter().chain(changes).filter(|change| change.uuid != *uuid);
        let company = company.filter_map(|change| change.after.as_ref().map(|after| (&change.uuid, after)));
        held.extend(
            company
                .filter(|(_, other)| other.switch == after.switch)
                .flat_map(|(port, other)| claims(&world.tables, port, &other.row)),
        );
        let lost: Vec<(VmKey, Addresses, bool)> = lost_on(world, &switch.name);
        let guests = lost.iter().filter(|(other, _, runs)| other < vm && *runs);
        let guests: BTreeSet<IpAddr> = guests.flat_map(|(_, addresses, _)| addresses.ips()).collect();
        let subnet = world.northbound.subnet(&after.switch).ok();
        let own = told(world, vm).into_iter().find(|port| port.network == network);
        let own = own.as_ref().and_then(lease).filter(|(on, _)| *on == switch.name).map(|(_, addresses)| addresses);
        for ip in own.iter().flat_map(Addresses::ips) {
            let named = if ip.is_ipv4() { request.ipv4.is_some() } else { request.ipv6.is_some() };
            let explicit = named || request.no_address;
            let by_pool = request.pool.as_ref().is_some_and(|pool| !pool.is_empty(ip.is_ipv4()));
            let fits = subnet.as_ref().is_some_and(|subnet| subnet.block_of(ip).is_some());
            let fits = fits && opens(world, &after.switch, ip);
            if !explicit && !by_pool && fits && !held.contains(&ip.to_string()) && !guests.contains(&ip) {
                assert!(new.ips().any(|new| new == ip), "{vm} was told {ip}, which is free, and gets {new}");
            }
        }
        let kept = lost.iter().filter(|(other, ..)| other != vm && may_use(world, switch, &other.namespace));
        for (other, addresses, _) in kept {
            for ip in addresses.ips().filter(|ip| new.ips().any(|new| new == *ip)) {
                let own_too = own.is_some_and(|own| own.ips().any(|own| own == ip));
                assert!(request.names(ip) || own_too, "{vm} gets {ip}, which {other} has lost");
            }
        }
    }
}

/// The leases on a switch that are in annotations of VMs and have no row, and whether their guests run.
fn lost_on(world: &World, switch: &str) -> Vec<(VmKey, Addresses, bool)> {
    let mut lost = Vec::new();
    let served = |vm: &VmKey| world.cluster.namespace(&vm.namespace).is_some();
    for (vm, present) in world.present.iter().filter(|(vm, _)| served(vm)) {
        let runs = present.pods.iter().any(|pod| pod.live);
        // A lease of a NIC that the VM does not have any more is released, not lost.
        let nics = world.intent(vm).map(|intent| intent.ports).unwrap_or_default();
        let is_there = |port: &AnnotatedPort| {
            let nic = nics.iter().find(|nic| nic.network == port.network);
            let named = nic.and_then(|nic| nic.switch.as_ref());
            named.zip(port.switch.as_ref()).is_some_and(|(named, switch)| named.has(switch))
        };
        let has_row = |network: &str| world.northbound.ports_of(vm).any(|(found, _)| found == network);
        let ports = told(world, vm);
        let ports = ports.iter().filter(|port| is_there(port) && !has_row(&port.network)).filter_map(lease);
        lost.extend(ports.filter(|(on, _)| *on == switch).map(|(_, addresses)| (vm.clone(), addresses, runs)));
    }
    lost
}

const SUBNET: [(&str, &str); 2] = [("subnet", "10.0.0.0/24"), ("exclude_ips", "10.0.0.1..10.0.0.9")];

fn vm(name: &str) -> VmKey {
    VmKey::new("n", name)
}

/// Six running VMs with other addresses than they would be allocated now.
fn six() -> (World, Vec<(VmKey, Option<String>)>) {
    let mut world = World::new([("blue", map(SUBNET))]);
    for name in ["x", "y", "a", "b", "c", "d", "e", "f"] {
        world.run(&vm(name), Template::new([]), "n1");
    }
    ["x", "y"].iter().for_each(|name| world.destroy(&vm(name)));
    let told = ["f", "e", "d", "c", "b", "a"].map(|name| (vm(name), world.addresses(&vm(name))));
    assert!(told.iter().all(|(_, addresses)| addresses.is_some()));
    (world, told.into())
}

fn recreate_switch(world: &mut World) {
    world.edit(|tables| {
        let row = tables.switches.remove(&uuid(1, 0)).expect("blue");
        tables.switches.insert(uuid(1, 16), LogicalSwitch { ports: Default::default(), ..row });
    });
}

#[test]
fn a_recreated_switch_gives_each_guest_its_addresses_again() {
    let (mut world, told) = six();
    recreate_switch(&mut world);
    world.apply(&vm("0new"), Template::new([]));
    world.settle(2);
    for (vm, addresses) in told {
        assert_eq!(world.addresses(&vm), addresses, "{vm}");
        assert_eq!(world.complaints(&vm), Vec::<String>::new());
    }
}

#[test]
fn leases_are_kept_while_their_switch_is_absent() {
    let (mut world, told) = six();
    let row = world.tables.switches[&uuid(1, 0)].clone();
    world.edit(|tables| drop(tables.switches.remove(&uuid(1, 0))));
    world.settle(3);
    assert!(world.complaints(&vm("a"))[0].contains("blue"), "{:?}", world.complaints(&vm("a")));
    world.apply(&vm("0new"), Template::new([]));
    world.settle(3);
    world.edit(|tables| drop(tables.switches.insert(uuid(1, 16), LogicalSwitch { ports: Default::default(), ..row })));
    world.settle(2);
    for (vm, addresses) in told {
        assert_eq!(world.addresses(&vm), addresses, "{vm}");
    }
}

#[test]
fn a_request_gets_the_lost_address_of_a_stopped_vm_but_not_that_of_a_guest() {
    let mut world = World::new([("blue", map(SUBNET))]);
    world.run(&vm("runs"), Template::new([]), "n1");
    world.apply(&vm("stopped"), Template::new([]));
    world.settle(1);
    let addresses = ["runs", "stopped"].map(|name| world.addresses(&vm(name)).expect("a port"));
    assert!(addresses[0].ends_with(" 10.0.0.10") && addresses[1].ends_with(" 10.0.0.11"), "{addresses:?}");
    let row = world.tables.switches[&uuid(1, 0)].clone();
    world.edit(|tables| drop(tables.switches.remove(&uuid(1, 0))));
    world.settle(1);
    world.apply(&vm("w"), Template::new([("ip_address", "10.0.0.10")]));
    world.apply(&vm("z"), Template::new([("ip_address", "10.0.0.11")]));
    world.settle(1);
    world.edit(|tables| drop(tables.switches.insert(uuid(1, 16), LogicalSwitch { ports: Default::default(), ..row })));
    world.settle(1);
    assert_eq!(world.addresses(&vm("runs")).as_deref(), Some(addresses[0].as_str()));
    assert!(world.complaints(&vm("w"))[0].contains("10.0.0.10"), "{:?}", world.complaints(&vm("w")));
    assert!(world.addresses(&vm("z")).is_some_and(|text| text.ends_with(" 10.0.0.11")));
    assert!(world.addresses(&vm("stopped")).is_some_and(|text| text.ends_with(" 10.0.0.12")));
    // There is no problem for its guest, since none runs.
    assert_eq!(world.complaints(&vm("stopped")), Vec::<String>::new());
}

#[test]
fn a_guest_that_lost_its_address_to_another_port_is_reported_until_it_restarts() {
    let mut world = World::new([("blue", map(SUBNET))]);
    world.run(&vm("a"), Template::new([]), "n1");
    let before = world.addresses(&vm("a")).expect("a port");
    world.edit(|tables| {
        let row = tables.switches.remove(&uuid(1, 0)).expect("blue");
        tables.switches.insert(uuid(1, 16), LogicalSwitch { ports: Default::default(), ..row });
        let taken = LogicalSwitchPort {
            name: "foreign".into(),
            addresses: ["02:00:00:00:00:01 10.0.0.10".to_owned()].into_iter().collect(),
            ..Default::default()
        };
        tables.put_port(uuid(1, 16), uuid(2, 0), taken);
    });
    world.settle(1);
    let after = world.addresses(&vm("a")).expect("a port");
    assert!(after.ends_with(" 10.0.0.11") && after != before, "{after}");
    let told = |world: &World| world.problems(&vm("a")).iter().map(|problem| problem.reason()).collect::<Vec<_>>();
    assert_eq!(told(&world), ["GuestHasAnotherAddress"]);
    assert!(world.complaints(&vm("a"))[0].contains(&before), "{:?}", world.complaints(&vm("a")));
    world.mark(vm("a"));
    world.settle(1);
    assert_eq!(told(&world), ["GuestHasAnotherAddress"]);
    world.restart(&vm("a"), "n1");
    assert_eq!((told(&world), world.addresses(&vm("a"))), (vec![], Some(after)));
}

#[test]
fn an_annotation_of_another_vm_requests_no_address() {
    let (mut world, _) = six();
    let text = world.present[&vm("f")].told.clone().expect("told");
    world.destroy(&vm("f"));
    world.apply(&vm("clone"), Template::new([]));
    world.present.get_mut(&vm("clone")).expect("there").told = Some(text);
    world.apply(&vm("clone"), Template::new([]));
    world.settle(1);
    assert!(world.addresses(&vm("clone")).is_some_and(|text| text.ends_with(" 10.0.0.10")));
}

#[test]
fn a_vm_with_the_annotation_of_another_instance_gets_no_port() {
    let mut world = World::new([("blue", map(SUBNET))]);
    world.apply(&vm("a"), Template::new([]));
    let told = |instance: &str, uid: &str| {
        let port = AnnotatedPort { network: "default".into(), port: Some("a.n".into()), ..AnnotatedPort::default() };
        PortsAnnotation { instance: instance.into(), uid: uid.into(), ports: vec![port] }.text()
    };
    let uid = PortsAnnotation::parse(&told(INSTANCE, "vm-1")).expect("told").uid;
    world.present.get_mut(&vm("a")).expect("there").told = Some(told("other", &uid));
    world.apply(&vm("a"), Template::new([]));
    world.transact(1);
    assert_eq!(world.addresses(&vm("a")), None);
    assert!(world.complaints(&vm("a"))[0].contains("instance other"), "{:?}", world.complaints(&vm("a")));
}

/// Writes an annotation of this instance into a VM, as its owner can.
fn forge(world: &mut World, name: &str, ports: Vec<AnnotatedPort>) {
    let vm = vm(name);
    let template = world.present[&vm].template.clone().expect("a template");
    let uid = world.present[&vm].uid.clone();
    world.present.get_mut(&vm).expect("there").told =
        Some(PortsAnnotation { instance: INSTANCE.into(), uid, ports }.text());
    world.apply(&vm, template);
}

#[test]
fn a_forged_annotation_keeps_no_address_on_a_switch_that_the_nic_does_not_name_and_brings_no_odd_mac() {
    let mut world = World::new([("blue", map(SUBNET))]);
    world.apply(&vm("a"), Template::new([("logical_switch", "nowhere")]));
    let port = |mac: &str| AnnotatedPort {
        network: "default".into(),
        port: Some("a.n".into()),
        switch: Some("blue".into()),
        mac: Some(mac.into()),
        ips: vec!["10.0.0.10".into()],
        ..AnnotatedPort::default()
    };
    forge(&mut world, "a", vec![port("0a:58:0a:00:00:0a"); 300]);
    world.apply(&vm("b"), Template::new([]));
    world.settle(1);
    assert!(world.addresses(&vm("b")).is_some_and(|text| text.ends_with(" 10.0.0.10")));
    // On the NIC's own switch, the annotation counts as a request; a MAC that a NIC cannot have is ignored.
    world.apply(&vm("c"), Template::new([]));
    world.settle(1);
    world.edit(|tables| tables.remove_port(crate::contract::port_uuid(INSTANCE, "c.n")));
    forge(&mut world, "c", vec![port("01:00:5e:00:00:01")]);
    world.settle(1);
    assert!(world.addresses(&vm("c")).is_some_and(|text| text.starts_with("0a:58:")));
}

#[test]
fn a_request_for_an_address_that_a_guest_has_lost_is_granted_when_the_guest_stops() {
    let mut world = World::new([("blue", map(SUBNET))]);
    world.run(&vm("a"), Template::new([("mac_address", "02:00:00:00:00:07")]), "n1");
    world.edit(|tables| {
        tables.remove_port(crate::contract::port_uuid(INSTANCE, "a.n"));
        let holder = LogicalSwitchPort {
            name: "foreign".into(),
            addresses: ["02:00:00:00:00:07 10.0.0.99".to_owned()].into_iter().collect(),
            ..Default::default()
        };
        tables.put_port(uuid(1, 0), uuid(2, 0), holder);
    });
    world.apply(&vm("b"), Template::new([("ip_address", "10.0.0.10")]));
    world.settle(1);
    assert_eq!((world.addresses(&vm("a")), world.addresses(&vm("b"))), (None, None));
    assert!(world.complaints(&vm("b"))[0].contains("the guest of the VM n/a"), "{:?}", world.complaints(&vm("b")));
    world.stop(&vm("a"));
    world.remove_launcher(&vm("a"));
    world.settle(1);
    assert!(world.addresses(&vm("b")).is_some_and(|text| text.ends_with(" 10.0.0.10")));
}

#[test]
fn beside_dynamic_ports_a_lost_lease_returns_as_soon_as_its_address_is_free() {
    let mut world = World::new([("blue", map(SUBNET))]);
    world.run(&vm("a"), Template::new([]), "n1");
    let before = world.addresses(&vm("a"));
    let port = |name: &str, addresses: &str| LogicalSwitchPort {
        name: name.into(),
        addresses: [addresses.to_owned()].into_iter().collect(),
        ..LogicalSwitchPort::default()
    };
    world.edit(|tables| {
        let (row, _) = tables.port_named("a.n").expect("the port");
        tables.remove_port(row);
        tables.put_port(uuid(1, 0), uuid(2, 8), port("foreign", "02:00:00:00:00:01 10.0.0.10"));
        tables.put_port(uuid(1, 0), uuid(2, 9), port("dynamic", "dynamic"));
    });
    world.settle(2);
    assert_eq!(world.addresses(&vm("a")), None, "no other address may be allocated beside dynamic ports");
    world.edit(|tables| tables.remove_port(uuid(2, 8)));
    world.settle(2);
    assert_eq!(world.addresses(&vm("a")), before);
}
