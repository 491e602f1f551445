//! A sweep or a list that lacks most VMs holds their ports; deletions that are seen release them at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ovn_kubevirt::kubevirt::{Change, Kind};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::fleet::LEASE_SECONDS;
use crate::support::in_process::InProcess;
use crate::support::{Northbound, Port, Service, Stage, VmOptions, eventually, holds_for};

/// Long enough for a write that should not come.
const A_WHILE: Duration = Duration::from_millis(500);

fn read<T: DeserializeOwned>(object: Value) -> Box<T> {
    Box::new(serde_json::from_value(object).expect("an object"))
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "namespace": "ns", "uid": name})
}

fn vm(name: &str) -> Change {
    Change::Vm(read(json!({"metadata": metadata(name)})))
}

fn gone(name: &str) -> Change {
    Change::Gone(Kind::Vm, read(metadata(name)))
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("vm-{index:03}")).collect()
}

/// The writing path inside the test, on a real server.
struct Path {
    northbound: Arc<Northbound>,
    service: InProcess,
}

impl Path {
    /// In office, with a port for each VM.
    async fn with(vms: &[String]) -> Self {
        let northbound = Stage::build("brake").northbound().await;
        let service = InProcess::on(&northbound.remote()).start();
        let path = Self { northbound, service };
        path.service.feed([Change::Namespace(read(json!({"name": "ns"})))]);
        path.service.feed(vms.iter().map(|name| vm(name)));
        path.service.feed(Kind::ALL.map(Change::ListEnds));
        path.ports_are(vms).await;
        path
    }

    /// Feeds a whole list of VMs.
    fn list<'a>(&self, vms: impl IntoIterator<Item = &'a String>) {
        self.service.feed([Change::ListBegins(Kind::Vm)]);
        self.service.feed(vms.into_iter().map(|name| vm(name)));
        self.service.feed([Change::ListEnds(Kind::Vm)]);
    }

    fn ports(&self) -> BTreeMap<String, Port> {
        self.northbound.ports().into_iter().map(|port| (port.name.clone(), port)).collect()
    }

    async fn ports_are(&self, vms: &[String]) {
        let expected: BTreeSet<String> = vms.iter().map(|vm| format!("{vm}.ns")).collect();
        eventually(&format!("there are {} ports", vms.len()), || async {
            let names: BTreeSet<String> = self.ports().into_keys().collect();
            // The writer goes by the replica.
            let replica = self.service.northbound.read().port_count();
            if names == expected && replica == names.len() {
                Ok(())
            } else {
                Err(format!("{names:?} {replica} {}", self.service.status.remark()))
            }
        })
        .await;
    }

    /// Waits until it holds so many ports, or none, and says and counts that.
    async fn holds(&self, ports: usize) {
        eventually(&format!("it holds {ports} ports"), || async {
            let (said, counted) = (self.service.status.remark(), self.service.metrics.text());
            let counts = counted.contains(&format!("ovn_kubevirt_held_ports {ports}\n"));
            let says = if ports == 0 { said.is_empty() } else { said.contains(&format!("; holding {ports} of ")) };
            if counts && says { Ok(()) } else { Err(format!("{said}\n{counted}")) }
        })
        .await;
    }
}

#[tokio::test]
async fn a_list_that_lacks_most_vms_holds_their_ports_until_the_vms_come_back() {
    let vms = names(30);
    let path = Path::with(&vms).await;
    let before = path.ports();
    path.list(&vms[..5]);
    path.holds(25).await;
    assert!(path.service.status.remark().contains("holding 25 of 30 ports"), "{}", path.service.status.remark());
    // A new VM is served, and gets none of the addresses that are held; one that is there is released when it goes.
    path.service.feed([vm("new"), gone("vm-000")]);
    let mut expected = vms[1..].to_vec();
    expected.push("new".to_owned());
    path.ports_are(&expected).await;
    let now = path.ports();
    assert!(before.iter().filter(|(name, _)| *name != "vm-000.ns").all(|(name, port)| now.get(name) == Some(port)));
    // They come back one after the other: the remaining ports stay held, even if they are few.
    for (back, name) in vms[5..28].iter().enumerate() {
        path.service.feed([vm(name)]);
        path.holds(24 - back).await;
    }
    assert_eq!(path.ports(), now);
    // One that came back and is deleted then is released.
    path.service.feed([gone("vm-010")]);
    expected.retain(|name| name != "vm-010");
    path.ports_are(&expected).await;
    // Only a list that is complete lets the last two go.
    path.list(expected.iter().filter(|name| !["vm-028", "vm-029"].contains(&name.as_str())));
    expected.retain(|name| !["vm-028", "vm-029"].contains(&name.as_str()));
    path.ports_are(&expected).await;
    path.holds(0).await;
}

#[tokio::test]
async fn ten_ports_or_a_fifth_of_all_are_released_by_any_list_and_more_are_held() {
    for (lacking, all) in [(10, 10), (11, 11), (11, 54), (11, 55), (11, 56)] {
        let held = lacking > 10 && lacking * 5 > all;
        let vms = names(all);
        let path = Path::with(&vms).await;
        path.list(&vms[lacking..]);
        if held {
            path.holds(lacking).await;
            path.ports_are(&vms).await;
        } else {
            path.ports_are(&vms[lacking..]).await;
            path.holds(0).await;
        }
    }
}

#[tokio::test]
async fn deletions_that_are_seen_release_at_once_however_many_they_are_and_whatever_list_ends_meanwhile() {
    let vms = names(120);
    let path = Path::with(&vms).await;
    let launcher = |name: &String| {
        Change::Launcher(read(json!({
            "metadata": {"name": format!("launcher-{name}"), "namespace": "ns", "labels": {"kubevirt.io": "virt-launcher"},
                "ownerReferences": [{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": name,
                    "uid": "run", "controller": true}]},
            "spec": {}, "status": {"phase": "Running"}})))
    };
    path.service.feed(vms[..60].iter().map(launcher));
    // A namespace is deleted with all its VMs. Some of their launcher pods are gone when the watch of pods lists again.
    for name in &vms {
        path.service.feed([gone(name)]);
    }
    path.service.feed([Change::ListBegins(Kind::Launcher), Change::ListEnds(Kind::Launcher)]);
    path.ports_are(&[]).await;
    path.holds(0).await;
}

// --- the service as an operator runs it ---

async fn readyz(service: &Service, words: &[&str]) -> String {
    eventually(&format!("/readyz says {words:?}"), || async {
        match service.http_get("/readyz").await {
            (200, text) if words.iter().all(|word| text.contains(word)) => Ok(text),
            other => Err(format!("{other:?}\n{}", service.log())),
        }
    })
    .await
}

#[tokio::test]
async fn a_sweep_after_a_start_or_a_change_of_leader_holds_and_the_operator_lets_it_through_once() {
    let fleet = Stage::build("brake").lease(LEASE_SECONDS).prepare().await;
    let vms = names(15);
    let service = fleet.setup().start().await;
    for vm in &vms {
        fleet.player.create_vm(vm, VmOptions::default()).await;
    }
    for vm in &vms {
        fleet.port(vm).await;
    }
    service.kill9();
    // No process watches while these are deleted.
    for vm in &vms[..12] {
        fleet.player.delete_vm(vm).await;
    }
    let before = fleet.ports();
    let first = fleet.setup().start().await;
    let first_vm = format!("{}/{}", fleet.namespace.name, vms[0]);
    let said = readyz(&first, &["ok, leading; holding 12 of 15 ports", &first_vm, "--allow-mass-release"]).await;
    let status = Service::command_line(&["status", "--http", first.listening().await]);
    assert_eq!(
        (status.status.code(), String::from_utf8_lossy(&status.stdout)),
        (Some(0), said.replacen("ok", "ready", 1).into())
    );
    assert!(first.http_get("/metrics").await.1.contains("ovn_kubevirt_held_ports 12\n"));
    let log = first.log();
    let warned: Vec<&str> =
        log.lines().filter(|line| line.contains("WARN") && line.contains("holding 12 of 15")).collect();
    assert_eq!(warned.len(), 1, "{log}");
    // VMs that come are served, with addresses of their own, and VMs that are seen to go are released.
    fleet.make("new").await;
    fleet.player.delete_vm("new").await;
    eventually("the port of the VM that was seen to go is gone", || async {
        if fleet.ports() == before { Ok(()) } else { Err(first.log()) }
    })
    .await;
    // The next leader finds the same.
    let second = fleet.setup().start().await;
    readyz(&second, &["ok, following\n"]).await;
    first.stop().await;
    readyz(&second, &["ok, leading; holding 12 of 15 ports"]).await;
    holds_for("everything stays", A_WHILE, || async {
        if fleet.ports() == before { Ok(()) } else { Err(second.log()) }
    })
    .await;
    // Its VM comes back, and has its port again.
    fleet.make(&vms[0]).await;
    readyz(&second, &["holding 11 of 15 ports"]).await;
    assert_eq!(fleet.ports()[&fleet.name(&vms[0])].addresses, before[&fleet.name(&vms[0])].addresses);
    // The operator lets the rest go.
    second.stop().await;
    let third = fleet.setup().env("OVN_KUBEVIRT_ALLOW_MASS_RELEASE", "true").start().await;
    eventually("the ports of the VMs that are gone are gone", || async {
        let ports = fleet.ports();
        if ports.len() == 4 { Ok(()) } else { Err(format!("{} ports\n{}", ports.len(), third.log())) }
    })
    .await;
    readyz(&third, &["ok, leading\n"]).await;
}

#[tokio::test]
async fn ports_that_an_older_database_brings_back_are_held_and_retained_ports_are_not_counted() {
    let fleet = Stage::build("restored").lease(LEASE_SECONDS).prepare().await;
    let vms = names(12);
    let service = fleet.setup().start().await;
    for vm in &vms {
        fleet.player.create_vm(vm, VmOptions::default()).await;
    }
    for vm in &vms {
        fleet.port(vm).await;
    }
    let backup = fleet.northbound.backup().await;
    let before = fleet.ports();
    for vm in &vms {
        fleet.player.delete_vm(vm).await;
    }
    eventually("all are released, as all were seen to go", || async {
        let ports = fleet.ports();
        if ports.is_empty() { Ok(()) } else { Err(format!("{} ports", ports.len())) }
    })
    .await;
    fleet.northbound.restore(&backup).await;
    readyz(&service, &["holding 12 of 12 ports"]).await;
    assert_eq!(fleet.ports(), before);
    // One that is retained is none that is held: it goes by its own clock.
    let name = fleet.name(&vms[0]);
    let retained = |until: &str| {
        json!([{"op": "mutate", "table": "Logical_Switch_Port", "where": [["name", "==", name]],
            "mutations": [["external_ids", "delete", ["set", ["ovn-kubevirt.io/retained-until"]]],
                ["external_ids", "insert", ["map", [["ovn-kubevirt.io/retained-until", until]]]]]}])
    };
    fleet.northbound.transact(retained("forever"));
    fleet.northbound.stop().await;
    fleet.northbound.start_again().await;
    readyz(&service, &["holding 11 of 11 ports"]).await;
    fleet.northbound.transact(retained("2020-01-01T00:00:00Z"));
    eventually("it is released when its time is over, and nothing else", || async {
        let ports = fleet.ports();
        if ports.len() == 11 && !ports.contains_key(&name) { Ok(()) } else { Err(format!("{} ports", ports.len())) }
    })
    .await;
    readyz(&service, &["holding 11 of 11 ports"]).await;
}
