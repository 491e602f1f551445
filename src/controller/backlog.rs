//! The VMs that wait for a transaction, and since when: for the age of the queue and the latency of commits.
//!
//! An entry lives as long as its VM is in the pipeline's queue or in the prepared transaction. It goes with the
//! transaction into flight, and comes back where that is not committed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::hash::BuildHasher;
use std::time::Duration;

use tokio::time::Instant;

use crate::contract::VmKey;
use crate::hash::{FastMap, Fold};
use crate::kubevirt::Change;

/// A change from a watch, with the time at which it arrived.
#[derive(Debug)]
pub struct Arrival {
    /// The change.
    pub change: Change,
    /// The time at which the watch received it.
    pub at: Instant,
}

impl Arrival {
    /// A change that arrives now.
    pub fn now(change: Change) -> Self {
        Self { change, at: Instant::now() }
    }
}

/// Since when a VM waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Since {
    /// The first reason to decide it.
    pub(super) at: Instant,
    /// The arrival of the first watch event among the reasons.
    pub(super) event: Option<Instant>,
}

impl Since {
    /// A watch event that arrived at this time is the reason.
    pub(super) fn event(at: Instant) -> Self {
        Self { at, event: Some(at) }
    }

    /// Another reason than a watch event, at this time.
    pub(super) fn other(at: Instant) -> Self {
        Self { at, event: None }
    }

    fn and(self, later: Self) -> Self {
        Self { at: self.at.min(later.at), event: self.event.into_iter().chain(later.event).min() }
    }
}

/// The times are counted in steps, so that the oldest is known without a look at every VM.
const STEP: Duration = Duration::from_millis(50);

/// After a burst of more VMs than this, the memory is given back.
const FEW: usize = 4_096;

/// The VMs that wait for a transaction.
#[derive(Debug)]
pub(super) struct Backlog {
    /// By a hash of the VM: all VMs wait after a start, and their names are in the queue already. Two VMs with one hash
    /// count as one.
    vms: FastMap<u64, Since>,
    hash: Fold,
    /// The number of VMs by the step of their time.
    steps: BTreeMap<u128, usize>,
    begin: Instant,
}

impl Backlog {
    /// No VM waits. Times before `begin` count as `begin`.
    pub(super) fn new(begin: Instant) -> Self {
        Self { vms: FastMap::default(), hash: Fold::default(), steps: BTreeMap::new(), begin }
    }

    /// A VM waits. Of several reasons the first counts.
    pub(super) fn enter(&mut self, vm: &VmKey, since: Since) {
        let key = self.hash.hash_one(vm);
        match self.vms.get_mut(&key) {
            Some(present) => {
                let (before, after) = (present.at, present.and(since));
                *present = after;
                if after.at < before {
                    self.leave(before);
                    self.count(after.at);
                }
            }
            None => {
                self.vms.insert(key, since);
                self.count(since.at);
            }
        }
    }

    /// A VM waits no longer. Returns since when it did.
    pub(super) fn take(&mut self, vm: &VmKey) -> Option<Since> {
        let since = self.vms.remove(&self.hash.hash_one(vm))?;
        self.leave(since.at);
        if self.vms.is_empty() && self.vms.capacity() > FEW {
            self.vms = FastMap::default();
        }
        Some(since)
    }

    /// The number of VMs.
    pub(super) fn len(&self) -> usize {
        self.vms.len()
    }

    /// The time since which the first of them waits, exact to a step.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let (step, _) = self.steps.first_key_value()?;
        Some(self.begin + STEP * u32::try_from(*step).unwrap_or(u32::MAX))
    }

    fn step(&self, at: Instant) -> u128 {
        at.saturating_duration_since(self.begin).as_nanos() / STEP.as_nanos()
    }

    fn count(&mut self, at: Instant) {
        *self.steps.entry(self.step(at)).or_default() += 1;
    }

    fn leave(&mut self, at: Instant) {
        let step = self.step(at);
        if let Entry::Occupied(mut vms) = self.steps.entry(step) {
            *vms.get_mut() -= 1;
            if *vms.get() == 0 {
                vms.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[derive(Debug, Clone)]
    enum Step {
        Enter(u8, u64, bool),
        Take(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u8..6, 0u64..1_000, any::<bool>()).prop_map(|(vm, at, event)| Step::Enter(vm, at, event)),
            2 => (0u8..6).prop_map(Step::Take),
        ]
    }

    proptest! {
        #[test]
        fn the_first_reason_of_each_vm_counts_and_the_oldest_is_known(
            steps in proptest::collection::vec(step(), 0..60),
        ) {
            let begin = Instant::now();
            let at = |milliseconds| begin + Duration::from_millis(milliseconds);
            let key = |vm: u8| VmKey::new("n", vm.to_string());
            let (mut backlog, mut model) = (Backlog::new(begin), HashMap::<u8, Vec<(u64, bool)>>::new());
            for step in steps {
                match step {
                    Step::Enter(vm, time, event) => {
                        let since = if event { Since::event(at(time)) } else { Since::other(at(time)) };
                        backlog.enter(&key(vm), since);
                        model.entry(vm).or_default().push((time, event));
                    }
                    Step::Take(vm) => {
                        let expected = model.remove(&vm).map(|reasons| {
                            let first = reasons.iter().map(|(time, _)| *time).min().unwrap_or_default();
                            let event = reasons.iter().filter(|(_, event)| *event).map(|(time, _)| at(*time)).min();
                            Since { at: at(first), event }
                        });
                        prop_assert_eq!(backlog.take(&key(vm)), expected);
                    }
                }
                prop_assert_eq!(backlog.len(), model.len());
                let oldest = model.values().flatten().map(|(time, _)| *time).min();
                prop_assert_eq!(backlog.oldest(), oldest.map(|time| at(time / 50 * 50)));
            }
        }
    }
}
