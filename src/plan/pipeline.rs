//! The VMs in the transaction in flight, in the prepared one, and in the queue.
//!
//! ```text
//!   push ----> waiting ---- pop, prepare ----> prepared ---- launch ----> in flight ---- answered
//!                 ^                               |
//!                 +---- dropped: in order, -------+
//!                       before all others
//! ```
//!
//! The transactions are those that would be sent if each were prepared after the answer to the one before: same keys,
//! same order. So a key that is in flight, or that the transaction in flight concerns, is decided after the answer, and
//! so are the keys behind it. The prepared transaction is only a cache, which may be dropped at any time. It is dropped
//! as soon as one of its keys becomes dirty, or when a key comes that goes before all others. So a transaction is never
//! older than the known state of its keys.

use std::hash::Hash;

use super::batch::{Queue, Turn};
use crate::hash::FastSet;

/// The prepared transaction may be dropped so many times while one is in flight: after that, changes come too fast for
/// preparing to pay off.
const DROPS: usize = 4;

/// A value made for keys, in an order.
pub trait OfKeys<K: 'static> {
    /// The keys.
    fn keys(&self) -> impl DoubleEndedIterator<Item = &K>;
}

/// Dirty keys on their way through transactions `B`.
#[derive(Debug)]
pub struct Pipeline<K, B> {
    queue: Queue<K>,
    in_flight: Option<FastSet<K>>,
    prepared: Option<(FastSet<K>, B)>,
    /// Those of the keys in the pipeline that go before all others.
    urgent: FastSet<K>,
    drops: usize,
    /// The next key is one that must wait for the answer.
    held: bool,
}

impl<K, B> Default for Pipeline<K, B> {
    fn default() -> Self {
        Self {
            queue: Queue::default(),
            in_flight: None,
            prepared: None,
            urgent: FastSet::default(),
            drops: 0,
            held: false,
        }
    }
}

impl<K: Clone + Eq + Hash + 'static, B: OfKeys<K>> Pipeline<K, B> {
    /// Marks a key dirty.
    pub fn push(&mut self, key: K, turn: Turn) {
        if self.prepared.as_ref().is_some_and(|(keys, _)| keys.contains(&key)) {
            self.drop_prepared();
        }
        self.queue.push(key, turn);
    }

    /// Marks a key dirty, to be decided before all others: it goes into the next transaction with other urgent keys
    /// only, so that it does not wait for a large transaction.
    pub fn push_first(&mut self, key: K) {
        self.drop_prepared();
        self.urgent.insert(key.clone());
        self.queue.push_first(key);
    }

    /// Returns true if no transaction is in flight.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none()
    }

    /// Returns true if no key waits for a decision.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns true if it is time to prepare more: keys wait that may go into the next transaction.
    pub fn may_prepare(&self) -> bool {
        let waits = !self.queue.is_empty() && !self.queue.has_parts();
        waits && !self.held && self.drops < DROPS
    }

    /// See [`Queue::begin`].
    pub fn begin(&mut self) -> Option<usize> {
        self.queue.begin()
    }

    /// Takes the next key to decide. A key in flight is held until the answer, and so are the keys behind it.
    pub fn pop(&mut self) -> Option<K> {
        let next = self.queue.pop()?;
        if self.in_flight.as_ref().is_some_and(|keys| keys.contains(&next)) {
            self.hold(next);
            return None;
        }
        Some(next)
    }

    /// Returns true if the next key goes into the transaction that starts with `first`.
    pub fn joins(&self, first: Option<&K>) -> bool {
        let alone = first.is_some_and(|first| self.urgent.contains(first));
        !alone || self.queue.next().is_some_and(|next| self.urgent.contains(next))
    }

    /// The key needs no transaction.
    pub fn done(&mut self, key: &K) {
        self.urgent.remove(key);
    }

    /// The decision for this key must follow the transaction in flight: it becomes the next key again, and preparing
    /// stops until the answer, so that it keeps its turn.
    pub fn hold(&mut self, key: K) {
        self.held = true;
        self.queue.push_first(key);
    }

    /// The prepared transaction.
    pub fn prepared(&self) -> Option<&B> {
        self.prepared.as_ref().map(|(_, batch)| batch)
    }

    /// Takes out the prepared transaction to add to it. Its keys are the caller's until it is back.
    pub fn lift(&mut self) -> Option<B> {
        self.prepared.take().map(|(_, batch)| batch)
    }

    /// Sets the transaction that is sent next.
    pub fn prepare(&mut self, batch: B) {
        self.prepared = Some((batch.keys().cloned().collect(), batch));
    }

    /// Drops the prepared transaction as out of date: its keys wait again, in their order, before all others.
    pub fn drop_prepared(&mut self) {
        if let Some((_, batch)) = self.prepared.take() {
            self.drops += 1;
            batch.keys().rev().for_each(|key| self.queue.push_first(key.clone()));
        }
    }

    /// Moves the prepared transaction into flight.
    pub fn launch(&mut self) -> Option<B> {
        let (keys, batch) = self.prepared.take()?;
        keys.iter().for_each(|key| self.done(key));
        self.in_flight = Some(keys);
        Some(batch)
    }

    /// The transaction in flight is answered.
    pub fn answered(&mut self) {
        self.in_flight = None;
        self.drops = 0;
        self.held = false;
    }

    /// See [`Queue::refused`].
    pub fn refused(&mut self, keys: Vec<K>, culprit: Option<&K>) -> Option<K> {
        self.queue.refused(keys, culprit)
    }
}

#[cfg(test)]
mod tests;
