//! The reader task: one ordered stream in, into the replica and out to who waits.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, watch};

use super::calls::{Calls, ConnectionError, Terms, Waiting, lock};
use super::codec::Splitter;
use super::member::{Member, Server, Unfit};
use super::message::{Incoming, echo_reply};
use super::probe::Heard;
use super::replica::{Feeder, Replica, Update, apply_since, apply_update};
use super::stream::DumpStream;

/// How much is read from the socket at once.
const READ_SIZE: usize = 256 * 1024;

/// The state of the task.
pub(super) struct Reader<R> {
    pub(super) feeder: Feeder<R>,
    /// A dump of which a part has come.
    pub(super) dump: Option<DumpStream>,
    pub(super) server: Server,
    /// Told what the server says of itself and our database.
    pub(super) member: watch::Sender<Option<Member>>,
    pub(super) terms: Terms,
    /// The server has said that it leads.
    pub(super) led: bool,
    pub(super) calls: Arc<Mutex<Calls>>,
    pub(super) outgoing: mpsc::UnboundedSender<Bytes>,
    /// Told of every read, for the probe.
    pub(super) heard: Arc<Heard>,
}

impl<R: Replica> Reader<R> {
    /// Reads until the stream ends, cannot be read, or tells that the server is not fit any more.
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
                    self.heard.something();
                    self.feeder.heard();
                }
                Err(error) => return error.into(),
            }
        }
    }

    /// Takes the next message, or as much as can be taken of a dump. `false` when more bytes are needed.
    fn take(&mut self, splitter: &mut Splitter) -> Result<bool, ConnectionError> {
        if let Some(dump) = &mut self.dump {
            self.heard.begin();
            let ended = dump
                .advance(splitter.buffer(), |table, rows| Ok::<(), ConnectionError>(self.feeder.rows(table, rows)?));
            self.heard.end();
            if ended? {
                self.end_dump()?;
                return Ok(true);
            }
            return Ok(false);
        }
        if let Some(message) = splitter.next_message()? {
            self.heard.begin();
            let handled = self.handle(&message);
            self.heard.end();
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
            // A caller that left does not want to know.
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
                    // The writer's end ends the reader too: nothing to do about a failure here.
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
                    self.judge()?;
                }
                Ok(())
            }
            // The schema is being converted: what we monitored is no more, so begin anew.
            Some("monitor_canceled") => Err(ConnectionError::Converted),
            // A notification that we did not ask for concerns us no further (RFC 7047 section 4).
            Some(_) => Ok(()),
            None => self.reply(&incoming),
        }
    }

    /// Ends the connection where the server says that it is of no use.
    fn judge(&mut self) -> Result<(), ConnectionError> {
        let member = self.server.member(R::DATABASE).ok_or(Unfit::NoDatabase)?;
        self.member.send_if_modified(|present| present.replace(member) != Some(member));
        let led = std::mem::replace(&mut self.led, member.leader);
        Ok(member.check(self.terms.leader_only || (led && self.terms.ends_with_leadership))?)
    }

    fn reply(&mut self, incoming: &Incoming<'_>) -> Result<(), ConnectionError> {
        let id = incoming.id.and_then(|id| id.get().parse::<u64>().ok());
        let Some(waiting) = id.and_then(|id| lock(&self.calls).take(id)) else {
            return Err(ConnectionError::Malformed("a reply to no request of ours".to_owned()));
        };
        let result = match (incoming.error, incoming.result) {
            (Some(error), _) => Err(error.get().to_owned()),
            (None, Some(result)) => Ok(result),
            (None, None) => Ok(RawValue::NULL),
        };
        // Below, a caller that left does not want its reply.
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
                    self.judge()?;
                    drop(sender.send(Ok(false)));
                }
                Err(error) => drop(sender.send(Err(error))),
            },
            Waiting::Nobody => {}
        }
        Ok(())
    }
}

fn malformed(error: serde_json::Error) -> ConnectionError {
    ConnectionError::Malformed(error.to_string())
}
