//! The link to the northbound database: connected, in office, and in sync, or on the way there.
//!
//! ```text
//!   Down --connect, check the schema--> raise the epoch --monitor--> Up --connection lost--> Down
//!    ^                                        |
//!    +------ backoff, at most a second -------+   deposed: the process ends
//! ```

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::watch;
use tokio::time::Instant;

use super::epoch::{Epoch, EpochError, Epochs};
use crate::ovn::Northbound;
use crate::ovsdb::{Connection, ConnectionError, Replica, SessionError, Shared, Target, connect};

/// A link that was up for so long may be tried again at once; one that breaks as soon as it is up is
/// tried ever more slowly.
const STEADY: Duration = Duration::from_secs(5);

/// A connection in office. Its replica is in sync.
pub struct Office {
    /// To send transactions.
    pub connection: Connection,
    /// Whose fence is the first operation of each.
    pub epoch: Epoch,
}

/// Whether there is an office.
#[derive(Clone, Default)]
pub enum Link {
    /// There is none; why, in an operator's words.
    #[default]
    NotYet,
    /// There was none at the last try.
    Down(Arc<str>),
    /// There is.
    Up(Arc<Office>),
}

/// Why the link ended for good.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Another process of this instance took office.
    #[error(transparent)]
    Epoch(#[from] EpochError),
}

#[derive(Debug, thiserror::Error)]
enum TryError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Epoch(#[from] EpochError),
}

/// Keeps the link up until somebody else takes office.
pub async fn keep_linked(
    target: Target,
    instance: String,
    shared: Arc<Shared<Northbound>>,
    link: watch::Sender<Link>,
) -> Result<(), LinkError> {
    let mut epochs = Epochs::new(&instance);
    let delays = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(1))
        .with_jitter()
        .without_max_times();
    let mut delay = delays.build();
    let mut last_error = String::new();
    loop {
        let error = match establish(&target, &mut epochs, &shared).await {
            Ok(office) => {
                tracing::info!(remotes = %target.remotes, ports = shared.read().port_count(), "northbound database in sync");
                last_error.clear();
                let since = Instant::now();
                let office = Arc::new(office);
                link.send_replace(Link::Up(Arc::clone(&office)));
                let ended = office.connection.closed().await.to_string();
                if since.elapsed() >= STEADY {
                    delay = delays.build();
                }
                ended
            }
            Err(TryError::Epoch(error @ EpochError::Deposed { .. })) => return Err(error.into()),
            Err(error) => error.to_string(),
        };
        // Once for each new reason: a database that is away for an hour is no news every second.
        if error != last_error {
            tracing::warn!(remotes = %target.remotes, error, "northbound database is away; trying again");
            last_error.clone_from(&error);
        }
        link.send_replace(Link::Down(error.into()));
        tokio::time::sleep(delay.next().unwrap_or(Duration::from_secs(1))).await;
    }
}

async fn establish(target: &Target, epochs: &mut Epochs, shared: &Arc<Shared<Northbound>>) -> Result<Office, TryError> {
    let connection = connect(target, shared).await?;
    let epoch = epochs.raise(&connection).await?;
    connection.monitor(Northbound::TABLES).await?;
    Ok(Office { connection, epoch })
}
