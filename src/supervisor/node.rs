//! The life of `node`.

use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{Ended, Signals, kubernetes, listen};
use crate::config::NodeOptions;
use crate::controller::{ApiServer, CHANGES_AHEAD, Metrics, probe_api_server, watch_pods_of_node};
use crate::node::core::LocalSwitch;
use crate::node::{Agent, AgentSettings, NOTICES_AHEAD, NodeMetrics, NodeStatus, SwitchLink, follow_switch, notify};
use crate::ovsdb::Shared;

/// Serves a node until a signal stops it (`Ok`), or it cannot continue.
pub async fn run_node(options: NodeOptions) -> anyhow::Result<()> {
    let mut signals = Signals::catch()?;
    let listener = listen(options.http, "/readyz", "--http")?;
    let metrics = NodeMetrics::default();
    let server = ApiServer::new(kubernetes(options.kubeconfig.as_deref()).await?, metrics.health());
    let mut tasks = start(&options, &server, metrics, listener)?;
    tokio::select! {
        signal = signals.received() => tracing::info!("stopping after {signal}"),
        Some(ended) = tasks.join_next() => return Err(super::why(ended)),
    }
    Ok(())
}

fn start(
    options: &NodeOptions,
    server: &ApiServer,
    metrics: NodeMetrics,
    listener: TcpListener,
) -> anyhow::Result<JoinSet<Ended>> {
    let client = || server.requests().context("the Kubernetes client cannot be made");
    let switch = Arc::new(Shared::new(LocalSwitch::default()));
    let (link_sender, link) = watch::channel(SwitchLink::default());
    let (changes_sender, changes) = mpsc::channel(CHANGES_AHEAD);
    let (notices, notices_receiver) = mpsc::channel(NOTICES_AHEAD);
    let status = NodeStatus::new(&options.node, link.clone(), metrics.health());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), ovs = %options.ovs, node = options.node, "starting");
    tracing::info!(address = %listener.local_addr()?, "http server listening");
    let agent = Agent::new(AgentSettings {
        switch: Arc::clone(&switch),
        link,
        changes,
        notices,
        deadline: options.interface_deadline,
        status: status.clone(),
        metrics: metrics.clone(),
    });
    let watching = watch_pods_of_node(server, &metrics.health(), &options.node, &changes_sender);
    let watching = watching.context("the Kubernetes client cannot be made")?;
    drop(changes_sender);
    let notifying = notify(client()?, notices_receiver);
    let probing = probe_api_server(client()?, metrics.health());
    let following = follow_switch(options.ovs.clone(), switch, link_sender);
    let serving =
        crate::api::serve_probes(listener, Metrics::CONTENT_TYPE, move || status.ready(), move || metrics.text());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { Ended("agent", agent.run().await.map_err(Into::into)) });
    tasks.spawn(async move { Ended("watch of pods", Err(watching.await.into())) });
    tasks.spawn(async move { Ended("http server", serving.await.map_err(Into::into)) });
    tasks.spawn(async move {
        following.await;
        Ended("link to Open vSwitch", Ok(()))
    });
    tasks.spawn(async move {
        notifying.await;
        Ended("notifier", Ok(()))
    });
    tasks.spawn(async move {
        probing.await;
        Ended("probe of the API server", Ok(()))
    });
    Ok(tasks)
}
