//! The HTTP interface for operators and probes.

mod server;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;

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
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(move || async move { ([(CONTENT_TYPE, content_type)], metrics()) }));
    server::run(listener, router).await
}
