//! Limits on the cost of one tenant.

use serde_json::{Value, json};

use super::{IP_ADDRESS, SWITCH, build};
use crate::support::{Nic, Stage, VmOptions};

fn many(count: usize) -> Vec<Nic> {
    (0..count).map(|index| Nic::nad(&format!("net-{index}"), "net1")).collect()
}

async fn others_go_on(stage: &Stage) {
    stage.player.create_vm("another", VmOptions::default()).await;
    stage.port("another").await;
    assert!(stage.service.is_running());
}

#[tokio::test]
async fn as_many_networks_as_kubevirt_admits_are_served_and_more_are_refused_as_a_whole() {
    let stage = build("networks").start().await;
    stage.northbound.add_switch("wide", &[("subnet", "10.40.0.0/16")]);
    stage.player.put_nad_on("net1", Some("wide")).await;
    stage.player.create_vm("most", VmOptions::default().nics(many(256))).await;
    let ports = |vm: &str| {
        let vm = format!("{}/{vm}", stage.namespace.name);
        let ports = stage.northbound.ports().into_iter();
        ports.filter(|port| port.external_id("ovn-kubevirt.io/vm") == Some(&vm)).count()
    };
    crate::support::eventually("256 ports", || async {
        if ports("most") == 256 { Ok(()) } else { Err(ports("most")) }
    })
    .await;
    stage.player.create_vm("more", VmOptions::default().nics(many(10_000))).await;
    stage.event("more", "InvalidRequest", &["more than 256 networks"]).await;
    others_go_on(&stage).await;
    // Existing ports stay.
    let networks: Vec<Value> = many(257).iter().map(Nic::network).collect();
    stage.player.edit_vm("another", |vm| vm["spec"]["template"]["spec"]["networks"] = json!(networks)).await;
    stage.event("another", "InvalidRequest", &["more than 256 networks"]).await;
    assert_eq!((ports("another"), ports("more"), ports("most")), (1, 0, 256));
}

#[tokio::test]
async fn a_value_of_a_megabyte_is_refused_by_its_key_and_goes_into_no_message() {
    let stage = build("megabyte").start().await;
    let long = "9".repeat(1_200_000);
    stage.player.create_vm("address", VmOptions::default().annotation(IP_ADDRESS, &long)).await;
    stage.event("address", "InvalidRequest", &[IP_ADDRESS, "4096 bytes"]).await;
    stage.player.create_vm("switch", VmOptions::default().annotation(SWITCH, &long)).await;
    stage.event("switch", "InvalidRequest", &[SWITCH, "4096 bytes"]).await;
    stage.player.create_vm("network", VmOptions::default().nics([Nic::pod(&long[..600_000])])).await;
    stage.event("network", "InvalidRequest", &["network name \"999"]).await;
    let keys = (0..10_000).fold(VmOptions::default(), |options, index| {
        options.annotation(&format!("n{index}.ovn.kubernetes.io/vips"), "x")
    });
    stage.player.create_vm("keys", keys).await;
    stage.event("keys", "InvalidRequest", &["10000 annotations"]).await;
    others_go_on(&stage).await;
    assert_eq!(stage.northbound.ports().len(), 1, "{}", stage.northbound.dump());
    let log = stage.service.log();
    let longest = log.lines().map(str::len).max().unwrap_or_default();
    assert!(longest < 4_096 && log.len() < 100_000, "{longest} of {} bytes", log.len());
}

#[tokio::test]
async fn a_forged_log_line_is_escaped_in_every_message() {
    let stage = build("forged").start().await;
    let forged = "x\n2026-01-01T00:00:00Z  INFO forged \u{202e}\u{1b}[2K";
    stage.player.create_vm("switch", VmOptions::default().annotation(SWITCH, forged)).await;
    let escaped = "x\\n2026-01-01T00:00:00Z  INFO forged \\u{202e}\\u{1b}[2K";
    stage.event("switch", "SwitchNotFound", &[escaped]).await;
    stage.player.create_vm("address", VmOptions::default().annotation(IP_ADDRESS, forged)).await;
    stage.event("address", "InvalidRequest", &[IP_ADDRESS, escaped]).await;
    stage.player.create_vm("network", VmOptions::default().nics([Nic::pod(forged)])).await;
    stage.event("network", "InvalidRequest", &["network name", escaped]).await;
    stage.northbound.add_foreign_port("ovn-default", forged, &["0a:00:00:00:00:01 10.16.0.99"]);
    stage.player.create_vm("held", VmOptions::default().annotation(IP_ADDRESS, "10.16.0.99")).await;
    stage
        .event(
            "held",
            "AddressConflict",
            &["10.16.0.99 on the logical switch ovn-default is held by the port", escaped],
        )
        .await;
    stage.player.create_vm("unreadable", VmOptions::default()).await;
    stage.player.edit_vm("unreadable", |vm| vm["spec"]["template"]["spec"]["networks"] = forged.into()).await;
    stage.event("unreadable", "InvalidRequest", &["cannot be read", escaped]).await;
    let log = stage.service.log();
    assert!(!log.lines().any(|line| line.starts_with("2026-01-01")), "{log}");
    assert!(!log.contains(['\u{202e}', '\u{1b}']), "{log}");
}
