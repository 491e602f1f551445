//! Hash tables for what a database holds by the hundred thousand: UUIDs, addresses, names.
//!
//! The standard library's hash withstands whoever chooses keys in order to slow us down, and takes a tenth of a first
//! sync for it. Who may write the northbound database has no need of that; a seed of its own for each table is enough.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};

/// A map with the fast hash.
pub type FastMap<K, V> = HashMap<K, V, Fold>;
/// A set with the fast hash.
pub type FastSet<K> = HashSet<K, Fold>;

/// The fast hash with a seed.
#[derive(Debug, Clone)]
pub struct Fold(u64);

impl Default for Fold {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0))
    }
}

impl BuildHasher for Fold {
    type Hasher = FoldHasher;
    fn build_hasher(&self) -> FoldHasher {
        FoldHasher(self.0)
    }
}

/// Multiplies to twice the width and folds the halves together, eight bytes at a time.
#[derive(Debug)]
pub struct FoldHasher(u64);

impl Hasher for FoldHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.write_u64(u64::from_le_bytes(word.try_into().unwrap_or_default()));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = fold(self.0 ^ word);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        // Tables take their bits from both ends: once more, so that the last word reaches all of them.
        fold(self.0)
    }
}

fn fold(word: u64) -> u64 {
    // The golden ratio's bits: as many ones as zeros, in no order.
    let product = u128::from(word) * 0x9e37_79b9_7f4a_7c15;
    (product ^ (product >> 64)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of 64 buckets are used by the low bits, and how many by the high ones.
    fn spread<T: std::hash::Hash>(keys: impl Iterator<Item = T>) -> (usize, usize) {
        let fold = Fold(7);
        let hashes: Vec<u64> = keys.map(|key| fold.hash_one(key)).collect();
        let used = |bits: fn(u64) -> u64| hashes.iter().map(|hash| bits(*hash)).collect::<HashSet<u64>>().len();
        (used(|hash| hash & 63), used(|hash| hash >> 58))
    }

    #[test]
    fn keys_that_count_up_are_spread_over_all_buckets() {
        let many = |used: (usize, usize)| used.0 > 60 && used.1 > 60;
        assert!(many(spread(0..1_000_u64)));
        assert!(many(spread((0..1_000).map(uuid::Uuid::from_u128))));
        assert!(many(spread((0..1_000).map(|low| uuid::Uuid::from_u128(low << 64)))));
        assert!(many(spread((0..1_000_u32).map(|low| std::net::IpAddr::from(std::net::Ipv4Addr::from(low << 8))))));
        assert!(many(spread((0..1_000).map(|number| format!("vm-{number}.namespace")))));
    }
}
