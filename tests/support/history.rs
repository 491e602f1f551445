//! What a database server has committed, read from its own log: the file that it serves.
//!
//! An `ovsdb-server` appends each transaction to its file before it answers (ovsdb(5), "Standalone Database Format" and
//! "Clustered Database Format"), one record each and nothing merged, where a monitor is sent several at once when it is
//! slow. What was inserted, deleted and inserted again shows here even if nobody was there to see.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde_json::{Map, Value};

/// A place in a server's log.
#[derive(Debug, Clone)]
pub struct History {
    file: PathBuf,
    from: u64,
}

/// One committed transaction: tables, rows by UUID, and what changed in each. `null` is a deletion; the columns of a row
/// that was there before are differences (sets hold what came or went, maps what changed, with the new value).
pub type Committed = Map<String, Value>;

impl History {
    /// From now on.
    pub fn from_now(file: PathBuf) -> Self {
        let from = std::fs::metadata(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).len();
        Self { file, from }
    }

    /// What has been committed since, in its order: of a cluster, what its leader has in its log.
    ///
    /// # Panics
    /// When the file is no such log, or is a new one: the server compacts a log of more than 10 MB.
    pub fn committed(&self) -> Vec<Committed> {
        let mut file = File::open(&self.file).unwrap_or_else(|error| panic!("{}: {error}", self.file.display()));
        let length = file.metadata().expect("the length of an open file").len();
        assert!(length >= self.from, "{} was compacted: {length} bytes, {} before", self.file.display(), self.from);
        let mut text = String::new();
        file.seek(SeekFrom::Start(self.from)).expect("a place in the log");
        file.read_to_string(&mut text).expect("the log is text");
        let mut rest = text.as_str();
        let mut committed = Vec::new();
        while let Some((header, body)) = rest.split_once('\n') {
            let mut words = header.split(' ');
            let (format, size) = (words.nth(1), words.next().and_then(|size| size.parse().ok()));
            let size: usize = size.unwrap_or_else(|| panic!("no record: {header}"));
            // Without its end it is being written, and not committed.
            let Some((record, after)) = body.split_at_checked(size) else { break };
            rest = after;
            let record: Value = serde_json::from_str(record).unwrap_or_else(|error| panic!("{error}: {record}"));
            // A member of a cluster notes other things, too.
            let transaction = if format == Some("CLUSTER") { record["data"][1].clone() } else { record };
            let Value::Object(transaction) = transaction else { continue };
            let diff = transaction.get("_is_diff");
            assert_eq!(diff, Some(&Value::Bool(true)), "a server that logs whole columns: {transaction:?}");
            committed.push(transaction);
        }
        committed
    }
}
