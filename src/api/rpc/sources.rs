//! All that the methods read and ask.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Semaphore, watch};

use super::failure::{Failure, Reason};
use super::replicas::Replicas;
use super::subscriptions::Subscriptions;
use crate::controller::{Asker, Health, Leadership, Status, Unready};
use crate::telemetry::LogFilter;

/// Answers that take milliseconds of CPU are made by so many threads at a time.
const HEAVY_AT_ONCE: usize = 2;

/// The sources of the API.
pub struct Sources {
    /// The replicas and the ledger.
    pub replicas: Replicas,
    /// Asks the writer.
    pub asker: Asker,
    /// The readiness.
    pub status: Status,
    /// The health of the watches.
    pub health: Arc<Health>,
    /// The leader.
    pub leadership: watch::Receiver<Leadership>,
    /// The filter of the log.
    pub log: LogFilter,
}

/// The state of the methods.
pub(super) struct Api {
    pub(super) sources: Sources,
    pub(super) started: Instant,
    pub(super) subscriptions: Subscriptions,
    heavy: Arc<Semaphore>,
}

impl Api {
    pub(super) fn new(sources: Sources) -> Self {
        let subscriptions = Subscriptions::new(sources.replicas.clone());
        Self { sources, started: Instant::now(), subscriptions, heavy: Arc::new(Semaphore::new(HEAVY_AT_ONCE)) }
    }

    pub(super) fn replicas(&self) -> &Replicas {
        &self.sources.replicas
    }

    /// Does work that takes milliseconds of CPU on a thread of its own: the writer's tasks wait behind no answer.
    pub(super) async fn heavily<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        // It is never closed. The work goes on where its caller has left, and keeps the permit.
        let permit = Arc::clone(&self.heavy).acquire_owned().await;
        let permitted = move || {
            let _permit = permit;
            work()
        };
        match tokio::task::spawn_blocking(permitted).await {
            Ok(done) => done,
            // A panic ends the process, and at its end no call waits for an answer.
            Err(_) => std::future::pending().await,
        }
    }

    /// Fails until the databases have been read for the first time.
    pub(super) fn has_read(&self) -> Result<(), Failure> {
        match self.sources.status.ready() {
            Err(unready @ Unready::Northbound) => Err(not_ready(&unready)),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

fn not_ready(unready: &Unready) -> Failure {
    Failure::new(Reason::NotReady, format!("{unready}. Try again when ovn-kubevirt is ready"))
}
