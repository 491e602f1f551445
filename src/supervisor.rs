//! The life of `run`: every task in one set; when one ends, the process does, and says why.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::RunOptions;
use crate::controller::{
    Leadership, Link, LinkSettings, Linker, Reporter, SouthboundFeed, Status, Writer, WriterSettings,
    follow_southbound, watch_all,
};
use crate::ovn::{Northbound, Southbound};
use crate::ovsdb::{Shared, Target};

/// Changes that the watches may be ahead of the writer; beyond it they wait, and so does the server.
const CHANGES_AHEAD: usize = 4_096;
/// The API server must answer within this, or the request is tried again.
const KUBERNETES_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the service until it is told to stop (`Ok`) or cannot go on.
pub async fn run(options: RunOptions) -> anyhow::Result<()> {
    if !options.no_lease {
        anyhow::bail!("give --no-lease: leadership by a Kubernetes Lease is not built yet, so run one process");
    }
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?;
    let listener = TcpListener::bind(options.http).await.with_context(|| {
        format!("cannot listen on {} for /readyz: choose another address with --http", options.http)
    })?;
    let client = client(&options).await?;
    let mut tasks = start(&options, client, listener)?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("told to stop by SIGTERM"),
        _ = interrupt.recv() => tracing::info!("told to stop by SIGINT"),
        Some(ended) = tasks.join_next() => match ended {
            Ok(Ended(task, Ok(()))) => anyhow::bail!("the task \"{task}\" has ended"),
            Ok(Ended(task, Err(error))) => return Err(error.context(format!("the task \"{task}\" has ended"))),
            Err(error) => anyhow::bail!("a task died: {error}"),
        },
    }
    Ok(())
}

struct Ended(&'static str, anyhow::Result<()>);

fn start(options: &RunOptions, client: Client, listener: TcpListener) -> anyhow::Result<JoinSet<Ended>> {
    let northbound = Arc::new(Shared::new(Northbound::new(options.northbound.instance.clone())));
    let (link_sender, link) = watch::channel(Link::default());
    let (changes_sender, changes) = mpsc::channel(CHANGES_AHEAD);
    let (reports_sender, reports) = mpsc::unbounded_channel();
    let status = Status::new(link.clone());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        nb = %options.northbound.nb,
        instance = options.northbound.instance,
        default_switch = options.default_switch,
        "starting"
    );
    tracing::info!(address = %listener.local_addr()?, "http server listening");
    let mut tasks = JoinSet::new();
    let feed = options.sb.clone().map(|remotes| {
        let replica = Arc::new(Shared::new(Southbound::default()));
        let (in_sync_sender, in_sync) = watch::channel(None);
        let target = Target { remotes, ..options.northbound.target() };
        let following = follow_southbound(target, Arc::clone(&replica), in_sync_sender);
        tasks.spawn(async move {
            following.await;
            Ended("southbound link", Ok(()))
        });
        SouthboundFeed { replica, in_sync }
    });
    let writer = Writer::new(WriterSettings {
        settings: options.settings(),
        northbound: Arc::clone(&northbound),
        link,
        southbound: feed,
        changes,
        reports: reports_sender,
        status: status.clone(),
    });
    let (_alone, leadership) = watch::channel(Leadership::Leader { transitions: 0 });
    let linker = Linker::new(LinkSettings {
        target: options.northbound.target(),
        instance: options.northbound.instance.clone(),
        northbound,
        leadership,
        candidacy: None,
        link: link_sender,
    });
    let selector = options.namespace_selector.clone();
    let reporter = Reporter::new(client.clone(), reports);
    tasks.spawn(async move { Ended("northbound link", linker.run().await.map_err(Into::into)) });
    tasks.spawn(async move { Ended("writer", writer.run().await.map_err(Into::into)) });
    tasks.spawn(async move {
        let mut watches = watch_all(&client, selector.as_deref(), &changes_sender);
        drop(changes_sender);
        let ended = match watches.join_next().await {
            Some(Ok(error)) => anyhow::Error::from(error),
            died => anyhow::anyhow!("a watch died: {died:?}"),
        };
        Ended("watches", Err(ended))
    });
    tasks.spawn(async move {
        reporter.run().await;
        Ended("reporter", Ok(()))
    });
    tasks.spawn(async move { Ended("http server", crate::api::serve(listener, status).await.map_err(Into::into)) });
    Ok(tasks)
}

async fn client(options: &RunOptions) -> anyhow::Result<Client> {
    let mut config = match &options.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("the kubeconfig {} cannot be read", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("the kubeconfig {} cannot be used", path.display()))?
        }
        None => kube::Config::infer().await.context(
            "no Kubernetes configuration found: give --kubeconfig, or run inside the cluster with a ServiceAccount",
        )?,
    };
    config.connect_timeout = Some(KUBERNETES_CONNECT_TIMEOUT);
    Client::try_from(config).context("the Kubernetes client cannot be made")
}
