//! What Kubernetes has of one VM, as far as a decision needs it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::annotations;
use super::objects::InstanceSpec;
use crate::contract::NadKey;
use crate::escaped::Escaped;

/// The requests of a VM's owner, from a VM's template or a VMI.
#[derive(Debug, Clone, Default)]
pub struct Template {
    /// Annotations of the kinds that we read.
    pub annotations: BTreeMap<String, String>,
    /// Networks and interfaces.
    pub spec: InstanceSpec,
}

impl Template {
    /// The error says of what there is too much.
    pub(super) fn new(annotations: Option<BTreeMap<String, String>>, spec: InstanceSpec) -> Result<Self, String> {
        const MOST: usize = annotations::MOST_NETWORKS;
        let mut annotations = annotations.unwrap_or_default();
        annotations.retain(|key, _| super::annotations::is_read(key));
        let counts = |found: Option<usize>| found.is_some_and(|count| count > MOST);
        if counts(spec.networks.as_ref().map(Vec::len)) {
            return Err(format!("it has more than {MOST} networks, which is the most that a VM may have"));
        }
        if counts(spec.domain.devices.interfaces.as_ref().map(Vec::len)) {
            return Err(format!("it has more than {MOST} interfaces, which is the most that a VM may have"));
        }
        annotations::too_many(&annotations).map_or(Ok(Self { annotations, spec }), Err)
    }
}

/// How many networks a template names; one that cannot be read, none.
pub(super) fn networks(template: &Result<Template, String>) -> usize {
    template.as_ref().ok().and_then(|template| template.spec.networks.as_ref()).map_or(0, Vec::len)
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
    /// The UID of the VMIM that it was made for as the target; it stays after the end.
    pub migration: Option<String>,
}

/// A VirtualMachineInstanceMigration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its UID.
    pub uid: String,
    /// Succeeded or Failed.
    pub finished: bool,
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
    /// The migrations of its VMI by name. They alone are no VM.
    pub migrations: BTreeMap<String, Migration>,
    /// The NADs that its networks are on and that are there, with the logical switch that they name, if any.
    pub nads: BTreeMap<NadKey, Option<String>>,
    /// Requests that stand where they have no effect: the keys of those annotations, by where that is.
    pub misplaced: BTreeMap<Place, Arc<[String]>>,
    /// Requests on its launcher pods that its VMI does not have alike, with a hash of what each says.
    pub on_launchers: BTreeMap<String, Vec<(String, u64)>>,
}

impl VmObjects {
    /// Whether it is there: a VM, a VMI or a launcher pod.
    pub(super) fn exists(&self) -> bool {
        self.vm.is_some() || self.run.is_some() || !self.launchers.is_empty()
    }

    /// Whether a live migration is under way.
    pub fn is_migrating(&self) -> bool {
        self.migrations.values().any(|migration| !migration.finished)
    }

    /// Returns true if a guest may run: a launcher is live.
    pub fn may_run(&self) -> bool {
        self.launchers.values().any(|launcher| launcher.live)
    }

    /// Returns true if an annotation of the templates requests an address.
    pub fn names_an_address(&self) -> bool {
        let of_vm = self.vm.as_ref().and_then(|vm| vm.template.as_ref().ok());
        let of_run = self.run.as_ref().and_then(|run| run.template.as_ref().ok());
        let mut keys = of_vm.into_iter().chain(of_run).flat_map(|template| template.annotations.keys());
        keys.any(|key| key.ends_with("/ip_address"))
    }
}

/// A namespace that we serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    /// `ovn.kubernetes.io/logical_switch`: a new port on the pod network goes to the first of these that can serve it.
    pub switches: Vec<String>,
}

/// Where a request stands that has no effect there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// On the VirtualMachine itself.
    Vm,
    /// On a launcher pod, by name.
    Launcher(String),
    /// On a NetworkAttachmentDefinition.
    Nad(NadKey),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vm => formatter.write_str("metadata.annotations of the VirtualMachine"),
            Self::Launcher(pod) => write!(formatter, "the launcher pod {}", Escaped(pod)),
            Self::Nad(nad) => write!(formatter, "the NetworkAttachmentDefinition {}", Escaped(&nad.to_string())),
        }
    }
}
