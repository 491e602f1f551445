//! The durations of an election, all in proportion to the lease.

use std::time::Duration;

use super::object::LONGEST_LEASE;

/// The value for the usual lease: a longer lease does not slow a hand-over.
const LONGEST_HANDOVER_JITTER: Duration = Duration::from_millis(100);

/// The duration of a Lease, in the proportions of client-go (15 s, 10 s, 2 s).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTiming {
    lease: Duration,
}

impl LeaseTiming {
    /// For a lease of this many seconds: at least one, at most ten minutes.
    pub fn of_seconds(seconds: u32) -> Self {
        Self { lease: Duration::from_secs(seconds.into()).clamp(Duration::from_secs(1), LONGEST_LEASE) }
    }

    /// The time after its last change for which others leave the Lease alone.
    pub fn lease(self) -> Duration {
        self.lease
    }

    /// The time after which a leader without a renewal steps down.
    pub fn renew_deadline(self) -> Duration {
        self.lease * 2 / 3
    }

    /// The interval of renewals.
    pub fn retry_period(self) -> Duration {
        self.lease * 2 / 15
    }

    /// The limit for an answer: as in client-go, there is time for another try.
    pub fn request_timeout(self) -> Duration {
        self.renew_deadline() / 2
    }

    /// A leader renews twice within it, and a working watch reports that.
    pub(crate) fn longest_silence(self) -> Duration {
        self.renew_deadline() / 2
    }

    /// Spreads the followers that see a released Lease, without a noticeable delay.
    pub(crate) fn handover_jitter(self) -> Duration {
        (self.retry_period() / 20).min(LONGEST_HANDOVER_JITTER)
    }

    /// Spreads the followers that see an expired Lease.
    pub(crate) fn expiry_jitter(self) -> Duration {
        self.retry_period() / 2
    }
}

impl Default for LeaseTiming {
    fn default() -> Self {
        Self::of_seconds(15)
    }
}
