//! Addresses that routers and switches answer for by themselves, in the toy database; and a plain model of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use uuid::Uuid;

use super::examples::{at, db, foreign, made, plain, waits_in_vain, web, world};
use super::server::Tables;
use super::world::{INSTANCE, World, map, uuid};
use crate::contract::keys;
use crate::hash::FastSet;
use crate::ipam::Subnet;
use crate::ovn::{
    DhcpOptions, ForwardingGroup, LoadBalancer, LoadBalancerGroup, LogicalRouter, LogicalRouterPort, LogicalSwitch,
    LogicalSwitchPort, Nat, Northbound, PortHealthCheck, StaticMacBinding,
};
use crate::ovsdb::{Map, Set};

/// One change to them; each reference or value of a row is one bit.
#[derive(Debug, Clone)]
pub(super) enum Edit {
    /// Without ports and NAT rules it is gone.
    Router {
        slot: u8,
        ports: u8,
        nats: u8,
        balancers: u8,
        groups: u8,
    },
    Switch {
        slot: u8,
        balancers: u8,
        groups: u8,
        forwarding: u8,
        /// Which address its multicast querier speaks with, if one.
        querier: usize,
    },
    Nat {
        slot: u8,
        address: usize,
    },
    Balancer {
        slot: u8,
        addresses: u8,
        /// Where its health checks go, and where they come from.
        check: (usize, usize),
    },
    Group {
        balancers: u8,
    },
    /// Other rows that keep an address from being allocated.
    Other {
        what: u8,
        address: usize,
    },
}

const ADDRESSES: [&str; 5] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::2", "192.0.2.1"];

pub(super) fn edit() -> impl Strategy<Value = Edit> {
    let router = (0..2u8, 0..8u8, 0..4u8, 0..4u8, 0..2u8);
    prop_oneof![
        router.prop_map(|(slot, ports, nats, balancers, groups)| Edit::Router { slot, ports, nats, balancers, groups }),
        (0..3u8, 0..4u8, 0..2u8, 0..2u8, 0..9usize).prop_map(|(slot, balancers, groups, forwarding, querier)| {
            Edit::Switch { slot, balancers, groups, forwarding, querier }
        }),
        (0..2u8, 0..6usize).prop_map(|(slot, address)| Edit::Nat { slot, address }),
        (0..2u8, 0..32u8, (0..5usize, 0..8usize)).prop_map(|(slot, addresses, check)| Edit::Balancer {
            slot,
            addresses,
            check
        }),
        (0..4u8, 0..6usize).prop_map(|(what, address)| Edit::Other { what, address }),
        (0..4u8).prop_map(|balancers| Edit::Group { balancers }),
    ]
}

fn bits(kind: u8, bits: u8) -> FastSet<Uuid> {
    (0..8).filter(|bit| bits >> bit & 1 == 1).map(|bit| uuid(kind, bit)).collect()
}

pub(super) fn apply(tables: &mut Tables, edit: Edit) {
    match edit {
        Edit::Router { slot, ports: 0, nats: 0, .. } => drop(tables.routers.remove(&uuid(4, slot))),
        Edit::Router { slot, ports, nats, balancers, groups } => {
            let row = LogicalRouter {
                name: format!("lr{slot}"),
                ports: bits(3, ports),
                nat: bits(5, nats),
                load_balancer: bits(6, balancers),
                load_balancer_group: bits(7, groups),
            };
            // A router port is one router's.
            tables.routers.values_mut().for_each(|other| other.ports.retain(|port| !row.ports.contains(port)));
            tables.routers.insert(uuid(4, slot), row);
        }
        Edit::Switch { slot, balancers, groups, forwarding, querier } => {
            if let Some(row) = tables.switches.get_mut(&uuid(1, slot)) {
                row.load_balancer = bits(6, balancers);
                row.load_balancer_group = bits(7, groups);
                row.forwarding_groups = bits(8, forwarding);
                match ADDRESSES.get(querier) {
                    Some(address) => drop(row.other_config.insert("mcast_ip4_src", *address)),
                    None => drop(row.other_config.remove("mcast_ip4_src")),
                }
            }
        }
        Edit::Nat { slot, address } => match ADDRESSES.get(address) {
            Some(address) => {
                let external_mac = (slot == 1).then(|| "0a:58:0a:00:00:04".to_owned());
                tables.nats.insert(uuid(5, slot), Nat { external_ip: (*address).to_owned(), external_mac });
            }
            None => drop(tables.nats.remove(&uuid(5, slot))),
        },
        Edit::Balancer { slot, addresses: 0, .. } => drop(tables.balancers.remove(&uuid(6, slot))),
        Edit::Balancer { slot, addresses, check: (endpoint, source) } => {
            let vips = ADDRESSES.iter().enumerate().filter(|(index, _)| addresses >> index & 1 == 1);
            let key = |(index, address): (usize, &&str)| match (index % 2, address.contains(':')) {
                (0, _) => (*address).to_owned(),
                (_, true) => format!("[{address}]:80"),
                (_, false) => format!("{address}:80"),
            };
            let vips: Map = vips.map(|vip| (key(vip), "10.9.9.9:80".to_owned())).collect();
            let bracketed = |text: &str| if text.contains(':') { format!("[{text}]") } else { text.to_owned() };
            let source = ADDRESSES.get(source).map(|source| format!("a.n:{}", bracketed(source)));
            let mappings: Map = source.map(|source| (bracketed(ADDRESSES[endpoint]), source)).into_iter().collect();
            let row = LoadBalancer { name: format!("lb{slot}"), vips, ip_port_mappings: mappings };
            tables.balancers.insert(uuid(6, slot), row);
        }
        Edit::Other { what, address } => other(tables, what, ADDRESSES.get(address).copied()),
        Edit::Group { balancers } => {
            tables.groups.insert(uuid(7, 0), LoadBalancerGroup { load_balancer: bits(6, balancers) });
        }
    }
}

fn other(tables: &mut Tables, what: u8, address: Option<&str>) {
    let row = uuid(8 + what, 0);
    let Some(ip) = address.map(ToOwned::to_owned) else {
        match what {
            0 => drop(tables.forwarding.remove(&row)),
            1 => drop(tables.checks.remove(&row)),
            2 => drop(tables.bindings.remove(&row)),
            _ => drop(tables.dhcp.remove(&row)),
        }
        return;
    };
    let mac = "0a:58:0a:00:00:05".to_owned();
    match what {
        0 => drop(tables.forwarding.insert(row, ForwardingGroup { name: "fg".into(), vip: ip, vmac: mac })),
        1 => drop(tables.checks.insert(row, PortHealthCheck { address: "10.0.0.4".into(), src_ip: ip })),
        2 => drop(tables.bindings.insert(row, StaticMacBinding { ip, mac })),
        _ => {
            let options = map([("router", ip.as_str()), ("server_mac", &mac)]);
            drop(tables.dhcp.insert(row, DhcpOptions { options, ..DhcpOptions::default() }))
        }
    }
}

/// All addresses that anything answers for or speaks with, wherever that matters.
pub(super) fn anywhere(tables: &Tables) -> BTreeSet<String> {
    let mut texts: BTreeSet<String> = tables.nats.values().map(|row| row.external_ip.clone()).collect();
    for row in tables.balancers.values() {
        texts.extend(row.vips.iter().filter_map(|(vip, _)| vip_address(vip)));
        texts.extend(sources(row).map(|(_, source)| source));
    }
    texts.extend(tables.forwarding.values().map(|row| row.vip.clone()));
    texts.extend(tables.checks.values().map(|row| row.src_ip.clone()));
    texts.extend(tables.bindings.values().map(|row| row.ip.clone()));
    texts.extend(tables.dhcp.values().filter_map(|row| row.options.get("router")).map(ToOwned::to_owned));
    texts.extend(tables.switches.values().filter_map(querier));
    texts
}

fn querier(row: &LogicalSwitch) -> Option<String> {
    row.other_config.get("mcast_ip4_src").map(ToOwned::to_owned)
}

fn vip_address(vip: &str) -> Option<String> {
    let of_socket = || vip.parse::<SocketAddr>().map(|socket| socket.ip()).ok();
    vip.parse::<IpAddr>().ok().or_else(of_socket).map(|address| address.to_string())
}

/// Where a load balancer's health checks go, and where they come from.
fn sources(row: &LoadBalancer) -> impl Iterator<Item = (String, String)> {
    let bare = |text: &str| text.trim_start_matches('[').trim_end_matches(']').to_owned();
    row.ip_port_mappings
        .iter()
        .filter_map(move |(endpoint, value)| Some((bare(endpoint), bare(value.split_once(':')?.1))))
}

/// The addresses that OVN answers for on a switch, according to the rows.
pub(super) fn on_switch(tables: &Tables, switch: Uuid) -> BTreeSet<String> {
    let row = &tables.switches[&switch];
    let ports = row.ports.iter().filter_map(|port| tables.ports.get(port));
    let peers: BTreeSet<&str> =
        ports.filter(|port| port.kind == "router").filter_map(|port| port.options.get("router-port")).collect();
    let connected = |router: &&LogicalRouter| {
        let mut names = router.ports.iter().filter_map(|port| tables.router_ports.get(port)).map(|port| &port.name);
        names.any(|name| peers.contains(name.as_str()))
    };
    let mut balancers: BTreeSet<Uuid> = row.load_balancer.iter().copied().collect();
    let mut groups: BTreeSet<Uuid> = row.load_balancer_group.iter().copied().collect();
    let mut addresses = BTreeSet::new();
    for router in tables.routers.values().filter(connected) {
        balancers.extend(&router.load_balancer);
        groups.extend(&router.load_balancer_group);
        addresses.extend(router.nat.iter().filter_map(|nat| Some(tables.nats.get(nat)?.external_ip.clone())));
    }
    let grouped = groups.iter().filter_map(|group| tables.groups.get(group));
    balancers.extend(grouped.flat_map(|group| &group.load_balancer));
    for row in balancers.iter().filter_map(|row| tables.balancers.get(row)) {
        addresses.extend(row.vips.iter().filter_map(|(vip, _)| vip_address(vip)));
        addresses.extend(sources(row).map(|(_, source)| source));
    }
    let networks = tables.router_ports.values().filter(|port| peers.contains(port.name.as_str()));
    let networks = networks.flat_map(|port| port.networks.iter());
    let config = &row.other_config;
    let subnet = Subnet::new(config.get("subnet"), None, config.get("ipv6_prefix"), networks);
    let holds = |text: &str| {
        let block = |ip: IpAddr| subnet.as_ref().is_ok_and(|subnet| subnet.block_of(ip).is_some());
        text.parse().is_ok_and(block)
    };
    let of_balancers = tables.balancers.values().flat_map(sources);
    let checks = tables.checks.values().map(|row| (row.address.clone(), row.src_ip.clone()));
    let here = of_balancers.chain(checks).filter(|(endpoint, source)| holds(endpoint) && holds(source));
    addresses.extend(here.map(|(_, source)| source));
    let groups = row.forwarding_groups.iter().filter_map(|group| tables.forwarding.get(group));
    addresses.extend(groups.map(|group| group.vip.clone()).chain(querier(row)));
    addresses
}

/// The usual world, whose switch is connected to the router lr0; lr1 is elsewhere.
fn routed() -> World {
    let mut world = world();
    world.edit(|tables| {
        let options = map([("router-port", "lrp0")]);
        let row = LogicalSwitchPort { name: "r".into(), kind: "router".into(), options, ..Default::default() };
        tables.put_port(uuid(1, 0), uuid(2, 9), row);
        for (slot, network) in [(0, "10.16.255.254/16"), (1, "10.17.0.1/16")] {
            let networks = Set::from_iter([network.to_owned()]);
            let mac = format!("02:00:00:00:ff:0{slot}");
            tables.router_ports.insert(
                uuid(3, slot),
                LogicalRouterPort { name: format!("lrp{slot}"), mac, networks, ..Default::default() },
            );
            let (name, ports) = (format!("lr{slot}"), bits(3, 1 << slot));
            tables.routers.insert(uuid(4, slot), LogicalRouter { name, ports, ..Default::default() });
        }
    });
    world
}

fn nat(world: &mut World, router: u8, address: &str) {
    world.edit(|tables| {
        tables.nats.insert(uuid(5, router), Nat { external_ip: address.into(), external_mac: None });
        tables.routers.get_mut(&uuid(4, router)).expect("a router").nat = bits(5, 1 << router);
    });
}

fn balancer(tables: &mut Tables, vips: &[&str]) {
    let vips = vips.iter().map(|vip| (*vip, "10.9.9.9:80")).collect();
    tables.balancers.insert(uuid(6, 0), LoadBalancer { name: "shop".into(), vips, ..Default::default() });
}

#[test]
fn a_nat_address_is_not_chosen_nor_granted_until_the_rule_goes() {
    let mut world = routed();
    nat(&mut world, 0, "10.16.0.2");
    made(&mut world, &web(), at("10.16.0.2"));
    let held = "10.16.0.2 on the logical switch blue is held by a NAT rule of the logical router lr0. \
        Choose another address, or wait: it is granted as soon as it is free.";
    waits_in_vain(&world, &web(), held);
    made(&mut world, &db(), plain());
    assert_eq!(world.addresses(&db()).as_deref(), Some("0a:58:0a:10:00:03 10.16.0.3"));
    world.edit(|tables| drop(tables.nats.remove(&uuid(5, 0))));
    world.settle(100);
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:10:00:02 10.16.0.2"));
}

#[test]
fn a_nat_rule_of_an_unconnected_router_refuses_no_request() {
    let mut world = routed();
    nat(&mut world, 1, "10.16.0.1");
    made(&mut world, &web(), at("10.16.0.1"));
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:10:00:01 10.16.0.1"));
    assert_eq!(world.complaints(&web()), [""; 0]);
    // It is still not allocated: another router may be connected later.
    nat(&mut world, 1, "10.16.0.2");
    made(&mut world, &db(), plain());
    assert_eq!(world.addresses(&db()).as_deref(), Some("0a:58:0a:10:00:03 10.16.0.3"));
}

#[test]
fn a_router_port_that_moves_to_another_router_brings_the_addresses_that_router_answers_for() {
    let mut world = routed();
    nat(&mut world, 1, "10.16.0.1");
    made(&mut world, &web(), at("10.16.0.1"));
    let pass = |world: &mut World, from: u8, to: u8| {
        world.edit(|tables| {
            tables.routers.get_mut(&uuid(4, from)).expect("a router").ports.remove(&uuid(3, 0));
            tables.routers.get_mut(&uuid(4, to)).expect("a router").ports.insert(uuid(3, 0));
        });
        world.settle(100);
    };
    for _ in 0..7 {
        pass(&mut world, 0, 1);
        let doubled = "10.16.0.1 on the logical switch blue is held by the VM, which keeps it, and by a NAT rule of the \
            logical router lr1, so both lose traffic. Change the other holder, or give the VM another address with the \
            annotation ip_address and restart it.";
        assert_eq!(world.complaints(&web()), [doubled]);
        pass(&mut world, 1, 0);
        assert_eq!(world.complaints(&web()), [""; 0]);
    }
}

#[test]
fn a_load_balancers_addresses_count_on_its_switch_its_router_and_by_group() {
    let on_switch =
        |tables: &mut Tables| tables.switches.get_mut(&uuid(1, 0)).expect("blue").load_balancer = bits(6, 1);
    let on_router = |tables: &mut Tables| tables.routers.get_mut(&uuid(4, 0)).expect("lr0").load_balancer = bits(6, 1);
    let by_group = |tables: &mut Tables| {
        tables.groups.insert(uuid(7, 0), LoadBalancerGroup { load_balancer: bits(6, 1) });
        tables.switches.get_mut(&uuid(1, 0)).expect("blue").load_balancer_group = bits(7, 1);
    };
    for refer in [&on_switch as &dyn Fn(&mut Tables), &on_router, &by_group] {
        let mut world = routed();
        world.edit(|tables| {
            balancer(tables, &["10.16.0.1:80", "10.16.0.1:443", "[fd00::1]:80", "10.16.0.2", "^backend:80"]);
            refer(tables);
        });
        made(&mut world, &web(), at("10.16.0.2"));
        let held = "10.16.0.2 on the logical switch blue is held by the load balancer shop. \
            Choose another address, or wait: it is granted as soon as it is free.";
        waits_in_vain(&world, &web(), held);
        made(&mut world, &db(), plain());
        assert_eq!(world.addresses(&db()).as_deref(), Some("0a:58:0a:10:00:03 10.16.0.3"));
        // It takes another address: the first is free, and the VM that holds the other reports a conflict.
        world.edit(|tables| balancer(tables, &["10.16.0.3:80"]));
        world.settle(100);
        assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:10:00:02 10.16.0.2"));
        let doubled = "10.16.0.3 on the logical switch blue is held by the VM, which keeps it, and by the load balancer shop, \
            so both lose traffic. Change the other holder, or give the VM another address with the annotation ip_address \
            and restart it.";
        assert_eq!(world.complaints(&db()), [doubled]);
        world.edit(|tables| {
            tables.switches.get_mut(&uuid(1, 0)).expect("blue").load_balancer.clear();
            tables.routers.get_mut(&uuid(4, 0)).expect("lr0").load_balancer.clear();
            tables.groups.clear();
        });
        world.settle(100);
        assert_eq!(world.complaints(&db()), [""; 0]);
    }
}

#[test]
fn a_foreign_port_with_the_address_of_a_vm_is_named_until_it_is_deleted() {
    let mut world = world();
    made(&mut world, &web(), plain());
    world.edit(|tables| foreign(tables, 0, "printer", &["0a:58:0a:10:00:02 10.16.0.2"]));
    world.settle(100);
    let rest = "on the logical switch blue is held by the VM, which keeps it, and by the port printer, which ovn-kubevirt \
        does not manage, so both lose traffic. Change the other holder, or give the VM another";
    let complaints = [
        format!("10.16.0.2 {rest} address with the annotation ip_address and restart it."),
        format!("MAC 0a:58:0a:10:00:02 {rest} MAC with macAddress and restart it."),
    ];
    assert_eq!(world.complaints(&web()), complaints);
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:10:00:02 10.16.0.2"));
    world.edit(|tables| tables.remove_port(uuid(2, 0)));
    world.settle(100);
    assert_eq!(world.complaints(&web()), [""; 0]);
}

#[test]
fn a_conflict_about_the_unchanged_part_of_a_lease_is_reported_at_once() {
    let mut world = world();
    made(&mut world, &web(), plain());
    world.edit(|tables| foreign(tables, 0, "printer", &["0a:58:0a:10:00:02"]));
    made(&mut world, &web(), at("10.16.0.9"));
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:10:00:02 10.16.0.9"));
    let doubled = "MAC 0a:58:0a:10:00:02 on the logical switch blue is held by the VM, which keeps it, and by the port \
        printer, which ovn-kubevirt does not manage, so both lose traffic. Change the other holder, or give the VM another \
        MAC with macAddress and restart it.";
    assert_eq!(world.complaints(&web()), [doubled]);
}

#[test]
fn a_change_of_a_row_with_our_marks_is_no_foreign_change_and_any_other_is() {
    let row = |server: &str, marks: &[(&str, &str)]| DhcpOptions {
        options: map([("server_id", server)]),
        external_ids: marks.iter().copied().collect(),
        ..DhcpOptions::default()
    };
    let ours = [(keys::VENDOR, keys::OUR_VENDOR), (keys::INSTANCE, INSTANCE)];
    let theirs = [(keys::VENDOR, keys::OUR_VENDOR), (keys::INSTANCE, "green")];
    let other_vendor = [(keys::VENDOR, "kube-ovn"), (keys::INSTANCE, INSTANCE)];
    let mut replica = Northbound::new(INSTANCE);
    let mut before = Tables::default();
    let mut raises = |row: Option<DhcpOptions>| {
        let (mut after, changes) = (before.clone(), replica.foreign_changes());
        match row {
            Some(row) => drop(after.dhcp.insert(uuid(8, 0), row)),
            None => drop(after.dhcp.remove(&uuid(8, 0))),
        }
        after.send_changes(&before, 0, &mut replica);
        before = after;
        replica.foreign_changes() > changes
    };
    // The row is inserted, modified and deleted.
    let lives = |marks: &[(&str, &str)]| [Some(row("10.0.0.1", marks)), Some(row("10.0.0.2", marks)), None];
    assert_eq!(lives(&ours).map(&mut raises), [false; 3]);
    for marks in [&[][..], &theirs, &other_vendor, &ours[..1]] {
        assert_eq!(lives(marks).map(&mut raises), [true; 3], "{marks:?}");
    }
    // Another program takes our marks off, or puts them on.
    let rows = [Some(row("10.0.0.1", &ours)), Some(row("10.0.0.1", &[])), Some(row("10.0.0.1", &ours)), None];
    assert_eq!(rows.map(&mut raises), [false, true, true, false]);
}
