//! The metrics of the process's role and of its replicas.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::Observed;
use crate::ovsdb::Shared;

/// Encodes the role and the state of the replicas at each scrape.
#[derive(Debug)]
pub(super) struct Replicas(pub(super) Arc<OnceLock<Observed>>);

/// A database, the time since its server last sent data, and the number of connections so far.
type Replica = (&'static str, Option<Duration>, u64);

fn replica<R>(database: &'static str, shared: &Shared<R>) -> Replica {
    (database, shared.silence(), shared.connections())
}

impl Collector for Replicas {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(Observed { northbound, southbound, status }) = self.0.get() else { return Ok(()) };
        let mut gauge = |name: &str, help: &str, value: bool| {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(u64::from(value)).encode(metric)
        };
        gauge("leader", "1 in the process that writes the northbound database, 0 in others.", status.leads())?;
        gauge("ready", "1 while /readyz says that this process is ready.", status.ready().is_ok())?;
        let southbound = southbound.as_ref().map(|shared| replica("southbound", shared));
        let replicas: Vec<Replica> = std::iter::once(replica("northbound", northbound)).chain(southbound).collect();
        let help = "Time since the server of a database last sent data, probes included.";
        let mut metric = encoder.encode_descriptor("replica_age", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for (database, silence, _) in &replicas {
            if let Some(silence) = silence {
                let gauge = ConstGauge::new(silence.as_secs_f64());
                gauge.encode(metric.encode_family(&[("database", *database)])?)?;
            }
        }
        let help = "Connections to a database after the first: the earlier ones were lost, or their server lost its leadership.";
        let mut metric = encoder.encode_descriptor("reconnects", help, None, MetricType::Counter)?;
        for (database, _, connections) in &replicas {
            let counter = ConstCounter::new(connections.saturating_sub(1));
            counter.encode(metric.encode_family(&[("database", *database)])?)?;
        }
        Ok(())
    }
}
