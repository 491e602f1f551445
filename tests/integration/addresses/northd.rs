//! Beside OVN's own IPAM, with a real northd.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{from_pool, ips_of, requesting};
use crate::support::history::History;
use crate::support::stage::Builder;
use crate::support::{Northbound, Stage, VmOptions, eventually};

const DYNAMIC_PORTS: usize = 60;
const VMS: usize = 40;

/// A port whose addresses northd chooses; waits until it has.
async fn add_dynamic(northbound: &Northbound, name: &str) -> String {
    northbound.add_foreign_port("ovn-default", name, &["dynamic"]);
    eventually("northd gives an address", || async {
        let port = northbound.port(name).expect("the port");
        port.dynamic_addresses.clone().ok_or(format!("{port:#?}"))
    })
    .await
}

fn build(name: &str, exclude_ips: &str) -> Builder<'static> {
    let config = [("subnet", "10.16.0.0/24"), ("exclude_ips", exclude_ips)];
    Stage::build(name).switch_with("ovn-default", &config).every_address().northd()
}

/// A stage beside the dynamic port `theirs`.
async fn beside_dynamic(name: &str, exclude_ips: &str) -> Stage {
    let prepared = build(name, exclude_ips).prepare().await;
    let given = add_dynamic(&prepared.northbound, "theirs").await;
    assert!(given.contains(" 10.16.0."), "{given}");
    prepared.start().await
}

#[tokio::test]
async fn beside_dynamic_ports_an_allocation_needs_a_pool_that_exclude_ips_has() {
    const EXCLUDED: &str = "10.16.0.1..10.16.0.99 10.16.0.200..10.16.0.205";
    let stage = beside_dynamic("dynamic", EXCLUDED).await;
    let theirs = stage.northbound.port("theirs").expect("the port");
    stage.player.create_vm("plain", VmOptions::default()).await;
    stage.problem("plain", "PoolRequired", &["theirs", "ovn-default", "ip_pool"]).await;
    for (vm, pool) in [("outside", "10.16.0.150..10.16.0.160"), ("partly", "10.16.0.200..10.16.0.210")] {
        stage.player.create_vm(vm, from_pool(pool)).await;
        stage.problem(vm, "PoolRequired", &["theirs", pool, "exclude_ips"]).await;
    }
    stage.create("inside", from_pool("10.16.0.50..10.16.0.60"), &["10.16.0.50"]).await;
    stage.create("static", requesting("10.16.0.10"), &["10.16.0.10"]).await;
    for vm in ["plain", "outside", "partly"] {
        assert_eq!(stage.northbound.port(&stage.name(vm)), None);
    }
    // As soon as exclude_ips has it all, it is served.
    stage.configure("exclude_ips", "10.16.0.1..10.16.0.99 10.16.0.200..10.16.0.210");
    stage.holding("partly", &["10.16.0.200"]).await;
    stage.northbound.sync_southbound();
    assert_eq!(stage.northbound.port("theirs").and_then(|port| port.dynamic_addresses), theirs.dynamic_addresses);
    // And when northd has no port left there, the others are.
    stage.northbound.delete_port("theirs");
    stage.holding("plain", &["10.16.0.100"]).await;
    stage.holding("outside", &["10.16.0.150"]).await;
}

#[tokio::test]
async fn a_vm_that_has_its_lease_keeps_it_when_dynamic_ports_come() {
    let stage = build("before", "10.16.0.1").start().await;
    let made = stage.create("testvm", VmOptions::default(), &["10.16.0.2"]).await;
    let given = add_dynamic(&stage.northbound, "theirs").await;
    assert!(!given.ends_with(" 10.16.0.2"), "{given}");
    stage.started("testvm", "n1").await;
    stage.player.restart("testvm", "n2").await;
    let now = stage.port_where("testvm", "is on n2", |port| port.option("requested-chassis") == Some("n2")).await;
    assert_eq!((&now.uuid, ips_of(&now)), (&made.uuid, vec!["10.16.0.2"]));
    stage.no_problem("testvm").await;
}

/// Every value that each port's `dynamic_addresses` ever had.
fn given(history: &History) -> BTreeMap<String, BTreeSet<String>> {
    let mut given: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for transaction in history.committed() {
        let Some(ports) = transaction.get("Logical_Switch_Port").and_then(Value::as_object) else { continue };
        for (port, row) in ports {
            if let Some(text) = row.get("dynamic_addresses").and_then(Value::as_str) {
                given.entry(port.clone()).or_default().insert(text.to_owned());
            }
        }
    }
    given
}

#[tokio::test(flavor = "multi_thread")]
async fn northd_renumbers_no_port_while_dynamic_ports_and_vms_are_made_at_the_same_time() {
    let stage = beside_dynamic("storm", "10.16.0.1..10.16.0.99").await;
    let history = History::from_now(stage.northbound.dir().join("nb.db"));
    let names: Vec<String> = (0..VMS).map(|index| format!("vm-{index:02}")).collect();
    let make = async |index: usize, name: &str| {
        // Every fourth names no pool: it must be refused, not served with what northd is about to give.
        let options = if index.is_multiple_of(4) { VmOptions::default() } else { from_pool("10.16.0.2..10.16.0.99") };
        stage.player.apply_vm(name, options).await;
    };
    let vms = async {
        for (index, name) in names.iter().enumerate() {
            make(index, name).await;
        }
    };
    let ports = async {
        for index in 0..DYNAMIC_PORTS {
            let name = format!("dynamic-{index:02}");
            stage.northbound.transact(json!([
                {"op": "insert", "table": "Logical_Switch_Port", "uuid-name": "lsp", "row": {"name": name, "addresses": "dynamic"}},
                {"op": "mutate", "table": "Logical_Switch", "where": [["name", "==", "ovn-default"]],
                 "mutations": [["ports", "insert", ["named-uuid", "lsp"]]]},
            ]));
            tokio::task::yield_now().await;
            // Some go again, and their addresses to others.
            if index % 5 == 4 {
                stage.northbound.delete_port(&format!("dynamic-{:02}", index - 2));
            }
        }
    };
    tokio::join!(vms, ports);
    for (index, name) in names.iter().enumerate() {
        if index.is_multiple_of(4) {
            stage.event(name, "PoolRequired", &[]).await;
        } else {
            stage.port(name).await;
        }
    }
    eventually("northd has given every dynamic port its address", || async {
        let ports = stage.northbound.ports();
        let waiting =
            ports.iter().filter(|port| port.addresses.contains("dynamic") && port.dynamic_addresses.is_none());
        match waiting.count() {
            0 => Ok(()),
            count => Err(count),
        }
    })
    .await;
    stage.northbound.sync_southbound();
    let given = given(&history);
    assert!(given.len() > DYNAMIC_PORTS / 2, "{given:#?}");
    let renumbered: Vec<_> = given.iter().filter(|(_, values)| values.len() > 1).collect();
    assert!(renumbered.is_empty(), "{renumbered:#?}");
    // And all addresses that are held are each held once.
    let mut holders: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for port in stage.northbound.ports() {
        let texts = port.addresses.iter().chain(&port.dynamic_addresses).filter(|text| text.contains(' '));
        for address in texts.flat_map(|text| text.split(' ').skip(1)) {
            holders.entry(address.to_owned()).or_default().push(port.name.clone());
        }
    }
    let doubled: Vec<_> = holders.iter().filter(|(_, holders)| holders.len() > 1).collect();
    assert!(doubled.is_empty(), "{doubled:#?}");
    for index in (0..VMS).step_by(4) {
        assert_eq!(stage.northbound.port(&stage.name(&names[index])), None);
    }
}
