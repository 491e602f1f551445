//! One task a kind of object: what the API server reports, as changes for the writer.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::kubevirt::objects::{
    LauncherPod, NetworkAttachmentDefinition, VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceMigration,
};
use crate::kubevirt::{Change, Kind};

/// Why a watch ended for good.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The API server cannot read `--namespace-selector`.
    #[error("--namespace-selector: {0}; write it as for `kubectl get -l`")]
    Selector(String),
    /// Nobody listens any more.
    #[error("nobody listens to the watches any more")]
    Deserted,
    /// The stream ended, which it never should.
    #[error("a watch has ended")]
    Ended,
}

/// Starts the watches; each goes on until it cannot.
pub fn watch_all(client: &Client, namespaces: Option<&str>, changes: &mpsc::Sender<Change>) -> JoinSet<WatchError> {
    let config = watcher::Config::default;
    let selected = namespaces.map_or_else(config, |selector| config().labels(selector));
    let mut tasks = JoinSet::new();
    tasks.spawn(forward(
        Kind::Vm,
        watcher(Api::<DeserializeGuard<VirtualMachine>>::all(client.clone()), config()),
        |DeserializeGuard(vm)| match vm {
            Ok(vm) => Change::Vm(Box::new(vm)),
            Err(invalid) => Change::UnreadableVm(Box::new(invalid.metadata), invalid.error),
        },
        changes.clone(),
    ));
    tasks.spawn(forward(
        Kind::Run,
        watcher(Api::<DeserializeGuard<VirtualMachineInstance>>::all(client.clone()), config()),
        |DeserializeGuard(run)| match run {
            Ok(run) => Change::Run(Box::new(run)),
            Err(invalid) => Change::UnreadableRun(Box::new(invalid.metadata), invalid.error),
        },
        changes.clone(),
    ));
    tasks.spawn(forward(
        Kind::Launcher,
        watcher(Api::<LauncherPod>::all(client.clone()), config().labels("kubevirt.io=virt-launcher")),
        |pod| Change::Launcher(Box::new(pod)),
        changes.clone(),
    ));
    tasks.spawn(forward(
        Kind::Migration,
        watcher(Api::<DeserializeGuard<VirtualMachineInstanceMigration>>::all(client.clone()), config()),
        |DeserializeGuard(migration)| match migration {
            Ok(migration) => Change::Migration(Box::new(migration)),
            Err(invalid) => Change::Unreadable(Kind::Migration, Box::new(invalid.metadata), invalid.error),
        },
        changes.clone(),
    ));
    tasks.spawn(forward(
        Kind::Node,
        // Of nodes, whose status changes all the time, only the metadata is asked for.
        watcher(Api::<PartialObjectMeta<Node>>::all(client.clone()), config()),
        |node| Change::Node(Box::new(node.metadata)),
        changes.clone(),
    ));
    tasks.spawn(forward(
        Kind::Namespace,
        // Of a namespace, too, only the metadata counts.
        watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), selected),
        |namespace| Change::Namespace(Box::new(namespace.metadata)),
        changes.clone(),
    ));
    tasks.spawn(forward(
        Kind::Nad,
        watcher(Api::<NetworkAttachmentDefinition>::all(client.clone()), config()),
        |nad| Change::Nad(Box::new(nad.metadata)),
        changes.clone(),
    ));
    tasks
}

async fn forward<K: Resource>(
    kind: Kind,
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    into_change: impl Fn(K) -> Change,
    changes: mpsc::Sender<Change>,
) -> WatchError {
    let delays = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times();
    let mut delay = delays.build();
    let mut events = std::pin::pin!(events);
    let mut last_error = String::new();
    let mut missing = false;
    while let Some(event) = events.next().await {
        if missing && matches!(event, Ok(watcher::Event::InitDone)) {
            tracing::info!("the API server knows NetworkAttachmentDefinitions now: networks of Multus are served");
            missing = false;
        }
        let change = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => into_change(object),
            Ok(watcher::Event::Delete(object)) => Change::Gone(kind, Box::new(object.meta().clone())),
            // A list is asked for, which says nothing of the answer: no reason to begin the delays anew.
            Ok(watcher::Event::Init) => {
                if changes.send(Change::ListBegins(kind)).await.is_err() {
                    return WatchError::Deserted;
                }
                continue;
            }
            Ok(watcher::Event::InitDone) => Change::ListEnds(kind),
            Err(error) => {
                if kind == Kind::Namespace && status_code(&error) == Some(400) {
                    return WatchError::Selector(describe(&error));
                }
                if kind == Kind::Nad && status_code(&error) == Some(404) {
                    // A cluster without Multus has none, which is as good as a list of them.
                    if !missing {
                        missing = true;
                        tracing::info!(
                            "the API server knows no NetworkAttachmentDefinitions (k8s.cni.cncf.io/v1): networks of Multus are served as soon as their CustomResourceDefinition is installed"
                        );
                        for change in [Change::ListBegins(kind), Change::ListEnds(kind)] {
                            if changes.send(change).await.is_err() {
                                return WatchError::Deserted;
                            }
                        }
                    }
                    tokio::time::sleep(delay.next().unwrap_or(Duration::from_secs(5))).await;
                    continue;
                }
                // Once for each new reason; the stream tries again when it is asked for more.
                let text = describe(&error);
                if text != last_error {
                    tracing::warn!(kind = ?kind, error = text, "{}", hint(&error));
                    last_error = text;
                }
                tokio::time::sleep(delay.next().unwrap_or(Duration::from_secs(5))).await;
                continue;
            }
        };
        delay = delays.build();
        last_error.clear();
        if changes.send(change).await.is_err() {
            return WatchError::Deserted;
        }
    }
    WatchError::Ended
}

/// The API server's own refusal, where there is one inside.
fn refusal(error: &watcher::Error) -> Option<&kube::core::Status> {
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

/// The API server's message, or the chain of causes, each said once.
fn describe(error: &watcher::Error) -> String {
    if let Some(status) = refusal(error) {
        return status.message.clone();
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// What an operator should look at.
fn hint(error: &watcher::Error) -> &'static str {
    match status_code(error) {
        Some(404) => "the API server does not know this kind of object: is KubeVirt installed? trying again",
        Some(401 | 403) => "the API server refuses the watch: are the RBAC rules of this service applied? trying again",
        _ => "the watch failed; trying again",
    }
}
