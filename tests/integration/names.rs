//! The names of VMs in `DNS`: there before the VM boots, gone with its lease, written apart from ports and seldom.

mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::stage::{Builder, DEFAULT_SWITCH, SUBNET};
use crate::support::{Nic, Northbound, Stage, VmOptions, eventually, holds_for};

/// A short pace, so that a test need not wait.
const FLAGS: [&str; 4] = ["--dns-domain", "vm.test", "--dns-interval", "1s"];

/// A service that writes names soon.
fn named(name: &str) -> Builder<'static> {
    Stage::build(name).flags(FLAGS)
}

/// The UUIDs in a column of the wire.
fn uuids(value: &Value) -> Vec<String> {
    let atoms = if value[0] == "set" { value[1].as_array().cloned().unwrap_or_default() } else { vec![value.clone()] };
    atoms.iter().map(|atom| atom[1].as_str().expect("a UUID").to_owned()).collect()
}

/// The pairs of a map of the wire.
fn pairs(value: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    value[1].as_array().expect("a map").iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

/// A row of `DNS`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    uuid: String,
    records: BTreeMap<String, String>,
    external_ids: BTreeMap<String, String>,
}

impl Row {
    fn is_of(&self, instance: &str) -> bool {
        self.external_ids.get("ovn-kubevirt.io/instance").is_some_and(|marked| marked == instance)
    }
}

/// All rows of `DNS`.
fn rows(northbound: &Northbound) -> Vec<Row> {
    let row = |row: &Value| Row {
        uuid: row["_uuid"][1].as_str().expect("a UUID").to_owned(),
        records: pairs(&row["records"]),
        external_ids: pairs(&row["external_ids"]),
    };
    northbound.rows("DNS").iter().map(row).collect()
}

/// What the guests on a switch can look up in rows of the instance `default`.
fn names_on(northbound: &Northbound, switch: &str) -> BTreeMap<String, String> {
    let switches = northbound.rows("Logical_Switch");
    let row = switches.iter().find(|row| row["name"] == switch).expect("the switch");
    let referred = uuids(&row["dns_records"]);
    let rows = rows(northbound).into_iter().filter(|row| row.is_of("default") && referred.contains(&row.uuid));
    rows.flat_map(|row| row.records).collect()
}

/// Waits until the guests on a switch can look up just this.
async fn has(northbound: &Northbound, switch: &str, expected: &[(&str, &str)]) {
    let expected = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    eventually(&format!("{switch} has {expected:?}"), || async {
        let names = names_on(northbound, switch);
        if names == expected { Ok(()) } else { Err(format!("{names:#?}")) }
    })
    .await;
}

/// The transactions in the database's file that changed these tables, each as the names of its tables.
fn transactions(northbound: &Northbound) -> Vec<BTreeSet<String>> {
    let file = std::fs::read_to_string(northbound.dir().join("nb.db")).expect("the database's file");
    let records = file.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let tables = records.filter(|record| record.get("tables").is_none());
    tables.filter_map(|record| Some(record.as_object()?.keys().cloned().collect())).collect()
}

/// The number of transactions with names. None of them has a port.
fn writes(northbound: &Northbound) -> usize {
    let with_names: Vec<_> = transactions(northbound).into_iter().filter(|tables| tables.contains("DNS")).collect();
    assert!(!with_names.iter().any(|tables| tables.contains("Logical_Switch_Port")), "{with_names:?}");
    with_names.len()
}

/// The names of a VM with one NIC on the pod network.
fn of_one(stage: &Stage, vm: &str, address: &str) -> Vec<(String, String)> {
    let name = format!("{vm}.{}.vm.test", stage.namespace.name);
    let octets: Vec<&str> = address.rsplit('.').collect();
    vec![
        (name.clone(), address.to_owned()),
        (format!("default.{name}"), address.to_owned()),
        (format!("{}.in-addr.arpa", octets.join(".")), name),
    ]
}

fn borrowed(records: &[(String, String)]) -> Vec<(&str, &str)> {
    records.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[tokio::test]
async fn names_are_there_before_the_vm_boots_and_go_with_its_lease() {
    let subnet = [SUBNET[0], SUBNET[1], ("ipv6_prefix", "fd10:16::")];
    let stage = named("names").switch_with(DEFAULT_SWITCH, &subnet).switch("blue", "10.17.0.0/24").nad("net1", "blue");
    let stage = stage.start().await;
    let options = VmOptions::default().nic(Nic::nad("Second", "net1"));
    stage.player.create_vm("testvm", options.clone()).await;
    let namespace = &stage.namespace.name;
    let port = stage.port("testvm").await;
    let text = port.addresses.first().expect("addresses").clone();
    let [_, ipv4, ipv6] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
    let blue = stage.port_named(&format!("testvm.{namespace}.net1.{namespace}.ovn")).await;
    let blue = blue.addresses.first().and_then(|text| text.split(' ').nth(1)).expect("an address").to_owned();

    // No pod and no VMI is there yet.
    let (of_vm, of_pod, of_second) = (
        format!("testvm.{namespace}.vm.test"),
        format!("default.testvm.{namespace}.vm.test"),
        format!("second.testvm.{namespace}.vm.test"),
    );
    let both = format!("{ipv4} {ipv6}");
    let forward = [(of_vm.as_str(), both.as_str()), (&of_pod, &both), (&of_second, &blue)];
    let reverse = |address: &str| {
        let mut octets: Vec<&str> = address.split('.').collect();
        octets.reverse();
        format!("{}.in-addr.arpa", octets.join("."))
    };
    let digits = ipv6.parse::<std::net::Ipv6Addr>().expect("an address").octets();
    let digits: String = digits.iter().rev().map(|octet| format!("{:x}.{:x}.", octet & 15, octet >> 4)).collect();
    let (reverse4, reverse6, reverse_blue) = (reverse(ipv4), format!("{digits}ip6.arpa"), reverse(&blue));
    let here = [(reverse4.as_str(), of_vm.as_str()), (&reverse6, &of_vm)];
    has(&stage.northbound, DEFAULT_SWITCH, &[&forward[..], &here].concat()).await;
    has(&stage.northbound, "blue", &[&forward[..], &[(&reverse_blue, &of_second)]].concat()).await;
    let marks = [("ovn-kubevirt.io/instance", "default"), ("vendor", "ovn-kubevirt")];
    let marks: BTreeMap<String, String> = marks.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    assert!(rows(&stage.northbound).iter().all(|row| row.external_ids == marks));

    // With the lease; and a port that is retained has no name.
    let retained = VmOptions::default().annotation("ovn-kubevirt.io/retain", "forever");
    stage.player.create_vm("kept", retained).await;
    stage.port("kept").await;
    stage.player.delete_vm("testvm").await;
    let kept =
        stage.port("kept").await.addresses.first().and_then(|text| text.split(' ').nth(1).map(ToOwned::to_owned));
    let kept = kept.expect("an address");
    eventually("the names of the other VM alone", || async {
        let names = names_on(&stage.northbound, DEFAULT_SWITCH);
        let is_kepts = |(name, value): (&String, &String)| name.contains("kept.") || value.contains("kept.");
        if !names.is_empty() && names.iter().all(is_kepts) { Ok(()) } else { Err(format!("{names:#?}")) }
    })
    .await;
    stage.player.delete_vm("kept").await;
    eventually("no row is left", || async {
        let rows = rows(&stage.northbound);
        if rows.is_empty() { Ok(()) } else { Err(format!("{rows:#?}")) }
    })
    .await;
    let port = stage.port("kept").await;
    assert!(
        port.external_id("ovn-kubevirt.io/retained-until").is_some()
            && port.addresses.first().is_some_and(|text| text.contains(&kept))
    );
    let switches = stage.northbound.rows("Logical_Switch");
    assert!(switches.iter().all(|row| uuids(&row["dns_records"]).is_empty()), "{switches:?}");
}

#[tokio::test]
async fn a_storm_of_three_hundred_vms_has_few_writes_and_no_port_waits_for_one() {
    const VMS: usize = 300;
    // The default pace.
    let prepared = Stage::build("name-storm").flags(["--dns-domain", "vm.test"]).prepare().await;
    let names: Vec<String> = (0..VMS).map(|index| format!("vm-{index:03}")).collect();
    let player = &prepared.player;
    futures::future::join_all(names.iter().map(|name| player.apply_vm(name, VmOptions::default()))).await;
    let stage = prepared.start().await;
    eventually("every VM has its port", || async {
        let ports = stage.northbound.ports().len();
        if ports == VMS { Ok(()) } else { Err(format!("{ports} ports")) }
    })
    .await;
    let before = names_on(&stage.northbound, DEFAULT_SWITCH).len();
    assert!(before < 3 * VMS, "the last ports have not waited for their names");
    eventually("every VM has its names", || async {
        let names = names_on(&stage.northbound, DEFAULT_SWITCH).len();
        if names == 3 * VMS { Ok(()) } else { Err(format!("{names} names")) }
    })
    .await;
    let writes = writes(&stage.northbound);
    assert!(writes <= 3, "{writes} writes for {VMS} ports");
    // 64 rows of a switch, and no more.
    assert!(rows(&stage.northbound).len() <= 64);
    let (_, metrics) = stage.service.http_get("/metrics").await;
    assert!(metrics.contains("ovn_kubevirt_name_records 900"), "{metrics}");
    assert!(
        metrics.contains(&format!("ovn_kubevirt_name_writes_total{{outcome=\"committed\"}} {writes}")),
        "{metrics}"
    );
}

#[tokio::test]
async fn ports_are_committed_however_late_the_names_are() {
    let stage = Stage::build("late-names").flags(["--dns-domain", "vm.test", "--dns-interval", "1h"]).start().await;
    for vm in ["a", "b"] {
        stage.make(vm).await;
        stage.status(vm, &["10.16.0."]).await;
    }
    assert_eq!(rows(&stage.northbound), []);
    eventually("the lag is seen", || async {
        let (_, metrics) = stage.service.http_get("/metrics").await;
        let lag = metrics.lines().find_map(|line| line.strip_prefix("ovn_kubevirt_names_lag_seconds "));
        let lag: f64 = lag.and_then(|lag| lag.parse().ok()).unwrap_or_default();
        if lag > 0.1 { Ok(()) } else { Err(metrics) }
    })
    .await;
}

#[tokio::test]
async fn a_restart_writes_nothing_and_a_start_without_a_domain_removes_our_rows_alone() {
    let mut stage = named("names-again").start().await;
    stage.make("testvm").await;
    let ours = of_one(&stage, "testvm", "10.16.0.2");
    has(&stage.northbound, DEFAULT_SWITCH, &borrowed(&ours)).await;
    let theirs = json!(["map", [["x.lan", "10.0.0.9"]]]);
    let other = json!(["map", [["vendor", "ovn-kubevirt"], ["ovn-kubevirt.io/instance", "other"]]]);
    stage.northbound.transact(json!([
        {"op": "insert", "table": "DNS", "row": {"records": theirs}},
        {"op": "insert", "table": "DNS", "row": {"records": theirs, "external_ids": other}},
    ]));
    let (before, wrote) = (stage.northbound.dump(), writes(&stage.northbound));
    stage.restart().await;
    holds_for("nothing is written", Duration::from_millis(1_500), || async {
        let now = stage.northbound.dump();
        if now == before && writes(&stage.northbound) == wrote { Ok(()) } else { Err(now) }
    })
    .await;
    // With another domain.
    stage.restart_with(|setup| setup.without_flags().flags(["--dns-domain", "Other.", "--dns-interval", "1s"])).await;
    let renamed =
        |(name, value): &(String, String)| (name.replace("vm.test", "other"), value.replace("vm.test", "other"));
    has(&stage.northbound, DEFAULT_SWITCH, &borrowed(&ours.iter().map(renamed).collect::<Vec<_>>())).await;
    // And without one.
    stage.restart_with(|setup| setup.without_flags()).await;
    eventually("our rows are gone", || async {
        let rows = rows(&stage.northbound);
        if rows.iter().any(|row| row.is_of("default")) { Err(format!("{rows:#?}")) } else { Ok(()) }
    })
    .await;
    assert_eq!(rows(&stage.northbound).len(), 2);
}

#[tokio::test]
async fn what_another_program_edits_in_our_rows_is_repaired_and_what_is_its_own_stays() {
    let stage = named("names-edited").start().await;
    stage.make("testvm").await;
    let ours = of_one(&stage, "testvm", "10.16.0.2");
    has(&stage.northbound, DEFAULT_SWITCH, &borrowed(&ours)).await;
    let nb = &stage.northbound;
    let uuid = rows(nb)[0].uuid.clone();
    nb.transact(json!([
        {"op": "insert", "table": "DNS", "uuid-name": "x", "row": {"records": ["map", [["router.lan", "10.16.0.1"]]]}},
        {"op": "mutate", "table": "Logical_Switch", "where": [["name", "==", DEFAULT_SWITCH]],
         "mutations": [["dns_records", "insert", ["named-uuid", "x"]]]},
    ]));
    let whole = nb.dump();
    let (vm, reverse) = (ours[0].0.as_str(), ours[2].0.as_str());
    let edits: [&[&str]; 6] = [
        &["set", "DNS", &uuid, &format!("records:\"{vm}\"=10.0.0.99")],
        &["remove", "DNS", &uuid, "records", &format!("\"{reverse}\"")],
        &["set", "DNS", &uuid, "records:x.lan=10.0.0.99"],
        &["clear", "DNS", &uuid, "external_ids"],
        &["remove", "Logical_Switch", DEFAULT_SWITCH, "dns_records", &uuid],
        &["destroy", "DNS", &uuid],
    ];
    for edit in edits {
        nb.nbctl(edit);
        assert_ne!(nb.dump(), whole, "{edit:?} is an edit");
        eventually(&format!("all is as before {edit:?}"), || async {
            let now = nb.dump();
            if now == whole { Ok(()) } else { Err(now) }
        })
        .await;
    }
}

#[tokio::test]
async fn a_name_that_another_program_has_is_left_to_it_and_told() {
    let stage = named("names-taken").start().await;
    let namespace = &stage.namespace.name;
    let name = format!("testvm.{namespace}.vm.test");
    let theirs = json!(["map", [[name.to_uppercase(), "10.0.0.99"]]]);
    stage.northbound.transact(json!([
        {"op": "insert", "table": "DNS", "uuid-name": "x", "row": {"records": theirs}},
        {"op": "mutate", "table": "Logical_Switch", "where": [["name", "==", DEFAULT_SWITCH]],
         "mutations": [["dns_records", "insert", ["named-uuid", "x"]]]},
    ]));
    let uuid = rows(&stage.northbound)[0].uuid.clone();
    stage.make("testvm").await;
    let ours = of_one(&stage, "testvm", "10.16.0.2");
    has(&stage.northbound, DEFAULT_SWITCH, &borrowed(&ours[1..])).await;
    let log = stage.service.log();
    let line = log.lines().find(|line| line.contains("the name is not written"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains(&name) && line.contains(&uuid) && line.contains("--dns-domain"), "{line}");
    let (_, metrics) = stage.service.http_get("/metrics").await;
    assert!(metrics.contains("ovn_kubevirt_names_left_out{reason=\"taken\"} 1"), "{metrics}");
    // The name is ours once no other row has it.
    stage.northbound.nbctl(&["destroy", "DNS", &uuid]);
    has(&stage.northbound, DEFAULT_SWITCH, &borrowed(&ours)).await;
}
