//! The names of all VMs in order, and the order in which they changed: for lists with a cursor, and for subscribers.
//!
//! ```text
//!  writer, ledger --Changed--> Journal::keep --+--> names: every VM with a port or a status, by name
//!                                              +--> order: the VMs that changed since the slowest reader looked, each once,
//!                                                   at the place of its last change
//! ```
//!
//! Readers have a position in the order, and each goes its own pace: a VM that changes again moves to the end, so that a
//! slow reader finds it once. Without a reader and a list the journal is empty: it sleeps, the writer does not record
//! changes, and the next call builds it again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::replicas::Replicas;
use crate::contract::VmKey;
use crate::controller::Sets;

/// The pause between two reads of the changes: a storm is read in batches.
const PAUSE: Duration = Duration::from_millis(20);
/// Without a reader or a list for this long, the journal falls asleep.
const IDLE: Duration = Duration::from_secs(60);
/// VMs that are looked up under one lock of the replica.
const AT_ONCE: usize = 256;
/// So many VMs that change within [`PAUSE`] are a storm, which lasts until there has been none for this long.
const STORM: usize = 32;
const STORM_LASTS: Duration = Duration::from_secs(1);

/// A change: a VM, and its ports as they are shown once a reader has looked.
pub(super) struct Change<T> {
    pub(super) vm: Arc<VmKey>,
    pub(super) shown: OnceLock<Arc<T>>,
}

/// The journal. `T` is the form in which readers share what they read of a VM.
pub(super) struct Journal<T> {
    replicas: Replicas,
    kept: Mutex<Option<Kept<T>>>,
    /// The number of the last change.
    last: watch::Sender<u64>,
    /// The last time at which many VMs changed.
    storm: Mutex<Option<Instant>>,
}

struct Kept<T> {
    names: BTreeSet<Arc<VmKey>>,
    order: BTreeMap<u64, Arc<Change<T>>>,
    /// The place of each VM in `order`.
    places: HashMap<Arc<VmKey>, u64>,
    /// The positions of the readers.
    readers: HashMap<u64, u64>,
    /// The place of the last change.
    last: u64,
    used: Instant,
}

/// A reader of the changes. It is taken off the books when it is dropped.
pub(super) struct Reader<T> {
    journal: Arc<Journal<T>>,
    number: u64,
    last: watch::Receiver<u64>,
}

impl<T> Journal<T> {
    pub(super) fn new(replicas: Replicas) -> Self {
        Self { replicas, kept: Mutex::new(None), last: watch::Sender::new(0), storm: Mutex::new(None) }
    }

    /// Keeps the journal, for ever.
    pub(super) async fn keep(&self) {
        let changed = self.replicas.ledger.changed().clone();
        loop {
            tokio::select! {
                () = changed.moved() => {
                    self.take_in(changed.take()).await;
                    tokio::time::sleep(PAUSE).await;
                }
                () = tokio::time::sleep(IDLE) => {
                    let mut kept = self.lock();
                    if kept.as_ref().is_some_and(|kept| kept.readers.is_empty() && kept.used.elapsed() > IDLE) {
                        *kept = None;
                        changed.watch(false);
                    }
                }
            }
        }
    }

    /// Returns true while many VMs change.
    pub(super) fn is_storm(&self) -> bool {
        let storm = self.storm.lock().unwrap_or_else(PoisonError::into_inner);
        storm.is_some_and(|last| last.elapsed() < STORM_LASTS)
    }

    /// Up to so many names of VMs after this one, in order.
    pub(super) fn names_after(&self, after: Bound<&VmKey>, count: usize) -> Vec<Arc<VmKey>> {
        let mut kept = self.awake();
        let Some(kept) = kept.as_mut() else { return Vec::new() };
        kept.used = Instant::now();
        kept.names.range::<VmKey, _>((after, Bound::Unbounded)).take(count).cloned().collect()
    }

    /// A reader of all changes from now on.
    pub(super) fn reader(self: &Arc<Self>) -> Reader<T> {
        let mut kept = self.awake();
        let mut number = 0;
        let last = self.last.subscribe();
        if let Some(kept) = kept.as_mut() {
            while kept.readers.contains_key(&number) {
                number += 1;
            }
            kept.readers.insert(number, kept.last);
        }
        Reader { journal: Arc::clone(self), number, last }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Kept<T>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The journal, built if it is asleep.
    fn awake(&self) -> MutexGuard<'_, Option<Kept<T>>> {
        let mut kept = self.lock();
        if kept.is_none() {
            // First watch, then read: changes in between are recorded.
            self.replicas.ledger.changed().watch(true);
            let mut names: Vec<VmKey> = self.replicas.ledger.kept();
            names.extend(self.replicas.northbound.read().vms().cloned());
            let names = names.into_iter().map(Arc::new).collect();
            let (order, places, readers) = Default::default();
            let last = *self.last.borrow();
            *kept = Some(Kept { names, order, places, readers, last, used: Instant::now() });
        }
        kept
    }

    /// Takes in changes.
    async fn take_in(&self, Sets { vms, ports }: Sets) {
        let mut vms: BTreeSet<VmKey> = vms.into_iter().flatten().collect();
        for ports in ports {
            let view = self.replicas.northbound.read();
            let rows = ports.iter().filter_map(|name| view.port_named(name));
            vms.extend(rows.filter_map(|port| Some(port.row.owner(&port.uuid, view.instance())?.vm)));
        }
        if vms.len() >= STORM {
            *self.storm.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        let vms: Vec<VmKey> = vms.into_iter().collect();
        for vms in vms.chunks(AT_ONCE) {
            // Never both locks at once: the journal is built under its own.
            let kept = self.replicas.ledger.kept_of(vms);
            let exist: Vec<bool> = {
                let view = self.replicas.northbound.read();
                vms.iter().zip(kept).map(|(vm, kept)| kept.is_some() || view.ports_of(vm).next().is_some()).collect()
            };
            let last = self.lock().as_mut().map(|kept| {
                vms.iter().zip(exist).for_each(|(vm, exists)| kept.note(vm, exists));
                kept.last
            });
            if let Some(last) = last {
                self.last.send_replace(last);
            }
            tokio::task::yield_now().await;
        }
    }
}

impl<T> Kept<T> {
    fn note(&mut self, vm: &VmKey, exists: bool) {
        let name = match self.names.get(vm) {
            Some(name) => Arc::clone(name),
            None => Arc::new(vm.clone()),
        };
        match exists {
            true => self.names.insert(Arc::clone(&name)),
            false => self.names.remove(vm),
        };
        if self.readers.is_empty() {
            return;
        }
        self.last += 1;
        self.order.insert(self.last, Arc::new(Change { vm: Arc::clone(&name), shown: OnceLock::new() }));
        if let Some(before) = self.places.insert(name, self.last) {
            self.order.remove(&before);
        }
    }

    /// Forgets the changes that every reader has read.
    fn prune(&mut self) {
        let read = self.readers.values().min().copied().unwrap_or(u64::MAX);
        while let Some(entry) = self.order.first_entry().filter(|entry| *entry.key() <= read) {
            let (place, change) = entry.remove_entry();
            if self.places.get(&change.vm) == Some(&place) {
                self.places.remove(&change.vm);
            }
        }
    }
}

impl<T> Reader<T> {
    /// Waits until there are changes to read.
    pub(super) async fn moved(&mut self) {
        let position = self.journal.lock().as_ref().and_then(|kept| kept.readers.get(&self.number).copied());
        // The sender lives as long as the journal.
        let _ = self.last.wait_for(|last| Some(*last) > position).await;
    }

    /// Up to so many changes, in their order, each VM once.
    pub(super) fn read(&self, most: usize) -> Vec<Arc<Change<T>>> {
        let mut kept = self.journal.lock();
        let Some(kept) = kept.as_mut() else { return Vec::new() };
        let Some(position) = kept.readers.get(&self.number).copied() else { return Vec::new() };
        let changes: Vec<(u64, Arc<Change<T>>)> = kept
            .order
            .range((Bound::Excluded(position), Bound::Unbounded))
            .take(most)
            .map(|(place, change)| (*place, Arc::clone(change)))
            .collect();
        let read = changes.last().map_or(kept.last, |(place, _)| *place);
        kept.readers.insert(self.number, read.max(position));
        kept.prune();
        changes.into_iter().map(|(_, change)| change).collect()
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        if let Some(kept) = self.journal.lock().as_mut() {
            kept.readers.remove(&self.number);
            kept.used = Instant::now();
            kept.prune();
        }
    }
}
