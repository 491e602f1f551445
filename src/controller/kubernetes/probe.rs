//! Probes the API server every few seconds: a connection that no longer forwards data looks like an idle one.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;

use super::call::call;
use super::health::Health;

/// The interval: one request of some hundred bytes, on a connection that stays open.
const EVERY: Duration = Duration::from_secs(3);
/// The answer comes from memory, so a slow server counts as away.
const WITHIN: Duration = Duration::from_secs(2);

/// Requests `/version` for ever, which every account may read (the ClusterRole `system:public-info-viewer`). Any answer
/// counts, except one without a server behind it (5xx).
pub async fn probe_api_server(client: Client, health: Arc<Health>) {
    loop {
        let request = hyper::Request::get("/version").body(Vec::new());
        let answer = match request {
            Ok(request) => call::<serde::de::IgnoredAny>(&client, request, WITHIN).await.map(drop),
            Err(_) => Ok(()),
        };
        match answer {
            Err(refusal) if refusal.is_servers() => health.probed(Err(&refusal.to_string())),
            _ => health.probed(Ok(())),
        }
        tokio::time::sleep(EVERY).await;
    }
}
