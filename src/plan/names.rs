//! The names of VMs: from ports of ours to the rows of `DNS` that guests look them up in (ovn-nb(5), DNS).
//!
//! Pure. [`Names`] is an index of the VMs by the row that their names are in. It is told what has changed, and
//! [`Names::next`] compares the rows in question with the replica. The result is a list of [`NamesChange`]s, each with
//! the keys that differ alone. Deciding again from the same state gives the same rows, and none once they are written.
//!
//! ```text
//!   ports of ours --vm_names--> names of a VM --+
//!                                               +--> records of a row --difference--> NamesChange
//!   rows of others on the switch --taken--------+                        ^
//!   our rows of the replica ---------------------------------------------+
//! ```
//!
//! A switch has a fixed number of rows ([`NAME_ROWS`]). All names of a VM are in the same of these rows, on each switch
//! that the VM has a NIC on, so that a change of a VM rewrites little. The UUID of a row follows from instance, switch and
//! number: a repeated insert cannot make a second one, and a row is ours even if its marks were removed.

mod change;
mod domain;
mod taken;
mod vm_names;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

pub use self::change::{NamesChange, operations};
pub use self::domain::{DnsDomain, DomainError};
use self::taken::Taken;
pub use self::vm_names::LeftOut;
use self::vm_names::VmNames;
use crate::contract::{NAME_ROWS, VmKey, name_row, name_row_uuid};
use crate::hash::FastMap;
use crate::ovn::{NameChanges, Northbound};

#[cfg(test)]
mod tests;

/// The records of a row: addresses by name, and names by address.
type Records = BTreeMap<String, String>;

/// The VMs by the rows that have their names, and the rows that may differ from the replica.
#[derive(Debug)]
pub struct Names {
    instance: String,
    domain: DnsDomain,
    /// The switches of each VM with names.
    vms: HashMap<VmKey, BTreeSet<Uuid>>,
    rows: FastMap<Uuid, Shard>,
    dirty: BTreeSet<Uuid>,
    records: usize,
    left_out: BTreeMap<Uuid, BTreeMap<String, LeftOut>>,
}

/// One of the rows of a switch.
#[derive(Debug)]
struct Shard {
    switch: Uuid,
    vms: BTreeSet<VmKey>,
    /// The records that it had when it was compared last.
    records: usize,
}

impl Names {
    /// No VM is known yet.
    pub fn new(instance: &str, domain: DnsDomain) -> Self {
        Self {
            instance: instance.to_owned(),
            domain,
            vms: HashMap::new(),
            rows: FastMap::default(),
            dirty: BTreeSet::new(),
            records: 0,
            left_out: BTreeMap::new(),
        }
    }

    /// Takes in changes of the replica. The first of them is the whole replica: its VMs, and [`Names::own_rows`].
    pub fn take(&mut self, view: &Northbound, changes: &NameChanges) {
        changes.vms.iter().for_each(|vm| self.look_at(view, vm));
        for switch in &changes.switches {
            self.look_on(switch);
        }
        for row in &changes.rows {
            let is_own = self.rows.contains_key(row) || view.dns(row).is_some_and(|dns| view.is_own_dns(dns));
            if is_own {
                self.dirty.insert(*row);
            } else {
                // A row of others: its names, or those that it no longer has, matter on the switches that refer to it.
                let refers = view.switches().filter(|(_, switch)| switch.dns_records.contains(row));
                let switches: Vec<Uuid> = refers.map(|(switch, _)| *switch).collect();
                switches.iter().for_each(|switch| self.look_on(switch));
            }
        }
    }

    /// Has every row of this instance compared, also those that no VM has its names in.
    pub fn own_rows(&mut self, view: &Northbound) {
        self.dirty.extend(view.own_dns());
        self.dirty.extend(self.rows.keys());
    }

    /// Has these rows compared again: their change was not committed.
    pub fn again<'a>(&mut self, changes: impl IntoIterator<Item = &'a NamesChange>) {
        self.dirty.extend(changes.into_iter().map(NamesChange::row));
    }

    /// Returns true if no row waits for a comparison.
    pub fn is_settled(&self) -> bool {
        self.dirty.is_empty()
    }

    /// The records that our rows should have.
    pub fn records(&self) -> usize {
        self.records
    }

    /// The names that are not written, with the reasons, in their order. A name may be there for several switches.
    pub fn left_out(&self) -> impl Iterator<Item = (&str, &LeftOut)> {
        self.left_out.values().flatten().map(|(name, reason)| (name.as_str(), reason))
    }

    /// Compares up to `most` of the waiting rows with the replica, and returns the changes of those that differ.
    pub fn next(&mut self, view: &Northbound, most: usize) -> Vec<NamesChange> {
        let mut taken = HashMap::new();
        let mut changes = Vec::new();
        for row in self.dirty.iter().copied().take(most).collect::<Vec<_>>() {
            self.dirty.remove(&row);
            changes.extend(self.compare(view, row, &mut taken));
        }
        changes
    }

    fn look_at(&mut self, view: &Northbound, vm: &VmKey) {
        let now = VmNames::switches(view, vm);
        let before = self.vms.remove(vm).unwrap_or_default();
        let number = name_row(vm);
        for switch in before.union(&now) {
            let row = name_row_uuid(&self.instance, switch, number);
            self.dirty.insert(row);
            let shard =
                self.rows.entry(row).or_insert_with(|| Shard { switch: *switch, vms: BTreeSet::new(), records: 0 });
            if now.contains(switch) {
                shard.vms.insert(vm.clone());
            } else {
                shard.vms.remove(vm);
            }
        }
        if !now.is_empty() {
            self.vms.insert(vm.clone(), now);
        }
        // A VM `a.b` may have the name of the NIC `a` of a VM `b`.
        if let Some((_, name)) = vm.name.split_once('.') {
            let other = VmKey::new(vm.namespace.as_str(), name);
            let number = name_row(&other);
            let switches = self.vms.get(&other).into_iter().flatten();
            self.dirty.extend(switches.map(|switch| name_row_uuid(&self.instance, switch, number)));
        }
    }

    /// Has the rows of a switch compared.
    fn look_on(&mut self, switch: &Uuid) {
        let rows = (0..NAME_ROWS).map(|number| name_row_uuid(&self.instance, switch, number));
        self.dirty.extend(rows.filter(|row| self.rows.contains_key(row)));
    }

    fn compare(&mut self, view: &Northbound, row: Uuid, taken: &mut HashMap<Uuid, Taken>) -> Option<NamesChange> {
        let (mut records, mut left_out) = (Records::new(), BTreeMap::new());
        let shard = self.rows.get(&row).filter(|shard| view.switch(&shard.switch).is_some());
        let switch = shard.map(|shard| shard.switch);
        if let Some(shard) = shard {
            for vm in &shard.vms {
                let names = VmNames::of(view, vm, &self.domain);
                left_out.extend(names.left_out.iter().cloned());
                names.records_on(&shard.switch, &mut records);
            }
            let others = taken.entry(shard.switch).or_insert_with(|| Taken::on(view, &shard.switch, &self.rows));
            let present = view.dns(&row).map(|row| &row.records);
            records.retain(|name, _| match others.claims(name, &self.instance, present) {
                Some(holder) => {
                    left_out.insert(name.clone(), LeftOut::Taken(holder));
                    false
                }
                None => true,
            });
        }
        self.note(row, records.len(), left_out);
        NamesChange::of(view, row, switch, &records)
    }

    /// Keeps the counts, and forgets a row that no VM has its names in.
    fn note(&mut self, row: Uuid, records: usize, left_out: BTreeMap<String, LeftOut>) {
        if let Some(shard) = self.rows.get_mut(&row) {
            self.records = self.records - shard.records + records;
            shard.records = records;
            if shard.vms.is_empty() {
                self.rows.remove(&row);
            }
        }
        if left_out.is_empty() {
            self.left_out.remove(&row);
        } else {
            self.left_out.insert(row, left_out);
        }
    }
}
