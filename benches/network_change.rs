//! What the change of a running VM's network costs, in pings of a peer on each network.
//!
//! The network of `benches/migration.rs` with a second switch beside it. The guest has the old network's address on the
//! source and the new one's on the target. Each peer pings every 5 ms: on the old network from before the edit until long
//! after the cut-over, on the new one from before the guest has come. Counted are pings that were lost though the guest was
//! there when they were sent: the guest's own pause costs none.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod common;

use std::time::Duration;

use common::machine::Busy;
use common::support::Stage;
use common::support::lab::{Changed, Seen, TwoNetworks};
use common::{is_test, median, setting};

#[tokio::main]
async fn main() {
    if is_test() {
        return;
    }
    let runs = setting("BENCH_RUNS", &[10])[0];
    let pauses = [Duration::ZERO, Duration::from_millis(50)];
    let mut labs = Vec::new();
    for pause in pauses {
        let name = format!("bench-change-{}", pause.as_millis());
        labs.push((pause, TwoNetworks::start(Stage::build(&name)).await, Vec::new()));
    }
    let busy = Busy::begin();
    for run in 0..runs {
        let places = if run % 2 == 0 { ("hv1", "hv2") } else { ("hv2", "hv1") };
        for (pause, lab, changes) in &mut labs {
            changes.push(lab.change(places, *pause).await);
        }
    }
    println!("a running VM changes its network, a ping every 5 ms on each, medians (and most) of {runs}");
    println!("{:<30}{:>14}{:>22}{:>12}", "", "lost", "stray ms", "duplicates");
    for (pause, _, changes) in &labs {
        line(&format!("pause {pause:?}, old network"), changes, |changed| changed.old);
        line(&format!("pause {pause:?}, new network"), changes, |changed| changed.new);
    }
    println!("machine: {}", busy.end());
}

fn line(what: &str, changes: &[Changed], side: fn(&Changed) -> Seen) {
    let of = |value: fn(&Seen) -> f64| -> (f64, f64) {
        let values: Vec<f64> = changes.iter().map(|changed| value(&side(changed))).collect();
        let most = values.iter().copied().fold(0.0, f64::max);
        (median(values), most)
    };
    let (lost, most_lost) = of(|seen| seen.lost as f64);
    let (stray, most_stray) = of(|seen| seen.stray_ms);
    let (_, duplicates) = of(|seen| seen.pings.duplicates as f64);
    println!("{what:<30}{lost:>8} ({most_lost:>3}){stray:>14.1} ({most_stray:>5.1}){duplicates:>12}");
}
