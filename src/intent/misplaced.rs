//! Requests in places where they have no effect, as reported to the owner of a VM.

use std::fmt;

use crate::escaped::{AnnotationsHave, Escaped};
use crate::kubevirt::Place;

/// A request in the wrong place. Each message names the key, its place, and the right place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misplaced {
    /// It stands on another object, or in another place of the VM.
    Elsewhere {
        /// The wrong place.
        place: Place,
        /// The annotations.
        keys: Vec<String>,
    },
    /// Its domain lacks `.ovn`.
    LacksOvn {
        /// The annotation.
        key: String,
        /// The correct spelling.
        right: String,
    },
}

impl fmt::Display for Misplaced {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, keys) = match self {
            Self::Elsewhere { place, keys } => (place, keys),
            Self::LacksOvn { key, right } => {
                let (key, right) = (Escaped(key), Escaped(right));
                return write!(
                    formatter,
                    "The annotation {key} has no effect: its domain lacks \"ovn\". Write {right}."
                );
            }
        };
        let (preposition, why) = match place {
            Place::Vm => ("in", ""),
            Place::Launcher(_) => ("on", ": KubeVirt copies annotations to the pod, and not back"),
            Place::Nad(_) => ("on", ", which names the switch only (ovn.kubernetes.io/logical_switch)"),
        };
        write!(
            formatter,
            "{} no effect {preposition} {place}{why}. Use spec.template.metadata.annotations of the \
            VirtualMachine instead.",
            AnnotationsHave(keys)
        )
    }
}
