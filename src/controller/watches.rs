//! The watches of the API server, a task for each kind of object. They send changes to the writer.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Resource};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::backlog::Arrival;
use super::kubernetes::{ApiServer, Health, chain};
use crate::kubevirt::objects::{
    LauncherPod, NetworkAttachmentDefinition, VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceMigration,
};
use crate::kubevirt::{Change, Kind};

/// The longest pause after a failure.
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// The reason why a watch ended for good.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The API server cannot read `--namespace-selector`.
    #[error("--namespace-selector: {0}; write it as for `kubectl get -l`")]
    Selector(String),
    /// The writer has ended.
    #[error("the writer has ended")]
    Deserted,
    /// The stream ended, which should never happen.
    #[error("a watch has ended")]
    Ended,
}

/// The API server ends a watch after this, plus a part of [`WATCH_JITTER`], and the next watch continues from its end.
/// A watch that lasts some seconds longer is dead, and is opened again. So a silently lost connection is noticed within
/// half a minute, at the price of three small requests a minute for each kind.
const WATCH_SECONDS: u32 = 18;
/// Keeps the watches of all processes from ending together. With kube's margin of 5 s it stays under 30 s.
const WATCH_JITTER: u32 = 7;

/// Starts the watches. Each runs until it cannot continue.
///
/// # Errors
/// If no client can be made of the configuration.
pub fn watch_all(
    server: &ApiServer,
    health: &Arc<Health>,
    namespaces: Option<&str>,
    changes: &mpsc::Sender<Arrival>,
) -> Result<JoinSet<WatchError>, kube::Error> {
    let config = || watcher::Config::default().timeout(WATCH_SECONDS + random() % WATCH_JITTER);
    let selected = namespaces.map_or_else(config, |selector| config().labels(selector));
    let forwarder = |kind| Forwarder::new(kind, health, changes);
    let mut tasks = JoinSet::new();
    tasks.spawn(forwarder(Kind::Vm).run(
        watcher(Api::<DeserializeGuard<VirtualMachine>>::all(server.watch(Kind::Vm)?), config()),
        |DeserializeGuard(vm)| match vm {
            Ok(vm) => Change::Vm(Box::new(vm)),
            Err(invalid) => Change::UnreadableVm(Box::new(invalid.metadata), invalid.error),
        },
    ));
    tasks.spawn(forwarder(Kind::Run).run(
        watcher(Api::<DeserializeGuard<VirtualMachineInstance>>::all(server.watch(Kind::Run)?), config()),
        |DeserializeGuard(run)| match run {
            Ok(run) => Change::Run(Box::new(run)),
            Err(invalid) => Change::UnreadableRun(Box::new(invalid.metadata), invalid.error),
        },
    ));
    tasks.spawn(forwarder(Kind::Launcher).run(
        watcher(Api::<LauncherPod>::all(server.watch(Kind::Launcher)?), config().labels("kubevirt.io=virt-launcher")),
        |pod| Change::Launcher(Box::new(pod)),
    ));
    tasks.spawn(forwarder(Kind::Migration).run(
        watcher(
            Api::<DeserializeGuard<VirtualMachineInstanceMigration>>::all(server.watch(Kind::Migration)?),
            config(),
        ),
        |DeserializeGuard(migration)| match migration {
            Ok(migration) => Change::Migration(Box::new(migration)),
            Err(invalid) => Change::Unreadable(Kind::Migration, Box::new(invalid.metadata), invalid.error),
        },
    ));
    tasks.spawn(forwarder(Kind::Node).run(
        // The status of a node changes all the time, so only its metadata is requested.
        watcher(Api::<PartialObjectMeta<Node>>::all(server.watch(Kind::Node)?), config()),
        |node| Change::Node(Box::new(node.metadata)),
    ));
    tasks.spawn(
        forwarder(Kind::Namespace)
            // Only the metadata of a namespace is used, too.
            .run(watcher(Api::<PartialObjectMeta<Namespace>>::all(server.watch(Kind::Namespace)?), selected), |namespace| {
                Change::Namespace(Box::new(namespace.metadata))
            }),
    );
    tasks.spawn(
        forwarder(Kind::Nad)
            .run(watcher(Api::<NetworkAttachmentDefinition>::all(server.watch(Kind::Nad)?), config()), |nad| {
                Change::Nad(Box::new(nad.metadata))
            }),
    );
    Ok(tasks)
}

/// Watches all pods of one node, with any labels: a pod that loses a label still exists. Runs until it cannot continue.
///
/// # Errors
/// If no client can be made of the configuration.
pub fn watch_pods_of_node(
    server: &ApiServer,
    health: &Arc<Health>,
    node: &str,
    changes: &mpsc::Sender<Arrival>,
) -> Result<impl Future<Output = WatchError> + Send + use<>, kube::Error> {
    let config = watcher::Config::default().timeout(WATCH_SECONDS + random() % WATCH_JITTER);
    let of_node = config.fields(&format!("spec.nodeName={node}"));
    let pods = watcher(Api::<LauncherPod>::all(server.watch(Kind::Launcher)?), of_node);
    Ok(Forwarder::new(Kind::Launcher, health, changes).run(pods, |pod| Change::Launcher(Box::new(pod))))
}

/// A different number for each watch of each process.
fn random() -> u32 {
    let hash = RandomState::new().build_hasher().finish();
    u32::try_from(hash >> 32).unwrap_or_default()
}

/// Forwards the events of one watch, and reports its health.
struct Forwarder {
    kind: Kind,
    health: Arc<Health>,
    changes: mpsc::Sender<Arrival>,
    delays: ExponentialBuilder,
    delay: ExponentialBackoff,
    last_error: String,
    /// The API server does not know the kind.
    missing: bool,
}

impl Forwarder {
    fn new(kind: Kind, health: &Arc<Health>, changes: &mpsc::Sender<Arrival>) -> Self {
        let delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(LONGEST_DELAY)
            .with_jitter()
            .without_max_times();
        Self {
            kind,
            health: Arc::clone(health),
            changes: changes.clone(),
            delays,
            delay: delays.build(),
            last_error: String::new(),
            missing: false,
        }
    }

    async fn run<K: Resource>(
        mut self,
        events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
        into_change: impl Fn(K) -> Change,
    ) -> WatchError {
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            if let Err(ended) = self.pass_on(event, &into_change).await {
                return ended;
            }
        }
        WatchError::Ended
    }

    async fn pass_on<K: Resource>(
        &mut self,
        event: watcher::Result<watcher::Event<K>>,
        into_change: impl Fn(K) -> Change,
    ) -> Result<(), WatchError> {
        let kind = self.kind;
        let change = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => into_change(object),
            Ok(watcher::Event::Delete(object)) => Change::Gone(kind, Box::new(object.meta().clone())),
            // A list was requested, but no answer has come yet: the delays continue to grow.
            Ok(watcher::Event::Init) => return self.send(Change::ListBegins(kind)).await,
            Ok(watcher::Event::InitDone) => Change::ListEnds(kind),
            Err(error) => return self.failed(&error).await,
        };
        if std::mem::take(&mut self.missing) {
            tracing::info!("the API server knows NetworkAttachmentDefinitions now: networks of Multus are served");
        }
        self.delay = self.delays.build();
        self.last_error.clear();
        self.send(change).await
    }

    async fn send(&self, change: Change) -> Result<(), WatchError> {
        // Where the writer is behind, the change waits here: its latency begins before.
        self.changes.send(Arrival::now(change)).await.map_err(|_| WatchError::Deserted)
    }

    /// Records a failure and waits. The stream tries again when it is polled next.
    async fn failed(&mut self, error: &watcher::Error) -> Result<(), WatchError> {
        let kind = self.kind;
        if kind == Kind::Namespace && status_code(error) == Some(400) {
            return Err(WatchError::Selector(describe(error)));
        }
        if kind == Kind::Nad && status_code(error) == Some(404) {
            // A cluster without Multus has no NADs, which is as good as an empty list.
            self.health.received(kind);
            if !self.missing {
                self.missing = true;
                tracing::info!(
                    "the API server knows no NetworkAttachmentDefinitions (k8s.cni.cncf.io/v1): networks of Multus are served as soon as their CustomResourceDefinition is installed"
                );
                self.send(Change::ListBegins(kind)).await?;
                self.send(Change::ListEnds(kind)).await?;
            }
        } else {
            let text = describe(error);
            match status_code(error) {
                // The version to watch from is too old. The server answers, and lists everything again.
                Some(410) => self.health.received(kind),
                _ => self.health.failed(kind, &text),
            }
            // Once for each new reason.
            if text != self.last_error {
                tracing::warn!(kind = ?kind, error = text, "{}", hint(error));
                self.last_error = text;
            }
        }
        let pause = self.delay.next().unwrap_or(LONGEST_DELAY);
        tokio::time::sleep(pause.max(self.health.postponed(kind))).await;
        Ok(())
    }
}

/// The API server's own refusal, if there is one inside.
pub(super) fn refusal(error: &watcher::Error) -> Option<&kube::core::Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

fn status_code(error: &watcher::Error) -> Option<u16> {
    refusal(error).map(|status| status.code)
}

/// The API server's message, or the chain of causes without repetitions.
fn describe(error: &watcher::Error) -> String {
    if let Some(status) = refusal(error) {
        return status.message.clone();
    }
    chain(error)
}

/// The probable cause, for an operator.
fn hint(error: &watcher::Error) -> &'static str {
    match status_code(error) {
        Some(404) => "the API server does not know this kind of object: is KubeVirt installed? trying again",
        Some(401 | 403) => "the API server refuses the watch: are the RBAC rules of this service applied? trying again",
        _ => "the watch failed; trying again",
    }
}
