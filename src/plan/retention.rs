//! Release and retention: the ports of a deleted VM are released, or stay for a while with their addresses.
//!
//! The row records the retention time while the VM exists: after its deletion the owner's request is gone, and this
//! service may have been down at that moment.

use std::fmt;

use k8s_openapi::jiff::Timestamp;

use super::change::{Mark, PortChange};
use super::lease::{lease, repair};
use super::snapshot::Snapshot;
use crate::contract::{VmKey, keys};
use crate::intent::{InvalidRequest, Retention, VmIntent};
use crate::ovn::{PortRef, Wake};
use crate::ovsdb::Map;

/// `ovn-kubevirt.io/retained-until` without an end.
const FOREVER: &str = "forever";

/// The end of a retention. The later one is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Until {
    /// In seconds since the epoch.
    At(i64),
    /// There is no end.
    Forever,
}

impl Until {
    /// Reads `ovn-kubevirt.io/retained-until`.
    fn read(text: &str) -> Option<Self> {
        match text {
            FOREVER => Some(Self::Forever),
            _ => text.parse().ok().map(|until: Timestamp| Self::At(until.as_second())),
        }
    }

    /// When to decide again.
    fn due(self) -> Option<i64> {
        match self {
            Self::At(until) => Some(until),
            Self::Forever => None,
        }
    }
}

impl fmt::Display for Until {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(until) => Timestamp::from_second(*until).map_err(|_| fmt::Error)?.fmt(formatter),
            Self::Forever => formatter.write_str(FOREVER),
        }
    }
}

/// The decision for the ports of a deleted VM.
#[derive(Default)]
pub(super) struct Release {
    pub(super) changes: Vec<PortChange>,
    /// When to decide on them again, in seconds since the epoch.
    pub(super) due: Option<i64>,
    /// The VMs that a port may be of.
    pub(super) wakes: Vec<Wake>,
}

impl Snapshot<'_> {
    /// Decides for a VM that has no object left in Kubernetes: its ports are released or retained. Ports under the
    /// brake stay; a retained port is released at its own time.
    pub(super) fn release(&self, vm: &VmKey) -> Release {
        let held = self.held.contains_key(vm);
        let releasing = self.releasing.contains(vm);
        let mut release = Release::default();
        for (_, port) in self.northbound.ports_of(vm) {
            if self.may_be_anothers(vm, &port) {
                let (change, wakes) = self.decide_stray(vm, port);
                release.changes.extend(change);
                release.wakes.extend(wakes);
                continue;
            }
            let retained_until = port.row.external_ids.get(keys::RETAINED_UNTIL);
            let (change, due) = match retained_until {
                Some(_) if releasing => (PortChange::removal(port), None),
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
        let Some(until) = Until::read(until) else { return (self.repaired(port, None), None) };
        if matches!(until, Until::At(until) if until <= self.now) {
            return (PortChange::removal(port), None);
        }
        // The operator's bound counts from the time at which it is first applied to the row: a shorter bound leaves the
        // whole of it, and a longer one changes nothing.
        let latest = self.end_of(self.settings.longest_retention());
        let until = until.min(latest);
        (self.repaired(port, Some(until)), until.due())
    }

    /// Restores the lease of a port without its VM if it has drifted, and sets the end of a retention.
    pub(super) fn repaired(&self, port: PortRef<'_>, until: Option<Until>) -> Option<PortChange> {
        let mut row = repair(port.row, lease(self.northbound, &port).as_ref());
        if let Some(until) =
            until.filter(|until| port.row.external_ids.get(keys::RETAINED_UNTIL).and_then(Until::read) != Some(*until))
        {
            row.external_ids.insert(keys::RETAINED_UNTIL, until.to_string());
        }
        PortChange::rewrite(port, row).filter(|change| !change.is_empty())
    }

    /// The end of a retention that begins now.
    fn end_of(&self, retention: Retention) -> Until {
        let Retention::For(time) = retention else { return Until::Forever };
        // A part of a second counts as a whole one. A time too long for a date means forever.
        let seconds = i64::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX);
        let end = self.now.checked_add(seconds).filter(|end| Timestamp::from_second(*end).is_ok());
        end.map_or(Until::Forever, Until::At)
    }

    /// The change that retains a port from now on; `None` if it is to be released.
    fn retain(&self, port: PortRef<'_>) -> Option<(Option<PortChange>, Option<i64>)> {
        let written: Retention = port.row.external_ids.get(keys::RETAIN)?.parse().ok()?;
        let retention = written.min(self.settings.longest_retention());
        if retention == Retention::NONE {
            return None;
        }
        let until = self.end_of(retention);
        let mut row = repair(port.row, lease(self.northbound, &port).as_ref());
        row.external_ids.insert(keys::RETAINED_UNTIL, until.to_string());
        // A retained port has no guest and no next start.
        row.external_ids.remove(keys::NEXT_ADDRESSES);
        row.options.remove(keys::REQUESTED_CHASSIS);
        row.options.remove(keys::ACTIVATION_STRATEGY);
        let change = PortChange::rewrite(port, row)?;
        Some((Some(change), until.due()))
    }

    /// The mark with the retention time for the port of a VM; `None` leaves the mark as it is, because a mistyped
    /// request changes nothing.
    pub(super) fn retention_mark(&self, external_ids: &Map, intent: &VmIntent) -> Option<Mark> {
        let unreadable = intent.invalid.iter().any(|invalid| matches!(invalid, InvalidRequest::Retain(_)));
        if unreadable && external_ids.get(keys::RETAIN).is_some() {
            return None;
        }
        let retention = intent.retain.unwrap_or(self.settings.default_retain).min(self.settings.longest_retention());
        Some((keys::RETAIN, (retention != Retention::NONE).then(|| retention.to_string().into())))
    }
}
