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
//! The decisions are in [`election`], a pure function of what was seen and when; here are the requests,
//! the watch, the clock and the log. A Lease alone cannot keep a process that was stopped and woken from
//! writing: the epoch in the database does. The Lease decides who takes the epoch.
//!
//! The API server being away, or refusing, never ends this: it is said once for each new reason, and
//! tried again; a leader steps down at its deadline by its own clock.

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

/// After a failure the first pause; the last is the retry period.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Why leadership ended for good.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Nobody says any more whether the Lease is wanted.
    #[error("nobody stands for the Lease any more")]
    Deserted,
}

/// Which Lease, and who wants it.
#[derive(Debug, Clone)]
pub struct LeaseOptions {
    /// The Lease's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What stands in the Lease while we hold it: another one for each process.
    pub identity: String,
    /// How long it lasts.
    pub timing: LeaseTiming,
}

impl LeaseOptions {
    /// For a process on this host, with an identity of its own.
    pub fn new(namespace: String, name: String, timing: LeaseTiming) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "unknown" } else { host.trim() };
        Self { namespace, name, identity: format!("{host}_{}", uuid::Uuid::new_v4()), timing }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Answered, RequestError>> + Send>>;

/// What the API server did.
enum Answered {
    Read(Option<Lease>),
    Written(Lease),
}

/// Why it did not.
#[derive(Debug)]
enum RequestError {
    TimedOut(Verb, Duration),
    Failed(Verb, kube::Error),
}

/// A call as RBAC names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    Create,
    Update,
    Watch,
}

/// Stands for the Lease while `candidacy` says so, and publishes who leads. Ends with `Ok` after `stopping`, when
/// the Lease is released, or could not be within [`LeaseTiming::request_timeout`].
///
/// That a term has ended is published before the Lease is given back: nobody else is let in before. Dropped, it
/// leaves the Lease as it is, and others wait until it runs out.
///
/// # Errors
/// When the sender of `candidacy` is gone; the Lease is released.
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
        // Before anything is sent: nobody may go on writing when the Lease is given back.
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

/// Waits for the answer under way, of which there is one.
async fn arrival(answer: &mut Option<Answer>) -> Result<Answered, RequestError> {
    match answer {
        Some(answer) => answer.await,
        None => std::future::pending().await,
    }
}

/// What the watch tells next, asked no sooner than it may be.
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

    /// Tells who leads, and logs it when it is news.
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
            (Some(_), Leadership::Follower { leader: None }) => tracing::info!(lease, "nobody leads"),
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
                // That another was faster is the ordinary course of things.
                if failure != Failure::Conflict {
                    self.trouble.tell(&self.options, error.verb(), &error.describe(), error.hint(&self.options));
                }
                self.election.failed(now, failure, self.pauses.next());
                false
            }
        };
        if well {
            self.pauses.begin_anew();
        }
    }

    /// Takes in what the watch tells; gives the time before which it is not to be asked again.
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
                self.watch_trouble.tell(&self.options, Verb::Watch, &error, hint);
                Some(Instant::now() + self.watch_pauses.next())
            }
        }
    }

    /// Whether all was done before the end that can be.
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

/// Writes the times, for people to read: nobody compares them.
fn stamp(lease: &mut Lease, purpose: Purpose) {
    let now = format!("{:.6}", Timestamp::now());
    if purpose != Purpose::Renew {
        lease.spec.acquire_time = Some(now.clone());
    }
    lease.spec.renew_time = Some(now);
}

/// Pauses after failures, ever longer.
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

/// What is wrong with the API server, said once for each new reason.
#[derive(Default)]
struct Trouble(String);

impl Trouble {
    fn tell(&mut self, options: &LeaseOptions, verb: Verb, error: &str, hint: String) {
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
                // Of a deletion under a replacement, too.
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

/// What an operator should do about a refusal.
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
