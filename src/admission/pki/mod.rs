//! The certificates that the service makes for its webhooks: a CA, and a certificate of it that is shown.
//!
//! ```text
//!   next_step(what the Secret holds, hosts, lifetimes, now) --> Step --carry_out--> what the Secret is to hold
//! ```
//!
//! All of it is a function of its arguments, the time included, but for the random numbers in keys. Processes that share a
//! Secret come to the same step from the same content, and a second look after a step finds nothing to do.
//!
//! **A new CA is announced before it is used.** It is put in front of the bundle, and the certificate that is shown stays
//! one of the CA before it until [`Lifetimes::settle`] has passed: by then the API server trusts both. The key of a
//! CA is overwritten by that of the next one, and its certificate stays in the bundle until it expires, so that whatever
//! process still shows a certificate of it is trusted.

mod examine;
mod issue;
mod step;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use examine::expires_at;
pub(crate) use issue::carry_out;
pub(crate) use step::{Step, next_step};

/// What the Secret holds, all in PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Material {
    /// The CAs that are to be trusted, the newest first.
    pub(crate) authorities: String,
    /// The key of the first CA.
    pub(crate) authority_key: String,
    /// The certificate that is shown.
    pub(crate) certificate: String,
    /// Its key.
    pub(crate) key: String,
}

/// For how long things are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetimes {
    /// A certificate that is shown.
    pub(crate) certificate: Duration,
    /// A CA.
    pub(crate) authority: Duration,
    /// After this a new CA is known wherever it has to be.
    pub(crate) settle: Duration,
}

impl Lifetimes {
    /// With certificates that are good for so long.
    pub(crate) fn of_certificates(certificate: Duration) -> Self {
        /// Three times as long as the longest time between two looks at the Secret, and more.
        const SETTLE: Duration = Duration::from_secs(600);
        Self { certificate, authority: certificate * 10, settle: SETTLE.min(certificate / 10) }
    }
}

/// Seconds since 1970.
pub(crate) type UnixTime = i64;

/// A certificate is good from this long before it was made, for clocks that go wrong.
const SKEW: UnixTime = 3_600;

/// Why certificates cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PkiError {
    /// A host's name or a key that rcgen cannot use.
    #[error("the certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The clock is out of the range of dates.
    #[error("the certificate cannot be made: the clock says {0} s after 1970")]
    Clock(UnixTime),
}
