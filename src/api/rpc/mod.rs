//! The operators' API: JSON-RPC 2.0 over HTTP and WebSocket, on the leader and on followers alike.
//!
//! ```text
//!            listener (access, bounds)
//!               |
//!  methods: the table of all methods ---> openrpc: their description
//!               |
//!     +---------+-----------+--------------------+-----------------------+
//!     v                     v                    v                       v
//!  ports, switches       subscribe        decide, migrations,         status, log
//!     |      |              |             leases, ports.get
//!     v      v              v                    |
//!  replicas and ledger   journal <--Changed--    +--Question--> writer
//! ```
//!
//! No call waits for the writer's locks, or makes the writer wait: rows are read some at a time, and work that takes
//! milliseconds of CPU runs on other threads. For data that only the writer has, a call asks it, as the webhooks do.

mod access;
mod calls;
mod client;
mod decide;
mod explain;
mod failure;
mod journal;
mod leases;
mod listener;
mod log;
mod method;
mod methods;
mod migrations;
pub mod model;
mod openrpc;
mod page;
mod ports;
mod replicas;
mod sources;
mod status;
mod stream;
mod subscribe;
mod subscriptions;
mod switches;
mod view;

use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;

use self::sources::Api;

pub use access::Token;
pub use client::{ApiClient, ApiUrl, ClientError, Credentials};
pub use explain::{Known, explanation};
pub use failure::{Failure, FailureData, Reason};
pub use listener::Access;
pub use openrpc::document;
pub use replicas::Replicas;
pub use sources::Sources;
pub use switches::list as list_switches;
pub use view::{Chosen, View};

/// Serves the API until the listener fails.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, access: Access, sources: Sources) -> io::Result<()> {
    let api = Arc::new(Api::new(sources));
    let methods = methods::served(Arc::clone(&api)).map_err(io::Error::other)?;
    let token = access.token.clone();
    tokio::select! {
        ended = listener::run(listener, access, methods.into(), document()) => ended,
        () = api.subscriptions.keep() => Ok(()),
        () = async { match &token { Some(token) => token.follow().await, None => std::future::pending().await } } => Ok(()),
    }
}
