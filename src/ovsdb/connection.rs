//! One connection: a reader task and a writer task, and the calls that wait for replies.
//!
//! The two end together; then every call that waits learns that its outcome is unknown, and
//! [`Connection::closed`] says why. A connection is never mended: a new one is made.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::codec::{CodecError, Splitter};
use super::message::{Incoming, echo_reply, request};
use super::operation::{Outcome, Rejection, RejectionKind, Transaction};
use super::replica::{Replica, Shared, apply_dump, apply_update};
use super::row::TableSpec;

/// How much is read from the socket at once.
const READ_SIZE: usize = 256 * 1024;

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
    /// The stream is not one of JSON objects.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A message that is not what the protocol says.
    #[error("the server sent a message that cannot be read: {0}")]
    Malformed(String),
    /// The database's schema was converted under us.
    #[error("the database was converted to another schema")]
    Converted,
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
        Self::Io(Arc::new(error))
    }
}

/// Who waits for a reply, and what the reader does with it.
enum Waiting {
    /// The caller decodes it.
    Reply(oneshot::Sender<Result<Box<RawValue>, String>>),
    /// The reader applies it to the replica, before it reads on.
    Dump(oneshot::Sender<Result<(), String>>),
}

#[derive(Default)]
struct Calls {
    next_id: u64,
    waiting: HashMap<u64, Waiting>,
    closed: bool,
}

/// A live connection to one server and one database.
pub struct Connection {
    database: &'static str,
    outgoing: mpsc::UnboundedSender<Bytes>,
    calls: Arc<Mutex<Calls>>,
    ended: watch::Receiver<Option<ConnectionError>>,
    tasks: [AbortHandle; 2],
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Connection {
    /// Starts the two tasks on a stream.
    pub fn start<R: Replica>(
        input: impl AsyncRead + Send + Unpin + 'static,
        output: impl AsyncWrite + Send + Unpin + 'static,
        probe_interval: Duration,
        shared: Arc<Shared<R>>,
    ) -> Self {
        let (outgoing, queue) = mpsc::unbounded_channel();
        let (ended_sender, ended) = watch::channel(None);
        let calls = Arc::new(Mutex::new(Calls::default()));
        let heard = Arc::new(AtomicU64::new(0));
        let reader =
            Reader { shared, calls: Arc::clone(&calls), outgoing: outgoing.clone(), heard: Arc::clone(&heard) };
        let probe = probe(probe_interval, heard, Arc::clone(&calls), outgoing.clone());
        let writer = tokio::spawn(write(output, queue));
        let writer_abort = writer.abort_handle();
        let reader_calls = Arc::clone(&calls);
        let reader = tokio::spawn(async move {
            let error = tokio::select! {
                error = reader.run(input) => error,
                written = writer => written.unwrap_or(ConnectionError::Closed),
                silent = probe => silent,
            };
            // Dropping the senders tells each waiting caller that its reply will not come.
            let mut calls = lock(&reader_calls);
            calls.closed = true;
            calls.waiting.clear();
            drop(calls);
            ended_sender.send_replace(Some(error));
        });
        Self { database: R::DATABASE, outgoing, calls, ended, tasks: [reader.abort_handle(), writer_abort] }
    }

    /// Whether it has ended: said so by its tasks, or its tasks were dropped with their runtime.
    pub fn is_closed(&self) -> bool {
        self.outgoing.is_closed() || self.ended.has_changed().is_err() || self.ended.borrow().is_some()
    }

    /// Waits for the end of the connection and says why it ended.
    pub async fn closed(&self) -> ConnectionError {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or(ConnectionError::Closed),
            Err(_) => ConnectionError::Closed,
        }
    }

    /// Queues a request; `None` when the connection is gone already.
    fn send(&self, method: &str, params: &impl Serialize, waiting: Waiting) -> Result<bool, serde_json::Error> {
        let mut calls = lock(&self.calls);
        if calls.closed {
            return Ok(false);
        }
        let id = calls.next_id;
        let bytes = request(id, method, params)?;
        calls.next_id += 1;
        calls.waiting.insert(id, waiting);
        if self.outgoing.send(bytes).is_err() {
            calls.waiting.remove(&id);
            return Ok(false);
        }
        Ok(true)
    }

    /// Calls a method and decodes its result.
    pub async fn call<T: serde::de::DeserializeOwned>(
        &self,
        method: &'static str,
        params: &impl Serialize,
    ) -> Result<T, ConnectionError> {
        let (sender, receiver) = oneshot::channel();
        let malformed = |error: serde_json::Error| ConnectionError::Malformed(format!("{method}: {error}"));
        if !self.send(method, params, Waiting::Reply(sender)).map_err(malformed)? {
            return Err(self.closed().await);
        }
        match receiver.await {
            Ok(Ok(result)) => serde_json::from_str(result.get()).map_err(malformed),
            Ok(Err(error)) => Err(ConnectionError::Refused { method, error }),
            Err(_) => Err(self.closed().await),
        }
    }

    /// Monitors the replica's tables; returns once the first dump is in the replica.
    pub async fn monitor(&self, tables: &[TableSpec]) -> Result<(), ConnectionError> {
        const METHOD: &str = "monitor_cond_since";
        const NO_TRANSACTION: &str = "00000000-0000-0000-0000-000000000000";
        #[derive(Serialize)]
        struct MonitorRequest {
            columns: Vec<&'static str>,
        }
        let requests: HashMap<&str, [MonitorRequest; 1]> = tables
            .iter()
            .map(|table| {
                let columns = table.columns.iter().map(|column| column.name).collect();
                (table.name, [MonitorRequest { columns }])
            })
            .collect();
        let (sender, receiver) = oneshot::channel();
        let params = (self.database, self.database, requests, NO_TRANSACTION);
        let sent = self.send(METHOD, &params, Waiting::Dump(sender));
        if !sent.map_err(|error| ConnectionError::Malformed(error.to_string()))? {
            return Err(self.closed().await);
        }
        match receiver.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ConnectionError::Refused { method: METHOD, error }),
            Err(_) => Err(self.closed().await),
        }
    }

    /// Sends a transaction and waits for its outcome. When it is `Committed`, the replica has it.
    ///
    /// A caller that goes away while it waits leaves the outcome unknown.
    pub async fn transact(&self, transaction: &Transaction) -> Outcome {
        let (sender, receiver) = oneshot::channel();
        match self.send("transact", &transaction.params(self.database), Waiting::Reply(sender)) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Outcome::NotSent,
        }
        match receiver.await {
            Ok(Ok(result)) => transaction.outcome(&result),
            Ok(Err(error)) => Outcome::Rejected(Rejection {
                operation: None,
                kind: RejectionKind::Other("transact".to_owned()),
                details: error,
            }),
            Err(_) => Outcome::Unknown(self.closed().await.to_string()),
        }
    }
}

fn lock(calls: &Mutex<Calls>) -> MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks a silent server whether it is there (RFC 7047 section 4.1.11), and ends when it stays silent.
/// Any byte counts as an answer: a large reply may be on its way.
async fn probe(
    interval: Duration,
    heard: Arc<AtomicU64>,
    calls: Arc<Mutex<Calls>>,
    outgoing: mpsc::UnboundedSender<Bytes>,
) -> ConnectionError {
    loop {
        let before = heard.load(Ordering::Relaxed);
        tokio::time::sleep(interval).await;
        if heard.load(Ordering::Relaxed) != before {
            continue;
        }
        // The reply is waited for by nobody: that something comes is all that counts.
        let (sender, _) = oneshot::channel();
        let id = {
            let mut calls = lock(&calls);
            let id = calls.next_id;
            calls.next_id += 1;
            calls.waiting.insert(id, Waiting::Reply(sender));
            id
        };
        let Ok(echo) = request(id, "echo", &["ovn-kubevirt"]) else { continue };
        if outgoing.send(echo).is_err() {
            return ConnectionError::Closed;
        }
        tokio::time::sleep(interval).await;
        if heard.load(Ordering::Relaxed) == before {
            return ConnectionError::Silent(interval * 2);
        }
    }
}

/// Writes what is queued until the queue's senders are gone or the socket fails.
async fn write(mut output: impl AsyncWrite + Unpin, mut queue: mpsc::UnboundedReceiver<Bytes>) -> ConnectionError {
    while let Some(bytes) = queue.recv().await {
        if let Err(error) = output.write_all(&bytes).await {
            return error.into();
        }
    }
    ConnectionError::Closed
}

struct Reader<R> {
    shared: Arc<Shared<R>>,
    calls: Arc<Mutex<Calls>>,
    outgoing: mpsc::UnboundedSender<Bytes>,
    /// Counts reads.
    heard: Arc<AtomicU64>,
}

impl<R: Replica> Reader<R> {
    async fn run(self, mut input: impl AsyncRead + Unpin) -> ConnectionError {
        let mut splitter = Splitter::default();
        loop {
            loop {
                match splitter.next_message() {
                    Ok(Some(message)) => {
                        if let Err(error) = self.handle(&message) {
                            return error;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return error.into(),
                }
            }
            splitter.buffer().reserve(READ_SIZE);
            match input.read_buf(splitter.buffer()).await {
                Ok(0) => return ConnectionError::Closed,
                Ok(_) => drop(self.heard.fetch_add(1, Ordering::Relaxed)),
                Err(error) => return error.into(),
            }
        }
    }

    fn handle(&self, message: &[u8]) -> Result<(), ConnectionError> {
        let incoming: Incoming<'_> = serde_json::from_slice(message).map_err(malformed)?;
        match incoming.method.as_deref() {
            Some("echo") => {
                if let Some(id) = incoming.id {
                    let reply = echo_reply(id, incoming.params).map_err(malformed)?;
                    // The writer's end ends the reader too: nothing to do about a failure here.
                    let _ = self.outgoing.send(reply);
                }
                Ok(())
            }
            Some("update3") => {
                let params = incoming.params.map_or("", RawValue::get);
                apply_update(&mut *self.shared.write(), params).map_err(malformed)?;
                self.shared.changed.notify_one();
                Ok(())
            }
            // The schema is being converted: what we monitored is no more, so begin anew.
            Some("monitor_canceled") => Err(ConnectionError::Converted),
            // A notification that we did not ask for concerns us no further (RFC 7047 section 4).
            Some(_) => Ok(()),
            None => self.reply(&incoming),
        }
    }

    fn reply(&self, incoming: &Incoming<'_>) -> Result<(), ConnectionError> {
        let id = incoming.id.and_then(|id| id.get().parse::<u64>().ok());
        let Some(waiting) = id.and_then(|id| lock(&self.calls).waiting.remove(&id)) else {
            return Err(ConnectionError::Malformed("a reply to no request of ours".to_owned()));
        };
        let result = match (incoming.error, incoming.result) {
            (Some(error), _) => Err(error.get().to_owned()),
            (None, Some(result)) => Ok(result),
            (None, None) => Ok(RawValue::NULL),
        };
        match waiting {
            Waiting::Reply(sender) => {
                // A caller that left does not want its reply.
                let _ = sender.send(result.map(ToOwned::to_owned));
            }
            Waiting::Dump(sender) => {
                let applied = match result {
                    Ok(result) => {
                        apply_dump(&mut *self.shared.write(), result.get()).map_err(malformed)?;
                        self.shared.changed.notify_one();
                        Ok(())
                    }
                    Err(error) => Err(error),
                };
                let _ = sender.send(applied);
            }
        }
        Ok(())
    }
}

fn malformed(error: serde_json::Error) -> ConnectionError {
    ConnectionError::Malformed(error.to_string())
}
