//! Values that people write into switches, ports and load balancers, beside a real northd where its reading matters.

use std::net::Ipv4Addr;

use ovn_kubevirt::ipam::{AddressPool, Subnet};

use super::{from_pool, has_seen, ips_of, requesting};
use crate::support::stage::SUBNET;
use crate::support::{Nic, Northbound, Stage, VmOptions, eventually};

#[tokio::test]
async fn a_bad_word_in_exclude_ips_stops_no_vm_and_is_in_status_and_metrics_until_it_is_corrected() {
    let stage = Stage::build("bad-word")
        .switch_with("ovn-default", &[("subnet", "10.16.0.9/255.255.0.0"), ("exclude_ips", "10.16.0.2,x")])
        .every_address()
        .start()
        .await;
    stage.create("plain", VmOptions::default(), &["10.16.0.3"]).await;
    stage.create("named", requesting("10.16.0.2"), &["10.16.0.2"]).await;
    for vm in ["plain", "named"] {
        stage.problem(vm, "SwitchSettingUnread", &["\"x\" in other_config:exclude_ips", "ovn-default"]).await;
    }
    let (_, metrics) = stage.service.http_get("/metrics").await;
    assert!(metrics.contains("ovn_kubevirt_problems{reason=\"SwitchSettingUnread\"} 2"), "{metrics}");
    stage.configure("exclude_ips", "10.16.0.2");
    stage.no_problem("plain").await;
    stage.configure("subnet", "10.16.0.0/24,10.17.0.0/24");
    stage.player.create_vm("later", VmOptions::default()).await;
    stage.problem("later", "SubnetMissing", &["10.16.0.0/24,10.17.0.0/24", "address/length"]).await;
    stage.holding("plain", &["10.16.0.3"]).await;
}

/// The addresses that northd gives to a `dynamic` port.
async fn given(northbound: &Northbound, name: &str) -> Ipv4Addr {
    northbound.add_foreign_port("ovn-default", name, &["dynamic"]);
    let given = eventually("northd gives an address", || async {
        let port = northbound.port(name).expect("the port");
        port.dynamic_addresses.clone().ok_or(format!("{port:#?}"))
    })
    .await;
    given.split_once(' ').expect("a MAC and an address").1.parse().expect("an address")
}

/// Each list with a subnet, and the first address that northd gives to a port of its own.
#[tokio::test]
async fn exclude_ips_and_subnet_are_read_as_the_northd_at_hand_reads_them() {
    let northbound = Stage::build("northd").switch_with("ovn-default", &[]).northd().northbound().await;
    for (index, (subnet, list)) in [
        ("10.16.0.0/24", "10.16.0.2..10.16.0.4"),
        ("10.16.0.0/24", "10.16.0.2 .. 10.16.0.4"),
        ("10.16.0.0/24", "10.16.0.2\t10.16.0.3\n10.16.0.4"),
        ("10.16.0.0/24", "10.16.0.2,10.16.0.3"),
        ("10.16.0.0/24", "10.16.0.2; 10.16.0.3"),
        ("10.16.0.0/24", "10.16.0.2-10.16.0.4"),
        ("10.16.0.0/24", "10.16.0.0/28"),
        ("10.16.0.0/24", "0x0a100002 168820739"),
        ("10.16.0.0/24", "::ffff:10.16.0.2 fd00::a10:3"),
        ("10.16.0.0/24", "10.16.0.9..10.16.0.2 10.16.0.2"),
        ("10.16.0.0/24", "10.99.0.1 10.16.0.2"),
        ("10.16.0.0/24", "x 10.16.0.2"),
        ("10.16.0.0/24", "10.16.0.02"),
        ("10.16.0.0/24", "10.16.0.2 // 10.16.0.3"),
        ("10.16.0.77/24", "10.16.0.2"),
        ("10.16.0.0/255.255.255.0", "10.16.0.2"),
        ("010.16.00.0/024", "10.16.0.2"),
        ("10.16.0.0/30", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let set = |key: &str, value: &str| {
            let escaped = value.replace('\t', "\\t").replace('\n', "\\n");
            northbound.nbctl(&["set", "Logical_Switch", "ovn-default", &format!("other_config:{key}=\"{escaped}\"")]);
        };
        set("subnet", subnet);
        set("exclude_ips", list);
        let name = format!("dynamic-{index}");
        let theirs = given(&northbound, &name).await;
        let ours = Subnet::new(Some(subnet), Some(list), None, []).expect(subnet);
        let spares = |address: Ipv4Addr| {
            let pool: AddressPool = address.to_string().parse().expect("a pool");
            ours.northd_spares(true, &pool)
        };
        assert!(!spares(theirs), "{list:?}: northd gives {theirs}");
        let lower = (1..theirs.octets()[3]).map(|host| Ipv4Addr::new(10, 16, 0, host));
        lower.for_each(|lower| assert!(spares(lower), "{list:?}: northd gives {theirs} and spares {lower}"));
        northbound.delete_port(&name);
    }
    // northd allocates no address of a list that it refuses.
    for (index, subnet) in
        ["10.16.0.0/24,10.17.0.0/24", "10.16.0.0/255.0.255.0", "10.16.0.0", "x"].into_iter().enumerate()
    {
        northbound.nbctl(&["set", "Logical_Switch", "ovn-default", &format!("other_config:subnet=\"{subnet}\"")]);
        let name = format!("refused-{index}");
        northbound.add_foreign_port("ovn-default", &name, &["dynamic"]);
        northbound.sync_southbound();
        let given = northbound.port(&name).and_then(|port| port.dynamic_addresses).unwrap_or_default();
        assert!(!given.contains('.'), "{subnet}: {given}");
        assert!(Subnet::new(Some(subnet), None, None, []).is_err(), "{subnet}");
        northbound.delete_port(&name);
    }
}

#[tokio::test]
async fn an_address_that_northd_holds_in_its_own_spelling_is_never_allocated() {
    let prepared = Stage::build("spellings").northd().prepare().await;
    let northbound = &prepared.northbound;
    let spellings =
        ["a:58:a:10:0:2 10.16.0.002", "0A:58:0A:10:00:03\t10.16.0.3/24", "0a:58:0a:10:00:04 10.16.0.4/255.255.0.0"];
    for (index, spelling) in spellings.iter().enumerate() {
        northbound.add_foreign_port("ovn-default", &format!("printer-{index}"), &[*spelling]);
    }
    northbound.sync_southbound();
    // The addresses that northd gives show that it holds them.
    let theirs = given(northbound, "theirs").await;
    assert_eq!(theirs, Ipv4Addr::new(10, 16, 0, 5));
    northbound.delete_port("theirs");
    let stage = prepared.start().await;
    stage.create("plain", VmOptions::default(), &["10.16.0.5"]).await;
    for host in 2..=4 {
        let (vm, address) = (format!("vm-{host}"), format!("10.16.0.{host}"));
        stage.player.create_vm(&vm, requesting(&address)).await;
        stage.refused(&vm, &address, &format!("printer-{}", host - 2)).await;
    }
    stage.player.create_vm("mac", VmOptions::default().mac("0a:58:0a:10:00:02")).await;
    stage.problem("mac", "AddressConflict", &["0a:58:0a:10:00:02", "printer-0"]).await;
}

#[tokio::test]
async fn pools_beside_dynamic_ports_count_as_far_as_northd_reads() {
    let config = [("subnet", "10.16.0.0/24"), ("exclude_ips", "10.16.0.1..10.16.0.9,10.16.0.10..10.16.0.19")];
    let prepared = Stage::build("comma").switch_with("ovn-default", &config).every_address().northd().prepare().await;
    let theirs = given(&prepared.northbound, "theirs").await;
    assert_eq!(theirs, Ipv4Addr::new(10, 16, 0, 10), "northd stops at the comma");
    let stage = prepared.start().await;
    stage.create("before", from_pool("10.16.0.5..10.16.0.9"), &["10.16.0.5"]).await;
    stage.player.create_vm("behind", from_pool("10.16.0.11..10.16.0.19")).await;
    stage.problem("behind", "PoolRequired", &["theirs", "first comma", "blanks"]).await;
    stage.configure("exclude_ips", "10.16.0.1..10.16.0.9 10.16.0.10..10.16.0.19");
    stage.holding("behind", &["10.16.0.11"]).await;
}

#[tokio::test]
async fn sources_of_health_checks_and_addresses_that_a_foreign_port_may_speak_with_are_never_allocated() {
    let prepared = Stage::build("answered").northd().prepare().await;
    let northbound = &prepared.northbound;
    northbound.nbctl(&["lb-add", "shop", "10.200.0.1:80", "10.16.0.9:80"]);
    northbound.nbctl(&["set", "Load_Balancer", "shop", "ip_port_mappings:10.16.0.9=backend:10.16.0.2"]);
    northbound.add_foreign_port("ovn-default", "keepalived", &["02:00:00:00:00:01 10.16.0.3"]);
    northbound.nbctl(&[
        "lsp-set-port-security",
        "keepalived",
        "02:00:00:00:00:01 10.16.0.3 10.16.0.4",
        "00:00:5e:00:01:05 10.16.0.5 10.16.0.0/16 fe80::/64",
    ]);
    let binding = ["logical_port=lrp", "ip=10.16.0.6", "mac=\"02:00:00:00:00:03\""];
    northbound.nbctl(&[&["create", "Static_MAC_Binding"], &binding[..]].concat());
    let options = ["cidr=10.16.0.0/16", "options:router=10.16.0.7"];
    northbound.nbctl(&[&["create", "DHCP_Options"], &options[..]].concat());
    let stage = prepared.start().await;
    stage.create("plain", VmOptions::default(), &["10.16.0.8"]).await;
    for (vm, address, holder) in [
        ("checks", "10.16.0.2", "the health checks of the load balancer shop"),
        ("vip", "10.16.0.4", "keepalived"),
        ("vrrp", "10.16.0.5", "keepalived"),
    ] {
        stage.player.create_vm(vm, requesting(address)).await;
        stage.problem(vm, "AddressConflict", &[address, holder]).await;
    }
    stage.northbound.nbctl(&["clear", "Load_Balancer", "shop", "ip_port_mappings"]);
    stage.holding("checks", &["10.16.0.2"]).await;
    stage.northbound.nbctl(&["lsp-set-port-security", "keepalived", "02:00:00:00:00:01 10.16.0.3"]);
    stage.holding("vip", &["10.16.0.4"]).await;
    stage.holding("vrrp", &["10.16.0.5"]).await;
}

#[tokio::test]
async fn the_forwarding_group_of_a_switch_keeps_its_address_and_mac() {
    let stage = Stage::build("forwarding").start().await;
    stage.northbound.add_foreign_port("ovn-default", "uplink", &["02:00:00:00:00:01"]);
    stage.northbound.nbctl(&["fwd-group-add", "up", "ovn-default", "10.16.0.2", "02:00:00:00:00:02", "uplink"]);
    has_seen_after(&stage).await;
    stage.create("plain", VmOptions::default(), &["10.16.0.4"]).await;
    stage.player.create_vm("named", requesting("10.16.0.2").mac("02:00:00:00:00:02")).await;
    stage.problem("named", "AddressConflict", &["10.16.0.2", "the forwarding group up"]).await;
    stage.northbound.nbctl(&["fwd-group-del", "up"]);
    stage.holding("named", &["10.16.0.2"]).await;
}

async fn has_seen_after(stage: &Stage) {
    stage.create("sentinel-vm", requesting("10.16.0.3"), &["10.16.0.3"]).await;
    has_seen(stage, "sentinel-vm").await;
}

#[tokio::test]
async fn nics_on_switches_of_one_subnet_have_a_mac_each() {
    let stage = Stage::build("two-macs").start().await;
    stage.northbound.add_switch("twin", &SUBNET);
    stage.player.create_nad("net1", Some("twin")).await;
    stage.player.create_vm("testvm", VmOptions::default().nic(Nic::nad("second", "net1"))).await;
    let second = format!("{}.net1.{}.ovn", stage.name("testvm"), stage.namespace.name);
    let second =
        eventually("the second port is there", || async { stage.northbound.port(&second).ok_or("not yet") }).await;
    let macs = [stage.port("testvm").await, second].map(|port| {
        let text = port.addresses.first().expect("an element").clone();
        assert!(text.ends_with(" 10.16.0.2"), "{text}");
        text.split(' ').next().expect("a MAC").to_owned()
    });
    assert_ne!(macs[0], macs[1]);
}

#[tokio::test]
async fn a_switch_without_addresses_serves_macs_alone_where_that_is_wanted() {
    let mut stage = Stage::build("mac-only")
        .switch_with("ovn-default", &[("mac_only", "true")])
        .switch_with("bare", &[])
        .switch("full", "10.16.0.0/16")
        .northd()
        .start()
        .await;
    let on = |switch: &str| VmOptions::default().annotation(super::SWITCH, switch);
    let plain = stage.create("plain", VmOptions::default(), &[]).await;
    stage.event("plain", "AddressAssigned", &["the MAC 0a:58:", "alone", "ovn-default"]).await;
    stage.no_problem("plain").await;
    stage.create("on-bare", on("bare").annotation(super::IP_ADDRESS, "none"), &[]).await;
    stage.create("on-full", on("full").annotation(super::IP_ADDRESS, "none"), &[]).await;
    stage.player.create_vm("asks", on("bare")).await;
    stage.problem("asks", "SubnetMissing", &["bare", "ip_address \"none\""]).await;
    stage.player.edit_template_annotation("asks", super::IP_ADDRESS, Some("none")).await;
    let asks = stage.port("asks").await;
    assert_eq!((ips_of(&asks), &asks.port_security), (vec![], &asks.addresses));
    // It is a lease, through restarts of both.
    stage.started("plain", "n1").await;
    stage.restart().await;
    stage.player.restart("plain", "n2").await;
    let now = stage.port_where("plain", "is on n2", |port| port.option("requested-chassis") == Some("n2")).await;
    assert_eq!(super::lease(&now), super::lease(&plain));
    // From none to an address at the next start, and back.
    stage.started("on-full", "n1").await;
    for (request, expected) in
        [(None, vec!["10.16.0.2"]), (Some("none"), vec![]), (Some("10.16.0.9"), vec!["10.16.0.9"])]
    {
        let before = stage.port("on-full").await;
        stage.player.edit_template_annotation("on-full", super::IP_ADDRESS, request).await;
        let reserved =
            stage.port_where("on-full", "has a reservation", |port| port.external_id(super::NEXT).is_some()).await;
        assert_eq!(reserved.addresses, before.addresses, "the guest runs");
        stage.player.restart("on-full", "n1").await;
        let port = stage.holding("on-full", &expected).await;
        assert_eq!((&port.uuid, &port.port_security), (&before.uuid, &port.addresses));
    }
    stage.northbound.sync_southbound();
}
