//! The life of `run` and of `node`: one set of tasks. The end of any task ends the process, with the reason.

mod api;
mod node;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};

use crate::admission::{self, Certificates, Reviewer, WebhookMetrics, follow_files, keep_certificate};
use crate::api::rpc::Replicas;
use crate::config::RunOptions;
use crate::controller::{
    ApiServer, Arrival, Asker, CHANGES_AHEAD, Candidacy, ClusterIdentity, Leadership, LeaseError, Ledger, Link,
    LinkSettings, Linker, Metrics, NameWriter, NamesSettings, Observed, Reporter, SouthboundFeed, Status, Writer,
    WriterSettings, follow_southbound, identify_cluster, keep_lease, probe_api_server, watch_all,
};
use crate::ovn::{Northbound, Southbound};
use crate::ovsdb::{Shared, Target};
use crate::telemetry::LogFilter;

pub use node::run_node;

/// The limit for releasing the Lease: the process has to end within a second.
const HAND_OVER_WITHIN: Duration = Duration::from_millis(700);

/// Runs the service until a signal stops it (`Ok`) or it cannot continue.
pub async fn run(options: RunOptions, log: LogFilter) -> anyhow::Result<()> {
    let mut signals = Signals::catch()?;
    let api = api::Listening::open(&options.api).await?;
    let listener = listen(options.http, "/readyz", "--http")?;
    let webhooks = match options.webhooks.webhooks {
        Some(address) => Some(listen(address, "the webhooks", "--webhooks")?),
        None => None,
    };
    let (metrics, webhook_metrics) = Metrics::with(WebhookMetrics::registered);
    let server = ApiServer::new(kubernetes(options.kubeconfig.as_deref()).await?, metrics.health());
    let started = start(&options, &server, metrics.clone(), listener)?;
    let Started { candidacy, mut tasks, asker, link: _link, readers } = started;
    if let Some(api) = api {
        api.serve(readers.sources(asker.clone(), log), &mut tasks)?;
    }
    if let Some(listener) = webhooks {
        start_webhooks(&options, &server, webhook_metrics, (listener, asker), &mut tasks)?;
    }
    tokio::select! {
        signal = signals.received() => hand_over(&candidacy, &mut tasks, signal).await,
        Some(ended) = tasks.join_next() => return Err(why(ended)),
    }
    Ok(())
}

/// The signals that stop a process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?,
        })
    }

    /// Waits for a signal, and returns its name.
    async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The bytes that the kernel keeps for a peer that does not take its answers. By itself it would keep some megabytes.
const SEND_BUFFER: u32 = 256 * 1_024;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;

fn listen(address: SocketAddr, purpose: &str, flag: &str) -> anyhow::Result<TcpListener> {
    let listening = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A process that starts again takes the port at once.
        socket.set_reuseaddr(true)?;
        // Connections inherit it.
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listening().with_context(|| format!("cannot listen on {address} for {purpose}: choose another address with {flag}"))
}

/// The error of a process that ends with a task.
fn why(ended: Result<Ended, JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ended(task, Ok(()))) => anyhow::anyhow!("the task \"{task}\" has ended"),
        Ok(Ended(task, Err(error))) => error.context(format!("the task \"{task}\" has ended")),
        Err(error) => anyhow::anyhow!("a task died: {error}"),
    }
}

struct Ended(&'static str, anyhow::Result<()>);

const LEASE_TASK: &str = "lease";

/// Releases the Lease, so that another process can take it at once.
async fn hand_over(candidacy: &watch::Sender<Candidacy>, tasks: &mut JoinSet<Ended>, signal: &str) {
    tracing::info!("stopping after {signal}");
    candidacy.send_modify(|candidacy| candidacy.stopping = true);
    let released = async {
        while let Some(ended) = tasks.join_next().await {
            if matches!(ended, Ok(Ended(LEASE_TASK, _))) {
                return;
            }
        }
    };
    if tokio::time::timeout(HAND_OVER_WITHIN, released).await.is_err() {
        tracing::warn!("the Lease could not be released in time: others wait until it runs out");
    }
}

/// The running tasks, and the values that outlive them.
struct Started {
    candidacy: watch::Sender<Candidacy>,
    tasks: JoinSet<Ended>,
    /// Asks the writer.
    asker: Asker,
    /// Keeps the link's receivers open after its end, so that the link's own reason is reported.
    link: watch::Sender<Link>,
    /// The data that the operators' API reads.
    readers: api::Readers,
}

/// Starts every task but the webhooks.
fn start(options: &RunOptions, server: &ApiServer, metrics: Metrics, listener: TcpListener) -> anyhow::Result<Started> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        nb = %options.northbound.nb,
        instance = options.northbound.instance,
        default_switch = options.default_switch,
        "starting"
    );
    tracing::info!(address = %listener.local_addr()?, "http server listening");
    let northbound = Arc::new(Shared::new(starting_replica(options)));
    let (link_sender, link) = watch::channel(Link::default());
    let (changes_sender, changes) = mpsc::channel(CHANGES_AHEAD);
    let (reports_sender, reports) = mpsc::unbounded_channel();
    let (asker, questions) = Asker::channel();
    let status = Status::new(link.clone()).with_health(metrics.health());
    let mut starting = Starting { options, server, metrics: metrics.clone(), tasks: JoinSet::new() };
    let (southbound, ledger) = (starting.southbound(), Ledger::new(reports_sender, &metrics));
    let replicas =
        Replicas { northbound: Arc::clone(&northbound), southbound: southbound.clone(), ledger: ledger.clone() };
    metrics.observe(Observed {
        northbound: Arc::clone(&northbound),
        southbound: southbound.as_ref().map(|feed| Arc::clone(&feed.replica)),
        status: status.clone(),
    });
    let names = NameWriter::new(NamesSettings {
        domain: options.names.dns_domain.clone(),
        interval: options.names.dns_interval,
        northbound: Arc::clone(&northbound),
        link: link.clone(),
        metrics: metrics.names(),
    });
    let writer = Writer::new(WriterSettings {
        settings: options.settings(),
        northbound: Arc::clone(&northbound),
        link,
        southbound,
        changes,
        probe_interval: options.northbound.target().probe_interval,
        questions,
        ledger,
        metrics: metrics.clone(),
        address_rest: options.address_rest,
        dhcp_grace: options.dhcp.dhcp_grace,
        allow_mass_release: options.allow_mass_release,
        status: status.clone(),
    });
    let (candidacy, leadership) = starting.lease()?;
    let readers =
        api::Readers { replicas, status: status.clone(), health: metrics.health(), leadership: leadership.clone() };
    let cluster = starting.identity()?;
    let linker = Linker::new(LinkSettings {
        target: options.northbound.target(),
        instance: options.northbound.instance.clone(),
        cluster,
        take_over_cluster: options.take_over_cluster.clone(),
        northbound,
        leadership,
        candidacy: (!options.no_lease).then(|| candidacy.clone()),
        link: link_sender.clone(),
    });
    let reporter = Reporter::new(starting.client()?, options.northbound.instance.clone(), reports, metrics.pace());
    starting.spawn("northbound link", async move { linker.run().await.map_err(Into::into) });
    starting.spawn("writer", async move { writer.run().await.map_err(Into::into) });
    starting.spawn("names", async move {
        names.run().await;
        Ok(())
    });
    starting.probe()?;
    starting.watches(changes_sender)?;
    starting.spawn("reporter", async move {
        reporter.run().await;
        Ok(())
    });
    let serving = crate::api::serve(listener, status, metrics);
    starting.spawn("http server", async move { serving.await.map_err(Into::into) });
    Ok(Started { candidacy, tasks: starting.tasks, asker, link: link_sender, readers })
}

/// An empty replica of the northbound, which reads what the options need.
fn starting_replica(options: &RunOptions) -> Northbound {
    let replica = Northbound::new(options.northbound.instance.clone());
    if options.names.dns_domain.is_some() { replica.with_names() } else { replica }
}

/// The tasks that have been started, and what they are started with.
struct Starting<'a> {
    options: &'a RunOptions,
    server: &'a ApiServer,
    metrics: Metrics,
    tasks: JoinSet<Ended>,
}

impl Starting<'_> {
    fn client(&self) -> anyhow::Result<Client> {
        self.server.requests().context("the Kubernetes client cannot be made")
    }

    fn spawn(&mut self, task: &'static str, work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.tasks.spawn(async move { Ended(task, work.await) });
    }

    /// Follows the southbound, if it is to be read.
    fn southbound(&mut self) -> Option<SouthboundFeed> {
        let remotes = self.options.sb.clone()?;
        let replica = Arc::new(Shared::new(Southbound::default()));
        let (in_sync_sender, in_sync) = watch::channel(None);
        let target = Target { remotes, ..self.options.northbound.target() };
        let following = follow_southbound(target, Arc::clone(&replica), in_sync_sender);
        self.spawn("southbound link", async move {
            following.await;
            Ok(())
        });
        Some(SouthboundFeed { replica, in_sync })
    }

    /// Stands for the Lease, or leads without one until the process stops.
    fn lease(&mut self) -> anyhow::Result<(watch::Sender<Candidacy>, watch::Receiver<Leadership>)> {
        let client = self.client()?;
        let (candidacy_sender, candidacy) = watch::channel(Candidacy::default());
        let lease = self.options.lease(client.default_namespace());
        let (leadership_sender, leadership) = watch::channel(match lease {
            None => Leadership::Leader { transitions: 0 },
            Some(_) => Leadership::Follower { leader: None },
        });
        self.spawn(LEASE_TASK, async move {
            let ended = match lease {
                Some(lease) => keep_lease(client, lease, candidacy, leadership_sender).await,
                None => stopping(candidacy, leadership_sender).await,
            };
            ended.map_err(Into::into)
        });
        Ok((candidacy_sender, leadership))
    }

    /// Finds out which cluster this is.
    fn identity(&mut self) -> anyhow::Result<watch::Receiver<ClusterIdentity>> {
        let (sender, cluster) = watch::channel(ClusterIdentity::Unknown(None));
        let identifying = identify_cluster(self.client()?, sender);
        self.spawn("identity of the cluster", async move {
            identifying.await;
            // Its work is done, but the process continues.
            std::future::pending().await
        });
        Ok(cluster)
    }

    fn probe(&mut self) -> anyhow::Result<()> {
        let (client, health) = (self.client()?, self.metrics.health());
        self.spawn("probe of the API server", async move {
            probe_api_server(client, health).await;
            Ok(())
        });
        Ok(())
    }

    fn watches(&mut self, changes: mpsc::Sender<Arrival>) -> anyhow::Result<()> {
        let selector = self.options.namespace_selector.as_deref();
        let watches = watch_all(self.server, &self.metrics.health(), selector, &changes);
        let mut watches = watches.context("the Kubernetes client cannot be made")?;
        self.spawn("watches", async move {
            Err(match watches.join_next().await {
                Some(Ok(error)) => anyhow::Error::from(error),
                died => anyhow::anyhow!("a watch died: {died:?}"),
            })
        });
        Ok(())
    }
}

/// Starts the listener of the webhooks, and the task that keeps its certificate.
fn start_webhooks(
    options: &RunOptions,
    server: &ApiServer,
    metrics: WebhookMetrics,
    (listener, asker): (TcpListener, Asker),
    tasks: &mut JoinSet<Ended>,
) -> anyhow::Result<()> {
    let certificates = Certificates::default();
    let reviewer = Reviewer::new(asker, options.webhooks.review(options.namespace_selector.is_none()));
    tracing::info!(address = %listener.local_addr()?, "webhooks listening");
    let served = certificates.clone();
    match options.webhooks.files() {
        Some(files) => {
            let keeping = follow_files(files, certificates, Some(metrics.clone()));
            tasks.spawn(async move {
                keeping.await;
                Ended("files of the webhooks' certificate", Ok(()))
            });
        }
        None => {
            let client = server.requests().context("the Kubernetes client cannot be made")?;
            let secret = options.webhooks.secret(client.default_namespace());
            let keeping = keep_certificate(client, secret, certificates, metrics.clone());
            tasks.spawn(async move {
                keeping.await;
                Ended("webhooks' certificate", Ok(()))
            });
        }
    }
    tasks.spawn(async move {
        let ended = admission::serve(listener, &served, reviewer, metrics).await;
        Ended("webhooks", ended.map_err(Into::into))
    });
    Ok(())
}

/// Waits until the process has to stop.
async fn stopping(
    mut candidacy: watch::Receiver<Candidacy>,
    leadership: watch::Sender<Leadership>,
) -> Result<(), LeaseError> {
    let stopping = candidacy.wait_for(|candidacy| candidacy.stopping).await;
    drop(leadership);
    stopping.map(drop).map_err(|_| LeaseError::Deserted)
}

async fn kubernetes(kubeconfig: Option<&Path>) -> anyhow::Result<kube::Config> {
    match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("the kubeconfig {} cannot be read", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("the kubeconfig {} cannot be used", path.display()))
        }
        None => kube::Config::infer().await.context(
            "no Kubernetes configuration found: give --kubeconfig, or run inside the cluster with a ServiceAccount",
        ),
    }
}
