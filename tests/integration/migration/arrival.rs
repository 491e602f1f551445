//! A guest that arrives before the target's chassis has claimed its port: the columns of `ports`, and the Event of the VM.

use serde_json::{Value, json};

use super::{A_WHILE, bound, running_with_southbound};
use crate::support::player::Migration;
use crate::support::{Service, Stage, eventually, holds_for};

/// Writes the binding of the VM's port as the ovn-controllers of these chassis do: bound on one, prepared on others.
fn claim(stage: &Stage, chassis: &str, additional: &[&str]) {
    let rows = stage.northbound.southbound().rows("Chassis");
    let uuid = |name: &&str| {
        rows.iter().find(|row| row["name"] == **name).unwrap_or_else(|| panic!("no chassis {name}"))["_uuid"].clone()
    };
    let additional: Vec<Value> = additional.iter().map(uuid).collect();
    stage.northbound.sync_southbound();
    stage.northbound.southbound().transact(json!([
        {"op": "update", "table": "Port_Binding", "where": [["logical_port", "==", stage.name("testvm")]],
         "row": {"chassis": uuid(&chassis), "additional_chassis": ["set", additional]}},
    ]));
}

/// Waits until `ports --sb` says this of the VM's port.
async fn shows(stage: &Stage, state: &str) {
    let (nb, sb) = (stage.northbound.remote(), stage.northbound.sb_remote());
    eventually(&format!("`ports --sb` says \"{state}\""), || async {
        let output = Service::command_line(&["ports", "--nb", &nb, "--sb", &sb]);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if text.contains(state) { Ok(()) } else { Err(text) }
    })
    .await;
}

/// Up to the moment before the guest is there.
async fn prepare(stage: &Stage, node: &str) -> Migration {
    let migration = stage.player.start_migration("testvm", node).await;
    stage.player.bind_target(&migration).await;
    stage.player.target_running(&migration).await;
    stage.player.migration_scheduled(&migration).await;
    stage.player.hand_off(&migration).await;
    migration
}

#[tokio::test]
async fn a_guest_that_is_ready_before_its_chassis_is_reported_and_any_other_is_not() {
    let mut stage = running_with_southbound("early").await;
    claim(&stage, "chassis-n1", &[]);
    let migration = prepare(&stage, "n2").await;
    bound(&stage, "chassis-n1,chassis-n2").await;
    shows(&stage, "moving chassis-n1 -> chassis-n2 (not claimed by chassis-n2)").await;
    stage.player.domain_ready(&migration).await;
    bound(&stage, "chassis-n2").await;
    let port = stage.name("testvm");
    stage.event("testvm", "ChassisNotReady", &["node n2", "chassis chassis-n2", &format!("iface-id={port}")]).await;
    stage.status("testvm", &["ChassisNotReady"]).await;
    // The problem is reported while it lasts, by every leader.
    stage.restart().await;
    stage.player.succeed(&migration).await;
    stage.status("testvm", &["ChassisNotReady"]).await;
    claim(&stage, "chassis-n2", &[]);
    let over = |text: &str, _: &Value| !text.contains("ChassisNotReady");
    stage.status_where("testvm", "the problem is over", over).await;

    // The next target is ready first.
    let migration = prepare(&stage, "n3").await;
    bound(&stage, "chassis-n2,chassis-n3").await;
    claim(&stage, "chassis-n2", &["chassis-n3"]);
    shows(&stage, "moving chassis-n2 -> chassis-n3 (waiting for the guest)").await;
    stage.player.domain_ready(&migration).await;
    bound(&stage, "chassis-n3").await;
    holds_for("no Event names the other chassis", A_WHILE, || async {
        let events = stage.namespace.events("testvm").await;
        let is_told = |(_, reason, message): &(String, String, String)| {
            reason == "ChassisNotReady" && message.contains("chassis-n3")
        };
        if events.iter().any(is_told) { Err(format!("{events:#?}")) } else { Ok(()) }
    })
    .await;
}
