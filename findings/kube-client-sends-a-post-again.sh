#!/usr/bin/env bash
# Finding: kube-client 5.0 sends a POST again by itself when the server answers 503, sixteen times in all here, without a
# log line, unless `Config::default_retry` is set to false. A create that the server had executed before it answered 503 (a
# proxy that lost its backend) is so executed again.
#
# Version: kube 5.0.0 (crates: kube, with k8s-openapi 0.29), its default configuration.
# Input: one `Api::create` of a ConfigMap against a server on loopback that answers every POST with 503.
# Seen: the server counts 16 POSTs with the default, and 1 with `default_retry = false`.
#
# Needs: cargo 1.89 or newer. The project is made in a temporary folder.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "retries"
version = "0.0.0"
edition = "2024"

[dependencies]
kube = { version = "=5.0.0", default-features = false, features = ["client"] }
k8s-openapi = { version = "0.29", features = ["v1_33"] }
tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
TOML
cat >src/main.rs <<'RUST'
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client, Config};

fn serve(listener: TcpListener, posts: Arc<AtomicUsize>) {
    for stream in listener.incoming().flatten() {
        let posts = Arc::clone(&posts);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            loop {
                let (mut length, mut line, mut first) = (0, String::new(), String::new());
                loop {
                    line.clear();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 {
                        return;
                    }
                    if first.is_empty() {
                        first = line.clone();
                    }
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap_or(0);
                    }
                    if line == "\r\n" {
                        break;
                    }
                }
                let mut body = vec![0; length];
                let _ = reader.read_exact(&mut body);
                if first.starts_with("POST") {
                    posts.fetch_add(1, Ordering::SeqCst);
                }
                let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
                let _ = reader.get_mut().write_all(answer.as_bytes());
            }
        });
    }
}

async fn posts(default_retry: bool) -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let posts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&posts);
    std::thread::spawn(move || serve(listener, counted));
    let mut config = Config::new(url.parse().expect("a URL"));
    config.default_retry = default_retry;
    let client = Client::try_from(config).expect("a client");
    let map: ConfigMap = ConfigMap::default();
    let result = Api::<ConfigMap>::namespaced(client, "default").create(&PostParams::default(), &map).await;
    assert!(result.is_err());
    posts.load(Ordering::SeqCst)
}

#[tokio::main]
async fn main() {
    println!("{} {}", posts(true).await, posts(false).await);
}
RUST
seen=$(cargo run --quiet)
echo "POSTs with the default, and with default_retry = false: $seen"
[ "$seen" = "16 1" ]
