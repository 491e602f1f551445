//! Chassis rows that are deleted, inserted and duplicated under VMs that stay on their nodes, and OVNs that know no second chassis.

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

use super::{bound, build_with_southbound, run, running, running_with_southbound, stays_bound};
use crate::support::{Northbound, Stage, VmOptions, eventually};

/// As an ovn-controller that exits in order.
fn row_goes(stage: &Stage, chassis: &str) {
    stage.northbound.sbctl(&["chassis-del", chassis]);
}

#[tokio::test]
async fn a_chassis_row_that_goes_leaves_the_ports_of_vms_that_stay_as_they_are() {
    let mut stage = running_with_southbound("row-gone").await;
    row_goes(&stage, "chassis-n1");
    stage.event("testvm", "ChassisNotFound", &["n1", "keeps requested-chassis chassis-n1", "ovn-controller"]).await;
    stays_bound(&stage, "chassis-n1").await;
    stage.restart().await;
    stays_bound(&stage, "chassis-n1").await;
    // The southbound is wiped whole.
    row_goes(&stage, "chassis-n2");
    row_goes(&stage, "chassis-n3");
    stays_bound(&stage, "chassis-n1").await;
    stage.restart().await;
    stays_bound(&stage, "chassis-n1").await;
    // A VM that moves to a node without a chassis is unbound; here its old one has its row again.
    stage.northbound.add_chassis("chassis-n1", "n1.example");
    stage.player.restart("testvm", "n2").await;
    stage.port_where("testvm", "is bound nowhere", |port| port.option("requested-chassis").is_none()).await;
    stage.northbound.add_chassis("chassis-n2", "n2.example");
    bound(&stage, "chassis-n2").await;
}

#[tokio::test]
async fn a_row_that_goes_in_mid_migration_takes_the_second_chassis_away_until_it_is_back() {
    let mut stage = running_with_southbound("row-gone-moving").await;
    let migration = stage.player.start_migration("testvm", "n2").await;
    stage.player.bind_target(&migration).await;
    bound(&stage, "chassis-n1,chassis-n2").await;
    for (chassis, host) in [("chassis-n1", "n1.example"), ("chassis-n2", "n2.example")] {
        row_goes(&stage, chassis);
        bound(&stage, "chassis-n1").await;
        stage.event("testvm", "ChassisNotFound", &[&host[..2]]).await;
        stage.restart().await;
        stays_bound(&stage, "chassis-n1").await;
        stage.northbound.add_chassis(chassis, host);
        bound(&stage, "chassis-n1,chassis-n2").await;
    }
    // The guest arrives while its source is no chassis.
    row_goes(&stage, "chassis-n1");
    bound(&stage, "chassis-n1").await;
    stage.player.target_running(&migration).await;
    stage.player.migration_scheduled(&migration).await;
    stage.player.hand_off(&migration).await;
    stage.player.domain_ready(&migration).await;
    bound(&stage, "chassis-n2").await;
    stage.player.succeed(&migration).await;
    stays_bound(&stage, "chassis-n2").await;
}

#[tokio::test]
async fn of_two_rows_of_one_node_the_port_keeps_its_own_and_follows_when_the_stale_one_goes() {
    let mut stage = running_with_southbound("doubled").await;
    stage.northbound.add_chassis("anew-n1", "n1.example");
    let words = ["n1", "anew-n1, chassis-n1", "on chassis-n1", "ovn-sbctl chassis-del"];
    stage.event("testvm", "ChassisAmbiguous", &words).await;
    stays_bound(&stage, "chassis-n1").await;
    stage.restart().await;
    stays_bound(&stage, "chassis-n1").await;
    // A new VM on that node is on neither, until one of them claims its port.
    stage.player.create_vm("new", VmOptions::default()).await;
    stage.player.start("new", "n1").await;
    stage.event("new", "ChassisAmbiguous", &["anew-n1, chassis-n1"]).await;
    stage.port_where("new", "is bound nowhere", |port| port.option("requested-chassis").is_none()).await;
    stage.northbound.sync_southbound();
    stage.northbound.sbctl(&["lsp-bind", &stage.name("new"), "anew-n1"]);
    stage
        .port_where("new", "is where it was claimed", |port| port.option("requested-chassis") == Some("anew-n1"))
        .await;
    row_goes(&stage, "chassis-n1");
    bound(&stage, "anew-n1").await;
    // A chassis of the node's own name goes before those of its hostname.
    stage.northbound.add_chassis("n1", "n1.example");
    bound(&stage, "n1").await;
}

/// The schema of one of OVN's databases, as this machine's packages have it.
fn schema(file: &str) -> Value {
    let path = Path::new("/usr/share/ovn").join(file);
    serde_json::from_str(&std::fs::read_to_string(path).expect("OVN's schema")).expect("JSON")
}

/// The tables and columns of an older release: without these, a column being `table.column`.
fn older(file: &str, version: &str, without: &[&str]) -> Value {
    let mut schema = schema(file);
    schema["version"] = version.into();
    for name in without {
        let taken = match name.split_once('.') {
            Some((table, column)) => columns(&mut schema, table).remove(column),
            None => schema["tables"].as_object_mut().expect("tables").remove(*name),
        };
        assert!(taken.is_some(), "{name} is in {file}");
    }
    schema
}

fn columns<'a>(schema: &'a mut Value, table: &str) -> &'a mut Map<String, Value> {
    schema["tables"][table]["columns"].as_object_mut().expect("a table")
}

fn old_northbound(version: &str) -> Value {
    older("ovn-nb.ovsschema", version, &["Logical_Switch_Port.mirror_rules", "Mirror", "Chassis_Template_Var"])
}

/// OVN 22.03's, as far as this service reads it.
fn old_southbound() -> Value {
    let without = [
        "Port_Binding.additional_chassis",
        "Port_Binding.additional_encap",
        "Port_Binding.requested_additional_chassis",
        "MAC_Binding.timestamp",
    ];
    older("ovn-sb.ovsschema", "20.21.0", &without)
}

/// Converts a database while it is served.
fn convert(northbound: &Northbound, remote: &str, schema: &Value) {
    let file = northbound.dir().join("converted.ovsschema");
    std::fs::write(&file, schema.to_string()).expect("a file");
    let output = Command::new("ovsdb-client").arg("convert").arg(remote).arg(&file).output().expect("ovsdb-client");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// How often the log says that a port that migrates has one chassis at a time.
fn warnings(stage: &Stage) -> usize {
    stage.service.log().lines().filter(|line| line.contains("one chassis at a time")).count()
}

/// A migration on an OVN that takes no list: the port is the source's until the guest is ready on the target.
async fn follows_with_one_chassis(stage: &Stage, chassis: [&str; 2]) {
    let [source, target] = chassis;
    let migration = stage.player.start_migration("testvm", "n2").await;
    stage.player.bind_target(&migration).await;
    stays_bound(stage, source).await;
    stage.player.target_running(&migration).await;
    stage.player.migration_scheduled(&migration).await;
    stage.player.hand_off(&migration).await;
    stays_bound(stage, source).await;
    stage.player.domain_ready(&migration).await;
    bound(stage, target).await;
    stage.player.succeed(&migration).await;
    stays_bound(stage, target).await;
}

#[tokio::test]
async fn on_an_ovn_without_lists_the_port_follows_with_one_chassis_until_it_is_upgraded() {
    for (version, word) in [("6.1.0", "older than 22.09"), ("6.3.0", "--sb")] {
        let prepared = Stage::build(&format!("nb-{}", version.replace('.', "-"))).northd().prepare().await;
        prepared.northbound.kill9_northd();
        convert(&prepared.northbound, &prepared.northbound.remote(), &old_northbound(version));
        let stage = prepared.start().await;
        run(&stage, "n1").await;
        follows_with_one_chassis(&stage, ["n1", "n2"]).await;
        assert_eq!(warnings(&stage), 1, "{}", stage.service.log());
        assert!(stage.service.log().contains(word), "{}", stage.service.log());
        // It is upgraded in the middle of a migration.
        let migration = stage.player.start_migration("testvm", "n3").await;
        stage.player.bind_target(&migration).await;
        stays_bound(&stage, "n2").await;
        convert(&stage.northbound, &stage.northbound.remote(), &schema("ovn-nb.ovsschema"));
        stage.northbound.start_northd().await;
        bound(&stage, "n2,n3").await;
        assert_eq!(warnings(&stage), 1, "{}", stage.service.log());
    }
}

#[tokio::test]
async fn a_southbound_without_additional_chassis_is_read_and_its_ports_follow_with_one() {
    let prepared = build_with_southbound("sb-22-03").prepare().await;
    prepared.northbound.kill9_northd();
    convert(&prepared.northbound, &prepared.northbound.sb_remote(), &old_southbound());
    let stage = prepared.start().await;
    run(&stage, "chassis-n1").await;
    follows_with_one_chassis(&stage, ["chassis-n1", "chassis-n2"]).await;
    assert_eq!(warnings(&stage), 1, "{}", stage.service.log());
    let migration = stage.player.start_migration("testvm", "n3").await;
    stage.player.bind_target(&migration).await;
    stays_bound(&stage, "chassis-n2").await;
    convert(&stage.northbound, &stage.northbound.sb_remote(), &schema("ovn-sb.ovsschema"));
    bound(&stage, "chassis-n2,chassis-n3").await;
}

/// An upgrade the other way round: an OVN that takes lists is rolled back in mid-migration.
#[tokio::test]
async fn a_list_is_taken_back_when_ovn_is_rolled_back_to_one_without() {
    let stage = running("rolled-back").await;
    let migration = stage.player.start_migration("testvm", "n2").await;
    stage.player.bind_target(&migration).await;
    bound(&stage, "n1,n2").await;
    stage.northbound.kill9_northd();
    convert(&stage.northbound, &stage.northbound.remote(), &old_northbound("6.1.0"));
    bound(&stage, "n1").await;
    eventually("the log says so once", || async {
        if warnings(&stage) == 1 { Ok(()) } else { Err(stage.service.log()) }
    })
    .await;
}
