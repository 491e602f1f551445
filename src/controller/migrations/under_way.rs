//! The migrations under way, shared with the metrics.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::contract::VmKey;
use crate::hash::FastMap;

/// A phase of a live migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::controller) enum Phase {
    /// The target's pod has a node, and the port is open on the source alone.
    Scheduled,
    /// The port is open on both.
    Open,
    /// The guest runs on the target, and the port is still open on the source.
    Ready,
    /// The guest stays on the source, and the port is still open on the target.
    Returning,
}

impl Phase {
    /// All phases.
    pub(in crate::controller) const ALL: [Self; 4] = [Self::Scheduled, Self::Open, Self::Ready, Self::Returning];

    /// The phase as a label.
    pub(in crate::controller) fn label(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Open => "open",
            Self::Ready => "ready",
            Self::Returning => "returning",
        }
    }
}

/// The end of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::controller) enum End {
    /// The guest runs on the target.
    Arrived,
    /// The guest stays on the source.
    Returned,
    /// The VM was stopped or deleted meanwhile.
    Vanished,
}

impl End {
    /// All ends.
    pub(in crate::controller) const ALL: [Self; 3] = [Self::Arrived, Self::Returned, Self::Vanished];

    /// The end as a label.
    pub(in crate::controller) fn label(self) -> &'static str {
        match self {
            Self::Arrived => "arrived",
            Self::Returned => "returned",
            Self::Vanished => "vanished",
        }
    }
}

#[derive(Debug)]
pub(super) struct Progress {
    pub(super) phase: Phase,
    /// `None` if this process has not seen the beginning.
    pub(super) since: Option<Instant>,
    /// The target's node.
    pub(super) target: String,
}

/// The migrations under way, shared with the metrics.
#[derive(Debug, Clone, Default)]
pub(in crate::controller) struct UnderWay(Arc<Mutex<FastMap<VmKey, Progress>>>);

impl UnderWay {
    /// The number of migrations in each phase, and the age of the oldest there; the order is that of [`Phase::ALL`].
    pub(in crate::controller) fn by_phase(&self, now: Instant) -> [(usize, Duration); Phase::ALL.len()] {
        let mut all = [(0, Duration::ZERO); Phase::ALL.len()];
        for Progress { phase, since, .. } in self.lock().values() {
            let (count, oldest) = &mut all[*phase as usize];
            *count += 1;
            *oldest = since.map_or(*oldest, |since| now.saturating_duration_since(since).max(*oldest));
        }
        all
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, FastMap<VmKey, Progress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
