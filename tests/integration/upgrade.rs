//! An upgrade: replicas that are replaced one by one, and rows of the first release.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use ovn_kubevirt::contract::port_uuid;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fleet::LEASE_SECONDS;
use crate::support::{Prepared, Stage, VmOptions, eventually};

/// Clients that make VMs at the same time.
const CLIENTS: usize = 4;
/// VMs that each of them makes at most: a bound for a machine on which a replacement takes long.
const VMS: usize = 100;

/// Makes VMs until told to stop, and deletes every fifth. Gives back the names of those that stay.
async fn storm(fleet: &Prepared, client: usize, over: &AtomicBool, made: &AtomicUsize) -> Vec<String> {
    let mut kept = Vec::new();
    for index in 0..VMS {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("storm-{client}-{index}");
        fleet.player.apply_vm(&name, VmOptions::default()).await;
        made.fetch_add(1, Ordering::Relaxed);
        if index % 5 == 4 {
            fleet.player.delete_vm_start(&name).await;
        } else {
            kept.push(name);
        }
    }
    kept
}

/// Records the addresses of each port until told to stop.
///
/// # Panics
/// When a port gets other addresses than it had, or is gone and had to stay.
async fn watch(fleet: &Prepared, over: &AtomicBool, stay: &BTreeSet<String>) -> BTreeMap<String, BTreeSet<String>> {
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    while !over.load(Ordering::Relaxed) {
        let ports = fleet.ports();
        for name in stay {
            assert!(ports.contains_key(name), "{name} is gone");
        }
        for (name, port) in ports {
            let before = seen.entry(name.clone()).or_insert_with(|| port.addresses.clone());
            assert_eq!(*before, port.addresses, "{name} has other addresses");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    seen
}

#[tokio::test]
async fn three_replicas_are_replaced_one_by_one_in_a_storm_and_no_port_is_lost_or_changed() {
    let fleet = Stage::build("rolling").lease(LEASE_SECONDS).prepare().await;
    let mut services = [fleet.setup().start().await, fleet.setup().start().await, fleet.setup().start().await];
    for index in 0..5 {
        fleet.make(&format!("old-{index}")).await;
    }
    let old: BTreeSet<String> = fleet.ports().into_keys().collect();
    let (over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let rolling = async {
        for service in &mut services {
            let before = made.load(Ordering::Relaxed);
            let full = CLIENTS * VMS;
            eventually("the storm goes on", || async {
                let made = made.load(Ordering::Relaxed);
                if made > before || made == full { Ok(()) } else { Err(made) }
            })
            .await;
            assert_eq!(service.stop().await.code(), Some(0), "{}", service.log());
            *service = fleet.setup().start().await;
        }
        over.store(true, Ordering::Relaxed);
    };
    let clients = (0..CLIENTS).map(|client| storm(&fleet, client, &over, &made));
    let ((), kept, seen) = tokio::join!(rolling, join_all(clients), watch(&fleet, &over, &old));
    let mut expected = old;
    expected.extend(kept.into_iter().flatten().map(|name| fleet.name(&name)));
    eventually("each VM that stays has its port, and there is no other", || async {
        let ports: BTreeSet<String> = fleet.ports().into_keys().collect();
        let differ: Vec<&String> = ports.symmetric_difference(&expected).collect();
        if differ.is_empty() { Ok(()) } else { Err(format!("{differ:?}")) }
    })
    .await;
    for (name, port) in fleet.ports() {
        let before = seen.get(&name);
        assert!(before.is_none_or(|before| *before == port.addresses), "{name}: {before:?}, then {:?}", port.addresses);
    }
    assert!(services.iter().all(|service| service.is_running()));
}

/// The annotation on a VM as the first release wrote it: a list, without the instance and the VM's UID.
const FIRST_ANNOTATION: &str = r#"[{"network":"default","port":"testvm","switch":"ovn-default","mac":"0a:58:0a:10:00:0f","ips":["10.16.0.15"],"state":"Assigned"}]"#;

/// Inserts a row as the first release wrote it.
fn insert_as_the_first_release(fleet: &Prepared, vm: &str, uid: &str, addresses: &str, next: Option<&str>) -> Uuid {
    let name = fleet.name(vm);
    let row = port_uuid("default", &name);
    let key = format!("{}/{vm}", fleet.namespace.name);
    let marks = [
        ("vendor", "ovn-kubevirt"),
        ("ovn-kubevirt.io/instance", "default"),
        ("ovn-kubevirt.io/vm", &key),
        ("ovn-kubevirt.io/vm-uid", uid),
        ("ovn-kubevirt.io/network", "default"),
    ];
    let reserved = next.map(|next| ("ovn-kubevirt.io/next-addresses", next));
    let marks: Vec<[&str; 2]> = marks.into_iter().chain(reserved).map(|(key, value)| [key, value]).collect();
    fleet.northbound.transact(json!([
        {"op": "insert", "table": "Logical_Switch_Port", "uuid": row, "row": {
            "name": name, "addresses": addresses, "port_security": addresses, "external_ids": ["map", marks]}},
        {"op": "mutate", "table": "Logical_Switch", "where": [["name", "==", "ovn-default"]],
         "mutations": [["ports", "insert", ["uuid", row]]]},
    ]));
    row
}

#[tokio::test]
async fn rows_of_the_first_release_are_understood() {
    let fleet = Stage::build("first-release").prepare().await;
    let uid = fleet.player.create_vm("testvm", VmOptions::default()).await;
    let annotated = |vm: &mut Value| vm["metadata"]["annotations"]["ovn-kubevirt.io/ports"] = json!(FIRST_ANNOTATION);
    fleet.player.edit_vm("testvm", annotated).await;
    let address = "ovn.kubernetes.io/ip_address";
    let edited = fleet.player.create_vm("edited", VmOptions::default()).await;
    fleet.player.start("edited", "n1").await;
    fleet.player.edit_template_annotation("edited", address, Some("10.16.0.30")).await;
    let of_testvm = "0a:58:0a:10:00:0f 10.16.0.15";
    let (now, next) = ("0a:58:0a:10:00:14 10.16.0.20", "0a:58:0a:10:00:14 10.16.0.30");
    let rows = [
        insert_as_the_first_release(&fleet, "testvm", &uid, of_testvm, None),
        insert_as_the_first_release(&fleet, "edited", &edited, now, Some(next)),
    ];
    let epoch = "external_ids:ovn-kubevirt.io/epoch.default=4.7c1d2b9a5f0e4d83a6b1c2d3e4f50617";
    fleet.northbound.nbctl(&["set", "nb_global", ".", epoch]);
    let stage = fleet.start().await;
    let status = stage.status_where("testvm", "names the VM", |_, status| status["uid"] == json!(uid)).await;
    assert_eq!(status["ports"][0]["ips"], json!(["10.16.0.15"]), "{status}");
    stage.status_where("edited", "names the reservation", |_, status| status["ports"][0]["next"] == json!(next)).await;
    let ports = stage.ports();
    let of = |vm: &str| &ports[&stage.name(vm)];
    let held = [of("testvm"), of("edited")].map(|port| (port.uuid.clone(), port.addresses.clone()));
    assert_eq!(held[0], (rows[0].to_string(), [of_testvm.to_owned()].into()));
    assert_eq!(held[1], (rows[1].to_string(), [now.to_owned()].into()));
    assert_eq!(of("edited").option("requested-chassis"), Some("n1"));
    let global = stage.northbound.rows("NB_Global")[0]["external_ids"].to_string();
    assert!(global.contains("ovn-kubevirt.io/cluster.default") && global.contains("\"5."), "{global}");
    for vm in ["testvm", "edited"] {
        let events = stage.namespace.events(vm).await;
        assert!(events.iter().all(|(kind, ..)| kind == "Normal"), "{events:?}");
    }
    stage.player.restart("edited", "n1").await;
    stage.port_where("edited", "has what was reserved", |port| port.addresses.contains(next)).await;
}
