//! The transaction that is prepared while another is in flight: it is sent only if no change has come in between.
//!
//! The writing path runs inside the test, and requests are kept back on their way to the server while the test plays
//! other writers: their updates still pass.

use std::collections::BTreeMap;
use std::sync::Arc;

use ovn_kubevirt::controller::Report;
use ovn_kubevirt::kubevirt::{Change, Kind};
use ovn_kubevirt::plan::Problem;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::eventually::deadline;
use crate::support::history::History;
use crate::support::in_process::InProcess;
use crate::support::raft_log::Committed;
use crate::support::valve::Valve;
use crate::support::{Northbound, Stage, eventually};

fn read<T: DeserializeOwned>(object: Value) -> Box<T> {
    Box::new(serde_json::from_value(object).expect("an object"))
}

fn vm(name: &str, annotations: &[(&str, &str)]) -> Change {
    let annotations: BTreeMap<&str, &str> = annotations.iter().copied().collect();
    Change::Vm(read(json!({"metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"template": {"metadata": {"annotations": annotations}}}})))
}

fn owned_by(kind: &str, name: &str, uid: &str) -> Value {
    json!([{"apiVersion": "kubevirt.io/v1", "kind": kind, "name": name, "uid": uid, "controller": true}])
}

/// The VM's instance on a node; the guest is ready in a migration's target, where one is named.
fn run(name: &str, node: &str, ready_in: Option<&str>) -> Change {
    let ready = ready_in.map(|pod| json!({"targetPod": pod, "targetNodeDomainReadyTimestamp": "2026-11-23T05:22:01Z"}));
    Change::Run(read(json!({
        "metadata": {"name": name, "namespace": "ns", "uid": format!("run-{name}"),
            "ownerReferences": owned_by("VirtualMachine", name, name)},
        "status": {"nodeName": node, "migrationState": ready}})))
}

fn launcher(name: &str, node: &str) -> Change {
    Change::Launcher(read(json!({
        "metadata": {"name": format!("{name}-{node}"), "namespace": "ns", "labels": {"kubevirt.io": "virt-launcher"},
            "ownerReferences": owned_by("VirtualMachineInstance", name, &format!("run-{name}"))},
        "spec": {"nodeName": node}, "status": {"phase": "Running"}})))
}

fn migration(name: &str) -> Change {
    Change::Migration(read(json!({"metadata": {"name": "migration", "namespace": "ns", "uid": "migration"},
        "spec": {"vmiName": name}, "status": {"phase": "Running"}})))
}

/// The writing path on a server whose requests can be kept back.
struct Path {
    northbound: Arc<Northbound>,
    valve: Valve,
    service: InProcess,
    looks: usize,
}

impl Path {
    /// In office, with a port for the VM `first`.
    async fn new() -> Self {
        let northbound = Stage::build("ahead").northbound().await;
        let remote = northbound.remote();
        let valve = Valve::start(remote.trim_start_matches("unix:").as_ref(), &northbound.dir().join("valve.sock"));
        let service = InProcess::on(&valve.remote()).start();
        let mut path = Self { northbound, valve, service, looks: 0 };
        path.service.feed([Change::Namespace(read(json!({"name": "ns"})))]);
        path.service.feed(Kind::ALL.map(Change::ListEnds));
        path.service.feed([vm("first", &[])]);
        path.address_is("first", "10.16.0.2").await;
        path.idle().await;
        path
    }

    /// Waits until a VM has its port, and holds this.
    async fn address_is(&self, vm: &str, address: &str) {
        eventually(&format!("{vm} holds {address}"), || async {
            let port = self.northbound.port(&format!("{vm}.ns")).ok_or("it has no port")?;
            let held = port.addresses.iter().any(|text| text.ends_with(&format!(" {address}")));
            if held { Ok(()) } else { Err("it holds something else") }
        })
        .await;
    }

    /// Waits until the writer has decided all that it was fed.
    async fn looked(&mut self) {
        self.looks += 1;
        looked(&mut self.service, self.looks, &mut Vec::new()).await;
    }

    /// Waits until the writer has taken all that it was fed. It prepares the next transaction before it yields: the test and it
    /// share a thread.
    async fn taken(&self) {
        eventually("the writer has taken all of it", || async {
            if self.service.changes.capacity() == self.service.changes.max_capacity() { Ok(()) } else { Err("not yet") }
        })
        .await;
    }

    /// Waits until no transaction is in flight either, and returns the VMs that were reported meanwhile.
    async fn idle(&mut self) -> Vec<String> {
        let (looks, mut reported) = (&mut self.looks, Vec::new());
        let look = async |service: &mut InProcess| {
            *looks += 1;
            looked(service, *looks, &mut reported).await;
        };
        self.service.idle(look).await;
        reported
    }

    /// Has a VM's port in flight from now on.
    async fn keep_in_flight(&self, name: &str) {
        self.valve.shut();
        self.service.feed([vm(name, &[])]);
        eventually("its transaction is on its way", || async {
            if self.valve.kept() > 0 { Ok(()) } else { Err("nothing has been sent") }
        })
        .await;
    }

    fn history(&self) -> History {
        let remote = self.northbound.remote();
        History::from_now(std::path::Path::new(remote.trim_start_matches("unix:")).with_extension("db"))
    }
}

/// Waits until the writer has decided all that it was fed: the status of a VM without a switch comes then. Adds the
/// other VMs that are reported meanwhile.
async fn looked(service: &mut InProcess, number: usize, reported: &mut Vec<String>) {
    let switch = format!("nowhere-{number}");
    let hopeless = vm("hopeless", &[("ovn.kubernetes.io/logical_switch", &switch)]);
    service.feed([hopeless]);
    let reported = async {
        while let Some(report) = service.reports.recv().await {
            let Report::Status { subject, status } = report else { continue };
            let mut problems = status.problems();
            if problems.any(|problem| *problem == Problem::SwitchNotFound(switch.clone())) {
                return;
            }
            reported.push(subject.vm().name.clone());
        }
    };
    tokio::time::timeout(deadline(), reported).await.expect("the writer looks at it");
}

/// The names of the ports that a transaction created, and its changes of others.
fn written(transaction: &Committed) -> Vec<String> {
    let ports = transaction.get("Logical_Switch_Port").and_then(Value::as_object).into_iter().flatten();
    let written = ports.map(|(_, row)| row["name"].as_str().map_or_else(|| row.to_string(), ToOwned::to_owned));
    written.collect()
}

#[tokio::test]
async fn an_address_that_a_foreign_port_takes_meanwhile_is_not_allocated_by_a_prepared_transaction() {
    let mut path = Path::new().await;
    path.keep_in_flight("flying").await;
    path.service.feed([vm("prepared", &[])]);
    path.looked().await;
    path.northbound.add_foreign_port("ovn-default", "printer", &["0a:00:00:00:00:01 10.16.0.4"]);
    eventually("the replica has the foreign port", || async {
        path.service.northbound.read().port_named("printer").map(|_| ()).ok_or("not yet")
    })
    .await;
    path.valve.open();
    path.address_is("flying", "10.16.0.3").await;
    path.address_is("prepared", "10.16.0.5").await;
}

#[tokio::test]
async fn an_address_that_drifts_into_a_port_of_ours_meanwhile_is_not_allocated_by_a_prepared_transaction() {
    let mut path = Path::new().await;
    path.keep_in_flight("flying").await;
    path.service.feed([vm("prepared", &[])]);
    path.looked().await;
    path.northbound.nbctl(&["lsp-set-addresses", "first.ns", "0a:58:0a:10:00:02 10.16.0.4"]);
    eventually("the replica has it", || async {
        let view = path.service.northbound.read();
        let port = view.port_named("first.ns").ok_or("it is gone")?;
        if port.row.addresses.iter().any(|text| text.ends_with(" 10.16.0.4")) { Ok(()) } else { Err("not yet") }
    })
    .await;
    let history = path.history();
    path.valve.open();
    path.address_is("flying", "10.16.0.3").await;
    // Its own is written back, in the same transaction as the other is made: the
    // other was not given an address that the replica showed as held.
    path.address_is("first", "10.16.0.2").await;
    path.address_is("prepared", "10.16.0.5").await;
    path.idle().await;
    let committed = history.committed();
    assert_eq!(committed.len(), 2, "{committed:#?}");
}

#[tokio::test]
async fn a_vm_that_changes_while_it_is_prepared_is_not_sent_as_it_was() {
    let mut path = Path::new().await;
    path.keep_in_flight("flying").await;
    path.service.feed([vm("edited", &[]), vm("deleted", &[]), vm("other", &[])]);
    path.looked().await;
    let address = ("ovn.kubernetes.io/ip_address", "10.16.0.77");
    path.service.feed([vm("edited", &[address])]);
    path.service.feed([Change::Gone(Kind::Vm, read(json!({"name": "deleted", "namespace": "ns"})))]);
    path.looked().await;
    let history = path.history();
    path.valve.open();
    path.address_is("edited", "10.16.0.77").await;
    path.address_is("other", "10.16.0.4").await;
    path.idle().await;
    let committed: Vec<Vec<String>> = history.committed().iter().map(written).collect();
    assert_eq!(committed.len(), 2, "{committed:?}");
    assert_eq!(committed[0], ["flying.ns"]);
    let mut second = committed[1].clone();
    second.sort();
    assert_eq!(second, ["edited.ns", "other.ns"]);
}

#[tokio::test]
async fn a_migration_goes_before_a_prepared_transaction() {
    let mut path = Path::new().await;
    path.service.feed([vm("moves", &[]), run("moves", "n1", None), launcher("moves", "n1")]);
    path.address_is("moves", "10.16.0.3").await;
    path.idle().await;
    path.keep_in_flight("flying").await;
    // A full one is prepared when all of this has been taken, and the rest waits behind it.
    path.service.feed((0..150).map(|index| vm(&format!("storm-{index:03}"), &[])));
    path.taken().await;
    path.service.feed([migration("moves"), launcher("moves", "n2"), run("moves", "n2", Some("moves-n2"))]);
    path.taken().await;
    let history = path.history();
    path.valve.open();
    path.address_is("storm-149", "10.16.0.154").await;
    path.idle().await;
    let committed: Vec<Vec<String>> = history.committed().iter().map(written).collect();
    let sizes: Vec<usize> = committed.iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 1, 100, 50], "{committed:?}");
    assert_eq!(committed[0], ["flying.ns"]);
    assert!(committed[1][0].contains("n2"), "the migration waited for more than one transaction: {committed:?}");
    assert!(committed[2].contains(&"storm-099.ns".to_owned()), "{committed:?}");
}

#[tokio::test]
async fn a_vm_is_decided_once_when_no_other_program_writes() {
    let mut path = Path::new().await;
    let names: Vec<String> = (0..250).map(|index| format!("storm-{index:03}")).collect();
    path.service.feed(names.iter().map(|name| vm(name, &[])));
    path.address_is("storm-249", "10.16.0.252").await;
    let mut reported = path.idle().await;
    reported.sort();
    assert_eq!(reported, names);
}
