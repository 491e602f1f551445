//! The inactivity probe: is a silent server still there? (RFC 7047 section 4.1.11)

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::calls::{Calls, ConnectionError, Waiting, lock};
use super::message::request;

/// A server that builds a first dump is silent until it is ready. Its limit is this, or two intervals, whichever is
/// longer.
const SYNC_PATIENCE: Duration = Duration::from_secs(60);
/// While a dump is awaited or applied, a probe is sent this often: the server has a probe of its own (5 s, then 5 s
/// more), and our answer to it would wait behind the dump.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);

/// The reader's activity, for the probe.
#[derive(Debug, Default)]
pub(super) struct Activity {
    reads: AtomicU64,
    /// The reader is applying a message, and reads no further until then.
    busy: AtomicBool,
}

impl Activity {
    /// Records a read.
    pub(super) fn record_read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that a message is being applied.
    pub(super) fn begin(&self) {
        self.busy.store(true, Ordering::Relaxed);
    }

    /// Records that it has been applied.
    pub(super) fn end(&self) {
        self.busy.store(false, Ordering::Relaxed);
        self.record_read();
    }
}

/// Probes a silent server, and returns when it stays silent. Any byte counts as an answer: a large reply may be on its
/// way.
pub(super) async fn probe(
    interval: Duration,
    activity: Arc<Activity>,
    calls: Arc<Mutex<Calls>>,
    outgoing: mpsc::UnboundedSender<Bytes>,
) -> ConnectionError {
    let mut reads = 0;
    let mut last_read = Instant::now();
    loop {
        let waits = || lock(&calls).is_syncing() || activity.busy.load(Ordering::Relaxed);
        let syncing = waits();
        tokio::time::sleep(if syncing { interval.min(SYNC_INTERVAL) } else { interval }).await;
        let syncing = syncing || waits();
        let now = activity.reads.load(Ordering::Relaxed);
        if now != reads || activity.busy.load(Ordering::Relaxed) {
            reads = now;
            last_read = Instant::now();
            if !syncing {
                continue;
            }
        }
        let patience = if syncing { SYNC_PATIENCE.max(interval * 2) } else { interval * 2 };
        if last_read.elapsed() >= patience {
            return ConnectionError::Silent(patience);
        }
        let Some(id) = lock(&calls).add(Waiting::Probe) else { return ConnectionError::Closed };
        let Ok(echo) = request(id, "echo", &["ovn-kubevirt"]) else { continue };
        if outgoing.send(echo).is_err() {
            return ConnectionError::Closed;
        }
    }
}
