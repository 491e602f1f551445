//! docker-compose.yml under test: the service's image as the sidecar of an ovn-central, with two chassis and a Kubernetes
//! API, each part a container.
//!
//! `make test-compose` builds the images and runs this. KubeVirt's part is played (the VMI, the launcher pods), and a guest
//! is a container with a network namespace, plugged into its chassis as a CNI does it (`guest.sh`).

#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, unreachable_pub, reason = "each target uses a part of the harness")]
mod support;

mod stack;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::{Value, json};

use stack::{Row, Stack, docker};
use support::{Player, VmOptions, deploy, eventually};

const FIRST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/demo/first-vm.yaml");
const SECOND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/demo/second-vm.yaml");
/// The namespace of the second VM.
const OTHER: &str = "other";
/// The namespace of the VMs that are created while the service is killed.
const STORM: &str = "storm";

/// The ports of the three guests: the seed's two VMs, and one more that stays on its node and probes the others.
const A: &str = "testvm.default";
const B: &str = "testvm.other";
const WATCHER: &str = "watcher.default";

/// How many VMs are created while the service is killed, after how many the kill is sent, and after how many it is awaited.
const CREATED: usize = 200;
const KILLED_AFTER: usize = 60;
const DEAD_AT: usize = 180;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Docker and the images of docker-compose.yml: make test-compose"]
async fn every_vm_keeps_its_port_its_address_and_its_pings_whatever_part_restarts() {
    let mut clock = Clock(Instant::now());
    let lab = Lab::new(Stack::up().await).await;
    clock.lap("docker-compose up");
    lab.the_containers_have_no_more_rights_than_they_need();
    clock.lap("rights of the containers");
    lab.two_applied_vms_get_ports_and_ping_each_other_across_chassis().await;
    clock.lap("VMs applied, started, plugged; ping across");
    lab.a_restart_on_the_other_chassis_keeps_the_address().await;
    clock.lap("restart onto the other chassis; ping back");
    for part in ["ovn-kubevirt", "ovn-central", "kube-apiserver"] {
        lab.a_stop_and_a_start_leave_all_as_it_was(part).await;
        clock.lap(&format!("stop and start of {part}"));
    }
    lab.a_kill_amid_a_storm_of_vms_loses_no_change_and_repeats_no_change().await;
    clock.lap("kill -9 amid 200 VMs");
    drop(lab);
    clock.lap("docker-compose down");
}

struct Lab {
    stack: Stack,
    /// KubeVirt in the namespace `default`.
    player: Player,
    /// KubeVirt in the namespace [`OTHER`].
    other: Player,
    /// KubeVirt in the namespace [`STORM`].
    storm: Player,
}

impl Lab {
    async fn new(stack: Stack) -> Self {
        let client = stack.client().await;
        let player = |namespace| Player::new(client.clone(), namespace);
        let lab = Self { stack, player: player("default"), other: player(OTHER), storm: player(STORM) };
        lab.kubectl(&["create", "namespace", OTHER]);
        lab.kubectl(&["create", "namespace", STORM]);
        lab
    }

    fn the_containers_have_no_more_rights_than_they_need(&self) {
        let mut published = Vec::new();
        for container in self.stack.containers() {
            let inspected: Value = serde_json::from_str(&docker(&["inspect", &container]).unwrap()).unwrap();
            let (host, name) = (&inspected[0]["HostConfig"], &inspected[0]["Name"]);
            assert_eq!(host["Privileged"], json!(false), "{name}");
            assert_eq!(host["CapDrop"], json!(["ALL"]), "{name}");
            assert_eq!(host["ReadonlyRootfs"], json!(true), "{name}");
            assert_eq!(host["SecurityOpt"], json!(["no-new-privileges:true"]), "{name}");
            let service = inspected[0]["Config"]["Labels"]["com.docker.compose.service"].as_str().unwrap();
            let added = match service {
                "chassis1" | "chassis2" => json!(["NET_ADMIN", "NET_RAW"]),
                "pki" => json!(["CHOWN", "DAC_OVERRIDE"]),
                _ => Value::Null,
            };
            let without_prefix = host["CapAdd"].to_string().replace("CAP_", "");
            assert_eq!(without_prefix, added.to_string(), "{name}");
            let ports = host["PortBindings"].as_object().into_iter().flatten();
            published.extend(ports.map(|(port, host)| (service.to_owned(), port.clone(), host[0]["HostIp"].clone())));
        }
        assert_eq!(published, [("kube-apiserver".to_owned(), "6443/tcp".to_owned(), json!("127.0.0.1"))]);

        let sidecar = self.stack.inspect("ovn-kubevirt").unwrap();
        assert_eq!(sidecar["Config"]["User"], json!("65532:65532"));
        let image: Value =
            serde_json::from_str(&docker(&["image", "inspect", sidecar["Image"].as_str().unwrap()]).unwrap()).unwrap();
        assert!(image[0]["Size"].as_u64().unwrap() < 40_000_000, "the image has {} bytes", image[0]["Size"]);
        let shell = docker(&["exec", sidecar["Id"].as_str().unwrap(), "/bin/sh", "-c", "true"]).unwrap_err();
        assert!(shell.contains("no such file"), "{shell}");
    }

    async fn two_applied_vms_get_ports_and_ping_each_other_across_chassis(&self) {
        self.kubectl(&["apply", "-n", "default", "-f", FIRST]);
        self.kubectl(&["apply", "-n", OTHER, "-f", SECOND]);
        self.row(A, "is there, though nothing runs", |_| true).await;
        let second = self.row(B, "is there, though nothing runs", |_| true).await;
        assert_eq!(address(&second), "10.16.0.15", "the address that its owner chose");

        self.player.adopt_vm("testvm").await;
        self.other.adopt_vm("testvm").await;
        self.player.create_vm("watcher", VmOptions::default()).await;
        self.row(WATCHER, "is there", |_| true).await;
        self.player.start("testvm", "chassis1").await;
        self.other.start("testvm", "chassis2").await;
        self.player.start("watcher", "chassis1").await;
        for (port, chassis) in [(A, "chassis1"), (B, "chassis2"), (WATCHER, "chassis1")] {
            self.row(port, "asks for its chassis", |row| requested_chassis(row) == Some(chassis)).await;
            self.stack.guest(&["add", chassis, port]);
            self.row(port, "is up", is_up).await;
        }
        self.pings().await;
    }

    async fn a_restart_on_the_other_chassis_keeps_the_address(&self) {
        let before = self.row(A, "is up", is_up).await;
        self.player.stop("testvm").await;
        self.stack.guest(&["remove", "chassis1", A]);
        let stopped = self.row(A, "is down", |row| !is_up(row) && requested_chassis(row).is_none()).await;
        assert_eq!(stopped["addresses"], before["addresses"]);

        self.player.start("testvm", "chassis2").await;
        self.row(A, "asks for chassis2", |row| requested_chassis(row) == Some("chassis2")).await;
        self.stack.guest(&["add", "chassis2", A]);
        let mut after = self.row(A, "is up", is_up).await;
        let place = after.insert("options".to_owned(), before["options"].clone()).unwrap();
        assert_eq!(place, json!(["map", [["requested-chassis", "chassis2"]]]));
        assert_eq!(after, before, "the same row, but for its chassis");
        self.pings().await;
    }

    async fn a_stop_and_a_start_leave_all_as_it_was(&self, part: &str) {
        let before = self.stack.rows().unwrap();
        let addresses = addresses_of(&before);
        self.stack.compose(&["stop", part]);
        for (from, to) in [(WATCHER, B), (B, A), (A, WATCHER)] {
            // The data path does not need it.
            self.ping(from, &addresses[to]).await;
        }
        // Objects that are applied meanwhile are served later.
        let newcomer = format!("beside-{part}");
        if part != "kube-apiserver" {
            self.player.create_vm(&newcomer, VmOptions::default()).await;
        }
        self.stack.compose(&["start", part]);
        if part == "kube-apiserver" {
            self.api_server_is_back().await;
            self.player.create_vm(&newcomer, VmOptions::default()).await;
        } else {
            self.stack.healthy(part).await;
        }

        let port = format!("{newcomer}.default");
        self.row(&port, "is there, as its VM is", |_| true).await;
        self.player.delete_vm(&newcomer).await;
        eventually(&format!("rows as before the stop of {part}"), || async {
            let now = self.stack.rows()?;
            if now == before { Ok(()) } else { Err(format!("{now:#?}\n  and before: {before:#?}")) }
        })
        .await;
        self.stack.healthy("ovn-kubevirt").await;
        self.pings().await;
    }

    async fn a_kill_amid_a_storm_of_vms_loses_no_change_and_repeats_no_change(&self) {
        let before = self.stack.rows().unwrap();
        let mut created = self.create(0..KILLED_AFTER).await;
        eventually("the first VMs are being served", || async {
            if self.stack.rows()?.len() > before.len() { Ok(()) } else { Err("no port yet") }.map_err(str::to_owned)
        })
        .await;
        let kill = self.stack.compose_meanwhile(&["kill", "-s", "KILL", "ovn-kubevirt"]);
        let ((), amid) = tokio::join!(kill, self.create(KILLED_AFTER..DEAD_AT));
        created.extend(amid);
        created.extend(self.create(DEAD_AT..CREATED).await);
        let served = self.stack.rows().unwrap().len() - before.len();
        assert!(served <= DEAD_AT, "{served} of {CREATED} VMs have ports, of which it can have seen {DEAD_AT}");
        assert_eq!(self.stack.inspect("ovn-kubevirt").unwrap()["State"]["ExitCode"], json!(137));
        println!("  killed when {served} of {CREATED} VMs had their ports");

        self.stack.compose(&["start", "ovn-kubevirt"]);
        let after = eventually("every VM has its port", || async {
            let rows = self.stack.rows()?;
            if rows.len() < before.len() + CREATED { Err(format!("{} ports", rows.len())) } else { Ok(rows) }
        })
        .await;
        // No port is lost or created twice: a port for each VM and no other, each with a MAC and an address of its own.
        let (storm, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            after.into_iter().partition(|(name, _)| created.contains_key(name));
        assert_eq!(others, before, "the ports of others are as they were");
        let owners = storm.iter().map(|(name, row)| (name.clone(), external_id(row, "ovn-kubevirt.io/vm-uid")));
        assert_eq!(owners.collect::<BTreeMap<_, _>>(), created, "each port is of the VM of its name");
        let all: Vec<&Row> = storm.values().chain(others.values()).collect();
        assert_eq!(all.iter().map(|row| address(row)).collect::<BTreeSet<_>>().len(), all.len(), "addresses");
        assert_eq!(all.iter().map(|row| mac(row)).collect::<BTreeSet<_>>().len(), all.len(), "MACs");
        for (name, row) in &storm {
            self.has_status(name.strip_suffix(".storm").unwrap(), row).await;
        }

        self.kubectl(&["delete", "namespace", STORM, "--wait=false"]);
        eventually("the ports have gone with their VMs", || async {
            let rows = self.stack.rows()?;
            if rows == before { Ok(()) } else { Err(format!("{} ports", rows.len())) }
        })
        .await;
        self.pings().await;
    }
}

// --- parts of steps ---
impl Lab {
    #[track_caller]
    fn kubectl(&self, arguments: &[&str]) {
        deploy::kubectl(&self.stack.kubeconfig(), arguments, "").unwrap_or_else(|error| panic!("{error}"));
    }

    /// Applies VMs of the storm; the UID of each, by the name of its port.
    async fn create(&self, numbers: std::ops::Range<usize>) -> BTreeMap<String, String> {
        let mut created = BTreeMap::new();
        for number in numbers {
            let name = format!("storm-{number:03}");
            let uid = self.storm.apply_vm(&name, VmOptions::default()).await;
            created.insert(format!("{name}.{STORM}"), uid);
        }
        created
    }

    /// Waits until the row of a port is so.
    async fn row(&self, name: &str, what: &str, holds: impl Fn(&Row) -> bool) -> Row {
        eventually(&format!("the port {name} {what}"), || async {
            match self.stack.rows()?.remove(name) {
                Some(row) if holds(&row) => Ok(row),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Every guest reaches every other one, at the address that its port has now.
    async fn pings(&self) {
        let addresses = addresses_of(&self.stack.rows().unwrap());
        for from in [A, B, WATCHER] {
            for to in [A, B, WATCHER] {
                if from != to {
                    self.ping(from, &addresses[to]).await;
                }
            }
        }
    }

    async fn ping(&self, from: &str, to: &str) {
        eventually(&format!("{from} reaches {to}"), || async { self.stack.ping(from, to) }).await;
    }

    async fn api_server_is_back(&self) {
        eventually("the API server is ready", || async {
            deploy::kubectl(&self.stack.kubeconfig(), &["get", "--raw", "/readyz"], "")
        })
        .await;
    }

    /// Waits until the VM's annotation agrees with its row.
    async fn has_status(&self, vm: &str, row: &Row) {
        let wanted = (Some(mac(row)), Some(address(row)));
        eventually(&format!("{vm} has its status"), || async {
            let object = self.storm.vm(vm).await.ok_or("no VM")?;
            let said = object["metadata"]["annotations"]["ovn-kubevirt.io/ports"].as_str().unwrap_or("null");
            let said: Value = serde_json::from_str(said).map_err(|error| error.to_string())?;
            let said = &said["ports"];
            let ip = said[0]["ips"][0].as_str().and_then(|ip| ip.split('/').next());
            let found = (said[0]["mac"].as_str().map(ToOwned::to_owned), ip.map(ToOwned::to_owned));
            if found == wanted { Ok(()) } else { Err(format!("{said}, and the row says {wanted:?}")) }
        })
        .await;
    }
}

/// Tells how long each step took.
struct Clock(Instant);

impl Clock {
    fn lap(&mut self, what: &str) {
        println!("{:6.1} s  {what}", self.0.elapsed().as_secs_f64());
        self.0 = Instant::now();
    }
}

fn is_up(row: &Row) -> bool {
    row["up"] == json!(true)
}

/// The value of a key in a column that is a map.
fn entry<'a>(row: &'a Row, column: &str, key: &str) -> Option<&'a str> {
    let pairs = row[column][1].as_array()?;
    pairs.iter().find(|pair| pair[0] == key).and_then(|pair| pair[1].as_str())
}

fn requested_chassis(row: &Row) -> Option<&str> {
    entry(row, "options", "requested-chassis")
}

fn external_id(row: &Row, key: &str) -> String {
    entry(row, "external_ids", key).unwrap_or_default().to_owned()
}

fn mac(row: &Row) -> String {
    row["addresses"].as_str().unwrap_or_default().split(' ').next().unwrap_or_default().to_owned()
}

fn address(row: &Row) -> String {
    row["addresses"].as_str().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned()
}

fn addresses_of(rows: &BTreeMap<String, Row>) -> BTreeMap<String, String> {
    rows.iter().map(|(name, row)| (name.clone(), address(row))).collect()
}
