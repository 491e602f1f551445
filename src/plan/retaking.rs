//! Restores the last lease in a VM's annotation to a NIC whose row was lost.

use uuid::Uuid;

use super::addresses::Retakable;
use super::claims::Claim;
use super::lease::lease;
use super::lost::{LastLease, served_by_another, told};
use super::remarks::Refusal;
use super::snapshot::Snapshot;
use super::view::{Switch, View};
use super::vm_rows::{VmRows, is_on_the_network_of};
use crate::intent::{PortIntent, Seat, VmIntent};
use crate::ipam::Subnet;
use crate::kubevirt::{Guest, PortsAnnotation, VmObjects};
use crate::ovn::{Addresses, PortRef};

/// A mark in a VM's annotation: the guest uses other addresses than its port has.
const HAS_A_GUEST: &str = "\"guest\":";

impl Snapshot<'_> {
    /// The annotation of the VM, if a row of its NICs is missing or has no lease, or if its guest uses other addresses.
    /// For most VMs, the annotation need not be parsed.
    pub(super) fn told_where_it_matters(
        &self,
        intent: &VmIntent,
        objects: &VmObjects,
        rows: &VmRows<'_, '_>,
    ) -> Option<PortsAnnotation> {
        let reported = objects.vm.as_ref().map(|vm| &vm.reported);
        let reported = reported.or(objects.run.as_ref().map(|run| &run.reported))?.text.as_deref()?;
        let is_there = |nic: &PortIntent, port: &PortRef<'_>| {
            !nic.seat.is_one_of_several() || is_on_the_network_of(self.northbound, nic, port)
        };
        let lacks_a_row = || intent.ports.iter().any(|nic| !rows.of(&nic.network).any(|port| is_there(nic, &port)));
        let lacks_a_lease = || {
            let has_drifted = |port: &&PortRef<'_>| port.row.addresses != port.row.port_security;
            let mut ports = rows.all().map(|(_, port)| port);
            ports.any(|port| Some(&port).filter(has_drifted).is_some_and(|port| lease(self.northbound, port).is_none()))
        };
        (lacks_a_row() || reported.contains(HAS_A_GUEST) || lacks_a_lease())
            .then(|| told(objects, self.northbound.instance()))
            .flatten()
    }
}

impl View<'_> {
    /// The last lease of a NIC in the VM's annotation.
    pub(super) fn last_lease(&self, nic: &PortIntent) -> Option<LastLease> {
        LastLease::of_nic(self.told?, nic)
    }

    /// The other instance of this service that serves the VM, according to the VM's annotation.
    pub(super) fn other_instance_of_annotation(&self) -> Option<String> {
        served_by_another(self.objects?, self.instance())
    }

    /// Returns true if another VM restores the claim: of two guests with one last lease, the first by name.
    fn is_anothers_to_retake(&self, switch: &Switch, claim: Claim) -> bool {
        self.guest_with(switch, claim).is_some_and(|other| other < self.vm)
    }

    /// The part of a NIC's last lease on the switch that the NIC can have again. Another VM of the transaction may
    /// claim it: the decision then follows the transaction.
    pub(super) fn retakable(
        &self,
        switch: &Switch,
        last: Option<&LastLease>,
        own: Option<Uuid>,
    ) -> Result<Option<Retakable>, Refusal> {
        let Some(told) = last.filter(|last| last.switch == switch.name).map(|last| last.addresses) else {
            return Ok(None);
        };
        let mut free = Vec::new();
        for ip in told.ips() {
            // The tenant can write the annotation: the policy of today applies to kept addresses.
            let may_return =
                |subnet: &Subnet| subnet.block_of(ip).is_some_and(|block| self.may_return(switch, block, ip));
            if self.subnet(switch).is_ok_and(|subnet| may_return(&subnet))
                && self.may_retake(switch, Claim::Ip(ip), own)?
            {
                free.push(ip);
            }
        }
        let mac_is_free = self.may_retake(switch, Claim::Mac(told.mac), own)?;
        Ok(Some(Retakable { told, free: Addresses::new(told.mac, free), mac_is_free }))
    }

    fn may_retake(&self, switch: &Switch, claim: Claim, own: Option<Uuid>) -> Result<bool, Refusal> {
        if self.present_holder(switch, claim, own).is_some() || self.is_anothers_to_retake(switch, claim) {
            return Ok(false);
        }
        if self.is_claimed(switch.uuid, claim) { Err(Refusal::Batch) } else { Ok(true) }
    }

    /// The addresses that the running guest uses, if they differ from the port's.
    pub(super) fn guest_with_another(
        &self,
        nic: &PortIntent,
        port: Addresses,
        last: Option<&LastLease>,
    ) -> Option<(Addresses, Guest)> {
        let has_guest = nic.life.has_guest() && nic.seat != Seat::Coming;
        let run = self.objects?.run.as_ref().filter(|_| has_guest)?.uid.clone();
        let told = self.told.and_then(|told| told.ports.iter().find(|port| port.network == nic.network));
        let before = told.and_then(|told| told.guest.as_ref()).filter(|guest| guest.run == run);
        let before = before.and_then(|guest| guest.addresses.parse().ok());
        let guest: Addresses = before.or(last.map(|last| last.addresses))?;
        (guest != port).then(|| (guest, Guest { run, addresses: guest.to_string() }))
    }
}
