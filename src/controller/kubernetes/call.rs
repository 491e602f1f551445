//! One request, with a deadline for the whole, and its outcome in a form that determines the time of a retry.

use std::fmt;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::{Request, StatusCode};
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use serde::de::DeserializeOwned;

use super::client::retry_after;

/// The longest kept part of a message of the API server.
const LONGEST_MESSAGE: usize = 300;

/// The reason for the failure of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No answer came: the request may have been carried out all the same.
    Silent(String),
    /// The server, or a proxy before it, refused.
    Status {
        /// The HTTP status.
        code: u16,
        /// Kubernetes' word for it, such as `Forbidden`; empty if another server answered.
        reason: String,
        /// Further causes, in one word each.
        causes: Vec<String>,
        /// The message.
        message: String,
        /// The time before which the server wants no retry.
        retry_after: Option<Duration>,
    },
}

impl Refusal {
    /// The HTTP status, if there is one.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Silent(_) => None,
            Self::Status { code, .. } => Some(*code),
        }
    }

    /// Returns true if the server as a whole is unavailable: there is no answer, or its status is 5xx.
    pub(crate) fn is_servers(&self) -> bool {
        self.code().is_none_or(|code| code >= 500)
    }

    /// The pause that the server asks for.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Silent(_) => None,
            Self::Status { retry_after, .. } => *retry_after,
        }
    }

    /// Returns true if the namespace is being deleted, which forbids new objects.
    pub(crate) fn is_namespace_terminating(&self) -> bool {
        matches!(self, Self::Status { causes, .. } if causes.iter().any(|cause| cause == "NamespaceTerminating"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(reason) => formatter.write_str(reason),
            Self::Status { code, message, .. } => write!(formatter, "{message} ({code})"),
        }
    }
}

/// Sends a request. The whole answer has to arrive within `limit`. Dropping the future closes the connection.
pub(crate) async fn call<T: DeserializeOwned>(
    client: &Client,
    request: Request<Vec<u8>>,
    limit: Duration,
) -> Result<T, Refusal> {
    let answer = async {
        let answer = client.send(request.map(Body::from)).await.map_err(|error| match error {
            kube::Error::Service(error) => Refusal::Silent(chain(&*error)),
            error => Refusal::Silent(chain(&error)),
        })?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| Refusal::Silent(chain(&error)))?.to_bytes();
        if head.status.is_success() {
            // An unreadable answer comes from another server than Kubernetes.
            return serde_json::from_slice(&body).map_err(|error| Refusal::Silent(chain(&error)));
        }
        Err(refusal(head.status, retry_after(&head.headers), &body))
    };
    tokio::time::timeout(limit, answer)
        .await
        .unwrap_or_else(|_| Err(Refusal::Silent(format!("no answer within {limit:?}"))))
}

fn refusal(code: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Refusal {
    let status: Status = serde_json::from_slice(body).unwrap_or_default();
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let causes = causes.flat_map(|cause| [&cause.reason, &cause.field]).filter(|text| !text.is_empty());
    let message = match status.message.is_empty() {
        true => String::from_utf8_lossy(body).trim().to_owned(),
        false => status.message.clone(),
    };
    let message = if message.is_empty() { code.canonical_reason().unwrap_or("refused").to_owned() } else { message };
    let in_body = status.details.as_ref().map(|details| u64::from(details.retry_after_seconds));
    let in_body = in_body.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    Refusal::Status {
        code: code.as_u16(),
        reason: status.reason.clone(),
        causes: causes.cloned().collect(),
        message: cut(message),
        retry_after: retry_after.or(in_body),
    }
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST_MESSAGE) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// The chain of causes without repetitions.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    cut(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_servers_message_and_the_time_of_the_next_try() {
        let forbidden = r#"{"kind":"Status","status":"Failure","message":"events is forbidden","reason":"Forbidden",
            "details":{"causes":[{"reason":"NamespaceTerminating","message":"m","field":"metadata.namespace"}]},"code":403}"#;
        let refused = refusal(StatusCode::FORBIDDEN, None, forbidden.as_bytes());
        assert_eq!(refused.to_string(), "events is forbidden (403)");
        assert!(refused.is_namespace_terminating() && !refused.is_servers());
        let busy = refusal(StatusCode::TOO_MANY_REQUESTS, Some(Duration::from_secs(7)), b"Too many requests\n");
        assert_eq!(
            (busy.to_string(), busy.retry_after()),
            ("Too many requests (429)".into(), Some(Duration::from_secs(7)))
        );
        let away = refusal(StatusCode::SERVICE_UNAVAILABLE, None, b"");
        assert!(away.is_servers() && away.to_string() == "Service Unavailable (503)");
        let long = refusal(StatusCode::BAD_REQUEST, None, "x".repeat(10_000).as_bytes());
        assert!(long.to_string().len() < 400);
    }
}
