//! Addresses that stay reserved after their VM is deleted (`ovn-kubevirt.io/retain`).

use k8s_openapi::jiff::Timestamp;

use super::{lease, requesting};
use crate::support::{Nic, Port, Stage, VmOptions, eventually};

const RETAIN: &str = "ovn-kubevirt.io/retain";
const UNTIL: &str = "ovn-kubevirt.io/retained-until";
/// Addresses may be retained for ever.
const UNBOUNDED: [&str; 2] = ["--max-retain", "forever"];

fn retaining(time: &str) -> VmOptions {
    VmOptions::default().annotation(RETAIN, time)
}

/// Until when, in seconds from now.
fn seconds_left(port: &Port) -> i64 {
    let until: Timestamp = port.external_id(UNTIL).expect("a time").parse().expect("RFC 3339");
    until.as_second() - Timestamp::now().as_second()
}

async fn retained(stage: &Stage, vm: &str) -> Port {
    stage.port_where(vm, "is retained", |port| port.external_id(UNTIL).is_some()).await
}

#[tokio::test]
async fn a_deleted_vms_addresses_stay_reserved_for_the_time_and_are_its_own_when_it_comes_back() {
    let mut stage = Stage::build("retains").start().await;
    let options = retaining("72h").nic(Nic::nad("second", "net1"));
    stage.player.create_nad("net1", Some("ovn-default")).await;
    stage.player.create_vm("testvm", options.clone()).await;
    stage.started("testvm", "n1").await;
    let made = stage.northbound.ports();
    assert_eq!(made.len(), 2, "{made:#?}");
    stage.player.stop("testvm").await;
    stage.player.delete_vm("testvm").await;
    let port = retained(&stage, "testvm").await;
    let left = seconds_left(&port);
    assert!((72 * 3_600 - 300..=72 * 3_600 + 1).contains(&left), "{left}");
    assert!(port.options.is_empty(), "{port:#?}");
    let all = eventually("both are retained", || async {
        let ports = stage.northbound.ports();
        if ports.iter().all(|port| port.external_id(UNTIL).is_some()) { Ok(ports) } else { Err(format!("{ports:#?}")) }
    })
    .await;
    assert_eq!(all.iter().map(lease).collect::<Vec<_>>(), made.iter().map(lease).collect::<Vec<_>>());

    // No other VM gets it, over a restart of the service, too.
    let address = super::ips_of(&port)[0].to_owned();
    stage.player.create_vm("rival", requesting(&address)).await;
    stage.refused("rival", &address, &stage.vm("testvm")).await;
    stage.restart().await;
    stage.create("chosen", VmOptions::default(), &["10.16.0.4"]).await;
    assert_eq!(stage.port("testvm").await, port);

    let uid = stage.player.create_vm("testvm", options).await;
    let back = stage.port_where("testvm", "is its own again", |port| port.external_id(UNTIL).is_none()).await;
    assert_eq!(back.external_id("ovn-kubevirt.io/vm-uid"), Some(&*uid));
    let ports = eventually("both are its own again", || async {
        let ports: Vec<Port> =
            stage.northbound.ports().into_iter().filter(|port| port.name.starts_with("testvm")).collect();
        if ports.iter().all(|port| port.external_id(UNTIL).is_none()) { Ok(ports) } else { Err(format!("{ports:#?}")) }
    })
    .await;
    assert_eq!(ports.iter().map(lease).collect::<Vec<_>>(), made.iter().map(lease).collect::<Vec<_>>());
    assert_eq!(stage.northbound.port(&stage.name("rival")), None);
}

#[tokio::test]
async fn a_retained_port_is_deleted_after_its_time_and_a_waiting_vm_gets_its_address() {
    let stage = Stage::build("three-seconds").start().await;
    stage.create("testvm", retaining("3s"), &["10.16.0.2"]).await;
    stage.player.delete_vm("testvm").await;
    let port = retained(&stage, "testvm").await;
    stage.player.create_vm("waits", requesting("10.16.0.2")).await;
    stage.refused("waits", "10.16.0.2", &stage.vm("testvm")).await;
    stage.port_gone("testvm").await;
    assert!(seconds_left(&port) <= 0, "{port:#?} went before its time");
    stage.holding("waits", &["10.16.0.2"]).await;
}

#[tokio::test]
async fn a_port_that_is_retained_forever_stays_and_a_vm_that_comes_back_may_say_otherwise() {
    let stage = Stage::build("forever").flags(UNBOUNDED).start().await;
    let made = stage.create("testvm", retaining("forever"), &["10.16.0.2"]).await;
    stage.player.delete_vm("testvm").await;
    let port = retained(&stage, "testvm").await;
    assert_eq!((port.external_id(UNTIL), lease(&port)), (Some("forever"), lease(&made)));
    stage.create("next", VmOptions::default(), &["10.16.0.3"]).await;
    assert_eq!(stage.port("testvm").await, port);
    // A request for another address than the one it left: that one is released, as at any other edit.
    stage.player.create_vm("testvm", retaining("0s").annotation(super::IP_ADDRESS, "10.16.0.15")).await;
    let moved = stage.holding("testvm", &["10.16.0.15"]).await;
    assert_eq!((&moved.uuid, moved.external_id(UNTIL)), (&made.uuid, None));
    stage.player.delete_vm("testvm").await;
    stage.port_gone("testvm").await;
}

#[tokio::test]
async fn a_vm_that_is_deleted_while_the_service_is_down_is_retained_all_the_same_and_one_whose_time_is_over_goes() {
    let mut stage = Stage::build("down").start().await;
    let first = stage.create("long", retaining("72h"), &["10.16.0.2"]).await;
    stage.create("short", retaining("2s"), &["10.16.0.3"]).await;
    stage.create("none", VmOptions::default(), &["10.16.0.4"]).await;
    stage.player.delete_vm("short").await;
    let short = retained(&stage, "short").await;
    stage.service.kill9();
    stage.player.delete_vm("long").await;
    stage.player.delete_vm("none").await;
    eventually("the time of the short one is over", || async {
        let left = seconds_left(&short);
        if left < 0 { Ok(()) } else { Err(left) }
    })
    .await;
    assert!(stage.northbound.port(&short.name).is_some());
    stage.restart().await;
    let port = retained(&stage, "long").await;
    assert_eq!(lease(&port), lease(&first));
    assert!(seconds_left(&port) > 71 * 3_600, "{port:#?}");
    stage.port_gone("none").await;
    stage.port_gone("short").await;
}

#[tokio::test]
async fn the_operators_default_applies_to_vms_without_a_retention_and_a_vm_may_override_it() {
    let mut stage = Stage::build("default-retain").flags(["--default-retain", "72h"]).flags(UNBOUNDED).start().await;
    stage.create("silent", VmOptions::default(), &["10.16.0.2"]).await;
    stage.create("never", retaining("0s"), &["10.16.0.3"]).await;
    stage.create("forever", retaining("forever"), &["10.16.0.4"]).await;
    stage.create("typo", retaining("3 days"), &["10.16.0.5"]).await;
    stage.problem("typo", "InvalidRequest", &["ovn-kubevirt.io/retain", "3 days"]).await;
    // An edit counts at once, for a VM that runs, too.
    stage.create("edited", VmOptions::default(), &["10.16.0.6"]).await;
    stage.started("edited", "n1").await;
    stage.player.edit_template_annotation("edited", RETAIN, Some("0s")).await;
    stage.settled("sentinel").await;
    stage.player.stop("edited").await;
    for vm in ["silent", "never", "forever", "typo", "edited"] {
        stage.player.delete_vm(vm).await;
    }
    for vm in ["never", "edited"] {
        stage.port_gone(vm).await;
    }
    for vm in ["silent", "typo"] {
        let left = seconds_left(&retained(&stage, vm).await);
        assert!((71 * 3_600..=72 * 3_600 + 1).contains(&left), "{vm}: {left}");
    }
    assert_eq!(retained(&stage, "forever").await.external_id(UNTIL), Some("forever"));
    // A retained lease stays when the operator sets no retention.
    stage.restart_with(|setup| setup.without_flags().flags(UNBOUNDED)).await;
    stage.settled("another-sentinel").await;
    for vm in ["silent", "forever"] {
        assert!(stage.port(vm).await.external_id(UNTIL).is_some());
    }
}

#[tokio::test]
async fn retention_begins_when_the_last_launcher_has_ended() {
    let stage = Stage::build("launcher").start().await;
    stage.create("testvm", retaining("1h"), &["10.16.0.2"]).await;
    let bound = stage.started("testvm", "n1").await;
    let pods = stage.player.launchers("testvm").await;
    stage.player.delete_vm_start("testvm").await;
    stage.player.delete_vmi_start("testvm").await;
    stage.player.remove_vmi_finalizer("testvm").await;
    stage.player.remove_vm_finalizer("testvm").await;
    stage.settled("sentinel").await;
    let port = stage.port("testvm").await;
    assert_eq!((port.external_id(UNTIL), lease(&port)), (None, lease(&bound)));
    for pod in pods {
        stage.player.pod_phase(&pod, "Succeeded").await;
        stage.player.delete_pod(&pod).await;
    }
    let port = retained(&stage, "testvm").await;
    assert!(port.options.is_empty() && seconds_left(&port) > 3_000, "{port:#?}");
}
