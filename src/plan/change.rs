//! The change of a row of ours, and the operations that make it.
//!
//! A decision is a list of [`RowChange`]s, one for each row. Another type of row is another variant: the compiler then
//! names each place that has to say something about it. The effects on other VMs are in `claims` and `expectation`.

use std::borrow::Cow;

use uuid::Uuid;

use crate::ovn::{
    DhcpOptions, LogicalRouterPort, LogicalSwitch, LogicalSwitchPort, Northbound, PortRef, RequestedChassis,
};
use crate::ovsdb::{Condition, Datum, Function, Map, Mutation, Mutator, Operation, Row, Until};

/// The change of one row of ours, with all references to the row; or of keys that a row of others lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly every change is that of a port")]
pub enum RowChange {
    /// A row of `Logical_Switch_Port`.
    Port(PortChange),
    /// Keys of a row of `Logical_Router_Port`.
    RouterPort(RouterPortChange),
    /// A row of `DHCP_Options`.
    Dhcp(DhcpChange),
}

/// Keys of `ipv6_ra_configs` that the router port of a switch lacks, by `--manage-ra`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterPortChange {
    /// The UUID of the row.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// The keys, with their values.
    pub add: Vec<(&'static str, String)>,
}

impl RouterPortChange {
    /// Returns true if a replica has the keys, with whatever values.
    pub(super) fn stands(&self, view: &Northbound) -> bool {
        let row = view.router_port(&self.uuid);
        row.is_some_and(|row| self.add.iter().all(|(key, _)| row.ipv6_ra_configs.get(key).is_some()))
    }

    /// An insert leaves a key alone that another program has added since (RFC 7047 section 5.1).
    fn operation(&self) -> Operation {
        let value = Datum::map(self.add.iter().map(|(key, value)| (*key, value.as_str())));
        let mutations = vec![Mutation { column: "ipv6_ra_configs", mutator: Mutator::Insert, value }];
        Operation::Mutate { table: LogicalRouterPort::TABLE.name, uuid: self.uuid, mutations }
    }
}

impl RowChange {
    /// The UUID of the row.
    pub fn uuid(&self) -> Uuid {
        match self {
            Self::Port(change) => change.uuid,
            Self::RouterPort(change) => change.uuid,
            Self::Dhcp(change) => change.uuid,
        }
    }

    /// The change of a port; `None` for a row of another type.
    pub fn as_port(&self) -> Option<&PortChange> {
        match self {
            Self::Port(change) => Some(change),
            Self::RouterPort(_) | Self::Dhcp(_) => None,
        }
    }

    /// Returns true if the change creates the row.
    pub fn creates(&self) -> bool {
        match self {
            Self::Port(change) => change.before.is_none(),
            Self::RouterPort(_) => false,
            Self::Dhcp(change) => change.before.is_none(),
        }
    }

    /// Returns true if a replica has the row, in whatever state.
    pub fn is_present(&self, view: &Northbound) -> bool {
        match self {
            Self::Port(change) => view.port(&change.uuid).is_some(),
            Self::RouterPort(change) => view.router_port(&change.uuid).is_some(),
            Self::Dhcp(change) => view.dhcp_row(&change.uuid).is_some(),
        }
    }

    /// Returns true if the row gets addresses that it did not have.
    pub fn takes_addresses(&self) -> bool {
        match self {
            Self::Port(change) => change.takes_addresses(),
            Self::RouterPort(_) | Self::Dhcp(_) => false,
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
            Self::RouterPort(change) => vec![change.operation()],
            Self::Dhcp(change) => change.operations(),
        }
    }
}

impl From<PortChange> for RowChange {
    fn from(change: PortChange) -> Self {
        Self::Port(change)
    }
}

impl From<DhcpChange> for RowChange {
    fn from(change: DhcpChange) -> Self {
        Self::Dhcp(change)
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

    /// Returns true if a port that exists gets another `requested-chassis`.
    pub fn rebinds(&self) -> bool {
        let (Some(before), Some(after)) = (&self.before, &self.after) else { return false };
        RequestedChassis::of(&before.row.options) != RequestedChassis::of(&after.row.options)
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
        let LogicalSwitchPort { name, kind: _, addresses, dynamic_addresses: _, port_security, .. } = row;
        let LogicalSwitchPort { options, external_ids, dhcpv4_options, dhcpv6_options, .. } = row;
        let mut row = vec![
            ("name", Datum::One(name.as_str().into())),
            ("addresses", Datum::texts(addresses.iter())),
            ("port_security", Datum::texts(port_security.iter())),
            ("options", Datum::map(options.iter())),
            ("external_ids", Datum::map(external_ids.iter())),
        ];
        let references = [("dhcpv4_options", dhcpv4_options), ("dhcpv6_options", dhcpv6_options)];
        row.extend(references.into_iter().filter(|(_, to)| to.is_some()).map(|(column, to)| (column, reference(*to))));
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
        let references = [
            ("dhcpv4_options", before.dhcpv4_options, after.dhcpv4_options),
            ("dhcpv6_options", before.dhcpv6_options, after.dhcpv6_options),
        ];
        let changed = references.into_iter().filter(|(_, before, after)| before != after);
        row.extend(changed.map(|(column, _, after)| (column, reference(after))));
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

/// A reference, or none.
fn reference(to: Option<Uuid>) -> Datum {
    Datum::Set(to.into_iter().map(Into::into).collect())
}

/// The change of one row of `DHCP_Options`: it is created, restored after another program has edited it, or deleted.
/// Its UUID stands for its content, so a row never gets another content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpChange {
    /// The UUID of the row.
    pub uuid: Uuid,
    /// As the replica has it.
    pub before: Option<DhcpOptions>,
    /// As it should be.
    pub after: Option<DhcpOptions>,
}

const DHCP: &str = DhcpOptions::TABLE.name;

impl DhcpChange {
    /// Deletes a row of ours, if there is one.
    pub fn removal(view: &Northbound, uuid: Uuid) -> Option<Self> {
        let before = view.dhcp_row(&uuid).filter(|_| view.is_our_dhcp_row(&uuid))?.clone();
        Some(Self { uuid, before: Some(before), after: None })
    }

    /// The operations of the change.
    pub fn operations(&self) -> Vec<Operation> {
        let Self { uuid, before, after } = self;
        let uuid = *uuid;
        match (before, after) {
            (None, None) => Vec::new(),
            (None, Some(DhcpOptions { cidr, options, external_ids })) => {
                let row = vec![
                    ("cidr", Datum::One(cidr.as_str().into())),
                    ("options", Datum::map(options.iter())),
                    ("external_ids", Datum::map(external_ids.iter())),
                ];
                vec![Operation::Insert { table: DHCP, uuid, row }]
            }
            (Some(_), None) => vec![Operation::Delete { table: DHCP, uuid }],
            (Some(before), Some(after)) => {
                // An option that another program has added may take DHCP from all ports of the row.
                let cidr = ("cidr", Datum::One(after.cidr.as_str().into()));
                let row = vec![cidr, ("options", Datum::map(after.options.iter()))];
                let mutations = mutations("external_ids", &before.external_ids, &after.external_ids);
                let marks = (!mutations.is_empty()).then_some(Operation::Mutate { table: DHCP, uuid, mutations });
                [Operation::Update { table: DHCP, uuid, row }].into_iter().chain(marks).collect()
            }
        }
    }

    /// The waits that fail a deletion while a port refers to the row: the reference is weak, and would be dropped without
    /// an error.
    pub fn guards(&self) -> Vec<Operation> {
        let Self { uuid, before: _, after: None } = self else { return Vec::new() };
        let unused = |column| Operation::Wait {
            table: PORT,
            conditions: vec![Condition { column, function: Function::Equal, value: reference(Some(*uuid)) }],
            columns: vec!["name"],
            until: Until::Equal,
            rows: Vec::new(),
        };
        ["dhcpv4_options", "dhcpv6_options"].map(unused).into()
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
