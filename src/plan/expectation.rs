//! What the replica should show once a plan is committed: so our own commit is told from what others do, and what it is
//! about to free from what stays held.

use std::collections::HashSet;

use uuid::Uuid;

use super::change::{Placed, PortChange};
use crate::ovn::{Addresses, LogicalSwitchPort, Northbound, PortRef, VmKey, Wake, keys};

/// The rows of a VM that its plan leaves as they are.
#[derive(Debug, Default)]
pub struct Expectation {
    kept: Vec<(Uuid, Placed)>,
    /// A row that is on no switch: about to change by itself.
    unsettled: bool,
}

impl Expectation {
    /// Of a VM that is planned with these changes on this replica.
    pub fn of(view: &Northbound, vm: &VmKey, changes: &[PortChange]) -> Self {
        let mut expectation = Self::default();
        let left_alone = |port: &PortRef<'_>| !changes.iter().any(|change| change.uuid == port.uuid);
        for (_, PortRef { uuid, switch, row }) in view.ports_of(vm).filter(|(_, port)| left_alone(port)) {
            match switch {
                Some(switch) => expectation.kept.push((uuid, Placed { switch, row: row.clone() })),
                None => expectation.unsettled = true,
            }
        }
        expectation
    }

    /// Whether the VM's rows are what the changes made of them, all of them, on the switches that they were to be on:
    /// planning it again would find nothing to do, unless something else has changed.
    pub fn is_met(&self, view: &Northbound, vm: &VmKey, changes: &[PortChange]) -> bool {
        let made = changes.iter().filter_map(|change| Some((change.uuid, change.after.as_ref()?)));
        let kept = self.kept.iter().map(|(uuid, placed)| (*uuid, placed));
        let mut count = 0;
        let mut stands = made.chain(kept).inspect(|_| count += 1);
        let is = |(uuid, placed): (Uuid, &Placed)| {
            let port = view.port(&uuid);
            port.is_some_and(|port| port.switch == Some(placed.switch) && *port.row == placed.row)
        };
        !self.unsettled && stands.all(is) && view.ports_of(vm).count() == count
    }
}

/// What changes that are on their way will free. Who waits for one of these has nothing in the way that lasts.
#[derive(Debug, Default)]
pub struct Freed(HashSet<Wake>);

impl Freed {
    /// This change is on its way, too.
    pub fn add(&mut self, change: &PortChange) {
        let Some(before) = &change.before else { return };
        let after = change.after.as_ref();
        let stays = after.filter(|after| after.switch == before.switch).map(|after| held(&after.row));
        let stays = stays.unwrap_or_default();
        let ips = |held: &[Addresses]| -> Vec<_> { held.iter().flat_map(Addresses::ips).collect() };
        let (held, kept) = (held(&before.row), ips(&stays));
        for ip in ips(&held).into_iter().filter(|ip| !kept.contains(ip)) {
            self.0.insert(Wake::Address(before.switch, ip));
            self.0.insert(Wake::Room(before.switch));
        }
        for addresses in held.iter().filter(|addresses| !stays.iter().any(|kept| kept.mac == addresses.mac)) {
            self.0.insert(Wake::Mac(before.switch, addresses.mac));
        }
        if after.is_none_or(|after| after.row.name != before.row.name) {
            self.0.insert(Wake::Name(before.row.name.clone()));
        }
    }

    /// Whether one of these is among it.
    pub fn any_of(&self, waits: &[Wake]) -> bool {
        !self.0.is_empty() && waits.iter().any(|wait| self.0.contains(wait))
    }
}

/// What a row of ours holds, now and for the next start.
fn held(row: &LogicalSwitchPort) -> Vec<Addresses> {
    let texts = row.addresses.iter().chain(row.port_security.iter());
    let texts = texts.chain(row.external_ids.get(keys::NEXT_ADDRESSES));
    texts.filter_map(|text| text.parse().ok()).collect()
}
