//! The metrics of the writer: its queue, its transactions, and the latency of its commits.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use super::Label;
use crate::ovsdb;

/// From an idle database on the same machine to one that hangs.
const SECONDS: [f64; 16] =
    [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
/// Up to the most rows of a transaction, and more for a VM with many NICs.
const ROWS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];

/// The metrics of the writer.
#[derive(Debug, Clone)]
pub(in crate::controller) struct WriterMetrics {
    transactions: Family<Label, Counter>,
    /// The rows of each committed transaction.
    pub(in crate::controller) rows: Histogram,
    duration: Histogram,
    /// The time from the arrival of a watch event to the acknowledged commit that it led to.
    pub(in crate::controller) event_to_commit: Histogram,
    queue: Arc<Mutex<Queue>>,
}

/// The VMs that wait for a decision, or for the answer to their transaction.
#[derive(Debug, Default)]
struct Queue {
    vms: usize,
    oldest: Option<Instant>,
}

impl WriterMetrics {
    /// Creates the metrics in the registry.
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let metrics = Self {
            transactions: Family::default(),
            rows: Histogram::new(ROWS),
            duration: Histogram::new(SECONDS),
            event_to_commit: Histogram::new(SECONDS),
            queue: Arc::default(),
        };
        for outcome in OUTCOMES {
            drop(metrics.transactions.get_or_create(&[("outcome", outcome)]));
        }
        registry.register(
            "transactions",
            "Transactions that this process sent, by outcome: committed, rejected by the database, fenced by a newer leader, raced by another instance, unknown as the connection broke, or not sent",
            metrics.transactions.clone(),
        );
        registry.register("transaction_rows", "Rows that a committed transaction changed", metrics.rows.clone());
        registry.register_with_unit(
            "transaction_duration",
            "Time from the sending of a transaction to its answer",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register_with_unit(
            "event_to_commit",
            "Time from the arrival of the watch event that made a VM wait to the acknowledged commit of its rows",
            Unit::Seconds,
            metrics.event_to_commit.clone(),
        );
        registry.register_collector(Box::new(QueueCollector(Arc::clone(&metrics.queue))));
        metrics
    }

    /// Records the outcome of a transaction, so long after it was sent. A repeated one was committed, and then refused by
    /// the server that repeated it.
    pub(in crate::controller) fn ended(&self, outcome: &ovsdb::Outcome, is_repeated: bool, after: Duration) {
        let label = match outcome {
            ovsdb::Outcome::Committed { .. } => "committed",
            ovsdb::Outcome::Rejected(_) if is_repeated => "committed",
            ovsdb::Outcome::Rejected(_) => "rejected",
            ovsdb::Outcome::Fenced => "fenced",
            ovsdb::Outcome::Raced => "raced",
            ovsdb::Outcome::Unknown(_) => "unknown",
            ovsdb::Outcome::NotSent => "not_sent",
        };
        self.transactions.get_or_create(&[("outcome", label)]).inc();
        if !matches!(outcome, ovsdb::Outcome::Unknown(_) | ovsdb::Outcome::NotSent) {
            self.duration.observe(after.as_secs_f64());
        }
    }

    /// Records the VMs that wait, and since when the first of them does.
    pub(in crate::controller) fn queue(&self, vms: usize, oldest: Option<Instant>) {
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = Queue { vms, oldest };
    }
}

const OUTCOMES: [&str; 6] = ["committed", "rejected", "fenced", "raced", "unknown", "not_sent"];

/// Encodes the queue at each scrape, so that its age grows while the writer stands still.
#[derive(Debug)]
struct QueueCollector(Arc<Mutex<Queue>>);

impl Collector for QueueCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (vms, oldest) = {
            let queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            (queue.vms, queue.oldest)
        };
        let help = "VMs that wait for a decision, or for the answer to their transaction.";
        let metric = encoder.encode_descriptor("queue_vms", help, None, MetricType::Gauge)?;
        ConstGauge::new(vms as u64).encode(metric)?;
        let help = "Time for which the first of the waiting VMs has waited; 0 if no VM waits.";
        let metric = encoder.encode_descriptor("queue_age", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(oldest.map_or(0.0, |since| since.elapsed().as_secs_f64())).encode(metric)
    }
}
