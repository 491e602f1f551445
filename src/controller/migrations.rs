//! The live migrations of VMs with ports of ours, and the phases that they are in: for the metrics of the leader.
//!
//! ```text
//!              the target's pod has a node
//!                         v                             the guest stays: a failure, a cancellation
//!                     scheduled -------------------------------------------------> ended (returned)
//!   two chassis committed |                                                           ^
//!                         v         the guest stays             one chassis committed |
//!                        open ------------------------> returning --------------------+
//!     the guest is ready  |
//!          on the target  v      one chassis committed
//!                       ready ------------------------> ended (arrived)
//! ```
//!
//! The phases follow from the placement of the VM (`intent/placement.rs`) and from the commits of its ports. No decision
//! depends on them. A phase whose beginning this process has not seen is counted, and its duration is not.

pub(super) mod under_way;

use tokio::time::Instant;

use self::under_way::{End, Phase, Progress, UnderWay};
use super::metrics::MigrationMetrics;
use crate::contract::VmKey;
use crate::intent::Placement;
use crate::kubevirt::VmObjects;
use crate::ovn::{Northbound, PortState};
use crate::plan::PortChange;

/// The migrations as the writer sees them.
#[derive(Debug)]
pub(super) struct Migrations {
    under_way: UnderWay,
    metrics: MigrationMetrics,
    /// The number of entries, so that the usual case takes no lock.
    count: usize,
}

/// The ports of a VM, as far as a migration goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ports {
    /// The VM has no port of ours.
    None,
    /// Each is open on one chassis at most.
    Single,
    /// One is open on two.
    Open,
}

impl Ports {
    /// Reads the state of a VM's ports.
    pub(super) fn of(view: &Northbound, vm: &VmKey) -> Self {
        view.ports_of(vm).fold(Self::None, |ports, (_, port)| match PortState::of(port.row) {
            PortState::Moving => Self::Open,
            _ if ports == Self::Open => Self::Open,
            _ => Self::Single,
        })
    }
}

impl Migrations {
    /// No migration is under way.
    pub(super) fn new(metrics: MigrationMetrics) -> Self {
        Self { under_way: metrics.under_way.clone(), metrics, count: 0 }
    }

    /// Returns true if the VM is known to migrate.
    pub(super) fn has(&self, vm: &VmKey) -> bool {
        self.count > 0 && self.under_way.lock().contains_key(vm)
    }

    /// Forgets all migrations: another process counts.
    pub(super) fn clear(&mut self) {
        self.under_way.lock().clear();
        self.count = 0;
    }

    /// Looks at the objects of a VM after a watch event, which arrived at `at` (`None` if it is not known). `two` is true
    /// if a port may be open on two chassis; otherwise no target waits for its port, and the migration counts as open.
    pub(super) fn look(
        &mut self,
        vm: &VmKey,
        objects: Option<&VmObjects>,
        (ports, two): (Ports, bool),
        at: Option<Instant>,
    ) {
        let under_way = self.under_way.clone();
        let mut all = under_way.lock();
        let placement = objects.map_or(Placement::Unbound, Placement::of);
        match (all.get_mut(vm), placement) {
            (Some(known), Placement::On { target: Some(target), .. }) if known.target == target => {
                if known.phase == Phase::Returning {
                    // Another migration to the same node, where the port is still open.
                    (known.phase, known.since) = (Phase::Open, None);
                }
            }
            (_, Placement::On { target: Some(target), .. }) if ports != Ports::None => {
                let (phase, since) = match ports {
                    // It was opened for this target, or is to be closed for the one before.
                    Ports::Open if !all.contains_key(vm) => (Phase::Open, None),
                    Ports::Open | Ports::Single | Ports::None if two => (Phase::Scheduled, at),
                    Ports::Open | Ports::Single | Ports::None => (Phase::Open, at),
                };
                if let Some(before) = all.insert(vm.clone(), Progress { phase, since, target }) {
                    self.metrics.ended(if before.phase == Phase::Ready { End::Arrived } else { End::Returned });
                }
            }
            (Some(known), placement) => {
                if let Some(end) = self.go_on(known, placement, ports, at) {
                    all.remove(vm);
                    self.metrics.ended(end);
                }
            }
            (None, _) => {}
        }
        self.count = all.len();
    }

    /// Changes the phase of a migration whose target does not wait for the guest any more, or returns its end.
    fn go_on(&self, known: &mut Progress, placement: Placement, ports: Ports, at: Option<Instant>) -> Option<End> {
        match (known.phase, placement) {
            (Phase::Ready, _) if ports != Ports::Open => Some(End::Arrived),
            (Phase::Returning, _) if ports != Ports::Open => Some(End::Returned),
            (_, Placement::Unbound) => Some(End::Vanished),
            (_, Placement::Keep) | (Phase::Ready | Phase::Returning, _) => None,
            (phase, Placement::On { home, .. }) if home == known.target => {
                if phase == Phase::Open {
                    self.metrics.passed(phase, known.since.zip(at));
                }
                (known.phase, known.since) = (Phase::Ready, at);
                None
            }
            (Phase::Open, _) if ports == Ports::Open => {
                (known.phase, known.since) = (Phase::Returning, at);
                None
            }
            _ => Some(End::Returned),
        }
    }

    /// Takes in the committed change of a port.
    pub(super) fn committed(&mut self, vm: &VmKey, change: &PortChange, now: Instant) {
        if self.count == 0 || !change.rebinds() {
            return;
        }
        let under_way = self.under_way.clone();
        let mut all = under_way.lock();
        let Some(known) = all.get_mut(vm) else { return };
        let opens = change.after.as_ref().is_some_and(|after| PortState::of(&after.row) == PortState::Moving);
        let since = known.since.zip(Some(now));
        let end = match known.phase {
            Phase::Scheduled if opens => {
                self.metrics.passed(Phase::Scheduled, since);
                (known.phase, known.since) = (Phase::Open, Some(now));
                None
            }
            Phase::Ready if !opens => Some(End::Arrived),
            Phase::Returning if !opens => Some(End::Returned),
            _ => None,
        };
        if let Some(end) = end {
            self.metrics.passed(known.phase, since);
            self.metrics.ended(end);
            all.remove(vm);
        }
        self.count = all.len();
    }
}

#[cfg(test)]
mod tests;
