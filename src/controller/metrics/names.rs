//! The metrics of the names of VMs.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use super::Label;
use crate::ovsdb::Outcome;
use crate::plan::LeftOut;

/// The metrics of the names of VMs.
#[derive(Debug, Clone)]
pub(crate) struct NamesMetrics {
    writes: Family<Label, Counter>,
    records: Gauge,
    left_out: Family<Label, Gauge>,
    waiting: Arc<Mutex<Option<Instant>>>,
}

impl NamesMetrics {
    /// Creates the metrics in the registry.
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let metrics = Self {
            writes: Family::default(),
            records: Gauge::default(),
            left_out: Family::default(),
            waiting: Arc::default(),
        };
        for outcome in ["committed", "failed"] {
            drop(metrics.writes.get_or_create(&[("outcome", outcome)]));
        }
        registry.register(
            "name_writes",
            "Transactions with names of VMs that this process sent, by outcome: committed, or failed",
            metrics.writes.clone(),
        );
        registry.register(
            "name_records",
            "Records of names of VMs, forward and reverse, on all switches; counted by the process that leads",
            metrics.records.clone(),
        );
        registry.register(
            "names_left_out",
            "Names of VMs that are not written, by reason: no_name is beyond the limits of DNS, other_vm is the name of another VM, taken is in a row of another owner; counted by the process that leads",
            metrics.left_out.clone(),
        );
        registry.register_collector(Box::new(Lag(Arc::clone(&metrics.waiting))));
        metrics.clear();
        metrics
    }

    /// Records the outcome of a write.
    pub(in crate::controller) fn written(&self, outcome: &Outcome) {
        let label = if matches!(outcome, Outcome::Committed { .. }) { "committed" } else { "failed" };
        self.writes.get_or_create(&[("outcome", label)]).inc();
    }

    /// Records the records, and the reasons of the names that are left out.
    pub(in crate::controller) fn count(&self, records: usize, left_out: impl Iterator<Item = &'static str>) {
        self.records.set(i64::try_from(records).unwrap_or(i64::MAX));
        let mut counts = LeftOut::REASONS.map(|reason| (reason, 0));
        for reason in left_out {
            counts.iter_mut().filter(|(counted, _)| *counted == reason).for_each(|(_, count)| *count += 1);
        }
        for (reason, count) in counts {
            self.left_out.get_or_create(&[("reason", reason)]).set(count);
        }
    }

    /// Records since when a change has waited for its write.
    pub(in crate::controller) fn pending(&self, since: Option<Instant>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Another process leads.
    pub(in crate::controller) fn clear(&self) {
        self.count(0, std::iter::empty());
        self.pending(None);
    }
}

/// Encodes the lag at each scrape, so that it grows while nothing is written.
#[derive(Debug)]
struct Lag(Arc<Mutex<Option<Instant>>>);

impl Collector for Lag {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let help = "Time for which the first change that names depend on has waited for its write; 0 if none waits.";
        let metric = encoder.encode_descriptor("names_lag", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(since.map_or(0.0, |since| since.elapsed().as_secs_f64())).encode(metric)
    }
}
