//! The listener of the API: HTTP/1.1 and WebSocket, over TLS where a certificate is set.
//!
//! ```text
//!  accept (crate::connections) --> TLS? --> Bounded --> HTTP/1.1 --+-- GET /              page
//!                                                                  +-- GET /openrpc.json  openrpc
//!                                                                  +-- POST /, /rpc       access --> jsonrpsee
//!                                                                  +-- upgrade of /rpc    access --> jsonrpsee
//! ```

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, SEC_WEBSOCKET_PROTOCOL};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use jsonrpsee::core::middleware::RpcServiceBuilder;
use jsonrpsee::server::{
    BatchRequestConfig, Methods, PingConfig, Server, ServerConfig, TowerServiceBuilder, stop_channel,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::Service;
use tower::layer::util::{Identity, Stack};

use super::access::{self, Token};
use super::calls::CallsLayer;
use super::stream::Bounded;
use crate::connections::{Bounds, Work, accept};

/// Subscribers hold theirs for as long as they like.
const BOUNDS: Bounds = Bounds { server: "API", most: 256, share: 4 };
/// The limit for a connection's handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The limit for a request's head, and for the next request on a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The most memory for a request's head.
const LARGEST_HEAD: usize = 16 * 1_024;
/// A VirtualMachine may have as many bytes as etcd takes.
const LARGEST_REQUEST: u32 = 2 * 1_024 * 1_024;
/// The map of a subnet with all its holders is the largest answer.
const LARGEST_ANSWER: u32 = 8 * 1_024 * 1_024;
const LONGEST_BATCH: u32 = 16;
const SUBSCRIPTIONS_PER_CONNECTION: u32 = 8;
/// Messages that wait for a WebSocket peer, at most.
const MESSAGES_AHEAD: u32 = 8;
/// A WebSocket peer is asked whether it lives, and is left when it has not answered for so long.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_PATIENCE: Duration = Duration::from_secs(45);

type Rpc = TowerServiceBuilder<Stack<CallsLayer, Identity>, Identity>;

type Resolves = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A WebSocket in progress.
struct Session {
    /// Resolves at its end.
    ended: Resolves,
    /// Resolves when the token that opened it is no longer valid.
    revoked: Resolves,
}

/// The access to the listener.
#[derive(Clone, Default)]
pub struct Access {
    /// TLS, if a certificate is set.
    pub tls: Option<TlsAcceptor>,
    /// The token, if one is set.
    pub token: Option<Token>,
}

/// The connection that a call came by.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) work: Work,
}

/// The state that all connections share.
struct Shared {
    rpc: Rpc,
    methods: Methods,
    access: Access,
    document: String,
}

/// The state that the requests of a connection share.
struct Context {
    shared: Arc<Shared>,
    peer: Peer,
    /// Ends the sessions of this connection.
    stop: jsonrpsee::server::StopHandle,
    /// Set once the connection is a WebSocket.
    session: Mutex<Option<Session>>,
}

/// Serves methods until the listener fails.
pub(super) async fn run(listener: TcpListener, access: Access, methods: Methods, document: String) -> io::Result<()> {
    let config = ServerConfig::builder()
        .max_connections(u32::try_from(2 * BOUNDS.most).unwrap_or(u32::MAX))
        .max_request_body_size(LARGEST_REQUEST)
        .max_response_body_size(LARGEST_ANSWER)
        .max_subscriptions_per_connection(SUBSCRIPTIONS_PER_CONNECTION)
        .set_batch_request_config(BatchRequestConfig::Limit(LONGEST_BATCH))
        .set_message_buffer_capacity(MESSAGES_AHEAD)
        .enable_ws_ping(PingConfig::new().ping_interval(PING_EVERY).inactive_limit(PING_PATIENCE).max_failures(1))
        .build();
    let rpc = Server::builder()
        .set_config(config)
        .set_rpc_middleware(RpcServiceBuilder::new().layer(CallsLayer))
        .to_service_builder();
    let shared = Arc::new(Shared { rpc, methods, access, document });
    accept(listener, BOUNDS, |stream, work| connection(stream, work, Arc::clone(&shared))).await
}

async fn connection(stream: TcpStream, work: Work, shared: Arc<Shared>) {
    // A small answer must not wait for the acknowledgement of the former one.
    let _ = stream.set_nodelay(true);
    let Some(tls) = shared.access.tls.clone() else { return serve(stream, work, shared).await };
    match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, work, shared).await,
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the API failed in its TLS handshake"),
        Err(_) => {}
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, work: Work, shared: Arc<Shared>) {
    // This task has the connection's place: when it is ended, so is the stream, by whomever it is read.
    let (stream, _alive) = Bounded::new(stream);
    let (stop, _server) = stop_channel();
    let context = Arc::new(Context { shared, peer: Peer { work }, stop, session: Mutex::new(None) });
    let router = Router::new()
        .route("/", get(super::page::page).post(call))
        .route("/rpc", post(call).get(call))
        .route("/openrpc.json", get(document))
        .with_state(Arc::clone(&context));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    // The peer decides how a connection ends.
    let _ = connection.await;
    let session = context.session.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(Session { ended, revoked }) = session {
        tokio::select! {
            () = ended => {}
            () = revoked => tracing::info!("a WebSocket of the API ends, because the token that opened it was replaced"),
        }
    }
}

async fn document(State(context): State<Arc<Context>>) -> Response {
    ([(CONTENT_TYPE, "application/json")], context.shared.document.clone()).into_response()
}

async fn call(State(context): State<Arc<Context>>, mut request: Request) -> Response {
    let shared = &context.shared;
    // Before the check, so that a token that is replaced in between is noticed.
    let token = shared.access.token.as_ref();
    let revoked: Resolves = match token {
        Some(token) => Box::pin(token.replaced()),
        None => Box::pin(std::future::pending()),
    };
    if let Err(refused) = access::check(request.headers(), token) {
        let mut response = (refused.code, format!("{}\n", refused.text)).into_response();
        if refused.code == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert("www-authenticate", HeaderValue::from_static("Bearer"));
        }
        return response;
    }
    let _busy = context.peer.work.begin();
    let offers = access::offers_protocol(request.headers());
    request.extensions_mut().insert(context.peer.clone());
    let mut rpc = shared.rpc.clone().build(shared.methods.clone(), context.stop.clone());
    let session = rpc.on_session_closed();
    let Ok(answer) = rpc.call(request).await else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let mut answer = answer.map(Body::new);
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        *context.session.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Session { ended: Box::pin(session), revoked });
        if offers {
            answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(access::PROTOCOL));
        }
    }
    answer
}
