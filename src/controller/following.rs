//! Keeps the replica of a database in sync, for the lifetime of the process.

use std::sync::Arc;
use std::time::Duration;

use super::link::delays;
use crate::ovsdb::{Connection, Remotes, Replica, Session, Shared, Target};

/// The state of a followed database.
pub(crate) enum Followed<'a> {
    /// The replica is in sync, through this connection.
    InSync {
        /// The connection.
        connection: &'a Arc<Connection>,
        /// The remotes of the database.
        remotes: &'a Remotes,
        /// The server sent only what the replica lacked.
        resumed: bool,
    },
    /// The database is away.
    Away {
        /// The remotes of the database.
        remotes: &'a Remotes,
        /// The reason.
        error: &'a str,
        /// The reason is new: an absence of an hour must not give a log line every second.
        is_news: bool,
    },
}

/// Follows a database for ever, and reports its state. A lost connection is replaced with backoff of at most a second.
pub(crate) async fn follow<R: Replica>(target: Target, replica: Arc<Shared<R>>, mut report: impl FnMut(Followed<'_>)) {
    let mut session = Session::new(target, replica);
    let mut delay = delays();
    let mut last_error = String::new();
    loop {
        let error = match session.connect().await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                let (remotes, resumed) = (&session.target().remotes, session.resumed());
                report(Followed::InSync { connection: &connection, remotes, resumed });
                last_error.clear();
                delay = delays();
                connection.closed().await.to_string()
            }
            Err(error) => error.to_string(),
        };
        let is_news = error != last_error;
        report(Followed::Away { remotes: &session.target().remotes, error: &error, is_news });
        last_error = error;
        tokio::time::sleep(delay.next().unwrap_or(Duration::from_secs(1))).await;
    }
}
