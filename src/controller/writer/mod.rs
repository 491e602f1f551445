//! The one task that decides and writes.
//!
//! Dirty VMs are planned against the replica and sent as one transaction; whatever becomes dirty
//! while it is in flight goes into the next, which is prepared meanwhile and sent as soon as the answer is there
//! (`sending.rs`; what may be sent, [`Pipeline`] says). Idle, a VM's port is sent at once; in a storm, batches
//! grow by themselves. Nothing is planned before the watches and the replica have both synced:
//! until then, absence means nothing.

mod abilities;
mod answering;
mod batch;
mod brake;
mod outcome;
mod sending;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::batch::{Batch, Flight, outcome};
use self::brake::{Brake, Presence};
use super::asking::Questions;
use super::ledger::Ledger;
use super::link::{Link, Office};
use super::metrics::Metrics;
use super::status::Status;
use super::timetable::Timetable;
use super::waiting::Waiting;
use crate::contract::VmKey;
use crate::intent::{Settings, VmIntent};
use crate::kubevirt::{Change, Cluster, Namespace, VmObjects};
use crate::ovn::{Multichassis, Northbound, Southbound, SouthboundChanges, Wake};
use crate::ovsdb::Shared;
use crate::plan::{LastLease, Looked, Lost, Pipeline, Settling, Turn};

/// Changes that the watches may be ahead of the writer; beyond it they wait, and so does the server. A migration waits for
/// all that came before it to be taken in: some milliseconds, for so many.
pub const CHANGES_AHEAD: usize = 256;

/// VMs looked at in one go: no-ops must not keep the watches waiting.
const VMS_PER_TURN: usize = 1_000;
/// Changes taken in before the next plan: as many as a transaction has ports, so that the first of many is not kept
/// waiting for all.
const CHANGES_PER_TURN: usize = 100;
/// A VM whose transaction the server refused alone is tried again after this, doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// A connection that breaks so often with a transaction in flight may break because of what is in it:
/// from then on it is taken apart, as one that the server refused.
const UNKNOWN_BEFORE_PARTS: usize = 3;

/// Why the writer ended.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// The tasks that it listens to are gone.
    #[error("the watches have ended")]
    Deserted,
}

/// What the writer works with.
pub struct WriterSettings {
    /// What the operator chose for all VMs.
    pub settings: Settings,
    /// The replica.
    pub northbound: Arc<Shared<Northbound>>,
    /// Whether it can be written.
    pub link: watch::Receiver<Link>,
    /// The southbound, where it is read.
    pub southbound: Option<SouthboundFeed>,
    /// What the watches report.
    pub changes: mpsc::Receiver<Change>,
    /// How often a silent server is probed.
    pub probe_interval: Duration,
    /// What others ask.
    pub questions: Questions,
    /// The statuses of VMs.
    pub ledger: Ledger,
    /// The count of held ports.
    pub metrics: Metrics,
    /// How long a released address rests.
    pub address_rest: Duration,
    /// The first sweep may release as many ports as it likes.
    pub allow_mass_release: bool,
    /// Told when the watches have synced.
    pub status: Status,
}

/// The southbound's replica, and how current it is.
#[derive(Clone)]
pub struct SouthboundFeed {
    /// The replica.
    pub replica: Arc<Shared<Southbound>>,
    /// Whether it is in sync; `None` before the first time.
    pub in_sync: watch::Receiver<Option<bool>>,
}

/// The state of the task.
pub struct Writer {
    settings: Settings,
    northbound: Arc<Shared<Northbound>>,
    link: watch::Receiver<Link>,
    southbound: Option<SouthboundFeed>,
    southbound_in_sync: bool,
    changes: mpsc::Receiver<Change>,
    probe_interval: Duration,
    questions: Questions,
    ledger: Ledger,
    status: Status,
    cluster: Cluster,
    settling: Settling,
    /// `NB_Global:nb_cfg` as it was last seen.
    nb_cfg: i64,
    pipeline: Pipeline<VmKey, Batch>,
    in_flight: Option<Flight>,
    waiting: Waiting,
    lost: Lost,
    /// What is lost no more, and has not woken the VMs yet that wait for it.
    over: HashSet<Wake>,
    /// VMs whose transaction was refused, and when they are tried again.
    retries: HashMap<VmKey, Retry>,
    timetable: Timetable,
    metrics: Metrics,
    brake: Brake,
    /// The role in which every VM has been decided since both sides synced.
    swept: Option<Role>,
    /// Transactions whose outcome is unknown, since the last that had one.
    unknown_in_a_row: usize,
    /// What the OVN at hand can do with a port that migrates; `None` before it is known.
    multichassis: Option<Multichassis>,
}

/// The part that this process plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It decides and writes.
    Leads,
    /// It decides, so that the status of every VM is known here, too. Another process writes.
    Follows,
}

struct Retry {
    at: Instant,
    delay: Duration,
}

impl Writer {
    /// A writer that knows nothing yet.
    pub fn new(settings: WriterSettings) -> Self {
        let WriterSettings {
            settings,
            northbound,
            link,
            southbound,
            changes,
            probe_interval,
            questions,
            ledger,
            metrics,
            address_rest,
            allow_mass_release,
            status,
        } = settings;
        Self {
            settings,
            northbound,
            link,
            southbound,
            southbound_in_sync: false,
            changes,
            probe_interval,
            questions,
            ledger,
            status,
            cluster: Cluster::default(),
            settling: Settling::default(),
            nb_cfg: 0,
            pipeline: Pipeline::default(),
            in_flight: None,
            waiting: Waiting::default(),
            lost: Lost::default(),
            over: HashSet::new(),
            retries: HashMap::new(),
            timetable: Timetable::new(address_rest),
            metrics,
            brake: Brake::new(allow_mass_release, Instant::now()),
            swept: None,
            unknown_in_a_row: 0,
            multichassis: None,
        }
    }

    /// Runs until it is deserted.
    pub async fn run(mut self) -> Result<(), WriterError> {
        let northbound = Arc::clone(&self.northbound);
        let mut southbound = self.southbound.clone();
        loop {
            if self.advance() {
                gone_out().await;
            }
            self.answer_questions();
            let more = self.has_more();
            let retry = self.retries.values().map(|retry| retry.at).chain(self.timetable.next()).min();
            tokio::select! {
                biased;
                outcome = outcome(&mut self.in_flight), if !self.pipeline.is_idle() => {
                    let batch = self.answered(&outcome);
                    gone_out().await;
                    if let Some(batch) = batch {
                        self.finish(outcome, batch);
                    }
                }
                () = northbound.changed.notified() => self.take_northbound_changes(),
                () = southbound_moved(&mut southbound) => self.take_southbound_changes(),
                change = self.changes.recv() => match change {
                    Some(change) => self.take_changes(change),
                    None => return Err(WriterError::Deserted),
                },
                linked = self.link.changed() => match linked {
                    Ok(()) => self.take_link(),
                    Err(_) => return Err(WriterError::Deserted),
                },
                () = tokio::time::sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => {
                    self.retry_due();
                }
                () = self.questions.arrive() => {}
                // A turn of no-ops is over and more VMs wait.
                () = tokio::task::yield_now(), if more => {}
            }
        }
    }

    fn office(&self) -> Option<Arc<Office>> {
        match &*self.link.borrow() {
            Link::Up(office) if office.is_held() => Some(Arc::clone(office)),
            Link::Up(_) | Link::Following | Link::Barred(_) | Link::NotYet | Link::Down(_) => None,
        }
    }

    /// The present role; `None` while the database cannot be read, or must not be acted on.
    fn role(&self) -> Option<Role> {
        match &*self.link.borrow() {
            Link::Up(office) => office.is_held().then_some(Role::Leads),
            Link::Following => Some(Role::Follows),
            Link::Barred(_) | Link::NotYet | Link::Down(_) => None,
        }
    }

    /// Whether both sides are known.
    fn can_plan(&self) -> bool {
        self.swept.is_some() && self.cluster.is_synced()
    }

    fn take_changes(&mut self, first: Change) {
        let mut change = Some(first);
        for _ in 0..CHANGES_PER_TURN {
            let Some(present) = change else { break };
            self.take_change(present);
            change = self.changes.try_recv().ok();
        }
        change.into_iter().for_each(|last| self.take_change(last));
        if self.cluster.is_synced() {
            self.status.watches_synced();
            self.sweep();
        }
    }

    fn take_change(&mut self, change: Change) {
        let presence = Presence::told_by(&change);
        let vms = self.cluster.apply(change);
        self.cluster.take_notices().into_iter().for_each(|notice| tracing::warn!("{notice}"));
        self.mind_presence(&presence, &vms);
        for vm in vms {
            // What a live migration waits for, its guest waits for: it goes before all others.
            if self.cluster.vm(&vm).is_some_and(VmObjects::is_migrating) {
                self.look_for_lost(&vm);
                self.pipeline.push_first(vm);
            } else {
                self.dirty(vm);
            }
        }
    }

    fn take_southbound_changes(&mut self) {
        let Some(feed) = &self.southbound else { return };
        let in_sync = *feed.in_sync.borrow() == Some(true);
        let came = in_sync && !self.southbound_in_sync;
        if std::mem::replace(&mut self.southbound_in_sync, in_sync) != in_sync {
            self.pipeline.drop_prepared();
        }
        let SouthboundChanges { ports, chassis } = feed.replica.write().take_changes();
        if came {
            self.wake(&Wake::Southbound);
        }
        for port in ports {
            self.wake(&Wake::Claim(port.clone()));
            self.wake(&Wake::Binding(port));
        }
        for name in &chassis {
            self.wake(&Wake::Chassis(name.clone()));
        }
        if !chassis.is_empty() {
            let short = |node: &str| node.split('.').next().unwrap_or_default().to_owned();
            let affected = self.cluster.vms_on(|node| chassis.contains(node) || chassis.contains(&short(node)));
            affected.into_iter().for_each(|vm| self.dirty(vm));
        }
        self.note_multichassis();
        self.sweep();
    }

    fn wake(&mut self, wake: &Wake) {
        let woken: Vec<VmKey> = self.waiting.on(wake).cloned().collect();
        for vm in woken {
            if matches!(wake, Wake::Binding(_) | Wake::Processed) {
                self.pipeline.push_first(vm);
            } else {
                self.dirty(vm);
            }
        }
    }

    /// Takes in what has come into the replica. What the transaction in flight has done, and nobody else, makes no VM
    /// dirty: its rows are what its plan made of them.
    fn take_northbound_changes(&mut self) {
        let (changes, unexplained) = {
            let mut view = self.northbound.write();
            if let Some(office) = self.office()
                && !office.epoch.stands_in(&view)
            {
                office.lose();
            }
            if view.nb_cfg() < std::mem::replace(&mut self.nb_cfg, view.nb_cfg()) {
                // An older database again: it may never come to the numbers that were noted.
                self.settling.forget();
            }
            self.settling.processed(view.sb_cfg());
            let mut changes = view.take_changes();
            self.brake.forget_released(&view, &changes.vms);
            if !self.timetable.has_rests() {
                changes.rests.drain(..).for_each(|rest| view.end_rest(&rest));
            }
            let flight = self.in_flight.as_mut().filter(|flight| !flight.disturbed);
            let unexplained = flight.and_then(|flight| {
                let unexplained = flight.batch.unexplained(&view, &changes);
                flight.disturbed = unexplained.is_none();
                unexplained
            });
            (changes, unexplained)
        };
        self.timetable.rest(changes.rests, Instant::now());
        if unexplained.is_none() && !changes.vms.is_empty() {
            // What is prepared may rest on the rows that somebody else wrote.
            self.pipeline.drop_prepared();
        }
        for vm in unexplained.unwrap_or_else(|| changes.vms.into_iter().collect()) {
            self.dirty(vm);
        }
        for wake in changes.wakes {
            self.wake(&wake);
        }
    }

    fn take_link(&mut self) {
        self.pipeline.drop_prepared();
        let deposed = matches!(&*self.link.borrow_and_update(), Link::Following | Link::Barred(_));
        let role = self.role();
        if deposed || role.is_some() && role != self.swept {
            // Another process may have written meanwhile: every VM is decided again.
            self.swept = None;
            self.lost = Lost::default();
            self.over.clear();
        }
        if deposed {
            self.settling.forget();
            self.ledger.lead(false);
            self.pause_brake();
        }
        self.note_multichassis();
        self.take_northbound_changes();
        self.sweep();
    }

    /// Once both sides are in sync, every VM that either of them knows is looked at.
    fn sweep(&mut self) {
        let Some(role) = self.role().filter(|_| self.swept.is_none() && self.cluster.is_synced()) else { return };
        self.swept = Some(role);
        self.ledger.lead(role == Role::Leads);
        let of_northbound: Vec<VmKey> = self.northbound.read().vms().cloned().collect();
        let of_kubernetes: Vec<VmKey> = self.cluster.vms().cloned().collect();
        tracing::info!(
            vms = of_kubernetes.len(),
            vms_with_ports = of_northbound.len(),
            "watches and northbound database are in sync: looking at every VM"
        );
        of_kubernetes.into_iter().chain(of_northbound).for_each(|vm| self.dirty(vm));
    }

    /// Finds out whether rows of a VM are lost, before any VM is planned that might be given its addresses.
    fn look_for_lost(&mut self, vm: &VmKey) {
        if !self.can_plan() {
            return;
        }
        let view = self.northbound.read();
        let (cluster, settings) = (&self.cluster, &self.settings);
        let none = Namespace::default();
        let namespace = cluster.namespace(&vm.namespace).unwrap_or(&none);
        let intent = |objects: &VmObjects| VmIntent::of(vm, objects, namespace, settings);
        let Looked { over, grew } = self.lost.look(vm, cluster.served_vm(vm), &view, intent);
        for LastLease { switch, addresses } in over {
            for switch in view.switches_named(&switch) {
                let ips = addresses.ips().map(|ip| Wake::Address(switch, ip));
                self.over.extend(ips.chain([Wake::Mac(switch, addresses.mac), Wake::Room(switch)]));
            }
        }
        drop(view);
        if grew {
            self.pipeline.drop_prepared();
        }
    }

    /// Wakes the VMs that wait for what guests had lost. They are looked at, and more may be over by that: so this is no
    /// part of the look.
    fn wake_for_what_is_over(&mut self) {
        while !self.over.is_empty() {
            for wake in std::mem::take(&mut self.over) {
                self.wake(&wake);
            }
        }
    }

    fn dirty(&mut self, vm: VmKey) {
        if self.swept.is_none() {
            // Every VM is decided then.
            return;
        }
        let objects = self.cluster.vm(&vm);
        let turn = Turn::of(objects);
        if self.lost.concerns(&vm, objects) {
            self.look_for_lost(&vm);
        }
        self.pipeline.push(vm, turn);
    }

    fn retry_due(&mut self) {
        let now = Instant::now();
        let due = self.retries.iter().filter(|(_, retry)| retry.at <= now);
        let due: Vec<VmKey> = due.map(|(vm, _)| vm.clone()).collect();
        for vm in due {
            if let Some(retry) = self.retries.get_mut(&vm) {
                // Due again only after the next refusal.
                retry.at = now + LAST_RETRY * 2;
            }
            self.dirty(vm);
        }
        self.timetable.take_due(now).into_iter().for_each(|vm| self.dirty(vm));
        let rested = self.timetable.take_rested(now);
        if !rested.is_empty() {
            let mut view = self.northbound.write();
            rested.iter().for_each(|rest| view.end_rest(rest));
        }
    }
}

/// Has what was sent go out before anything else is done. The task that writes to the socket waits for this one's thread
/// otherwise, where no other may take it: for as long as the next hundred ports are planned, as measured.
async fn gone_out() {
    tokio::task::yield_now().await;
}

/// Waits until the southbound's replica, or how current it is, has changed.
async fn southbound_moved(feed: &mut Option<SouthboundFeed>) {
    let Some(SouthboundFeed { replica, in_sync }) = feed else { return std::future::pending().await };
    tokio::select! {
        () = replica.changed.notified() => {}
        Ok(()) = in_sync.changed() => {}
    }
}
