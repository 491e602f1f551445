//! From dirty VMs to a transaction in flight, and the next one prepared meanwhile.
//!
//! The next transaction is decided on a replica without the transaction in flight: addresses that the latter gives away
//! count as taken, and VMs that need addresses it frees are deferred, so that each VM gets the result of a decision
//! after it. It is sent when the answer comes, unless anything that it rests on has changed; else its VMs are decided
//! again, and sent while no change can come between.

use std::sync::{Arc, RwLockReadGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::batch::{Batch, Planned, Record};
use super::{Role, VMS_PER_TURN, Writer};
use crate::contract::VmKey;
use crate::controller::link::Office;
use crate::controller::reporter::Subject;
use crate::ovn::{Northbound, Southbound};
use crate::ovsdb::Shared;
use crate::plan::{
    Claims, Decision, Expectation, Filled, Freed, Pipeline, RowChange, Seen, Settling, Snapshot, VmStatus, Waits, fill,
};

impl Writer {
    /// Sends the dirty VMs, or prepares the next transaction. Returns true if a transaction was sent.
    pub(super) fn advance(&mut self) -> bool {
        self.wake_after_losses();
        if !self.can_plan() {
            return false;
        }
        let Some(office) = self.office() else {
            if self.role() == Some(Role::Follows) {
                self.follow();
            }
            return false;
        };
        self.check_all(&office);
        if !self.pipeline.is_idle() {
            self.prepare(&office);
            return false;
        }
        self.send_prepared(&office);
        if self.pipeline.is_idle() {
            self.plan_and_send(&office);
        }
        if self.pipeline.is_idle() {
            self.collect(&office);
        }
        !self.pipeline.is_idle()
    }

    /// Returns true if VMs wait that could be decided now.
    pub(super) fn has_more(&self) -> bool {
        let Some(role) = self.role().filter(|_| self.can_plan()) else { return false };
        match role {
            _ if self.pipeline.is_idle() => !self.pipeline.is_empty(),
            Role::Leads => self.may_prepare(),
            Role::Follows => false,
        }
    }

    fn may_prepare(&self) -> bool {
        let has_room = |batch: &Batch| batch.has_room_after(0) && self.pipeline.joins(batch.first());
        self.pipeline.may_prepare() && self.pipeline.prepared().is_none_or(has_room)
    }

    /// Sends the prepared transaction, if it is still valid.
    pub(super) fn send_prepared(&mut self, office: &Arc<Office>) {
        let shared = Arc::clone(&self.northbound);
        while let Some(batch) = self.pipeline.prepared() {
            let view = shared.read();
            if !view.changes().is_empty() {
                // The changes may concern one of its VMs.
                drop(view);
                self.take_northbound_changes();
            } else if Arc::ptr_eq(&batch.office, office) && batch.is_right(&view) {
                // The replica stays locked until it is sent: no address that it shows as held is given away in between.
                if self.may_prepare() {
                    self.extend(office, &view);
                }
                self.launch(&view);
                return;
            } else {
                self.pipeline.drop_prepared();
            }
        }
    }

    pub(super) fn launch(&mut self, view: &Northbound) {
        let Some(batch) = self.pipeline.launch() else { return };
        let mut flight = batch.send(view);
        for planned in &mut flight.batch.vms {
            planned.since = self.backlog.take(&planned.vm);
            flight.oldest = flight.oldest.into_iter().chain(planned.since.map(|since| since.at)).min();
        }
        self.in_flight = Some(flight);
    }

    /// Decides dirty VMs and sends them, on one state of the replica.
    fn plan_and_send(&mut self, office: &Arc<Office>) {
        if self.pipeline.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.northbound);
        let view = self.up_to_date(&shared);
        if self.pipeline.is_empty() {
            return;
        }
        let most = self.pipeline.begin();
        let mut batch = Batch::new(office, &view, most.is_some());
        self.fill(&mut batch, &view, most);
        if batch.is_empty() {
            drop(view);
            // They conflicted with VMs that had no changes in the end: the next turn decides them.
            batch.vms.into_iter().for_each(|planned| self.dirty(planned.vm));
            return;
        }
        self.pipeline.prepare(batch);
        self.launch(&view);
    }

    /// Locks the replica with all its changes taken in: dirty VMs and their losses are known before any VM is decided
    /// on it.
    pub(super) fn up_to_date<'s>(&mut self, shared: &'s Shared<Northbound>) -> RwLockReadGuard<'s, Northbound> {
        loop {
            let view = shared.read();
            if view.changes().is_empty() {
                return view;
            }
            drop(view);
            self.take_northbound_changes();
            self.wake_after_losses();
        }
    }

    /// Decides dirty VMs for the transaction after the one in flight.
    fn prepare(&mut self, office: &Arc<Office>) {
        if !self.may_prepare() {
            return;
        }
        let shared = Arc::clone(&self.northbound);
        let view = self.up_to_date(&shared);
        if !self.may_prepare() {
            return;
        }
        let is_right = |batch: &Batch| Arc::ptr_eq(&batch.office, office) && batch.is_right(&view);
        if !self.pipeline.prepared().is_none_or(is_right) {
            self.pipeline.drop_prepared();
        }
        self.extend(office, &view);
    }

    /// Adds dirty VMs to the prepared transaction, if there is room.
    fn extend(&mut self, office: &Arc<Office>, view: &Northbound) {
        let mut batch = self.pipeline.lift().unwrap_or_else(|| Batch::new(office, view, false));
        self.fill(&mut batch, view, None);
        if !batch.is_empty() {
            self.pipeline.prepare(batch);
        }
    }

    /// Decides VMs into a transaction. A VM without changes is finished here.
    fn fill(&mut self, batch: &mut Batch, view: &Northbound, most: Option<usize>) {
        let now = seconds_since_the_epoch();
        let in_flight = self.in_flight.take();
        let flight = in_flight.as_ref();
        let claims = Claims::of(flight.into_iter().flat_map(|flight| flight.batch.changes()).chain(batch.changes()));
        let freed = flight.map(|flight| &flight.freed);
        let Filled { decided, held, .. } = self.decide(view, now, claims, freed, |pipeline, filled| match most {
            Some(most) => filled.decided.len() < most,
            None => {
                let first = batch.first().or(filled.first());
                filled.decided.len() < VMS_PER_TURN && batch.has_room_after(filled.rows()) && pipeline.joins(first)
            }
        });
        self.in_flight = in_flight;
        for (vm, decision) in decided {
            let _span = span(&vm, &decision).entered();
            let Decision { rows, status, waits, .. } = decision;
            batch.sync |= waits.northd && self.southbound.is_none();
            let (again, waits) = (waits.batch, self.note_waits(&vm, waits, now));
            let record = self.record_of(&vm, status, &rows);
            if !rows.is_empty() {
                let expectation = Expectation::of(view, &vm, &rows);
                batch.add(Planned { vm, again, changes: rows, record: Some(record), waits, expectation, since: None });
                continue;
            }
            // There are no changes for this VM: its status is true already.
            self.retries.remove(&vm);
            self.pipeline.done(&vm);
            self.record(&vm, record);
            if again {
                let expectation = Expectation::default();
                batch.add(Planned { vm, again, changes: rows, record: None, waits, expectation, since: None });
            } else {
                self.backlog.take(&vm);
            }
        }
        if let Some(vm) = held {
            self.pipeline.hold(vm);
        }
    }

    /// Decides dirty VMs without writing, as another process leads. That process writes the changes, and the VM is
    /// decided again when they arrive.
    fn follow(&mut self) {
        if !self.pipeline.is_idle() || self.pipeline.is_empty() {
            return;
        }
        self.pipeline.drop_prepared();
        let shared = Arc::clone(&self.northbound);
        let view = self.up_to_date(&shared);
        let most = self.pipeline.begin().unwrap_or(VMS_PER_TURN);
        let now = seconds_since_the_epoch();
        let filled = self.decide(&view, now, Claims::default(), None, |_, filled| filled.decided.len() < most);
        for (vm, decision) in filled.decided {
            let _span = span(&vm, &decision).entered();
            let Decision { rows, status, waits, .. } = decision;
            self.pipeline.done(&vm);
            self.backlog.take(&vm);
            self.note_waits(&vm, waits, now);
            if rows.is_empty() {
                self.record(&vm, Record::Status(None, status));
            }
        }
    }

    /// Records the conditions for the next decision of the VM. Returns true if one is a change in a database.
    fn note_waits(&mut self, vm: &VmKey, Waits { wakes, due, .. }: Waits, now: i64) -> bool {
        let waits = !wakes.is_empty();
        self.waiting.set(vm, wakes);
        let after = due.map(|due| Duration::from_secs(u64::try_from(due - now).unwrap_or_default()));
        self.timetable.set(vm, after, Instant::now());
        waits
    }

    /// Decides the next dirty VMs, for as long as `goes_on`.
    fn decide(
        &mut self,
        view: &Northbound,
        now: i64,
        claims: Claims,
        freed: Option<&Freed>,
        goes_on: impl Fn(&Pipeline<VmKey, Batch>, &Filled) -> bool,
    ) -> Filled {
        let southbound = self.southbound.as_ref().map(|feed| (*feed.in_sync.borrow(), feed.replica.read()));
        let seen = seen(southbound.as_ref(), &self.settling);
        let snapshot = Snapshot::new(view, &self.cluster, seen, &self.settings, now);
        let snapshot = snapshot.with(&self.lost, self.brake.held()).releasing(&self.releasing);
        let pipeline = &mut self.pipeline;
        fill(&snapshot, claims, freed, |filled| if goes_on(pipeline, filled) { pipeline.pop() } else { None })
    }

    /// The record for the ledger once the VM's changes are committed.
    fn record_of(&self, vm: &VmKey, status: VmStatus, changes: &[RowChange]) -> Record {
        let Some(objects) = self.cluster.vm(vm) else {
            let gone = changes.iter().filter_map(RowChange::as_port).filter(|change| change.after.is_none());
            let placed = gone.filter_map(|change| change.before.as_ref());
            return Record::Released(placed.map(|placed| placed.row.clone()).collect());
        };
        // A VM without a port in a namespace that is not selected, or not known yet, has no annotation of this
        // instance.
        let is_ours = !status.is_empty() || self.cluster.namespace(&vm.namespace).is_some();
        Record::Status(Subject::of(vm, objects).filter(|_| is_ours), status)
    }

    /// Records a status that is true now.
    pub(super) fn record(&mut self, vm: &VmKey, record: Record) {
        self.questions.decided(vm);
        if !self.releasing.is_empty() {
            self.releasing.remove(vm);
        }
        match record {
            Record::Status(subject, status) => self.ledger.record(vm, subject, status),
            Record::Released(ports) => self.ledger.release(vm, ports),
        }
    }
}

/// The span of a decision: with debug logging on, every line about it carries the VM. With trace logging on, the decision is
/// a line of its own.
fn span(vm: &VmKey, decision: &Decision) -> tracing::Span {
    let span = tracing::debug_span!("decision", namespace = vm.namespace, vm = vm.name);
    let (rows, waits) = (decision.rows.len(), decision.waits.wakes.len());
    tracing::trace!(parent: &span, rows, waits, problems = decision.status.problems().count(), "decided");
    span
}

/// The known southbound: its replica, and true while that is in sync; `None` if it is not read.
pub(super) fn seen<'a>(
    southbound: Option<&'a (Option<bool>, RwLockReadGuard<'_, Southbound>)>,
    settling: &'a Settling,
) -> Seen<'a> {
    match southbound {
        None => Seen::Never(settling),
        Some((None, _)) => Seen::NotYet,
        Some((Some(false), replica)) => Seen::Before(replica),
        Some((Some(true), replica)) => Seen::Now(replica),
    }
}

/// The time of the wall clock, which retentions are based on.
pub(super) fn seconds_since_the_epoch() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
