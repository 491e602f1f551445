//! A running VM changes its network, with packets: a guest on one switch that goes on on another, a peer on each that pings
//! it every 5 ms, and launcher pods that are plugged by what the webhook has written on them.

use std::time::Duration;

use super::{times, unharmed};
use crate::support::Stage;
use crate::support::lab::{Changed, Seen, TwoNetworks};

/// The address of the guest answers while the guest is there, and not else. On its way at the cut-over is one ping at most.
fn answers_with_the_guest(seen: &Seen) -> bool {
    let Seen { pings, lost, stray_ms } = seen;
    *lost <= 1 && *stray_ms < 50.0 && pings.duplicates == 0 && pings.sent > pings.lost + 50
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_address_answers_until_the_cut_over_and_the_new_one_from_then_on() {
    let mut lab = TwoNetworks::start(Stage::build("net-packets")).await;
    let (mut places, first) = (["hv1", "hv2"], lab.address().to_owned());
    for round in 0..times(2) {
        let pause = Duration::from_millis(50) * (round % 2) as u32;
        let changed = lab.change((places[0], places[1]), pause).await;
        println!("{pause:?}: {changed:?}");
        let Changed { old, new } = &changed;
        assert!(answers_with_the_guest(old) && answers_with_the_guest(new), "{changed:?}");
        assert_eq!(lab.address().starts_with("10.17."), round % 2 == 0, "{first} became {}", lab.address());
        lab.reachable().await;
        lab.shows(&format!("on {}", places[1])).await;
        assert_eq!(lab.residue(), "");
        places.reverse();
    }
    // The network that it has come to is one as any other.
    unharmed(&lab.migrate(places[0], places[1]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_fails_twice_and_is_taken_back_in_the_third_try_loses_nothing() {
    let mut lab = TwoNetworks::start(Stage::build("net-undone")).await;
    let tries = async {
        let coming = lab.edit().await;
        for to in ["hv2", "hv3"] {
            let under_way = lab.prepare_change(&coming, ("hv1", to)).await;
            lab.fail_change(&coming, under_way).await;
            // The next try's pod carries the same.
            assert_eq!(lab.northbound.port(&coming.name).expect("the port").addresses, coming.addresses);
        }
        let under_way = lab.prepare_change(&coming, ("hv1", "hv2")).await;
        lab.cancel_change(&coming, under_way).await;
    };
    let moved = lab.while_probed(tries).await;
    assert_eq!((moved.pings.lost, moved.pings.duplicates, moved.tcp.resets), (0, 0, 0), "{moved:?}");
    lab.shows("on hv1").await;
    assert_eq!(lab.residue(), "");
    unharmed(&lab.migrate("hv1", "hv2").await);
}
