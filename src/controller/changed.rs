//! The VMs whose ports or statuses have changed, for a task that shows them to operators.
//!
//! ```text
//!   writer:  rows of the replica, bindings of the southbound --+
//!   ledger:  statuses that do not follow from rows ------------+--> Changed --take--> the API (api/rpc/journal.rs)
//! ```
//!
//! The writer hands over the sets that it has made for itself anyway, so that a watcher costs it one short lock for each
//! update of a database, however many VMs changed. Without a watcher the sets are dropped.
//!
//! A change is noted after the replica or the ledger has it. So a reader that has begun to watch and then reads a VM
//! either sees the change, or finds the VM among those that it takes later.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::contract::VmKey;

/// Sets beyond this number are merged, so that the memory is bounded by the number of VMs.
const MOST_SETS: usize = 256;

/// The changed VMs since they were last taken. Clones share one.
#[derive(Debug, Clone, Default)]
pub struct Changed(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    watched: AtomicBool,
    sets: Mutex<Sets>,
    moved: Notify,
}

/// The changed keys, in no order.
#[derive(Debug, Default)]
pub struct Sets {
    /// VMs.
    pub vms: Vec<BTreeSet<VmKey>>,
    /// Ports by their names in the southbound.
    pub ports: Vec<HashSet<String>>,
}

impl Changed {
    /// Notes VMs with changed rows.
    pub(super) fn note_all(&self, vms: BTreeSet<VmKey>) {
        if !vms.is_empty() {
            self.note_in(|sets| add(&mut sets.vms, vms));
        }
    }

    /// Notes a VM with another status.
    pub(super) fn note(&self, vm: &VmKey) {
        self.note_in(|sets| match sets.vms.last_mut() {
            Some(last) => drop(last.insert(vm.clone())),
            None => sets.vms.push(BTreeSet::from([vm.clone()])),
        });
    }

    /// Notes ports with another binding.
    pub(super) fn note_bindings(&self, ports: HashSet<String>) {
        if !ports.is_empty() {
            self.note_in(|sets| add(&mut sets.ports, ports));
        }
    }

    fn note_in(&self, note: impl FnOnce(&mut Sets)) {
        if self.0.watched.load(Ordering::SeqCst) {
            note(&mut self.0.sets.lock().unwrap_or_else(PoisonError::into_inner));
            self.0.moved.notify_one();
        }
    }

    /// Begins or ends to collect changes. They are collected for one task.
    pub fn watch(&self, watched: bool) {
        self.0.watched.store(watched, Ordering::SeqCst);
        if !watched {
            self.take();
        }
    }

    /// Waits for a change.
    pub async fn moved(&self) {
        self.0.moved.notified().await;
    }

    /// Takes all changes.
    pub fn take(&self) -> Sets {
        std::mem::take(&mut self.0.sets.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn add<T, S: Extend<T> + IntoIterator<Item = T>>(sets: &mut Vec<S>, set: S) {
    if sets.len() < MOST_SETS {
        sets.push(set);
    } else if let Some(last) = sets.last_mut() {
        last.extend(set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(index: usize) -> VmKey {
        VmKey::new("n", format!("vm-{index}"))
    }

    #[test]
    fn changes_are_collected_while_they_are_watched_and_in_bounded_memory() {
        let changed = Changed::default();
        changed.note(&vm(0));
        assert!(changed.take().vms.is_empty(), "without a watcher");
        changed.watch(true);
        (0..MOST_SETS * 4).for_each(|index| changed.note_all(BTreeSet::from([vm(index % 7)])));
        changed.note(&vm(8));
        changed.note_bindings(HashSet::from(["vm.n".to_owned()]));
        let Sets { vms, ports } = changed.take();
        assert!(vms.len() <= MOST_SETS && ports.len() == 1, "{} sets", vms.len());
        let all: BTreeSet<VmKey> = vms.into_iter().flatten().collect();
        assert_eq!(all, (0..7).chain([8]).map(vm).collect());
        changed.note(&vm(0));
        changed.watch(false);
        assert!(changed.take().vms.is_empty());
    }
}
