//! The link to the node's Open vSwitch database.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::core::LocalSwitch;
use crate::controller::{Followed, follow};
use crate::ovsdb::{Connection, Remotes, Shared, Target};

/// A server that is silent for so long is asked whether it is there. A local one answers at once.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// How it stands with the database.
#[derive(Clone, Default)]
pub enum SwitchLink {
    /// It has not been reached yet.
    #[default]
    NotYet,
    /// It could not be reached at the last try; why, in an operator's words.
    Away(Arc<str>),
    /// The replica is in sync, and this is where to write.
    InSync(Arc<Connection>),
}

/// Follows the database for ever, and tells how it stands.
pub async fn follow_switch(remotes: Remotes, switch: Arc<Shared<LocalSwitch>>, link: watch::Sender<SwitchLink>) {
    let target = Target { remotes, tls: None, probe_interval: PROBE_INTERVAL, leader_only: false };
    let replica = Arc::clone(&switch);
    follow(target, replica, |followed| match followed {
        Followed::InSync { connection, remotes, .. } => {
            let interfaces = switch.read().interface_count();
            tracing::info!(%remotes, interfaces, "Open vSwitch database in sync");
            link.send_replace(SwitchLink::InSync(Arc::clone(connection)));
        }
        Followed::Away { remotes, error, is_news } => {
            link.send_replace(SwitchLink::Away(error.into()));
            if is_news {
                tracing::warn!(%remotes, error, "Open vSwitch database is away; trying again");
            }
        }
    })
    .await;
}
