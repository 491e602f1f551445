//! The operators' API: the cost of 100 subscribers for the writer in a storm of VMs, and how long the first paint of the live page
//! takes with 100,000 ports.
//!
//! The API, the writer and 100 clients that read everything share this process and this machine. Runs with and without
//! subscribers take turns, each on a database of its own.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::machine::Busy;
use common::support::in_process::InProcess;
use common::support::{Northbound, Stage};
use common::{is_test, median, setting};
use ovn_kubevirt::api::rpc::{self, Access, ApiClient, Credentials, Replicas, Sources};
use ovn_kubevirt::controller::Link;
use ovn_kubevirt::kubevirt::{Change, Kind};
use ovn_kubevirt::telemetry::LogFilter;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const ROUNDS: usize = 5;
const SUBSCRIBERS: usize = 100;
/// A run that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() {
    if is_test() {
        return;
    }
    let busy = Busy::begin();
    storm().await;
    first_paint().await;
    println!("machine: {}", busy.end());
}

fn vm(index: usize) -> Change {
    let annotations = json!({"ovn.kubernetes.io/logical_switch": format!("s{}", index % 10)});
    let object = json!({"metadata": {"name": format!("vm-{index}"), "namespace": "bench", "uid": format!("uid-{index}")},
        "spec": {"template": {"metadata": {"annotations": annotations}}}});
    Change::Vm(Box::new(serde_json::from_value(object).expect("a VM")))
}

fn listed() -> Vec<Change> {
    let namespace = serde_json::from_value(json!({"name": "bench"})).expect("a namespace");
    std::iter::once(Change::Namespace(Box::new(namespace))).chain(Kind::ALL.map(Change::ListEnds)).collect()
}

async fn database() -> Arc<Northbound> {
    let builder = Stage::build("api").without_default_switch();
    let builder =
        (0..10).fold(builder, |builder, switch| builder.switch(&format!("s{switch}"), &format!("10.{switch}.0.0/16")));
    builder.northbound().await
}

/// The writer, and its API.
async fn service(northbound: &Northbound, room: usize) -> (InProcess, SocketAddr) {
    let remote = northbound.remote();
    let mut service = InProcess::on(&remote).room(room).start();
    service.send(listed()).await;
    service.link.clone().wait_for(|link| matches!(link, Link::Up(_))).await.expect("the link runs");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let sources = Sources {
        replicas: Replicas {
            northbound: Arc::clone(&service.northbound),
            southbound: None,
            ledger: service.ledger.clone(),
        },
        asker: service.asker.clone(),
        status: service.status.clone(),
        health: service.metrics.health(),
        leadership: service.leadership(),
        log: LogFilter::new("off".to_owned(), |_| Ok(())),
    };
    service
        .tasks
        .spawn(async move { format!("the API ended: {:?}", rpc::serve(listener, Access::default(), sources).await) });
    (service, address)
}

async fn client(address: SocketAddr) -> ApiClient {
    ApiClient::connect(&address.to_string().parse().expect("a URL"), &Credentials::default()).await.expect("the API")
}

async fn until(service: &InProcess, ports: usize) {
    let begun = Instant::now();
    while service.northbound.read().port_count() < ports {
        assert!(begun.elapsed() < PATIENCE, "{} of {ports} ports", service.northbound.read().port_count());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Ports a second with and without subscribers.
async fn storm() {
    let (vms, rounds) = (setting("BENCH_VMS", &[20_000])[0], setting("BENCH_ROUNDS", &[ROUNDS])[0]);
    let (mut alone, mut watched, mut sent) = (Vec::new(), Vec::new(), 0);
    for round in 0..rounds {
        // In turns, so that neither always comes first.
        for subscribers in if round % 2 == 0 { [0, SUBSCRIBERS] } else { [SUBSCRIBERS, 0] } {
            let northbound = database().await;
            let (service, address) = service(&northbound, vms + 100).await;
            let bytes = Arc::new(AtomicUsize::new(0));
            let mut readers = JoinSet::new();
            for _ in 0..subscribers {
                let mut api = client(address).await;
                api.call::<Value>("ports.subscribe", &json!({})).await.expect("a subscription");
                let bytes = Arc::clone(&bytes);
                readers.spawn(async move {
                    while let Ok(message) = api.message::<Box<serde_json::value::RawValue>>().await {
                        bytes.fetch_add(message.get().len(), Ordering::Relaxed);
                    }
                });
            }
            let changes: Vec<Change> = (0..vms).map(vm).collect();
            let begun = Instant::now();
            service.send(changes).await;
            until(&service, vms).await;
            let rate = vms as f64 / begun.elapsed().as_secs_f64();
            if subscribers == 0 { &mut alone } else { &mut watched }.push(rate);
            sent += bytes.load(Ordering::Relaxed);
        }
    }
    let sent = sent as f64 / rounds as f64 / 1e6;
    let costs = median(alone.iter().zip(&watched).map(|(alone, watched)| (1.0 - watched / alone) * 100.0).collect());
    println!("a storm of {vms} VMs, medians of {rounds}");
    println!("{:<60}{:>12.0}", "ports a second without subscribers", median(alone));
    println!("{:<60}{:>12.0}", format!("ports a second with {SUBSCRIBERS} subscribers"), median(watched));
    println!("{:<60}{costs:>11.1} %", "they cost the writer, median of the pairs (goal: 3 %)");
    println!("{:<60}{sent:>9.1} MB", "they were sent meanwhile");
}

/// The calls of the page before it shows anything.
async fn first_paint() {
    let vms = setting("BENCH_MANY", &[100_000])[0];
    let northbound = database().await;
    let (service, address) = service(&northbound, 4_096).await;
    service.send((0..vms).map(vm)).await;
    until(&service, vms).await;
    let mut api = client(address).await;
    let (mut times, mut size) = (Vec::new(), 0);
    for _ in 0..setting("BENCH_ROUNDS", &[ROUNDS])[0] {
        let begun = Instant::now();
        let mut answers = Vec::new();
        for (method, params) in [
            ("status", json!({})),
            ("switches.list", json!({})),
            ("switches.map", json!({"switch": "s0"})),
            ("migrations.list", json!({})),
            ("ports.list", json!({"problems": true, "limit": 50})),
        ] {
            let begun = Instant::now();
            let answer: Box<serde_json::value::RawValue> = api.call(method, &params).await.expect("an answer");
            answers.push((method, begun.elapsed(), answer.get().len()));
        }
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        size = answers.iter().map(|(_, _, size)| size).sum();
        for (method, time, size) in answers {
            println!("  {method:<30}{:>10.1} ms{size:>10} bytes", time.as_secs_f64() * 1e3);
        }
    }
    println!("{:<60}{:>9.0} ms", format!("first paint with {vms} ports, median (goal: 200 ms)"), median(times));
    println!("{:<60}{:>9.0} kB", "its answers (goal: 1 MB)", size as f64 / 1e3);
}
