//! A copy of a database's monitored part, kept by the reader task.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::column::Word;
use super::row::TableSpec;
use super::schema::{OptionalColumn, Schema};

/// The tables of one database as typed rows, with the indexes that its user needs.
pub trait Replica: Send + Sync + 'static {
    /// The database's name.
    const DATABASE: &'static str;
    /// Monitored tables that the server's schema must have.
    const TABLES: &'static [TableSpec];
    /// Tables that are monitored if the server's schema has them.
    const OPTIONAL_TABLES: &'static [TableSpec] = &[];
    /// Columns of these tables that an older server may lack. They are requested only if the schema has them.
    const OPTIONAL_COLUMNS: &'static [OptionalColumn] = &[];
    /// Returns true if this replica does not read a column, although the server has it. A table without any other column is
    /// not monitored. The answer never changes.
    fn leaves_out(&self, _table: &str, _column: &str) -> bool {
        false
    }
    /// Records the server's schema, before each sync.
    fn note_schema(&mut self, _schema: &Schema) {}
    /// A full dump follows.
    fn begin_dump(&mut self);
    /// The dump is over: rows that it did not name are deleted.
    fn end_dump(&mut self);
    /// Applies the updates of one table.
    fn apply<'de, A: MapAccess<'de>>(&mut self, table: &str, updates: A) -> Result<(), A::Error>;
    /// All tables of an update or a dump are applied: the rows are consistent again.
    fn end_update(&mut self) {}
}

/// A replica with one writer, the reader task, and any number of readers. Locks are held for a computation, never
/// across an `await`.
#[derive(Debug)]
pub struct Shared<R> {
    replica: RwLock<R>,
    progress: Mutex<Progress>,
    /// Notified after every change, for one task.
    pub changed: Notify,
    /// Marked after every change, for any number of tasks.
    updates: watch::Sender<()>,
}

/// The present feeder, and the last transaction applied.
#[derive(Debug, Default)]
struct Progress {
    feeder: u64,
    /// The replica's last transaction; nil if the server keeps no history, and while the replica is incomplete.
    last_transaction: Uuid,
    /// The time of the last data from the server.
    last_read: Option<Instant>,
    /// The number of connections that brought the replica into sync.
    connections: u64,
}

impl<R: Default> Default for Shared<R> {
    fn default() -> Self {
        Self::new(R::default())
    }
}

impl<R> Shared<R> {
    /// Shares a replica.
    pub fn new(replica: R) -> Self {
        let (changed, updates) = (Notify::new(), watch::Sender::new(()));
        Self { replica: RwLock::new(replica), progress: Mutex::default(), changed, updates }
    }

    /// A receiver that is marked after every change.
    pub fn updates(&self) -> watch::Receiver<()> {
        self.updates.subscribe()
    }

    /// The time since the server last sent data; `None` before the first.
    pub fn silence(&self) -> Option<Duration> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).last_read.map(|read| read.elapsed())
    }

    /// The number of connections that brought the replica into sync.
    pub fn connections(&self) -> u64 {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).connections
    }

    /// Records that a connection has brought the replica into sync.
    pub(super) fn record_connection(&self) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).connections += 1;
    }

    /// Records data from a server, for tests without one.
    #[cfg(test)]
    pub(crate) fn hear(&self) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).last_read = Some(Instant::now());
    }

    /// Locks it for reading.
    pub fn read(&self) -> RwLockReadGuard<'_, R> {
        // A poisoned lock means that a task panicked, and a dead task ends the process.
        self.replica.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks it for writing: for the reader task, and for a task that collects the recorded changes.
    pub fn write(&self) -> RwLockWriteGuard<'_, R> {
        self.replica.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to write a replica. It passes to each new connection, so that the reader of an earlier connection cannot
/// write any more.
#[derive(Debug)]
pub(super) struct Feeder<R> {
    shared: Arc<Shared<R>>,
    number: u64,
}

/// The reason why an update was not applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum FeedError {
    #[error("a newer connection feeds the replica")]
    Replaced,
    #[error(transparent)]
    Malformed(#[from] serde_json::Error),
}

impl<R: Replica> Feeder<R> {
    /// Takes the right from the present feeder.
    pub(super) fn take(shared: Arc<Shared<R>>) -> Self {
        let number = {
            let mut progress = shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.feeder += 1;
            progress.feeder
        };
        Self { shared, number }
    }

    /// Records that the server sent data.
    pub(super) fn record_read(&self) {
        let mut progress = self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.feeder == self.number {
            progress.last_read = Some(Instant::now());
        }
    }

    /// The transaction to name to a server, so that it sends only later changes.
    pub(super) fn last_transaction(&self) -> Uuid {
        self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner).last_transaction
    }

    /// Applies the last element of an `update3`: `<table-updates2>`.
    pub(super) fn update(&self, transaction: Uuid, updates: &RawValue) -> Result<(), FeedError> {
        self.feed(|replica| apply_update(replica, updates).map(|()| transaction))
    }

    /// Applies the result of `monitor_cond_since`. Returns true if it was less than a full dump.
    pub(super) fn first(&self, result: &RawValue) -> Result<bool, FeedError> {
        let mut found = false;
        self.feed(|replica| {
            let since = apply_since(replica, result)?;
            found = since.found;
            Ok(since.last_transaction)
        })?;
        Ok(found)
    }

    /// Begins to apply a result of `monitor_cond_since` in pieces. Until its end the replica is inconsistent, and the
    /// link counts as down.
    pub(super) fn begin(&self, to: SyncedTo) -> Result<(), FeedError> {
        self.piece(|replica| {
            if !to.found {
                replica.begin_dump();
            }
            Ok(())
        })
    }

    /// Applies rows of a table: an object of `<row-update2>`.
    pub(super) fn rows(&self, table: &str, rows: &[u8]) -> Result<(), FeedError> {
        // Checking the whole text for UTF-8 is faster than checking each string.
        let rows = std::str::from_utf8(rows).map_err(serde_json::Error::custom)?;
        self.piece(|replica| Rows { replica, table }.deserialize(&mut serde_json::Deserializer::from_str(rows)))
    }

    /// Ends the pieces.
    pub(super) fn end(&self, to: SyncedTo) -> Result<(), FeedError> {
        self.feed(|replica| {
            if !to.found {
                replica.end_dump();
            }
            replica.end_update();
            Ok(to.last_transaction)
        })
    }

    fn piece(&self, apply: impl FnOnce(&mut R) -> Result<(), serde_json::Error>) -> Result<(), FeedError> {
        let mut progress = self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.feeder != self.number {
            return Err(FeedError::Replaced);
        }
        progress.last_transaction = Uuid::nil();
        Ok(apply(&mut *self.shared.write())?)
    }

    fn feed(&self, apply: impl FnOnce(&mut R) -> Result<Uuid, serde_json::Error>) -> Result<(), FeedError> {
        let mut progress = self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.feeder != self.number {
            return Err(FeedError::Replaced);
        }
        // After an update that fails half-way only a full dump restores the replica.
        progress.last_transaction = Uuid::nil();
        let last_transaction = apply(&mut *self.shared.write())?;
        progress.last_transaction = last_transaction;
        drop(progress);
        self.shared.changed.notify_one();
        self.shared.updates.send_replace(());
        Ok(())
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
        while let Some(Word(table)) = tables.next_key()? {
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
#[derive(Debug, Deserialize)]
pub(super) struct Update<'a>(
    #[serde(borrow)] pub(super) Cow<'a, str>,
    pub(super) Uuid,
    #[serde(borrow)] pub(super) &'a RawValue,
);

/// Applies `<table-updates2>` to a replica.
///
/// # Errors
/// If they are malformed. The replica may then have a part of them.
pub fn apply_updates<R: Replica>(replica: &mut R, updates: &str) -> Result<(), serde_json::Error> {
    TableUpdates(&mut *replica).deserialize(&mut serde_json::Deserializer::from_str(updates))?;
    replica.end_update();
    Ok(())
}

/// Applies the updates of an `update3`.
pub(super) fn apply_update<R: Replica>(replica: &mut R, updates: &RawValue) -> Result<(), serde_json::Error> {
    apply_updates(replica, updates.get())
}

/// The result of `monitor_cond_since`: `[found, last transaction id, table-updates2]`. If the server knew the
/// transaction that we named (found), the updates are the later changes; else they are a full dump. Decoded in one
/// pass: it may be 50 MB.
struct Since<'a, R>(&'a mut R);

impl<'de, R: Replica> Visitor<'de> for Since<'_, R> {
    type Value = SyncedTo;
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the result of monitor_cond_since")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<SyncedTo, A::Error> {
        let short = |length| A::Error::invalid_length(length, &"three elements");
        let found: bool = seq.next_element()?.ok_or_else(|| short(0))?;
        let last_transaction = seq.next_element()?.ok_or_else(|| short(1))?;
        if !found {
            self.0.begin_dump();
        }
        seq.next_element_seed(TableUpdates(&mut *self.0))?.ok_or_else(|| short(2))?;
        if !found {
            self.0.end_dump();
        }
        self.0.end_update();
        Ok(SyncedTo { found, last_transaction })
    }
}

/// The state after the first reply of a monitor.
#[derive(Debug, Clone, Copy)]
pub(super) struct SyncedTo {
    /// The server knew the transaction that we named.
    pub(super) found: bool,
    /// The replica's last transaction.
    pub(super) last_transaction: Uuid,
}

/// Applies the first reply of a monitor.
pub(super) fn apply_since<R: Replica>(replica: &mut R, result: &RawValue) -> Result<SyncedTo, serde_json::Error> {
    serde_json::Deserializer::from_str(result.get()).deserialize_seq(Since(replica))
}
