//! Keeps the southbound's replica in sync. It is only read.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::link::delays;
use crate::ovn::Southbound;
use crate::ovsdb::{Session, Shared, Target};

/// Follows the southbound for ever, and tells whether its replica is in sync.
pub async fn follow_southbound(
    target: Target,
    southbound: Arc<Shared<Southbound>>,
    in_sync: watch::Sender<Option<bool>>,
) {
    // To read, any member of a cluster will do.
    let mut session = Session::new(Target { leader_only: false, ..target }, Arc::clone(&southbound));
    let mut delay = delays();
    let mut last_error = String::new();
    loop {
        let error = match session.connect().await {
            Ok(connection) => {
                let (chassis, resumed) = (southbound.read().chassis_count(), session.resumed());
                tracing::info!(remotes = %session.target().remotes, chassis, resumed, "southbound database in sync");
                in_sync.send_replace(Some(true));
                last_error.clear();
                delay = delays();
                connection.closed().await.to_string()
            }
            Err(error) => error.to_string(),
        };
        in_sync.send_if_modified(|in_sync| std::mem::replace(in_sync, in_sync.map(|_| false)) == Some(true));
        if error != last_error {
            tracing::warn!(remotes = %session.target().remotes, error, "southbound database is away; trying again");
            last_error.clone_from(&error);
        }
        tokio::time::sleep(delay.next().unwrap_or(Duration::from_secs(1))).await;
    }
}
