//! The rate of Events for a VM: repeated Events become a series, and a token bucket limits the rest.
//!
//! As client-go's correlator does it: 25 Events at once, then one in five minutes. The annotation always shows the
//! present status, so only history is held back here.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::news::News;

/// client-go's `defaultSpamBurst`.
const BURST: f32 = 25.0;
/// client-go's `defaultSpamQPS` is one in this time.
const REFILL: Duration = Duration::from_secs(300);
/// An Event that repeats within this time belongs to the same series; client-go has six minutes.
const SERIES: Duration = Duration::from_secs(360);
/// The most different Events remembered for a VM. Beyond it the oldest is forgotten.
const MOST_SERIES: usize = 32;

/// The decision about an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// It is sent, with this number in its name.
    First(u64),
    /// It repeats the Event with this number in its name, for the given count.
    Repeated(u64, u32),
    /// It is held back: there were too many.
    Held,
}

/// The recent Events of one VM.
#[derive(Debug)]
pub(super) struct Pace {
    tokens: f32,
    at: Instant,
    series: Vec<Series>,
}

#[derive(Debug)]
struct Series {
    news: u64,
    name: u64,
    count: u32,
    last: Instant,
}

impl Pace {
    /// Nothing has been sent.
    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: BURST, at: now, series: Vec::new() }
    }

    /// Decides about an Event about the object with this UID.
    pub(super) fn pass(&mut self, uid: &str, news: &News, now: Instant) -> Passage {
        self.series.retain(|series| now.saturating_duration_since(series.last) < SERIES);
        let key = hash(&(uid, news));
        let known = self.series.iter().position(|series| series.news == key);
        if let Some(series) = known.and_then(|index| self.series.get_mut(index)) {
            series.last = now;
            series.count = series.count.saturating_add(1);
        }
        if !self.take_token(now) {
            // A series counts it in its next Event. Of another Event only the metric remains.
            return Passage::Held;
        }
        if let Some(series) = known.and_then(|index| self.series.get(index)) {
            return Passage::Repeated(series.name, series.count);
        }
        let name = hash(&(key, k8s_openapi::jiff::Timestamp::now().as_nanosecond()));
        if self.series.len() >= MOST_SERIES {
            self.series.remove(0);
        }
        self.series.push(Series { news: key, name, count: 1, last: now });
        Passage::First(name)
    }

    /// Counts one more of an Event that has not been sent yet. Returns the count.
    pub(super) fn repeat(&mut self, uid: &str, news: &News, now: Instant) -> u32 {
        let key = hash(&(uid, news));
        let Some(series) = self.series.iter_mut().find(|series| series.news == key) else { return 1 };
        series.last = now;
        series.count = series.count.saturating_add(1);
        series.count
    }

    fn take_token(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at);
        self.tokens = (self.tokens + since.as_secs_f32() / REFILL.as_secs_f32()).min(BURST);
        self.at = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }

    /// Returns true if the pace is as it was before any Event.
    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f32();
        self.tokens + since / REFILL.as_secs_f32() >= BURST
            && self.series.iter().all(|series| now.saturating_duration_since(series.last) >= SERIES)
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The counters of reports.
#[derive(Debug, Clone, Default)]
pub struct PaceMetrics {
    pub(super) sent: Counter,
    pub(super) dropped: Counter,
    pub(super) failures: Family<[(&'static str, &'static str); 1], Counter>,
}

impl PaceMetrics {
    /// Creates the counters in the registry.
    pub(in crate::controller) fn registered(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for reason in ["refused", "unreachable"] {
            drop(metrics.failures.get_or_create(&[("reason", reason)]));
        }
        registry.register(
            "events_sent",
            "Events that were sent to VM owners; one that repeats counts each time",
            metrics.sent.clone(),
        );
        registry.register(
            "events_dropped",
            "Events that were not sent to VM owners, because a VM had too many of them or the API server refused them for good",
            metrics.dropped.clone(),
        );
        registry.register(
            "report_failures",
            "Failed requests for Events and annotations of VM owners, by the cause: refused, or unreachable",
            metrics.failures.clone(),
        );
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(note: &str) -> News {
        News { warning: true, reason: "AddressConflict".into(), note: note.into() }
    }

    #[test]
    fn a_repeated_event_is_a_series_and_a_new_one_is_an_event() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut pace = Pace::new(begin);
        let Passage::First(name) = pace.pass("u", &news("a"), begin) else { panic!("the first is sent") };
        assert_eq!(pace.pass("u", &news("a"), at(5)), Passage::Repeated(name, 2));
        assert!(matches!(pace.pass("u", &news("b"), at(6)), Passage::First(other) if other != name));
        assert!(matches!(pace.pass("another", &news("a"), at(7)), Passage::First(other) if other != name));
        assert_eq!(pace.pass("u", &news("a"), at(8)), Passage::Repeated(name, 3));
        // Much later it is a new Event again, with a new name.
        assert!(matches!(pace.pass("u", &news("a"), at(8 + 360)), Passage::First(other) if other != name));
    }

    #[test]
    fn a_vm_has_twenty_five_events_and_then_one_in_five_minutes() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        let sent = |pace: &mut Pace, at: Instant, from: usize| {
            let passed = (from..from + 100).map(|index| pace.pass("u", &news(&index.to_string()), at));
            passed.filter(|passage| *passage != Passage::Held).count()
        };
        assert_eq!(sent(&mut pace, begin, 0), 25);
        assert_eq!(sent(&mut pace, begin + Duration::from_secs(299), 100), 0);
        assert_eq!(sent(&mut pace, begin + Duration::from_secs(301), 200), 1);
        assert!(pace.series.len() <= MOST_SERIES);
        assert!(!pace.is_forgotten(begin + Duration::from_secs(302)));
        assert!(pace.is_forgotten(begin + Duration::from_secs(301 + 25 * 300)));
    }

    #[test]
    fn held_events_of_a_series_are_in_its_next_count() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        for _ in 0..200 {
            pace.pass("u", &news("a"), begin);
        }
        let later = pace.pass("u", &news("a"), begin + Duration::from_secs(301));
        assert!(matches!(later, Passage::Repeated(_, 201)), "{later:?}");
    }
}
