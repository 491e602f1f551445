//! Chassis rows that go and come in mid-migration, with packets flowing.

use std::time::Duration;

use crate::support::Northbound;
use crate::support::lab::{Away, Guests, Lab, Pointing};
use crate::support::objects::Binding;

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_a_chassis_that_goes_and_comes() {
    for binding in [Binding::Masquerade, Binding::Bridge] {
        for guests in [Guests::Stays, Guests::Moves] {
            for run in 0..3 {
                for away in [Away::Both, Away::SourceAlone] {
                    let northbound = Northbound::start().await;
                    let name = format!("gone-{binding:?}-{guests:?}-{away:?}-{run}").to_lowercase();
                    let mut lab = Lab::with(&name, Pointing::Afterwards(Duration::ZERO), binding, northbound).await;
                    let moved = lab.chassis_goes_and_comes(("hv1", "hv2"), away, guests).await;
                    println!("{binding:?} {guests:?} {away:?}: {moved:?}");
                }
            }
        }
    }
}
