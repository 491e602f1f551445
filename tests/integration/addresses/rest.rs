//! Full subnets, and addresses that rest after they are given back.

use super::{lease, requesting};
use crate::support::stage::Builder;
use crate::support::{Stage, VmOptions, eventually};

/// Six addresses, of which `exclude_ips` names the first.
const FIVE: [(&str, &str); 2] = [("subnet", "10.16.0.0/29"), ("exclude_ips", "10.16.0.1")];

fn five(name: &str) -> Builder<'static> {
    Stage::build(name).switch_with("ovn-default", &FIVE)
}

#[tokio::test]
async fn a_full_subnet_never_stops_a_vm_that_has_its_lease() {
    let mut stage = five("full").start().await;
    stage.northbound.add_foreign_port("ovn-default", "printer", &["0a:00:00:00:00:01 10.16.0.6"]);
    let mut leases = Vec::new();
    for host in 2..=5 {
        leases.push(stage.create(&format!("vm-{host}"), VmOptions::default(), &[&format!("10.16.0.{host}")]).await);
    }
    for vm in ["waits", "waits-too"] {
        stage.player.create_vm(vm, VmOptions::default()).await;
        stage.problem(vm, "SubnetExhausted", &["10.16.0.0/29"]).await;
    }
    let same = |vm: &str, node: &'static str| {
        let (stage, vm) = (&stage, vm.to_owned());
        async move { stage.port_where(&vm, node, |port| port.option("requested-chassis") == Some(node)).await }
    };
    // Started, stopped and started elsewhere, restarted at once, its launcher replaced, migrated.
    stage.player.start("vm-2", "n1").await;
    assert_eq!(lease(&same("vm-2", "n1").await), lease(&leases[0]));
    stage.player.stop("vm-2").await;
    stage.player.start("vm-2", "n2").await;
    assert_eq!(lease(&same("vm-2", "n2").await), lease(&leases[0]));
    stage.player.restart("vm-2", "n3").await;
    assert_eq!(lease(&same("vm-2", "n3").await), lease(&leases[0]));
    stage.player.migrate("vm-2", "n4").await;
    assert_eq!(lease(&same("vm-2", "n4").await), lease(&leases[0]));
    // And with the service restarted while one is down, and while one starts.
    stage.player.stop("vm-2").await;
    stage.player.create_vmi("vm-3").await;
    stage.restart().await;
    stage.player.launch("vm-3", "n1").await;
    stage.started("vm-2", "n1").await;
    stage.port_where("vm-3", "is on n1", |port| port.option("requested-chassis") == Some("n1")).await;
    for before in &leases {
        let now = stage.northbound.port(&before.name).expect("the port");
        assert_eq!(lease(&now), lease(before));
    }
    // Room goes to those that wait, one each.
    stage.northbound.delete_port("printer");
    let served = eventually("one of those that wait is served", || async {
        let ports: Vec<_> =
            ["waits", "waits-too"].iter().filter_map(|vm| stage.northbound.port(&stage.name(vm))).collect();
        match &ports[..] {
            [port] => Ok(port.clone()),
            other => Err(format!("{other:#?}")),
        }
    })
    .await;
    assert_eq!(super::ips_of(&served), ["10.16.0.6"]);
}

#[tokio::test]
async fn a_released_address_rests_and_is_allocated_to_another_only_when_nothing_else_is_free() {
    let stage = five("rests").flags(["--address-rest", "1h"]).start().await;
    stage.create("first", VmOptions::default(), &["10.16.0.2"]).await;
    stage.create("second", VmOptions::default(), &["10.16.0.3"]).await;
    stage.player.delete_vm("first").await;
    stage.port_gone("first").await;
    stage.create("third", VmOptions::default(), &["10.16.0.4"]).await;
    // A foreign port's does not rest: its owner released it on purpose, and its guests are unknown.
    stage.northbound.add_foreign_port("ovn-default", "printer", &["0a:00:00:00:00:01 10.16.0.5"]);
    stage.northbound.delete_port("printer");
    stage.create("fourth", VmOptions::default(), &["10.16.0.5"]).await;
    stage.player.delete_vm("second").await;
    stage.port_gone("second").await;
    stage.create("fifth", VmOptions::default(), &["10.16.0.6"]).await;
    // Two rest, and no other is free.
    stage.create("sixth", VmOptions::default(), &["10.16.0.2"]).await;
    stage.create("seventh", VmOptions::default(), &["10.16.0.3"]).await;
    stage.player.create_vm("eighth", VmOptions::default()).await;
    stage.problem("eighth", "SubnetExhausted", &["10.16.0.0/29"]).await;
}

#[tokio::test]
async fn a_request_for_an_address_that_rests_is_granted_to_any_vm() {
    let stage = five("asks").flags(["--address-rest", "1h"]).start().await;
    stage.create("first", VmOptions::default(), &["10.16.0.2"]).await;
    stage.player.delete_vm("first").await;
    stage.port_gone("first").await;
    stage.create("asks", requesting("10.16.0.2"), &["10.16.0.2"]).await;
    stage.create("second", VmOptions::default(), &["10.16.0.3"]).await;
}

#[tokio::test]
async fn without_a_rest_a_released_address_is_the_next_vms_at_once() {
    let stage = five("no-rest").flags(["--address-rest", "0s"]).start().await;
    for round in 0..5 {
        let vm = format!("vm-{round}");
        stage.create(&vm, VmOptions::default(), &["10.16.0.2"]).await;
        stage.player.delete_vm(&vm).await;
        stage.event(&vm, "PortReleased", &["10.16.0.2"]).await;
    }
}

#[tokio::test]
async fn an_address_that_has_rested_long_enough_is_the_lowest_free_one_again() {
    let stage = Stage::build("rested").flags(["--address-rest", "1s"]).start().await;
    stage.create("first", VmOptions::default(), &["10.16.0.2"]).await;
    stage.player.delete_vm("first").await;
    stage.port_gone("first").await;
    let name = || format!("vm-{}", uuid::Uuid::new_v4().simple());
    eventually("a VM is made that gets it", || async {
        let vm = name();
        stage.player.create_vm(&vm, VmOptions::default()).await;
        let port = stage.port(&vm).await;
        if super::ips_of(&port) == ["10.16.0.2"] { Ok(()) } else { Err(format!("{port:#?}")) }
    })
    .await;
}
