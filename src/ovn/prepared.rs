//! The chassis that have processed a port which migrates to them.
//!
//! A chassis claims the port in `Port_Binding.additional_chassis` before its flows stand. That they do is seen by
//! `Chassis_Private.nb_cfg`, the last `SB_Global.nb_cfg` that the chassis has processed with all rows before it: a
//! number that is greater than `SB_Global.nb_cfg` was when the claim was seen. It moves only if a client raises
//! `NB_Global.nb_cfg`, as `ovn-nbctl --wait=hv` does. This service does not raise it for that: each raise costs northd a
//! computation, and every chassis a write.

use std::collections::{HashMap, HashSet};

use serde::de::MapAccess;
use uuid::Uuid;

use super::rows::{ChassisPrivate, PortBinding, SbGlobal};
use crate::ovsdb::{Table, Unwatched, Watcher};

/// The claims of additional chassis, and the progress of each chassis.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    global: Table<SbGlobal>,
    private: Table<ChassisPrivate>,
    /// `Chassis_Private.nb_cfg` by the row of `Chassis`.
    reached: HashMap<Uuid, i64>,
    /// By the row of the binding.
    claims: HashMap<Uuid, Claim>,
    /// Rows have changed since the last [`Prepared::settle`].
    changed: bool,
}

#[derive(Debug)]
struct Claim {
    port: String,
    /// Rows of `Chassis`.
    by: HashSet<Uuid>,
    /// `SB_Global.nb_cfg` at the end of the update that brought the claim.
    since: Option<i64>,
    /// All of them have processed it.
    processed: bool,
}

impl Prepared {
    /// A dump may hide that a chassis has released the port and claimed it again.
    pub(super) fn begin_dump(&mut self) {
        self.global.begin_dump();
        self.private.begin_dump();
        self.claims.values_mut().for_each(|claim| (claim.since, claim.processed) = (None, false));
    }

    pub(super) fn end_dump(&mut self) {
        self.global.end_dump(&mut Unwatched);
        self.private.end_dump(&mut Reached(&mut self.reached));
        self.changed = true;
    }

    pub(super) fn apply_global<'de, A: MapAccess<'de>>(&mut self, updates: A) -> Result<(), A::Error> {
        self.changed = true;
        self.global.apply(updates, &mut Unwatched)
    }

    pub(super) fn apply_private<'de, A: MapAccess<'de>>(&mut self, updates: A) -> Result<(), A::Error> {
        self.changed = true;
        self.private.apply(updates, &mut Reached(&mut self.reached))
    }

    /// Takes in a binding that was added or changed.
    pub(super) fn note(&mut self, uuid: Uuid, binding: &PortBinding) {
        if binding.additional_chassis.is_empty() {
            self.claims.remove(&uuid);
            return;
        }
        let by: HashSet<Uuid> = binding.additional_chassis.iter().copied().collect();
        if self.claims.get(&uuid).is_none_or(|claim| claim.by != by) {
            let port = binding.logical_port.clone();
            self.claims.insert(uuid, Claim { port, by, since: None, processed: false });
            self.changed = true;
        }
    }

    /// Takes in that a binding is gone.
    pub(super) fn forget(&mut self, uuid: &Uuid) {
        self.claims.remove(uuid);
    }

    /// Evaluates an update after its last row. Returns the ports that all of their additional chassis have processed
    /// since the last call.
    pub(super) fn settle(&mut self) -> Vec<String> {
        if !std::mem::take(&mut self.changed) || self.claims.is_empty() {
            return Vec::new();
        }
        let now = self.global.iter().next().map_or(0, |(_, row)| row.nb_cfg);
        let mut processed = Vec::new();
        for claim in self.claims.values_mut().filter(|claim| !claim.processed) {
            let since = *claim.since.get_or_insert(now);
            let is_past = |chassis| self.reached.get(chassis).is_some_and(|nb_cfg| *nb_cfg > since);
            claim.processed = claim.by.iter().all(is_past);
            processed.extend(claim.processed.then(|| claim.port.clone()));
        }
        processed
    }

    /// Returns true if all additional chassis of a binding are known to have processed it.
    pub(super) fn is_processed(&self, binding: &Uuid) -> bool {
        self.claims.get(binding).is_some_and(|claim| claim.processed)
    }
}

/// Keeps `reached` up to date.
struct Reached<'a>(&'a mut HashMap<Uuid, i64>);

impl Watcher<ChassisPrivate> for Reached<'_> {
    fn added(&mut self, _: Uuid, row: &ChassisPrivate) {
        self.0.extend(row.chassis.map(|chassis| (chassis, row.nb_cfg)));
    }
    fn changing(&mut self, uuid: Uuid, row: &ChassisPrivate, _: &ChassisPrivate) {
        self.removed(uuid, row);
    }
    fn changed(&mut self, uuid: Uuid, row: &ChassisPrivate) {
        self.added(uuid, row);
    }
    fn removed(&mut self, _: Uuid, row: &ChassisPrivate) {
        if let Some(chassis) = row.chassis {
            self.0.remove(&chassis);
        }
    }
}

/// Puts rows in place without a server, for the tests of the pure core.
#[cfg(test)]
impl Prepared {
    pub(super) fn put_global(&mut self, nb_cfg: i64) {
        self.changed = true;
        self.global.put(Uuid::from_u128(1), SbGlobal { nb_cfg }, &mut Unwatched);
    }

    pub(super) fn put_private(&mut self, number: u128, nb_cfg: i64) {
        self.changed = true;
        let row = ChassisPrivate { chassis: Some(Uuid::from_u128(number)), nb_cfg };
        self.private.put(Uuid::from_u128(number), row, &mut Reached(&mut self.reached));
    }
}
