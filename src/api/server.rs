//! The HTTP server: few connections, each for a short time, so that a probe always finds room.
//!
//! Whoever sends half a request, or nothing, holds a connection for some seconds at most, and less when others come
//! ([`crate::connections`]). A probe's lasts milliseconds, so that it is never the oldest.

use std::io;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};

use crate::connections::{Bounds, accept};

const BOUNDS: Bounds = Bounds { server: "HTTP", most: 64, share: 8 };
/// A request's head is to be here within this, and the next request on a connection, too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that serves a scraper is closed after this all the same; it connects anew.
const LONGEST_CONNECTION: Duration = Duration::from_secs(300);
/// What a request's head may take in memory.
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
    // How a connection ends is the peer's affair.
    let _ = tokio::time::timeout(LONGEST_CONNECTION, connection).await;
}
