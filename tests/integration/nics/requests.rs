//! Every key, by every prefix, and a NIC's changes that are its own.

use std::time::Duration;

use super::{addresses, build, ips, two};
use crate::support::{Nic, VmOptions, holds_for};

#[tokio::test]
async fn every_key_is_read_by_every_prefix_and_the_networks_own_is_the_strongest() {
    let stage = build("keys").flags(["--allow", "explicit,vips"]).start().await;
    let nics =
        [Nic::pod("default"), Nic::nad("second", "net1"), Nic::nad("third", "net2"), Nic::nad("fourth", "plain")];
    let options = VmOptions::default()
        .nics(nics)
        .annotation("ovn.kubernetes.io/ip_address", "10.16.0.15")
        .annotation("default.ovn.kubernetes.io/mac_address", "02:00:00:00:00:15")
        .annotation(&stage.nad_key("net1", "ip_address"), "10.17.0.15")
        .annotation("second.ovn.kubernetes.io/ip_address", "10.17.0.16")
        .annotation(&stage.nad_key("net1", "mac_address"), "02:00:00:00:00:16")
        .annotation(&stage.nad_key("net2", "logical_switch"), "red")
        .annotation("third.ovn.kubernetes.io/ip_address", "10.17.0.17")
        .annotation(&stage.nad_key("plain", "logical_switch"), "red")
        .annotation("fourth.ovn.kubernetes.io/logical_switch", "blue")
        .annotation("ovn.kubernetes.io/port_vips", "10.16.0.50")
        .annotation(&stage.nad_key("net1", "port_vips"), "10.17.0.50")
        .annotation("third.ovn.kubernetes.io/port_vips", "10.17.0.51")
        .annotation("ovn.kubernetes.io/ip_family", "ipv4")
        .annotation(&stage.nad_key("net1", "ip_family"), "ipv6")
        .annotation("second.ovn.kubernetes.io/ip_family", "ipv4");
    stage.player.create_vm("testvm", options).await;
    let ports = stage.nics("testvm", &["default", "second", "third", "fourth"]).await;
    assert_eq!(addresses(&ports["default"]), "02:00:00:00:00:15 10.16.0.15");
    assert_eq!(addresses(&ports["second"]), "02:00:00:00:00:16 10.17.0.16");
    assert_eq!(addresses(&ports["third"]), "0a:58:0a:11:00:11 10.17.0.17");
    assert_eq!((ips(&ports["fourth"]), &ports["fourth"].switches[..]), (vec!["10.18.0.2"], &["blue".to_owned()][..]));
    let vips = |network: &str| {
        let element = ports[network].port_security.first().expect("an element");
        element.split(' ').filter(|word| word.ends_with("/32")).collect::<Vec<_>>().join(" ")
    };
    let expected =
        [("default", "10.16.0.50/32"), ("second", "10.17.0.50/32"), ("third", "10.17.0.51/32"), ("fourth", "")];
    expected.iter().for_each(|(network, expected)| assert_eq!(vips(network), *expected, "{network}"));
    holds_for("nothing is complained of", Duration::from_millis(200), || async {
        let events = stage.namespace.events("testvm").await;
        if events.iter().all(|(kind, ..)| kind == "Normal") { Ok(()) } else { Err(format!("{events:?}")) }
    })
    .await;
}

#[tokio::test]
async fn one_family_requested_on_a_nad_and_the_other_allocated() {
    let stage = build("dual").start().await;
    stage.northbound.add_switch("dual", &[("subnet", "10.19.0.0/24"), ("ipv6_prefix", "fd00:19::")]);
    stage.player.create_nad("both", Some("dual")).await;
    let options = VmOptions::default().nics([Nic::nad("second", "both")]);
    let options = options.annotation(&stage.nad_key("both", "ip_address"), "fd00:19::15");
    stage.player.create_vm("testvm", options).await;
    assert_eq!(ips(&stage.nics("testvm", &["second"]).await["second"]), ["10.19.0.2", "fd00:19::15"]);
}

#[tokio::test]
async fn one_address_for_two_nics_is_an_error_with_the_correction() {
    let stage = build("shared").start().await;
    let key = stage.nad_key("net1", "ip_address");
    let nics = [Nic::nad("red", "net1"), Nic::nad("blue", "net1")];
    let options = VmOptions::default().nics(nics).annotation(&key, "10.17.0.15");
    stage.player.create_vm("testvm", options.annotation("red.ovn.kubernetes.io/ip_address", "10.17.0.20")).await;
    stage.event("testvm", "InvalidRequest", &["network blue", &key, "blue.ovn.kubernetes.io/ip_address"]).await;
    assert_eq!(ips(&stage.nics("testvm", &["red"]).await["red"]), ["10.17.0.20"]);
    stage.player.edit_template_annotation("testvm", &key, None).await;
    assert_eq!(ips(&stage.nics("testvm", &["red", "blue"]).await["blue"]), ["10.17.0.2"]);
}

#[tokio::test]
async fn nics_of_one_vm_exchange_their_addresses_and_macs() {
    let stage = build("exchange").start().await;
    let key = |network: &str, what: &str| format!("{network}.ovn.kubernetes.io/{what}");
    let mut options = VmOptions::default().nics([Nic::nad("red", "net1"), Nic::nad("blue", "net1")]);
    for (network, host) in [("red", 15), ("blue", 16)] {
        options = options.annotation(&key(network, "ip_address"), &format!("10.17.0.{host}"));
        options = options.annotation(&key(network, "mac_address"), &format!("02:00:00:00:00:{host}"));
    }
    stage.player.create_vm("testvm", options).await;
    let before = stage.nics("testvm", &["red", "blue"]).await;
    stage.player.start("testvm", "n1").await;
    let edits = [("red", "10.17.0.16", "02:00:00:00:00:16"), ("blue", "10.17.0.15", "02:00:00:00:00:15")];
    for (network, ip, mac) in edits {
        stage.player.edit_template_annotation("testvm", &key(network, "ip_address"), Some(ip)).await;
        stage.player.edit_template_annotation("testvm", &key(network, "mac_address"), Some(mac)).await;
    }
    stage.player.restart("testvm", "n1").await;
    let of_other = |network: &str| if network == "red" { "blue" } else { "red" };
    let after = stage
        .ports_where("testvm", "exchanged", |ports| {
            ports.iter().all(|(network, port)| port.addresses == before[of_other(network)].addresses)
        })
        .await;
    assert!(after.iter().all(|(network, port)| port.uuid == before[network].uuid), "{before:#?} became {after:#?}");
    assert!(after.values().all(|port| port.port_security == port.addresses), "{after:#?}");
}

#[tokio::test]
async fn the_address_that_one_nic_requests_is_not_allocated_to_another_on_its_switch() {
    let stage = build("named").start().await;
    let nics = [Nic::nad("red", "net1"), Nic::nad("blue", "net1")];
    let options = VmOptions::default().nics(nics).annotation("blue.ovn.kubernetes.io/ip_address", "10.17.0.2");
    stage.player.create_vm("testvm", options).await;
    let ports = stage.nics("testvm", &["red", "blue"]).await;
    assert_eq!((ips(&ports["red"]), ips(&ports["blue"])), (vec!["10.17.0.3"], vec!["10.17.0.2"]));
}

#[tokio::test]
async fn two_different_macs_for_one_nic_are_an_error_that_names_both() {
    let stage = build("mismatch").start().await;
    let options = VmOptions::default().mac("02:00:00:00:00:01");
    stage.player.create_vm("testvm", options.annotation("ovn.kubernetes.io/mac_address", "02:00:00:00:00:02")).await;
    stage.event("testvm", "InvalidRequest", &["02:00:00:00:00:01", "02:00:00:00:00:02", "Remove one"]).await;
    assert_eq!(stage.ports_of("testvm").len(), 0);
    stage.player.edit_template_annotation("testvm", "ovn.kubernetes.io/mac_address", None).await;
    let ports = stage.nics("testvm", &["default"]).await;
    assert!(addresses(&ports["default"]).starts_with("02:00:00:00:00:01 "), "{ports:#?}");
}

#[tokio::test]
async fn port_security_goes_off_only_where_the_operator_allows_it() {
    let key = "second.ovn.kubernetes.io/port_security";
    let strict = build("strict").start().await;
    strict.player.create_vm("testvm", two().annotation(key, "false")).await;
    strict
        .event("testvm", "PortSecurityKept", &["network second", "--allow of ovn-kubevirt", "\"port-security-off\""])
        .await;
    let ports = strict.nics("testvm", &["default", "second"]).await;
    assert!(ports.values().all(|port| port.port_security == port.addresses), "{ports:#?}");

    let lax = build("lax").flags(["--allow", "explicit,port-security-off"]).start().await;
    lax.player.create_vm("testvm", two().annotation(key, "false")).await;
    let off = lax.nics("testvm", &["default", "second"]).await;
    assert!(off["second"].port_security.is_empty(), "{off:#?}");
    assert_eq!(off["default"].port_security, off["default"].addresses);
    // The address is the lease all the same; and on a running VM the change waits for the next start.
    lax.player.start("testvm", "n1").await;
    lax.player.edit_template_annotation("testvm", key, None).await;
    lax.player.edit_template_annotation("testvm", "ovn.kubernetes.io/ip_address", Some("10.16.0.9")).await;
    lax.event("testvm", "AddressReserved", &["10.16.0.9"]).await;
    assert!(lax.ports_of("testvm")["second"].port_security.is_empty());
    lax.player.restart("testvm", "n1").await;
    let on = lax
        .ports_where("testvm", "secured", |ports| {
            ports.get("second").is_some_and(|port| !port.port_security.is_empty())
        })
        .await;
    assert_eq!(
        (&on["second"].port_security, &on["second"].addresses),
        (&off["second"].addresses, &off["second"].addresses)
    );
    lax.player.create_vm("mistyped", two().annotation(key, "no")).await;
    lax.event("mistyped", "InvalidRequest", &["network second", key, "\"no\""]).await;
}

#[tokio::test]
async fn keys_that_are_not_served_are_in_one_event_and_notes_are_not() {
    let stage = build("unserved").start().await;
    let options = two()
        .annotation("ovn.kubernetes.io/security_groups", "sg")
        .annotation(&stage.nad_key("net1", "ingress_rate"), "5")
        .annotation("second.ovn.kubernetes.io/ip_adress", "10.17.0.9")
        .annotation(&stage.nad_key("other", "ip_address"), "10.17.0.9")
        .annotation("ovn-kubevirt.io/retian", "72h")
        .annotation("ovn-kubevirt.io/retain", "a while")
        .annotation("ovn.kubernetes.io/allocated", "true")
        .annotation("ovn.kubernetes.io/cidr", "10.16.0.0/16");
    stage.player.create_vm("testvm", options).await;
    let reason = "UnsupportedAnnotation";
    stage.event("testvm", reason, &["network default", "ovn.kubernetes.io/security_groups"]).await;
    let second = stage.nad_key("net1", "ingress_rate");
    stage.event("testvm", reason, &["network second", &second, "second.ovn.kubernetes.io/ip_adress"]).await;
    stage.event("testvm", reason, &[&stage.nad_key("other", "ip_address"), "no such network"]).await;
    stage.event("testvm", reason, &["ovn-kubevirt.io/retian"]).await;
    stage.event("testvm", "InvalidRequest", &["ovn-kubevirt.io/retain", "\"a while\"", "72h", "forever"]).await;
    stage.nics("testvm", &["default", "second"]).await;
    stage.player.start("testvm", "n1").await;
    stage.status_of("testvm", 3).await;
    let events = stage.namespace.events("testvm").await;
    assert_eq!(events.iter().filter(|(_, found, _)| found == reason).count(), 4, "{events:#?}");
    assert!(!events.iter().any(|(.., text)| text.contains("allocated") || text.contains("cidr")), "{events:#?}");
}

#[tokio::test]
async fn kube_ovn_5933_changing_the_subnet_of_nic_1_leaves_nic_2_alone() {
    let stage = build("kube-ovn-5933").start().await;
    stage.northbound.add_switch("green", &[("subnet", "10.19.0.0/24")]);
    stage.player.create_vm("other", two()).await;
    stage.nics("other", &["default", "second"]).await;
    stage.player.create_vm("testvm", two()).await;
    let before = stage.nics("testvm", &["default", "second"]).await;
    // An address below is free: a new allocation would take it.
    stage.player.delete_vm("other").await;
    stage.nics("other", &[]).await;
    stage.player.edit_template_annotation("testvm", "ovn.kubernetes.io/logical_switch", Some("green")).await;
    let moved = stage
        .ports_where("testvm", "on green", |ports| ports.get("default").is_some_and(|port| port.switches == ["green"]))
        .await;
    assert_eq!((&moved["default"].uuid, ips(&moved["default"])), (&before["default"].uuid, vec!["10.19.0.2"]));
    assert_eq!(moved["second"], before["second"]);
    // And the other way round, from start to start.
    stage.player.start("testvm", "n1").await;
    let key = "second.ovn.kubernetes.io/logical_switch";
    stage.player.edit_template_annotation("testvm", key, Some("blue")).await;
    stage.event("testvm", "SwitchChangePending", &["network second", "blue"]).await;
    stage.player.stop("testvm").await;
    let again = stage
        .ports_where("testvm", "on blue", |ports| {
            ports.get("second").is_some_and(|port| port.switches == ["blue"] && port.options.is_empty())
        })
        .await;
    assert_eq!(again["default"], moved["default"]);
}

#[tokio::test]
async fn kube_ovn_6762_a_static_address_of_the_second_nic_alone_is_the_second_nics() {
    let stage = build("kube-ovn-6762").start().await;
    let key = stage.nad_key("net1", "ip_address");
    stage.player.create_vm("testvm", two().annotation(&key, "10.17.0.50")).await;
    let made = stage.nics("testvm", &["default", "second"]).await;
    assert_eq!((ips(&made["default"]), ips(&made["second"])), (vec!["10.16.0.2"], vec!["10.17.0.50"]));
    // Another request for it, while the VM runs: reserved for that NIC alone, and in force at the next start.
    stage.player.start("testvm", "n1").await;
    stage.player.edit_template_annotation("testvm", &key, Some("10.17.0.51")).await;
    let next = "ovn-kubevirt.io/next-addresses";
    let reserved = stage
        .ports_where("testvm", "reserved", |ports| {
            ports.get("second").is_some_and(|port| port.external_id(next).is_some())
        })
        .await;
    assert_eq!(ips(&reserved["second"]), ["10.17.0.50"]);
    assert_eq!(reserved["second"].external_id(next).map(|next| next.ends_with(" 10.17.0.51")), Some(true));
    assert_eq!(reserved["default"].external_id(next), None);
    stage.player.restart("testvm", "n2").await;
    let started = stage
        .ports_where("testvm", "restarted", |ports| {
            ports.values().all(|port| port.option("requested-chassis") == Some("n2"))
        })
        .await;
    assert_eq!((ips(&started["default"]), ips(&started["second"])), (vec!["10.16.0.2"], vec!["10.17.0.51"]));
}

#[tokio::test]
async fn kube_ovn_5848_each_nic_has_its_own_static_address_over_restarts_and_a_migration() {
    let stage = build("kube-ovn-5848").start().await;
    let options = two()
        .nic(Nic::nad("third", "net2"))
        .annotation("ovn.kubernetes.io/ip_address", "10.16.0.60")
        .annotation(&stage.nad_key("net1", "ip_address"), "10.17.0.61")
        .annotation(&stage.nad_key("net2", "ip_address"), "10.18.0.62");
    stage.player.create_vm("testvm", options).await;
    let networks = ["default", "second", "third"];
    let made = stage.nics("testvm", &networks).await;
    let all = |ports: &std::collections::BTreeMap<String, crate::support::Port>| {
        networks.map(|network| addresses(&ports[network]).to_owned())
    };
    let expected = ["10.16.0.60", "10.17.0.61", "10.18.0.62"];
    assert!(all(&made).iter().zip(expected).all(|(found, expected)| found.ends_with(&format!(" {expected}"))));
    stage.player.start("testvm", "n1").await;
    stage.player.restart("testvm", "n2").await;
    stage.player.migrate("testvm", "n3").await;
    let moved = stage
        .ports_where("testvm", "on n3", |ports| {
            ports.values().all(|port| port.option("requested-chassis") == Some("n3"))
        })
        .await;
    assert_eq!(all(&moved), all(&made));
    for network in networks {
        assert_eq!(moved[network].uuid, made[network].uuid);
    }
}
