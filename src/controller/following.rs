//! Keeps the replica of a database in sync, for as long as the process lives.

use std::sync::Arc;
use std::time::Duration;

use super::link::delays;
use crate::ovsdb::{Connection, Remotes, Replica, Session, Shared, Target};

/// How it stands with a database that is followed.
pub(crate) enum Followed<'a> {
    /// The replica is in sync, by this connection.
    InSync {
        /// The connection.
        connection: &'a Arc<Connection>,
        /// Where the database is.
        remotes: &'a Remotes,
        /// The server sent only what the replica lacked.
        resumed: bool,
    },
    /// The database is away.
    Away {
        /// Where it should be.
        remotes: &'a Remotes,
        /// Why it is.
        error: &'a str,
        /// It was not told before: a database that is away for an hour is no news every second.
        is_news: bool,
    },
}

/// Follows a database for ever, and tells how it stands. A connection that is lost is made anew with backoff, at most a
/// second.
pub(crate) async fn follow<R: Replica>(target: Target, replica: Arc<Shared<R>>, mut tell: impl FnMut(Followed<'_>)) {
    let mut session = Session::new(target, replica);
    let mut delay = delays();
    let mut last_error = String::new();
    loop {
        let error = match session.connect().await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                let (remotes, resumed) = (&session.target().remotes, session.resumed());
                tell(Followed::InSync { connection: &connection, remotes, resumed });
                last_error.clear();
                delay = delays();
                connection.closed().await.to_string()
            }
            Err(error) => error.to_string(),
        };
        let is_news = error != last_error;
        tell(Followed::Away { remotes: &session.target().remotes, error: &error, is_news });
        last_error = error;
        tokio::time::sleep(delay.next().unwrap_or(Duration::from_secs(1))).await;
    }
}
