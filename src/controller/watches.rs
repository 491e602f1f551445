//! One task a kind of object: what the API server reports, as changes for the writer.

use std::time::Duration;

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, ExponentialBackoff, watcher};
use kube::{Api, Client, Resource};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::kubevirt::objects::{LauncherPod, VirtualMachine, VirtualMachineInstance};
use crate::kubevirt::{Change, Kind};

/// Starts the watches. A task ends only when nobody listens any more.
pub fn watch_all(client: &Client, namespaces: Option<&str>, changes: &mpsc::Sender<Change>) -> JoinSet<()> {
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
        Kind::Namespace,
        watcher(Api::<Namespace>::all(client.clone()), selected),
        |namespace| Change::Namespace(Box::new(namespace.metadata)),
        changes.clone(),
    ));
    tasks
}

async fn forward<K: Resource>(
    kind: Kind,
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    into_change: impl Fn(K) -> Change,
    changes: mpsc::Sender<Change>,
) {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times();
    let mut events = std::pin::pin!(events.backoff(ExponentialBackoff::from(backoff)));
    let mut last_error = String::new();
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => into_change(object),
            Ok(watcher::Event::Delete(object)) => Change::Gone(kind, Box::new(object.meta().clone())),
            Ok(watcher::Event::Init) => Change::ListBegins(kind),
            Ok(watcher::Event::InitDone) => Change::ListEnds(kind),
            Err(error) => {
                // Once for each new reason; the stream tries again by itself.
                let error = with_sources(&error);
                if error != last_error {
                    tracing::warn!(kind = ?kind, error, "{}", hint(&error));
                    last_error = error;
                }
                continue;
            }
        };
        last_error.clear();
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
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
fn hint(error: &str) -> &'static str {
    if error.contains("404") {
        "the API server does not know this kind of object: is KubeVirt installed? trying again"
    } else if error.contains("403") {
        "the API server refuses the watch: are the RBAC rules of this service applied? trying again"
    } else {
        "the watch failed; trying again"
    }
}
