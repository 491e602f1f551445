//! The one task that decides and writes.
//!
//! Dirty VMs are decided on the replica and sent as one transaction. VMs that become dirty while it is in flight go
//! into the next, which is prepared in the meantime and sent as soon as the answer comes (`sending.rs`; the rules are
//! in [`Pipeline`]). An idle service sends a VM's port at once; in a storm, batches grow by themselves. No VM is
//! decided before the watches and the replica have both synced: until then, absence means nothing.

mod abilities;
mod answering;
mod batch;
mod brake;
mod collecting;
mod counting;
mod outcome;
mod sending;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::batch::{Batch, Flight, outcome};
use self::brake::{Brake, Presence};
use self::collecting::Unused;
use super::asking::Questions;
use super::backlog::{Arrival, Backlog, Since};
use super::ledger::Ledger;
use super::link::{Link, Office};
use super::metrics::{Metrics, WriterMetrics};
use super::migrations::Migrations;
use super::status::Status;
use super::timetable::Timetable;
use super::waiting::Waiting;
use crate::contract::VmKey;
use crate::intent::{Settings, VmIntent};
use crate::kubevirt::{Cluster, Namespace, VmObjects};
use crate::ovn::{Multichassis, Northbound, Southbound, SouthboundChanges, Wake};
use crate::ovsdb::Shared;
use crate::plan::{LastLease, Looked, Lost, Pipeline, Settling, Turn};

/// The number of changes by which the watches may be ahead of the writer. Beyond it they wait, and so does the server.
/// A migration waits until all earlier changes are taken in: some milliseconds for this many.
pub const CHANGES_AHEAD: usize = 256;

/// The most VMs decided in one turn, so that VMs without changes do not delay the watches.
const VMS_PER_TURN: usize = 1_000;
/// The most changes taken in before the next decision: as many as a transaction has ports, so that the first of many
/// does not wait for all.
const CHANGES_PER_TURN: usize = 100;
/// The pause after the server refused a VM's own transaction, doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// After this many breaks of the connection with a transaction in flight, its content may be the cause: from then on it
/// is split, like a refused one.
const UNKNOWN_BEFORE_PARTS: usize = 3;

/// The reason why the writer ended.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// The tasks that feed it are gone.
    #[error("the watches have ended")]
    Deserted,
}

/// The inputs and outputs of the writer.
pub struct WriterSettings {
    /// The operator's settings for all VMs.
    pub settings: Settings,
    /// The replica.
    pub northbound: Arc<Shared<Northbound>>,
    /// The state of the link.
    pub link: watch::Receiver<Link>,
    /// The southbound, if it is read.
    pub southbound: Option<SouthboundFeed>,
    /// The changes from the watches.
    pub changes: mpsc::Receiver<Arrival>,
    /// The interval of silence after which a server is probed.
    pub probe_interval: Duration,
    /// The questions of other tasks.
    pub questions: Questions,
    /// The statuses of VMs.
    pub ledger: Ledger,
    /// Receives the counts of held ports, of transactions and of migrations.
    pub metrics: Metrics,
    /// The rest of a released address.
    pub address_rest: Duration,
    /// The time for which a row of DHCP options stays after its last port.
    pub dhcp_grace: Duration,
    /// The first sweep may release any number of ports.
    pub allow_mass_release: bool,
    /// Receives the completion of the first lists.
    pub status: Status,
}

/// The southbound's replica, and its state.
#[derive(Clone)]
pub struct SouthboundFeed {
    /// The replica.
    pub replica: Arc<Shared<Southbound>>,
    /// True while it is in sync; `None` before the first sync.
    pub in_sync: watch::Receiver<Option<bool>>,
}

/// The state of the task.
pub struct Writer {
    settings: Settings,
    northbound: Arc<Shared<Northbound>>,
    link: watch::Receiver<Link>,
    southbound: Option<SouthboundFeed>,
    southbound_in_sync: bool,
    changes: mpsc::Receiver<Arrival>,
    probe_interval: Duration,
    questions: Questions,
    ledger: Ledger,
    status: Status,
    cluster: Cluster,
    settling: Settling,
    /// The last known `NB_Global:nb_cfg`.
    nb_cfg: i64,
    pipeline: Pipeline<VmKey, Batch>,
    /// The VMs in the pipeline, but for those in flight, and since when they wait.
    backlog: Backlog,
    in_flight: Option<Flight>,
    waiting: Waiting,
    lost: Lost,
    /// Deleted VMs whose retained ports an operator has ordered to be released.
    releasing: BTreeSet<VmKey>,
    /// Losses that are over, before their waiting VMs are woken.
    over: HashSet<Wake>,
    /// VMs after a refused transaction, with the times of their next tries.
    retries: HashMap<VmKey, Retry>,
    timetable: Timetable,
    metrics: Metrics,
    counts: WriterMetrics,
    migrations: Migrations,
    brake: Brake,
    unused: Unused,
    /// The role in which every VM has been decided since both sides synced.
    swept: Option<Role>,
    /// The number of transactions with unknown outcome since the last known one.
    unknown_in_a_row: usize,
    /// The ability of the present OVN for migrating ports; `None` before it is known.
    multichassis: Option<Multichassis>,
}

/// The role of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It decides and writes.
    Leads,
    /// It decides, so that it has the status of every VM, too. Another process writes.
    Follows,
}

struct Retry {
    at: Instant,
    delay: Duration,
}

impl Writer {
    /// A writer without knowledge of VMs.
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
            dhcp_grace,
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
            backlog: Backlog::new(Instant::now()),
            in_flight: None,
            waiting: Waiting::default(),
            lost: Lost::default(),
            releasing: BTreeSet::new(),
            over: HashSet::new(),
            retries: HashMap::new(),
            timetable: Timetable::new(address_rest),
            counts: metrics.writer(),
            migrations: Migrations::new(metrics.migrations()),
            metrics,
            brake: Brake::new(allow_mass_release, Instant::now()),
            unused: Unused::new(dhcp_grace),
            swept: None,
            unknown_in_a_row: 0,
            multichassis: None,
        }
    }

    /// Runs until the tasks that feed it are gone.
    pub async fn run(mut self) -> Result<(), WriterError> {
        let northbound = Arc::clone(&self.northbound);
        let mut southbound = self.southbound.clone();
        loop {
            if self.advance() {
                gone_out().await;
            }
            self.answer_questions();
            self.tell_queue();
            let more = self.has_more();
            let retry = self.retries.values().map(|retry| retry.at).chain(self.timetable.next());
            let retry = retry.chain(self.next_collection()).min();
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
                // More VMs wait after a turn.
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

    /// Returns true if the watches and the replica have synced.
    fn can_plan(&self) -> bool {
        self.swept.is_some() && self.cluster.is_synced()
    }

    fn take_changes(&mut self, first: Arrival) {
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

    fn take_change(&mut self, Arrival { change, at }: Arrival) {
        let presence = Presence::of_change(&change);
        let vms = self.cluster.apply(change);
        self.cluster.take_notices().into_iter().for_each(|notice| tracing::warn!("{notice}"));
        self.note_presence(&presence, &vms);
        for vm in vms {
            if self.cluster.vm(&vm).is_none() {
                self.wake(&Wake::Gone(vm.clone()));
            }
            let migrates = self.cluster.vm(&vm).is_some_and(VmObjects::is_migrating);
            if migrates || self.migrations.has(&vm) {
                self.look_at_migration(&vm, Some(at));
            }
            // The guest waits for its live migration: the VM goes before all others.
            if migrates {
                self.look_for_lost(&vm);
                self.first(vm, Since::event(at));
            } else {
                self.dirty_since(vm, Since::event(at));
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
        let SouthboundChanges { ports, chassis, dhcp_options } = {
            let mut southbound = feed.replica.write();
            let changes = southbound.take_changes();
            if changes.dhcp_options {
                self.settings.dhcp.table = Arc::new(southbound.dhcp_options().clone());
            }
            changes
        };
        if came {
            self.wake(&Wake::Southbound);
        }
        if dhcp_options {
            self.pipeline.drop_prepared();
            self.wake(&Wake::DhcpOptions);
        }
        for port in &ports {
            self.wake(&Wake::Claim(port.clone()));
            self.wake(&Wake::Binding(port.clone()));
        }
        self.ledger.changed().note_bindings(ports);
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
                self.first(vm, Since::other(Instant::now()));
            } else {
                self.dirty(vm);
            }
        }
    }

    /// Takes in the changes of the replica. The changes that only the transaction in flight made do not make a VM
    /// dirty: its rows are as it was decided.
    fn take_northbound_changes(&mut self) {
        let (changes, unexplained) = {
            let mut view = self.northbound.write();
            if let Some(office) = self.office()
                && !office.epoch.stands_in(&view)
            {
                office.lose();
            }
            if view.nb_cfg() < std::mem::replace(&mut self.nb_cfg, view.nb_cfg()) {
                // After a rollback `sb_cfg` may never reach the recorded numbers.
                self.settling.forget();
            }
            self.settling.processed(view.sb_cfg());
            self.unused.see(view.unused_dhcp_rows(), Instant::now());
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
            // The prepared transaction may rest on the changed rows.
            self.pipeline.drop_prepared();
        }
        match unexplained {
            Some(vms) => vms.into_iter().for_each(|vm| self.dirty(vm)),
            None => changes.vms.iter().for_each(|vm| self.dirty(vm.clone())),
        }
        self.ledger.changed().note_all(changes.vms);
        for wake in changes.wakes {
            self.wake(&wake);
        }
    }

    fn take_link(&mut self) {
        self.pipeline.drop_prepared();
        // The sender of the order has had the answer that it failed.
        self.releasing.clear();
        let deposed = matches!(&*self.link.borrow_and_update(), Link::Following | Link::Barred(_));
        let role = self.role();
        if deposed || role.is_some() && role != self.swept {
            // Another process may have written in between: every VM is decided again.
            self.swept = None;
            self.lost = Lost::default();
            self.over.clear();
        }
        if deposed {
            self.settling.forget();
            self.ledger.lead(false);
            self.migrations.clear();
            self.pause_brake();
        }
        self.note_multichassis();
        self.take_northbound_changes();
        if role == Some(Role::Leads) {
            self.look_at_migrations();
        }
        self.sweep();
    }

    /// Makes every known VM dirty, once both sides are in sync.
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
        self.look_at_migrations();
        // A VM may have been deleted while no VM was decided.
        let of_ledger = self.ledger.kept();
        of_kubernetes.into_iter().chain(of_northbound).chain(of_ledger).for_each(|vm| self.dirty(vm));
    }

    /// Checks whether rows of a VM are lost, before any VM is decided that could get its addresses.
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

    /// Wakes the VMs that wait for a loss that is over. Checking them may end further losses, so this is separate from
    /// the check.
    fn wake_after_losses(&mut self) {
        while !self.over.is_empty() {
            for wake in std::mem::take(&mut self.over) {
                self.wake(&wake);
            }
        }
    }

    fn dirty(&mut self, vm: VmKey) {
        self.dirty_since(vm, Since::other(Instant::now()));
    }

    /// Decides the VM before all others.
    fn first(&mut self, vm: VmKey, since: Since) {
        self.backlog.enter(&vm, since);
        self.pipeline.push_first(vm);
    }

    fn dirty_since(&mut self, vm: VmKey, since: Since) {
        if self.swept.is_none() {
            // Every VM is decided then.
            return;
        }
        let objects = self.cluster.vm(&vm);
        let turn = Turn::of(objects);
        if self.lost.concerns(&vm, objects) {
            self.look_for_lost(&vm);
        }
        self.backlog.enter(&vm, since);
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

/// Yields until sent bytes are written. The task that writes to the socket may need this task's thread, and would
/// otherwise wait until the next hundred ports are decided, as measured.
async fn gone_out() {
    tokio::task::yield_now().await;
}

/// Waits for a change of the southbound's replica or of its state.
async fn southbound_moved(feed: &mut Option<SouthboundFeed>) {
    let Some(SouthboundFeed { replica, in_sync }) = feed else { return std::future::pending().await };
    tokio::select! {
        () = replica.changed.notified() => {}
        Ok(()) = in_sync.changed() => {}
    }
}
