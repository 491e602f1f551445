//! What a VM's owner is told: each port as it is, and what stands in its way.

use std::net::IpAddr;

use macaddr::MacAddr6;
use uuid::Uuid;

use super::lost::LastLease;
use crate::escaped::{Escaped, EscapedError, EscapedList};
use crate::intent::{InvalidWish, Misplaced};
use crate::ipam::{SubnetError, Unread};
use crate::kubevirt::{Guest, InvalidChassis};
use crate::ovn::Addresses;

/// Why a wish is not, or not yet, fulfilled. Each message names the object and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The VM's objects cannot be read.
    #[error("the object cannot be read ({}); its ports stay as they are until it is corrected", EscapedError(.0))]
    Unreadable(String),
    /// A wish that cannot be understood.
    #[error("{0}")]
    Invalid(#[source] InvalidWish),
    /// Annotations for others than us.
    #[error(
        "{} has no effect: ovn-kubevirt serves ip_address, mac_address, logical_switch, ip_pool and port_security of a network, and ovn-kubevirt.io/retain",
        EscapedList(.0, ", ")
    )]
    Unserved(Vec<String>),
    /// Annotations for networks that the VM does not have.
    #[error(
        "{} has no effect: the VM has no such network; write ovn.kubernetes.io/ for the pod network, <nad>.<nad-namespace>.ovn.kubernetes.io/ for one on a NAD, or <network>.ovn.kubernetes.io/ with its name in the VM",
        EscapedList(.0, ", ")
    )]
    Unmatched(Vec<String>),
    /// Port security is wished off.
    #[error(
        "port_security \"false\" of the network {} is not allowed here, and port security stays on: remove the annotation, or have the operator run ovn-kubevirt with --allow-port-security-off",
        Escaped(.0)
    )]
    PortSecurityKept(String),
    /// No switch of that name.
    #[error(
        "there is no logical switch named {} in the northbound database; the VM gets its port as soon as there is",
        Escaped(.0)
    )]
    SwitchNotFound(String),
    /// More than one.
    #[error(
        "there are {count} logical switches named {} in the northbound database: rename all but one",
        Escaped(name)
    )]
    SwitchAmbiguous {
        /// The name.
        name: String,
        /// How many.
        count: usize,
    },
    /// The switch does not say which addresses it has.
    #[error("no address can be chosen on the logical switch {}: {reason}", Escaped(switch))]
    NoSubnet {
        /// The switch.
        switch: String,
        /// What is missing or wrong.
        reason: SubnetError,
    },
    /// No free address.
    #[error("the subnet of the logical switch {} ({subnet}) has no free {} address left: delete VMs, shrink exclude_ips or enlarge the subnet", Escaped(switch), if *ipv4 { "IPv4" } else { "IPv6" })]
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
        "{address} is no address for a port of the logical switch {switch_}, whose subnet is {subnet}: name another",
        switch_ = Escaped(switch)
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
        "{address} is held by {holder} on the logical switch {switch_}; it is granted as soon as it is free, or choose another",
        switch_ = Escaped(switch)
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
    #[error(
        "the MAC {} is held by {holder} on the logical switch {switch_}; it is granted as soon as it is free, or choose another",
        crate::ovn::mac_text(*mac), switch_ = Escaped(switch)
    )]
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
        "none of the addresses {pool_} (ip_pool) is one for a port of the logical switch {switch_}, whose subnet is {subnet}: name others",
        switch_ = Escaped(switch), pool_ = Escaped(pool)
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
    #[error(
        "none of the addresses {pool_} (ip_pool) is free on the logical switch {switch_}: delete VMs, or name more",
        switch_ = Escaped(switch), pool_ = Escaped(pool)
    )]
    PoolExhausted {
        /// What was asked for.
        pool: String,
        /// The switch.
        switch: String,
    },
    /// OVN gives away the switch's addresses, too.
    #[error(
        "OVN itself gives addresses to ports of the logical switch {switch_} (such as {port_}) and might give the same: name addresses that its exclude_ips has, with the annotation ip_pool or ip_address",
        switch_ = Escaped(switch), port_ = Escaped(port)
    )]
    PoolRequired {
        /// The switch.
        switch: String,
        /// One of the ports.
        port: String,
    },
    /// The same, with a pool that does not help.
    #[error(
        "OVN itself gives addresses to ports of the logical switch {switch_} (such as {port_}) and might give the same as ip_pool has ({pool_}): {}",
        if *by_northd {
            "northd stops reading the switch's exclude_ips at the first comma or other mark, so write the list with blanks between"
        } else {
            "put all of these into the switch's exclude_ips, or name others that are there"
        },
        switch_ = Escaped(switch), pool_ = Escaped(pool), port_ = Escaped(port)
    )]
    PoolNotExcluded {
        /// What was asked for.
        pool: String,
        /// The switch.
        switch: String,
        /// One of the ports.
        port: String,
        /// `exclude_ips` has the pool, and northd does not read it so far.
        by_northd: bool,
    },
    /// A part of the switch's settings is skipped. The port is served all the same.
    #[error(
        "the logical switch {switch} has settings that are skipped, such as {}. Write address/length in subnet, and in exclude_ips addresses of that subnet and ranges first..last with blanks between",
        .unread.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    SettingUnread {
        /// The switch.
        switch: String,
        /// What is skipped.
        unread: Vec<Unread>,
    },
    /// Somebody took what the VM has.
    #[error(
        "{address} is held by {holder}, too, on the logical switch {switch_}, and both lose traffic: the VM keeps it; change it there, or give the VM another with the annotation ip_address and restart it",
        switch_ = Escaped(switch)
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
    #[error(
        "the MAC {} is held by {holder}, too, on the logical switch {switch_}, and both lose traffic: the VM keeps it; change it there, or give the VM another with macAddress and restart it",
        crate::ovn::mac_text(*mac), switch_ = Escaped(switch)
    )]
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
        "the VM keeps {address}, which is outside the subnet of the logical switch {switch_} ({subnet}) now: to renumber it, stop it and name another with the annotation ip_address",
        switch_ = Escaped(switch)
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
        "the VM keeps {address}, which is none of the addresses {pool_} (ip_pool), while it runs: at its next start one of them is chosen, if one is free",
        pool_ = Escaped(pool)
    )]
    LeaseOutsidePool {
        /// What it has.
        address: IpAddr,
        /// What was asked for.
        pool: String,
    },
    /// `exclude_ips` names it now.
    #[error(
        "the VM keeps {address}, which exclude_ips of the logical switch {switch_} names now: take it out there, or, to renumber the VM, stop it and name another with the annotation ip_address",
        switch_ = Escaped(switch)
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
    #[error(
        "the logical switch {wished_} takes effect at the next start: the VM runs on {present_}",
        present_ = Escaped(present), wished_ = Escaped(wished)
    )]
    SwitchDeferred {
        /// Where it is.
        present: String,
        /// Where it should go.
        wished: String,
    },
    /// A node that is no chassis.
    #[error(
        "the node {} is no chassis in the southbound database, so the port is not bound there: is ovn-controller running on it? Where its chassis has another name, annotate the Node with ovn-kubevirt.io/chassis",
        Escaped(.0)
    )]
    ChassisNotFound(String),
    /// The operator does not have this instance serve the VM's namespace any more.
    #[error(
        "the namespace {0} does not have the labels of --namespace-selector. The VM's ports stay and follow the VM, but new NICs get none: label the namespace, or have another instance serve it"
    )]
    NamespaceNotSelected(String),
    /// Another instance serves the VM.
    #[error(
        "the instance {} of ovn-kubevirt serves this VM, so this instance makes no port for it. Let the --namespace-selector of only one of the two select the namespace; where that instance does not run any more, take the annotation ovn-kubevirt.io/ports off the VM",
        Escaped(instance)
    )]
    ServedByAnotherInstance {
        /// The other instance.
        instance: String,
    },
    /// Somebody gave the port a type that a VM's port does not have.
    #[error(
        "the port {port_} has the type {kind_} now, and a VM's port has none. If that is a mistake, run: ovn-nbctl lsp-set-type {port_} ''",
        port_ = Escaped(port),
        kind_ = Escaped(kind)
    )]
    TypeTaken {
        /// The port.
        port: String,
        /// Its type.
        kind: String,
    },
    /// The row was lost and its addresses cannot be had again.
    #[error(
        "the guest uses {guest}, which its port does not have any more: the port was lost, and its addresses were not all to be had again. Restart the VM, so that the guest gets those that the port has now"
    )]
    GuestHasAnother {
        /// What the guest uses.
        guest: String,
    },
    /// A chassis whose row is gone, or is not there yet.
    #[error(
        "the southbound database has no row of the chassis {chassis}, which is the node {node}'s: requested-chassis stays {chassis}, and the port is bound when the row returns. Check that ovn-controller runs on the node"
    )]
    ChassisGone {
        /// The node.
        node: String,
        /// What `requested-chassis` keeps.
        chassis: String,
    },
    /// A node with more than one row.
    #[error(
        "the node {node} has {} chassis rows in the southbound database ({}), {}. Delete the stale one: ovn-sbctl chassis-del <name>",
        rows.len(),
        rows.join(", "),
        match kept { Some(kept) => format!("and the port is on {kept}"), None => "and the port is bound by whichever of them claims it".to_owned() }
    )]
    ChassisAmbiguous {
        /// The node.
        node: String,
        /// The names of its rows.
        rows: Vec<String>,
        /// The row that the port is on.
        kept: Option<String>,
    },
    /// The server refused our write.
    #[error("the northbound database refused the port: {}", EscapedError(.0))]
    Rejected(String),
    /// A request in the wrong place.
    #[error("{0}")]
    Misplaced(#[source] Misplaced),
    /// A node whose annotation names no chassis.
    #[error(
        "the annotation ovn-kubevirt.io/chassis of the node {} is \"{}\", which is no chassis name, so it is not used: a port that is on a chassis of the node stays there, and others are not bound. Write the name of one chassis, without commas and blanks",
        Escaped(.0), Escaped(&.1.value)
    )]
    InvalidChassis(String, InvalidChassis),
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
            Self::SettingUnread { .. } => "SwitchSettingUnread",
            Self::LeaseOutside { .. } => "AddressOutsideSubnet",
            Self::LeaseOutsidePool { .. } => "AddressOutsidePool",
            Self::LeaseExcluded { .. } => "AddressExcluded",
            Self::AddressHeld { .. } | Self::MacHeld { .. } | Self::AddressDoubled { .. } | Self::MacDoubled { .. } => {
                "AddressConflict"
            }
            Self::NameTaken(_) => "PortNameConflict",
            Self::SwitchDeferred { .. } => "SwitchChangePending",
            Self::ChassisNotFound(_) | Self::ChassisGone { .. } => "ChassisNotFound",
            Self::ChassisAmbiguous { .. } => "ChassisAmbiguous",
            Self::NamespaceNotSelected(_) => "NamespaceNotSelected",
            Self::ServedByAnotherInstance { .. } => "ServedElsewhere",
            Self::TypeTaken { .. } => "PortTypeConflict",
            Self::GuestHasAnother { .. } => "GuestHasAnotherAddress",
            Self::Rejected(_) => "CommitFailed",
            Self::Misplaced(_) => "MisplacedAnnotation",
            Self::InvalidChassis(..) => "InvalidChassisAnnotation",
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
    /// What the VM was last told, while its row is lost and not made anew.
    pub last: Option<Box<LastLease>>,
    /// What the guest uses that runs, where that is not what the port has.
    pub guest: Option<Box<Guest>>,
    /// What stands in the way.
    pub problems: Vec<Problem>,
}
