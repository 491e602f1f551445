//! The times of pending work: VMs to be decided again, and addresses at the end of their rest.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::contract::VmKey;
use crate::ovn::Rest;

/// The longest delay of a decision, so that a change of the clock is followed.
const LONGEST: Duration = Duration::from_secs(3_600);

/// VMs by their due times, and addresses by the end of their rest.
#[derive(Debug)]
pub(super) struct Timetable {
    due: BTreeSet<(Instant, VmKey)>,
    of: HashMap<VmKey, Instant>,
    /// In the order of their ends: all rests have the same length.
    rests: VecDeque<(Instant, Rest)>,
    rest: Duration,
}

impl Timetable {
    /// An empty timetable. Addresses rest for this long.
    pub(super) fn new(rest: Duration) -> Self {
        Self { due: BTreeSet::new(), of: HashMap::new(), rests: VecDeque::new(), rest }
    }

    /// Makes the VM due after this time, and at no other time.
    pub(super) fn set(&mut self, vm: &VmKey, after: Option<Duration>, now: Instant) {
        if after.is_none() && self.of.is_empty() {
            return;
        }
        if let Some(before) = self.of.remove(vm) {
            self.due.remove(&(before, vm.clone()));
        }
        if let Some(after) = after {
            let at = now + after.min(LONGEST);
            self.of.insert(vm.clone(), at);
            self.due.insert((at, vm.clone()));
        }
    }

    /// Returns true if addresses rest at all.
    pub(super) fn has_rests(&self) -> bool {
        !self.rest.is_zero()
    }

    /// Begins the rest of these addresses.
    pub(super) fn rest(&mut self, rests: Vec<Rest>, now: Instant) {
        let end = now + self.rest;
        self.rests.extend(rests.into_iter().map(|rest| (end, rest)));
    }

    /// The next due time.
    pub(super) fn next(&self) -> Option<Instant> {
        let vm = self.due.first().map(|(at, _)| *at);
        let rest = self.rests.front().map(|(at, _)| *at);
        vm.into_iter().chain(rest).min()
    }

    /// Removes and returns the VMs that are due.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<VmKey> {
        let mut due = Vec::new();
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            due.extend(self.due.pop_first().map(|(_, vm)| vm));
        }
        for vm in &due {
            self.of.remove(vm);
        }
        due
    }

    /// Removes and returns the addresses at the end of their rest.
    pub(super) fn take_rested(&mut self, now: Instant) -> Vec<Rest> {
        let over = self.rests.iter().take_while(|(end, _)| *end <= now).count();
        self.rests.drain(..over).map(|(_, rest)| rest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn each_vm_is_due_once_and_at_its_last_time() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut timetable = Timetable::new(Duration::from_secs(60));
        let [a, b] = ["a", "b"].map(|name| VmKey::new("n", name));
        timetable.set(&a, Some(Duration::from_secs(5)), begin);
        timetable.set(&b, Some(Duration::from_secs(3)), begin);
        timetable.set(&a, Some(Duration::from_secs(9)), begin);
        let rest = Rest { switch: Uuid::nil(), address: [10, 0, 0, 1].into(), number: 1 };
        timetable.rest(vec![rest], begin);
        assert_eq!(timetable.take_due(at(5)), [b]);
        assert_eq!(timetable.next(), Some(at(9)));
        timetable.set(&a, None, at(5));
        assert_eq!((timetable.next(), timetable.take_rested(at(59))), (Some(at(60)), vec![]));
        assert_eq!((timetable.take_due(at(60)), timetable.take_rested(at(60))), (vec![], vec![rest]));
        assert_eq!(timetable.next(), None);
    }
}
