//! Requests in the wrong place.

use serde_json::json;

use super::*;
use crate::kubevirt::{Change, Cluster, Kind};

fn key() -> VmKey {
    VmKey::new("ns", "vm")
}

fn told(cluster: &Cluster) -> Vec<String> {
    let objects = cluster.vm(&key()).expect("the VM");
    let intent = VmIntent::of(&key(), objects, &Namespace::default(), &settings());
    intent.misplaced.iter().map(ToString::to_string).collect()
}

fn put_vm(cluster: &mut Cluster, on_vm: serde_json::Value, on_template: serde_json::Value) {
    let spec = json!({"networks": [
        {"name": "default", "pod": {}}, {"name": "red", "multus": {"networkName": "net1"}},
        {"name": "blue", "multus": {"networkName": "other/net2"}}]});
    let object = json!({
        "metadata": {"name": "vm", "namespace": "ns", "uid": "u", "annotations": on_vm},
        "spec": {"template": {"metadata": {"annotations": on_template}, "spec": spec}}});
    cluster.apply(Change::Vm(Box::new(serde_json::from_value(object).expect("a VM"))));
}

fn put_run(cluster: &mut Cluster, annotations: serde_json::Value) {
    let object = json!({"metadata": {"name": "vm", "namespace": "ns", "uid": "r", "annotations": annotations},
        "spec": {"networks": [{"name": "default", "pod": {}}]}});
    cluster.apply(Change::Run(Box::new(serde_json::from_value(object).expect("a VMI"))));
}

fn put_pod(cluster: &mut Cluster, annotations: serde_json::Value) -> usize {
    let owner = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "vm", "uid": "r",
        "controller": true});
    let object = json!({"metadata": {"name": "pod-1", "namespace": "ns", "labels": {"kubevirt.io": "virt-launcher"},
        "annotations": annotations, "ownerReferences": [owner]}});
    cluster.apply(Change::Launcher(Box::new(serde_json::from_value(object).expect("a pod")))).len()
}

#[test]
fn requests_on_the_vm_object_are_reported_and_our_own_annotation_is_not() {
    let mut cluster = Cluster::default();
    let on_vm = json!({
        "ovn.kubernetes.io/ip_address": "10.16.0.9", "red.ovn.kubernetes.io/mac_address": "x",
        "ovn-kubevirt.io/retain": "72h", "ovn-kubevirt.io/ports": "[]", "ovn.kubernetes.io/allocated": "true",
        "ovn.kubernetes.io/ip_pool": "", "kubectl.kubernetes.io/last-applied-configuration": "x",
    });
    put_vm(&mut cluster, on_vm, json!({}));
    assert_eq!(
        told(&cluster),
        [
            "The annotations ovn-kubevirt.io/retain, ovn.kubernetes.io/ip_address, red.ovn.kubernetes.io/mac_address have \
        no effect in metadata.annotations of the VirtualMachine. Use spec.template.metadata.annotations of the \
        VirtualMachine instead."
        ]
    );
    put_vm(&mut cluster, json!({}), json!({"ovn.kubernetes.io/ip_address": "10.16.0.9"}));
    assert_eq!(told(&cluster), [""; 0]);
}

#[test]
fn keys_without_ovn_are_reported_if_they_name_a_network_of_the_vm() {
    let mut cluster = Cluster::default();
    let wrong = [
        ("default.kubernetes.io/ip_address", "default.ovn.kubernetes.io/ip_address"),
        ("net1.ns.kubernetes.io/mac_address", "net1.ns.ovn.kubernetes.io/mac_address"),
        ("net2.other.kubernetes.io/ip_pool", "net2.other.ovn.kubernetes.io/ip_pool"),
        ("red.kubernetes.io/logical_switch", "red.ovn.kubernetes.io/logical_switch"),
    ];
    let mut annotations: serde_json::Map<_, _> = wrong.iter().map(|(key, _)| ((*key).to_owned(), json!("x"))).collect();
    // A key of another product, and one that is not served.
    annotations.insert("storage.kubernetes.io/ip_address".into(), json!("x"));
    annotations.insert("default.kubernetes.io/zone".into(), json!("x"));
    put_vm(&mut cluster, json!({}), annotations.into());
    let expected: Vec<String> = wrong
        .iter()
        .map(|(key, right)| format!("The annotation {key} has no effect: its domain lacks \"ovn\". Write {right}."))
        .collect();
    assert_eq!(told(&cluster), expected);
}

#[test]
fn requests_on_a_nad_are_reported_to_the_vms_with_nics_on_it() {
    let mut cluster = Cluster::default();
    let nad = |namespace: &str, name: &str, annotations| {
        let object = json!({"namespace": namespace, "name": name, "annotations": annotations});
        Change::Nad(Box::new(serde_json::from_value(object).expect("metadata")))
    };
    put_vm(&mut cluster, json!({}), json!({}));
    cluster.apply(nad("ns", "net1", json!({"ovn.kubernetes.io/logical_switch": "red"})));
    assert_eq!(told(&cluster), [""; 0]);
    let misplaced = json!({"ovn.kubernetes.io/logical_switch": "red", "ovn.kubernetes.io/ip_address": "10.17.0.9"});
    assert_eq!(cluster.apply(nad("ns", "net1", misplaced.clone())), BTreeSet::from([key()]));
    // That one names no switch: the NIC is not ours.
    cluster.apply(nad("other", "net2", json!({"ovn.kubernetes.io/ip_pool": "10.17.0.0/28"})));
    let [message] = &told(&cluster)[..] else { panic!("{:?}", told(&cluster)) };
    assert!(
        message.contains(
            "annotation ovn.kubernetes.io/ip_address has no effect on the NetworkAttachmentDefinition ns/net1, "
        ),
        "{message}"
    );
    assert_eq!(cluster.apply(nad("ns", "net1", misplaced)), BTreeSet::new());
    cluster.apply(nad("ns", "net1", json!({"ovn.kubernetes.io/logical_switch": "red"})));
    assert_eq!(told(&cluster), [""; 0]);
    cluster.apply(nad("ns", "net1", json!({"ovn.kubernetes.io/logical_switch": "red", "ovn-kubevirt.io/x": "1"})));
    cluster.apply(Change::ListBegins(Kind::Nad));
    cluster.apply(Change::ListEnds(Kind::Nad));
    assert_eq!(told(&cluster), [""; 0], "the NAD is gone");
}

#[test]
fn requests_added_to_a_launcher_pod_are_reported_and_those_that_kubevirt_copied_are_not() {
    let copied =
        || json!({"ovn.kubernetes.io/ip_address": "10.16.0.9", "red.ovn.kubernetes.io/ip_pool": "10.17.0.0/28"});
    for pod_first in [true, false] {
        let mut cluster = Cluster::default();
        put_vm(&mut cluster, json!({}), copied());
        if pod_first {
            put_pod(&mut cluster, copied());
            assert_eq!(told(&cluster), [""; 0]);
        }
        put_run(&mut cluster, copied());
        put_pod(&mut cluster, copied());
        assert_eq!(told(&cluster), [""; 0]);
        assert!(cluster.vm(&key()).expect("the VM").on_launchers.is_empty(), "nothing is kept");
        let mut edited = copied();
        edited["ovn.kubernetes.io/ip_address"] = json!("10.16.0.10");
        edited["ovn.kubernetes.io/mac_address"] = json!("x");
        assert_eq!(put_pod(&mut cluster, edited.clone()), 1);
        let [message] = &told(&cluster)[..] else { panic!("{:?}", told(&cluster)) };
        let words =
            "ovn.kubernetes.io/ip_address, ovn.kubernetes.io/mac_address have no effect on the launcher pod pod-1: ";
        assert!(message.contains(words), "{message}");
        assert_eq!(put_pod(&mut cluster, edited), 0, "the same again is nothing new");
        // Where Kube-OVN serves the pod, it writes its allocation there.
        let noted = json!({"ovn.kubernetes.io/allocated": "true", "ovn.kubernetes.io/ip_address": "10.0.0.1",
            "ovn.kubernetes.io/cidr": "10.0.0.0/8"});
        assert_eq!(put_pod(&mut cluster, noted), 1);
        assert_eq!(told(&cluster), [""; 0]);
    }
}
