//! DHCP by OVN, as it stands in the northbound database. `datapath` has the guests.

use ovn_kubevirt::contract::keys;
use ovn_kubevirt::ovn::DhcpOptions;
use ovn_kubevirt::plan::DhcpChange;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Binding, Port, Stage, VmOptions, eventually};

fn tap() -> VmOptions {
    VmOptions::default().binding(Binding::ManagedTap)
}

/// The rows of `DHCP_Options` by their UUIDs, without what differs from one look to the next.
fn rows(stage: &Stage) -> Vec<(String, Value)> {
    let rows = stage.northbound.rows("DHCP_Options").into_iter();
    rows.map(|row| (row["_uuid"][1].as_str().expect("a UUID").to_owned(), json!([row["cidr"], row["options"]])))
        .collect()
}

async fn served(stage: &Stage, vm: &str) -> Port {
    stage.port_where(vm, "has DHCP", |port| port.dhcpv4_options.is_some()).await
}

async fn rows_are(stage: &Stage, expected: &[(String, Value)]) {
    eventually("the rows are as expected", || async {
        let now = rows(stage);
        if now == expected { Ok(()) } else { Err(format!("{now:#?}")) }
    })
    .await;
}

#[tokio::test]
async fn vms_of_a_switch_share_a_row_that_comes_with_the_first_and_goes_after_the_last() {
    const VMS: usize = 20;
    let prepared = Stage::build("dhcp-share").flags(["--dhcp-grace=1s"]).prepare().await;
    let names: Vec<String> = (0..VMS).map(|index| format!("vm-{index:02}")).collect();
    futures::future::join_all(names.iter().map(|name| prepared.player.create_vm(name, tap()))).await;
    // They were all there when the service came.
    let mut stage = prepared.start().await;
    for name in &names {
        served(&stage, name).await;
    }
    let before = rows(&stage);
    assert_eq!(before.len(), 1, "{before:#?}");
    let log = stage.service.log();
    assert_eq!(log.matches("DHCP options made").count(), 1, "{log}");
    let ports = stage.northbound.ports();
    assert!(ports.iter().all(|port| port.dhcpv4_options.as_deref() == Some(&before[0].0)), "{ports:#?}");
    assert_eq!(stage.northbound.port(&stage.name("vm-00")).expect("a port").option("hostname"), Some("\"vm-00\""));
    let options = stage.northbound.nbctl(&["get", "DHCP_Options", &before[0].0, "options"]);
    for option in ["server_id=\"10.16.0.1\"", "lease_time=\"3600\"", "mtu=\"1442\"", "server_mac=\"0e:"] {
        assert!(options.contains(option), "{option} in {options}");
    }
    // A restart changes nothing.
    stage.restart().await;
    stage.make("other").await;
    assert_eq!(rows(&stage), before);
    let log = stage.service.log();
    assert!(!log.contains("port changed") && !log.contains("DHCP options"), "{log}");
    // It stays as long as one port refers to it.
    for name in &names[1..] {
        stage.player.delete_vm(name).await;
    }
    stage.port_gone(&names[VMS - 1]).await;
    stage.player.delete_vm("other").await;
    stage.port_gone("other").await;
    assert_eq!(rows(&stage), before);
    stage.player.delete_vm(&names[0]).await;
    rows_are(&stage, &[]).await;
}

#[tokio::test]
async fn the_wait_of_a_deletion_fails_while_a_port_refers_to_the_row() {
    let stage = Stage::build("dhcp-wait").start().await;
    stage.player.create_vm("testvm", tap()).await;
    let port = served(&stage, "testvm").await;
    let row: Uuid = port.dhcpv4_options.as_deref().and_then(|row| row.parse().ok()).expect("a row");
    let removal = |uuid| DhcpChange { uuid, before: Some(DhcpOptions::default()), after: None };
    let attempt = |row| {
        let change = removal(row);
        let operations: Vec<_> = change.guards().into_iter().chain(change.operations()).collect();
        stage.northbound.try_transact(serde_json::to_value(operations).expect("JSON"))
    };
    let error = attempt(row).expect_err("a port refers to it");
    assert!(error.contains("timed out"), "{error}");
    // DHCPv6 alone is a reference, too.
    let uuid = port.uuid.as_str();
    let reference = format!("dhcpv6_options={row}");
    stage.northbound.nbctl(&["create", "DHCP_Options", "cidr=192.0.2.0/24"]);
    let foreign = rows(&stage).into_iter().map(|(row, _)| row).find(|other| *other != row.to_string());
    let foreign: Uuid = foreign.expect("a row").parse().expect("a UUID");
    stage.northbound.nbctl(&["lsp-add", "ovn-default", "printer"]);
    let reference = reference.replace(&row.to_string(), &foreign.to_string());
    stage.northbound.nbctl(&["set", "Logical_Switch_Port", "printer", &reference]);
    attempt(foreign).expect_err("a port refers to it");
    stage.northbound.nbctl(&["lsp-del", "printer"]);
    attempt(foreign).expect("no port refers to it");
    assert_eq!(stage.northbound.port(&port.name).map(|port| port.uuid), Some(uuid.to_owned()));
}

#[tokio::test]
async fn a_row_that_a_person_edits_or_deletes_is_restored_and_a_foreign_reference_keeps_it() {
    let mut stage = Stage::build("dhcp-hostile").flags(["--dhcp-grace=1s"]).start().await;
    stage.player.create_vm("testvm", tap()).await;
    served(&stage, "testvm").await;
    let before = rows(&stage);
    let row = before[0].0.clone();
    let edits: [&[&str]; 5] = [
        &["set", "DHCP_Options", &row, "options:foo=bar"],
        &["set", "DHCP_Options", &row, "options:mtu=01442"],
        &["set", "DHCP_Options", &row, "cidr=192.0.2.0/24"],
        &["clear", "DHCP_Options", &row, "external_ids"],
        &["destroy", "DHCP_Options", &row],
    ];
    for edit in edits {
        stage.northbound.nbctl(edit);
        rows_are(&stage, &before).await;
        served(&stage, "testvm").await;
        let marks = stage.northbound.nbctl(&["get", "DHCP_Options", &row, "external_ids"]);
        eventually("the marks are there", || async {
            let marks = stage.northbound.nbctl(&["get", "DHCP_Options", &row, "external_ids"]);
            if marks.contains(keys::DHCP_SWITCH) && marks.contains(keys::OUR_VENDOR) { Ok(()) } else { Err(marks) }
        })
        .await;
        drop(marks);
    }
    // While the service is away.
    stage.service.kill9();
    edits[..4].iter().for_each(|edit| drop(stage.northbound.nbctl(edit)));
    stage.restart().await;
    rows_are(&stage, &before).await;
    // A port of another program refers to the row: it stays after the last port of ours.
    stage.northbound.nbctl(&["lsp-add", "ovn-default", "printer"]);
    stage.northbound.nbctl(&["set", "Logical_Switch_Port", "printer", &format!("dhcpv4_options={row}")]);
    stage.player.delete_vm("testvm").await;
    stage.port_gone("testvm").await;
    stage.make("later").await;
    assert_eq!(rows(&stage), before);
    stage.northbound.nbctl(&["lsp-del", "printer"]);
    rows_are(&stage, &[]).await;
}

#[tokio::test]
async fn the_operators_changes_move_every_port_to_another_row() {
    let mut stage = Stage::build("dhcp-operator").flags(["--dhcp-grace=1s"]).start().await;
    for vm in ["one", "two"] {
        stage.player.create_vm(vm, tap()).await;
        served(&stage, vm).await;
    }
    let before = rows(&stage);
    stage.northbound.nbctl(&["set", "Logical_Switch", "ovn-default", "other_config:mtu=1400"]);
    let moved = |port: &Port| port.dhcpv4_options.as_deref().is_some_and(|row| row != before[0].0);
    for vm in ["one", "two"] {
        stage.port_where(vm, "has another row", moved).await;
    }
    eventually("the former row is gone", || async {
        let rows = rows(&stage);
        if rows.len() == 1 && rows[0].0 != before[0].0 { Ok(()) } else { Err(format!("{rows:#?}")) }
    })
    .await;
    stage.restart_with(|setup| setup.flags(["--dhcp=never"])).await;
    for vm in ["one", "two"] {
        let is_off = |port: &Port| port.dhcpv4_options.is_none() && port.option("hostname").is_none();
        stage.port_where(vm, "has no DHCP", is_off).await;
    }
    rows_are(&stage, &[]).await;
}

#[tokio::test]
async fn a_guest_with_dhcpv6_that_is_renumbered_is_told_to_drop_its_lease() {
    let config = [("subnet", "10.20.0.0/24"), ("ipv6_prefix", "fd00:20::")];
    let stage = Stage::build("dhcp-v6").switch_with("dual", &config).start().await;
    let options = tap().annotation("ovn.kubernetes.io/logical_switch", "dual");
    stage.player.create_vm("testvm", options.annotation("ovn.kubernetes.io/ip_address", "fd00:20::9")).await;
    let port = served(&stage, "testvm").await;
    assert!(port.dhcpv6_options.is_some(), "{port:#?}");
    stage.status("testvm", &["fd00:20::9", "DHCPv6"]).await;
    stage.player.edit_template_annotation("testvm", "ovn.kubernetes.io/ip_address", Some("fd00:20::10")).await;
    stage.event("testvm", "DhcpLeaseStale", &["fd00:20::9 is now fd00:20::10", "dhclient -6 -r"]).await;
}
