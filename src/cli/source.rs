//! Where a command reads: through the API of a service, or straight from the databases.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::plugin::{self, Forwarded, Listener};
use crate::api::rpc::{ApiClient, ApiUrl, ClientError, Credentials};
use crate::config::NorthboundOptions;
use crate::ovn::{Northbound, Southbound};
use crate::ovsdb::{Connection, Remotes, Replica, Session, Shared, Target};

/// Options of the commands that read.
#[derive(Debug, Clone, Args)]
pub(super) struct SourceOptions {
    /// The API of a running service: http://HOST:PORT, https://HOST:PORT, or ADDRESS:PORT as given to `run --api`.
    /// Without it, and where none answers, the databases are read
    #[arg(long, env = "OVN_KUBEVIRT_API", value_name = "URL")]
    api: Option<ApiUrl>,

    /// The file of the API's token
    #[arg(long, env = "OVN_KUBEVIRT_API_TOKEN", value_name = "FILE")]
    api_token: Option<PathBuf>,

    /// For https: the CA that issued the API's certificate
    #[arg(long, env = "OVN_KUBEVIRT_API_CA", value_name = "FILE")]
    api_ca: Option<PathBuf>,

    #[command(flatten)]
    northbound: NorthboundOptions,

    /// The southbound database, written as --nb: shows where each port is bound
    #[arg(long, env = "OVN_KUBEVIRT_SB", value_name = "REMOTES")]
    sb: Option<Remotes>,

    /// The API is that of a forwarded port.
    #[arg(skip)]
    is_forwarded: bool,
}

/// The data of a command.
pub(super) enum Source {
    /// A service.
    Api(Box<ApiClient>),
    /// The databases, without the data that only a service has.
    Databases(Databases),
}

/// The databases at one moment, and from then on as long as the connections live.
pub(super) struct Databases {
    pub(super) northbound: Arc<Shared<Northbound>>,
    pub(super) southbound: Option<Arc<Shared<Southbound>>>,
    connections: Vec<Connection>,
}

impl Databases {
    /// Returns true if a connection is lost: the shown rows are old from then on.
    pub(super) fn are_lost(&self) -> bool {
        self.connections.iter().any(Connection::is_closed)
    }
}

/// The listener of `--api`, which has no port by default.
const LISTENER: Listener = Listener { variable: "OVN_KUBEVIRT_API", port: None, has_tls: true };

impl SourceOptions {
    /// As a plugin of kubectl: reads through the API of the process that writes, wherever it is in the cluster, for as long
    /// as the forwarded port lives. The API listens on the pod's loopback address.
    pub(super) async fn forward(&mut self) -> anyhow::Result<Forwarded> {
        let forwarded = plugin::forward(&self.northbound.instance, &LISTENER).await?;
        self.api = forwarded.address.to_string().parse().ok();
        self.is_forwarded = true;
        Ok(forwarded)
    }

    /// Connects to the API, or else to the databases, and says on stderr which it is.
    pub(super) async fn open(&self) -> anyhow::Result<Source> {
        if let Some(url) = &self.api {
            let credentials = Credentials { token: self.api_token.clone(), ca: self.api_ca.clone() };
            match ApiClient::connect(url, &credentials).await {
                Ok(client) => {
                    eprintln!("From the API at {url}.");
                    return Ok(Source::Api(Box::new(client)));
                }
                // A service is there, and its word counts.
                Err(error @ ClientError::Refused { .. }) => return Err(error.into()),
                // The databases of this machine are others.
                Err(error) if self.is_forwarded => return Err(error.into()),
                Err(error) => eprintln!("{error}."),
            }
        }
        let databases = self.databases().await?;
        let southbound = self.sb.as_ref().map_or_else(String::new, |sb| format!(" and {sb}"));
        eprintln!("From the database {}{southbound}: problems are known to a service alone.", self.northbound.nb);
        Ok(Source::Databases(databases))
    }

    async fn databases(&self) -> anyhow::Result<Databases> {
        // Any member of a cluster can be read.
        let target = Target { leader_only: false, ..self.northbound.target() };
        let mut connections = Vec::new();
        let southbound = match &self.sb {
            Some(remotes) => {
                let target = Target { remotes: remotes.clone(), ..target.clone() };
                let (shared, connection) = read(target, Southbound::default()).await?;
                connections.push(connection);
                Some(shared)
            }
            None => None,
        };
        let (northbound, connection) = read(target, Northbound::new(self.northbound.instance.clone())).await?;
        connections.push(connection);
        Ok(Databases { northbound, southbound, connections })
    }

    /// The scope of the search, for a message.
    pub(super) fn scope(&self) -> String {
        format!("instance \"{}\"", self.northbound.instance)
    }
}

async fn read<R: Replica>(target: Target, replica: R) -> anyhow::Result<(Arc<Shared<R>>, Connection)> {
    let shared = Arc::new(Shared::new(replica));
    let connection = Session::new(target, Arc::clone(&shared)).connect().await?;
    Ok((shared, connection))
}
