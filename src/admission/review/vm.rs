//! VMs and VMIs: the faults of the owner that are refused, and the warnings.

use std::collections::BTreeSet;

use kube::core::DeserializeGuard;
use kube::core::admission::Operation;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::request::Request;
use crate::contract::VmKey;
use crate::controller::Moment;
use crate::escaped::Escaped;
use crate::kubevirt::objects::{VirtualMachine, VirtualMachineInstance};
use crate::kubevirt::{Cluster, VmObjects};
use crate::plan::{Fault, VmStatus, decide_for};

/// An object as it would be stored, and as it is.
#[derive(Debug, Clone)]
pub(super) struct Edited {
    vm: VmKey,
    after: Object,
    before: Option<Object>,
}

/// An object that asks for ports.
#[derive(Debug, Clone)]
enum Object {
    Vm(Box<VirtualMachine>),
    Run(Box<VirtualMachineInstance>),
    /// A VM, or an instance, with a field of another type than KubeVirt's. The rest is not known.
    Unreadable {
        is_vm: bool,
        metadata: Box<kube::core::ObjectMeta>,
        error: String,
    },
}

/// The findings about an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Faults of the owner that are new: the object is refused for these.
    pub(super) refused: Vec<String>,
    /// Everything else.
    pub(super) warnings: Vec<String>,
}

/// The reason why a request is not reviewed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passes {
    /// It changes no field that concerns ports.
    Unconcerned,
    /// It cannot be read, for this reason.
    Unreadable(String),
}

impl Object {
    fn read(request: &Request<'_>, text: &str) -> Result<Self, Passes> {
        fn read<T: DeserializeOwned + kube::Resource>(
            text: &str,
            is_vm: bool,
            readable: fn(Box<T>) -> Object,
        ) -> Result<Object, Passes> {
            let read = serde_json::from_str::<DeserializeGuard<T>>(text);
            let DeserializeGuard(read) = read.map_err(|error| Passes::Unreadable(error.to_string()))?;
            Ok(match read {
                Ok(object) => readable(Box::new(object)),
                Err(invalid) => {
                    let (metadata, error) = (Box::new(invalid.metadata), invalid.error.to_string());
                    Object::Unreadable { is_vm, metadata, error }
                }
            })
        }
        match request.kind.kind.as_ref() {
            "VirtualMachine" => read(text, true, Self::Vm),
            "VirtualMachineInstance" => read(text, false, Self::Run),
            _ => Err(Passes::Unconcerned),
        }
    }

    fn metadata(&self) -> &kube::core::ObjectMeta {
        match self {
            Self::Vm(vm) => &vm.metadata,
            Self::Run(run) => &run.metadata,
            Self::Unreadable { metadata, .. } => metadata,
        }
    }

    fn metadata_mut(&mut self) -> &mut kube::core::ObjectMeta {
        match self {
            Self::Vm(vm) => &mut vm.metadata,
            Self::Run(run) => &mut run.metadata,
            Self::Unreadable { metadata, .. } => metadata,
        }
    }

    /// All that ports may depend on.
    fn request(&self) -> impl PartialEq + use<> {
        fn value(part: &impl Serialize) -> serde_json::Value {
            serde_json::to_value(part).unwrap_or_default()
        }
        let annotations = self.metadata().annotations.clone().map(|mut annotations| {
            annotations.remove(crate::contract::annotations::PORTS_ANNOTATION);
            annotations
        });
        let spec = match self {
            Self::Vm(vm) => value(&vm.spec),
            Self::Run(run) => value(&run.spec),
            Self::Unreadable { error, .. } => value(error),
        };
        (annotations.filter(|annotations| !annotations.is_empty()), spec)
    }

    /// A VMI that a VM controls follows the VM: the VM was reviewed, and its owner edits the VM.
    fn is_of_a_vm(&self) -> bool {
        let owners = self.metadata().owner_references.iter().flatten();
        matches!(self, Self::Run(_) | Self::Unreadable { is_vm: false, .. })
            && owners.into_iter().any(|owner| owner.controller == Some(true))
    }

    /// The objects of the VM with this one in the place of the one that is stored.
    fn in_place(self, cluster: &Cluster) -> (VmKey, VmObjects) {
        match self {
            Self::Vm(vm) => cluster.with_vm(*vm),
            Self::Run(run) => cluster.with_run(*run),
            Self::Unreadable { is_vm: true, metadata, error } => cluster.with_unreadable_vm(&metadata, error),
            Self::Unreadable { is_vm: false, metadata, error } => cluster.with_unreadable_run(&metadata, error),
        }
    }
}

impl Edited {
    /// Reads a request.
    pub(super) fn read(request: &Request<'_>) -> Result<Self, Passes> {
        let object = request.object.ok_or(Passes::Unconcerned)?;
        let before = request.old_object.filter(|_| request.operation == Operation::Update);
        let before = before.and_then(|text| Object::read(request, text.get()).ok());
        let mut after = Object::read(request, object.get())?;
        let is_deleted = after.metadata().deletion_timestamp.is_some();
        if is_deleted || before.as_ref().is_some_and(|before| before.request() == after.request()) {
            return Err(Passes::Unconcerned);
        }
        // Where the name is yet to be made, any name of that kind will do.
        let named = after.metadata().name.clone().or_else(|| after.metadata().generate_name.clone());
        let name = if request.name.is_empty() { named.unwrap_or_default() } else { request.name.to_string() };
        let vm = VmKey::new(request.namespace.clone(), name);
        let mut before = before;
        for object in before.iter_mut().chain([&mut after]) {
            let metadata = object.metadata_mut();
            (metadata.namespace, metadata.name) = (Some(vm.namespace.clone()), Some(vm.name.clone()));
        }
        Ok(Self { vm, after, before })
    }

    /// The VM that the object is of.
    pub(super) fn vm(&self) -> &VmKey {
        &self.vm
    }

    /// Decides for the VM with the object in the place of the one that is stored.
    pub(super) fn verdict(&self, moment: &Moment<'_>) -> Verdict {
        let status = |object: &Object| -> VmStatus {
            let (vm, objects) = object.clone().in_place(moment.snapshot.cluster);
            decide_for(moment.snapshot, moment.claims, &vm, &objects).status
        };
        // A fault that stands already does not keep its owner from editing something else.
        let stands: BTreeSet<String> = self.before.as_ref().map(status).iter().flat_map(owners_faults).collect();
        let mut verdict = Verdict::default();
        for (is_owners, line) in lines(&status(&self.after)) {
            let refused = is_owners && !stands.contains(&line) && !self.after.is_of_a_vm();
            if refused { &mut verdict.refused } else { &mut verdict.warnings }.push(line);
        }
        verdict
    }
}

/// The problems of a VM, each as its owner reads it, and whether it is the owner's fault.
fn lines(status: &VmStatus) -> Vec<(bool, String)> {
    let of_ports = status.ports.iter().flat_map(|port| {
        let network = Escaped(&port.network);
        port.problems.iter().map(move |problem| (problem, format!("network {network}: {problem}")))
    });
    let of_the_vm = status.problems.iter().map(|problem| (problem, problem.to_string()));
    of_ports.chain(of_the_vm).map(|(problem, line)| (problem.fault() == Fault::Owner, line)).collect()
}

fn owners_faults(status: &VmStatus) -> Vec<String> {
    lines(status).into_iter().filter(|(is_owners, _)| *is_owners).map(|(_, line)| line).collect()
}
