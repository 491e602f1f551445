//! The HTTP port under load and under attack: a probe always finds room.

use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::eventually::within;
use crate::support::{Service, Stage, VmOptions, holds_for};

/// Connections that send half a request and wait.
async fn half_sent(service: &Service, count: usize) -> Vec<TcpStream> {
    let address = service.listening().await.to_owned();
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        // Where no more are let in, that is it.
        let Ok(Ok(mut stream)) = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(&address)).await
        else {
            break;
        };
        let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Half: ").await;
        streams.push(stream);
    }
    streams
}

/// How many connections the service has on its HTTP port.
fn sockets(service: &Service) -> usize {
    let folder = format!("/proc/{}/fd", service.pid());
    let links = std::fs::read_dir(folder).expect("a running process").flatten();
    links.filter_map(|entry| std::fs::read_link(entry.path()).ok()).filter(|to| to.starts_with("socket:")).count()
}

async fn lives(service: &Service, time: Duration) {
    holds_for("/livez answers", time, || async {
        match tokio::time::timeout(Duration::from_secs(5), service.http_get("/livez")).await {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn half_sent_requests_keep_no_probe_out_and_end_by_themselves() {
    let stage = Stage::build("half-sent").start().await;
    let before = sockets(&stage.service);
    let streams = half_sent(&stage.service, 367).await;
    // The test process may have no descriptors for more; so many are more than are let in.
    assert!(streams.len() > 100, "{}", streams.len());
    lives(&stage.service, Duration::from_secs(2)).await;
    assert!(sockets(&stage.service) <= before + 70, "{before} and then {}", sockets(&stage.service));
    // The heads never come: all of them are closed.
    within(Duration::from_secs(20), "the connections are closed", || async {
        let now = sockets(&stage.service);
        if now <= before + 5 { Ok(()) } else { Err(now) }
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_not_used_is_closed() {
    let stage = Stage::build("idle-http").start().await;
    let address = stage.service.listening().await;
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("a request");
    let mut all = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await;
    read.expect("the connection ends").expect("it ends well");
    assert!(all.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&all));
}

#[tokio::test]
async fn few_descriptors_end_neither_the_probes_nor_the_service() {
    let stage = Stage::build("descriptors").start().await;
    let open = std::fs::read_dir(format!("/proc/{}/fd", stage.service.pid())).expect("a running process").count();
    // Room for ten more.
    let limit = format!("--nofile={}:{}", open + 10, open + 10);
    let set = Command::new("prlimit").args(["--pid", &stage.service.pid().to_string(), &limit]).status();
    assert!(set.expect("prlimit (util-linux) runs").success());
    let streams = half_sent(&stage.service, 200).await;
    lives(&stage.service, Duration::from_secs(3)).await;
    let log = stage.service.log();
    let lines = log.lines().filter(|line| line.contains("the HTTP server cannot accept a connection")).count();
    assert_eq!(lines, 1, "{log}");
    drop(streams);
    stage.player.create_vm("testvm", VmOptions::default()).await;
    stage.port("testvm").await;
    assert!(stage.service.is_running());
}
