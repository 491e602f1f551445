//! A Lease (coordination.k8s.io/v1), as far as an election reads and writes it.
//!
//! Times stay text: only whether they change counts. A type that parsed them would be locked out by a
//! date that the API server takes and the type does not (`9999-12-31T23:59:59.000000Z` is one).

use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

/// Longer than any holder of ours may ask for; more than that in a Lease is garbage.
pub(crate) const LONGEST_LEASE: Duration = Duration::from_secs(600);

/// A Lease.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Lease {
    /// Its name, and the resourceVersion that a replacement is conditional on.
    pub(crate) metadata: ObjectMeta,
    /// Who holds it, and for how long.
    #[serde(default)]
    pub(crate) spec: LeaseSpec,
}

/// `Lease.spec`. Numbers are wider than Kubernetes has them: what is out of range is judged, not refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LeaseSpec {
    /// Missing or empty: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) holder_identity: Option<String>,
    /// How long after a change others leave it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lease_duration_seconds: Option<i64>,
    /// When the term began, by the holder's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) acquire_time: Option<String>,
    /// When it was renewed last, by the holder's clock: never compared with another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) renew_time: Option<String>,
    /// Greater with each term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lease_transitions: Option<i64>,
}

impl Lease {
    /// Who holds it.
    pub(crate) fn holder(&self) -> Option<&str> {
        self.spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    /// Which term it is in.
    pub(crate) fn transitions(&self) -> u64 {
        self.spec.lease_transitions.and_then(|transitions| u64::try_from(transitions).ok()).unwrap_or(0)
    }

    /// For how long after a change it is left alone; `None` when it says nothing that can be meant.
    pub(crate) fn duration(&self) -> Option<Duration> {
        let seconds = self.spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        seconds.map(Duration::from_secs).filter(|duration| (Duration::from_secs(1)..=LONGEST_LEASE).contains(duration))
    }

    /// The resourceVersion as the number that it is on every API server there is.
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
