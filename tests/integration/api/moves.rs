//! The steps of migrations whose launcher pods do not have the same NICs.

use serde_json::{Value, json};

use super::{API, call, client};
use crate::support::{Migration, Nic, Stage, VmOptions, eventually};

/// The VM runs on n1, with its NIC on the pod network and another on `net1`. hv1 and hv2 are the chassis of n1 and n2, and
/// `net2` is on another switch.
async fn running(test: &str) -> Stage {
    let stage = Stage::build(test).northd().reads_southbound().chassis("hv1", "n1").chassis("hv2", "n2");
    let stage =
        stage.switch("blue", "10.17.0.0/24").switch("red", "10.18.0.0/24").nad("net1", "blue").nad("net2", "red");
    let stage = stage.flags(API).start().await;
    let nics = [Nic::pod("default"), Nic::nad("data", "net1")];
    stage.player.create_vm("testvm", VmOptions::default().nics(nics)).await;
    stage.player.start("testvm", "n1").await;
    requested(&stage, &[(None, "hv1"), (Some("net1"), "hv1")]).await;
    stage
}

/// The name of the VM's port on a NAD, or on the pod network.
fn name(stage: &Stage, nad: Option<&str>) -> String {
    let namespace = &stage.namespace.name;
    nad.map_or_else(|| stage.name("testvm"), |nad| format!("testvm.{namespace}.{nad}.{namespace}.ovn"))
}

/// Waits until the VM's ports request these chassis, by NAD.
async fn requested(stage: &Stage, expected: &[(Option<&str>, &str)]) {
    for (nad, chassis) in expected {
        let name = name(stage, *nad);
        eventually(&format!("{name} requests {chassis}"), || async {
            let port = stage.northbound.port(&name);
            let is_so = port.as_ref().is_some_and(|port| port.option("requested-chassis") == Some(*chassis));
            if is_so { Ok(()) } else { Err(format!("{port:#?}")) }
        })
        .await;
    }
}

/// Waits until the only migration has this step.
async fn is_at(stage: &Stage, step: &str) {
    eventually(&format!("the step is {step}"), || async {
        let all = call(&mut client(&stage.service).await, "migrations.list", json!({})).await;
        if all["migrations"][0]["step"] == step { Ok(()) } else { Err(format!("{all:#}")) }
    })
    .await;
}

/// What ovn-controller writes into a port's binding.
fn bind(stage: &Stage, port: &str, row: Value) {
    stage.northbound.sync_southbound();
    let sb = stage.northbound.southbound();
    let of_port = json!([["logical_port", "==", port]]);
    let done = sb.transact(json!([{"op": "update", "table": "Port_Binding", "where": of_port, "row": row}]));
    assert_eq!(done[0]["count"], 1, "{port} has a binding");
}

/// The UUID of a chassis.
fn chassis(stage: &Stage, name: &str) -> Value {
    let rows = stage.northbound.southbound().rows("Chassis");
    rows.iter().find(|row| row["name"] == name).expect("a chassis")["_uuid"].clone()
}

async fn under_way(stage: &Stage) -> Migration {
    let migration = stage.player.start_migration("testvm", "n2").await;
    stage.player.bind_target(&migration).await;
    migration
}

/// The port of the pod network moves as ever: both of its chassis have claimed it, and hv2 has seen the guest or not.
fn moves(stage: &Stage, is_activated: bool) {
    let activated = if is_activated { json!([["additional-chassis-activated", "hv2"]]) } else { json!([]) };
    let row = json!({
        "chassis": chassis(stage, "hv1"), "additional_chassis": chassis(stage, "hv2"), "options": ["map", activated],
    });
    bind(stage, &name(stage, None), row);
}

#[tokio::test]
async fn a_nic_that_the_migration_unplugs_is_not_waited_for() {
    let stage = running("api-unplugs").await;
    stage.player.unplug("testvm", "data").await;
    let migration = under_way(&stage).await;
    requested(&stage, &[(None, "hv1,hv2"), (Some("net1"), "hv1")]).await;
    is_at(&stage, "open").await;
    moves(&stage, false);
    is_at(&stage, "claimed").await;
    moves(&stage, true);
    is_at(&stage, "activated").await;
    stage.player.fail(&migration).await;
}

#[tokio::test]
async fn a_nic_that_the_migration_plugs_is_open_on_the_target_alone() {
    let stage = running("api-plugs").await;
    let nic = Nic::nad("more", "net2");
    let add = |vm: &mut Value| {
        let spec = &mut vm["spec"]["template"]["spec"];
        spec["networks"].as_array_mut().expect("a list").push(nic.network());
        spec["domain"]["devices"]["interfaces"].as_array_mut().expect("a list").push(nic.interface());
    };
    stage.player.edit_vm("testvm", add).await;
    stage.player.bring_networks("testvm").await;
    under_way(&stage).await;
    requested(&stage, &[(None, "hv1,hv2"), (Some("net1"), "hv1,hv2"), (Some("net2"), "hv2")]).await;
    is_at(&stage, "open").await;
    moves(&stage, true);
    let row = json!({"chassis": chassis(&stage, "hv1"), "additional_chassis": chassis(&stage, "hv2")});
    bind(&stage, &name(&stage, Some("net1")), row);
    // Its own port is not claimed yet.
    is_at(&stage, "open").await;
    bind(&stage, &name(&stage, Some("net2")), json!({"chassis": chassis(&stage, "hv2")}));
    is_at(&stage, "claimed").await;
}

#[tokio::test]
async fn of_a_nic_that_changes_its_network_the_port_that_comes_tells_the_step() {
    let stage = running("api-changes").await;
    stage.player.change_networks("testvm", &[("data", "net2")]).await;
    under_way(&stage).await;
    is_at(&stage, "open").await;
    moves(&stage, false);
    bind(&stage, &name(&stage, Some("net1")), json!({"chassis": chassis(&stage, "hv1")}));
    // The chassis of the target has not claimed the port that the guest comes to.
    is_at(&stage, "open").await;
    bind(&stage, &name(&stage, Some("net2")), json!({"chassis": chassis(&stage, "hv2")}));
    is_at(&stage, "claimed").await;
    moves(&stage, true);
    is_at(&stage, "activated").await;
}
