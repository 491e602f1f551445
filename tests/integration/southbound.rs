//! The southbound database: read with the same client as the northbound, and shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ovn_kubevirt::ovn::Southbound;
use ovn_kubevirt::ovsdb::{Session, Shared, Target};
use serde_json::json;

use crate::support::{Northbound, Service, Stage, VmOptions, eventually};

/// The line of `ports --sb` about one port.
fn state(stage: &Stage, vm: &str) -> String {
    let (nb, sb) = (stage.northbound.remote(), stage.northbound.sb_remote());
    let output = Service::command_line(&["ports", "--nb", &nb, "--sb", &sb]);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let name = stage.name(vm);
    let line = text.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("{name} in\n{text}"));
    line.split("   ").last().unwrap_or_default().trim().to_owned()
}

#[tokio::test]
async fn ports_shows_where_the_southbound_has_each_port() {
    let stage =
        Stage::build("bound").northd().chassis("hv1", "node-1.example").chassis("hv2", "node-2.example").start().await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    stage.port("testvm").await;
    stage.northbound.freeze_northd();
    stage.player.create_vm("late", VmOptions::default()).await;
    stage.port("late").await;
    assert_eq!(state(&stage, "late"), "not in the southbound yet");
    stage.northbound.thaw_northd();
    stage.northbound.sync_southbound();
    assert_eq!(state(&stage, "late"), "unbound");
    stage.northbound.sbctl(&["lsp-bind", &stage.name("testvm"), "hv1"]);
    // northd writes `up` back once it has seen the binding.
    eventually("testvm is on hv1", || async {
        let state = state(&stage, "testvm");
        if state.starts_with("on hv1") { Ok(()) } else { Err(state) }
    })
    .await;
    let chassis = stage.northbound.southbound().rows("Chassis");
    let hv2 = chassis.iter().find(|row| row["name"] == "hv2").expect("the chassis hv2")["_uuid"].clone();
    let prepared = |activated: &[(&str, &str)]| {
        stage.northbound.southbound().transact(json!([
            {"op": "update", "table": "Port_Binding", "where": [["logical_port", "==", stage.name("testvm")]],
             "row": {"additional_chassis": hv2, "options": ["map", activated]}},
        ]));
    };
    stage.northbound.freeze_northd();
    prepared(&[]);
    assert_eq!(state(&stage, "testvm"), "moving hv1 -> hv2 (waiting for the guest)");
    prepared(&[("additional-chassis-activated", "hv2")]);
    assert_eq!(state(&stage, "testvm"), "moving hv1 -> hv2 (activated)");
    stage.northbound.thaw_northd();
}

#[tokio::test]
async fn the_southbound_replica_follows_the_database_through_restarts() {
    let northbound = Stage::build("replica").northd().chassis("hv1", "node-1.example").northbound().await;
    let target = Target {
        remotes: northbound.sb_remote().parse().expect("a remote"),
        tls: None,
        probe_interval: Duration::from_secs(5),
        leader_only: false,
    };
    let shared = Arc::new(Shared::new(Southbound::default()));
    let mut session = Session::new(target, Arc::clone(&shared));
    for round in 0..3 {
        let connection = session.connect().await.expect("the southbound");
        for port in 0..4 {
            northbound.add_foreign_port("ovn-default", &format!("port-{round}-{port}"), &["unknown"]);
        }
        if round > 0 {
            northbound.delete_port(&format!("port-{}-0", round - 1));
        }
        northbound.sync_southbound();
        northbound.sbctl(&["lsp-bind", &format!("port-{round}-1"), "hv1"]);
        eventually("the replica equals the database", || async { equal(&northbound, &shared.read()) }).await;
        northbound.southbound().kill9();
        connection.closed().await;
        northbound.southbound().start_again().await;
    }
}

/// Returns true if the replica agrees with `select`, row by row.
fn equal(northbound: &Northbound, replica: &Southbound) -> Result<(), String> {
    let rows = northbound.southbound().rows("Port_Binding");
    let text = |value: &serde_json::Value| value.as_str().map(ToOwned::to_owned).unwrap_or_default();
    let selected: BTreeMap<String, BTreeSet<String>> = rows
        .iter()
        .map(|row| {
            let chassis = row["chassis"][1].as_str().map(ToOwned::to_owned).into_iter().collect();
            (text(&row["_uuid"][1]) + " " + &text(&row["logical_port"]), chassis)
        })
        .collect();
    let replicated: BTreeMap<String, BTreeSet<String>> = replica
        .bindings()
        .map(|(uuid, row)| {
            (format!("{uuid} {}", row.logical_port), row.chassis.map(|uuid| uuid.to_string()).into_iter().collect())
        })
        .collect();
    if selected == replicated { Ok(()) } else { Err(format!("{selected:#?}\n{replicated:#?}")) }
}
