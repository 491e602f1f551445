//! Transactions: operations as data, and their results as types (RFC 7047 sections 4.1.3 and 5.2).
//!
//! Pure: a decision consists of these, and only the connection sends them.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::column::WireUuid;

/// One value inside a [`Datum`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Atom {
    /// A string.
    Text(String),
    /// A reference to a row.
    Uuid(Uuid),
    /// An integer.
    Integer(i64),
}

impl From<&str> for Atom {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Cow<'_, str>> for Atom {
    fn from(text: Cow<'_, str>) -> Self {
        Self::Text(text.into_owned())
    }
}

impl From<i64> for Atom {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}

impl From<Uuid> for Atom {
    fn from(uuid: Uuid) -> Self {
        Self::Uuid(uuid)
    }
}

impl Serialize for Atom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Uuid(uuid) => ("uuid", uuid).serialize(serializer),
            Self::Integer(integer) => serializer.serialize_i64(*integer),
        }
    }
}

/// A column's value in an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datum {
    /// A scalar.
    One(Atom),
    /// A set, or an optional value.
    Set(Vec<Atom>),
    /// A map of strings.
    Map(Vec<(String, String)>),
}

impl Datum {
    /// A set of strings.
    pub fn texts<T>(texts: impl IntoIterator<Item = T>) -> Self
    where
        Atom: From<T>,
    {
        Self::Set(texts.into_iter().map(Atom::from).collect())
    }
    /// A map of strings.
    pub fn map<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::Map(pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }
}

impl Serialize for Datum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(atom) => atom.serialize(serializer),
            Self::Set(atoms) => ("set", atoms).serialize(serializer),
            Self::Map(pairs) => ("map", pairs).serialize(serializer),
        }
    }
}

/// A column with its value.
pub type ColumnValue = (&'static str, Datum);

/// The comparison of a condition (RFC 7047 section 5.1, `<function>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// `==`
    Equal,
    /// `includes`
    Includes,
}

/// A clause of `where`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The column.
    pub column: &'static str,
    /// The comparison.
    pub function: Function,
    /// The value to compare with.
    pub value: Datum,
}

impl Condition {
    /// `_uuid == row`: the only clause that every server looks up in an index.
    pub fn row(uuid: Uuid) -> Self {
        Self { column: "_uuid", function: Function::Equal, value: Datum::One(uuid.into()) }
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let function = match self.function {
            Function::Equal => "==",
            Function::Includes => "includes",
        };
        (self.column, function, &self.value).serialize(serializer)
    }
}

/// The kind of a mutation (RFC 7047 section 5.1, `<mutator>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutator {
    /// Adds elements. Keys that a map already has keep their values.
    Insert,
    /// Removes elements; for a map a set of keys.
    Delete,
    /// Adds to an integer.
    Add,
}

/// One change of one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// The column.
    pub column: &'static str,
    /// The kind of change.
    pub mutator: Mutator,
    /// The operand.
    pub value: Datum,
}

impl Serialize for Mutation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mutator = match self.mutator {
            Mutator::Insert => "insert",
            Mutator::Delete => "delete",
            Mutator::Add => "+=",
        };
        (self.column, mutator, &self.value).serialize(serializer)
    }
}

/// The condition of a `wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

/// One operation. A write names its row by `_uuid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A new row with a UUID that we chose, so that a repetition fails instead of adding a second row.
    Insert {
        /// The table.
        table: &'static str,
        /// The row's UUID.
        uuid: Uuid,
        /// Columns with other values than the default.
        row: Vec<ColumnValue>,
    },
    /// New values for columns of a row.
    Update {
        /// The table.
        table: &'static str,
        /// The row.
        uuid: Uuid,
        /// The columns.
        row: Vec<ColumnValue>,
    },
    /// Changes inside sets and maps of a row, in this order.
    Mutate {
        /// The table.
        table: &'static str,
        /// The row.
        uuid: Uuid,
        /// The changes.
        mutations: Vec<Mutation>,
    },
    /// Deletes a row.
    Delete {
        /// The table.
        table: &'static str,
        /// The row.
        uuid: Uuid,
    },
    /// The transaction fails at once (`timeout: 0`) unless the rows found are (or are not) these.
    Wait {
        /// The table.
        table: &'static str,
        /// The rows to find.
        conditions: Vec<Condition>,
        /// The columns compared.
        columns: Vec<&'static str>,
        /// The comparison.
        until: Until,
        /// The rows to compare with.
        rows: Vec<Vec<ColumnValue>>,
    },
    /// Reads rows.
    Select {
        /// The rows to find.
        table: &'static str,
        /// The rows to find.
        conditions: Vec<Condition>,
        /// The columns to read.
        columns: Vec<&'static str>,
    },
}

impl Operation {
    /// Returns true if a result of `count: 0` means that the row no longer existed.
    pub(super) fn expects_a_row(&self) -> bool {
        matches!(self, Self::Update { .. } | Self::Mutate { .. } | Self::Delete { .. })
    }
}

/// A row object: columns with values.
struct RowObject<'a>(&'a [ColumnValue]);

impl Serialize for RowObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(column, value)| (column, value)))
    }
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Insert { table, uuid, row } => {
                map.serialize_entry("op", "insert")?;
                map.serialize_entry("table", table)?;
                map.serialize_entry("uuid", uuid)?;
                map.serialize_entry("row", &RowObject(row))?;
            }
            Self::Update { table, uuid, row } => {
                map.serialize_entry("op", "update")?;
                map.serialize_entry("table", table)?;
                map.serialize_entry("where", &[Condition::row(*uuid)])?;
                map.serialize_entry("row", &RowObject(row))?;
            }
            Self::Mutate { table, uuid, mutations } => {
                map.serialize_entry("op", "mutate")?;
                map.serialize_entry("table", table)?;
                map.serialize_entry("where", &[Condition::row(*uuid)])?;
                map.serialize_entry("mutations", mutations)?;
            }
            Self::Delete { table, uuid } => {
                map.serialize_entry("op", "delete")?;
                map.serialize_entry("table", table)?;
                map.serialize_entry("where", &[Condition::row(*uuid)])?;
            }
            Self::Wait { table, conditions, columns, until, rows } => {
                let rows: Vec<RowObject<'_>> = rows.iter().map(|row| RowObject(row)).collect();
                map.serialize_entry("op", "wait")?;
                map.serialize_entry("timeout", &0)?;
                map.serialize_entry("table", table)?;
                map.serialize_entry("where", conditions)?;
                map.serialize_entry("columns", columns)?;
                map.serialize_entry("until", if *until == Until::Equal { "==" } else { "!=" })?;
                map.serialize_entry("rows", &rows)?;
            }
            Self::Select { table, conditions, columns } => {
                map.serialize_entry("op", "select")?;
                map.serialize_entry("table", table)?;
                map.serialize_entry("where", conditions)?;
                map.serialize_entry("columns", columns)?;
            }
        }
        map.end()
    }
}

/// Operations that commit together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    /// A `wait` that goes first. If it fails, the outcome is [`Outcome::Fenced`].
    pub fence: Option<Operation>,
    /// The operations.
    pub operations: Vec<Operation>,
}

/// The operations before a transaction's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leading {
    /// True if there is a fence.
    pub(super) fence: bool,
    /// The number of guards.
    pub(super) guards: usize,
}

/// Reads the result array of a transaction's reply. `expects_a_row` is given for each operation, without the leading
/// ones.
pub(super) fn outcome(leading: Leading, expects_a_row: &[bool], result: &RawValue) -> Outcome {
    let results: Vec<Option<RawResult>> = match serde_json::from_str(result.get()) {
        Ok(results) => results,
        Err(error) => {
            return Outcome::Unknown(format!("the server's reply to a transaction is unreadable: {error}"));
        }
    };
    let Leading { fence, guards } = leading;
    let before = usize::from(fence) + guards;
    let failed = results.iter().position(|result| result.as_ref().is_some_and(|result| result.error.is_some()));
    if let Some(index) = failed {
        let RawResult { error, details, .. } = results.into_iter().nth(index).flatten().unwrap_or_default();
        let kind = RejectionKind::from(error.unwrap_or_default());
        if index < before && kind == RejectionKind::TimedOut {
            return if fence && index == 0 { Outcome::Fenced } else { Outcome::Raced };
        }
        // A result after those of all operations is the commit's own (RFC 7047 section 4.1.3).
        let operation = index.checked_sub(before).filter(|index| *index < expects_a_row.len());
        return Outcome::Rejected(Rejection { operation, kind, details: details.unwrap_or_default() });
    }
    let results: Vec<OperationResult> = results.into_iter().skip(before).map(OperationResult::from).collect();
    let missed = expects_a_row
        .iter()
        .zip(&results)
        .enumerate()
        .filter(|(_, (expects, result))| **expects && result.count == 0)
        .map(|(index, _)| index)
        .collect();
    Outcome::Committed { results, missed }
}

#[derive(Default, serde::Deserialize)]
struct RawResult {
    #[serde(default)]
    count: u64,
    #[serde(default)]
    uuid: Option<WireUuid>,
    #[serde(default)]
    rows: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    details: Option<String>,
}

/// The result of one operation of a committed transaction.
#[derive(Debug, Default)]
pub struct OperationResult {
    /// Rows that an update, mutate or delete found.
    pub count: u64,
    /// The row that an insert made.
    pub uuid: Option<Uuid>,
    rows: Option<Box<RawValue>>,
}

impl From<Option<RawResult>> for OperationResult {
    fn from(raw: Option<RawResult>) -> Self {
        let RawResult { count, uuid, rows, error: _, details: _ } = raw.unwrap_or_default();
        Self { count, uuid: uuid.map(|WireUuid(uuid)| uuid), rows }
    }
}

impl OperationResult {
    /// The rows that a select found.
    pub fn rows<T: serde::de::DeserializeOwned>(&self) -> Result<Vec<T>, serde_json::Error> {
        serde_json::from_str(self.rows.as_ref().map_or("[]", |rows| rows.get()))
    }
}

/// The outcome of a transaction.
#[derive(Debug)]
pub enum Outcome {
    /// It is in the database and, on the session that sent it, in the replica.
    Committed {
        /// One result for each operation.
        results: Vec<OperationResult>,
        /// Operations that found no row: it had been deleted before. An insert that relied on one of them (a port on
        /// its switch) was garbage collected without an error.
        missed: Vec<usize>,
    },
    /// The server refused it and made no change.
    Rejected(Rejection),
    /// The fence failed: another process has a newer epoch. The transaction made no change.
    Fenced,
    /// A guard failed: rows that the transaction relies on have changed. The transaction made no change.
    Raced,
    /// It was not sent: the connection had ended before.
    NotSent,
    /// The connection or the caller went away before the reply came: the transaction may have committed, or may still
    /// commit. It must not be sent again blindly.
    Unknown(String),
}

/// A server's refusal of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct Rejection {
    /// The index of the failed operation; `None` for an error at commit time.
    pub operation: Option<usize>,
    /// The kind of error.
    pub kind: RejectionKind,
    /// The server's details.
    pub details: String,
}

/// The `error` member of a result (RFC 7047 sections 3.1 and 5.2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RejectionKind {
    /// A column's constraint or a unique index.
    #[error("constraint violation")]
    ConstraintViolation,
    /// A strong reference would dangle.
    #[error("referential integrity violation")]
    ReferentialIntegrity,
    /// An insert's UUID exists already.
    #[error("duplicate uuid")]
    DuplicateUuid,
    /// A `wait` failed.
    #[error("timed out")]
    TimedOut,
    /// The role has no permission (ovsdb-server(7), RBAC).
    #[error("permission error")]
    Permission,
    /// Any other error.
    #[error("{0}")]
    Other(String),
}

impl From<String> for RejectionKind {
    fn from(error: String) -> Self {
        match error.as_str() {
            "constraint violation" => Self::ConstraintViolation,
            "referential integrity violation" => Self::ReferentialIntegrity,
            "duplicate uuid" => Self::DuplicateUuid,
            "timed out" => Self::TimedOut,
            "permission error" => Self::Permission,
            _ => Self::Other(error),
        }
    }
}

#[cfg(test)]
mod tests;
