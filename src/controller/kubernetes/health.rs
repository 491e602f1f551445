//! The health of the API server and of each watch.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::kubevirt::Kind;

/// The delay after which a failing watch or a silent API server is reported: a restarted server is usually back before.
const GRACE: Duration = Duration::from_secs(3);
/// A working watch receives data at least this often: each ends, and is opened again, before it.
const LONGEST_SILENCE: Duration = Duration::from_secs(40);

/// The health of the connections to the API server.
#[derive(Debug, Default)]
pub struct Health {
    watches: [Mutex<WatchHealth>; Kind::ALL.len()],
    server: Mutex<Option<Trouble>>,
}

#[derive(Debug, Default)]
struct WatchHealth {
    received: Option<Instant>,
    trouble: Option<Trouble>,
    not_before: Option<Instant>,
    /// The number of failures so far.
    failures: u64,
}

#[derive(Debug, Clone)]
struct Trouble {
    since: Instant,
    reason: Arc<str>,
}

impl Health {
    /// Records a byte of a list or a watch, or the beginning of its answer.
    pub fn received(&self, kind: Kind) {
        let mut watch = self.watch(kind);
        watch.received = Some(Instant::now());
        watch.trouble = None;
    }

    /// Records the failure of a list or a watch. It counts as failing since the first failure after the last data.
    pub fn failed(&self, kind: Kind, reason: &str) {
        let mut watch = self.watch(kind);
        watch.failures += 1;
        note(&mut watch.trouble, Instant::now(), reason);
    }

    /// Postpones requests of this kind, as the server asks (`Retry-After`, RFC 9110, section 10.2.3).
    pub fn postpone(&self, kind: Kind, until: Instant) {
        self.watch(kind).not_before = Some(until);
    }

    /// The remaining time for which requests of this kind are postponed.
    pub fn postponed(&self, kind: Kind) -> Duration {
        let not_before = self.watch(kind).not_before;
        not_before.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Records the outcome of a probe.
    pub fn probed(&self, answer: Result<(), &str>) {
        let mut server = lock(&self.server);
        match answer {
            Ok(()) => *server = None,
            Err(reason) => note(&mut server, Instant::now(), reason),
        }
    }

    /// The time since the kind's watch last received data; `None` before the first.
    pub fn age(&self, kind: Kind) -> Option<Duration> {
        self.watch(kind).received.map(|received| received.elapsed())
    }

    /// The number of failures of the kind's lists and watches so far.
    pub fn failures(&self, kind: Kind) -> u64 {
        self.watch(kind).failures
    }

    /// Describes a fault that has lasted for longer than a restart of the server takes.
    pub fn trouble(&self) -> Option<String> {
        self.trouble_at(Instant::now())
    }

    fn trouble_at(&self, now: Instant) -> Option<String> {
        let lasting = |trouble: &Option<Trouble>| {
            let trouble = trouble.as_ref().filter(|trouble| now.saturating_duration_since(trouble.since) >= GRACE)?;
            Some(Arc::clone(&trouble.reason))
        };
        if let Some(reason) = lasting(&lock(&self.server)) {
            return Some(format!("the Kubernetes API server does not answer: {reason}"));
        }
        Kind::ALL.into_iter().find_map(|kind| {
            let watch = self.watch(kind);
            if let Some(reason) = lasting(&watch.trouble) {
                return Some(format!("the watch of {} fails: {reason}", name(kind)));
            }
            let silence = now.saturating_duration_since(watch.received?);
            (silence > LONGEST_SILENCE)
                .then(|| format!("the watch of {} has received nothing for {} s", name(kind), silence.as_secs()))
        })
    }

    fn watch(&self, kind: Kind) -> MutexGuard<'_, WatchHealth> {
        lock(&self.watches[kind as usize])
    }
}

/// The kind as the API server names it.
pub(crate) fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Vm => "virtualmachines",
        Kind::Run => "virtualmachineinstances",
        Kind::Launcher => "pods",
        Kind::Migration => "virtualmachineinstancemigrations",
        Kind::Node => "nodes",
        Kind::Namespace => "namespaces",
        Kind::Nad => "network-attachment-definitions",
    }
}

fn note(trouble: &mut Option<Trouble>, now: Instant, reason: &str) {
    let since = trouble.as_ref().map_or(now, |trouble| trouble.since);
    *trouble = Some(Trouble { since, reason: reason.into() });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state of all watches, encoded at each scrape.
#[derive(Debug)]
pub(crate) struct Watches(pub(crate) Arc<Health>);

impl Collector for Watches {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Time since a watch last received data from the API server, by the kind of object.";
        let mut metric = encoder.encode_descriptor("watch_age", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for kind in Kind::ALL {
            if let Some(age) = self.0.age(kind) {
                let gauge = ConstGauge::new(age.as_secs_f64());
                gauge.encode(metric.encode_family(&[("kind", name(kind))])?)?;
            }
        }
        let help = "Lists and watches that failed, by the kind of object.";
        let mut metric = encoder.encode_descriptor("watch_failures", help, None, MetricType::Counter)?;
        for kind in Kind::ALL {
            let failures = self.0.failures(kind);
            // A service on a node watches pods alone.
            if failures == 0 && self.0.age(kind).is_none() {
                continue;
            }
            let counter = ConstCounter::new(failures);
            counter.encode(metric.encode_family(&[("kind", name(kind))])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_watch_is_reported_after_the_grace_until_it_receives_again() {
        let health = Health::default();
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        health.received(Kind::Vm);
        health.failed(Kind::Vm, "404 page not found");
        health.failed(Kind::Vm, "connection refused");
        assert_eq!(health.trouble_at(later(2)), None);
        let reported = Some("the watch of virtualmachines fails: connection refused".to_owned());
        assert_eq!(health.trouble_at(later(4)), reported);
        health.received(Kind::Vm);
        assert_eq!(health.trouble_at(later(4)), None);
    }

    #[test]
    fn a_server_without_answers_and_a_silent_watch_are_reported() {
        let health = Health::default();
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        health.received(Kind::Node);
        assert_eq!(health.trouble_at(later(39)), None);
        let reported = health.trouble_at(later(60)).unwrap_or_default();
        assert!(reported.starts_with("the watch of nodes has received nothing for 6"), "{reported}");
        health.probed(Err("no answer within 2s"));
        let reported = "the Kubernetes API server does not answer: no answer within 2s";
        assert_eq!(health.trouble_at(later(5)).as_deref(), Some(reported));
        health.probed(Ok(()));
        assert_eq!(health.trouble_at(later(5)), None);
    }
}
