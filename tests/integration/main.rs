//! The service on real servers: an ovsdb-server a test, a kube-apiserver a run.

#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, unreachable_pub, reason = "each target uses a part of the harness")]
mod support;

mod addresses;
mod admission;
mod api;
mod brake;
mod client;
mod commands;
mod configuration;
mod contract;
mod cut;
mod database;
mod datapath;
mod dhcp;
mod dhcp_options;
mod documents;
mod errors;
mod fleet;
mod fronted;
mod hostile;
mod http;
mod ipv6;
mod kubernetes;
mod lease;
mod lost;
mod manifests;
mod marks;
mod migration;
mod monitoring;
mod names;
mod nics;
mod node;
mod ownership;
mod policy;
mod raft;
mod requests;
mod shutdown;
mod sidecars;
mod southbound;
mod status;
mod story;
mod tls;
mod upgrade;
mod writer;
