//! The change of a row of ours, and the operations that make it.
//!
//! A decision is a list of [`RowChange`]s, one for each row. Another type of row is another variant: the compiler then
//! names each place that has to say something about it. The effects on other VMs are in `claims` and `expectation`.

use std::borrow::Cow;

use uuid::Uuid;

use crate::ovn::{LogicalSwitch, LogicalSwitchPort, Northbound, PortRef, RequestedChassis};
use crate::ovsdb::{Datum, Map, Mutation, Mutator, Operation, Row};

/// The change of one row of ours, with all references to the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChange {
    /// A row of `Logical_Switch_Port`.
    Port(PortChange),
}

impl RowChange {
    /// The UUID of the row.
    pub fn uuid(&self) -> Uuid {
        match self {
            Self::Port(change) => change.uuid,
        }
    }

    /// The change of a port; `None` for a row of another type.
    pub fn as_port(&self) -> Option<&PortChange> {
        match self {
            Self::Port(change) => Some(change),
        }
    }

    /// Returns true if the change creates the row.
    pub fn creates(&self) -> bool {
        match self {
            Self::Port(change) => change.before.is_none(),
        }
    }

    /// Returns true if a replica has the row, in whatever state.
    pub fn is_present(&self, view: &Northbound) -> bool {
        match self {
            Self::Port(change) => view.port(&change.uuid).is_some(),
        }
    }

    /// Returns true if the row gets addresses that it did not have.
    pub fn takes_addresses(&self) -> bool {
        match self {
            Self::Port(change) => change.takes_addresses(),
        }
    }

    /// Returns true if a port with two chassis is bound to one, or to none.
    pub fn collapses(&self) -> bool {
        self.as_port().is_some_and(PortChange::collapses)
    }

    /// The operations of the change.
    pub fn operations(&self) -> Vec<Operation> {
        match self {
            Self::Port(change) => change.operations(),
        }
    }
}

impl From<PortChange> for RowChange {
    fn from(change: PortChange) -> Self {
        Self::Port(change)
    }
}

/// A port row on a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The switch that refers to it.
    pub switch: Uuid,
    /// The row.
    pub row: LogicalSwitchPort,
}

/// The change of one port: it is created, updated or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortChange {
    /// The UUID of the row.
    pub uuid: Uuid,
    /// As the replica has it.
    pub before: Option<Placed>,
    /// As it should be.
    pub after: Option<Placed>,
}

impl Placed {
    /// Returns true if a replica has the row just so, on this switch.
    pub(super) fn stands(&self, view: &Northbound, uuid: Uuid) -> bool {
        view.port(&uuid).is_some_and(|port| port.switch == Some(self.switch) && *port.row == self.row)
    }
}

/// One of our keys in `external_ids`, with its value; `None` removes the key.
pub(super) type Mark = (&'static str, Option<Cow<'static, str>>);

const PORT: &str = LogicalSwitchPort::TABLE.name;
const SWITCH: &str = LogicalSwitch::TABLE.name;

impl PortChange {
    /// Deletes a port; `None` if no switch refers to it any more: it is about to be collected.
    pub(super) fn removal(port: PortRef<'_>) -> Option<Self> {
        let before = Placed { switch: port.switch?, row: port.row.clone() };
        Some(Self { uuid: port.uuid, before: Some(before), after: None })
    }

    /// Replaces the row of a port that stays on its switch.
    pub(super) fn rewrite(port: PortRef<'_>, row: LogicalSwitchPort) -> Option<Self> {
        let switch = port.switch?;
        let before = Some(Placed { switch, row: port.row.clone() });
        Some(Self { uuid: port.uuid, before, after: Some(Placed { switch, row }) })
    }

    /// Returns true if the change has no effect.
    pub fn is_empty(&self) -> bool {
        self.before == self.after
    }

    /// Returns true if the row gets addresses on a switch that it did not have there.
    pub fn takes_addresses(&self) -> bool {
        let Some(after) = &self.after else { return false };
        let had = |before: &Placed| before.switch == after.switch && before.row.addresses == after.row.addresses;
        !after.row.addresses.is_empty() && !self.before.as_ref().is_some_and(had)
    }

    /// Returns true if a port with two chassis is bound to one, or to none.
    pub fn collapses(&self) -> bool {
        let two = |placed: &Option<Placed>| {
            placed.as_ref().is_some_and(|placed| RequestedChassis::of(&placed.row.options).is_list())
        };
        two(&self.before) && self.after.is_some() && !two(&self.after)
    }

    /// The operations of the change. Maps are written by key: keys of others stay, even if they were added after our
    /// replica was read.
    pub fn operations(&self) -> Vec<Operation> {
        match (&self.before, &self.after) {
            (None, None) => Vec::new(),
            (None, Some(after)) => vec![self.insert(&after.row), self.refer(after.switch, Mutator::Insert)],
            (Some(before), None) => {
                vec![self.refer(before.switch, Mutator::Delete), Operation::Delete { table: PORT, uuid: self.uuid }]
            }
            (Some(before), Some(after)) => {
                let mut operations = self.update(&before.row, &after.row);
                if before.switch != after.switch {
                    operations.push(self.refer(before.switch, Mutator::Delete));
                    operations.push(self.refer(after.switch, Mutator::Insert));
                }
                operations
            }
        }
    }

    /// A port is a non-root row: without its switch's reference it would be collected without an error.
    fn refer(&self, switch: Uuid, mutator: Mutator) -> Operation {
        let value = Datum::Set(vec![self.uuid.into()]);
        Operation::Mutate { table: SWITCH, uuid: switch, mutations: vec![Mutation { column: "ports", mutator, value }] }
    }

    fn insert(&self, row: &LogicalSwitchPort) -> Operation {
        // A new row of ours has no other columns. A column that is added to the type must be named here.
        let LogicalSwitchPort { name, kind: _, addresses, dynamic_addresses: _, port_security, options, external_ids } =
            row;
        let row = vec![
            ("name", Datum::One(name.as_str().into())),
            ("addresses", Datum::texts(addresses.iter())),
            ("port_security", Datum::texts(port_security.iter())),
            ("options", Datum::map(options.iter())),
            ("external_ids", Datum::map(external_ids.iter())),
        ];
        Operation::Insert { table: PORT, uuid: self.uuid, row }
    }

    fn update(&self, before: &LogicalSwitchPort, after: &LogicalSwitchPort) -> Vec<Operation> {
        let mut operations = Vec::new();
        let sets = [
            ("addresses", &before.addresses, &after.addresses),
            ("port_security", &before.port_security, &after.port_security),
        ];
        let changed = sets.into_iter().filter(|(_, before, after)| before != after);
        let mut row: Vec<_> = changed.map(|(column, _, after)| (column, Datum::texts(after.iter()))).collect();
        let texts = [("name", &before.name, &after.name), ("type", &before.kind, &after.kind)];
        let drifted = texts.into_iter().filter(|(_, before, after)| before != after);
        row.extend(drifted.map(|(column, _, after)| (column, Datum::One(after.as_str().into()))));
        if !row.is_empty() {
            operations.push(Operation::Update { table: PORT, uuid: self.uuid, row });
        }
        let mut mutations = mutations("options", &before.options, &after.options);
        let (before, after) = (before.external_ids.map(), after.external_ids.map());
        mutations.extend(self::mutations("external_ids", before, after));
        if !mutations.is_empty() {
            operations.push(Operation::Mutate { table: PORT, uuid: self.uuid, mutations });
        }
        operations
    }
}

/// Removes the keys that change or go, then adds those that change or come: `insert` leaves existing keys alone
/// (RFC 7047 section 5.1).
fn mutations(column: &'static str, before: &Map, after: &Map) -> Vec<Mutation> {
    let stale: Vec<&str> =
        before.iter().filter(|(key, value)| after.get(key) != Some(value)).map(|(key, _)| key).collect();
    let fresh: Vec<_> = after.iter().filter(|(key, value)| before.get(key) != Some(value)).collect();
    let mut mutations = Vec::new();
    if !stale.is_empty() {
        mutations.push(Mutation { column, mutator: Mutator::Delete, value: Datum::texts(stale) });
    }
    if !fresh.is_empty() {
        mutations.push(Mutation { column, mutator: Mutator::Insert, value: Datum::map(fresh) });
    }
    mutations
}
