//! What becomes of the ports of a VM that is gone: they go, or stay for a while with their addresses.
//!
//! How long is written on the row while the VM is there: when it is gone there is nobody left to ask, and this service
//! may have been away at that moment.

use k8s_openapi::jiff::Timestamp;

use super::change::{Mark, PortChange};
use super::lease::{lease, repair};
use super::snapshot::Snapshot;
use crate::intent::{InvalidRequest, Retention, VmIntent};
use crate::ovn::{PortRef, VmKey, keys};
use crate::ovsdb::Map;

/// `ovn-kubevirt.io/retained-until`, where there is no end.
const FOREVER: &str = "forever";

/// What becomes of the ports of a VM that is gone.
#[derive(Default)]
pub(super) struct Release {
    pub(super) changes: Vec<PortChange>,
    /// They are to be looked at again then, in seconds since the epoch.
    pub(super) due: Option<i64>,
}

impl Snapshot<'_> {
    /// Nothing of the VM is left in Kubernetes: its ports go, or are retained. Those that the brake holds stay; what is
    /// retained goes by its own clock.
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

    /// What becomes of a port that is retained, and when it is to be looked at again.
    fn release_retained(&self, port: PortRef<'_>, until: &str) -> (Option<PortChange>, Option<i64>) {
        // One that cannot be read is a mistake, and no reason to give away what was to be kept.
        let Ok(until) = until.parse::<Timestamp>() else { return (self.repaired(port), None) };
        match until.as_second() {
            until if until <= self.now => (PortChange::removal(port), None),
            until => (self.repaired(port), Some(until)),
        }
    }

    /// Restores the lease of a retained port if someone has overwritten it.
    fn repaired(&self, port: PortRef<'_>) -> Option<PortChange> {
        let row = repair(port.row, lease(self.northbound, &port).as_ref());
        PortChange::rewrite(port, row).filter(|change| !change.is_empty())
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
        let mut row = repair(port.row, lease(self.northbound, &port).as_ref());
        row.external_ids.insert(keys::RETAINED_UNTIL, until.map_or(FOREVER.to_owned(), |until| until.to_string()));
        // There is no guest, and no next start.
        row.external_ids.remove(keys::NEXT_ADDRESSES);
        row.options.remove(keys::REQUESTED_CHASSIS);
        row.options.remove(keys::ACTIVATION_STRATEGY);
        let change = PortChange::rewrite(port, row)?;
        Some((Some(change), until.map(Timestamp::as_second)))
    }

    /// Returns the mark of a row that says how long its port is to be retained when its VM is gone; `None`: it stays as it
    /// is, for what the owner mistyped changes nothing.
    pub(super) fn retention_mark(&self, external_ids: &Map, intent: &VmIntent) -> Option<Mark> {
        let unreadable = intent.invalid.iter().any(|invalid| matches!(invalid, InvalidRequest::Retain(_)));
        if unreadable && external_ids.get(keys::RETAIN).is_some() {
            return None;
        }
        let retention = intent.retain.unwrap_or(self.settings.default_retain);
        Some((keys::RETAIN, (retention != Retention::NONE).then(|| retention.to_string().into())))
    }
}
