//! The certificates that the service makes for its webhooks: a CA, and a certificate of it, which is shown.
//!
//! ```text
//!   next_step(content of the Secret, announced bundle, hosts, ...) --> Step --carry_out--> new content of the Secret
//! ```
//!
//! All functions depend only on their arguments, which include the time, and on the random numbers in keys. Processes
//! that share a Secret derive the same step from the same content, and after a step there is nothing left to do.
//!
//! **A new CA is announced before it is used.** It is put in front of the bundle, and the shown certificate stays one
//! of the former CA until [`Lifetimes::settle`] has passed: by then the API server trusts both. The key of the next CA
//! overwrites the key of a CA, but its certificate stays in the bundle until it expires, so that a process which still
//! shows a certificate of it is trusted.

mod examine;
mod issue;
mod step;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use examine::expires_at;
pub(crate) use issue::carry_out;
pub(crate) use step::{Step, next_step};

/// The content of the Secret, all in PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Material {
    /// The trusted CAs, the newest first.
    pub(crate) authorities: String,
    /// The key of the first CA.
    pub(crate) authority_key: String,
    /// The certificate to show.
    pub(crate) certificate: String,
    /// Its key.
    pub(crate) key: String,
}

/// Durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetimes {
    /// The validity of a certificate.
    pub(crate) certificate: Duration,
    /// The validity of a CA.
    pub(crate) authority: Duration,
    /// The time after which all clients know a new CA.
    pub(crate) settle: Duration,
}

impl Lifetimes {
    /// For certificates of this lifetime.
    pub(crate) fn of_certificates(certificate: Duration) -> Self {
        /// Three times the longest interval of readings of the Secret, and more.
        const SETTLE: Duration = Duration::from_secs(600);
        Self { certificate, authority: certificate * 10, settle: SETTLE.min(certificate / 10) }
    }
}

/// Seconds since 1970.
pub(crate) type UnixTime = i64;

/// The validity of a certificate begins this long before its creation, for wrong clocks.
const SKEW: UnixTime = 3_600;

/// The reason why certificates cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PkiError {
    /// A host's name or a key that rcgen refuses.
    #[error("the certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The clock is out of the range of dates.
    #[error("the certificate cannot be made: the clock says {0} s after 1970")]
    Clock(UnixTime),
}
