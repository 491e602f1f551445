//! A proxy in front of a real `ovsdb-server` that keeps requests back while a test does something else: the server's
//! messages always pass. So a transaction stays in flight for as long as the test wants.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// The proxy; it lives as long as the value, on the test's runtime.
#[derive(Debug)]
pub struct Valve {
    socket: PathBuf,
    open: watch::Sender<bool>,
    kept: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Valve {
    /// An open one, that listens on `socket` for connections to `server`, another unix socket.
    pub fn start(server: &Path, socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        let (open, state) = watch::channel(true);
        let kept = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(accept(listener, server.to_owned(), state, Arc::clone(&kept))).abort_handle();
        Self { socket: socket.to_owned(), open, kept, task }
    }

    /// The remote that goes through it.
    pub fn remote(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    /// From now on requests are kept back.
    pub fn shut(&self) {
        self.open.send_replace(false);
    }

    /// They go on.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// How many bytes are kept back.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }
}

impl Drop for Valve {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.socket);
    }
}

async fn accept(listener: UnixListener, server: PathBuf, open: watch::Receiver<bool>, kept: Arc<AtomicU64>) {
    // Dropped with this task, and with it all connections.
    let mut wires = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = UnixStream::connect(&server).await else { continue };
        let ((from_client, mut to_client), (mut from_server, to_server)) = (client.into_split(), server.into_split());
        wires.spawn(requests(from_client, to_server, open.clone(), Arc::clone(&kept)));
        wires.spawn(async move {
            // An end is one of the connection, of which both sides learn.
            let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        });
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut open: watch::Receiver<bool>,
    kept: Arc<AtomicU64>,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        kept.fetch_add(count as u64, Ordering::Relaxed);
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
        kept.fetch_sub(count as u64, Ordering::Relaxed);
    }
}
