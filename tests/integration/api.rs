//! The operators' API, called by clients of ours and of others, on a leader and on a follower.

mod access;
mod clients;
mod commands;
mod described;
mod moves;
mod page;
mod subscribe;

use serde_json::{Value, json};

use ovn_kubevirt::api::rpc::{ApiClient, ApiUrl, ClientError, Credentials};

use crate::support::{Service, Stage, VmOptions, eventually};

const API: [&str; 2] = ["--api", "127.0.0.1:0"];
const RETAIN: &str = "ovn-kubevirt.io/retain";
const IP_ADDRESS: &str = "ovn.kubernetes.io/ip_address";

/// A connection to the API of a service.
async fn client(service: &Service) -> ApiClient {
    let url: ApiUrl = service.api().await.parse().expect("an address");
    ApiClient::connect(&url, &Credentials::default()).await.expect("an API")
}

async fn call(client: &mut ApiClient, method: &str, params: Value) -> Value {
    client.call(method, &params).await.unwrap_or_else(|error| panic!("{method} {params}: {error}"))
}

/// The code and the message of the error that a call ends with.
async fn refused(client: &mut ApiClient, method: &str, params: Value) -> (i32, String) {
    match client.call::<Value>(method, &params).await {
        Err(ClientError::Answered { code, message }) => (code, message),
        other => panic!("{method} {params}: {other:?}"),
    }
}

fn names(page: &Value) -> Vec<String> {
    let ports = page["ports"].as_array().expect("ports");
    ports.iter().map(|port| port["vm"].as_str().expect("a VM").to_owned()).collect()
}

/// Two services under one Lease: the leader, and the follower.
async fn leader_and_follower(name: &str) -> (Stage, Service) {
    let stage = Stage::build(name).lease(crate::fleet::LEASE_SECONDS).flags(API).start().await;
    let role =
        async |service: &Service| client(service).await.call::<Value>("status", &json!({})).await.expect("a status");
    eventually("the first one leads", || async {
        let status = role(&stage.service).await;
        if status["role"] == "leading" { Ok(()) } else { Err(status) }
    })
    .await;
    let follower = stage.setup().start().await;
    eventually("the second one follows, and knows the leader", || async {
        let status = role(&follower).await;
        if status["role"] == "following" && status["leader"].is_string() { Ok(()) } else { Err(status) }
    })
    .await;
    (stage, follower)
}

#[tokio::test]
async fn leader_and_follower_list_the_same_ports_by_the_page_and_by_filters() {
    let (stage, follower) = leader_and_follower("api-list").await;
    for vm in ["a", "b", "c", "d"] {
        stage.make(vm).await;
    }
    stage.player.create_vm("e", VmOptions::default().annotation(IP_ADDRESS, "10.16.0.2")).await;
    stage.event("e", "AddressConflict", &["10.16.0.2"]).await;
    stage.player.start("b", "n1").await;
    stage.port_where("b", "is on n1", |port| port.option("requested-chassis") == Some("n1")).await;
    let ns = stage.namespace.name.clone();
    for service in [&stage.service, &follower] {
        let mut api = client(service).await;
        let all = eventually("every port is listed", || async {
            let all = call(&mut client(service).await, "ports.list", json!({})).await;
            let e = &all["ports"][4];
            let is_whole = names(&all) == ["a", "b", "c", "d", "e"] && e["problems"][0]["reason"] == "AddressConflict";
            if is_whole && all["ports"][1]["chassis"] == json!(["n1"]) { Ok(all) } else { Err(all) }
        })
        .await;
        assert_eq!(
            all["ports"][1],
            json!({"namespace": ns, "vm": "b", "network": "default", "state": "bound", "port": format!("b.{ns}"),
                "switch": "ovn-default", "mac": "0a:58:0a:10:00:03", "ips": ["10.16.0.3"], "chassis": ["n1"], "problems": []})
        );
        assert_eq!(
            (&all["ports"][4]["state"], &all["ports"][4]["problems"][0]["fault"]),
            (&json!("pending"), &json!("owner"))
        );
        // Page by page it is the same.
        let (mut pages, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let page = call(&mut api, "ports.list", json!({"limit": 2, "cursor": cursor})).await;
            pages.extend(page["ports"].as_array().expect("ports").clone());
            cursor = page["nextCursor"].clone();
            if cursor.is_null() {
                break;
            }
        }
        assert_eq!(Value::from(pages), all["ports"]);
        for (filter, found) in [
            (json!({"search": "10.16.0.3"}), &["b"][..]),
            (json!({"search": "0A:58:0A:10:00:04"}), &["c"]),
            (json!({"search": "10.16.0"}), &["a", "b", "c", "d"]),
            (json!({"node": "n1"}), &["b"]),
            (json!({"state": "pending"}), &["e"]),
            (json!({"problems": true}), &["e"]),
            (json!({"problems": false, "state": "unbound"}), &["a", "c", "d"]),
            (json!({"namespace": ns, "vm": "d"}), &["d"]),
            (json!({"namespace": "another"}), &[]),
            (json!({"switch": "another"}), &[]),
        ] {
            assert_eq!(names(&call(&mut api, "ports.list", filter.clone()).await), found, "{filter}");
        }
    }
}

#[tokio::test]
async fn a_port_is_explained_in_sentences_with_the_cause_that_it_waits_for() {
    let stage = Stage::build("api-get").flags(API).start().await;
    stage.make("holder").await;
    stage.player.create_vm("testvm", VmOptions::default().annotation(IP_ADDRESS, "10.16.0.2")).await;
    stage.event("testvm", "AddressConflict", &["10.16.0.2"]).await;
    let mut api = client(&stage.service).await;
    let vm = |name: &str| json!({"namespace": stage.namespace.name, "vm": name});
    let explained = call(&mut api, "ports.get", vm("testvm")).await;
    let text = explained["explanation"].to_string();
    for words in ["has no launcher pod", "has no port yet: a problem", "AddressConflict: ", "is held by the VM"] {
        assert!(text.contains(words), "{words}: {explained:#}");
    }
    let waits = explained["waitsFor"].to_string();
    assert!(waits.contains("The holder of 10.16.0.2 on the logical switch ovn-default releases it."), "{waits}");
    assert_eq!(explained["exists"], true);
    let explained = call(&mut api, "ports.get", vm("holder")).await;
    let text = explained["explanation"].to_string();
    assert!(text.contains("holds 10.16.0.2 with the MAC 0a:58:0a:10:00:02"), "{explained:#}");
    let (code, message) = refused(&mut api, "ports.get", vm("nothing")).await;
    assert!(code == 2 && message.contains("ports.list"), "{code} {message}");
}

#[tokio::test]
async fn switches_report_the_use_of_every_address_and_a_map_shows_its_holder() {
    let stage = Stage::build("api-map")
        .switch_with("ovn-default", &[("subnet", "10.16.0.0/27"), ("exclude_ips", "10.16.0.20..10.16.0.22")])
        .switch_with("bare", &[])
        .flags(API)
        .flags(["--address-rest", "1h", "--max-retain", "forever"])
        .start()
        .await;
    stage.northbound.add_foreign_port("ovn-default", "printer", &["0a:00:00:00:00:01 10.16.0.9"]);
    for vm in ["a", "b"] {
        stage.make(vm).await;
    }
    stage.player.create_vm("kept", VmOptions::default().annotation(RETAIN, "forever")).await;
    stage.port("kept").await;
    stage.player.delete_vm("kept").await;
    stage.port_where("kept", "is retained", |port| port.external_id("ovn-kubevirt.io/retained-until").is_some()).await;
    stage.player.delete_vm("b").await;
    stage.port_gone("b").await;
    let counts = json!({"free": 22, "vm": 1, "reserved": 0, "retained": 1, "foreign": 1, "service": 0, "conflict": 0,
        "excluded": 3, "first": 1, "resting": 1, "unusable": 2});
    let mut api = client(&stage.service).await;
    let switch = eventually("the address of b rests", || async {
        let switches = call(&mut client(&stage.service).await, "switches.list", json!({"switch": "ovn-default"})).await;
        let switch = switches["switches"][0].clone();
        if switch["subnets"][0]["counts"] == counts { Ok(switch) } else { Err(switches) }
    })
    .await;
    assert_eq!(switch["ports"], json!({"vm": 1, "retained": 1, "foreign": 1}));
    let all = call(&mut api, "switches.list", json!({})).await;
    assert_eq!((&all["switches"][0]["name"], &all["switches"][0]["trouble"]), (&json!("bare"), &json!("no subnet")));
    let map = call(&mut api, "switches.map", json!({"switch": "ovn-default"})).await;
    assert_eq!(
        (&map["from"], &map["to"], &map["addressesPerCell"]),
        (&json!("10.16.0.0"), &json!("10.16.0.31"), &json!(1))
    );
    assert_eq!(map["cells"].as_array().map(Vec::len), Some(32));
    let used = map["addresses"].as_array().expect("addresses").iter();
    let used: Vec<(&str, &str)> =
        used.map(|used| (used["address"].as_str().expect("one"), used["kind"].as_str().expect("one"))).collect();
    assert_eq!(
        used,
        [
            ("10.16.0.0", "unusable"),
            ("10.16.0.1", "first"),
            ("10.16.0.2", "vm"),
            ("10.16.0.3", "resting"),
            ("10.16.0.4", "retained"),
            ("10.16.0.9", "foreign"),
            ("10.16.0.31", "unusable")
        ]
    );
    assert_eq!(map["addresses"][4]["holders"][0]["retainedUntil"], "forever");
    assert_eq!(map["addresses"][5]["holders"], json!([{"port": "printer"}]));
    let map = call(&mut api, "switches.map", json!({"switch": "ovn-default", "cells": 4})).await;
    let sum: u64 = map["cells"]
        .as_array()
        .expect("cells")
        .iter()
        .flat_map(|cell| cell.as_array().expect("numbers"))
        .map(|number| number.as_u64().expect("a number"))
        .sum();
    assert_eq!((&map["addressesPerCell"], sum, map["cells"].as_array().map(Vec::len)), (&json!(8), 32, Some(4)));
    for (params, words) in [
        (json!({"switch": "none"}), "switches.list"),
        (json!({"switch": "bare"}), "no subnet"),
        (json!({"switch": "ovn-default", "subnet": "10.0.0.0/8"}), "It has 10.16.0.0/27"),
        (json!({"switch": "ovn-default", "from": "10.17.0.0"}), "no address of the subnet"),
        (json!({"switch": "ovn-default", "cells": 0}), "Write 1 to 4096"),
    ] {
        let (_, message) = refused(&mut api, "switches.map", params.clone()).await;
        assert!(message.contains(words), "{params}: {message}");
    }
}

#[tokio::test]
async fn a_retained_lease_is_released_by_the_leader_alone_and_never_that_of_a_vm_that_exists() {
    let (stage, follower) = leader_and_follower("api-release").await;
    stage.player.create_vm("testvm", VmOptions::default().annotation(RETAIN, "72h")).await;
    stage.port("testvm").await;
    let vm = json!({"namespace": stage.namespace.name, "vm": "testvm"});
    let (mut leading, mut following) = (client(&stage.service).await, client(&follower).await);
    let (code, message) = refused(&mut leading, "leases.release", vm.clone()).await;
    assert!(code == 4 && message.contains("exists"), "{code} {message}");
    stage.player.delete_vm("testvm").await;
    stage
        .port_where("testvm", "is retained", |port| port.external_id("ovn-kubevirt.io/retained-until").is_some())
        .await;
    let status = call(&mut following, "status", json!({})).await;
    let (code, message) = refused(&mut following, "leases.release", vm.clone()).await;
    assert!(code == 3 && message.contains(status["leader"].as_str().expect("a leader")), "{code} {message}");
    stage.port("testvm").await;
    let released = call(&mut leading, "leases.release", vm.clone()).await;
    assert_eq!(released["released"][0]["ips"], json!(["10.16.0.2"]), "{released}");
    assert!(stage.northbound.ports().is_empty(), "{}", stage.northbound.dump());
    let (code, message) = refused(&mut leading, "leases.release", vm).await;
    assert!(code == 2 && message.contains("No addresses are retained"), "{code} {message}");
}

#[tokio::test]
async fn a_decision_can_be_asked_for_and_writes_nothing() {
    let stage = Stage::build("api-decide").flags(API).start().await;
    stage.make("holder").await;
    let mut api = client(&stage.service).await;
    let object = |name: &str, address: Option<&str>| {
        let options =
            address.map_or(VmOptions::default(), |address| VmOptions::default().annotation(IP_ADDRESS, address));
        let mut object = crate::support::objects::vm(name, &options);
        object["metadata"]["namespace"] = stage.namespace.name.clone().into();
        json!({"object": object})
    };
    let decided = call(&mut api, "decide", object("new", None)).await;
    assert_eq!((&decided["served"], &decided["rows"][0]["action"]), (&json!(true), &json!("create")), "{decided:#}");
    assert_eq!(decided["rows"][0]["after"]["addresses"], json!(["0a:58:0a:10:00:03 10.16.0.3"]));
    let decided = call(&mut api, "decide", object("new", Some("10.16.0.2"))).await;
    assert_eq!(decided["rows"], json!([]));
    assert!(decided["ports"][0]["problems"].to_string().contains("is held by the VM"), "{decided:#}");
    assert!(decided["waitsFor"].to_string().contains("10.16.0.2"), "{decided:#}");
    let (code, message) = refused(&mut api, "decide", json!({"object": {"kind": "Pod"}})).await;
    assert!(code == -32602 && message.contains("VirtualMachineInstance"), "{message}");
    assert_eq!(stage.northbound.ports().len(), 1);
}

/// The steps that only the southbound shows: the target's chassis has claimed the port, has processed it, has seen the guest.
#[tokio::test]
async fn with_the_southbound_a_migration_has_the_progress_of_its_targets_chassis() {
    let stage = Stage::build("api-claims")
        .northd()
        .reads_southbound()
        .chassis("hv1", "n1")
        .chassis("hv2", "n2")
        .flags(API)
        .start()
        .await;
    stage.make("testvm").await;
    stage.player.start("testvm", "n1").await;
    stage.port_where("testvm", "is on hv1", |port| port.option("requested-chassis") == Some("hv1")).await;
    let rows = stage.northbound.southbound().rows("Chassis");
    let [hv1, hv2] =
        ["hv1", "hv2"].map(|name| rows.iter().find(|row| row["name"] == name).expect("a chassis")["_uuid"].clone());
    let of_port = json!([["logical_port", "==", stage.name("testvm")]]);
    let binding = |row: Value| json!({"op": "update", "table": "Port_Binding", "where": of_port, "row": row});
    let migration = stage.player.start_migration("testvm", "n2").await;
    stage.player.bind_target(&migration).await;
    stage.port_where("testvm", "is open on hv2", |port| port.option("requested-chassis") == Some("hv1,hv2")).await;
    stage.northbound.sync_southbound();
    let sb = stage.northbound.southbound();
    let listed = |step: &'static str, processed: bool| {
        let service = &stage.service;
        eventually("the step is told", move || async move {
            let all = call(&mut client(service).await, "migrations.list", json!({})).await;
            let one = &all["migrations"][0];
            let is_processed = one["ports"][0]["binding"]["processed"] == true;
            if one["step"] == step && is_processed == processed { Ok(()) } else { Err(all) }
        })
    };
    sb.transact(json!([binding(json!({"chassis": hv1}))]));
    listed("open", false).await;
    // hv2 has processed all that there is, and not its own claim.
    let reaches = |nb_cfg: i64| {
        json!([{"op": "update", "table": "Chassis_Private", "where": [["name", "==", "hv2"]],
                "row": {"chassis": hv2, "nb_cfg": nb_cfg}}])
    };
    let nb_cfg = sb.rows("SB_Global")[0]["nb_cfg"].as_i64().expect("a number");
    sb.transact(reaches(nb_cfg));
    sb.transact(json!([binding(json!({"additional_chassis": hv2}))]));
    listed("claimed", false).await;
    stage.northbound.sync_southbound();
    listed("claimed", false).await;
    sb.transact(reaches(nb_cfg + 1));
    listed("claimed", true).await;
    sb.transact(json!([binding(json!({"options": ["map", [["additional-chassis-activated", "hv2"]]]}))]));
    listed("activated", true).await;
}

#[tokio::test]
async fn a_migration_is_listed_with_its_phases_and_the_steps_of_its_ports() {
    let stage = Stage::build("api-moves").northd().flags(API).start().await;
    stage.make("testvm").await;
    stage.player.start("testvm", "n1").await;
    let listed = |what: &'static str, fits: fn(&Value) -> bool| {
        let service = &stage.service;
        eventually(what, move || async move {
            let all = call(&mut client(service).await, "migrations.list", json!({})).await;
            if fits(&all["migrations"]) { Ok(all["migrations"][0].clone()) } else { Err(all) }
        })
    };
    listed("there is none", |all| *all == json!([])).await;
    let migration = stage.player.start_migration("testvm", "n2").await;
    let waiting =
        listed("it waits for its target pod", |all| all[0]["phase"] == "Scheduling" && all[0]["step"] == "waiting")
            .await;
    assert_eq!(
        (&waiting["vm"], &waiting["migration"], &waiting["source"]),
        (&json!("testvm"), &json!(migration.name), &json!("n1"))
    );
    stage.player.bind_target(&migration).await;
    let open = listed("its port is open on the target", |all| all[0]["step"] == "open").await;
    assert_eq!((&open["target"], &open["ports"][0]["chassis"]), (&json!("n2"), &json!(["n1", "n2"])));
    stage.player.target_running(&migration).await;
    stage.player.migration_scheduled(&migration).await;
    stage.player.hand_off(&migration).await;
    stage.player.target_ready(&migration).await;
    stage.player.migration_running(&migration).await;
    listed("it runs", |all| all[0]["phase"] == "Running" && all[0]["step"] == "open").await;
    stage.player.domain_ready(&migration).await;
    let arrived = listed("the guest is there", |all| all[0]["step"] == "arrived").await;
    assert_eq!((&arrived["source"], &arrived["target"]), (&json!("n1"), &json!("n2")), "{arrived:#}");
    stage.player.succeed(&migration).await;
    listed("it has ended", |all| *all == json!([])).await;
}
