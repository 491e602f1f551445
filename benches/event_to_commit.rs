//! How long a VM waits for its port, beside the bare transaction, in one run on one machine.
//!
//! Measured from outside: from the VM's watch event to its port in a northbound monitor, both of this
//! process. The bare transaction writes the same row on the same socket and is measured from send to
//! reply; the two take turns, so that other load on the machine meets both.

#[allow(dead_code, unused_imports, unreachable_pub, reason = "each target uses a part of the harness")]
#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::runtime::watcher::{self, watcher};
use ovn_kubevirt::contract::annotations::PORTS_ANNOTATION;
use ovn_kubevirt::contract::port_uuid;
use ovn_kubevirt::kubevirt::objects::VirtualMachine;
use ovn_kubevirt::ovn::{LogicalSwitchPort, Northbound as Replica};
use ovn_kubevirt::ovsdb::{self, Outcome, Shared, Transaction};
use ovn_kubevirt::plan::{Placed, PortChange};
use support::{Stage, VmOptions};
use tokio::sync::mpsc;

/// VMs that are measured, and those before them that are not.
const COUNTED: usize = 400;
const WARM_UP: usize = 40;
/// Longer than any of it takes: a bench that hangs says so.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() {
    // `cargo test --benches` runs this too, where no measurement is wanted.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let stage = Stage::build("bench").switch("ovn-default", "10.16.0.0/16").start().await;
    // Bare rows do not share the VMs' switch, whose addresses they would take.
    let raw_switch: uuid::Uuid = stage.northbound.add_switch("raw", &[]).trim().parse().expect("a UUID");

    let remotes = stage.northbound.remote().parse().expect("a remote");
    let target = ovsdb::Target { remotes, tls: None, probe_interval: PATIENCE, leader_only: true };
    let shared = Arc::new(Shared::new(Replica::new("default")));
    let connection = ovsdb::Session::new(target, Arc::clone(&shared)).connect().await.expect("a connection");
    let namespace = &stage.namespace;
    let vms: Api<DynamicObject> =
        Api::namespaced_with(namespace.client.clone(), &namespace.name, &ApiResource::erase::<VirtualMachine>(&()));
    let mut events = applied(vms.clone()).await;

    let busy = Busy::begin();
    let (mut served, mut bare) = (Vec::new(), Vec::new());
    for index in 0..WARM_UP + COUNTED {
        let name = format!("vm-{index}");
        let object = serde_json::from_value(support::objects::vm(&name, &VmOptions::default())).expect("a VM");
        vms.create(&PostParams::default(), &object).await.expect("the VM is created");
        let seen =
            tokio::time::timeout(PATIENCE, seen(&mut events, &name, false)).await.expect("the watch sees the VM");
        let port = stage.name(&name);
        let there = tokio::time::timeout(PATIENCE, first_there(&shared, &port)).await.expect("the port is there");
        // The service's watch may be ahead of ours by the difference of two streams of one server.
        let waited = there.saturating_duration_since(seen);

        // Idle is when the service has told the VM's owner, too: its Event and its annotation are written.
        tokio::time::timeout(PATIENCE, self::seen(&mut events, &name, true)).await.expect("the VM tells its port");
        let transaction = bare_transaction(raw_switch, index);
        let begun = Instant::now();
        let outcome = connection.transact(&transaction).await;
        let took = begun.elapsed();
        assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
        if index >= WARM_UP {
            served.push(waited);
            bare.push(took);
        }
    }
    let busy = busy.end();
    drop(stage);

    println!("VM event to port committed, idle service, {COUNTED} VMs one after the other, standalone ovsdb-server");
    println!("{:<34}{:>10}{:>10}", "", "p50", "p99");
    let (served, bare) = (Quantiles::of(served), Quantiles::of(bare));
    println!("{:<34}{:>10}{:>10}", "VM event -> port in the database", text(served.p50), text(served.p99));
    println!("{:<34}{:>10}{:>10}", "bare transaction, same row", text(bare.p50), text(bare.p99));
    let over = |served: Duration, bare: Duration| text(served.saturating_sub(bare));
    println!("{:<34}{:>10}{:>10}", "more than the bare one", over(served.p50, bare.p50), over(served.p99, bare.p99));
    println!("{:<34}{:>10.2}{:>10.2}", "ratio", ratio(served.p50, bare.p50), ratio(served.p99, bare.p99));
    println!("machine: {busy}");
}

/// The bare row of the service, on a switch of its own.
fn bare_transaction(switch: uuid::Uuid, index: usize) -> Transaction {
    let name = format!("raw-{index}");
    let text = format!("0a:59:00:00:{:02x}:{:02x} 10.17.{}.{}", index / 256, index % 256, index / 256, index % 256);
    let marks = ["vendor", "instance", "vm", "vm-uid", "network"];
    let row = LogicalSwitchPort {
        name: name.clone(),
        addresses: [text.clone()].into_iter().collect(),
        port_security: [text].into_iter().collect(),
        external_ids: marks.iter().map(|key| (format!("bench/{key}"), name.clone())).collect(),
        ..LogicalSwitchPort::default()
    };
    let change = PortChange { uuid: port_uuid("bench", &name), before: None, after: Some(Placed { switch, row }) };
    Transaction { fence: None, operations: change.operations() }
}

/// A VM's watch event.
struct Seen {
    name: String,
    told: bool,
    at: Instant,
}

/// VMs as their watch events come.
async fn applied(vms: Api<DynamicObject>) -> mpsc::UnboundedReceiver<Seen> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (listed, ready) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut listed = Some(listed);
        let mut events = std::pin::pin!(watcher(vms, watcher::Config::default()));
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Apply(vm)) => {
                    let at = Instant::now();
                    let told = vm.metadata.annotations.is_some_and(|present| present.contains_key(PORTS_ANNOTATION));
                    let _ = sender.send(Seen { name: vm.metadata.name.unwrap_or_default(), told, at });
                }
                Ok(watcher::Event::InitDone) => {
                    let _ = listed.take().map(|listed| listed.send(()));
                }
                Ok(_) => {}
                Err(error) => panic!("the bench's watch failed: {error}"),
            }
        }
    });
    ready.await.expect("the bench's watch begins");
    receiver
}

/// When the VM's next event came; with `told`, the one that has its ports on it.
async fn seen(events: &mut mpsc::UnboundedReceiver<Seen>, name: &str, told: bool) -> Instant {
    loop {
        let seen = events.recv().await.expect("the watch goes on");
        if seen.name == name && seen.told == told {
            return seen.at;
        }
    }
}

async fn first_there(shared: &Shared<Replica>, port: &str) -> Instant {
    loop {
        if shared.read().port_named(port).is_some() {
            return Instant::now();
        }
        shared.changed.notified().await;
    }
}

struct Quantiles {
    p50: Duration,
    p99: Duration,
}

impl Quantiles {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        Self { p50: at(50), p99: at(99) }
    }
}

fn text(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

/// How busy the machine was meanwhile, all of it: user, system and steal time.
struct Busy {
    busy: u64,
    total: u64,
}

impl Busy {
    fn begin() -> Self {
        let stat = std::fs::read_to_string("/proc/stat").expect("/proc/stat");
        let line = stat.lines().next().expect("the line of all processors");
        let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal (proc_stat(5))
        let total = ticks.iter().take(8).sum();
        Self { busy: total - ticks[3] - ticks[4], total }
    }

    fn end(&self) -> String {
        let now = Self::begin();
        let percent = 100.0 * (now.busy - self.busy) as f64 / (now.total - self.total).max(1) as f64;
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        format!("{cpus} processors, {percent:.0}% busy during the measurement")
    }
}
