//! More than can be taken at once: a reader that is held up, a service that sleeps, a first message of 50 MB.

use std::sync::Arc;
use std::time::Duration;

use ovn_kubevirt::ovsdb::{Connection, Operation, Outcome, Session, Transaction};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{shared, soak, target};
use crate::stage::Stage;
use crate::support::{Northbound, VmOptions};

/// Ports of somebody else's on a switch of their own, made in one transaction. Gives back their UUIDs.
fn add_ports(northbound: &Northbound, switch: usize, count: usize) -> Vec<Uuid> {
    let name = |port: usize| format!("web-frontend-{:09x}-{port:05}.team-{}", port * 7_919, port % 97);
    let address = |port: usize| {
        let (high, low) = (port / 256, port % 256);
        format!("0e:00:{switch:02x}:00:{high:02x}:{low:02x} 10.{}.{high}.{low}", 100 + switch)
    };
    let uuids: Vec<Uuid> = (0..count).map(|_| Uuid::new_v4()).collect();
    let mut operations: Vec<Value> = (1..)
        .zip(&uuids)
        .map(|(port, uuid)| {
            let (name, address) = (format!("{switch}-{}", name(port)), address(port));
            let marks = json!([["vendor", "kube-ovn"], ["ls", format!("pods-{switch}")], ["pod", name], ["ip", address],
                ["note", "this port is somebody's who writes much into external_ids, and is of no concern to others"]]);
            json!({"op": "insert", "table": "Logical_Switch_Port", "uuid": uuid,
                   "row": {"name": name, "addresses": address, "port_security": address, "external_ids": ["map", marks]}})
        })
        .collect();
    let references: Vec<Value> = uuids.iter().map(|uuid| json!(["uuid", uuid])).collect();
    let subnet = format!("10.{}.0.0/16", 100 + switch);
    operations.push(json!({"op": "insert", "table": "Logical_Switch",
        "row": {"name": format!("pods-{switch}"), "ports": ["set", references], "other_config": ["map", [["subnet", subnet]]]}}));
    northbound.transact(Value::Array(operations));
    uuids
}

/// Gives each of these ports another value of `options:requested-chassis`, all in one transaction.
fn update_ports(northbound: &Northbound, ports: &[Uuid], chassis: &str) {
    let update = |uuid: &Uuid| {
        json!({"op": "update", "table": "Logical_Switch_Port", "where": [["_uuid", "==", ["uuid", uuid]]],
               "row": {"options": ["map", [["requested-chassis", chassis]]]}})
    };
    northbound.transact(ports.iter().map(update).collect());
}

/// Waits until all that was committed before is in the replica.
async fn catch_up(connection: &Connection) {
    let select = Operation::Select { table: "NB_Global", conditions: Vec::new(), columns: vec!["_uuid"] };
    let outcome = connection.transact(&Transaction { fence: None, operations: vec![select] }).await;
    assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
}

/// The server probes after a second of silence and hangs up after another, and so do we.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_reader_that_is_held_up_while_100_000_updates_come_loses_none_and_is_not_cut_off() {
    const PORTS: usize = 1_000;
    let northbound = Arc::new(Northbound::start().await);
    let ports = add_ports(&northbound, 0, PORTS);
    let view = shared();
    let remote = northbound.probing_tcp_remote(1).await;
    let mut session = Session::new(target(&remote, 1), Arc::clone(&view));
    let connection = session.connect().await.expect("a connection");

    // Somebody reads the replica, and does not come to an end.
    let (release, released) = std::sync::mpsc::channel::<()>();
    let held = Arc::clone(&view);
    let (begun, beginning) = tokio::sync::oneshot::channel();
    let holder = std::thread::spawn(move || {
        let guard = held.read();
        begun.send(guard.port_count()).expect("the test waits");
        let _ = released.recv();
        drop(guard);
    });
    assert_eq!(beginning.await.expect("the holder"), PORTS);

    let rounds = 100 * soak();
    let writer = Arc::clone(&northbound);
    let writing = tokio::task::spawn_blocking(move || {
        (0..rounds).for_each(|round| update_ports(&writer, &ports, &format!("hv{round}")));
    });
    writing.await.expect("the writer");
    // Longer than the server waits, twice, however fast it wrote.
    tokio::time::timeout(Duration::from_secs(4), connection.closed()).await.expect_err("the connection stays");
    assert!(backlog(&northbound).is_none_or(|bytes| bytes <= 16 << 20), "{:?}", backlog(&northbound));
    release.send(()).expect("the holder waits");
    holder.join().expect("the holder");

    catch_up(&connection).await;
    let last = format!("hv{}", rounds - 1);
    let view = view.read();
    let late: Vec<_> = view.ports().filter(|port| port.row.options.get("requested-chassis") != Some(&last)).collect();
    assert!(
        late.is_empty() && view.port_count() == PORTS,
        "{} of {}: {:?}",
        late.len(),
        view.port_count(),
        late.first()
    );
}

/// What the server has not got rid of yet, where there is anything.
fn backlog(northbound: &Northbound) -> Option<u64> {
    let shown = northbound.members()[0].appctl(&["memory/show"]);
    shown.split_whitespace().find_map(|word| word.strip_prefix("backlog:")?.parse().ok())
}

/// A line of `/proc/<pid>/status`, in KiB.
fn memory(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_suffix("kB"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("{line} in\n{status}"))
}

#[tokio::test]
async fn a_service_that_slept_through_40_mb_of_updates_has_them_all_and_took_no_memory_for_them() {
    let stage = Stage::new("slept").await;
    let ports = add_ports(&stage.northbound, 0, 1_000);
    stage.player.create_vm("before", VmOptions::default()).await;
    stage.port("before").await;
    stage.service.freeze();
    let before = memory(stage.service.pid(), "VmRSS:");
    // The peak from here on (proc(5), clear_refs).
    std::fs::write(format!("/proc/{}/clear_refs", stage.service.pid()), "5").expect("the peak is reset");
    for round in 0..20 {
        update_ports(&stage.northbound, &ports, &format!("hv{round}-{}", "x".repeat(2_000)));
    }
    // And the first addresses of the switch are taken.
    let taken: Vec<String> = (3..8).map(|host| format!("0e:ff:00:00:00:{host:02x} 10.16.0.{host}")).collect();
    for address in &taken {
        stage.northbound.add_foreign_port("ovn-default", address, &[address]);
    }
    stage.player.create_vm("meanwhile", VmOptions::default()).await;
    stage.service.thaw();
    let port = stage.port("meanwhile").await;
    assert!(port.addresses.contains("0a:58:0a:10:00:08 10.16.0.8"), "{port:#?}");
    let peak = memory(stage.service.pid(), "VmHWM:");
    assert!(peak < before + (16 << 10), "from {before} to {peak} KiB");
    assert!(!stage.service.log().contains("is away"), "{}", stage.service.log());
}

/// 53 MB and, where the build is slow, many times a probe's interval to take in; while others write.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_first_message_of_50_mb_is_taken_in_while_both_sides_probe_and_others_write() {
    const SWITCHES: usize = 10;
    const PORTS: usize = 10_000;
    let northbound = Arc::new(Northbound::start().await);
    let some: Vec<Uuid> =
        (0..SWITCHES).flat_map(|switch| add_ports(&northbound, switch, PORTS).into_iter().take(10)).collect();
    let remote = northbound.probing_tcp_remote(1).await;
    let view = shared();
    let mut session = Session::new(target(&remote, 1), Arc::clone(&view));
    let (done, mut finished) = tokio::sync::watch::channel(false);
    let writer = Arc::clone(&northbound);
    let written = some.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let mut round = 0;
        while !*finished.borrow_and_update() {
            round += 1;
            update_ports(&writer, &written, &format!("hv{round}"));
        }
        round
    });
    let connection = session.connect().await.expect("a connection");
    done.send_replace(true);
    let round = writing.await.expect("the writer");
    catch_up(&connection).await;
    let last = format!("hv{round}");
    {
        let view = view.read();
        assert_eq!(view.port_count(), SWITCHES * PORTS);
        let current = |uuid: &Uuid| view.port(uuid).and_then(|port| port.row.options.get("requested-chassis"));
        assert!(some.iter().all(|uuid| current(uuid) == Some(&last)), "{round}");
    }
    // The probes of both go on.
    tokio::time::timeout(Duration::from_secs(4), connection.closed()).await.expect_err("the connection stays");
    assert!(!northbound.members()[0].log().contains("no response to inactivity probe"));
}
