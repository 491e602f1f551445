//! The reasons why a VM does not get its request, as data.
//!
//! A [`Problem`] has the objects and the values. Its sentences are made where it is shown (`message.rs`): in an Event,
//! in the annotation `ovn-kubevirt.io/ports` and in the log. Thousands of reports may wait for the API server, so large
//! and rare values are boxed.

use std::net::IpAddr;

use ipnet::IpNet;
use macaddr::MacAddr6;

use crate::contract::{NadKey, VmKey};
use crate::intent::{Binding, InvalidRequest, Misplaced, Permission, Retention};
use crate::ipam::{AddressPool, SubnetError, Unread};
use crate::kubevirt::{InvalidChassis, Place};
use crate::ovn::Addresses;
use crate::ovn::dhcp::OptionError;

/// The reason why a request is refused or deferred, or the conflict of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The VM's objects cannot be read, for this reason.
    Unreadable(String),
    /// A request that has no meaning.
    Invalid(InvalidRequest),
    /// Annotations that this service does not support.
    Unserved(Vec<String>),
    /// Annotations for networks that the VM does not have.
    Unmatched(Vec<String>),
    /// Port security is requested off, which the operator does not allow.
    PortSecurityKept {
        /// The network's name.
        network: String,
        /// The switch.
        switch: String,
        /// The rule.
        rule: AllowRule,
        /// The port holds a lease.
        keeps: bool,
    },
    /// Further addresses are requested, which the operator does not allow.
    VipsNotAllowed {
        /// The network's name.
        network: String,
        /// The switch.
        switch: String,
        /// The rule.
        rule: AllowRule,
        /// The port holds a lease.
        keeps: bool,
    },
    /// The operator does not allow owners to name these addresses.
    NotAllowed {
        /// The address or the pool.
        requested: Requested,
        /// The switch.
        switch: String,
        /// The rule.
        rule: AllowRule,
    },
    /// The operator does not allow the VM's namespace to use the switch.
    NamespaceNotAllowed {
        /// The namespace.
        namespace: String,
        /// The switch.
        switch: String,
        /// The rule stands on the row of the switch, and otherwise in the configuration.
        on_switch: bool,
        /// The port holds a lease elsewhere, and the switch is not named by the VM's own annotation.
        keeps: bool,
    },
    /// A word of the operator's policy on a switch is skipped.
    PolicyUnread {
        /// The switch.
        switch: String,
        /// The key in `external_ids`.
        key: &'static str,
        /// The word.
        word: String,
    },
    /// The VM's namespace has as many ports as the operator allows.
    TooManyNics {
        /// The namespace.
        namespace: String,
        /// The most ports of a namespace.
        limit: usize,
    },
    /// The addresses are requested to stay reserved longer than the operator allows.
    RetainTooLong {
        /// The requested time.
        requested: Retention,
        /// The longest time, which is kept.
        most: Retention,
        /// The VM has ports.
        keeps: bool,
    },
    /// The NAD of a NIC without a port does not exist.
    NadNotFound {
        /// The network's name.
        network: String,
        /// The NAD.
        nad: NadKey,
    },
    /// No switch has that name.
    SwitchNotFound(String),
    /// Several switches have that name.
    SwitchAmbiguous {
        /// The name.
        name: String,
        /// The number of switches.
        count: usize,
    },
    /// The switch has no usable subnet.
    NoSubnet {
        /// The switch.
        switch: String,
        /// The missing or wrong setting.
        reason: SubnetError,
    },
    /// The switch has no free address.
    SubnetExhausted {
        /// The switch.
        switch: String,
        /// Its blocks.
        subnet: Vec<IpNet>,
        /// The family.
        ipv4: bool,
    },
    /// The requested address is outside the subnet.
    OutOfSubnet {
        /// The address.
        address: IpAddr,
        /// The switch.
        switch: String,
        /// Its blocks.
        subnet: Vec<IpNet>,
    },
    /// The switch has no subnet of a requested family.
    FamilyMissing {
        /// The family.
        ipv4: bool,
        /// The switch.
        switch: String,
        /// Its blocks.
        subnet: Vec<IpNet>,
    },
    /// Another holds the requested address.
    AddressHeld {
        /// The address.
        address: IpAddr,
        /// The switch.
        switch: String,
        /// The holder.
        holder: Box<Holder>,
    },
    /// Another holds the requested MAC.
    MacHeld {
        /// The MAC.
        mac: MacAddr6,
        /// The switch.
        switch: String,
        /// The holder.
        holder: Box<Holder>,
    },
    /// The requested pool has no address of the subnet.
    PoolOutOfSubnet {
        /// The pool.
        pool: Box<AddressPool>,
        /// The switch.
        switch: String,
        /// Its blocks.
        subnet: Vec<IpNet>,
    },
    /// The requested pool has no free address.
    PoolExhausted {
        /// The pool.
        pool: Box<AddressPool>,
        /// The switch.
        switch: String,
    },
    /// OVN allocates the switch's addresses, too, and the VM requests no pool.
    PoolRequired {
        /// The switch.
        switch: String,
        /// One of the ports that OVN allocates addresses to.
        port: String,
        /// The rule that does not let the owner name addresses of `exclude_ips`.
        rule: Option<AllowRule>,
    },
    /// OVN allocates the switch's addresses, too, and may allocate the requested pool's.
    PoolNotExcluded {
        /// The pool.
        pool: Box<AddressPool>,
        /// The switch.
        switch: String,
        /// One of the ports that OVN allocates addresses to.
        port: String,
        /// `exclude_ips` has the pool, but northd does not read it that far.
        by_northd: bool,
        /// The rule that does not let the owner name addresses of `exclude_ips`.
        rule: Option<AllowRule>,
    },
    /// A part of the switch's settings is skipped. The port is served all the same.
    SettingUnread {
        /// The switch.
        switch: String,
        /// The skipped parts.
        unread: Vec<Unread>,
    },
    /// A conflict: another holds the address of a lease as well.
    AddressDoubled {
        /// The address.
        address: IpAddr,
        /// The switch.
        switch: String,
        /// The other holder.
        holder: Box<Holder>,
    },
    /// A conflict: another holds the MAC of a lease as well.
    MacDoubled {
        /// The MAC.
        mac: MacAddr6,
        /// The switch.
        switch: String,
        /// The other holder.
        holder: Box<Holder>,
    },
    /// The subnet was changed, and the lease is outside it now.
    LeaseOutside {
        /// The address of the lease.
        address: IpAddr,
        /// The switch.
        switch: String,
        /// Its blocks.
        subnet: Vec<IpNet>,
    },
    /// The requested pool does not have the lease of a VM that runs.
    LeaseOutsidePool {
        /// The address of the lease.
        address: IpAddr,
        /// The pool.
        pool: Box<AddressPool>,
    },
    /// `exclude_ips` was changed, and names the lease now.
    LeaseExcluded {
        /// The address of the lease.
        address: IpAddr,
        /// The switch.
        switch: String,
    },
    /// Other rows have every name that the port may have.
    NameTaken(Vec<String>),
    /// Another switch is requested, which takes effect at the next start.
    SwitchDeferred {
        /// The switch that the port is on.
        present: String,
        /// The requested switch.
        requested: String,
    },
    /// The node has no chassis.
    ChassisNotFound(String),
    /// The VM's namespace does not have the labels that this instance serves.
    NamespaceNotSelected(String),
    /// Another instance of this service serves the VM.
    ServedByAnotherInstance {
        /// The other instance.
        instance: String,
    },
    /// The port has a type, which the port of a VM does not have.
    TypeTaken {
        /// The port.
        port: String,
        /// Its type.
        kind: String,
    },
    /// The row was lost and the guest uses addresses that could not be allocated again.
    GuestHasAnother {
        /// The addresses that the guest uses.
        guest: Addresses,
    },
    /// The router does not advertise itself to the IPv6 guests of the switch, or has them make their own addresses.
    NotAdvertised {
        /// The switch.
        switch: String,
        /// The router port.
        router_port: String,
        /// Its `ipv6_ra_configs:address_mode`.
        mode: Option<String>,
    },
    /// The chassis has no row: it is gone, or is still to come.
    ChassisGone {
        /// The node.
        node: String,
        /// The chassis that `requested-chassis` keeps.
        chassis: String,
    },
    /// The node has several chassis rows.
    ChassisAmbiguous {
        /// The node.
        node: String,
        /// The names of its rows.
        rows: Vec<String>,
        /// The row that the port is on.
        kept: Option<String>,
    },
    /// The guest has come to the node, and its chassis has not claimed the port.
    ChassisNotReady {
        /// The node.
        node: String,
        /// Its chassis.
        chassis: String,
        /// The port.
        port: String,
    },
    /// DHCP by OVN is requested for a NIC whose launcher has a DHCP server.
    DhcpByLauncher {
        /// The network's name.
        network: String,
        /// The binding of the interface.
        binding: Binding,
    },
    /// DHCP by OVN is requested, and the operator has turned it off.
    DhcpOff {
        /// The network's name.
        network: String,
    },
    /// DHCP by OVN is requested for a port without an address.
    DhcpWithoutAddress {
        /// The network's name.
        network: String,
    },
    /// DHCP options that cannot be sent with the switch's own.
    DhcpOptions {
        /// The network's name.
        network: String,
        /// The owner has written some of them, and otherwise all are the operator's.
        by_owner: bool,
        /// The option that is wrong.
        error: Box<OptionError>,
    },
    /// The northbound database refused the write, with this error.
    Rejected(String),
    /// A request in a place without effect.
    Misplaced(Misplaced),
    /// The annotation of a node does not name a chassis.
    InvalidChassis(String, InvalidChassis),
}

/// The addresses that an owner names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requested {
    /// One address.
    Address(IpAddr),
    /// A pool.
    Pool(Box<AddressPool>),
}

/// The rule that does not give a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowRule {
    /// The permission.
    pub permission: Permission,
    /// The rule stands on the row of the switch, and otherwise in the configuration.
    pub on_switch: bool,
}

/// The holder of an address or a MAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A port of this instance.
    Vm {
        /// Its VM.
        key: VmKey,
        /// The port's name.
        port: String,
    },
    /// A port that connects a router.
    RouterPort {
        /// The port's name.
        port: String,
    },
    /// A port of another instance of this service.
    OtherInstance {
        /// The port's name.
        port: String,
        /// The instance.
        instance: String,
    },
    /// Any other port.
    ForeignPort {
        /// The port's name.
        port: String,
    },
    /// A port that was deleted a moment ago.
    Gone,
    /// OVN itself, as [`Northbound::service`](crate::ovn::Northbound::service) describes it.
    Service(String),
    /// The guest of a VM that has lost its port.
    LostBy(VmKey),
}

/// The party that can fix a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Only the VM's owner, by another request: an admission webhook can refuse the VM as it is written.
    Owner,
    /// The operator of the cluster or the network. The VM as it is written may be correct.
    Operator,
    /// Time: a start, a boot, a deletion in progress. Nothing is wrong.
    Passing,
}

impl Problem {
    /// The party that can fix the problem.
    ///
    /// A conflict of a lease that stands is never the owner's fault: a VM that holds one can always be edited. A
    /// missing switch is not the owner's fault either, since it may be created after the VM.
    pub fn fault(&self) -> Fault {
        match self {
            // The request cannot be read, or has no effect as it stands.
            Self::Unreadable(_) | Self::Invalid(_) | Self::Unserved(_) | Self::Unmatched(_) => Fault::Owner,
            Self::Misplaced(misplaced) => match misplaced {
                Misplaced::LacksOvn { .. } | Misplaced::Elsewhere { place: Place::Vm, .. } => Fault::Owner,
                // The NAD is outside the VM.
                Misplaced::Elsewhere { place: Place::Nad(_), .. } => Fault::Operator,
                // The problem goes with the pod. A corrected VM still has that pod until the next start.
                Misplaced::Elsewhere { place: Place::Launcher(_), .. } => Fault::Passing,
            },
            // The request is impossible on this switch, or at this moment.
            Self::OutOfSubnet { .. }
            | Self::FamilyMissing { .. }
            | Self::AddressHeld { .. }
            | Self::MacHeld { .. }
            | Self::PoolOutOfSubnet { .. }
            | Self::PoolExhausted { .. }
            | Self::PoolRequired { .. }
            | Self::PoolNotExcluded { by_northd: false, .. } => Fault::Owner,
            // The operator's policy refuses a request that no port holds yet. Where a policy comes later than the port, its
            // owner did nothing wrong, and the VM has to start.
            Self::NotAllowed { .. } | Self::TooManyNics { .. } => Fault::Owner,
            // The NAD may be applied after the VM, or by another person.
            Self::NadNotFound { .. } => Fault::Operator,
            Self::PortSecurityKept { keeps, .. }
            | Self::VipsNotAllowed { keeps, .. }
            | Self::NamespaceNotAllowed { keeps, .. }
            | Self::RetainTooLong { keeps, .. } => match keeps {
                true => Fault::Operator,
                false => Fault::Owner,
            },
            // A second server, or no server, would answer the guest.
            Self::DhcpByLauncher { .. } | Self::DhcpWithoutAddress { .. } => Fault::Owner,
            Self::DhcpOptions { by_owner: true, .. } => Fault::Owner,
            Self::DhcpOptions { by_owner: false, .. } | Self::DhcpOff { .. } => Fault::Operator,
            // The switch.
            Self::SwitchNotFound(_)
            | Self::SwitchAmbiguous { .. }
            | Self::NoSubnet { .. }
            | Self::SubnetExhausted { .. }
            | Self::SettingUnread { .. }
            | Self::NotAdvertised { .. }
            | Self::PolicyUnread { .. }
            | Self::PoolNotExcluded { by_northd: true, .. } => Fault::Operator,
            // A lease that stands, after the switch or another port was changed.
            Self::AddressDoubled { .. }
            | Self::MacDoubled { .. }
            | Self::LeaseOutside { .. }
            | Self::LeaseExcluded { .. }
            | Self::GuestHasAnother { .. } => Fault::Operator,
            // Rows of others in the northbound database, and the database itself.
            Self::NameTaken(_) | Self::TypeTaken { .. } | Self::Rejected(_) => Fault::Operator,
            // Nodes and their chassis.
            Self::ChassisGone { .. } | Self::ChassisAmbiguous { .. } | Self::InvalidChassis(..) => Fault::Operator,
            // The instance that serves the VM.
            Self::NamespaceNotSelected(_) | Self::ServedByAnotherInstance { .. } => Fault::Operator,
            // The next start ends it; a node that boots registers its chassis.
            Self::SwitchDeferred { .. } | Self::LeaseOutsidePool { .. } | Self::ChassisNotFound(_) => Fault::Passing,
            // The chassis claims the port once its interface is there.
            Self::ChassisNotReady { .. } => Fault::Passing,
        }
    }

    /// Returns true if it is a conflict that others caused for a lease, which stands.
    pub fn is_a_conflict(&self) -> bool {
        matches!(
            self,
            Self::AddressDoubled { .. }
                | Self::MacDoubled { .. }
                | Self::LeaseOutside { .. }
                | Self::LeaseExcluded { .. }
        )
    }

    /// Returns true if it says why no address of the requested pool is allocated.
    pub(super) fn is_of_a_pool(&self) -> bool {
        matches!(
            self,
            Self::PoolExhausted { .. }
                | Self::PoolOutOfSubnet { .. }
                | Self::PoolRequired { .. }
                | Self::PoolNotExcluded { .. }
                | Self::NotAllowed { requested: Requested::Pool(_), .. }
                | Self::NoSubnet { .. }
        )
    }
}
