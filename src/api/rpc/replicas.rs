//! The replicas of both databases, and the ledger.

use std::sync::Arc;

use super::view::View;
use crate::controller::{Ledger, SouthboundFeed};
use crate::ovn::Northbound;
use crate::ovsdb::Shared;

/// The replicas and the ledger. Clones share them.
#[derive(Clone)]
pub struct Replicas {
    /// The northbound.
    pub northbound: Arc<Shared<Northbound>>,
    /// The southbound, if it is read.
    pub southbound: Option<SouthboundFeed>,
    /// The statuses that do not follow from rows.
    pub ledger: Ledger,
}

impl Replicas {
    /// Reads both replicas at one moment, under their locks: only a bounded number of rows.
    pub(super) fn look<T>(&self, look: impl FnOnce(View<'_>) -> T) -> T {
        let northbound = self.northbound.read();
        let southbound = self.southbound.as_ref().map(|feed| feed.replica.read());
        look(View { northbound: &northbound, southbound: southbound.as_deref() })
    }
}
