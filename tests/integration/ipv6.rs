//! IPv6 guests on a real server: the families of a port, link-local addresses, advertisements of routers; and further
//! addresses.

use serde_json::Value;

use crate::support::stage::DEFAULT_SWITCH;
use crate::support::{Stage, VmOptions, eventually};

const DUAL: [(&str, &str); 3] =
    [("subnet", "10.16.0.0/16"), ("exclude_ips", "10.16.0.1"), ("ipv6_prefix", "fd00:16::")];
const ROUTER: &str = "ovn-default-gateway";

fn with(key: &str, value: &str) -> VmOptions {
    VmOptions::default().annotation(&format!("ovn.kubernetes.io/{key}"), value)
}

impl Stage {
    /// `ipv6_ra_configs` of the router port, sorted.
    fn advertised(&self) -> String {
        let rows = self.northbound.rows("Logical_Router_Port");
        let row = rows.iter().find(|row| row["name"] == ROUTER).expect("the router port");
        let pairs = row["ipv6_ra_configs"][1].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut pairs: Vec<String> =
            pairs.iter().map(|pair| format!("{}={}", text(&pair[0]), text(&pair[1]))).collect();
        pairs.sort();
        pairs.join(" ")
    }

    async fn advertises(&self, expected: &str) {
        eventually("the router port has its keys", || async {
            let advertised = self.advertised();
            if advertised == expected { Ok(()) } else { Err(advertised) }
        })
        .await;
    }
}

#[tokio::test]
async fn a_router_that_does_not_advertise_itself_is_told_and_by_the_flag_it_does() {
    let builder = Stage::build("advertised").switch_with(DEFAULT_SWITCH, &DUAL);
    let mut stage = builder.router(DEFAULT_SWITCH, &["10.16.0.1/16", "fd00:16::1/64"]).start().await;
    stage.player.create_vm("old", with("ip_family", "ipv4")).await;
    stage.port("old").await;
    stage.make("testvm").await;
    let words = [ROUTER, DEFAULT_SWITCH, "ipv6_ra_configs:address_mode", "--manage-ra"];
    stage.event("testvm", "RouterNotAdvertised", &words).await;
    let events = stage.namespace.events("old").await;
    assert!(stage.advertised().is_empty() && events.iter().all(|(kind, ..)| kind == "Normal"), "{events:?}");

    stage.northbound.nbctl(&["set", "Logical_Switch", DEFAULT_SWITCH, "other_config:mtu=1400"]);
    stage.northbound.nbctl(&["set", "Logical_Router_Port", ROUTER, "ipv6_ra_configs:dnssl=example.org"]);
    stage.restart_with(|setup| setup.flags(["--manage-ra=true"])).await;
    stage.advertises("address_mode=dhcpv6_stateful dnssl=example.org mtu=1400 send_periodic=true").await;
    stage.status_where("testvm", "has no problem", |text, _| !text.contains("RouterNotAdvertised")).await;

    // A key that goes is added again, and one that is there stays.
    stage.northbound.nbctl(&["set", "Logical_Router_Port", ROUTER, "ipv6_ra_configs:mtu=1280"]);
    stage.northbound.nbctl(&["remove", "Logical_Router_Port", ROUTER, "ipv6_ra_configs", "address_mode"]);
    stage.advertises("address_mode=dhcpv6_stateful dnssl=example.org mtu=1280 send_periodic=true").await;
}

#[tokio::test]
async fn ports_that_stand_admit_any_link_local_address_once_the_operator_says_so() {
    let mut stage = Stage::build("link-local").switch_with(DEFAULT_SWITCH, &DUAL).start().await;
    let names: Vec<String> = (0..5).map(|number| format!("vm{number}")).collect();
    for name in &names {
        stage.make(name).await;
    }
    let before = stage.northbound.ports();
    assert!(before.iter().all(|port| port.port_security == port.addresses), "{before:#?}");
    let told = stage.namespace.events("vm0").await.len();
    stage.restart_with(|setup| setup.flags(["--allow", "explicit,link-local"])).await;
    for name in &names {
        let port = stage.port_where(name, "is open", |port| port.port_security != port.addresses).await;
        let lease = port.addresses.first().expect("an element");
        assert_eq!(port.port_security.iter().collect::<Vec<_>>(), [&format!("{lease} fe80::/64")]);
    }
    stage.northbound.nbctl(&["set", "Logical_Switch", DEFAULT_SWITCH, "external_ids:ovn-kubevirt.io/allow=explicit"]);
    for name in &names {
        stage.port_where(name, "is closed", |port| port.port_security == port.addresses).await;
    }
    assert_eq!((stage.northbound.ports(), stage.namespace.events("vm0").await.len()), (before, told));
}

#[tokio::test]
async fn a_further_address_is_shared_in_a_namespace_and_refused_to_others() {
    let stage = Stage::build("vips").flags(["--allow", "explicit,vips"]).start().await;
    let other = stage.namespace.sibling("b").await;
    for name in ["one", "two"] {
        stage.player.create_vm(name, with("port_vips", "10.16.0.50")).await;
        let port = stage.port_where(name, "has it", |port| port.port_security != port.addresses).await;
        let lease = port.addresses.first().expect("an element");
        assert_eq!(port.port_security.iter().collect::<Vec<_>>(), [&format!("{lease} 10.16.0.50/32")]);
    }
    let player = crate::support::Player::within(&other);
    player.create_vm("three", with("port_vips", "10.16.0.50")).await;
    let name = format!("three.{}", other.name);
    let port = stage.port_named(&name).await;
    assert_eq!(port.port_security, port.addresses);
    stage.player.create_vm("four", with("ip_address", "10.16.0.50")).await;
    stage.event("four", "AddressConflict", &["10.16.0.50", "is held by the VM"]).await;
    for name in ["one", "two"] {
        stage.player.delete_vm(name).await;
        stage.port_gone(name).await;
    }
    // One of the two that wait gets it.
    eventually("it is granted as soon as it is free", || async {
        let ports = stage.northbound.ports();
        let has = ports.iter().filter(|port| port.port_security.iter().any(|text| text.contains("10.16.0.50")));
        match has.count() {
            1 => Ok(()),
            count => Err(format!("{count}: {ports:#?}")),
        }
    })
    .await;
}
