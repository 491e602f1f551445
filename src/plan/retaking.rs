//! A NIC whose row was lost takes up again what its VM was last told.

use std::net::IpAddr;

use uuid::Uuid;

use super::addresses::Retakable;
use super::lease::lease;
use super::lost::{LastLease, served_by_another, told};
use super::planner::{Planner, Refusal, Switch};
use super::problem::Problem;
use super::report::PortReport;
use super::siblings::Claim;
use super::vm_rows::VmRows;
use crate::intent::{Intent, Nic};
use crate::kubevirt::{Guest, Told, VmObjects};
use crate::ovn::{Addresses, PortRef, VmKey};

/// In the annotation of a VM whose guest uses other addresses than its port has.
const HAS_A_GUEST: &str = "\"guest\":";

impl Planner<'_> {
    fn objects(&self) -> Option<&VmObjects> {
        self.fabric.cluster.vm(self.vm.as_ref()?)
    }

    /// What the VM was last told, where a row of its NICs is missing or has no lease, or where its guest uses something
    /// else. Most VMs need no look at their annotation.
    pub(super) fn told_where_it_matters(&self, intent: &Intent, rows: &VmRows<'_, '_>) -> Option<Told> {
        let objects = self.objects()?;
        let reported = objects.vm.as_ref().map(|vm| &vm.reported);
        let reported = reported.or(objects.run.as_ref().map(|run| &run.reported))?.text.as_deref()?;
        let lacks_a_row = || intent.nics.iter().any(|nic| rows.of(&nic.network).next().is_none());
        let lacks_a_lease = || {
            let has_drifted = |port: &&PortRef<'_>| port.row.addresses != port.row.port_security;
            let mut ports = rows.all().map(|(_, port)| port);
            ports.any(|port| Some(&port).filter(has_drifted).is_some_and(|port| lease(self.view, port).is_none()))
        };
        (lacks_a_row() || reported.contains(HAS_A_GUEST) || lacks_a_lease())
            .then(|| told(objects, self.view.instance()))
            .flatten()
    }

    /// The lease of a NIC that the VM was last told.
    pub(super) fn last_lease(&self, nic: &Nic) -> Option<LastLease> {
        LastLease::of_nic(self.told.as_ref()?, nic)
    }

    /// The other instance of this service that serves the VM, as the VM's annotation says.
    pub(super) fn other_instance_of_annotation(&self) -> Option<String> {
        served_by_another(self.objects()?, self.view.instance())
    }

    /// The VM whose guest runs with this while its port is lost.
    pub(super) fn lost_by_a_guest(&self, switch: &Switch, claim: Claim) -> Option<VmKey> {
        let (lost, own) = (self.lost?, self.vm.as_ref()?);
        let vm = match claim {
            Claim::Ip(ip) => lost.guest_with(&switch.name, ip, own),
            Claim::Mac(mac) => lost.guest_with_mac(&switch.name, mac, own),
        };
        vm.cloned()
    }

    /// Whether another VM takes it up: of two guests that were told the same, the first by name does.
    fn is_anothers_to_retake(&self, switch: &Switch, claim: Claim) -> bool {
        self.lost_by_a_guest(switch, claim).is_some_and(|other| self.vm.as_ref().is_some_and(|own| other < *own))
    }

    /// What a NIC without a lease was last told on the switch and can have again. Another VM of the transaction may have
    /// it: after that we know more.
    pub(super) fn retakable(
        &mut self,
        switch: &Switch,
        report: &PortReport,
        own: Option<Uuid>,
        lease: Option<Addresses>,
    ) -> Result<Option<Retakable>, Refusal> {
        let last = report.last.as_ref().filter(|last| lease.is_none() && last.switch == switch.name);
        let Some(told) = last.map(|last| last.addresses) else { return Ok(None) };
        let mut free = Vec::new();
        for ip in told.ips() {
            if self.may_retake(switch, ip, own)? {
                free.push(ip);
            }
        }
        let mac_is_free = self.another_mac_holder(switch, told.mac, own).is_none()
            && !self.is_anothers_to_retake(switch, Claim::Mac(told.mac));
        if mac_is_free && self.given.entry(switch.uuid).or_default().macs.contains(&told.mac) {
            return Err(Refusal::Again);
        }
        Ok(Some(Retakable { told, free: Addresses::new(told.mac, free), mac_is_free }))
    }

    fn may_retake(&mut self, switch: &Switch, ip: IpAddr, own: Option<Uuid>) -> Result<bool, Refusal> {
        let Ok(subnet) = self.subnet(switch) else { return Ok(false) };
        if subnet.block_of(ip).is_none()
            || self.another_holder(switch, ip, own).is_some()
            || self.is_anothers_to_retake(switch, Claim::Ip(ip))
        {
            return Ok(false);
        }
        let given = self.given.entry(switch.uuid).or_default();
        if given.family(ip.is_ipv4()).contains(ip) { Err(Refusal::Again) } else { Ok(true) }
    }

    /// Tells where the guest that runs uses something else than its port has, as long as it runs.
    pub(super) fn tell_of_the_guest(&self, nic: &Nic, port: Addresses, report: &mut PortReport) {
        let run = self.objects().and_then(|objects| objects.run.as_ref()).map(|run| run.uid.clone());
        let Some(run) = run.filter(|_| nic.running) else { return };
        let lost = report.last.as_ref().map(|last| last.addresses);
        let told = self.told.as_ref().and_then(|told| told.ports.iter().find(|port| port.network == nic.network));
        let before = told.and_then(|told| told.guest.as_ref()).filter(|guest| guest.run == run);
        let guest = before.and_then(|guest| guest.addresses.parse().ok()).or(lost);
        if let Some(guest) = guest.filter(|guest| *guest != port) {
            report.problems.push(Problem::GuestHasAnother { guest });
            report.guest = Some(Box::new(Guest { run, addresses: guest.to_string() }));
        }
    }
}
