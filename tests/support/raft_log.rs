//! What a RAFT cluster has committed, read from a member's own file.
//!
//! The file (ovsdb(5), "Clustered Database Format") is a log of records: a snapshot, entries with their index, and how
//! far is committed. It shows what a monitor does not: a row that came, went and came again between two looks.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

/// One committed transaction: tables, rows by UUID, and what changed in each. `null` is a deletion, a row that is new
/// has all its columns, and those of a row that was there before are differences.
pub type Committed = Map<String, Value>;

/// The transactions in a member's file, oldest first, without what is in its snapshot.
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

/// A record, `OVSDB CLUSTER <length> <SHA-1>` and the JSON on the next line, and what follows it. The last one may
/// still be being written.
fn next_record(bytes: &[u8]) -> Option<(Value, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let header = std::str::from_utf8(&bytes[..end]).expect("a record's header is text");
    let length = header.strip_prefix("OVSDB CLUSTER ").and_then(|rest| rest.split(' ').next()?.parse().ok());
    let length: usize = length.unwrap_or_else(|| panic!("no record of a cluster's log: {header:?}"));
    let (record, rest) = bytes[end + 1..].split_at_checked(length)?;
    let record = serde_json::from_slice(record).unwrap_or_else(|error| panic!("{error}: {header:?}"));
    Some((record, rest))
}
