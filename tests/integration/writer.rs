//! The writer: group commit, and a bad VM that fails alone.

mod ahead;

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::{Northbound, Service, Stage, VmOptions, eventually};

/// The sizes of the transactions that the service says it committed.
fn committed(service: &Service) -> Vec<usize> {
    let log = service.log();
    let sizes = log.lines().filter(|line| line.contains("transaction committed"));
    sizes.filter_map(|line| line.split("rows=").nth(1)?.split_whitespace().next()?.parse().ok()).collect()
}

#[tokio::test]
async fn vms_that_wait_go_together_a_hundred_at_most() {
    const VMS: usize = 250;
    let prepared = Stage::build("storm").prepare().await;
    let names: Vec<String> = (0..VMS).map(|index| format!("vm-{index:03}")).collect();
    let player = &prepared.player;
    futures::future::join_all(names.iter().map(|name| player.apply_vm(name, VmOptions::default()))).await;
    // They were all there when the service came.
    let stage = prepared.start().await;
    let ports = eventually("every VM has its port", || async {
        let ports = stage.northbound.ports();
        if ports.len() == VMS { Ok(ports) } else { Err(format!("{} ports", ports.len())) }
    })
    .await;
    let addresses: BTreeSet<&String> = ports.iter().flat_map(|port| &port.addresses).collect();
    let expected: BTreeSet<String> = (2..2 + VMS)
        .map(|at| format!("0a:58:0a:10:{:02x}:{:02x} 10.16.{}.{}", at / 256, at % 256, at / 256, at % 256))
        .collect();
    assert_eq!(addresses, expected.iter().collect());
    eventually("the log has every port", || async {
        let sizes = committed(&stage.service);
        if sizes.iter().sum::<usize>() == VMS { Ok(()) } else { Err(format!("{sizes:?}")) }
    })
    .await;
    // The VMs of other tests, which get no port here, may take the place of a few in a transaction.
    let sizes = committed(&stage.service);
    assert!(sizes.len() <= 4 && sizes.iter().all(|size| *size <= 100), "{sizes:?}");
}

#[tokio::test]
async fn only_the_bad_vm_of_a_batch_fails() {
    const VMS: usize = 60;
    const BAD: usize = 31;
    let prepared = Stage::build("bisect").prepare().await;
    let player = &prepared.player;
    let name = |index| if index == BAD { "vm-31-too-long".to_owned() } else { format!("vm-{index:02}") };
    let names: Vec<String> = (0..VMS).map(name).collect();
    futures::future::join_all(names.iter().map(|name| player.apply_vm(name, VmOptions::default()))).await;
    // The database takes no port of a name as long as the bad VM's: the server refuses it.
    let bad = names[BAD].as_str();
    shorten_names(&prepared.northbound, prepared.name("vm-00").len());
    let stage = prepared.start().await;
    eventually("all but the bad VM have their ports", || async {
        let missing: Vec<&String> =
            names.iter().filter(|name| stage.northbound.port(&stage.name(name)).is_none()).collect();
        if missing == [bad] { Ok(()) } else { Err(format!("missing: {missing:?}\n{}", stage.service.log())) }
    })
    .await;
    stage.event(bad, "CommitFailed", &["too-long"]).await;
    // It is tried again by itself once the server would take it.
    shorten_names(&stage.northbound, 300);
    stage.port(bad).await;
}

#[tokio::test]
async fn foreign_rows_and_foreign_keys_stay_as_they_are() {
    let stage = Stage::build("foreign").start().await;
    let nb = &stage.northbound;
    nb.add_foreign_port("ovn-default", "printer", &["0a:00:00:00:00:01 10.16.0.70"]);
    nb.nbctl(&["set", "NB_Global", ".", "external_ids:theirs=1"]);
    let other = "ovn-kubevirt.io/instance=other";
    nb.add_foreign_port("ovn-default", "other", &["0a:00:00:00:00:02 10.16.0.71"]);
    nb.nbctl(&[
        "set",
        "Logical_Switch_Port",
        "other",
        "external_ids:vendor=ovn-kubevirt",
        &format!("external_ids:{other}"),
        "external_ids:ovn-kubevirt.io/vm=nowhere/gone",
        "external_ids:ovn-kubevirt.io/network=default",
    ]);
    let before = nb.dump();
    stage.player.create_vm("testvm", VmOptions::default()).await;
    let name = stage.port("testvm").await.name;
    nb.nbctl(&["set", "Logical_Switch_Port", &name, "external_ids:theirs=2", "options:theirs=3"]);
    stage.player.start("testvm", "n1").await;
    let port = stage.port_where("testvm", "is on n1", |port| port.option("requested-chassis") == Some("n1")).await;
    assert_eq!((port.external_id("theirs"), port.option("theirs")), (Some("2"), Some("3")));
    stage.player.delete_vm("testvm").await;
    stage.port_gone("testvm").await;
    assert_eq!(nb.dump(), before);
}

#[tokio::test]
async fn a_row_that_is_deleted_or_overwritten_is_repaired_with_the_same_addresses() {
    let stage = Stage::build("repaired").start().await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    let port = stage.port("testvm").await;
    stage.northbound.nbctl(&["lsp-set-addresses", &port.name, "unknown"]);
    let repaired = stage.port_where("testvm", "has its addresses back", |now| now.addresses == port.addresses).await;
    assert_eq!(repaired, port);
    stage.northbound.nbctl(&["clear", "Logical_Switch_Port", &port.name, "port_security"]);
    stage.port_where("testvm", "has its port security back", |now| *now == port).await;
    stage.northbound.delete_port(&port.name);
    let made = stage.port("testvm").await;
    assert_eq!(made.addresses, port.addresses);
}

/// Converts the database to a schema that has the same columns, and an upper bound for the length of a port's name (RFC
/// 7047 section 3.2, `maxLength`).
fn shorten_names(northbound: &Northbound, longest: usize) {
    let schema = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/ovsdb-schemas/ovn-nb.ovsschema"));
    let mut schema: serde_json::Value = serde_json::from_str(&schema.expect("the schema")).expect("JSON");
    let name = json!({"type": {"key": {"type": "string", "maxLength": longest}}});
    schema["tables"]["Logical_Switch_Port"]["columns"]["name"] = name;
    let file = northbound.dir().join("short-names.ovsschema");
    std::fs::write(&file, schema.to_string()).expect("a schema file");
    let converted =
        std::process::Command::new("ovsdb-client").arg("convert").arg(northbound.remote()).arg(&file).status();
    assert!(converted.expect("ovsdb-client").success());
}
