//! A transaction serialized ahead of time: once the server is free, only its bytes have to be handed over.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::operation::{Leading, Operation, Outcome, Transaction, outcome};

/// A `transact` request without its number, and the data needed to read its reply.
#[derive(Debug)]
pub struct Draft {
    /// `{"method":"transact","params":[<database>,<operation>,...`
    bytes: Vec<u8>,
    /// Operations that are sent after the fence and before all others, each with a comma before it.
    guards: Vec<u8>,
    /// The position of the guards in `bytes`.
    guards_at: usize,
    leading: Leading,
    /// For each operation: true if it expects to find a row.
    expects_a_row: Vec<bool>,
    error: Option<serde_json::Error>,
}

impl Draft {
    /// An empty transaction, after a fence if there is one (see [`Transaction::fence`]).
    pub(super) fn new(database: &str, fence: Option<&Operation>) -> Self {
        let bytes = format!("{{\"method\":\"transact\",\"params\":[\"{database}\"").into_bytes();
        let leading = Leading { fence: fence.is_some(), guards: 0 };
        let mut draft =
            Self { bytes, guards: Vec::new(), guards_at: 0, leading, expects_a_row: Vec::new(), error: None };
        fence.into_iter().for_each(|fence| draft.write(fence));
        draft.guards_at = draft.bytes.len();
        draft
    }

    /// A whole transaction.
    pub(super) fn of(database: &str, transaction: &Transaction) -> Self {
        let mut draft = Self::new(database, transaction.fence.as_ref());
        transaction.operations.iter().for_each(|operation| draft.push(operation));
        draft
    }

    /// Adds an operation.
    pub fn push(&mut self, operation: &Operation) {
        self.write(operation);
        self.expects_a_row.push(operation.expects_a_row());
    }

    /// Adds a `wait` after the fence and before all other operations. If it fails, the outcome is [`Outcome::Raced`].
    pub fn guard(&mut self, wait: &Operation) {
        self.leading.guards += 1;
        self.guards.push(b',');
        self.error = serde_json::to_writer(&mut self.guards, wait).err().or(self.error.take());
    }

    /// The number of operations, without the fence and the guards.
    pub fn len(&self) -> usize {
        self.expects_a_row.len()
    }

    /// Returns true if there are no operations.
    pub fn is_empty(&self) -> bool {
        self.expects_a_row.is_empty()
    }

    fn write(&mut self, operation: &Operation) {
        self.bytes.push(b',');
        self.error = serde_json::to_writer(&mut self.bytes, operation).err().or(self.error.take());
    }

    /// Returns the request with this number, and the data needed to read its reply.
    ///
    /// # Errors
    /// If an operation could not be serialized.
    pub(super) fn request(self, id: u64) -> Result<(Bytes, Expected), serde_json::Error> {
        let Self { mut bytes, guards, guards_at, leading, expects_a_row, error } = self;
        match error {
            Some(error) => Err(error),
            None => {
                bytes.splice(guards_at..guards_at, guards);
                bytes.extend_from_slice(format!("],\"id\":{id}}}").as_bytes());
                Ok((Bytes::from(bytes), Expected { leading, expects_a_row }))
            }
        }
    }
}

/// The data needed to read the reply to a transaction.
#[derive(Debug)]
pub(super) struct Expected {
    leading: Leading,
    expects_a_row: Vec<bool>,
}

impl Expected {
    /// Reads the reply's result array.
    pub(super) fn outcome(&self, result: &RawValue) -> Outcome {
        outcome(self.leading, &self.expects_a_row, result)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_draft_is_written_as_the_protocol_has_it() {
        let delete = |uuid| Operation::Delete { table: "T", uuid: Uuid::from_u128(uuid) };
        let transaction = Transaction { fence: Some(delete(1)), operations: vec![delete(2), delete(3)] };
        let draft = Draft::of("D", &transaction);
        assert_eq!((draft.len(), draft.is_empty()), (2, false));
        let (bytes, expected) = draft.request(7).expect("a request");
        let request: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        let written = |uuid| serde_json::to_value(delete(uuid)).expect("JSON");
        let whole = serde_json::json!(
            {"id": 7, "method": "transact", "params": ["D", written(1), written(2), written(3)]});
        assert_eq!(request, whole);
        assert_eq!((expected.leading, expected.expects_a_row), (Leading { fence: true, guards: 0 }, vec![true, true]));
    }

    #[test]
    fn guards_go_after_the_fence_and_before_all_operations() {
        let delete = |uuid| Operation::Delete { table: "T", uuid: Uuid::from_u128(uuid) };
        for fence in [None, Some(delete(1))] {
            let mut draft = Draft::new("D", fence.as_ref());
            draft.push(&delete(4));
            draft.guard(&delete(2));
            draft.guard(&delete(3));
            assert_eq!(draft.len(), 1);
            let (bytes, expected) = draft.request(7).expect("a request");
            let request: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
            let first = if fence.is_some() { 1 } else { 2 };
            let operations = (first..=4).map(|uuid| serde_json::to_value(delete(uuid)).expect("JSON"));
            let params: Vec<_> = std::iter::once(serde_json::json!("D")).chain(operations).collect();
            assert_eq!(request["params"], serde_json::json!(params));
            assert_eq!(expected.leading, Leading { fence: fence.is_some(), guards: 2 });
        }
    }
}
