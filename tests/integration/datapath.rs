//! Packets: three chassis with userspace Open vSwitch, a VM that moves between them, and a prober that pings it every
//! 5 ms.

use std::time::Duration;

use crate::support::lab::{Lab, Pointing};

#[tokio::test(flavor = "multi_thread")]
async fn migrations_there_and_back_lose_no_more_than_a_moment_double_nothing_and_leave_no_residue() {
    let mut lab = Lab::new("packets", Pointing::Service("rarp")).await;
    for (from, to) in [("hv1", "hv2"), ("hv2", "hv1"), ("hv1", "hv2")] {
        let probed = lab.migrate(from, to, Duration::ZERO).await;
        assert_eq!(probed.duplicates, 0, "{probed:?}");
        // A second is far more than it takes; without a port on the target it would be for ever.
        assert!(probed.sent > 100 && probed.silence_ms < 1_000.0, "{probed:?}");
        assert_eq!(lab.residue(), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_is_rolled_back_loses_nothing() {
    let mut lab = Lab::new("rollback", Pointing::Service("rarp")).await;
    let probed = lab.roll_back("hv1", "hv2").await;
    assert_eq!((probed.lost, probed.duplicates), (0, 0), "{probed:?}");
    let probed = lab.migrate("hv1", "hv3", Duration::ZERO).await;
    assert_eq!(probed.duplicates, 0, "{probed:?}");
}
