//! The northbound database loses the leases of guests: switches recreated, rows deleted, a database that comes back empty.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::stage::SUBNET;
use crate::support::{Stage, VmOptions};

const IP_ADDRESS: &str = "ovn.kubernetes.io/ip_address";
const RUNNING: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Six VMs that run, and have addresses in their status that are not the lowest ones.
async fn six(name: &str) -> (Stage, BTreeMap<&'static str, String>) {
    let stage = Stage::build(name).start().await;
    let leases = run_six(&stage).await;
    (stage, leases)
}

async fn run_six(stage: &Stage) -> BTreeMap<&'static str, String> {
    for vm in ["x", "y", "z"] {
        stage.player.create_vm(vm, VmOptions::default()).await;
        stage.port(vm).await;
    }
    for vm in RUNNING {
        stage.player.create_vm(vm, VmOptions::default()).await;
        stage.port(vm).await;
        stage.player.start(vm, "n1").await;
    }
    for vm in ["x", "y", "z"] {
        stage.player.delete_vm(vm).await;
        stage.port_gone(vm).await;
    }
    leases(stage).await
}

/// The lease of each VM, once its annotation has it too.
async fn leases(stage: &Stage) -> BTreeMap<&'static str, String> {
    let mut leases = BTreeMap::new();
    for vm in RUNNING {
        let port = stage.port_where(vm, "has addresses", |port| !port.addresses.is_empty()).await;
        let text = port.addresses.into_iter().next().expect("addresses");
        let (mac, ip) = text.split_once(' ').expect("MAC and address");
        stage.status(vm, &[&format!("\"{mac}\""), &format!("\"{ip}\"")]).await;
        leases.insert(vm, text);
    }
    leases
}

#[tokio::test]
async fn a_switch_that_is_deleted_and_recreated_renumbers_no_guest() {
    let (stage, before) = six("anew-switch").await;
    stage.northbound.nbctl(&["ls-del", "ovn-default"]);
    stage.event("a", "SwitchNotFound", &["ovn-default"]).await;
    // A VM that is created meanwhile gets none of these addresses, not even by a request.
    stage.player.create_vm("new", VmOptions::default()).await;
    let wanted = before["c"].split(' ').nth(1).expect("an address");
    stage.player.create_vm("thief", VmOptions::default().annotation(IP_ADDRESS, wanted)).await;
    stage.event("thief", "SwitchNotFound", &["ovn-default"]).await;
    stage.northbound.add_switch("ovn-default", &SUBNET);
    assert_eq!(leases(&stage).await, before);
    let new = stage.port("new").await;
    assert!(new.addresses.iter().all(|text| !before.values().any(|lease| lease == text)), "{new:#?}");
    stage.event("thief", "AddressConflict", &[wanted]).await;
}

#[tokio::test]
async fn rows_that_are_deleted_while_the_service_is_away_come_back_as_they_were() {
    let (mut stage, before) = six("deleted-rows").await;
    stage.service.kill9();
    for vm in RUNNING {
        stage.northbound.delete_port(&stage.name(vm));
    }
    stage.player.create_vm("0-first", VmOptions::default()).await;
    stage.restart().await;
    assert_eq!(leases(&stage).await, before);
    stage.port("0-first").await;
}

#[tokio::test]
async fn after_an_older_backup_each_guest_has_the_addresses_of_its_status() {
    let mut stage = Stage::build("older-backup").start().await;
    let backup = stage.northbound.backup().await;
    let before = run_six(&stage).await;
    // An older epoch is another's: without a Lease the process ends, and is started again.
    stage.northbound.restore(&backup).await;
    stage.restart().await;
    assert_eq!(leases(&stage).await, before);
}

#[tokio::test]
async fn the_status_of_a_guest_says_that_its_port_has_another_address_where_its_own_is_taken_meanwhile() {
    let stage = Stage::build("taken").start().await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    let port = stage.port("testvm").await;
    let lease = port.addresses.into_iter().next().expect("addresses");
    stage.player.start("testvm", "n1").await;
    stage.event("testvm", "AddressAssigned", &[]).await;
    stage.service.freeze();
    let ip = lease.split(' ').nth(1).expect("an address");
    let foreign = json!({"name": "foreign", "addresses": format!("02:00:00:00:00:01 {ip}")});
    // In one transaction: a new switch without the port would be one where the address is free.
    stage.northbound.transact(json!([
        {"op": "delete", "table": "Logical_Switch", "where": [["name", "==", "ovn-default"]]},
        {"op": "insert", "table": "Logical_Switch_Port", "uuid-name": "lsp", "row": foreign},
        {"op": "insert", "table": "Logical_Switch",
         "row": {"name": "ovn-default", "other_config": ["map", SUBNET], "ports": ["named-uuid", "lsp"]}},
    ]));
    stage.service.thaw();
    stage.event("testvm", "GuestHasAnotherAddress", &[ip, "Restart the VM"]).await;
    let now = stage.port("testvm").await;
    assert!(now.addresses.iter().all(|text| !text.ends_with(ip)), "{now:#?}");
}

#[tokio::test]
async fn a_request_for_an_address_goes_before_allocations_on_a_switch_that_comes_later() {
    let stage = Stage::build("named-first").start().await;
    let later = |options: VmOptions| options.annotation("ovn.kubernetes.io/logical_switch", "later");
    for vm in ["a", "b", "c"] {
        stage.player.create_vm(vm, later(VmOptions::default())).await;
        stage.event(vm, "SwitchNotFound", &["later"]).await;
    }
    let named = later(VmOptions::default().annotation(IP_ADDRESS, "10.17.0.2"));
    stage.player.create_vm("z-names", named).await;
    stage.event("z-names", "SwitchNotFound", &["later"]).await;
    stage.northbound.add_switch("later", &[("subnet", "10.17.0.0/24")]);
    let port = stage.port("z-names").await;
    assert!(port.addresses.iter().all(|text| text.ends_with(" 10.17.0.2")), "{port:#?}");
    for vm in ["a", "b", "c"] {
        stage.port(vm).await;
    }
}
