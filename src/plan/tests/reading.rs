//! Examples of the values that people write into switches and foreign ports: odd spellings, addresses without a port, switches
//! without addresses.

use std::borrow::Cow;

use super::examples::{at, db, foreign, made, plain, waits_in_vain, web, world};
use super::objects::Template;
use super::server::Tables;
use super::world::{World, map, uuid};
use crate::contract::{VmKey, keys};
use crate::ovn::{
    DhcpOptions, Elements, ForwardingGroup, LoadBalancer, LogicalRouterPort, LogicalSwitch, LogicalSwitchPort,
    PortHealthCheck, StaticMacBinding,
};
use crate::plan::{PortStatus, Problem};

fn ip(world: &World, vm: &VmKey) -> Option<String> {
    world.addresses(vm).map(|text| text.split_once(' ').map_or(text.clone(), |(_, ip)| ip.to_owned()))
}

fn mac(world: &World, vm: &VmKey) -> Option<String> {
    world.addresses(vm).map(|text| text.split_once(' ').map_or(text.clone(), |(mac, _)| mac.to_owned()))
}

fn blue(tables: &mut Tables) -> &mut LogicalSwitch {
    tables.switches.get_mut(&uuid(1, 0)).expect("blue")
}

fn held_by(address: &str, holder: &str) -> String {
    format!(
        "{address} on the logical switch blue is held by {holder}. Choose another address, or wait: it is granted as soon \
        as it is free."
    )
}

#[test]
fn a_bad_word_in_exclude_ips_is_reported_and_stops_no_vm() {
    let mut world = world();
    world.edit(|tables| {
        drop(blue(tables).other_config.insert("exclude_ips", "10.16.0.2..10.16.0.4 x\t10.16.0.9..10.16.0.5"))
    });
    made(&mut world, &web(), plain());
    made(&mut world, &db(), at("10.16.0.9"));
    assert_eq!((ip(&world, &web()).as_deref(), ip(&world, &db()).as_deref()), (Some("10.16.0.5"), Some("10.16.0.9")));
    let told = "The logical switch blue has settings that are skipped, such as \"x\" in other_config:exclude_ips, \
        \"10.16.0.9..10.16.0.5\" in other_config:exclude_ips. Write subnet as address/length and ipv6_prefix as an address, \
        without blanks around them; write exclude_ips as addresses of the subnet and ranges first..last, with blanks between.";
    assert_eq!((world.complaints(&web()), world.complaints(&db())), (vec![told.into()], vec![told.into()]));
    assert_eq!(world.problems(&web())[0].reason(), "SwitchSettingUnread");
    // Once the value is corrected, the problem is gone, and no address moves.
    world.edit(|tables| drop(blue(tables).other_config.insert("exclude_ips", "10.16.0.2..10.16.0.4")));
    world.settle(100);
    assert_eq!((world.complaints(&web()), ip(&world, &web()).as_deref()), (vec![], Some("10.16.0.5")));
}

#[test]
fn a_subnet_that_cannot_be_read_at_all_is_named() {
    let mut world = World::new([("blue", map([("subnet", "10.16.0.0/24,10.17.0.0/24")]))]);
    made(&mut world, &web(), at("10.16.0.9"));
    let told = "other_config:subnet of the logical switch blue is \"10.16.0.0/24,10.17.0.0/24\", which is not an IPv4 \
        network. Write one address/length, as in 10.16.0.0/16.";
    waits_in_vain(&world, &web(), told);
    world.edit(|tables| drop(blue(tables).other_config.insert("subnet", "10.16.0.77/255.255.255.0")));
    world.settle(100);
    assert_eq!((ip(&world, &web()).as_deref(), world.complaints(&web())), (Some("10.16.0.9"), vec![]));
}

#[test]
fn the_first_host_address_is_allocated_only_by_name_or_from_a_pool_that_has_it() {
    let mut world = World::new([("blue", map([("subnet", "10.0.0.0/30"), ("ipv6_prefix", "fd00::/126")]))]);
    made(&mut world, &db(), plain());
    assert_eq!(ip(&world, &db()).as_deref(), Some("10.0.0.2 fd00::2"));
    made(&mut world, &web(), plain());
    assert_eq!(world.problems(&web())[0].reason(), "SubnetExhausted");
    for template in [at("10.0.0.1,fd00::1"), Template::new([("ip_pool", "10.0.0.1..10.0.0.2,fd00::1")])] {
        made(&mut world, &web(), template);
        assert_eq!(ip(&world, &web()).as_deref(), Some("10.0.0.1 fd00::1"));
        world.destroy(&web());
    }
}

#[test]
fn a_first_host_address_that_was_given_before_stays() {
    let mut world = world();
    world.resting = true;
    world.run(&web(), at("10.16.0.1"), "n1");
    made(&mut world, &web(), plain());
    world.restart(&web(), "n1");
    assert_eq!((ip(&world, &web()).as_deref(), world.complaints(&web())), (Some("10.16.0.1"), vec![]));
    // Also where a hand took it out of the row.
    let (port, _) = world.row(&web()).expect("its port");
    world.edit(|tables| {
        let row = tables.ports.get_mut(&port).expect("the port");
        (row.addresses, row.port_security) = (Elements::default(), Elements::default());
    });
    world.settle(100);
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.16.0.1"));
}

#[test]
fn a_foreign_port_holds_the_addresses_of_its_port_security_but_no_network_there() {
    let mut world = world();
    world.edit(|tables| {
        foreign(tables, 0, "keepalived", &["02:00:00:00:00:01 10.16.0.2"]);
        tables.ports.get_mut(&uuid(2, 0)).expect("it").port_security =
            ["02:00:00:00:00:01 10.16.0.2 10.16.0.3/16 10.16.0.0/16", "00:00:5e:00:01:05 10.16.0.4 fe80::/64"]
                .iter()
                .collect();
    });
    made(&mut world, &web(), plain());
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.16.0.5"));
    for address in ["10.16.0.3", "10.16.0.4"] {
        made(&mut world, &db(), at(address));
        waits_in_vain(&world, &db(), &held_by(address, "the port keepalived, which ovn-kubevirt does not manage"));
    }
    made(&mut world, &db(), Template::new([("mac_address", "00:00:5e:00:01:05")]));
    assert_eq!(world.problems(&db())[0].reason(), "AddressConflict");
    world.edit(|tables| tables.ports.get_mut(&uuid(2, 0)).expect("it").port_security = Elements::default());
    world.settle(100);
    assert_eq!(mac(&world, &db()).as_deref(), Some("00:00:5e:00:01:05"));
}

#[test]
fn addresses_that_a_router_port_proxies_or_announces_are_never_allocated() {
    let mut world = world();
    world.edit(|tables| {
        let options = map([
            ("router-port", "lrp"),
            ("arp_proxy", "02:00:00:00:00:0a 10.16.0.2 10.16.128.0/17 fd00::1"),
            ("nat-addresses", "02:00:00:00:00:0b 10.16.0.3"),
        ]);
        let row = LogicalSwitchPort { name: "r".into(), kind: "router".into(), options, ..Default::default() };
        tables.put_port(uuid(1, 0), uuid(2, 9), row);
    });
    made(&mut world, &web(), plain());
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.16.0.4"));
    made(&mut world, &db(), at("10.16.0.2"));
    waits_in_vain(&world, &db(), &held_by("10.16.0.2", "the router port r"));
    made(&mut world, &db(), at("10.16.128.9"));
    assert_eq!(ip(&world, &db()).as_deref(), Some("10.16.128.9"));
}

fn balancer(check: &[(&str, &str)]) -> LoadBalancer {
    let vips = [("10.200.0.1:80", "10.16.0.9:80")].into_iter().collect();
    LoadBalancer { name: "shop".into(), vips, ip_port_mappings: check.iter().copied().collect() }
}

#[test]
fn health_checks_come_from_an_address_that_no_vm_gets() {
    let mut world = world();
    // It is attached to no switch: northd answers where the endpoint is.
    let row = balancer(&[("10.16.0.9", "web.n:10.16.0.2")]);
    world.edit(|tables| drop(tables.balancers.insert(uuid(6, 0), row)));
    made(&mut world, &web(), plain());
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.16.0.3"));
    made(&mut world, &db(), at("10.16.0.2"));
    waits_in_vain(&world, &db(), &held_by("10.16.0.2", "the health checks of the load balancer shop"));
    // Of a check elsewhere it is no matter, though it is not chosen.
    let row = balancer(&[("10.99.0.9", "web.n:10.16.0.2")]);
    world.edit(|tables| drop(tables.balancers.insert(uuid(6, 0), row)));
    world.settle(100);
    assert_eq!((ip(&world, &db()).as_deref(), world.complaints(&db())), (Some("10.16.0.2"), vec![]));
    // Unless the load balancer is the switch's own.
    world.edit(|tables| blue(tables).load_balancer.extend([uuid(6, 0)]));
    world.settle(100);
    assert!(
        world.complaints(&db())[0].contains("and by the health checks of the load balancer shop, so both lose traffic")
    );
}

#[test]
fn addresses_of_other_services_are_never_allocated_and_those_of_the_switch_are_named() {
    type Change = fn(&mut Tables);
    let of_switch: [(Change, &str); 3] = [
        (
            |tables| {
                let vmac = "02:00:00:00:00:0c".to_owned();
                let row = ForwardingGroup { name: "uplinks".into(), vip: "10.16.0.02".into(), vmac };
                tables.forwarding.insert(uuid(8, 0), row);
                blue(tables).forwarding_groups.insert(uuid(8, 0));
            },
            "the forwarding group uplinks",
        ),
        (
            |tables| drop(blue(tables).other_config.insert("mcast_ip4_src", "10.16.0.2")),
            "the multicast querier of the logical switch blue",
        ),
        (
            |tables| {
                let row = PortHealthCheck { address: "10.16.0.9".into(), src_ip: "10.16.0.2".into() };
                tables.checks.insert(uuid(8, 0), row);
            },
            "the health checks of the port with 10.16.0.9",
        ),
    ];
    let of_none: [Change; 2] = [
        |tables| {
            let row = StaticMacBinding { ip: "10.16.0.2".into(), mac: "02:00:00:00:00:0d".into() };
            tables.bindings.insert(uuid(8, 0), row);
        },
        |tables| {
            let options = map([("server_id", "10.16.0.2"), ("router", "10.16.0.2"), ("lease_time", "10")]);
            tables.dhcp.insert(uuid(8, 0), DhcpOptions { options, ..DhcpOptions::default() });
        },
    ];
    let changes = of_switch.into_iter().map(|(change, holder)| (change, Some(holder)));
    for (change, holder) in changes.chain(of_none.into_iter().map(|change| (change, None))) {
        let mut world = world();
        world.edit(change);
        made(&mut world, &web(), plain());
        assert_eq!(ip(&world, &web()).as_deref(), Some("10.16.0.3"), "{holder:?}");
        made(&mut world, &db(), at("10.16.0.2"));
        match holder {
            Some(holder) => waits_in_vain(&world, &db(), &held_by("10.16.0.2", holder)),
            None => assert_eq!((ip(&world, &db()).as_deref(), world.complaints(&db())), (Some("10.16.0.2"), vec![])),
        }
        world.edit(|tables| {
            (tables.forwarding, tables.checks) = Default::default();
            blue(tables).forwarding_groups.clear();
            blue(tables).other_config.remove("mcast_ip4_src");
        });
        world.settle(100);
        assert_eq!((ip(&world, &db()).as_deref(), world.complaints(&db())), (Some("10.16.0.2"), vec![]), "{holder:?}");
    }
}

#[test]
fn a_forwarding_group_is_named_as_the_holder_of_its_mac() {
    let mut world = world();
    world.edit(|tables| {
        let (vip, vmac) = ("10.16.9.9".to_owned(), "02:00:00:00:00:0c".to_owned());
        tables.forwarding.insert(uuid(8, 0), ForwardingGroup { name: "uplinks".into(), vip, vmac });
        blue(tables).forwarding_groups.insert(uuid(8, 0));
    });
    made(&mut world, &web(), Template::new([("mac_address", "02:00:00:00:00:0c")]));
    let held = "MAC 02:00:00:00:00:0c on the logical switch blue is held by the forwarding group uplinks. Choose another \
        MAC, or wait: it is granted as soon as it is free.";
    waits_in_vain(&world, &web(), held);
    world.edit(|tables| {
        tables.forwarding.clear();
        blue(tables).forwarding_groups.clear();
    });
    world.settle(100);
    assert_eq!(mac(&world, &web()).as_deref(), Some("02:00:00:00:00:0c"));
}

#[test]
fn a_mac_is_generated_once_for_all_switches_and_may_be_requested_repeatedly() {
    let config = || map([("subnet", "10.17.0.0/16")]);
    let mut world = World::new([("blue", config()), ("red", config())]);
    world.nad("n", "net1", Some("red"));
    made(&mut world, &web(), plain().with([("a", "net1")]));
    let both = super::attachments::held(&world, &web());
    let macs: Vec<&str> = both.values().filter_map(|text| text.split(' ').next()).collect();
    assert_eq!(both["a"].split_once(' ').map(|(_, ip)| ip), both["default"].split_once(' ').map(|(_, ip)| ip));
    assert!(macs[0] != macs[1] && macs.iter().all(|mac| mac.starts_with("0a:58:")), "{both:?}");
    // Also in a transaction of its own, and after it.
    made(&mut world, &db(), Template::new([("logical_switch", "red"), ("ip_address", "10.17.0.3")]));
    let third = VmKey::new("m", "third");
    made(&mut world, &third, at("10.17.0.3"));
    assert_eq!(mac(&world, &db()).as_deref(), Some("0a:58:0a:11:00:03"));
    assert_ne!(mac(&world, &third), mac(&world, &db()));
    // A lease keeps its MAC, and one that is named on another switch is had.
    let lease = world.addresses(&third);
    world.destroy(&db());
    assert_eq!(world.addresses(&third), lease);
    let named = mac(&world, &third).expect("one");
    made(&mut world, &db(), Template::new([("logical_switch", "red"), ("mac_address", &named)]));
    assert_eq!(mac(&world, &db()), mac(&world, &third));
}

#[test]
fn a_mac_that_another_nic_requests_on_another_switch_is_not_generated() {
    let config = || map([("subnet", "10.17.0.0/16")]);
    let mut world = World::new([("blue", config()), ("red", config())]);
    world.nad("n", "net1", Some("red"));
    let template = plain().with([("a", "net1")]).annotated("a.ovn.kubernetes.io/mac_address", "0a:58:0a:11:00:02");
    made(&mut world, &web(), template);
    let held = super::attachments::held(&world, &web());
    assert!(
        held["a"].starts_with("0a:58:0a:11:00:02 ") && !held["default"].starts_with("0a:58:0a:11:00:02 "),
        "{held:?}"
    );
}

#[test]
fn an_address_in_any_spelling_that_northd_reads_is_not_allocated_again() {
    for text in [
        "a:58:a:10:0:2 10.16.0.002",
        "0A:58:0A:10:00:02\t10.16.0.2/16",
        "0a:58:0a:10:00:02 10.16.0.2/255.255.0.0",
        "0a:58:0a:10:00:2 010.016.0.2",
    ] {
        let mut world = world();
        world.edit(|tables| foreign(tables, 0, "printer", &[text]));
        made(&mut world, &db(), at("10.16.0.2"));
        waits_in_vain(&world, &db(), &held_by("10.16.0.2", "the port printer, which ovn-kubevirt does not manage"));
        made(&mut world, &db(), Template::new([("mac_address", "0a:58:0a:10:00:02")]));
        assert_eq!(world.problems(&db())[0].reason(), "AddressConflict", "{text}");
        made(&mut world, &web(), plain());
        assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:10:00:03 10.16.0.3"), "{text}");
    }
}

#[test]
fn beside_dynamic_ports_an_address_that_northd_cannot_read_is_not_excluded() {
    let mut world = world();
    world.edit(|tables| {
        blue(tables).other_config.insert("exclude_ips", "10.16.0.2..10.16.0.4,10.16.0.5..10.16.0.9");
        foreign(tables, 0, "lease", &["dynamic"]);
    });
    made(&mut world, &web(), Template::new([("ip_pool", "10.16.0.2..10.16.0.4")]));
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.16.0.2"));
    made(&mut world, &db(), Template::new([("ip_pool", "10.16.0.4..10.16.0.6")]));
    let told = "OVN itself allocates addresses to ports of the logical switch blue (such as lease) and might allocate those \
        of ip_pool (10.16.0.4..10.16.0.6), because northd stops reading exclude_ips at the first comma or other mark. Write \
        that list with blanks between.";
    waits_in_vain(&world, &db(), told);
    world.edit(|tables| drop(blue(tables).other_config.insert("exclude_ips", "10.16.0.2..10.16.0.9")));
    world.settle(100);
    assert_eq!(ip(&world, &db()).as_deref(), Some("10.16.0.4"));
}

/// Both columns of a VM's row.
fn columns(world: &World, vm: &VmKey) -> [Vec<String>; 2] {
    let (_, row) = world.row(vm).expect("its port");
    [&row.addresses, &row.port_security].map(|elements| elements.iter().map(Cow::into_owned).collect())
}

fn mac_alone(world: &World, vm: &VmKey) -> String {
    let [addresses, security] = columns(world, vm);
    assert_eq!(addresses, security);
    assert!(addresses.len() == 1 && !addresses[0].contains(' '), "{addresses:?}");
    addresses[0].clone()
}

#[test]
fn a_switch_that_is_mac_only_gives_macs_alone_and_each_another() {
    let mut world = World::new([("blue", map([("mac_only", "True")]))]);
    world.run(&web(), plain(), "n1");
    made(&mut world, &db(), Template::new([("mac_address", "02:00:00:00:00:01")]));
    let third = VmKey::new("m", "third");
    made(&mut world, &third, plain());
    assert_eq!(mac_alone(&world, &db()), "02:00:00:00:00:01");
    let macs = [&web(), &third].map(|vm| mac_alone(&world, vm));
    assert!(macs[0] != macs[1] && macs.iter().all(|mac| mac.starts_with("0a:58:")), "{macs:?}");
    assert_eq!([&web(), &db(), &third].map(|vm| world.complaints(vm)), [const { Vec::<String>::new() }; 3]);
    let PortStatus { port, addresses, next, .. } = &world.statuses[&web()].ports[0];
    assert_eq!(
        (port.as_deref(), addresses.map(|text| text.to_string()), *next),
        (Some("web.n"), Some(macs[0].clone()), None)
    );
    // It is a lease: it stays through a restart, and is put back.
    world.restart(&web(), "n2");
    assert_eq!(mac_alone(&world, &web()), macs[0]);
    let (port, _) = world.row(&web()).expect("its port");
    world.edit(|tables| tables.ports.get_mut(&port).expect("it").addresses = ["unknown"].iter().collect());
    world.settle(100);
    assert_eq!(mac_alone(&world, &web()), macs[0]);
    // A switch without a subnet gives no rule to check an address by.
    made(&mut world, &third, at("10.0.0.9"));
    assert_eq!((mac_alone(&world, &third), world.problems(&third)[0].reason()), (macs[1].clone(), "SubnetMissing"));
}

#[test]
fn a_lease_with_an_address_outlives_a_switch_that_becomes_mac_only() {
    let mut world = world();
    world.run(&web(), plain(), "n1");
    let lease = world.addresses(&web());
    world.edit(|tables| blue(tables).other_config = map([("mac_only", "true")]));
    world.settle(100);
    world.restart(&web(), "n1");
    assert_eq!(world.addresses(&web()), lease);
}

#[test]
fn a_lost_lease_with_an_address_is_restored_on_a_switch_that_became_mac_only() {
    let mut world = world();
    world.run(&web(), plain(), "n1");
    let lease = world.addresses(&web());
    let (port, _) = world.row(&web()).expect("its port");
    world.edit(|tables| {
        tables.remove_port(port);
        blue(tables).other_config = map([("mac_only", "true")]);
        // The subnet is that of the router.
        let networks = ["10.16.0.1/16".to_owned()].into_iter().collect();
        let row = LogicalRouterPort { name: "lrp0".into(), networks, ..Default::default() };
        tables.router_ports.insert(uuid(3, 0), row);
        let options = map([("router-port", "lrp0")]);
        let row = LogicalSwitchPort { name: "to-router".into(), kind: "router".into(), options, ..Default::default() };
        tables.put_port(uuid(1, 0), uuid(2, 0), row);
    });
    world.settle(100);
    assert_eq!(world.addresses(&web()), lease);
    // A VM that had no address gets a MAC alone.
    made(&mut world, &db(), plain());
    mac_alone(&world, &db());
}

#[test]
fn ip_address_none_gives_a_mac_alone_with_a_subnet_and_without() {
    for config in [map([("subnet", "10.16.0.0/16"), ("ipv6_prefix", "fd00::")]), map([])] {
        let mut world = World::new([("blue", config)]);
        made(&mut world, &web(), at("None").annotated("ovn.kubernetes.io/ip_pool", "10.16.0.9"));
        mac_alone(&world, &web());
        assert_eq!(world.complaints(&web()), [""; 0]);
    }
    // NICs of one NAD may say so together.
    let mut world = World::new([("blue", map([])), ("red", map([]))]);
    world.nad("n", "net1", Some("red"));
    let template = Template::default().with([("a", "net1"), ("b", "net1")]);
    made(&mut world, &web(), template.annotated("net1.n.ovn.kubernetes.io/ip_address", "none"));
    let held = super::attachments::held(&world, &web());
    assert_eq!((held.len(), world.complaints(&web())), (2, vec![]));
    assert!(held.values().all(|text| !text.contains(' ')) && held["a"] != held["b"], "{held:?}");
}

#[test]
fn a_running_vm_that_requests_a_mac_alone_or_an_address_gets_it_at_its_next_start() {
    let mut world = world();
    world.run(&web(), plain(), "n1");
    let next = |world: &World| {
        world.row(&web()).and_then(|(_, row)| row.external_ids.get(keys::NEXT_ADDRESSES).map(ToOwned::to_owned))
    };
    let with_address = "0a:58:0a:10:00:02 10.16.0.2";
    made(&mut world, &web(), at("none"));
    assert_eq!(
        (world.addresses(&web()).as_deref(), next(&world).as_deref()),
        (Some(with_address), Some("0a:58:0a:10:00:02"))
    );
    made(&mut world, &db(), at("10.16.0.2"));
    assert_eq!(world.problems(&db())[0].reason(), "AddressConflict");
    world.restart(&web(), "n1");
    assert_eq!((mac_alone(&world, &web()).as_str(), next(&world)), ("0a:58:0a:10:00:02", None));
    assert_eq!(ip(&world, &db()).as_deref(), Some("10.16.0.2"), "it is free");
    // And back: by name, or by taking the word away.
    for (template, address) in [(at("10.16.0.9"), "10.16.0.9"), (plain(), "10.16.0.3")] {
        made(&mut world, &web(), template);
        assert_eq!(mac_alone(&world, &web()), "0a:58:0a:10:00:02");
        assert_eq!(next(&world), Some(format!("0a:58:0a:10:00:02 {address}")));
        world.restart(&web(), "n1");
        assert_eq!((ip(&world, &web()).as_deref(), next(&world)), (Some(address), None));
        made(&mut world, &web(), at("none"));
        world.restart(&web(), "n1");
        mac_alone(&world, &web());
    }
}

#[test]
fn an_address_that_was_taken_out_of_a_running_vms_row_is_put_back_and_no_other() {
    let mut world = world();
    world.resting = true;
    world.run(&web(), plain(), "n1");
    let (port, row) = world.row(&web()).expect("its port");
    let bare = |world: &mut World| {
        world.edit(|tables| {
            let row = tables.ports.get_mut(&port).expect("the port");
            row.addresses = ["0a:58:0a:10:00:02"].iter().collect();
            row.port_security = row.addresses.clone();
        });
    };
    bare(&mut world);
    world.settle(100);
    assert_eq!(columns(&world, &web())[0], row.addresses.iter().collect::<Vec<_>>());
    // An address that another VM holds by now stays with it until the guest stops.
    world.resting = false;
    bare(&mut world);
    world.apply(&db(), at("10.16.0.2"));
    world.dirty = crate::plan::Queue::default();
    world.mark(db());
    world.mark(web());
    world.settle(1);
    assert_eq!(ip(&world, &db()).as_deref(), Some("10.16.0.2"));
    assert_eq!(mac_alone(&world, &web()), "0a:58:0a:10:00:02");
    world.stop(&web());
    world.remove_launcher(&web());
    world.settle(1);
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.16.0.3"));
}

#[test]
fn the_message_about_a_missing_subnet_suggests_ip_address_none() {
    let mut world = World::new([("blue", map([]))]);
    made(&mut world, &web(), plain());
    assert!(matches!(&world.problems(&web())[..], [Problem::NoSubnet { .. }]));
    assert!(world.complaints(&web())[0].ends_with("or request a port with a MAC alone by ip_address \"none\"."));
    made(&mut world, &web(), at("none"));
    mac_alone(&world, &web());
}
