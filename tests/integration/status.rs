//! The status of VMs, in annotation and Events: written once, at a pace, by the instance that serves the VM, with every answer
//! of the API server.

use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::json;

use crate::fronted::Fronted;
use crate::support::front::Rule;
use crate::support::player::PORTS_ANNOTATION;
use crate::support::{Stage, VmOptions, eventually, holds_for, objects};

const IP_ADDRESS: &str = "ovn.kubernetes.io/ip_address";

fn rule(method: &'static str, path: &str, times: usize, status: u16) -> Rule {
    Rule { method, path: path.to_owned(), times, status, retry_after: None, body: String::new(), done: false }
}

#[tokio::test]
async fn an_overloaded_api_server_is_left_alone_for_as_long_as_it_says() {
    for status in [429, 503] {
        let overloaded = Rule { retry_after: Some(2), ..rule("POST", "/events", 2, status) };
        let stage = Fronted::new("overloaded", &[overloaded]).await;
        stage.player.create_vm("testvm", VmOptions::default()).await;
        stage.status("testvm", &["10.16.0.2"]).await;
        eventually("the Event has come", || async {
            let events = stage.events("testvm").await;
            if events.len() == 1 { Ok(()) } else { Err(format!("{events:?}")) }
        })
        .await;
        let posts = stage.front.asked("POST", &["/events"]);
        assert_eq!(posts.len(), 3, "{posts:?}");
        let gaps: Vec<Duration> = posts.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
        assert!(gaps.iter().all(|gap| *gap >= Duration::from_millis(1_950)), "{gaps:?}");
        // The obstacle is the same for all.
        assert_eq!(stage.front.asked("PATCH", &["/virtualmachines/"]).len(), 1);
    }
}

#[tokio::test]
async fn an_event_whose_answer_was_lost_is_not_sent_a_second_time() {
    let lost = Rule { done: true, ..rule("POST", "/events", 1, 504) };
    let stage = Fronted::new("lost-answer", &[lost]).await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    stage.status("testvm", &["10.16.0.2"]).await;
    assert_eq!(stage.front.asked("POST", &["/events"]).len(), 2);
    let events = stage.events("testvm").await;
    assert_eq!(events.len(), 1, "{events:#?}");
}

#[tokio::test]
async fn a_vm_that_changes_all_the_time_gets_few_events_and_an_annotation_a_second() {
    const CHANGES: usize = 120;
    let stage = Fronted::new("pace", &[]).await;
    stage.player.create_vm("testvm", VmOptions::default().annotation(IP_ADDRESS, "10.16.0.10")).await;
    stage.status("testvm", &["10.16.0.10"]).await;
    let begun = Instant::now();
    for change in 0..CHANGES {
        let address = format!("10.16.0.{}", 10 + change % 2);
        stage.player.edit_template_annotation("testvm", IP_ADDRESS, Some(&address)).await;
    }
    while begun.elapsed() < Duration::from_secs(5) {
        for address in ["10.16.0.10", "10.16.0.11"] {
            stage.player.edit_template_annotation("testvm", IP_ADDRESS, Some(address)).await;
        }
    }
    stage.player.edit_template_annotation("testvm", IP_ADDRESS, Some("10.16.0.99")).await;
    stage.status("testvm", &["10.16.0.99"]).await;
    let patches = stage.front.asked("PATCH", &["/virtualmachines/testvm"]);
    let gaps: Vec<Duration> = patches.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(gaps.iter().all(|gap| *gap >= Duration::from_millis(950)), "{gaps:?}");
    let events = stage.events("testvm").await;
    // Two addresses in turn and the last one, each an Event, which is a series where it repeats.
    assert!(events.len() <= 3, "{events:#?}");
    let asked = stage.front.asked("POST", &["/events"]).len() + stage.front.asked("PATCH", &["/events/"]).len();
    assert!(asked <= 25, "{asked} requests: {:#?}", stage.front.asked("POST", &["/events"]));
    let counts: Vec<i32> = events.iter().filter_map(|event| event.series.as_ref()).map(|series| series.count).collect();
    assert!(counts.iter().any(|count| *count >= 2), "{events:#?}");
}

#[tokio::test]
async fn a_refused_status_is_one_line_in_the_log_and_is_forgotten_with_its_vm() {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422, "reason": "Invalid",
        "message": "VirtualMachine.kubevirt.io \"some\" is invalid: spec: Required value",
    });
    let invalid = Rule { body: body.to_string(), ..rule("PATCH", "/virtualmachines/", usize::MAX, 422) };
    let stage = Fronted::new("invalid", &[invalid]).await;
    let names: Vec<String> = (0..5).map(|index| format!("vm-{index}")).collect();
    for name in &names {
        stage.player.create_vm(name, VmOptions::default()).await;
    }
    let patches = |name: &str| stage.front.asked("PATCH", &[&format!("/virtualmachines/{name}?")]).len();
    for name in &names {
        eventually("its Event has come", || async {
            let has_event = patches(name) == 1 && stage.events(name).await.len() == 1;
            if has_event { Ok(()) } else { Err(format!("{:?}", stage.events(name).await)) }
        })
        .await;
    }
    // An event that leaves the report unchanged causes no retry, and neither does the end of the VM.
    stage.player.edit_vm(&names[0], |vm| vm["metadata"]["labels"]["some"] = "label".into()).await;
    for name in &names[1..] {
        stage.player.delete_vm(name).await;
    }
    eventually("the ports are gone", || async {
        let left = stage.northbound.ports().len();
        if left == 1 { Ok(()) } else { Err(left) }
    })
    .await;
    holds_for("nothing is tried again", Duration::from_secs(3), || async {
        let counts: Vec<usize> = names.iter().map(|name| patches(name)).collect();
        if counts == [1; 5] { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    let log = stage.service.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("could not be reported")).collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("Required value") && !lines[0].contains("ErrorResponse"), "{}", lines[0]);
    let (_, metrics) = stage.service.http_get("/metrics").await;
    assert!(metrics.contains("ovn_kubevirt_report_failures_total{reason=\"refused\"} 5"), "{metrics}");
}

#[tokio::test]
async fn two_instances_that_serve_one_namespace_do_not_rewrite_one_annotation() {
    let mut stage = Fronted::new("rivals", &[]).await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    let status = stage.status("testvm", &["\"instance\":\"default\""]).await;
    let front = stage.stage.front().await;
    let second = stage.setup().flags(["--instance", "second"]).start().await;
    eventually("the second instance says so", || async {
        let events = stage.events("testvm").await;
        let found = events.iter().filter(|event| event.reason.as_deref() == Some("ServedElsewhere"));
        let notes: Vec<_> = found.filter_map(|event| event.note.as_deref()).collect();
        let fits = |note: &&str| note.contains("instance default") && note.contains("--namespace-selector");
        if notes.len() == 1 && notes.iter().all(fits) { Ok(()) } else { Err(format!("{events:?}")) }
    })
    .await;
    // After any number of decisions.
    for label in 0..5 {
        stage.player.edit_vm("testvm", |vm| vm["metadata"]["labels"]["some"] = format!("l-{label}").into()).await;
    }
    stage.player.start("testvm", "n1").await;
    holds_for("neither instance writes more", Duration::from_secs(3), || async {
        let (events, patches) = (stage.events("testvm").await, front.asked("PATCH", &["/virtualmachines/"]));
        if events.len() <= 2 && patches.is_empty() { Ok(()) } else { Err(format!("{events:?} {patches:?}")) }
    })
    .await;
    assert_eq!(stage.status("testvm", &[]).await, status);
    assert!(second.is_running() && stage.service.is_running());
}

#[tokio::test]
async fn the_status_of_a_clone_has_its_own_conflict_and_nothing_of_its_parents_port() {
    let stage = Stage::build("clone").start().await;
    let options = || VmOptions::default().annotation(IP_ADDRESS, "10.16.0.9");
    stage.player.create_vm("parent", options()).await;
    stage.event("parent", "AddressAssigned", &["10.16.0.9"]).await;
    let status = stage.status("parent", &[]).await;
    // A clone or a restore writes all annotations of the parent.
    let mut child = objects::vm("child", &options());
    child["metadata"]["annotations"] = json!({PORTS_ANNOTATION: status.to_string()});
    let kind = GroupVersionKind::gvk("kubevirt.io", "v1", "VirtualMachine");
    let namespaced = (stage.namespace.client.clone(), stage.namespace.name.as_str());
    let vms: Api<DynamicObject> = Api::namespaced_with(namespaced.0, namespaced.1, &ApiResource::from_gvk(&kind));
    let parameters = PatchParams::apply("test").force();
    let child = vms.patch("child", &parameters, &Patch::Apply(&child)).await.expect("the clone");
    stage.event("child", "AddressConflict", &["10.16.0.9", "parent"]).await;
    let uid = child.metadata.uid.as_deref().expect("a UID");
    stage.status("child", &[uid, "AddressConflict"]).await;
    let reasons: Vec<String> = stage.namespace.events("child").await.into_iter().map(|(_, reason, _)| reason).collect();
    assert_eq!(reasons, ["AddressConflict"]);
}
