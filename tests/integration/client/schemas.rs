//! Schemas: older, newer, converted under a live connection, and values that the database cannot hold.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use ovn_kubevirt::ovn::{LogicalSwitchPort, Northbound as View};
use ovn_kubevirt::ovsdb::{
    Connection, Datum, Mutation, Mutator, Operation, Outcome, Replica, Session, SessionError, Transaction,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::image::Image;
use super::load::{add_ports, update_ports};
use super::writer::connected;
use super::{connect, shared, target};
use crate::support::stage::SUBNET;
use crate::support::{Northbound, Stage, VmOptions, eventually};

/// OVN's own schema.
fn schema() -> Value {
    let text = std::fs::read_to_string("/usr/share/ovn/ovn-nb.ovsschema").expect("OVN's schema");
    serde_json::from_str(&text).expect("JSON")
}

fn columns<'a>(schema: &'a mut Value, table: &str) -> &'a mut Map<String, Value> {
    schema["tables"][table]["columns"].as_object_mut().expect("a table")
}

/// Converts the database while it is served.
#[track_caller]
fn convert(northbound: &Northbound, schema: &Value) {
    let file: PathBuf = northbound.dir().join("converted.ovsschema");
    std::fs::write(&file, schema.to_string()).expect("a file");
    let remote = northbound.members()[northbound.leader()].remote();
    let output = Command::new("ovsdb-client").arg("convert").arg(remote).arg(&file).output().expect("ovsdb-client");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Just the tables and columns that are read, and what leads to them: less than any OVN ever had.
fn least() -> Value {
    let mut whole = schema();
    let mut read: BTreeMap<&str, Vec<&str>> = BTreeMap::from([
        ("Logical_Router", vec!["name", "ports"]),
        ("Forwarding_Group", vec!["vip"]),
        ("DNS", vec!["records"]),
        ("DHCP_Options", vec!["cidr"]),
    ]);
    for table in View::TABLES {
        read.entry(table.name).or_default().extend(table.columns.iter().map(|column| column.name));
    }
    whole["tables"].as_object_mut().expect("tables").retain(|table, _| read.contains_key(table.as_str()));
    for (table, kept) in &read {
        columns(&mut whole, table).retain(|column, _| kept.contains(&column.as_str()));
        // An index over a missing column is dropped.
        if let Some(indexes) = whole["tables"][table].get_mut("indexes").and_then(Value::as_array_mut) {
            let known = |column: &Value| column.as_str().is_some_and(|column| kept.contains(&column));
            indexes.retain(|index| index.as_array().is_some_and(|columns| columns.iter().all(known)));
        }
    }
    whole
}

#[tokio::test]
async fn a_schema_with_only_the_columns_that_are_read_is_enough_and_a_missing_one_is_named() {
    let northbound = Northbound::start().await;
    convert(&northbound, &least());
    northbound.add_switch("s0", &[("subnet", "10.0.0.0/24")]);
    northbound.add_foreign_port("s0", "p0", &["0a:00:00:00:00:01 10.0.0.1"]);
    let (_connection, view) = connect(&northbound).await;
    assert_eq!(Image::of_replica(&view.read()), Image::of_database(&northbound));
    for table in View::TABLES {
        for column in table.columns {
            let mut lacking = least();
            let columns = columns(&mut lacking, table.name);
            columns.remove(column.name);
            // A table has at least one.
            columns.insert("unread".to_owned(), serde_json::json!({"type": "string"}));
            // An index may be over the column.
            if let Some(table) = lacking["tables"][table.name].as_object_mut() {
                table.remove("indexes");
            }
            convert(&northbound, &lacking);
            let error = refused(&northbound).await;
            let expected = [format!("column {}.{} is missing", table.name, column.name)];
            assert_eq!(error, expected);
        }
    }
    let mut tableless = least();
    tableless["tables"].as_object_mut().expect("tables").remove("NB_Global");
    convert(&northbound, &tableless);
    assert_eq!(refused(&northbound).await, ["table NB_Global is missing"]);
}

/// The missing columns in the client's error.
async fn refused(northbound: &Northbound) -> Vec<String> {
    let mut session = Session::new(target(&northbound.remote(), 5), shared());
    match session.connect().await {
        Err(SessionError::Schema(error)) => error.problems,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was connected"),
    }
}

#[tokio::test]
async fn a_table_of_a_newer_ovn_is_read_from_the_conversion_on_and_not_missed_after_the_next() {
    let stage = Stage::build("newer-table").start().await;
    stage.player.create_vm("before", VmOptions::default()).await;
    let before = stage.port("before").await;
    let mut newer = schema();
    let text = json!({"type": "string"});
    newer["tables"]["Logical_Switch_Port_Health_Check"] =
        json!({"columns": {"address": text, "src_ip": text}, "isRoot": true});
    convert(&stage.northbound, &newer);
    stage.northbound.transact(json!([{"op": "insert", "table": "Logical_Switch_Port_Health_Check",
        "row": {"address": "10.16.0.2", "src_ip": "10.16.0.3"}}]));
    let request = || VmOptions::default().annotation("ovn.kubernetes.io/ip_address", "10.16.0.3");
    stage.player.create_vm("after", request()).await;
    stage.event("after", "AddressConflict", &["10.16.0.3", "the health checks of the port with 10.16.0.2"]).await;
    // And back: the address that it kept is free.
    convert(&stage.northbound, &schema());
    stage
        .port_where("after", "has what it names", |port| port.addresses.iter().all(|text| text.ends_with(" 10.16.0.3")))
        .await;
    assert_eq!(stage.port("before").await, before);
}

#[tokio::test]
async fn the_service_survives_conversions_names_missing_columns_and_repairs_lost_values() {
    let stage = Stage::build("converted").start().await;
    stage.player.create_vm("before", VmOptions::default()).await;
    let before = stage.port("before").await;

    let mut newer = schema();
    columns(&mut newer, "Logical_Switch_Port").insert("from_tomorrow".to_owned(), json!({"type": "string"}));
    columns(&mut newer, "NB_Global").insert("from_tomorrow".to_owned(), json!({"type": "integer"}));
    newer["tables"]["From_Tomorrow"] = json!({"columns": {"name": {"type": "string"}}, "isRoot": true});
    convert(&stage.northbound, &newer);
    stage.northbound.transact(json!([{"op": "insert", "table": "From_Tomorrow", "row": {"name": "x"}}]));
    stage.player.create_vm("after", VmOptions::default()).await;
    stage.port("after").await;
    assert_eq!(stage.port("before").await, before);

    let mut lacking = newer.clone();
    columns(&mut lacking, "Logical_Switch_Port").remove("port_security");
    convert(&stage.northbound, &lacking);
    eventually("the service says what lacks", || async {
        match stage.service.http_get("/readyz").await {
            (503, body) if body.contains("column Logical_Switch_Port.port_security is missing") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(stage.service.http_get("/livez").await.0, 200);
    stage.player.create_vm("meanwhile", VmOptions::default()).await;

    // The column is back, and empty: taken as it is, every port would be without its security.
    convert(&stage.northbound, &newer);
    let repaired = |vm: &'static str| stage.port_where(vm, "is secured", |port| port.port_security == port.addresses);
    repaired("meanwhile").await;
    repaired("after").await;
    assert_eq!(repaired("before").await, before);
    assert!(stage.service.is_running());
}

/// A member that still knows the last transaction would send only the later ones, but there was a conversion.
#[tokio::test]
async fn a_conversion_while_the_client_is_away_is_seen_on_a_cluster_too() {
    let northbound = Northbound::start_cluster().await;
    northbound.add_switch("s0", &[("subnet", "10.0.0.0/24")]);
    for port in ["p0", "p1"] {
        northbound.add_foreign_port("s0", port, &["0a:00:00:00:00:01 10.0.0.1"]);
    }
    let view = shared();
    let mut session = Session::new(target(&northbound.remote(), 5), std::sync::Arc::clone(&view));
    let connection = session.connect().await.expect("a connection");
    northbound.nbctl(&["lsp-set-options", "p0", "requested-chassis=hv1"]);
    drop(connection);
    let mut lacking = schema();
    columns(&mut lacking, "Logical_Switch_Port").remove("addresses");
    convert(&northbound, &lacking);
    convert(&northbound, &schema());
    northbound.nbctl(&["lsp-set-options", "p1", "requested-chassis=hv1"]);
    let _connection = connected(&mut session).await;
    let (image, replicated) = (Image::of_database(&northbound), Image::of_replica(&view.read()));
    assert_eq!(replicated, image, "{}", image.difference(&replicated));
}

/// Inserts a port, with the reference of a switch.
fn made(uuid: Uuid, name: &str, switch: Uuid) -> Transaction {
    let row = vec![("name", Datum::One(name.into()))];
    let mutation = Mutation { column: "ports", mutator: Mutator::Insert, value: Datum::Set(vec![uuid.into()]) };
    let operations = vec![
        Operation::Insert { table: "Logical_Switch_Port", uuid, row },
        Operation::Mutate { table: "Logical_Switch", uuid: switch, mutations: vec![mutation] },
    ];
    Transaction { fence: None, operations }
}

async fn missed(connection: &Connection, transaction: &Transaction) -> Vec<usize> {
    match connection.transact(transaction).await {
        Outcome::Committed { missed, .. } => missed,
        other => panic!("{other:?}"),
    }
}

/// The server says of such an insert that it went well.
#[tokio::test]
async fn a_port_without_a_switch_is_collected_in_silence_and_the_outcome_says_so() {
    let northbound = Northbound::start().await;
    let switch: Uuid = northbound.add_switch("s0", &[]).parse().expect("a UUID");
    let (connection, view) = connect(&northbound).await;
    let (here, orphan) = (Uuid::from_u128(1), Uuid::from_u128(2));
    assert_eq!(missed(&connection, &made(here, "p0", switch)).await, Vec::<usize>::new());
    northbound.nbctl(&["ls-del", "s0"]);
    assert_eq!(missed(&connection, &made(orphan, "p1", switch)).await, [1]);
    // The acknowledged changes are in the replica: the switch and both ports are gone.
    assert_eq!(view.read().port_count(), 0);
    assert_eq!(view.read().switches().count(), 0);
    assert_eq!(Image::of_replica(&view.read()), Image::of_database(&northbound));
    // And the UUID is free again.
    let switch: Uuid = northbound.add_switch("s1", &[]).parse().expect("a UUID");
    assert_eq!(missed(&connection, &made(orphan, "p1", switch)).await, Vec::<usize>::new());
    let expected = LogicalSwitchPort { name: "p1".to_owned(), ..LogicalSwitchPort::default() };
    assert_eq!(view.read().port(&orphan).map(|port| port.row.clone()), Some(expected));
}

/// A switch goes at the very moment that a VM is put on it.
#[tokio::test]
async fn the_service_notices_that_a_switch_went_from_under_its_insert_and_serves_the_vm_on_the_next() {
    let stage = Stage::build("orphan").start().await;
    let others = add_ports(&stage.northbound, 0, 1_000, "");
    for round in 0..2 {
        // While the service sleeps, the switch goes and the VM comes. It sees the VM first: before the news of the
        // switch there is much else.
        stage.service.freeze();
        for time in 0..3 {
            update_ports(&stage.northbound, &others, &format!("hv{time}-{}", "x".repeat(1_000)));
        }
        stage.northbound.nbctl(&["ls-del", "ovn-default"]);
        let vm = format!("vm-{round}");
        stage.player.create_vm(&vm, VmOptions::default()).await;
        stage.service.thaw();
        stage.event(&vm, "SwitchNotFound", &["ovn-default"]).await;
        assert_eq!(stage.northbound.port(&stage.name(&vm)), None);
        // Its status follows the database, not the server's answer to the insert.
        let events = stage.namespace.events(&vm).await;
        assert!(events.iter().all(|(_, reason, _)| reason != "AddressAssigned"), "{events:?}");
        stage.northbound.add_switch("ovn-default", &SUBNET);
        for earlier in 0..=round {
            stage.port(&format!("vm-{earlier}")).await;
        }
    }
}
