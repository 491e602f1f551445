//! Requests that change while a VM runs, and while it is stopped.

use super::{IP_ADDRESS, IP_POOL, NEXT, SWITCH, from_pool, ips_of, requesting};
use crate::support::{Northbound, Stage, VmOptions, eventually};

#[tokio::test]
async fn a_new_pool_on_a_running_vm_reserves_an_address_at_once_which_the_next_start_applies() {
    let stage = Stage::build("pool-edit").start().await;
    let made = stage.create("testvm", VmOptions::default(), &["10.16.0.2"]).await;
    stage.started("testvm", "n1").await;
    stage.player.edit_template_annotation("testvm", IP_POOL, Some("10.16.0.40..10.16.0.41")).await;
    let reserved = stage.port_where("testvm", "has a reservation", |port| port.external_id(NEXT).is_some()).await;
    assert_eq!(reserved.external_id(NEXT), Some("0a:58:0a:10:00:02 10.16.0.40"));
    assert_eq!(ips_of(&reserved), ["10.16.0.2"]);
    stage.event("testvm", "AddressReserved", &["10.16.0.40", "next start", "10.16.0.2"]).await;
    // Both are the VM's now: no other VM gets either.
    let holder = stage.vm("testvm");
    for (vm, address) in [("next", "10.16.0.40"), ("present", "10.16.0.2")] {
        stage.player.create_vm(vm, requesting(address)).await;
        stage.refused(vm, address, &holder).await;
    }
    stage.create("neighbour", from_pool("10.16.0.40..10.16.0.41"), &["10.16.0.41"]).await;

    stage.player.restart("testvm", "n1").await;
    let restarted = stage.holding("testvm", &["10.16.0.40"]).await;
    assert_eq!((&restarted.uuid, restarted.external_id(NEXT)), (&made.uuid, None));
    // The old one is free: the VM that waits for it has it.
    stage.holding("present", &["10.16.0.2"]).await;
    assert_eq!(stage.northbound.port(&stage.name("next")), None);
}

#[tokio::test]
async fn a_request_that_is_changed_or_withdrawn_before_the_next_start_releases_the_reservation() {
    let stage = Stage::build("withdrawn").start().await;
    let made = stage.create("testvm", VmOptions::default(), &["10.16.0.2"]).await;
    stage.started("testvm", "n1").await;
    let edit = async |address| stage.player.edit_template_annotation("testvm", IP_ADDRESS, address).await;
    let reserved = async |address: &str| {
        stage
            .port_where("testvm", address, |port| port.external_id(NEXT).is_some_and(|next| next.ends_with(address)))
            .await
    };
    edit(Some("10.16.0.15")).await;
    reserved(" 10.16.0.15").await;
    stage.player.create_vm("first", requesting("10.16.0.15")).await;
    stage.refused("first", "10.16.0.15", &stage.vm("testvm")).await;
    edit(Some("10.16.0.16")).await;
    reserved(" 10.16.0.16").await;
    stage.holding("first", &["10.16.0.15"]).await;
    stage.player.create_vm("second", requesting("10.16.0.16")).await;
    stage.refused("second", "10.16.0.16", &stage.vm("testvm")).await;
    edit(None).await;
    stage.holding("second", &["10.16.0.16"]).await;
    stage.player.restart("testvm", "n2").await;
    let restarted = stage.port_where("testvm", "is on n2", |port| port.option("requested-chassis") == Some("n2")).await;
    assert_eq!((ips_of(&restarted), restarted.external_id(NEXT)), (vec!["10.16.0.2"], None));
    assert_eq!(restarted.uuid, made.uuid);
}

#[tokio::test]
async fn on_a_stopped_vm_a_new_address_or_pool_applies_at_once_and_frees_the_old() {
    let stage = Stage::build("stopped-edit").start().await;
    let made = stage.create("testvm", VmOptions::default(), &["10.16.0.2"]).await;
    stage.started("testvm", "n1").await;
    stage.player.stop("testvm").await;
    stage.port_where("testvm", "is not bound", |port| port.options.is_empty()).await;
    stage.player.create_vm("waits", requesting("10.16.0.2")).await;
    stage.refused("waits", "10.16.0.2", &stage.vm("testvm")).await;
    stage.player.edit_template_annotation("testvm", IP_ADDRESS, Some("10.16.0.15")).await;
    let moved = stage.holding("testvm", &["10.16.0.15"]).await;
    assert_eq!((&moved.uuid, moved.external_id(NEXT)), (&made.uuid, None));
    stage.holding("waits", &["10.16.0.2"]).await;
    // A pool that contains the lease keeps it, and another pool moves it.
    stage.player.edit_template_annotation("testvm", IP_ADDRESS, None).await;
    stage.player.edit_template_annotation("testvm", IP_POOL, Some("10.16.0.10..10.16.0.20")).await;
    stage.settled("sentinel").await;
    assert_eq!(ips_of(&stage.port("testvm").await), ["10.16.0.15"]);
    stage.player.edit_template_annotation("testvm", IP_POOL, Some("10.16.0.30..10.16.0.40")).await;
    let moved = stage.holding("testvm", &["10.16.0.30"]).await;
    assert_eq!(moved.uuid, made.uuid);
    // One that cannot be had leaves the lease where it is.
    stage.player.edit_template_annotation("testvm", IP_ADDRESS, Some("10.16.0.2")).await;
    stage.problem("testvm", "AddressConflict", &["10.16.0.2", &stage.vm("waits"), "granted"]).await;
    assert_eq!(ips_of(&stage.port("testvm").await), ["10.16.0.30"]);
    stage.player.delete_vm("waits").await;
    stage.holding("testvm", &["10.16.0.2"]).await;
}

/// The name of the switch whose datapath the southbound has a port on.
fn bound_on(northbound: &Northbound, port: &str) -> Option<String> {
    let bindings = northbound.southbound().rows("Port_Binding");
    let binding = bindings.iter().find(|row| row["logical_port"] == port)?;
    let datapaths = northbound.southbound().rows("Datapath_Binding");
    let datapath = datapaths.iter().find(|row| row["_uuid"] == binding["datapath"])?;
    let pairs = datapath["external_ids"][1].as_array()?;
    pairs.iter().find(|pair| pair[0] == "name").and_then(|pair| Some(pair[1].as_str()?.to_owned()))
}

#[tokio::test]
async fn a_move_to_another_switch_frees_the_old_lease_and_keeps_the_row_and_the_southbound_follows() {
    let stage = Stage::build("moves").switch("team", "10.40.0.0/24").northd().start().await;
    let followed = async |switch: &'static str| {
        let port = stage.name("testvm");
        eventually("the southbound has the port there", || async {
            let bound = bound_on(&stage.northbound, &port);
            if bound.as_deref() == Some(switch) { Ok(()) } else { Err(format!("{bound:?}")) }
        })
        .await;
    };
    let made = stage.create("testvm", VmOptions::default(), &["10.16.0.2"]).await;
    followed("ovn-default").await;
    stage.player.create_vm("waits", requesting("10.16.0.2")).await;
    stage.refused("waits", "10.16.0.2", &stage.vm("testvm")).await;
    stage.player.edit_template_annotation("testvm", SWITCH, Some("team")).await;
    let moved = stage.port_where("testvm", "is on team", |port| port.switches == ["team"]).await;
    assert_eq!((&moved.uuid, &moved.name, ips_of(&moved)), (&made.uuid, &made.name, vec!["10.40.0.2"]));
    followed("team").await;
    stage.holding("waits", &["10.16.0.2"]).await;

    // Under a guest that runs it stays, and moves with the next start.
    stage.started("testvm", "n1").await;
    stage.player.edit_template_annotation("testvm", SWITCH, Some("ovn-default")).await;
    stage.problem("testvm", "SwitchChangePending", &["ovn-default", "team", "next start"]).await;
    let running = stage.port("testvm").await;
    assert_eq!((&running.switches[..], ips_of(&running)), (&["team".to_owned()][..], vec!["10.40.0.2"]));
    stage.player.restart("testvm", "n1").await;
    let back = stage.port_where("testvm", "is back", |port| port.switches == ["ovn-default"]).await;
    assert_eq!((&back.uuid, ips_of(&back)), (&made.uuid, vec!["10.16.0.3"]));
    followed("ovn-default").await;
    stage.no_problem("testvm").await;
    let request = requesting("10.40.0.2").annotation(SWITCH, "team");
    stage.player.create_vm("heir", request).await;
    stage.port_where("heir", "has what was left", |port| port.switches == ["team"]).await;
}

#[tokio::test]
async fn a_request_that_a_running_vm_cannot_have_is_in_its_status_at_once_and_the_reservation_stays() {
    let stage = Stage::build("refused").start().await;
    stage.create("owner", requesting("10.16.0.15"), &["10.16.0.15"]).await;
    let made = stage.create("testvm", VmOptions::default(), &["10.16.0.2"]).await;
    stage.started("testvm", "n1").await;
    stage.player.edit_template_annotation("testvm", IP_ADDRESS, Some("10.16.0.15")).await;
    stage.problem("testvm", "AddressConflict", &["10.16.0.15", &stage.vm("owner")]).await;
    stage.player.edit_template_annotation("testvm", IP_ADDRESS, Some("10.16.0.16")).await;
    let reserved =
        |port: &crate::support::Port| port.external_id(NEXT).is_some_and(|next| next.ends_with(" 10.16.0.16"));
    stage.port_where("testvm", "has a reservation", reserved).await;
    // A MAC that another port holds makes the whole request fail; the part that the port has already stays.
    let owners = stage.port("owner").await.addresses.first().expect("one").split(' ').next().map(ToOwned::to_owned);
    let mac = "ovn.kubernetes.io/mac_address";
    stage.player.edit_template_annotation("testvm", mac, owners.as_deref()).await;
    stage.problem("testvm", "AddressConflict", &["MAC ", &stage.vm("owner")]).await;
    stage.player.create_vm("other", requesting("10.16.0.16")).await;
    stage.refused("other", "10.16.0.16", &stage.vm("testvm")).await;
    stage.player.edit_template_annotation("testvm", mac, None).await;
    stage.player.restart("testvm", "n1").await;
    let restarted = stage.holding("testvm", &["10.16.0.16"]).await;
    assert_eq!(restarted.uuid, made.uuid);
}

#[tokio::test]
async fn a_switch_that_a_port_cannot_move_to_is_in_the_status_at_once_and_the_port_stays() {
    let stage = Stage::build("nowhere").start().await;
    stage.northbound.add_switch("red", &[("subnet", "10.17.0.0/24")]);
    stage.create("owner", requesting("10.17.0.9").annotation(SWITCH, "red"), &["10.17.0.9"]).await;
    for (vm, runs) in [("stopped", false), ("running", true)] {
        stage.player.create_vm(vm, VmOptions::default()).await;
        let made = stage.port(vm).await;
        if runs {
            stage.started(vm, "n1").await;
        }
        stage
            .player
            .edit_vm(vm, |vm| {
                let annotations = &mut vm["spec"]["template"]["metadata"]["annotations"];
                *annotations = serde_json::json!({SWITCH: "violet", IP_ADDRESS: "10.16.0.99"});
            })
            .await;
        stage.problem(vm, "SwitchNotFound", &["violet"]).await;
        let stays = stage.port(vm).await;
        assert_eq!((ips_of(&stays), &stays.switches), (ips_of(&made), &made.switches), "{vm}");
        stage
            .player
            .edit_vm(vm, |vm| {
                let annotations = &mut vm["spec"]["template"]["metadata"]["annotations"];
                *annotations = serde_json::json!({SWITCH: "red", IP_ADDRESS: "10.17.0.9"});
            })
            .await;
        if runs {
            stage.problem(vm, "SwitchChangePending", &["red", "next start"]).await;
            stage.player.stop(vm).await;
        }
        stage.problem(vm, "AddressConflict", &["10.17.0.9", &stage.vm("owner"), "red"]).await;
        let stays = stage.port(vm).await;
        assert_eq!((ips_of(&stays), &stays.switches), (ips_of(&made), &made.switches), "{vm}");
    }
}
