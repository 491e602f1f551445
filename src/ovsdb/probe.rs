//! The inactivity probe: is a silent server still there? (RFC 7047 section 4.1.11)

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::calls::{Calls, ConnectionError, Waiting, lock};
use super::message::request;

/// A server that puts a first dump together is silent for as long as that takes; it is given this, or
/// two intervals, whichever is longer.
const SYNC_PATIENCE: Duration = Duration::from_secs(60);
/// While a dump is awaited or applied, something is sent this often: the server has a probe of its own
/// (5 s, then 5 s more), and our answer to it would wait behind the dump.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);

/// What the reader tells the probe.
#[derive(Debug, Default)]
pub(super) struct Heard {
    reads: AtomicU64,
    /// The reader is at work on what it read: what comes meanwhile waits.
    busy: AtomicBool,
}

impl Heard {
    /// Something was read.
    pub(super) fn something(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// A message is being applied.
    pub(super) fn begin(&self) {
        self.busy.store(true, Ordering::Relaxed);
    }

    /// It has been.
    pub(super) fn end(&self) {
        self.busy.store(false, Ordering::Relaxed);
        self.something();
    }
}

/// Asks a silent server whether it is there, and ends when it stays silent. Any byte counts as an
/// answer: a large reply may be on its way.
pub(super) async fn probe(
    interval: Duration,
    heard: Arc<Heard>,
    calls: Arc<Mutex<Calls>>,
    outgoing: mpsc::UnboundedSender<Bytes>,
) -> ConnectionError {
    let mut reads = 0;
    let mut last_heard = Instant::now();
    loop {
        let waits = || lock(&calls).is_syncing() || heard.busy.load(Ordering::Relaxed);
        let syncing = waits();
        tokio::time::sleep(if syncing { interval.min(SYNC_INTERVAL) } else { interval }).await;
        let syncing = syncing || waits();
        let now = heard.reads.load(Ordering::Relaxed);
        if now != reads || heard.busy.load(Ordering::Relaxed) {
            reads = now;
            last_heard = Instant::now();
            if !syncing {
                continue;
            }
        }
        let patience = if syncing { SYNC_PATIENCE.max(interval * 2) } else { interval * 2 };
        if last_heard.elapsed() >= patience {
            return ConnectionError::Silent(patience);
        }
        let Some(id) = lock(&calls).add(Waiting::Nobody) else { return ConnectionError::Closed };
        let Ok(echo) = request(id, "echo", &["ovn-kubevirt"]) else { continue };
        if outgoing.send(echo).is_err() {
            return ConnectionError::Closed;
        }
    }
}
