//! Chassis rows that go and come in mid-migration, with packets flowing.

use std::time::Duration;

use crate::support::Northbound;
use crate::support::lab::{Away, Guests, Lab, Pointing};
use crate::support::objects::Binding;

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_a_chassis_that_goes_and_comes() {
    for binding in [Binding::Bridge, Binding::Masquerade] {
        let mut labs = Vec::new();
        for away in [Away::Both, Away::SourceAlone] {
            let northbound = Northbound::start().await;
            let name = format!("gone-{binding:?}-{away:?}").to_lowercase();
            labs.push((away, Lab::with(&name, Pointing::Afterwards(Duration::ZERO), binding, northbound).await, "hv1", "hv2"));
        }
        for guests in [Guests::Stays, Guests::Moves] {
            for _ in 0..3 {
                for (away, lab, from, to) in &mut labs {
                    let moved = lab.chassis_goes_and_comes((from, to), *away, guests).await;
                    println!("{binding:?} {guests:?} {away:?}: {moved:?}");
                    if guests == Guests::Moves {
                        std::mem::swap(from, to);
                    }
                }
            }
        }
    }
}
