//! The reader task: one ordered stream in, updates to the replica and replies to callers.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, watch};

use super::calls::{Calls, ConnectionError, Terms, Waiting, lock};
use super::codec::Splitter;
use super::member::{Member, Server, Unfit};
use super::message::{Incoming, echo_reply};
use super::probe::Activity;
use super::replica::{Feeder, Replica, Update, apply_since, apply_update};
use super::stream::DumpStream;

/// The number of bytes per read.
const READ_SIZE: usize = 256 * 1024;

/// The state of the task.
pub(super) struct Reader<R> {
    pub(super) feeder: Feeder<R>,
    /// A dump that has come in part.
    pub(super) dump: Option<DumpStream>,
    pub(super) server: Server,
    /// Receives each change of the member's state.
    pub(super) member: watch::Sender<Option<Member>>,
    pub(super) terms: Terms,
    /// The server has reported that it leads.
    pub(super) led: bool,
    pub(super) calls: Arc<Mutex<Calls>>,
    pub(super) outgoing: mpsc::UnboundedSender<Bytes>,
    /// Records every read, for the probe.
    pub(super) activity: Arc<Activity>,
}

impl<R: Replica> Reader<R> {
    /// Reads until the stream ends, becomes unreadable, or reports that the server is unfit.
    pub(super) async fn run(mut self, mut input: impl AsyncRead + Unpin) -> ConnectionError {
        let mut splitter = Splitter::default();
        loop {
            loop {
                match self.take(&mut splitter) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => return error,
                }
            }
            splitter.buffer().reserve(READ_SIZE);
            match input.read_buf(splitter.buffer()).await {
                Ok(0) => return ConnectionError::Closed,
                Ok(_) => {
                    self.activity.record_read();
                    self.feeder.record_read();
                }
                Err(error) => return error.into(),
            }
        }
    }

    /// Takes the next message, or the available part of a dump. `false` if more bytes are needed.
    fn take(&mut self, splitter: &mut Splitter) -> Result<bool, ConnectionError> {
        if let Some(dump) = &mut self.dump {
            self.activity.begin();
            let ended = dump
                .advance(splitter.buffer(), |table, rows| Ok::<(), ConnectionError>(self.feeder.rows(table, rows)?));
            self.activity.end();
            if ended? {
                self.end_dump()?;
                return Ok(true);
            }
            return Ok(false);
        }
        if let Some(message) = splitter.next_message()? {
            self.activity.begin();
            let handled = self.handle(&message);
            self.activity.end();
            handled?;
            return Ok(true);
        }
        let Some(id) = lock(&self.calls).awaited_dump() else { return Ok(false) };
        let Some(dump) = splitter.hand_over(|buffer| DumpStream::begin(buffer, id)) else { return Ok(false) };
        self.feeder.begin(dump.synced_to())?;
        self.dump = Some(dump);
        Ok(true)
    }

    fn end_dump(&mut self) -> Result<(), ConnectionError> {
        let Some(dump) = self.dump.take() else { return Ok(()) };
        let to = dump.synced_to();
        self.feeder.end(to)?;
        if let Some(Waiting::Dump(sender)) = lock(&self.calls).take(dump.id()) {
            // The caller may have gone away.
            drop(sender.send(Ok(to.found)));
        }
        Ok(())
    }

    fn handle(&mut self, message: &[u8]) -> Result<(), ConnectionError> {
        let incoming: Incoming<'_> = serde_json::from_slice(message).map_err(malformed)?;
        match incoming.method.as_deref() {
            Some("echo") => {
                if let Some(id) = incoming.id {
                    let reply = echo_reply(id, incoming.params).map_err(malformed)?;
                    // The end of the writer ends the reader too, so a failure needs no handling here.
                    let _ = self.outgoing.send(reply);
                }
                Ok(())
            }
            Some("update3") => {
                let params = incoming.params.unwrap_or(RawValue::NULL);
                let Update(monitor, transaction, updates) = serde_json::from_str(params.get()).map_err(malformed)?;
                if monitor == R::DATABASE {
                    self.feeder.update(transaction, updates)?;
                } else if monitor == Server::DATABASE {
                    apply_update(&mut self.server, updates).map_err(malformed)?;
                    self.check_member()?;
                }
                Ok(())
            }
            // The schema is being converted, which ends all monitors: a new connection reads everything again.
            Some("monitor_canceled") => Err(ConnectionError::Converted),
            // Other notifications are ignored (RFC 7047 section 4).
            Some(_) => Ok(()),
            None => self.reply(&incoming),
        }
    }

    /// Ends the connection if the server reports that it is unfit.
    fn check_member(&mut self) -> Result<(), ConnectionError> {
        let member = self.server.member(R::DATABASE).ok_or(Unfit::NoDatabase)?;
        self.member.send_if_modified(|present| present.replace(member) != Some(member));
        let led = std::mem::replace(&mut self.led, member.leader);
        Ok(member.check(self.terms.leader_only || (led && self.terms.ends_with_leadership))?)
    }

    fn reply(&mut self, incoming: &Incoming<'_>) -> Result<(), ConnectionError> {
        let id = incoming.id.and_then(|id| id.get().parse::<u64>().ok());
        let Some(waiting) = id.and_then(|id| lock(&self.calls).take(id)) else {
            return Err(ConnectionError::Malformed("a reply to an unknown request".to_owned()));
        };
        let result = match (incoming.error, incoming.result) {
            (Some(error), _) => Err(error.get().to_owned()),
            (None, Some(result)) => Ok(result),
            (None, None) => Ok(RawValue::NULL),
        };
        // The callers may have gone away.
        match waiting {
            Waiting::Reply(sender) => drop(sender.send(result.map(ToOwned::to_owned))),
            Waiting::Dump(sender) => {
                let applied = match result {
                    Ok(result) => Ok(self.feeder.first(result)?),
                    Err(error) => Err(error),
                };
                drop(sender.send(applied));
            }
            Waiting::Server(sender) => match result {
                Ok(result) => {
                    apply_since(&mut self.server, result).map_err(malformed)?;
                    self.check_member()?;
                    drop(sender.send(Ok(false)));
                }
                Err(error) => drop(sender.send(Err(error))),
            },
            Waiting::Probe => {}
        }
        Ok(())
    }
}

fn malformed(error: serde_json::Error) -> ConnectionError {
    ConnectionError::Malformed(error.to_string())
}
