//! The metrics for operators. Labels are bounded: a category, or a switch up to a number, never another object's name.
//!
//! Counters and histograms are kept as things happen. What stands (ports, addresses, ages) is read at each scrape from
//! the indexes of the replicas, so that it costs the writer nothing. `docs/metrics.md` lists all of them.

mod migrations;
mod names;
mod process;
mod replicas;
mod switches;
mod writer;

use std::sync::{Arc, OnceLock};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use self::process::Process;
use self::replicas::Replicas;
use self::switches::Switches;
use super::kubernetes::{Health, Watches};
use super::reporter::PaceMetrics;
use super::status::Status;
use crate::ovn::{Northbound, Southbound};
use crate::ovsdb::Shared;
use crate::plan::VmStatus;

pub(super) use self::migrations::MigrationMetrics;
pub(crate) use self::names::NamesMetrics;
pub(super) use self::writer::WriterMetrics;

#[cfg(test)]
mod tests;

/// One label with its value.
type Label = [(&'static str, &'static str); 1];
type ByReason = Family<Label, Gauge>;

/// The metrics of this process.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    observed: Arc<OnceLock<Observed>>,
    problems: ByReason,
    /// Ports that the brake holds (`writer/brake.rs`).
    pub(super) held_ports: Gauge,
    health: Arc<Health>,
    pace: PaceMetrics,
    writer: WriterMetrics,
    migrations: MigrationMetrics,
    names: NamesMetrics,
}

/// The state that is read at each scrape.
pub struct Observed {
    /// The northbound replica.
    pub northbound: Arc<Shared<Northbound>>,
    /// The southbound replica, if it is read.
    pub southbound: Option<Arc<Shared<Southbound>>>,
    /// The role and the readiness.
    pub status: Status,
}

impl std::fmt::Debug for Observed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Observed").finish_non_exhaustive()
    }
}

/// Registers the metrics of any process of ours. Returns the part of the registry for metrics with this prefix.
pub(crate) fn of_process<'r>(registry: &'r mut Registry, prefix: &str) -> &'r mut Registry {
    registry.register_collector(Box::new(Process::new()));
    let ours = registry.sub_registry_with_prefix(prefix);
    ours.register("build", "The version of this process", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    ours
}

/// Encodes a registry in the OpenMetrics text format.
pub(crate) fn text(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, registry);
    text
}

impl Default for Metrics {
    fn default() -> Self {
        Self::with(|_| ()).0
    }
}

impl Metrics {
    /// The content type of [`Metrics::text`].
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// Creates the metrics, with those that another part of this process registers.
    pub fn with<T>(others: impl FnOnce(&mut Registry) -> T) -> (Self, T) {
        let (problems, held_ports) = (ByReason::default(), Gauge::default());
        let (health, observed): (Arc<Health>, Arc<OnceLock<Observed>>) = Default::default();
        let mut root = Registry::default();
        let registry = of_process(&mut root, "ovn_kubevirt");
        registry.register(
            "problems",
            "Problems in the statuses of VMs, by the reason of the Event; counted by the process that leads",
            problems.clone(),
        );
        registry.register(
            "held_ports",
            "Ports that are held, because their VMs are gone and releasing so many at once may be a mistake; counted by the process that leads",
            held_ports.clone(),
        );
        registry.register_collector(Box::new(Watches(Arc::clone(&health))));
        registry.register_collector(Box::new(Replicas(Arc::clone(&observed))));
        registry.register_collector(Box::new(Switches(Arc::clone(&observed))));
        let pace = PaceMetrics::registered(registry);
        let (writer, migrations) = (WriterMetrics::registered(registry), MigrationMetrics::registered(registry));
        let names = NamesMetrics::registered(registry);
        let others = others(registry);
        let registry = Arc::new(root);
        (Self { registry, observed, problems, held_ports, health, pace, writer, migrations, names }, others)
    }

    /// Sets the state that is read at each scrape, once.
    pub fn observe(&self, observed: Observed) {
        // A second state would be that of another process.
        let _ = self.observed.set(observed);
    }

    /// The health of the connections to the API server.
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// The counters of the reporter.
    pub fn pace(&self) -> PaceMetrics {
        self.pace.clone()
    }

    /// The problems in the statuses of VMs.
    pub(super) fn problems(&self) -> ProblemsByReason {
        ProblemsByReason(self.problems.clone())
    }

    /// The metrics of the writer.
    pub(super) fn writer(&self) -> WriterMetrics {
        self.writer.clone()
    }

    /// The metrics of live migrations.
    pub(super) fn migrations(&self) -> MigrationMetrics {
        self.migrations.clone()
    }

    /// The metrics of the names of VMs.
    pub(crate) fn names(&self) -> NamesMetrics {
        self.names.clone()
    }

    /// Encodes all metrics in the OpenMetrics text format.
    pub fn text(&self) -> String {
        text(&self.registry)
    }
}

/// The problems in the statuses of VMs, by the reason of the Event.
#[derive(Clone)]
pub(super) struct ProblemsByReason(ByReason);

impl ProblemsByReason {
    /// Counts the problems of a status.
    pub(super) fn add(&self, status: &VmStatus) {
        for problem in status.problems() {
            self.0.get_or_create(&[("reason", problem.reason())]).inc();
        }
    }

    /// Stops counting the problems of a status.
    pub(super) fn remove(&self, status: &VmStatus) {
        for problem in status.problems() {
            self.0.get_or_create(&[("reason", problem.reason())]).dec();
        }
    }

    /// Resets the counts: another process counts.
    pub(super) fn clear(&self) {
        self.0.clear();
    }
}
