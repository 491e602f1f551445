//! Notices for the operator about objects that belong to no VM, and about unreadable objects.
//!
//! An unreadable object is skipped, and reported once for each reason: one mistyped field must not keep a whole list
//! from being complete. An unreadable VirtualMachine or instance still exists (`Change::UnreadableVm`). An unreadable
//! migration counts as ended: a port that is opened for its target would stay open for ever.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Cluster, Kind, identity, unreadable_run, unreadable_vm};
use crate::contract::VmKey;
use crate::escaped::{Escaped, EscapedError, shortened};

/// A notice for the operator's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// An object cannot be read.
    #[error(
        "The {} {namespace}/{name} cannot be read and is skipped: {}. Correct it, or delete it.",
        kind.name(),
        EscapedError(error)
    )]
    Unreadable {
        /// Its kind.
        kind: Kind,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The reason.
        error: String,
    },
    /// The annotation of a Node names no valid chassis.
    #[error(
        "The annotation ovn-kubevirt.io/chassis of the node {node} is \"{}\", which is not a chassis name. Write the name of \
        one chassis, without commas and blanks.",
        Escaped(value)
    )]
    InvalidChassis {
        /// The node.
        node: String,
        /// Its value.
        value: String,
    },
}

impl Kind {
    /// The kind as Kubernetes calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vm => "VirtualMachine",
            Self::Run => "VirtualMachineInstance",
            Self::Launcher => "Pod",
            Self::Migration => "VirtualMachineInstanceMigration",
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::Nad => "NetworkAttachmentDefinition",
        }
    }
}

impl Cluster {
    /// Returns the notices since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Skips an unreadable object, and drops its former state.
    pub(super) fn skip(&mut self, kind: Kind, metadata: &ObjectMeta, error: String) -> BTreeSet<VmKey> {
        let (identity, error) = (identity(metadata), shortened(error));
        let key = (kind, identity.clone());
        let reported = self.unreadable.get(&key) == Some(&error);
        self.confirm(kind, metadata);
        let dirty = match kind {
            Kind::Vm => self.put_vm(metadata, unreadable_vm(metadata, error.clone())),
            Kind::Run => self.put_run(metadata, unreadable_run(metadata, error.clone())),
            // Only the metadata of these is used.
            Kind::Node => self.put_node(metadata),
            Kind::Namespace => self.put_namespace(metadata),
            Kind::Nad => self.put_nad(metadata),
            Kind::Launcher | Kind::Migration => self.remove(kind, &identity),
        };
        if !reported {
            let (namespace, name) = identity;
            self.notices.push(Notice::Unreadable { kind, namespace, name, error: error.clone() });
        }
        self.unreadable.insert(key, error);
        dirty
    }

    /// The skipped objects of a kind: a list that does not name them shows that they are deleted.
    pub(super) fn skipped(&self, kind: Kind) -> impl Iterator<Item = (String, String)> {
        self.unreadable.keys().filter(move |(found, _)| *found == kind).map(|(_, identity)| identity.clone())
    }
}
