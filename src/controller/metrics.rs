//! What is counted for operators. Labels are bounded: a reason, never an object's name.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::kubernetes::{Health, WatchAges};
use super::reporter::PaceMetrics;
use crate::contract::VmKey;
use crate::plan::PortReport;

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
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ovn_kubevirt");
        let problems = ByReason::default();
        registry.register(
            "problems",
            "What VM owners are being told stands in their way, by the reason of the Event; counted by the process that leads",
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
        Self { registry: Arc::new(registry), problems, held_ports, health, pace }
    }
}

impl Metrics {
    /// The content type of [`Metrics::text`].
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// The health of the connections to the API server, which the metrics tell.
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// What the reporter counts.
    pub fn pace(&self) -> PaceMetrics {
        self.pace.clone()
    }

    /// All of them in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// The problems of all VMs, each as it was at the last look.
pub(super) struct Tally {
    problems: ByReason,
    of: HashMap<VmKey, Vec<&'static str>>,
}

impl Tally {
    /// No VM has been looked at.
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self { problems: metrics.problems.clone(), of: HashMap::new() }
    }

    /// A VM's owner is told this from now on.
    pub(super) fn set(&mut self, vm: &VmKey, reports: &[PortReport]) {
        let reasons: Vec<&'static str> =
            reports.iter().flat_map(|report| &report.problems).map(|problem| problem.reason()).collect();
        if reasons.is_empty() && self.of.is_empty() {
            return;
        }
        let before = if reasons.is_empty() { self.of.remove(vm) } else { self.of.insert(vm.clone(), reasons.clone()) };
        for reason in before.unwrap_or_default() {
            self.problems.get_or_create(&[("reason", reason)]).dec();
        }
        for reason in reasons {
            self.problems.get_or_create(&[("reason", reason)]).inc();
        }
    }

    /// Somebody else counts.
    pub(super) fn clear(&mut self) {
        self.of.clear();
        self.problems.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Problem;

    #[test]
    fn each_problem_counts_until_it_is_over() {
        let metrics = Metrics::default();
        let mut tally = Tally::new(&metrics);
        let [a, b] = ["a", "b"].map(|name| VmKey::new("n", name));
        let missing = || PortReport::of_vm(Problem::SwitchNotFound("blue".into()));
        tally.set(&a, &[missing(), missing()]);
        tally.set(&b, &[missing()]);
        let line = |count: i64| format!("ovn_kubevirt_problems{{reason=\"SwitchNotFound\"}} {count}\n");
        assert!(metrics.text().contains(&line(3)), "{}", metrics.text());
        tally.set(&a, &[missing()]);
        tally.set(&b, &[]);
        assert!(metrics.text().contains(&line(1)), "{}", metrics.text());
        tally.clear();
        assert!(!metrics.text().contains("reason="), "{}", metrics.text());
    }
}
