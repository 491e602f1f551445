//! The change of a row of `DNS`, and the operations that make it.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Records;
use crate::contract::keys;
use crate::ovn::{Dns, LogicalSwitch, Northbound};
use crate::ovsdb::{Datum, Map, Mutation, Mutator, Operation, Row};

const DNS: &str = Dns::TABLE.name;

/// The change of one row of ours, and of the reference of its switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamesChange {
    row: Uuid,
    /// The change of the row itself.
    operation: Option<Operation>,
    /// The switch that has to refer to it.
    refer: Option<Uuid>,
    /// The records that come, go or change.
    records: usize,
}

impl NamesChange {
    /// The row.
    pub fn row(&self) -> Uuid {
        self.row
    }

    /// The number of records that come, go or change.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Compares a row with the records that it should have, for the guests of a switch. `None` if it has them. A row without
    /// records is deleted.
    pub(super) fn of(view: &Northbound, row: Uuid, switch: Option<Uuid>, records: &Records) -> Option<Self> {
        let present = view.dns(&row);
        let Some(switch) = switch.filter(|_| !records.is_empty()) else {
            // References to it are weak: the server removes them with the row.
            let gone = present?.records.iter().count();
            let operation = Some(Operation::Delete { table: DNS, uuid: row });
            return Some(Self { row, operation, refer: None, records: gone });
        };
        let marks = [(keys::VENDOR, keys::OUR_VENDOR), (keys::INSTANCE, view.instance())];
        let options: &[(&str, &str)] = if view.has_dns_options() { &[(keys::OVN_OWNED, "true")] } else { &[] };
        let (operation, changed) = match present {
            None => (Some(insert(row, records, &marks, options)), records.len()),
            Some(present) => update(row, present, records, &marks, options),
        };
        let is_referred = view.switch(&switch).is_some_and(|switch| switch.dns_records.contains(&row));
        let refer = (!is_referred).then_some(switch);
        (operation.is_some() || refer.is_some()).then_some(Self { row, operation, refer, records: changed })
    }
}

/// The operations of all changes: one for each row, and one for each switch with new references. References of others stay.
pub fn operations(changes: &[NamesChange]) -> Vec<Operation> {
    let mut operations: Vec<Operation> = changes.iter().filter_map(|change| change.operation.clone()).collect();
    let mut references: BTreeMap<Uuid, BTreeSet<Uuid>> = BTreeMap::new();
    for change in changes {
        if let Some(switch) = change.refer {
            references.entry(switch).or_default().insert(change.row);
        }
    }
    operations.extend(references.into_iter().map(|(switch, rows)| {
        let value = Datum::Set(rows.into_iter().map(Into::into).collect());
        let mutation = Mutation { column: "dns_records", mutator: Mutator::Insert, value };
        Operation::Mutate { table: LogicalSwitch::TABLE.name, uuid: switch, mutations: vec![mutation] }
    }));
    operations
}

fn insert(row: Uuid, records: &Records, marks: &[(&str, &str)], options: &[(&str, &str)]) -> Operation {
    let mut columns = vec![
        ("records", Datum::map(records.iter().map(|(name, value)| (name.as_str(), value.as_str())))),
        ("external_ids", Datum::map(marks.iter().copied())),
    ];
    if !options.is_empty() {
        columns.push(("options", Datum::map(options.iter().copied())));
    }
    Operation::Insert { table: DNS, uuid: row, row: columns }
}

/// The keys that differ, written one by one. Every record of our row is ours; of its other columns our keys alone.
fn update(
    uuid: Uuid,
    present: &Dns,
    records: &Records,
    marks: &[(&str, &str)],
    options: &[(&str, &str)],
) -> (Option<Operation>, usize) {
    let Dns { records: written, options: present_options, external_ids } = present;
    let wanted = |key: &str| records.get(key).map(String::as_str);
    let written: BTreeMap<&str, &str> = written.iter().collect();
    let stale: Vec<&str> =
        written.iter().filter(|(key, value)| wanted(key) != Some(**value)).map(|(key, _)| *key).collect();
    let fresh: Vec<(&str, &str)> = records.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let fresh: Vec<_> = fresh.into_iter().filter(|(key, value)| written.get(key) != Some(value)).collect();
    let names: BTreeSet<&str> = stale.iter().copied().chain(fresh.iter().map(|(key, _)| *key)).collect();
    let changed = names.len();
    let mut mutations = replace("records", stale, fresh);
    for (column, present, wanted) in [("external_ids", external_ids, marks), ("options", present_options, options)] {
        let (stale, fresh) = drifted(present, wanted);
        mutations.extend(replace(column, stale, fresh));
    }
    let operation = (!mutations.is_empty()).then_some(Operation::Mutate { table: DNS, uuid, mutations });
    (operation, changed)
}

/// The keys that have another value, and all that lack it.
fn drifted<'a>(present: &Map, wanted: &[(&'a str, &'a str)]) -> (Vec<&'a str>, Vec<(&'a str, &'a str)>) {
    let lacking: Vec<_> = wanted.iter().copied().filter(|(key, value)| present.get(key) != Some(value)).collect();
    let stale = lacking.iter().map(|(key, _)| *key).filter(|key| present.get(key).is_some()).collect();
    (stale, lacking)
}

/// Removes keys, then adds pairs: `insert` leaves existing keys alone (RFC 7047 section 5.1).
fn replace(column: &'static str, stale: Vec<&str>, fresh: Vec<(&str, &str)>) -> Vec<Mutation> {
    let delete = (!stale.is_empty()).then(|| Mutation { column, mutator: Mutator::Delete, value: Datum::texts(stale) });
    let insert = (!fresh.is_empty()).then(|| Mutation { column, mutator: Mutator::Insert, value: Datum::map(fresh) });
    delete.into_iter().chain(insert).collect()
}
