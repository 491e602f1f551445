//! The problems of a pod, as data, and in words.

use std::fmt;

use super::PodRef;
use crate::contract::VmKey;
use crate::escaped::{Escaped, EscapedError};

/// A problem of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The pod.
    pub pod: PodRef,
    /// The problem.
    pub problem: Problem,
}

/// An obstacle between a pod's NIC and its port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Problem {
    /// The annotation on the pod cannot be read.
    InvalidPortsAnnotation {
        /// Why not.
        reason: String,
    },
    /// The annotation names a port that is not one of the pod's own VM.
    PortRefused {
        /// The interface in the pod.
        interface: String,
        /// The port.
        port: String,
        /// The pod's VM.
        vm: VmKey,
    },
    /// The OVS interface has another `iface-id`, which another program has set.
    IfaceIdConflict {
        /// The interface in the pod.
        interface: String,
        /// The name of the OVS interface.
        ovs: String,
        /// Its present value.
        present: String,
        /// The port.
        port: String,
    },
    /// No OVS interface on OVN's bridge is the NIC's.
    InterfaceMissing {
        /// The network's name in the VM.
        network: String,
        /// The interface in the pod.
        interface: String,
        /// OVN's bridge.
        bridge: String,
        /// The bridge that it is on instead.
        elsewhere: Option<String>,
    },
}

impl Problem {
    /// The reason of its Event.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidPortsAnnotation { .. } => "InvalidPortsAnnotation",
            Self::PortRefused { .. } => "PortRefused",
            Self::IfaceIdConflict { .. } => "IfaceIdConflict",
            Self::InterfaceMissing { .. } => "InterfaceMissing",
        }
    }

    /// The interface in the pod that it is about; none where it is about all.
    pub fn interface(&self) -> &str {
        match self {
            Self::InvalidPortsAnnotation { .. } => "",
            Self::PortRefused { interface, .. }
            | Self::IfaceIdConflict { interface, .. }
            | Self::InterfaceMissing { interface, .. } => interface,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidPortsAnnotation { reason } => write!(
                formatter,
                "The annotation ovn-kubevirt.io/ports of this pod cannot be read: {}. Remove what has written it: the \
                 mutating webhook of ovn-kubevirt alone writes it.",
                EscapedError(reason)
            ),
            Self::PortRefused { interface, port, vm } => write!(
                formatter,
                "The annotation ovn-kubevirt.io/ports of this pod gives the interface {} the port \"{}\", which is no port \
                 of the VM {vm}: it is not set. Remove what has written it: the mutating webhook of ovn-kubevirt alone \
                 writes it.",
                Escaped(interface),
                Escaped(port)
            ),
            Self::IfaceIdConflict { interface, ovs, present, port } => write!(
                formatter,
                "The OVS interface {} of the pod's interface {} has iface-id \"{}\", which another program has set, and the \
                 NIC's port is \"{}\": it is left as it is. Have the CNI set the name of the port, or none.",
                Escaped(ovs),
                Escaped(interface),
                Escaped(present),
                Escaped(port)
            ),
            Self::InterfaceMissing { network, interface, bridge, elsewhere: Some(elsewhere) } => write!(
                formatter,
                "The NIC \"{}\" (interface {}) is on the OVS bridge {}, and OVN serves the bridge {} on this node. Correct \
                 \"bridge\" in the NetworkAttachmentDefinition, and restart the VM.",
                Escaped(network),
                Escaped(interface),
                Escaped(elsewhere),
                Escaped(bridge)
            ),
            Self::InterfaceMissing { network, interface, bridge, elsewhere: None } => write!(
                formatter,
                "The NIC \"{}\" (interface {}) has no interface in Open vSwitch on this node. Check that its \
                 NetworkAttachmentDefinition has the type ovs and the bridge {}, and that the pod's volumes are there.",
                Escaped(network),
                Escaped(interface),
                Escaped(bridge)
            ),
        }
    }
}
