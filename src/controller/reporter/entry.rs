//! What the reporter knows of one VM.

use std::collections::VecDeque;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::news::{self, News, Verdict, verdict};
use super::pace::{Pace, Passage};
use super::send::{Object, Outgoing};
use super::{Subject, Written};
use crate::kubevirt::PortStatus;
use crate::plan::PortReport;

/// A VM's annotation is written no more often; what happens meanwhile is told together.
const EVERY: Duration = Duration::from_secs(1);
/// Events of a VM that wait; the pace lets no more through at once.
const MOST_WAITING: usize = 64;

/// What is known of a VM whose owner has something to be told, or was told something of late.
pub(super) struct Entry {
    /// The newest report that has not been told.
    pub(super) report: Option<Box<(Subject, Vec<PortReport>)>>,
    /// The UID of the object that the following is of.
    pub(super) uid: String,
    /// What Events were made for, while the annotation does not say so.
    pub(super) told: Option<Vec<PortStatus>>,
    /// What was written last: the watch may not have seen it yet.
    pub(super) written: Option<Box<Written>>,
    /// Its owner was told that another instance serves it.
    pub(super) elsewhere: bool,
    pub(super) outbox: VecDeque<Outgoing>,
    pub(super) pace: Pace,
    pub(super) annotated: Option<Instant>,
    /// What the API server refused, and how often.
    pub(super) refused: Option<Box<Verdict>>,
    pub(super) failures: u32,
    pub(super) due: Option<Instant>,
    pub(super) busy: bool,
    pub(super) gone: bool,
}

impl Entry {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            report: None,
            uid: String::new(),
            told: None,
            written: None,
            elsewhere: false,
            outbox: VecDeque::new(),
            pace: Pace::new(now),
            annotated: None,
            refused: None,
            failures: 0,
            due: None,
            busy: false,
            gone: false,
        }
    }

    /// Nothing is to be told.
    pub(super) fn is_at_rest(&self) -> bool {
        self.report.is_none() && self.told.is_none() && self.outbox.is_empty() && !self.busy && self.due.is_none()
    }

    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
        self.is_at_rest() && !self.elsewhere && self.written.is_none() && self.pace.is_forgotten(now)
    }

    /// When the annotation may be written.
    pub(super) fn not_before(&self, now: Instant) -> Instant {
        self.annotated.map_or(now, |annotated| now.max(annotated + EVERY))
    }

    /// The object of that name is another one now.
    pub(super) fn is_of(&mut self, uid: &str) {
        self.gone = false;
        if self.uid != uid {
            uid.clone_into(&mut self.uid);
            (self.told, self.written, self.elsewhere, self.refused) = (None, None, false, None);
        }
    }

    /// Makes Events, as the pace allows; gives how many it held back.
    pub(super) fn announce(&mut self, about: &Object, news: Vec<News>, now: Instant) -> u64 {
        let mut held = 0;
        for news in news {
            if news.warning {
                tracing::warn!(vm = %about.vm, reason = news.reason, "{}", news.note);
            }
            let (name, count) = match self.pace.pass(&about.uid, &news, now) {
                _ if self.outbox.len() >= MOST_WAITING => (0, 0),
                Passage::First(name) => (name, 1),
                Passage::Repeated(name, count) => (name, count),
                Passage::Held => (0, 0),
            };
            if count == 0 {
                held += 1;
                continue;
            }
            self.outbox.push_back(Outgoing { about: about.clone(), news, name, at: Timestamp::now(), count });
        }
        held
    }
}

/// Makes Events of what differs, and says what is to be done about the annotation; how many Events were held back.
pub(super) fn compose(
    instance: &str,
    entry: &mut Entry,
    subject: &Subject,
    ports: &[PortReport],
    now: Instant,
) -> (Verdict, u64) {
    let object = &subject.object;
    let present = subject.present(entry.written.as_deref()).text.clone();
    let verdict = verdict(instance, &object.uid, present.as_deref(), ports);
    let held = match &verdict {
        Verdict::Elsewhere(other) => {
            entry.told = None;
            let first = !std::mem::replace(&mut entry.elsewhere, true);
            let news = first.then(|| news::elsewhere(other.clone()));
            entry.announce(object, news.into_iter().collect(), now)
        }
        Verdict::Leave if entry.told.is_none() => 0,
        Verdict::Leave | Verdict::Write(_) => {
            let statuses = news::statuses(ports);
            let before = entry.told.take();
            let before = before.unwrap_or_else(|| news::told_before(present.as_deref(), &object.uid, &statuses));
            let held = entry.announce(object, news::news(&before, &statuses), now);
            entry.told = matches!(verdict, Verdict::Write(_)).then_some(statuses);
            held
        }
    };
    (verdict, held)
}
