//! A change of one interface as operations: two keys of `Interface:external_ids`, and guards.

use uuid::Uuid;

use super::Mark;
use crate::contract::keys;
use crate::ovsdb::{Condition, Datum, Function, Map, Mutation, Mutator, Operation, Until};

const INTERFACE: &str = "Interface";
const PORT: &str = "Port";
const EXTERNAL_IDS: &str = "external_ids";

/// A change of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The interface's row.
    pub interface: Uuid,
    /// Its name, for the log.
    pub name: String,
    /// Its `external_ids` as they were read: the change is refused if they differ by then.
    pub seen: Map,
    /// The edit.
    pub edit: Edit,
}

/// An edit of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// The `iface-id` is set to the port, and marked. One that is there was set by this service.
    Set {
        /// The pod and the port.
        mark: Mark,
        /// The port's row in the local database, and the pod's interface that it is for.
        plugged: (Uuid, String),
    },
    /// The mark is removed, and with it the `iface-id` that this service has set, if it still stands.
    Remove {
        /// The mark.
        mark: Mark,
    },
}

impl Change {
    /// Its name in logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self.edit {
            Edit::Set { .. } => "set",
            Edit::Remove { .. } => "removed",
        }
    }

    /// The pod and the port.
    pub fn mark(&self) -> &Mark {
        match &self.edit {
            Edit::Set { mark, .. } | Edit::Remove { mark } => mark,
        }
    }

    /// The guards: the row is the one that was read, and still belongs to that pod.
    pub fn guards(&self) -> Vec<Operation> {
        let seen = Operation::Wait {
            table: INTERFACE,
            conditions: vec![Condition::row(self.interface)],
            columns: vec![EXTERNAL_IDS],
            until: Until::Equal,
            rows: vec![vec![(EXTERNAL_IDS, Datum::map(self.seen.iter()))]],
        };
        let Edit::Set { mark, plugged: (port, pod_interface) } = &self.edit else { return vec![seen] };
        let includes = |column, value| Condition { column, function: Function::Includes, value };
        let of_pod = Datum::map([(keys::POD_UID, mark.pod_uid.as_str()), (keys::POD_INTERFACE, pod_interface)]);
        let plugged = Operation::Wait {
            table: PORT,
            conditions: vec![
                Condition::row(*port),
                includes("interfaces", Datum::Set(vec![self.interface.into()])),
                includes(EXTERNAL_IDS, of_pod),
            ],
            columns: vec!["_uuid"],
            until: Until::NotEqual,
            rows: Vec::new(),
        };
        vec![seen, plugged]
    }

    /// The write: by key, without any other key.
    pub fn operation(&self) -> Operation {
        let mut mutations = Vec::new();
        let present: Vec<&str> =
            [keys::IFACE_ID, keys::NODE_MARK].into_iter().filter(|key| self.is_replaced(key)).collect();
        if !present.is_empty() {
            let value = Datum::texts(present);
            mutations.push(Mutation { column: EXTERNAL_IDS, mutator: Mutator::Delete, value });
        }
        if let Edit::Set { mark, .. } = &self.edit {
            let value = Datum::map([(keys::IFACE_ID, mark.port.as_str()), (keys::NODE_MARK, &mark.to_string())]);
            mutations.push(Mutation { column: EXTERNAL_IDS, mutator: Mutator::Insert, value });
        }
        Operation::Mutate { table: INTERFACE, uuid: self.interface, mutations }
    }

    /// Returns true if a key is there and goes. An `iface-id` that another program has set stays.
    fn is_replaced(&self, key: &str) -> bool {
        let Some(value) = self.seen.get(key) else { return false };
        match &self.edit {
            Edit::Set { .. } => true,
            Edit::Remove { mark } => key == keys::NODE_MARK || value == mark.port,
        }
    }
}
