//! Holders by key: one each, except after mistakes.

use std::hash::Hash;

use crate::hash::FastMap;

/// The holders of each key, in their order. Nearly every key has one, which costs only a map entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holders<K: Hash + Eq, H> {
    one: FastMap<K, H>,
    /// The keys with several holders.
    several: FastMap<K, Vec<H>>,
}

impl<K: Hash + Eq, H> Default for Holders<K, H> {
    fn default() -> Self {
        Self { one: FastMap::default(), several: FastMap::default() }
    }
}

impl<K: Hash + Eq + Copy, H: Ord + Copy> Holders<K, H> {
    /// Makes room for so many keys in all.
    pub fn reserve(&mut self, keys: usize) {
        self.one.reserve(keys.saturating_sub(self.one.len()));
    }

    /// Adds a holder, once.
    pub fn insert(&mut self, key: K, holder: H) {
        if !self.several.is_empty()
            && let Some(holders) = self.several.get_mut(&key)
        {
            if let Err(at) = holders.binary_search(&holder) {
                holders.insert(at, holder);
            }
            return;
        }
        if let Some(present) = self.one.insert(key, holder)
            && present != holder
        {
            self.one.remove(&key);
            self.several.insert(key, vec![present.min(holder), present.max(holder)]);
        }
    }

    /// Removes a holder. Returns true if it was the only one.
    pub fn remove(&mut self, key: K, holder: H) -> bool {
        if self.one.get(&key) == Some(&holder) {
            self.one.remove(&key);
            return true;
        }
        let Some(holders) = self.several.get_mut(&key) else { return false };
        holders.retain(|present| *present != holder);
        if let [only] = holders[..] {
            self.several.remove(&key);
            self.one.insert(key, only);
        }
        false
    }

    /// The holders of each key that has several, in no order.
    pub fn shared(&self) -> impl Iterator<Item = (K, &[H])> {
        self.several.iter().map(|(key, holders)| (*key, holders.as_slice()))
    }

    /// All holders of a key.
    pub fn get(&self, key: K) -> &[H] {
        match self.one.get(&key) {
            Some(one) => std::slice::from_ref(one),
            None => self.several.get(&key).map_or(&[], Vec::as_slice),
        }
    }
}
