//! From a list of remotes to a replica in sync, again and again.
//!
//! ```text
//!   each place in turn:  open -> _Server: fit? leader? not behind? -> schema: fits? -> monitor -> connected
//!                          |                 |                           |                |
//!                          +-----------------+------ the next place -----+----------------+
//! ```
//!
//! A [`Session`] outlives its connections. It remembers how far the cluster's log was when last seen,
//! so that no member is read that is behind it, and goes on with the next place, not with the one that
//! has just failed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use uuid::Uuid;

use super::connection::{Connection, ConnectionError, Terms};
use super::member::{Member, Model, Unfit};
use super::remote::{Remote, Remotes};
use super::replica::{Replica, Shared};
use super::row::TableSpec;
use super::schema::{Schema, SchemaError};
use super::tls::{TlsError, TlsFiles, plain};

/// How long a server may take to connect and for the short answers of the handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where there are others to turn to; doubled with every round that none of them served.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);

/// A database: where it listens, and how to speak with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Tried in turn.
    pub remotes: Remotes,
    /// Needed for `ssl:` remotes.
    pub tls: Option<TlsFiles>,
    /// A server that is silent for so long is asked whether it is there, and left when it stays so.
    pub probe_interval: Duration,
    /// Of a cluster's members only the leader will do. A local socket is connected all the same: there
    /// is no other, and its member may come to lead.
    pub leader_only: bool,
}

impl Target {
    fn terms(&self) -> Terms {
        let local = matches!(self.remotes.0[..], [Remote::Unix(_)]);
        Terms {
            probe_interval: self.probe_interval,
            leader_only: self.leader_only && !local,
            ends_with_leadership: self.leader_only,
        }
    }
}

/// Why no session came about. All may pass with time.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// None of the remotes would do.
    #[error("no database answers at {remotes}: {reason}")]
    Unreachable {
        /// All that were tried.
        remotes: Remotes,
        /// What each of them said.
        reason: String,
    },
    /// The server's schema lacks what we need.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// A database, over all the connections to it.
pub struct Session<R> {
    target: Target,
    shared: Arc<Shared<R>>,
    /// The place to begin with.
    next: usize,
    patience: Duration,
    /// The cluster that was seen last, and how far its log was.
    seen: (Option<Uuid>, i64),
    /// What the member of the last connection says of itself.
    member: Option<watch::Receiver<Option<Member>>>,
    resumed: bool,
}

/// Where one server may be: a remote, and one of the addresses that its name has.
struct Place {
    remote: Remote,
    address: Option<SocketAddr>,
}

impl<R: Replica> Session<R> {
    /// A session that has not been connected yet.
    pub fn new(target: Target, shared: Arc<Shared<R>>) -> Self {
        Self { target, shared, next: 0, patience: FIRST_PATIENCE, seen: (None, 0), member: None, resumed: false }
    }

    /// Where it connects to.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Whether the last connection's server sent only what the replica lacked.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// Connects to the first server that will do. The replica is in sync when this returns.
    pub async fn connect(&mut self) -> Result<Connection, SessionError> {
        if let Some(member) = self.member.take() {
            let last = *member.borrow();
            self.note(last);
        }
        let places = places(&self.target.remotes).await;
        let patience = if places.len() > 1 { self.patience } else { PATIENCE };
        let mut reasons = Vec::new();
        let mut unfit = None;
        for offset in 0..places.len() {
            let index = (self.next + offset) % places.len();
            match self.try_place(&places[index], patience).await {
                Ok((connection, resumed)) => {
                    self.resumed = resumed;
                    self.next = index + 1;
                    self.patience = FIRST_PATIENCE;
                    let member = connection.member();
                    let present = *member.borrow();
                    self.note(present);
                    self.member = Some(member);
                    return Ok(connection);
                }
                Err(PlaceError::Schema(error)) => unfit = Some(error),
                Err(error) => reasons.push(match places[index].address {
                    Some(address) => format!("{} ({}): {error}", places[index].remote, address.ip()),
                    None => format!("{}: {error}", places[index].remote),
                }),
            }
        }
        self.patience = (self.patience * 2).min(PATIENCE);
        // A database that answered and does not fit is the better news.
        match unfit {
            Some(error) => Err(error.into()),
            None => Err(SessionError::Unreachable { remotes: self.target.remotes.clone(), reason: reasons.join("; ") }),
        }
    }

    async fn try_place(&self, place: &Place, patience: Duration) -> Result<(Connection, bool), PlaceError> {
        let opening = open(place, self.target.tls.as_ref(), self.target.terms(), &self.shared);
        let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer in {patience:?}"));
        let connection = tokio::time::timeout(patience, opening).await.map_err(|_| PlaceError::Io(late()))??;
        let tables = tokio::time::timeout(patience, self.handshake(&connection))
            .await
            .map_err(|_| PlaceError::NoAnswer(patience))??;
        // A first sync takes as long as it takes: the probe watches over it.
        let resumed = connection.monitor(&tables).await?;
        Ok((connection, resumed))
    }

    /// Returns the tables to monitor.
    async fn handshake(&self, connection: &Connection) -> Result<Vec<TableSpec>, PlaceError> {
        // Without it a schema conversion would cut us off (ovsdb-server(7), "Set Database Change Aware").
        let _: serde::de::IgnoredAny = connection.call("set_db_change_aware", &[true]).await?;
        connection.monitor_server().await?;
        let member = *connection.member().borrow();
        if let Some(Member { model: Model::Clustered { cluster, index }, .. }) = member
            && cluster == self.seen.0
            && index < self.seen.1
        {
            return Err(ConnectionError::Unfit(Unfit::Behind { index, seen: self.seen.1 }).into());
        }
        let schema: Schema = connection.call("get_schema", &[R::DATABASE]).await?;
        schema.check(R::TABLES)?;
        Ok([R::TABLES, &schema.present(R::OPTIONAL)].concat())
    }

    /// Remembers how far a member was.
    fn note(&mut self, member: Option<Member>) {
        let Some(Member { model: Model::Clustered { cluster, index }, .. }) = member else { return };
        let before = if cluster == self.seen.0 { self.seen.1 } else { i64::MIN };
        self.seen = (cluster, index.max(before));
    }
}

/// All addresses of all remotes: the name of a cluster may have one for each member.
async fn places(remotes: &Remotes) -> Vec<Place> {
    let mut places = Vec::new();
    for remote in &remotes.0 {
        let addresses: Vec<SocketAddr> = match remote {
            Remote::Unix(_) => Vec::new(),
            Remote::Tcp { host, port } | Remote::Ssl { host, port } => {
                let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host.as_str(), *port))).await;
                found.ok().and_then(Result::ok).map(Iterator::collect).unwrap_or_default()
            }
        };
        if addresses.len() > 1 {
            let place = |address| Place { remote: remote.clone(), address: Some(address) };
            places.extend(addresses.into_iter().map(place));
        } else {
            // One address is looked up again, and a failure of that is told, when it is dialled.
            places.push(Place { remote: remote.clone(), address: None });
        }
    }
    places
}

#[derive(Debug, thiserror::Error)]
enum PlaceError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Handshake(String),
    #[error("connected, but no OVSDB answer in {0:?}")]
    NoAnswer(Duration),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

async fn open<R: Replica>(
    place: &Place,
    tls: Option<&TlsFiles>,
    terms: Terms,
    shared: &Arc<Shared<R>>,
) -> Result<Connection, PlaceError> {
    let shared = Arc::clone(shared);
    match &place.remote {
        Remote::Unix(path) => {
            let (input, output) = UnixStream::connect(path).await?.into_split();
            Ok(Connection::start(input, output, terms, shared))
        }
        Remote::Tcp { host, port } => {
            let (input, output) = dial(host, *port, place.address).await?.into_split();
            Ok(Connection::start(input, output, terms, shared))
        }
        Remote::Ssl { host, port } => {
            let connector = tls.ok_or(TlsError::NoFiles)?.connector()?;
            let name = ServerName::try_from(host.clone())
                .map_err(|error| PlaceError::Handshake(format!("\"{host}\" is no host name: {error}")))?;
            let stream = connector.connect(name, dial(host, *port, place.address).await?).await;
            let (input, output) = tokio::io::split(stream.map_err(handshake_error)?);
            Ok(Connection::start(input, output, terms, shared))
        }
    }
}

async fn dial(host: &str, port: u16, address: Option<SocketAddr>) -> std::io::Result<TcpStream> {
    let stream = match address {
        Some(address) => TcpStream::connect(address).await?,
        None => TcpStream::connect((host, port)).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// rustls' own error, where there is one inside, in plain words.
fn handshake_error(error: std::io::Error) -> PlaceError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => PlaceError::Handshake(plain(inner)),
        None => PlaceError::Io(error),
    }
}
