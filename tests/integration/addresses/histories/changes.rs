//! Changes of objects, as the watches would bring them.

use ovn_kubevirt::contract::annotations::PORTS_ANNOTATION;
use ovn_kubevirt::kubevirt::{Change, Kind};
use serde_json::{Value, json};

use super::super::{IP_ADDRESS, IP_POOL};
use super::model::{Machine, Request};

pub(super) fn annotations(request: &Request) -> Value {
    let mut annotations = json!({});
    if !request.addresses.is_empty() {
        annotations[IP_ADDRESS] =
            json!(request.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    }
    if let Some(pool) = request.pool {
        annotations[IP_POOL] = json!(pool);
    }
    annotations
}

pub(super) fn object<T: serde::de::DeserializeOwned>(object: Value) -> Box<T> {
    Box::new(serde_json::from_value(object).expect("an object"))
}

pub(super) fn vm_change(vm: &str, uid: &str, annotations: &Value, status: Option<&str>) -> Change {
    let noted = status.map(|text| json!({PORTS_ANNOTATION: text}));
    Change::Vm(object(json!({"metadata": {"name": vm, "namespace": "n", "uid": uid, "annotations": noted},
        "spec": {"template": {"metadata": {"annotations": annotations}}}})))
}

pub(super) fn run_change(vm: &str, uid: &str, request: &Request) -> Change {
    Change::Run(object(
        json!({"metadata": {"name": vm, "namespace": "n", "uid": uid, "annotations": annotations(request)},
        "status": {"nodeName": "n1"}}),
    ))
}

pub(super) fn pod_change(vm: &str, pod: &str, run: &str) -> Change {
    let owner = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": vm, "uid": run,
        "controller": true});
    Change::Launcher(object(
        json!({"metadata": {"name": pod, "namespace": "n", "labels": {"kubevirt.io": "virt-launcher"},
        "ownerReferences": [owner]}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}),
    ))
}

pub(super) fn gone(kind: Kind, name: &str) -> Change {
    Change::Gone(kind, object(json!({"name": name, "namespace": "n"})))
}

/// All changes by which the watches would bring a VM.
pub(super) fn changes_of(vm: &str, machine: &Machine) -> Vec<Change> {
    let mut changes = Vec::new();
    changes.extend(
        machine
            .vm
            .as_ref()
            .map(|request| vm_change(vm, &machine.uid, &annotations(request), machine.status.as_deref())),
    );
    changes.extend(machine.run.as_ref().map(|(uid, request)| run_change(vm, uid, request)));
    changes.extend(machine.pods.iter().map(|(pod, run)| pod_change(vm, pod, run)));
    changes
}
