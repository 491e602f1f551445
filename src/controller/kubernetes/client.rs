//! Clients of the API server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::header::RETRY_AFTER;
use hyper::{Request, Response};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use tower::BoxError;

use super::health::Health;
use crate::kubevirt::Kind;

/// The limit for making a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The limit for the beginning of an answer, also of a list's first page.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const LIST_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest silence of a connection with a list or a watch. A watch ends before it.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// An unused connection is closed after this: it may have been lost silently.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// tcp(7): after this time the peer's kernel is probed every `KEEPALIVE_INTERVAL`, for at most this number of times.
/// Sent data must be acknowledged within `USER_TIMEOUT`.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_RETRIES: u32 = 3;
const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest pause that a server can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// The API server of a configuration.
#[derive(Debug, Clone)]
pub struct ApiServer {
    config: Config,
    health: Arc<Health>,
}

impl ApiServer {
    /// The API server that this configuration names. The health of its watches goes into `health`.
    pub fn new(config: Config, health: Arc<Health>) -> Self {
        Self { config, health }
    }

    /// A client with connections of its own, for requests. Each answer has to begin within 10 s (30 s for a list); the
    /// caller limits the whole.
    ///
    /// # Errors
    /// If the configuration's certificates or credentials cannot be used, or it names a proxy, which is not supported.
    pub fn requests(&self) -> Result<Client, kube::Error> {
        self.client(None)
    }

    /// A client for the list and the watch of one kind of object. Every received byte is recorded in the health.
    ///
    /// # Errors
    /// As [`ApiServer::requests`].
    pub fn watch(&self, kind: Kind) -> Result<Client, kube::Error> {
        self.client(Some(kind))
    }

    /// As kube's [`ClientBuilder`] does it, without the retries, but with TCP options and deadlines.
    fn client(&self, kind: Option<Kind>) -> Result<Client, kube::Error> {
        let config = &self.config;
        if let Some(proxy) = &config.proxy_url {
            return Err(kube::Error::ProxyProtocolUnsupported { proxy_url: Box::new(proxy.clone()) });
        }
        let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp())?);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_write_timeout(Some(LONGEST_SILENCE));
        // The watch of a Lease may be silent for longer, as renewals are rare.
        connector.set_read_timeout(kind.map(|_| LONGEST_SILENCE));
        // The idle time of a connection does not count against the next answer.
        connector.set_reset_reader_on_write(true);
        let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        let health = kind.map(|kind| (kind, Arc::clone(&self.health)));
        let service = tower::service_fn(move |request: Request<Body>| {
            let limit = if is_list(&request) { LIST_TIMEOUT } else { ANSWER_TIMEOUT };
            let (answer, health) = (http.request(request), health.clone());
            async move {
                let answer = tokio::time::timeout(limit, answer).await;
                let answer = answer.map_err(|_| BoxError::from(format!("no answer within {limit:?}")))??;
                Ok::<_, BoxError>(observed(answer, health))
            }
        });
        let builder = ClientBuilder::new(service, &config.default_namespace).with_layer(&config.extra_headers_layer()?);
        let base = config.base_uri_layer();
        Ok(match config.auth_layer()? {
            Some(auth) => builder.with_layer(&auth).with_layer(&base).build(),
            None => builder.with_layer(&base).build(),
        })
    }
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE_AFTER));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    tcp.set_tcp_user_timeout(Some(USER_TIMEOUT));
    tcp
}

/// Returns true if a request is for a page of a list.
fn is_list(request: &Request<Body>) -> bool {
    request.uri().query().is_some_and(|query| query.contains("limit="))
}

/// Records the beginning of an answer, each part of its body, and the pause that the server asks for.
fn observed(
    answer: Response<hyper::body::Incoming>,
    health: Option<(Kind, Arc<Health>)>,
) -> Response<http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, hyper::Error>> {
    let Some((kind, health)) = health else { return answer.map(BodyExt::boxed_unsync) };
    if answer.status().is_success() {
        health.received(kind);
    } else if let Some(after) = retry_after(answer.headers()) {
        health.postpone(kind, Instant::now() + after);
    }
    let success = answer.status().is_success();
    answer.map(|body| {
        body.map_frame(move |frame| {
            if success {
                health.received(kind);
            }
            frame
        })
        .boxed_unsync()
    })
}

/// `Retry-After` in seconds, as Kubernetes and its load balancers write it (RFC 9110, section 10.2.3).
pub(super) fn retry_after(headers: &hyper::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}
