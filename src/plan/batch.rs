//! The queue of VMs for the next transactions.
//!
//! VMs that become dirty while a transaction is in flight go into the next one, in the order they came. A transaction
//! that the server refuses is taken apart. If the server names the VM whose operation failed, the others go again
//! without it. Otherwise the halves go one after the other, until the VM at fault stands alone.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use crate::kubevirt::VmObjects;

/// The order in which VMs are decided that become dirty together: an address that several of them can take goes to the
/// one that needs just this address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// Its owner requests an address.
    Request,
    /// Its guest runs, and may use the address in the VM's annotation.
    Guest,
    /// Any address does.
    Any,
}

impl Turn {
    const ALL: usize = 3;

    /// The turn of a VM with these objects.
    pub fn of(objects: Option<&VmObjects>) -> Self {
        match objects {
            Some(objects) if objects.names_an_address() => Self::Request,
            Some(objects) if objects.may_run() => Self::Guest,
            Some(_) | None => Self::Any,
        }
    }
}

/// Dirty keys, each once: those that go before all others, then turn by turn, first come first served.
#[derive(Debug)]
pub struct Queue<K> {
    first: VecDeque<Entry<K>>,
    waiting: [VecDeque<Entry<K>>; Turn::ALL],
    /// The turn of each key (`None`: before all others), and the number of the entry that counts. A key that was moved
    /// leaves its old entry behind, which is skipped when its turn comes.
    present: HashMap<K, (Option<Turn>, u64)>,
    number: u64,
    /// Parts of a refused transaction; each is sent alone.
    parts: VecDeque<Vec<K>>,
}

/// A key, and the number of its entry.
type Entry<K> = (K, u64);

impl<K> Default for Queue<K> {
    fn default() -> Self {
        let (first, waiting, present, number, parts) = Default::default();
        Self { first, waiting, present, number, parts }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Marks a key dirty. One that waits for a later turn gets the earlier one.
    pub fn push(&mut self, key: K, turn: Turn) {
        match self.present.get(&key) {
            Some((None, _)) => return,
            Some((Some(present), _)) if *present <= turn => return,
            Some(_) | None => {}
        }
        let number = self.enter(&key, Some(turn));
        self.waiting[turn as usize].push_back((key, number));
    }

    /// Marks a key dirty, to be decided before all others.
    pub fn push_first(&mut self, key: K) {
        let number = self.enter(&key, None);
        self.first.push_front((key, number));
    }

    fn enter(&mut self, key: &K, turn: Option<Turn>) -> u64 {
        self.number += 1;
        self.present.insert(key.clone(), (turn, self.number));
        self.number
    }

    fn counts(&self, (key, number): &Entry<K>) -> bool {
        self.present.get(key).is_some_and(|(_, present)| present == number)
    }

    fn queues(&self) -> impl Iterator<Item = &VecDeque<Entry<K>>> {
        std::iter::once(&self.first).chain(&self.waiting)
    }

    /// Returns true if no key waits.
    pub fn is_empty(&self) -> bool {
        self.present.is_empty() && self.parts.is_empty()
    }

    /// Returns true if parts of a refused transaction wait: each goes alone.
    pub fn has_parts(&self) -> bool {
        !self.parts.is_empty()
    }

    /// The number of keys that wait.
    pub fn len(&self) -> usize {
        self.present.len() + self.parts.iter().map(Vec::len).sum::<usize>()
    }

    /// Begins the next part of a refused transaction, if there is one, which goes alone: its keys are those of the next
    /// `count` calls of [`Queue::pop`].
    pub fn begin(&mut self) -> Option<usize> {
        let part = self.parts.pop_front()?;
        let count = part.len();
        for key in part.into_iter().rev() {
            // A key that became dirty meanwhile is decided once, here.
            self.push_first(key);
        }
        Some(count)
    }

    /// The next key, which stays in the queue.
    pub fn next(&self) -> Option<&K> {
        self.queues().flatten().find(|entry| self.counts(entry)).map(|(key, _)| key)
    }

    /// Takes out the next key.
    pub fn pop(&mut self) -> Option<K> {
        loop {
            let queues = std::iter::once(&mut self.first).chain(&mut self.waiting);
            let entry = queues.into_iter().find_map(VecDeque::pop_front)?;
            if self.counts(&entry) {
                self.present.remove(&entry.0);
                return Some(entry.0);
            }
        }
    }

    /// Takes apart a transaction of these keys that was refused, because of `culprit` if the server named it. Returns
    /// the key at fault if it is known, and queues the others again.
    pub fn refused(&mut self, mut keys: Vec<K>, culprit: Option<&K>) -> Option<K> {
        if let Some(at) = culprit.and_then(|culprit| keys.iter().position(|key| key == culprit)) {
            let culprit = keys.remove(at);
            if !keys.is_empty() {
                self.parts.push_front(keys);
            }
            return Some(culprit);
        }
        if keys.len() <= 1 {
            return keys.pop();
        }
        let second = keys.split_off(keys.len() / 2);
        self.parts.push_front(second);
        self.parts.push_front(keys);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn requests_go_before_guests_and_guests_before_the_rest_each_in_its_order() {
        let mut queue = Queue::default();
        let turns = [Turn::Any, Turn::Guest, Turn::Request, Turn::Any, Turn::Guest, Turn::Request];
        turns.into_iter().enumerate().for_each(|(key, turn)| queue.push(key, turn));
        queue.push_first(9);
        queue.push(0, Turn::Guest);
        queue.push(2, Turn::Any);
        queue.push(9, Turn::Request);
        assert_eq!(queue.len(), 7);
        assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), [9, 2, 5, 1, 4, 0, 3]);
        assert!(queue.is_empty());
    }

    fn take(queue: &mut Queue<u32>, most: usize) -> Vec<u32> {
        let most = queue.begin().unwrap_or(most);
        std::iter::from_fn(|| queue.pop()).take(most).collect()
    }

    #[test]
    fn a_key_waits_once() {
        let mut queue = Queue::default();
        for key in [1, 2, 1, 3, 2] {
            queue.push(key, Turn::Any);
        }
        assert_eq!(queue.len(), 3);
        assert_eq!(take(&mut queue, 2), [1, 2]);
        queue.push(1, Turn::Any);
        assert_eq!(take(&mut queue, 9), [3, 1]);
        assert!(queue.is_empty());
    }

    proptest! {
        #[test]
        fn only_the_bad_keys_fail(
            count in 1u32..300, bad in proptest::collection::btree_set(0u32..300, 0..6), named in any::<bool>(),
        ) {
            let mut queue = Queue::default();
            (0..count).for_each(|key| queue.push(key, Turn::Any));
            let (mut done, mut failed, mut transactions) = (BTreeSet::new(), BTreeSet::new(), 0);
            while !queue.is_empty() {
                let keys = take(&mut queue, 100);
                transactions += 1;
                match keys.iter().find(|key| bad.contains(key)).copied() {
                    Some(culprit) => failed.extend(queue.refused(keys, named.then_some(&culprit))),
                    None => done.extend(keys),
                }
            }
            let expected: BTreeSet<u32> = bad.iter().copied().filter(|key| *key < count).collect();
            prop_assert_eq!(&failed, &expected);
            prop_assert_eq!(done.len() + failed.len(), count as usize);
            // Each bad key costs one more transaction when it is named, and two a halving otherwise.
            let each = if named { 1 } else { 16 };
            prop_assert!(transactions <= 3 + each * expected.len(), "{} transactions", transactions);
        }
    }
}
