//! An instance in a northbound database belongs to one cluster: a process of another one commits no transaction.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use kube::Api;

use crate::fleet::LEASE_SECONDS;
use crate::support::{Cluster, Namespace, Northbound, Port, Service, Stage, VmOptions, eventually, holds_for};

/// Long enough for a write that should not come.
const A_WHILE: Duration = Duration::from_millis(1_500);
const KEY: &str = "ovn-kubevirt.io/cluster.default";

/// A second API server, with another UID of `kube-system` and no VMs.
fn other_cluster() -> &'static Cluster {
    static OTHER: OnceLock<Cluster> = OnceLock::new();
    OTHER.get_or_init(Cluster::own)
}

async fn uid_of(namespace: &Namespace) -> String {
    let namespaces: Api<core::Namespace> = Api::all(namespace.client.clone());
    let kube_system = namespaces.get("kube-system").await.expect("the API server makes this namespace");
    kube_system.metadata.uid.expect("a UID")
}

/// The value of a key in `NB_Global:external_ids`.
fn global(northbound: &Northbound, key: &str) -> Option<String> {
    let value = northbound.nbctl(&["--if-exists", "get", "NB_Global", ".", &format!("external_ids:\"{key}\"")]);
    let value = value.trim().trim_matches('"').to_owned();
    (!value.is_empty()).then_some(value)
}

fn write_owner(northbound: &Northbound, uid: &str) {
    northbound.nbctl(&["set", "NB_Global", ".", &format!("external_ids:\"{KEY}\"=\"{uid}\"")]);
}

async fn owner_is(northbound: &Northbound, uid: &str) {
    eventually(&format!("the instance belongs to {uid}"), || async {
        let present = global(northbound, KEY);
        if present.as_deref() == Some(uid) { Ok(()) } else { Err(format!("{present:?}")) }
    })
    .await;
}

fn by_name(northbound: &Northbound) -> BTreeMap<String, Port> {
    northbound.ports().into_iter().map(|port| (port.name.clone(), port)).collect()
}

/// Waits for the end of a process without a Lease, whose last words name all these.
async fn ended(service: &Service, words: &[&str]) {
    eventually("the process has ended", || async { if service.is_running() { Err(service.log()) } else { Ok(()) } })
        .await;
    assert_eq!(service.status().and_then(|status| status.code()), Some(1));
    let log = service.log().replace('\\', "");
    let last = log.lines().last().unwrap_or_default();
    assert!(words.iter().all(|word| last.contains(word)), "{words:?} in the last line of\n{log}");
}

#[tokio::test]
async fn another_clusters_process_ends_with_words_and_every_port_stays() {
    let stage = Stage::build("owned").start().await;
    let own = uid_of(&stage.namespace).await;
    for vm in ["a", "b", "c"] {
        stage.player.create_vm(vm, VmOptions::default()).await;
    }
    for vm in ["a", "b", "c"] {
        stage.port(vm).await;
    }
    assert_eq!(global(&stage.northbound, KEY), Some(own.clone()));
    let before = stage.northbound.dump();
    let theirs = Stage::build("theirs").cluster(other_cluster()).beside(&stage).prepare().await;
    let other = uid_of(&theirs.namespace).await;
    assert_ne!(own, other);
    let setup = theirs.setup();
    let words =
        ["\"default\"", &own, &other, "--instance", &format!("--take-over-cluster {own}")].map(ToOwned::to_owned);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let intruder = setup.spawn();
    ended(&intruder, &words).await;

    // Under a Lease it is not ready, does not stand, and says the same.
    theirs.namespace.allow_leases().await;
    let waiting = setup.clone().lease(&format!("{}/intruder", theirs.namespace.name)).spawn();
    waiting.listening().await;
    let said = eventually("it is not ready, and says why", || async {
        match waiting.http_get("/readyz").await {
            (503, text) if words.iter().all(|word| text.contains(word)) => Ok(text),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let status = Service::command_line(&["status", "--http", waiting.listening().await]);
    assert_eq!(status.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&status.stderr).contains(said.trim()), "{status:?}");
    holds_for("nothing is touched and no service is deposed", A_WHILE, || async {
        let quiet = !waiting.log().contains("this process leads") && stage.service.is_running();
        if quiet && stage.northbound.dump() == before { Ok(()) } else { Err(waiting.log()) }
    })
    .await;
    stage.player.create_vm("d", VmOptions::default()).await;
    stage.port("d").await;

    // An instance of its own is served beside it.
    let beside = setup.clone().flags(["--instance", "theirs"]).start().await;
    theirs.make("e").await;
    assert_eq!(by_name(&stage.northbound).len(), 5);
    beside.stop().await;

    // The wrong UID has no effect. The right one takes the instance over, and the process before it is deposed.
    ended(&setup.clone().flags(["--take-over-cluster", &other]).spawn(), &words).await;
    stage.service.stop().await;
    waiting.kill9();
    let heir = setup.clone().flags(["--take-over-cluster", &own]).start().await;
    owner_is(&stage.northbound, &other).await;
    assert!(heir.log().contains("taken over from another cluster"), "{}", heir.log());
    heir.stop().await;
    // Once done, the flag does no harm.
    let again = setup.flags(["--take-over-cluster", &own]).start().await;
    let late = stage.setup().spawn();
    ended(&late, &[&format!("--take-over-cluster {other}")]).await;
    assert!(again.is_running());
}

#[tokio::test]
async fn of_two_clusters_that_start_at_the_same_moment_one_gets_the_instance() {
    for _ in 0..3 {
        let ours = Stage::build("race").prepare().await;
        let theirs = Stage::build("race").cluster(other_cluster()).beside(&ours).prepare().await;
        let uids = [uid_of(&ours.namespace).await, uid_of(&theirs.namespace).await];
        for prepared in [&ours, &theirs] {
            prepared.player.create_vm("vm", VmOptions::default()).await;
        }
        let stages = [ours.spawn(), theirs.spawn()];
        let lost = eventually("one of the two has ended", || async {
            stages.iter().position(|stage| !stage.service.is_running()).ok_or("both run")
        })
        .await;
        let won = 1 - lost;
        ended(&stages[lost].service, &["--take-over-cluster", &uids[won], &uids[lost]]).await;
        stages[won].service.ready().await;
        owner_is(&stages[won].northbound, &uids[won]).await;
        stages[won].port("vm").await;
        assert_eq!(stages[won].northbound.ports().len(), 1);
    }
}

#[tokio::test]
async fn a_key_that_is_deleted_is_written_again_and_one_of_another_cluster_ends_the_office() {
    let stage = Stage::build("keyed").start().await;
    let own = uid_of(&stage.namespace).await;
    stage.player.create_vm("a", VmOptions::default()).await;
    let port = stage.port("a").await;
    for _ in 0..3 {
        stage.northbound.nbctl(&["remove", "NB_Global", ".", "external_ids", &format!("\"{KEY}\"")]);
        owner_is(&stage.northbound, &own).await;
    }
    assert!(stage.service.is_running(), "{}", stage.service.log());
    stage.player.create_vm("b", VmOptions::default()).await;
    stage.port("b").await;
    // As another process, or an operator, writes it.
    write_owner(&stage.northbound, "another-cluster");
    ended(&stage.service, &["another-cluster", &own, "--take-over-cluster another-cluster"]).await;
    assert_eq!(stage.northbound.port(&stage.name("a")), Some(port));
    assert_eq!(global(&stage.northbound, KEY).as_deref(), Some("another-cluster"));
}

#[tokio::test]
async fn under_a_lease_a_leader_steps_down_and_comes_back_when_the_key_is_its_own_again() {
    let fleet = Stage::build("barred").lease(LEASE_SECONDS).prepare().await;
    let services = [fleet.setup().start().await, fleet.setup().start().await];
    fleet.make("a").await;
    let own = uid_of(&fleet.namespace).await;
    let all_say = async |ready: u16, words: &str| {
        for service in &services {
            eventually(&format!("/readyz says {ready}, {words}"), || async {
                match service.http_get("/readyz").await {
                    (status, text) if status == ready && text.contains(words) => Ok(()),
                    other => Err(format!("{other:?}\n{}", service.log())),
                }
            })
            .await;
        }
    };
    // The leader and the follower alike.
    write_owner(&fleet.northbound, "another-cluster");
    all_say(503, "another-cluster").await;
    fleet.player.create_vm("b", VmOptions::default()).await;
    holds_for("nothing is written", A_WHILE, || async {
        if fleet.ports().len() == 1 { Ok(()) } else { Err(fleet.northbound.dump()) }
    })
    .await;
    write_owner(&fleet.northbound, &own);
    all_say(200, "ok").await;
    fleet.port("b").await;
    // All keys are lost at once: another program rewrites the row.
    fleet.northbound.nbctl(&["clear", "NB_Global", ".", "external_ids"]);
    fleet.make("c").await;
    owner_is(&fleet.northbound, &own).await;
    assert!(services.iter().all(Service::is_running));
}
