//! Bugs that users of other controllers reported, each by the number of its issue. kube-ovn 5343, an outage of 18 s, has its test with
//! packets (`datapath.rs`).

use super::{bound, running, running_with_southbound, stays_bound};
use crate::support::VmOptions;

/// A restart of the controller, another VM's failed migration, or the deletion of an unrelated pod corrupted
/// requested-chassis in mid-migration.
#[tokio::test]
async fn kube_ovn_7419_nothing_unrelated_touches_a_migration_under_way() {
    let mut stage = running("kube-ovn-7419").await;
    // An earlier migration has left its source's pod.
    let earlier = stage.player.migrate("testvm", "n2").await;
    bound(&stage, "n2").await;
    stage.player.create_vm("other", VmOptions::default()).await;
    stage.player.start("other", "n1").await;
    let migration = stage.player.start_migration("testvm", "n3").await;
    stage.player.bind_target(&migration).await;
    bound(&stage, "n2,n3").await;
    stage.restart().await;
    stays_bound(&stage, "n2,n3").await;
    let other = stage.player.start_migration("other", "n3").await;
    stage.player.bind_target(&other).await;
    stage.player.fail(&other).await;
    stays_bound(&stage, "n2,n3").await;
    stage.player.delete_pod(&earlier.source_pod).await;
    stage.player.stop("other").await;
    stays_bound(&stage, "n2,n3").await;
}

/// The options are needed as soon as the target has a node: here the VMIM is still Pending.
#[tokio::test]
async fn kube_ovn_7415_the_target_is_prepared_in_pending_too() {
    let stage = running("kube-ovn-7415").await;
    let migration = stage.player.start_migration("testvm", "n2").await;
    stage.player.vmim_phase(&migration, "Pending").await;
    stage.player.bind_target(&migration).await;
    bound(&stage, "n1,n2").await;
}

/// Not only in Scheduling: in every phase up to the last, a controller that starts right then included, and in one that
/// has no phase yet.
#[tokio::test]
async fn kube_ovn_7416_the_target_is_prepared_in_every_phase() {
    let mut stage = running("kube-ovn-7416").await;
    let migration = stage.player.start_migration("testvm", "n2").await;
    stage.player.without_phase(&migration).await;
    stage.player.bind_target(&migration).await;
    bound(&stage, "n1,n2").await;
    for phase in ["Pending", "Scheduling", "Scheduled", "PreparingTarget", "TargetReady", "Running"] {
        stage.service.kill9();
        stage.player.vmim_phase(&migration, phase).await;
        // Another program reverts the change of the service; a service that starts in this phase makes it again.
        let alone = ["lsp-set-options", &stage.name("testvm"), "requested-chassis=n1"];
        stage.northbound.nbctl(&alone);
        stage.restart().await;
        bound(&stage, "n1,n2").await;
    }
}

/// The target pod was not scheduled yet when the migration's event came, and the set-up was never tried again.
#[tokio::test]
async fn kube_ovn_6823_a_target_that_is_scheduled_late_is_prepared_all_the_same() {
    let stage = running("kube-ovn-6823").await;
    let migration = stage.player.start_migration("testvm", "n2").await;
    stays_bound(&stage, "n1").await;
    // From here on no event of the VMIM or the VMI comes, only the pod's.
    stage.player.bind_target(&migration).await;
    bound(&stage, "n1,n2").await;
}

/// A stale migrationState after A -> B -> A swapped source and target.
#[tokio::test]
async fn kube_ovn_6220_a_stale_migration_state_swaps_nothing() {
    let mut stage = running("kube-ovn-6220").await;
    stage.player.migrate("testvm", "n2").await;
    bound(&stage, "n2").await;
    let back = stage.player.start_migration("testvm", "n1").await;
    stage.player.bind_target(&back).await;
    let vmi = stage.player.vmi("testvm").await.expect("the VMI");
    assert_eq!(vmi["status"]["migrationState"]["targetNode"], "n2", "the previous migration's");
    bound(&stage, "n2,n1").await;
    stage.restart().await;
    stays_bound(&stage, "n2,n1").await;
}

/// The second migration hung.
#[tokio::test]
async fn kube_ovn_5523_the_second_and_the_third_migration_end_like_the_first() {
    let stage = running_with_southbound("kube-ovn-5523").await;
    for node in ["n2", "n1", "n2"] {
        stage.player.migrate("testvm", node).await;
        bound(&stage, &format!("chassis-{node}")).await;
    }
}
