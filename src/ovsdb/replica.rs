//! A copy of a database's monitored part, kept by the reader task.

use std::borrow::Cow;
use std::fmt;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tokio::sync::Notify;

use super::row::TableSpec;

/// The tables of one database as typed rows, with whatever indexes their user wants.
pub trait Replica: Send + Sync + 'static {
    /// The database's name.
    const DATABASE: &'static str;
    /// What is monitored.
    const TABLES: &'static [TableSpec];
    /// A full dump follows.
    fn begin_dump(&mut self);
    /// The dump is over: rows that it did not name are gone.
    fn end_dump(&mut self);
    /// Applies the updates of one table.
    fn apply<'de, A: MapAccess<'de>>(&mut self, table: &str, updates: A) -> Result<(), A::Error>;
}

/// A replica that the reader task writes and everybody reads. Locks are held for the time of a
/// computation, never across an `await`.
#[derive(Debug, Default)]
pub struct Shared<R> {
    replica: RwLock<R>,
    /// Told after every change.
    pub changed: Notify,
}

impl<R> Shared<R> {
    /// Shares a replica.
    pub fn new(replica: R) -> Self {
        Self { replica: RwLock::new(replica), changed: Notify::new() }
    }

    /// Reads it.
    pub fn read(&self) -> RwLockReadGuard<'_, R> {
        // A poisoned lock means that a task panicked, and a dead task ends the process.
        self.replica.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes it: the reader task, and who collects the changes it noted.
    pub fn write(&self) -> RwLockWriteGuard<'_, R> {
        self.replica.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Applies `<table-updates2>` while they are decoded.
struct TableUpdates<'a, R>(&'a mut R);

impl<'de, R: Replica> DeserializeSeed<'de> for TableUpdates<'_, R> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, R: Replica> Visitor<'de> for TableUpdates<'_, R> {
    type Value = ();
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("table-updates2")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut tables: A) -> Result<(), A::Error> {
        while let Some(table) = tables.next_key::<Cow<'de, str>>()? {
            tables.next_value_seed(Rows { replica: &mut *self.0, table: &table })?;
        }
        Ok(())
    }
}

struct Rows<'a, R> {
    replica: &'a mut R,
    table: &'a str,
}

impl<'de, R: Replica> DeserializeSeed<'de> for Rows<'_, R> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, R: Replica> Visitor<'de> for Rows<'_, R> {
    type Value = ();
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the updates of {}", self.table)
    }
    fn visit_map<A: MapAccess<'de>>(self, updates: A) -> Result<(), A::Error> {
        self.replica.apply(self.table, updates)
    }
}

/// The `params` of `update3`: `[monitor id, last transaction id, table-updates2]`.
struct Update3<'a, R>(&'a mut R);

impl<'de, R: Replica> Visitor<'de> for Update3<'_, R> {
    type Value = ();
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the parameters of update3")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        seq.next_element::<IgnoredAny>()?;
        seq.next_element::<IgnoredAny>()?;
        seq.next_element_seed(TableUpdates(self.0))?.ok_or_else(|| A::Error::invalid_length(2, &"three parameters"))
    }
}

/// The result of `monitor_cond_since`: `[found, last transaction id, table-updates2]`. Unless the
/// server found our last transaction (we name none), the updates are a full dump.
struct Dump<'a, R>(&'a mut R);

impl<'de, R: Replica> Visitor<'de> for Dump<'_, R> {
    type Value = ();
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the result of monitor_cond_since")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        seq.next_element::<IgnoredAny>()?;
        seq.next_element::<IgnoredAny>()?;
        self.0.begin_dump();
        seq.next_element_seed(TableUpdates(&mut *self.0))?
            .ok_or_else(|| A::Error::invalid_length(2, &"three elements"))?;
        self.0.end_dump();
        Ok(())
    }
}

/// Applies an `update3`.
pub(super) fn apply_update<R: Replica>(replica: &mut R, params: &str) -> Result<(), serde_json::Error> {
    serde_json::Deserializer::from_str(params).deserialize_seq(Update3(replica))
}

/// Applies the first reply of a monitor.
pub(super) fn apply_dump<R: Replica>(replica: &mut R, result: &str) -> Result<(), serde_json::Error> {
    serde_json::Deserializer::from_str(result).deserialize_seq(Dump(replica))
}
