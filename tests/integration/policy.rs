//! The operator's policy: limits for the owners of VMs, on the rows of switches and by flags.

use k8s_openapi::jiff::Timestamp;

use crate::support::{Nic, Stage, VmOptions};

const IP_ADDRESS: &str = "ovn.kubernetes.io/ip_address";
const SWITCH: &str = "ovn.kubernetes.io/logical_switch";

impl Stage {
    /// The operator writes a key of the policy on a switch.
    fn state(&self, switch: &str, key: &str, value: &str) {
        let value = format!("external_ids:ovn-kubevirt.io/{key}=\"{value}\"");
        self.northbound.nbctl(&["set", "logical_switch", switch, &value]);
    }

    /// Waits until the service has read all earlier changes: it reads in order, and repairs the port of this VM.
    async fn has_read(&self, vm: &str) {
        let before = self.port(vm).await;
        self.northbound.nbctl(&["lsp-set-addresses", &before.name, "unknown"]);
        self.port_where(vm, "is repaired", |port| port.addresses == before.addresses).await;
    }
}

fn at(address: &str) -> VmOptions {
    VmOptions::default().annotation(IP_ADDRESS, address)
}

#[tokio::test]
async fn a_switch_of_another_tenant_is_refused_until_the_operator_names_the_namespace() {
    let stage = Stage::build("tenants").switch("red", "10.17.0.0/24").nad("net1", "red").start().await;
    stage.make("witness").await;
    stage.state("red", "namespaces", "another");
    stage.has_read("witness").await;
    let namespace = stage.namespace.name.clone();
    stage.player.create_vm("named", VmOptions::default().annotation(SWITCH, "red")).await;
    let rule = "external_ids:ovn-kubevirt.io/namespaces of the switch does not name it";
    stage.event("named", "SwitchNotAllowed", &[&namespace, "red", rule]).await;
    let nic = Nic::nad("second", "net1");
    stage.player.create_vm("attached", VmOptions::default().nic(nic)).await;
    stage.event("attached", "SwitchNotAllowed", &[&namespace, "red"]).await;
    // Its other NIC is served.
    stage.port("attached").await;
    assert_eq!(stage.northbound.port(&stage.name("named")), None);
    stage.state("red", "namespaces", &format!("another,{namespace}"));
    assert_eq!(stage.port("named").await.switches, ["red"]);
    let attached = format!("{}.net1.{namespace}.ovn", stage.name("attached"));
    let before = stage.port_named(&attached).await;
    // Closed again, the switch keeps its ports, also for a VM that starts, and takes no new one.
    stage.state("red", "namespaces", "another");
    stage.has_read("witness").await;
    stage.player.create_vm("late", VmOptions::default().annotation(SWITCH, "red")).await;
    stage.event("late", "SwitchNotAllowed", &[&namespace]).await;
    stage.player.start("attached", "n1").await;
    stage.port_where("attached", "is on n1", |port| port.option("requested-chassis") == Some("n1")).await;
    assert_eq!(stage.northbound.port(&attached).map(|port| port.addresses), Some(before.addresses));
}

#[tokio::test]
async fn a_flag_closes_a_switch_and_its_row_opens_it() {
    let stage = Stage::build("closed").flags(["--switch-namespaces", "ovn-default=a,b"]).start().await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    stage.event("testvm", "SwitchNotAllowed", &["ovn-default", "--switch-namespaces of ovn-kubevirt"]).await;
    stage.state("ovn-default", "namespaces", "*");
    stage.port("testvm").await;
    stage.state("ovn-default", "namespaces", "a b");
    stage.event("testvm", "SwitchSettingUnread", &["external_ids:ovn-kubevirt.io/namespaces", "\"a b\""]).await;
    assert_eq!(stage.northbound.ports().len(), 1);
}

#[tokio::test]
async fn a_gateways_address_is_refused_without_the_operators_word() {
    let config = [("subnet", "10.16.0.0/24"), ("exclude_ips", "10.16.0.5..10.16.0.9")];
    let mut stage = Stage::build("gateway").switch_with("ovn-default", &config).start().await;
    for (vm, address, word) in [("first", "10.16.0.1", "\"first\""), ("excluded", "10.16.0.5", "\"excluded\"")] {
        stage.player.create_vm(vm, at(address)).await;
        stage.event(vm, "RequestNotAllowed", &[address, "ovn-default", "--allow of ovn-kubevirt", word]).await;
        assert_eq!(stage.northbound.port(&stage.name(vm)), None);
    }
    stage.state("ovn-default", "allow", "explicit,excluded");
    let port = stage.port("excluded").await;
    assert!(port.addresses.iter().all(|text| text.ends_with(" 10.16.0.5")), "{port:#?}");
    // The lease stays through a withdrawal and a restart of the service.
    stage.state("ovn-default", "allow", "");
    stage.restart().await;
    stage.player.create_vm("named", at("10.16.0.77")).await;
    let rule = "external_ids:ovn-kubevirt.io/allow of the logical switch ovn-default does not have \"explicit\"";
    stage.event("named", "RequestNotAllowed", &["10.16.0.77", rule]).await;
    stage.player.start("excluded", "n1").await;
    let started = stage.port_where("excluded", "is on n1", |port| !port.options.is_empty()).await;
    assert_eq!(started.addresses, port.addresses);
}

#[tokio::test]
async fn a_namespace_has_as_many_ports_as_it_may_and_the_next_vm_is_served_when_one_goes() {
    let stage = Stage::build("quota").flags(["--max-nics", "2"]).start().await;
    stage.make("a").await;
    stage.make("b").await;
    stage.player.create_vm("c", VmOptions::default()).await;
    stage.event("c", "TooManyNics", &[&stage.namespace.name, "--max-nics of ovn-kubevirt allows (2)"]).await;
    assert_eq!(stage.northbound.port(&stage.name("c")), None);
    stage.player.delete_vm("a").await;
    stage.port("c").await;
    assert_eq!(stage.northbound.ports().len(), 2);
}

#[tokio::test]
async fn addresses_are_retained_for_the_operators_bound_at_most() {
    let mut stage = Stage::build("bound").flags(["--max-retain", "forever"]).start().await;
    let forever = || VmOptions::default().annotation("ovn-kubevirt.io/retain", "forever");
    stage.player.create_vm("before", forever()).await;
    stage.port("before").await;
    stage.player.delete_vm("before").await;
    let until = "ovn-kubevirt.io/retained-until";
    stage.port_where("before", "stays for ever", |port| port.external_id(until) == Some("forever")).await;
    stage.restart_with(|setup| setup.without_flags().flags(["--max-retain", "48h"])).await;
    stage.player.create_vm("after", forever()).await;
    stage.event("after", "RetainTooLong", &["\"forever\"", "--max-retain", "48h"]).await;
    stage.port_where("after", "is marked", |port| port.external_id("ovn-kubevirt.io/retain") == Some("48h")).await;
    stage.player.delete_vm("after").await;
    // The row of before has the whole bound from now on.
    for vm in ["before", "after"] {
        let dated = |text: &str| text.parse::<Timestamp>().is_ok();
        let port = stage.port_where(vm, "has an end", |port| port.external_id(until).is_some_and(dated)).await;
        let end: Timestamp = port.external_id(until).expect("a time").parse().expect("RFC 3339");
        let left = end.as_second() - Timestamp::now().as_second();
        assert!((48 * 3_600 - 300..=48 * 3_600 + 1).contains(&left), "{vm}: {left}");
    }
}

#[tokio::test]
async fn a_nic_on_a_nad_that_comes_later_has_no_port_until_then() {
    let stage = Stage::build("later").switch("red", "10.17.0.0/24").start().await;
    let options = VmOptions::default().nic(Nic::nad("second", "net1"));
    stage.player.create_vm("testvm", options.annotation("second.ovn.kubernetes.io/logical_switch", "red")).await;
    let nad = format!("{}/net1", stage.namespace.name);
    stage.event("testvm", "NadNotFound", &["network second", &nad]).await;
    stage.port("testvm").await;
    assert_eq!(stage.northbound.ports().len(), 1);
    stage.player.create_nad("net1", None).await;
    let name = format!("{}.net1.{}.ovn", stage.name("testvm"), stage.namespace.name);
    assert_eq!(stage.port_named(&name).await.switches, ["red"]);
    stage.player.delete_nad("net1").await;
    stage.player.start("testvm", "n1").await;
    let bound = |port: &crate::support::Port| port.option("requested-chassis") == Some("n1");
    stage.port_where("testvm", "is on n1", bound).await;
    assert!(stage.northbound.port(&name).is_some_and(|port| bound(&port)));
}
