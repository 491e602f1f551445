//! Events that look like a migration, and many migrations at once.

use super::{A_WHILE, bound, running, stays_bound};
use crate::support::{Port, VmOptions, eventually, holds_for};

#[tokio::test]
async fn a_restart_onto_another_node_does_not_wait_for_the_old_pod_to_end() {
    let stage = running("restart").await;
    let old = stage.player.launchers("testvm").await.remove(0);
    // The VMI goes while its pod is still terminating, as after a force-restart.
    stage.player.delete_vmi_start("testvm").await;
    stage.player.delete_pod_start(&old).await;
    stage.player.remove_vmi_finalizer("testvm").await;
    stays_bound(&stage, "n1").await;
    stage.player.create_vmi("testvm").await;
    let new = stage.player.create_launcher("testvm").await;
    stays_bound(&stage, "n1").await;
    stage.player.bind_pod(&new, "n2").await;
    bound(&stage, "n2").await;
    stage.player.pod_phase(&new, "Running").await;
    stage.player.vmi_scheduled("testvm", "n2").await;
    stage.player.vmi_running("testvm", "n2").await;
    stays_bound(&stage, "n2").await;
    stage.player.delete_pod(&old).await;
    stays_bound(&stage, "n2").await;
}

#[tokio::test]
async fn a_vm_of_a_lost_node_stays_there_until_its_pod_is_given_up() {
    let stage = running("node-lost").await;
    let stuck = stage.player.launchers("testvm").await.remove(0);
    // The node controller deletes the pod; there is no kubelet to end it.
    stage.player.delete_pod_start(&stuck).await;
    stage.player.vmi_phase("testvm", "Failed").await;
    stage.player.delete_vmi_start("testvm").await;
    stays_bound(&stage, "n1").await;
    // An operator is sure that the node is dead.
    stage.player.delete_pod(&stuck).await;
    stage.player.remove_vmi_finalizer("testvm").await;
    stage.port_where("testvm", "is bound nowhere", |port: &Port| port.options.is_empty()).await;
    stage.player.start("testvm", "n2").await;
    bound(&stage, "n2").await;
}

#[tokio::test]
async fn there_and_back_while_the_first_pods_are_still_listed() {
    let stage = running("there-and-back").await;
    let there = stage.player.migrate("testvm", "n2").await;
    bound(&stage, "n2").await;
    // The first source is still listed as Succeeded on the very node that is the target now.
    assert!(stage.player.pod(&there.source_pod).await.is_some());
    let back = stage.player.start_migration("testvm", "n1").await;
    stays_bound(&stage, "n2").await;
    stage.player.bind_target(&back).await;
    bound(&stage, "n2,n1").await;
    stage.player.delete_pod(&there.source_pod).await;
    stays_bound(&stage, "n2,n1").await;
    stage.player.target_running(&back).await;
    stage.player.hand_off(&back).await;
    stage.player.domain_ready(&back).await;
    bound(&stage, "n1").await;
    stage.player.succeed(&back).await;
    stays_bound(&stage, "n1").await;
}

#[tokio::test]
async fn a_second_migration_right_after_a_failed_one_to_the_same_node() {
    let stage = running("again").await;
    let failed = stage.player.start_migration("testvm", "n2").await;
    stage.player.bind_target(&failed).await;
    bound(&stage, "n1,n2").await;
    stage.player.target_running(&failed).await;
    stage.player.hand_off(&failed).await;
    stage.player.fail(&failed).await;
    // Its pod is still listed, and its state still stands in the VMI.
    let again = stage.player.start_migration("testvm", "n2").await;
    stage.player.bind_target(&again).await;
    bound(&stage, "n1,n2").await;
    stage.player.target_running(&again).await;
    stage.player.hand_off(&again).await;
    stage.player.domain_ready(&again).await;
    bound(&stage, "n2").await;
    stage.player.succeed(&again).await;
    stays_bound(&stage, "n2").await;
}

/// KubeVirt admits one at a time; even with two of them the port has no third chassis.
#[tokio::test]
async fn of_two_migrations_at_once_one_target_is_open() {
    let stage = running("two-at-once").await;
    let one = stage.player.start_migration("testvm", "n2").await;
    let other = stage.player.start_migration("testvm", "n3").await;
    stage.player.bind_target(&one).await;
    stage.player.bind_target(&other).await;
    let requested = eventually("one of the targets is open", || async {
        let port = stage.northbound.port(&stage.name("testvm")).expect("the port");
        let requested = port.option("requested-chassis").unwrap_or_default().to_owned();
        // The newer one has it at last, by its name where both are of one second.
        let newest = if newer(&stage.player, &one.target_pod, &other.target_pod).await { "n1,n2" } else { "n1,n3" };
        if requested == newest { Ok(requested) } else { Err(requested) }
    })
    .await;
    stays_bound(&stage, &requested).await;
    let (goes, stays) = if requested == "n1,n2" { (&one, &other) } else { (&other, &one) };
    stage.player.fail(goes).await;
    bound(&stage, &format!("n1,{}", stays.target_node)).await;
    stage.player.target_running(stays).await;
    stage.player.hand_off(stays).await;
    stage.player.domain_ready(stays).await;
    bound(&stage, &stays.target_node).await;
}

/// Whether the first pod is the newer one.
async fn newer(player: &crate::support::Player, one: &str, other: &str) -> bool {
    let made = async |name: &str| {
        let pod = player.pod(name).await.expect("the pod");
        (pod["metadata"]["creationTimestamp"].to_string(), name.to_owned())
    };
    made(one).await > made(other).await
}

#[tokio::test]
async fn a_vm_in_a_crash_loop_keeps_its_port_between_two_vmis() {
    let stage = running("crash-loop").await;
    let before = bound(&stage, "n1").await;
    for node in ["n2", "n3"] {
        stage.player.crash_loop("testvm").await;
        let between = stage.port_where("testvm", "is bound nowhere", |port: &Port| port.options.is_empty()).await;
        assert_eq!((between.uuid, between.addresses), (before.uuid.clone(), before.addresses.clone()));
        stage.player.start("testvm", node).await;
        bound(&stage, node).await;
    }
}

#[tokio::test]
async fn a_pod_that_provisions_a_volume_is_no_launcher() {
    let stage = running("provisioning").await;
    stage.player.create_vm("fresh", VmOptions::default()).await;
    stage.port("fresh").await;
    stage.player.create_vmi("fresh").await;
    // It looks like a launcher, has a node, and is the only pod that the VM has so far.
    let provisioning = stage.player.create_provisioning_pod("fresh").await;
    stage.player.bind_pod(&provisioning, "n3").await;
    let name = stage.name("fresh");
    holds_for("the port is bound nowhere", A_WHILE, || async {
        let port = stage.northbound.port(&name).expect("the port");
        if port.options.is_empty() { Ok(()) } else { Err(format!("{port:#?}")) }
    })
    .await;
    stage.player.launch("fresh", "n2").await;
    stage.port_where("fresh", "is bound to n2", |port| port.option("requested-chassis") == Some("n2")).await;
}

#[tokio::test]
async fn a_pod_that_attaches_a_disk_is_no_target() {
    let stage = running("hotplug-pod").await;
    let migration = stage.player.start_migration("testvm", "n2").await;
    // It has the migration's labels.
    let attaching = stage.player.create_hotplug_pod(&migration).await;
    stage.player.bind_pod(&attaching, "n3").await;
    stays_bound(&stage, "n1").await;
    stage.player.bind_target(&migration).await;
    bound(&stage, "n1,n2").await;
    stage.player.delete_pod(&attaching).await;
    stays_bound(&stage, "n1,n2").await;
}
