//! Several services on one database: one writes, the others are ready to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{Northbound, Port, Service, Stage, VmOptions, eventually, holds_for};

/// Short, so that a test sees one run out.
pub(crate) const LEASE_SECONDS: u64 = 2;

/// Which of the services said last that it is in office.
async fn in_office(services: &[Service]) -> usize {
    eventually("one of the services is in office", || async {
        let leads = |service: &Service| {
            let log = service.log();
            let last = log.lines().rfind(|line| line.contains("in office") || line.contains("leads no longer"));
            service.is_running() && last.is_some_and(|line| line.contains("in office"))
        };
        services.iter().position(leads).ok_or("none is")
    })
    .await
}

#[tokio::test]
async fn a_leader_that_stops_hands_over_at_once_and_one_that_is_killed_within_two_periods() {
    let fleet = Stage::build("handover").lease(LEASE_SECONDS).prepare().await;
    let services = [fleet.setup().start().await, fleet.setup().start().await, fleet.setup().start().await];
    let first = in_office(&services).await;
    fleet.make("first").await;
    let begun = Instant::now();
    assert_eq!(services[first].stop().await.code(), Some(0));
    fleet.make("second").await;
    assert!(begun.elapsed() < Duration::from_secs(LEASE_SECONDS), "{:?}", begun.elapsed());
    let second = in_office(&services).await;
    assert_ne!(second, first);
    services[second].kill9();
    let begun = Instant::now();
    fleet.make("third").await;
    assert!(begun.elapsed() < Duration::from_secs(2 * LEASE_SECONDS), "{:?}", begun.elapsed());
    let ports = fleet.ports();
    let addresses: Vec<_> = ports.values().flat_map(|port| &port.addresses).collect();
    assert_eq!(
        addresses,
        ["0a:58:0a:10:00:02 10.16.0.2", "0a:58:0a:10:00:03 10.16.0.3", "0a:58:0a:10:00:04 10.16.0.4"]
    );
}

#[tokio::test]
async fn a_leader_that_sleeps_through_its_term_commits_no_transaction_after_it() {
    let fleet = Stage::build("sleeper").lease(LEASE_SECONDS).prepare().await;
    let services = [fleet.setup().start().await, fleet.setup().start().await];
    let old = in_office(&services).await;
    fleet.make("before").await;
    services[old].freeze();
    fleet.make("meanwhile").await;
    let before = fleet.northbound.dump();
    services[old].thaw();
    holds_for("the sleeper changes nothing", Duration::from_millis(700), || async {
        let now = fleet.northbound.dump();
        if now == before { Ok(()) } else { Err(now) }
    })
    .await;
    fleet.make("after").await;
    assert_eq!(fleet.ports().len(), 3);
    assert!(services.iter().all(Service::is_running));
}

#[tokio::test]
async fn a_wiped_epoch_is_acquired_again_through_the_lease() {
    let fleet = Stage::build("retaken").lease(LEASE_SECONDS).prepare().await;
    let service = fleet.setup().start().await;
    fleet.make("before").await;
    fleet.northbound.nbctl(&["clear", "NB_Global", ".", "external_ids"]);
    fleet.make("after").await;
    assert!(service.is_running());
    assert!(service.log().contains("standing for the Lease again"), "{}", service.log());
}

#[tokio::test]
async fn an_old_backup_that_is_restored_readmits_no_deposed_leader_and_gets_its_ports_back() {
    let fleet = Stage::build("restored").lease(LEASE_SECONDS).prepare().await;
    let services = [fleet.setup().start().await, fleet.setup().start().await];
    fleet.make("old").await;
    let backup = fleet.northbound.backup().await;
    fleet.make("new").await;
    // The backup broke both connections: a service without a connection has not seen the epoch that is to be exceeded.
    for service in &services {
        service.ready().await;
    }
    let before = fleet.ports();
    let epoch = |northbound: &Northbound| northbound.rows("NB_Global")[0]["external_ids"].to_string();
    let last = epoch(&fleet.northbound);
    fleet.northbound.restore(&backup).await;
    fleet.port("new").await;
    assert_eq!(fleet.ports(), before);
    // Greater than any before, though the backup has an older one.
    let number = |epoch: &str| -> u64 {
        let (_, value) = epoch.split_once("epoch.default\",\"").expect("an epoch");
        value.split('.').next().and_then(|number| number.parse().ok()).expect("a number")
    };
    eventually("the epoch is greater than before", || async {
        let now = epoch(&fleet.northbound);
        if number(&now) > number(&last) { Ok(()) } else { Err(format!("{last} then {now}")) }
    })
    .await;
    assert!(services.iter().all(Service::is_running));
}

#[tokio::test]
async fn two_instances_share_a_database_and_leave_each_others_rows_alone() {
    let instance = |name: &str| Stage::build(name).lease(LEASE_SECONDS).flags(["--instance", name]);
    let mut blue = instance("blue").start().await;
    let red = instance("red").beside(&blue).start().await;
    for index in 0..5 {
        for stage in [&blue, &red] {
            stage.player.create_vm(&format!("vm-{index}"), VmOptions::default()).await;
        }
    }
    let northbound = Arc::clone(&blue.northbound);
    let all = || northbound.ports();
    eventually("ten ports", || async { if all().len() == 10 { Ok(()) } else { Err(format!("{:#?}", all())) } }).await;
    let addresses: std::collections::BTreeSet<_> = all().into_iter().flat_map(|port| port.addresses).collect();
    assert_eq!(addresses.len(), 10, "{addresses:?}");
    let instance = |port: &Port| port.external_id("ovn-kubevirt.io/instance").map(ToOwned::to_owned);
    let of = |name: &str| all().into_iter().filter(|port| instance(port).as_deref() == Some(name)).collect::<Vec<_>>();
    assert_eq!((of("blue").len(), of("red").len()), (5, 5));
    let reds = of("red");
    blue.restart().await;
    for index in 0..5 {
        blue.player.delete_vm(&format!("vm-{index}")).await;
    }
    eventually("the blue ports are gone", || async {
        if of("blue").is_empty() { Ok(()) } else { Err(format!("{:#?}", all())) }
    })
    .await;
    assert_eq!(of("red"), reds);
    assert!(blue.service.is_running() && red.service.is_running());
}

/// A switch that gets its subnet wakes the VMs of both instances at one moment, and both choose from the same addresses.
#[tokio::test]
async fn two_instances_that_allocate_at_one_moment_allocate_different_addresses() {
    const VMS: usize = 40;
    let instance = |name: &str| Stage::build(name).flags(["--instance", name]);
    let blue = instance("blue").switch_with("ovn-default", &[]).prepare().await;
    let red = instance("red").beside(&blue).prepare().await;
    let northbound = Arc::clone(&blue.northbound);
    let mut stages = Vec::new();
    for prepared in [blue, red] {
        for index in 0..VMS {
            prepared.player.create_vm(&format!("vm-{index}"), VmOptions::default()).await;
        }
        stages.push(prepared.start().await);
    }
    let waiting = format!("ovn_kubevirt_problems{{reason=\"SubnetMissing\"}} {VMS}");
    for stage in &stages {
        eventually("all wait for the subnet", || async {
            let (_, metrics) = stage.service.http_get("/metrics").await;
            if metrics.lines().any(|line| line == waiting) { Ok(()) } else { Err(metrics) }
        })
        .await;
    }
    northbound.nbctl(&["set", "logical_switch", "ovn-default", "other_config:subnet=10.16.0.0/16"]);
    eventually("all have a port", || async {
        let count = northbound.ports().len();
        if count == 2 * VMS { Ok(()) } else { Err(count) }
    })
    .await;
    let ports = northbound.ports();
    let addresses: std::collections::BTreeSet<_> = ports.iter().flat_map(|port| &port.addresses).collect();
    assert_eq!(addresses.len(), 2 * VMS, "{ports:#?}");
}

/// The `wait` compares sets: two rows alike, and rows without addresses, are no news.
#[tokio::test]
async fn rows_of_another_instance_that_are_alike_or_without_addresses_keep_no_vm_waiting() {
    let stage = Stage::build("alike").start().await;
    let northbound = &stage.northbound;
    northbound.nbctl(&["set", "nb_global", ".", "external_ids:ovn-kubevirt.io/epoch.red=7.gone"]);
    for (name, addresses) in [("a", "0a:58:0a:10:00:02 10.16.0.2"), ("b", "0a:58:0a:10:00:02 10.16.0.2"), ("c", "")] {
        let addresses: &[&str] = if addresses.is_empty() { &[] } else { &[addresses] };
        northbound.add_foreign_port("ovn-default", name, addresses);
        northbound.nbctl(&["set", "logical_switch_port", name, "external_ids:ovn-kubevirt.io/instance=red"]);
    }
    stage.player.create_vm("testvm", VmOptions::default()).await;
    let port = stage.port("testvm").await;
    assert!(port.addresses.contains("0a:58:0a:10:00:03 10.16.0.3"), "{port:?}");
}
