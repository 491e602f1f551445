//! The same network where the CNI names no port: `ovn-kubevirt node` runs on hv1 and hv2, and goes by what the launcher pod
//! carries.

use super::super::Cluster;
use super::super::fabric::{Cni, Fabric, Guest};
use super::super::node::{NodeSetup, annotate, pod_port};
use super::{Binding, Builder, Lab, Pointing, eventually};

/// The two nodes that the VM runs on.
const NODES: [usize; 2] = [1, 2];

impl Lab {
    /// The VM runs on hv1, and answers; its interfaces are plugged as ovs-cni 0.39.0 does it.
    pub async fn with_nodes(builder: Builder<'_>) -> Self {
        let mut lab = Self::without_guest(builder, Pointing::Service("rarp"), Binding::Bridge).await;
        for host in NODES {
            let (database, node) = (lab.fabric.database(host), Fabric::name(host));
            let setup = NodeSetup::new(Cluster::shared(), &database, &node, lab.northbound.dir()).await;
            lab.nodes.push(setup.start().await);
        }
        lab.begin().await;
        lab
    }

    /// The interface of the VM's launcher pod on a chassis, with the VM's other self behind it, asleep.
    pub(super) async fn plug_launcher(&self, chassis: &str) -> Guest {
        if self.nodes.is_empty() {
            return self.plug(chassis);
        }
        let uid = self.carry(chassis).await;
        let host = chassis.trim_start_matches("hv").parse().expect("hv and a number");
        let (mac, address) = self.addresses();
        self.plug_by(host, &Cni::OvsCni(&uid), mac, address)
    }

    /// Writes the annotation on the launcher pod of a chassis in the webhook's place, and gives back the pod's UID.
    async fn carry(&self, chassis: &str) -> String {
        for launcher in self.player.launchers("testvm").await {
            let pod = self.player.pod(&launcher).await.unwrap_or_default();
            let is_alive = !["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or_default());
            if pod["spec"]["nodeName"] == chassis && is_alive {
                annotate(&self.namespace, &launcher, Some(&[pod_port("default", "eth0", &self.port.name)])).await;
                return pod["metadata"]["uid"].as_str().expect("a UID").to_owned();
            }
        }
        panic!("no launcher pod on {chassis}")
    }

    /// Waits until the guest's interface has the port by the service of its node, or has lost it.
    pub async fn has_iface_id(&self, has: bool) {
        let guest = self.guest.as_ref().expect("the VM runs");
        let id = format!("iface-id={}", self.port.name);
        eventually(&format!("{id} on the guest's interface: {has}"), || async {
            let ids = self.fabric.interface_ids(guest);
            let (set, marked) = (ids.contains(&id), ids.contains("ovn-kubevirt.io/node"));
            if (set, marked) == (has, has) { Ok(()) } else { Err(ids) }
        })
        .await;
    }

    /// ovs-vswitchd is killed and started again on a chassis.
    pub async fn restart_switch(&mut self, chassis: &str) {
        let host = chassis.trim_start_matches("hv").parse().expect("hv and a number");
        self.fabric.restart_switch(host).await;
    }

    /// The VM's pods are gone, and the interface of its guest is left behind.
    pub async fn lose_pods(&self) {
        for launcher in self.player.launchers("testvm").await {
            self.player.delete_pod(&launcher).await;
        }
    }
}
