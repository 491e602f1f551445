//! What keeps a VM from having what it requests, as data.
//!
//! A [`Problem`] has the objects and the values. Its sentences are made where it is shown (`message.rs`): in an Event, in
//! the annotation `ovn-kubevirt.io/ports` and in the log. Reports wait for the API server by the thousand, so that what is
//! large and rare is boxed.

use std::net::IpAddr;

use ipnet::IpNet;
use macaddr::MacAddr6;

use crate::intent::{InvalidRequest, Misplaced};
use crate::ipam::{AddressPool, SubnetError, Unread};
use crate::kubevirt::{InvalidChassis, Place};
use crate::ovn::{Addresses, VmKey};

/// Why a request is not fulfilled, or not yet, or what has happened to a lease.
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
    /// Port security is requested off, which the operator does not allow; the network's name.
    PortSecurityKept(String),
    /// No switch has that name.
    SwitchNotFound(String),
    /// Several switches have that name.
    SwitchAmbiguous {
        /// The name.
        name: String,
        /// How many.
        count: usize,
    },
    /// The switch does not say which addresses it has.
    NoSubnet {
        /// The switch.
        switch: String,
        /// What is missing or wrong.
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
    },
    /// The same where OVN may allocate the requested pool's addresses.
    PoolNotExcluded {
        /// The pool.
        pool: Box<AddressPool>,
        /// The switch.
        switch: String,
        /// One of the ports that OVN allocates addresses to.
        port: String,
        /// `exclude_ips` has the pool, and northd does not read it so far.
        by_northd: bool,
    },
    /// A part of the switch's settings is skipped. The port is served all the same.
    SettingUnread {
        /// The switch.
        switch: String,
        /// What is skipped.
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
        /// What the guest uses.
        guest: Addresses,
    },
    /// The chassis has no row: it is gone, or has not come yet.
    ChassisGone {
        /// The node.
        node: String,
        /// What `requested-chassis` keeps.
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
    /// The northbound database refused the write, with this error.
    Rejected(String),
    /// A request that has no effect where it stands.
    Misplaced(Misplaced),
    /// The annotation of a node does not name a chassis.
    InvalidChassis(String, InvalidChassis),
}

/// Who, or what, holds an address or a MAC.
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

/// Who can mend a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Only the VM's owner, by another request: an admission webhook can refuse the VM as it is written.
    Owner,
    /// The operator of the cluster or the network. The VM as it is written may be all right.
    Operator,
    /// Time: a start, a boot, a deletion that is on its way. Nothing is wrong.
    Passing,
}

impl Problem {
    /// Who can mend it.
    ///
    /// What happened to a lease that stands is never the owner's fault: a VM that holds one can always be edited. Nor is a
    /// switch that does not exist, since it may be made after the VM.
    pub fn fault(&self) -> Fault {
        match self {
            // The request cannot be read, or has no effect as it stands.
            Self::Unreadable(_) | Self::Invalid(_) | Self::Unserved(_) | Self::Unmatched(_) => Fault::Owner,
            Self::Misplaced(misplaced) => match misplaced {
                Misplaced::LacksOvn { .. } | Misplaced::Elsewhere { place: Place::Vm, .. } => Fault::Owner,
                // The NAD is not the VM's.
                Misplaced::Elsewhere { place: Place::Nad(_), .. } => Fault::Operator,
                // It goes with the pod; the VM that is corrected still has that pod.
                Misplaced::Elsewhere { place: Place::Launcher(_), .. } => Fault::Passing,
            },
            // The request cannot be had on this switch, or at this moment.
            Self::OutOfSubnet { .. }
            | Self::AddressHeld { .. }
            | Self::MacHeld { .. }
            | Self::PoolOutOfSubnet { .. }
            | Self::PoolExhausted { .. }
            | Self::PoolRequired { .. }
            | Self::PoolNotExcluded { by_northd: false, .. }
            | Self::PortSecurityKept(_) => Fault::Owner,
            // The switch.
            Self::SwitchNotFound(_)
            | Self::SwitchAmbiguous { .. }
            | Self::NoSubnet { .. }
            | Self::SubnetExhausted { .. }
            | Self::SettingUnread { .. }
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
            // Which instance serves the VM.
            Self::NamespaceNotSelected(_) | Self::ServedByAnotherInstance { .. } => Fault::Operator,
            // The next start ends it; a node that boots registers its chassis.
            Self::SwitchDeferred { .. } | Self::LeaseOutsidePool { .. } | Self::ChassisNotFound(_) => Fault::Passing,
        }
    }

    /// Returns true if it is what others did to a lease, which stands all the same.
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
                | Self::NoSubnet { .. }
        )
    }
}
