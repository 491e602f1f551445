//! Every end of a migration: one chassis again, and the right one.

use super::{bound, running, stays_bound};
use crate::support::{Migration, Stage, VmOptions};

/// The VM, and its migration from n1 to n2 with the target prepared. The hand-off has not come.
async fn under_way(name: &str) -> (Stage, Migration) {
    let stage = running(name).await;
    let migration = stage.player.start_migration("testvm", "n2").await;
    stage.player.bind_target(&migration).await;
    bound(&stage, "n1,n2").await;
    (stage, migration)
}

/// From there to Running.
async fn hand_over(stage: &Stage, migration: &Migration) {
    stage.player.target_running(migration).await;
    stage.player.migration_scheduled(migration).await;
    stage.player.hand_off(migration).await;
    stage.player.target_ready(migration).await;
    stage.player.migration_running(migration).await;
}

/// No guest runs any more: the port exists, and is bound nowhere.
async fn unbound(stage: &Stage) {
    let nowhere = |port: &crate::support::Port| port.options.is_empty();
    stage.port_where("testvm", "is bound nowhere", nowhere).await;
}

#[tokio::test]
async fn a_failure_without_a_migration_state_leaves_the_port_at_home() {
    let (stage, migration) = under_way("failed-early").await;
    stage.player.fail(&migration).await;
    let vmi = stage.player.vmi("testvm").await.expect("the VMI");
    assert!(vmi["status"]["migrationState"].is_null(), "{vmi:#}");
    bound(&stage, "n1").await;
}

#[tokio::test]
async fn a_failure_with_a_migration_state_leaves_the_port_at_home() {
    let (stage, migration) = under_way("failed-late").await;
    hand_over(&stage, &migration).await;
    stage.player.fail(&migration).await;
    let vmi = stage.player.vmi("testvm").await.expect("the VMI");
    assert_eq!(vmi["status"]["migrationState"]["failed"], true);
    bound(&stage, "n1").await;
    stays_bound(&stage, "n1").await;
}

#[tokio::test]
async fn a_cancelled_migration_keeps_its_target_until_kubevirt_has_ended_it() {
    let (stage, migration) = under_way("cancelled").await;
    hand_over(&stage, &migration).await;
    // A deletionTimestamp only asks: the guest may still arrive.
    stage.player.cancel_start(&migration).await;
    stays_bound(&stage, "n1,n2").await;
    stage.player.cancel(&migration).await;
    bound(&stage, "n1").await;
}

#[tokio::test]
async fn a_target_pod_that_is_evicted_is_no_target() {
    let (stage, migration) = under_way("evicted").await;
    stage.player.target_running(&migration).await;
    stage.player.evict(&migration.target_pod).await;
    // The VMIM does not know it yet.
    bound(&stage, "n1").await;
    stage.player.fail(&migration).await;
    stays_bound(&stage, "n1").await;
}

#[tokio::test]
async fn a_target_pod_that_is_deleted_is_a_target_until_its_kubelet_has_ended_it() {
    let (stage, migration) = under_way("target-deleted").await;
    stage.player.target_running(&migration).await;
    stage.player.delete_pod_start(&migration.target_pod).await;
    stays_bound(&stage, "n1,n2").await;
    stage.player.delete_pod(&migration.target_pod).await;
    bound(&stage, "n1").await;
}

#[tokio::test]
async fn a_vmim_that_is_gone_has_no_target() {
    let (stage, migration) = under_way("vmim-gone").await;
    hand_over(&stage, &migration).await;
    stage.player.lose_vmim(&migration).await;
    bound(&stage, "n1").await;
    // Its pod lives on, with its label.
    assert!(stage.player.pod(&migration.target_pod).await.is_some());
    stays_bound(&stage, "n1").await;
}

#[tokio::test]
async fn a_vm_that_is_stopped_in_mid_flight_is_bound_nowhere_and_starts_anywhere() {
    let (stage, migration) = under_way("stopped").await;
    hand_over(&stage, &migration).await;
    stage.player.stop("testvm").await;
    unbound(&stage).await;
    stage.player.start("testvm", "n3").await;
    bound(&stage, "n3").await;
}

/// Both launchers end at the same moment, as far as the service can see: it was not there.
#[tokio::test]
async fn a_guest_that_ends_in_mid_flight_leaves_its_port_on_one_chassis() {
    let (mut stage, migration) = under_way("guest-ended").await;
    hand_over(&stage, &migration).await;
    stage.service.kill9();
    stage.player.guest_ends("testvm", "Succeeded").await;
    stage.player.vmim_phase(&migration, "Failed").await;
    stage.restart().await;
    bound(&stage, "n1").await;
    stage.player.stop("testvm").await;
    unbound(&stage).await;
}

#[tokio::test]
async fn a_vmi_that_is_gone_in_mid_flight_takes_the_binding_with_its_last_pod() {
    let (stage, migration) = under_way("vmi-gone").await;
    stage.player.target_running(&migration).await;
    stage.player.delete_vmi_start("testvm").await;
    stage.player.remove_vmi_finalizer("testvm").await;
    // Its pods may still run.
    stays_bound(&stage, "n1,n2").await;
    for pod in [&migration.source_pod, &migration.target_pod] {
        stage.player.delete_pod(pod).await;
    }
    unbound(&stage).await;
}

/// Domain-ready is set early, and the guest never runs on the source again.
#[tokio::test]
async fn a_post_copy_migration_that_fails_ends_on_its_target() {
    let (stage, migration) = under_way("post-copy").await;
    hand_over(&stage, &migration).await;
    stage.player.domain_ready(&migration).await;
    bound(&stage, "n2").await;
    stage.player.guest_ends("testvm", "Failed").await;
    stage.player.vmim_phase(&migration, "Failed").await;
    stays_bound(&stage, "n2").await;
    stage.player.restart("testvm", "n3").await;
    bound(&stage, "n3").await;
}

#[tokio::test]
async fn an_evacuation_is_a_migration() {
    let stage = running("evacuation").await;
    stage.player.create_vm("stays", VmOptions::default()).await;
    let migration = stage.player.start_evacuation("testvm", "n2").await;
    stage.player.bind_target(&migration).await;
    bound(&stage, "n1,n2").await;
    hand_over(&stage, &migration).await;
    stage.player.domain_ready(&migration).await;
    bound(&stage, "n2").await;
    stage.player.succeed(&migration).await;
    stays_bound(&stage, "n2").await;
}

/// Options of others on the row, before and in mid-migration, are theirs.
#[tokio::test]
async fn options_of_others_are_kept_through_a_whole_migration() {
    let stage = running("options").await;
    let name = stage.name("testvm");
    let set = |option: &str| drop(stage.northbound.nbctl(&["set", "Logical_Switch_Port", &name, option]));
    set("options:qos_max_rate=1000");
    let migration = stage.player.start_migration("testvm", "n2").await;
    stage.player.bind_target(&migration).await;
    bound(&stage, "n1,n2").await;
    set("options:mcast_flood=true");
    hand_over(&stage, &migration).await;
    stage.player.domain_ready(&migration).await;
    let port = bound(&stage, "n2").await;
    let expected = [("mcast_flood", "true"), ("qos_max_rate", "1000"), ("requested-chassis", "n2")];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(port.options, expected.into());
    stage.player.stop("testvm").await;
    stage.port_where("testvm", "keeps theirs", |port| port.options.len() == 2).await;
}
