//! Several NICs, on NetworkAttachmentDefinitions (NADs) and on the pod network.

mod changes;
mod lives;
mod nads;
mod requests;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::stage::Builder;
use crate::support::{Nic, Port, Stage, VmOptions, eventually};

/// The switches `ovn-default`, `red` (10.17.0.0/24) and `blue` (10.18.0.0/24), and the NADs `net1` on
/// `red`, `net2` on `blue` and `plain` on none.
fn build(name: &str) -> Builder<'static> {
    Stage::build(name)
        .switch_with("red", &[("subnet", "10.17.0.0/24"), ("exclude_ips", "10.17.0.1")])
        .switch_with("blue", &[("subnet", "10.18.0.0/24"), ("exclude_ips", "10.18.0.1")])
        .nad("net1", "red")
        .nad("net2", "blue")
        .nad("plain", None)
}

/// A VM with a NIC on the pod network and, as `second`, one on `net1`.
fn two() -> VmOptions {
    VmOptions::default().nic(Nic::nad("second", "net1"))
}

impl Stage {
    /// The name of a VM's port on a NAD of the stage's namespace.
    fn name_on(&self, vm: &str, nad: &str) -> String {
        let namespace = &self.namespace.name;
        format!("{vm}.{namespace}.{nad}.{namespace}.ovn")
    }

    /// `<nad>.<nad-namespace>.ovn.kubernetes.io/<what>`
    fn nad_key(&self, nad: &str, what: &str) -> String {
        format!("{nad}.{}.ovn.kubernetes.io/{what}", self.namespace.name)
    }

    /// The VM's ports by network.
    fn ports_of(&self, vm: &str) -> BTreeMap<String, Port> {
        let vm = format!("{}/{vm}", self.namespace.name);
        let ports = self.northbound.ports().into_iter();
        let ours = ports.filter(|port| port.external_id("ovn-kubevirt.io/vm") == Some(&vm));
        ours.map(|port| (port.external_id("ovn-kubevirt.io/network").unwrap_or_default().to_owned(), port)).collect()
    }

    /// Waits until the VM's ports are so.
    async fn ports_where(
        &self,
        vm: &str,
        what: &str,
        hold: impl Fn(&BTreeMap<String, Port>) -> bool,
    ) -> BTreeMap<String, Port> {
        eventually(&format!("the ports of {vm}: {what}"), || async {
            let ports = self.ports_of(vm);
            if hold(&ports) { Ok(ports) } else { Err(format!("{ports:#?}\n{}", self.service.log())) }
        })
        .await
    }

    /// Waits until the VM has ports for just these networks.
    async fn nics(&self, vm: &str, networks: &[&str]) -> BTreeMap<String, Port> {
        let mut expected = networks.to_vec();
        expected.sort_unstable();
        self.ports_where(vm, &format!("{expected:?}"), |ports| ports.keys().eq(expected.iter())).await
    }

    /// Waits until the VM's status has so many ports. Gives them back.
    async fn status_of(&self, vm: &str, ports: usize) -> Value {
        let has_all = |_: &str, status: &Value| status["ports"].as_array().is_some_and(|all| all.len() == ports);
        self.status_where(vm, &format!("has {ports} ports"), has_all).await["ports"].take()
    }
}

#[tokio::test]
async fn a_second_nic_is_on_the_switch_of_its_nad() {
    let stage = Stage::build("second-nic").switch("blue", "10.17.0.0/24").nad("net1", "blue").start().await;
    stage.player.create_vm("testvm", VmOptions::default().nic(Nic::nad("second", "net1"))).await;
    let port = stage.port_named(&stage.name_on("testvm", "net1")).await;
    assert_eq!(port.switches, ["blue"]);
}

/// The addresses of a port, without the MAC.
fn ips(port: &Port) -> Vec<&str> {
    assert!(port.port_security.is_empty() || port.port_security == port.addresses, "{port:#?}");
    port.addresses.iter().flat_map(|text| text.split(' ').skip(1)).collect()
}

/// The lease of a port.
fn addresses(port: &Port) -> &str {
    port.addresses.iter().next().expect("addresses")
}
