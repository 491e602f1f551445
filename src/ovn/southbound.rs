//! The southbound replica: the chassis, the binding of each port, and the DHCP options that OVN supports. Read only.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use serde::de::{IgnoredAny, MapAccess};
use uuid::Uuid;

use super::dhcp::{OptionTable, SupportedOptions};
use super::features::Multichassis;
use super::prepared::Prepared;
use super::rows::{Chassis, ChassisPrivate, PortBinding, SbGlobal};
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
    prepared: Prepared,
    dhcp: SupportedOptions,
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
    /// Ports with a binding that was added, changed or removed, or that a chassis has processed.
    pub ports: HashSet<String>,
    /// Names, and hostnames in full and short, of chassis that were added, changed or removed.
    pub chassis: HashSet<String>,
    /// Other DHCP options are supported than before.
    pub dhcp_options: bool,
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
        /// The additional chassis, which have claimed the port.
        to: Vec<String>,
        /// They are known to have set up its flows.
        processed: bool,
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
            Self::Moving { from, to, processed, activated } => {
                let progress = match (activated, processed) {
                    (true, _) => "activated",
                    (false, true) => "ready for the guest",
                    (false, false) => "waiting for the guest",
                };
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

    /// The DHCP options that this OVN supports: those of its tables, or of the oldest supported OVN where they are empty.
    pub fn dhcp_options(&self) -> &OptionTable {
        self.dhcp.table()
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

    /// Returns true if a chassis has claimed a port, be it as an additional one.
    pub fn is_claimed_by(&self, port: &str, chassis: &str) -> bool {
        let Some(binding) = self.by_port.get(port).and_then(|uuid| self.bindings.get(uuid)) else { return false };
        let mut claimed = binding.chassis.iter().chain(&binding.additional_chassis);
        claimed.any(|uuid| self.chassis.get(uuid).is_some_and(|row| row.name == chassis))
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
        let uuid = self.by_port.get(port)?;
        let binding = self.bindings.get(uuid)?;
        let Some(from) = binding.chassis.and_then(|chassis| self.name_of(chassis)) else { return Some(Bound::Nowhere) };
        let mut to: Vec<String> =
            binding.additional_chassis.iter().filter_map(|chassis| self.name_of(*chassis)).collect();
        if to.is_empty() {
            return Some(Bound::On { chassis: from, up: binding.up.unwrap_or_default() });
        }
        to.sort_unstable();
        let activated = binding.options.get(keys::ADDITIONAL_CHASSIS_ACTIVATED).unwrap_or_default();
        let activated = to.iter().all(|name| activated.split(',').any(|activated| activated == name));
        Some(Bound::Moving { from, to, processed: self.prepared.is_processed(uuid), activated })
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
    const TABLES: &'static [TableSpec] = &[Chassis::TABLE, ChassisPrivate::TABLE, PortBinding::TABLE, SbGlobal::TABLE];
    const OPTIONAL_TABLES: &'static [TableSpec] = &SupportedOptions::OPTIONAL;
    // Since OVN 22.06.
    const OPTIONAL_COLUMNS: &'static [OptionalColumn] = &[("Port_Binding", "additional_chassis")];

    fn note_schema(&mut self, schema: &Schema) {
        self.multichassis = Multichassis::of_southbound(schema);
    }

    fn begin_dump(&mut self) {
        self.chassis.begin_dump();
        self.bindings.begin_dump();
        self.prepared.begin_dump();
        self.dhcp.begin_dump();
    }

    fn end_dump(&mut self) {
        let Self { chassis, bindings, by_port, by_name, prepared, dhcp, changes, multichassis: _ } = self;
        prepared.end_dump();
        dhcp.end_dump();
        chassis.end_dump(&mut ChassisWatcher { by_name, changes });
        bindings.end_dump(&mut BindingWatcher { by_port, prepared, changes });
    }

    fn end_update(&mut self) {
        self.changes.ports.extend(self.prepared.settle());
        self.changes.dhcp_options |= self.dhcp.settle();
    }

    fn apply<'de, A: MapAccess<'de>>(&mut self, table: &str, mut updates: A) -> Result<(), A::Error> {
        let Self { chassis, bindings, by_port, by_name, prepared, dhcp, changes, multichassis: _ } = self;
        match table {
            "Chassis" => chassis.apply(updates, &mut ChassisWatcher { by_name, changes }),
            "Chassis_Private" => prepared.apply_private(updates),
            "DHCP_Options" => dhcp.apply_v4(updates),
            "DHCPv6_Options" => dhcp.apply_v6(updates),
            "Port_Binding" => bindings.apply(updates, &mut BindingWatcher { by_port, prepared, changes }),
            "SB_Global" => prepared.apply_global(updates),
            _ => {
                while updates.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(())
            }
        }
    }
}

/// Keeps `by_port` and the claims up to date.
struct BindingWatcher<'a> {
    by_port: &'a mut HashMap<String, Uuid>,
    prepared: &'a mut Prepared,
    changes: &'a mut SouthboundChanges,
}

impl Watcher<PortBinding> for BindingWatcher<'_> {
    fn added(&mut self, uuid: Uuid, row: &PortBinding) {
        self.by_port.insert(row.logical_port.clone(), uuid);
        self.prepared.note(uuid, row);
        self.changes.ports.insert(row.logical_port.clone());
    }
    fn changing(&mut self, uuid: Uuid, row: &PortBinding, _: &PortBinding) {
        self.leave(uuid, row);
    }
    fn changed(&mut self, uuid: Uuid, row: &PortBinding) {
        self.added(uuid, row);
    }
    fn removed(&mut self, uuid: Uuid, row: &PortBinding) {
        self.prepared.forget(&uuid);
        self.leave(uuid, row);
    }
}

impl BindingWatcher<'_> {
    fn leave(&mut self, uuid: Uuid, row: &PortBinding) {
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
        let Self { bindings, by_port, prepared, changes, .. } = self;
        let uuid = Uuid::new_v5(&Uuid::NAMESPACE_OID, row.logical_port.as_bytes());
        bindings.put(uuid, row, &mut BindingWatcher { by_port, prepared, changes });
    }

    pub(crate) fn put_progress(&mut self, nb_cfg: i64, chassis: &[(u128, i64)]) {
        self.prepared.put_global(nb_cfg);
        chassis.iter().for_each(|(number, nb_cfg)| self.prepared.put_private(*number, *nb_cfg));
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

    /// Of a chassis that has claimed a port it is known that its flows stand, once it has reached an `nb_cfg` that came
    /// after the claim.
    #[test]
    fn a_chassis_has_processed_a_port_when_it_reaches_an_nb_cfg_later_than_its_claim() {
        let hv = |number| Uuid::from_u128(number);
        let moving = |to: &[u128]| PortBinding {
            logical_port: "a.b".to_owned(),
            chassis: Some(hv(1)),
            additional_chassis: to.iter().copied().map(hv).collect(),
            ..PortBinding::default()
        };
        let mut southbound = southbound(PortBinding::default());
        southbound.put_progress(7, &[(1, 7), (2, 6)]);
        southbound.put_binding(moving(&[2]));
        let mut after = |what: &str, change: &mut dyn FnMut(&mut Southbound)| {
            southbound.take_changes();
            change(&mut southbound);
            southbound.end_update();
            let bound = southbound.bound("a.b").expect("a binding");
            let ports = southbound.take_changes().ports;
            (what.to_owned(), matches!(bound, Bound::Moving { processed: true, .. }), ports.contains("a.b"))
        };
        let expected = |what: &str, processed, told| (what.to_owned(), processed, told);
        let what = "the claim is seen, and hv2 is behind";
        assert_eq!(after(what, &mut |_| {}), expected(what, false, false));
        let what = "the nb_cfg of before the claim says nothing";
        assert_eq!(after(what, &mut |it| it.put_progress(7, &[(2, 7)])), expected(what, false, false));
        let what = "northd is further, and hv2 is not";
        assert_eq!(after(what, &mut |it| it.put_progress(8, &[(1, 8)])), expected(what, false, false));
        let what = "hv2 has reached it";
        assert_eq!(after(what, &mut |it| it.put_progress(8, &[(2, 8)])), expected(what, true, true));
        let what = "it has released the port and claimed it again";
        let again =
            &mut |it: &mut Southbound| [moving(&[]), moving(&[2])].into_iter().for_each(|row| it.put_binding(row));
        assert_eq!(after(what, again), expected(what, false, true));
        let what = "a claim and an nb_cfg in one update: which came first is not known";
        let both = &mut |it: &mut Southbound| {
            it.put_binding(moving(&[2, 1]));
            it.put_progress(9, &[(1, 9), (2, 9)]);
        };
        assert_eq!(after(what, both), expected(what, false, true));
        let what = "both have reached the next";
        assert_eq!(after(what, &mut |it| it.put_progress(10, &[(1, 10), (2, 10)])), expected(what, true, true));
        let what = "a dump may hide another claim";
        let dump = &mut |it: &mut Southbound| it.prepared.begin_dump();
        assert!(!after(what, dump).1, "{what}");
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
