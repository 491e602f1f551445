//! The OVSDB client and its replica on a real server, through failures of either.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ovn_kubevirt::contract::VmKey;
use ovn_kubevirt::ovn::{Addresses, Elements, LogicalSwitchPort, Northbound as Replica};
use ovn_kubevirt::ovsdb::{
    Connection, Datum, Map, Operation, Outcome, RejectionKind, Session, Shared, Target, Transaction,
};
use ovn_kubevirt::plan::{Placed, PortChange};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Northbound, Port, eventually};

mod histories;
mod image;
mod load;
mod rolled_back;
mod schemas;
mod traps;
mod writer;

fn target(remotes: &str, probe_seconds: u64) -> Target {
    let probe_interval = Duration::from_secs(probe_seconds);
    Target { remotes: remotes.parse().expect("remotes"), tls: None, probe_interval, leader_only: true }
}

fn shared() -> Arc<Shared<Replica>> {
    Arc::new(Shared::new(Replica::new("default")))
}

async fn connect(northbound: &Northbound) -> (Connection, Arc<Shared<Replica>>) {
    let shared = shared();
    let mut session = Session::new(target(&northbound.remote(), 5), Arc::clone(&shared));
    (session.connect().await.expect("a connection"), shared)
}

/// A small generator of numbers (a linear congruence): the same for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        let count = u64::try_from(of.len()).expect("few");
        of[usize::try_from(self.below(count)).expect("few")]
    }
}

const SWITCHES: [&str; 3] = ["s0", "s1", "s2"];
const PORTS: [&str; 6] = ["p0", "p1", "p2", "p3", "p4", "p5"];
const ADDRESSES: [&str; 6] = [
    "0a:00:00:00:00:01 10.0.0.1",
    "0a:00:00:00:00:02 10.0.0.2 fd00::2",
    "dynamic",
    "unknown",
    "0a:00:00:00:00:01",
    "10.0.0.7",
];

/// Some transaction of another program. Many of them are refused, as they should be.
fn any_transaction(numbers: &mut Numbers) -> Value {
    let (port, switch) = (numbers.pick(&PORTS), numbers.pick(&SWITCHES));
    let address = numbers.pick(&ADDRESSES);
    let vm = format!("n/{}", numbers.pick(&["a", "b", "c"]));
    let marks = json!([
        "map",
        [
            ["vendor", "ovn-kubevirt"],
            ["ovn-kubevirt.io/instance", numbers.pick(&["default", "other"])],
            ["ovn-kubevirt.io/vm", vm],
            ["ovn-kubevirt.io/network", numbers.pick(&["default", "net1"])]
        ]
    ]);
    let named = |table: &str, name: &str| json!({"table": table, "where": [["name", "==", name]]});
    let merge = |mut target: Value, more: Value| {
        for (key, value) in more.as_object().expect("an object") {
            target[key] = value.clone();
        }
        target
    };
    let on_port = |more: Value| merge(named("Logical_Switch_Port", port), more);
    let on_switch = |more: Value| merge(named("Logical_Switch", switch), more);
    match numbers.below(12) {
        0 => json!([{"op": "insert", "table": "Logical_Switch", "row": {"name": switch}}]),
        1 => json!([on_switch(json!({"op": "delete"}))]),
        2 | 3 => json!([
            {"op": "insert", "table": "Logical_Switch_Port", "uuid-name": "lsp",
             "row": {"name": port, "addresses": address, "external_ids": marks}},
            on_switch(json!({"op": "mutate", "mutations": [["ports", "insert", ["named-uuid", "lsp"]]]})),
        ]),
        4 => json!([on_port(json!({"op": "update", "row": {"addresses": ["set", [address]], "external_ids": marks}}))]),
        5 => json!([on_port(json!({"op": "mutate", "mutations": [["addresses", "insert", address]]}))]),
        6 => json!([on_port(
            json!({"op": "mutate", "mutations": [["options", "insert", ["map", [["requested-chassis", vm]]]]]})
        )]),
        7 => json!([on_port(json!({"op": "mutate", "mutations": [["external_ids", "delete", ["set", ["vendor"]]]]}))]),
        8 => json!([on_port(json!({"op": "update", "row": {"type": "router", "addresses": "router",
            "options": ["map", [["router-port", "r0"]]]}}))]),
        9 => json!([on_switch(json!({"op": "update", "row": {"other_config": ["map", [["subnet", "10.0.0.0/24"]]]}}))]),
        10 => json!([
            {"op": "insert", "table": "Logical_Router_Port", "uuid-name": "lrp",
             "row": {"name": "r0", "mac": "0a:00:00:00:00:09", "networks": "10.0.0.9/24"}},
            {"op": "insert", "table": "Logical_Router", "row": {"name": "r", "ports": ["named-uuid", "lrp"]}},
        ]),
        // An unreferenced port is collected: its switch is deleted, or drops the reference.
        _ => json!([on_switch(json!({"op": "update", "row": {"ports": ["set", []]}}))]),
    }
}

/// Returns true if the replica agrees with `select`, and its indexes with its rows.
fn equal(northbound: &Northbound, replica: &Replica) -> Result<(), String> {
    let name = |uuid: Uuid| replica.switch(&uuid).map(|row| row.name.clone());
    let mut replicated: Vec<_> = replica
        .ports()
        .map(|port| {
            let LogicalSwitchPort {
                name,
                kind,
                addresses,
                port_security,
                options,
                external_ids,
                dynamic_addresses,
                dhcpv4_options: _,
                dhcpv6_options: _,
            } = port.row.clone();
            let pairs = |map: &Map| map.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            let texts = |elements: Elements| elements.iter().map(Cow::into_owned).collect::<BTreeSet<String>>();
            let strings: (BTreeMap<_, _>, BTreeMap<_, _>) = (pairs(&options), pairs(external_ids.map()));
            (port.uuid.to_string(), name, kind, texts(addresses), texts(port_security), strings, dynamic_addresses)
        })
        .collect();
    let ports = northbound.ports();
    let mut selected: Vec<_> = ports
        .iter()
        .cloned()
        .map(|port| {
            // Of maps, keys that are not read are not kept.
            let (mut options, mut external_ids) = (port.options, port.external_ids);
            options.retain(|key, _| ["requested-chassis", "router-port"].contains(&key.as_str()));
            external_ids.retain(|key, _| key == "vendor" || key.starts_with("ovn-kubevirt.io/"));
            let strings = (options, external_ids);
            (port.uuid, port.name, port.r#type, port.addresses, port.port_security, strings, port.dynamic_addresses)
        })
        .collect();
    replicated.sort();
    selected.sort();
    if replicated != selected {
        return Err(format!("the rows differ:\n{selected:#?}\n{replicated:#?}"));
    }
    for Port { uuid, name: port, switches, .. } in &ports {
        let uuid: Uuid = uuid.parse().expect("a UUID");
        let on = replica.port(&uuid).and_then(|port| port.switch).and_then(name);
        if !on.as_ref().map_or(switches.is_empty(), |on| switches.contains(on)) {
            return Err(format!("{port} is on {switches:?}, not on {on:?}"));
        }
    }
    // The indexes are those of a replica that has just come.
    for vm in ["a", "b", "c"].map(|name| VmKey::new("n", name)) {
        let ours: BTreeSet<String> = replica.ports_of(&vm).map(|(_, port)| port.row.name.clone()).collect();
        let marked: BTreeSet<String> = ports
            .iter()
            .filter(|port| {
                port.external_id("ovn-kubevirt.io/vm") == Some(&vm.to_string())
                    && port.external_id("vendor") == Some("ovn-kubevirt")
                    && port.external_id("ovn-kubevirt.io/instance") == Some("default")
            })
            .map(|port| port.name.clone())
            .collect();
        if ours != marked {
            return Err(format!("{vm} has {marked:?}, not {ours:?}"));
        }
    }
    for port in replica.ports().filter(|port| port.row.kind.is_empty()) {
        let Some(switch) = port.switch else { continue };
        for address in port.row.addresses.iter().filter_map(|text| text.parse::<Addresses>().ok()) {
            if let Some(ip) = address.ips().find(|ip| !replica.holders(&switch, *ip).contains(&port.uuid)) {
                return Err(format!("{ip} is not held by {}", port.row.name));
            }
        }
    }
    Ok(())
}

/// How many times longer than usual: `make soak` says.
fn soak() -> u64 {
    std::env::var("OVN_KUBEVIRT_SOAK").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replica_equals_the_database_after_any_transactions_of_several_writers_and_resyncs() {
    for round in 0..2 * soak() {
        let northbound = Arc::new(Northbound::start().await);
        let shared = shared();
        let mut session = Session::new(target(&northbound.remote(), 5), Arc::clone(&shared));
        let mut connection = session.connect().await.expect("a connection");
        for phase in 0..4 {
            let writers: Vec<_> = (0..3)
                .map(|writer| {
                    let northbound = Arc::clone(&northbound);
                    tokio::task::spawn_blocking(move || {
                        let mut numbers = Numbers(round * 1_000 + phase * 10 + writer);
                        let done = (0..150).filter(|_| northbound.try_transact(any_transaction(&mut numbers)).is_ok());
                        done.count()
                    })
                })
                .collect();
            if phase == 2 {
                // Disconnected while they write: the next sync finds the changes.
                drop(connection);
                for writer in writers {
                    assert!(writer.await.expect("a writer") > 20);
                }
                connection = session.connect().await.expect("a connection");
            } else {
                for writer in writers {
                    assert!(writer.await.expect("a writer") > 20);
                }
            }
            eventually("the replica equals the database", || async { equal(&northbound, &shared.read()) }).await;
            if phase == 1 {
                northbound.kill9();
                connection.closed().await;
                northbound.start_again().await;
                shared.write().take_changes();
                connection = session.connect().await.expect("a connection");
                // The server sent everything again, and no row had changed.
                assert!(!session.resumed());
                assert_eq!(shared.write().take_changes().vms, BTreeSet::new());
            }
        }
        drop(connection);
    }
}

fn insert(uuid: Uuid, name: &str) -> Operation {
    Operation::Insert { table: "Logical_Switch_Port", uuid, row: vec![("name", Datum::One(name.into()))] }
}

#[tokio::test]
async fn a_repeated_insert_is_refused_and_an_unreferenced_row_is_collected() {
    let northbound = Northbound::start().await;
    let switch: Uuid = northbound.add_switch("s0", &[]).trim().parse().expect("a UUID");
    let (connection, shared) = connect(&northbound).await;
    let uuid = Uuid::from_u128(7);
    let orphan = Transaction { fence: None, operations: vec![insert(uuid, "orphan")] };
    let outcome = connection.transact(&orphan).await;
    assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
    assert_eq!((northbound.ports().len(), shared.read().port_count()), (0, 0));
    // The service inserts a row together with its reference, so the row stays.
    let row = LogicalSwitchPort { name: "p0".to_owned(), ..LogicalSwitchPort::default() };
    let change = PortChange { uuid, before: None, after: Some(Placed { switch, row }) };
    let made = Transaction { fence: None, operations: change.operations() };
    assert!(matches!(connection.transact(&made).await, Outcome::Committed { .. }));
    assert_eq!(shared.read().port_named("p0").map(|port| port.uuid), Some(uuid));
    match connection.transact(&made).await {
        Outcome::Rejected(rejection) => {
            assert_eq!(rejection.operation, Some(0), "{rejection}");
            assert_ne!(rejection.kind, RejectionKind::TimedOut, "{rejection}");
            assert!(rejection.to_string().contains("duplicate uuid"), "{rejection}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(northbound.ports().len(), 1);
}

/// A first sync of 70,000 ports, in a build that is slow on purpose, takes longer than either side's probe.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_is_not_cut_off_by_the_probes_of_either_side() {
    let northbound = Northbound::start().await;
    northbound.add_switch("s0", &[]);
    let switch = northbound.rows("Logical_Switch")[0]["_uuid"].clone();
    for batch in 0..70 {
        let uuids: Vec<Uuid> = (0..1_000).map(|_| Uuid::new_v4()).collect();
        let mut operations: Vec<Value> = uuids
            .iter()
            .enumerate()
            .map(|(index, uuid)| {
                let (name, mac) = (
                    format!("port-{batch}-{index}"),
                    format!("0a:00:00:{batch:02x}:{:02x}:{:02x}", index / 256, index % 256),
                );
                let notes: Vec<[String; 2]> = (0..16).map(|note| [format!("note-{note}"), name.repeat(3)]).collect();
                json!({"op": "insert", "table": "Logical_Switch_Port", "uuid": uuid,
                       "row": {"name": name, "addresses": mac, "external_ids": ["map", notes]}})
            })
            .collect();
        let references: Vec<Value> = uuids.iter().map(|uuid| json!(["uuid", uuid])).collect();
        operations.push(json!({"op": "mutate", "table": "Logical_Switch", "where": [["_uuid", "==", switch]],
                               "mutations": [["ports", "insert", ["set", references]]]}));
        northbound.transact(Value::Array(operations));
    }
    let remote = northbound.probing_tcp_remote(1).await;
    let shared = shared();
    let mut session = Session::new(target(&remote, 1), Arc::clone(&shared));
    let connection = session.connect().await.expect("a connection");
    assert_eq!(shared.read().port_count(), 70_000);
    // And it goes on: the server's next probes are answered, and so are ours.
    tokio::time::timeout(Duration::from_secs(4), connection.closed()).await.expect_err("the connection stays");
}

/// The schema is converted under a live connection: to one with more in it, and to one that lacks a column.
#[tokio::test]
async fn a_conversion_is_survived_where_the_schema_still_fits_and_named_where_not() {
    let northbound = Northbound::start().await;
    northbound.add_switch("s0", &[]);
    northbound.add_foreign_port("s0", "p0", &["unknown"]);
    let shared = shared();
    let mut session = Session::new(target(&northbound.remote(), 5), Arc::clone(&shared));
    let connection = session.connect().await.expect("a connection");
    let schema = std::fs::read_to_string("/usr/share/ovn/ovn-nb.ovsschema").expect("OVN's schema");
    let mut schema: Value = serde_json::from_str(&schema).expect("JSON");
    let convert = |schema: &Value| {
        let file = northbound.dir().join("converted.ovsschema");
        std::fs::write(&file, schema.to_string()).expect("a file");
        let mut command = std::process::Command::new("ovsdb-client");
        let output = command.arg("convert").arg(northbound.remote()).arg(&file).output().expect("ovsdb-client");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let columns = "/tables/Logical_Switch_Port/columns";
    schema.pointer_mut(columns).expect("columns")["from_tomorrow"] = json!({"type": "string"});
    convert(&schema);
    assert_eq!(connection.closed().await.to_string(), "the database was converted to another schema");
    let connection = session.connect().await.expect("it still fits");
    northbound.add_foreign_port("s0", "p1", &["unknown"]);
    eventually("the replica goes on", || async { equal(&northbound, &shared.read()) }).await;
    let lacking = {
        let mut schema = schema.clone();
        schema.pointer_mut(columns).and_then(Value::as_object_mut).expect("columns").remove("options");
        schema
    };
    convert(&lacking);
    connection.closed().await;
    let error = session.connect().await.map(drop).expect_err("it lacks a column").to_string();
    assert!(error.contains("column Logical_Switch_Port.options is missing"), "{error}");
    convert(&schema);
    session.connect().await.map(drop).expect("it fits again");
    equal(&northbound, &shared.read()).expect("the replica equals the database");
}
