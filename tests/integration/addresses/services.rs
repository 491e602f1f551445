//! Addresses that routers and switches answer for by themselves: NAT rules and load balancers.

use super::{lease, requesting};
use crate::support::stage::Builder;
use crate::support::{Northbound, Stage, VmOptions};

const ROUTER: &str = "ovn-default-router";

/// Each way to answer for an address on the switch, and its name.
const WAYS: [(Way, &str); 5] = [
    (Way::Nat, "a NAT rule of the logical router ovn-default-router"),
    (Way::OnSwitch, "the load balancer on-switch"),
    (Way::OnRouter, "the load balancer on-router"),
    (Way::GroupOnSwitch, "the load balancer group-on-switch"),
    (Way::GroupOnRouter, "the load balancer group-on-router"),
];

#[derive(Debug, Clone, Copy)]
enum Way {
    Nat,
    OnSwitch,
    OnRouter,
    GroupOnSwitch,
    GroupOnRouter,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::OnSwitch => "on-switch",
            Self::OnRouter => "on-router",
            Self::GroupOnSwitch => "group-on-switch",
            Self::GroupOnRouter => "group-on-router",
        }
    }

    fn add(self, northbound: &Northbound, address: &str) {
        let name = self.name();
        if !matches!(self, Self::Nat) {
            northbound.nbctl(&["lb-add", name, &format!("{address}:80"), "10.200.0.1:80,10.200.0.2:80"]);
        }
        match self {
            Self::Nat => northbound.nbctl(&["lr-nat-add", ROUTER, "dnat_and_snat", address, "10.200.0.1"]),
            Self::OnSwitch => northbound.nbctl(&["ls-lb-add", "ovn-default", name]),
            Self::OnRouter => northbound.nbctl(&["lr-lb-add", ROUTER, name]),
            Self::GroupOnSwitch => refer(northbound, name, ["Logical_Switch", "ovn-default"]),
            Self::GroupOnRouter => refer(northbound, name, ["Logical_Router", ROUTER]),
        };
    }

    fn remove(self, northbound: &Northbound, address: &str) {
        match self {
            Self::Nat => northbound.nbctl(&["lr-nat-del", ROUTER, "dnat_and_snat", address]),
            Self::OnSwitch => northbound.nbctl(&["ls-lb-del", "ovn-default", self.name()]),
            Self::OnRouter => northbound.nbctl(&["lr-lb-del", ROUTER, self.name()]),
            // The group lets go of it, and stays.
            Self::GroupOnSwitch => northbound.nbctl(&["clear", "Load_Balancer_Group", self.name(), "load_balancer"]),
            // It goes with all that refers to it.
            Self::GroupOnRouter => northbound.nbctl(&["lb-del", self.name()]),
        };
    }
}

/// A group of one load balancer, to which a switch or a router refers.
fn refer(northbound: &Northbound, name: &str, [table, row]: [&str; 2]) -> String {
    let balancer = northbound.nbctl(&["--bare", "--columns=_uuid", "find", "Load_Balancer", &format!("name={name}")]);
    let members = format!("load_balancer={}", balancer.trim());
    let group = northbound.nbctl(&["create", "Load_Balancer_Group", &format!("name={name}"), &members]);
    northbound.nbctl(&["add", table, row, "load_balancer_group", group.trim()])
}

fn build(name: &str) -> Builder<'static> {
    Stage::build(name)
        .switch("ovn-default", "10.16.0.0/24")
        .router("ovn-default", &["10.16.0.1/24"])
        // Its router is not connected to the VMs' switch.
        .switch("elsewhere", "10.16.0.0/24")
        .router("elsewhere", &["10.16.0.1/24"])
}

#[tokio::test]
async fn an_address_of_a_nat_rule_or_a_load_balancer_is_never_allocated_and_a_request_for_it_waits_until_it_goes() {
    let stage = build("services").start().await;
    let northbound = &stage.northbound;
    let address = |index: usize| format!("10.16.0.{}", index + 2);
    for (index, (way, _)) in WAYS.iter().enumerate() {
        way.add(northbound, &address(index));
    }
    northbound.nbctl(&["lr-nat-add", "elsewhere-router", "dnat_and_snat", "10.16.0.7", "10.200.0.1"]);
    northbound.nbctl(&["lb-add", "of-elsewhere", "10.16.0.8:80", "10.200.0.1:80"]);
    northbound.nbctl(&["lr-lb-add", "elsewhere-router", "of-elsewhere"]);
    stage.create("chosen", VmOptions::default(), &["10.16.0.9"]).await;
    for (index, (way, holder)) in WAYS.iter().enumerate() {
        stage.player.create_vm(way.name(), requesting(&address(index))).await;
        stage.problem(way.name(), "AddressConflict", &[&address(index), holder, "ovn-default"]).await;
        assert_eq!(northbound.port(&stage.name(way.name())), None);
    }
    // The addresses of another switch's router can be requested here.
    stage.create("elsewhere", requesting("10.16.0.7"), &["10.16.0.7"]).await;
    stage.create("elsewhere-too", requesting("10.16.0.8"), &["10.16.0.8"]).await;
    stage.no_problem("elsewhere").await;
    for (index, (way, _)) in WAYS.iter().enumerate() {
        way.remove(northbound, &address(index));
        stage.holding(way.name(), &[&address(index)]).await;
        stage.no_problem(way.name()).await;
    }
}

#[tokio::test]
async fn a_nat_rule_or_load_balancer_that_comes_after_a_lease_leaves_it_and_is_in_the_status_until_it_goes() {
    let mut stage = build("services-after").start().await;
    let made = stage.create("testvm", VmOptions::default(), &["10.16.0.2"]).await;
    for (way, holder) in WAYS {
        way.add(&stage.northbound, "10.16.0.2");
        stage.problem("testvm", "AddressConflict", &["10.16.0.2", holder, "keeps"]).await;
        if matches!(way, Way::GroupOnSwitch) {
            stage.restart().await;
        }
        way.remove(&stage.northbound, "10.16.0.2");
        stage.no_problem("testvm").await;
    }
    // A rule of an unconnected router is not reported.
    let events = stage.namespace.events("testvm").await;
    stage.northbound.nbctl(&["lr-nat-add", "elsewhere-router", "dnat_and_snat", "10.16.0.2", "10.200.0.1"]);
    stage.settled("sentinel").await;
    assert_eq!(stage.namespace.events("testvm").await, events);
    // Until that one is connected to its switch.
    stage.northbound.nbctl(&["lrp-add", "elsewhere-router", "second", "0e:00:00:00:00:02", "10.16.0.99/24"]);
    stage.northbound.nbctl(&[
        "lsp-add",
        "ovn-default",
        "to-second",
        "--",
        "lsp-set-type",
        "to-second",
        "router",
        "--",
        "lsp-set-addresses",
        "to-second",
        "router",
        "--",
        "lsp-set-options",
        "to-second",
        "router-port=second",
    ]);
    stage.problem("testvm", "AddressConflict", &["a NAT rule of the logical router elsewhere-router"]).await;
    assert_eq!(lease(&stage.port("testvm").await), lease(&made));
}
