//! The northbound database away, back, and shared.

use serde_json::json;

use crate::support::process::{Daemon, mortal};
use crate::support::{Northbound, Service, Stage, VmOptions, eventually, holds_for};

#[tokio::test]
async fn readiness_follows_the_database_and_work_resumes_when_it_comes_back() {
    let stage = Stage::build("away").start().await;
    stage.player.create_vm("before", VmOptions::default()).await;
    let before = stage.port("before").await;
    stage.northbound.kill9();
    eventually("the service is not ready", || async {
        match stage.service.http_get("/readyz").await {
            (503, body) if body.contains("northbound database is away") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(stage.service.http_get("/livez").await.0, 200);
    stage.player.create_vm("meanwhile", VmOptions::default()).await;
    stage.northbound.start_again().await;
    let meanwhile = stage.port("meanwhile").await;
    assert!(meanwhile.addresses.contains("0a:58:0a:10:00:03 10.16.0.3"));
    assert_eq!(stage.port("before").await, before);
    stage.service.ready().await;
}

#[tokio::test]
async fn not_ready_before_both_sides_have_synced() {
    let prepared = Stage::build("unsynced").prepare().await;
    prepared.northbound.kill9();
    let stage = prepared.spawn();
    stage.service.listening().await;
    let unready = || async {
        match stage.service.http_get("/readyz").await {
            (503, body) => Ok(body),
            other => Err(format!("{other:?}")),
        }
    };
    holds_for("the service is not ready", std::time::Duration::from_millis(500), unready).await;
    stage.northbound.start_again().await;
    stage.service.ready().await;
}

#[tokio::test]
async fn no_lease_is_released_before_the_watches_have_synced() {
    let mut stage = Stage::build("no-sweep").start().await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    let port = stage.port("testvm").await;
    // An API server that is not there: a fresh service knows of no VM at all.
    let gate = stage.gate_to_api_server().await;
    gate.shut();
    stage.service.kill9();
    stage.service = stage.setup().spawn();
    stage.service.listening().await;
    holds_for("the port stays", std::time::Duration::from_millis(1_000), || async {
        stage.northbound.port(&port.name).filter(|now| *now == port).ok_or("it changed")
    })
    .await;
    assert_eq!(stage.service.http_get("/readyz").await.0, 503);
    gate.open();
    stage.service.ready().await;
    assert_eq!(stage.port("testvm").await, port);
}

#[tokio::test]
async fn tcp_remotes_work_and_the_servers_probes_are_answered() {
    let prepared = Stage::build("tcp").prepare().await;
    let remote = prepared.northbound.probing_tcp_remote(1).await;
    let stage = prepared.with(|setup| setup.nb(&remote)).start().await;
    stage.make("testvm").await;
    holds_for("the service stays ready", std::time::Duration::from_secs(4), || async {
        match stage.service.http_get("/readyz").await {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let log = stage.service.log();
    assert!(!log.contains("is away"), "{log}");
}

#[tokio::test]
async fn the_second_of_two_services_deposes_the_first_which_ends_and_says_why() {
    let stage = Stage::build("deposed").start().await;
    stage.player.create_vm("before", VmOptions::default()).await;
    stage.port("before").await;
    let second = stage.setup().start().await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    stage.port("testvm").await;
    eventually("the first service has ended", || async {
        if stage.service.is_running() { Err("it runs") } else { Ok(()) }
    })
    .await;
    assert_eq!(stage.service.status().and_then(|status| status.code()), Some(1));
    let log = stage.service.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains("ending") && last.contains("has taken over"), "{log}");
    assert!(second.is_running());
    assert_eq!(stage.northbound.ports().len(), 2);
}

#[tokio::test]
async fn a_schema_that_lacks_columns_is_refused_by_their_names() {
    let northbound = Northbound::start().await;
    let schema = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/ovsdb-schemas/ovn-nb.ovsschema"));
    let mut schema: serde_json::Value = serde_json::from_str(&schema.expect("the schema")).expect("JSON");
    let columns = schema["tables"]["Logical_Switch_Port"]["columns"].as_object_mut().expect("columns");
    columns.remove("port_security");
    columns.insert("options".to_owned(), json!({"type": "string"}));
    let dir = northbound.dir();
    let (file, database, socket) = (dir.join("old.ovsschema"), dir.join("old.db"), dir.join("old.sock"));
    std::fs::write(&file, schema.to_string()).expect("a schema file");
    let created = std::process::Command::new("ovsdb-tool").arg("create").args([&database, &file]).status();
    assert!(created.expect("ovsdb-tool").success());
    let mut server = mortal("ovsdb-server");
    server.arg(&database).arg(format!("--remote=punix:{}", socket.display()));
    server.arg(format!("--unixctl={}", dir.join("old.ctl").display())).arg("-vconsole:off");
    let _server = Daemon::start("ovsdb-server", server);
    let remote = format!("unix:{}", socket.display());
    let error = eventually("the command says what is missing", || async {
        let output = Service::command_line(&["ports", "--nb", &remote]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if text.contains("schema") { Ok((output.status.code(), text)) } else { Err(text) }
    })
    .await;
    assert_eq!(error.0, Some(1));
    assert!(error.1.contains("column Logical_Switch_Port.port_security is missing"), "{}", error.1);
    assert!(error.1.contains("column Logical_Switch_Port.options is one String"), "{}", error.1);
}

#[tokio::test]
async fn changes_while_the_link_is_cut_are_seen_after_it() {
    let mut prepared = Stage::build("cut").prepare().await;
    let gate = prepared.gate_to_northbound().await;
    let stage = prepared.start().await;
    let (stays, _, robbed) = (stage.make("stays").await, stage.make("goes").await, stage.make("robbed").await);
    gate.shut();
    eventually("the service is not ready", || async {
        match stage.service.http_get("/readyz").await {
            (503, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    stage.player.delete_vm("goes").await;
    stage.northbound.delete_port(&robbed.name);
    let taken: Vec<&str> = robbed.addresses.iter().map(String::as_str).collect();
    stage.northbound.add_foreign_port("ovn-default", "thief", &taken);
    stage.player.create_vm("comes", VmOptions::default()).await;
    gate.open();
    stage.port_gone("goes").await;
    for vm in ["robbed", "comes"] {
        let port = stage.port(vm).await;
        assert!(port.addresses.is_disjoint(&robbed.addresses), "{port:#?}");
    }
    assert_eq!(stage.northbound.port(&stays.name), Some(stays));
}

#[tokio::test]
async fn a_database_that_is_killed_in_a_storm_loses_no_port_and_creates_no_port_twice() {
    const VMS: usize = 200;
    let stage = Stage::build("crash").start().await;
    let names: Vec<String> = (0..VMS).map(|index| format!("vm-{index:03}")).collect();
    let applied = futures::future::join_all(names.iter().map(|name| stage.player.apply_vm(name, VmOptions::default())));
    let crashes = async {
        for already in [1, VMS / 3, VMS / 2] {
            eventually("some ports are there", || async {
                let count = stage.northbound.ports().len();
                if count >= already { Ok(()) } else { Err(count) }
            })
            .await;
            stage.northbound.kill9();
            stage.northbound.start_again().await;
        }
    };
    tokio::join!(applied, crashes);
    let ports = eventually("every VM has its port", || async {
        let ports = stage.northbound.ports();
        if ports.len() == VMS { Ok(ports) } else { Err(format!("{} ports", ports.len())) }
    })
    .await;
    let vms: std::collections::BTreeSet<_> = ports.iter().map(|port| port.external_id("ovn-kubevirt.io/vm")).collect();
    let addresses: std::collections::BTreeSet<_> = ports.iter().flat_map(|port| &port.addresses).collect();
    assert_eq!((vms.len(), addresses.len()), (VMS, VMS));
    assert!(stage.service.is_running(), "{}", stage.service.log());
}
