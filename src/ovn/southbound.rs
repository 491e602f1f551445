//! The southbound replica: which chassis there are, and where each port is bound. Read only.

use std::collections::HashMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess};
use uuid::Uuid;

use super::names::keys;
use super::rows::{Chassis, PortBinding};
use crate::ovsdb::{Replica, Row, Table, TableSpec, Unwatched, Watcher};

/// The southbound database as far as we read it.
#[derive(Debug, Default)]
pub struct Southbound {
    chassis: Table<Chassis>,
    bindings: Table<PortBinding>,
    /// `Port_Binding.logical_port` is unique (an index in ovn-sb(5)).
    by_port: HashMap<String, Uuid>,
}

/// Where a port is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// On no chassis.
    Nowhere,
    /// On one.
    On {
        /// The chassis.
        chassis: String,
        /// Whether its traffic flows.
        up: bool,
    },
    /// On its chassis, and prepared on another.
    Moving {
        /// Where it is.
        from: String,
        /// Where it is prepared.
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
    /// How many chassis there are.
    pub fn chassis_count(&self) -> usize {
        self.chassis.len()
    }

    /// Where a port is bound; `None` where northd has not seen the port yet.
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

    /// All bindings, in no order: for who compares them with the database.
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

    fn begin_dump(&mut self) {
        self.chassis.begin_dump();
        self.bindings.begin_dump();
    }

    fn end_dump(&mut self) {
        self.chassis.end_dump(&mut Unwatched);
        self.bindings.end_dump(&mut BindingWatcher(&mut self.by_port));
    }

    fn apply<'de, A: MapAccess<'de>>(&mut self, table: &str, mut updates: A) -> Result<(), A::Error> {
        match table {
            "Chassis" => self.chassis.apply(updates, &mut Unwatched),
            "Port_Binding" => self.bindings.apply(updates, &mut BindingWatcher(&mut self.by_port)),
            _ => {
                while updates.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(())
            }
        }
    }
}

/// Keeps `by_port` true.
struct BindingWatcher<'a>(&'a mut HashMap<String, Uuid>);

impl Watcher<PortBinding> for BindingWatcher<'_> {
    fn added(&mut self, uuid: Uuid, row: &PortBinding) {
        self.0.insert(row.logical_port.clone(), uuid);
    }
    fn changing(&mut self, uuid: Uuid, row: &PortBinding, _: &PortBinding) {
        self.removed(uuid, row);
    }
    fn changed(&mut self, uuid: Uuid, row: &PortBinding) {
        self.added(uuid, row);
    }
    fn removed(&mut self, uuid: Uuid, row: &PortBinding) {
        // A row of the same name may have come first, in the same transaction.
        if self.0.get(&row.logical_port) == Some(&uuid) {
            self.0.remove(&row.logical_port);
        }
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
            southbound.chassis.put(Uuid::from_u128(number), chassis, &mut Unwatched);
        }
        let binding = PortBinding { logical_port: "a.b".to_owned(), ..binding };
        southbound.bindings.put(Uuid::from_u128(9), binding, &mut BindingWatcher(&mut southbound.by_port));
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
        // A chassis that is gone from the database is no place (the reference is weak).
        assert_eq!(state(PortBinding { chassis: Some(hv(7)), ..PortBinding::default() }), "not bound");
    }

    #[test]
    fn a_port_that_northd_has_not_seen_has_no_binding() {
        assert_eq!(southbound(PortBinding::default()).bound("c.d"), None);
    }
}
