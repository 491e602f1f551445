//! The intent of one port of a VM.

use super::dhcp::Binding;
use super::placement::Placement;
use super::request::{InvalidRequest, Request};
use crate::contract::{NadKey, keys};
use crate::ovn::LogicalSwitchPort;

/// The request for a NIC's port. Its row is found again by the network and by the attachment (the base of its name).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortIntent {
    /// The network's name in the VM.
    pub network: String,
    /// The port's name by its attachment: `<vm>.<namespace>`, or `<vm>.<namespace>.<nad>.<nad-namespace>.ovn`.
    pub base_name: String,
    /// The number of labels of the NAD's name (0 on the pod network), if the base name can be read as another VM's: a
    /// new port's name has the network and this number appended, so that port names are unique across VMs.
    pub ambiguous: Option<usize>,
    /// Another port of ours on the same NAD comes before it in the VM: a new port's name has the network appended.
    pub another_before: bool,
    /// The requested switch; `None`: there is no request, and the NIC is not ours unless it has a port already.
    pub switch: Option<SwitchRequest>,
    /// The attachment exists, and names no switch: a port that the NIC had on another network is deleted.
    pub on_none_of_ours: bool,
    /// The NAD of the NIC, if it does not exist: a NIC without a port gets none.
    pub missing_nad: Option<NadKey>,
    /// The NADs that it serves; none on the pod network. Usually one.
    pub nads: Vec<NadKey>,
    /// The relation of the guest to the attachment.
    pub seat: Seat,
    /// Of a guest that a live migration has brought to its pod: the switch that its network names now. The instance has
    /// the annotations of its start, perhaps on another network.
    pub arrived: Option<Arrived>,
    /// The port that the guest's pod was plugged to, if it was named for another attachment.
    pub pod_port: Option<String>,
    /// The requests, and the times when they apply.
    pub life: Life,
    /// The binding of the guest's interface to its pod's.
    pub binding: Binding,
    /// The placement of the port.
    pub placement: Placement,
    /// Annotations that have no effect here.
    pub unserved: Vec<String>,
}

/// The relation of a NIC's guest to one attachment of the NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Seat {
    /// The NIC has one attachment, and no pod tells that the guest is there.
    #[default]
    Assumed,
    /// The NIC has one attachment, and the guest's pod is plugged to it.
    Known,
    /// The same, and a live migration has brought the guest to that pod.
    Moved,
    /// The guest's pod is plugged to it, and another attachment is requested, or prepared.
    Left,
    /// The guest is not there yet: the attachment is requested, or a migration's target pod is plugged to it.
    Coming,
}

/// The attachment of a guest that a live migration has brought to its pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// The switch that the VM's template, or else the NAD, names for the attachment.
    pub switch: Option<SwitchRequest>,
}

impl Seat {
    /// Returns true if the NIC has further attachments.
    pub fn is_one_of_several(self) -> bool {
        matches!(self, Self::Left | Self::Coming)
    }
}

/// A request as it is written.
pub type Written = Result<Request, InvalidRequest>;

/// The requests for a port by the state of its guest.
///
/// ```text
///   Stopped ---- a launcher is live ----> Running ---- its instance goes ----> Leaving
///      ^                                     |                                    |
///      +---------- no launcher is live ------+------------------------------------+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// No guest: the request applies at once.
    Stopped {
        /// Of the instance that is about to start, or else of the VM.
        request: Written,
        /// Of the VM, if there is an instance.
        next: Option<Next>,
    },
    /// A guest runs: the port does not change switches under it, and no other address is allocated for it.
    Running {
        /// Of the instance.
        now: Written,
        /// Of the VM.
        next: Option<Next>,
    },
    /// The launcher of a deleted instance may still run, or the target pod of a migration waits for the guest: the port
    /// keeps its lease, and the request waits.
    Leaving {
        /// Of the instance that comes after it, or else of the VM.
        request: Written,
        /// Of the VM, if there is an instance.
        next: Option<Next>,
    },
}

/// The request from the next start on, if it is known and may differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// The request.
    pub request: Written,
    /// The switch that the template, or the NAD in it, names then.
    pub switch: Option<SwitchRequest>,
}

impl Life {
    /// The request that is in force, or will be as soon as a launcher has left.
    pub fn request(&self) -> &Written {
        match self {
            Self::Stopped { request, .. } | Self::Running { now: request, .. } | Self::Leaving { request, .. } => {
                request
            }
        }
    }

    /// The request from the next start on.
    pub fn next(&self) -> Option<&Next> {
        match self {
            Self::Stopped { next, .. } | Self::Running { next, .. } | Self::Leaving { next, .. } => next.as_ref(),
        }
    }

    /// Returns true if a guest may run.
    pub fn has_guest(&self) -> bool {
        !matches!(self, Self::Stopped { .. })
    }

    /// Returns true if a pod has the port that is not the guest's own.
    pub fn is_leaving(&self) -> bool {
        matches!(self, Self::Leaving { .. })
    }

    /// Returns true if the VM's template was edited since its instance was created.
    pub fn is_edited(&self) -> bool {
        self.next().is_some_and(|next| next.request != *self.request())
    }

    /// Returns true if a request has DHCP options, which are read by the options that OVN supports.
    pub fn has_dhcp_options(&self) -> bool {
        let written = [Some(self.request()), self.next().map(|next| &next.request)];
        written.into_iter().flatten().any(|request| match request {
            Ok(request) => request.dhcp.v4.is_some() || request.dhcp.v6.is_some(),
            Err(invalid) => matches!(invalid, InvalidRequest::DhcpOptions { .. }),
        })
    }

    /// The requests that apply, now or later.
    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        let next = self.next().map(|next| &next.request);
        [Some(self.request()), next].into_iter().flatten().filter_map(|request| request.as_ref().ok())
    }
}

/// A switch by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchRequest {
    /// The name.
    pub name: String,
    /// The other switches of a namespace that names several: a new port goes to the first that can serve it.
    pub others: Vec<String>,
    /// The VM's owner named it, or the NAD that the owner chose: a stopped VM's port moves there. A namespace's or the
    /// operator's default applies to new ports only.
    pub explicit: bool,
    /// An annotation of the VM names it, so that the VM's owner can change it.
    pub of_vm: bool,
}

impl SwitchRequest {
    /// One switch, which the NAD, the namespace or the operator names.
    pub fn new(name: impl Into<String>, explicit: bool) -> Self {
        Self { name: name.into(), others: Vec::new(), explicit, of_vm: false }
    }

    /// One switch, which the VM's owner names.
    pub fn of_vm(name: impl Into<String>) -> Self {
        Self { of_vm: true, ..Self::new(name, true) }
    }

    /// The names, in the order of preference.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.name).chain(&self.others)
    }

    /// Returns true if a switch is one of the named ones.
    pub fn has(&self, switch: &str) -> bool {
        self.names().any(|name| name == switch)
    }
}

impl PortIntent {
    /// The names that a new port may have, in the order of preference.
    ///
    /// VMs and NADs may have dots in their names, so that `x.ns.nad.nadns.ovn` is the port of the VM `x.ns.nad.nadns`
    /// in the namespace `ovn`, and of the VM `x` on a NAD. The choice between the two depends only on their names: see
    /// [`VmKey::has_another_reading`](crate::contract::VmKey::has_another_reading). A tilde is in no name of Kubernetes,
    /// so a name with a tilde has only one reading.
    pub fn names(&self) -> Vec<String> {
        let mut names = self.all_names();
        if self.another_before && names.len() > 1 {
            names.remove(0);
        }
        names
    }

    /// The names that a port of this NIC may have had from the beginning.
    pub fn all_names(&self) -> Vec<String> {
        let Self { base_name, network, .. } = self;
        let fallback = match self.ambiguous {
            Some(labels) => return vec![format!("{base_name}.{network}~{labels}")],
            // The end of every name on a NAD.
            None if network == "ovn" => format!("{base_name}.{network}~1"),
            None => format!("{base_name}.{network}"),
        };
        vec![self.base_name.clone(), fallback]
    }

    /// Returns true if a port of the VM was last served on this NIC's attachment (the pod network, that NAD), under any
    /// network name. Its name says so, unless it has been elsewhere since.
    pub fn is_on_the_network_of(&self, port: &LogicalSwitchPort) -> bool {
        match port.external_ids.get(keys::BASE_NAME) {
            Some(base_name) => base_name == self.base_name,
            None => self.was_named_for(&port.name),
        }
    }

    /// Returns true if a port was named for a NIC on the attachment of this one. A network's name has no dot, and the
    /// part for a NAD adds three.
    pub fn was_named_for(&self, port_name: &str) -> bool {
        let rest = port_name.strip_prefix(self.base_name.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('.').is_some_and(|rest| !rest.contains('.')))
    }
}
