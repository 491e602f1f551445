//! More than can be taken at once: a reader that is held up, a service that sleeps, a first message of 50 MB.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ovn_kubevirt::ovsdb::{Connection, Operation, Outcome, Session, Transaction};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::{shared, soak, target};
use crate::support::{Northbound, Stage, VmOptions};

/// Ports of another program, each with a note, on a switch of their own, made in one transaction. Gives
/// back their UUIDs.
pub(super) fn add_ports(northbound: &Northbound, switch: usize, count: usize, note: &str) -> Vec<Uuid> {
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
                ["note", note]]);
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
pub(super) fn update_ports(northbound: &Northbound, ports: &[Uuid], chassis: &str) {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_slow_reader_loses_none_of_100_000_updates() {
    const PORTS: usize = 1_000;
    let northbound = Arc::new(Northbound::start().await);
    let ports = add_ports(&northbound, 0, PORTS, "");
    let view = shared();
    let mut session = Session::new(target(&northbound.remote(), 5), Arc::clone(&view));
    let connection = session.connect().await.expect("a connection");
    let rounds = 100 * soak();
    let (writer, held) = (Arc::clone(&northbound), Arc::clone(&view));
    let backlog = tokio::task::spawn_blocking(move || {
        // A reader holds the replica's lock until the last update is made.
        let held = held.read();
        (0..rounds).for_each(|round| update_ports(&writer, &ports, &format!("hv{round}")));
        assert!(held.ports().all(|port| port.row.options.get("requested-chassis").is_none()));
        backlog(&writer)
    });
    // The server makes one update of many, instead of keeping them all for us.
    let backlog = backlog.await.expect("the writer");
    assert!(backlog < 4 << 20, "{backlog} bytes wait at the server");
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

/// How many bytes the server has not got rid of yet.
fn backlog(northbound: &Northbound) -> u64 {
    let shown = northbound.members()[0].appctl(&["memory/show"]);
    let backlog = shown.split_whitespace().find_map(|word| word.strip_prefix("backlog:"));
    backlog.map_or(0, |bytes| bytes.parse().expect("a number"))
}

/// A line of `/proc/<pid>/status`, in KiB.
fn memory(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_suffix("kB"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("{line} in\n{status}"))
}

#[tokio::test]
async fn a_service_that_slept_through_40_mb_of_updates_has_them_all_and_took_no_memory_for_them() {
    let stage = Stage::build("slept").start().await;
    let ports = add_ports(&stage.northbound, 0, 1_000, "");
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
    stage.service.thaw();
    // Once a port of its own is acknowledged, the service has all that was committed before.
    let request = VmOptions::default().annotation("ovn.kubernetes.io/ip_address", "10.16.0.50");
    stage.player.create_vm("first", request).await;
    stage.port("first").await;
    stage.player.create_vm("second", VmOptions::default()).await;
    let port = stage.port("second").await;
    assert!(port.addresses.contains("0a:58:0a:10:00:08 10.16.0.8"), "{port:#?}");
    let peak = memory(stage.service.pid(), "VmHWM:");
    assert!(peak < before + (16 << 10), "from {before} to {peak} KiB");
    assert!(!stage.service.log().contains("is away"), "{}", stage.service.log());
}

/// A line to the server on which 64 KiB take 5 ms; the remote at its other end.
async fn slow_line(to: &str) -> String {
    let server = to.trim_start_matches("tcp:").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let remote = format!("tcp:{}", listener.local_addr().expect("a bound listener has an address"));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let upstream = TcpStream::connect(&server).await.expect("the server");
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                (client.into_split(), upstream.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            tokio::spawn(async move {
                let mut some = vec![0; 64 << 10];
                while let Ok(count @ 1..) = from_server.read(&mut some).await {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    if to_client.write_all(&some[..count]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    remote
}

/// It takes several times as long as either side's probe waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_first_message_of_50_mb_comes_over_a_slow_line_while_both_sides_probe_and_others_write() {
    const SWITCHES: usize = 5;
    const PORTS: usize = 4_000;
    let northbound = Arc::new(Northbound::start().await);
    let note = "x".repeat(2_300);
    let made = (0..SWITCHES).map(|switch| add_ports(&northbound, switch, PORTS, &note));
    let some: Vec<Uuid> = made.flat_map(|ports| ports.into_iter().take(10)).collect();
    let view = shared();
    let remote = slow_line(&northbound.probing_tcp_remote(1).await).await;
    let mut session = Session::new(target(&remote, 1), Arc::clone(&view));
    let (done, mut finished) = tokio::sync::watch::channel(false);
    let (writer, written) = (Arc::clone(&northbound), some.clone());
    let writing = tokio::task::spawn_blocking(move || {
        let mut round = 0;
        while !*finished.borrow_and_update() {
            round += 1;
            update_ports(&writer, &written, &format!("hv{round}"));
        }
        round
    });
    let begun = Instant::now();
    let connection = session.connect().await.expect("a connection");
    let took = begun.elapsed();
    done.send_replace(true);
    let round = writing.await.expect("the writer");
    catch_up(&connection).await;
    assert!(took > Duration::from_secs(3), "too fast to show anything: {took:?}");
    assert!(round > 3, "{round}");
    let view = view.read();
    assert_eq!(view.port_count(), SWITCHES * PORTS);
    let (last, current) = (format!("hv{round}"), |uuid: &Uuid| view.port(uuid)?.row.options.get("requested-chassis"));
    let late: Vec<_> = some.iter().filter(|uuid| current(uuid) != Some(&last)).collect();
    assert!(late.is_empty(), "not {last}: {late:?}");
    let log = northbound.members()[0].log();
    assert!(!log.contains("no response to inactivity probe"), "{log}");
}
