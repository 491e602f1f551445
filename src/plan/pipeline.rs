//! Which VMs are in the transaction in flight, which in the one that is prepared, and which wait.
//!
//! ```text
//!   push ----> waiting ---- pop, prepare ----> prepared ---- launch ----> in flight ---- answered
//!                 ^  ^                            |                          |
//!                 |  +---- dropped: in order, ----+                          |
//!                 |        before all others                                 |
//!                 +---- what became dirty, or clashed, meanwhile ------------+
//! ```
//!
//! What is prepared is only a cache: it may be dropped at any time. It is, as soon as one of its VMs becomes dirty, or
//! when a VM comes that goes before all others; so nothing is sent that is older than what is known of its VMs. A VM in
//! flight is not planned before the answer.

use std::hash::Hash;

use super::batch::Queue;
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
    /// Of the keys in flight, and of those that clash with them: dirty when the answer is there.
    after: Queue<K>,
    after_first: Queue<K>,
    prepared: Option<(FastSet<K>, B)>,
    drops: usize,
}

impl<K, B> Default for Pipeline<K, B> {
    fn default() -> Self {
        Self {
            queue: Queue::default(),
            in_flight: None,
            after: Queue::default(),
            after_first: Queue::default(),
            prepared: None,
            drops: 0,
        }
    }
}

impl<K: Clone + Eq + Hash + 'static, B: OfKeys<K>> Pipeline<K, B> {
    /// Marks a key dirty.
    pub fn push(&mut self, key: K) {
        if self.is_in_flight(&key) {
            self.after.push(key);
            return;
        }
        if self.prepared.as_ref().is_some_and(|(keys, _)| keys.contains(&key)) {
            self.drop_prepared();
        }
        self.queue.push(key);
    }

    /// Marks a key dirty, to be looked at before all others: it goes into the next transaction.
    pub fn push_first(&mut self, key: K) {
        if self.is_in_flight(&key) {
            self.after_first.push(key);
            return;
        }
        self.drop_prepared();
        self.queue.push_first(key);
    }

    /// What stands in this key's way is in flight or prepared: it is dirty once the transaction in flight is answered,
    /// or at once where there is none.
    pub fn push_after(&mut self, key: K) {
        if self.is_idle() { self.push(key) } else { self.after.push(key) }
    }

    fn is_in_flight(&self, key: &K) -> bool {
        self.in_flight.as_ref().is_some_and(|keys| keys.contains(key))
    }

    /// Whether nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none()
    }

    /// Whether no key waits to be looked at.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether it is time to prepare more: one is in flight, and keys wait that may go into the next.
    pub fn may_prepare(&self) -> bool {
        !self.is_idle() && !self.queue.is_empty() && !self.queue.has_parts() && self.drops < DROPS
    }

    /// See [`Queue::begin`].
    pub fn begin(&mut self) -> Option<usize> {
        self.queue.begin()
    }

    /// The next key, to be planned.
    pub fn pop(&mut self) -> Option<K> {
        self.queue.pop()
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
        self.in_flight = Some(keys);
        Some(batch)
    }

    /// The transaction in flight is answered: what was kept for after it is dirty now.
    pub fn answered(&mut self) {
        self.in_flight = None;
        self.drops = 0;
        while let Some(key) = self.after.pop() {
            self.push(key);
        }
        let firsts: Vec<K> = std::iter::from_fn(|| self.after_first.pop()).collect();
        firsts.into_iter().rev().for_each(|key| self.push_first(key));
    }

    /// See [`Queue::refused`].
    pub fn refused(&mut self, keys: Vec<K>, culprit: Option<&K>) -> Option<K> {
        self.queue.refused(keys, culprit)
    }
}

#[cfg(test)]
mod tests;
