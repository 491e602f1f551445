//! A Lease (coordination.k8s.io/v1), reduced to the fields that an election reads and writes.
//!
//! Times stay text, as only their changes matter. A parser would lock this service out after a date that the API server
//! accepts and the parser does not (`9999-12-31T23:59:59.000000Z` is one).

use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

/// Longer than any of our processes may request. A greater duration in a Lease is invalid.
pub(crate) const LONGEST_LEASE: Duration = Duration::from_secs(600);

/// A Lease.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Lease {
    /// Its name, and the resourceVersion that a replacement is conditional on.
    pub(crate) metadata: ObjectMeta,
    /// Its holder and its duration.
    #[serde(default)]
    pub(crate) spec: LeaseSpec,
}

/// `Lease.spec`. The numbers are wider than those of Kubernetes, so that values out of range can be decoded and
/// ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LeaseSpec {
    /// Missing or empty: the Lease is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) holder_identity: Option<String>,
    /// The duration after a change for which others leave it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lease_duration_seconds: Option<i64>,
    /// The start of the term, by the holder's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) acquire_time: Option<String>,
    /// The last renewal, by the holder's clock: never compared with another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) renew_time: Option<String>,
    /// Increases with each term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lease_transitions: Option<i64>,
}

impl Lease {
    /// The holder's identity.
    pub(crate) fn holder(&self) -> Option<&str> {
        self.spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    /// The number of the present term.
    pub(crate) fn transitions(&self) -> u64 {
        self.spec.lease_transitions.and_then(|transitions| u64::try_from(transitions).ok()).unwrap_or(0)
    }

    /// The duration after a change for which others leave it alone. `None` if it is missing or out of range.
    pub(crate) fn duration(&self) -> Option<Duration> {
        let seconds = self.spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        seconds.map(Duration::from_secs).filter(|duration| (Duration::from_secs(1)..=LONGEST_LEASE).contains(duration))
    }

    /// The resourceVersion as a number, which it is on every known API server.
    pub(crate) fn version(&self) -> Option<u64> {
        self.metadata.resource_version.as_deref()?.parse().ok()
    }
}

impl k8s_openapi::Resource for Lease {
    const API_VERSION: &'static str = "coordination.k8s.io/v1";
    const GROUP: &'static str = "coordination.k8s.io";
    const KIND: &'static str = "Lease";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "leases";
    type Scope = NamespaceResourceScope;
}

impl k8s_openapi::Metadata for Lease {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
