//! A scrape of `/metrics`: how long it takes by ports and switches, and for how long it keeps an update of the replica waiting.
//!
//! No database is part of it: the replica is filled as a monitor's reply would fill it. The scrape goes over HTTP on the
//! loopback, a connection each, as Prometheus does after a restart. A thread asks for the replica's lock all the time, as the
//! task that applies updates does.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::machine::Busy;
use common::{is_test, median, milliseconds, setting};
use ovn_kubevirt::api::serve;
use ovn_kubevirt::contract::keys;
use ovn_kubevirt::controller::{Link, Metrics, Observed, Status};
use ovn_kubevirt::ovn::Northbound;
use ovn_kubevirt::ovsdb::{Shared, apply_updates};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use uuid::Uuid;

const SCRAPES: usize = 200;

#[tokio::main]
async fn main() {
    if is_test() {
        return;
    }
    let scrapes = setting("BENCH_SCRAPES", &[SCRAPES])[0];
    println!("a scrape of /metrics over HTTP, {scrapes} of each (goal at 100,000 ports on 200 switches: 10 ms)");
    println!(
        "{:<10}{:>10}{:>12}{:>12}{:>12}{:>16}{:>12}{:>12}",
        "ports", "switches", "p50", "p99", "encoding", "update waits", "size", "series"
    );
    let busy = Busy::begin();
    for (ports, switches) in [(1_000, 10), (100_000, 200), (100_000, 4_000)] {
        measure(ports, switches, scrapes).await;
    }
    println!("machine: {}", busy.end());
}

async fn measure(ports: usize, switches: usize, scrapes: usize) {
    let northbound = Arc::new(Shared::new(filled(ports, switches)));
    let (metrics, link) = (Metrics::default(), watch::channel(Link::default()));
    let status = Status::new(link.1);
    metrics.observe(Observed { northbound: Arc::clone(&northbound), southbound: None, status: status.clone() });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(serve(listener, status, metrics.clone()));
    let done = Arc::new(AtomicBool::new(false));
    let updates = std::thread::spawn({
        let (northbound, done) = (Arc::clone(&northbound), Arc::clone(&done));
        move || longest_wait(&northbound, &done)
    });
    let (mut times, mut encodings, mut text) = (Vec::new(), Vec::new(), String::new());
    for _ in 0..scrapes {
        let begun = Instant::now();
        text = get(address).await;
        times.push(milliseconds(begun.elapsed()));
        let begun = Instant::now();
        let encoded = metrics.text();
        encodings.push(milliseconds(begun.elapsed()));
        std::hint::black_box(encoded);
    }
    done.store(true, Ordering::Relaxed);
    let waited = milliseconds(updates.join().expect("the thread ends"));
    serving.abort();
    times.sort_unstable_by(f64::total_cmp);
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    println!(
        "{ports:<10}{switches:>10}{:>9.2} ms{:>9.2} ms{:>9.2} ms{:>13.2} ms{:>9} kB{series:>12}",
        median(times.clone()),
        times[(times.len() - 1) * 99 / 100],
        median(encodings),
        waited,
        text.len() / 1_000,
    );
}

/// The longest time that the replica's writer had to wait for its lock.
fn longest_wait(northbound: &Shared<Northbound>, done: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    while !done.load(Ordering::Relaxed) {
        let begun = Instant::now();
        drop(northbound.write());
        longest = longest.max(begun.elapsed());
        std::thread::sleep(Duration::from_micros(200));
    }
    longest
}

async fn get(address: std::net::SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
}

/// A replica with so many ports of ours, evenly on so many switches of both families.
fn filled(ports: usize, switches: usize) -> Northbound {
    let mut northbound = Northbound::new("default");
    let each = ports.div_ceil(switches);
    for switch in 0..switches {
        let first = switch * each;
        let on_it: Vec<usize> = (first..ports.min(first + each)).collect();
        let rows: Map<String, Value> = on_it
            .iter()
            .map(|index| (port_uuid(*index).to_string(), json!({"initial": port(*index, switch, index - first)})))
            .collect();
        let references: Vec<Value> = on_it.iter().map(|index| json!(["uuid", port_uuid(*index)])).collect();
        let row = json!({
            "name": format!("switch-{switch}"),
            "ports": ["set", references],
            "other_config": ["map", [
                ["subnet", format!("10.{}.{}.0/20", switch / 16, switch % 16 * 16)],
                ["exclude_ips", format!("10.{0}.{1}.1..10.{0}.{1}.9 10.{0}.{1}.200", switch / 16, switch % 16 * 16)],
                ["ipv6_prefix", format!("fd00:{switch:x}::")],
            ]],
        });
        let uuid = Uuid::from_u128(1 + switch as u128);
        let updates = json!({
            "Logical_Switch": {uuid.to_string(): {"initial": row}},
            "Logical_Switch_Port": rows,
        });
        apply_updates(&mut northbound, &updates.to_string()).expect("the rows are right");
        northbound.take_changes();
    }
    assert_eq!(northbound.port_count(), ports);
    northbound
}

fn port_uuid(index: usize) -> Uuid {
    Uuid::from_u128(1_000_000 + index as u128)
}

/// A row as the service writes it: a third of the VMs is stopped.
fn port(index: usize, switch: usize, on_switch: usize) -> Value {
    let host = on_switch + 10;
    let ip = format!("10.{}.{}.{}", switch / 16, switch % 16 * 16 + host / 256, host % 256);
    let mac =
        format!("0a:58:{:02x}:{:02x}:{:02x}:{:02x}", index >> 24, index >> 16 & 255, index >> 8 & 255, index & 255);
    let addresses = format!("{mac} {ip} fd00:{switch:x}::{host:x}");
    let options: Vec<Value> = (!index.is_multiple_of(3))
        .then(|| json!([keys::REQUESTED_CHASSIS, format!("node-{}", index % 500)]))
        .into_iter()
        .collect();
    json!({
        "name": format!("vm-{index}.bench"),
        "addresses": addresses,
        "port_security": addresses,
        "options": ["map", options],
        "external_ids": ["map", [
            [keys::VENDOR, keys::OUR_VENDOR],
            [keys::INSTANCE, "default"],
            [keys::VM, format!("bench/vm-{index}")],
            [keys::VM_UID, Uuid::from_u128(index as u128)],
            [keys::NETWORK, "default"],
        ]],
    })
}
