//! The metrics for operators. Labels are bounded: a reason, never an object's name.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::controller::{Health, Watches, of_process, text};

/// The kinds of changes of interfaces.
const CHANGES: [&str; 2] = ["set", "removed"];

type Label = [(&'static str, &'static str); 1];

/// The metrics of this process.
#[derive(Clone)]
pub struct NodeMetrics {
    registry: Arc<Registry>,
    changes: Family<Label, Counter>,
    problems: Family<Label, Gauge>,
    health: Arc<Health>,
}

impl Default for NodeMetrics {
    fn default() -> Self {
        let mut root = Registry::default();
        let registry = of_process(&mut root, "ovn_kubevirt_node");
        let changes: Family<Label, Counter> = Family::default();
        for kind in CHANGES {
            drop(changes.get_or_create(&[("change", kind)]));
        }
        registry.register("changes", "Interfaces whose iface-id was set or removed", changes.clone());
        let problems = Family::default();
        let help = "What pods are being told stands between their NICs and their ports, by the reason of the Event";
        registry.register("problems", help, problems.clone());
        let health: Arc<Health> = Arc::default();
        registry.register_collector(Box::new(Watches(Arc::clone(&health))));
        Self { registry: Arc::new(root), changes, problems, health }
    }
}

impl NodeMetrics {
    /// The health of the connections to the API server, which the metrics tell.
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// All of them in the OpenMetrics text format.
    pub fn text(&self) -> String {
        text(&self.registry)
    }

    /// An interface was changed.
    pub(super) fn changed(&self, kind: &'static str) {
        self.changes.get_or_create(&[("change", kind)]).inc();
    }

    /// These are the problems now, by their reasons.
    pub(super) fn problems(&self, reasons: impl Iterator<Item = &'static str>) {
        let mut counts: BTreeMap<&'static str, i64> = BTreeMap::new();
        reasons.for_each(|reason| *counts.entry(reason).or_default() += 1);
        self.problems.clear();
        for (reason, count) in counts {
            self.problems.get_or_create(&[("reason", reason)]).set(count);
        }
    }
}

#[cfg(test)]
impl NodeMetrics {
    /// Metrics of a process with a sample of each.
    pub(crate) fn complete() -> Self {
        let metrics = Self::default();
        metrics.health.received(crate::kubevirt::Kind::Launcher);
        metrics.problems(std::iter::once("InterfaceMissing"));
        metrics
    }
}
