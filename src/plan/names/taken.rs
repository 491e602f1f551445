//! The names that rows of other owners have on a switch.
//!
//! Two rows with one name would be two answers, of which each chassis gives either. So a name that another program has
//! is theirs, whenever it came. Two instances of this service would both yield, and both come back, for ever: an
//! instance that finds another's name yields, and where both have written it in the same moment, the one whose name is first
//! keeps it.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::Shard;
use crate::contract::keys;
use crate::hash::FastMap;
use crate::ovn::{Dns, Northbound};
use crate::ovsdb::Map;

/// The names of others on a switch.
#[derive(Debug, Default)]
pub(super) struct Taken(BTreeMap<String, Holder>);

/// The owner of a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    /// Another program, by the UUID of the row.
    Program(Uuid),
    /// Another instance of this service.
    Instance(String),
}

impl Taken {
    /// The names of others on a switch. northd reads names in any case.
    pub(super) fn on(view: &Northbound, switch: &Uuid, ours: &FastMap<Uuid, Shard>) -> Self {
        let references = view.switch(switch).into_iter().flat_map(|switch| &switch.dns_records);
        let rows = references.filter_map(|uuid| Some((uuid, view.dns(uuid)?)));
        let foreign = rows.filter(|(uuid, row)| !ours.contains_key(*uuid) && !view.is_own_dns(row));
        let mut names = BTreeMap::new();
        for (uuid, row) in foreign {
            let holder = Holder::of(*uuid, row);
            for (name, _) in row.records.iter() {
                let present: &mut Holder = names.entry(name.to_ascii_lowercase()).or_insert_with(|| holder.clone());
                *present = (*present).clone().min(holder.clone());
            }
        }
        Self(names)
    }

    /// The owner that has a name instead of this instance, whose row has these records now.
    pub(super) fn claims(&self, name: &str, instance: &str, present: Option<&Map>) -> Option<String> {
        match self.0.get(name)? {
            Holder::Program(row) => Some(format!("the row {row} of DNS")),
            Holder::Instance(other) => {
                let has_it = || present.is_some_and(|records| records.get(name).is_some());
                let is_kept = instance < other.as_str() && has_it();
                (!is_kept).then(|| format!("the instance {other}"))
            }
        }
    }
}

impl Holder {
    fn of(uuid: Uuid, row: &Dns) -> Self {
        let is_vendors = row.external_ids.get(keys::VENDOR) == Some(keys::OUR_VENDOR);
        match row.external_ids.get(keys::INSTANCE).filter(|_| is_vendors) {
            Some(instance) => Self::Instance(instance.to_owned()),
            None => Self::Program(uuid),
        }
    }
}
