//! The HTTP server: few connections, each for a short time, so that a probe always finds room.
//!
//! Whoever sends half a request, or nothing, holds a connection for some seconds at most, and less when others come: where
//! all places are taken, the oldest connection makes room. A probe's lasts milliseconds, so that it is never that one.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Connections at the same time, where there are descriptors for so many.
const MOST_CONNECTIONS: usize = 64;
/// Of all descriptors that the process may have, one in so many is for these connections: the databases and the API server
/// need the others.
const SHARE: usize = 8;
const FEWEST_CONNECTIONS: usize = 2;
/// A request's head is to be here within this, and the next request on a connection, too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that serves a scraper is closed after this all the same; it connects anew.
const LONGEST_CONNECTION: Duration = Duration::from_secs(300);
/// What a request's head may take in memory.
const LARGEST_HEAD: usize = 16 * 1024;
/// After an error of accept(2) that says nothing of one connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Where there were no descriptors, fewer connections are let in for so long, and the log has one line.
const SCARCE: Duration = Duration::from_secs(60);

/// Accepts connections for ever. That there are no descriptors left, or no memory, is said once and waited for.
pub(super) async fn run(listener: TcpListener, router: Router) -> io::Result<()> {
    let mut connections = Connections::up_to(most_connections(open_files_limit()));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.leave_room(Instant::now());
                connections.open.push_back(tokio::spawn(serve(stream, router.clone())).abort_handle());
            }
            // The peer has hung up before it was its turn.
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                if connections.are_too_many(Instant::now()) {
                    tracing::warn!(
                        %error,
                        most = connections.most,
                        "the HTTP server cannot accept a connection, and closes the oldest; raise the limit of open files (ulimit -n) of this process if it goes on"
                    );
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

struct Connections {
    /// In the order in which they came.
    open: VecDeque<AbortHandle>,
    /// How many there may be now, and in good times.
    most: usize,
    usual: usize,
    scarce_until: Option<Instant>,
}

impl Connections {
    fn up_to(most: usize) -> Self {
        Self { open: VecDeque::new(), most, usual: most, scarce_until: None }
    }

    /// Closes the oldest, until there is room for one more.
    fn leave_room(&mut self, now: Instant) {
        if self.scarce_until.is_some_and(|until| until <= now) {
            (self.scarce_until, self.most) = (None, self.usual);
        }
        self.shrink_to(self.most - 1);
    }

    /// One more could not be had: half of them are closed, and no more let in for a while. Whether that is news.
    fn are_too_many(&mut self, now: Instant) -> bool {
        self.open.retain(|connection| !connection.is_finished());
        self.most = (self.open.len() / 2).clamp(FEWEST_CONNECTIONS, self.usual);
        self.shrink_to(self.most);
        self.scarce_until.replace(now + SCARCE).is_none()
    }

    fn shrink_to(&mut self, count: usize) {
        if self.open.len() > count {
            self.open.retain(|connection| !connection.is_finished());
        }
        while self.open.len() > count {
            let Some(oldest) = self.open.pop_front() else { return };
            oldest.abort();
        }
    }
}

async fn serve(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // How a connection ends is the peer's affair.
    let _ = tokio::time::timeout(LONGEST_CONNECTION, connection).await;
}

/// accept(2): errors of the network below one connection are reported by the call that would have accepted it.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

fn most_connections(limit: Option<usize>) -> usize {
    let share = limit.map_or(MOST_CONNECTIONS, |limit| limit / SHARE);
    share.clamp(FEWEST_CONNECTIONS, MOST_CONNECTIONS)
}

/// The soft limit of `RLIMIT_NOFILE`, as proc(5) tells it; `None` where there is none, or it cannot be read.
fn open_files_limit() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_a_small_share_of_the_descriptors() {
        let limits = [None, Some(1_048_576), Some(1_024), Some(256), Some(64), Some(8)];
        assert_eq!(limits.map(most_connections), [64, 64, 64, 32, 8, 2]);
        assert!(open_files_limit().is_none_or(|limit| limit > 2));
    }

    #[tokio::test]
    async fn the_oldest_connections_make_room() {
        let task = || tokio::spawn(std::future::pending::<()>()).abort_handle();
        let now = Instant::now();
        let mut connections = Connections::up_to(4);
        for _ in 0..9 {
            connections.leave_room(now);
            connections.open.push_back(task());
        }
        assert_eq!(connections.open.len(), 4);
        assert!(connections.open.iter().all(|connection| !connection.is_finished()));
        // No descriptors: fewer for a minute.
        assert!(connections.are_too_many(now) && !connections.are_too_many(now));
        assert_eq!((connections.most, connections.open.len()), (2, 2));
        connections.leave_room(now + SCARCE);
        assert_eq!((connections.most, connections.open.len()), (4, 2));
    }
}
