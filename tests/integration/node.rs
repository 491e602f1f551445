//! `ovn-kubevirt node` on a real Open vSwitch database: an `ovsdb-server` with Open vSwitch's own schema, in which the tests
//! plug interfaces as ovs-cni does.

mod plugging;
mod restarts;
mod telling;

use serde_json::Value;

use crate::support::local_switch::Plug;
use crate::support::node::{annotate, pod_port};
use crate::support::{Cluster, LocalSwitch, Namespace, NodeSetup, Player, Service, VmOptions, eventually};

/// One node with its service, and a namespace with VMs on it.
pub(crate) struct NodeStage {
    pub(crate) switch: LocalSwitch,
    pub(crate) namespace: Namespace,
    pub(crate) player: Player,
    pub(crate) node: String,
    pub(crate) setup: NodeSetup,
    pub(crate) service: Service,
}

/// A launcher pod.
pub(crate) struct Launcher {
    pub(crate) pod: String,
    pub(crate) uid: String,
}

impl NodeStage {
    /// A node whose service tells of a missing interface after half a second.
    pub(crate) async fn new(name: &str) -> Self {
        let switch = LocalSwitch::start().await;
        let setup = |setup: NodeSetup| setup.args(&["--interface-deadline", "500ms"]);
        Self::with(name, switch, setup).await
    }

    /// A node with a database that is prepared already.
    pub(crate) async fn with(name: &str, switch: LocalSwitch, change: impl FnOnce(NodeSetup) -> NodeSetup) -> Self {
        let cluster = Cluster::shared();
        let namespace = cluster.namespace(name).await;
        let node = format!("{}-n1", namespace.name);
        let setup = change(NodeSetup::new(cluster, &switch.server.remote(), &node, switch.dir()).await);
        let service = setup.start().await;
        let player = Player::within(&namespace);
        Self { switch, namespace, player, node, setup, service }
    }

    /// The name of a VM's port on the pod network.
    pub(crate) fn port(&self, vm: &str) -> String {
        format!("{vm}.{}", self.namespace.name)
    }

    /// The name of its port on a NAD.
    pub(crate) fn port_on(&self, vm: &str, nad: &str) -> String {
        format!("{vm}.{0}.{nad}.{0}.ovn", self.namespace.name)
    }

    /// A launcher pod that no scheduler has seen yet, with these ports.
    pub(crate) async fn launcher(&self, vm: &str, ports: &[Value]) -> Launcher {
        self.player.create_vm(vm, VmOptions::default()).await;
        self.player.create_vmi(vm).await;
        let pod = self.player.create_launcher(vm).await;
        annotate(&self.namespace, &pod, Some(ports)).await;
        let object = self.player.pod(&pod).await.expect("the pod");
        let uid = object["metadata"]["uid"].as_str().expect("a UID").to_owned();
        Launcher { pod, uid }
    }

    /// The same with one NIC on the pod network.
    pub(crate) async fn plain_launcher(&self, vm: &str) -> Launcher {
        self.launcher(vm, &[pod_port("default", "eth0", &self.port(vm))]).await
    }

    /// Binds a launcher pod to the node.
    pub(crate) async fn bind(&self, launcher: &Launcher) {
        self.player.bind_pod(&launcher.pod, &self.node).await;
    }

    /// A VM on the node whose interface `name` has its port.
    pub(crate) async fn served(&self, vm: &str, name: &str) -> Launcher {
        let launcher = self.plain_launcher(vm).await;
        self.bind(&launcher).await;
        self.switch.plug(&Plug::new(name, &launcher.uid, "eth0"));
        self.switch.set(name, &launcher.uid, &self.port(vm)).await;
        launcher
    }

    /// Waits for an Event on a pod whose message has these words.
    pub(crate) async fn event(&self, launcher: &Launcher, reason: &str, words: &[&str]) -> String {
        eventually(&format!("an Event {reason} with {words:?}"), || async {
            let events = self.namespace.events(&launcher.pod).await;
            let fits = |(kind, found, message): &&(String, String, String)| {
                kind == "Warning" && found == reason && words.iter().all(|word| message.contains(word))
            };
            events.iter().find(fits).map(|(_, _, message)| message.clone()).ok_or(format!("{events:#?}"))
        })
        .await
    }

    /// Waits until the service has seen all that was written before: it serves a VM that is made for this.
    pub(crate) async fn has_seen_all(&self, vm: &str) {
        let name = format!("v-{vm}");
        let launcher = self.served(vm, &name).await;
        self.player.delete_pod(&launcher.pod).await;
        self.switch.removed(&name).await;
        self.switch.unplug(&name);
    }
}
