//! The metrics of live migrations.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use super::Label;
use crate::controller::migrations::under_way::{End, Phase, UnderWay};

/// From a commit on an idle database to the copying of a large guest.
const SECONDS: [f64; 14] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0];

#[derive(Debug, Clone)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS)
    }
}

/// The metrics of live migrations.
#[derive(Debug, Clone)]
pub(in crate::controller) struct MigrationMetrics {
    durations: Family<Label, Histogram, Buckets>,
    ended: Family<Label, Counter>,
    /// The migrations under way.
    pub(in crate::controller) under_way: UnderWay,
}

impl MigrationMetrics {
    /// Creates the metrics in the registry.
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let metrics = Self {
            durations: Family::new_with_constructor(Buckets),
            ended: Family::default(),
            under_way: UnderWay::default(),
        };
        for phase in Phase::ALL {
            drop(metrics.durations.get_or_create(&[("phase", phase.label())]));
        }
        for end in End::ALL {
            drop(metrics.ended.get_or_create(&[("outcome", end.label())]));
        }
        registry.register_with_unit(
            "migration_phase_duration",
            "Time that live migrations spent in a phase: scheduled, until the port is open on both chassis; open, until the guest is ready on the target; ready, until the port is on the target alone; returning, until it is on the source alone",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register(
            "migrations_ended",
            "Live migrations that ended, by outcome: the guest arrived on the target, returned to the source, or vanished",
            metrics.ended.clone(),
        );
        registry.register_collector(Box::new(metrics.under_way.clone()));
        metrics
    }

    /// Records the end of a phase; `None` if its beginning or its end is not known.
    pub(in crate::controller) fn passed(&self, phase: Phase, times: Option<(Instant, Instant)>) {
        if let Some((since, until)) = times {
            let seconds = until.saturating_duration_since(since).as_secs_f64();
            self.durations.get_or_create(&[("phase", phase.label())]).observe(seconds);
        }
    }

    /// Records the end of a migration.
    pub(in crate::controller) fn ended(&self, end: End) {
        self.ended.get_or_create(&[("outcome", end.label())]).inc();
    }
}

impl Collector for UnderWay {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let by_phase = self.by_phase(Instant::now());
        let all = || Phase::ALL.into_iter().zip(by_phase);
        let help = "Live migrations of VMs with ports, by phase; counted by the process that leads.";
        let mut metric = encoder.encode_descriptor("migrations", help, None, MetricType::Gauge)?;
        for (phase, (count, _)) in all() {
            ConstGauge::new(count as u64).encode(metric.encode_family(&[("phase", phase.label())])?)?;
        }
        let help = "Time for which the first of the migrations in a phase has been there; 0 if there is none.";
        let seconds = Some(&Unit::Seconds);
        let mut metric = encoder.encode_descriptor("migration_phase_age", help, seconds, MetricType::Gauge)?;
        for (phase, (_, oldest)) in all() {
            let gauge = ConstGauge::new(oldest.as_secs_f64());
            gauge.encode(metric.encode_family(&[("phase", phase.label())])?)?;
        }
        Ok(())
    }
}
