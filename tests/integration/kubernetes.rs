//! The API server goes away in every way that it can: refused, silent, half-open, without a kind of object.

use std::time::{Duration, Instant};

use kube::api::{DeleteParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde_json::json;

use crate::fronted::Fronted;
use crate::support::eventually::within;
use crate::support::front::Asked;
use crate::support::{Cluster, Service, Stage, VmOptions, eventually};

/// The kinds that are watched, as they stand in paths.
const KINDS: [&str; 7] = [
    "/virtualmachines?",
    "/virtualmachineinstances?",
    "/virtualmachineinstancemigrations?",
    "/network-attachment-definitions?",
    "/pods?",
    "/nodes?",
    "/namespaces?",
];

fn lists(stage: &Fronted, kind: &str) -> Vec<Asked> {
    let pages = stage.front.asked("GET", &[kind, "limit="]);
    // A list of many objects has more than one page.
    pages.into_iter().filter(|page| !page.path.contains("continue=")).collect()
}

fn watches(stage: &Fronted, kind: &str) -> Vec<Asked> {
    stage.front.asked("GET", &[kind, "watch="])
}

async fn unready(service: &Service, limit: Duration, words: &[&str]) -> String {
    within(limit, &format!("/readyz says 503 with {words:?}"), || async {
        match service.http_get("/readyz").await {
            (503, body) if words.iter().all(|word| body.contains(word)) => Ok(body),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn silent_connections_do_not_block_owners() {
    let stage = Fronted::new("silent", &[]).await;
    stage.player.create_vm("first", VmOptions::default()).await;
    stage.status("first", &[]).await;
    stage.front.mute_requests();
    stage.player.create_vm("second", VmOptions::default()).await;
    stage.status("second", &[]).await;
    let events = stage.namespace.events("second").await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(stage.service.is_running());
}

#[tokio::test]
async fn a_half_open_watch_is_noticed_within_half_a_minute_and_a_healthy_one_is_never_listed_again() {
    let stage = Fronted::new("half-open", &[]).await;
    within(Duration::from_secs(60), "each watch has been opened again", || async {
        let counts = KINDS.map(|kind| watches(&stage, kind).len());
        if counts.iter().all(|count| *count >= 2) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    let gaps = KINDS.map(|kind| {
        let watches = watches(&stage, kind);
        watches[1].at - watches[0].at
    });
    assert!(gaps.iter().all(|gap| *gap > Duration::from_secs(15)), "{gaps:?}");
    stage.front.mute_connections();
    let muted = Instant::now();
    stage.player.create_vm("testvm", VmOptions::default()).await;
    let name = format!("testvm.{}", stage.namespace.name);
    let look = || async { stage.northbound.port(&name).map(drop).ok_or("no port") };
    within(Duration::from_secs(40), "a VM that is made behind a dead watch is served", look).await;
    println!("noticed after {:?}", muted.elapsed());
    // Neither the end of a watch nor its death costs a list.
    assert_eq!(KINDS.map(|kind| lists(&stage, kind).len()), [1; 7]);
}

#[tokio::test]
async fn readiness_shows_within_seconds_that_the_api_server_refuses_connections() {
    let mut prepared = Stage::build("refused").prepare().await;
    let gate = prepared.gate_to_api_server().await;
    let stage = prepared.start().await;
    stage.make("testvm").await;
    let before = stage.northbound.dump();
    gate.shut();
    unready(&stage.service, Duration::from_secs(10), &["the Kubernetes API server does not answer"]).await;
    assert_eq!(stage.northbound.dump(), before, "what stands keeps standing");
    gate.open();
    stage.service.ready().await;
    stage.make("another").await;
}

#[tokio::test]
async fn readiness_shows_within_seconds_that_the_api_server_is_silent() {
    let stage = Fronted::new("mute", &[]).await;
    let (_, metrics) = stage.service.http_get("/metrics").await;
    for kind in KINDS.map(|kind| kind.trim_matches(['/', '?'])) {
        let line = format!("ovn_kubevirt_watch_age_seconds{{kind=\"{kind}\"}}");
        let age = metrics.lines().find_map(|found| found.strip_prefix(&line)).unwrap_or_else(|| panic!("{metrics}"));
        assert!(age.trim().parse::<f64>().is_ok_and(|age| age < 30.0), "{kind}: {age}");
    }
    stage.front.mute_all();
    unready(&stage.service, Duration::from_secs(12), &["the Kubernetes API server does not answer", "no answer"]).await;
    stage.front.unmute();
    stage.service.ready().await;
}

#[tokio::test]
async fn readiness_shows_that_a_kind_of_object_is_gone_until_it_is_back() {
    // It would be gone for the other tests as well.
    let cluster = Cluster::own();
    let stage = Stage::build("kind-gone").cluster(&cluster).start().await;
    let definitions = definitions(stage.namespace.client.clone());
    let name = "virtualmachineinstancemigrations.kubevirt.io";
    let mut definition = serde_json::to_value(definitions.get(name).await.expect("the definition")).expect("JSON");
    definitions.delete(name, &DeleteParams::default()).await.expect("it is deleted");
    let words = ["the watch of virtualmachineinstancemigrations fails", "404"];
    unready(&stage.service, Duration::from_secs(40), &words).await;
    definition["metadata"] = json!({"name": name, "annotations": definition["metadata"]["annotations"]});
    definition.as_object_mut().expect("an object").remove("status");
    eventually("the definition is back", || async {
        let definition: DynamicObject = serde_json::from_value(definition.clone()).expect("a definition");
        definitions.create(&PostParams::default(), &definition).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    stage.service.ready().await;
}

fn definitions(client: Client) -> Api<DynamicObject> {
    use kube::core::{ApiResource, GroupVersionKind};
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    Api::all_with(client, &ApiResource::from_gvk(&kind))
}
