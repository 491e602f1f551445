//! Bugs that users of other controllers reported, one test each, with the issue in its name. Elsewhere are `kube_ovn_5522`
//! (`exclusions.rs`), `harvester_4474` (`identity.rs`), the full subnet (`rest.rs`), and `kube_ovn_5933`, `_6762` and
//! `_5848` (`nics/requests.rs`).

use std::time::Duration;

use super::{IP_ADDRESS, ips_of, lease, requesting};
use crate::support::{Nic, Stage, VmOptions, holds_for};

/// A running VM with a NIC on the NAD `net1`, stopped, and its port as it was before.
async fn stopped_on_a_nad(stage: &Stage, nics: Vec<Nic>, port_name: &str) -> crate::support::Port {
    stage.northbound.add_switch("red", &[("subnet", "10.17.0.0/24")]);
    stage.player.create_nad("net1", Some("red")).await;
    stage.player.create_vm("testvm", VmOptions::default().nics(nics)).await;
    stage.player.start("testvm", "n1").await;
    let bound = |port: &crate::support::Port| port.option("requested-chassis") == Some("n1");
    let made = crate::support::eventually("the port is on n1", || async {
        stage.northbound.port(port_name).filter(bound).ok_or_else(|| stage.northbound.dump())
    })
    .await;
    stage.player.stop("testvm").await;
    made
}

/// The port stays as it was, over restarts of the service, in whatever order it decides VMs when it starts.
async fn stays_over_restarts(stage: &mut Stage, made: &crate::support::Port) {
    for _ in 0..2 {
        stage.restart().await;
        let sentinel = format!("sentinel-{}", uuid::Uuid::new_v4().simple());
        stage.settled(&sentinel).await;
        let northbound = &stage.northbound;
        holds_for("the stopped VM's port stays", Duration::from_millis(300), || async {
            match northbound.port(&made.name) {
                Some(port) if lease(&port) == lease(made) => Ok(()),
                other => Err(format!("{other:#?}")),
            }
        })
        .await;
    }
}

/// A garbage collector did not know a stopped VM with a NAD in the place of the pod network as its only network.
#[tokio::test]
async fn kube_ovn_5556_the_port_of_a_stopped_vm_on_a_nad_in_the_pod_networks_place_is_not_collected() {
    let mut stage = Stage::build("ko-5556").start().await;
    let (nad, name) = (format!("{}/net1", stage.namespace.name), stage.namespace.name.clone());
    let port_name = format!("testvm.{name}.net1.{name}.ovn");
    let made = stopped_on_a_nad(&stage, vec![Nic::default_nad("default", &nad)], &port_name).await;
    stays_over_restarts(&mut stage, &made).await;
    stage.player.start("testvm", "n2").await;
    let again = crate::support::eventually("the port is on n2", || async {
        let port = stage.northbound.port(&port_name);
        port.filter(|port| port.option("requested-chassis") == Some("n2")).ok_or("not yet")
    })
    .await;
    assert_eq!(lease(&again), lease(&made));
}

/// The garbage collector took a stopped VM's port and address.
#[tokio::test]
async fn kube_ovn_2916_the_port_of_a_vm_that_was_stopped_while_the_service_was_down_is_not_collected() {
    let mut stage = Stage::build("ko-2916").start().await;
    stage.create("testvm", VmOptions::default(), &["10.16.0.2"]).await;
    let made = stage.started("testvm", "n1").await;
    stage.service.kill9();
    stage.player.stop("testvm").await;
    stage.restart().await;
    stage.port_where("testvm", "is not bound", |port| port.options.is_empty()).await;
    stays_over_restarts(&mut stage, &made).await;
    stage.player.edit_template_annotation("testvm", "anything", Some("else")).await;
    stage.player.start("testvm", "n2").await;
    let again = stage.port_where("testvm", "is on n2", |port| port.option("requested-chassis") == Some("n2")).await;
    assert_eq!(lease(&again), lease(&made));
}

/// Collecting the port of a second NIC freed the first one's address, too, which a pod then got.
#[tokio::test]
async fn kube_ovn_2486_the_addresses_of_a_stopped_vm_with_several_nics_stay_its_own() {
    let mut stage = Stage::build("ko-2486").start().await;
    let first = stage.name("testvm");
    let nics = vec![Nic::pod("default"), Nic::nad("second", "net1")];
    let made = stopped_on_a_nad(&stage, nics, &first).await;
    // The second NIC is removed, and the first keeps its lease.
    stage
        .player
        .edit_vm("testvm", |vm| {
            let spec = &mut vm["spec"]["template"]["spec"];
            for list in ["/networks", "/domain/devices/interfaces"] {
                spec.pointer_mut(list).and_then(|list| list.as_array_mut()).expect("a list").pop();
            }
        })
        .await;
    stage.event("testvm", "PortReleased", &["network second"]).await;
    stays_over_restarts(&mut stage, &made).await;
    for (vm, address) in [("a", "10.16.0.3"), ("b", "10.16.0.4")] {
        stage.create(vm, VmOptions::default(), &[address]).await;
    }
    stage.player.create_vm("rival", requesting("10.16.0.2")).await;
    stage.refused("rival", "10.16.0.2", &stage.vm("testvm")).await;
}

/// Days after a VM was made, its address was given to a pod of its subnet.
#[tokio::test]
async fn kube_ovn_2344_the_address_of_a_vm_is_never_allocated_again_however_often_the_service_restarts() {
    let mut stage = Stage::build("ko-2344").switch_with("ovn-default", &[("subnet", "10.16.0.0/29")]).start().await;
    let made = stage.create("testvm", VmOptions::default(), &["10.16.0.2"]).await;
    for round in 0..4 {
        stage.restart().await;
        let vm = format!("pod-{round}");
        stage.create(&vm, VmOptions::default(), &[&format!("10.16.0.{}", round + 3)]).await;
    }
    stage.player.create_vm("one-too-many", VmOptions::default()).await;
    stage.problem("one-too-many", "SubnetExhausted", &["10.16.0.0/29"]).await;
    assert_eq!(stage.port("testvm").await, made);
}

/// A VM that was stopped first and deleted then kept its address for ever.
#[tokio::test]
async fn kube_ovn_5367_a_vm_that_is_stopped_and_then_deleted_leaks_no_address() {
    let mut stage = Stage::build("ko-5367")
        .switch_with("ovn-default", &[("subnet", "10.16.0.0/29"), ("exclude_ips", "10.16.0.4..10.16.0.6")])
        .start()
        .await;
    let empty = stage.northbound.dump();
    for (round, by_the_watch) in [true, false, true].into_iter().enumerate() {
        let names = [format!("a-{round}"), format!("b-{round}")];
        for vm in &names {
            stage.player.create_vm(vm, VmOptions::default()).await;
            stage.port(vm).await;
            stage.started(vm, "n1").await;
            stage.player.stop(vm).await;
            stage.port_where(vm, "is not bound", |port| port.options.is_empty()).await;
        }
        if !by_the_watch {
            stage.service.kill9();
        }
        for vm in &names {
            stage.player.delete_vm(vm).await;
        }
        if !by_the_watch {
            stage.restart().await;
        }
        // Both addresses of the subnet are there for the next two.
        for vm in &names {
            stage.port_gone(vm).await;
        }
        assert_eq!(stage.northbound.dump(), empty);
    }
}

/// After another address was asked for, the old one was never released.
#[tokio::test]
async fn kube_ovn_5654_an_address_that_an_edit_replaced_is_released_for_another_vm() {
    let stage = Stage::build("ko-5654").start().await;
    stage.create("first", requesting("10.16.0.10"), &["10.16.0.10"]).await;
    stage.started("first", "n1").await;
    stage.player.edit_template_annotation("first", IP_ADDRESS, Some("10.16.0.20")).await;
    stage.event("first", "AddressReserved", &["10.16.0.20"]).await;
    stage.player.restart("first", "n1").await;
    stage.holding("first", &["10.16.0.20"]).await;
    stage.create("second", requesting("10.16.0.10"), &["10.16.0.10"]).await;
    // There and back, each has the other's address.
    stage.player.edit_template_annotation("second", IP_ADDRESS, Some("10.16.0.30")).await;
    stage.holding("second", &["10.16.0.30"]).await;
    stage.player.edit_template_annotation("first", IP_ADDRESS, Some("10.16.0.10")).await;
    stage.event("first", "AddressReserved", &["10.16.0.10"]).await;
    stage.player.restart("first", "n1").await;
    stage.holding("first", &["10.16.0.10"]).await;
    stage.player.edit_template_annotation("second", IP_ADDRESS, Some("10.16.0.20")).await;
    stage.holding("second", &["10.16.0.20"]).await;
    assert_eq!(stage.northbound.ports().len(), 2);
}

/// A VM that was deleted while the controller was down kept its port for a while, and its address was given again.
#[tokio::test]
async fn kube_ovn_4304_vms_that_are_deleted_and_made_while_the_service_is_down_have_no_address_twice() {
    let mut stage = Stage::build("ko-4304").start().await;
    stage.create("static", requesting("10.16.0.10"), &["10.16.0.10"]).await;
    let stays = stage.create("stays", VmOptions::default(), &["10.16.0.2"]).await;
    stage.create("chosen", VmOptions::default(), &["10.16.0.3"]).await;
    stage.service.kill9();
    stage.player.delete_vm("static").await;
    stage.player.delete_vm("chosen").await;
    stage.player.create_vm("heir", requesting("10.16.0.10")).await;
    for vm in ["a", "b", "c"] {
        stage.player.create_vm(vm, VmOptions::default()).await;
    }
    stage.restart().await;
    stage.port_gone("static").await;
    stage.port_gone("chosen").await;
    stage.holding("heir", &["10.16.0.10"]).await;
    let mut held = vec![stage.port("stays").await, stage.port("heir").await];
    for vm in ["a", "b", "c"] {
        held.push(stage.port(vm).await);
    }
    assert_eq!(held[0], stays);
    let all: std::collections::BTreeSet<&str> = held.iter().flat_map(ips_of).collect();
    assert_eq!(all.len(), held.len(), "{held:#?}");
}
