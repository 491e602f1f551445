#!/usr/bin/env bash
# Finding: jsonrpsee's server answers a JSON-RPC notification over HTTP with the body `null`.
#
# Version: jsonrpsee 0.26.1 (crates.io).
# Input: POST of {"jsonrpc":"2.0","method":"touch"}, a request object without an id, and the same with an id.
# Seen: the notification gets 200 and the JSON text `null`, which is no response object, and the method is not executed; with the id it is executed
# once. JSON-RPC 2.0 (section 4.1) says that the server must not reply to a notification: a client that parses every body of
# a 200 as a response object fails on it. A server that counts on notifications to do something sees none of them.
#
# Needs: curl, cargo 1.85 or newer, and a registry. Everything is built in a temporary folder, and listens on the loopback interface.
set -euo pipefail

version=0.26.1
dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$dir"' EXIT
mkdir -p "$dir/src"
cat >"$dir/Cargo.toml" <<TOML
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
jsonrpsee = { version = "=$version", default-features = false, features = ["server"] }
tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
TOML
cat >"$dir/src/main.rs" <<'RUST'
use std::sync::atomic::{AtomicUsize, Ordering};

use jsonrpsee::RpcModule;
use jsonrpsee::server::Server;

#[tokio::main]
async fn main() {
    let server = Server::builder().build("127.0.0.1:0").await.expect("a port");
    println!("{}", server.local_addr().expect("an address"));
    let mut module = RpcModule::new(AtomicUsize::new(0));
    let touch = |_: jsonrpsee::types::Params<'_>, touched: &AtomicUsize, _: &jsonrpsee::Extensions| {
        touched.fetch_add(1, Ordering::SeqCst) + 1
    };
    module.register_method("touch", touch).expect("a method");
    server.start(module).stopped().await;
}
RUST
(cd "$dir" && CARGO_TARGET_DIR="$dir/target" cargo build --quiet)
"$dir/target/debug/finding" >"$dir/address" &
server=$!
for _ in $(seq 100); do
    [ -s "$dir/address" ] && break
    sleep 0.1
done
call() { curl --silent --show-error --write-out ' %{http_code}' -H 'content-type: application/json' -d "$1" "http://$(cat "$dir/address")"; }
notification=$(call '{"jsonrpc":"2.0","method":"touch"}')
request=$(call '{"jsonrpc":"2.0","method":"touch","id":1}')
echo "jsonrpsee $version: without an id: $notification; with an id: $request"
[ "$notification" = 'null 200' ] || { echo "the answer to a notification is another one: the behaviour has changed"; exit 1; }
case $request in
*'"result":1'*' 200') ;;
*) echo "the notification was executed, or the request was not: the behaviour has changed"; exit 1 ;;
esac
