//! The cost of an exit and return of the source's ovn-controller in mid-migration, by the chassis that are requested then:
//! both chassis still, of which northd takes the one that it knows; or the source alone.
//!
//! On the network of `migration.rs`, without the service: the options are written as it would write them.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod common;

use std::time::Duration;

use common::support::lab::{Away, Guests, Lab, Moved, Pointing};
use common::support::{Binding, Stage};
use common::{is_test, median, setting};

#[tokio::main]
async fn main() {
    if is_test() {
        return;
    }
    let runs = setting("BENCH_RUNS", &[5])[0];
    println!("\nthe source is no chassis for 1.5 s in mid-migration, a ping every 5 ms, medians of {runs}");
    println!("{:<58}{:>6}{:>14}{:>12}{:>12}", "", "lost", "silence (ms)", "duplicates", "TCP resets");
    for binding in [Binding::Bridge, Binding::Masquerade] {
        for guests in [Guests::Stays, Guests::Moves] {
            let mut moved = [Vec::new(), Vec::new()];
            for run in 0..runs {
                for (away, moved) in [Away::Both, Away::SourceAlone].into_iter().zip(&mut moved) {
                    let name = format!("gone-{binding:?}-{guests:?}-{away:?}-{run}").to_lowercase();
                    let pointing = Pointing::Afterwards(Duration::ZERO);
                    let mut lab = Lab::start(Stage::build(&name), pointing, binding).await;
                    moved.push(lab.chassis_goes_and_comes(("hv1", "hv2"), away, guests).await);
                }
            }
            for (away, moved) in [Away::Both, Away::SourceAlone].into_iter().zip(&moved) {
                row(&format!("{binding:?}, the guest {guests:?}, asked for: {away:?}"), moved);
            }
        }
    }
}

fn row(name: &str, moved: &[Moved]) {
    let of = |value: fn(&Moved) -> f64| median(moved.iter().map(value).collect());
    println!(
        "{name:<58}{:>6}{:>14.1}{:>12}{:>12}",
        of(|moved| moved.pings.lost as f64),
        of(|moved| moved.pings.silence_ms),
        of(|moved| moved.pings.duplicates as f64),
        of(|moved| moved.tcp.resets as f64)
    );
}
