//! The cost of a live migration, in pings and TCP connections: this service, beside others' ways on the same network in
//! the same run.
//!
//! Three chassis with userspace Open vSwitch in network namespaces, real databases, northd and API server. The guest is
//! two namespaces with one MAC and address; at the cut-over the one falls silent and the other answers, goes on with its
//! TCP connections, and sends RARPs as QEMU does. Behind masquerade the target's kernel answers before the guest is there,
//! and no RARP leaves the pod. A prober on the third chassis pings every 5 ms and keeps a TCP connection busy. Each way has
//! a network of its own, and all take turns, so that other load on the machine meets all.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod common;

use std::time::Duration;

use common::support::lab::{Lab, Moved, Pointing};
use common::support::{Binding, Stage};
use common::{is_test, median, setting};

/// One way to have a port follow its guest.
struct Way {
    name: &'static str,
    pointing: Pointing,
    binding: Binding,
}

const fn way(name: &'static str, pointing: Pointing, binding: Binding) -> Way {
    Way { name, pointing, binding }
}

const WAYS: [Way; 7] = [
    way("this service", Pointing::Service("rarp"), Binding::Bridge),
    way("this service, --activation-strategy none", Pointing::Service("none"), Binding::Bridge),
    way("pointed to the target as the guest arrives", Pointing::Afterwards(Duration::ZERO), Binding::Bridge),
    way("pointed to the target 500 ms later", Pointing::Afterwards(Duration::from_millis(500)), Binding::Bridge),
    way("masquerade: this service", Pointing::Service("rarp"), Binding::Masquerade),
    way("passt: this service", Pointing::Service("rarp"), Binding::Passt),
    way("masquerade: --activation-strategy none", Pointing::Service("none"), Binding::Masquerade),
];

#[tokio::main]
async fn main() {
    if is_test() {
        return;
    }
    // Medians of so many migrations of each way.
    let runs = setting("BENCH_RUNS", &[5])[0];
    for pause in [Duration::ZERO, Duration::from_millis(50)] {
        let mut labs = Vec::new();
        for (index, Way { pointing, binding, .. }) in WAYS.iter().enumerate() {
            let name = format!("bench-{index}-{}", pause.as_millis());
            labs.push((Lab::start(Stage::build(&name), *pointing, *binding).await, Vec::new()));
        }
        for run in 0..runs {
            let (from, to) = if run % 2 == 0 { ("hv1", "hv2") } else { ("hv2", "hv1") };
            for (lab, moved) in &mut labs {
                moved.push(lab.migrate(from, to, pause).await);
            }
        }
        println!("\nlive migration, a ping every 5 ms, the guest's own pause {pause:?}, medians of {runs}");
        println!("{:<46}{:>6}{:>14}{:>6}{:>12}{:>12}", "", "lost", "silence (ms)", "late", "duplicates", "TCP resets");
        let mut busy = Vec::new();
        for (Way { name, .. }, (_, moved)) in WAYS.iter().zip(&labs) {
            let of = |value: fn(&Moved) -> f64| median(moved.iter().map(value).collect());
            println!(
                "{name:<46}{:>6}{:>14.1}{:>6}{:>12}{:>12}",
                of(|moved| moved.pings.lost as f64),
                of(|moved| moved.pings.silence_ms),
                of(|moved| moved.pings.late as f64),
                of(|moved| moved.pings.duplicates as f64),
                of(|moved| moved.tcp.resets as f64)
            );
            busy.extend(moved.iter().map(|moved| moved.pings.busy as f64));
        }
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!("machine: {cores} processors, {:.0}% busy (median)", median(busy));
    }
}
