//! Keeps the southbound's replica in sync. The service never writes the southbound.

use std::sync::Arc;

use tokio::sync::watch;

use super::following::{Followed, follow};
use crate::ovn::Southbound;
use crate::ovsdb::{Shared, Target};

/// Follows the southbound for ever, and publishes whether its replica is in sync.
pub async fn follow_southbound(
    target: Target,
    southbound: Arc<Shared<Southbound>>,
    in_sync: watch::Sender<Option<bool>>,
) {
    // Any member of a cluster can be read.
    let target = Target { leader_only: false, ..target };
    let replica = Arc::clone(&southbound);
    follow(target, replica, |followed| match followed {
        Followed::InSync { remotes, resumed, .. } => {
            let chassis = southbound.read().chassis_count();
            tracing::info!(%remotes, chassis, resumed, "southbound database in sync");
            in_sync.send_replace(Some(true));
        }
        Followed::Away { remotes, error, is_news } => {
            in_sync.send_if_modified(|in_sync| std::mem::replace(in_sync, in_sync.map(|_| false)) == Some(true));
            if is_news {
                tracing::warn!(%remotes, error, "southbound database is away; trying again");
            }
        }
    })
    .await;
}
