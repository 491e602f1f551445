//! The listener of the webhooks: HTTP/1.1 over TLS, few connections, and bounds on the cost of unknown clients.
//!
//! As for any webhook, the port is open to every client that reaches it. Connections without a request in progress make
//! room for new ones ([`crate::connections`]). A body of more than [`SMALL_BODY`] is read only while few others are.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::metrics::{Outcome, WebhookMetrics};
use super::request::{Hook, Request, Review};
use super::tls::Certificates;
use crate::connections::{Bounds, Work, accept};

/// The review of a launcher pod may take some seconds, and holds a connection meanwhile.
const BOUNDS: Bounds = Bounds { server: "webhook", most: 1_024, share: 4 };
/// The limit for a connection's handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The limit for a request's head, and for the next request on a connection. The API server closes an unused connection
/// after 90 s, and has to be the side that does: a request that meets a closing connection is lost.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// The limit for a request's body, once it may be read.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// The limit for a review: the API server waits 10 s, and 3 s for the review of a VM.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
/// The age at which a connection ends with its next answer, so that the API server spreads its requests over the
/// replicas.
const LONGEST_CONNECTION: Duration = Duration::from_secs(300);
/// The most memory for a request's head, and the size of each read of a body.
const LARGEST_HEAD: usize = 32 * 1_024;
/// The API server accepts requests of up to 3 MiB. A review has the new and the old object, and some other fields.
const LARGEST_BODY: usize = 2 * 3 * 1_024 * 1_024 + 256 * 1_024;
/// A body that costs no more than its connection. Pods and VMs have about a tenth of it.
const SMALL_BODY: usize = 128 * 1_024;
/// The most larger bodies in memory at the same time.
const LARGE_BODIES: usize = 8;

/// Serves `POST /validate` and `POST /mutate` until the listener fails.
///
/// # Errors
/// If TLS cannot be set up, or the listener fails.
pub async fn serve<R: Review>(
    listener: TcpListener,
    certificates: &Certificates,
    review: R,
    metrics: WebhookMetrics,
) -> io::Result<()> {
    let acceptor = certificates.acceptor().map_err(io::Error::other)?;
    let webhooks = Arc::new(Webhooks { review, metrics, large_bodies: Semaphore::new(LARGE_BODIES) });
    accept(listener, BOUNDS, |stream, work| connection(acceptor.clone(), stream, work, Arc::clone(&webhooks))).await
}

/// The state that all connections share.
struct Webhooks<R> {
    review: R,
    metrics: WebhookMetrics,
    large_bodies: Semaphore,
}

/// The state for the answers of a connection.
struct Context<R> {
    webhooks: Arc<Webhooks<R>>,
    work: Work,
    since: Instant,
}

async fn connection<R: Review>(acceptor: TlsAcceptor, stream: TcpStream, work: Work, webhooks: Arc<Webhooks<R>>) {
    // A small answer must not wait for the acknowledgement of the former one.
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a connection to the webhooks failed in its TLS handshake"),
        Err(_) => return,
    };
    let context = Arc::new(Context { webhooks, work, since: Instant::now() });
    let router = Router::new()
        .route(
            "/validate",
            post(async |State(context): State<Arc<Context<R>>>, head: HeaderMap, body: Body| {
                context.answer(Hook::Validate, &head, body).await
            }),
        )
        .route(
            "/mutate",
            post(async |State(context): State<Arc<Context<R>>>, head: HeaderMap, body: Body| {
                context.answer(Hook::Mutate, &head, body).await
            }),
        )
        .with_state(context);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // The peer decides how a connection ends.
    let _ = connection.await;
}

/// The reason why there is no review.
struct Failure {
    outcome: Outcome,
    code: StatusCode,
    text: String,
}

impl Failure {
    fn unreadable(code: StatusCode, text: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unreadable, code, text: text.into() }
    }
}

impl<R: Review> Context<R> {
    async fn answer(&self, hook: Hook, head: &HeaderMap, body: Body) -> Response {
        let begun = Instant::now();
        let (outcome, code, kind, text) = match self.reviewed(hook, head, body).await {
            Ok((outcome, json)) => (outcome, StatusCode::OK, "application/json", json),
            Err(Failure { outcome, code, text }) => {
                tracing::debug!(hook = hook.label(), reason = text, "a request to a webhook is refused");
                (outcome, code, "text/plain; charset=utf-8", format!("{text}\n").into_bytes())
            }
        };
        self.webhooks.metrics.ended(hook, outcome, begun.elapsed());
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = code;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        // The rest of a refused body could be taken for the next request's head.
        if outcome == Outcome::Unreadable || self.since.elapsed() > LONGEST_CONNECTION {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn reviewed(&self, hook: Hook, head: &HeaderMap, body: Body) -> Result<(Outcome, Vec<u8>), Failure> {
        let length = head.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let length: usize = length.ok_or_else(|| {
            Failure::unreadable(StatusCode::LENGTH_REQUIRED, "the request has no Content-Length. Send one")
        })?;
        if length > LARGEST_BODY {
            let text =
                format!("the body has {length} bytes, and at most {LARGEST_BODY} are allowed. Make the object smaller");
            return Err(Failure::unreadable(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        // Held until the answer: the body is in memory for that time.
        let _permit = match length > SMALL_BODY {
            true => Some(self.room().await?),
            false => None,
        };
        let body = timeout(BODY_TIMEOUT, Limited::new(body, length).collect()).await.map_err(|_| {
            let text = format!("the body did not come within {BODY_TIMEOUT:?}. Send it again");
            Failure::unreadable(StatusCode::REQUEST_TIMEOUT, text)
        })?;
        let body = body.map_err(|error| {
            Failure::unreadable(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}. Send it again"))
        })?;
        let _busy = self.work.begin();
        self.asked(hook, &body.to_bytes()).await
    }

    /// Waits until a large body may be read.
    async fn room(&self) -> Result<SemaphorePermit<'_>, Failure> {
        let busy = || {
            Failure::unreadable(StatusCode::SERVICE_UNAVAILABLE, "too many large objects are in review. Send it again")
        };
        let permit = timeout(REVIEW_TIMEOUT, self.webhooks.large_bodies.acquire()).await.map_err(|_| busy())?;
        permit.map_err(|_| busy())
    }

    async fn asked(&self, hook: Hook, body: &Bytes) -> Result<(Outcome, Vec<u8>), Failure> {
        let request =
            Request::read(body).map_err(|error| Failure::unreadable(StatusCode::BAD_REQUEST, error.to_string()))?;
        let uid = request.uid.clone().into_owned();
        let review = async {
            match hook {
                Hook::Validate => self.webhooks.review.validate(request).await,
                Hook::Mutate => self.webhooks.review.mutate(request).await,
            }
        };
        let mut response = timeout(REVIEW_TIMEOUT, review).await.map_err(|_| Failure {
            outcome: Outcome::TimedOut,
            code: StatusCode::GATEWAY_TIMEOUT,
            text: format!("the review took longer than {REVIEW_TIMEOUT:?}. Try again"),
        })?;
        // The API server accepts only an answer with this UID.
        response.uid = uid;
        let outcome = if response.allowed { Outcome::Allowed } else { Outcome::Refused };
        let json = serde_json::to_vec(&response.into_review()).map_err(|error| Failure {
            outcome: Outcome::Unreadable,
            code: StatusCode::INTERNAL_SERVER_ERROR,
            text: format!("the answer cannot be written: {error}"),
        })?;
        Ok((outcome, json))
    }
}
