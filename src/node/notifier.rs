//! Reports the problems of pods, by Events.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::core::Notice;
use crate::controller::{NewEvent, Refusal, create_event};

/// Notices that may wait to be sent.
pub const NOTICES_AHEAD: usize = 64;
/// Between two tries of one Event at most: longer where the server says so.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// So many refusals end the tries for one Event: others wait behind it.
const MOST_TRIES: usize = 5;

/// Sends one Event after the other, each until it has arrived or never will. Ends with the last sender.
pub async fn notify(client: Client, mut notices: mpsc::Receiver<Notice>) {
    while let Some(notice) = notices.recv().await {
        send(&client, &notice).await;
    }
}

async fn send(client: &Client, notice: &Notice) {
    let note = notice.problem.to_string();
    let event = NewEvent {
        about: reference(notice),
        name: name(notice),
        warning: true,
        reason: notice.problem.reason(),
        note: &note,
        at: Timestamp::now(),
        count: 1,
    };
    let mut delay = delays();
    let mut last_refusal = String::new();
    let mut tries = 0;
    while let Err(refusal) = create_event(client, &event).await {
        // An API server that is away or busy is waited for.
        tries += usize::from(!refusal.is_servers());
        let is_final = is_final(&refusal) || tries >= MOST_TRIES;
        let text = refusal.to_string();
        if is_final || text != last_refusal {
            let (namespace, pod) = (&notice.pod.namespace, &notice.pod.name);
            tracing::warn!(namespace, pod, reason = event.reason, error = text, "the Event could not be sent");
            last_refusal = text;
        }
        if is_final {
            return;
        }
        let pause = delay.next().unwrap_or(LONGEST_DELAY);
        tokio::time::sleep(pause.max(refusal.retry_after().unwrap_or_default())).await;
    }
}

/// Returns true if an Event can never be sent: its namespace is gone or going, or it is malformed.
fn is_final(refusal: &Refusal) -> bool {
    matches!(refusal.code(), Some(400 | 404 | 413 | 422)) || refusal.is_namespace_terminating()
}

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(LONGEST_DELAY)
        .with_jitter()
        .without_max_times()
        .build()
}

fn reference(notice: &Notice) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(notice.pod.namespace.clone()),
        name: Some(notice.pod.name.clone()),
        uid: Some(notice.pod.uid.clone()),
        ..ObjectReference::default()
    }
}

/// The same for the same problem of the same pod, so that after a restart it is not told a second time.
fn name(notice: &Notice) -> u64 {
    let text = format!("{} {} {}", notice.pod.uid, notice.problem.reason(), notice.problem);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).as_u64_pair().0
}
