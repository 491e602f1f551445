//! Release and retention: the ports of a deleted VM are released, or stay for a while with their addresses.
//!
//! The row records the retention time while the VM exists: after its deletion the owner's request is gone, and this
//! service may have been down at that moment.

use k8s_openapi::jiff::Timestamp;

use super::change::{Mark, PortChange};
use super::lease::{lease, repair};
use super::snapshot::Snapshot;
use crate::contract::{VmKey, keys};
use crate::intent::{InvalidRequest, Retention, VmIntent};
use crate::ovn::PortRef;
use crate::ovsdb::Map;

/// `ovn-kubevirt.io/retained-until` without an end.
const FOREVER: &str = "forever";

/// The decision for the ports of a deleted VM.
#[derive(Default)]
pub(super) struct Release {
    pub(super) changes: Vec<PortChange>,
    /// When to decide on them again, in seconds since the epoch.
    pub(super) due: Option<i64>,
}

impl Snapshot<'_> {
    /// Decides for a VM that has no object left in Kubernetes: its ports are released or retained. Ports under the
    /// brake stay; a retained port is released at its own time.
    pub(super) fn release(&self, vm: &VmKey) -> Release {
        let held = self.held.contains_key(vm);
        let mut release = Release::default();
        for (_, port) in self.northbound.ports_of(vm).filter(|(_, port)| !self.may_be_anothers(vm, port)) {
            let retained_until = port.row.external_ids.get(keys::RETAINED_UNTIL);
            let (change, due) = match retained_until {
                Some(until) => self.release_retained(port, until),
                None => self.retain(port).unwrap_or_else(|| (PortChange::removal(port), None)),
            };
            release.changes.extend(change.filter(|_| !held || retained_until.is_some()));
            release.due = [release.due, due].into_iter().flatten().min();
        }
        release
    }

    /// Decides for a port that is retained, and when to decide again.
    fn release_retained(&self, port: PortRef<'_>, until: &str) -> (Option<PortChange>, Option<i64>) {
        // An unreadable time is a mistake, and no reason to release the addresses.
        let Ok(until) = until.parse::<Timestamp>() else { return (self.repaired(port), None) };
        match until.as_second() {
            until if until <= self.now => (PortChange::removal(port), None),
            until => (self.repaired(port), Some(until)),
        }
    }

    /// Restores the lease of a retained port if it has drifted.
    fn repaired(&self, port: PortRef<'_>) -> Option<PortChange> {
        let row = repair(port.row, lease(self.northbound, &port).as_ref());
        PortChange::rewrite(port, row).filter(|change| !change.is_empty())
    }

    /// The change that retains a port from now on; `None` if it is to be released.
    fn retain(&self, port: PortRef<'_>) -> Option<(Option<PortChange>, Option<i64>)> {
        let until = match port.row.external_ids.get(keys::RETAIN)?.parse().ok()? {
            Retention::Forever => None,
            Retention::For(time) => {
                // A part of a second counts as a whole one. A time too long for a date means forever.
                let seconds = i64::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX);
                if seconds == 0 {
                    return None;
                }
                self.now.checked_add(seconds).and_then(|until| Timestamp::from_second(until).ok())
            }
        };
        let mut row = repair(port.row, lease(self.northbound, &port).as_ref());
        row.external_ids.insert(keys::RETAINED_UNTIL, until.map_or(FOREVER.to_owned(), |until| until.to_string()));
        // A retained port has no guest and no next start.
        row.external_ids.remove(keys::NEXT_ADDRESSES);
        row.options.remove(keys::REQUESTED_CHASSIS);
        row.options.remove(keys::ACTIVATION_STRATEGY);
        let change = PortChange::rewrite(port, row)?;
        Some((Some(change), until.map(Timestamp::as_second)))
    }

    /// The mark with the retention time for the port of a VM; `None` leaves the mark as it is, because a mistyped
    /// request changes nothing.
    pub(super) fn retention_mark(&self, external_ids: &Map, intent: &VmIntent) -> Option<Mark> {
        let unreadable = intent.invalid.iter().any(|invalid| matches!(invalid, InvalidRequest::Retain(_)));
        if unreadable && external_ids.get(keys::RETAIN).is_some() {
            return None;
        }
        let retention = intent.retain.unwrap_or(self.settings.default_retain);
        Some((keys::RETAIN, (retention != Retention::NONE).then(|| retention.to_string().into())))
    }
}
