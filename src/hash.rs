//! Hash tables for what a database holds by the hundred thousand: UUIDs, addresses, names.
//!
//! The standard library's hash withstands whoever chooses keys in order to slow us down, and takes a tenth of a first
//! sync for it. Who may write the northbound database has no need of that; a seed of its own for each table is enough.

use std::collections::{HashMap, HashSet};

/// The fast hash, with a seed.
pub type Fold = foldhash::fast::RandomState;
/// A map with the fast hash.
pub type FastMap<K, V> = HashMap<K, V, Fold>;
/// A set with the fast hash.
pub type FastSet<K> = HashSet<K, Fold>;
