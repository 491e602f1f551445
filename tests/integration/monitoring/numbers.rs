//! The metrics follow the events.

use std::time::Duration;

use super::{scrape, value};
use crate::support::eventually::within;
use crate::support::{Service, Stage, VmOptions, eventually};

/// Waits until these series have these values.
async fn counts(service: &Service, expected: &[(&str, f64)]) -> String {
    eventually(&format!("/metrics has {expected:?}"), || async {
        let text = scrape(service).await;
        let wrong = |(series, number): &&(&str, f64)| value(&text, series) != Some(*number);
        match expected.iter().find(wrong) {
            None => Ok(text),
            Some((series, _)) => Err(format!("{series} is {:?}", value(&text, series))),
        }
    })
    .await
}

const BOUND: &str = "ovn_kubevirt_ports{switch=\"ovn-default\",state=\"bound\"}";
const UNBOUND: &str = "ovn_kubevirt_ports{switch=\"ovn-default\",state=\"unbound\"}";
const MOVING: &str = "ovn_kubevirt_ports{switch=\"ovn-default\",state=\"moving\"}";
const RETAINED: &str = "ovn_kubevirt_ports{switch=\"ovn-default\",state=\"retained\"}";
const USED: &str = "ovn_kubevirt_addresses_used{switch=\"ovn-default\",family=\"ipv4\"}";
const FREE: &str = "ovn_kubevirt_addresses_free{switch=\"ovn-default\",family=\"ipv4\"}";

#[tokio::test]
async fn ports_addresses_and_phases_follow_a_vm_through_its_life() {
    let stage = Stage::build("counted").northd().start().await;
    let text = scrape(&stage.service).await;
    let (used, free) = (value(&text, USED).expect("a switch"), value(&text, FREE).expect("a switch"));
    let committed = "ovn_kubevirt_transactions_total{outcome=\"committed\"}";
    let before = value(&text, committed).expect("a counter");
    stage.player.create_vm("testvm", VmOptions::default().annotation("ovn-kubevirt.io/retain", "1h")).await;
    let text = counts(&stage.service, &[(UNBOUND, 1.0), (USED, used + 1.0), (FREE, free - 1.0)]).await;
    assert!(value(&text, committed).expect("a counter") > before, "{text}");
    for histogram in ["event_to_commit_seconds", "transaction_duration_seconds", "transaction_rows"] {
        assert!(value(&text, &format!("ovn_kubevirt_{histogram}_count")).is_some_and(|count| count >= 1.0), "{text}");
    }
    assert!(value(&text, "ovn_kubevirt_event_to_commit_seconds_sum").is_some_and(|sum| sum < 30.0), "{text}");
    stage.player.start("testvm", "n1").await;
    counts(&stage.service, &[(BOUND, 1.0), (UNBOUND, 0.0)]).await;
    let migration = stage.player.start_migration("testvm", "n2").await;
    stage.player.bind_target(&migration).await;
    let phase = |phase: &str| format!("ovn_kubevirt_migration_phase_duration_seconds_count{{phase=\"{phase}\"}}");
    let open = "ovn_kubevirt_migrations{phase=\"open\"}";
    counts(&stage.service, &[(MOVING, 1.0), (open, 1.0), (&phase("scheduled"), 1.0)]).await;
    stage.player.target_running(&migration).await;
    stage.player.migration_scheduled(&migration).await;
    stage.player.hand_off(&migration).await;
    stage.player.domain_ready(&migration).await;
    let arrived = "ovn_kubevirt_migrations_ended_total{outcome=\"arrived\"}";
    let ended = [(phase("open"), 1.0), (phase("ready"), 1.0), (phase("returning"), 0.0)];
    let ended: Vec<(&str, f64)> = ended.iter().map(|(series, count)| (series.as_str(), *count)).collect();
    counts(&stage.service, &[&[(MOVING, 0.0), (BOUND, 1.0), (open, 0.0), (arrived, 1.0)], &ended[..]].concat()).await;
    stage.player.succeed(&migration).await;
    stage.player.stop("testvm").await;
    counts(&stage.service, &[(UNBOUND, 1.0), (BOUND, 0.0)]).await;
    stage.player.delete_vm("testvm").await;
    let told = [(RETAINED, 1.0), (UNBOUND, 0.0), (USED, used + 1.0), ("ovn_kubevirt_queue_vms", 0.0)];
    let text = counts(&stage.service, &told).await;
    assert_eq!(value(&text, "ovn_kubevirt_queue_age_seconds"), Some(0.0));
    assert_eq!((value(&text, "ovn_kubevirt_leader"), value(&text, "ovn_kubevirt_ready")), (Some(1.0), Some(1.0)));
    assert!(value(&text, "ovn_kubevirt_events_sent_total").is_some_and(|sent| sent >= 1.0), "{text}");
    assert!(value(&text, "process_resident_memory_bytes").is_some_and(|bytes| bytes > 1e6), "{text}");
}

#[tokio::test]
async fn a_vm_that_waits_for_the_database_ages_in_the_queue_and_its_latency_counts_from_its_event() {
    let mut prepared = Stage::build("aging").prepare().await;
    let gate = prepared.gate_to_northbound().await;
    let stage = prepared.start().await;
    stage.make("first").await;
    gate.shut();
    stage.player.create_vm("second", VmOptions::default()).await;
    let age = |text: &str| value(text, "ovn_kubevirt_queue_age_seconds").unwrap_or_default();
    let text = within(Duration::from_secs(30), "the VM has waited for two seconds", || async {
        let text = scrape(&stage.service).await;
        if age(&text) > 2.0 { Ok(text) } else { Err(text) }
    })
    .await;
    // VMs of other tests wait with it: their namespaces are not selected, which is for the decision to find.
    assert!(value(&text, "ovn_kubevirt_queue_vms").is_some_and(|vms| vms >= 1.0), "{text}");
    assert_eq!(value(&text, "ovn_kubevirt_leader"), Some(0.0), "{text}");
    let before = value(&text, "ovn_kubevirt_event_to_commit_seconds_sum").expect("a histogram");
    gate.open();
    stage.port("second").await;
    let reconnects = "ovn_kubevirt_reconnects_total{database=\"northbound\"}";
    let text = counts(&stage.service, &[("ovn_kubevirt_queue_vms", 0.0), ("ovn_kubevirt_leader", 1.0)]).await;
    assert!(value(&text, reconnects).is_some_and(|count| count >= 1.0), "{text}");
    assert_eq!(age(&text), 0.0);
    let latency = value(&text, "ovn_kubevirt_event_to_commit_seconds_sum").expect("a histogram") - before;
    assert!(latency > 2.0, "the latency begins at the event: {latency} s");
}

#[tokio::test]
async fn an_address_with_two_holders_is_a_conflict_of_its_switch_until_one_of_them_goes() {
    let stage = Stage::build("doubled").start().await;
    let port = stage.make("testvm").await;
    counts(&stage.service, &[("ovn_kubevirt_conflicts{switch=\"ovn-default\"}", 0.0)]).await;
    let address = port.addresses.first().expect("an address");
    let ip = address.split_whitespace().nth(1).expect("an IP address");
    // `lsp-set-addresses` refuses it; other programs write the column.
    let addresses = format!("addresses=\"00:00:00:00:00:09 {ip}\"");
    let set = ["set", "logical_switch_port", "foreign", addresses.as_str()];
    stage.northbound.nbctl(&[&["lsp-add", "ovn-default", "foreign", "--"], &set[..]].concat());
    counts(&stage.service, &[("ovn_kubevirt_conflicts{switch=\"ovn-default\"}", 1.0)]).await;
    stage.northbound.nbctl(&["lsp-del", "foreign"]);
    counts(&stage.service, &[("ovn_kubevirt_conflicts{switch=\"ovn-default\"}", 0.0)]).await;
}

#[tokio::test]
async fn a_migration_ends_though_the_answer_to_its_last_transaction_is_lost() {
    let mut prepared = Stage::build("unanswered").northd().prepare().await;
    let gate = prepared.gate_to_northbound().await;
    let stage = prepared.start().await;
    stage.make("testvm").await;
    stage.player.start("testvm", "n1").await;
    counts(&stage.service, &[(BOUND, 1.0)]).await;
    let migration = stage.player.start_migration("testvm", "n2").await;
    stage.player.bind_target(&migration).await;
    let [open, ready] = ["open", "ready"].map(|phase| format!("ovn_kubevirt_migrations{{phase=\"{phase}\"}}"));
    counts(&stage.service, &[(&open, 1.0)]).await;
    gate.shut();
    stage.player.target_running(&migration).await;
    stage.player.migration_scheduled(&migration).await;
    stage.player.hand_off(&migration).await;
    stage.player.domain_ready(&migration).await;
    counts(&stage.service, &[(&ready, 1.0)]).await;
    // The transaction as the database has it.
    let port = stage.name("testvm");
    stage.northbound.nbctl(&["set", "Logical_Switch_Port", &port, "options:requested-chassis=n2"]);
    stage.northbound.nbctl(&["remove", "Logical_Switch_Port", &port, "options", "activation-strategy"]);
    gate.open();
    let arrived = "ovn_kubevirt_migrations_ended_total{outcome=\"arrived\"}";
    counts(&stage.service, &[(&ready, 0.0), (arrived, 1.0)]).await;
}
