//! The northbound as a RAFT cluster: through every failure of its members, each VM has one port, and keeps it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::{Northbound, Port, Stage, VmOptions, eventually, holds_for};

/// Long enough for a write that should not come.
const A_WHILE: Duration = Duration::from_millis(700);

/// Makes the VMs `<prefix>-0` and so on, and waits for their ports.
async fn make(stage: &Stage, prefix: &str, count: usize) {
    for index in 0..count {
        stage.player.create_vm(&format!("{prefix}-{index}"), VmOptions::default()).await;
    }
    for index in 0..count {
        stage.port(&format!("{prefix}-{index}")).await;
    }
}

/// The rows of `before` are unchanged.
#[track_caller]
fn kept(before: &BTreeMap<String, Port>, after: &BTreeMap<String, Port>) {
    for (name, port) in before {
        assert_eq!(after.get(name), Some(port), "{name}");
    }
}

#[tokio::test]
async fn the_service_follows_the_leader_and_resumes_where_it_was() {
    let stage = Stage::build("follows").on(Northbound::start_cluster().await).start().await;
    let mut before = BTreeMap::new();
    for round in 0..3 {
        make(&stage, &format!("round{round}"), 3).await;
        let now = stage.ports();
        assert_eq!(now.len(), 3 * (round + 1));
        kept(&before, &now);
        before = now;
        stage.northbound.move_leader();
    }
    make(&stage, "last", 1).await;
    let log = stage.service.log();
    // The members know each other's transactions: none of them sends everything again.
    let synced: Vec<&str> = log.lines().filter(|line| line.contains("northbound database in sync")).collect();
    assert!(synced.len() >= 2 && synced[0].contains("resumed=false"), "{log}");
    assert!(synced[1..].iter().all(|line| line.contains("resumed=true")), "{log}");
    assert!(log.contains("looking for the cluster's leader"), "{log}");
}

#[tokio::test]
async fn a_leader_that_is_killed_loses_no_port_and_creates_no_port_twice() {
    let stage = Stage::build("killed").on(Northbound::start_cluster().await).start().await;
    make(&stage, "before", 3).await;
    let before = stage.ports();
    let leader = stage.northbound.leader();
    for index in 0..10 {
        stage.player.create_vm(&format!("storm-{index}"), VmOptions::default()).await;
        if index == 4 {
            stage.northbound.members()[leader].kill9();
        }
    }
    for index in 0..10 {
        stage.port(&format!("storm-{index}")).await;
    }
    let after = stage.ports();
    assert_eq!(after.len(), 13);
    kept(&before, &after);
    stage.northbound.members()[leader].start_again().await;
    eventually("the killed member has caught up", || async {
        let rows = stage.northbound.members()[leader].rows("Logical_Switch_Port").len();
        if rows == 13 { Ok(()) } else { Err(format!("{rows} rows")) }
    })
    .await;
    make(&stage, "after", 1).await;
    kept(&after, &stage.ports());
}

#[tokio::test]
async fn a_leader_that_sleeps_through_an_election_and_wakes_harms_no_port() {
    let stage =
        Stage::build("asleep").on(Northbound::start_cluster().await).flags(["--nb-probe-interval", "1"]).start().await;
    make(&stage, "before", 3).await;
    let old = stage.northbound.leader();
    stage.northbound.members()[old].freeze();
    // Sent to the sleeper, and not known to have been committed.
    stage.player.create_vm("in-doubt", VmOptions::default()).await;
    eventually("another leads", || async {
        let northbound = &stage.northbound;
        let leads = (0..3)
            .filter(|member| *member != old)
            .any(|member| northbound.members()[member].membership().is_ok_and(|row| row["leader"] == true));
        if leads { Ok(()) } else { Err("none leads") }
    })
    .await;
    // Only the members that are awake are asked.
    let awake = || stage.northbound.leader_among(|member| member != old);
    eventually("the port is made through the new leader", || async {
        let rows = stage.northbound.members()[awake()].rows("Logical_Switch_Port");
        if rows.len() == 4 { Ok(()) } else { Err(format!("{rows:#?}")) }
    })
    .await;
    stage.northbound.members()[old].thaw();
    make(&stage, "after", 2).await;
    let after = stage.ports();
    assert_eq!(after.len(), 6);
    holds_for("what the sleeper held back does not appear", A_WHILE, || async {
        let now = stage.ports();
        if now == after { Ok(()) } else { Err(format!("{now:#?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_local_socket_is_written_only_while_its_member_leads() {
    let prepared = Stage::build("local").on(Northbound::start_cluster().await).prepare().await;
    let northbound = &prepared.northbound;
    // A member hands over to the same other one each time: this one will have its turn again.
    northbound.move_leader();
    let other = northbound.move_leader();
    northbound.move_leader();
    let local = northbound.members()[other].remote();
    let stage = prepared.with(|setup| setup.nb(&local)).start().await;
    stage.player.create_vm("waits", VmOptions::default()).await;
    holds_for("nothing is written through a follower", A_WHILE, || async {
        let ports = stage.northbound.ports();
        if ports.is_empty() { Ok(()) } else { Err(format!("{ports:#?}")) }
    })
    .await;
    while stage.northbound.leader() != other {
        stage.northbound.move_leader();
    }
    stage.port("waits").await;
    assert!(!stage.service.log().contains("is away"), "{}", stage.service.log());
}

#[tokio::test]
async fn a_leader_that_is_cut_off_from_the_others_is_left() {
    let stage = Stage::build("cutoff").on(Northbound::start_cluster_on_hosts().await).start().await;
    make(&stage, "before", 3).await;
    let before = stage.ports();
    let old = stage.northbound.leader();
    stage.northbound.cut_off(old);
    stage.player.create_vm("meanwhile", VmOptions::default()).await;
    eventually("the port is made through the majority", || async {
        let leader = stage.northbound.leader_among(|member| member != old);
        let rows = stage.northbound.members()[leader].rows("Logical_Switch_Port").len();
        if rows == 4 { Ok(()) } else { Err(format!("{rows} rows\n{}", stage.service.log())) }
    })
    .await;
    stage.northbound.reconnect(old);
    eventually("the member has caught up", || async {
        let rows = stage.northbound.members()[old].rows("Logical_Switch_Port").len();
        if rows == 4 { Ok(()) } else { Err(format!("{rows} rows")) }
    })
    .await;
    make(&stage, "after", 1).await;
    let after = stage.ports();
    assert_eq!(after.len(), 5);
    kept(&before, &after);
}

/// The number of the epoch in `NB_Global:external_ids`.
fn epoch(northbound: &Northbound) -> u64 {
    let epoch = northbound.nbctl(&["get", "NB_Global", ".", "external_ids:\"ovn-kubevirt.io/epoch.default\""]);
    let number = epoch.trim().trim_matches('"').split('.').next().and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no epoch: {epoch}"))
}

#[tokio::test]
async fn a_cluster_that_was_rolled_back_is_read_again_and_served_within_seconds() {
    let stage = Stage::build("rolledback").on(Northbound::start_cluster().await).start().await;
    make(&stage, "old", 3).await;
    stage.northbound.copy_files().await;
    let kept_ports = stage.ports();
    make(&stage, "new", 6).await;
    stage.player.delete_vm("old-2").await;
    stage.port_gone("old-2").await;
    let seen = epoch(&stage.northbound);
    stage.northbound.roll_back().await;
    let begun = std::time::Instant::now();
    stage.player.create_vm("last", VmOptions::default()).await;
    stage.port("last").await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    for vm in 0..6 {
        stage.port(&format!("new-{vm}")).await;
    }
    // The row of the VM that was deleted since has come back, and goes.
    stage.port_gone("old-2").await;
    let after = stage.ports();
    for name in [stage.name("old-0"), stage.name("old-1")] {
        assert_eq!(after.get(&name), kept_ports.get(&name), "{name}");
    }
    assert_eq!(after.len(), 9);
    assert!(epoch(&stage.northbound) > seen, "{} after {seen}", epoch(&stage.northbound));
    let log = stage.service.log();
    assert_eq!(log.matches("was rolled back").count(), 1, "{log}");
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains("was rolled back")), "{log}");
    let last = log.lines().rfind(|line| line.contains("northbound database in sync")).unwrap_or_default();
    assert!(last.contains("resumed=false"), "{log}");
}
