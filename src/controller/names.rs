//! The task that writes the names of VMs into `DNS`, apart from their ports.
//!
//! From OVN 25.03 on, one record makes northd compute everything anew, where a port costs it a few per cent of that. So names
//! never go into the transaction of a port, nothing waits for them, and they are written in batches with a pace (`pace.rs`).
//!
//! ```text
//!  replica --updates--> changes of names --> plan::Names --(when it is due)--> a fenced transaction --> NB
//!     ^                                           ^                                    |
//!     +-------- the reader applies it ------------+----- not committed: compare again -+
//! ```
//!
//! Level-triggered: what is written is the difference between the ports of the replica and its rows of `DNS`. A lost
//! answer ends the connection and with it the office; the next one begins with all rows. Without `--dns-domain` the task
//! removes the rows of a time with it, and does nothing else.

mod pace;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use self::pace::Pace;
use super::link::{Link, Office};
use super::metrics::NamesMetrics;
use crate::contract::{VmKey, keys};
use crate::ovn::{Dns, NameChanges, Northbound};
use crate::ovsdb::{Condition, Datum, Function, Operation, Outcome, Row, Shared, Transaction, WireUuid};
use crate::plan::{DnsDomain, LeftOut, Names, NamesChange, name_operations};

/// The most records of a write: a first write of a large database is several, so that no port waits for long behind one.
const RECORDS_PER_WRITE: usize = 10_000;
/// Rows that are compared in one go, while the replica is locked.
const ROWS_PER_TURN: usize = 4;
/// VMs that are looked at in one go, while the replica is locked.
const VMS_PER_TURN: usize = 500;
/// Names that are logged one by one; others are counted.
const LOGGED: usize = 10;

/// The inputs and outputs of the task.
pub struct NamesSettings {
    /// The domain of all names; `None` to remove the names of a time with one.
    pub domain: Option<DnsDomain>,
    /// The time between two writes.
    pub interval: Duration,
    /// The replica.
    pub northbound: Arc<Shared<Northbound>>,
    /// The state of the link.
    pub link: watch::Receiver<Link>,
    /// Receives the counts.
    pub(crate) metrics: NamesMetrics,
}

/// The state of the task.
pub struct NameWriter {
    domain: Option<DnsDomain>,
    interval: Duration,
    northbound: Arc<Shared<Northbound>>,
    link: watch::Receiver<Link>,
    updates: watch::Receiver<()>,
    metrics: NamesMetrics,
    pace: Pace,
    /// The names that are not written, as they were logged.
    left_out: Vec<(String, LeftOut)>,
}

/// The link's task has ended: the process is ending.
struct Ended;

impl NameWriter {
    /// A task that has not written anything.
    pub fn new(settings: NamesSettings) -> Self {
        let NamesSettings { domain, interval, northbound, link, metrics } = settings;
        let (updates, pace) = (northbound.updates(), Pace::new(interval));
        Self { domain, interval, northbound, link, updates, metrics, pace, left_out: Vec::new() }
    }

    /// Writes names whenever this process leads, until the link's task has ended.
    pub async fn run(mut self) {
        while let Ok(office) = self.office().await {
            let ended = match self.domain.clone() {
                Some(domain) => self.serve(&office, domain).await,
                None => self.withdraw(&office).await,
            };
            if ended.is_err() {
                return;
            }
        }
    }

    /// Waits until this process leads.
    async fn office(&mut self) -> Result<Arc<Office>, Ended> {
        let is_up = |link: &Link| matches!(link, Link::Up(office) if office.is_held());
        match &*self.link.wait_for(is_up).await.map_err(|_| Ended)? {
            Link::Up(office) => Ok(Arc::clone(office)),
            Link::NotYet | Link::Down(_) | Link::Following | Link::Barred(_) => Err(Ended),
        }
    }

    /// Writes names for as long as the office is held.
    async fn serve(&mut self, office: &Arc<Office>, domain: DnsDomain) -> Result<(), Ended> {
        let instance = {
            let mut view = self.northbound.write();
            view.track_names(true);
            view.instance().to_owned()
        };
        let mut names = Names::new(&instance, domain);
        self.look_at_all(&mut names).await;
        let ended = self.follow(office, &mut names).await;
        self.northbound.write().track_names(false);
        self.metrics.clear();
        self.pace.settled();
        ended
    }

    /// Takes the whole replica in, some VMs at a time.
    async fn look_at_all(&mut self, names: &mut Names) {
        let vms: Vec<VmKey> = self.northbound.read().vms().cloned().collect();
        for some in vms.chunks(VMS_PER_TURN) {
            let changes = NameChanges { vms: some.iter().cloned().collect(), ..NameChanges::default() };
            names.take(&self.northbound.read(), &changes);
            tokio::task::yield_now().await;
        }
        names.own_rows(&self.northbound.read());
        self.pace.changed(0, Instant::now());
    }

    async fn follow(&mut self, office: &Arc<Office>, names: &mut Names) -> Result<(), Ended> {
        while self.is_held(office) {
            self.take(names).await;
            self.metrics.pending(self.pace.since());
            let due = self.pace.due();
            if due.is_some_and(|due| due <= Instant::now()) {
                self.write(office, names).await;
                continue;
            }
            tokio::select! {
                updated = self.updates.changed() => updated.map_err(|_| Ended)?,
                linked = self.link.changed() => linked.map_err(|_| Ended)?,
                _ = office.connection.closed() => return Ok(()),
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
        Ok(())
    }

    /// Returns true if this process leads by this office. A Lease that is lost leaves its connection open.
    fn is_held(&self, office: &Arc<Office>) -> bool {
        is_of(&self.link.borrow(), office) && office.is_held()
    }

    /// Takes in the changes of the replica. Where nothing else waits, those of rows are compared at once: nearly all of them
    /// are this task's own.
    async fn take(&mut self, names: &mut Names) {
        if self.northbound.read().name_changes().is_none_or(NameChanges::is_empty) {
            return;
        }
        let changes = self.northbound.write().take_name_changes();
        names.take(&self.northbound.read(), &changes);
        if names.is_settled() {
            return;
        }
        if changes.vms.is_empty() && self.pace.since().is_none() {
            let differences = self.differences(names).await;
            self.note(names);
            names.again(&differences);
            if names.is_settled() {
                return;
            }
        }
        self.pace.changed(changes.ports.len(), Instant::now());
    }

    /// Writes the differences, or as many as one write may have.
    async fn write(&mut self, office: &Arc<Office>, names: &mut Names) {
        let changes = self.differences(names).await;
        self.note(names);
        if changes.is_empty() {
            self.pace.settled();
            return;
        }
        let records: usize = changes.iter().map(NamesChange::records).sum();
        let transaction =
            Transaction { fence: Some(office.epoch.fence.clone()), operations: name_operations(&changes) };
        let sent = Instant::now();
        self.pace.written(sent);
        let outcome = office.connection.transact(&transaction).await;
        self.metrics.written(&outcome);
        match outcome {
            Outcome::Committed { .. } => {
                tracing::info!(rows = changes.len(), records, took = ?sent.elapsed(), "names written");
            }
            Outcome::Fenced => office.lose(),
            Outcome::Rejected(rejection) => {
                tracing::warn!(
                    rows = changes.len(),
                    error = %rejection,
                    "the northbound database refused the names of VMs; trying again"
                );
                names.again(&changes);
            }
            // The connection has ended, and the office with it.
            Outcome::Unknown(_) | Outcome::NotSent | Outcome::Raced => names.again(&changes),
        }
        if !names.is_settled() {
            // The rest of a large difference, or a refused one.
            self.pace.changed(0, sent);
        }
    }

    /// The differences between ports and rows, up to the bound of a write. The replica is locked for some rows at a time.
    async fn differences(&mut self, names: &mut Names) -> Vec<NamesChange> {
        let (mut changes, mut records) = (Vec::new(), 0);
        while !names.is_settled() && records < RECORDS_PER_WRITE {
            let some = names.next(&self.northbound.read(), ROWS_PER_TURN);
            records += some.iter().map(NamesChange::records).sum::<usize>();
            changes.extend(some);
            tokio::task::yield_now().await;
        }
        changes
    }

    /// Counts the names, and logs those that are not written, once.
    fn note(&mut self, names: &Names) {
        self.metrics.count(names.records(), names.left_out().map(|(_, reason)| reason.reason()));
        let mut present: Vec<(String, LeftOut)> =
            names.left_out().map(|(name, reason)| (name.to_owned(), reason.clone())).collect();
        present.sort_by(|one, other| one.0.cmp(&other.0));
        present.dedup();
        for (logged, (name, reason)) in present.iter().filter(|entry| !self.left_out.contains(entry)).enumerate() {
            if logged == LOGGED {
                tracing::warn!(
                    names = present.len(),
                    "further names are not written: see the metric ovn_kubevirt_names_left_out"
                );
                break;
            }
            tracing::warn!(name, "the name is not written: {reason}");
        }
        self.left_out = present;
    }

    /// Removes the rows of a time with a domain, and waits until the office ends.
    async fn withdraw(&mut self, office: &Arc<Office>) -> Result<(), Ended> {
        loop {
            match self.remove_all(office).await {
                Ok(0) => {}
                Ok(rows) => tracing::info!(rows, "names removed, as --dns-domain is not set"),
                Err(error) => {
                    tracing::warn!(error, "the names of VMs could not be removed; trying again");
                    tokio::select! {
                        linked = self.link.changed() => linked.map_err(|_| Ended)?,
                        () = tokio::time::sleep(self.interval) => {}
                    }
                    if self.is_held(office) {
                        continue;
                    }
                }
            }
            let over = self.link.wait_for(|link| !is_of(link, office)).await;
            return over.map(drop).map_err(|_| Ended);
        }
    }

    /// Removes every row with the marks of this instance. Returns their number.
    async fn remove_all(&self, office: &Arc<Office>) -> Result<usize, String> {
        let instance = self.northbound.read().instance().to_owned();
        let marks = [(keys::VENDOR, keys::OUR_VENDOR), (keys::INSTANCE, &instance)];
        let condition = Condition { column: "external_ids", function: Function::Includes, value: Datum::map(marks) };
        let table = Dns::TABLE.name;
        let select = Operation::Select { table, conditions: vec![condition], columns: vec!["_uuid"] };
        let read = office.connection.transact(&Transaction { fence: None, operations: vec![select] }).await;
        let rows: Vec<Found> = match &read {
            Outcome::Committed { results, .. } => match results.first().map(crate::ovsdb::OperationResult::rows) {
                Some(Ok(rows)) => rows,
                other => return Err(format!("the rows of DNS could not be read: {other:?}")),
            },
            // Without the table there are no rows.
            Outcome::Rejected(rejection) => {
                tracing::debug!(error = %rejection, "the rows of DNS could not be read");
                return Ok(0);
            }
            // The connection has ended.
            Outcome::Fenced | Outcome::Raced | Outcome::NotSent | Outcome::Unknown(_) => return Ok(0),
        };
        if rows.is_empty() {
            return Ok(0);
        }
        let operations = rows.iter().map(|Found { uuid: WireUuid(uuid) }| Operation::Delete { table, uuid: *uuid });
        let transaction = Transaction { fence: Some(office.epoch.fence.clone()), operations: operations.collect() };
        let outcome = office.connection.transact(&transaction).await;
        self.metrics.written(&outcome);
        match outcome {
            Outcome::Committed { .. } => Ok(rows.len()),
            Outcome::Fenced => {
                office.lose();
                Ok(0)
            }
            Outcome::Rejected(rejection) => Err(rejection.to_string()),
            Outcome::Raced | Outcome::NotSent | Outcome::Unknown(_) => Ok(0),
        }
    }
}

/// Returns true if the link is up by this office.
fn is_of(link: &Link, office: &Arc<Office>) -> bool {
    matches!(link, Link::Up(present) if Arc::ptr_eq(present, office))
}

/// A row that a select found.
#[derive(Debug, serde::Deserialize)]
struct Found {
    #[serde(rename = "_uuid")]
    uuid: WireUuid,
}
