//! Who holds what: one each, but for mistakes.

use std::hash::Hash;

use crate::hash::FastMap;

/// The holders of each key, in their order. Nearly every key has one, which costs no more than a map's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holders<K: Hash + Eq, H> {
    one: FastMap<K, H>,
    /// The keys of which there are more.
    several: FastMap<K, Vec<H>>,
}

impl<K: Hash + Eq, H> Default for Holders<K, H> {
    fn default() -> Self {
        Self { one: FastMap::default(), several: FastMap::default() }
    }
}

impl<K: Hash + Eq + Copy, H: Ord + Copy> Holders<K, H> {
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

    /// Takes a holder away. Whether that was the last one.
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

    /// All holders of a key.
    pub fn get(&self, key: K) -> &[H] {
        match self.one.get(&key) {
            Some(one) => std::slice::from_ref(one),
            None => self.several.get(&key).map_or(&[], Vec::as_slice),
        }
    }
}
