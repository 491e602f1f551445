//! The HTTP interfaces: that of probes and scrapers, and the API for operators ([`rpc`]).

pub mod rpc;
mod server;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::controller::{Metrics, Status};

/// Serves `/livez`, `/readyz` and `/metrics` of `run` until the listener fails.
pub async fn serve(listener: TcpListener, status: Status, metrics: Metrics) -> std::io::Result<()> {
    let ready = move || match status.ready() {
        Ok(standing) => Ok(format!("ok, {standing}{}", status.remark())),
        Err(reason) => Err(reason.to_string()),
    };
    serve_probes(listener, Metrics::CONTENT_TYPE, ready, move || metrics.text()).await
}

/// Serves `/livez`, `/readyz` and `/metrics` until the listener fails. `/readyz` is 200 with the text of `ready`, or
/// 503 with the error.
pub async fn serve_probes(
    listener: TcpListener,
    content_type: &'static str,
    ready: impl Fn() -> Result<String, String> + Clone + Send + Sync + 'static,
    metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> std::io::Result<()> {
    let readyz = move || async move {
        match ready() {
            Ok(standing) => (StatusCode::OK, format!("{standing}\n")),
            Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        }
    };
    // A scrape takes milliseconds where there are many switches: it keeps a thread of its own, and the next one waits.
    let one_at_a_time = Arc::new(Semaphore::new(1));
    let scrape = move || async move {
        let permit = one_at_a_time.acquire_owned().await;
        let text = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            metrics()
        });
        match text.await {
            Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, content_type)], text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], format!("{error}\n")),
        }
    };
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape));
    server::run(listener, router).await
}
