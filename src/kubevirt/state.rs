//! The objects of one VM, reduced to the parts that a decision needs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::annotations;
use super::objects::InstanceSpec;
use super::pod_networks::PodNetworks;
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
    /// Fails if there are too many annotations, networks or interfaces.
    pub(super) fn new(annotations: Option<BTreeMap<String, String>>, spec: InstanceSpec) -> Result<Self, String> {
        const MOST: usize = annotations::MOST_NETWORKS;
        let mut annotations = annotations.unwrap_or_default();
        annotations.retain(|key, _| super::annotations::is_read(key));
        let counts = |found: Option<usize>| found.is_some_and(|count| count > MOST);
        if counts(spec.networks.as_ref().map(Vec::len)) {
            return Err(format!("it has more than {MOST} networks, the most that a VM may have"));
        }
        if counts(spec.domain.devices.interfaces.as_ref().map(Vec::len)) {
            return Err(format!("it has more than {MOST} interfaces, the most that a VM may have"));
        }
        annotations::too_many(&annotations).map_or(Ok(Self { annotations, spec }), Err)
    }
}

/// The number of networks in a template; 0 if it cannot be read.
pub(super) fn networks(template: &Result<Template, String>) -> usize {
    template.as_ref().ok().and_then(|template| template.spec.networks.as_ref()).map_or(0, Vec::len)
}

/// A VirtualMachine.
#[derive(Debug, Clone)]
pub struct Vm {
    /// Its UID.
    pub uid: String,
    /// The template of its next instance, or the error of reading it.
    pub template: Result<Template, String>,
    /// Our annotation on it.
    pub reported: Reported,
}

/// Our annotation on an object, and the version of that object.
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
    /// Different at every start.
    pub uid: String,
    /// The UID of its VM; `None` for a bare VMI.
    pub vm_uid: Option<String>,
    /// The running template, or the error of reading it.
    pub template: Result<Template, String>,
    /// The node of the guest.
    pub node: Option<String>,
    /// The target launcher of a migration with a ready guest.
    pub domain_ready_on: Option<String>,
    /// Our annotation on it.
    pub reported: Reported,
}

/// A launcher pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    /// The VMI that owns it.
    pub run_uid: String,
    /// The node of the pod.
    pub node: Option<String>,
    /// Neither Succeeded nor Failed. A pod under deletion is still live.
    pub live: bool,
    /// Seconds since the epoch, to find the newest.
    pub created: i64,
    /// The UID of the VMIM of which it is the target; it stays after the end.
    pub migration: Option<String>,
    /// The networks that it is plugged to.
    pub networks: PodNetworks,
}

/// A VirtualMachineInstanceMigration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its UID.
    pub uid: String,
    /// Succeeded or Failed.
    pub finished: bool,
    /// KubeVirt's own phase. Operators are told; no decision depends on it.
    pub phase: String,
}

impl Migration {
    /// Returns true if the other one has the same meaning for a decision.
    pub(super) fn decides_as(&self, other: &Self) -> bool {
        (&self.uid, self.finished) == (&other.uid, other.finished)
    }
}

/// All objects of one VM. There is at least one.
#[derive(Debug, Clone, Default)]
pub struct VmObjects {
    /// The VirtualMachine; `None` for a bare VMI.
    pub vm: Option<Vm>,
    /// The VirtualMachineInstance, while it runs.
    pub run: Option<Run>,
    /// Its launcher pods by name.
    pub launchers: BTreeMap<String, Launcher>,
    /// The migrations of its VMI by name. Migrations alone make no VM.
    pub migrations: BTreeMap<String, Migration>,
    /// The existing NADs of its networks, with their logical switches.
    pub nads: BTreeMap<NadKey, Option<String>>,
    /// Requests without effect: the keys of the annotations, by their place.
    pub misplaced: BTreeMap<Place, Arc<[String]>>,
    /// Requests on its launcher pods that differ from its VMI's, with a hash of each value.
    pub on_launchers: BTreeMap<String, Vec<(String, u64)>>,
}

impl VmObjects {
    /// Returns true if it has a VirtualMachine, a VMI or a launcher pod.
    pub(super) fn exists(&self) -> bool {
        self.vm.is_some() || self.run.is_some() || !self.launchers.is_empty()
    }

    /// Returns true if a live migration is under way.
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

/// A served namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    /// `ovn.kubernetes.io/logical_switch`: a new port on the pod network goes to the first usable one of these.
    pub switches: Vec<String>,
}

/// The place of a request without effect.
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
