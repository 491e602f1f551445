//! The JSON-RPC 1.0 envelope. It has no `"jsonrpc"` member: ovsdb-server closes the connection of a client that sends
//! one.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// An incoming message. Its parts stay raw until their type is known.
#[derive(Debug, Deserialize)]
pub(super) struct Incoming<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
}

/// A request.
pub(super) fn request(id: u64, method: &str, params: &impl Serialize) -> Result<Bytes, serde_json::Error> {
    #[derive(Serialize)]
    struct Request<'a, P> {
        id: u64,
        method: &'a str,
        params: &'a P,
    }
    serde_json::to_vec(&Request { id, method, params }).map(Bytes::from)
}

/// The answer to the server's `echo`: its params, sent back (RFC 7047 section 4.1.11).
pub(super) fn echo_reply(id: &RawValue, params: Option<&RawValue>) -> Result<Bytes, serde_json::Error> {
    #[derive(Serialize)]
    struct Reply<'a> {
        id: &'a RawValue,
        result: Option<&'a RawValue>,
        error: (),
    }
    serde_json::to_vec(&Reply { id, result: params, error: () }).map(Bytes::from)
}
