//! What the reporter knows of one VM.

use std::collections::VecDeque;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::news::{self, News, Verdict};
use super::pace::{Pace, Passage};
use super::send::{Object, Outgoing};
use super::{Subject, Written};
use crate::kubevirt::AnnotatedPort;
use crate::plan::VmStatus;

/// A VM's annotation is written no more often; what happens meanwhile is told together.
const EVERY: Duration = Duration::from_secs(1);
/// Events of a VM that wait; the pace lets no more through at once.
const MOST_WAITING: usize = 64;

/// What is known of a VM whose owner has something to be told, or was told something of late.
pub(super) struct Entry {
    /// The newest report that has not been told.
    pub(super) report: Option<Box<(Subject, VmStatus)>>,
    /// The UID of the object that the following is of.
    pub(super) uid: String,
    /// What Events were made for, while the annotation does not say so.
    pub(super) told: Option<Vec<AnnotatedPort>>,
    /// What was written last: the watch may not have seen it yet.
    pub(super) written: Option<Box<Written>>,
    /// Its owner was told that another instance serves it.
    pub(super) elsewhere: bool,
    pub(super) outbox: VecDeque<Outgoing>,
    /// So many of them, from the first, are being sent.
    pub(super) in_flight: usize,
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
            in_flight: 0,
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
            let mut waiting = self.outbox.iter_mut().skip(self.in_flight);
            if let Some(waiting) = waiting.find(|event| event.news == news && event.about == *about) {
                waiting.count = self.pace.repeat(&about.uid, &news, now);
                continue;
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

/// Makes Events of what differs from what Events were made for before; how many were held back.
pub(super) fn compose(entry: &mut Entry, subject: &Subject, status: &VmStatus, verdict: &Verdict, now: Instant) -> u64 {
    let object = &subject.object;
    if let Verdict::Elsewhere(other) = verdict {
        entry.told = None;
        let first = !std::mem::replace(&mut entry.elsewhere, true);
        let news = first.then(|| news::elsewhere(other.clone()));
        return entry.announce(object, news.into_iter().collect(), now);
    }
    if *verdict == Verdict::Leave && entry.told.is_none() {
        return 0;
    }
    let statuses = status.annotated();
    let before = entry.told.take().unwrap_or_else(|| {
        let present = subject.present(entry.written.as_deref()).text.as_deref();
        news::told_before(present, &object.uid, &statuses)
    });
    let held = entry.announce(object, news::news(&before, &statuses), now);
    // What is being written is not what the annotation says yet.
    entry.told = (entry.busy || matches!(verdict, Verdict::Write(_))).then_some(statuses);
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::VmKey;
    use crate::controller::reporter::news::verdict;
    use crate::kubevirt::Reported;
    use crate::plan::{PortStatus, Problem};

    fn subject() -> Subject {
        let object = Object { vm: VmKey::new("n", "a"), is_vm: true, uid: "u".into() };
        Subject { object, seen: Reported::default() }
    }

    fn nic(address: &str) -> PortStatus {
        let addresses = format!("0a:58:0a:10:00:02 {address}").parse().ok();
        PortStatus { network: "default".into(), port: Some("a.n".into()), addresses, ..PortStatus::default() }
    }

    /// Takes in a status as the reporter does.
    fn take(entry: &mut Entry, ports: &[PortStatus], now: Instant) -> u64 {
        let status = VmStatus { ports: ports.to_vec(), ..VmStatus::default() };
        let verdict = verdict("red", "u", None, &status);
        compose(entry, &subject(), &status, &verdict, now)
    }

    fn outbox(entry: &Entry) -> Vec<(&str, u32)> {
        entry.outbox.iter().map(|event| (event.news.reason.as_str(), event.count)).collect()
    }

    #[test]
    fn what_came_and_went_before_anything_was_written_is_told_all_the_same() {
        let now = Instant::now();
        let mut entry = Entry::new(now);
        entry.is_of("u");
        assert_eq!(take(&mut entry, &[nic("10.16.0.2")], now), 0);
        take(&mut entry, &[], now);
        assert_eq!(outbox(&entry), [("AddressAssigned", 1), ("PortReleased", 1)]);
        assert_eq!(entry.told, None, "the annotation says so already");
    }

    #[test]
    fn what_repeats_while_it_waits_is_one_event_and_what_is_being_sent_is_left_alone() {
        let now = Instant::now();
        let mut entry = Entry::new(now);
        entry.is_of("u");
        for _ in 0..10 {
            take(&mut entry, &[nic("10.16.0.2")], now);
            take(&mut entry, &[nic("10.16.0.3")], now);
        }
        assert_eq!(outbox(&entry), [("AddressAssigned", 10), ("AddressAssigned", 10)]);
        (entry.busy, entry.in_flight) = (true, 2);
        take(&mut entry, &[nic("10.16.0.2")], now);
        assert_eq!(outbox(&entry)[2..], [("AddressAssigned", 11)]);
    }

    #[test]
    fn a_vm_that_never_stops_changing_is_held_back_and_takes_no_memory_without_end() {
        let now = Instant::now();
        let mut entry = Entry::new(now);
        entry.is_of("u");
        let problem = |index: usize| {
            let problems = vec![Problem::SwitchNotFound(format!("switch-{index}"))];
            PortStatus { network: "default".into(), problems, ..PortStatus::default() }
        };
        let held: u64 = (0..1_000).map(|index| take(&mut entry, &[problem(index)], now)).sum();
        assert_eq!((held, entry.outbox.len()), (975, 25));
    }

    #[test]
    fn that_another_instance_serves_the_vm_is_told_once() {
        let now = Instant::now();
        let mut entry = Entry::new(now);
        entry.is_of("u");
        let verdict = Verdict::Elsewhere("blue".into());
        for _ in 0..3 {
            compose(&mut entry, &subject(), &VmStatus::default(), &verdict, now);
        }
        assert_eq!(outbox(&entry), [("ServedElsewhere", 1)]);
        assert!(!entry.is_forgotten(now + Duration::from_secs(100_000)), "it is remembered as long as the VM lives");
    }
}
