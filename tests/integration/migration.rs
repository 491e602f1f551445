//! Live migrations: the port is prepared on the target, and stays with its guest through any fault.
//!
//! northd is real; there is no ovn-controller: only the written values and their times matter here.

mod alike;
mod arrival;
mod chassis;
mod decentralised;
mod ends;
mod regressions;

use crate::support::stage::Builder;
use crate::support::{Port, Stage, VmOptions, holds_for};
use std::time::Duration;

/// Long enough for a write that should not come.
const A_WHILE: Duration = Duration::from_millis(500);

/// A stage with northd, and the VM `testvm` running on n1.
async fn running(name: &str) -> Stage {
    let stage = Stage::build(name).northd().start().await;
    run(&stage, "n1").await;
    stage
}

/// The same, with the southbound read and a chassis a node.
async fn running_with_southbound(name: &str) -> Stage {
    let stage = build_with_southbound(name).start().await;
    run(&stage, "chassis-n1").await;
    stage
}

fn build_with_southbound(name: &str) -> Builder<'static> {
    let builder = Stage::build(name).northd().reads_southbound();
    ["n1", "n2", "n3"]
        .iter()
        .fold(builder, |builder, node| builder.chassis(&format!("chassis-{node}"), &format!("{node}.example")))
}

/// Makes the VM `testvm`, and runs it on n1, whose chassis is this one.
async fn run(stage: &Stage, chassis: &str) {
    stage.player.create_vm("testvm", VmOptions::default()).await;
    stage.player.start("testvm", "n1").await;
    bound(stage, chassis).await;
}

fn is_bound(port: &Port, requested: &str) -> bool {
    let strategy = requested.contains(',').then_some("rarp");
    port.option("requested-chassis") == Some(requested) && port.option("activation-strategy") == strategy
}

/// Waits until the VM's port is bound so.
async fn bound(stage: &Stage, requested: &str) -> Port {
    stage.port_where("testvm", &format!("is bound to {requested}"), |port| is_bound(port, requested)).await
}

/// It stays bound so.
async fn stays_bound(stage: &Stage, requested: &str) {
    holds_for(&format!("the port stays bound to {requested}"), A_WHILE, || async {
        match stage.northbound.port(&stage.name("testvm")) {
            Some(port) if is_bound(&port, requested) => Ok(()),
            other => Err(format!("{other:#?}")),
        }
    })
    .await;
}

/// kube-ovn 7415, 7416: the options are needed from Pending on. 6823: the target was not scheduled yet when the event
/// came. 5343: the port was re-pointed after the fact.
#[tokio::test]
async fn the_target_is_prepared_once_it_has_a_node_and_left_alone_until_the_guest_is_there() {
    let stage = running("prepared").await;
    let before = bound(&stage, "n1").await;
    let player = &stage.player;
    let migration = player.start_migration("testvm", "n2").await;
    // A pod without a node is no place.
    stays_bound(&stage, "n1").await;
    player.vmim_phase(&migration, "Pending").await;
    player.bind_target(&migration).await;
    bound(&stage, "n1,n2").await;
    player.target_running(&migration).await;
    player.migration_scheduled(&migration).await;
    player.hand_off(&migration).await;
    player.target_ready(&migration).await;
    player.migration_running(&migration).await;
    stays_bound(&stage, "n1,n2").await;
    player.domain_ready(&migration).await;
    bound(&stage, "n2").await;
    player.succeed(&migration).await;
    let after = bound(&stage, "n2").await;
    assert_eq!((after.addresses, after.uuid), (before.addresses, before.uuid));
}

/// kube-ovn 6220, 5523: after A -> B -> A a stale `migrationState` swapped source and target, or the second migration
/// hung.
#[tokio::test]
async fn there_and_back_again_leaves_no_residue() {
    let stage = running("back").await;
    for (from, to) in [("n1", "n2"), ("n2", "n1"), ("n1", "n2")] {
        let migration = stage.player.start_migration("testvm", to).await;
        stage.player.bind_target(&migration).await;
        // The state of the previous migration still names this one's source.
        bound(&stage, &format!("{from},{to}")).await;
        stage.player.target_running(&migration).await;
        stage.player.migration_scheduled(&migration).await;
        stage.player.hand_off(&migration).await;
        stage.player.domain_ready(&migration).await;
        stage.player.succeed(&migration).await;
        bound(&stage, to).await;
    }
    stays_bound(&stage, "n2").await;
}

/// kube-ovn 7419: a restart of the controller, a failed migration or an unrelated pod's deletion corrupted
/// requested-chassis in mid-migration.
#[tokio::test]
async fn a_killed_service_finds_the_migration_as_it_was() {
    let mut stage = running("restarted").await;
    let migration = stage.player.start_migration("testvm", "n2").await;
    stage.player.bind_target(&migration).await;
    bound(&stage, "n1,n2").await;
    stage.restart().await;
    stays_bound(&stage, "n1,n2").await;
    stage.service.kill9();
    stage.player.target_running(&migration).await;
    stage.player.migration_scheduled(&migration).await;
    stage.player.hand_off(&migration).await;
    stage.player.domain_ready(&migration).await;
    stage.restart().await;
    bound(&stage, "n2").await;
    stage.player.succeed(&migration).await;
    stays_bound(&stage, "n2").await;
}

#[tokio::test]
async fn a_migration_that_fails_or_is_cancelled_leaves_the_port_at_home_and_the_next_one_works() {
    let stage = running("failed").await;
    let failed = stage.player.start_migration("testvm", "n2").await;
    stage.player.bind_target(&failed).await;
    bound(&stage, "n1,n2").await;
    stage.player.fail(&failed).await;
    bound(&stage, "n1").await;
    // Right after it, to another node, and this one is cancelled.
    let cancelled = stage.player.start_migration("testvm", "n3").await;
    stage.player.bind_target(&cancelled).await;
    bound(&stage, "n1,n3").await;
    stage.player.cancel(&cancelled).await;
    bound(&stage, "n1").await;
    stage.player.migrate("testvm", "n2").await;
    bound(&stage, "n2").await;
}

/// Measured: northd keeps the mark of an activation while any additional chassis remains.
#[tokio::test]
async fn the_next_target_waits_until_northd_has_taken_the_last_one_back() {
    for with_southbound in [false, true] {
        let (stage, chassis) = match with_southbound {
            false => (running("lagging").await, ""),
            true => (running_with_southbound("lagging-sb").await, "chassis-"),
        };
        let requested =
            |nodes: &[&str]| nodes.iter().map(|node| format!("{chassis}{node}")).collect::<Vec<_>>().join(",");
        let failed = stage.player.start_migration("testvm", "n2").await;
        stage.player.bind_target(&failed).await;
        bound(&stage, &requested(&["n1", "n2"])).await;
        stage.northbound.sync_southbound();
        stage.northbound.freeze_northd();
        if with_southbound {
            // As ovn-controller leaves it.
            let rows = stage.northbound.southbound().rows("Chassis");
            let hv2 = rows.iter().find(|row| row["name"] == "chassis-n2").expect("a chassis")["_uuid"].clone();
            stage.northbound.southbound().transact(serde_json::json!([
                {"op": "update", "table": "Port_Binding", "where": [["logical_port", "==", stage.name("testvm")]],
                 "row": {"additional_chassis": hv2,
                         "options": ["map", [["additional-chassis-activated", "chassis-n2"]]]}},
            ]));
        }
        stage.player.fail(&failed).await;
        bound(&stage, &requested(&["n1"])).await;
        let next = stage.player.start_migration("testvm", "n3").await;
        stage.player.bind_target(&next).await;
        stays_bound(&stage, &requested(&["n1"])).await;
        stage.northbound.thaw_northd();
        if with_southbound {
            // ovn-controller on the old target lets go.
            stage.northbound.southbound().transact(serde_json::json!([
                {"op": "update", "table": "Port_Binding", "where": [["logical_port", "==", stage.name("testvm")]],
                 "row": {"additional_chassis": ["set", []], "options": ["map", []]}},
            ]));
        }
        bound(&stage, &requested(&["n1", "n3"])).await;
    }
}

#[tokio::test]
async fn nodes_are_found_among_the_chassis_and_a_node_without_one_is_in_the_status() {
    let stage = running_with_southbound("nodes").await;
    stage.player.stop("testvm").await;
    let node = stage.namespace.annotated_node("chassis-n3").await;
    stage.player.start("testvm", &node).await;
    bound(&stage, "chassis-n3").await;
    stage.player.restart("testvm", "n9").await;
    let what = "is bound nowhere";
    stage.port_where("testvm", what, |port| port.option("requested-chassis").is_none()).await;
    stage.event("testvm", "ChassisNotFound", &["n9", "ovn-controller", "ovn-kubevirt.io/chassis"]).await;
    // As soon as there is one.
    stage.northbound.add_chassis("late", "n9");
    bound(&stage, "late").await;
    // A target without a chassis leaves the port at home.
    let migration = stage.player.start_migration("testvm", "n8").await;
    stage.player.bind_target(&migration).await;
    stage.event("testvm", "ChassisNotFound", &["n8"]).await;
    stays_bound(&stage, "late").await;
}

#[tokio::test]
async fn without_the_southbound_ports_stay_and_new_ports_come() {
    let stage = running_with_southbound("sb-away").await;
    stage.northbound.southbound().kill9();
    stage.player.create_vm("meanwhile", VmOptions::default()).await;
    stage.port("meanwhile").await;
    stays_bound(&stage, "chassis-n1").await;
    stage.player.restart("testvm", "n2").await;
    // Its chassis were read before.
    bound(&stage, "chassis-n2").await;
    stage.northbound.southbound().start_again().await;
    let migration = stage.player.start_migration("testvm", "n3").await;
    stage.player.bind_target(&migration).await;
    bound(&stage, "chassis-n2,chassis-n3").await;
}
