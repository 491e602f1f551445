//! The brake: compares the releases of a sweep with the number of all ports, and holds them if they are too many.
//!
//! ```text
//!   office taken, both sides in sync ----- every VM that is gone ----+
//!   a list ends that lacks VMs ----------- those, and the held ------+--> check --few--> released
//!                                                                    |
//!                                                    many: held <----+
//!                                                      |
//!                     its objects come back, a later list or office, --allow-mass-release
//! ```
//!
//! A VM's absence becomes known in two ways. Its deletion is *seen* (a watch reports DELETED): its ports are released
//! at once, however many. Or a list, or the first look after a start, *lacks* the VM: then a wrong kubeconfig, an empty
//! etcd, a broken aggregated API or an older northbound database look just the same. If so many are missing that a
//! mistake is more likely, all of them are held: rows stay unchanged, and their addresses stay taken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::{Link, Writer};
use crate::contract::{VmKey, keys};
use crate::controller::holding::Holding;
use crate::controller::link::Office;
use crate::hash::FastSet;
use crate::kubevirt::{Change, Cluster, Kind};
use crate::ovn::Northbound;
use crate::plan::Held;

/// Up to this number of ports any sweep releases.
const FEW: usize = 10;
/// Beyond it, a sweep releases at most one port in this many.
const SHARE: usize = 5;
/// The number of VMs that are named to the operator.
const EXAMPLES: usize = 5;
/// `--allow-mass-release` is meant for the sweep after the restart by the operator. Under a Lease that sweep comes when
/// the former leader has ended. A process that leads only much later does not use the permit.
const PERMIT_FOR: Duration = Duration::from_secs(3_600);

/// Returns true if releasing this many of all ports at once is more likely a mistake.
fn is_mass(ports: usize, total: usize) -> bool {
    ports > FEW && ports.saturating_mul(SHARE) > total
}

/// The held ports, and the VMs that are known to be gone.
#[derive(Debug, Default)]
pub(super) struct Brake {
    /// The deleted VMs with held ports, and the numbers of these ports.
    held: Held,
    /// The sum of these numbers: VMs may return by the thousand, one after the other.
    held_ports: usize,
    /// The VMs that are certainly deleted, while their ports are being released.
    settled: FastSet<VmKey>,
    /// The number of all ports at the last check.
    total: usize,
    /// The end of the permit for the next sweep to release any number of ports.
    permit: Option<Instant>,
    /// The office in which every VM was checked.
    office: Weak<Office>,
}

impl Brake {
    /// Creates a brake that holds no ports.
    pub(super) fn new(allow_mass_release: bool, now: Instant) -> Self {
        Self { permit: allow_mass_release.then(|| now + PERMIT_FOR), ..Self::default() }
    }

    /// Returns true if no ports are held or being released.
    fn is_idle(&self) -> bool {
        self.held.is_empty() && self.settled.is_empty()
    }

    /// The deleted VMs with held ports.
    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Records that these VMs exist. Returns true if any was held.
    fn came<'a>(&mut self, vms: impl IntoIterator<Item = &'a VmKey>) -> bool {
        let before = self.held.len();
        for vm in vms {
            self.held_ports -= self.held.remove(vm).unwrap_or_default();
        }
        self.held.len() < before
    }

    /// Records that the VM's deletion was seen.
    fn deleted(&mut self, vm: &VmKey) {
        self.settled.insert(vm.clone());
    }

    /// Forgets the held ports: another process leads, and has its own brake.
    fn pause(&mut self) {
        self.held.clear();
        self.held_ports = 0;
        self.office = Weak::new();
    }

    /// Checks the VMs that are gone without a seen deletion, each with the number of its ports, against the number of
    /// all ports. Returns the VMs that were held and are released now.
    fn check(&mut self, gone: BTreeMap<VmKey, usize>, total: impl FnOnce() -> usize, now: Instant) -> Vec<VmKey> {
        let permitted = self.permit.take().is_some_and(|until| now < until);
        let ports: usize = gone.values().sum();
        if ports > FEW {
            self.total = total();
            if is_mass(ports, self.total) && !permitted {
                (self.held, self.held_ports) = (gone, ports);
                return Vec::new();
            }
        }
        let before = std::mem::take(&mut self.held);
        self.held_ports = 0;
        let released = before.into_keys().filter(|vm| gone.contains_key(vm)).collect();
        self.settled.extend(gone.into_keys());
        released
    }

    /// The ports that are held now.
    fn holding(&self) -> Option<Holding> {
        let ports = self.held_ports;
        let examples = self.held.keys().take(EXAMPLES).cloned().collect();
        let more = self.held.len() > EXAMPLES;
        (ports > 0).then_some(Holding { ports, total: self.total, examples, more })
    }

    /// Forgets VMs after their ports are gone, or retained.
    pub(super) fn forget_released<'a>(&mut self, view: &Northbound, changed: impl IntoIterator<Item = &'a VmKey>) {
        if self.settled.is_empty() {
            return;
        }
        for vm in changed {
            if self.settled.contains(vm) && releasable(view, vm) == 0 {
                self.settled.remove(vm);
            }
        }
    }
}

/// Returns true if only launcher pods are left of a VM: they may end late, and do not mean that it returns.
fn is_deleted(cluster: &Cluster, vm: &VmKey) -> bool {
    cluster.vm(vm).is_none_or(|objects| objects.vm.is_none() && objects.run.is_none())
}

/// The number of a VM's ports that would be released or retained if it were gone.
fn releasable(view: &Northbound, vm: &VmKey) -> usize {
    view.ports_of(vm).filter(|(_, port)| port.row.external_ids.get(keys::RETAINED_UNTIL).is_none()).count()
}

/// The evidence of a change for the presence of VMs.
pub(super) enum Presence {
    /// An object exists.
    There,
    /// The deletion of an object was seen.
    Deleted,
    /// A list is complete.
    Listed,
    /// No evidence.
    Unknown,
}

impl Presence {
    /// The evidence of this change.
    pub(super) fn of_change(change: &Change) -> Self {
        match change {
            Change::Vm(_)
            | Change::UnreadableVm(..)
            | Change::Run(_)
            | Change::UnreadableRun(..)
            | Change::Launcher(_)
            | Change::Unreadable(Kind::Launcher, ..) => Self::There,
            Change::Gone(Kind::Vm | Kind::Run, _) => Self::Deleted,
            Change::ListEnds(Kind::Vm | Kind::Run | Kind::Launcher) => Self::Listed,
            Change::Gone(..)
            | Change::ListEnds(_)
            | Change::ListBegins(_)
            | Change::Unreadable(..)
            | Change::Migration(_)
            | Change::Node(_)
            | Change::Namespace(_)
            | Change::Nad(_) => Self::Unknown,
        }
    }
}

impl Writer {
    /// Takes in the evidence of a change, which has been applied, for these VMs.
    pub(super) fn note_presence(&mut self, presence: &Presence, vms: &BTreeSet<VmKey>) {
        match presence {
            Presence::Unknown => {}
            Presence::There if self.brake.is_idle() => {}
            Presence::There => {
                let cluster = &self.cluster;
                for vm in vms.iter().filter(|vm| !is_deleted(cluster, vm)) {
                    self.brake.settled.remove(vm);
                }
                if self.brake.came(vms.iter().filter(|vm| !is_deleted(cluster, vm))) {
                    self.tell_holding();
                }
            }
            Presence::Deleted => {
                // Without a replica in sync, its rows may still be missing.
                let unread = matches!(&*self.link.borrow(), Link::NotYet | Link::Down(_));
                let view = self.northbound.read();
                for vm in vms.iter().filter(|vm| is_deleted(&self.cluster, vm)) {
                    if unread || releasable(&view, vm) > 0 {
                        self.brake.deleted(vm);
                    }
                }
            }
            Presence::Listed => self.check_list(vms),
        }
    }

    /// Checks these VMs after a list that lacks them, unless other objects of them exist.
    fn check_list(&mut self, vms: &BTreeSet<VmKey>) {
        // Before office is taken, no ports are released; then every VM is checked anyway.
        let checked = |office: &Arc<Office>| std::ptr::eq(self.brake.office.as_ptr(), Arc::as_ptr(office));
        if !self.can_plan() || !self.office().as_ref().is_some_and(checked) {
            return;
        }
        let view = Arc::clone(&self.northbound);
        let view = view.read();
        let lacking = vms.iter().filter(|vm| is_deleted(&self.cluster, vm) && !self.brake.settled.contains(*vm));
        let all = lacking.chain(self.brake.held.keys());
        let gone: BTreeMap<VmKey, usize> = all
            .map(|vm| (vm, releasable(&view, vm)))
            .filter(|(_, ports)| *ports > 0)
            .map(|(vm, ports)| (vm.clone(), ports))
            .collect();
        drop(view);
        if !gone.is_empty() || !self.brake.held.is_empty() {
            self.check(gone);
        }
    }

    /// Checks all VMs that have ports and are gone: once in each office, before its first decision. The replica may
    /// have been rolled back, and another process may have had the office before.
    pub(super) fn check_all(&mut self, office: &Arc<Office>) {
        if std::ptr::eq(self.brake.office.as_ptr(), Arc::as_ptr(office)) {
            return;
        }
        self.brake.office = Arc::downgrade(office);
        let view = Arc::clone(&self.northbound);
        let view = view.read();
        let cluster = &self.cluster;
        self.brake.settled.retain(|vm| is_deleted(cluster, vm) && releasable(&view, vm) > 0);
        let lacking = view.vms().filter(|vm| is_deleted(cluster, vm) && !self.brake.settled.contains(*vm));
        let gone = lacking.map(|vm| (vm.clone(), releasable(&view, vm))).filter(|(_, ports)| *ports > 0).collect();
        drop(view);
        self.check(gone);
    }

    fn check(&mut self, gone: BTreeMap<VmKey, usize>) {
        let before = self.brake.holding();
        let northbound = Arc::clone(&self.northbound);
        let total = || {
            let view = northbound.read();
            view.vms().map(|vm| releasable(&view, vm)).sum()
        };
        let released = self.brake.check(gone, total, Instant::now());
        let holding = self.brake.holding();
        match &holding {
            Some(holding) if before.as_ref() != Some(holding) => {
                tracing::warn!(ports = holding.ports, total = holding.total, "{holding}");
            }
            None if before.is_some() => tracing::info!(vms = released.len(), "no ports are held any more"),
            _ => {}
        }
        released.into_iter().for_each(|vm| self.dirty(vm));
        self.tell_holding();
    }

    /// Pauses the brake, as another process leads.
    pub(super) fn pause_brake(&mut self) {
        self.brake.pause();
        self.tell_holding();
    }

    fn tell_holding(&self) {
        let holding = self.brake.holding();
        let ports = holding.as_ref().map_or(0, |holding| holding.ports);
        self.metrics.held_ports.set(i64::try_from(ports).unwrap_or(i64::MAX));
        self.status.hold(holding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vms(prefix: &str, count: usize) -> BTreeMap<VmKey, usize> {
        (0..count).map(|index| (VmKey::new("ns", format!("{prefix}-{index:03}")), 1)).collect()
    }

    fn held_of(gone: usize, total: usize) -> usize {
        let mut brake = Brake::default();
        brake.check(vms("vm", gone), || total, Instant::now());
        brake.holding().map_or(0, |holding| holding.ports)
    }

    #[test]
    fn more_than_ten_ports_and_more_than_a_fifth_are_held() {
        for (gone, total, held) in [
            (0, 0, 0),
            (10, 10, 0),
            (11, 11, 11),
            (11, 54, 11),
            (11, 55, 0),
            (11, 56, 0),
            (500, 500, 500),
            (500, 2_500, 0),
            (501, 2_500, 501),
        ] {
            assert_eq!(held_of(gone, total), held, "{gone} of {total}");
        }
        // Ports count, not VMs.
        let mut brake = Brake::default();
        brake.check(BTreeMap::from([(VmKey::new("ns", "many"), 11)]), || 12, Instant::now());
        assert!(brake.held().contains_key(&VmKey::new("ns", "many")));
    }

    #[test]
    fn vms_that_return_are_released_from_the_hold_and_the_rest_stays_held_until_the_next_check() {
        let now = Instant::now();
        let mut brake = Brake::default();
        let gone = vms("vm", 12);
        brake.check(gone.clone(), || 12, now);
        let mut rest = gone.clone();
        for vm in gone.keys().take(9) {
            assert!(brake.came([vm]));
            assert!(!brake.came([vm]), "once");
            rest.remove(vm);
            assert!(rest.keys().all(|vm| brake.held().contains_key(vm)));
        }
        assert_eq!(brake.holding().map(|holding| (holding.ports, holding.total)), Some((3, 12)));
        // A list is complete.
        assert_eq!(brake.check(rest.clone(), || 12, now), rest.into_keys().collect::<Vec<_>>());
        assert_eq!(brake.holding(), None);
    }

    #[test]
    fn a_permit_is_for_one_sweep_and_for_an_hour() {
        let start = Instant::now();
        let mut brake = Brake::new(true, start);
        assert_eq!(brake.check(vms("vm", 500), || 500, start), Vec::new());
        assert_eq!(brake.holding(), None);
        brake.check(vms("other", 500), || 500, start);
        assert_eq!(brake.holding().map(|holding| holding.ports), Some(500));
        let mut late = Brake::new(true, start);
        late.check(vms("vm", 500), || 500, start + PERMIT_FOR);
        assert_eq!(late.holding().map(|holding| holding.ports), Some(500));
    }

    #[test]
    fn the_operator_sees_the_number_of_ports_some_vms_and_the_remedy() {
        let mut brake = Brake::default();
        brake.check(vms("vm", 500), || 600, Instant::now());
        let text = brake.holding().expect("it holds").to_string();
        for words in ["holding 500 of 600 ports", "ns/vm-000", "ns/vm-004, ...", "--allow-mass-release"] {
            assert!(text.contains(words), "{text}");
        }
        assert!(!text.contains("vm-005"), "{text}");
        let forged = BTreeMap::from([(VmKey::new("ns", "a\nb"), 11)]);
        brake.check(forged, || 11, Instant::now());
        assert!(!brake.holding().expect("it holds").to_string().contains('\n'));
    }
}
