//! A hostile operator, a mistaken one, and a broken network.

use std::time::Duration;

use crate::support::{Cluster, Nic, Northbound, Service, Stage, VmOptions, eventually, holds_for};

const IP_ADDRESS: &str = "ovn.kubernetes.io/ip_address";

#[tokio::test]
async fn a_vm_whose_names_the_database_cannot_hold_fails_alone() {
    let stage = Stage::build("nul").start().await;
    // OVSDB hangs up on a string with a NUL in it. The API server stores one where a schema lets it.
    stage.player.create_vm("named", VmOptions::default().nics([Nic::pod("ba\0d")])).await;
    stage.event("named", "InvalidRequest", &["network name", "ba\\0d"]).await;
    stage.player.create_vm("another", VmOptions::default()).await;
    stage.port("another").await;
    assert!(stage.service.is_running());
}

#[tokio::test]
async fn a_database_that_freezes_is_noticed_and_left_and_found_again() {
    let stage = Stage::build("frozen").flags(["--nb-probe-interval", "1"]).start().await;
    holds_for("an idle link stays up", Duration::from_secs(3), || async {
        match stage.service.http_get("/readyz").await {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    stage.northbound.freeze();
    eventually("the service is not ready", || async {
        match stage.service.http_get("/readyz").await {
            (503, body) if body.contains("silent") || body.contains("no OVSDB answer") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    stage.northbound.thaw();
    stage.service.ready().await;
    stage.make("testvm").await;
}

#[tokio::test]
async fn a_first_remote_that_is_no_database_does_not_stand_in_the_way_of_the_second() {
    let stage = Stage::build("remotes").start().await;
    let http = stage.service.listening().await.to_owned();
    let remotes = format!("tcp:127.0.0.1:1,tcp:{http},{}", stage.northbound.remote());
    let output = Service::command_line(&["ports", "--nb", &remotes]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && text.contains("No VM ports"), "{text}");
    let output = Service::command_line(&["ports", "--nb", &format!("tcp:{http}")]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("is this an OVSDB server?"), "{text}");
}

#[tokio::test]
async fn a_port_that_is_put_on_a_second_switch_is_not_created_twice() {
    let stage = Stage::build("twice").start().await;
    stage.northbound.add_switch("second", &[("subnet", "10.77.0.0/24")]);
    stage.player.create_vm("testvm", VmOptions::default()).await;
    let port = stage.port("testvm").await;
    stage.northbound.nbctl(&["add", "Logical_Switch", "second", "ports", &port.uuid]);
    stage.northbound.nbctl(&["remove", "Logical_Switch", "second", "ports", &port.uuid]);
    stage.player.start("testvm", "n1").await;
    let bound = stage.port_where("testvm", "is on n1", |port| port.option("requested-chassis") == Some("n1")).await;
    assert_eq!((bound.uuid, bound.addresses, bound.switches), (port.uuid, port.addresses, port.switches));
    assert_eq!(stage.northbound.ports().len(), 1, "{}", stage.northbound.dump());
    stage.player.delete_vm("testvm").await;
    stage.port_gone("testvm").await;
}

#[tokio::test]
async fn a_renamed_pod_network_keeps_its_port() {
    let stage = Stage::build("renamed").start().await;
    let request = VmOptions::default().annotation(IP_ADDRESS, "10.16.0.50");
    stage.player.create_vm("testvm", request).await;
    let port = stage.port("testvm").await;
    stage.player.start("testvm", "n1").await;
    stage
        .player
        .edit_vm("testvm", |vm| {
            let spec = &mut vm["spec"]["template"]["spec"];
            spec["networks"][0]["name"] = "mgmt".into();
            spec["domain"]["devices"]["interfaces"][0]["name"] = "mgmt".into();
        })
        .await;
    stage.player.restart("testvm", "n2").await;
    let network = "ovn-kubevirt.io/network";
    let now =
        stage.port_where("testvm", "is of the network mgmt", |port| port.external_id(network) == Some("mgmt")).await;
    assert_eq!((now.uuid, now.addresses), (port.uuid, port.addresses));
    assert_eq!(stage.northbound.ports().len(), 1, "{}", stage.northbound.dump());
}

#[tokio::test]
async fn another_choice_on_a_running_vm_is_reserved_though_the_first_is_held() {
    let stage = Stage::build("choice").start().await;
    stage.northbound.add_foreign_port("ovn-default", "printer", &["0a:00:00:00:00:01 10.16.0.50"]);
    stage.player.create_vm("testvm", VmOptions::default()).await;
    stage.port("testvm").await;
    stage.player.edit_template_annotation("testvm", IP_ADDRESS, Some("10.16.0.50")).await;
    stage.player.start("testvm", "n1").await;
    stage.event("testvm", "AddressConflict", &["10.16.0.50", "printer"]).await;
    stage.player.edit_template_annotation("testvm", IP_ADDRESS, Some("10.16.0.51")).await;
    let next = "ovn-kubevirt.io/next-addresses";
    stage
        .port_where("testvm", "has 10.16.0.51 reserved", |port| {
            port.external_id(next).is_some_and(|next| next.ends_with(" 10.16.0.51"))
        })
        .await;
    stage.event("testvm", "AddressReserved", &["10.16.0.51"]).await;
}

#[tokio::test]
async fn a_very_long_name_is_served_and_has_its_status() {
    let stage = Stage::build("long").start().await;
    let name = format!("{}.{}", "a".repeat(63), "b".repeat(150));
    stage.player.apply_vm(&name, VmOptions::default()).await;
    stage.port(&name).await;
    stage.event(&name, "AddressAssigned", &["10.16.0.2"]).await;
    stage.status(&name, &[]).await;
}

#[tokio::test]
async fn a_selector_that_cannot_be_read_ends_the_service_with_the_reason() {
    let northbound = Northbound::start().await;
    let kubeconfig = Cluster::shared().kubeconfig().display().to_string();
    let remote = northbound.remote();
    let flags = [
        "run",
        "--no-lease",
        "--nb",
        &remote,
        "--kubeconfig",
        &kubeconfig,
        "--http",
        "127.0.0.1:0",
        "--namespace-selector",
        "a in (b",
    ];
    let output = Service::command_line(&flags);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = text.lines().last().unwrap_or_default();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(last.contains("--namespace-selector") && last.contains("kubectl get -l"), "{text}");
}

#[tokio::test]
async fn an_epoch_that_is_wiped_ends_the_service_at_once() {
    let stage = Stage::build("wiped").start().await;
    stage.northbound.nbctl(&["clear", "NB_Global", ".", "external_ids"]);
    eventually("the service has ended", || async { stage.service.status().map(|_| ()).ok_or("it runs") }).await;
    let log = stage.service.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(
        last.contains("in NB_Global:external_ids is missing, which differs from the value that this process wrote"),
        "{log}"
    );
}

#[tokio::test]
async fn a_copy_of_a_row_is_neither_taken_for_the_vms_nor_deleted() {
    let stage = Stage::build("copied").start().await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    let port = stage.port("testvm").await;
    stage.northbound.add_foreign_port("ovn-default", "zz-copy", &["0a:00:00:00:00:01 10.16.0.119"]);
    let mut arguments = vec!["set".to_owned(), "Logical_Switch_Port".to_owned(), "zz-copy".to_owned()];
    let marks = port.external_ids.iter().map(|(key, value)| format!("external_ids:{key}=\"{value}\""));
    arguments.extend(marks);
    stage.northbound.nbctl(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let copy = stage.northbound.port("zz-copy").expect("the copy");
    stage.player.start("testvm", "n1").await;
    let bound = stage.port_where("testvm", "is on n1", |port| port.option("requested-chassis") == Some("n1")).await;
    assert_eq!((bound.uuid, bound.addresses), (port.uuid, port.addresses));
    assert_eq!(stage.northbound.port("zz-copy"), Some(copy));
}

#[tokio::test]
async fn every_vm_that_goes_while_the_service_sleeps_gets_its_event() {
    const VMS: usize = 40;
    let stage = Stage::build("released").start().await;
    let names: Vec<String> = (0..VMS).map(|index| format!("vm-{index:02}")).collect();
    futures::future::join_all(names.iter().map(|name| stage.player.create_vm(name, VmOptions::default()))).await;
    for name in &names {
        stage.port(name).await;
    }
    stage.service.freeze();
    futures::future::join_all(names.iter().map(|name| stage.player.delete_vm(name))).await;
    stage.service.thaw();
    for name in &names {
        stage.port_gone(name).await;
        stage.event(name, "PortReleased", &[name]).await;
    }
}
