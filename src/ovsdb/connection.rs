//! One connection: a reader, a writer and a probe task, and the calls that wait for replies.
//!
//! The three end together. Then every waiting call gets an unknown outcome, and [`Connection::closed`] returns the
//! reason. A connection is never repaired, only replaced by a new one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::calls::{Calls, ConnectionError, Terms, Waiting, lock};
use super::draft::{Draft, Expected};
use super::member::{Member, Server};
use super::message::request;
use super::operation::{Operation, Outcome, Rejection, RejectionKind, Transaction};
use super::probe::{Activity, probe};
use super::reader::Reader;
use super::replica::{Feeder, Replica, Shared};
use super::row::TableSpec;
use super::schema::OptionalColumn;

/// A live connection to one server and one database.
pub struct Connection {
    database: &'static str,
    outgoing: mpsc::UnboundedSender<Bytes>,
    calls: Arc<Mutex<Calls>>,
    ended: watch::Receiver<Option<ConnectionError>>,
    member: watch::Receiver<Option<Member>>,
    /// The replica's last transaction when the connection was made.
    last_transaction: Uuid,
    tasks: [AbortHandle; 3],
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Connection {
    /// Starts the tasks on a stream. From now on only this connection writes the replica.
    pub fn start<R: Replica>(
        input: impl AsyncRead + Send + Unpin + 'static,
        output: impl AsyncWrite + Send + Unpin + 'static,
        terms: Terms,
        shared: Arc<Shared<R>>,
    ) -> Self {
        let (outgoing, queue) = mpsc::unbounded_channel();
        let (ended_sender, ended) = watch::channel(None);
        let (member_sender, member) = watch::channel(None);
        let calls = Arc::new(Mutex::new(Calls::default()));
        let activity = Arc::new(Activity::default());
        let feeder = Feeder::take(shared);
        let last_transaction = feeder.last_transaction();
        // Separate tasks: while the reader applies 50 MB, probes are still sent and answered.
        let mut probe =
            tokio::spawn(probe(terms.probe_interval, Arc::clone(&activity), Arc::clone(&calls), outgoing.clone()));
        let mut writer = tokio::spawn(write(output, queue));
        let aborts = [probe.abort_handle(), writer.abort_handle()];
        let reader = Reader {
            feeder,
            dump: None,
            server: Server::default(),
            member: member_sender,
            terms,
            led: false,
            calls: Arc::clone(&calls),
            outgoing: outgoing.clone(),
            activity,
        };
        let reader_calls = Arc::clone(&calls);
        let reader = tokio::spawn(async move {
            let error = tokio::select! {
                error = reader.run(input) => error,
                written = &mut writer => written.unwrap_or(ConnectionError::Closed),
                silent = &mut probe => silent.unwrap_or(ConnectionError::Closed),
            };
            probe.abort();
            writer.abort();
            // Dropping the senders ends the wait of each caller.
            let mut calls = lock(&reader_calls);
            calls.close();
            drop(calls);
            ended_sender.send_replace(Some(error));
        });
        let [probe, writer] = aborts;
        let tasks = [reader.abort_handle(), writer, probe];
        Self { database: R::DATABASE, outgoing, calls, ended, member, last_transaction, tasks }
    }

    /// The member's state as the server reports it. `None` before the first report.
    pub fn member(&self) -> watch::Receiver<Option<Member>> {
        self.member.clone()
    }

    /// Returns true if its tasks have ended, or were dropped with their runtime.
    pub fn is_closed(&self) -> bool {
        self.outgoing.is_closed() || self.ended.has_changed().is_err() || self.ended.borrow().is_some()
    }

    /// The number of requests made, and the number of those without a reply.
    pub fn requests(&self) -> (u64, usize) {
        let calls = lock(&self.calls);
        calls.counts()
    }

    /// Waits for the end of the connection and returns its reason.
    pub async fn closed(&self) -> ConnectionError {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or(ConnectionError::Closed),
            Err(_) => ConnectionError::Closed,
        }
    }

    /// Queues a request. Returns `false` if the connection has ended.
    fn send(&self, method: &str, params: &impl Serialize, waiting: Waiting) -> Result<bool, serde_json::Error> {
        let mut calls = lock(&self.calls);
        let Some(id) = calls.add(waiting) else { return Ok(false) };
        let sent = request(id, method, params).map(|bytes| self.outgoing.send(bytes).is_ok());
        if !matches!(sent, Ok(true)) {
            calls.take(id);
        }
        sent
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

    /// Monitors the replica's tables, and returns once the replica is in sync. Returns `true` if the server still knew
    /// the replica's last transaction, and so sent only later changes.
    pub async fn monitor(&self, tables: &[TableSpec]) -> Result<bool, ConnectionError> {
        self.monitor_without(tables, &[], true).await
    }

    /// As [`Self::monitor`], without the columns that the server lacks. Unless it `may_resume`, it reads a full dump.
    pub async fn monitor_without(
        &self,
        tables: &[TableSpec],
        lacking: &[OptionalColumn],
        may_resume: bool,
    ) -> Result<bool, ConnectionError> {
        let asked = monitor_requests(tables, lacking);
        let since = if may_resume { self.last_transaction } else { Uuid::nil() };
        self.monitor_since(self.database, asked, since, Waiting::Dump).await
    }

    /// Monitors `_Server`. The connection ends when the server becomes unfit.
    pub(super) async fn monitor_server(&self) -> Result<(), ConnectionError> {
        let asked = monitor_requests(Server::TABLES, &[]);
        self.monitor_since(Server::DATABASE, asked, Uuid::nil(), Waiting::Server).await?;
        Ok(())
    }

    async fn monitor_since(
        &self,
        database: &str,
        requests: HashMap<&str, [MonitorRequest; 1]>,
        since: Uuid,
        waiting: impl FnOnce(oneshot::Sender<Result<bool, String>>) -> Waiting,
    ) -> Result<bool, ConnectionError> {
        const METHOD: &str = "monitor_cond_since";
        let (sender, receiver) = oneshot::channel();
        // The database's name is also the monitor's id, by which the reader assigns updates.
        let sent = self.send(METHOD, &(database, database, requests, since), waiting(sender));
        if !sent.map_err(|error| ConnectionError::Malformed(error.to_string()))? {
            return Err(self.closed().await);
        }
        match receiver.await {
            Ok(Ok(resumed)) => Ok(resumed),
            Ok(Err(error)) => Err(ConnectionError::Refused { method: METHOD, error }),
            Err(_) => Err(self.closed().await),
        }
    }

    /// Begins a transaction that is prepared ahead of time.
    pub fn draft(&self, fence: Option<&Operation>) -> Draft {
        Draft::new(self.database, fence)
    }

    /// Sends a transaction and waits for its outcome. After `Committed` the replica has its changes.
    ///
    /// A caller that drops the future leaves the outcome unknown.
    pub async fn transact(&self, transaction: &Transaction) -> Outcome {
        match self.post(Draft::of(self.database, transaction)) {
            Some(posted) => self.answer(posted).await,
            None => Outcome::NotSent,
        }
    }

    /// Queues a transaction at once, in the order of these calls. The returned future waits for its outcome.
    ///
    /// A caller that drops it leaves the outcome unknown.
    pub fn send_draft(self: &Arc<Self>, draft: Draft) -> impl Future<Output = Outcome> + Send + use<> {
        let posted = self.post(draft);
        let connection = Arc::clone(self);
        async move {
            match posted {
                Some(posted) => connection.answer(posted).await,
                None => Outcome::NotSent,
            }
        }
    }

    /// Queues a transaction. `None` if it cannot be sent.
    fn post(&self, draft: Draft) -> Option<Posted> {
        let (sender, reply) = oneshot::channel();
        let mut calls = lock(&self.calls);
        let id = calls.add(Waiting::Reply(sender))?;
        let request = draft.request(id).ok();
        let sent = request.filter(|(bytes, _)| self.outgoing.send(bytes.clone()).is_ok());
        if sent.is_none() {
            calls.take(id);
        }
        let (_, expected) = sent?;
        Some(Posted { expected, reply })
    }

    async fn answer(&self, Posted { expected, reply }: Posted) -> Outcome {
        match reply.await {
            Ok(Ok(result)) => expected.outcome(&result),
            Ok(Err(error)) => Outcome::Rejected(Rejection {
                operation: None,
                kind: RejectionKind::Other("transact".to_owned()),
                details: error,
            }),
            Err(_) => Outcome::Unknown(self.closed().await.to_string()),
        }
    }
}

/// A monitor's request for one table (RFC 7047 section 4.1.5, `<monitor-request>`).
#[derive(Serialize)]
struct MonitorRequest {
    columns: Vec<&'static str>,
}

fn monitor_requests(tables: &[TableSpec], lacking: &[OptionalColumn]) -> HashMap<&'static str, [MonitorRequest; 1]> {
    let request = |table: &TableSpec| {
        let columns = table.columns.iter().map(|column| column.name);
        let columns = columns.filter(|column| !lacking.contains(&(table.name, column))).collect();
        (table.name, [MonitorRequest { columns }])
    };
    tables.iter().map(request).collect()
}

/// A transaction that has been queued.
struct Posted {
    expected: Expected,
    reply: oneshot::Receiver<Result<Box<RawValue>, String>>,
}

/// Writes the queued bytes until the queue's senders are gone or the socket fails.
async fn write(mut output: impl AsyncWrite + Unpin, mut queue: mpsc::UnboundedReceiver<Bytes>) -> ConnectionError {
    while let Some(bytes) = queue.recv().await {
        if let Err(error) = output.write_all(&bytes).await {
            return error.into();
        }
    }
    ConnectionError::Closed
}
