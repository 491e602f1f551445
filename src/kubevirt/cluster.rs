//! What Kubernetes says of every VM, kept from the watches.
//!
//! Level-triggered: an event changes the state here and names the VMs to look at; what is done
//! about them is worked out from the state alone. Objects that cannot be read count as there, so
//! that nothing is taken away because of a mistyped field.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::objects::{InstanceSpec, LauncherPod, VirtualMachine, VirtualMachineInstance};
use crate::ovn::VmKey;

/// The label and annotations that tell a launcher pod.
const LAUNCHER_LABEL: (&str, &str) = ("kubevirt.io", "virt-launcher");
/// Pods that only provision volumes carry it.
const PROVISIONING: &str = "kubevirt.io/ephemeral-provisioning";

/// The wishes of a VM's owner, from a VM's template or a VMI.
#[derive(Debug, Clone, Default)]
pub struct Template {
    /// Annotations of the kinds that we read.
    pub annotations: BTreeMap<String, String>,
    /// Networks and interfaces.
    pub spec: InstanceSpec,
}

impl Template {
    fn new(annotations: Option<BTreeMap<String, String>>, spec: InstanceSpec) -> Self {
        let mut annotations = annotations.unwrap_or_default();
        annotations.retain(|key, _| is_read(key));
        Self { annotations, spec }
    }
}

/// Whether an annotation may concern us; the others are not kept.
fn is_read(key: &str) -> bool {
    key.split_once('/').is_some_and(|(domain, _)| domain.ends_with("ovn.kubernetes.io"))
}

/// A VirtualMachine.
#[derive(Debug, Clone)]
pub struct Vm {
    /// Its UID.
    pub uid: String,
    /// What its next instance will be; the error says why it cannot be read.
    pub template: Result<Template, String>,
    /// Our annotation on it.
    pub reported: Reported,
}

/// Our annotation on an object, and how new the object is that we saw it on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reported {
    /// The annotation.
    pub text: Option<String>,
    /// The object's resourceVersion, which grows with every write.
    pub version: u64,
}

/// A VirtualMachineInstance: one run of a VM.
#[derive(Debug, Clone)]
pub struct Run {
    /// Another one at every start.
    pub uid: String,
    /// The UID of the VM that it is a run of; `None` for a bare VMI.
    pub vm_uid: Option<String>,
    /// What runs; the error says why it cannot be read.
    pub template: Result<Template, String>,
    /// Where it runs.
    pub node: Option<String>,
    /// The target launcher of a migration whose guest is ready there.
    pub domain_ready_on: Option<String>,
    /// Our annotation on it.
    pub reported: Reported,
}

/// A launcher pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    /// The VMI that owns it.
    pub run_uid: String,
    /// Where it was scheduled.
    pub node: Option<String>,
    /// Neither Succeeded nor Failed. A deletion under way does not make it dead.
    pub live: bool,
    /// Seconds since the epoch, to tell the newest.
    pub created: i64,
}

/// All there is of one VM. At least one part is there.
#[derive(Debug, Clone, Default)]
pub struct VmObjects {
    /// The VirtualMachine; none for a bare VMI.
    pub vm: Option<Vm>,
    /// The VirtualMachineInstance, while it runs.
    pub run: Option<Run>,
    /// Its launcher pods by name.
    pub launchers: BTreeMap<String, Launcher>,
}

impl VmObjects {
    fn is_empty(&self) -> bool {
        self.vm.is_none() && self.run.is_none() && self.launchers.is_empty()
    }
}

/// A namespace that we serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    /// `ovn.kubernetes.io/logical_switch`
    pub switch: Option<String>,
}

/// The kinds of objects that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// VirtualMachines.
    Vm,
    /// VirtualMachineInstances.
    Run,
    /// Launcher pods.
    Launcher,
    /// Namespaces.
    Namespace,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Vm, Self::Run, Self::Launcher, Self::Namespace];
}

/// One change that a watch reports.
#[derive(Debug)]
pub enum Change {
    /// A VirtualMachine is there.
    Vm(Box<VirtualMachine>),
    /// A VirtualMachine is there that cannot be read.
    UnreadableVm(Box<ObjectMeta>, String),
    /// A VMI is there.
    Run(Box<VirtualMachineInstance>),
    /// A VMI is there that cannot be read.
    UnreadableRun(Box<ObjectMeta>, String),
    /// A launcher pod is there.
    Launcher(Box<LauncherPod>),
    /// A namespace is there.
    Namespace(Box<ObjectMeta>),
    /// An object went.
    Gone(Kind, Box<ObjectMeta>),
    /// A list of all objects of a kind begins.
    ListBegins(Kind),
    /// The list is complete: what it did not name is gone.
    ListEnds(Kind),
}

/// The state of all VMs.
#[derive(Debug, Default)]
pub struct Cluster {
    vms: HashMap<VmKey, VmObjects>,
    namespaces: HashMap<String, Namespace>,
    /// Which VM a launcher pod belongs to: a pod that goes need not say.
    launcher_of: HashMap<(String, String), VmKey>,
    /// While a list comes in: what it has not named yet.
    unconfirmed: HashMap<Kind, HashSet<(String, String)>>,
    listed: HashSet<Kind>,
}

impl Cluster {
    /// Whether every kind has been listed once: before, absence means nothing.
    pub fn is_synced(&self) -> bool {
        Kind::ALL.iter().all(|kind| self.listed.contains(kind))
    }

    /// What there is of a VM; `None` when nothing is.
    pub fn vm(&self, key: &VmKey) -> Option<&VmObjects> {
        self.vms.get(key)
    }

    /// All VMs of which something is there.
    pub fn vms(&self) -> impl Iterator<Item = &VmKey> {
        self.vms.keys()
    }

    /// A namespace that we serve.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// Takes in a change and names the VMs that it concerns.
    pub fn apply(&mut self, change: Change) -> BTreeSet<VmKey> {
        match change {
            Change::Vm(vm) => {
                let VirtualMachine { metadata, spec } = *vm;
                let annotations = spec.template.metadata.annotations;
                self.put_vm(&metadata, Ok(Template::new(annotations, spec.template.spec)))
            }
            Change::UnreadableVm(metadata, error) => self.put_vm(&metadata, Err(error)),
            Change::Run(run) => {
                let VirtualMachineInstance { metadata, spec, status } = *run;
                let template = Template::new(metadata.annotations.clone(), spec);
                let domain_ready_on = status
                    .migration_state
                    .filter(|state| state.target_node_domain_ready_timestamp.is_some())
                    .and_then(|state| state.target_pod);
                self.put_run(&metadata, Ok(template), status.node_name, domain_ready_on)
            }
            // Where it runs is not known either: placement then goes by the launcher pods alone.
            Change::UnreadableRun(metadata, error) => self.put_run(&metadata, Err(error), None, None),
            Change::Launcher(pod) => self.put_launcher(&pod),
            Change::Namespace(metadata) => self.put_namespace(&metadata),
            Change::Gone(kind, metadata) => self.remove(kind, &identity(&metadata)),
            Change::ListBegins(kind) => {
                let present = self.present(kind);
                self.unconfirmed.insert(kind, present);
                BTreeSet::new()
            }
            Change::ListEnds(kind) => {
                self.listed.insert(kind);
                let gone = self.unconfirmed.remove(&kind).unwrap_or_default();
                gone.iter().flat_map(|identity| self.remove(kind, identity)).collect()
            }
        }
    }

    fn put_vm(&mut self, metadata: &ObjectMeta, template: Result<Template, String>) -> BTreeSet<VmKey> {
        let key = self.confirm(Kind::Vm, metadata);
        let uid = metadata.uid.clone().unwrap_or_default();
        let reported = reported(metadata);
        self.vms.entry(key.clone()).or_default().vm = Some(Vm { uid, template, reported });
        BTreeSet::from([key])
    }

    fn put_run(
        &mut self,
        metadata: &ObjectMeta,
        template: Result<Template, String>,
        node: Option<String>,
        domain_ready_on: Option<String>,
    ) -> BTreeSet<VmKey> {
        let key = self.confirm(Kind::Run, metadata);
        let uid = metadata.uid.clone().unwrap_or_default();
        let run = Run {
            uid,
            vm_uid: controller(metadata, "VirtualMachine").map(|owner| owner.uid.clone()),
            template,
            node: node.filter(|node| !node.is_empty()),
            domain_ready_on,
            reported: reported(metadata),
        };
        self.vms.entry(key.clone()).or_default().run = Some(run);
        BTreeSet::from([key])
    }

    fn put_launcher(&mut self, pod: &LauncherPod) -> BTreeSet<VmKey> {
        let name = self.confirm(Kind::Launcher, &pod.metadata);
        let Some((vm, run_uid)) = launcher_owner(&pod.metadata) else { return BTreeSet::new() };
        let key = VmKey::new(name.namespace.clone(), vm);
        let launcher = Launcher {
            run_uid,
            node: pod.spec.node_name.clone().filter(|node| !node.is_empty()),
            live: !matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed")),
            created: pod.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        };
        let identity = (name.namespace.clone(), name.name.clone());
        let mut dirty = BTreeSet::from([key.clone()]);
        if self.launcher_of.get(&identity).is_some_and(|owner| *owner != key) {
            // Its owner is another now.
            dirty.extend(self.remove(Kind::Launcher, &identity));
        }
        self.launcher_of.insert(identity, key.clone());
        let launchers = &mut self.vms.entry(key.clone()).or_default().launchers;
        if launchers.get(&name.name) == Some(&launcher) {
            // Pods change often in ways that do not concern us.
            return BTreeSet::new();
        }
        launchers.insert(name.name, launcher);
        dirty
    }

    fn put_namespace(&mut self, metadata: &ObjectMeta) -> BTreeSet<VmKey> {
        let name = self.confirm(Kind::Namespace, metadata).name;
        let annotations = metadata.annotations.as_ref();
        let switch = annotations.and_then(|annotations| annotations.get("ovn.kubernetes.io/logical_switch")).cloned();
        let namespace = Namespace { switch };
        if self.namespaces.get(&name) == Some(&namespace) {
            return BTreeSet::new();
        }
        self.namespaces.insert(name.clone(), namespace);
        self.vms_in(&name)
    }

    fn vms_in(&self, namespace: &str) -> BTreeSet<VmKey> {
        self.vms.keys().filter(|key| key.namespace == namespace).cloned().collect()
    }

    fn remove(&mut self, kind: Kind, identity: &(String, String)) -> BTreeSet<VmKey> {
        let (namespace, name) = identity;
        if kind == Kind::Namespace {
            self.namespaces.remove(name);
            return self.vms_in(name);
        }
        let key = match kind {
            Kind::Launcher => match self.launcher_of.remove(identity) {
                Some(key) => key,
                None => return BTreeSet::new(),
            },
            _ => VmKey::new(namespace.clone(), name.clone()),
        };
        let Some(objects) = self.vms.get_mut(&key) else { return BTreeSet::new() };
        match kind {
            Kind::Vm => objects.vm = None,
            Kind::Run => objects.run = None,
            Kind::Launcher | Kind::Namespace => drop(objects.launchers.remove(name)),
        }
        if objects.is_empty() {
            self.vms.remove(&key);
        }
        BTreeSet::from([key])
    }

    fn confirm(&mut self, kind: Kind, metadata: &ObjectMeta) -> VmKey {
        let identity = identity(metadata);
        if let Some(unconfirmed) = self.unconfirmed.get_mut(&kind) {
            unconfirmed.remove(&identity);
        }
        VmKey::new(identity.0, identity.1)
    }

    fn present(&self, kind: Kind) -> HashSet<(String, String)> {
        let vms = |has: fn(&VmObjects) -> bool| {
            let present = self.vms.iter().filter(move |(_, objects)| has(objects));
            present.map(|(key, _)| (key.namespace.clone(), key.name.clone())).collect()
        };
        match kind {
            Kind::Vm => vms(|objects| objects.vm.is_some()),
            Kind::Run => vms(|objects| objects.run.is_some()),
            Kind::Launcher => self.launcher_of.keys().cloned().collect(),
            Kind::Namespace => self.namespaces.keys().map(|name| (String::new(), name.clone())).collect(),
        }
    }
}

/// Namespace (empty for a namespace itself) and name.
fn identity(metadata: &ObjectMeta) -> (String, String) {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

fn reported(metadata: &ObjectMeta) -> Reported {
    let annotations = metadata.annotations.as_ref();
    Reported {
        text: annotations.and_then(|annotations| annotations.get(crate::intent::PORTS_ANNOTATION)).cloned(),
        version: version(metadata),
    }
}

/// An object's resourceVersion as the number that it is on every API server there is.
pub(crate) fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// The VM (by its VMI's name) and the VMI's UID, when a pod is a launcher. Labels do not count: the
/// VM's name there is sanitised, and hot-plug pods carry some of them too.
fn launcher_owner(metadata: &ObjectMeta) -> Option<(String, String)> {
    let label = metadata.labels.as_ref()?.get(LAUNCHER_LABEL.0)?;
    if label != LAUNCHER_LABEL.1 {
        return None;
    }
    if metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(PROVISIONING)) {
        return None;
    }
    let owner = controller(metadata, "VirtualMachineInstance")?;
    Some((owner.name.clone(), owner.uid.clone()))
}

/// The KubeVirt object of a kind that controls another.
fn controller<'a>(metadata: &'a ObjectMeta, kind: &str) -> Option<&'a OwnerReference> {
    metadata.owner_references.as_ref()?.iter().find(|owner| {
        owner.controller == Some(true) && owner.kind == kind && owner.api_version.starts_with("kubevirt.io/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, label: &str, owner_kind: &str, annotations: serde_json::Value) -> Change {
        Change::Launcher(Box::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "ns", "labels": {"kubevirt.io": label},
                    "annotations": annotations,
                    "ownerReferences": [{"apiVersion": "kubevirt.io/v1", "kind": owner_kind, "name": "vm",
                        "uid": "u1", "controller": true}]},
                "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}))
            .expect("a pod"),
        ))
    }

    fn vm(name: &str) -> Change {
        Change::Vm(Box::new(
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns", "uid": "u"}})).expect("a VM"),
        ))
    }

    #[test]
    fn only_launchers_of_a_vmi_count() {
        let mut cluster = Cluster::default();
        assert!(cluster.apply(pod("a", "hotplug-disk", "VirtualMachineInstance", json!({}))).is_empty());
        assert!(cluster.apply(pod("b", "virt-launcher", "Pod", json!({}))).is_empty());
        assert!(
            cluster.apply(pod("c", "virt-launcher", "VirtualMachineInstance", json!({PROVISIONING: ""}))).is_empty()
        );
        assert_eq!(cluster.vms().count(), 0);
        let key = VmKey::new("ns", "vm");
        let dirty = cluster.apply(pod("d", "virt-launcher", "VirtualMachineInstance", json!({})));
        assert_eq!(dirty, BTreeSet::from([key.clone()]));
        assert_eq!(cluster.vm(&key).expect("the VM").launchers["d"].node.as_deref(), Some("n1"));
    }

    #[test]
    fn a_new_list_drops_what_it_does_not_name_and_nothing_before_its_end() {
        let mut cluster = Cluster::default();
        for name in ["a", "b"] {
            cluster.apply(vm(name));
        }
        cluster.apply(Change::ListBegins(Kind::Vm));
        cluster.apply(vm("b"));
        assert_eq!(cluster.vms().count(), 2);
        let gone = cluster.apply(Change::ListEnds(Kind::Vm));
        assert_eq!(gone, BTreeSet::from([VmKey::new("ns", "a")]));
        assert!(cluster.vm(&VmKey::new("ns", "a")).is_none());
        assert!(cluster.vm(&VmKey::new("ns", "b")).is_some());
    }

    #[test]
    fn a_launcher_that_changes_its_owner_leaves_the_old_one() {
        let mut cluster = Cluster::default();
        cluster.apply(pod("p", "virt-launcher", "VirtualMachineInstance", json!({})));
        let Change::Launcher(mut moved) = pod("p", "virt-launcher", "VirtualMachineInstance", json!({})) else {
            return;
        };
        moved.metadata.owner_references.as_mut().expect("owners")[0].name = "other".into();
        let dirty = cluster.apply(Change::Launcher(moved));
        assert_eq!(dirty, ["other", "vm"].map(|name| VmKey::new("ns", name)).into());
        assert!(cluster.vm(&VmKey::new("ns", "vm")).is_none());
        assert_eq!(cluster.vm(&VmKey::new("ns", "other")).expect("the VM").launchers.len(), 1);
    }

    #[test]
    fn an_unreadable_vm_is_there_all_the_same() {
        let mut cluster = Cluster::default();
        let metadata = ObjectMeta { name: Some("vm".into()), namespace: Some("ns".into()), ..Default::default() };
        cluster.apply(Change::UnreadableVm(Box::new(metadata), "no".into()));
        let vm = cluster.vm(&VmKey::new("ns", "vm")).and_then(|objects| objects.vm.as_ref()).expect("the VM");
        assert_eq!(vm.template.as_ref().err().map(String::as_str), Some("no"));
    }

    #[test]
    fn the_real_controllers_objects_are_read() {
        let run: VirtualMachineInstance = serde_json::from_value(json!({
            "metadata": {"name": "vm", "namespace": "ns", "uid": "u1",
                "annotations": {"ovn.kubernetes.io/ip_address": "10.16.0.15", "kubevirt.io/vm-generation": "1"}},
            "spec": {"domain": {"devices": {"interfaces": [{"name": "default", "bridge": {}}]}},
                "networks": [{"name": "default", "pod": {}}]},
            "status": {"nodeName": "n1", "migrationState": {"targetPod": "p2",
                "targetNodeDomainReadyTimestamp": "2026-11-23T05:22:01Z"}}}))
        .expect("a VMI");
        let mut cluster = Cluster::default();
        cluster.apply(Change::Run(Box::new(run)));
        let run = cluster.vm(&VmKey::new("ns", "vm")).and_then(|objects| objects.run.as_ref()).expect("the VMI");
        assert_eq!((run.node.as_deref(), run.domain_ready_on.as_deref()), (Some("n1"), Some("p2")));
        let template = run.template.as_ref().expect("readable");
        assert_eq!(template.annotations.len(), 1);
        assert!(template.spec.networks.as_ref().expect("networks")[0].pod.is_some());
    }
}
