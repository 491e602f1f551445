//! Migrations to and from a VM of another cluster (or another namespace): one of the two launchers is not here, and the
//! port is never bound to a chassis of the other cluster.
//!
//! Each side has its own VM, VMI, VMIM and port. The sender's port stays where its launcher is, whatever the state says
//! of a node elsewhere; the receiver's is bound to the target launcher as soon as that has a node: there is no other.

use super::{A_WHILE, bound, build_with_southbound, running, stays_bound};
use crate::support::player::Remote;
use crate::support::{Port, Stage, VmOptions, holds_for};

#[tokio::test]
async fn the_sender_keeps_its_port_at_home_until_its_launcher_is_gone() {
    let stage = running("sender").await;
    // A node there has the name of one here.
    let remote = Remote::new("testvm", "n2");
    let migration = stage.player.send("testvm", &remote).await;
    stays_bound(&stage, "n1").await;
    stage.player.arrived(&migration).await;
    stays_bound(&stage, "n1").await;
    stage.player.sent(&migration).await;
    stays_bound(&stage, "n1").await;
    // KubeVirt stops the VM here.
    stage.player.stop("testvm").await;
    stage.port_where("testvm", "is bound nowhere", |port: &Port| port.options.is_empty()).await;
}

#[tokio::test]
async fn a_sender_whose_migration_fails_has_lost_nothing() {
    let stage = running("sender-fails").await;
    let migration = stage.player.send("testvm", &Remote::new("testvm", "far")).await;
    stage.player.vmim_phase(&migration, "Failed").await;
    stays_bound(&stage, "n1").await;
    // And the next one may be an ordinary one.
    let next = stage.player.start_migration("testvm", "n2").await;
    stage.player.bind_target(&next).await;
    bound(&stage, "n1,n2").await;
}

/// The source is known before a pod is here, by a node's name that one here has, too.
#[tokio::test]
async fn a_receiver_is_unbound_until_its_own_pod_has_a_node() {
    let stage = build_with_southbound("receiver-waits").start().await;
    stage.player.create_vm("testvm", VmOptions::default().run_strategy("WaitAsReceiver")).await;
    let migration = stage.player.wait_as_receiver("testvm", &Remote::new("testvm", "n1")).await;
    let nowhere = async || {
        let what = "the port is bound nowhere";
        holds_for(what, A_WHILE, || async {
            match stage.northbound.port(&stage.name("testvm")) {
                Some(port) if port.options.is_empty() => Ok(()),
                other => Err(format!("{other:#?}")),
            }
        })
        .await;
    };
    stage.port("testvm").await;
    stage.player.source_known(&migration).await;
    nowhere().await;
    let migration = stage.player.create_receiver(migration, "n2").await;
    nowhere().await;
    stage.player.bind_target(&migration).await;
    bound(&stage, "chassis-n2").await;
    stage.player.pod_phase(&migration.target_pod, "Running").await;
    stage.player.synchronise(&migration).await;
    stage.player.arrived(&migration).await;
    stage.player.received(&migration).await;
    stays_bound(&stage, "chassis-n2").await;
}

#[tokio::test]
async fn the_receiver_is_bound_only_where_its_launcher_is() {
    let stage = Stage::build("receiver").northd().start().await;
    stage.player.create_vm("testvm", VmOptions::default().run_strategy("WaitAsReceiver")).await;
    let nowhere = |port: &Port| port.options.is_empty();
    stage.port_where("testvm", "is bound nowhere", nowhere).await;
    // The source's node has the name of one here.
    let remote = Remote::new("testvm", "n1");
    let migration = stage.player.wait_as_receiver("testvm", &remote).await;
    let migration = stage.player.create_receiver(migration, "n2").await;
    stage.player.bind_target(&migration).await;
    bound(&stage, "n2").await;
    // The first try fails, and another follows.
    stage.player.receiver_fails(&migration).await;
    stays_bound(&stage, "n2").await;
    stage.player.delete_pod(&migration.target_pod).await;
    stage.player.stop("testvm").await;
    let migration = stage.player.wait_as_receiver("testvm", &remote).await;
    let migration = stage.player.create_receiver(migration, "n3").await;
    stage.port_where("testvm", "is bound nowhere", nowhere).await;
    stage.player.bind_target(&migration).await;
    bound(&stage, "n3").await;
    stage.player.pod_phase(&migration.target_pod, "Running").await;
    stage.player.synchronise(&migration).await;
    stays_bound(&stage, "n3").await;
    stage.player.arrived(&migration).await;
    stage.player.received(&migration).await;
    stays_bound(&stage, "n3").await;
    // From here on it is a VM like any other.
    let next = stage.player.start_migration("testvm", "n1").await;
    stage.player.bind_target(&next).await;
    bound(&stage, "n3,n1").await;
}
