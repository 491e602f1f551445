//! The Events of a pod.

use std::time::Duration;

use super::NodeStage;
use crate::support::holds_for;
use crate::support::local_switch::{BR_EX, Plug};
use crate::support::node::{annotate, annotate_with, pod_port};

#[tokio::test]
async fn another_vms_port_is_refused_and_reported() {
    let stage = NodeStage::new("node-forged").await;
    let victim = stage.port("victim");
    let launcher = stage.launcher("testvm", &[pod_port("default", "eth0", &victim)]).await;
    stage.switch.plug(&Plug::new("veth1", &launcher.uid, "eth0"));
    stage.bind(&launcher).await;
    let vm = format!("{}/testvm", stage.namespace.name);
    let told = stage.event(&launcher, "PortRefused", &["interface eth0", &victim, &vm]).await;
    assert!(told.contains("which is no port of the VM"), "{told}");
    assert!(stage.switch.ids("veth1").is_empty());
    // A pod that had its own port keeps it, and gets no other.
    let own = pod_port("default", "eth0", &stage.port("testvm"));
    annotate(&stage.namespace, &launcher.pod, Some(&[own])).await;
    stage.switch.set("veth1", &launcher.uid, &stage.port("testvm")).await;
    annotate(&stage.namespace, &launcher.pod, Some(&[pod_port("default", "eth0", &victim)])).await;
    stage.has_seen_all("other").await;
    stage.switch.set("veth1", &launcher.uid, &stage.port("testvm")).await;
    assert_eq!(stage.namespace.events(&launcher.pod).await.len(), 1, "told once");
}

#[tokio::test]
async fn an_iface_id_that_differs_stays_and_is_reported() {
    let stage = NodeStage::new("node-conflict").await;
    let launcher = stage.plain_launcher("testvm").await;
    stage.switch.plug(&Plug { iface_id: Some("by-hand"), ..Plug::new("veth1", &launcher.uid, "eth0") });
    stage.bind(&launcher).await;
    let words = ["The OVS interface veth1", "iface-id \"by-hand\"", &stage.port("testvm")];
    stage.event(&launcher, "IfaceIdConflict", &words).await;
    assert_eq!(stage.switch.ids("veth1"), [("iface-id".to_owned(), "by-hand".to_owned())].into());
    let (_, metrics) = stage.service.http_get("/metrics").await;
    assert!(metrics.contains("ovn_kubevirt_node_problems{reason=\"IfaceIdConflict\"} 1\n"), "{metrics}");
    stage.switch.write("veth1", &[("iface-id", None)]);
    stage.switch.set("veth1", &launcher.uid, &stage.port("testvm")).await;
}

#[tokio::test]
async fn a_nic_without_an_interface_is_reported_after_the_deadline_and_served_once_it_has_one() {
    let stage = NodeStage::new("node-missing").await;
    let launcher = stage.plain_launcher("testvm").await;
    stage.bind(&launcher).await;
    let words = ["The NIC \"default\" (interface eth0)", "has no interface in Open vSwitch", "the bridge br-int"];
    stage.event(&launcher, "InterfaceMissing", &words).await;
    stage.switch.plug(&Plug::new("veth1", &launcher.uid, "eth0"));
    stage.switch.set("veth1", &launcher.uid, &stage.port("testvm")).await;
    // After a restart the same is not told a second time.
    stage.switch.unplug("veth1");
    stage.service.kill9();
    let service = stage.setup.start().await;
    let metrics = "ovn_kubevirt_node_problems{reason=\"InterfaceMissing\"} 1\n";
    crate::support::eventually("it is overdue again", || async {
        let (_, present) = service.http_get("/metrics").await;
        if present.contains(metrics) { Ok(()) } else { Err(present) }
    })
    .await;
    holds_for("told once", Duration::from_millis(300), || async {
        match stage.namespace.events(&launcher.pod).await {
            events if events.len() == 1 => Ok(()),
            events => Err(format!("{events:#?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn an_interface_on_another_bridge_is_reported_with_the_bridges_and_gets_no_port() {
    let stage = NodeStage::new("node-bridge").await;
    let launcher = stage.plain_launcher("testvm").await;
    stage.bind(&launcher).await;
    stage.switch.plug(&Plug { bridge: BR_EX, ..Plug::new("veth1", &launcher.uid, "eth0") });
    let words = ["is on the OVS bridge br-ex", "OVN serves the bridge br-int"];
    stage.event(&launcher, "InterfaceMissing", &words).await;
    assert!(stage.switch.ids("veth1").is_empty());
}

#[tokio::test]
async fn an_unreadable_annotation_is_reported() {
    let stage = NodeStage::new("node-unread").await;
    let launcher = stage.launcher("testvm", &[]).await;
    annotate_with(&stage.namespace, &launcher.pod, Some("{\"ports\": []}")).await;
    stage.switch.plug(&Plug::new("veth1", &launcher.uid, "eth0"));
    stage.bind(&launcher).await;
    let words = ["The annotation ovn-kubevirt.io/ports of this pod cannot be read"];
    stage.event(&launcher, "InvalidPortsAnnotation", &words).await;
    assert!(stage.switch.ids("veth1").is_empty());
}
