//! Values of `ports.list`, `ports.get` and `ports.subscribe`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ovn;

/// The state of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PortState {
    /// There is no port yet: the problems say why.
    Pending,
    /// The port stands, and is requested on no chassis: the VM is stopped.
    Unbound,
    /// The port is requested on one chassis.
    Bound,
    /// The port is requested on two chassis: the VM migrates.
    Moving,
    /// The VM is deleted, and its addresses are reserved for one of its name.
    Retained,
}

impl From<ovn::PortState> for PortState {
    fn from(state: ovn::PortState) -> Self {
        match state {
            ovn::PortState::Unbound => Self::Unbound,
            ovn::PortState::Bound => Self::Bound,
            ovn::PortState::Moving => Self::Moving,
            ovn::PortState::Retained => Self::Retained,
        }
    }
}

impl PortState {
    /// The word in JSON and in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Unbound => "unbound",
            Self::Bound => "bound",
            Self::Moving => "moving",
            Self::Retained => "retained",
        }
    }
}

/// One NIC of a VM, with its port if there is one. Problems of the VM as a whole stand in an element without a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// The namespace of the VM.
    pub namespace: String,
    /// The name of the VM.
    pub vm: String,
    /// The name of the network in the VM; empty for problems of the VM as a whole.
    pub network: String,
    /// The state.
    pub state: PortState,
    /// The name of the logical switch port; absent while there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<String>,
    /// The name of the logical switch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub switch: Option<String>,
    /// The MAC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mac: Option<String>,
    /// The addresses, IPv4 first.
    pub ips: Vec<String>,
    /// The requested chassis: the guest's, then the one that a migration goes to.
    pub chassis: Vec<String>,
    /// The binding in the southbound database; absent if the service does not read that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub binding: Option<Binding>,
    /// The addresses that are reserved for the next start of the VM.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<Nic>,
    /// The end of the retention, in RFC 3339 or `forever`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retained_until: Option<String>,
    /// True while the VM changes the network of the NIC as it runs, for the port that the guest is yet to come to. The NIC
    /// has two ports then.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub coming: bool,
    /// The DHCP that OVN answers by rows of this service: `DHCPv4`, `DHCPv6`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub dhcp: Vec<String>,
    /// What stands in the way, for owners and operators.
    pub problems: Vec<Trouble>,
}

/// A MAC with its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Nic {
    /// The MAC.
    pub mac: String,
    /// The addresses, IPv4 first.
    pub ips: Vec<String>,
}

/// The binding of a port in the southbound database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "state", deny_unknown_fields)]
pub enum Binding {
    /// northd has not seen the port yet.
    Unseen,
    /// No chassis has claimed the port.
    Unbound,
    /// A chassis has claimed the port.
    Bound {
        /// The chassis.
        chassis: String,
        /// True if the chassis has set up its flows.
        up: bool,
    },
    /// The port is on its chassis, and prepared on another.
    Moving {
        /// The present chassis.
        chassis: String,
        /// The chassis that have claimed it, too.
        additional: Vec<String>,
        /// True if each of these is known to have set up its flows: it has reached an `nb_cfg` that came after its claim.
        /// Only a client that waits for all chassis raises `nb_cfg`.
        processed: bool,
        /// True if each of these has seen the guest.
        activated: bool,
    },
}

/// The party that can correct a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Party {
    /// The owner of the VM.
    Owner,
    /// The operator of the cluster or the network.
    Operator,
    /// Time: a start, a boot, a deletion in progress.
    Passing,
}

/// A problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trouble {
    /// The reason of its Event.
    pub reason: String,
    /// What is wrong, and what to do.
    pub message: String,
    /// The party that can correct it.
    pub fault: Party,
}

/// Which ports are meant: those that satisfy every member that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortFilter {
    /// The namespace of the VM.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub namespace: Option<String>,
    /// The name of the VM.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub vm: Option<String>,
    /// The name of the logical switch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub switch: Option<String>,
    /// The name of a node, or of a chassis.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<String>,
    /// The state.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<PortState>,
    /// True: those with a problem. False: those without one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problems: Option<bool>,
    /// A whole address or MAC finds its holders. Any other text finds names of VMs, ports, networks, switches and
    /// chassis, and addresses and MACs, with this part.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub search: Option<String>,
}

/// Parameters of `ports.list`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListParams {
    /// Which ports are meant.
    #[serde(flatten)]
    pub filter: PortFilter,
    /// The most ports in the answer: 1 to 2,000, by default 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `nextCursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of ports, in the order of namespace, VM and network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortPage {
    /// The ports.
    pub ports: Vec<Port>,
    /// The cursor for the next page; absent on the last one. It stays valid whatever changes meanwhile.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_cursor: Option<String>,
}

/// The name of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VmName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub vm: String,
}

/// The ports of a VM, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Explained {
    /// The namespace of the VM.
    pub namespace: String,
    /// The name of the VM.
    pub vm: String,
    /// True if the VM has objects in Kubernetes; absent if they are not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exists: Option<bool>,
    /// Its NICs.
    pub ports: Vec<Port>,
    /// Why the ports are as they are: sentences, in order.
    pub explanation: Vec<String>,
    /// The changes after which the service decides for the VM again.
    pub waits_for: Vec<String>,
}

/// Parameters of `ports.subscribe`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscribeParams {
    /// Which ports are meant.
    #[serde(flatten)]
    pub filter: PortFilter,
    /// True: the state is left out, and changes alone are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes_only: Option<bool>,
}

/// A message of `ports.subscribe`. The first has the sequence 1, and each further one the next number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum PortsMessage {
    /// A part of the state. Changes come after the last part.
    State {
        /// The number of the message.
        sequence: u64,
        /// The ports.
        ports: Vec<Port>,
        /// True for the last part.
        complete: bool,
    },
    /// VMs that have changed, each as it is now.
    Changes {
        /// The number of the message.
        sequence: u64,
        /// The VMs.
        vms: Vec<VmPorts>,
    },
}

/// All ports of a VM that the filter takes. Without ports it has none any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VmPorts {
    /// The namespace of the VM.
    pub namespace: String,
    /// The name of the VM.
    pub vm: String,
    /// Its ports.
    pub ports: Vec<Port>,
}
