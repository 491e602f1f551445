//! The committed transactions of a database server, read from its own log: the file that it serves.
//!
//! An `ovsdb-server` appends each transaction to its file before it answers (ovsdb(5), "Standalone Database Format" and
//! "Clustered Database Format"), one record each, where a monitor is sent several at once when it is
//! slow. A row that was inserted, deleted and inserted again shows here even if no client saw it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde_json::Value;

use super::raft_log::{Committed, next_record};

/// A place in a server's log.
#[derive(Debug, Clone)]
pub struct History {
    file: PathBuf,
    from: u64,
}

impl History {
    /// From now on.
    pub fn from_now(file: PathBuf) -> Self {
        let from = std::fs::metadata(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).len();
        Self { file, from }
    }

    /// The transactions that have been committed since, in their order: of a cluster, those in its leader's log.
    ///
    /// # Panics
    /// When the file is no such log, or is a new one: the server compacts a log of more than 10 MB.
    pub fn committed(&self) -> Vec<Committed> {
        let mut file = File::open(&self.file).unwrap_or_else(|error| panic!("{}: {error}", self.file.display()));
        let length = file.metadata().expect("the length of an open file").len();
        assert!(length >= self.from, "{} was compacted: {length} bytes, {} before", self.file.display(), self.from);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.from)).expect("a place in the log");
        file.read_to_end(&mut bytes).expect("the log can be read");
        let (mut rest, mut committed) = (bytes.as_slice(), Vec::new());
        while let Some((record, after)) = next_record(rest) {
            rest = after;
            // A member of a cluster notes other things, too.
            let transaction = if record.get("_date").is_some() { record } else { record["data"][1].clone() };
            let Value::Object(transaction) = transaction else { continue };
            let diff = transaction.get("_is_diff");
            assert_eq!(diff, Some(&Value::Bool(true)), "a server that logs whole columns: {transaction:?}");
            committed.push(transaction);
        }
        committed
    }
}
