//! How long a migration waits for the service: from the event that a target pod has a node, or that the guest is ready
//! there, to the commit; beside the bare transaction of the same kind on the same kind of connection, the two taking
//! turns. And the same in the middle of a storm of new VMs, where a migration goes before all that wait.
//!
//! Events are handed to the writer as the watches would; commits are seen by a monitor of the bench's own.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::machine::Busy;
use common::support::in_process::InProcess;
use common::support::{Northbound, Stage};
use common::{fill, is_test, median, milliseconds, setting};
use ovn_kubevirt::contract::{keys, port_uuid};
use ovn_kubevirt::controller::CHANGES_AHEAD;
use ovn_kubevirt::kubevirt::{Change, Kind};
use ovn_kubevirt::ovn::{LogicalSwitchPort, Northbound as Replica};
use ovn_kubevirt::ovsdb::{Connection, Map, Outcome, Session, Shared, Target, Transaction};
use ovn_kubevirt::plan::{Placed, PortChange};
use serde_json::{Value, json};
use uuid::Uuid;

/// Migrations that are measured, and those before them that are not.
const WARM_UP: usize = 40;
/// A wait that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() {
    if is_test() {
        return;
    }
    let (counted, storm) = (setting("BENCH_MIGRATIONS", &[400])[0], setting("BENCH_STORM", &[20_000])[0]);
    let bench = Bench::new(WARM_UP + counted + storm / 100).await;
    let busy = Busy::begin();
    let (mut opened, mut collapsed, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..WARM_UP + counted {
        let (open, collapse) = bench.migrate(index).await;
        let raw = bench.bare(index).await;
        if index >= WARM_UP {
            opened.push(open);
            collapsed.push(collapse);
            bare.push(raw);
        }
    }
    println!("a migration's event to its commit, idle service, {counted} migrations one after the other, standalone");
    println!("{:<46}{:>12}{:>12}", "", "p50 (ms)", "p99 (ms)");
    row("target pod has a node -> open on both", &opened);
    row("guest is ready there -> on the target alone", &collapsed);
    row("bare transaction, the same columns", &bare);
    let more =
        |percent: usize| quantile(&opened, percent).max(quantile(&collapsed, percent)) - quantile(&bare, percent);
    println!("{:<46}{:>12.3}{:>12.3}", "more than the bare one, the slower of the two", more(50), more(99));
    println!("machine: {}", busy.end());
    bench.storm(WARM_UP + counted, storm).await;
}

struct Bench {
    northbound: Arc<Northbound>,
    service: InProcess,
    connection: Connection,
    replica: Arc<Shared<Replica>>,
    switch: Uuid,
}

impl Bench {
    /// `vms` VMs that run on n1, and the service.
    async fn new(vms: usize) -> Self {
        let northbound = Stage::build("bench").switch("ovn-default", "10.0.0.0/8").northd().northbound().await;
        let switch = northbound.add_switch("raw", &[]);
        let row = json!({"name": "raw", "options": ["map", [["requested-chassis", "n1"]]]});
        fill::insert(&northbound, "raw", vec![row]);
        let service = InProcess::on(&northbound.remote()).room(CHANGES_AHEAD).start();
        let remotes = northbound.remote().parse().expect("a remote");
        let target = Target { remotes, tls: None, probe_interval: PATIENCE, leader_only: true };
        let replica = Arc::new(Shared::new(Replica::new("default")));
        let connection = Session::new(target, Arc::clone(&replica)).connect().await.expect("a connection");
        let switch = switch.trim().parse().expect("a UUID");
        let bench = Self { northbound, service, connection, replica, switch };
        let namespace = Change::Namespace(Box::new(object(json!({"name": "bench"}))));
        bench.service.send(std::iter::once(namespace).chain(Kind::ALL.map(Change::ListEnds))).await;
        bench.service.send((0..=vms).flat_map(running)).await;
        for index in 0..=vms {
            bench.bound(index, "n1").await;
        }
        // The first target waits until northd has run; from then on northd is not needed, and would take the
        // processors from the measured service.
        bench.service.send([vmim(vms), launcher(vms, "target", Some("n2"))]).await;
        bench.bound(vms, "n1,n2").await;
        bench.northbound.kill9_northd();
        bench
    }

    /// When the monitor shows the VM's port so.
    async fn bound(&self, index: usize, requested: &str) -> Instant {
        let port = format!("vm-{index}.bench");
        let begun = Instant::now();
        loop {
            let there = self
                .replica
                .read()
                .port_named(&port)
                .and_then(|port| port.row.options.get(keys::REQUESTED_CHASSIS).map(|present| present == requested));
            if there == Some(true) {
                return Instant::now();
            }
            assert!(begun.elapsed() < PATIENCE, "{port} is not bound to {requested}");
            let _ = tokio::time::timeout(Duration::from_millis(100), self.replica.changed.notified()).await;
        }
    }

    /// A migration: how long its target waited to be opened, and how long the port to be the target's alone.
    async fn migrate(&self, index: usize) -> (Duration, Duration) {
        self.service.send([vmim(index), launcher(index, "target", None)]).await;
        let begun = Instant::now();
        self.service.send([launcher(index, "target", Some("n2"))]).await;
        let opened = self.bound(index, "n1,n2").await - begun;
        let begun = Instant::now();
        self.service.send([run(index, true)]).await;
        (opened, self.bound(index, "n2").await - begun)
    }

    /// The same columns of a row without an owner.
    async fn bare(&self, index: usize) -> Duration {
        let placed = |requested: &str, strategy: Option<(&'static str, &'static str)>| {
            let options = [(keys::REQUESTED_CHASSIS, requested)].into_iter().chain(strategy).collect::<Map>();
            let row = LogicalSwitchPort { name: "raw".into(), options, ..LogicalSwitchPort::default() };
            Some(Placed { switch: self.switch, row })
        };
        let uuid = self.replica.read().port_named("raw").map_or_else(|| port_uuid("bench", "raw"), |port| port.uuid);
        let (one, two) = (placed("n1", None), placed("n1,n2", Some((keys::ACTIVATION_STRATEGY, "rarp"))));
        let (before, after) = if index.is_multiple_of(2) { (one, two) } else { (two, one) };
        let operations = PortChange { uuid, before, after }.operations();
        let begun = Instant::now();
        let outcome = self.connection.transact(&Transaction { fence: None, operations }).await;
        let took = begun.elapsed();
        assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
        took
    }

    /// So many new VMs at once; while they get their ports, one migration after the other.
    async fn storm(&self, first: usize, vms: usize) {
        let busy = Busy::begin();
        let ports = || self.replica.read().port_count();
        let (at_begin, begun) = (ports(), Instant::now());
        self.service.send((1_000_000..1_000_000 + vms).map(vm)).await;
        let (mut opened, mut ahead, mut index) = (Vec::new(), Vec::new(), first);
        while ports() < at_begin + vms && index < first + vms / 100 {
            self.service.send([vmim(index), launcher(index, "target", None)]).await;
            let (before, sent) = (ports(), Instant::now());
            self.service.send([launcher(index, "target", Some("n2"))]).await;
            opened.push(self.bound(index, "n1,n2").await - sent);
            ahead.push((ports() - before) as f64);
            index += 1;
        }
        while ports() < at_begin + vms {
            assert!(begun.elapsed() < PATIENCE, "{} of {vms} ports", ports() - at_begin);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let rate = vms as f64 / begun.elapsed().as_secs_f64();
        println!("\nthe same in a storm of {vms} new VMs ({rate:.0} ports a second), {} migrations", opened.len());
        println!("{:<46}{:>12}{:>12}", "", "p50", "p99");
        row("target pod has a node -> open on both (ms)", &opened);
        let most = ahead.iter().copied().fold(0.0, f64::max);
        println!("{:<46}{:>12.0}{most:>12.0}", "new ports committed meanwhile (p50, most)", median(ahead));
        println!("(a transaction has up to 100; the migration's own has none of them)");
        println!("machine: {}", busy.end());
    }
}

fn quantile(times: &[Duration], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    milliseconds(times[(times.len() - 1) * percent / 100])
}

fn row(what: &str, times: &[Duration]) {
    println!("{what:<46}{:>12.3}{:>12.3}", quantile(times, 50), quantile(times, 99));
}

// --- objects, as the watches bring them ---

fn object<T: serde::de::DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).expect("an object")
}

fn owner(kind: &str, name: &str, uid: &str) -> Value {
    json!([{"apiVersion": "kubevirt.io/v1", "kind": kind, "name": name, "uid": uid, "controller": true}])
}

fn running(index: usize) -> [Change; 3] {
    [vm(index), run(index, false), launcher(index, "source", Some("n1"))]
}

fn vm(index: usize) -> Change {
    let metadata = json!({"name": format!("vm-{index}"), "namespace": "bench", "uid": format!("uid-{index}")});
    Change::Vm(Box::new(object(json!({"metadata": metadata}))))
}

/// Its VMI, whose guest is ready on the target, or not yet.
fn run(index: usize, ready: bool) -> Change {
    let name = format!("vm-{index}");
    let state = ready.then(
        || json!({"targetPod": format!("target-{index}"), "targetNodeDomainReadyTimestamp": "2026-11-23T05:22:01Z"}),
    );
    Change::Run(Box::new(object(json!({
        "metadata": {"name": name, "namespace": "bench", "uid": format!("run-{index}"),
                     "ownerReferences": owner("VirtualMachine", &name, &format!("uid-{index}"))},
        "status": {"nodeName": "n1", "migrationState": state},
    }))))
}

fn launcher(index: usize, which: &str, node: Option<&str>) -> Change {
    let mut labels = json!({"kubevirt.io": "virt-launcher"});
    if which == "target" {
        labels["kubevirt.io/migrationJobUID"] = json!(format!("move-{index}"));
    }
    Change::Launcher(Box::new(object(json!({
        "metadata": {"name": format!("{which}-{index}"), "namespace": "bench", "labels": labels,
            "ownerReferences": owner("VirtualMachineInstance", &format!("vm-{index}"), &format!("run-{index}"))},
        "spec": {"nodeName": node}, "status": {"phase": "Running"},
    }))))
}

fn vmim(index: usize) -> Change {
    let id = format!("move-{index}");
    Change::Migration(Box::new(object(json!({"metadata": {"name": id, "namespace": "bench", "uid": id},
        "spec": {"vmiName": format!("vm-{index}")}, "status": {"phase": "Scheduling"}}))))
}
