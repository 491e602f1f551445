//! The readiness of the service, or the reason why it is not ready.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use super::holding::Holding;
use super::kubernetes::Health;
use super::link::Link;

/// The inputs of readiness.
#[derive(Clone)]
pub struct Status {
    link: watch::Receiver<Link>,
    watches: std::sync::Arc<AtomicBool>,
    holding: std::sync::Arc<Mutex<Option<Holding>>>,
    health: std::sync::Arc<Health>,
}

/// The role of a ready service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It writes.
    Leading,
    /// Another process writes, or will do so soon; this one's replica is in sync.
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

/// The reason why the service is not ready.
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

    /// Records the ports of deleted VMs that the writer holds.
    pub fn hold(&self, holding: Option<Holding>) {
        *self.holding.lock().unwrap_or_else(PoisonError::into_inner) = holding;
    }

    /// The remark for operators on a ready service. Empty, or begins with a semicolon.
    pub fn remark(&self) -> String {
        let holding = self.holding.lock().unwrap_or_else(PoisonError::into_inner);
        holding.as_ref().map_or_else(String::new, |holding| format!("; {holding}"))
    }

    /// The same status, which also depends on the health of the connections to the API server.
    #[must_use]
    pub fn with_health(self, health: std::sync::Arc<Health>) -> Self {
        Self { health, ..self }
    }

    /// Returns true if this process writes the northbound database.
    pub fn leads(&self) -> bool {
        matches!(&*self.link.borrow(), Link::Up(office) if office.is_held())
    }

    /// Records that every kind of object has been listed.
    pub fn watches_synced(&self) {
        self.watches.store(true, Ordering::Release);
    }

    /// Returns the service's role once the watches and the replica have synced.
    pub fn ready(&self) -> Result<Standing, Unready> {
        let standing = match &*self.link.borrow() {
            Link::NotYet => return Err(Unready::Northbound),
            Link::Down(reason) => return Err(Unready::NorthboundAway(reason.to_string())),
            Link::Barred(reason) => return Err(Unready::Barred(reason.to_string())),
            Link::Following => Standing::Following,
            Link::Up(_) => Standing::Leading,
        };
        // The writer continues all the same: existing ports stay.
        if let Some(trouble) = self.health.trouble() {
            return Err(Unready::Kubernetes(trouble));
        }
        if self.watches.load(Ordering::Acquire) { Ok(standing) } else { Err(Unready::Watches) }
    }
}
