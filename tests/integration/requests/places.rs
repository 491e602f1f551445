//! Requests in the wrong place: a warning names each, and it has no effect.

use super::{IP_ADDRESS, build};
use crate::support::{Nic, Stage, VmOptions};

const REASON: &str = "MisplacedAnnotation";

async fn nothing_is_misplaced(stage: &Stage, vm: &str) {
    let warnings = stage.warnings(vm).await;
    assert!(warnings.iter().all(|(reason, _)| reason != REASON), "{warnings:#?}");
}

#[tokio::test]
async fn on_the_vm_itself() {
    let stage = build("place-vm").start().await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    stage.port("testvm").await;
    nothing_is_misplaced(&stage, "testvm").await;
    let vms = stage.objects("kubevirt.io", "VirtualMachine", "virtualmachines");
    stage.annotate(&vms, "testvm", IP_ADDRESS, Some("10.16.0.77")).await;
    let words = [IP_ADDRESS, "metadata.annotations of the VirtualMachine", "spec.template.metadata.annotations"];
    stage.event("testvm", REASON, &words).await;
    assert!(stage.port("testvm").await.addresses.iter().all(|text| !text.ends_with(".77")));
    // A VM without a NIC of ours is ignored.
    let foreign = VmOptions::default().nics([Nic::nad("red", "unknown")]);
    stage.player.create_vm("foreign", foreign).await;
    stage.annotate(&vms, "foreign", IP_ADDRESS, Some("10.16.0.78")).await;
    stage.player.create_vm("another", VmOptions::default()).await;
    stage.port("another").await;
    assert_eq!(stage.namespace.events("foreign").await, []);
}

#[tokio::test]
async fn on_the_nad() {
    let stage = build("place-nad").start().await;
    stage.player.create_vm("testvm", VmOptions::default().nic(Nic::nad("second", "net1"))).await;
    stage.player.create_vm("another", VmOptions::default()).await;
    stage.port("testvm").await;
    stage.port("another").await;
    let nads = stage.objects("k8s.cni.cncf.io", "NetworkAttachmentDefinition", "network-attachment-definitions");
    stage.annotate(&nads, "net1", "ovn.kubernetes.io/ip_pool", Some("10.17.0.0/28")).await;
    let nad = format!("NetworkAttachmentDefinition {}/net1", stage.namespace.name);
    stage.event("testvm", REASON, &["ovn.kubernetes.io/ip_pool", &nad, "spec.template.metadata.annotations"]).await;
    nothing_is_misplaced(&stage, "another").await;
}

#[tokio::test]
async fn on_the_launcher_pod() {
    let stage = build("place-pod").start().await;
    // The copies that KubeVirt makes on the pod are in their place.
    stage.player.create_vm("testvm", VmOptions::default().annotation(IP_ADDRESS, "10.16.0.15")).await;
    let run = stage.player.start("testvm", "n1").await;
    stage.port_where("testvm", "is on n1", |port| port.option("requested-chassis") == Some("n1")).await;
    nothing_is_misplaced(&stage, "testvm").await;
    let pods = stage.objects("", "Pod", "pods");
    stage.annotate(&pods, &run.pod, IP_ADDRESS, Some("10.16.0.16")).await;
    stage.event("testvm", REASON, &[IP_ADDRESS, &format!("the launcher pod {}", run.pod)]).await;
    assert!(stage.port("testvm").await.addresses.contains("0a:58:0a:10:00:0f 10.16.0.15"));
}

#[tokio::test]
async fn in_a_domain_that_lacks_ovn() {
    let stage = build("place-domain").start().await;
    let by_nad = format!("net1.{}.kubernetes.io/ip_address", stage.namespace.name);
    let options = VmOptions::default()
        .nic(Nic::nad("second", "net1"))
        .annotation("default.kubernetes.io/ip_address", "10.16.0.77")
        .annotation(&by_nad, "10.17.0.77")
        .annotation("storage.kubernetes.io/ip_address", "of another product");
    stage.player.create_vm("testvm", options).await;
    stage.port("testvm").await;
    let right = "Write default.ovn.kubernetes.io/ip_address";
    stage.event("testvm", REASON, &["default.kubernetes.io/ip_address has no effect", right]).await;
    let right = format!("Write net1.{}.ovn.kubernetes.io/ip_address", stage.namespace.name);
    stage.event("testvm", REASON, &[&by_nad, &right]).await;
    let warnings = stage.warnings("testvm").await;
    assert!(!warnings.iter().any(|(_, message)| message.contains("storage.")), "{warnings:#?}");
}
