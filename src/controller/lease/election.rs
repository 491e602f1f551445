//! The decisions of a candidate for a Lease: a function of the Lease as seen, of the time on the candidate's own clock,
//! and of its candidacy. No request is sent and no clock is read here: `next` returns the request for the API server,
//! and the caller passes its result back.
//!
//! ```text
//!            free, released, or ours without a term: at once
//!            another's: its duration after its last change
//!  Follower ------------------------------------------------> acquire --written--> Leader
//!     ^                                                                              |  renewed every retry period
//!     +------ not renewed for the renew deadline; another's; deleted; no longer wanted +
//!             (then, where it still names us, it is released)
//! ```
//!
//! Two never lead at one time: a leader counts the renew deadline from the moment it sent its last successful request,
//! and a follower counts the longer lease duration from the later moment at which it saw the effect. Every write is
//! conditional on the version that was seen, so a candidate with an old view is refused. Only spans of the own clock
//! are compared: clocks may differ, and their rates may differ by less than a third.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::object::{Lease, LeaseSpec};
use super::timing::LeaseTiming;

/// Time on the own monotonic clock, since any fixed moment.
pub(crate) type Moment = Duration;

/// Kubernetes has no greater number for it.
const MOST_TRANSITIONS: u64 = i32::MAX as u64;

/// The candidacy for the Lease. Set by the link (stands) and by the supervisor (stopping).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Candidacy {
    /// It is able to do the work.
    pub stands: bool,
    /// It is about to end.
    pub stopping: bool,
}

impl Candidacy {
    fn wants(self) -> bool {
        self.stands && !self.stopping
    }
}

/// The present leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// Another process leads, or the Lease is free.
    Follower {
        /// The identity in the Lease, unless it is our own.
        leader: Option<String>,
    },
    /// This process leads.
    Leader {
        /// The Lease's `leaseTransitions`: greater with each term of any process. One exception: after the Lease was
        /// deleted, a process that had never seen it begins at 1.
        transitions: u64,
    },
}

/// The reason for the end of a term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The process no longer stands.
    Withdrawn,
    /// The process is stopping.
    Stopping,
    /// Not renewed within the deadline.
    Deadline(Duration),
    /// Another holds the Lease.
    Taken(String),
    /// Another client emptied or rewrote the Lease.
    Altered,
    /// The Lease was deleted.
    Deleted,
}

impl Loss {
    /// Returns true if the process itself ended the term.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self, Self::Withdrawn | Self::Stopping)
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Withdrawn => formatter.write_str("this process no longer stands for the Lease"),
            Self::Stopping => formatter.write_str("this process is stopping"),
            Self::Deadline(deadline) => write!(formatter, "the Lease could not be renewed for {deadline:?}"),
            Self::Taken(holder) => write!(formatter, "{holder} holds the Lease"),
            Self::Altered => formatter.write_str("another client has rewritten the Lease"),
            Self::Deleted => formatter.write_str("another client has deleted the Lease"),
        }
    }
}

/// A request for the API server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Request {
    /// Reads the Lease.
    Read,
    /// Writes this: replaces the version that it carries, or creates the object if it carries none. The caller fills in
    /// the times.
    Write(Purpose, Box<Lease>),
}

/// The purpose of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Begins a term.
    Acquire,
    /// Renews a term.
    Renew,
    /// Releases the Lease, so that others can take it at once.
    Release,
}

/// The reason why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The Lease is not, or no longer, as it was seen.
    Conflict,
    /// Refused, without a write.
    Refused,
    /// It may have been carried out, or may still be.
    Unknown,
}

/// The next request, and the time of the next call.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// To be sent now. It replaces a request under way, whose answer is dropped.
    pub(crate) request: Option<Request>,
    /// The time of the next call of `next`, if no event comes before.
    pub(crate) wake: Option<Moment>,
}

/// A term of this process.
#[derive(Debug)]
struct Term {
    transitions: u64,
    /// The time at which the last successful request was sent.
    renewed: Moment,
    /// The time of the next renewal.
    due: Moment,
}

/// The Lease as last seen.
#[derive(Debug)]
struct Seen {
    lease: Lease,
    /// The time since when its spec is as it is.
    at: Moment,
}

/// The knowledge about the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It has to be read.
    Nothing,
    /// It did not exist at this time.
    Absent(Moment),
    /// It exists as seen.
    Seen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Read,
    Write(Purpose),
}

/// A request that has been sent.
#[derive(Debug)]
struct UnderWay {
    task: Task,
    sent: Moment,
    /// The term that a write names.
    transitions: u64,
}

/// A candidate.
#[derive(Debug)]
pub(crate) struct Election {
    identity: String,
    timing: LeaseTiming,
    known: Known,
    seen: Option<Seen>,
    term: Option<Term>,
    /// The reason for the end of the last term.
    loss: Option<Loss>,
    /// The greatest `leaseTransitions` ever seen: a Lease that is created again continues from there.
    highest: u64,
    under_way: Option<UnderWay>,
    /// A write without an answer may have been carried out.
    in_doubt: bool,
    /// After a failure: the earliest time of the next request.
    not_before: Moment,
    /// True while the watch reports changes, as far as is known.
    watching: bool,
    last_look: Moment,
    draws: u32,
}

impl Election {
    /// A follower that has not seen the Lease.
    pub(crate) fn new(identity: String, timing: LeaseTiming) -> Self {
        Self {
            identity,
            timing,
            known: Known::Nothing,
            seen: None,
            term: None,
            loss: None,
            highest: 0,
            under_way: None,
            in_doubt: false,
            not_before: Moment::ZERO,
            watching: true,
            last_look: Moment::ZERO,
            draws: 0,
        }
    }

    /// The leader as of the last call of `next`.
    pub(crate) fn leadership(&self) -> Leadership {
        match &self.term {
            Some(term) => Leadership::Leader { transitions: term.transitions },
            None => Leadership::Follower { leader: self.leader().map(ToOwned::to_owned) },
        }
    }

    /// The reason for the end of the last term.
    pub(crate) fn loss(&self) -> Option<&Loss> {
        self.loss.as_ref()
    }

    /// Returns true if the Lease does not name this process, as far as is known.
    pub(crate) fn is_released(&self) -> bool {
        let waits = match self.under_way {
            Some(UnderWay { task: Task::Write(_), .. }) => true,
            Some(UnderWay { task: Task::Read, .. }) => self.in_doubt,
            None => false,
        };
        self.term.is_none() && !waits && self.task(Candidacy::default()).is_none()
    }

    /// Ends a term that is over, and returns the next step.
    pub(crate) fn next(&mut self, now: Moment, candidacy: Candidacy) -> Step {
        self.end_term(now, candidacy);
        let deadline = self.term.as_ref().map(|term| term.renewed + self.timing.renew_deadline());
        let Some((due, task)) = self.task(candidacy) else { return Step { request: None, wake: deadline } };
        let due = due.max(self.not_before);
        match &self.under_way {
            // A release does not wait for the answer to a renewal: the second of them is refused.
            Some(UnderWay { task: Task::Write(Purpose::Renew) | Task::Read, .. })
                if task == Task::Write(Purpose::Release) => {}
            Some(_) => return Step { request: None, wake: deadline },
            None => {}
        }
        if due > now {
            return Step { request: None, wake: Some(deadline.map_or(due, |deadline| deadline.min(due))) };
        }
        Step { request: Some(self.start(now, task)), wake: deadline }
    }

    /// Takes in an event of the watch, which may be a little late. Returns true if another process holds it.
    pub(crate) fn watched(&mut self, now: Moment, lease: Option<Lease>) -> bool {
        self.watching = true;
        match lease {
            Some(lease) if self.is_old(&lease) => false,
            Some(lease) => self.take(now, lease),
            None => {
                // It may be older than the last write: a request clears this up.
                match &mut self.term {
                    Some(term) => term.due = now,
                    None if matches!(self.known, Known::Absent(_)) => {}
                    None => self.known = Known::Nothing,
                }
                false
            }
        }
    }

    /// Records that the watch is broken. Its next event ends this.
    pub(crate) fn watch_broke(&mut self) {
        self.watching = false;
    }

    /// Takes in the answer to a read. Returns true if another process holds it.
    pub(crate) fn read(&mut self, now: Moment, lease: Option<Lease>) -> bool {
        self.under_way = None;
        self.in_doubt = false;
        self.last_look = now;
        if let Some(lease) = lease {
            return self.take(now, lease);
        }
        if self.term.is_some() {
            self.lose(Loss::Deleted);
        }
        if !matches!(self.known, Known::Absent(_)) {
            self.known = Known::Absent(now);
        }
        false
    }

    /// Takes in the answer to a write: the Lease as written.
    pub(crate) fn written(&mut self, now: Moment, lease: Lease) {
        let Some(UnderWay { task, sent, transitions }) = self.under_way.take() else { return };
        self.in_doubt = false;
        self.not_before = now;
        if !self.is_old(&lease) {
            self.take(now, lease);
        }
        // The watch may have reported a later change already.
        let stands = self.seen.as_ref().is_some_and(|seen| self.is_ours(&seen.lease, transitions));
        if !stands || self.known != Known::Seen {
            return;
        }
        let due = sent + self.timing.retry_period();
        match (&mut self.term, task) {
            (None, Task::Write(Purpose::Acquire)) => self.term = Some(Term { transitions, renewed: sent, due }),
            (Some(term), Task::Write(Purpose::Renew)) => (term.renewed, term.due) = (sent, due),
            // Its term has ended in the meantime.
            _ => {}
        }
    }

    /// Takes in a failure. No request follows before the end of `pause`.
    pub(crate) fn failed(&mut self, now: Moment, failure: Failure, pause: Duration) {
        let Some(UnderWay { task, .. }) = self.under_way.take() else { return };
        self.not_before = now + pause;
        match (task, failure) {
            // Another client's write, or one of ours without an answer: a read distinguishes them.
            (_, Failure::Conflict) => (self.known, self.in_doubt) = (Known::Nothing, true),
            (Task::Write(_), Failure::Unknown) => self.in_doubt = true,
            (Task::Read, Failure::Unknown) | (_, Failure::Refused) => {}
        }
    }

    fn leader(&self) -> Option<&str> {
        let seen = self.seen.as_ref().filter(|_| !matches!(self.known, Known::Absent(_)))?;
        seen.lease.holder().filter(|holder| *holder != self.identity)
    }

    fn is_ours(&self, lease: &Lease, transitions: u64) -> bool {
        lease.holder() == Some(&self.identity) && lease.transitions() == transitions
    }

    fn is_old(&self, lease: &Lease) -> bool {
        let known = self.seen.as_ref().and_then(|seen| seen.lease.version());
        lease.version().zip(known).is_some_and(|(version, known)| version <= known)
    }

    /// Takes in the newest state. Returns true if another process holds the Lease, unexpired.
    fn take(&mut self, now: Moment, lease: Lease) -> bool {
        self.highest = self.highest.max(lease.transitions());
        let changed = self.known_spec() != Some(&lease.spec);
        if let Some(term) = &self.term {
            let transitions = term.transitions;
            if self.is_ours(&lease, transitions) {
                if changed && let Some(term) = &mut self.term {
                    // Another client changed it, and others might rely on that. Or it is the effect of the request
                    // under way.
                    term.due = now;
                }
            } else {
                let holder = lease.holder().filter(|holder| *holder != self.identity);
                self.lose(holder.map_or(Loss::Altered, |holder| Loss::Taken(holder.to_owned())));
            }
        }
        let at = match &self.seen {
            Some(seen) if !changed => seen.at,
            _ => {
                self.draws = self.draws.wrapping_add(1);
                now
            }
        };
        let held = lease.holder().is_some_and(|holder| holder != self.identity);
        let well = held && now < at + self.duration(&lease);
        self.seen = Some(Seen { lease, at });
        self.known = Known::Seen;
        if well {
            self.not_before = now;
        }
        well
    }

    /// The last known spec. One that was absent in between counts as changed.
    fn known_spec(&self) -> Option<&LeaseSpec> {
        let seen = self.seen.as_ref().filter(|_| !matches!(self.known, Known::Absent(_)))?;
        Some(&seen.lease.spec)
    }

    fn lose(&mut self, loss: Loss) {
        self.term = None;
        self.loss = Some(loss);
    }

    fn end_term(&mut self, now: Moment, candidacy: Candidacy) {
        let Some(term) = &self.term else { return };
        let deadline = self.timing.renew_deadline();
        if candidacy.stopping {
            self.lose(Loss::Stopping);
        } else if !candidacy.stands {
            self.lose(Loss::Withdrawn);
        } else if now >= term.renewed + deadline {
            self.lose(Loss::Deadline(deadline));
        }
    }

    /// The next task and its time, before any pause after a failure.
    fn task(&self, candidacy: Candidacy) -> Option<(Moment, Task)> {
        let now = Moment::ZERO;
        let seen = self.seen.as_ref().filter(|_| self.known == Known::Seen);
        if !candidacy.wants() {
            return match seen {
                Some(seen) if seen.lease.holder() == Some(&self.identity) => Some((now, Task::Write(Purpose::Release))),
                _ if self.in_doubt => Some((now, Task::Read)),
                _ => None,
            };
        }
        let Some(seen) = seen else {
            return Some(match self.known {
                Known::Absent(since) => {
                    (since + self.jitter(self.timing.handover_jitter()), Task::Write(Purpose::Acquire))
                }
                Known::Nothing | Known::Seen => (now, Task::Read),
            });
        };
        if let Some(term) = &self.term {
            return Some((term.due, Task::Write(Purpose::Renew)));
        }
        let acquire = Task::Write(Purpose::Acquire);
        match seen.lease.holder() {
            None => Some((seen.at + self.jitter(self.timing.handover_jitter()), acquire)),
            // The identity is ours alone.
            Some(holder) if holder == self.identity => Some((now, acquire)),
            Some(_) => {
                let expiry = seen.at + self.duration(&seen.lease) + self.jitter(self.timing.expiry_jitter());
                let look = seen.at.max(self.last_look) + self.patience();
                Some(if expiry <= look { (expiry, acquire) } else { (look, Task::Read) })
            }
        }
    }

    fn duration(&self, lease: &Lease) -> Duration {
        lease.duration().unwrap_or(self.timing.lease())
    }

    /// The time for which a follower relies on its last view: a watch may be broken, or may hang.
    fn patience(&self) -> Duration {
        if self.watching { self.timing.longest_silence() } else { self.timing.retry_period() }
    }

    /// A part of `most` that differs between candidates and from one change to the next.
    fn jitter(&self, most: Duration) -> Duration {
        let mut hasher = DefaultHasher::new();
        (&self.identity, self.draws).hash(&mut hasher);
        most.mul_f64((hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64)
    }

    fn start(&mut self, now: Moment, task: Task) -> Request {
        let (transitions, request) = match task {
            Task::Read => (0, Request::Read),
            Task::Write(purpose) => {
                let lease = self.draft(purpose);
                (lease.transitions(), Request::Write(purpose, Box::new(lease)))
            }
        };
        self.under_way = Some(UnderWay { task, sent: now, transitions });
        request
    }

    /// The Lease to write, without its times.
    fn draft(&self, purpose: Purpose) -> Lease {
        let seen = self.seen.as_ref().filter(|_| self.known == Known::Seen);
        let mut lease = seen.map(|seen| seen.lease.clone()).unwrap_or_default();
        let transitions = match purpose {
            // At the limit the epoch in the database still increases.
            Purpose::Acquire => self.highest.saturating_add(1).min(MOST_TRANSITIONS),
            Purpose::Renew | Purpose::Release => lease.transitions(),
        };
        let released = purpose == Purpose::Release;
        let seconds = if released { 1 } else { self.timing.lease().as_secs() };
        lease.spec.holder_identity = (!released).then(|| self.identity.clone());
        lease.spec.lease_duration_seconds = i64::try_from(seconds).ok();
        lease.spec.lease_transitions = i64::try_from(transitions).ok();
        lease
    }
}
