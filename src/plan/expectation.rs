//! The expected state of the replica after a commit: it tells our own commit from changes by others, and claims that
//! are about to be released from those that stay held.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use macaddr::MacAddr6;
use uuid::Uuid;

use super::change::{Placed, PortChange, RowChange};
use crate::contract::VmKey;
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
            }
        }
        freed
    }

    fn add(&mut self, before: &Placed, after: Option<&Placed>) {
        let had = held(&before.row);
        let kept = after.filter(|after| after.switch == before.switch).map_or_else(Vec::new, |after| held(&after.row));
        if had != kept {
            let macs = had.iter().map(|addresses| Wake::Mac(before.switch, addresses.mac));
            let ips = had.iter().flat_map(Addresses::ips).map(|ip| Wake::Address(before.switch, ip));
            self.what.extend(macs.chain(ips).chain([Wake::Room(before.switch)]));
            self.macs.extend(had.iter().map(|addresses| addresses.mac));
            self.on.insert(before.switch);
        }
        if after.is_none() {
            self.what.insert(Wake::Name(before.row.name.clone()));
            self.what.extend(before.row.namespace().map(Wake::Namespace));
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
        if self.what.is_empty() {
            return false;
        }
        let chooses = |change: &RowChange| match change {
            RowChange::Port(change) => self.concerns_port(change),
        };
        waits.iter().any(|wait| self.what.contains(wait)) || changes.iter().any(chooses)
    }

    /// Returns true if a port gets a name, an address or a MAC that might have been another one after the release.
    fn concerns_port(&self, change: &PortChange) -> bool {
        match (&change.before, &change.after) {
            (_, None) => false,
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
    row.addresses.nics().chain(row.port_security.nics()).chain(row.external_ids.reserved()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(switch: u128, name: &str) -> Placed {
        let row = LogicalSwitchPort { name: name.to_owned(), ..LogicalSwitchPort::default() };
        Placed { switch: Uuid::from_u128(switch), row }
    }

    #[test]
    fn a_name_that_is_freed_concerns_who_took_the_longer_one_because_of_it() {
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
}
