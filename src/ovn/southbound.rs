//! The southbound replica: the chassis, and the binding of each port. Read only.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use serde::de::{IgnoredAny, MapAccess};
use uuid::Uuid;

use super::features::Multichassis;
use super::rows::{Chassis, PortBinding};
use crate::contract::keys;
use crate::ovsdb::{OptionalColumn, Replica, Row, Schema, Table, TableSpec, Watcher};

/// The southbound database as far as we read it.
#[derive(Debug, Default)]
pub struct Southbound {
    chassis: Table<Chassis>,
    bindings: Table<PortBinding>,
    /// `Port_Binding.logical_port` is unique (an index in ovn-sb(5)).
    by_port: HashMap<String, Uuid>,
    /// Chassis by name, by hostname and by the hostname's first label.
    by_name: HashMap<String, BTreeSet<Uuid>>,
    changes: SouthboundChanges,
    multichassis: Multichassis,
}

/// The chassis of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeChassis<'a> {
    /// One, by its name.
    One(&'a str),
    /// No row has the node's name.
    Absent,
    /// Several rows match equally well, by their names in order: a node that was reinstalled leaves a stale one.
    Several(Vec<&'a str>),
}

/// The changes since they were last taken.
#[derive(Debug, Default)]
pub struct SouthboundChanges {
    /// Ports with a binding that was added, changed or removed.
    pub ports: HashSet<String>,
    /// Names, and hostnames in full and short, of chassis that were added, changed or removed.
    pub chassis: HashSet<String>,
}

/// The binding of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// On no chassis.
    Nowhere,
    /// On one.
    On {
        /// The chassis.
        chassis: String,
        /// True if its traffic flows.
        up: bool,
    },
    /// On its chassis, and prepared on another.
    Moving {
        /// The present chassis.
        from: String,
        /// The additional chassis.
        to: Vec<String>,
        /// The other has seen the guest.
        activated: bool,
    },
}

impl fmt::Display for Bound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => formatter.write_str("not bound"),
            Self::On { chassis, up: true } => write!(formatter, "on {chassis}"),
            Self::On { chassis, up: false } => write!(formatter, "on {chassis} (not up)"),
            Self::Moving { from, to, activated } => {
                let progress = if *activated { "activated" } else { "waiting for the guest" };
                write!(formatter, "moving {from} -> {} ({progress})", to.join(","))
            }
        }
    }
}

impl Southbound {
    /// The number of chassis.
    pub fn chassis_count(&self) -> usize {
        self.chassis.len()
    }

    /// The support for `options:requested-chassis` on this OVN.
    pub fn multichassis(&self) -> Multichassis {
        self.multichassis
    }

    /// The chassis of a node: the one with its name, else with its hostname, else with its short hostname.
    pub fn chassis_of_node(&self, node: &str) -> NodeChassis<'_> {
        type Fits = fn(&Chassis, &str) -> bool;
        let alone = short(node);
        let tiers: [(&str, Fits); 4] = [
            (node, |chassis, node| chassis.name == node),
            (node, |chassis, node| chassis.hostname == node),
            (node, |chassis, node| short(&chassis.hostname) == node),
            // A node known by its full name may have a chassis known by the short one, but not one of another domain.
            (alone, |chassis, alone| chassis.hostname == alone),
        ];
        for (name, fits) in tiers {
            let mut fitting = self.called(name).filter(|chassis| fits(chassis, name)).map(|row| row.name.as_str());
            let Some(first) = fitting.next() else { continue };
            let Some(second) = fitting.next() else { return NodeChassis::One(first) };
            let mut all: Vec<&str> = [first, second].into_iter().chain(fitting).collect();
            all.sort_unstable();
            return NodeChassis::Several(all);
        }
        NodeChassis::Absent
    }

    /// Returns true if northd finds a row by this word of `requested-chassis`: by name or hostname.
    pub fn has_chassis(&self, name: &str) -> bool {
        self.called(name).any(|chassis| chassis.name == name || chassis.hostname == name)
    }

    /// The name of the chassis that has claimed a port.
    pub fn chassis_of_port(&self, port: &str) -> Option<&str> {
        let chassis = self.bindings.get(self.by_port.get(port)?)?.chassis?;
        self.chassis.get(&chassis).map(|row| row.name.as_str())
    }

    fn called(&self, name: &str) -> impl Iterator<Item = &Chassis> {
        self.by_name.get(name).into_iter().flatten().filter_map(|uuid| self.chassis.get(uuid))
    }

    /// Returns true if a port is prepared on a second chassis, or still marked as activated on one.
    pub fn has_additional_chassis(&self, port: &str) -> bool {
        let Some(binding) = self.by_port.get(port).and_then(|uuid| self.bindings.get(uuid)) else { return false };
        !binding.additional_chassis.is_empty() || binding.options.get(keys::ADDITIONAL_CHASSIS_ACTIVATED).is_some()
    }

    /// Takes the changes since the last call.
    pub fn take_changes(&mut self) -> SouthboundChanges {
        std::mem::take(&mut self.changes)
    }

    /// The binding of a port; `None` if northd has not seen the port yet.
    pub fn bound(&self, port: &str) -> Option<Bound> {
        let binding = self.bindings.get(self.by_port.get(port)?)?;
        let Some(from) = binding.chassis.and_then(|chassis| self.name_of(chassis)) else { return Some(Bound::Nowhere) };
        let mut to: Vec<String> =
            binding.additional_chassis.iter().filter_map(|chassis| self.name_of(*chassis)).collect();
        if to.is_empty() {
            return Some(Bound::On { chassis: from, up: binding.up.unwrap_or_default() });
        }
        to.sort_unstable();
        let activated = binding.options.get(keys::ADDITIONAL_CHASSIS_ACTIVATED).unwrap_or_default();
        let activated = to.iter().all(|name| activated.split(',').any(|activated| activated == name));
        Some(Bound::Moving { from, to, activated })
    }

    /// All bindings, in no order: for comparison with the database.
    pub fn bindings(&self) -> impl Iterator<Item = (&Uuid, &PortBinding)> {
        self.bindings.iter()
    }

    fn name_of(&self, chassis: Uuid) -> Option<String> {
        self.chassis.get(&chassis).map(|row| row.name.clone())
    }
}

impl Replica for Southbound {
    const DATABASE: &'static str = "OVN_Southbound";
    const TABLES: &'static [TableSpec] = &[Chassis::TABLE, PortBinding::TABLE];
    // Since OVN 22.06.
    const OPTIONAL_COLUMNS: &'static [OptionalColumn] = &[("Port_Binding", "additional_chassis")];

    fn note_schema(&mut self, schema: &Schema) {
        self.multichassis = Multichassis::of_southbound(schema);
    }

    fn begin_dump(&mut self) {
        self.chassis.begin_dump();
        self.bindings.begin_dump();
    }

    fn end_dump(&mut self) {
        let Self { chassis, bindings, by_port, by_name, changes, .. } = self;
        chassis.end_dump(&mut ChassisWatcher { by_name, changes });
        bindings.end_dump(&mut BindingWatcher { by_port, changes });
    }

    fn apply<'de, A: MapAccess<'de>>(&mut self, table: &str, mut updates: A) -> Result<(), A::Error> {
        let Self { chassis, bindings, by_port, by_name, changes, .. } = self;
        match table {
            "Chassis" => chassis.apply(updates, &mut ChassisWatcher { by_name, changes }),
            "Port_Binding" => bindings.apply(updates, &mut BindingWatcher { by_port, changes }),
            _ => {
                while updates.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(())
            }
        }
    }
}

/// Keeps `by_port` up to date.
struct BindingWatcher<'a> {
    by_port: &'a mut HashMap<String, Uuid>,
    changes: &'a mut SouthboundChanges,
}

impl Watcher<PortBinding> for BindingWatcher<'_> {
    fn added(&mut self, uuid: Uuid, row: &PortBinding) {
        self.by_port.insert(row.logical_port.clone(), uuid);
        self.changes.ports.insert(row.logical_port.clone());
    }
    fn changing(&mut self, uuid: Uuid, row: &PortBinding, _: &PortBinding) {
        self.removed(uuid, row);
    }
    fn changed(&mut self, uuid: Uuid, row: &PortBinding) {
        self.added(uuid, row);
    }
    fn removed(&mut self, uuid: Uuid, row: &PortBinding) {
        // A row of the same name may have been added earlier in the same transaction.
        if self.by_port.get(&row.logical_port) == Some(&uuid) {
            self.by_port.remove(&row.logical_port);
        }
        self.changes.ports.insert(row.logical_port.clone());
    }
}

/// Keeps `by_name` up to date.
struct ChassisWatcher<'a> {
    by_name: &'a mut HashMap<String, BTreeSet<Uuid>>,
    changes: &'a mut SouthboundChanges,
}

/// The names of a chassis.
fn names(row: &Chassis) -> BTreeSet<&str> {
    [row.name.as_str(), row.hostname.as_str(), short(&row.hostname)]
        .into_iter()
        .filter(|name| !name.is_empty())
        .collect()
}

/// The first label of a host name.
fn short(hostname: &str) -> &str {
    hostname.split('.').next().unwrap_or(hostname)
}

impl Watcher<Chassis> for ChassisWatcher<'_> {
    fn added(&mut self, uuid: Uuid, row: &Chassis) {
        for name in names(row) {
            self.by_name.entry(name.to_owned()).or_default().insert(uuid);
            self.changes.chassis.insert(name.to_owned());
        }
    }
    fn changing(&mut self, uuid: Uuid, row: &Chassis, _: &Chassis) {
        self.removed(uuid, row);
    }
    fn changed(&mut self, uuid: Uuid, row: &Chassis) {
        self.added(uuid, row);
    }
    fn removed(&mut self, uuid: Uuid, row: &Chassis) {
        for name in names(row) {
            if let Some(chassis) = self.by_name.get_mut(name) {
                chassis.remove(&uuid);
                if chassis.is_empty() {
                    self.by_name.remove(name);
                }
            }
            self.changes.chassis.insert(name.to_owned());
        }
    }
}

/// Puts rows in place without a server, for the tests of the pure core.
#[cfg(test)]
impl Southbound {
    pub(crate) fn put_chassis(&mut self, number: u128, row: Chassis) {
        let Self { chassis, by_name, changes, .. } = self;
        chassis.put(Uuid::from_u128(number), row, &mut ChassisWatcher { by_name, changes });
    }

    pub(crate) fn remove_chassis(&mut self, number: u128) {
        let Self { chassis, by_name, changes, .. } = self;
        chassis.remove(Uuid::from_u128(number), &mut ChassisWatcher { by_name, changes });
    }

    pub(crate) fn put_binding(&mut self, row: PortBinding) {
        let Self { bindings, by_port, changes, .. } = self;
        let uuid = Uuid::new_v5(&Uuid::NAMESPACE_OID, row.logical_port.as_bytes());
        bindings.put(uuid, row, &mut BindingWatcher { by_port, changes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A southbound with chassis hv1 and hv2 and one binding of port `a.b`.
    fn southbound(binding: PortBinding) -> Southbound {
        let mut southbound = Southbound::default();
        for number in 1..=2 {
            let chassis = Chassis { name: format!("hv{number}"), hostname: String::new() };
            southbound.put_chassis(number, chassis);
        }
        southbound.put_binding(PortBinding { logical_port: "a.b".to_owned(), ..binding });
        southbound
    }

    fn state(binding: PortBinding) -> String {
        southbound(binding).bound("a.b").expect("a binding").to_string()
    }

    #[test]
    fn a_binding_tells_where_its_port_is_and_where_it_goes() {
        let hv = |number| Uuid::from_u128(number);
        assert_eq!(state(PortBinding::default()), "not bound");
        let on = PortBinding { chassis: Some(hv(1)), up: Some(true), ..PortBinding::default() };
        assert_eq!(state(on.clone()), "on hv1");
        assert_eq!(state(PortBinding { up: Some(false), ..on.clone() }), "on hv1 (not up)");
        let moving = PortBinding { additional_chassis: [hv(2)].into_iter().collect(), ..on };
        assert_eq!(state(moving.clone()), "moving hv1 -> hv2 (waiting for the guest)");
        let options = [("additional-chassis-activated".to_owned(), "hv2".to_owned())].into_iter().collect();
        assert_eq!(state(PortBinding { options, ..moving }), "moving hv1 -> hv2 (activated)");
        // A chassis that was removed from the database is not a place (the reference is weak).
        assert_eq!(state(PortBinding { chassis: Some(hv(7)), ..PortBinding::default() }), "not bound");
    }

    #[test]
    fn a_node_is_the_chassis_of_its_name_else_of_its_hostname_in_full_or_short() {
        let mut southbound = Southbound::default();
        let mut add = |number, name: &str, hostname: &str| {
            southbound.put_chassis(number, Chassis { name: name.to_owned(), hostname: hostname.to_owned() });
        };
        add(1, "n1", "elsewhere.example");
        add(2, "5b0c", "n2.example");
        add(3, "77aa", "n3");
        add(4, "one", "twice.a");
        add(5, "two", "twice.b");
        for (node, chassis) in [
            ("n1", NodeChassis::One("n1")),
            ("n2", NodeChassis::One("5b0c")),
            ("n2.example", NodeChassis::One("5b0c")),
            ("n3", NodeChassis::One("77aa")),
            ("n3.example", NodeChassis::One("77aa")),
            ("elsewhere", NodeChassis::One("n1")),
            ("twice.a", NodeChassis::One("one")),
            // Two chassis have this short name, and another domain means another host.
            ("twice", NodeChassis::Several(vec!["one", "two"])),
            ("n2.other", NodeChassis::Absent),
            ("n4", NodeChassis::Absent),
        ] {
            assert_eq!(southbound.chassis_of_node(node), chassis, "{node}");
        }
        let changed = southbound.take_changes().chassis;
        assert!(["n1", "elsewhere", "n2.example", "n2", "5b0c"].iter().all(|name| changed.contains(*name)));
    }

    #[test]
    fn an_exact_name_goes_before_a_hostname_and_a_full_hostname_before_a_short_one() {
        let mut southbound = Southbound::default();
        let mut add = |number, name: &str, hostname: &str| {
            southbound.put_chassis(number, Chassis { name: name.to_owned(), hostname: hostname.to_owned() });
        };
        add(1, "c", "n1.example");
        assert_eq!(southbound.chassis_of_node("n1"), NodeChassis::One("c"));
        let mut add = |number, name: &str, hostname: &str| {
            southbound.put_chassis(number, Chassis { name: name.to_owned(), hostname: hostname.to_owned() });
        };
        add(2, "b", "n1");
        assert_eq!(southbound.chassis_of_node("n1"), NodeChassis::One("b"));
        let mut add = |number, name: &str, hostname: &str| {
            southbound.put_chassis(number, Chassis { name: name.to_owned(), hostname: hostname.to_owned() });
        };
        add(3, "a", "n1");
        assert_eq!(southbound.chassis_of_node("n1"), NodeChassis::Several(vec!["a", "b"]));
        southbound.put_chassis(4, Chassis { name: "n1".to_owned(), hostname: "n1".to_owned() });
        assert_eq!(southbound.chassis_of_node("n1"), NodeChassis::One("n1"));
        // The stale rows are removed.
        (2..=4).for_each(|number| southbound.remove_chassis(number));
        assert_eq!(southbound.chassis_of_node("n1"), NodeChassis::One("c"));
        assert!(southbound.has_chassis("c") && southbound.has_chassis("n1.example") && !southbound.has_chassis("n1"));
    }

    #[test]
    fn a_port_that_northd_has_not_seen_has_no_binding() {
        assert_eq!(southbound(PortBinding::default()).bound("c.d"), None);
    }
}
