//! DHCP by OVN: the rows that ports share, and who has them.

use uuid::Uuid;

use super::examples::{db, made, plain, web};
use super::objects::Template;
use super::world::{INSTANCE, World, map, uuid};
use crate::contract::{dhcp_uuid, keys};
use crate::intent::DhcpMode;
use crate::ovn::{DhcpOptions, LogicalRouterPort, LogicalSwitchPort, Northbound};
use crate::ovsdb::{Map, Operation, Set};
use crate::plan::{Claims, DhcpChange, Freed, RowChange, decide};

fn world() -> World {
    World::new([("blue", map([("subnet", "10.16.0.0/24"), ("ipv6_prefix", "fd00::")]))])
}

fn tap() -> Template {
    plain().bound_by("managedtap")
}

fn options(world: &World, row: Option<Uuid>) -> Map {
    world.tables.dhcp[&row.expect("a reference")].options.clone()
}

fn port(world: &World, vm: &crate::contract::VmKey) -> LogicalSwitchPort {
    world.row(vm).expect("a port").1
}

fn configure(world: &mut World, key: &str, value: &str) {
    world.edit(|tables| {
        drop(tables.switches.get_mut(&uuid(1, 0)).expect("blue").other_config.insert(key, value));
    });
    world.settle(100);
}

fn route(world: &mut World, network: &str) {
    world.edit(|tables| {
        let options = map([("router-port", "lrp0")]);
        let row = LogicalSwitchPort { name: "r".into(), kind: "router".into(), options, ..Default::default() };
        tables.put_port(uuid(1, 0), uuid(2, 9), row);
        let networks = Set::from_iter([network.to_owned(), "fd00::1/64".to_owned()]);
        let mac = "02:00:00:00:ff:01".into();
        tables.router_ports.insert(
            uuid(3, 0),
            LogicalRouterPort { ipv6_ra_configs: Map::default(), name: "lrp0".into(), mac, networks },
        );
    });
    world.settle(100);
}

/// A row of another program.
fn foreign_row(world: &mut World) -> Uuid {
    let row = uuid(9, 0);
    let options = map([("server_id", "10.16.0.9"), ("server_mac", "02:00:00:00:00:09"), ("lease_time", "60")]);
    let content = DhcpOptions { cidr: "10.16.0.0/24".into(), options, ..DhcpOptions::default() };
    world.edit(|tables| drop(tables.dhcp.insert(row, content)));
    row
}

#[test]
fn a_nic_with_a_managed_tap_gets_dhcp_by_rows_of_ours() {
    let mut world = world();
    made(&mut world, &web(), tap());
    let port = port(&world, &web());
    assert_eq!(port.options.get("hostname"), Some("\"web\""));
    let v4 = world.tables.dhcp[&port.dhcpv4_options.expect("v4")].clone();
    let mac = v4.options.get("server_mac").expect("a MAC").to_owned();
    assert!(mac.starts_with("0e:"), "{mac}");
    let expected = DhcpOptions {
        cidr: "10.16.0.0/24".into(),
        options: map([("server_id", "10.16.0.1"), ("server_mac", &mac), ("lease_time", "3600"), ("mtu", "1442")]),
        external_ids: map([
            ("vendor", "ovn-kubevirt"),
            ("ovn-kubevirt.io/instance", INSTANCE),
            ("ovn-kubevirt.io/switch", "blue"),
        ]),
    };
    assert_eq!(v4, expected);
    let v6 = &world.tables.dhcp[&port.dhcpv6_options.expect("v6")];
    assert_eq!((v6.cidr.as_str(), &v6.options), ("fd00::/64", &map([("server_id", mac.as_str())])));
    let status = &world.statuses[&web()].annotated()[0];
    assert_eq!(status.dhcp, ["DHCPv4", "DHCPv6"]);
    world.a_sweep_changes_no_row();
}

#[test]
fn the_operators_settings_are_in_the_rows() {
    let mut world = world();
    let dhcp = &mut world.settings.dhcp;
    dhcp.dns_servers = vec!["1.1.1.1".parse().expect("IP"), "fd00::53".parse().expect("IP"), [8, 8, 8, 8].into()];
    dhcp.domain = Some("vms.example".try_into().expect("a domain"));
    (dhcp.lease_time, dhcp.mtu) = (600, Some(8_942));
    made(&mut world, &web(), tap());
    let port = port(&world, &web());
    let v4 = options(&world, port.dhcpv4_options);
    let get = |key| v4.get(key).expect(key);
    assert_eq!(
        [get("dns_server"), get("domain_name"), get("lease_time"), get("mtu")],
        ["{1.1.1.1, 8.8.8.8}", "\"vms.example\"", "600", "8942"]
    );
    assert_eq!(options(&world, port.dhcpv6_options).get("dns_server"), Some("fd00::53"));
}

#[test]
fn ports_of_a_switch_share_rows_that_are_inserted_once_in_one_transaction_or_in_two() {
    for vms in [1, 100] {
        let mut world = world();
        world.apply(&web(), tap());
        world.apply(&db(), tap());
        world.settle(vms);
        let (web, db) = (port(&world, &web()), port(&world, &db()));
        assert_eq!(web.dhcp_rows().collect::<Vec<_>>(), db.dhcp_rows().collect::<Vec<_>>());
        assert_eq!((world.tables.dhcp.len(), web.dhcp_rows().count()), (2, 2));
    }
}

#[test]
fn a_vm_that_is_decided_while_the_row_is_in_flight_refers_to_it_and_inserts_none() {
    let mut world = world();
    world.apply(&web(), tap());
    let first = world.look_at(&web());
    assert_eq!(first.rows.iter().filter(|change| change.as_port().is_none()).count(), 2);
    world.apply(&db(), tap());
    // In one transaction after it, or ahead of its answer.
    for claims in [first.claims.clone(), Claims::of(&first.rows)] {
        let second = decide(&world.snapshot(), &claims, &db());
        let [RowChange::Port(change)] = &second.rows[..] else { panic!("{:?}", second.rows) };
        let after = change.after.as_ref().expect("a port");
        let made: Vec<Uuid> = first.rows.iter().map(RowChange::uuid).collect();
        assert!(after.row.dhcp_rows().all(|row| made.contains(&row)));
    }
    // The first was refused, and a part of its transaction goes without it.
    let alone = decide(&world.snapshot(), &Claims::default(), &db());
    assert_eq!(alone.rows.iter().filter(|change| change.creates()).count(), 3);
}

#[test]
fn another_mtu_is_another_row_and_the_former_goes_once_no_port_has_it() {
    let mut world = world();
    made(&mut world, &web(), tap());
    made(&mut world, &db(), tap());
    let before = port(&world, &web());
    configure(&mut world, "mtu", "1400");
    let after = port(&world, &web());
    assert_ne!(before.dhcpv4_options, after.dhcpv4_options);
    assert_eq!(before.dhcpv6_options, after.dhcpv6_options);
    assert_eq!(options(&world, after.dhcpv4_options).get("mtu"), Some("1400"));
    assert_eq!(world.northbound.unused_dhcp_rows().collect::<Vec<_>>(), [before.dhcpv4_options.expect("a row")]);
    world.collect();
    let mut rows: Vec<Uuid> = world.tables.dhcp.keys().copied().collect();
    let mut referred: Vec<Uuid> = after.dhcp_rows().collect();
    rows.sort();
    referred.sort();
    assert_eq!(rows, referred);
    // What cannot be an MTU counts for nothing.
    configure(&mut world, "mtu", "67");
    assert_eq!(options(&world, port(&world, &web()).dhcpv4_options).get("mtu"), Some("1442"));
    [web(), db()].iter().for_each(|vm| world.destroy(vm));
    world.collect();
    assert_eq!(world.tables.dhcp.len(), 0);
}

#[test]
fn a_router_on_the_switch_is_the_server_and_the_router_of_its_guests() {
    let mut world = world();
    made(&mut world, &web(), tap());
    route(&mut world, "10.16.0.254/24");
    let v4 = options(&world, port(&world, &web()).dhcpv4_options);
    let get = |key| v4.get(key).expect(key);
    assert_eq!(
        [get("server_id"), get("router"), get("server_mac")],
        ["10.16.0.254", "10.16.0.254", "02:00:00:00:ff:01"]
    );
    let v6 = options(&world, port(&world, &web()).dhcpv6_options);
    assert_eq!(v6.get("server_id"), Some("02:00:00:00:ff:01"));
    world.edit(|tables| tables.remove_port(uuid(2, 9)));
    world.settle(100);
    let v4 = options(&world, port(&world, &web()).dhcpv4_options);
    assert_eq!((v4.get("server_id"), v4.get("router")), (Some("10.16.0.1"), None));
}

#[test]
fn the_server_of_our_own_rows_keeps_no_vm_from_an_address() {
    let mut world = world();
    made(&mut world, &web(), tap());
    let foreign = world.northbound.foreign_changes();
    made(&mut world, &db(), Template::new([("ip_address", "10.16.0.1")]));
    assert_eq!(world.complaints(&db()), [""; 0]);
    assert!(!world.northbound.service_addresses(true).contains([10, 16, 0, 1].into()));
    assert_eq!(world.northbound.foreign_changes(), foreign);
}

#[test]
fn the_host_name_of_the_owners_options_is_that_of_the_port_and_goes_with_them() {
    let mut world = world();
    let named = || tap().annotated("ovn.kubernetes.io/dhcp-v4-options", "hostname=\"shop\"");
    made(&mut world, &web(), named());
    assert_eq!(port(&world, &web()).options.get("hostname"), Some("\"shop\""));
    world.apply(&web(), tap());
    world.settle(100);
    assert_eq!(port(&world, &web()).options.get("hostname"), Some("\"web\""));
    for last in [tap().annotated("ovn.kubernetes.io/dhcp", "false"), plain()] {
        world.apply(&web(), named());
        world.settle(100);
        assert_eq!(port(&world, &web()).options.get("hostname"), Some("\"shop\""));
        world.apply(&web(), last);
        world.settle(100);
        assert_eq!(port(&world, &web()).options.get("hostname"), None);
    }
}

#[test]
fn an_owners_options_override_the_switchs_one_by_one_in_a_row_of_the_ports_own() {
    let mut world = world();
    let own = || tap().annotated("ovn.kubernetes.io/dhcp-v4-options", "lease_time=600;ntp_server={10.0.0.1,10.0.0.2}");
    made(&mut world, &web(), own());
    made(&mut world, &db(), own());
    let (web_port, db_port) = (port(&world, &web()), port(&world, &db()));
    let v4 = options(&world, web_port.dhcpv4_options);
    let get = |key| v4.get(key).expect(key);
    assert_eq!(
        [get("lease_time"), get("ntp_server"), get("mtu"), get("server_id")],
        ["600", "{10.0.0.1, 10.0.0.2}", "1442", "10.16.0.1"]
    );
    let row = &world.tables.dhcp[&web_port.dhcpv4_options.expect("a row")];
    assert_eq!(row.external_ids.get(keys::DHCP_PORT), Some("web.n"));
    // The row of one port serves no other port, even where the options are equal.
    assert_ne!(web_port.dhcpv4_options, db_port.dhcpv4_options);
    assert_eq!(web_port.dhcpv6_options, db_port.dhcpv6_options);
    // Without the annotation the port shares the row again.
    world.apply(&web(), tap());
    world.settle(100);
    assert_eq!(options(&world, port(&world, &web()).dhcpv4_options).get("lease_time"), Some("3600"));
}

#[test]
fn options_that_cannot_be_sent_are_refused_and_the_port_keeps_what_it_had() {
    let mut world = world();
    made(&mut world, &web(), tap());
    let before = port(&world, &web());
    let bad = |text: &str| tap().annotated("ovn.kubernetes.io/dhcp-v4-options", text);
    for text in ["mtu=70000", "foo=1", "lease_time=1h"] {
        world.apply(&web(), bad(text));
        world.settle(100);
        assert_eq!(port(&world, &web()), before, "{text}");
        let complaints = world.complaints(&web());
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].contains("ovn.kubernetes.io/dhcp-v4-options"), "{complaints:?}");
    }
    // It cannot be sent with the lease time of the switch.
    world.apply(&web(), bad("T1=5000"));
    world.settle(100);
    assert_eq!(port(&world, &web()), before);
    let complaints = world.complaints(&web());
    assert!(complaints[0].starts_with("DHCP for the network default stays as it is: "), "{complaints:?}");
    world.apply(&web(), tap());
    world.settle(100);
    assert_eq!((world.complaints(&web()), port(&world, &web())), (vec![], before));
}

#[test]
fn ovn_never_answers_beside_another_server() {
    let mut world = world();
    made(&mut world, &web(), plain());
    assert_eq!((world.complaints(&web()), port(&world, &web()).dhcp_rows().count()), (vec![], 0));
    let asked = [
        plain().annotated("ovn.kubernetes.io/dhcp", "true"),
        plain().annotated("ovn.kubernetes.io/dhcp-v4-options", "mtu=1400"),
    ];
    for mode in [DhcpMode::Auto, DhcpMode::Always] {
        world.settings.dhcp.mode = mode;
        for asked in asked.clone() {
            world.apply(&web(), asked);
            world.settle(100);
            let words = "OVN does not answer DHCP for the network default: the binding of its interface is KubeVirt's \
                default, bridge or masquerade, so virt-launcher's own DHCP server answers the guest. Remove the annotations \
                about DHCP, or choose a binding that leaves DHCP to the network, such as managedTap.";
            assert_eq!(world.complaints(&web()), [words]);
            assert_eq!(port(&world, &web()).dhcp_rows().count(), 0);
        }
        world.apply(&web(), plain());
        world.settle(100);
        assert_eq!(world.complaints(&web()), [""; 0]);
    }
    made(&mut world, &db(), plain().bound_by("passt").annotated("ovn.kubernetes.io/dhcp", "true"));
    assert!(world.complaints(&db())[0].contains("its interface is passt"));
}

#[test]
fn the_operator_says_which_nics_get_it() {
    let served = |mode, template: Template| {
        let mut world = world();
        world.settings.dhcp.mode = mode;
        made(&mut world, &web(), template);
        (port(&world, &web()).dhcp_rows().count(), world.complaints(&web()).len())
    };
    let asks = |template: Template, value| template.annotated("ovn.kubernetes.io/dhcp", value);
    let other = || plain().bound_by("macvlan");
    use DhcpMode::{Always, Auto, Never};
    assert_eq!([Auto, Always, Never].map(|mode| served(mode, tap())), [(2, 0), (2, 0), (0, 0)]);
    assert_eq!([Auto, Always, Never].map(|mode| served(mode, other())), [(0, 0), (2, 0), (0, 0)]);
    assert_eq!([Auto, Always, Never].map(|mode| served(mode, asks(other(), "true"))), [(2, 0), (2, 0), (0, 1)]);
    assert_eq!([Auto, Always, Never].map(|mode| served(mode, asks(tap(), "false"))), [(0, 0); 3]);
    let bare = tap().annotated("ovn.kubernetes.io/ip_address", "none");
    assert_eq!([served(Auto, bare.clone()), served(Auto, asks(bare, "true"))], [(0, 0), (0, 1)]);
}

#[test]
fn references_of_others_stay_until_dhcp_is_requested_and_only_ours_are_dropped() {
    let mut world = world();
    made(&mut world, &web(), plain());
    let foreign = foreign_row(&mut world);
    let refer = |world: &mut World| {
        world.edit(|tables| {
            let (uuid, _) = tables.port_named("web.n").expect("a port");
            let port = tables.ports.get_mut(&uuid).expect("a port");
            port.dhcpv4_options = Some(foreign);
            port.options.insert("hostname", "\"theirs\"");
        });
        world.settle(100);
    };
    refer(&mut world);
    let kept = port(&world, &web());
    assert_eq!((kept.dhcpv4_options, kept.options.get("hostname")), (Some(foreign), Some("\"theirs\"")));
    world.apply(&web(), tap());
    world.settle(100);
    let ours = port(&world, &web());
    assert!(ours.dhcpv4_options.is_some_and(|row| row != foreign) && ours.dhcpv6_options.is_some());
    assert_eq!(ours.options.get("hostname"), Some("\"web\""));
    refer(&mut world);
    assert_eq!(port(&world, &web()), ours, "a drift is repaired");
    world.apply(&web(), tap().annotated("ovn.kubernetes.io/dhcp", "false"));
    world.settle(100);
    let off = port(&world, &web());
    assert_eq!((off.dhcp_rows().count(), off.options.get("hostname")), (0, None));
    refer(&mut world);
    assert_eq!(port(&world, &web()).dhcpv4_options, Some(foreign));
    world.collect();
    assert_eq!(world.tables.dhcp.keys().copied().collect::<Vec<_>>(), [foreign]);
}

#[test]
fn a_row_that_another_program_has_edited_or_deleted_is_restored_once_for_all_its_ports() {
    let mut world = world();
    made(&mut world, &web(), tap());
    made(&mut world, &db(), tap());
    let row = port(&world, &web()).dhcpv4_options.expect("a row");
    let content = world.tables.dhcp[&row].clone();
    let edits: [fn(&mut DhcpOptions); 6] = [
        |row| drop(row.options.insert("mtu", "9000")),
        |row| drop(row.options.insert("foo", "bar")),
        |row| row.cidr = "10.0.0.0/8".into(),
        |row| row.external_ids = Map::default(),
        |row| drop(row.external_ids.insert(keys::INSTANCE, "other")),
        |row| drop(row.external_ids.insert(keys::DHCP_PORT, "db.n")),
    ];
    for edit in edits {
        world.edit(|tables| edit(tables.dhcp.get_mut(&row).expect("the row")));
        assert!(!world.dirty.is_empty(), "its ports are decided again");
        world.settle(1);
        assert_eq!(world.tables.dhcp[&row], content);
    }
    world.edit(|tables| drop(tables.dhcp.remove(&row)));
    world.settle(1);
    assert_eq!((world.tables.dhcp.get(&row), port(&world, &db()).dhcpv4_options), (Some(&content), Some(row)));
    world.a_sweep_changes_no_row();
}

#[test]
fn a_row_is_deleted_behind_waits_and_a_vm_that_refers_to_it_is_decided_after() {
    let mut world = world();
    made(&mut world, &web(), tap());
    let row = port(&world, &web()).dhcpv4_options.expect("a row");
    world.destroy(&web());
    let change = DhcpChange::removal(&world.northbound, row).expect("a row of ours");
    let guards = change.guards();
    for (guard, column) in guards.iter().zip(["dhcpv4_options", "dhcpv6_options"]) {
        let Operation::Wait { table: "Logical_Switch_Port", conditions, rows, .. } = guard else { panic!("{guard:?}") };
        assert_eq!((conditions[0].column, rows.len()), (column, 0));
    }
    assert_eq!((guards.len(), change.operations().len()), (2, 1));
    // A VM that comes meanwhile would refer to it.
    world.apply(&db(), tap());
    let decision = world.look_at(&db());
    let freed = Freed::by(&[change.into()]);
    assert!(freed.concerns(&decision.rows, &decision.waits.wakes));
    assert!(!Freed::default().concerns(&decision.rows, &decision.waits.wakes));
    let foreign = foreign_row(&mut world);
    assert_eq!(DhcpChange::removal(&world.northbound, foreign), None);
}

#[test]
fn no_two_contents_have_one_uuid() {
    let options: Map = map([("mtu", "1442"), ("router", "10.16.0.1")]);
    let of = |switch, port, cidr, options: &Map| dhcp_uuid(INSTANCE, switch, port, cidr, options.iter());
    let one = of("blue", None, "10.16.0.0/24", &options);
    assert_eq!(one, of("blue", None, "10.16.0.0/24", &options.clone()));
    let split: Map = map([("mtu", "144"), ("2router", "10.16.0.1")]);
    let others = [
        of("red", None, "10.16.0.0/24", &options),
        of("blue", Some("web.n"), "10.16.0.0/24", &options),
        of("blue", None, "10.16.0.0/25", &options),
        of("blue", None, "10.16.0.0/24", &split),
        of("blue", Some("10.16.0.0/24"), "", &options),
        dhcp_uuid("other", "blue", None, "10.16.0.0/24", options.iter()),
    ];
    assert!(others.iter().all(|other| *other != one));
}

#[test]
fn a_first_sync_and_a_resync_find_the_same_use_of_rows() {
    let mut world = world();
    made(&mut world, &web(), tap());
    made(&mut world, &db(), tap());
    configure(&mut world, "mtu", "1400");
    let seen = |view: &Northbound| {
        let mut rows: Vec<(Uuid, u32)> = view.dhcp_rows().map(|(row, _)| (*row, view.users_of_dhcp_row(row))).collect();
        rows.sort();
        (rows, view.unused_dhcp_rows().collect::<Vec<_>>())
    };
    let now = seen(&world.northbound);
    assert_eq!(now, seen(&world.tables.replica(INSTANCE)));
    assert_eq!(now.0.iter().map(|(_, users)| *users).max(), Some(2));
    assert_eq!(now.1.len(), 1);
}
