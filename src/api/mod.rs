//! What operators and probes ask the running service, over HTTP.

mod server;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::controller::{Metrics, Status};

/// Serves `/livez`, `/readyz` and `/metrics` until the listener fails.
pub async fn serve(listener: TcpListener, status: Status, metrics: Metrics) -> std::io::Result<()> {
    let counted = move || async move { ([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], metrics.text()) };
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(counted))
        .with_state(Arc::new(status));
    server::run(listener, router).await
}

/// 200 once the watches and the northbound replica have synced, and while the database is there;
/// 503 with the reason otherwise.
async fn readyz(State(status): State<Arc<Status>>) -> (StatusCode, String) {
    match status.ready() {
        Ok(standing) => (StatusCode::OK, format!("ok, {standing}{}\n", status.remark())),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
