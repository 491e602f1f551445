//! The objects of the small world, as the API server has them.

use serde_json::{Value, json};

use crate::contract::VmKey;
use crate::contract::annotations::PORTS_ANNOTATION;
use crate::kubevirt::Change;

/// What a VM's template says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Template {
    /// The pod network's name; `None`: the VM has no NIC on it.
    pub(super) network: Option<String>,
    pub(super) annotations: Vec<(String, String)>,
    /// Networks on NADs: the name, and the NAD as it is written.
    pub(super) more: Vec<(&'static str, &'static str)>,
    /// Networks that are to be unplugged.
    pub(super) absent: Vec<&'static str>,
}

impl Template {
    pub(super) fn new<const N: usize>(annotations: [(&str, &str); N]) -> Self {
        let annotations = annotations.map(|(key, value)| (format!("ovn.kubernetes.io/{key}"), value.to_owned()));
        Self { network: Some("default".into()), annotations: annotations.to_vec(), ..Self::default() }
    }

    /// With NICs on NADs.
    pub(super) fn with<const N: usize>(mut self, more: [(&'static str, &'static str); N]) -> Self {
        self.more.extend(more);
        self
    }

    /// With an annotation, by its whole key.
    pub(super) fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.push((key.to_owned(), value.to_owned()));
        self
    }

    fn annotations(&self) -> Value {
        self.annotations
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    fn spec(&self) -> Value {
        if self.more.is_empty() {
            match self.network.as_deref() {
                None => return json!({"domain": {"devices": {"autoattachPodInterface": false}}}),
                Some("default") => return json!({}),
                Some(_) => {}
            }
        }
        let pod = self.network.iter().map(|name| json!({"name": name, "pod": {}}));
        let more = self.more.iter().map(|(name, nad)| json!({"name": name, "multus": {"networkName": nad}}));
        let networks: Vec<Value> = pod.chain(more).collect();
        let interface = |network: &Value| {
            let absent = self.absent.iter().any(|absent| network["name"] == *absent);
            json!({"name": network["name"], "bridge": {}, "state": absent.then_some("absent")})
        };
        let interfaces: Vec<Value> = networks.iter().map(interface).collect();
        json!({"domain": {"devices": {"interfaces": interfaces}}, "networks": networks})
    }
}

/// What Kubernetes has of a VM.
#[derive(Debug, Clone, Default)]
pub(super) struct Present {
    pub(super) uid: String,
    pub(super) template: Option<Template>,
    /// Our annotation.
    pub(super) told: Option<String>,
    /// The running instance: its UID, its template, its node, the target that is ready.
    pub(super) run: Option<(String, Template, Option<String>, Option<String>)>,
    /// Launcher pods: name, the instance's UID, node, live.
    pub(super) pods: Vec<(String, String, Option<String>, bool)>,
}

pub(super) fn vm_change(vm: &VmKey, uid: &str, template: &Template) -> Change {
    told_vm_change(vm, uid, template, None)
}

/// A VM with our annotation.
pub(super) fn told_vm_change(vm: &VmKey, uid: &str, template: &Template, told: Option<&str>) -> Change {
    let annotations = told.map(|told| json!({PORTS_ANNOTATION: told}));
    let object = json!({
        "metadata": {"name": vm.name, "namespace": vm.namespace, "uid": uid, "annotations": annotations},
        "spec": {"template": {"metadata": {"annotations": template.annotations()}, "spec": template.spec()}}});
    Change::Vm(Box::new(serde_json::from_value(object).expect("a VM")))
}

pub(super) fn run_change(
    vm: &VmKey,
    uid: &str,
    template: &Template,
    node: Option<&str>,
    ready_on: Option<&str>,
) -> Change {
    let ready = "2026-11-23T05:22:01Z";
    let migration = ready_on.map(|pod| json!({"targetPod": pod, "targetNodeDomainReadyTimestamp": ready}));
    let object = json!({
        "metadata": {"name": vm.name, "namespace": vm.namespace, "uid": uid, "annotations": template.annotations()},
        "spec": template.spec(),
        "status": {"nodeName": node, "migrationState": migration}});
    Change::Run(Box::new(serde_json::from_value(object).expect("a VMI")))
}

pub(super) fn pod_change(vm: &VmKey, name: &str, run_uid: &str, node: Option<&str>, live: bool) -> Change {
    let owner = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": vm.name,
        "uid": run_uid, "controller": true});
    let object = json!({
        "metadata": {"name": name, "namespace": vm.namespace, "labels": {"kubevirt.io": "virt-launcher"},
            "ownerReferences": [owner]},
        "spec": {"nodeName": node}, "status": {"phase": if live { "Running" } else { "Succeeded" }}});
    Change::Launcher(Box::new(serde_json::from_value(object).expect("a pod")))
}
