//! From a list of remotes to a connection whose schema is known to fit.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};

use super::connection::{Connection, ConnectionError};
use super::remote::{Remote, Remotes};
use super::replica::{Replica, Shared};
use super::schema::{Schema, SchemaError};
use super::tls::{TlsError, TlsFiles, plain};

/// How long a TCP or TLS connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may take for the two short answers of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A database: where it listens, and how to speak TLS with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Tried in turn.
    pub remotes: Remotes,
    /// Needed for `ssl:` remotes.
    pub tls: Option<TlsFiles>,
    /// A server that is silent for so long is asked whether it is there, and left when it stays so.
    pub probe_interval: Duration,
}

/// Why no session came about. All but [`SessionError::Schema`] may pass with time.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// None of the remotes could be reached.
    #[error("no database answers at {remotes}: {reason}")]
    Unreachable {
        /// All that were tried.
        remotes: Remotes,
        /// What the last one said.
        reason: String,
    },
    /// It was lost during the handshake.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The server's schema lacks what we need.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// Connects to the first remote that answers, and checks its schema against the replica's tables.
/// Nothing is monitored yet.
pub async fn connect<R: Replica>(target: &Target, shared: &Arc<Shared<R>>) -> Result<Connection, SessionError> {
    let Target { remotes, tls, probe_interval } = target;
    let mut unfit = None;
    let mut reason = "no remote is given".to_owned();
    for remote in &remotes.0 {
        let connection = match open(remote, tls.as_ref(), *probe_interval, shared).await {
            Ok(connection) => connection,
            Err(error) => {
                reason = format!("{remote}: {error}");
                continue;
            }
        };
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake::<R>(&connection)).await {
            Ok(Ok(())) => return Ok(connection),
            Ok(Err(SessionError::Schema(error))) => unfit = Some(error),
            Ok(Err(error)) => reason = format!("{remote}: {error}"),
            Err(_) => reason = format!("{remote}: connected, but no OVSDB answer in {HANDSHAKE_TIMEOUT:?}"),
        }
    }
    // A database that answered and does not fit is the better news.
    match unfit {
        Some(error) => Err(error.into()),
        None => Err(SessionError::Unreachable { remotes: remotes.clone(), reason }),
    }
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Handshake(String),
}

async fn open<R: Replica>(
    remote: &Remote,
    tls: Option<&TlsFiles>,
    probe_interval: Duration,
    shared: &Arc<Shared<R>>,
) -> Result<Connection, OpenError> {
    let shared = Arc::clone(shared);
    match remote {
        Remote::Unix(path) => {
            let (input, output) = UnixStream::connect(path).await?.into_split();
            Ok(Connection::start(input, output, probe_interval, shared))
        }
        Remote::Tcp { host, port } => {
            let (input, output) = in_time(dial(host, *port)).await?.into_split();
            Ok(Connection::start(input, output, probe_interval, shared))
        }
        Remote::Ssl { host, port } => {
            let connector = tls.ok_or(TlsError::NoFiles)?.connector()?;
            let name = ServerName::try_from(host.clone())
                .map_err(|error| OpenError::Handshake(format!("\"{host}\" is no host name: {error}")))?;
            let stream = in_time(async { connector.connect(name, dial(host, *port).await?).await }).await;
            let (input, output) = tokio::io::split(stream.map_err(handshake_error)?);
            Ok(Connection::start(input, output, probe_interval, shared))
        }
    }
}

async fn dial(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn in_time<T>(opening: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer in {CONNECT_TIMEOUT:?}"));
    tokio::time::timeout(CONNECT_TIMEOUT, opening).await.map_err(|_| late())?
}

/// rustls' own error, where there is one inside, in plain words.
fn handshake_error(error: std::io::Error) -> OpenError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => OpenError::Handshake(plain(inner)),
        None => OpenError::Io(error),
    }
}

async fn handshake<R: Replica>(connection: &Connection) -> Result<(), SessionError> {
    // Without it a schema conversion would cut us off (ovsdb-server(7), "Set Database Change Aware").
    let _: serde::de::IgnoredAny = connection.call("set_db_change_aware", &[true]).await?;
    let schema: Schema = connection.call("get_schema", &[R::DATABASE]).await?;
    schema.check(R::TABLES)?;
    Ok(())
}
