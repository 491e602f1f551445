//! The metrics of the webhooks. Labels are bounded: a hook and an outcome.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::pki::UnixTime;
use super::request::Hook;

/// From a quarter of a millisecond, for a pod of another application, to the limit of a request.
const BUCKETS: [f64; 12] = [0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Allowed,
    Refused,
    /// The body was too long, too late, or unreadable.
    Unreadable,
    /// The review exceeded its limit.
    TimedOut,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Allowed, Self::Refused, Self::Unreadable, Self::TimedOut];

    fn label(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
            Self::TimedOut => "timed_out",
        }
    }
}

#[derive(Debug, Clone)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BUCKETS)
    }
}

/// The metrics of the webhooks.
#[derive(Debug, Clone)]
pub struct WebhookMetrics {
    durations: Family<[(&'static str, &'static str); 2], Histogram, Buckets>,
    refusals: Family<[(&'static str, &'static str); 1], Counter>,
    certificate_expiry: Gauge,
}

impl WebhookMetrics {
    /// Creates the metrics in the registry.
    pub fn registered(registry: &mut Registry) -> Self {
        let metrics = Self {
            durations: Family::new_with_constructor(Buckets),
            refusals: Family::default(),
            certificate_expiry: Gauge::default(),
        };
        // A series that begins at 0 has a rate from its first request on.
        for hook in Hook::ALL {
            drop(metrics.refusals.get_or_create(&[("hook", hook.label())]));
            for outcome in Outcome::ALL {
                drop(metrics.durations.get_or_create(&[("hook", hook.label()), ("outcome", outcome.label())]));
            }
        }
        registry.register_with_unit(
            "webhook_duration",
            "Time from the head of a webhook's request to its answer, by the hook and the outcome",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register("webhook_refusals", "Objects that a webhook refused, by the hook", metrics.refusals.clone());
        registry.register_with_unit(
            "webhook_certificate_expiry",
            "The expiry of the webhooks' certificate, in time since 1970; 0 without a certificate",
            Unit::Seconds,
            metrics.certificate_expiry.clone(),
        );
        metrics
    }

    /// Records the expiry of the shown certificate.
    pub(super) fn certificate_expires(&self, at: Option<UnixTime>) {
        self.certificate_expiry.set(at.unwrap_or_default());
    }

    pub(super) fn ended(&self, hook: Hook, outcome: Outcome, after: Duration) {
        let labels = [("hook", hook.label()), ("outcome", outcome.label())];
        self.durations.get_or_create(&labels).observe(after.as_secs_f64());
        if outcome == Outcome::Refused {
            self.refusals.get_or_create(&[("hook", hook.label())]).inc();
        }
    }
}
