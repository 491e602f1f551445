//! The state that subscriptions share: the journal, their number, and the bytes that they may send.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::value::{RawValue, to_raw_value};

use super::journal::{Change, Journal};
use super::model::{Port, VmPorts};
use super::replicas::Replicas;
use crate::contract::VmKey;

/// The most subscriptions in all.
pub(super) const MOST: usize = 256;
/// The bytes that all subscriptions send in a second while many VMs change, and otherwise.
const IN_A_STORM: f64 = 2.5e6;
const IN_CALM: f64 = 60e6;

/// The subscriptions of this process. Clones share them.
#[derive(Clone)]
pub(super) struct Subscriptions {
    pub(super) journal: Arc<Journal<Shown>>,
    count: Arc<AtomicUsize>,
}

/// A VM as subscribers without a filter see it.
pub(super) struct Shown {
    pub(super) vm: Arc<VmKey>,
    pub(super) ports: Vec<Port>,
    pub(super) json: Box<RawValue>,
}

impl Subscriptions {
    pub(super) fn new(replicas: Replicas) -> Self {
        Self { journal: Arc::new(Journal::new(replicas)), count: Arc::default() }
    }

    /// The number of subscriptions.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The names of VMs after one, in order.
    pub(super) fn names_after(&self, after: Bound<&VmKey>, count: usize) -> Vec<Arc<VmKey>> {
        self.journal.names_after(after, count)
    }

    /// Keeps the journal, for ever.
    pub(super) async fn keep(&self) {
        self.journal.keep().await;
    }

    /// Begins a subscription, if there is room for one more.
    pub(super) fn begin(&self) -> Option<Counted> {
        let begun = self.count.fetch_add(1, Ordering::Relaxed) < MOST;
        let counted = Counted(Arc::clone(&self.count));
        begun.then_some(counted)
    }

    /// The bytes that each subscription may send in a second.
    pub(super) fn share(&self) -> f64 {
        let all = if self.journal.is_storm() { IN_A_STORM } else { IN_CALM };
        all / self.count().max(1) as f64
    }
}

/// Counts a subscription until it is dropped.
pub(super) struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The VMs as they are now. If another subscriber has read the same change, its data is shared.
pub(super) fn show(replicas: &Replicas, changes: &[Arc<Change<Shown>>]) -> Vec<Arc<Shown>> {
    let unread: Vec<&Arc<Change<Shown>>> = changes.iter().filter(|change| change.shown.get().is_none()).collect();
    if !unread.is_empty() {
        let kept = replicas.ledger.kept_of(unread.iter().map(|change| change.vm.as_ref()));
        let ports: Vec<Vec<Port>> = replicas.look(|view| {
            let vms = unread.iter().zip(&kept);
            vms.map(|(change, kept)| view.ports_of(&change.vm, kept.as_deref())).collect()
        });
        for (change, ports) in unread.into_iter().zip(ports) {
            let VmKey { namespace, name: vm } = VmKey::clone(&change.vm);
            let all = VmPorts { namespace, vm, ports };
            if let Ok(json) = to_raw_value(&all) {
                // Another subscriber may have been first.
                let _ = change.shown.set(Arc::new(Shown { vm: Arc::clone(&change.vm), ports: all.ports, json }));
            }
        }
    }
    changes.iter().filter_map(|change| change.shown.get().cloned()).collect()
}
