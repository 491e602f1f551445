//! The reporter's state of one VM.

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

/// The shortest interval between two writes of a VM's annotation. Changes in between are reported together.
const EVERY: Duration = Duration::from_secs(1);
/// The most Events of a VM that wait; the pace lets no more through at once.
const MOST_WAITING: usize = 64;

/// The state of a VM with pending reports, or with recent ones.
pub(super) struct Entry {
    /// The newest report that has not been sent.
    pub(super) report: Option<Box<(Subject, VmStatus)>>,
    /// The UID of the object that the other fields belong to.
    pub(super) uid: String,
    /// The statuses that have their Events, until the annotation shows them.
    pub(super) announced: Option<Vec<AnnotatedPort>>,
    /// The last write. The watch may not have seen it yet.
    pub(super) written: Option<Box<Written>>,
    /// The owner has the Event that another instance serves the VM.
    pub(super) elsewhere: bool,
    pub(super) outbox: VecDeque<Outgoing>,
    /// The number of them, from the first, that are being sent.
    pub(super) in_flight: usize,
    pub(super) pace: Pace,
    pub(super) annotated: Option<Instant>,
    /// The last verdict that the API server refused.
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
            announced: None,
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

    /// Returns true if there is nothing to send.
    pub(super) fn is_at_rest(&self) -> bool {
        self.report.is_none() && self.announced.is_none() && self.outbox.is_empty() && !self.busy && self.due.is_none()
    }

    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
        self.is_at_rest() && !self.elsewhere && self.written.is_none() && self.pace.is_forgotten(now)
    }

    /// The earliest time of the next write of the annotation.
    pub(super) fn not_before(&self, now: Instant) -> Instant {
        self.annotated.map_or(now, |annotated| now.max(annotated + EVERY))
    }

    /// Resets the state if the object with this name is a new one.
    pub(super) fn is_of(&mut self, uid: &str) {
        self.gone = false;
        if self.uid != uid {
            uid.clone_into(&mut self.uid);
            (self.announced, self.written, self.elsewhere, self.refused) = (None, None, false, None);
        }
    }

    /// Adds Events, as the pace allows. Returns the number of those held back.
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
            let (name, count, continues) = match self.pace.pass(&about.uid, &news, now) {
                Passage::First(name) if self.outbox.len() < MOST_WAITING => (name, 1, false),
                Passage::Repeated(name, count) if self.outbox.len() < MOST_WAITING => (name, count, true),
                _ => {
                    held += 1;
                    continue;
                }
            };
            let (about, at) = (about.clone(), Timestamp::now());
            self.outbox.push_back(Outgoing { about, news, name, at, count, continues });
        }
        held
    }
}

/// Adds Events for the differences from the statuses that have theirs. Returns the number of those held back.
pub(super) fn compose(entry: &mut Entry, subject: &Subject, status: &VmStatus, verdict: &Verdict, now: Instant) -> u64 {
    let object = &subject.object;
    if let Verdict::Elsewhere(other) = verdict {
        entry.announced = None;
        let first = !std::mem::replace(&mut entry.elsewhere, true);
        let news = first.then(|| news::elsewhere(other.clone()));
        return entry.announce(object, news.into_iter().collect(), now);
    }
    if *verdict == Verdict::Leave && entry.announced.is_none() {
        return 0;
    }
    let statuses = status.annotated();
    let before = entry.announced.take().unwrap_or_else(|| {
        let present = subject.present(entry.written.as_deref()).text.as_deref();
        news::last_report(present, &object.uid, &statuses)
    });
    let held = entry.announce(object, news::news(&before, &statuses), now);
    // The annotation does not show a pending write yet.
    entry.announced = (entry.busy || matches!(verdict, Verdict::Write(_))).then_some(statuses);
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
    fn a_change_that_passes_before_the_first_write_has_its_events() {
        let now = Instant::now();
        let mut entry = Entry::new(now);
        entry.is_of("u");
        assert_eq!(take(&mut entry, &[nic("10.16.0.2")], now), 0);
        take(&mut entry, &[], now);
        assert_eq!(outbox(&entry), [("AddressAssigned", 1), ("PortReleased", 1)]);
        assert_eq!(entry.announced, None, "the annotation shows it already");
    }

    #[test]
    fn a_repeated_waiting_event_is_counted_and_an_event_in_flight_is_unchanged() {
        let now = Instant::now();
        let mut entry = Entry::new(now);
        entry.is_of("u");
        for _ in 0..10 {
            take(&mut entry, &[nic("10.16.0.2")], now);
            take(&mut entry, &[nic("10.16.0.3")], now);
        }
        assert_eq!(outbox(&entry), [("AddressAssigned", 10), ("AddressAssigned", 10)]);
        assert!(entry.outbox.iter().all(|event| !event.continues), "the first Event of each has not been sent");
        (entry.busy, entry.in_flight) = (true, 2);
        take(&mut entry, &[nic("10.16.0.2")], now);
        assert_eq!(outbox(&entry)[2..], [("AddressAssigned", 11)]);
        assert!(entry.outbox[2].continues);
    }

    #[test]
    fn a_vm_that_never_stops_changing_is_held_back_in_bounded_memory() {
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
    fn another_instance_that_serves_the_vm_is_reported_once() {
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
