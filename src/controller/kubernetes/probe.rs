//! Asks the API server every few seconds whether it is there: a connection that forwards nothing looks like a quiet one.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;

use super::call::call;
use super::health::Health;

/// How often it is asked: one request of some hundred bytes, on a connection that stays open.
const EVERY: Duration = Duration::from_secs(3);
/// It answers from memory: whoever takes longer is not there.
const WITHIN: Duration = Duration::from_secs(2);

/// Asks for `/version` for ever, which every account may read (the ClusterRole `system:public-info-viewer`). An answer
/// of any kind will do, but one that says that there is no server behind it (5xx).
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
