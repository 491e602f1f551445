//! A proxy in front of the real API server that a test can have lose answers, refuse requests, or fall silent: it reads
//! the requests, and does not forward them. It counts them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::client::Body;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;

type Answer = Response<UnsyncBoxBody<Bytes, kube::Error>>;

/// The proxy; it lives as long as the value, on the test's runtime.
#[derive(Debug)]
pub struct Front {
    state: Arc<State>,
    task: AbortHandle,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// When.
    pub at: Instant,
}

/// The answer to the next requests of a kind.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The method.
    pub method: &'static str,
    /// A part of the path.
    pub path: String,
    /// How many of them.
    pub times: usize,
    /// The status that is answered.
    pub status: u16,
    /// `Retry-After`.
    pub retry_after: Option<u32>,
    /// The body of the answer.
    pub body: String,
    /// The server gets the request all the same, and its answer is lost.
    pub done: bool,
}

#[derive(Debug, Default)]
struct State {
    asked: Mutex<Vec<Asked>>,
    rules: Mutex<Vec<Rule>>,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    /// New connections are silent from the start.
    mute: AtomicBool,
}

#[derive(Debug)]
struct Connection {
    watches: AtomicBool,
    muted: watch::Sender<bool>,
}

impl Front {
    /// A proxy to the API server of `kubeconfig`, and the kubeconfig, written into `dir`, that goes through it.
    pub async fn to_api_server(kubeconfig: &Path, dir: &Path) -> (Self, PathBuf) {
        let mut file = Kubeconfig::read_from(kubeconfig).expect("the cluster's kubeconfig can be read");
        let config = Config::from_custom_kubeconfig(file.clone(), &KubeConfigOptions::default()).await;
        let mut config = config.expect("the kubeconfig has a current context");
        // Each caller brings its own credentials.
        config.auth_info = AuthInfo::default();
        config.default_retry = false;
        let server = Client::try_from(config).expect("a client of the cluster");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address: SocketAddr = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::new(State::default());
        let task = tokio::spawn(accept(listener, server, Arc::clone(&state))).abort_handle();
        let cluster = file.clusters.first_mut().and_then(|named| named.cluster.as_mut());
        cluster.expect("a kubeconfig has a cluster").server = Some(format!("http://{address}"));
        let through = dir.join(format!("kubeconfig-{}", address.port()));
        // JSON is YAML, and kube has made the names of files in it absolute.
        let text = serde_json::to_string(&file).expect("a kubeconfig can be written as JSON");
        std::fs::write(&through, text).expect("the kubeconfig through the proxy");
        (Self { state, task }, through)
    }

    /// From now on this rule holds, after those that are there.
    pub fn rule(&self, rule: Rule) {
        lock(&self.state.rules).push(rule);
    }

    /// The connections that are there fall silent; new ones do not.
    pub fn mute_connections(&self) {
        self.set_mute(true, |_| true);
    }

    /// Those of them that have no watch.
    pub fn mute_requests(&self) {
        self.set_mute(true, |connection| !connection.watches.load(Ordering::Relaxed));
    }

    /// All connections fall silent, and all that come.
    pub fn mute_all(&self) {
        self.state.mute.store(true, Ordering::Relaxed);
        self.mute_connections();
    }

    /// New connections are not silent any more, and the others go on where they were.
    pub fn unmute(&self) {
        self.state.mute.store(false, Ordering::Relaxed);
        self.set_mute(false, |_| true);
    }

    fn set_mute(&self, mute: bool, of: impl Fn(&Connection) -> bool) {
        for connection in lock(&self.state.connections).values().filter(|connection| of(connection)) {
            connection.muted.send_replace(mute);
        }
    }

    /// The requests with this method and all of these words in the path, in their order.
    pub fn asked(&self, method: &str, words: &[&str]) -> Vec<Asked> {
        let asked = lock(&self.state.asked);
        let fits = |asked: &&Asked| asked.method == method && words.iter().all(|word| asked.path.contains(word));
        asked.iter().filter(fits).cloned().collect()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: Client, state: Arc<State>) {
    let mut number = 0;
    while let Ok((stream, _)) = listener.accept().await {
        number += 1;
        let muted = watch::Sender::new(state.mute.load(Ordering::Relaxed));
        let connection = Arc::new(Connection { watches: AtomicBool::new(false), muted });
        lock(&state.connections).insert(number, Arc::clone(&connection));
        let (server, state) = (server.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, server.clone(), &state, Arc::clone(&connection)));
            let serving =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            let _ = serving.await;
            lock(&state.connections).remove(&number);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    server: Client,
    state: &State,
    connection: Arc<Connection>,
) -> Result<Answer, Infallible> {
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let method = request.method().to_string();
    if path.contains("watch=") {
        connection.watches.store(true, Ordering::Relaxed);
    }
    // A request on a silent connection goes no further, and is not counted.
    speaks(&connection).await;
    lock(&state.asked).push(Asked { method: method.clone(), path: path.clone(), at: Instant::now() });
    let rule = {
        let mut rules = lock(&state.rules);
        let fits = |rule: &&mut Rule| rule.times > 0 && rule.method == method && path.contains(&rule.path);
        rules.iter_mut().find(fits).map(|rule| {
            rule.times -= 1;
            rule.clone()
        })
    };
    let (mut head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    head.headers.remove("host");
    let forwarded = Request::from_parts(head, Body::from(body.to_vec()));
    if let Some(rule) = rule {
        if rule.done {
            let _ = server.send(forwarded).await;
        }
        let mut refused = Response::builder().status(rule.status).header("Content-Type", "application/json");
        if let Some(seconds) = rule.retry_after {
            refused = refused.header("Retry-After", seconds);
        }
        return Ok(refused.body(whole(rule.body)).expect("a response"));
    }
    let answer = match server.send(forwarded).await {
        Ok(answer) => answer,
        Err(error) => {
            let gateway = Response::builder().status(StatusCode::BAD_GATEWAY).body(whole(error.to_string()));
            return Ok(gateway.expect("a response"));
        }
    };
    speaks(&connection).await;
    Ok(answer.map(|body| {
        let frames = BodyStream::new(body).then(move |frame| {
            let connection = Arc::clone(&connection);
            async move {
                speaks(&connection).await;
                frame
            }
        });
        StreamBody::new(frames).boxed_unsync()
    }))
}

/// Waits while the connection is silent.
async fn speaks(connection: &Connection) {
    let mut muted = connection.muted.subscribe();
    let _ = muted.wait_for(|muted| !muted).await;
}

fn whole(text: String) -> UnsyncBoxBody<Bytes, kube::Error> {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
