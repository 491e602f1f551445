//! An ovn-controller that exits in order in mid-migration and comes back, with packets flowing. `make bench` has the
//! figures of the other chassis that could be requested meanwhile.

use crate::support::Stage;
use crate::support::lab::{Lab, Pointing};
use crate::support::objects::Binding;

/// Of a list, northd skips a chassis that it does not know, and opens the next at once: behind masquerade the target's
/// kernel would reset the guest's connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_ovn_controller_goes_and_returns_costs_its_absence_and_leaves_no_target_open() {
    for binding in [Binding::Masquerade, Binding::Bridge] {
        let name = format!("source-gone-{binding:?}").to_lowercase();
        let mut lab = Lab::start(Stage::build(&name), Pointing::Service("rarp"), binding).await;
        let (migration, arriving) = lab.prepare("hv1", "hv2", None).await;
        let (pings, echo) = (lab.pings(), lab.echo());
        lab.stop_chassis("hv1").await;
        lab.bound("hv1").await;
        lab.start_chassis("hv1").await;
        lab.bound("hv1,hv2").await;
        lab.reachable().await;
        lab.flows_stand();
        let leaving = lab.cut_over(arriving, "hv2", std::time::Duration::ZERO).await;
        lab.player.domain_ready(&migration).await;
        lab.player.succeed(&migration).await;
        lab.bound("hv2").await;
        lab.flows_stand();
        lab.unplug(leaving);
        lab.reachable().await;
        let (pings, echo) = (pings.end(), echo.end());
        // Until the port asks for one chassis, northd has the target open: some milliseconds, in which its kernel answers
        // behind masquerade. A target that stays open resets a hundred times and more.
        let most = if binding == Binding::Masquerade { 25 } else { 0 };
        let opened = pings.duplicates <= most && echo.resets <= most;
        assert!(opened, "{binding:?} {pings:?} {echo:?}");
        assert_eq!(lab.residue(), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_whose_ovn_controller_goes_and_returns_costs_nothing() {
    let mut lab = Lab::start(Stage::build("target-gone"), Pointing::Service("rarp"), Binding::Bridge).await;
    let (migration, arriving) = lab.prepare("hv1", "hv2", None).await;
    let pings = lab.pings();
    lab.stop_chassis("hv2").await;
    lab.bound("hv1").await;
    lab.start_chassis("hv2").await;
    lab.bound("hv1,hv2").await;
    lab.shows("moving hv1 -> hv2 (waiting for the guest)").await;
    lab.flows_stand();
    let pings = pings.end();
    assert_eq!((pings.lost, pings.duplicates), (0, 0), "{pings:?}");
    let leaving = lab.cut_over(arriving, "hv2", std::time::Duration::ZERO).await;
    lab.player.domain_ready(&migration).await;
    lab.player.succeed(&migration).await;
    lab.bound("hv2").await;
    lab.unplug(leaving);
    lab.reachable().await;
}
