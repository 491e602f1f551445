//! How the API server is reached: clients with deadlines, one request at a time, and whether it is there.
//!
//! ```text
//!   reporter --- call (10 s) -----+
//!   lease ------ its own limits --+-> a client each: TCP keepalive, no connection idle for long
//!   probe ------ call (2 s) ------+
//!   watches ---- 30 s of silence ---> a client for each kind --- every byte ---> Health <--- probe, watches
//!                                                                                  |
//!                                                                          /readyz, /metrics
//! ```
//!
//! kube's own client sends a request again on 429, 503 and 504, without a word and for a POST as well. These clients do
//! not: whoever asks decides when to ask again. Each user has connections of its own, and HTTP/1.1 has one request on
//! a connection, so that one silent connection holds up one request, and only until its deadline.

mod call;
mod client;
mod event;
mod health;
mod probe;

pub(crate) use call::{Refusal, call, chain};
pub use client::ApiServer;
pub(crate) use event::{NewEvent, create_event};
pub use health::Health;
pub(crate) use health::WatchAges;
pub use probe::probe_api_server;
