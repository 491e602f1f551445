//! Access to the API server: clients with deadlines, single requests, and the server's health.
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
//! kube's own client silently repeats a request after 429, 503 and 504, even a POST. These clients do not: each caller
//! decides about a retry. Each user has its own connections, and HTTP/1.1 has one request on a connection, so one
//! silent connection holds up one request, and only until its deadline.

mod call;
mod client;
mod event;
mod health;
mod probe;

pub(crate) use call::{Refusal, call, chain};
pub use client::ApiServer;
pub(crate) use event::{NewEvent, create_event};
pub use health::Health;
pub(crate) use health::{Watches, name as kind_name};
pub use probe::probe_api_server;
