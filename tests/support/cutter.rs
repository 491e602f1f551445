//! A proxy in front of a real `ovsdb-server` that breaks a connection at the very byte that a test names.
//!
//! ```text
//!   client under test  ---- to the server: 0 1 2 ... n | cut ---->  ovsdb-server
//!                      <--- to the client: 0 1 2 ... n | cut -----
//! ```
//!
//! The first connection is broken by the first [`Cut`], the second by the second, and all that follow pass whole. The
//! bytes that passed are kept, so that a test first sees a whole stream and then cuts it wherever it likes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Requests.
    ToServer,
    /// Replies and updates.
    ToClient,
}

/// Where and how a connection breaks. Both of its sockets are closed at once, with all bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// As soon as so many bytes have passed that way. After a whole request, the server is at work on it.
    After(Direction, u64),
    /// When one more byte than these comes that way, and it does not pass. Before a reply, the server has done its
    /// work and no client gets it.
    Before(Direction, u64),
    /// The bytes `from..to` towards the server stay in the network, and once the last of them was sent, the client's
    /// side breaks. They reach the server when the next connection is about to carry more than `until` bytes towards
    /// it, or when the test says so ([`Cutter::deliver`]), and no other bytes go there until the server has answered.
    /// They are whole requests: half a one is dropped.
    Late {
        /// The first byte that is late.
        from: u64,
        /// The byte after the last.
        to: u64,
        /// How much of the next connection goes first.
        until: u64,
    },
}

/// The bytes that passed through one connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried {
    /// Requests.
    pub to_server: Vec<u8>,
    /// Replies and updates.
    pub to_client: Vec<u8>,
    /// Whether its cut has been made.
    pub cut: bool,
}

impl Carried {
    fn stream(&mut self, direction: Direction) -> &mut Vec<u8> {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

/// The proxy; it lives as long as the value, on the test's runtime.
#[derive(Debug)]
pub struct Cutter {
    socket: PathBuf,
    state: Arc<State>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct State {
    carried: Mutex<Vec<Carried>>,
    held: Mutex<Option<Held>>,
    late_answer: Mutex<Option<Value>>,
}

/// Bytes that are late, and the socket that they will come out of.
#[derive(Debug)]
struct Held {
    server: UnixStream,
    bytes: Vec<u8>,
    /// The connection that they are of.
    number: usize,
    until: u64,
}

impl Cutter {
    /// Listens on `socket` for connections to `server`, another unix socket.
    pub fn start(server: &Path, socket: &Path, cuts: Vec<Cut>) -> Self {
        let listener = UnixListener::bind(socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        let state = Arc::new(State::default());
        let task = tokio::spawn(accept(listener, server.to_owned(), cuts, Arc::clone(&state))).abort_handle();
        Self { socket: socket.to_owned(), state, task }
    }

    /// The remote that goes through the proxy.
    pub fn remote(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    /// The bytes of each connection, in the order of the connections.
    pub fn carried(&self) -> Vec<Carried> {
        lock(&self.state.carried).clone()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        lock(&self.state.carried).len()
    }

    /// Whether the cut of that connection has been made.
    pub fn has_cut(&self, number: usize) -> bool {
        lock(&self.state.carried).get(number).is_some_and(|carried| carried.cut)
    }

    /// Delivers the late bytes, if there are any, and waits for the server's answer to them.
    pub async fn deliver(&self) {
        self.state.deliver().await;
    }

    /// The server's answer to the late bytes: the client does not get it.
    pub fn late_answer(&self) -> Option<Value> {
        lock(&self.state.late_answer).clone()
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl State {
    async fn deliver(&self) {
        let held = lock(&self.held).take();
        let Some(Held { mut server, bytes, .. }) = held else { return };
        let Some(id) = messages(&bytes).last().map(|mut request| request["id"].take()) else { return };
        if server.write_all(&bytes).await.is_err() {
            return;
        }
        let is_answer = |message: &Value| message.get("method").is_none() && message["id"] == id;
        let mut received = Vec::new();
        // Without an answer the server has hung up.
        while let Ok(1..) = server.read_buf(&mut received).await {
            if let Some(answer) = messages(&received).find(is_answer) {
                *lock(&self.late_answer) = Some(answer);
                return;
            }
        }
    }

    /// The number of bytes of this connection that pass before the late bytes of the one before it.
    fn held_until(&self, number: usize) -> Option<u64> {
        lock(&self.held).as_ref().filter(|held| held.number + 1 == number).map(|held| held.until)
    }
}

/// The whole messages at the beginning of a stream.
fn messages(stream: &[u8]) -> impl Iterator<Item = Value> {
    serde_json::Deserializer::from_slice(stream).into_iter().map_while(Result::ok)
}

async fn accept(listener: UnixListener, server: PathBuf, cuts: Vec<Cut>, state: Arc<State>) {
    // Dropped with this task, and with it all connections.
    let mut wires = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = UnixStream::connect(&server).await else { continue };
        let number = lock(&state.carried).len();
        lock(&state.carried).push(Carried::default());
        let wire = Wire { number, cut: cuts.get(number).copied(), passed: [0, 0], state: Arc::clone(&state) };
        wires.spawn(wire.run(client, server));
    }
}

/// One connection.
struct Wire {
    number: usize,
    cut: Option<Cut>,
    /// Bytes to the server, and to the client.
    passed: [u64; 2],
    state: Arc<State>,
}

impl Wire {
    /// A write that waits keeps the other direction waiting, too: a test's messages fit into the sockets' buffers.
    async fn run(mut self, mut client: UnixStream, mut server: UnixStream) {
        let (mut requests, mut replies) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut late = Vec::new();
        if matches!(self.cut, Some(Cut::After(_, 0))) {
            self.note_cut();
            return;
        }
        loop {
            let (direction, read) = tokio::select! {
                read = client.read(&mut requests) => (Direction::ToServer, read),
                read = server.read(&mut replies) => (Direction::ToClient, read),
            };
            let Ok(count @ 1..) = read else { return };
            let (bytes, output) = match direction {
                Direction::ToServer => (&requests[..count], &mut server),
                Direction::ToClient => (&replies[..count], &mut client),
            };
            let (bytes, ends) = self.shortened(direction, bytes);
            let (bytes, held) = self.divided(direction, bytes);
            late.extend_from_slice(held);
            if self.pass(direction, bytes, output).await.is_err() {
                return;
            }
            self.passed[direction as usize] += held.len() as u64;
            if ends {
                if let Some(Cut::Late { until, .. }) = self.cut {
                    let held = Held { server, bytes: late, number: self.number, until };
                    *lock(&self.state.held) = Some(held);
                }
                self.note_cut();
                return;
            }
        }
    }

    /// The bytes that may pass, and whether the connection ends with them.
    fn shortened<'a>(&self, direction: Direction, bytes: &'a [u8]) -> (&'a [u8], bool) {
        let (of, limit, whole_ends) = match self.cut {
            Some(Cut::After(of, limit)) => (of, limit, true),
            Some(Cut::Before(of, limit)) => (of, limit, false),
            Some(Cut::Late { to, .. }) => (Direction::ToServer, to, true),
            None => return (bytes, false),
        };
        if of != direction {
            return (bytes, false);
        }
        let room = usize::try_from(limit - self.passed[direction as usize]).unwrap_or(usize::MAX);
        let ends = bytes.len() > room || (whole_ends && bytes.len() == room);
        (&bytes[..bytes.len().min(room)], ends)
    }

    /// The bytes that pass at once, and the late ones.
    fn divided<'a>(&self, direction: Direction, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        match self.cut {
            Some(Cut::Late { from, .. }) if direction == Direction::ToServer => {
                let room = usize::try_from(from.saturating_sub(self.passed[direction as usize])).unwrap_or(usize::MAX);
                bytes.split_at(bytes.len().min(room))
            }
            _ => (bytes, &[]),
        }
    }

    async fn pass(&mut self, direction: Direction, bytes: &[u8], output: &mut UnixStream) -> std::io::Result<()> {
        let mut rest = bytes;
        if direction == Direction::ToServer
            && let Some(until) = self.state.held_until(self.number)
            && self.passed[direction as usize] + bytes.len() as u64 > until
        {
            let first = usize::try_from(until - self.passed[direction as usize]).unwrap_or(usize::MAX);
            self.write(direction, &rest[..first], output).await?;
            rest = &rest[first..];
            self.state.deliver().await;
        }
        self.write(direction, rest, output).await
    }

    async fn write(&mut self, direction: Direction, bytes: &[u8], output: &mut UnixStream) -> std::io::Result<()> {
        // Noted first: it is there when its effect can be seen.
        lock(&self.state.carried)[self.number].stream(direction).extend_from_slice(bytes);
        self.passed[direction as usize] += bytes.len() as u64;
        output.write_all(bytes).await
    }

    fn note_cut(&self) {
        lock(&self.state.carried)[self.number].cut = true;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
