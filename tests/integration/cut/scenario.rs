//! The scenario while connections are cut: a database at the start, changes of VMs step by step, and after each step
//! the rows that must be there, column by column.

use std::collections::{BTreeMap, BTreeSet};

use ovn_kubevirt::contract::port_uuid;
use ovn_kubevirt::kubevirt::{Change, Kind};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::raft_log::Committed;
use crate::support::{Northbound, Port, VmOptions, in_process, objects};

/// The key of our epoch in `NB_Global.external_ids`.
const EPOCH: &str = "ovn-kubevirt.io/epoch.default";
/// The key of the cluster that the instance belongs to, there.
const CLUSTER: &str = "ovn-kubevirt.io/cluster.default";
/// The switch of VMs that name none.
pub(super) const DEFAULT_SWITCH: &str = "blue";
pub(super) const BLUE: Uuid = Uuid::from_u128(0xb1);
const RED: Uuid = Uuid::from_u128(0x2ed);

/// The leader before this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// None.
    Fresh,
    /// A process that has ended: its epoch is in the database.
    Successor,
}

/// Puts the database into the state that every case begins with.
pub(super) fn reset(northbound: &Northbound, start: Start) {
    let all = |table: &str| json!({"op": "delete", "table": table, "where": []});
    // The epoch is new: were there still anything of the case before, it would be fenced off.
    let epoch = format!("1000.{}", Uuid::new_v4().simple());
    // The cluster is known already: the first epoch's transaction is as long as the next one's.
    let epoch = json!(["map", [[EPOCH, epoch], [CLUSTER, in_process::CLUSTER]]]);
    let global = |external_ids: &Value| json!({"op": "update", "table": "NB_Global", "where": [], "row": {"external_ids": external_ids}});
    northbound.transact(json!([all("Logical_Switch"), global(&epoch)]));
    let found = found();
    let mut operations: Vec<Value> = found.iter().map(insert).collect();
    let switches = [
        (BLUE, "blue", [("subnet", "10.16.0.0/24"), ("exclude_ips", "10.16.0.1")]),
        (RED, "red", [("subnet", "10.17.0.0/24"), ("exclude_ips", "10.17.0.1")]),
    ];
    for (uuid, name, other_config) in switches {
        let ports = found.iter().filter(|port| port.switches == [name]);
        let ports: Vec<Value> = ports.map(|port| json!(["uuid", port.uuid])).collect();
        let row = json!({"name": name, "other_config": ["map", other_config], "ports": ["set", ports]});
        operations.push(json!({"op": "insert", "table": "Logical_Switch", "uuid": uuid, "row": row}));
    }
    northbound.transact(Value::Array(operations));
    if start == Start::Fresh {
        northbound.transact(json!([global(&json!(["map", []]))]));
    }
}

fn insert(port: &Port) -> Value {
    let row = json!({
        "name": port.name, "addresses": ["set", port.addresses], "port_security": ["set", port.port_security],
        "options": ["map", Vec::from_iter(&port.options)],
        "external_ids": ["map", Vec::from_iter(&port.external_ids)],
    });
    json!({"op": "insert", "table": "Logical_Switch_Port", "uuid": port.uuid, "row": row})
}

/// The ports that are there at the start: two of others, and three of ours, of which one has lost its VM.
fn found() -> Vec<Port> {
    let mut ports = others();
    ports.extend([steady(), runs("n1"), ours("orphan", "orphan-1", "0a:58:0a:10:00:05 10.16.0.5", "blue")]);
    ports
}

/// A port without marks, and one of another instance for a VM of the same name as one of ours.
fn others() -> Vec<Port> {
    let mut printer = port(Uuid::from_u128(0xf1), "printer", "0a:00:00:00:00:03 10.16.0.3", "blue");
    printer.port_security.clear();
    printer.options.insert("theirs".to_owned(), "1".to_owned());
    let mut other = port(Uuid::from_u128(0xf2), "other", "0a:58:0a:10:00:04 10.16.0.4", "blue");
    other.external_ids = marks("early", "early-1", "other");
    vec![printer, other]
}

fn steady() -> Port {
    ours("steady", "steady-1", "0a:58:0a:10:00:02 10.16.0.2", "blue")
}

fn runs(node: &str) -> Port {
    on(ours("runs", "runs-1", "0a:58:0a:10:00:06 10.16.0.6", "blue"), node)
}

/// A port of ours, as the contract has it.
fn ours(vm: &str, uid: &str, addresses: &str, switch: &str) -> Port {
    let name = format!("{vm}.ns");
    let uuid = port_uuid("default", &name);
    Port { external_ids: marks(vm, uid, "default"), ..port(uuid, &name, addresses, switch) }
}

fn on(mut port: Port, node: &str) -> Port {
    port.options.insert("requested-chassis".to_owned(), node.to_owned());
    port
}

fn port(uuid: Uuid, name: &str, addresses: &str, switch: &str) -> Port {
    Port {
        uuid: uuid.to_string(),
        name: name.to_owned(),
        r#type: String::new(),
        addresses: BTreeSet::from([addresses.to_owned()]),
        dynamic_addresses: None,
        port_security: BTreeSet::from([addresses.to_owned()]),
        options: BTreeMap::new(),
        external_ids: BTreeMap::new(),
        enabled: None,
        up: None,
        dhcpv4_options: None,
        dhcpv6_options: None,
        ha_chassis_group: None,
        mirror_rules: BTreeSet::new(),
        parent_name: None,
        tag: None,
        tag_request: None,
        switches: vec![switch.to_owned()],
    }
}

fn marks(vm: &str, uid: &str, instance: &str) -> BTreeMap<String, String> {
    let marks = [
        ("vendor", "ovn-kubevirt".to_owned()),
        ("ovn-kubevirt.io/instance", instance.to_owned()),
        ("ovn-kubevirt.io/vm", format!("ns/{vm}")),
        ("ovn-kubevirt.io/vm-uid", uid.to_owned()),
        ("ovn-kubevirt.io/network", "default".to_owned()),
    ];
    marks.map(|(key, value)| (key.to_owned(), value)).into()
}

/// Changes that come together, and the rows that must be there in the end.
pub(super) struct Step {
    pub(super) changes: Vec<Change>,
    pub(super) ports: Vec<Port>,
}

/// How the changes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Each step when the one before has been done, with or without a connection.
    Patient,
    /// All at once from the cut on: a change that was not made yet may have become needless. VMs ask for the addresses that they
    /// would have been given, since those depend on the order.
    Hasty,
}

impl Pace {
    fn asks(self, address: &'static str) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Patient => Vec::new(),
            Self::Hasty => vec![("ip_address", address)],
        }
    }
}

/// The whole scenario.
pub(super) fn steps(pace: Pace) -> Vec<Step> {
    vec![lists(pace), creations(pace), moves(pace), reversals(), rebirths(pace)]
}

/// The watches list the objects: one VM has no port yet, one port no VM any more.
fn lists(pace: Pace) -> Step {
    let mut changes: Vec<Change> = Kind::ALL.map(Change::ListBegins).into();
    changes.extend([Change::Namespace(Box::new(read(json!({"name": "ns"}))))]);
    changes.extend([vm("steady", "steady-1", &[]), vm("early", "early-1", &pace.asks("10.16.0.7"))]);
    changes.extend([vm("runs", "runs-1", &[]), run("runs-1", "n1", None, &[]), launcher("runs-1", "n1")]);
    changes.extend(Kind::ALL.map(Change::ListEnds));
    // The address of the orphan is free only when the orphan has gone.
    let early = ours("early", "early-1", "0a:58:0a:10:00:07 10.16.0.7", "blue");
    Step { changes, ports: with_others([steady(), runs("n1"), early]) }
}

/// Several VMs at once, one with an address of its own, one on another switch; and a migration begins.
fn creations(pace: Pace) -> Step {
    let changes = vec![
        launcher("runs-1", "n2"),
        vm("a", "a-1", &pace.asks("10.16.0.5")),
        vm("b", "b-1", &pace.asks("10.16.0.8")),
        vm("c", "c-1", &[("ip_address", "10.16.0.20")]),
        vm("d", "d-1", &[vec![("logical_switch", "red")], pace.asks("10.17.0.2")].concat()),
    ];
    let ports = [
        ours("a", "a-1", "0a:58:0a:10:00:05 10.16.0.5", "blue"),
        ours("b", "b-1", "0a:58:0a:10:00:08 10.16.0.8", "blue"),
        ours("c", "c-1", "0a:58:0a:10:00:14 10.16.0.20", "blue"),
        ours("d", "d-1", "0a:58:0a:11:00:02 10.17.0.2", "red"),
        ours("early", "early-1", "0a:58:0a:10:00:07 10.16.0.7", "blue"),
        steady(),
        runs("n1"),
    ];
    Step { changes, ports: with_others(ports) }
}

/// The migration's guest runs on the target, another VM starts, and a stopped one gets another address.
fn moves(pace: Pace) -> Step {
    let changes = vec![
        run("runs-1", "n1", Some("launcher-runs-n2"), &[]),
        run("a-1", "n1", None, &pace.asks("10.16.0.5")),
        launcher("a-1", "n1"),
        vm("c", "c-1", &[("ip_address", "10.16.0.21")]),
    ];
    let ports = [
        on(ours("a", "a-1", "0a:58:0a:10:00:05 10.16.0.5", "blue"), "n1"),
        ours("b", "b-1", "0a:58:0a:10:00:08 10.16.0.8", "blue"),
        // A MAC that stands is kept.
        ours("c", "c-1", "0a:58:0a:10:00:14 10.16.0.21", "blue"),
        ours("d", "d-1", "0a:58:0a:11:00:02 10.17.0.2", "red"),
        ours("early", "early-1", "0a:58:0a:10:00:07 10.16.0.7", "blue"),
        steady(),
        runs("n2"),
    ];
    Step { changes, ports: with_others(ports) }
}

/// One goes, one gets the address back that it had, one changes switches, and one migrates on.
fn reversals() -> Step {
    let changes = vec![
        gone(Kind::Vm, "b"),
        vm("c", "c-1", &[("ip_address", "10.16.0.20")]),
        vm("d", "d-1", &[("logical_switch", "blue"), ("ip_address", "10.16.0.30")]),
        gone(Kind::Launcher, "launcher-runs-n1"),
        launcher("runs-1", "n3"),
        run("runs-1", "n2", Some("launcher-runs-n3"), &[]),
    ];
    let ports = [
        on(ours("a", "a-1", "0a:58:0a:10:00:05 10.16.0.5", "blue"), "n1"),
        ours("c", "c-1", "0a:58:0a:10:00:14 10.16.0.20", "blue"),
        ours("d", "d-1", "0a:58:0a:10:00:1e 10.16.0.30", "blue"),
        ours("early", "early-1", "0a:58:0a:10:00:07 10.16.0.7", "blue"),
        steady(),
        runs("n3"),
    ];
    Step { changes, ports: with_others(ports) }
}

/// A deleted VM is recreated, and two are deleted: a late change of the old VM must not meet the new one.
fn rebirths(pace: Pace) -> Step {
    let changes = vec![
        vm("b", "b-2", &pace.asks("10.16.0.8")),
        gone(Kind::Launcher, "launcher-a-n1"),
        gone(Kind::Run, "a"),
        gone(Kind::Vm, "a"),
        gone(Kind::Vm, "early"),
    ];
    let ports = [
        ours("b", "b-2", "0a:58:0a:10:00:08 10.16.0.8", "blue"),
        ours("c", "c-1", "0a:58:0a:10:00:14 10.16.0.20", "blue"),
        ours("d", "d-1", "0a:58:0a:10:00:1e 10.16.0.30", "blue"),
        steady(),
        runs("n3"),
    ];
    Step { changes, ports: with_others(ports) }
}

/// The effects of the scenario, if each change is made once: for each row its writes, in their order. A row that is
/// not named here is not written at all.
pub(super) fn effects() -> Effects {
    let once = [
        ("orphan.ns", vec!["leaves blue", "deleted"]),
        ("early.ns", vec!["enters blue", "inserted", "leaves blue", "deleted"]),
        ("a.ns", vec!["enters blue", "inserted", "options: requested-chassis n1", "leaves blue", "deleted"]),
        ("b.ns", vec!["enters blue", "inserted", "leaves blue", "deleted", "enters blue", "inserted"]),
        ("c.ns", vec!["enters blue", "inserted", "addresses, port_security", "addresses, port_security"]),
        ("d.ns", vec!["enters red", "inserted", "enters blue", "leaves red", "addresses, port_security"]),
        ("runs.ns", vec!["options: requested-chassis n2", "options: requested-chassis n3"]),
    ];
    once.map(|(row, effects)| (row.to_owned(), effects.into_iter().map(ToOwned::to_owned).collect())).into()
}

/// A VM without a possible port: the writer reports it when it has decided all VMs before it.
pub(super) fn hopeless(number: usize) -> Change {
    vm("hopeless", "hopeless-1", &[("logical_switch", &hopeless_switch(number))])
}

/// The switch that it asks for.
pub(super) fn hopeless_switch(number: usize) -> String {
    format!("nowhere-{number}")
}

fn with_others<const N: usize>(ours: [Port; N]) -> Vec<Port> {
    let mut ports = others();
    ports.extend(ours);
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    ports
}

fn vm_object(name: &str, uid: &str, annotations: &[(&str, &str)]) -> Value {
    let with = |options: VmOptions, (key, value): &(&str, &str)| {
        options.annotation(&format!("ovn.kubernetes.io/{key}"), value)
    };
    let mut vm = objects::vm(name, &annotations.iter().fold(VmOptions::default(), with));
    objects::merge(&mut vm["metadata"], &json!({"namespace": "ns", "uid": uid}));
    vm
}

/// The VMI of a VM, whose UID begins with its name.
fn vmi_object(uid: &str, annotations: &[(&str, &str)]) -> Value {
    let vm = uid.split('-').next().unwrap_or(uid);
    let mut vmi = objects::vmi_of(&vm_object(vm, uid, annotations));
    objects::merge(&mut vmi["metadata"], &json!({"namespace": "ns", "uid": format!("run-of-{uid}")}));
    vmi
}

fn vm(name: &str, uid: &str, annotations: &[(&str, &str)]) -> Change {
    Change::Vm(read(vm_object(name, uid, annotations)))
}

/// A VMI on a node; the guest is ready on a migration's target, where one is named.
fn run(uid: &str, node: &str, ready_on: Option<&str>, annotations: &[(&str, &str)]) -> Change {
    let mut vmi = vmi_object(uid, annotations);
    vmi["status"] = json!({"nodeName": node});
    if let Some(pod) = ready_on {
        vmi["status"]["migrationState"] =
            json!({"targetPod": pod, "targetNodeDomainReadyTimestamp": "2026-11-23T05:22:01Z"});
    }
    Change::Run(read(vmi))
}

fn launcher(uid: &str, node: &str) -> Change {
    let vmi = vmi_object(uid, &[]);
    let mut pod = objects::launcher_pod(&vmi);
    pod["metadata"]["name"] =
        json!(format!("launcher-{}-{node}", vmi["metadata"]["name"].as_str().unwrap_or_default()));
    pod["spec"]["nodeName"] = json!(node);
    pod["status"] = json!({"phase": "Running"});
    Change::Launcher(read(pod))
}

fn gone(kind: Kind, name: &str) -> Change {
    Change::Gone(kind, read(json!({"name": name, "namespace": "ns"})))
}

fn read<T: DeserializeOwned>(object: Value) -> T {
    let shown = object.to_string();
    serde_json::from_value(object).unwrap_or_else(|error| panic!("{error}: {shown}"))
}

/// For each port by its name, the changes of its row.
pub(super) type Effects = BTreeMap<String, Vec<String>>;

/// The committed changes of ports, and the epochs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) effects: Effects,
    pub(super) epochs: Vec<String>,
    /// The differences themselves, row by row: two runs that did the same have the same.
    pub(super) differences: BTreeMap<String, Vec<String>>,
}

/// Reads the transactions since the start of a case.
///
/// # Panics
/// When anything else than ports, their places on switches and our epoch was written.
pub(super) fn written(committed: &[Committed]) -> Written {
    let mut written = Written::default();
    let mut rows: BTreeMap<String, String> = found().into_iter().map(|port| (port.uuid, port.name)).collect();
    let mut places: BTreeSet<(String, String)> = BTreeSet::new();
    places.extend(found().into_iter().map(|port| (port.uuid, port.switches[0].clone())));
    for transaction in committed {
        let ports = transaction.get("Logical_Switch_Port").and_then(Value::as_object).into_iter().flatten();
        let ports: Vec<_> = ports.collect();
        for (uuid, row) in &ports {
            if let Some(name) = row["name"].as_str() {
                rows.insert((*uuid).clone(), name.to_owned());
            }
        }
        for (switch, row) in transaction.get("Logical_Switch").and_then(Value::as_object).into_iter().flatten() {
            let switch = if *switch == BLUE.to_string() { "blue" } else { "red" };
            for port in members(only(row, "ports")) {
                let place = (port.clone(), switch.to_owned());
                let left = places.remove(&place);
                let effect = format!("{} {switch}", if left { "leaves" } else { "enters" });
                let name = rows.get(&port).cloned().unwrap_or(port);
                written.effects.entry(name).or_default().push(effect);
                if !left {
                    places.insert(place);
                }
            }
        }
        for (uuid, row) in ports {
            let name = rows.get(uuid).cloned().unwrap_or_else(|| uuid.clone());
            written.differences.entry(name.clone()).or_default().push(row.to_string());
            written.effects.entry(name).or_default().push(effect_on_port(row));
        }
        for (_, row) in transaction.get("NB_Global").and_then(Value::as_object).into_iter().flatten() {
            let pairs = only(row, "external_ids")[1].as_array().expect("a map");
            // The first leader writes the cluster, too, in the same transaction.
            let (owner, epochs): (Vec<&Value>, Vec<&Value>) = pairs.iter().partition(|pair| pair[0] == CLUSTER);
            let one_owner = owner.is_empty() || owner == [&json!([CLUSTER, in_process::CLUSTER])];
            let one_epoch = epochs.len() == 1 && epochs[0][0] == EPOCH;
            assert!(one_owner && one_epoch, "another key was written: {transaction:?}");
            written.epochs.push(epochs[0][1].as_str().expect("an epoch").to_owned());
        }
        let known = ["Logical_Switch_Port", "Logical_Switch", "NB_Global"];
        let stranger = transaction.keys().find(|key| !key.starts_with('_') && !known.contains(&key.as_str()));
        assert_eq!(stranger, None, "a table that is none of ours: {transaction:?}");
    }
    written
}

/// The effect of a difference on a port; the places of rows on switches come before, as the tables' names have it.
fn effect_on_port(row: &Value) -> String {
    let Some(columns) = row.as_object() else { return "deleted".to_owned() };
    if columns.contains_key("name") {
        return "inserted".to_owned();
    }
    let names: BTreeSet<&str> = columns.keys().map(String::as_str).collect();
    if names != BTreeSet::from(["options"]) {
        return Vec::from_iter(names).join(", ");
    }
    let pairs = columns["options"][1].as_array().expect("a map");
    let words = pairs.iter().flat_map(|pair| [&pair[0], &pair[1]]).filter_map(Value::as_str);
    format!("options: {}", Vec::from_iter(words).join(" "))
}

/// The one column that may change.
fn only<'a>(row: &'a Value, column: &str) -> &'a Value {
    let columns = row.as_object().unwrap_or_else(|| panic!("a row was deleted that is not ours"));
    assert!(columns.len() == 1 && columns.contains_key(column), "more than {column} was written: {row}");
    &columns[column]
}

/// The rows that a set of references names.
fn members(set: &Value) -> Vec<String> {
    let uuid = |atom: &Value| atom[1].as_str().expect("a reference").to_owned();
    if set[0] == "set" { set[1].as_array().expect("a set").iter().map(uuid).collect() } else { vec![uuid(set)] }
}
