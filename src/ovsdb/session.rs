//! From a list of remotes to a replica in sync, again and again.
//!
//! ```text
//!   each place in turn:  open -> _Server: fit? leader? not behind? -> schema: fits? -> monitor -> connected
//!                          |                 |                           |                |
//!                          +-----------------+------ the next place -----+----------------+
//! ```
//!
//! A [`Session`] outlives its connections. It remembers how far the cluster's log was when last seen,
//! so that no member is read that is behind it (unless all of them were rolled back: `progress.rs`), and goes on with the
//! next place, not with the one that has just failed.

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
    progress: Progress,
    /// What the member of the last connection says of itself.
    member: Option<watch::Receiver<Option<Member>>>,
    resumed: bool,
    rolled_back: bool,
    /// The database was rolled back, and the replica has not been read since.
    must_reread: bool,
}

/// Where one server may be: a remote, and one of the addresses that its name has.
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

    /// Where it connects to.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Whether the last connection's server sent only what the replica lacked.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// Whether the database was found to be an older one again when the last connection was made: what was committed since
    /// is lost, and the replica has been read anew.
    pub fn rolled_back(&self) -> bool {
        self.rolled_back
    }

    /// Connects to the first server that will do. The replica is in sync when this returns.
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
        // A database that answered and does not fit is the better news.
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
        // Kept until a connection is made: where this one breaks off, the next reads all of it anew.
        self.must_reread |= rolled_back;
        self.shared.write().note_schema(&schema);
        let lacking: Vec<_> =
            R::OPTIONAL_COLUMNS.iter().copied().filter(|(table, column)| !schema.has(table, column)).collect();
        // A first sync takes as long as it takes: the probe watches over it.
        let tables = [R::TABLES, &schema.present(R::OPTIONAL_TABLES)].concat();
        let resumed = connection.monitor_without(&tables, &lacking, !self.must_reread).await?;
        Ok((connection, resumed, std::mem::take(&mut self.must_reread)))
    }

    /// What the database can do, if the server will do, and whether the database was rolled back.
    async fn handshake(&mut self, connection: &Connection) -> Result<(Schema, bool), PlaceError> {
        // Without it a schema conversion would cut us off (ovsdb-server(7), "Set Database Change Aware").
        let _: serde::de::IgnoredAny = connection.call("set_db_change_aware", &[true]).await?;
        connection.monitor_server().await?;
        let member = *connection.member().borrow();
        let schema: Schema = connection.call("get_schema", &[R::DATABASE]).await?;
        schema.check_but(R::TABLES, R::OPTIONAL_COLUMNS)?;
        // Last, as a verdict that it was rolled back is given once.
        let Some(member @ Member { model: Model::Clustered { index, .. }, leader, .. }) = member else {
            return Ok((schema, false));
        };
        match self.progress.judge(&member, Instant::now()) {
            Verdict::Current => Ok((schema, false)),
            Verdict::Behind(seen) => Err(ConnectionError::Unfit(Unfit::Behind { index, seen, leader }).into()),
            Verdict::RolledBack(seen) => {
                tracing::warn!(
                    database = R::DATABASE,
                    index,
                    seen,
                    leader,
                    "the database's cluster was rolled back: its log ends before what was read from it, and stays there. What was committed since is lost; reading all of it anew"
                );
                Ok((schema, true))
            }
        }
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
