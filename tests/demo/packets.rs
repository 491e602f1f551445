//! The last mile and a live migration, with packets.

use std::time::Duration;

use crate::say;
use crate::support::lab::{Lab, Moved, OvsCni};
use crate::support::{Stage, netns};

/// A VM whose interface is plugged as ovs-cni 0.39.0 does it, on three chassis of its own; it is pinged while it migrates.
/// Where no chassis can be made, the demo goes on without.
pub(crate) async fn with_packets() {
    say("The same with packets: three chassis with userspace OVS in network namespaces");
    if let Err(reason) = netns::available() {
        println!("Skipped: network namespaces cannot be made here ({reason}).");
        println!("As root (sudo -E make demo), or in a privileged container, a guest is pinged while it migrates.");
        return;
    }
    let mut lab = Lab::with_ovs_cni(Stage::build("demo-packets"), OvsCni::V0_39_0, Lab::nic(false)).await;
    let (port, interface) = lab.plugged();
    println!("testvm runs on hv1, with the MAC and the address that its launcher pod carries.");
    println!("ovs-cni 0.39.0 plugs its interface into br-int, and names no port. On the Port stands:");
    println!("  {}", port.trim());
    println!("ovn-kubevirt node reads the annotation of that pod, and sets iface-id. On the Interface stands:");
    println!("  {}", interface.trim());
    println!("hv3 $ ping -c 1 {}\n{}", lab.address(), lab.ping());

    say("It migrates live, there and back: hv3 pings it every 5 ms and keeps a TCP connection to it busy");
    for (from, to) in [("hv1", "hv2"), ("hv2", "hv1")] {
        let Moved { pings, tcp } = lab.migrate(from, to, Duration::ZERO).await;
        println!(
            "{from} -> {to}: {} of {} pings lost, {} doubled; silent for {:.1} ms at most; {} TCP echoes, {} resets; now {}",
            pings.lost,
            pings.sent,
            pings.duplicates,
            pings.silence_ms,
            tcp.echoes,
            tcp.resets,
            lab.state()
        );
    }
}
