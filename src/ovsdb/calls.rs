//! The calls that wait for replies, the terms of a connection, and the reasons for its end: shared by its tasks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::codec::CodecError;
use super::member::Unfit;
use super::replica::FeedError;
use super::stream::StreamError;
use super::tls::plain;

/// The reason for the end of a connection, or for the failure of a call.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectionError {
    /// The server closed it.
    #[error("the server closed the connection")]
    Closed,
    /// No byte came for this long, and the server answered no probe.
    #[error("the server has been silent for {0:?}")]
    Silent(Duration),
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(Arc<std::io::Error>),
    /// TLS ended it.
    #[error("{0}")]
    Tls(String),
    /// The stream does not consist of JSON objects.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A message that does not follow the protocol.
    #[error("the server sent a message that cannot be read: {0}")]
    Malformed(String),
    /// The database's schema was converted while it was monitored.
    #[error("the database was converted to another schema")]
    Converted,
    /// The server can no longer be used.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// A newer connection replaced it.
    #[error("the connection was replaced by a newer one")]
    Replaced,
    /// The server answered a call with an error.
    #[error("the server refused \"{method}\": {error}")]
    Refused {
        /// The call.
        method: &'static str,
        /// The server's error, as JSON.
        error: String,
    },
}

impl From<std::io::Error> for ConnectionError {
    fn from(error: std::io::Error) -> Self {
        // Since TLS 1.3 a server reports only after the handshake that it refuses our certificate.
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(inner) => Self::Tls(plain(inner)),
            None => Self::Io(Arc::new(error)),
        }
    }
}

impl From<StreamError> for ConnectionError {
    fn from(error: StreamError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<FeedError> for ConnectionError {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Replaced => Self::Replaced,
            FeedError::Malformed(error) => Self::Malformed(error.to_string()),
        }
    }
}

/// The conditions of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// A server that is silent for this long is probed. If it stays silent, the connection ends.
    pub probe_interval: Duration,
    /// The server must lead its cluster.
    pub leader_only: bool,
    /// The connection ends when the server stops leading its cluster. Such a server may leave a transaction unanswered
    /// until another client writes, as seen with ovsdb-server 3.1.
    pub ends_with_leadership: bool,
}

/// The receiver of a reply, and the reader's task when it comes.
pub(super) enum Waiting {
    /// The caller decodes it.
    Reply(oneshot::Sender<Result<Box<RawValue>, String>>),
    /// The reader applies it to the replica, before it reads on.
    Dump(oneshot::Sender<Result<bool, String>>),
    /// The reader updates the member's state from it.
    Server(oneshot::Sender<Result<bool, String>>),
    /// The answer to a probe, which is dropped: any byte is a sign of life.
    Probe,
}

/// The calls that wait for their replies.
#[derive(Default)]
pub(super) struct Calls {
    next_id: u64,
    waiting: HashMap<u64, Waiting>,
    closed: bool,
}

impl Calls {
    /// Registers a call and returns the number of its reply. `None` if the connection has ended.
    pub(super) fn add(&mut self, waiting: Waiting) -> Option<u64> {
        if self.closed {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.waiting.insert(id, waiting);
        Some(id)
    }

    /// Returns the number of calls made, and the number of calls that wait.
    pub(super) fn counts(&self) -> (u64, usize) {
        (self.next_id, self.waiting.len())
    }

    /// Drops all calls: their callers get an unknown outcome.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.waiting.clear();
    }

    /// Returns and removes the receiver of the reply with this number.
    pub(super) fn take(&mut self, id: u64) -> Option<Waiting> {
        self.waiting.remove(&id)
    }

    /// The number of the call that waits for a dump, if there is one.
    pub(super) fn awaited_dump(&self) -> Option<u64> {
        self.waiting.iter().find(|(_, waiting)| matches!(waiting, Waiting::Dump(_))).map(|(id, _)| *id)
    }

    /// Returns true during the first sync, when a busy server may be silent for long.
    pub(super) fn is_syncing(&self) -> bool {
        self.awaited_dump().is_some()
    }
}

pub(super) fn lock(calls: &Mutex<Calls>) -> MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}
