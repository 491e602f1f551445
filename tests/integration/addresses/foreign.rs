//! Ports of others: static, `virtual`, of a router, before ours and after.

use super::{lease, requesting};
use crate::support::{Northbound, Stage, VmOptions};

/// A `virtual` port (ovn-nb(5)) with this address.
fn add_virtual(northbound: &Northbound, name: &str, address: &str) {
    northbound.nbctl(&["lsp-add", "ovn-default", name]);
    northbound.nbctl(&["lsp-set-type", name, "virtual"]);
    northbound.nbctl(&["lsp-set-options", name, &format!("virtual-ip={address}"), "virtual-parents=none"]);
}

#[tokio::test]
async fn a_request_for_an_address_that_another_port_holds_is_refused_with_its_name_and_granted_when_it_goes() {
    let stage = Stage::build("held").start().await;
    let northbound = &stage.northbound;
    northbound.add_foreign_port("ovn-default", "printer", &["unknown", "0a:00:00:00:00:01 10.16.0.9 10.16.0.50"]);
    add_virtual(northbound, "floating", "10.16.0.51");
    northbound.add_router_port("ovn-default", &["10.16.0.52/16"]);
    stage.create("owner", requesting("10.16.0.53"), &["10.16.0.53"]).await;
    let owner = stage.vm("owner");
    let cases = [
        ("a", "10.16.0.50", "the port printer, which ovn-kubevirt does not manage"),
        ("b", "10.16.0.51", "the port floating, which ovn-kubevirt does not manage"),
        ("c", "10.16.0.52", "the router port ovn-default-ovn-default-gateway"),
        ("d", "10.16.0.53", owner.as_str()),
    ];
    for (vm, address, holder) in cases {
        stage.player.create_vm(vm, requesting(address)).await;
        stage.problem(vm, "AddressConflict", &[address, holder, "ovn-default"]).await;
        assert_eq!(stage.northbound.port(&stage.name(vm)), None);
    }
    northbound.nbctl(&["lsp-set-addresses", "printer", "0a:00:00:00:00:01 10.16.0.9"]);
    stage.holding("a", &["10.16.0.50"]).await;
    northbound.nbctl(&["lsp-set-options", "floating", "virtual-ip=10.16.0.60"]);
    stage.holding("b", &["10.16.0.51"]).await;
    northbound.delete_port("ovn-default-ovn-default-gateway");
    stage.holding("c", &["10.16.0.52"]).await;
    stage.player.delete_vm("owner").await;
    stage.holding("d", &["10.16.0.53"]).await;
    for (vm, ..) in cases {
        stage.no_problem(vm).await;
    }
}

/// The conflicts in `/metrics`.
async fn conflicts(stage: &Stage) -> Option<String> {
    let (_, text) = stage.service.http_get("/metrics").await;
    text.lines().find(|line| line.contains("reason=\"AddressConflict\"")).map(ToOwned::to_owned)
}

#[tokio::test]
async fn a_foreign_port_with_the_address_of_a_vm_leaves_the_lease_and_is_in_the_status_until_it_goes() {
    let mut stage = Stage::build("doubled").start().await;
    stage.create("testvm", VmOptions::default(), &["10.16.0.2"]).await;
    let made = stage.started("testvm", "n1").await;
    stage.northbound.add_foreign_port("ovn-default", "printer", &["0a:00:00:00:00:01 10.16.0.2"]);
    stage.problem("testvm", "AddressConflict", &["10.16.0.2", "the port printer", "keeps"]).await;
    assert_eq!(conflicts(&stage).await.as_deref(), Some("ovn_kubevirt_problems{reason=\"AddressConflict\"} 1"));
    // It is not spread: neither is the address anybody else's, nor does a restart of anything change it.
    stage.create("next", VmOptions::default(), &["10.16.0.3"]).await;
    stage.restart().await;
    stage.player.restart("testvm", "n1").await;
    stage.settled("sentinel").await;
    let now = stage.port_where("testvm", "is on n1", |port| port.option("requested-chassis") == Some("n1")).await;
    assert_eq!(lease(&now), lease(&made));
    stage.northbound.delete_port("printer");
    stage.no_problem("testvm").await;
    assert_eq!(conflicts(&stage).await.as_deref(), Some("ovn_kubevirt_problems{reason=\"AddressConflict\"} 0"));

    add_virtual(&stage.northbound, "floating", "10.16.0.2");
    stage.problem("testvm", "AddressConflict", &["10.16.0.2", "the port floating"]).await;
    stage.northbound.nbctl(&["lsp-set-options", "floating", "virtual-ip=10.16.0.60"]);
    stage.no_problem("testvm").await;

    stage.northbound.add_router_port("ovn-default", &["10.16.0.2/16"]);
    stage.problem("testvm", "AddressConflict", &["10.16.0.2", "the router port"]).await;
    stage.northbound.delete_port("ovn-default-ovn-default-gateway");
    stage.no_problem("testvm").await;

    stage.northbound.add_foreign_port("ovn-default", "copy", &["0a:58:0a:10:00:02 10.16.0.70"]);
    stage.problem("testvm", "AddressConflict", &["0a:58:0a:10:00:02", "the port copy"]).await;
    stage.northbound.nbctl(&["lsp-set-addresses", "copy", "0a:00:00:00:00:01 10.16.0.70"]);
    stage.no_problem("testvm").await;
    assert_eq!(lease(&stage.port("testvm").await), lease(&made));
}

#[tokio::test]
async fn rows_that_others_marked_count_as_theirs_and_a_mac_is_granted_when_its_holder_goes() {
    let stage = Stage::build("marked").start().await;
    let northbound = &stage.northbound;
    let marks = [
        ("kube-ovn", vec!["vendor=kube-ovn", "ls=ovn-default"], "which ovn-kubevirt does not manage"),
        ("neutron", vec!["neutron\\:port_name=web"], "which ovn-kubevirt does not manage"),
        (
            "elsewhere",
            vec![
                "vendor=ovn-kubevirt",
                "ovn-kubevirt.io/instance=other",
                "ovn-kubevirt.io/vm=n/a",
                "ovn-kubevirt.io/network=a",
            ],
            "of the ovn-kubevirt instance other",
        ),
    ];
    for (number, (port, marks, of)) in (3..).zip(&marks) {
        northbound.add_foreign_port("ovn-default", port, &[&format!("0a:00:00:00:00:0{number} 10.16.0.{number}")]);
        for mark in marks {
            northbound.nbctl(&["set", "Logical_Switch_Port", port, &format!("external_ids:{mark}")]);
        }
        let vm = format!("wants-{number}");
        stage.player.create_vm(&vm, requesting(&format!("10.16.0.{number}"))).await;
        stage.problem(&vm, "AddressConflict", &[port, of]).await;
    }
    stage.create("chooses", VmOptions::default(), &["10.16.0.2"]).await;
    stage.create("next", VmOptions::default(), &["10.16.0.6"]).await;
    let mac = requesting("10.16.0.9").annotation("ovn.kubernetes.io/mac_address", "0a:00:00:00:00:03");
    stage.player.create_vm("same-mac", mac).await;
    stage.problem("same-mac", "AddressConflict", &["MAC 0a:00:00:00:00:03", "the port kube-ovn"]).await;
    northbound.delete_port("kube-ovn");
    stage.holding("wants-3", &["10.16.0.3"]).await;
    let granted = stage.port("same-mac").await;
    assert!(granted.addresses.first().is_some_and(|text| text.starts_with("0a:00:00:00:00:03 ")), "{granted:#?}");
}

#[tokio::test]
async fn a_foreign_duplicate_of_a_reservation_is_in_the_status_and_moves_no_vm() {
    let stage = Stage::build("reserved").start().await;
    stage.create("testvm", VmOptions::default(), &["10.16.0.2"]).await;
    stage.started("testvm", "n1").await;
    stage.player.edit_template_annotation("testvm", super::IP_ADDRESS, Some("10.16.0.15")).await;
    stage.port_where("testvm", "has a reservation", |port| port.external_id(super::NEXT).is_some()).await;
    stage.northbound.add_foreign_port("ovn-default", "printer", &["0a:00:00:00:00:01 10.16.0.15"]);
    stage.problem("testvm", "AddressConflict", &["10.16.0.15", "the port printer"]).await;
    stage.player.restart("testvm", "n2").await;
    stage.port_where("testvm", "is on n2", |port| port.option("requested-chassis") == Some("n2")).await;
    stage.settled("sentinel").await;
    stage.holding("testvm", &["10.16.0.2"]).await;
}
