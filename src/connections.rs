//! Accepts TCP connections, a bounded number at a time, so that an important peer always finds room.
//!
//! A peer that sends half a request, or no data, holds a connection until its time is over, and for less if others
//! come: if all places are taken, the oldest connection without a request in progress is closed.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// The least limit of connections.
const FEWEST_CONNECTIONS: usize = 2;
/// The pause after an error of accept(2) that does not concern a single connection.
const PAUSE: Duration = Duration::from_millis(100);
/// After a lack of descriptors, fewer connections are accepted for this long, and the log has one line.
const SCARCE: Duration = Duration::from_secs(60);

/// The limit of a server's connections.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The server's name in the log.
    pub server: &'static str,
    /// The most connections at the same time, if there are enough descriptors.
    pub most: usize,
    /// One in this many of the process's descriptors is for these connections: the databases and the API server need
    /// the others.
    pub share: usize,
}

/// Shows if a connection has a request in progress.
#[derive(Debug, Clone, Default)]
pub struct Work(Arc<AtomicUsize>);

impl Work {
    /// A request is in progress until the result is dropped.
    pub fn begin(&self) -> InWork {
        self.0.fetch_add(1, Ordering::Relaxed);
        InWork(self.clone())
    }

    fn is_idle(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// A request in progress.
#[derive(Debug)]
pub struct InWork(Work);

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts connections for ever, and runs `serve` for each in a task of its own. A lack of descriptors or memory is
/// logged once, and accepting continues after a pause.
pub async fn accept<F>(listener: TcpListener, bounds: Bounds, serve: impl Fn(TcpStream, Work) -> F) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = Connections::up_to(bounds.most_connections(open_files_limit()));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.leave_room(Instant::now());
                let work = Work::default();
                let task = tokio::spawn(serve(stream, work.clone())).abort_handle();
                connections.open.push_back(Connection { task, work });
            }
            // The peer closed the connection before it was accepted.
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                if connections.begins_shortage(Instant::now()) {
                    tracing::warn!(
                        %error,
                        most = connections.most,
                        "the {} server cannot accept a connection, and closes the oldest; raise the limit of open files (ulimit -n) of this process if this persists",
                        bounds.server
                    );
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Bounds {
    fn most_connections(&self, limit: Option<usize>) -> usize {
        let share = limit.map_or(self.most, |limit| limit / self.share);
        share.clamp(FEWEST_CONNECTIONS, self.most)
    }
}

struct Connection {
    task: AbortHandle,
    work: Work,
}

struct Connections {
    /// In the order of their arrival.
    open: VecDeque<Connection>,
    /// The present limit, and the usual one.
    most: usize,
    usual: usize,
    scarce_until: Option<Instant>,
}

impl Connections {
    fn up_to(most: usize) -> Self {
        Self { open: VecDeque::new(), most, usual: most, scarce_until: None }
    }

    /// Closes the oldest ones until there is room for one more.
    fn leave_room(&mut self, now: Instant) {
        if self.scarce_until.is_some_and(|until| until <= now) {
            (self.scarce_until, self.most) = (None, self.usual);
        }
        self.shrink_to(self.most - 1);
    }

    /// After a failed accept: closes half of the connections, and lowers the limit for a while. Returns true if this
    /// begins a shortage.
    fn begins_shortage(&mut self, now: Instant) -> bool {
        self.open.retain(|connection| !connection.task.is_finished());
        self.most = (self.open.len() / 2).clamp(FEWEST_CONNECTIONS, self.usual);
        self.shrink_to(self.most);
        self.scarce_until.replace(now + SCARCE).is_none()
    }

    fn shrink_to(&mut self, count: usize) {
        if self.open.len() > count {
            self.open.retain(|connection| !connection.task.is_finished());
        }
        while self.open.len() > count {
            let idle = self.open.iter().position(|connection| connection.work.is_idle());
            let Some(oldest) = self.open.remove(idle.unwrap_or(0)) else { return };
            oldest.task.abort();
        }
    }
}

/// accept(2): it also returns errors of the network for the connection that it would have returned.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// The soft limit of `RLIMIT_NOFILE`, from proc(5). `None` if it is unlimited or unreadable.
fn open_files_limit() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        Connection { task: tokio::spawn(std::future::pending::<()>()).abort_handle(), work: Work::default() }
    }

    #[test]
    fn connections_take_a_small_share_of_the_descriptors() {
        let bounds = Bounds { server: "HTTP", most: 64, share: 8 };
        let limits = [None, Some(1_048_576), Some(1_024), Some(256), Some(64), Some(8)];
        assert_eq!(limits.map(|limit| bounds.most_connections(limit)), [64, 64, 64, 32, 8, 2]);
        assert!(open_files_limit().is_none_or(|limit| limit > 2));
    }

    #[tokio::test]
    async fn the_oldest_connections_make_room() {
        let now = Instant::now();
        let mut connections = Connections::up_to(4);
        for _ in 0..9 {
            connections.leave_room(now);
            connections.open.push_back(connection());
        }
        assert_eq!(connections.open.len(), 4);
        assert!(connections.open.iter().all(|connection| !connection.task.is_finished()));
        // Without descriptors: fewer for a minute.
        assert!(connections.begins_shortage(now) && !connections.begins_shortage(now));
        assert_eq!((connections.most, connections.open.len()), (2, 2));
        connections.leave_room(now + SCARCE);
        assert_eq!((connections.most, connections.open.len()), (4, 2));
    }

    #[tokio::test]
    async fn a_connection_with_a_request_in_progress_outlasts_idle_ones() {
        let now = Instant::now();
        let mut connections = Connections::up_to(3);
        let (first, others) = (connection(), [connection(), connection()]);
        let request = first.work.begin();
        let id = first.task.id();
        connections.open.push_back(first);
        connections.open.extend(others);
        connections.leave_room(now);
        let ids = |connections: &Connections| connections.open.iter().map(|open| open.task.id()).collect::<Vec<_>>();
        assert!(ids(&connections).contains(&id) && connections.open.len() == 2);
        drop(request);
        connections.open.push_back(connection());
        connections.leave_room(now);
        assert!(!ids(&connections).contains(&id) && connections.open.len() == 2);
    }
}
