//! Thousands of VMs at once: ports a second, beside a bare loop that commits the same rows on the same connection, in
//! batches of 100, one after the other; and beside `ovn-nbctl`.
//!
//! The VMs are handed to the writer as the watches would, so that the API server's speed is no part of it. Each measured
//! thing has a database of its own, and they take turns.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::machine::Busy;
use common::support::in_process::InProcess;
use common::support::{Northbound, Stage};
use common::{fill, is_test, median, setting, usage};
use ovn_kubevirt::contract::{VmKey, keys, port_uuid};
use ovn_kubevirt::kubevirt::{Change, Kind};
use ovn_kubevirt::ovn::{LogicalSwitchPort, Northbound as Replica};
use ovn_kubevirt::ovsdb::{Outcome, Session, Shared, Target, Transaction};
use ovn_kubevirt::plan::{Placed, PortChange};
use serde_json::json;
use uuid::Uuid;

/// Ports a transaction of the bare loop, and at most of the service.
const BATCH: usize = 100;
const ROUNDS: usize = 3;
/// A run that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(300);
/// Of `ovn-nbctl`, a sample is enough.
const SAMPLE: usize = 100;

#[tokio::main]
async fn main() {
    if is_test() {
        return;
    }
    let rounds = setting("BENCH_ROUNDS", &[ROUNDS])[0];
    println!("ports a second, medians of {rounds} (ratio: service to bare loop)");
    println!(
        "{:<12}{:>8}{:>10}{:>12}{:>12}{:>8}{:>14}{:>12}",
        "", "VMs", "on switch", "service", "bare loop", "ratio", "nbctl daemon", "nbctl each"
    );
    let busy = Busy::begin();
    for members in setting("BENCH_MEMBERS", &[1, 3]) {
        let cluster = members > 1;
        for vms in setting("BENCH_VMS", &[2_000, 10_000]) {
            for present in setting("BENCH_PRESENT", &[0, 10_000]) {
                let (mut served, mut bare) = (Vec::new(), Vec::new());
                for _ in 0..rounds {
                    served.push(vms as f64 / service(&*database(cluster, present).await, vms).await.as_secs_f64());
                    bare.push(vms as f64 / bare_loop(&*database(cluster, present).await, vms).await.as_secs_f64());
                }
                let (served, bare) = (median(served), median(bare));
                let (daemon, each) = nbctl(&*database(cluster, present).await);
                let what = if cluster { "RAFT of 3" } else { "standalone" };
                println!(
                    "{what:<12}{vms:>8}{present:>10}{served:>12.0}{bare:>12.0}{:>8.2}{daemon:>14.0}{each:>12.0}",
                    served / bare
                );
            }
        }
    }
    println!("machine: {}", busy.end());
    many().await;
}

/// A database whose switch `ovn-default` has so many ports.
async fn database(cluster: bool, present: usize) -> Arc<Northbound> {
    let builder = Stage::build("storm").switch("ovn-default", "10.0.0.0/8");
    let builder = if cluster { builder.on(Northbound::start_cluster().await) } else { builder };
    let northbound = builder.northbound().await;
    for first in (0..present).step_by(2_000) {
        let rows = (first..present.min(first + 2_000)).map(|index| {
            let address =
                format!("0c:00:00:00:{:02x}:{:02x} 10.200.{}.{}", index / 256, index % 256, index / 256, index % 256);
            json!({"name": format!("present-{index}"), "addresses": address})
        });
        fill::insert(&northbound, "ovn-default", rows.collect());
    }
    northbound
}

fn vm(index: usize, switch: Option<usize>) -> Change {
    let annotations = switch.map(|switch| json!({"ovn.kubernetes.io/logical_switch": format!("s{switch}")}));
    let object = json!({"metadata": {"name": format!("vm-{index}"), "namespace": "bench", "uid": format!("uid-{index}")},
        "spec": {"template": {"metadata": {"annotations": annotations}}}});
    Change::Vm(Box::new(serde_json::from_value(object).expect("a VM")))
}

/// The changes that end the lists for the writer.
fn listed() -> Vec<Change> {
    let namespace = serde_json::from_value(json!({"name": "bench"})).expect("a namespace");
    let ends = Kind::ALL.map(Change::ListEnds);
    std::iter::once(Change::Namespace(Box::new(namespace))).chain(ends).collect()
}

/// Waits until the replica has so many ports.
async fn until(replica: &Arc<Shared<Replica>>, ports: usize) {
    let begun = Instant::now();
    while replica.read().port_count() < ports {
        assert!(begun.elapsed() < PATIENCE, "{} of {ports} ports", replica.read().port_count());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn service(northbound: &Northbound, vms: usize) -> Duration {
    let service = InProcess::on(&northbound.remote()).room(vms + 100).start();
    service.send(listed()).await;
    let mut link = service.link.clone();
    let up = |link: &ovn_kubevirt::controller::Link| matches!(link, ovn_kubevirt::controller::Link::Up(_));
    link.wait_for(up).await.expect("the link runs");
    let present = service.northbound.read().port_count();
    let changes: Vec<Change> = (0..vms).map(|index| vm(index, None)).collect();
    let begun = Instant::now();
    service.send(changes).await;
    until(&service.northbound, present + vms).await;
    begun.elapsed()
}

/// The row that the service writes for a VM.
fn row(index: usize, switch: Uuid) -> PortChange {
    let key = VmKey::new("bench", format!("vm-{index}"));
    let name = key.port_name();
    let number = u32::try_from(index + 2).expect("few");
    let address = std::net::Ipv4Addr::from(u32::from(std::net::Ipv4Addr::new(10, 0, 0, 0)) + number);
    let [a, b, c, d] = address.octets();
    let text = format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x} {address}");
    let marks = [
        (keys::VENDOR, keys::OUR_VENDOR.to_owned()),
        (keys::INSTANCE, "default".to_owned()),
        (keys::VM, key.to_string()),
        (keys::VM_UID, format!("uid-{index}")),
        (keys::NETWORK, "default".to_owned()),
    ];
    let row = LogicalSwitchPort {
        addresses: [text.as_str()].into_iter().collect(),
        port_security: [text.as_str()].into_iter().collect(),
        external_ids: marks.iter().map(|(key, value)| (*key, value.as_str())).collect(),
        name: name.clone(),
        ..LogicalSwitchPort::default()
    };
    PortChange { uuid: port_uuid("bare", &name), before: None, after: Some(Placed { switch, row }) }
}

async fn bare_loop(northbound: &Northbound, vms: usize) -> Duration {
    let remotes = northbound.remote().parse().expect("remotes");
    let target = Target { remotes, tls: None, probe_interval: PATIENCE, leader_only: true };
    let replica = Arc::new(Shared::new(Replica::new("default")));
    let connection = Session::new(target, Arc::clone(&replica)).connect().await.expect("a connection");
    let switch = replica.read().switches_named("ovn-default").next().expect("the switch");
    let changes: Vec<PortChange> = (0..vms).map(|index| row(index, switch)).collect();
    let begun = Instant::now();
    for batch in changes.chunks(BATCH) {
        let operations = batch.iter().flat_map(PortChange::operations).collect();
        let outcome = connection.transact(&Transaction { fence: None, operations }).await;
        assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
    }
    begun.elapsed()
}

/// Ports a second by `ovn-nbctl`: by its daemon, and by a process each.
fn nbctl(northbound: &Northbound) -> (f64, f64) {
    let server = &northbound.members()[northbound.leader()];
    let add = |index: usize, kind: &str| {
        let net = kind.len();
        let (name, address) =
            (format!("{kind}-{index}"), format!("0e:00:00:00:{net:02x}:{index:02x} 10.201.{net}.{index}"));
        [
            "lsp-add".to_owned(),
            "ovn-default".to_owned(),
            name.clone(),
            "--".to_owned(),
            "lsp-set-addresses".to_owned(),
            name,
            address,
        ]
    };
    let rate = |begun: Instant| SAMPLE as f64 / begun.elapsed().as_secs_f64();
    let control = usage::NbctlDaemon::start(&server.remote(), northbound.dir());
    let begun = Instant::now();
    for index in 0..SAMPLE {
        control.run(&add(index, "daemon").each_ref().map(String::as_str));
    }
    let daemon = rate(begun);
    drop(control);
    let begun = Instant::now();
    for index in 0..SAMPLE {
        let arguments = add(index, "each");
        northbound.nbctl(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }
    (daemon, rate(begun))
}

/// 100,000 ports of ours on ten switches, a tenth of their VMs changed, and a restart with all of them.
async fn many() {
    let vms = setting("BENCH_MANY", &[100_000])[0];
    let builder = Stage::build("many").without_default_switch();
    let builder = (0..10).fold(builder, |builder, switch| builder.switch(&format!("s{switch}"), "10.0.0.0/8"));
    let northbound = builder.northbound().await;
    let all = || (0..vms).map(|index| vm(index, Some(index % 10)));
    let pid = std::process::id();
    let busy = Busy::begin();
    let told = |what: &str, begun: Instant, cpu: Duration| {
        let (wall, cpu) = (begun.elapsed(), usage::cpu(pid).saturating_sub(cpu));
        let resident = usage::memory(pid, "VmRSS") / 1024;
        println!("{what:<52}{:>10.2} s{:>10.2} s{resident:>8} MB", wall.as_secs_f64(), cpu.as_secs_f64());
    };
    println!("\n{:<52}{:>12}{:>12}{:>11}", format!("{vms} VMs, one writer, standalone"), "wall", "CPU", "resident");
    let (begun, cpu) = (Instant::now(), usage::cpu(pid));
    let mut service = InProcess::on(&northbound.remote()).default_switch("none").room(4_096).start();
    service.send(listed()).await;
    service.send(all()).await;
    until(&service.northbound, vms).await;
    told("all made, 10,000 on each of ten switches", begun, cpu);
    while service.reports.try_recv().is_ok() {}
    // A tenth of them start: each port is bound to a node.
    let changes: Vec<Change> = (0..vms / 10).flat_map(started).collect();
    let count = changes.len() / 2;
    let (begun, cpu) = (Instant::now(), usage::cpu(pid));
    service.send(changes).await;
    let bound = |service: &InProcess| {
        let view = service.northbound.read();
        view.ports().filter(|port| port.row.options.get(keys::REQUESTED_CHASSIS).is_some()).count()
    };
    while bound(&service) < count {
        assert!(begun.elapsed() < PATIENCE, "{} of {count}", bound(&service));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    told(&format!("{count} of them start: bound to a node"), begun, cpu);
    drop(service);
    let (begun, cpu) = (Instant::now(), usage::cpu(pid));
    let mut service = InProcess::on(&northbound.remote()).default_switch("none").room(4_096).start();
    service.send(all()).await;
    service.send((0..vms / 10).flat_map(started)).await;
    service.send(listed()).await;
    let mut looked = std::collections::HashSet::new();
    while looked.len() < vms {
        let report = tokio::time::timeout(PATIENCE, service.reports.recv()).await.expect("reports in time");
        if let Some(ovn_kubevirt::controller::Report::Status { subject, .. }) = report {
            looked.insert(subject.vm().clone());
        }
    }
    told("a restart, until every VM has been looked at", begun, cpu);
    println!("peak {} MB; machine: {}", usage::memory(pid, "VmHWM") / 1024, busy.end());
}

/// A VM's instance and its launcher pod.
fn started(index: usize) -> [Change; 2] {
    let (name, run) = (format!("vm-{index}"), format!("run-{index}"));
    let annotations = json!({"ovn.kubernetes.io/logical_switch": format!("s{}", index % 10)});
    let owner = |kind: &str, name: &str, uid: &str| json!([{"apiVersion": "kubevirt.io/v1", "kind": kind, "name": name, "uid": uid, "controller": true}]);
    let instance = json!({"metadata": {"name": name, "namespace": "bench", "uid": run, "annotations": annotations,
        "ownerReferences": owner("VirtualMachine", &name, &format!("uid-{index}"))}, "status": {"nodeName": "n1"}});
    let pod = json!({"metadata": {"name": format!("virt-launcher-{name}"), "namespace": "bench",
        "labels": {"kubevirt.io": "virt-launcher"}, "ownerReferences": owner("VirtualMachineInstance", &name, &run)},
        "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
    [
        Change::Run(Box::new(serde_json::from_value(instance).expect("a VMI"))),
        Change::Launcher(Box::new(serde_json::from_value(pod).expect("a pod"))),
    ]
}
