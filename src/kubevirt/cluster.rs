//! The state of every VM in Kubernetes, kept from the watches.
//!
//! Level-triggered: an event changes the state here and names the VMs to decide; the decisions depend on the state
//! alone. Unreadable objects count as present, so that a mistyped field takes nothing away.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::annotations;
use super::objects::{
    LauncherPod, MigrationState, VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceMigration,
};
use super::pod_networks::PodNetworks;
use super::state::{Launcher, Migration, Namespace, Place, Reported, Run, Template, Vm, VmObjects, networks};
use crate::contract::annotations::{
    LAUNCHER_LABEL, MIGRATION_LABEL, PORTS_ANNOTATION, PROVISIONING, SWITCH_ANNOTATION,
};
use crate::contract::{NadKey, VmKey};
use crate::escaped::shortened;

pub use nodes::InvalidChassis;
pub use notices::Notice;

/// The most switches that a namespace may name.
const MOST_SWITCHES: usize = 16;

/// The kinds of objects that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// VirtualMachines.
    Vm,
    /// VirtualMachineInstances.
    Run,
    /// Launcher pods.
    Launcher,
    /// VirtualMachineInstanceMigrations.
    Migration,
    /// Nodes.
    Node,
    /// Namespaces.
    Namespace,
    /// NetworkAttachmentDefinitions.
    Nad,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Vm, Self::Run, Self::Launcher, Self::Migration, Self::Node, Self::Namespace, Self::Nad];
}

/// A change from a watch.
#[derive(Debug)]
pub enum Change {
    /// A VirtualMachine exists.
    Vm(Box<VirtualMachine>),
    /// A VirtualMachine exists, but cannot be read.
    UnreadableVm(Box<ObjectMeta>, String),
    /// A VMI exists.
    Run(Box<VirtualMachineInstance>),
    /// A VMI exists, but cannot be read.
    UnreadableRun(Box<ObjectMeta>, String),
    /// A launcher pod exists.
    Launcher(Box<LauncherPod>),
    /// A migration exists.
    Migration(Box<VirtualMachineInstanceMigration>),
    /// A node exists.
    Node(Box<ObjectMeta>),
    /// A namespace exists.
    Namespace(Box<ObjectMeta>),
    /// A NetworkAttachmentDefinition exists.
    Nad(Box<ObjectMeta>),
    /// An object of another kind exists, but cannot be read.
    Unreadable(Kind, Box<ObjectMeta>, String),
    /// An object was deleted.
    Gone(Kind, Box<ObjectMeta>),
    /// A list of all objects of a kind begins.
    ListBegins(Kind),
    /// The list is complete: objects that it lacks are deleted.
    ListEnds(Kind),
}

/// The state of all VMs.
#[derive(Debug, Default)]
pub struct Cluster {
    vms: HashMap<VmKey, VmObjects>,
    namespaces: HashMap<String, Namespace>,
    /// The VM of each launcher pod: a deleted pod need not name it.
    launcher_of: HashMap<(String, String), VmKey>,
    /// The VM of each migration.
    migration_of: HashMap<(String, String), VmKey>,
    /// The VMs with a migration that has not ended.
    migrating: BTreeSet<VmKey>,
    /// The chassis in the annotations of Nodes; `None` without the annotation.
    nodes: HashMap<String, Option<Result<String, InvalidChassis>>>,
    /// The switches in the annotations of NADs; `None` without the annotation.
    nads: HashMap<NadKey, Option<String>>,
    /// Requests on NADs, where they have no effect.
    misplaced_on_nads: HashMap<NadKey, Arc<[String]>>,
    /// Objects that are skipped as they cannot be read, with the reason.
    unreadable: HashMap<(Kind, (String, String)), String>,
    /// Notices for the operator.
    notices: Vec<Notice>,
    /// NADs with another switch since a list of them began: one pass at its end finds their VMs.
    changed_nads: HashSet<NadKey>,
    /// During a list: the objects that it has not named yet.
    unconfirmed: HashMap<Kind, HashSet<(String, String)>>,
    listed: HashSet<Kind>,
}

impl Cluster {
    /// Returns true once every kind has been listed: before, absence means nothing.
    pub fn is_synced(&self) -> bool {
        Kind::ALL.iter().all(|kind| self.listed.contains(kind))
    }

    /// The objects of a VM; `None` if there are no objects.
    pub fn vm(&self, key: &VmKey) -> Option<&VmObjects> {
        self.vms.get(key).filter(|objects| objects.exists())
    }

    /// The objects of a VM in a served namespace.
    pub fn served_vm(&self, key: &VmKey) -> Option<&VmObjects> {
        self.vm(key).filter(|_| self.namespaces.contains_key(&key.namespace))
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// Returns true if there is a node with this name.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    /// VMs with a launcher pod on a node that `fits`.
    pub fn vms_on(&self, fits: impl Fn(&str) -> bool) -> BTreeSet<VmKey> {
        let there =
            |objects: &VmObjects| objects.launchers.values().filter_map(|launcher| launcher.node.as_deref()).any(&fits);
        self.vms.iter().filter(|(_, objects)| there(objects)).map(|(key, _)| key.clone()).collect()
    }

    /// The VMs with a migration that has not ended, in the order of their names.
    pub fn migrating(&self) -> impl Iterator<Item = &VmKey> {
        self.migrating.iter()
    }

    /// All VMs with at least one object.
    pub fn vms(&self) -> impl Iterator<Item = &VmKey> {
        self.vms.iter().filter(|(_, objects)| objects.exists()).map(|(key, _)| key)
    }

    /// A served namespace.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// Applies a change. Returns the VMs that it concerns.
    pub fn apply(&mut self, change: Change) -> BTreeSet<VmKey> {
        match change {
            Change::Vm(vm) => {
                let (metadata, vm) = vm_of(*vm);
                self.put_vm(&metadata, vm)
            }
            Change::UnreadableVm(metadata, error) => self.put_vm(&metadata, unreadable_vm(&metadata, error)),
            Change::Run(run) => {
                let (metadata, run) = run_of(*run);
                self.put_run(&metadata, run)
            }
            Change::UnreadableRun(metadata, error) => self.put_run(&metadata, unreadable_run(&metadata, error)),
            Change::Launcher(pod) => self.put_launcher(&pod),
            Change::Migration(migration) => self.put_migration(&migration),
            Change::Node(metadata) => self.put_node(&metadata),
            Change::Namespace(metadata) => self.put_namespace(&metadata),
            Change::Nad(metadata) => self.put_nad(&metadata),
            Change::Unreadable(kind, metadata, error) => self.skip(kind, &metadata, error),
            Change::Gone(kind, metadata) => self.remove(kind, &identity(&metadata)),
            Change::ListBegins(kind) => {
                let present = self.present(kind);
                self.unconfirmed.insert(kind, present);
                BTreeSet::new()
            }
            Change::ListEnds(kind) => {
                self.listed.insert(kind);
                let gone = self.unconfirmed.get_mut(&kind).map(std::mem::take).unwrap_or_default();
                let mut dirty: BTreeSet<VmKey> = gone.iter().flat_map(|identity| self.remove(kind, identity)).collect();
                self.unconfirmed.remove(&kind);
                if kind == Kind::Nad {
                    dirty.extend(self.vms_on_changed_nads());
                }
                dirty
            }
        }
    }

    /// The objects of a VM, with this VirtualMachine instead of the known one.
    pub fn with_vm(&self, vm: VirtualMachine) -> (VmKey, VmObjects) {
        let (metadata, vm) = vm_of(vm);
        self.with(&metadata, |objects| objects.set_vm(&metadata, vm))
    }

    /// The objects of a VM, with this VirtualMachineInstance instead of the known one.
    pub fn with_run(&self, run: VirtualMachineInstance) -> (VmKey, VmObjects) {
        let (metadata, run) = run_of(run);
        self.with(&metadata, |objects| objects.set_run(run))
    }

    /// The same with a VirtualMachine that cannot be read.
    pub fn with_unreadable_vm(&self, metadata: &ObjectMeta, error: String) -> (VmKey, VmObjects) {
        self.with(metadata, |objects| objects.set_vm(metadata, unreadable_vm(metadata, error)))
    }

    /// The same with a VirtualMachineInstance that cannot be read.
    pub fn with_unreadable_run(&self, metadata: &ObjectMeta, error: String) -> (VmKey, VmObjects) {
        self.with(metadata, |objects| objects.set_run(unreadable_run(metadata, error)))
    }

    fn with(&self, metadata: &ObjectMeta, set: impl FnOnce(&mut VmObjects)) -> (VmKey, VmObjects) {
        let (namespace, name) = identity(metadata);
        let key = VmKey::new(namespace, name);
        let mut objects = self.vms.get(&key).cloned().unwrap_or_default();
        set(&mut objects);
        self.find_nads_of(&key, &mut objects);
        (key, objects)
    }

    fn put_vm(&mut self, metadata: &ObjectMeta, vm: Vm) -> BTreeSet<VmKey> {
        let key = self.confirm(Kind::Vm, metadata);
        self.vms.entry(key.clone()).or_default().set_vm(metadata, vm);
        self.find_nads(&key);
        BTreeSet::from([key])
    }

    fn put_run(&mut self, metadata: &ObjectMeta, run: Run) -> BTreeSet<VmKey> {
        let key = self.confirm(Kind::Run, metadata);
        self.vms.entry(key.clone()).or_default().set_run(run);
        self.find_nads(&key);
        BTreeSet::from([key])
    }

    fn put_launcher(&mut self, pod: &LauncherPod) -> BTreeSet<VmKey> {
        let name = self.confirm(Kind::Launcher, &pod.metadata);
        let Some((vm, run_uid)) = launcher_owner(&pod.metadata) else {
            // A process that starts now does not know it either.
            return self.remove(Kind::Launcher, &(name.namespace, name.name));
        };
        let key = VmKey::new(name.namespace.clone(), vm);
        let launcher = Launcher {
            run_uid,
            node: pod.spec.node_name.clone().filter(|node| annotations::is_subdomain(node)),
            live: !matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed")),
            created: pod.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            migration: pod.metadata.labels.as_ref().and_then(|labels| labels.get(MIGRATION_LABEL)).cloned(),
            networks: PodNetworks::of(&pod.metadata),
        };
        let identity = (name.namespace.clone(), name.name.clone());
        let mut dirty = BTreeSet::from([key.clone()]);
        if self.launcher_of.get(&identity).is_some_and(|owner| *owner != key) {
            // It has a new owner.
            dirty.extend(self.remove(Kind::Launcher, &identity));
        }
        self.launcher_of.insert(identity, key.clone());
        let objects = self.vms.entry(key.clone()).or_default();
        let before = objects.launchers.get(&name.name);
        let same = before == Some(&launcher);
        let replugged = before.map(|before| &before.networks).unwrap_or(&PodNetworks::default()) != &launcher.networks;
        if !same {
            objects.launchers.insert(name.name.clone(), launcher);
        }
        let differs = objects.put_on_launcher(&name.name, &pod.metadata) || !same;
        if replugged {
            self.find_nads(&key);
        }
        if differs {
            return dirty;
        }
        // Most changes of pods do not concern a VM.
        BTreeSet::new()
    }

    fn put_migration(&mut self, object: &VirtualMachineInstanceMigration) -> BTreeSet<VmKey> {
        if !annotations::is_subdomain(&object.spec.vmi_name) {
            let error = format!("spec.vmiName is \"{}\"", object.spec.vmi_name);
            return self.skip(Kind::Migration, &object.metadata, error);
        }
        let name = self.confirm(Kind::Migration, &object.metadata);
        let key = VmKey::new(name.namespace.clone(), object.spec.vmi_name.clone());
        let migration = Migration {
            uid: object.metadata.uid.clone().unwrap_or_default(),
            finished: matches!(object.status.phase.as_deref(), Some("Succeeded" | "Failed")),
            phase: shortened(object.status.phase.clone().unwrap_or_else(|| "Pending".to_owned())),
        };
        let identity = (name.namespace.clone(), name.name.clone());
        let mut dirty = BTreeSet::from([key.clone()]);
        if self.migration_of.get(&identity).is_some_and(|owner| *owner != key) {
            dirty.extend(self.remove(Kind::Migration, &identity));
        }
        self.migration_of.insert(identity, key.clone());
        let migrations = &mut self.vms.entry(key.clone()).or_default().migrations;
        let before = migrations.insert(name.name, migration.clone());
        if before.is_some_and(|before| before.decides_as(&migration)) {
            return BTreeSet::new();
        }
        self.note_migrating(&key);
        dirty
    }

    fn note_migrating(&mut self, vm: &VmKey) {
        match self.vms.get(vm).is_some_and(VmObjects::is_migrating) {
            true => self.migrating.insert(vm.clone()),
            false => self.migrating.remove(vm),
        };
    }

    fn put_namespace(&mut self, metadata: &ObjectMeta) -> BTreeSet<VmKey> {
        let name = self.confirm(Kind::Namespace, metadata).name;
        let namespace = Namespace { switches: named_switches(metadata) };
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
        self.unreadable.remove(&(kind, identity.clone()));
        if kind == Kind::Namespace {
            self.namespaces.remove(name);
            return self.vms_in(name);
        }
        if kind == Kind::Node {
            return self.remove_node(name);
        }
        if kind == Kind::Nad {
            return self.remove_nad(&NadKey::new(namespace.clone(), name.clone()));
        }
        let key = match kind {
            Kind::Launcher => self.launcher_of.remove(identity),
            Kind::Migration => self.migration_of.remove(identity),
            _ => Some(VmKey::new(namespace.clone(), name.clone())),
        };
        let Some(key) = key else { return BTreeSet::new() };
        let Some(objects) = self.vms.get_mut(&key) else { return BTreeSet::new() };
        match kind {
            Kind::Vm => {
                objects.vm = None;
                objects.put_misplaced(Place::Vm, Vec::new());
            }
            Kind::Run => {
                objects.run = None;
                objects.compare_launchers();
            }
            Kind::Migration => drop(objects.migrations.remove(name)),
            Kind::Launcher | Kind::Node | Kind::Namespace | Kind::Nad => objects.remove_launcher(name),
        }
        if !objects.exists() && objects.migrations.is_empty() {
            self.vms.remove(&key);
        }
        if kind == Kind::Migration {
            self.note_migrating(&key);
        }
        BTreeSet::from([key])
    }

    fn confirm(&mut self, kind: Kind, metadata: &ObjectMeta) -> VmKey {
        let identity = identity(metadata);
        if let Some(unconfirmed) = self.unconfirmed.get_mut(&kind) {
            unconfirmed.remove(&identity);
        }
        if !self.unreadable.is_empty() {
            self.unreadable.remove(&(kind, identity.clone()));
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
            Kind::Migration => self.migration_of.keys().cloned().chain(self.skipped(kind)).collect(),
            Kind::Node => self.nodes.keys().map(|name| (String::new(), name.clone())).collect(),
            Kind::Namespace => self.namespaces.keys().map(|name| (String::new(), name.clone())).collect(),
            Kind::Nad => self.nads.keys().map(|nad| (nad.namespace.clone(), nad.name.clone())).collect(),
        }
    }
}

impl VmObjects {
    fn set_vm(&mut self, metadata: &ObjectMeta, vm: Vm) {
        self.vm = Some(vm);
        self.put_misplaced(Place::Vm, misplaced::on_vm(metadata));
    }

    fn set_run(&mut self, run: Run) {
        self.run = Some(run);
        self.compare_launchers();
    }
}

fn vm_of(VirtualMachine { metadata, spec }: VirtualMachine) -> (ObjectMeta, Vm) {
    let template = Template::new(spec.template.metadata.annotations, spec.template.spec);
    let vm = Vm { uid: uid(&metadata), reported: reported(&metadata, networks(&template)), template };
    (metadata, vm)
}

fn unreadable_vm(metadata: &ObjectMeta, error: String) -> Vm {
    Vm { uid: uid(metadata), reported: reported(metadata, 0), template: Err(shortened(error)) }
}

fn run_of(VirtualMachineInstance { metadata, spec, status }: VirtualMachineInstance) -> (ObjectMeta, Run) {
    let ready = |state: &MigrationState| state.target_node_domain_ready_timestamp.is_some();
    let template = Template::new(metadata.annotations.clone(), spec);
    let run = Run {
        uid: uid(&metadata),
        vm_uid: vm_uid(&metadata),
        reported: reported(&metadata, networks(&template)),
        template,
        node: status.node_name.filter(|node| annotations::is_subdomain(node)),
        domain_ready_on: status.migration_state.filter(ready).and_then(|state| state.target_pod),
    };
    (metadata, run)
}

/// The node of the guest is not known either: placement then depends on the launcher pods alone.
fn unreadable_run(metadata: &ObjectMeta, error: String) -> Run {
    Run {
        uid: uid(metadata),
        vm_uid: vm_uid(metadata),
        reported: reported(metadata, 0),
        template: Err(shortened(error)),
        node: None,
        domain_ready_on: None,
    }
}

/// The UID of a VMI's VM.
fn vm_uid(metadata: &ObjectMeta) -> Option<String> {
    controller(metadata, "VirtualMachine").map(|owner| owner.uid.clone()).filter(|uid| annotations::is_uid(uid))
}

/// Namespace (empty for a namespace itself) and name.
fn identity(metadata: &ObjectMeta) -> (String, String) {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// An object's UID, which the API server generates. Another text is dropped.
fn uid(metadata: &ObjectMeta) -> String {
    metadata.uid.clone().filter(|uid| annotations::is_uid(uid)).unwrap_or_default()
}

/// The switches in a namespace's annotation, in its order.
fn named_switches(metadata: &ObjectMeta) -> Vec<String> {
    let annotations = metadata.annotations.as_ref();
    let list = annotations.and_then(|annotations| annotations.get(SWITCH_ANNOTATION));
    let names = list.iter().flat_map(|list| list.split(',')).map(str::trim);
    let names = names.filter(|name| !name.is_empty() && name.len() <= annotations::LONGEST_VALUE);
    let mut seen = BTreeSet::new();
    names.filter(|name| seen.insert(*name)).take(MOST_SWITCHES).map(ToOwned::to_owned).collect()
}

/// The switch in a NAD's annotation.
fn named_switch(metadata: &ObjectMeta) -> Option<String> {
    let annotations = metadata.annotations.as_ref()?;
    let switch = annotations.get(SWITCH_ANNOTATION).map(|switch| switch.trim());
    switch.filter(|switch| !switch.is_empty()).map(ToOwned::to_owned)
}

/// A longer text than this service writes comes from another program, and is dropped.
fn reported(metadata: &ObjectMeta, networks: usize) -> Reported {
    let annotations = metadata.annotations.as_ref();
    let text = annotations.and_then(|annotations| annotations.get(PORTS_ANNOTATION));
    let text = text.filter(|text| annotations::is_a_report(text, networks)).cloned();
    Reported { text, version: version(metadata) }
}

/// An object's resourceVersion as a number, which it is on every known API server.
pub(crate) fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// The VM (by its VMI's name) and the VMI's UID, if a pod is a launcher. Labels are ignored: the VM's name there is
/// sanitised, and hot-plug pods have some of them too.
pub(crate) fn launcher_owner(metadata: &ObjectMeta) -> Option<(String, String)> {
    let label = metadata.labels.as_ref()?.get(LAUNCHER_LABEL.0)?;
    if label != LAUNCHER_LABEL.1 {
        return None;
    }
    if metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(PROVISIONING)) {
        return None;
    }
    let owner = controller(metadata, "VirtualMachineInstance")?;
    // Tenants can write them: only a valid name and UID can belong to a VMI.
    if !annotations::is_subdomain(&owner.name) || !annotations::is_uid(&owner.uid) {
        return None;
    }
    Some((owner.name.clone(), owner.uid.clone()))
}

/// The KubeVirt object of a kind that controls an object.
pub(crate) fn controller<'a>(metadata: &'a ObjectMeta, kind: &str) -> Option<&'a OwnerReference> {
    metadata.owner_references.as_ref()?.iter().find(|owner| {
        owner.controller == Some(true) && owner.kind == kind && owner.api_version.starts_with("kubevirt.io/")
    })
}

mod misplaced;
mod nads;
mod nodes;
mod notices;
#[cfg(test)]
mod tests;
