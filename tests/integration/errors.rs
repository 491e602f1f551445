//! Errors that a person can act on: an Event that names the object, the value and the way out; a
//! northbound database that stays as it was; other VMs that go on; and a VM that is served as soon as
//! the cause of its wait changes.

use crate::support::stage::Builder;
use crate::support::{Stage, VmOptions};

const IP_ADDRESS: &str = "ovn.kubernetes.io/ip_address";
const SWITCH: &str = "ovn.kubernetes.io/logical_switch";

/// The bad VM gets its Event, the database stays as it was, and another VM is served all the same.
async fn refused(stage: &Stage, options: VmOptions, reason: &str, words: &[&str]) {
    let before = stage.northbound.dump();
    stage.player.create_vm("bad", options).await;
    let message = stage.event("bad", reason, words).await;
    assert_eq!(stage.northbound.dump(), before, "{message}");
    let logged = stage.service.log();
    assert!(logged.contains(&message), "the log has no line with {message}\n{logged}");
}

async fn others_go_on(stage: &Stage) {
    stage.player.create_vm("good", VmOptions::default().annotation(SWITCH, "good")).await;
    stage.port("good").await;
}

fn build(name: &str) -> Builder<'static> {
    Stage::build(name).switch("good", "10.99.0.0/24")
}

#[tokio::test]
async fn no_such_switch() {
    let stage = build("no-switch").start().await;
    let options = VmOptions::default().annotation(SWITCH, "later");
    refused(&stage, options, "SwitchNotFound", &["no logical switch named later"]).await;
    others_go_on(&stage).await;
    stage.northbound.add_switch("later", &[("subnet", "10.17.0.0/24")]);
    assert_eq!(stage.port("bad").await.switches, ["later"]);
}

#[tokio::test]
async fn two_switches_of_that_name() {
    let stage = build("two-switches").start().await;
    stage.northbound.add_switch("twin", &[("subnet", "10.17.0.0/24")]);
    let second = stage.northbound.add_switch("twin", &[("subnet", "10.18.0.0/24")]);
    let options = VmOptions::default().annotation(SWITCH, "twin");
    refused(&stage, options, "SwitchAmbiguous", &["2 logical switches named twin", "Rename"]).await;
    others_go_on(&stage).await;
    stage.northbound.nbctl(&["set", "Logical_Switch", &second, "name=other"]);
    assert!(stage.port("bad").await.addresses.iter().all(|text| text.ends_with(" 10.17.0.2")));
}

#[tokio::test]
async fn no_subnet() {
    let stage = build("no-subnet").start().await;
    stage.northbound.add_switch("bare", &[]);
    let options = VmOptions::default().annotation(SWITCH, "bare");
    refused(&stage, options, "SubnetMissing", &["bare", "other_config:subnet", "router port"]).await;
    others_go_on(&stage).await;
    stage.northbound.nbctl(&["set", "Logical_Switch", "bare", "other_config:subnet=10.17.0.0/24"]);
    assert!(stage.port("bad").await.addresses.iter().all(|text| text.ends_with(" 10.17.0.2")));
}

#[tokio::test]
async fn a_router_that_comes_later_gives_the_subnet() {
    let stage = build("router-later").start().await;
    stage.northbound.add_switch("bare", &[]);
    let options = VmOptions::default().annotation(SWITCH, "bare");
    refused(&stage, options, "SubnetMissing", &["bare"]).await;
    stage.northbound.add_router_port("bare", &["10.17.0.1/24"]);
    assert!(stage.port("bad").await.addresses.iter().all(|text| text.ends_with(" 10.17.0.2")));
}

#[tokio::test]
async fn a_full_subnet_and_the_leases_on_it() {
    let stage = build("full").start().await;
    stage.northbound.add_switch("tiny", &[("subnet", "10.17.0.0/29"), ("exclude_ips", "10.17.0.4..10.17.0.6")]);
    let on_tiny = || VmOptions::default().annotation(SWITCH, "tiny");
    for vm in ["one", "two"] {
        stage.player.create_vm(vm, on_tiny()).await;
        stage.port(vm).await;
    }
    refused(&stage, on_tiny(), "SubnetExhausted", &["tiny", "10.17.0.0/29"]).await;
    others_go_on(&stage).await;
    // A VM that holds a lease restarts.
    let leased = stage.port("one").await;
    stage.player.start("one", "n1").await;
    stage.player.restart("one", "n2").await;
    let restarted = stage.port_where("one", "is on n2", |port| port.option("requested-chassis") == Some("n2")).await;
    assert_eq!((restarted.uuid, restarted.addresses), (leased.uuid, leased.addresses));
    let two = stage.port("two").await;
    stage.player.delete_vm("two").await;
    stage.port_gone("two").await;
    let now = stage.port("bad").await;
    assert_eq!(now.addresses, two.addresses);
}

#[tokio::test]
async fn a_malformed_address() {
    let stage = build("malformed").start().await;
    let options = VmOptions::default().annotation(IP_ADDRESS, "10.16.0");
    refused(&stage, options, "InvalidRequest", &[IP_ADDRESS, "\"10.16.0\""]).await;
    others_go_on(&stage).await;
    stage.player.edit_template_annotation("bad", IP_ADDRESS, Some("10.16.0.9")).await;
    assert!(stage.port("bad").await.addresses.iter().all(|text| text.ends_with(" 10.16.0.9")));
}

#[tokio::test]
async fn an_address_outside_the_subnet() {
    let stage = build("outside").start().await;
    for (index, address) in ["10.17.0.1", "10.16.0.0", "10.16.255.255", "fd00::1"].iter().enumerate() {
        let options = VmOptions::default().annotation(IP_ADDRESS, address);
        let vm = format!("bad-{index}");
        stage.player.create_vm(&vm, options).await;
        stage.event(&vm, "InvalidRequest", &[address, "ovn-default", "10.16.0.0/16"]).await;
    }
    assert_eq!(stage.northbound.ports(), []);
    others_go_on(&stage).await;
    // The subnet is enlarged: the VM gets its request.
    stage.northbound.nbctl(&["set", "Logical_Switch", "ovn-default", "other_config:subnet=10.16.0.0/15"]);
    assert!(stage.port("bad-0").await.addresses.iter().all(|text| text.ends_with(" 10.17.0.1")));
}

#[tokio::test]
async fn an_address_that_a_vm_holds() {
    let stage = build("held-vm").start().await;
    let request = || VmOptions::default().annotation(IP_ADDRESS, "10.16.0.15");
    stage.player.create_vm("holder", request()).await;
    stage.port("holder").await;
    let holder = format!("the VM {}/holder", stage.namespace.name);
    refused(&stage, request(), "AddressConflict", &["10.16.0.15", &holder, "ovn-default"]).await;
    others_go_on(&stage).await;
    stage.player.delete_vm("holder").await;
    assert!(stage.port("bad").await.addresses.contains("0a:58:0a:10:00:0f 10.16.0.15"));
}

#[tokio::test]
async fn an_address_that_a_foreign_port_holds() {
    let stage = build("held-port").start().await;
    stage.northbound.add_foreign_port("ovn-default", "printer", &["0a:00:00:00:00:01 10.16.0.15"]);
    let request = VmOptions::default().annotation(IP_ADDRESS, "10.16.0.15");
    refused(&stage, request, "AddressConflict", &["10.16.0.15", "printer"]).await;
    others_go_on(&stage).await;
    stage.northbound.delete_port("printer");
    assert!(stage.port("bad").await.addresses.contains("0a:58:0a:10:00:0f 10.16.0.15"));
}

#[tokio::test]
async fn an_address_that_a_router_holds() {
    let stage = build("held-router").every_address().start().await;
    let router = stage.northbound.add_router_port("ovn-default", &["10.16.0.1/16"]);
    let request = VmOptions::default().annotation(IP_ADDRESS, "10.16.0.1");
    stage.player.create_vm("bad", request).await;
    stage.event("bad", "AddressConflict", &["10.16.0.1", "router port", &router.name]).await;
}

#[tokio::test]
async fn a_mac_that_another_port_holds() {
    let stage = build("held-mac").start().await;
    stage.northbound.add_foreign_port("ovn-default", "printer", &["02:00:00:00:00:01 10.16.0.77"]);
    let options = VmOptions::default().mac("02:00:00:00:00:01");
    refused(&stage, options, "AddressConflict", &["02:00:00:00:00:01", "printer"]).await;
    others_go_on(&stage).await;
    stage.northbound.nbctl(&["lsp-set-addresses", "printer", "02:00:00:00:00:02 10.16.0.77"]);
    assert!(stage.port("bad").await.addresses.contains("02:00:00:00:00:01 10.16.0.2"));
}

#[tokio::test]
async fn a_taken_name_gets_the_networks_and_two_taken_names_are_an_error() {
    let stage = build("names").start().await;
    let (name, fallback) = (stage.name("bad"), format!("{}.default", stage.name("bad")));
    stage.northbound.add_foreign_port("ovn-default", &name, &["0a:00:00:00:00:01 10.16.0.70"]);
    stage.northbound.add_foreign_port("ovn-default", &fallback, &["0a:00:00:00:00:02 10.16.0.71"]);
    refused(&stage, VmOptions::default(), "PortNameConflict", &[&name, &fallback]).await;
    others_go_on(&stage).await;
    let foreign = stage.northbound.port(&name);
    stage.northbound.delete_port(&fallback);
    let port = crate::support::eventually("the VM has the fallback name", || async {
        stage.northbound.port(&fallback).ok_or_else(|| stage.northbound.dump())
    })
    .await;
    assert_eq!(port.external_id("ovn-kubevirt.io/network"), Some("default"));
    assert_eq!(stage.northbound.port(&name), foreign);
    // It is found by its marks: the row keeps its name when the first name becomes free.
    stage.northbound.delete_port(&name);
    stage.player.start("bad", "n1").await;
    let bound = crate::support::eventually("the VM's port is bound", || async {
        stage.northbound.port(&fallback).filter(|port| port.option("requested-chassis") == Some("n1")).ok_or("no")
    })
    .await;
    assert_eq!(bound.uuid, port.uuid);
    assert_eq!(stage.northbound.port(&name), None);
}

#[tokio::test]
async fn an_object_that_cannot_be_read_keeps_its_port() {
    let stage = build("unreadable").start().await;
    stage.player.create_vm("bad", VmOptions::default()).await;
    let port = stage.port("bad").await;
    stage.player.edit_vm("bad", |vm| vm["spec"]["template"]["spec"]["networks"] = "nonsense".into()).await;
    stage.event("bad", "InvalidRequest", &["cannot be read"]).await;
    assert_eq!(stage.northbound.port(&port.name), Some(port.clone()));
    others_go_on(&stage).await;
    stage.player.delete_vm("bad").await;
    stage.port_gone("bad").await;
}

#[tokio::test]
async fn an_annotation_that_is_not_served_is_in_the_status() {
    let stage = build("unserved").start().await;
    let options = VmOptions::default().annotation("ovn.kubernetes.io/security_groups", "web");
    stage.player.create_vm("vm", options).await;
    stage.port("vm").await;
    stage.event("vm", "UnsupportedAnnotation", &["ovn.kubernetes.io/security_groups"]).await;
}
