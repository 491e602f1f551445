//! IPv6 by example: the families of a port, and the link-local addresses that it admits.

use super::examples::{at, db, made, plain, web};
use super::objects::Template;
use super::world::{World, map, uuid};
use crate::contract::keys;
use crate::intent::Permission;
use crate::ovn::{Elements, LogicalRouterPort, LogicalSwitchPort};
use crate::ovsdb::Map;
use crate::plan::{Claims, RowChange};

const DUAL: &str = "0a:58:0a:10:00:02 10.16.0.2 fd00::2";

fn world() -> World {
    World::new([
        ("blue", map([("subnet", "10.16.0.0/16"), ("ipv6_prefix", "fd00::")])),
        ("red", map([("subnet", "10.17.0.0/16")])),
    ])
}

fn of_family(family: &str) -> Template {
    Template::new([("ip_family", family)])
}

fn lease(world: &World) -> String {
    world.addresses(&web()).unwrap_or_default()
}

fn security(world: &World) -> Vec<String> {
    let (_, row) = world.row(&web()).expect("its port");
    row.port_security.iter().map(std::borrow::Cow::into_owned).collect()
}

fn allow(world: &mut World, words: &str) {
    world.edit(|tables| {
        let blue = tables.switches.get_mut(&uuid(1, 0)).expect("blue");
        blue.external_ids.insert(keys::ALLOW, words);
    });
    world.settle(100);
}

#[test]
fn a_port_has_the_families_that_its_owner_requests() {
    for (family, expected) in [("ipv4", "0a:58:0a:10:00:02 10.16.0.2"), ("dual", DUAL), ("Dual", DUAL)] {
        let mut world = world();
        made(&mut world, &web(), of_family(family));
        assert_eq!((lease(&world).as_str(), world.complaints(&web())), (expected, vec![]), "{family}");
    }
    let mut world = world();
    made(&mut world, &web(), of_family("ipv6"));
    let lease = lease(&world);
    assert!(lease.ends_with(" fd00::2") && !lease.contains("10.16"), "{lease}");
}

#[test]
fn a_stopped_vm_gives_up_a_family_and_gets_it_again() {
    let mut world = world();
    made(&mut world, &web(), plain());
    assert_eq!(lease(&world), DUAL);
    made(&mut world, &web(), of_family("ipv4"));
    assert_eq!(lease(&world), "0a:58:0a:10:00:02 10.16.0.2");
    made(&mut world, &web(), plain());
    assert_eq!(lease(&world), "0a:58:0a:10:00:02 10.16.0.2", "a lease is complete");
    made(&mut world, &web(), of_family("dual"));
    assert_eq!(lease(&world), DUAL);
    made(&mut world, &web(), of_family("ipv6"));
    assert_eq!(lease(&world), "0a:58:0a:10:00:02 fd00::2", "its MAC stays");
}

#[test]
fn an_edit_of_the_family_on_a_running_vm_applies_at_its_next_start() {
    let next = |world: &World| {
        let (_, row) = world.row(&web()).expect("its port");
        row.external_ids.get(keys::NEXT_ADDRESSES).map(ToOwned::to_owned)
    };
    let mut world = world();
    world.run(&web(), plain(), "node-a");
    for (family, comes) in [("ipv4", "0a:58:0a:10:00:02 10.16.0.2"), ("dual", DUAL)] {
        let before = lease(&world);
        made(&mut world, &web(), of_family(family));
        assert_eq!((lease(&world), next(&world).as_deref()), (before, Some(comes)));
        world.restart(&web(), "node-a");
        assert_eq!((lease(&world).as_str(), next(&world)), (comes, None));
    }
}

#[test]
fn a_family_that_the_switch_does_not_have_is_refused_and_a_lease_stays() {
    let mut world = world();
    let on_red = |family| Template::new([("ip_family", family), ("logical_switch", "red")]);
    for family in ["dual", "ipv6"] {
        made(&mut world, &web(), on_red(family));
        let complaint = "The annotation ip_family asks for an IPv6 address, and the logical switch red has no such \
            subnet (10.17.0.0/16). Choose another family or another switch.";
        assert_eq!((world.complaints(&web()), lease(&world)), (vec![complaint.to_owned()], String::new()), "{family}");
    }
    made(&mut world, &web(), on_red("ipv4"));
    made(&mut world, &web(), on_red("dual"));
    assert_eq!((world.complaints(&web()).len(), lease(&world).as_str()), (1, "0a:58:0a:11:00:02 10.17.0.2"));
    // The switch gets the family.
    world.edit(|tables| {
        tables.switches.get_mut(&uuid(1, 1)).expect("red").other_config.insert("ipv6_prefix", "fd01::");
    });
    world.settle(100);
    assert_eq!((world.complaints(&web()).len(), lease(&world).as_str()), (0, "0a:58:0a:11:00:02 10.17.0.2 fd01::2"));
}

#[test]
fn an_address_of_the_other_family_beside_it_is_refused() {
    let mut world = world();
    let both = Template::new([("ip_family", "ipv4"), ("ip_address", "fd00::9")]);
    made(&mut world, &web(), both);
    let complaint = "The annotation ovn.kubernetes.io/ip_family is ipv4, but the requested address fd00::9 is of the \
        other family. Remove one of them.";
    assert_eq!((world.complaints(&web()), world.row(&web())), (vec![complaint.to_owned()], None));
    made(&mut world, &web(), Template::new([("ip_family", "dual"), ("ip_address", "fd00::9")]));
    assert_eq!(lease(&world), "0a:58:0a:10:00:02 10.16.0.2 fd00::9");
}

#[test]
fn any_link_local_address_passes_by_the_operators_word_alone_and_at_once() {
    let mut world = world();
    world.run(&web(), plain(), "node-a");
    assert_eq!(security(&world), [DUAL]);
    allow(&mut world, "explicit,link-local");
    let open = format!("{DUAL} fe80::/64");
    assert_eq!((security(&world), lease(&world).as_str()), (vec![open.clone()], DUAL));
    // What another program writes into the columns is put back, and the lease is read from what is left.
    let (port, _) = world.row(&web()).expect("its port");
    world.edit(|tables| tables.ports.get_mut(&port).expect("it").addresses = Elements::default());
    world.settle(100);
    assert_eq!((security(&world), lease(&world).as_str()), (vec![open], DUAL));
    allow(&mut world, "explicit");
    assert_eq!((security(&world), world.complaints(&web())), (vec![DUAL.to_owned()], vec![]));
    let open = format!("{DUAL} fe80::/64");
    world.edit(|tables| tables.ports.get_mut(&port).expect("it").port_security = [open].into_iter().collect());
    world.settle(100);
    assert_eq!(security(&world), [DUAL]);
}

#[test]
fn a_request_that_is_refused_keeps_no_port_from_the_operators_word() {
    let mut world = world();
    made(&mut world, &web(), plain());
    made(&mut world, &web(), at("x"));
    allow(&mut world, "explicit,link-local");
    assert_eq!((security(&world), world.complaints(&web()).len()), (vec![format!("{DUAL} fe80::/64")], 1));
    made(&mut world, &web(), of_family("ipv4"));
    let lease = "0a:58:0a:10:00:02 10.16.0.2";
    assert_eq!(security(&world), [lease], "a network of IPv6 would let IPv6 through");
    assert!(!world.settings.policy.allow.has(Permission::LinkLocal), "it is not the default");
}

/// A router on the first switch, with these keys of `ipv6_ra_configs`.
fn router(world: &mut World, slot: u8, network: &str, configs: Map) {
    let (name, networks) = (format!("lrp{slot}"), [network].into_iter().map(ToOwned::to_owned).collect());
    let peer = map([("router-port", name.as_str())]);
    let row = LogicalRouterPort { name, mac: "02:00:00:00:00:01".into(), networks, ipv6_ra_configs: configs };
    world.edit(|tables| {
        let port = LogicalSwitchPort {
            name: format!("to-lrp{slot}"),
            kind: "router".into(),
            addresses: Elements::from_iter(["router"]),
            options: peer,
            ..Default::default()
        };
        tables.put_port(uuid(1, 0), uuid(2, slot), port);
        tables.router_ports.insert(uuid(3, slot), row);
    });
    world.settle(100);
}

fn configs(world: &World, slot: u8) -> Map {
    world.tables.router_ports[&uuid(3, slot)].ipv6_ra_configs.clone()
}

/// What the operator is told of a router port.
fn lacks(router_port: &str) -> Vec<String> {
    vec![format!(
        "The router port {router_port} of the logical switch blue has no ipv6_ra_configs:address_mode, so IPv6 guests get \
        no router advertisement. Start ovn-kubevirt with --manage-ra=true, or run ovn-nbctl set Logical_Router_Port \
        {router_port} ipv6_ra_configs:address_mode=dhcpv6_stateful."
    )]
}

#[test]
fn a_router_that_does_not_advertise_itself_is_told_to_vms_with_ipv6_alone() {
    let mut world = world();
    made(&mut world, &web(), plain());
    made(&mut world, &db(), of_family("ipv4"));
    assert_eq!(world.complaints(&web()), [""; 0], "there is no router");
    router(&mut world, 0, "10.16.0.1/16", map([]));
    assert_eq!(world.complaints(&web()), [""; 0], "the router has no IPv6 address");
    router(&mut world, 0, "fd00::1/64", map([]));
    assert_eq!((world.complaints(&web()), world.complaints(&db())), (lacks("lrp0"), vec![]));
    router(&mut world, 0, "fd00::1/64", map([("address_mode", "slaac")]));
    let slaac = "The router port lrp0 of the logical switch blue has ipv6_ra_configs:address_mode=slaac, so IPv6 guests \
        make addresses that port security drops. Run ovn-nbctl set Logical_Router_Port lrp0 \
        ipv6_ra_configs:address_mode=dhcpv6_stateful.";
    assert_eq!(world.complaints(&web()), [slaac]);
    router(&mut world, 0, "fd00::1/64", map([("address_mode", "dhcpv6_stateful")]));
    assert_eq!(world.complaints(&web()), [""; 0]);
    assert_eq!(configs(&world, 0), map([("address_mode", "dhcpv6_stateful")]), "nothing is written without the flag");
}

#[test]
fn by_the_flag_the_missing_keys_are_added_once_and_no_key_is_overwritten() {
    let mut world = world();
    world.settings.manage_ra = true;
    world.edit(|tables| {
        tables.switches.get_mut(&uuid(1, 0)).expect("blue").other_config.insert("mtu", "1400");
    });
    router(&mut world, 0, "fd00::1/64", map([("send_periodic", "false")]));
    made(&mut world, &db(), of_family("ipv4"));
    assert_eq!(configs(&world, 0), map([("send_periodic", "false")]), "no port has IPv6");
    made(&mut world, &web(), plain());
    let all = map([("address_mode", "dhcpv6_stateful"), ("send_periodic", "false"), ("mtu", "1400")]);
    assert_eq!((configs(&world, 0), world.complaints(&web())), (all, vec![]));
    // The operator's mode stays, and is told.
    router(&mut world, 0, "fd00::1/64", map([("address_mode", "dhcpv6_stateless"), ("mtu", "1280")]));
    let all = map([("address_mode", "dhcpv6_stateless"), ("send_periodic", "true"), ("mtu", "1280")]);
    assert_eq!((configs(&world, 0), world.complaints(&web()).len()), (all, 1));
}

#[test]
fn of_several_routers_the_operator_chooses_which_one_advertises_itself() {
    let mut world = world();
    world.settings.manage_ra = true;
    router(&mut world, 0, "fd00::1/64", map([]));
    router(&mut world, 1, "fd00::9/64", map([]));
    made(&mut world, &web(), plain());
    assert_eq!((configs(&world, 0), configs(&world, 1)), (map([]), map([])));
    assert_eq!(world.complaints(&web()), lacks("lrp0"));
    router(&mut world, 1, "fd00::9/64", map([("address_mode", "dhcpv6_stateful")]));
    assert_eq!((configs(&world, 0), world.complaints(&web())), (map([]), vec![]));
    assert_eq!(configs(&world, 1).get("send_periodic"), Some("true"));
}

#[test]
fn a_router_port_is_written_once_for_the_vms_of_a_transaction() {
    let mut world = world();
    world.settings.manage_ra = true;
    router(&mut world, 0, "fd00::1/64", map([]));
    world.apply(&web(), plain());
    world.apply(&db(), plain());
    let routers = |rows: &[RowChange]| rows.iter().filter(|row| matches!(row, RowChange::RouterPort(_))).count();
    let first = world.look_at(&web());
    let claims = Claims::of(&first.rows);
    let second = crate::plan::decide(&world.snapshot(), &claims, &db());
    assert_eq!((routers(&first.rows), routers(&second.rows), second.rows.len()), (1, 0, 1));
    world.settle(100);
    assert_eq!(configs(&world, 0).get("address_mode"), Some("dhcpv6_stateful"));
}
