//! Subscriptions: the state, then each change, in a sequence without a gap.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use ovn_kubevirt::api::rpc::ApiClient;

use super::{call, client, leader_and_follower};
use crate::support::{Stage, VmOptions, eventually};

/// The ports that a subscriber knows.
#[derive(Default)]
struct Replayed {
    sequence: u64,
    complete: bool,
    /// Ports by VM.
    vms: BTreeMap<String, Vec<Value>>,
}

impl Replayed {
    /// Takes in a message.
    fn take(&mut self, message: &Value) {
        self.sequence += 1;
        assert_eq!(message["sequence"], self.sequence, "{message}");
        match message["kind"].as_str() {
            Some("state") => {
                assert!(!self.complete, "state after the last part");
                for port in message["ports"].as_array().expect("ports") {
                    let vm = port["vm"].as_str().expect("a VM").to_owned();
                    self.vms.entry(vm).or_default().push(port.clone());
                }
                self.complete = message["complete"] == true;
            }
            Some("changes") => {
                assert!(self.complete, "a change before the end of the state");
                for vm in message["vms"].as_array().expect("VMs") {
                    let name = vm["vm"].as_str().expect("a VM").to_owned();
                    let ports = vm["ports"].as_array().expect("ports").clone();
                    if ports.is_empty() {
                        self.vms.remove(&name)
                    } else {
                        self.vms.insert(name, ports)
                    };
                }
            }
            _ => panic!("{message}"),
        }
    }

    fn ports(&self) -> Value {
        self.vms.values().flatten().cloned().collect()
    }
}

async fn subscribed(service: &crate::support::Service, params: Value) -> ApiClient {
    let mut api = client(service).await;
    call(&mut api, "ports.subscribe", params).await;
    api
}

/// Reads until the subscriber's ports satisfy the condition.
async fn until(api: &mut ApiClient, replayed: &mut Replayed, what: &str, fits: impl Fn(&Value) -> bool) {
    let reading = async {
        while !replayed.complete || !fits(&replayed.ports()) {
            replayed.take(&api.message().await.expect("a message"));
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(30), reading).await;
    assert!(read.is_ok(), "{what}: {:#}", replayed.ports());
}

#[tokio::test]
async fn the_state_comes_first_and_then_every_change_without_a_gap_on_leader_and_follower() {
    let (stage, follower) = leader_and_follower("api-subscribe").await;
    for vm in ["a", "b", "c"] {
        stage.make(vm).await;
    }
    let mut subscribers = Vec::new();
    for service in [&stage.service, &follower] {
        for params in [json!({}), json!({"node": "n1"}), json!({"changesOnly": true})] {
            subscribers.push((service, params.clone(), subscribed(service, params).await, Replayed::default()));
        }
    }
    for (_, params, api, replayed) in &mut subscribers {
        let expected = if *params == json!({}) { 3 } else { 0 };
        until(api, replayed, "the state", |ports| ports.as_array().map(Vec::len) == Some(expected)).await;
    }
    stage.player.create_vm("d", VmOptions::default().annotation(super::IP_ADDRESS, "10.16.0.2")).await;
    stage.player.start("a", "n1").await;
    stage.player.delete_vm("b").await;
    stage.port_gone("b").await;
    stage.event("d", "AddressConflict", &["10.16.0.2"]).await;
    stage.port_where("a", "is on n1", |port| port.option("requested-chassis") == Some("n1")).await;
    for (service, params, api, replayed) in &mut subscribers {
        let filter = if params["node"] == "n1" { params.clone() } else { json!({}) };
        let list = call(&mut client(service).await, "ports.list", filter).await["ports"].clone();
        let expected: Value = match params["changesOnly"] == true {
            // c did not change.
            true => list.as_array().expect("ports").iter().filter(|port| port["vm"] != "c").cloned().collect(),
            false => list,
        };
        until(api, replayed, "what is listed", |ports| *ports == expected).await;
    }
    // A VM that leaves the filter is sent once, without ports.
    stage.player.stop("a").await;
    for (_, params, api, replayed) in &mut subscribers {
        if params["node"] == "n1" {
            until(api, replayed, "it is left", |ports| *ports == json!([])).await;
        }
    }
    let mut api = client(&stage.service).await;
    assert_eq!(call(&mut api, "status", json!({})).await["subscriptions"], 3);
    drop(subscribers);
    // They end with their connections.
    subscriptions(&stage, 0).await;
}

/// A subscriber that asks for much and reads no answer. Its receive buffer is small, so that it is full at once.
struct Silent(TcpStream);

impl Silent {
    async fn connect(address: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("a small buffer");
        let mut stream = socket.connect(address.parse().expect("an address")).await.expect("a connection");
        let upgrade = format!(
            "GET /rpc HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(upgrade.as_bytes()).await.expect("sent");
        let mut head = vec![0; 1_024];
        let read = stream.read(&mut head).await.expect("an answer");
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head[..read]));
        Self(stream)
    }

    /// Sends a text in a frame that is masked with zeros (RFC 6455 section 5.3).
    async fn send(&mut self, request: &Value) -> std::io::Result<()> {
        let text = request.to_string() + &" ".repeat(200);
        let length = u16::try_from(text.len()).expect("short").to_be_bytes();
        self.0.write_all(&[&[0x81, 0xfe][..], &length, &[0; 4], text.as_bytes()].concat()).await
    }

    async fn subscribe(&mut self) {
        self.send(&request("ports.subscribe", &json!({}))).await.expect("sent");
    }

    /// Asks for a large answer: so many maps.
    async fn ask_for_maps(&mut self, count: usize) -> std::io::Result<()> {
        let params = json!({"switch": "ovn-default", "from": "10.16.0.0", "to": "10.16.15.255", "cells": 4096});
        self.send(&vec![request("switches.map", &params); count].into()).await
    }
}

fn request(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": method, "method": method, "params": params})
}

/// Waits until the service has so many subscriptions.
async fn subscriptions(stage: &Stage, count: u64) {
    eventually(&format!("there are {count} subscriptions"), || async {
        let status = call(&mut client(&stage.service).await, "status", json!({})).await;
        if status["subscriptions"] == count { Ok(()) } else { Err(status) }
    })
    .await;
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_cut_off_and_holds_up_no_other() {
    let stage = Stage::build("api-slow").flags(super::API).start().await;
    let mut silent = Silent::connect(&stage.service.api().await).await;
    silent.subscribe().await;
    for vm in ["a", "b", "c"] {
        stage.player.create_vm(vm, VmOptions::default()).await;
    }
    let mut other = subscribed(&stage.service, json!({})).await;
    let mut replayed = Replayed::default();
    // Its answers are not taken, so that its questions are not read after a while, and then the connection ends.
    let flood = async { while silent.ask_for_maps(1).await.is_ok() {} };
    let cut = tokio::time::timeout(Duration::from_secs(60), flood);
    let watching = async {
        for vm in ["a", "b", "c"] {
            stage.player.delete_vm(vm).await;
        }
        until(&mut other, &mut replayed, "all are gone", |ports| *ports == json!([])).await;
    };
    let (cut, ()) = tokio::join!(cut, watching);
    assert!(cut.is_ok(), "the silent one is still served");
    subscriptions(&stage, 1).await;
}

#[tokio::test]
async fn a_subscriber_that_is_cut_off_and_reads_again_finds_the_reason() {
    let stage = Stage::build("api-late").flags(super::API).start().await;
    let mut silent = Silent::connect(&stage.service.api().await).await;
    silent.subscribe().await;
    subscriptions(&stage, 1).await;
    // More than the buffers of the connection hold: the answers keep some of the places of messages that wait for it, and
    // changes come to have the others.
    for _ in 0..6 {
        silent.ask_for_maps(16).await.expect("sent");
    }
    let made = AtomicUsize::new(0);
    eventually("the subscription ends", || async {
        stage.player.create_vm(&format!("vm-{}", made.fetch_add(1, Ordering::Relaxed)), VmOptions::default()).await;
        let status = call(&mut client(&stage.service).await, "status", json!({})).await;
        if status["subscriptions"] == 0 { Ok(()) } else { Err(status) }
    })
    .await;
    let (mut text, mut part) = (String::new(), vec![0; 65_536]);
    let reading = async {
        while !text.contains("TooSlow") {
            let read = silent.0.read(&mut part).await.expect("bytes");
            assert!(
                read > 0,
                "the connection ends after {} bytes: {}",
                text.len(),
                &text[text.len().saturating_sub(1_000)..]
            );
            text.push_str(&String::from_utf8_lossy(&part[..read]));
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(30), reading).await;
    assert!(read.is_ok(), "{} bytes: {}", text.len(), &text[text.len().saturating_sub(1_000)..]);
    assert!(text.contains("Subscribe again"), "{}", &text[text.len().saturating_sub(1_000)..]);
}
