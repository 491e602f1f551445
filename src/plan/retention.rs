//! What becomes of the ports of a VM that is gone: they go, or stay for a while with their addresses.
//!
//! How long is written on the row while the VM is there: when it is gone there is nobody left to ask, and this service
//! may have been away at that moment.

use k8s_openapi::jiff::Timestamp;

use super::change::{Placed, PortChange};
use super::lease::{heal, lease};
use super::planner::{Planner, VmPlan, removal};
use crate::intent::{Intent, InvalidWish, Retention};
use crate::ovn::{PortRef, VmKey, keys};
use crate::ovsdb::Map;

/// `ovn-kubevirt.io/retained-until`, where there is no end.
const FOREVER: &str = "forever";

impl Planner<'_> {
    /// Nothing of the VM is left in Kubernetes: its ports go, or are retained.
    pub fn release(&self, vm: &VmKey) -> VmPlan {
        let mut plan = VmPlan::default();
        for (_, port) in self.view.ports_of(vm).filter(|(_, port)| !self.may_be_anothers(vm, port)) {
            let (change, due) = self.release_port(port);
            plan.changes.extend(change);
            plan.due = [plan.due, due].into_iter().flatten().min();
        }
        plan
    }

    /// What becomes of a port, and when it is to be looked at again.
    fn release_port(&self, port: PortRef<'_>) -> (Option<PortChange>, Option<i64>) {
        let Some(until) = port.row.external_ids.get(keys::RETAINED_UNTIL) else {
            return self.retain(port).unwrap_or_else(|| (removal(port), None));
        };
        // One that cannot be read is somebody's mistake, and no reason to give away what was to be kept.
        let Ok(until) = until.parse::<Timestamp>() else { return (self.healed(port), None) };
        match until.as_second() {
            until if until <= self.now => (removal(port), None),
            until => (self.healed(port), Some(until)),
        }
    }

    /// What somebody else wrote into a port that is retained is not what is.
    fn healed(&self, port: PortRef<'_>) -> Option<PortChange> {
        let before = Placed { switch: port.switch?, row: port.row.clone() };
        let mut after = before.clone();
        heal(&mut after.row, lease(self.view, &port).as_ref());
        Some(PortChange { uuid: port.uuid, before: Some(before), after: Some(after) })
            .filter(|change| !change.is_empty())
    }

    /// The change that has a port retained from now on; `None` where it is not to be.
    fn retain(&self, port: PortRef<'_>) -> Option<(Option<PortChange>, Option<i64>)> {
        let until = match port.row.external_ids.get(keys::RETAIN)?.parse().ok()? {
            Retention::Forever => None,
            Retention::For(time) => {
                // A part of a second counts as one; what is too long for a date is forever.
                let seconds = i64::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX);
                if seconds == 0 {
                    return None;
                }
                self.now.checked_add(seconds).and_then(|until| Timestamp::from_second(until).ok())
            }
        };
        let before = Placed { switch: port.switch?, row: port.row.clone() };
        let mut row = port.row.clone();
        row.external_ids.insert(keys::RETAINED_UNTIL, until.map_or(FOREVER.to_owned(), |until| until.to_string()));
        heal(&mut row, lease(self.view, &port).as_ref());
        // The next start is nobody's, and there is no guest.
        row.external_ids.remove(keys::NEXT_ADDRESSES);
        row.options.remove(keys::REQUESTED_CHASSIS);
        row.options.remove(keys::ACTIVATION_STRATEGY);
        let after = Placed { switch: before.switch, row };
        let change = PortChange { uuid: port.uuid, before: Some(before), after: Some(after) };
        Some((Some(change), until.map(Timestamp::as_second)))
    }

    /// Writes how long a port is to be retained when its VM is gone.
    pub(super) fn note_retention(&self, external_ids: &mut Map, intent: &Intent) {
        // Nor is what the owner mistyped.
        let unreadable = intent.invalid.iter().any(|invalid| matches!(invalid, InvalidWish::Retain(_)));
        if unreadable && external_ids.get(keys::RETAIN).is_some() {
            return;
        }
        match intent.retain.unwrap_or(self.settings.default_retain) {
            Retention::NONE => drop(external_ids.remove(keys::RETAIN)),
            retention => drop(external_ids.insert(keys::RETAIN, retention.to_string())),
        }
    }
}
