//! The metrics for operators. Labels are bounded: a reason, never an object's name.

use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::kubernetes::{Health, WatchAges};
use super::reporter::PaceMetrics;
use crate::admission::WebhookMetrics;
use crate::plan::VmStatus;

type ByReason = Family<[(&'static str, &'static str); 1], Gauge>;

/// The metrics of this process.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    problems: ByReason,
    /// Ports that the brake holds (`writer/brake.rs`).
    pub(super) held_ports: Gauge,
    health: Arc<Health>,
    pace: PaceMetrics,
    webhooks: WebhookMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ovn_kubevirt");
        let problems = ByReason::default();
        registry.register(
            "problems",
            "Problems in the statuses of VMs, by the reason of the Event; counted by the process that leads",
            problems.clone(),
        );
        let held_ports = Gauge::default();
        registry.register(
            "held_ports",
            "Ports that are held, because their VMs are gone and releasing so many at once may be a mistake; counted by the process that leads",
            held_ports.clone(),
        );
        let health: Arc<Health> = Arc::default();
        registry.register_collector(Box::new(WatchAges(Arc::clone(&health))));
        let pace = PaceMetrics::registered(&mut registry);
        let webhooks = WebhookMetrics::registered(&mut registry);
        Self { registry: Arc::new(registry), problems, held_ports, health, pace, webhooks }
    }
}

impl Metrics {
    /// The content type of [`Metrics::text`].
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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

    /// The metrics of the webhooks.
    pub fn webhooks(&self) -> WebhookMetrics {
        self.webhooks.clone()
    }

    /// Encodes all metrics in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
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
