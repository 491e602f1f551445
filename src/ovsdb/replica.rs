//! A copy of a database's monitored part, kept by the reader task.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::column::Word;
use super::row::TableSpec;
use super::schema::{OptionalColumn, Schema};

/// The tables of one database as typed rows, with whatever indexes their user wants.
pub trait Replica: Send + Sync + 'static {
    /// The database's name.
    const DATABASE: &'static str;
    /// What is monitored, and has to be there.
    const TABLES: &'static [TableSpec];
    /// What is monitored where the server's schema has it.
    const OPTIONAL_TABLES: &'static [TableSpec] = &[];
    /// Columns among them that an older server may lack: where they are not there, they are not asked for.
    const OPTIONAL_COLUMNS: &'static [OptionalColumn] = &[];
    /// Takes note of the server's schema. Each connection says so before it syncs.
    fn note_schema(&mut self, _schema: &Schema) {}
    /// A full dump follows.
    fn begin_dump(&mut self);
    /// The dump is over: rows that it did not name are gone.
    fn end_dump(&mut self);
    /// Applies the updates of one table.
    fn apply<'de, A: MapAccess<'de>>(&mut self, table: &str, updates: A) -> Result<(), A::Error>;
    /// All tables of an update, or of a dump, are applied: the rows agree with each other again.
    fn end_update(&mut self) {}
}

/// A replica that the reader task writes and everybody reads. Locks are held for the time of a
/// computation, never across an `await`.
#[derive(Debug, Default)]
pub struct Shared<R> {
    replica: RwLock<R>,
    progress: Mutex<Progress>,
    /// Told after every change.
    pub changed: Notify,
}

/// Who writes the replica, and how far it is.
#[derive(Debug, Default)]
struct Progress {
    feeder: u64,
    /// The last transaction that the replica has; nil where the server keeps no history, and while
    /// the replica is not whole.
    last_transaction: Uuid,
    /// When the server was last heard.
    heard: Option<Instant>,
}

impl<R> Shared<R> {
    /// Shares a replica.
    pub fn new(replica: R) -> Self {
        Self { replica: RwLock::new(replica), progress: Mutex::default(), changed: Notify::new() }
    }

    /// The time since the server was last heard; `None` before the first time.
    pub fn silence(&self) -> Option<Duration> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).heard.map(|heard| heard.elapsed())
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

/// The right to write a replica. It passes to each new connection, so that a reader of the one before
/// that has not noticed its end yet can do no harm.
#[derive(Debug)]
pub(super) struct Feeder<R> {
    shared: Arc<Shared<R>>,
    number: u64,
}

/// Why an update was not applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum FeedError {
    #[error("a newer connection feeds the replica")]
    Replaced,
    #[error(transparent)]
    Malformed(#[from] serde_json::Error),
}

impl<R: Replica> Feeder<R> {
    /// Takes the right from whoever has it.
    pub(super) fn take(shared: Arc<Shared<R>>) -> Self {
        let number = {
            let mut progress = shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.feeder += 1;
            progress.feeder
        };
        Self { shared, number }
    }

    /// The server was heard.
    pub(super) fn heard(&self) {
        let mut progress = self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.feeder == self.number {
            progress.heard = Some(Instant::now());
        }
    }

    /// What to name to a server, so that it sends only what came after.
    pub(super) fn last_transaction(&self) -> Uuid {
        self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner).last_transaction
    }

    /// Applies the last element of an `update3`: `<table-updates2>`.
    pub(super) fn update(&self, transaction: Uuid, updates: &RawValue) -> Result<(), FeedError> {
        self.feed(|replica| apply_update(replica, updates).map(|()| transaction))
    }

    /// Applies the result of `monitor_cond_since`, and tells whether it was less than a full dump.
    pub(super) fn first(&self, result: &RawValue) -> Result<bool, FeedError> {
        let mut found = false;
        self.feed(|replica| {
            let since = apply_since(replica, result)?;
            found = since.found;
            Ok(since.last_transaction)
        })?;
        Ok(found)
    }

    /// Begins with a result of `monitor_cond_since` that comes in pieces. Until its end the replica is neither what it
    /// was nor what it will be, and who reads it should know that the link is not up.
    pub(super) fn begin(&self, to: SyncedTo) -> Result<(), FeedError> {
        self.piece(|replica| {
            if !to.found {
                replica.begin_dump();
            }
            Ok(())
        })
    }

    /// Applies some rows of a table: an object of `<row-update2>`.
    pub(super) fn rows(&self, table: &str, rows: &[u8]) -> Result<(), FeedError> {
        // Looked at as a whole, the text is known to be UTF-8 sooner than string by string.
        let rows = std::str::from_utf8(rows).map_err(serde_json::Error::custom)?;
        self.piece(|replica| Rows { replica, table }.deserialize(&mut serde_json::Deserializer::from_str(rows)))
    }

    /// All pieces have been applied.
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
        // An update that fails half-way leaves a replica that only a full dump mends.
        progress.last_transaction = Uuid::nil();
        let last_transaction = apply(&mut *self.shared.write())?;
        progress.last_transaction = last_transaction;
        drop(progress);
        self.shared.changed.notify_one();
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

/// Applies `<table-updates2>`, which came by whatever way, to a replica.
///
/// # Errors
/// When they are malformed; the replica may then have a part of them.
pub fn apply_updates<R: Replica>(replica: &mut R, updates: &str) -> Result<(), serde_json::Error> {
    TableUpdates(&mut *replica).deserialize(&mut serde_json::Deserializer::from_str(updates))?;
    replica.end_update();
    Ok(())
}

/// Applies the updates of an `update3`.
pub(super) fn apply_update<R: Replica>(replica: &mut R, updates: &RawValue) -> Result<(), serde_json::Error> {
    apply_updates(replica, updates.get())
}

/// The result of `monitor_cond_since`: `[found, last transaction id, table-updates2]`. Where the server
/// knew the transaction that we named (found), the updates are what came after it; else they are a
/// full dump. Decoded in one pass: it may be 50 MB.
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

/// What the first reply of a monitor brings the replica to.
#[derive(Debug, Clone, Copy)]
pub(super) struct SyncedTo {
    /// The server knew the transaction that we named.
    pub(super) found: bool,
    /// The last one that the replica has now.
    pub(super) last_transaction: Uuid,
}

/// Applies the first reply of a monitor.
pub(super) fn apply_since<R: Replica>(replica: &mut R, result: &RawValue) -> Result<SyncedTo, serde_json::Error> {
    serde_json::Deserializer::from_str(result.get()).deserialize_seq(Since(replica))
}
