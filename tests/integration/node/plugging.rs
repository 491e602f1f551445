//! Which interface gets which port, and when it loses it.

use serde_json::Value;

use super::NodeStage;
use crate::support::eventually;
use crate::support::local_switch::{BR_EX, LocalSwitch, Plug};
use crate::support::node::{annotate, pod_port};

#[tokio::test]
async fn an_interface_that_is_there_before_its_pod_is_known_gets_the_port() {
    let stage = NodeStage::new("node-interface").await;
    let launcher = stage.plain_launcher("testvm").await;
    stage.switch.plug(&Plug::new("veth1", &launcher.uid, "eth0"));
    stage.has_seen_all("other").await;
    assert!(stage.switch.ids("veth1").is_empty());
    stage.bind(&launcher).await;
    stage.switch.set("veth1", &launcher.uid, &stage.port("testvm")).await;
    eventually("both are counted", || async {
        let (_, metrics) = stage.service.http_get("/metrics").await;
        match metrics.contains("ovn_kubevirt_node_changes_total{change=\"set\"} 2\n") {
            true => Ok(()),
            false => Err(metrics),
        }
    })
    .await;
    assert_eq!(stage.service.http_get("/livez").await, (200, "ok\n".to_owned()));
    let ready = format!("ok, serving the node {}\n", stage.node);
    assert_eq!(stage.service.http_get("/readyz").await, (200, ready));
}

#[tokio::test]
async fn a_pod_that_is_known_before_its_interface_gets_the_port() {
    let stage = NodeStage::new("node-pod").await;
    let launcher = stage.plain_launcher("testvm").await;
    stage.bind(&launcher).await;
    stage.has_seen_all("other").await;
    stage.switch.plug(&Plug::new("veth1", &launcher.uid, "eth0"));
    stage.switch.set("veth1", &launcher.uid, &stage.port("testvm")).await;
}

#[tokio::test]
async fn each_nic_gets_its_own_port_and_one_that_is_plugged_later_too() {
    let stage = NodeStage::new("node-nics").await;
    let (eth0, red) = (stage.port("testvm"), stage.port_on("testvm", "red"));
    let both = [pod_port("default", "eth0", &eth0), pod_port("red", "podb1f51a511f1", &red)];
    let launcher = stage.launcher("testvm", &both).await;
    stage.bind(&launcher).await;
    stage.switch.plug(&Plug::new("veth1", &launcher.uid, "eth0"));
    stage.switch.plug(&Plug::new("veth2", &launcher.uid, "podb1f51a511f1"));
    stage.switch.set("veth1", &launcher.uid, &eth0).await;
    stage.switch.set("veth2", &launcher.uid, &red).await;

    // Hot-plug: the annotation first, as the webhook writes it, or the interface.
    let blue = stage.port_on("testvm", "blue");
    let three = [both[0].clone(), both[1].clone(), pod_port("blue", "pod16477688c0e", &blue)];
    annotate(&stage.namespace, &launcher.pod, Some(&three)).await;
    stage.switch.plug(&Plug::new("veth3", &launcher.uid, "pod16477688c0e"));
    stage.switch.set("veth3", &launcher.uid, &blue).await;

    // Unplugged: the annotation lacks it, and the CNI takes the interface away after that.
    annotate(&stage.namespace, &launcher.pod, Some(&both)).await;
    stage.switch.removed("veth3").await;
    stage.switch.unplug("veth3");
    stage.switch.set("veth1", &launcher.uid, &eth0).await;
    stage.switch.set("veth2", &launcher.uid, &red).await;

    // And plugged again.
    stage.switch.plug(&Plug::new("veth4", &launcher.uid, "pod16477688c0e"));
    annotate(&stage.namespace, &launcher.pod, Some(&three)).await;
    stage.switch.set("veth4", &launcher.uid, &blue).await;
}

#[tokio::test]
async fn an_interface_of_a_deleted_pod_loses_the_port() {
    let stage = NodeStage::new("node-left").await;
    let launcher = stage.served("testvm", "veth1").await;
    stage.switch.write("veth1", &[("ovn-installed", Some("true"))]);
    stage.player.delete_pod(&launcher.pod).await;
    stage.switch.removed("veth1").await;
    assert_eq!(stage.switch.ids("veth1"), [("ovn-installed".to_owned(), "true".to_owned())].into());
}

#[tokio::test]
async fn a_pod_that_has_ended_keeps_no_port() {
    let stage = NodeStage::new("node-ended").await;
    let launcher = stage.served("testvm", "veth1").await;
    stage.player.pod_phase(&launcher.pod, "Running").await;
    stage.has_seen_all("other").await;
    stage.switch.set("veth1", &launcher.uid, &stage.port("testvm")).await;
    stage.player.pod_phase(&launcher.pod, "Succeeded").await;
    stage.switch.removed("veth1").await;
}

#[tokio::test]
async fn an_annotation_that_is_taken_off_and_a_label_that_is_lost_cut_no_guest_off() {
    let stage = NodeStage::new("node-bare").await;
    let launcher = stage.served("testvm", "veth1").await;
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
        kube::Api::namespaced(stage.namespace.client.clone(), &stage.namespace.name);
    let unlabelled = serde_json::json!({"metadata": {"labels": {"kubevirt.io": null}}});
    let patch = kube::api::Patch::Merge(unlabelled);
    pods.patch(&launcher.pod, &kube::api::PatchParams::default(), &patch).await.expect("a patch");
    stage.has_seen_all("one").await;
    annotate(&stage.namespace, &launcher.pod, None).await;
    stage.has_seen_all("two").await;
    stage.switch.set("veth1", &launcher.uid, &stage.port("testvm")).await;
}

/// Whole rows, with their versions: none of them was written, not even with the same value.
fn rows(switch: &LocalSwitch, names: &[&str]) -> Vec<Value> {
    let tables = ["Interface", "Port", "Bridge", "Open_vSwitch"];
    let mut rows: Vec<Value> = tables.iter().flat_map(|table| switch.server.rows(table)).collect();
    rows.retain(|row| row["name"].as_str().is_some_and(|name| names.contains(&name)));
    assert!(rows.len() >= names.len(), "{rows:#?}");
    rows
}

#[tokio::test]
async fn interfaces_of_others_are_not_touched() {
    let switch = LocalSwitch::start().await;
    // Of a pod of another CNI, of one that is not known, of a left-behind one whose CNI set the port, and a plain one.
    switch.plug(&Plug { iface_id: Some("web.team"), ..Plug::new("kube-ovn", "", "") });
    switch.plug(&Plug::new("unknown", "00000000-0000-0000-0000-000000000001", "eth0"));
    switch
        .plug(&Plug { iface_id: Some("left.ns"), ..Plug::new("left", "00000000-0000-0000-0000-000000000002", "eth0") });
    switch.plug(&Plug { bridge: BR_EX, ..Plug::new("physical", "", "") });
    switch.write("left", &[("ovn-installed", Some("true"))]);
    switch.write("physical", &[("ovn-kubevirt.io/node", Some("no-mark"))]);
    let names = ["kube-ovn", "unknown", "left", "physical"];
    let before = rows(&switch, &names);
    let stage = NodeStage::with("node-foreign", switch, |setup| setup).await;
    // A pod without NICs of ours, one whose NIC is another, and a pod that comes and goes.
    let plain = stage.launcher("plain", &[]).await;
    let other = stage.plain_launcher("other").await;
    stage.bind(&plain).await;
    stage.bind(&other).await;
    stage.switch.plug(&Plug::new("of-plain", &plain.uid, "eth0"));
    stage.switch.plug(&Plug::new("of-other", &other.uid, "net1"));
    let theirs = rows(&stage.switch, &["of-plain", "of-other"]);
    stage.has_seen_all("seen").await;
    assert_eq!(rows(&stage.switch, &names), before);
    assert_eq!(rows(&stage.switch, &["of-plain", "of-other"]), theirs);
}

#[tokio::test]
async fn values_that_the_cni_has_set_are_neither_written_nor_removed() {
    let stage = NodeStage::new("node-cni").await;
    let launcher = stage.plain_launcher("testvm").await;
    let port = stage.port("testvm");
    stage.switch.plug(&Plug { iface_id: Some(&port), ..Plug::new("veth1", &launcher.uid, "eth0") });
    let before = rows(&stage.switch, &["veth1"]);
    stage.bind(&launcher).await;
    stage.has_seen_all("one").await;
    assert_eq!(rows(&stage.switch, &["veth1"]), before);
    stage.player.delete_pod(&launcher.pod).await;
    stage.has_seen_all("two").await;
    assert_eq!(rows(&stage.switch, &["veth1"]), before);
    assert_eq!(stage.namespace.events(&launcher.pod).await, []);
}

#[tokio::test]
async fn a_port_that_another_program_takes_off_is_set_again() {
    let stage = NodeStage::new("node-drift").await;
    let launcher = stage.served("testvm", "veth1").await;
    let port = stage.port("testvm");
    stage.switch.write("veth1", &[("iface-id", None)]);
    stage.switch.set("veth1", &launcher.uid, &port).await;
    stage.switch.write("veth1", &[("iface-id", None), ("ovn-kubevirt.io/node", None)]);
    stage.switch.set("veth1", &launcher.uid, &port).await;
}
