//! The committed transactions of a RAFT cluster, read from a member's own file.
//!
//! The file (ovsdb(5), "Clustered Database Format") is a log of records: a snapshot, entries with their index, and the
//! committed index. Unlike a monitor, it shows a row that was inserted, deleted and inserted again between two updates.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

/// One committed transaction: tables, rows by UUID, and the changes of each. `null` is a deletion, a row that is new
/// has all its columns, and those of a row that was there before are differences.
pub type Committed = Map<String, Value>;

/// The transactions in a member's file, oldest first, without its snapshot.
///
/// # Panics
/// When the file is no such log.
#[track_caller]
pub fn committed(file: &Path) -> Vec<Committed> {
    let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut rest = bytes.as_slice();
    let mut entries: BTreeMap<u64, Option<Committed>> = BTreeMap::new();
    let mut committed = 0;
    while let Some((mut record, after)) = next_record(rest) {
        rest = after;
        if let Some(index) = record["commit_index"].as_u64() {
            committed = committed.max(index);
        }
        let Some(index) = record["index"].as_u64() else { continue };
        // A leader that was deposed had entries that its successor has others for.
        entries.split_off(&index);
        // The schema, and the transaction; an entry that changes the cluster itself has neither.
        let data = match record.pointer_mut("/data/1").map(Value::take) {
            Some(Value::Object(data)) => Some(data),
            _ => None,
        };
        entries.insert(index, data);
    }
    entries.retain(|index, _| *index <= committed);
    entries.into_values().flatten().collect()
}

/// A record, `OVSDB CLUSTER <length> <SHA-1>` and the JSON on the next line, and the rest; a standalone server
/// writes `OVSDB JSON`. The last one may still be being written.
pub(super) fn next_record(bytes: &[u8]) -> Option<(Value, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let header = std::str::from_utf8(&bytes[..end]).expect("a record's header is text");
    let rest = header.strip_prefix("OVSDB CLUSTER ").or_else(|| header.strip_prefix("OVSDB JSON "));
    let length = rest.and_then(|rest| rest.split(' ').next()?.parse().ok());
    let length: usize = length.unwrap_or_else(|| panic!("no record of a server's log: {header:?}"));
    let (record, rest) = bytes[end + 1..].split_at_checked(length)?;
    let record = serde_json::from_slice(record).unwrap_or_else(|error| panic!("{error}: {header:?}"));
    Some((record, rest))
}

/// The changes of the logical switch ports of one name.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// How often such a row was inserted.
    pub made: usize,
    /// How often the addresses of one were changed.
    pub readdressed: usize,
    /// How often one was deleted.
    pub released: usize,
}

/// The logs of a test's whole cluster, read for violations.
#[derive(Debug, Default)]
pub struct History {
    /// By the name of the port.
    pub lives: BTreeMap<String, Life>,
    /// The values under the epoch's key, as they came.
    pub epochs: Vec<String>,
    /// Transactions that wrote ports while there was no epoch.
    pub without_epoch: Vec<Committed>,
    /// Ports that are there, by UUID.
    present: BTreeMap<String, String>,
    epoch: Option<String>,
}

impl History {
    /// Reads the transactions, of which the first is the cluster's own first, for an instance of the service.
    pub fn of(committed: &[Committed], instance: &str) -> Self {
        let key = format!("ovn-kubevirt.io/epoch.{instance}");
        let mut this = Self::default();
        for transaction in committed {
            let rows = |table: &str| transaction.get(table).and_then(Value::as_object).into_iter().flatten();
            // Before the ports: a leader that writes at once has an epoch.
            rows("NB_Global").for_each(|(_, row)| this.see_global(row, &key));
            rows("Logical_Switch_Port").for_each(|(uuid, row)| this.see_port(uuid, row));
            if this.epoch.is_none() && rows("Logical_Switch_Port").next().is_some() {
                this.without_epoch.push(transaction.clone());
            }
        }
        this
    }

    /// A map's difference has the keys that came, with their values, those that went, with theirs, and those whose
    /// value is another now, with the new one.
    fn see_global(&mut self, row: &Value, key: &str) {
        let pairs = row["external_ids"][1].as_array().into_iter().flatten();
        for value in pairs.filter(|pair| pair[0] == key).filter_map(|pair| pair[1].as_str()) {
            if self.epoch.as_deref() == Some(value) {
                self.epoch = None;
            } else {
                self.epoch = Some(value.to_owned());
                self.epochs.push(value.to_owned());
            }
        }
    }

    fn see_port(&mut self, uuid: &str, row: &Value) {
        if let Some(name) = self.present.get(uuid) {
            let life = self.lives.entry(name.clone()).or_default();
            if row.is_null() {
                life.released += 1;
                self.present.remove(uuid);
            } else if row.get("addresses").is_some() {
                life.readdressed += 1;
            }
        } else if let Some(name) = row["name"].as_str() {
            self.lives.entry(name.to_owned()).or_default().made += 1;
            self.present.insert(uuid.to_owned(), name.to_owned());
        }
    }
}
