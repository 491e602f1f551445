//! Candidates for one Lease, and their logs.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::Kubeconfig;
use kube::core::ApiResource;
use kube::{Api, Client};
use ovn_kubevirt::controller::{Candidacy, Leadership, LeaseError, LeaseOptions, LeaseTiming, keep_lease};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Cluster, Namespace, deploy, eventually};

/// The Lease's name.
const NAME: &str = "ovn-kubevirt-default";

/// A namespace with a Lease in it, or without.
pub(super) struct Place {
    pub(super) namespace: Namespace,
    leases: Api<DynamicObject>,
}

impl Place {
    pub(super) async fn new(story: &str) -> Self {
        let namespace = Cluster::shared().namespace(&format!("lease-{story}")).await;
        let resource = ApiResource::erase::<Lease>(&());
        let leases = Api::namespaced_with(namespace.client.clone(), &namespace.name, &resource);
        Self { namespace, leases }
    }

    /// One that stands for the Lease, as the cluster's administrator.
    pub(super) fn candidate(&self, seconds: u32) -> Candidate {
        self.candidate_of(self.namespace.client.clone(), seconds)
    }

    /// One with another way to the API server, or with other rights.
    pub(super) async fn candidate_through(&self, kubeconfig: &Path, seconds: u32) -> Candidate {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
        let client = deploy::client(kubeconfig).await.unwrap_or_else(|error| panic!("{error}"));
        self.candidate_of(client, seconds)
    }

    fn candidate_of(&self, client: Client, seconds: u32) -> Candidate {
        Candidate::start(client, self.namespace.name.clone(), seconds)
    }

    /// The Lease as it is; null where there is none.
    pub(super) async fn lease(&self) -> Value {
        let lease = self.leases.get_opt(NAME).await.expect("the Lease can be read");
        lease.map_or(Value::Null, |lease| serde_json::to_value(lease).expect("an object"))
    }

    /// Puts this there.
    pub(super) async fn create(&self, spec: &Value) {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME}, "spec": spec,
        });
        let lease: DynamicObject = serde_json::from_value(lease).expect("an object");
        let created = self.leases.create(&PostParams::default(), &lease).await;
        created.unwrap_or_else(|error| panic!("{spec}: {error}"));
    }

    pub(super) async fn patch(&self, patch: Value) -> Value {
        let patched = self.leases.patch(NAME, &PatchParams::default(), &Patch::Merge(&patch)).await;
        let patched = patched.unwrap_or_else(|error| panic!("{patch}: {error}"));
        serde_json::to_value(patched).expect("an object")
    }

    pub(super) async fn delete(&self) {
        self.leases.delete(NAME, &DeleteParams::default()).await.expect("the Lease can be deleted");
    }
}

/// `keep_lease` in a task.
pub(super) struct Candidate {
    pub(super) name: String,
    candidacy: watch::Sender<Candidacy>,
    leadership: watch::Receiver<Leadership>,
    task: JoinHandle<Result<(), LeaseError>>,
}

impl Candidate {
    pub(super) fn start(client: Client, namespace: String, seconds: u32) -> Self {
        let options = LeaseOptions::new(namespace, NAME.to_owned(), LeaseTiming::of_seconds(seconds));
        let name = options.identity.clone();
        let (candidacy, wanted) = watch::channel(Candidacy { stands: true, stopping: false });
        let (published, leadership) = watch::channel(Leadership::Follower { leader: None });
        let task = tokio::spawn(keep_lease(client, options, wanted, published));
        Self { name, candidacy, leadership, task }
    }

    pub(super) fn leadership(&self) -> Leadership {
        self.leadership.borrow().clone()
    }

    pub(super) fn stands(&self, stands: bool) {
        self.candidacy.send_modify(|candidacy| candidacy.stands = stands);
    }

    /// Waits until it follows this leader.
    pub(super) async fn follows(&self, leader: &Self) {
        eventually("it follows the leader", || async {
            match self.leadership() {
                Leadership::Follower { leader: Some(name) } if name == leader.name => Ok(()),
                other => Err(format!("{other:?} instead of {}", leader.name)),
            }
        })
        .await;
    }

    /// As kill -9: the Lease is as it was.
    pub(super) fn kill(&self) {
        self.task.abort();
    }

    /// Tells it to stop, and waits for the end.
    pub(super) async fn stop(mut self) -> Result<(), LeaseError> {
        self.candidacy.send_modify(|candidacy| candidacy.stopping = true);
        let ended = tokio::time::timeout(super::AT_ONCE, &mut self.task).await;
        assert_eq!(self.leadership.has_changed().map_err(drop), Err(()), "the task is gone");
        ended.expect("it ends at once").expect("it does not panic")
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Which of them lead, and in which term.
pub(super) fn leaders(candidates: &[&Candidate]) -> Vec<(usize, u64)> {
    let term = |(index, candidate): (usize, &&Candidate)| match candidate.leadership() {
        Leadership::Leader { transitions } => Some((index, transitions)),
        Leadership::Follower { .. } => None,
    };
    candidates.iter().enumerate().filter_map(term).collect()
}

/// Waits until one of them leads, in this term.
pub(super) async fn one_leads(candidates: &[&Candidate], term: u64) -> usize {
    eventually(&format!("one leads in term {term}"), || async {
        match leaders(candidates)[..] {
            [(index, leads)] if leads == term => Ok(index),
            ref other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// The log lines of the service, for all candidates of a test together.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// From now on, as long as the guard lives, of the calling thread: the whole of a test.
    pub(super) fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_env_filter(EnvFilter::new("ovn_kubevirt=info"));
        let guard = tracing::subscriber::set_default(lines.with_writer(log.clone()).finish());
        (log, guard)
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic")).into_owned()
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
