//! The HTTP server: few connections, each for a short time, so that a probe always finds room.
//!
//! A client that sends half a request, or no data, holds a connection for some seconds at most, and for less if others
//! come ([`crate::connections`]). A probe's connection lasts milliseconds, so it is never the oldest.

use std::io;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};

use crate::connections::{Bounds, accept};

const BOUNDS: Bounds = Bounds { server: "HTTP", most: 64, share: 8 };
/// The limit for a request's head, and for the next request on a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The limit for any connection. A scraper connects again.
const LONGEST_CONNECTION: Duration = Duration::from_secs(300);
/// The most memory for a request's head.
const LARGEST_HEAD: usize = 16 * 1024;

/// Accepts connections for ever.
pub(super) async fn run(listener: TcpListener, router: Router) -> io::Result<()> {
    accept(listener, BOUNDS, |stream, _| serve(stream, router.clone())).await
}

async fn serve(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // The peer decides how a connection ends.
    let _ = tokio::time::timeout(LONGEST_CONNECTION, connection).await;
}
