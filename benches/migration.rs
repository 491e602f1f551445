//! What a live migration costs, in pings: this service, beside others' ways on the same network in the same run.
//!
//! Three chassis with userspace Open vSwitch in network namespaces, real databases, northd and API server. The guest is
//! two namespaces with one MAC and address; at the cut-over the one falls silent and the other answers and sends RARPs
//! as QEMU does. A prober on the third chassis pings every 5 ms. Each way has a network of its own, and all take turns,
//! so that whatever else the machine does meets all.

#[allow(dead_code, unused_imports, unreachable_pub, reason = "each target uses a part of the harness")]
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use support::Probed;
use support::lab::{Lab, Pointing};

/// Migrations of each way; medians of them are told.
const RUNS: usize = 5;

#[tokio::main]
async fn main() {
    // `cargo test --benches` runs this too, where nobody asked for a measurement.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let ways = [
        ("this service", Pointing::Service("rarp")),
        ("this service, --activation-strategy none", Pointing::Service("none")),
        ("pointed to the target as the guest arrives", Pointing::Afterwards(Duration::ZERO)),
        ("pointed to the target 500 ms later", Pointing::Afterwards(Duration::from_millis(500))),
    ];
    for pause in [Duration::ZERO, Duration::from_millis(50)] {
        let mut labs = Vec::new();
        for (index, (_, pointing)) in ways.iter().enumerate() {
            let name = format!("bench-{index}-{}", pause.as_millis());
            labs.push((Lab::new(&name, *pointing).await, Vec::new()));
        }
        for run in 0..RUNS {
            let (from, to) = if run % 2 == 0 { ("hv1", "hv2") } else { ("hv2", "hv1") };
            for (lab, probed) in &mut labs {
                probed.push(lab.migrate(from, to, pause).await);
            }
        }
        println!("\nlive migration, a ping every 5 ms, the guest's own pause {pause:?}, medians of {RUNS}");
        println!("{:<46}{:>6}{:>14}{:>6}{:>12}", "", "lost", "silence (ms)", "late", "duplicates");
        let mut busy = Vec::new();
        for ((way, _), (_, probed)) in ways.iter().zip(&labs) {
            let of = |value: fn(&Probed) -> f64| median(probed.iter().map(value).collect());
            println!(
                "{way:<46}{:>6}{:>14.1}{:>6}{:>12}",
                of(|probed| probed.lost as f64),
                of(|probed| probed.silence_ms),
                of(|probed| probed.late as f64),
                of(|probed| probed.duplicates as f64)
            );
            busy.extend(probed.iter().map(|probed| probed.busy as f64));
        }
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!("machine: {cores} processors, {:.0}% busy (median)", median(busy));
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
