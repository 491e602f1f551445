//! Leadership by a Kubernetes Lease: one process of several does the work.
//!
//! ```text
//!   link, supervisor --Candidacy--> keep_lease --Leadership--> link
//!                                    |     ^
//!                             requests|     |answers, the watch of the one object
//!                                    v     |
//!                                  API server
//! ```
//!
//! The decisions are in [`election`], a pure function of observations and times. The requests, the watch, the clock and
//! the log are here. A Lease alone does not keep a process that was paused from writing when it resumes: the epoch in
//! the database does. The Lease decides which process takes the epoch.
//!
//! A failure or a refusal of the API server never ends this task: it is logged once for each new reason, and tried
//! again. A leader steps down at its deadline by its own clock.

mod election;
mod object;
#[cfg(test)]
mod tests;
mod timing;

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::{Stream, StreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::watcher::{self, watch_object};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;

use super::kubernetes::chain;
use super::watches::refusal;
pub use election::{Candidacy, Leadership};
use election::{Election, Failure, Loss, Purpose, Request};
use object::Lease;
pub use timing::LeaseTiming;

/// The first pause after a failure. The longest is the retry period.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The reason why leadership ended for good.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The link has ended.
    #[error("the link has ended")]
    Deserted,
}

/// The Lease, and the identity of this process.
#[derive(Debug, Clone)]
pub struct LeaseOptions {
    /// The Lease's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The holder in the Lease while this process leads: different for each process.
    pub identity: String,
    /// Its durations.
    pub timing: LeaseTiming,
}

impl LeaseOptions {
    /// For a process on this host, with a new identity.
    pub fn new(namespace: String, name: String, timing: LeaseTiming) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "unknown" } else { host.trim() };
        Self { namespace, name, identity: format!("{host}_{}", uuid::Uuid::new_v4()), timing }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Answered, RequestError>> + Send>>;

/// The answer to a request.
enum Answered {
    Read(Option<Lease>),
    Written(Lease),
}

/// The failure of a request.
#[derive(Debug)]
enum RequestError {
    TimedOut(Verb, Duration),
    Failed(Verb, kube::Error),
}

/// A request as RBAC names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    Create,
    Update,
    Watch,
}

/// Stands for the Lease according to `candidacy`, and publishes the leader. Ends with `Ok` after `stopping`, when the
/// Lease is released, or could not be released within [`LeaseTiming::request_timeout`].
///
/// The end of a term is published before the Lease is released, so before another process can begin one. Dropping the
/// future leaves the Lease unchanged, and others wait until it runs out.
///
/// # Errors
/// If the sender of `candidacy` is gone. The Lease is released.
pub async fn keep_lease(
    client: Client,
    options: LeaseOptions,
    mut candidacy: watch::Receiver<Candidacy>,
    leadership: watch::Sender<Leadership>,
) -> Result<(), LeaseError> {
    let mut events = pin!(watch_object(Api::<Lease>::namespaced(client.clone(), &options.namespace), &options.name));
    let mut keeper = Keeper::new(client, options);
    let mut answer: Option<Answer> = None;
    let mut watch_paused: Option<Instant> = None;
    let mut deserted = false;
    let mut stop_by: Option<Instant> = None;
    loop {
        let mut wanted = *candidacy.borrow_and_update();
        wanted.stopping |= deserted;
        let step = keeper.election.next(keeper.now(), wanted);
        // Before any request: this process must stop writing before the Lease is released.
        keeper.publish(&leadership);
        if let Some(request) = step.request {
            answer = Some(keeper.send(request));
        }
        if wanted.stopping {
            let limit = keeper.options.timing.request_timeout();
            let by = *stop_by.get_or_insert_with(|| Instant::now() + limit);
            if keeper.is_done(by) {
                return if deserted { Err(LeaseError::Deserted) } else { Ok(()) };
            }
        }
        let wake = step.wake.map(|moment| keeper.start + moment).into_iter().chain(stop_by).min();
        tokio::select! {
            biased;
            changed = candidacy.changed(), if !deserted => deserted = changed.is_err(),
            answered = arrival(&mut answer), if answer.is_some() => {
                answer = None;
                keeper.answered(answered);
            }
            event = next_event(&mut events, watch_paused) => watch_paused = keeper.watched(event),
            () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
        }
    }
}

/// Waits for the answer under way, if there is one.
async fn arrival(answer: &mut Option<Answer>) -> Result<Answered, RequestError> {
    match answer {
        Some(answer) => answer.await,
        None => std::future::pending().await,
    }
}

/// The next event of the watch, not polled before `not_before`.
async fn next_event<S>(events: &mut Pin<&mut S>, not_before: Option<Instant>) -> watcher::Result<Option<Lease>>
where
    S: Stream<Item = watcher::Result<Option<Lease>>>,
{
    if let Some(not_before) = not_before {
        tokio::time::sleep_until(not_before).await;
    }
    match events.next().await {
        Some(event) => event,
        // The stream tries again for ever.
        None => std::future::pending().await,
    }
}

/// The state of the task.
struct Keeper {
    leases: Api<Lease>,
    options: LeaseOptions,
    election: Election,
    start: Instant,
    published: Option<Leadership>,
    pauses: Pauses,
    watch_pauses: Pauses,
    trouble: Trouble,
    watch_trouble: Trouble,
}

impl Keeper {
    fn new(client: Client, options: LeaseOptions) -> Self {
        let longest = options.timing.retry_period();
        Self {
            leases: Api::namespaced(client, &options.namespace),
            election: Election::new(options.identity.clone(), options.timing),
            start: Instant::now(),
            published: None,
            pauses: Pauses::up_to(longest),
            watch_pauses: Pauses::up_to(longest),
            trouble: Trouble::default(),
            watch_trouble: Trouble::default(),
            options,
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Publishes the leader, and logs a change.
    fn publish(&mut self, leadership: &watch::Sender<Leadership>) {
        let now = self.election.leadership();
        if self.published.as_ref() == Some(&now) {
            return;
        }
        leadership.send_if_modified(|published| {
            let modified = *published != now;
            published.clone_from(&now);
            modified
        });
        let lease = self.options.full_name();
        let identity = &self.options.identity;
        match (&self.published, &now) {
            (_, Leadership::Leader { transitions }) => {
                tracing::info!(lease, identity, term = transitions, "this process leads");
            }
            (Some(Leadership::Leader { transitions }), Leadership::Follower { .. }) => {
                let reason = self.election.loss().map(ToString::to_string);
                if self.election.loss().is_some_and(Loss::is_own) {
                    tracing::info!(lease, identity, term = transitions, reason, "this process leads no longer");
                } else {
                    tracing::warn!(lease, identity, term = transitions, reason, "this process leads no longer");
                }
            }
            (_, Leadership::Follower { leader: Some(leader) }) => {
                tracing::info!(lease, leader, "another process leads")
            }
            (Some(_), Leadership::Follower { leader: None }) => tracing::info!(lease, "no process leads"),
            (None, Leadership::Follower { leader: None }) => {}
        }
        self.published = Some(now);
    }

    fn send(&self, request: Request) -> Answer {
        let (leases, name) = (self.leases.clone(), self.options.name.clone());
        let limit = self.options.timing.request_timeout();
        let (verb, lease) = match request {
            Request::Read => (Verb::Get, Lease::default()),
            Request::Write(purpose, lease) => {
                let mut lease = *lease;
                stamp(&mut lease, purpose);
                lease.metadata.name = Some(name.clone());
                lease.metadata.namespace = Some(self.options.namespace.clone());
                (if lease.metadata.resource_version.is_some() { Verb::Update } else { Verb::Create }, lease)
            }
        };
        Box::pin(async move {
            let parameters = PostParams::default();
            let answer = async {
                match verb {
                    Verb::Create => leases.create(&parameters, &lease).await.map(Answered::Written),
                    Verb::Update => leases.replace(&name, &parameters, &lease).await.map(Answered::Written),
                    Verb::Get | Verb::Watch => leases.get_opt(&name).await.map(Answered::Read),
                }
            };
            match tokio::time::timeout(limit, answer).await {
                Ok(answer) => answer.map_err(|error| RequestError::Failed(verb, error)),
                Err(_) => Err(RequestError::TimedOut(verb, limit)),
            }
        })
    }

    fn answered(&mut self, answer: Result<Answered, RequestError>) {
        let now = self.now();
        let well = match answer {
            Ok(Answered::Read(lease)) => {
                self.trouble.is_over();
                self.election.read(now, lease)
            }
            Ok(Answered::Written(lease)) => {
                self.trouble.is_over();
                self.election.written(now, lease);
                true
            }
            Err(error) => {
                let failure = error.failure();
                // A conflict with a faster process is normal.
                if failure != Failure::Conflict {
                    self.trouble.log(&self.options, error.verb(), &error.describe(), error.hint(&self.options));
                }
                self.election.failed(now, failure, self.pauses.next());
                false
            }
        };
        if well {
            self.pauses.begin_anew();
        }
    }

    /// Takes in an event of the watch. Returns the time before which the watch must not be polled again.
    fn watched(&mut self, event: watcher::Result<Option<Lease>>) -> Option<Instant> {
        match event {
            Ok(lease) => {
                self.watch_trouble.is_over();
                self.watch_pauses.begin_anew();
                if self.election.watched(self.now(), lease) {
                    self.pauses.begin_anew();
                }
                None
            }
            Err(error) => {
                self.election.watch_broke();
                let (error, hint) = describe_watch(&error, &self.options);
                self.watch_trouble.log(&self.options, Verb::Watch, &error, hint);
                Some(Instant::now() + self.watch_pauses.next())
            }
        }
    }

    /// Returns true if nothing more can be done before the end.
    fn is_done(&self, by: Instant) -> bool {
        if self.election.is_released() {
            return true;
        }
        let late = Instant::now() >= by;
        if late {
            let lease = self.options.full_name();
            tracing::warn!(lease, "the Lease could not be released: others wait until it runs out");
        }
        late
    }
}

impl LeaseOptions {
    fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Writes the times, which are for people: they are never compared.
fn stamp(lease: &mut Lease, purpose: Purpose) {
    let now = format!("{:.6}", Timestamp::now());
    if purpose != Purpose::Renew {
        lease.spec.acquire_time = Some(now.clone());
    }
    lease.spec.renew_time = Some(now);
}

/// Pauses after failures, increasing.
struct Pauses {
    builder: ExponentialBuilder,
    pauses: ExponentialBackoff,
    longest: Duration,
}

impl Pauses {
    fn up_to(longest: Duration) -> Self {
        let builder = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE.min(longest))
            .with_max_delay(longest)
            .with_jitter()
            .without_max_times();
        Self { builder, pauses: builder.build(), longest }
    }

    fn next(&mut self) -> Duration {
        self.pauses.next().unwrap_or(self.longest)
    }

    fn begin_anew(&mut self) {
        self.pauses = self.builder.build();
    }
}

/// The fault of the API server, logged once for each new reason.
#[derive(Default)]
struct Trouble(String);

impl Trouble {
    fn log(&mut self, options: &LeaseOptions, verb: Verb, error: &str, hint: String) {
        if self.0 != error {
            tracing::warn!(lease = options.full_name(), call = verb.name(), error, "{hint}; trying again");
            error.clone_into(&mut self.0);
        }
    }

    fn is_over(&mut self) {
        self.0.clear();
    }
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Create => "create",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

impl RequestError {
    fn verb(&self) -> Verb {
        match self {
            Self::TimedOut(verb, _) | Self::Failed(verb, _) => *verb,
        }
    }

    fn failure(&self) -> Failure {
        match self {
            Self::Failed(_, kube::Error::Api(status)) => match status.code {
                // Also for a deletion during a replacement.
                409 => Failure::Conflict,
                404 if self.verb() == Verb::Update => Failure::Conflict,
                400..=499 => Failure::Refused,
                _ => Failure::Unknown,
            },
            Self::Failed(..) | Self::TimedOut(..) => Failure::Unknown,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::TimedOut(_, limit) => format!("the API server did not answer within {limit:?}"),
            Self::Failed(_, kube::Error::Api(status)) => status.message.clone(),
            Self::Failed(_, error) => chain(error),
        }
    }

    fn hint(&self, options: &LeaseOptions) -> String {
        match self {
            Self::Failed(verb, kube::Error::Api(status)) => hint(status, *verb, options),
            Self::TimedOut(verb, _) | Self::Failed(verb, _) => unreachable_hint(*verb),
        }
    }
}

fn unreachable_hint(verb: Verb) -> String {
    format!("the API server does not answer the {} of the Lease", verb.name())
}

/// The remedy for a refusal, for an operator.
fn hint(status: &kube::core::Status, verb: Verb, options: &LeaseOptions) -> String {
    let LeaseOptions { namespace, name, .. } = options;
    let causes = status.details.iter().flat_map(|details| &details.causes);
    match status.code {
        401 => "the API server does not know this service's credentials".to_owned(),
        403 if causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating") => {
            format!("the namespace {namespace} is being deleted: name another with --lease")
        }
        403 => {
            let verbs = if verb == Verb::Watch { "list and watch" } else { verb.name() };
            format!(
                "this service may not {verbs} the Lease {name}: its Role in the namespace {namespace} needs {verbs} on leases of coordination.k8s.io (deploy/kubernetes/rbac)"
            )
        }
        404 => format!("there is no namespace {namespace}: create it, or name another with --lease"),
        _ => format!("the API server refuses to {} the Lease", verb.name()),
    }
}

fn describe_watch(error: &watcher::Error, options: &LeaseOptions) -> (String, String) {
    match refusal(error) {
        Some(status) => (status.message.clone(), hint(status, Verb::Watch, options)),
        None => (chain(error), unreachable_hint(Verb::Watch)),
    }
}
