//! How long things take in an election: all in proportion to the lease.

use std::time::Duration;

use super::object::LONGEST_LEASE;

/// That of the usual lease: a hand-over is no slower for a longer one.
const LONGEST_HANDOVER_JITTER: Duration = Duration::from_millis(100);

/// How long a Lease lasts, in the proportions of client-go (15 s, 10 s, 2 s).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTiming {
    lease: Duration,
}

impl LeaseTiming {
    /// With a lease of so many seconds: at least one, and at most ten minutes.
    pub fn of_seconds(seconds: u32) -> Self {
        Self { lease: Duration::from_secs(seconds.into()).clamp(Duration::from_secs(1), LONGEST_LEASE) }
    }

    /// How long others leave the Lease alone after its last change.
    pub fn lease(self) -> Duration {
        self.lease
    }

    /// A leader that could not renew it for so long steps down.
    pub fn renew_deadline(self) -> Duration {
        self.lease * 2 / 3
    }

    /// A leader renews it as often.
    pub fn retry_period(self) -> Duration {
        self.lease * 2 / 15
    }

    /// An answer that takes longer is not waited for: as in client-go, there is time for another try.
    pub fn request_timeout(self) -> Duration {
        self.renew_deadline() / 2
    }

    /// Within it a leader renews twice, and a watch that works tells of it.
    pub(crate) fn longest_silence(self) -> Duration {
        self.renew_deadline() / 2
    }

    /// Followers that see a released Lease do not all come at once, but nobody waits long for it either.
    pub(crate) fn handover_jitter(self) -> Duration {
        (self.retry_period() / 20).min(LONGEST_HANDOVER_JITTER)
    }

    /// The same where it has run out.
    pub(crate) fn expiry_jitter(self) -> Duration {
        self.retry_period() / 2
    }
}

impl Default for LeaseTiming {
    fn default() -> Self {
        Self::of_seconds(15)
    }
}
