//! Which VMs are in the transaction in flight, which in the one that is prepared, and which wait.
//!
//! ```text
//!   push ----> waiting ---- pop, prepare ----> prepared ---- launch ----> in flight ---- answered
//!                 ^                               |
//!                 +---- dropped: in order, -------+
//!                       before all others
//! ```
//!
//! The transactions are those that would be sent if each were planned after the answer to the one before: same keys, same
//! order. So a key that is in flight, or that the transaction in flight concerns, is not planned before the answer, and
//! neither are those behind it. What is prepared is only a cache, which may be dropped at any time. It is, as soon as one
//! of its keys becomes dirty, or when a key comes that goes before all others; so nothing is sent that is older than what
//! is known of its keys.

use std::hash::Hash;

use super::batch::{Queue, Turn};
use crate::hash::FastSet;

/// So often may what is prepared be dropped while one transaction is in flight: after that, it changes so fast that
/// preparing it is a waste.
const DROPS: usize = 4;

/// Something made for keys, in an order.
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
    /// Those of the keys on their way that go before all others.
    urgent: FastSet<K>,
    drops: usize,
    /// The next key is one of which more is known after the answer.
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

    /// Marks a key dirty, to be looked at before all others: it goes into the next transaction, with its like alone, so
    /// that it need not wait for what many others take.
    pub fn push_first(&mut self, key: K) {
        self.drop_prepared();
        self.urgent.insert(key.clone());
        self.queue.push_first(key);
    }

    /// Whether nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none()
    }

    /// Whether no key waits to be looked at.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether it is time to prepare more: keys wait that may go into the next transaction.
    pub fn may_prepare(&self) -> bool {
        let waits = !self.queue.is_empty() && !self.queue.has_parts();
        waits && !self.held && self.drops < DROPS
    }

    /// See [`Queue::begin`].
    pub fn begin(&mut self) -> Option<usize> {
        self.queue.begin()
    }

    /// The next key, to be planned. One that is in flight is none before the answer, and what waits behind it waits.
    pub fn pop(&mut self) -> Option<K> {
        let next = self.queue.pop()?;
        if self.in_flight.as_ref().is_some_and(|keys| keys.contains(&next)) {
            self.hold(next);
            return None;
        }
        Some(next)
    }

    /// Returns true if the next key goes into the transaction that this one is the first of.
    pub fn joins(&self, first: Option<&K>) -> bool {
        let alone = first.is_some_and(|first| self.urgent.contains(first));
        !alone || self.queue.next().is_some_and(|next| self.urgent.contains(next))
    }

    /// There is nothing to be done for this key.
    pub fn done(&mut self, key: &K) {
        self.urgent.remove(key);
    }

    /// What becomes of this key is known only after the transaction in flight: it is the next one again, and till then
    /// nothing more is prepared, so that it loses its turn to nobody.
    pub fn hold(&mut self, key: K) {
        self.held = true;
        self.queue.push_first(key);
    }

    /// What is prepared.
    pub fn prepared(&self) -> Option<&B> {
        self.prepared.as_ref().map(|(_, batch)| batch)
    }

    /// Takes out what is prepared, so that more is added; its keys are the caller's until it is back.
    pub fn lift(&mut self) -> Option<B> {
        self.prepared.take().map(|(_, batch)| batch)
    }

    /// This is what is sent next.
    pub fn prepare(&mut self, batch: B) {
        self.prepared = Some((batch.keys().cloned().collect(), batch));
    }

    /// What is prepared is worth nothing any more: its keys wait again, in their order, before all others.
    pub fn drop_prepared(&mut self) {
        if let Some((_, batch)) = self.prepared.take() {
            self.drops += 1;
            batch.keys().rev().for_each(|key| self.queue.push_first(key.clone()));
        }
    }

    /// What is prepared is sent.
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
