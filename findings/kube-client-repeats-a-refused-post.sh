#!/usr/bin/env bash
# Finding: the Rust client of Kubernetes repeats a POST that the API server answers with 503.
#
# Version: kube 5.0.0 (crates.io), its default configuration.
# Input: one `create` of a ConfigMap; a server that answers it as the API server does for a webhook that refuses, with the code that
# the webhook chose (503 or 500).
# Seen: 16 POSTs for the one create where the answer is 503, and one where it is 500; the caller hears of the refusal after the last.
# An admission webhook that waits before it refuses with 503 ("try again") is asked, and waited for, each time: one create took more
# than a minute. client-go sends it once, and leaves repetition to the caller's queue. `Config::default_retry = false` turns it off.
#
# Needs: cargo 1.85 or newer, and a registry. Everything is built in a temporary folder, and listens on the loopback interface.
set -euo pipefail

version=5.0.0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/src"
cat >"$dir/Cargo.toml" <<TOML
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
http = "1"
k8s-openapi = { version = "0.29", features = ["v1_33"] }
kube = { version = "=$version", default-features = false, features = ["client"] }
tokio = { version = "1", features = ["io-util", "macros", "net", "rt"] }
TOML
cat >"$dir/src/main.rs" <<'RUST'
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers every request with this code and a Status, as the API server does for a webhook that refuses.
async fn requests_of_one_create(code: u16) -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut read = vec![0; 65536];
                let size = stream.read(&mut read).await.expect("a request");
                assert!(read[..size].starts_with(b"POST "), "one create is one POST");
                counted.fetch_add(1, Ordering::SeqCst);
                let body = format!(
                    r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"refused by a webhook","code":{code}}}"#
                );
                let head = format!("HTTP/1.1 {code} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).await.expect("an answer");
            });
        }
    });
    let client = Client::try_from(Config::new(url.parse().expect("a URL"))).expect("a client");
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let error = maps.create(&PostParams::default(), &ConfigMap::default()).await.expect_err("refused");
    println!("{code}: the caller hears \"{error}\" after {} request(s)", requests.load(Ordering::SeqCst));
    requests.load(Ordering::SeqCst)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (unavailable, internal) = (requests_of_one_create(503).await, requests_of_one_create(500).await);
    assert!(unavailable > 1, "a POST that is answered with 503 is sent once: the behaviour has changed");
    assert_eq!(internal, 1, "a POST that is answered with 500 is repeated: the behaviour has changed");
}
RUST
echo "kube $version:"
(cd "$dir" && CARGO_TARGET_DIR="$dir/target" cargo run --quiet)
