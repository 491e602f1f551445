//! Faults in mid-migration, with packets flowing.

use std::time::Duration;

use super::unharmed;
use crate::support::lab::{Fault, Lab, Phase, Pointing};
use crate::support::objects::Binding;
use crate::support::{Northbound, Stage};

/// kube-ovn 7419, with packets: a service that starts catches up with the events since its death, and the guest has not
/// waited for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_killed_in_any_phase_harms_no_packet() {
    let mut lab = Lab::start(Stage::build("killed-in-phase"), Pointing::Service("rarp"), Binding::Bridge).await;
    let mut places = ["hv1", "hv2"];
    for phase in Phase::ALL {
        let moved = lab.migrate_through(places[0], places[1], Duration::ZERO, Some(Fault::Killed(phase))).await;
        println!("killed in {phase:?}: {moved:?}");
        unharmed(&moved);
        assert_eq!(lab.residue(), "");
        places.reverse();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_northbound_whose_leader_changes_in_mid_migration_harms_no_packet() {
    let builder = Stage::build("leader-moved").on(Northbound::start_cluster().await);
    let mut lab = Lab::start(builder, Pointing::Service("rarp"), Binding::Bridge).await;
    let mut places = ["hv1", "hv2"];
    for phase in [Phase::Scheduled, Phase::CutOver, Phase::DomainReady] {
        let moved = lab.migrate_through(places[0], places[1], Duration::ZERO, Some(Fault::LeaderMoved(phase))).await;
        println!("leader moved in {phase:?}: {moved:?}");
        unharmed(&moved);
        assert_eq!(lab.residue(), "");
        places.reverse();
    }
}

/// Measured: `hv1` and then `hv1,hv2` committed in a row, with northd asleep, leave the activation of the attempt before
/// standing, and the new target is open without its guest. Its kernel answers here, as with masquerade.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_not_open_before_its_guest_though_northd_slept_between_two_attempts() {
    let mut lab = Lab::start(Stage::build("northd-asleep"), Pointing::Service("rarp"), Binding::Masquerade).await;
    let (failed, mut arriving) = lab.prepare("hv1", "hv2", None).await;
    // The first attempt opens it, and fails all the same.
    arriving.announce();
    lab.shows("moving hv1 -> hv2 (activated)").await;
    lab.northbound.freeze_northd();
    lab.player.fail(&failed).await;
    lab.bound("hv1").await;
    // The next begins before the interface of the one before has gone, which is its own from now on.
    let next = lab.player.start_migration("testvm", "hv2").await;
    lab.player.bind_target(&next).await;
    lab.stays_bound("hv1", Duration::from_millis(700)).await;
    lab.northbound.thaw_northd();
    lab.bound("hv1,hv2").await;
    lab.shows("moving hv1 -> hv2 (waiting for the guest)").await;
    lab.flows_stand();
    let pings = lab.pings();
    lab.stays_bound("hv1,hv2", Duration::from_millis(700)).await;
    let pings = pings.end();
    assert_eq!((pings.lost, pings.duplicates), (0, 0), "the new target has answered: {pings:?}");
    // Now its guest comes.
    lab.player.target_running(&next).await;
    lab.player.hand_off(&next).await;
    arriving.announce();
    lab.shows("moving hv1 -> hv2 (activated)").await;
    let leaving = lab.cut_over(arriving, "hv2", Duration::ZERO).await;
    lab.player.domain_ready(&next).await;
    lab.player.succeed(&next).await;
    lab.bound("hv2").await;
    lab.unplug(leaving);
    lab.reachable().await;
}

/// A restart, not a migration: the port goes where the new pod is, while the old one is still terminating.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_replaced_on_another_node_has_the_port_at_once_and_alone() {
    let mut lab = Lab::start(Stage::build("pod-replaced"), Pointing::Service("rarp"), Binding::Bridge).await;
    for to in ["hv2", "hv1"] {
        let moved = lab.replace_pod(to).await;
        // The old pod's end is no loss.
        assert_eq!((moved.pings.lost, moved.pings.duplicates, moved.tcp.resets), (0, 0, 0), "{moved:?}");
        assert_eq!(lab.state(), format!("on {to}"));
        assert_eq!(lab.residue(), "");
    }
}
