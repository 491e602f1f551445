//! What the operator is told of objects that are no VM's, and the objects that cannot be read.
//!
//! An object that cannot be read is skipped, and told once for each reason: one mistyped field must not keep a whole list
//! from being complete. A VirtualMachine or an instance that cannot be read is there all the same (`Change::UnreadableVm`).
//! A migration that cannot be read is none that is under way: a port that is opened for its target would stay open for
//! ever.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Cluster, Kind, identity, unreadable_run, unreadable_vm};
use crate::contract::VmKey;
use crate::escaped::{Escaped, EscapedError, shortened};

/// Something for the operator's log.
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
        /// Why.
        error: String,
    },
    /// The annotation of a Node is not the name of a chassis.
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
    /// Takes what is to be told since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// An object that cannot be read: what was known of it holds no longer.
    pub(super) fn skip(&mut self, kind: Kind, metadata: &ObjectMeta, error: String) -> BTreeSet<VmKey> {
        let (identity, error) = (identity(metadata), shortened(error));
        let key = (kind, identity.clone());
        let told = self.unreadable.get(&key) == Some(&error);
        self.confirm(kind, metadata);
        let dirty = match kind {
            Kind::Vm => self.put_vm(metadata, unreadable_vm(metadata, error.clone())),
            Kind::Run => self.put_run(metadata, unreadable_run(metadata, error.clone())),
            // Of these, only the metadata counts.
            Kind::Node => self.put_node(metadata),
            Kind::Namespace => self.put_namespace(metadata),
            Kind::Nad => self.put_nad(metadata),
            Kind::Launcher | Kind::Migration => self.remove(kind, &identity),
        };
        if !told {
            let (namespace, name) = identity;
            self.notices.push(Notice::Unreadable { kind, namespace, name, error: error.clone() });
        }
        self.unreadable.insert(key, error);
        dirty
    }

    /// The objects of a kind that are skipped: a list that does not name them says that they are gone.
    pub(super) fn skipped(&self, kind: Kind) -> impl Iterator<Item = (String, String)> {
        self.unreadable.keys().filter(move |(found, _)| *found == kind).map(|(_, identity)| identity.clone())
    }
}
