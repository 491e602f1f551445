//! Packets: three chassis with userspace Open vSwitch, a VM that moves between them, a prober that pings it every 5 ms,
//! and a TCP connection that is in use all the time.
//!
//! The assertions hold on any machine: no packet is duplicated, no connection is reset, and an outage is far shorter than
//! a second. `make bench` measures.

mod chassis;
mod dhcp;
mod faults;
mod last_mile;
mod leases;
mod names;
mod network_change;
mod security;

use std::time::Duration;

use crate::support::lab::{Lab, Moved, Pointing};
use crate::support::objects::Binding;
use crate::support::{Stage, eventually};

/// A second is far more than a migration takes; without a port on the target it would be for ever.
fn unharmed(moved: &Moved) {
    let Moved { pings, tcp } = moved;
    assert_eq!((pings.duplicates, tcp.resets), (0, 0), "{moved:?}");
    assert!(pings.sent > 100 && pings.silence_ms < 1_000.0 && tcp.echoes > 10, "{moved:?}");
}

/// As many of a long run as a variable says: `make soak` has them all.
fn times(few: usize) -> usize {
    std::env::var("OVN_KUBEVIRT_MIGRATIONS").ok().and_then(|times| times.parse().ok()).unwrap_or(few)
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_there_and_back_lose_packets_for_a_moment_only_duplicate_no_packet_and_leave_no_residue() {
    let mut lab = Lab::start(Stage::build("packets"), Pointing::Service("rarp"), Binding::Bridge).await;
    let before = lab.northbound_without_counters();
    let mut places = ["hv1", "hv2"];
    for _ in 0..times(4) {
        let moved = lab.migrate(places[0], places[1], Duration::ZERO).await;
        unharmed(&moved);
        assert_eq!(lab.residue(), "");
        assert_eq!(lab.northbound_without_counters(), before);
        places.reverse();
    }
    assert_eq!(messages_about_an_early_guest(&lab).await, [""; 0], "each target had claimed the port");
}

/// The messages of the Events `ChassisNotReady` on the VM.
async fn messages_about_an_early_guest(lab: &Lab) -> Vec<String> {
    let events = lab.namespace.events("testvm").await.into_iter();
    events.filter(|(_, reason, _)| reason == "ChassisNotReady").map(|(_, _, message)| message).collect()
}

/// The CNI is late: KubeVirt says that the guest is ready before the target has an interface with the port's name.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_ready_before_its_interface_has_the_port_is_reported_and_reachable_once_it_has() {
    let mut lab = Lab::start(Stage::build("early"), Pointing::Service("rarp"), Binding::Bridge).await;
    let migration = lab.player.start_migration("testvm", "hv2").await;
    lab.player.bind_target(&migration).await;
    lab.bound("hv1,hv2").await;
    lab.shows("moving hv1 -> hv2 (not claimed by hv2)").await;
    lab.player.target_running(&migration).await;
    lab.player.migration_scheduled(&migration).await;
    lab.player.hand_off(&migration).await;
    lab.player.domain_ready(&migration).await;
    lab.bound("hv2").await;
    eventually("the VM's owner is told", || async {
        let told = messages_about_an_early_guest(&lab).await;
        if told.iter().any(|message| message.contains("node hv2")) { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    let arriving = lab.plug("hv2");
    let leaving = lab.cut_over(arriving, "hv2", Duration::ZERO).await;
    lab.reachable().await;
    lab.player.succeed(&migration).await;
    lab.shows("on hv2").await;
    lab.unplug(leaving);
    eventually("the problem is over", || async {
        let vm = lab.player.vm("testvm").await.unwrap_or_default();
        let status = vm["metadata"]["annotations"]["ovn-kubevirt.io/ports"].to_string();
        if status.contains("ChassisNotReady") { Err(status) } else { Ok(()) }
    })
    .await;
    assert_eq!(messages_about_an_early_guest(&lab).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_is_rolled_back_loses_nothing() {
    let mut lab = Lab::start(Stage::build("rollback"), Pointing::Service("rarp"), Binding::Bridge).await;
    let moved = lab.roll_back("hv1", "hv2").await;
    assert_eq!((moved.pings.lost, moved.pings.duplicates, moved.tcp.resets), (0, 0, 0), "{moved:?}");
    unharmed(&lab.migrate("hv1", "hv3", Duration::ZERO).await);
}

/// An outage of 18 s on a migration: the port followed the guest after the fact. Here `ports --sb` is asked at each
/// step, too.
#[tokio::test(flavor = "multi_thread")]
async fn kube_ovn_5343_the_target_is_open_when_the_guest_arrives() {
    let mut lab = Lab::start(Stage::build("kube-ovn-5343"), Pointing::Service("rarp"), Binding::Bridge).await;
    lab.shows("on hv1").await;
    let (migration, arriving) = lab.prepare("hv1", "hv2", None).await;
    lab.shows("moving hv1 -> hv2 (waiting for the guest)").await;
    let pings = lab.pings();
    // KubeVirt does not report it yet, and need not.
    let leaving = lab.cut_over(arriving, "hv2", Duration::ZERO).await;
    lab.reachable().await;
    lab.shows("moving hv1 -> hv2 (activated)").await;
    lab.stays_bound("hv1,hv2", Duration::from_millis(300)).await;
    lab.player.domain_ready(&migration).await;
    lab.player.succeed(&migration).await;
    lab.shows("on hv2").await;
    lab.unplug(leaving);
    let pings = pings.end();
    assert!(pings.duplicates == 0 && pings.silence_ms < 1_000.0, "{pings:?}");
    lab.player.stop("testvm").await;
    lab.forget_guest();
    lab.shows("unbound").await;
}

/// The target's kernel answers for the guest before the guest is there, as with a masquerade binding, and with passt.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_behind_masquerade_or_passt_gets_neither_duplicates_nor_resets() {
    for (name, binding) in [("masquerade", Binding::Masquerade), ("passt", Binding::Passt)] {
        let mut lab = Lab::start(Stage::build(name), Pointing::Service("rarp"), binding).await;
        unharmed(&lab.migrate("hv1", "hv2", Duration::ZERO).await);
    }
}

/// The purpose of the strategy: the test above would see this without it.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_strategy_a_guest_behind_masquerade_gets_duplicates_and_resets() {
    let mut lab = Lab::start(Stage::build("no-strategy"), Pointing::Service("none"), Binding::Masquerade).await;
    let moved = lab.migrate("hv1", "hv2", Duration::ZERO).await;
    assert!(moved.pings.duplicates > 0 && moved.tcp.resets > 0, "{moved:?}");
}
