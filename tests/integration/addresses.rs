//! The sources of addresses, and the addresses of others that are not allocated.

mod edits;
mod exclusions;
mod foreign;
mod histories;
mod identity;
mod northd;
mod pools;
mod reading;
mod rest;
mod retention;
mod services;
mod upstream;

use serde_json::Value;

use crate::support::stage::SUBNET;
use crate::support::{Port, Stage, VmOptions, eventually};

const IP_ADDRESS: &str = "ovn.kubernetes.io/ip_address";
const IP_POOL: &str = "ovn.kubernetes.io/ip_pool";
const NEXT: &str = "ovn-kubevirt.io/next-addresses";

/// A VM that requests this address.
fn requesting(address: &str) -> VmOptions {
    VmOptions::default().annotation(IP_ADDRESS, address)
}

/// A VM that requests an address of this pool.
fn from_pool(pool: &str) -> VmOptions {
    VmOptions::default().annotation(IP_POOL, pool)
}

/// The addresses of a port, without the MAC.
fn ips_of(port: &Port) -> Vec<&str> {
    assert!(port.port_security.is_empty() || port.port_security == port.addresses, "{port:#?}");
    port.addresses.iter().flat_map(|text| text.split(' ').skip(1)).collect()
}

/// The identity of a lease: its row, and its addresses and MAC.
fn lease(port: &Port) -> (&str, &str, Vec<&str>) {
    (&port.uuid, &port.name, port.addresses.iter().map(String::as_str).collect())
}

impl Stage {
    /// The VM as Events name it.
    fn vm(&self, vm: &str) -> String {
        format!("{}/{vm}", self.namespace.name)
    }

    /// Makes a VM, and waits until its port holds just these.
    async fn create(&self, vm: &str, options: VmOptions, expected: &[&str]) -> Port {
        self.player.create_vm(vm, options).await;
        let port = self.port(vm).await;
        assert_eq!(ips_of(&port), expected, "{vm}\n{}", self.northbound.dump());
        port
    }

    /// Waits until the VM's port holds just these.
    async fn holding(&self, vm: &str, expected: &[&str]) -> Port {
        self.port_where(vm, &format!("holds {expected:?}"), |port| ips_of(port) == expected).await
    }

    /// Starts the VM, and waits until its port is bound.
    async fn started(&self, vm: &str, node: &str) -> Port {
        self.player.start(vm, node).await;
        self.port_where(vm, "is bound", |port| port.option("requested-chassis") == Some(node)).await
    }

    /// Waits until the VM's status has a problem with this reason and these words, and an Event does.
    async fn problem(&self, vm: &str, reason: &str, words: &[&str]) {
        self.event(vm, reason, words).await;
        let fits = |problem: &Value| {
            let message = problem["message"].as_str().unwrap_or_default();
            problem["reason"] == reason && words.iter().all(|word| message.contains(word))
        };
        self.problems(vm, &format!("{reason} with {words:?}"), |problems| problems.iter().any(fits)).await;
    }

    /// Waits until the VM's status says that another holds the address that it requests, and which: it has no port.
    async fn refused(&self, vm: &str, address: &str, holder: &str) {
        self.problem(vm, "AddressConflict", &[address, holder, "granted as soon as it is free"]).await;
        assert_eq!(self.northbound.port(&self.name(vm)), None);
    }

    /// Waits until the VM's status has its port and no problem.
    async fn no_problem(&self, vm: &str) {
        self.problems(vm, "no problem", <[Value]>::is_empty).await;
    }

    async fn problems(&self, vm: &str, what: &str, hold: impl Fn(&[Value]) -> bool) {
        let of = |port: &Value| port["problems"].as_array().cloned().unwrap_or_default();
        let holds = |_: &str, status: &Value| {
            let problems: Vec<Value> = status["ports"].as_array().into_iter().flatten().flat_map(of).collect();
            hold(&problems)
        };
        self.status_where(vm, what, holds).await;
    }

    /// Sets a key of the default switch's `other_config`.
    fn configure(&self, key: &str, value: &str) {
        self.northbound.nbctl(&["set", "Logical_Switch", "ovn-default", &format!("other_config:{key}=\"{value}\"")]);
    }

    /// Waits until the service has decided all that came before: a VM that comes now is served after it.
    async fn settled(&self, sentinel: &str) {
        self.player.apply_vm(sentinel, VmOptions::default().annotation(SWITCH, "nowhere")).await;
        self.event(sentinel, "SwitchNotFound", &["nowhere"]).await;
    }
}

const SWITCH: &str = "ovn.kubernetes.io/logical_switch";

/// The addresses of the VM's port, without the MAC.
async fn ips(stage: &Stage, vm: &str, options: VmOptions) -> Vec<String> {
    stage.player.create_vm(vm, options).await;
    let port = stage.port(vm).await;
    assert_eq!(port.addresses, port.port_security);
    let text = port.addresses.into_iter().next().expect("an address");
    text.split(' ').skip(1).map(ToOwned::to_owned).collect()
}

/// Waits until the service has seen all earlier transactions: it repairs this VM's port, which is
/// overwritten after that. A VM comes by the API server, and may be there sooner than an update of the database.
async fn has_seen(stage: &Stage, vm: &str) {
    let port = stage.port(vm).await;
    stage.northbound.nbctl(&["lsp-set-addresses", &port.name, "unknown"]);
    stage.port_where(vm, "has its addresses back", |now| now.addresses == port.addresses).await;
}

#[tokio::test]
async fn excluded_addresses_are_not_allocated_and_may_be_requested_where_the_operator_allows_it() {
    let config = [("subnet", "10.20.0.0/24"), ("exclude_ips", "10.20.0.1..10.20.0.9 10.20.0.11")];
    let stage = Stage::build("excluded").switch_with("ovn-default", &config).every_address().start().await;
    assert_eq!(ips(&stage, "a", VmOptions::default()).await, ["10.20.0.10"]);
    assert_eq!(ips(&stage, "b", VmOptions::default()).await, ["10.20.0.12"]);
    let request = VmOptions::default().annotation(IP_ADDRESS, "10.20.0.5");
    assert_eq!(ips(&stage, "c", request).await, ["10.20.0.5"]);
}

#[tokio::test]
async fn an_ipv6_switch_gives_ipv6_addresses() {
    let stage = Stage::build("v6").switch_with("ovn-default", &[("ipv6_prefix", "fd00:10:16::")]).start().await;
    assert_eq!(ips(&stage, "a", VmOptions::default()).await, ["fd00:10:16::2"]);
    let request = VmOptions::default().annotation(IP_ADDRESS, "fd00:10:16::15");
    assert_eq!(ips(&stage, "b", request).await, ["fd00:10:16::15"]);
}

#[tokio::test]
async fn a_dual_stack_switch_gives_both_families_and_allocates_the_one_that_is_not_requested() {
    let mut config = SUBNET.to_vec();
    config.push(("ipv6_prefix", "fd00:10:16::"));
    let stage = Stage::build("dual").switch_with("ovn-default", &config).start().await;
    assert_eq!(ips(&stage, "a", VmOptions::default()).await, ["10.16.0.2", "fd00:10:16::2"]);
    let both = VmOptions::default().annotation(IP_ADDRESS, "10.16.0.15,fd00:10:16::15");
    assert_eq!(ips(&stage, "b", both).await, ["10.16.0.15", "fd00:10:16::15"]);
    let one = VmOptions::default().annotation(IP_ADDRESS, "fd00:10:16::3");
    assert_eq!(ips(&stage, "c", one).await, ["10.16.0.3", "fd00:10:16::3"]);
}

#[tokio::test]
async fn a_router_port_gives_the_subnet_and_keeps_its_own_address() {
    let stage = Stage::build("router")
        .switch_with("ovn-default", &[])
        .router("ovn-default", &["10.30.0.1/24", "fd00:30::1/64"])
        .start()
        .await;
    assert_eq!(ips(&stage, "a", VmOptions::default()).await, ["10.30.0.2", "fd00:30::2"]);
}

#[tokio::test]
async fn the_addresses_of_other_ports_are_never_allocated() {
    let prepared = Stage::build("held")
        .switch("ovn-default", "10.16.0.0/24")
        .router("ovn-default", &["10.16.0.1/24"])
        .prepare()
        .await;
    let northbound = &prepared.northbound;
    northbound.add_foreign_port("ovn-default", "static", &["0a:00:00:00:00:01 10.16.0.2 10.16.0.3"]);
    northbound.add_foreign_port(
        "ovn-default",
        "several",
        &["0a:00:00:00:00:02 10.16.0.4", "0a:00:00:00:00:03 10.16.0.5"],
    );
    northbound.nbctl(&["lsp-add", "ovn-default", "vip"]);
    northbound.nbctl(&["lsp-set-type", "vip", "virtual"]);
    northbound.nbctl(&["lsp-set-options", "vip", "virtual-ip=10.16.0.6", "virtual-parents=static"]);
    let stage = prepared.start().await;
    assert_eq!(ips(&stage, "a", VmOptions::default()).await, ["10.16.0.7"]);
    // Also rows from after the start of the service.
    stage.northbound.add_foreign_port("ovn-default", "later", &["0a:00:00:00:00:04 10.16.0.8"]);
    has_seen(&stage, "a").await;
    assert_eq!(ips(&stage, "b", VmOptions::default()).await, ["10.16.0.9"]);
    // And a released address is the lowest again.
    stage.northbound.delete_port("several");
    has_seen(&stage, "a").await;
    assert_eq!(ips(&stage, "c", VmOptions::default()).await, ["10.16.0.4"]);
}

#[tokio::test]
async fn the_address_that_northd_gave_to_a_dynamic_port_is_held() {
    let prepared = Stage::build("dynamic").switch("ovn-default", "10.16.0.0/24").northd().prepare().await;
    prepared.northbound.add_foreign_port("ovn-default", "dynamic", &["dynamic"]);
    let given = eventually("northd gives an address", || async {
        let port = prepared.northbound.port("dynamic").expect("the port");
        port.dynamic_addresses.clone().ok_or(format!("{port:#?}"))
    })
    .await;
    assert!(given.ends_with(" 10.16.0.2"), "{given}");
    let stage = prepared.start().await;
    let request = VmOptions::default().annotation(IP_ADDRESS, "10.16.0.2");
    stage.player.create_vm("a", request).await;
    stage.event("a", "AddressConflict", &["10.16.0.2", "dynamic"]).await;
}

#[tokio::test]
async fn the_switch_comes_from_the_vm_or_its_namespace_or_the_default() {
    let stage = Stage::build("switch").switch("team", "10.40.0.0/24").switch("own", "10.50.0.0/24").start().await;
    assert_eq!(ips(&stage, "a", VmOptions::default()).await, ["10.16.0.2"]);
    stage.namespace.annotate("ovn.kubernetes.io/logical_switch", Some("team")).await;
    // The namespace and the VM come by different watches: a VM on the default switch may come first.
    let b = eventually("a VM is made on the namespace's switch", || async {
        let name = format!("b-{}", uuid::Uuid::new_v4().simple());
        let got = ips(&stage, &name, VmOptions::default()).await;
        if got[0].starts_with("10.40.") { Ok(got) } else { Err(format!("{got:?}")) }
    })
    .await;
    assert_eq!(b, ["10.40.0.2"]);
    let own = VmOptions::default().annotation("ovn.kubernetes.io/logical_switch", "own");
    assert_eq!(ips(&stage, "c", own).await, ["10.50.0.2"]);
    // A VM that has its lease does not follow the namespace.
    assert_eq!(stage.port("a").await.switches, ["ovn-default"]);
}

#[tokio::test]
async fn a_given_mac_is_the_ports() {
    let stage = Stage::build("mac").start().await;
    stage.player.create_vm("a", VmOptions::default().mac("02:00:00:00:00:01")).await;
    assert!(stage.port("a").await.addresses.contains("02:00:00:00:00:01 10.16.0.2"));
    stage.player.create_vm("b", VmOptions::default().mac("02:00:00:00:00:01")).await;
    let vm = format!("{}/a", stage.namespace.name);
    stage.event("b", "AddressConflict", &["02:00:00:00:00:01", &vm]).await;
    stage.player.delete_vm("a").await;
    // The address rests, the MAC does not.
    assert!(stage.port("b").await.addresses.contains("02:00:00:00:00:01 10.16.0.3"));
}

#[tokio::test]
async fn nics_that_are_not_ours_are_left_alone() {
    use crate::support::Nic;
    let stage = Stage::build("foreign-nics").start().await;
    stage.player.create_vm("macvlan", VmOptions::default().nics([Nic::nad("red", "net1")])).await;
    let none = VmOptions::default().without_networks().autoattach_pod_interface(false);
    stage.player.create_vm("none", none).await;
    stage.player.create_vm("plain", VmOptions::default().without_networks()).await;
    let both = VmOptions::default().nics([Nic::nad("red", "net1"), Nic::pod("mgmt")]);
    stage.player.create_vm("both", both).await;
    let plain = stage.port("plain").await;
    assert_eq!(plain.external_id("ovn-kubevirt.io/network"), Some("default"));
    assert_eq!(stage.port("both").await.external_id("ovn-kubevirt.io/network"), Some("mgmt"));
    assert_eq!(stage.northbound.ports().len(), 2, "{}", stage.northbound.dump());
    assert_eq!(stage.namespace.events("macvlan").await, []);
    assert_eq!(stage.namespace.events("none").await, []);
}
