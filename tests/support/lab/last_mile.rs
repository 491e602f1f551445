//! The same network where ovs-cni plugs the launcher pods: the service has webhooks, and a pod's interface is made only
//! from their annotations on the pod.

use serde_json::Value;

use super::super::Cluster;
use super::super::fabric::{Cni, Fabric, Guest};
use super::super::multus::Attachment;
use super::super::node::NodeSetup;
use super::super::objects::{Nic, On};
use super::super::webhooks::Webhooks;
use super::{Builder, DEFAULT_SWITCH, Lab, Pointing, Service, VmOptions, eventually};

/// The two nodes that the VM runs on.
const NODES: [usize; 2] = [1, 2];
/// The NetworkAttachmentDefinition of the VM's NIC, in the VM's namespace.
pub(super) const NAD: &str = "ovn";

/// The plugin that plugs the launcher pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OvsCni {
    /// Its development branch, from PR 542 on: it sets `iface-id` by the pod's `cni-args`.
    Head,
    /// The newest release: it names no port, and `ovn-kubevirt node` runs on each node.
    V0_39_0,
}

/// Its processes.
pub(super) struct LastMile {
    plugin: OvsCni,
    /// On hv1 and hv2, where the plugin names no port.
    nodes: Vec<Service>,
    _webhooks: Webhooks,
}

// --- the set-up ---
impl Lab {
    /// The NIC of a VM that Multus plugs by that NetworkAttachmentDefinition, beside the pod network or in its place.
    pub fn nic(is_secondary: bool) -> Nic {
        if is_secondary { Nic::nad("data", NAD) } else { Nic::pod("default") }
    }

    /// The VM has this NIC (see [`nic`](Self::nic)), runs on hv1, and answers.
    pub async fn with_ovs_cni(builder: Builder<'_>, plugin: OvsCni, nic: Nic) -> Self {
        let pointing = Pointing::Service("rarp");
        let prepared = Self::prepared(builder.nad(NAD, DEFAULT_SWITCH), pointing).await;
        let default_network = format!("{}/{NAD}", prepared.namespace.name);
        let mut prepared = prepared.with(|setup| setup.flags(["--default-network", &default_network]));
        let (service, webhooks) = prepared.start_called().await;
        let name = match &nic.on {
            On::Pod => prepared.name("testvm"),
            On::Nad(nad) | On::DefaultNad(nad) => {
                format!("testvm.{0}.{nad}.{0}.ovn", prepared.namespace.name)
            }
        };
        let mut lab = Self::bound_to_hv1(prepared, service, pointing, VmOptions::default().nics([nic]), &name).await;
        let mut nodes = Vec::new();
        for host in NODES.into_iter().filter(|_| plugin == OvsCni::V0_39_0) {
            let (database, node) = (lab.fabric.database(host), Fabric::name(host));
            let setup = NodeSetup::new(Cluster::shared(), &database, &node, lab.dir()).await;
            nodes.push(setup.start().await);
        }
        lab.last_mile = Some(LastMile { plugin, nodes, _webhooks: webhooks });
        lab.begin().await;
        lab
    }

    /// The interface of the VM's launcher pod on a chassis, with the VM's other self behind it, asleep.
    pub(super) async fn plug_launcher(&self, chassis: &str) -> Guest {
        let Some(last_mile) = &self.last_mile else {
            return self.plug(chassis);
        };
        let pod = self.launcher(chassis).await;
        let mut attachments = Attachment::of(&pod);
        let attachment = attachments.pop().unwrap_or_else(|| panic!("Multus has nothing to plug: {pod:#}"));
        assert_eq!(attachments, [], "one NIC");
        let (port, mac) = match last_mile.plugin {
            OvsCni::Head => (Some(attachment.argument("ovnPort")), attachment.argument("mac")),
            OvsCni::V0_39_0 => (None, attachment.mac()),
        };
        let Attachment { pod_uid, interface, .. } = &attachment;
        let cni = Cni::OvsCni { pod_uid, interface, iface_id: port.as_deref() };
        let host = chassis.trim_start_matches("hv").parse().expect("hv and a number");
        self.plug_by(host, &cni, &mac, &attachment.address())
    }

    /// The VM's launcher pod on a chassis.
    pub async fn launcher(&self, chassis: &str) -> Value {
        for launcher in self.player.launchers("testvm").await {
            let pod = self.player.pod(&launcher).await.unwrap_or_default();
            let is_alive = !["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or_default());
            if pod["spec"]["nodeName"] == chassis && is_alive {
                return pod;
            }
        }
        panic!("no launcher pod on {chassis}")
    }
}

// --- what happens ---
impl Lab {
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

// --- what is seen ---
impl Lab {
    /// What the guest's interface says on its chassis: of its pod, by the plugin, and of its port.
    pub fn plugged(&self) -> (String, String) {
        let guest = self.guest.as_ref().expect("the VM runs");
        (self.fabric.port_ids(guest), self.fabric.interface_ids(guest))
    }

    /// Waits until the guest's interface has the port by the service of its node, or has lost it.
    pub async fn has_iface_id(&self, has: bool) {
        let id = format!("iface-id={}", self.port.name);
        eventually(&format!("{id} on the guest's interface: {has}"), || async {
            let (_, ids) = self.plugged();
            let (set, marked) = (ids.contains(&id), ids.contains("ovn-kubevirt.io/node"));
            if (set, marked) == (has, has) { Ok(()) } else { Err(ids) }
        })
        .await;
    }
}
