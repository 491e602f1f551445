//! How long a launcher pod's interface waits for its `iface-id` by `ovn-kubevirt node`, from the later of the two events,
//! beside a bare write of the same keys.
//!
//! Measured from outside, to the moment that a monitor of this process has the `iface-id`. Where the interface comes last,
//! the time runs from before the CNI's transaction is sent, so that the transaction itself counts; where the pod comes
//! last, from its watch event in this process.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::machine::Busy;
use common::support::local_switch::{BR_INT, LocalSwitch, Plug};
use common::support::node::pod_port;
use common::support::{Cluster, Namespace, NodeSetup, Player, VmOptions, objects};
use common::{is_test, milliseconds, setting};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::watcher::{self, watcher};
use ovn_kubevirt::node::core::LocalSwitch as Replica;
use ovn_kubevirt::ovsdb::{self, Shared};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Interfaces of each kind that are measured, and those before them that are not.
const COUNTED: usize = 200;
const WARM_UP: usize = 20;
/// Longer than any of it takes: a bench that hangs says so.
const PATIENCE: Duration = Duration::from_secs(30);
/// The service's watch may be behind this process' by the difference of two streams of one server.
const SETTLED: Duration = Duration::from_millis(20);

/// The last change.
#[derive(Clone, Copy)]
enum Last {
    Interface,
    Pod,
}

struct Bench {
    switch: LocalSwitch,
    bridge: Value,
    replica: Arc<Shared<Replica>>,
    namespace: Namespace,
    player: Player,
    pods: Api<Pod>,
    node: String,
    seen: mpsc::UnboundedReceiver<(String, Instant)>,
    vmi: Value,
}

#[tokio::main]
async fn main() {
    if is_test() {
        return;
    }
    let counted = setting("BENCH_RUNS", &[COUNTED])[0];
    let switch = LocalSwitch::start().await;
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("bench-node").await;
    let node = format!("{}-n1", namespace.name);
    let _service = NodeSetup::new(cluster, &switch.server.remote(), &node, switch.dir()).await.start().await;
    let target = ovsdb::Target {
        remotes: switch.server.remote().parse().expect("a remote"),
        tls: None,
        probe_interval: PATIENCE,
        leader_only: false,
    };
    let replica = Arc::new(Shared::new(Replica::default()));
    let _connection = ovsdb::Session::new(target, Arc::clone(&replica)).connect().await.expect("a connection");
    let player = Player::within(&namespace);
    player.create_vm("testvm", VmOptions::default()).await;
    player.create_vmi("testvm").await;
    let vmi = player.vmi("testvm").await.expect("the VMI");
    let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let seen = bound(pods.clone(), &node).await;
    let bridge = switch.bridge(BR_INT);
    let mut bench = Bench { switch, bridge, replica, namespace, player, pods, node, seen, vmi };

    let busy = Busy::begin();
    let (mut interfaces, mut later_pods, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..WARM_UP + counted {
        let interface = bench.measure(index, Last::Interface).await;
        let pod = bench.measure(index, Last::Pod).await;
        let written = bench.bare(index);
        if index >= WARM_UP {
            interfaces.push(interface);
            later_pods.push(pod);
            bare.push(written);
        }
    }
    println!("iface-id set by `ovn-kubevirt node`, {counted} of each, one after the other, standalone ovsdb-server");
    println!("{:<52}{:>12}{:>12}{:>12}", "", "p50 (ms)", "p99 (ms)", "max (ms)");
    print("interface last: CNI's transaction sent -> iface-id", interfaces);
    print("pod last: watch event -> iface-id", later_pods);
    print("bare write of the same keys, sent -> answer", bare);
    println!("machine: {}", busy.end());
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| milliseconds(times[(times.len() - 1) * percent / 100]);
    println!("{what:<52}{:>12.3}{:>12.3}{:>12.3}", at(50), at(99), at(100));
}

impl Bench {
    /// One interface of one pod: created, given its port, and deleted.
    async fn measure(&mut self, index: usize, last: Last) -> Duration {
        let (pod, uid) = self.launcher().await;
        let name = format!("veth{index}");
        let plug = Plug::new(&name, &uid, "eth0").operations(&self.bridge);
        let begun = match last {
            Last::Interface => {
                self.bind(&pod).await;
                tokio::time::sleep(SETTLED).await;
                let begun = Instant::now();
                self.switch.server.transact(plug);
                begun
            }
            Last::Pod => {
                self.switch.server.transact(plug);
                tokio::time::sleep(SETTLED).await;
                self.bind(&pod).await
            }
        };
        let there = tokio::time::timeout(PATIENCE, self.first_set(&name)).await.expect("the iface-id is set");
        let took = there.saturating_duration_since(begun);
        self.pods.delete(&pod, &DeleteParams::default().grace_period(0)).await.expect("the pod goes");
        self.switch.unplug(&name);
        took
    }

    /// A launcher pod of the VM with one NIC of ours: its name and UID.
    async fn launcher(&self) -> (String, String) {
        let mut pod = objects::launcher_pod(&self.vmi);
        let port = format!("testvm.{}", self.namespace.name);
        let ports = json!([pod_port("default", "eth0", &port)]).to_string();
        pod["metadata"]["annotations"]["ovn-kubevirt.io/ports"] = json!(ports);
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let made = self.pods.create(&PostParams::default(), &pod).await.expect("the pod is created");
        (made.metadata.name.expect("a name"), made.metadata.uid.expect("a UID"))
    }

    /// Binds a pod to the node; when the watch of this process has seen it.
    async fn bind(&mut self, pod: &str) -> Instant {
        self.player.bind_pod(pod, &self.node).await;
        loop {
            let seen = tokio::time::timeout(PATIENCE, self.seen.recv()).await.expect("the watch sees the pod");
            let (name, at) = seen.expect("the watch goes on");
            if name == pod {
                return at;
            }
        }
    }

    async fn first_set(&self, name: &str) -> Instant {
        loop {
            let set = self.replica.read().plugged().iter().any(|one| one.interface.name == name && one.is_ours());
            if set {
                return Instant::now();
            }
            self.replica.changed.notified().await;
        }
    }

    /// The same two keys, written by this process on an interface that belongs to no pod.
    fn bare(&self, index: usize) -> Duration {
        let name = format!("bare{index}");
        self.switch.plug(&Plug::new(&name, "", ""));
        let begun = Instant::now();
        self.switch
            .write(&name, &[("iface-id", Some("a.b")), ("bench", Some("00000000-0000-0000-0000-000000000000/a.b"))]);
        let took = begun.elapsed();
        self.switch.unplug(&name);
        took
    }
}

/// Pods of the node as their watch events come.
async fn bound(pods: Api<Pod>, node: &str) -> mpsc::UnboundedReceiver<(String, Instant)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (listed, ready) = tokio::sync::oneshot::channel();
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    tokio::spawn(async move {
        let mut listed = Some(listed);
        let mut events = std::pin::pin!(watcher(pods, config));
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Apply(pod)) => {
                    let _ = sender.send((pod.metadata.name.unwrap_or_default(), Instant::now()));
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
