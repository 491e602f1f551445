//! Requests that stand where they have no effect, as a VM's owner is told of them.

use crate::escaped::{Escaped, EscapedList};
use crate::kubevirt::Place;

/// A request in the wrong place. Each message names the key, where it stands, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// It stands on another object, or in another place of the VM.
    #[error("{} on {place} has no effect there: {}", EscapedList(keys, ", "), belongs(place))]
    Elsewhere {
        /// Where.
        place: Place,
        /// The annotations.
        keys: Vec<String>,
    },
    /// Its domain lacks `.ovn`.
    #[error("{} has no effect: its domain lacks \"ovn\"; write {}", Escaped(key), Escaped(right))]
    LacksOvn {
        /// The annotation.
        key: String,
        /// As it would be read.
        right: String,
    },
}

fn belongs(place: &Place) -> &'static str {
    match place {
        Place::Vm => "write it into spec.template.metadata.annotations of the VirtualMachine",
        Place::Launcher(_) => {
            "KubeVirt copies annotations to the pod, and none back; write it into spec.template.metadata.annotations of the VirtualMachine"
        }
        Place::Nad(_) => {
            "a NetworkAttachmentDefinition names the switch only, as ovn.kubernetes.io/logical_switch; write the rest into spec.template.metadata.annotations of the VirtualMachine"
        }
    }
}
