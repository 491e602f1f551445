//! Hash tables for values that a database holds by the hundred thousand: UUIDs, addresses, names.
//!
//! The standard library's hash resists keys that are chosen to slow the table down, and takes a tenth of a first
//! sync for it. A writer of the northbound database has easier attacks; a seed of its own for each table is enough.

use std::collections::{HashMap, HashSet};

/// The fast hash, with a seed.
pub type Fold = foldhash::fast::RandomState;
/// A map with the fast hash.
pub type FastMap<K, V> = HashMap<K, V, Fold>;
/// A set with the fast hash.
pub type FastSet<K> = HashSet<K, Fold>;
