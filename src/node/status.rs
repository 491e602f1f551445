//! Whether the service of a node is ready, and if not, why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::link::SwitchLink;
use crate::controller::Health;

/// The conditions of readiness.
#[derive(Clone)]
pub struct NodeStatus {
    node: Arc<str>,
    link: watch::Receiver<SwitchLink>,
    pods: Arc<AtomicBool>,
    health: Arc<Health>,
}

impl NodeStatus {
    /// A status that follows the link and the health; the pods have not been listed.
    pub fn new(node: &str, link: watch::Receiver<SwitchLink>, health: Arc<Health>) -> Self {
        Self { node: node.into(), link, pods: Arc::default(), health }
    }

    /// All pods of the node are known.
    pub(super) fn pods_listed(&self) {
        self.pods.store(true, Ordering::Release);
    }

    /// The activity of a service that is ready; else the reason why it is not ready.
    ///
    /// # Errors
    /// When the database or the API server is away, or the pods have not been listed.
    pub fn ready(&self) -> Result<String, String> {
        match &*self.link.borrow() {
            SwitchLink::NotYet => return Err("the Open vSwitch database has not been read yet".to_owned()),
            SwitchLink::Away(reason) => return Err(format!("the Open vSwitch database is away: {reason}")),
            SwitchLink::InSync(_) => {}
        }
        // The agent goes on all the same: the pods that are known are served.
        if let Some(trouble) = self.health.trouble() {
            return Err(trouble);
        }
        match self.pods.load(Ordering::Acquire) {
            true => Ok(format!("ok, serving the node {}", self.node)),
            false => Err(format!("the pods of the node {} have not been listed yet", self.node)),
        }
    }
}
