//! `exclude_ips` and subnets that change while their addresses are in use.

use super::{IP_ADDRESS, lease, requesting};
use crate::support::{Stage, VmOptions};

#[tokio::test]
async fn kube_ovn_5522_an_edit_of_exclude_ips_hands_no_used_address_out_again() {
    let mut stage = Stage::build("excludes").start().await;
    let first = stage.create("a", VmOptions::default(), &["10.16.0.2"]).await;
    let second = stage.create("b", VmOptions::default(), &["10.16.0.3"]).await;
    stage.started("b", "n1").await;
    stage.create("named", requesting("10.16.0.5"), &["10.16.0.5"]).await;
    stage.configure("exclude_ips", "10.16.0.1..10.16.0.5");
    for (vm, address) in [("a", "10.16.0.2"), ("b", "10.16.0.3")] {
        stage.problem(vm, "AddressExcluded", &[address, "exclude_ips", "ovn-default"]).await;
    }
    stage.create("c", VmOptions::default(), &["10.16.0.6"]).await;
    // The owner requested the address.
    stage.no_problem("named").await;
    // Neither a restart of the service nor one of a VM takes the lease.
    stage.restart().await;
    stage.player.restart("b", "n2").await;
    let restarted = stage.port_where("b", "is on n2", |port| port.option("requested-chassis") == Some("n2")).await;
    assert_eq!(lease(&restarted), lease(&second));
    assert_eq!(stage.port("a").await, first);
    // Taken back, it makes only those addresses free that no port holds.
    stage.configure("exclude_ips", "10.16.0.1");
    stage.no_problem("a").await;
    stage.no_problem("b").await;
    stage.create("d", VmOptions::default(), &["10.16.0.4"]).await;
    stage.create("e", VmOptions::default(), &["10.16.0.7"]).await;
    // An address that is released while it is excluded is not allocated.
    stage.configure("exclude_ips", "10.16.0.1..10.16.0.2");
    stage.player.delete_vm("a").await;
    stage.port_gone("a").await;
    stage.create("f", VmOptions::default(), &["10.16.0.8"]).await;
}

#[tokio::test]
async fn a_subnet_that_grows_has_room_at_once_and_one_that_shrinks_takes_no_lease_away() {
    let mut stage = Stage::build("grows").switch_with("ovn-default", &[("subnet", "10.16.0.0/29")]).start().await;
    let mut leases = Vec::new();
    for host in 2..=6 {
        leases.push(stage.create(&format!("vm-{host}"), VmOptions::default(), &[&format!("10.16.0.{host}")]).await);
    }
    stage.player.create_vm("more", VmOptions::default()).await;
    stage.problem("more", "SubnetExhausted", &["10.16.0.0/29", "IPv4"]).await;
    stage.configure("subnet", "10.16.0.0/28");
    leases.push(stage.holding("more", &["10.16.0.7"]).await);
    stage.no_problem("more").await;

    stage.configure("subnet", "10.16.0.0/30");
    for (vm, address) in [("vm-3", "10.16.0.3"), ("vm-6", "10.16.0.6"), ("more", "10.16.0.7")] {
        stage.problem(vm, "AddressOutsideSubnet", &[address, "10.16.0.0/30"]).await;
    }
    stage.no_problem("vm-2").await;
    stage.player.create_vm("late", VmOptions::default()).await;
    stage.problem("late", "SubnetExhausted", &["10.16.0.0/30"]).await;
    stage.restart().await;
    stage.started("vm-6", "n1").await;
    stage.settled("sentinel").await;
    for before in &leases {
        let now = stage.northbound.port(&before.name).expect("the port");
        assert_eq!(lease(&now), lease(before));
    }
    // One that is inside goes: there is room for one, and for no more.
    stage.player.delete_vm("vm-2").await;
    stage.holding("late", &["10.16.0.2"]).await;
    stage.configure("subnet", "10.16.0.0/28");
    stage.no_problem("vm-3").await;
    stage.create("last", VmOptions::default(), &["10.16.0.8"]).await;
}

#[tokio::test]
async fn a_subnet_that_is_renumbered_under_live_ports_leaves_them_their_leases_until_they_are_given_others() {
    let mut stage = Stage::build("renumbered").start().await;
    let made = stage.create("a", VmOptions::default(), &["10.16.0.2"]).await;
    stage.create("b", VmOptions::default(), &["10.16.0.3"]).await;
    stage.started("a", "n1").await;
    stage.northbound.nbctl(&[
        "set",
        "Logical_Switch",
        "ovn-default",
        "other_config:subnet=10.99.0.0/24",
        "other_config:exclude_ips=10.99.0.1",
    ]);
    for (vm, address) in [("a", "10.16.0.2"), ("b", "10.16.0.3")] {
        stage.problem(vm, "AddressOutsideSubnet", &[address, "10.99.0.0/24"]).await;
    }
    stage.create("c", VmOptions::default(), &["10.99.0.2"]).await;
    stage.player.create_vm("old", requesting("10.16.0.50")).await;
    stage.problem("old", "InvalidRequest", &["10.16.0.50", "10.99.0.0/24"]).await;
    // Also over a restart of both.
    stage.restart().await;
    stage.player.restart("a", "n2").await;
    let restarted = stage.port_where("a", "is on n2", |port| port.option("requested-chassis") == Some("n2")).await;
    assert_eq!(lease(&restarted), lease(&made));
    // The instruction of the Event helps: a stopped VM at once, a running one at its next start.
    stage.player.edit_template_annotation("b", IP_ADDRESS, Some("10.99.0.50")).await;
    stage.holding("b", &["10.99.0.50"]).await;
    stage.no_problem("b").await;
    stage.player.edit_template_annotation("a", IP_ADDRESS, Some("10.99.0.51")).await;
    stage.event("a", "AddressReserved", &["10.99.0.51"]).await;
    stage.player.restart("a", "n1").await;
    let moved = stage.holding("a", &["10.99.0.51"]).await;
    assert_eq!(moved.uuid, made.uuid);
    stage.no_problem("a").await;
}

#[tokio::test]
async fn of_several_router_networks_on_one_switch_each_is_used_and_its_own_ends_are_not() {
    let stage = Stage::build("routed").switch_with("ovn-default", &[]).every_address().start().await;
    stage.player.create_vm("early", VmOptions::default()).await;
    stage.problem("early", "SubnetMissing", &["ovn-default", "other_config:subnet"]).await;
    // The broadcast address of the first, 10.30.0.3, lies in the second.
    stage.northbound.add_router_port("ovn-default", &["10.30.0.1/30", "10.30.0.5/29"]);
    stage.holding("early", &["10.30.0.2"]).await;
    for (vm, address) in [("a", "10.30.0.4"), ("b", "10.30.0.6")] {
        stage.player.create_vm(vm, VmOptions::default()).await;
        stage.holding(vm, &[address]).await;
    }
    stage.player.create_vm("more", VmOptions::default()).await;
    stage.problem("more", "SubnetExhausted", &["10.30.0.0/30", "10.30.0.0/29"]).await;
    // A request for it is granted: it is the second network's.
    stage.create("named", requesting("10.30.0.3"), &["10.30.0.3"]).await;
}
