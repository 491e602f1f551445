//! From a list of remotes to a connection whose schema is known to fit.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use super::connection::{Connection, ConnectionError};
use super::remote::{Remote, Remotes};
use super::replica::{Replica, Shared};
use super::schema::{Schema, SchemaError};

/// How long a TCP connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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
pub async fn connect<R: Replica>(remotes: &Remotes, shared: &Arc<Shared<R>>) -> Result<Connection, SessionError> {
    let mut reason = "no remote is given".to_owned();
    for remote in &remotes.0 {
        match open(remote, shared).await {
            Ok(connection) => {
                handshake::<R>(&connection).await?;
                return Ok(connection);
            }
            Err(error) => reason = format!("{remote}: {error}"),
        }
    }
    Err(SessionError::Unreachable { remotes: remotes.clone(), reason })
}

async fn open<R: Replica>(remote: &Remote, shared: &Arc<Shared<R>>) -> std::io::Result<Connection> {
    match remote {
        Remote::Unix(path) => {
            let (input, output) = UnixStream::connect(path).await?.into_split();
            Ok(Connection::start(input, output, Arc::clone(shared)))
        }
        Remote::Tcp { host, port } => {
            let connecting = TcpStream::connect((host.as_str(), *port));
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| {
                std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer in {CONNECT_TIMEOUT:?}"))
            })??;
            stream.set_nodelay(true)?;
            let (input, output) = stream.into_split();
            Ok(Connection::start(input, output, Arc::clone(shared)))
        }
    }
}

async fn handshake<R: Replica>(connection: &Connection) -> Result<(), SessionError> {
    // Without it a schema conversion would cut us off (ovsdb-server(7), "Set Database Change Aware").
    let _: serde::de::IgnoredAny = connection.call("set_db_change_aware", &[true]).await?;
    let schema: Schema = connection.call("get_schema", &[R::DATABASE]).await?;
    schema.check(R::TABLES)?;
    Ok(())
}
