//! The cluster that this process serves, and the check that an instance in a northbound database belongs to it.
//!
//! ```text
//!   GET namespaces/kube-system --UID--> ClusterIdentity --watch--> link: office allowed?
//!                                                                    |
//!   NB_Global:external_ids ovn-kubevirt.io/cluster.<instance> -------+--> Ownership::check
//! ```
//!
//! An empty cluster looks exactly like one in which all VMs have been deleted. A process with the kubeconfig of another
//! cluster would therefore release every port of the instance. The UID of the namespace `kube-system` is the usual
//! identity of a cluster: the API server creates the namespace once and protects it from deletion.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use tokio::sync::watch;

use super::kubernetes::chain;
use crate::contract::cluster_key;

/// The namespace with the UID that identifies a cluster.
const NAMESPACE: &str = "kube-system";
/// The limit for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The cluster that this process serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterIdentity {
    /// The UID of the namespace `kube-system` has not been read yet. The text is the error of the last try.
    Unknown(Option<Arc<str>>),
    /// The UID of the namespace `kube-system`.
    Known(Arc<str>),
}

impl fmt::Display for ClusterIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(None) => write!(formatter, "the UID of the namespace {NAMESPACE} has not been read yet"),
            Self::Unknown(Some(error)) => {
                write!(formatter, "the UID of the namespace {NAMESPACE} cannot be read: {error}")
            }
            Self::Known(uid) => formatter.write_str(uid),
        }
    }
}

/// Reads the identity of the cluster, publishes it, and returns. Tries again until the API server answers.
pub async fn identify_cluster(client: Client, identity: watch::Sender<ClusterIdentity>) {
    let namespaces: Api<Namespace> = Api::all(client);
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build();
    let mut last_error = String::new();
    loop {
        let error = match tokio::time::timeout(PATIENCE, namespaces.get_metadata(NAMESPACE)).await {
            Ok(Ok(namespace)) => match namespace.metadata.uid {
                Some(uid) => {
                    tracing::info!(
                        cluster = uid,
                        "this process serves the cluster whose namespace {NAMESPACE} has this UID"
                    );
                    identity.send_replace(ClusterIdentity::Known(uid.into()));
                    return;
                }
                None => "the API server names no UID".to_owned(),
            },
            Ok(Err(error)) => describe(&error),
            Err(_) => format!("the API server did not answer within {PATIENCE:?}"),
        };
        if error != last_error {
            tracing::warn!(
                error,
                "the UID of the namespace {NAMESPACE} cannot be read, and this process does not write before it knows its cluster. Check that its ClusterRole allows `get` on that namespace (deploy/kubernetes/rbac); trying again"
            );
            identity.send_replace(ClusterIdentity::Unknown(Some(error.as_str().into())));
            last_error = error;
        }
        tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
    }
}

/// The API server's own message, or the chain of causes.
fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => chain(error),
    }
}

/// The instance in the database belongs to another cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "instance \"{instance}\" in this northbound database belongs to the cluster {present} (the UID of its namespace kube-system), and this process serves the cluster {own}. Give this cluster another --instance, or, if it is that cluster rebuilt, start with --take-over-cluster {present}"
)]
pub struct OtherCluster {
    /// The instance.
    pub instance: String,
    /// The cluster that the database names.
    pub present: String,
    /// The cluster of this process.
    pub own: String,
}

/// The place in the database with the cluster of an instance, and the cluster that may be replaced.
#[derive(Debug, Clone)]
pub(super) struct Ownership {
    instance: String,
    /// The key in `NB_Global:external_ids`.
    pub(super) key: String,
    /// `--take-over-cluster`.
    take_over: Option<String>,
}

impl Ownership {
    /// For an instance. `take_over` names the one cluster that may be replaced.
    pub(super) fn new(instance: &str, take_over: Option<String>) -> Self {
        Self { instance: instance.to_owned(), key: cluster_key(instance), take_over }
    }

    /// Checks that the cluster `own` may serve the instance, if the database names the cluster `present`.
    pub(super) fn check(&self, present: Option<&str>, own: &str) -> Result<(), OtherCluster> {
        match present {
            Some(present) if present != own && self.take_over.as_deref() != Some(present) => {
                Err(OtherCluster { instance: self.instance.clone(), present: present.to_owned(), own: own.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Logs that the database names the cluster `own` from now on, if it named another one or no cluster before.
    pub(super) fn log(&self, before: Option<&str>, own: &str) {
        let (instance, cluster) = (&self.instance, own);
        match before {
            Some(before) if before == own => {}
            Some(before) => tracing::warn!(
                instance,
                cluster,
                before,
                "the instance is taken over from another cluster; --take-over-cluster has done its work"
            ),
            None => tracing::info!(instance, cluster, "the instance belongs to this cluster from now on"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_belongs_to_one_cluster_and_only_the_one_that_is_named_is_taken_over() {
        let plain = Ownership::new("default", None);
        let taking = Ownership::new("default", Some("old".to_owned()));
        assert_eq!(plain.key, "ovn-kubevirt.io/cluster.default");
        for ownership in [&plain, &taking] {
            assert_eq!(ownership.check(None, "own"), Ok(()));
            // Also after the take-over.
            assert_eq!(ownership.check(Some("own"), "own"), Ok(()));
            let error = ownership.check(Some("other"), "own").expect_err("another cluster's").to_string();
            for words in ["\"default\"", "other", "own", "--instance", "--take-over-cluster other"] {
                assert!(error.contains(words), "{error}");
            }
        }
        assert!(plain.check(Some("old"), "own").is_err());
        assert_eq!(taking.check(Some("old"), "own"), Ok(()));
    }
}
