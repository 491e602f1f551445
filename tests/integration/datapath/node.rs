//! Interfaces that are plugged as ovs-cni 0.39.0 does it, without a word of a port: `ovn-kubevirt node` on two chassis makes
//! the guest reachable, by nothing but what the launcher pods carry.

use std::time::Duration;

use super::unharmed;
use crate::support::Stage;
use crate::support::lab::Lab;

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_ovs_cni_0_39_plugs_is_reachable_on_either_chassis_and_after_a_migration() {
    let mut lab = Lab::with_nodes(Stage::build("node-packets")).await;
    lab.has_iface_id(true).await;
    unharmed(&lab.migrate("hv1", "hv2", Duration::ZERO).await);
    lab.has_iface_id(true).await;
    lab.shows("on hv2").await;
    unharmed(&lab.migrate("hv2", "hv1", Duration::ZERO).await);
    lab.shows("on hv1").await;
    assert_eq!(lab.residue(), "");

    // The switch goes down and comes back: what was set stands in its database.
    lab.restart_switch("hv1").await;
    lab.reachable().await;
    lab.has_iface_id(true).await;

    // What the pods leave behind is bound to no port.
    lab.lose_pods().await;
    lab.has_iface_id(false).await;
}
