//! Whether the service is ready, and if not, why.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use super::holding::Holding;
use super::kubernetes::Health;
use super::link::Link;

/// What readiness hangs on.
#[derive(Clone)]
pub struct Status {
    link: watch::Receiver<Link>,
    watches: std::sync::Arc<AtomicBool>,
    holding: std::sync::Arc<Mutex<Option<Holding>>>,
    health: std::sync::Arc<Health>,
}

/// What a service that is ready does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It writes.
    Leading,
    /// Another one does, or none at the moment: this one's replica is in sync.
    Following,
}

impl fmt::Display for Standing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Leading => "leading",
            Self::Following => "following",
        })
    }
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
    /// This process may not write: its cluster is not known, or the instance belongs to another.
    Barred(String),
    /// The Kubernetes API server is away, or a watch fails.
    Kubernetes(String),
}

impl fmt::Display for Unready {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Watches => formatter.write_str("the Kubernetes objects have not all been listed yet"),
            Self::Northbound => formatter.write_str("the northbound database has not been read yet"),
            Self::NorthboundAway(reason) => write!(formatter, "the northbound database is away: {reason}"),
            Self::Barred(reason) => formatter.write_str(reason),
            Self::Kubernetes(reason) => formatter.write_str(reason),
        }
    }
}

impl Status {
    /// A status that follows the link; the watches have not synced.
    pub fn new(link: watch::Receiver<Link>) -> Self {
        Self {
            link,
            watches: std::sync::Arc::default(),
            holding: std::sync::Arc::default(),
            health: std::sync::Arc::default(),
        }
    }

    /// From now on the writer holds these ports of VMs that are gone, or none.
    pub fn hold(&self, holding: Option<Holding>) {
        *self.holding.lock().unwrap_or_else(PoisonError::into_inner) = holding;
    }

    /// What an operator should know of a service that is ready all the same; empty where there is nothing, else it begins
    /// with a semicolon.
    pub fn remark(&self) -> String {
        let holding = self.holding.lock().unwrap_or_else(PoisonError::into_inner);
        holding.as_ref().map_or_else(String::new, |holding| format!("; {holding}"))
    }

    /// The same, which hangs on the health of the connections to the API server as well.
    #[must_use]
    pub fn with_health(self, health: std::sync::Arc<Health>) -> Self {
        Self { health, ..self }
    }

    /// Every kind of object has been listed.
    pub fn watches_synced(&self) {
        self.watches.store(true, Ordering::Release);
    }

    /// Whether the watches and the replica have synced, and what the service does then.
    pub fn ready(&self) -> Result<Standing, Unready> {
        let standing = match &*self.link.borrow() {
            Link::NotYet => return Err(Unready::Northbound),
            Link::Down(reason) => return Err(Unready::NorthboundAway(reason.to_string())),
            Link::Barred(reason) => return Err(Unready::Barred(reason.to_string())),
            Link::Following => Standing::Following,
            Link::Up(_) => Standing::Leading,
        };
        // The writer goes on all the same: what stands keeps standing.
        if let Some(trouble) = self.health.trouble() {
            return Err(Unready::Kubernetes(trouble));
        }
        if self.watches.load(Ordering::Acquire) { Ok(standing) } else { Err(Unready::Watches) }
    }
}
