//! The expected state of the replica after a commit: it tells our own commit from changes by others, and claims that
//! are about to be released from those that stay held.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use macaddr::MacAddr6;
use uuid::Uuid;

use super::change::{DhcpChange, Placed, PortChange, RowChange};
use crate::contract::{VmKey, keys};
use crate::ovn::{Addresses, LogicalSwitchPort, Northbound, PortRef, Wake};

/// The rows of a VM that its decision leaves as they are.
#[derive(Debug, Default)]
pub struct Expectation {
    kept: Vec<(Uuid, Placed)>,
    /// A row is on no switch: it is about to change by itself.
    unsettled: bool,
}

impl Expectation {
    /// The expectation for a VM that is decided with these changes on this replica.
    pub fn of(view: &Northbound, vm: &VmKey, changes: &[RowChange]) -> Self {
        let mut expectation = Self::default();
        let left_alone = |port: &PortRef<'_>| !changes.iter().any(|change| change.uuid() == port.uuid);
        for (_, PortRef { uuid, switch, row }) in view.ports_of(vm).filter(|(_, port)| left_alone(port)) {
            match switch {
                Some(switch) => expectation.kept.push((uuid, Placed { switch, row: row.clone() })),
                None => expectation.unsettled = true,
            }
        }
        expectation
    }

    /// Returns true if all of the VM's rows are as the changes made them, on the switches that the changes placed them
    /// on: another decision would change nothing, unless something else has changed.
    pub fn is_met(&self, view: &Northbound, vm: &VmKey, changes: &[RowChange]) -> bool {
        let mut ports = self.kept.len();
        let mut is_made = |change: &RowChange| match change {
            RowChange::Port(PortChange { uuid, before: _, after }) => after.as_ref().is_none_or(|after| {
                ports += 1;
                after.stands(view, *uuid)
            }),
            RowChange::RouterPort(change) => change.stands(view),
            RowChange::Dhcp(DhcpChange { uuid, before: _, after }) => view.dhcp_row(uuid) == after.as_ref(),
        };
        !self.unsettled
            && changes.iter().all(&mut is_made)
            && self.kept.iter().all(|(uuid, placed)| placed.stands(view, *uuid))
            && view.ports_of(vm).count() == ports
    }
}

/// The claims that the transaction in flight will release. A decision made before that may differ from one made after.
#[derive(Debug, Default)]
pub struct Freed {
    what: HashSet<Wake>,
    on: HashSet<Uuid>,
    /// MACs on any switch: a MAC is made unique across all switches.
    macs: HashSet<MacAddr6>,
    /// A port that someone has given a type is written. It answers for more than its addresses: as a router's, for those
    /// of the router, whose networks may be the subnet of the switch, and services behind it.
    of_a_type: bool,
    /// Rows of `DHCP_Options` that are deleted.
    dhcp_rows: HashSet<Uuid>,
}

impl Freed {
    /// The claims that these changes release.
    pub fn by<'a>(changes: impl IntoIterator<Item = &'a RowChange>) -> Self {
        let mut freed = Self::default();
        for change in changes {
            match change {
                RowChange::Port(PortChange { uuid: _, before, after }) => {
                    before.iter().for_each(|before| freed.add(before, after.as_ref()));
                }
                RowChange::Dhcp(DhcpChange { uuid, before: _, after: None }) => drop(freed.dhcp_rows.insert(*uuid)),
                RowChange::RouterPort(_) | RowChange::Dhcp(_) => {}
            }
        }
        freed
    }

    fn add(&mut self, before: &Placed, after: Option<&Placed>) {
        self.add_vips(before, after);
        let had = held(&before.row);
        let kept = after.filter(|after| after.switch == before.switch).map_or_else(Vec::new, |after| held(&after.row));
        if had != kept {
            let macs = had.iter().map(|addresses| Wake::Mac(before.switch, addresses.mac));
            let ips = had.iter().flat_map(Addresses::ips).map(|ip| Wake::Address(before.switch, ip));
            self.what.extend(macs.chain(ips).chain([Wake::Room(before.switch)]));
            self.macs.extend(had.iter().map(|addresses| addresses.mac));
            self.on.insert(before.switch);
        }
        let is_named_alike = |after: &Placed| {
            let (before, after) = (&before.row, &after.row);
            before.name == after.name && before.external_ids.get(keys::VM) == after.external_ids.get(keys::VM)
        };
        if !after.is_some_and(is_named_alike) {
            self.what.insert(Wake::Name(before.row.name.clone()));
            self.what.extend(before.row.namespace().map(Wake::Namespace));
        }
        self.of_a_type |= !before.row.kind.is_empty();
    }

    fn add_vips(&mut self, before: &Placed, after: Option<&Placed>) {
        let kept = after.filter(|after| after.switch == before.switch).map(|after| after.row.port_security.vips());
        let is_kept = |vip: &IpAddr| kept.as_ref().is_some_and(|kept| kept.contains(vip));
        let freed: Vec<IpAddr> = before.row.port_security.vips().into_iter().filter(|vip| !is_kept(vip)).collect();
        if !freed.is_empty() {
            self.what.extend(freed.into_iter().map(|vip| Wake::Address(before.switch, vip)));
            self.what.insert(Wake::Room(before.switch));
            self.on.insert(before.switch);
        }
    }

    /// Returns true if a new port might have had one of the released names: its own, or its own without the network
    /// appended to it.
    fn frees_a_name_for(&self, name: &str) -> bool {
        let frees = |name: &str| self.what.contains(&Wake::Name(name.to_owned()));
        frees(name) || name.rsplit_once('.').is_some_and(|(base, _)| frees(base))
    }

    /// Returns true if a port might have had a MAC made from its address, and has another.
    fn frees_a_mac_for(&self, row: &LogicalSwitchPort) -> bool {
        let made_from = |mac: &MacAddr6, ip: Ipv4Addr| mac.into_array()[2..] == ip.octets();
        let frees = |addresses: &Addresses| {
            let mut freed = self.macs.iter().filter(|mac| **mac != addresses.mac);
            addresses.ipv4.is_some_and(|ip| freed.any(|mac| made_from(mac, ip)))
        };
        held(row).iter().any(frees)
    }

    /// Returns true if the decision for a VM, which waits for `waits`, may differ after the release.
    pub fn concerns(&self, changes: &[RowChange], waits: &[Wake]) -> bool {
        if self.of_a_type {
            return true;
        }
        if self.what.is_empty() && self.dhcp_rows.is_empty() {
            return false;
        }
        let chooses = |change: &RowChange| match change {
            RowChange::Port(change) => self.concerns_port(change),
            RowChange::RouterPort(_) | RowChange::Dhcp(_) => false,
        };
        waits.iter().any(|wait| self.what.contains(wait)) || changes.iter().any(chooses)
    }

    /// Returns true if a port gets a name, an address or a MAC that might have been another one after the release.
    fn concerns_port(&self, change: &PortChange) -> bool {
        let refers = |after: &Placed| after.row.dhcp_rows().any(|row| self.dhcp_rows.contains(&row));
        match (&change.before, &change.after) {
            (_, None) => false,
            (_, Some(after)) if refers(after) => true,
            (None, Some(after)) => {
                let chosen_there = self.on.contains(&after.switch) || self.frees_a_name_for(&after.row.name);
                chosen_there || self.frees_a_mac_for(&after.row)
            }
            (Some(before), Some(after)) => {
                let same = before.switch == after.switch && held(&before.row) == held(&after.row);
                !same && (self.on.contains(&after.switch) || self.frees_a_mac_for(&after.row))
            }
        }
    }
}

/// The addresses of a row of ours, now and for the next start.
fn held(row: &LogicalSwitchPort) -> Vec<Addresses> {
    let secured = row.port_security.secured().map(|secured| secured.lease);
    row.addresses.nics().chain(secured).chain(row.external_ids.reserved()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(switch: u128, name: &str) -> Placed {
        let row = LogicalSwitchPort { name: name.to_owned(), ..LogicalSwitchPort::default() };
        Placed { switch: Uuid::from_u128(switch), row }
    }

    #[test]
    fn a_freed_name_concerns_the_vm_that_took_the_longer_name() {
        let uuid = Uuid::nil();
        let base = "vm.ns.net1.ns.ovn";
        let freed = Freed::by(&[PortChange { uuid, before: Some(placed(1, base)), after: None }.into()]);
        let concerns = |name: &str| {
            let made = PortChange { uuid, before: None, after: Some(placed(2, name)) };
            freed.concerns(&[made.into()], &[])
        };
        assert!(concerns(base) && concerns("vm.ns.net1.ns.ovn.red"));
        assert!(!concerns("vm.ns") && !concerns("vm.ns.net2.ns.ovn"));
    }

    #[test]
    fn a_row_that_gets_its_name_or_its_vm_back_frees_the_name_and_the_namespace_that_it_had() {
        let mut other = placed(1, "vm.ns");
        other.row.external_ids.insert(keys::VM, "other/vm");
        let mut vm = placed(1, "vm.ns");
        vm.row.external_ids.insert(keys::VM, "ns/vm");
        let freed_by = |before: &Placed, after: &Placed| {
            let change = PortChange { uuid: Uuid::nil(), before: Some(before.clone()), after: Some(after.clone()) };
            Freed::by(&[change.into()])
        };
        let freed = freed_by(&placed(1, "renamed.other"), &vm);
        assert!(freed.concerns(&[], &[Wake::Name("renamed.other".into())]));
        assert!(freed_by(&other, &vm).concerns(&[], &[Wake::Namespace("other".into())]));
        assert!(!freed_by(&vm, &vm).concerns(&[], &[Wake::Name("vm.ns".into()), Wake::Namespace("ns".into())]));
    }
}
