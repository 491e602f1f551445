//! What the tasks of a connection share: the calls that wait for replies, what a connection is made for, and why it ends.

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

/// Why a connection ended, or a call on it failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectionError {
    /// The server closed it.
    #[error("the server closed the connection")]
    Closed,
    /// Nothing came for so long, not even the answer to a probe.
    #[error("the server has been silent for {0:?}")]
    Silent(Duration),
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(Arc<std::io::Error>),
    /// TLS ended it.
    #[error("{0}")]
    Tls(String),
    /// The stream is not one of JSON objects.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A message that is not what the protocol says.
    #[error("the server sent a message that cannot be read: {0}")]
    Malformed(String),
    /// The database's schema was converted under us.
    #[error("the database was converted to another schema")]
    Converted,
    /// The server is no longer one to be used.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Another connection was made to take its place.
    #[error("the connection was replaced by a newer one")]
    Replaced,
    /// The server answered a call with an error.
    #[error("the server refused \"{method}\": {error}")]
    Refused {
        /// The call.
        method: &'static str,
        /// The server's words, JSON.
        error: String,
    },
}

impl From<std::io::Error> for ConnectionError {
    fn from(error: std::io::Error) -> Self {
        // Since TLS 1.3 a server tells only after the handshake that it refuses our certificate.
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

/// What a connection is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// A server that is silent for so long is asked whether it is there, and left when it stays so.
    pub probe_interval: Duration,
    /// The server must lead its cluster.
    pub leader_only: bool,
    /// The connection ends when the server does not lead its cluster any more. A transaction may stay
    /// unanswered there until somebody else writes, as seen with ovsdb-server 3.1.
    pub ends_with_leadership: bool,
}

/// Who waits for a reply, and what the reader does with it.
pub(super) enum Waiting {
    /// The caller decodes it.
    Reply(oneshot::Sender<Result<Box<RawValue>, String>>),
    /// The reader applies it to the replica, before it reads on.
    Dump(oneshot::Sender<Result<bool, String>>),
    /// The reader takes from it what the server says of itself.
    Server(oneshot::Sender<Result<bool, String>>),
    /// Nobody: that something comes is all that counts.
    Nobody,
}

/// The calls that wait for their replies.
#[derive(Default)]
pub(super) struct Calls {
    next_id: u64,
    waiting: HashMap<u64, Waiting>,
    closed: bool,
}

impl Calls {
    /// The number of a call, under which its reply comes. `None` when none will come any more.
    pub(super) fn add(&mut self, waiting: Waiting) -> Option<u64> {
        if self.closed {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.waiting.insert(id, waiting);
        Some(id)
    }

    /// How many calls were made, and how many of them wait.
    pub(super) fn counts(&self) -> (u64, usize) {
        (self.next_id, self.waiting.len())
    }

    /// No reply will come any more: who waits learns that its outcome is unknown.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.waiting.clear();
    }

    /// Who waits for the reply of that number.
    pub(super) fn take(&mut self, id: u64) -> Option<Waiting> {
        self.waiting.remove(&id)
    }

    /// The number of the call whose reply is a dump, where there is one.
    pub(super) fn awaited_dump(&self) -> Option<u64> {
        self.waiting.iter().find(|(_, waiting)| matches!(waiting, Waiting::Dump(_))).map(|(id, _)| *id)
    }

    /// Whether the first sync is under way: the server may be busy with it, and silent, for long.
    pub(super) fn is_syncing(&self) -> bool {
        self.awaited_dump().is_some()
    }
}

pub(super) fn lock(calls: &Mutex<Calls>) -> MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}
