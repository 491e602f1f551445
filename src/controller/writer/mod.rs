//! The one task that decides and writes.
//!
//! Dirty VMs are planned against the replica and sent as one transaction; whatever becomes dirty
//! while it is in flight goes into the next. Idle, a VM's port is sent at once; in a storm, batches
//! grow by themselves. Nothing is planned before the watches and the replica have both synced:
//! until then, absence means nothing.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::link::{Link, Office};
use super::reporter::{Report, Subject};
use super::status::Status;
use super::waiting::Waiting;
use crate::intent::{Intent, Settings};
use crate::kubevirt::{Change, Cluster, VmObjects};
use crate::ovn::{NbGlobal, Northbound, Southbound, SouthboundChanges, VmKey, Wake};
use crate::ovsdb::{Datum, Mutation, Mutator, Operation, Outcome, RejectionKind, Row, Shared, Transaction};
use crate::plan::{Fabric, Planner, PortChange, PortReport, Problem, Queue, Seen, Settling, VmPlan};

/// Ports a transaction. Larger ones are slower a port, as measured (1,000: 20k/s, 100: 26k/s).
const PORTS_PER_TRANSACTION: usize = 100;
/// VMs looked at in one go: no-ops must not keep the watches waiting.
const VMS_PER_TURN: usize = 1_000;
/// Changes taken in before the next plan.
const CHANGES_PER_TURN: usize = 1_000;
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
    /// Where outcomes are told.
    pub reports: mpsc::UnboundedSender<Report>,
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
    reports: mpsc::UnboundedSender<Report>,
    status: Status,
    cluster: Cluster,
    settling: Settling,
    queue: Queue<VmKey>,
    waiting: Waiting,
    /// VMs whose transaction was refused, and when they are tried again.
    retries: HashMap<VmKey, Retry>,
    /// The first sync of both sides has been followed by a look at every VM.
    swept: bool,
    /// Transactions whose outcome is unknown, since the last that had one.
    unknown_in_a_row: usize,
}

struct Retry {
    at: Instant,
    delay: Duration,
}

/// A transaction that has been sent, with what to do when its outcome is known.
struct Batch {
    /// By whose epoch it is fenced.
    office: Arc<Office>,
    vms: Vec<Planned>,
    /// For each operation, the place of its VM in `vms`.
    owners: Vec<usize>,
    /// It is a part of one that did not go through.
    part: bool,
    /// It raises `nb_cfg`, so that northd's progress can be seen.
    sync: bool,
}

struct Planned {
    vm: VmKey,
    again: bool,
    changes: Vec<PortChange>,
    report: Option<Report>,
}

type InFlight = Pin<Box<dyn Future<Output = (Outcome, Batch)> + Send>>;

impl Writer {
    /// A writer that knows nothing yet.
    pub fn new(settings: WriterSettings) -> Self {
        let WriterSettings { settings, northbound, link, southbound, changes, reports, status } = settings;
        Self {
            settings,
            northbound,
            link,
            southbound,
            southbound_in_sync: false,
            changes,
            reports,
            status,
            cluster: Cluster::default(),
            settling: Settling::default(),
            queue: Queue::default(),
            waiting: Waiting::default(),
            retries: HashMap::new(),
            swept: false,
            unknown_in_a_row: 0,
        }
    }

    /// Runs until it is deserted.
    pub async fn run(mut self) -> Result<(), WriterError> {
        let mut in_flight: Option<InFlight> = None;
        let northbound = Arc::clone(&self.northbound);
        let mut southbound = self.southbound.clone();
        loop {
            if in_flight.is_none() {
                in_flight = self.next_transaction();
            }
            let more = in_flight.is_none() && !self.queue.is_empty() && self.office().is_some();
            let retry = self.retries.values().map(|retry| retry.at).min();
            tokio::select! {
                biased;
                (outcome, batch) = outcome(&mut in_flight), if in_flight.is_some() => {
                    in_flight = None;
                    self.finish(outcome, batch);
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
                // A turn of no-ops is over and more VMs wait.
                () = tokio::task::yield_now(), if more && self.can_plan() => {}
            }
        }
    }

    fn office(&self) -> Option<Arc<Office>> {
        match &*self.link.borrow() {
            Link::Up(office) if office.is_held() => Some(Arc::clone(office)),
            Link::Up(_) | Link::Following | Link::NotYet | Link::Down(_) => None,
        }
    }

    /// Whether both sides are known.
    fn can_plan(&self) -> bool {
        self.swept && self.cluster.is_synced()
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
        for vm in self.cluster.apply(change) {
            // What a live migration waits for, its guest waits for: it goes before all others.
            if self.cluster.vm(&vm).is_some_and(VmObjects::is_migrating) {
                self.queue.push_first(vm);
            } else {
                self.dirty(vm);
            }
        }
    }

    fn take_southbound_changes(&mut self) {
        let Some(feed) = &self.southbound else { return };
        let in_sync = *feed.in_sync.borrow() == Some(true);
        let came = in_sync && !self.southbound_in_sync;
        self.southbound_in_sync = in_sync;
        let SouthboundChanges { ports, chassis } = feed.replica.write().take_changes();
        if came {
            self.wake(&Wake::Southbound);
        }
        let bindings = ports.into_iter().map(Wake::Binding);
        for wake in bindings.chain((!chassis.is_empty()).then_some(Wake::Chassis)) {
            self.wake(&wake);
        }
        if !chassis.is_empty() {
            let short = |node: &str| node.split('.').next().unwrap_or_default().to_owned();
            let affected = self.cluster.vms_on(|node| chassis.contains(node) || chassis.contains(&short(node)));
            affected.into_iter().for_each(|vm| self.dirty(vm));
        }
    }

    fn wake(&mut self, wake: &Wake) {
        let woken: Vec<VmKey> = self.waiting.on(wake).cloned().collect();
        for vm in woken {
            if matches!(wake, Wake::Binding(_) | Wake::Processed) {
                self.queue.push_first(vm);
            } else {
                self.dirty(vm);
            }
        }
    }

    fn take_northbound_changes(&mut self) {
        let changes = {
            let mut view = self.northbound.write();
            if let Some(office) = self.office()
                && view.global_external_id(&office.epoch.key) != Some(&office.epoch.value)
            {
                office.lose();
            }
            self.settling.processed(view.sb_cfg());
            view.take_changes()
        };
        for vm in changes.vms {
            self.dirty(vm);
        }
        for wake in changes.wakes {
            self.wake(&wake);
        }
    }

    fn take_link(&mut self) {
        if matches!(&*self.link.borrow_and_update(), Link::Following) {
            // Somebody else wrote meanwhile: in office again, every VM is looked at.
            self.swept = false;
            self.settling.forget();
        }
        self.take_northbound_changes();
        self.sweep();
    }

    /// Once both sides are in sync, every VM that either of them knows is looked at.
    fn sweep(&mut self) {
        if self.swept || !self.cluster.is_synced() || self.office().is_none() {
            return;
        }
        self.swept = true;
        let of_northbound: Vec<VmKey> = self.northbound.read().vms().cloned().collect();
        let of_kubernetes: Vec<VmKey> = self.cluster.vms().cloned().collect();
        tracing::info!(
            vms = of_kubernetes.len(),
            vms_with_ports = of_northbound.len(),
            "watches and northbound database are in sync: looking at every VM"
        );
        of_kubernetes.into_iter().chain(of_northbound).for_each(|vm| self.dirty(vm));
    }

    fn dirty(&mut self, vm: VmKey) {
        self.queue.push(vm);
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
    }

    /// Plans what is dirty; `None` when nothing has to be written, or nothing may be.
    fn next_transaction(&mut self) -> Option<InFlight> {
        if !self.can_plan() || self.queue.is_empty() {
            return None;
        }
        let office = self.office()?;
        let most = self.queue.begin();
        let shared = Arc::clone(&self.northbound);
        let view = shared.read();
        let settings = self.settings.clone();
        let southbound = self.southbound.clone();
        let southbound = southbound.as_ref().map(|feed| (*feed.in_sync.borrow(), feed.replica.read()));
        let seen = match &southbound {
            None => Seen::Never(&self.settling),
            Some((None, _)) => Seen::NotYet,
            Some((Some(false), replica)) => Seen::Before(replica),
            Some((Some(true), replica)) => Seen::Now(replica),
        };
        let fabric = Fabric { cluster: &self.cluster, southbound: seen, strategy: settings.strategy };
        let mut planner = Planner::new(&view, &settings, fabric);
        let mut batch = Batch {
            office: Arc::clone(&office),
            vms: Vec::new(),
            owners: Vec::new(),
            part: most.is_some(),
            sync: false,
        };
        let mut operations = Vec::new();
        let mut ports = 0;
        for _ in 0..most.unwrap_or(VMS_PER_TURN) {
            if ports >= PORTS_PER_TRANSACTION && most.is_none() {
                break;
            }
            let Some(vm) = self.queue.pop() else { break };
            let VmPlan { changes, reports, waits, again, sync } = self.plan(&mut planner, &vm);
            batch.sync |= sync && self.southbound.is_none();
            self.waiting.set(&vm, waits);
            ports += changes.len();
            let report = self.report(&vm, reports, &changes);
            if changes.is_empty() {
                // Nothing to write for this one: what is, is told at once.
                self.retries.remove(&vm);
                report.into_iter().for_each(|report| self.tell(report));
                if again {
                    batch.vms.push(Planned { vm, again, changes, report: None });
                }
                continue;
            }
            for operation in changes.iter().flat_map(PortChange::operations) {
                operations.push(operation);
                batch.owners.push(batch.vms.len());
            }
            batch.vms.push(Planned { vm, again, changes, report });
        }
        if batch.sync {
            operations.extend(view.global().map(raise_nb_cfg));
        }
        drop(planner);
        drop(view);
        if operations.is_empty() {
            // They clashed with somebody who in the end wrote nothing: settled by the next look.
            batch.vms.into_iter().for_each(|planned| self.dirty(planned.vm));
            return None;
        }
        let transaction = Transaction { fence: Some(office.epoch.fence.clone()), operations };
        Some(Box::pin(async move { (office.connection.transact(&transaction).await, batch) }))
    }

    fn plan(&self, planner: &mut Planner<'_>, vm: &VmKey) -> VmPlan {
        let Some(objects) = self.cluster.vm(vm) else { return planner.release(vm) };
        // A namespace that is not known yet, or that others serve: what stands there, stands.
        let Some(namespace) = self.cluster.namespace(&vm.namespace) else { return VmPlan::default() };
        let intent = Intent::of(vm, objects, namespace, &self.settings);
        let mut plan = planner.plan(&intent);
        plan.reports.extend(unreadable(objects));
        plan
    }

    /// What the VM's owner is to be told once the plan is committed.
    fn report(&self, vm: &VmKey, ports: Vec<PortReport>, changes: &[PortChange]) -> Option<Report> {
        let Some(objects) = self.cluster.vm(vm) else {
            let placed = changes.iter().filter_map(|change| change.before.as_ref());
            let ports = placed.map(|placed| placed.row.clone()).collect();
            return Some(Report::Released { vm: vm.clone(), ports });
        };
        self.cluster.namespace(&vm.namespace)?;
        let subject = Subject::of(vm, objects)?;
        Some(Report::Ports { subject, ports })
    }

    fn tell(&self, report: Report) {
        // Without a reporter the process is ending.
        let _ = self.reports.send(report);
    }

    fn finish(&mut self, outcome: Outcome, batch: Batch) {
        if matches!(outcome, Outcome::Committed { .. } | Outcome::Rejected(_)) {
            self.unknown_in_a_row = 0;
        }
        let Batch { office, mut vms, owners, part, sync } = batch;
        match outcome {
            Outcome::Committed { results: _, missed } => {
                let ports: usize = vms.iter().map(|planned| planned.changes.len()).sum();
                tracing::debug!(ports, operations = owners.len(), "transaction committed");
                for planned in &mut vms {
                    self.retries.remove(&planned.vm);
                }
                if sync {
                    let collapsed = vms.iter().flat_map(|planned| &planned.changes).filter(|change| change.collapses());
                    self.settling.committed(self.northbound.read().nb_cfg(), collapsed.map(|change| change.uuid));
                }
                for index in missed {
                    // The row had gone before we came: plan again from what there is now.
                    if let Some(planned) = owners.get(index).and_then(|owner| vms.get_mut(*owner)) {
                        planned.again = true;
                        planned.report = None;
                    }
                }
                for Planned { vm, again, changes, report } in vms {
                    changes.iter().for_each(|change| log_change(&vm, change));
                    report.into_iter().for_each(|report| self.tell(report));
                    if again {
                        self.dirty(vm);
                    }
                }
            }
            Outcome::Fenced => {
                office.lose();
                vms.into_iter().for_each(|planned| self.dirty(planned.vm));
            }
            Outcome::NotSent => vms.into_iter().for_each(|planned| self.dirty(planned.vm)),
            Outcome::Unknown(reason) => {
                // The link raises the epoch and syncs anew before anything is planned again.
                tracing::warn!(
                    vms = vms.len(),
                    reason,
                    "the outcome of a transaction is unknown; looking again after the next sync"
                );
                self.unknown_in_a_row += 1;
                self.settling.forget();
                let keys = vms.into_iter().map(|planned| planned.vm);
                if !part && self.unknown_in_a_row < UNKNOWN_BEFORE_PARTS {
                    keys.for_each(|vm| self.dirty(vm));
                } else if let Some(vm) = self.queue.refused(keys.collect(), None) {
                    // The database, not the network, may be what ends the connection: over this VM.
                    self.refused(vm, &format!("the connection broke when its port was written: {reason}"));
                }
            }
            // The server may run a transaction again by itself, after a change of its cluster's leader, and find what
            // it did the first time: it is done, and what is there now is looked at.
            Outcome::Rejected(rejection) if rejection.kind == RejectionKind::DuplicateUuid && self.is_done(&vms) => {
                vms.into_iter().for_each(|planned| self.dirty(planned.vm));
            }
            Outcome::Rejected(rejection) => {
                let culprit = rejection.operation.and_then(|operation| owners.get(operation));
                let culprit = culprit.and_then(|owner| vms.get(*owner)).map(|planned| planned.vm.clone());
                let keys = vms.into_iter().map(|planned| planned.vm).collect();
                if let Some(vm) = self.queue.refused(keys, culprit.as_ref()) {
                    self.refused(vm, &rejection.to_string());
                }
            }
        }
    }

    /// Whether every row that was to be made is there.
    fn is_done(&self, vms: &[Planned]) -> bool {
        let view = self.northbound.read();
        let mut made = vms.iter().flat_map(|planned| &planned.changes).filter(|change| change.before.is_none());
        made.all(|change| view.port(&change.uuid).is_some())
    }

    /// A VM's own transaction was refused: its owner is told, and it is tried again later.
    fn refused(&mut self, vm: VmKey, rejection: &str) {
        let delay = self.retries.get(&vm).map_or(FIRST_RETRY, |retry| (retry.delay * 2).min(LAST_RETRY));
        tracing::warn!(%vm, error = rejection, retry_in = ?delay, "the northbound database refused the port");
        self.retries.insert(vm.clone(), Retry { at: Instant::now() + delay, delay });
        let Some(objects) = self.cluster.vm(&vm) else { return };
        let Some(subject) = Subject::of(&vm, objects) else { return };
        let mut ports = crate::plan::present(&self.northbound.read(), &vm);
        ports.push(PortReport::of_vm(Problem::Rejected(rejection.to_owned())));
        self.tell(Report::Ports { subject, ports });
    }
}

/// `nb_cfg` one higher: northd writes it to `sb_cfg` once it has processed this transaction.
fn raise_nb_cfg(global: Uuid) -> Operation {
    let mutations = vec![Mutation { column: "nb_cfg", mutator: Mutator::Add, value: Datum::One(1_i64.into()) }];
    Operation::Mutate { table: NbGlobal::TABLE.name, uuid: global, mutations }
}

/// Waits until the southbound's replica, or how current it is, has changed.
async fn southbound_moved(feed: &mut Option<SouthboundFeed>) {
    let Some(SouthboundFeed { replica, in_sync }) = feed else { return std::future::pending().await };
    tokio::select! {
        () = replica.changed.notified() => {}
        Ok(()) = in_sync.changed() => {}
    }
}

/// Waits for the transaction in flight, of which there is one.
async fn outcome(in_flight: &mut Option<InFlight>) -> (Outcome, Batch) {
    match in_flight {
        Some(in_flight) => in_flight.await,
        None => std::future::pending().await,
    }
}

/// An object that cannot be read is a problem of the VM as a whole.
fn unreadable(objects: &VmObjects) -> Option<PortReport> {
    let of_run = objects.run.as_ref().and_then(|run| run.template.as_ref().err());
    let of_vm = objects.vm.as_ref().and_then(|vm| vm.template.as_ref().err());
    let error = of_vm.or(of_run)?;
    Some(PortReport::of_vm(Problem::Unreadable(error.clone())))
}

/// One line a decision.
fn log_change(vm: &VmKey, change: &PortChange) {
    let row = change.after.as_ref().or(change.before.as_ref()).map(|placed| &placed.row);
    let Some(row) = row else { return };
    let addresses = row.addresses.iter().collect::<Vec<_>>().join(", ");
    let chassis = row.options.get(crate::ovn::keys::REQUESTED_CHASSIS).unwrap_or_default();
    let what = match (&change.before, &change.after) {
        (None, _) => "port made",
        (Some(_), Some(_)) => "port changed",
        (Some(_), None) => "port released",
    };
    tracing::info!(namespace = vm.namespace, vm = vm.name, port = row.name, addresses, chassis, "{what}");
}
