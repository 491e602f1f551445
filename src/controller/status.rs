//! Whether the service is ready, and if not, why.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::link::Link;

/// What readiness hangs on.
#[derive(Clone)]
pub struct Status {
    link: watch::Receiver<Link>,
    watches: std::sync::Arc<AtomicBool>,
}

/// Why the service is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unready {
    /// Not every kind of object has been listed yet.
    Watches,
    /// The northbound database has not been reached yet.
    Northbound,
    /// The northbound database is away.
    NorthboundAway(String),
}

impl fmt::Display for Unready {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Watches => formatter.write_str("the Kubernetes objects have not all been listed yet"),
            Self::Northbound => formatter.write_str("the northbound database has not been read yet"),
            Self::NorthboundAway(reason) => write!(formatter, "the northbound database is away: {reason}"),
        }
    }
}

impl Status {
    /// A status that follows the link; the watches have not synced.
    pub fn new(link: watch::Receiver<Link>) -> Self {
        Self { link, watches: std::sync::Arc::default() }
    }

    /// Every kind of object has been listed.
    pub fn watches_synced(&self) {
        self.watches.store(true, Ordering::Release);
    }

    /// Whether the watches and the replica have synced.
    pub fn ready(&self) -> Result<(), Unready> {
        match &*self.link.borrow() {
            Link::NotYet => Err(Unready::Northbound),
            Link::Down(reason) => Err(Unready::NorthboundAway(reason.to_string())),
            Link::Following | Link::Up(_) if !self.watches.load(Ordering::Acquire) => Err(Unready::Watches),
            Link::Following | Link::Up(_) => Ok(()),
        }
    }
}
