//! From a list of remotes to a replica in sync, over any number of connections.
//!
//! ```text
//!   each place in turn:  open -> _Server: fit? leader? not behind? -> schema: fits? -> monitor -> connected
//!                          |                 |                           |                |
//!                          +-----------------+------ the next place -----+----------------+
//! ```
//!
//! A [`Session`] outlives its connections. It remembers the last known index of the cluster's log, so that no member
//! behind it is read (unless all of them were rolled back: `progress.rs`). After a failure it continues with the next
//! place.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

use super::calls::{ConnectionError, Terms};
use super::connection::Connection;
use super::member::{Member, Model, Unfit};
use super::progress::{Progress, Verdict};
use super::remote::{Remote, Remotes};
use super::replica::{Replica, Shared};
use super::row::TableSpec;
use super::schema::{OptionalColumn, Schema, SchemaError};
use super::tls::{TlsError, TlsFiles, plain};

/// The time limit for connecting, and for each short answer of the handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first time limit if there are other places. It doubles with every round in which all of them failed.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);

/// A database: its remotes and the options of its connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Tried in turn.
    pub remotes: Remotes,
    /// Needed for `ssl:` remotes.
    pub tls: Option<TlsFiles>,
    /// A server that is silent for this long is probed. If it stays silent, the connection ends.
    pub probe_interval: Duration,
    /// Only the leader of a cluster is used. A local socket is connected all the same: it has no alternative,
    /// and its member may become the leader.
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

/// The reason why no session was made. Each may pass with time.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No remote can be used.
    #[error("no database answers at {remotes}: {reason}")]
    Unreachable {
        /// The remotes that were tried.
        remotes: Remotes,
        /// The errors, one for each place.
        reason: String,
    },
    /// The server's schema lacks tables or columns that we need.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// A database, across all connections to it.
pub struct Session<R> {
    target: Target,
    shared: Arc<Shared<R>>,
    /// The index of the place to try first.
    next: usize,
    patience: Duration,
    /// The last cluster, and the last known index of its log.
    progress: Progress,
    /// The member's report on the last connection.
    member: Option<watch::Receiver<Option<Member>>>,
    resumed: bool,
    rolled_back: bool,
    /// The database was rolled back, and the replica has not been read again since.
    must_reread: bool,
}

/// A place to find a server: a remote, and one address of its host name.
struct Place {
    remote: Remote,
    address: Option<SocketAddr>,
}

impl<R: Replica> Session<R> {
    /// A session that has not been connected yet.
    pub fn new(target: Target, shared: Arc<Shared<R>>) -> Self {
        Self {
            target,
            shared,
            next: 0,
            patience: FIRST_PATIENCE,
            progress: Progress::default(),
            member: None,
            resumed: false,
            rolled_back: false,
            must_reread: false,
        }
    }

    /// The target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Returns true if the last connection's server sent only the changes that the replica lacked.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// Returns true if the last connection found the database rolled back: later commits are lost, and the replica has
    /// been read again.
    pub fn rolled_back(&self) -> bool {
        self.rolled_back
    }

    /// Connects to the first usable server. The replica is in sync when this returns.
    pub async fn connect(&mut self) -> Result<Connection, SessionError> {
        if let Some(member) = self.member.take() {
            let last = *member.borrow();
            self.progress.note(last);
        }
        let places = places(&self.target.remotes).await;
        let patience = if places.len() > 1 { self.patience } else { PATIENCE };
        let mut reasons = Vec::new();
        let mut unfit = None;
        let (mut leader_behind, mut follower_behind) = (false, false);
        for offset in 0..places.len() {
            let index = (self.next + offset) % places.len();
            match self.try_place(&places[index], patience).await {
                Ok((connection, resumed, rolled_back)) => {
                    self.shared.record_connection();
                    self.resumed = resumed;
                    self.rolled_back = rolled_back;
                    self.next = index + 1;
                    self.patience = FIRST_PATIENCE;
                    let member = connection.member();
                    let present = *member.borrow();
                    self.progress.note(present);
                    self.member = Some(member);
                    return Ok(connection);
                }
                Err(PlaceError::Schema(error)) => unfit = Some(error),
                Err(error) => {
                    if let PlaceError::Connection(ConnectionError::Unfit(Unfit::Behind { leader, .. })) = &error {
                        leader_behind |= leader;
                        follower_behind |= !leader;
                    }
                    reasons.push(match places[index].address {
                        Some(address) => format!("{} ({}): {error}", places[index].remote, address.ip()),
                        None => format!("{}: {error}", places[index].remote),
                    });
                }
            }
        }
        self.progress.tried_all(leader_behind, follower_behind);
        self.patience = (self.patience * 2).min(PATIENCE);
        // An unfit database that answered tells the operator more.
        match unfit {
            Some(error) => Err(error.into()),
            None => Err(SessionError::Unreachable { remotes: self.target.remotes.clone(), reason: reasons.join("; ") }),
        }
    }

    async fn try_place(&mut self, place: &Place, patience: Duration) -> Result<(Connection, bool, bool), PlaceError> {
        let opening = open(place, self.target.tls.as_ref(), self.target.terms(), &self.shared);
        let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer in {patience:?}"));
        let connection = tokio::time::timeout(patience, opening).await.map_err(|_| PlaceError::Io(late()))??;
        let (schema, rolled_back) = tokio::time::timeout(patience, self.handshake(&connection))
            .await
            .map_err(|_| PlaceError::NoAnswer(patience))??;
        // Kept until a connection is made: if this one fails, the next reads everything again.
        self.must_reread |= rolled_back;
        self.shared.write().note_schema(&schema);
        let (tables, lacking) = asked(&*self.shared.read(), &schema);
        // A first sync may take long: the probe supervises it.
        let resumed = connection.monitor_without(&tables, &lacking, !self.must_reread).await?;
        Ok((connection, resumed, std::mem::take(&mut self.must_reread)))
    }

    /// Returns the schema if the server is fit, and true if the database was rolled back.
    async fn handshake(&mut self, connection: &Connection) -> Result<(Schema, bool), PlaceError> {
        // Otherwise a schema conversion would close the connection (ovsdb-server(7), "Set Database Change Aware").
        let _: serde::de::IgnoredAny = connection.call("set_db_change_aware", &[true]).await?;
        connection.monitor_server().await?;
        let member = *connection.member().borrow();
        let schema: Schema = connection.call("get_schema", &[R::DATABASE]).await?;
        schema.check_but(R::TABLES, R::OPTIONAL_COLUMNS)?;
        // Last, as a rollback is reported only once.
        let Some(member @ Member { model: Model::Clustered { index, .. }, leader, .. }) = member else {
            return Ok((schema, false));
        };
        match self.progress.compare(&member, Instant::now()) {
            Verdict::Current => Ok((schema, false)),
            Verdict::Behind(seen) => Err(ConnectionError::Unfit(Unfit::Behind { index, seen, leader }).into()),
            Verdict::RolledBack(seen) => {
                tracing::warn!(
                    database = R::DATABASE,
                    index,
                    seen,
                    leader,
                    "the database's cluster was rolled back: its log stays behind the part that was already read. Later commits are lost; reading the whole database again"
                );
                Ok((schema, true))
            }
        }
    }
}

/// The tables that a replica monitors on a server with this schema, and their columns that it does not.
fn asked<R: Replica>(replica: &R, schema: &Schema) -> (Vec<TableSpec>, Vec<OptionalColumn>) {
    let mut tables = [R::TABLES, &schema.present(R::OPTIONAL_TABLES, R::OPTIONAL_COLUMNS)].concat();
    tables.retain(|table| !table.columns.iter().all(|column| replica.leaves_out(table.name, column.name)));
    let columns = tables.iter().flat_map(|table| table.columns.iter().map(|column| (table.name, column.name)));
    let is_missing = |column: &OptionalColumn| R::OPTIONAL_COLUMNS.contains(column) && !schema.has(column.0, column.1);
    let lacking = columns.filter(|column| is_missing(column) || replica.leaves_out(column.0, column.1)).collect();
    (tables, lacking)
}

/// All addresses of all remotes: a cluster's host name may have one for each member.
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
            // A single address is resolved again when it is dialled, which reports a failure.
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

/// Returns rustls' own error in plain words, if there is one inside.
fn handshake_error(error: std::io::Error) -> PlaceError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => PlaceError::Handshake(plain(inner)),
        None => PlaceError::Io(error),
    }
}
