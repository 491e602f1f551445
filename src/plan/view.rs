//! One VM's view of addresses, MACs and names: the snapshot, the claims of this transaction, and the holders in the
//! way.
//!
//! The VM's own rows are set aside if they exchange their claims: see `siblings.rs`.

use std::net::IpAddr;

use macaddr::MacAddr6;
use uuid::Uuid;

use super::claims::{Claim, Claims};
use super::lease::{lease, reserved};
use super::lost::Access;
use super::problem::Holder;
use super::siblings::Named;
use super::snapshot::Snapshot;
use crate::contract::{VmKey, port_uuid};
use crate::kubevirt::{PortsAnnotation, VmObjects};
use crate::ovn::{Northbound, PortRef};

/// One VM's view of the addresses, MACs and names that ports hold.
pub(super) struct View<'a> {
    pub(super) snapshot: &'a Snapshot<'a>,
    /// The VM.
    pub(super) vm: &'a VmKey,
    /// Its objects in Kubernetes.
    pub(super) objects: Option<&'a VmObjects>,
    /// The claims of the other VMs of the transaction.
    pub(super) batch: &'a Claims,
    /// The claims of those ports of the VM that are decided.
    pub(super) own: Claims,
    /// The rows of the VM, sorted.
    pub(super) siblings: &'a [Uuid],
    /// They are exchanging claims, and are not holders to each other.
    pub(super) exchanging: bool,
    /// The claims that the VM's requests name, if it has several NICs.
    pub(super) named: &'a Named,
    /// The last status of the VM, if it matters to the decision.
    pub(super) told: Option<&'a PortsAnnotation>,
    /// The MACs of guests on networks that they are to leave, by the network's name in the VM.
    pub(super) guests: Vec<(&'a str, MacAddr6)>,
}

/// A switch that was found.
#[derive(Clone)]
pub(super) struct Switch {
    pub(super) uuid: Uuid,
    pub(super) name: String,
}

/// The reason why a port cannot have an address or MAC.
pub(super) enum InTheWay {
    /// It has a holder.
    Holder(Holder),
    /// Another port of this transaction claims it: its holder is known after the commit.
    Batch,
}

impl<'a> View<'a> {
    pub(super) fn northbound(&self) -> &'a Northbound {
        self.snapshot.northbound
    }

    pub(super) fn instance(&self) -> &'a str {
        self.snapshot.northbound.instance()
    }

    pub(super) fn switch_name(&self, uuid: Uuid) -> Option<String> {
        self.northbound().switch(&uuid).map(|switch| switch.name.clone())
    }

    /// The holder that keeps an address or MAC of a switch from the port `own`.
    pub(super) fn holder(&self, switch: &Switch, claim: Claim, own: Option<Uuid>) -> Option<InTheWay> {
        if let Some(holder) = self.present_holder(switch, claim, own) {
            return Some(InTheWay::Holder(holder));
        }
        if self.is_claimed(switch.uuid, claim) {
            return Some(InTheWay::Batch);
        }
        self.guest_with(switch, claim).cloned().map(|vm| InTheWay::Holder(Holder::LostBy(vm)))
    }

    /// Returns true if this transaction grants an address or MAC of a switch.
    pub(super) fn is_claimed(&self, switch: Uuid, claim: Claim) -> bool {
        self.batch.has(switch, claim) || self.own.has(switch, claim)
    }

    /// The port, or the part of OVN, that has an address or MAC now.
    pub(super) fn present_holder(&self, switch: &Switch, claim: Claim, own: Option<Uuid>) -> Option<Holder> {
        self.holder_that(switch, claim, |holder| Some(holder) != own && !self.is_set_aside(holder, claim))
    }

    /// The other holder of an address or MAC that a port holds. Drift in a row of ours does not count: it is about to
    /// be repaired.
    pub(super) fn other_holder(&self, switch: &Switch, claim: Claim, own: Option<Uuid>) -> Option<Holder> {
        self.holder_that(switch, claim, |holder| {
            Some(holder) != own && !self.is_set_aside(holder, claim) && !self.only_seems_to_hold(holder, claim)
        })
    }

    pub(super) fn holder_that(&self, switch: &Switch, claim: Claim, counts: impl Fn(Uuid) -> bool) -> Option<Holder> {
        let northbound = self.northbound();
        match claim {
            Claim::Ip(ip) => {
                let holder = northbound.holders(&switch.uuid, ip).iter().copied().find(|holder| counts(*holder));
                let service = || northbound.service(&switch.uuid, ip).map(Holder::Service);
                holder.map(|holder| self.describe(holder)).or_else(service)
            }
            Claim::Mac(mac) => {
                let holder = northbound.mac_holders(&switch.uuid, mac).find(|holder| counts(*holder));
                let service = || northbound.mac_service(&switch.uuid, mac).map(Holder::Service);
                holder.map(|holder| self.describe(holder)).or_else(service)
            }
        }
    }

    /// The switch as the lost leases of other VMs matter on it.
    pub(super) fn access<'s>(&self, switch: &'s Switch) -> Access<'s>
    where
        'a: 's,
    {
        let policy = self.snapshot.policy_on(switch.uuid);
        Access { switch: &switch.name, policy, configured: &self.snapshot.settings.policy }
    }

    /// The VM with a running guest that has this claim while its port is lost.
    pub(super) fn guest_with(&self, switch: &Switch, claim: Claim) -> Option<&'a VmKey> {
        self.snapshot.lost.guest_with(&self.access(switch), claim, self.vm)
    }

    /// Returns true if a row that the index has as a holder does not count for another NIC of its VM: they exchange
    /// their claims, or the same decision removes the claim from the row.
    pub(super) fn is_set_aside(&self, holder: Uuid, claim: Claim) -> bool {
        self.siblings.binary_search(&holder).is_ok() && (self.exchanging || self.only_seems_to_hold(holder, claim))
    }

    /// Returns true if the claim was written into a row of ours with a different lease: it is removed as soon as the VM
    /// of that row is decided.
    fn only_seems_to_hold(&self, holder: Uuid, claim: Claim) -> bool {
        let northbound = self.northbound();
        let Some(port) = northbound.port(&holder) else { return false };
        let has = |addresses| Claim::all(addresses).contains(&claim);
        port.row.is_of(&port.uuid, self.instance())
            && !lease(northbound, &port).is_some_and(has)
            && !matches!(claim, Claim::Ip(ip) if port.row.port_security.vips().contains(&ip))
            && !reserved(port.row).is_some_and(has)
    }

    /// Returns true if a MAC may be made for a port of the VM on a switch: no port of ours has it on any switch, and
    /// the VM's requests do not name it for another NIC.
    pub(super) fn is_free_anywhere(&self, switch: &Switch, mac: MacAddr6, own: Option<Uuid>, nic: &str) -> bool {
        let northbound = self.northbound();
        // The MAC that the row has on the switch it leaves is its own.
        let row = own.and_then(|own| northbound.port(&own)).map(|port| port.row);
        let is_own = row.and_then(super::lease::written).is_some_and(|addresses| addresses.mac == mac);
        northbound.mac_holders(&switch.uuid, mac).next().is_none()
            && northbound.ports_with(mac) <= u32::from(is_own)
            && !northbound.answers_with(mac)
            && !self.batch.has_mac(mac)
            && !self.own.has_mac(mac)
            && !self.named.mac_by_another(nic, mac)
            && !self.snapshot.lost.has_mac(&self.access(switch), mac, self.vm)
    }

    /// Returns true if this row is the only holder of an address of a switch.
    pub(super) fn is_held_by(&self, switch: &Switch, address: IpAddr, row: Uuid) -> bool {
        self.northbound().holders(&switch.uuid, address) == [row]
    }

    /// Returns true if a port name is claimed by this transaction.
    pub(super) fn is_name_claimed(&self, name: &str) -> bool {
        self.batch.has_name(name) || self.own.has_name(name)
    }

    /// Returns true if a new port may have a name: it is unused, and is not the original name of a port that was
    /// renamed.
    pub(super) fn is_free_name(&self, name: &str) -> bool {
        let northbound = self.northbound();
        northbound.port_named(name).is_none() && northbound.port(&port_uuid(self.instance(), name)).is_none()
    }

    /// Describes a row as a holder.
    fn describe(&self, holder: Uuid) -> Holder {
        let Some(PortRef { row, .. }) = self.northbound().port(&holder) else { return Holder::Gone };
        let port = row.name.clone();
        match row.owner(&holder, self.instance()) {
            Some(owner) => Holder::Vm { key: owner.vm, port },
            None if row.kind == "router" => Holder::RouterPort { port },
            None => match row.other_instance(self.instance()) {
                Some(instance) => Holder::OtherInstance { port, instance: instance.to_owned() },
                None => Holder::ForeignPort { port },
            },
        }
    }
}
