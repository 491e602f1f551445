//! The objects of the small world, as the API server has them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::contract::annotations::{MIGRATION_LABEL, NETWORKS, PORTS_ANNOTATION};
use crate::contract::{VmKey, pod_interface};
use crate::kubevirt::Change;

/// The template of a VM.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Template {
    /// The pod network's name; `None`: the VM has no NIC on it.
    pub(super) network: Option<String>,
    pub(super) annotations: Vec<(String, String)>,
    /// Networks on NADs: the name, and the NAD as it is written.
    pub(super) more: Vec<(&'static str, &'static str)>,
    /// Networks that are to be unplugged.
    pub(super) absent: Vec<&'static str>,
    /// The network binding plugin of its interfaces; bridge without.
    pub(super) binding: Option<&'static str>,
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

    /// With interfaces bound by a plugin.
    pub(super) fn bound_by(mut self, plugin: &'static str) -> Self {
        self.binding = Some(plugin);
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
        if self.more.is_empty() && self.binding.is_none() {
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
            let state = absent.then_some("absent");
            match self.binding {
                None => json!({"name": network["name"], "bridge": {}, "state": state}),
                Some(plugin) => json!({"name": network["name"], "binding": {"name": plugin}, "state": state}),
            }
        };
        let interfaces: Vec<Value> = networks.iter().map(interface).collect();
        json!({"domain": {"devices": {"interfaces": interfaces}}, "networks": networks})
    }
}

/// The objects of a VM in Kubernetes.
#[derive(Debug, Clone, Default)]
pub(super) struct Present {
    pub(super) uid: String,
    pub(super) template: Option<Template>,
    /// Our annotation.
    pub(super) told: Option<String>,
    /// The running instance: its UID, its template, its node, the target that is ready.
    pub(super) run: Option<(String, Template, Option<String>, Option<String>)>,
    pub(super) pods: Vec<Pod>,
    /// Migrations by UID, and whether each is under way.
    pub(super) migrations: Vec<(String, bool)>,
}

/// A launcher pod.
#[derive(Debug, Clone, Default)]
pub(super) struct Pod {
    pub(super) name: String,
    /// The UID of its instance.
    pub(super) run: String,
    pub(super) node: Option<String>,
    pub(super) live: bool,
    /// The migration that it is the target of.
    pub(super) migration: Option<String>,
    /// The networks that it is plugged to, with their NADs as they are written.
    pub(super) networks: Vec<(String, String)>,
    /// The ports that the mutating webhook named to the CNI, by network.
    pub(super) ports: BTreeMap<String, String>,
}

impl Template {
    /// The networks that virt-controller plugs a pod to, by the instance's spec.
    pub(super) fn plugged(&self) -> Vec<(String, String)> {
        let present = self.more.iter().filter(|(name, _)| !self.absent.contains(name));
        present.map(|(name, nad)| ((*name).to_owned(), (*nad).to_owned())).collect()
    }
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

/// A pod as virt-controller and the kubelet have it.
pub(super) fn launcher_change(vm: &VmKey, pod: &Pod) -> Change {
    let Pod { name, run, node, live, migration, networks, ports } = pod;
    let Change::Launcher(mut object) = pod_change(vm, name, run, node.as_deref(), *live) else {
        unreachable!("it is a pod");
    };
    if let Some(migration) = migration {
        object.metadata.labels.get_or_insert_default().insert(MIGRATION_LABEL.into(), migration.clone());
    }
    if !networks.is_empty() {
        let element = |(network, nad): &(String, String)| {
            let (namespace, name) = nad.split_once('/').unwrap_or((&vm.namespace, nad));
            let arguments = ports.get(network).map(|port| json!({"ovnPort": port}));
            json!({"name": name, "namespace": namespace, "interface": pod_interface(network), "cni-args": arguments})
        };
        let text = Value::from_iter(networks.iter().map(element)).to_string();
        object.metadata.annotations.get_or_insert_default().insert(NETWORKS.into(), text);
    }
    Change::Launcher(object)
}

/// A migration of a VM.
pub(super) fn migration_change(vm: &VmKey, uid: &str, under_way: bool) -> Change {
    let phase = if under_way { "Running" } else { "Failed" };
    let object = json!({"metadata": {"name": uid, "namespace": vm.namespace, "uid": uid},
        "spec": {"vmiName": vm.name}, "status": {"phase": phase}});
    Change::Migration(Box::new(serde_json::from_value(object).expect("a VMIM")))
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
