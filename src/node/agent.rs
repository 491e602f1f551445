//! The one task that decides and writes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::core::{Change, Decision, LocalSwitch, Notice, PodRef, Pods, Problem, decide};
use super::link::SwitchLink;
use super::metrics::NodeMetrics;
use super::status::NodeStatus;
use crate::controller::Arrival;
use crate::ovsdb::{Connection, Outcome, Shared};

/// The most problems that are reported on one pod in its life: a tenant may be able to write its annotation.
const MOST_TOLD: usize = 16;
/// The row was another one when the change came. The replica has it by now.
const AFTER_A_RACE: Duration = Duration::from_millis(20);
/// The database refused a change: a role forbids it, or the disk is full.
const AFTER_A_REFUSAL: Duration = Duration::from_secs(5);
/// The notifier has too much to do.
const AFTER_A_JAM: Duration = Duration::from_secs(1);

/// The inputs and outputs of the agent.
pub struct AgentSettings {
    /// The replica.
    pub switch: Arc<Shared<LocalSwitch>>,
    /// How it stands with the database.
    pub link: watch::Receiver<SwitchLink>,
    /// The changes from the watch of this node's pods.
    pub changes: mpsc::Receiver<Arrival>,
    /// The problems to report on pods.
    pub notices: mpsc::Sender<Notice>,
    /// The time without an interface after which the problem of a NIC is reported.
    pub deadline: Duration,
    /// Told when the pods are known.
    pub status: NodeStatus,
    /// The metrics.
    pub metrics: NodeMetrics,
}

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The watch has ended.
    #[error("the watch of pods has ended")]
    NoWatch,
    /// The link has ended.
    #[error("the connection to the Open vSwitch database has ended")]
    NoLink,
    /// The notifier has ended.
    #[error("the task that sends Events to pods has ended")]
    NoNotifier,
}

/// The state of the task.
pub struct Agent {
    settings: AgentSettings,
    pods: Pods,
    /// Changes on their way, by interface.
    sent: HashSet<Uuid>,
    outcomes: FuturesUnordered<BoxFuture<'static, (Change, Outcome)>>,
    /// Interfaces that are left alone until then.
    paused: HashMap<Uuid, Instant>,
    /// Since when NICs have no interface, by the pod's UID and the interface in the pod.
    missing: HashMap<(String, String), Instant>,
    told: HashMap<String, HashSet<Problem>>,
}

impl Agent {
    /// An agent without any pod or interface.
    pub fn new(settings: AgentSettings) -> Self {
        Self {
            settings,
            pods: Pods::default(),
            sent: HashSet::new(),
            outcomes: FuturesUnordered::new(),
            paused: HashMap::new(),
            missing: HashMap::new(),
            told: HashMap::new(),
        }
    }

    /// Serves the node for ever.
    ///
    /// # Errors
    /// When a task that it works with has ended.
    pub async fn run(mut self) -> Result<(), AgentError> {
        loop {
            let again = self.look()?;
            tokio::select! {
                arrival = self.settings.changes.recv() => {
                    self.pods.apply(&arrival.ok_or(AgentError::NoWatch)?.change);
                    while let Ok(arrival) = self.settings.changes.try_recv() {
                        self.pods.apply(&arrival.change);
                    }
                    self.forget_pods_that_are_gone();
                }
                () = self.settings.switch.changed.notified() => {}
                changed = self.settings.link.changed() => changed.map_err(|_| AgentError::NoLink)?,
                Some((change, outcome)) = self.outcomes.next() => self.settle(&change, &outcome),
                () = until(again) => {}
            }
        }
    }

    fn forget_pods_that_are_gone(&mut self) {
        if self.pods.is_complete() {
            self.settings.status.pods_listed();
            let pods = &self.pods;
            self.told.retain(|uid, _| pods.get(uid).is_some());
        }
    }

    /// Decides, sends and reports. Returns the time of the next decision without an event.
    fn look(&mut self) -> Result<Option<Instant>, AgentError> {
        let connection = match &*self.settings.link.borrow_and_update() {
            // Between the end of a connection and the news of it the replica may be half of a new one.
            SwitchLink::InSync(connection) if !connection.is_closed() => Arc::clone(connection),
            _ => {
                // No CNI can plug anything while the database is away.
                self.missing.clear();
                return Ok(None);
            }
        };
        let decision = decide(&self.pods, &self.settings.switch.read());
        let now = Instant::now();
        self.paused.retain(|_, until| *until > now);
        let Decision { changes, problems, waits } = decision;
        for change in changes {
            if !self.paused.contains_key(&change.interface) && self.sent.insert(change.interface) {
                self.send(&connection, change);
            }
        }
        let overdue = self.overdue(waits, now);
        let told = self.tell(problems.into_iter().chain(overdue).collect())?;
        let jam = (!told).then(|| now + AFTER_A_JAM);
        let (paused, due) = (self.paused.values().min().copied(), self.next_deadline(now));
        Ok([jam, paused, due].into_iter().flatten().min())
    }

    fn send(&mut self, connection: &Arc<Connection>, change: Change) {
        let mut draft = connection.draft(None);
        draft.push(&change.operation());
        change.guards().iter().for_each(|guard| draft.guard(guard));
        let outcome = connection.send_draft(draft);
        self.outcomes.push(Box::pin(async move { (change, outcome.await) }));
    }

    fn settle(&mut self, change: &Change, outcome: &Outcome) {
        self.sent.remove(&change.interface);
        let (interface, pod, port) = (&change.name, &change.mark().pod_uid, &change.mark().port);
        match outcome {
            Outcome::Committed { .. } => {
                tracing::info!(interface, pod, port, "iface-id {}", change.kind());
                self.settings.metrics.changed(change.kind());
            }
            Outcome::Raced => {
                tracing::debug!(interface, pod, port, "the interface has changed meanwhile: looking again");
                self.paused.insert(change.interface, Instant::now() + AFTER_A_RACE);
            }
            Outcome::Rejected(rejection) => {
                let error = rejection.to_string();
                tracing::warn!(interface, pod, port, error, "the database refused an iface-id; trying again");
                self.paused.insert(change.interface, Instant::now() + AFTER_A_REFUSAL);
            }
            // The next connection shows the outcome. The guards of a late change refuse it.
            Outcome::Fenced | Outcome::NotSent | Outcome::Unknown(_) => {}
        }
    }

    /// Of the NICs without an interface those that have been so for too long.
    fn overdue(&mut self, waits: Vec<Notice>, now: Instant) -> Vec<Notice> {
        let key = |notice: &Notice| (notice.pod.uid.clone(), notice.problem.interface().to_owned());
        let present: HashSet<_> = waits.iter().map(key).collect();
        self.missing.retain(|nic, _| present.contains(nic));
        let deadline = self.settings.deadline;
        let is_overdue = |notice: &Notice| now >= *self.missing.entry(key(notice)).or_insert(now) + deadline;
        waits.into_iter().filter(is_overdue).collect()
    }

    /// When the next NIC will have been without an interface for too long.
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.missing.values().map(|since| *since + self.settings.deadline).filter(|due| *due > now).min()
    }

    /// Reports new problems. Returns false if there was no room for all of them.
    fn tell(&mut self, notices: Vec<Notice>) -> Result<bool, AgentError> {
        self.settings.metrics.problems(notices.iter().map(|notice| notice.problem.reason()));
        for notice in notices {
            let PodRef { namespace, name, uid } = notice.pod.clone();
            let told = self.told.entry(uid).or_default();
            if told.len() >= MOST_TOLD || told.contains(&notice.problem) {
                continue;
            }
            let problem = notice.problem.clone();
            match self.settings.notices.try_send(notice) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => return Ok(false),
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(AgentError::NoNotifier),
            }
            tracing::warn!(namespace, pod = name, reason = problem.reason(), "{problem}");
            told.insert(problem);
        }
        Ok(true)
    }
}

/// Waits until then; for ever without a time.
async fn until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}
