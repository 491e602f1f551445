//! The last mile, with packets: the launcher pod is made as virt-controller makes it, and carries only the annotations
//! of the webhook. Its interface is plugged from that alone: one on a network of Multus as ovs-cni's development branch
//! does it, and one in the pod network's place as its release 0.39.0 does.

use std::time::Duration;

use super::unharmed;
use crate::support::Stage;
use crate::support::lab::{Lab, OvsCni};

/// The guest answers on hv1; it migrates to hv2, and back.
async fn there_and_back(name: &str, plugin: OvsCni, is_secondary: bool) -> Lab {
    let mut lab = Lab::with_ovs_cni(Stage::build(name), plugin, Lab::nic(is_secondary)).await;
    for (from, to) in [("hv1", "hv2"), ("hv2", "hv1")] {
        unharmed(&lab.migrate(from, to, Duration::ZERO).await);
        lab.shows(&format!("on {to}")).await;
        assert_eq!(lab.residue(), "");
    }
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_ovs_cni_head_plugs_by_its_pods_annotation_is_reachable_also_after_each_migration() {
    let lab = there_and_back("ovs-cni-head", OvsCni::Head, true).await;
    let (_, ids) = lab.plugged();
    assert!(!ids.contains("ovn-kubevirt.io/node"), "the plugin alone has set it: {ids}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_ovs_cni_0_39_0_plugs_is_reachable_by_the_service_on_its_node_and_after_each_migration() {
    let mut lab = there_and_back("ovs-cni-0-39-0", OvsCni::V0_39_0, false).await;
    lab.has_iface_id(true).await;

    // The switch stops and starts again: its database has kept the settings.
    lab.restart_switch("hv1").await;
    lab.reachable().await;
    lab.has_iface_id(true).await;

    // The interfaces that the pods leave behind are bound to no port.
    lab.lose_pods().await;
    lab.has_iface_id(false).await;
}
