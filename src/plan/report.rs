//! What a VM's owner is told: each port as it is, and what stands in its way.

use std::net::IpAddr;

use macaddr::MacAddr6;
use uuid::Uuid;

use crate::intent::InvalidWish;
use crate::ipam::SubnetError;
use crate::ovn::Addresses;

/// Why a wish is not, or not yet, fulfilled. Each message names the object and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The VM's objects cannot be read.
    #[error("the object cannot be read ({0}); its ports stay as they are until it is corrected")]
    Unreadable(String),
    /// A wish that cannot be understood.
    #[error("{0}")]
    Invalid(#[source] InvalidWish),
    /// Annotations for others than us.
    #[error(
        "{} has no effect: ovn-kubevirt serves ip_address, mac_address, logical_switch, ip_pool and port_security of a network, and ovn-kubevirt.io/retain",
        .0.join(", ")
    )]
    Unserved(Vec<String>),
    /// Annotations for networks that the VM does not have.
    #[error(
        "{} has no effect: the VM has no such network; write ovn.kubernetes.io/ for the pod network, <nad>.<nad-namespace>.ovn.kubernetes.io/ for one on a NAD, or <network>.ovn.kubernetes.io/ with its name in the VM",
        .0.join(", ")
    )]
    Unmatched(Vec<String>),
    /// Port security is wished off.
    #[error(
        "port_security \"false\" of the network {0} is not allowed here, and port security stays on: remove the annotation, or have the operator run ovn-kubevirt with --allow-port-security-off"
    )]
    PortSecurityKept(String),
    /// No switch of that name.
    #[error(
        "there is no logical switch named {0} in the northbound database; the VM gets its port as soon as there is"
    )]
    SwitchNotFound(String),
    /// More than one.
    #[error("there are {count} logical switches named {name} in the northbound database: rename all but one")]
    SwitchAmbiguous {
        /// The name.
        name: String,
        /// How many.
        count: usize,
    },
    /// The switch does not say which addresses it has.
    #[error("no address can be chosen on the logical switch {switch}: {reason}")]
    NoSubnet {
        /// The switch.
        switch: String,
        /// What is missing or wrong.
        reason: SubnetError,
    },
    /// No free address.
    #[error("the subnet of the logical switch {switch} ({subnet}) has no free {} address left: delete VMs, shrink exclude_ips or enlarge the subnet", if *ipv4 { "IPv4" } else { "IPv6" })]
    SubnetExhausted {
        /// The switch.
        switch: String,
        /// Its blocks.
        subnet: String,
        /// The family.
        ipv4: bool,
    },
    /// A wish outside.
    #[error(
        "{address} is no address for a port of the logical switch {switch}, whose subnet is {subnet}: name another"
    )]
    OutOfSubnet {
        /// What was asked for.
        address: IpAddr,
        /// The switch.
        switch: String,
        /// Its blocks.
        subnet: String,
    },
    /// A wish that somebody has.
    #[error(
        "{address} is held by {holder} on the logical switch {switch}; it is granted as soon as it is free, or choose another"
    )]
    AddressHeld {
        /// What was asked for.
        address: IpAddr,
        /// The switch.
        switch: String,
        /// Who has it.
        holder: String,
    },
    /// A MAC that somebody has.
    #[error("the MAC {} is held by {holder} on the logical switch {switch}; it is granted as soon as it is free, or choose another", crate::ovn::mac_text(*mac))]
    MacHeld {
        /// What was asked for.
        mac: MacAddr6,
        /// The switch.
        switch: String,
        /// Who has it.
        holder: String,
    },
    /// The owner's pool is none of the switch's.
    #[error(
        "none of the addresses {pool} (ip_pool) is one for a port of the logical switch {switch}, whose subnet is {subnet}: name others"
    )]
    PoolOutOfSubnet {
        /// What was asked for.
        pool: String,
        /// The switch.
        switch: String,
        /// Its blocks.
        subnet: String,
    },
    /// All of the owner's pool is held.
    #[error("none of the addresses {pool} (ip_pool) is free on the logical switch {switch}: delete VMs, or name more")]
    PoolExhausted {
        /// What was asked for.
        pool: String,
        /// The switch.
        switch: String,
    },
    /// OVN gives away the switch's addresses, too.
    #[error(
        "OVN itself gives addresses to ports of the logical switch {switch} (such as {port}) and might give the same: name addresses that its exclude_ips has, with the annotation ip_pool or ip_address"
    )]
    PoolRequired {
        /// The switch.
        switch: String,
        /// One of the ports.
        port: String,
    },
    /// The same, with a pool that does not help.
    #[error(
        "OVN itself gives addresses to ports of the logical switch {switch} (such as {port}) and might give the same as ip_pool has ({pool}): put all of these into the switch's exclude_ips, or name others that are there"
    )]
    PoolNotExcluded {
        /// What was asked for.
        pool: String,
        /// The switch.
        switch: String,
        /// One of the ports.
        port: String,
    },
    /// Somebody took what the VM has.
    #[error(
        "{address} is held by {holder}, too, on the logical switch {switch}, and both lose traffic: the VM keeps it; change it there, or give the VM another with the annotation ip_address and restart it"
    )]
    AddressDoubled {
        /// What it has.
        address: IpAddr,
        /// The switch.
        switch: String,
        /// Who else has it.
        holder: String,
    },
    /// Somebody took the MAC that the VM has.
    #[error("the MAC {} is held by {holder}, too, on the logical switch {switch}, and both lose traffic: the VM keeps it; change it there, or give the VM another with macAddress and restart it", crate::ovn::mac_text(*mac))]
    MacDoubled {
        /// What it has.
        mac: MacAddr6,
        /// The switch.
        switch: String,
        /// Who else has it.
        holder: String,
    },
    /// The subnet is another now.
    #[error(
        "the VM keeps {address}, which is outside the subnet of the logical switch {switch} ({subnet}) now: to renumber it, stop it and name another with the annotation ip_address"
    )]
    LeaseOutside {
        /// What it has.
        address: IpAddr,
        /// The switch.
        switch: String,
        /// Its blocks.
        subnet: String,
    },
    /// The owner's pool has none for it while it runs.
    #[error(
        "the VM keeps {address}, which is none of the addresses {pool} (ip_pool), while it runs: at its next start one of them is chosen, if one is free"
    )]
    LeaseOutsidePool {
        /// What it has.
        address: IpAddr,
        /// What was asked for.
        pool: String,
    },
    /// `exclude_ips` names it now.
    #[error(
        "the VM keeps {address}, which exclude_ips of the logical switch {switch} names now: take it out there, or, to renumber the VM, stop it and name another with the annotation ip_address"
    )]
    LeaseExcluded {
        /// What it has.
        address: IpAddr,
        /// The switch.
        switch: String,
    },
    /// Every name that the port may have is taken.
    #[error(
        "the port {} taken by {} not this NIC's: delete one of them, or rename the VM",
        if let [name] = &.0[..] { format!("name {name} is") } else { format!("names {} are both", .0.join(" and ")) },
        if .0.len() == 1 { "a row that is" } else { "rows that are" }
    )]
    NameTaken(Vec<String>),
    /// Another switch, from the next start on.
    #[error("the logical switch {wished} takes effect at the next start: the VM runs on {present}")]
    SwitchDeferred {
        /// Where it is.
        present: String,
        /// Where it should go.
        wished: String,
    },
    /// A node that is no chassis.
    #[error(
        "the node {0} is no chassis in the southbound database, so the port is not bound there: is ovn-controller running on it? Where its chassis has another name, annotate the Node with ovn-kubevirt.io/chassis"
    )]
    ChassisNotFound(String),
    /// The server refused our write.
    #[error("the northbound database refused the port: {0}")]
    Rejected(String),
    /// Another instance serves the VM.
    #[error(
        "the VM is served by the instance {instance} of ovn-kubevirt, so that this one leaves it alone. Let the namespace selectors (--namespace-selector) of the two instances not overlap"
    )]
    ServedByAnotherInstance {
        /// Its name.
        instance: String,
    },
}

impl Problem {
    /// Whether it is what others did to a lease that stands all the same.
    pub fn befell_a_lease(&self) -> bool {
        matches!(
            self,
            Self::AddressDoubled { .. }
                | Self::MacDoubled { .. }
                | Self::LeaseOutside { .. }
                | Self::LeaseExcluded { .. }
        )
    }

    /// Whether it says why the owner's pool has nothing.
    pub(super) fn is_of_a_pool(&self) -> bool {
        matches!(
            self,
            Self::PoolExhausted { .. }
                | Self::PoolOutOfSubnet { .. }
                | Self::PoolRequired { .. }
                | Self::PoolNotExcluded { .. }
                | Self::NoSubnet { .. }
        )
    }

    /// The Event's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable(_) | Self::Invalid(_) | Self::OutOfSubnet { .. } | Self::PoolOutOfSubnet { .. } => {
                "InvalidRequest"
            }
            Self::Unserved(_) | Self::Unmatched(_) => "UnsupportedAnnotation",
            Self::PortSecurityKept(_) => "PortSecurityKept",
            Self::SwitchNotFound(_) => "SwitchNotFound",
            Self::SwitchAmbiguous { .. } => "SwitchAmbiguous",
            Self::NoSubnet { .. } => "SubnetMissing",
            Self::SubnetExhausted { .. } | Self::PoolExhausted { .. } => "SubnetExhausted",
            Self::PoolRequired { .. } | Self::PoolNotExcluded { .. } => "PoolRequired",
            Self::LeaseOutside { .. } => "AddressOutsideSubnet",
            Self::LeaseOutsidePool { .. } => "AddressOutsidePool",
            Self::LeaseExcluded { .. } => "AddressExcluded",
            Self::AddressHeld { .. } | Self::MacHeld { .. } | Self::AddressDoubled { .. } | Self::MacDoubled { .. } => {
                "AddressConflict"
            }
            Self::NameTaken(_) => "PortNameConflict",
            Self::SwitchDeferred { .. } => "SwitchChangePending",
            Self::ChassisNotFound(_) => "ChassisNotFound",
            Self::Rejected(_) => "CommitFailed",
            Self::ServedByAnotherInstance { .. } => "ServedElsewhere",
        }
    }
}

impl PortReport {
    /// A problem of the VM as a whole.
    pub fn of_vm(problem: Problem) -> Self {
        Self { problems: vec![problem], ..Self::default() }
    }
}

/// One NIC's port, as it is after the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortReport {
    /// The network's name in the VM.
    pub network: String,
    /// The port, where there is one.
    pub port: Option<String>,
    /// The port's row, where there is one.
    pub row: Option<Uuid>,
    /// The switch, by name.
    pub switch: Option<String>,
    /// What it holds.
    pub addresses: Option<Addresses>,
    /// What is reserved for the next start.
    pub next: Option<Addresses>,
    /// What stands in the way.
    pub problems: Vec<Problem>,
}
