//! The annotations of a launcher pod, the accounts that may create one, and its wait for its ports.

use super::*;
use crate::support::holds_for;
use crate::support::objects::{MULTUS_ANNOTATION, launcher_pod, target_pod};
use crate::support::valve::Valve;
use crate::support::{Nic, VmOptions};

const PORTS: &str = "ovn-kubevirt.io/ports";
const DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";

/// A set-up with the NADs net1 on blue and plain on no switch of OVN.
async fn prepared(name: &str) -> Prepared {
    let other_config = [("subnet", "10.17.0.0/24"), ("mtu", "1400")];
    let builder = Stage::build(name).switch_with("blue", &other_config).router("blue", &["10.17.0.1/24"]);
    builder.nad("net1", "blue").nad("plain", None).prepare().await
}

async fn hooked(prepared: Prepared, flags: &[&str]) -> (Hooked, Service) {
    let mut stage = Hooked::on(prepared).await;
    let service = stage.setup("150s").flags(flags).start().await;
    stage.call(&service).await;
    stage.called().await;
    (stage, service)
}

fn annotation(pod: &Value, key: &str) -> Option<Value> {
    let text = pod["metadata"]["annotations"][key].as_str()?;
    Some(serde_json::from_str(text).unwrap_or_else(|error| panic!("{key} is no JSON: {error}: {text}")))
}

/// Makes a launcher pod as a user, or as virt-controller. Gives back the pod, or the message of the refusal.
async fn make_pod(namespace: &Namespace, as_virt_controller: bool, pod: &Value) -> Result<Value, String> {
    let client = if as_virt_controller { &namespace.virt_controller } else { &namespace.client };
    let request = hyper::Request::post(format!("/api/v1/namespaces/{}/pods", namespace.name));
    let request = request.header("content-type", "application/json").body(serde_json::to_vec(pod).expect("JSON"));
    client.request::<Value>(request.expect("a request")).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_pod_carries_its_ports_before_any_cni_runs_and_so_does_a_migrations_target() {
    let (stage, _service) = hooked(prepared("carried").await, &[]).await;
    let nics = [Nic::pod("default"), Nic::nad("red", "net1"), Nic::nad("blue", "net1"), Nic::nad("other", "plain")];
    let options = VmOptions::default().nics(nics).annotation("red.ovn.kubernetes.io/ip_address", "10.17.0.20");
    stage.player.create_vm("multi", options).await;
    let run = stage.player.start("multi", "n1").await;
    let pod = stage.player.pod(&run.pod).await.expect("the pod");
    let ns = &stage.namespace.name;
    let name = format!("multi.{ns}.net1.{ns}.ovn");
    let ports = annotation(&pod, PORTS).expect("the ports");
    let red = json!({
        "network": "red", "interface": "podb1f51a511f1", "port": name, "switch": "blue", "mac": "0a:58:0a:11:00:14",
        "ips": ["10.17.0.20/24"], "gateway": ["10.17.0.1"], "mtu": 1400,
    });
    assert_eq!(ports[1], red, "{ports}");
    assert_eq!((&ports[0]["interface"], &ports[0]["port"]), (&json!("eth0"), &json!(format!("multi.{ns}"))));
    assert_eq!(ports[0]["ips"], json!(["10.16.0.2/16"]));
    assert_eq!((&ports[2]["interface"], &ports[2]["port"]), (&json!("pod16477688c0e"), &json!(format!("{name}.blue"))));
    assert_eq!(ports.as_array().map(Vec::len), Some(3), "a network of others is not named: {ports}");
    let elements = annotation(&pod, MULTUS_ANNOTATION).expect("the networks");
    let arguments = json!({"ovnPort": name, "mac": "0a:58:0a:11:00:14", "ips": ["10.17.0.20/24"]});
    assert_eq!(elements[0]["cni-args"], arguments, "{elements}");
    assert_eq!(elements[0]["ips"], json!(["10.17.0.20/24"]));
    assert_eq!(elements[1]["cni-args"]["ovnPort"], json!(format!("{name}.blue")));
    assert_eq!(elements[2].get("cni-args"), None, "the element of another network stays as it is");
    assert_eq!(annotation(&pod, DEFAULT_NETWORK), None);
    let migration = stage.player.start_migration("multi", "n2").await;
    let target = stage.player.pod(&migration.target_pod).await.expect("the target");
    assert_eq!(annotation(&target, PORTS), Some(ports));
    assert_eq!(annotation(&target, MULTUS_ANNOTATION), Some(elements));
}

/// Its pod and a migration's target are on different networks, and each has the port of its own.
#[tokio::test]
async fn each_pod_has_the_port_of_its_network_while_a_running_vm_changes_it() {
    let builder = Stage::build("net-change").switch("blue", "10.17.0.0/24").switch("red", "10.18.0.0/30");
    let prepared = builder.nad("net1", "blue").nad("net2", "red").prepare().await;
    let (stage, _service) = hooked(prepared, &[]).await;
    let nic = |nad| VmOptions::default().nics([Nic::pod("default"), Nic::nad("data", nad)]);
    stage.player.create_vm("testvm", nic("net1")).await;
    let run = stage.player.start("testvm", "n1").await;
    let port = |pod: &Value| annotation(pod, PORTS).expect("the ports")[1].clone();
    let before = port(&stage.player.pod(&run.pod).await.expect("the pod"));
    let ns = &stage.namespace.name;
    assert_eq!(before["port"], json!(format!("testvm.{ns}.net1.{ns}.ovn")));
    // The new network has no room: virt-controller gets the reason, and the guest stays.
    stage.player.create_vm("rival", nic("net2")).await;
    let name = format!("rival.{ns}.net2.{ns}.ovn");
    eventually("the rival has its port", || async { stage.northbound.port(&name).ok_or("it has none") }).await;
    stage.player.change_networks("testvm", &[("data", "net2")]).await;
    let vmi = stage.player.vmi("testvm").await.expect("the VMI");
    let migration = stage.player.create_migration("testvm", "n2").await;
    let vmim = stage.player.vmim(&migration.name).await.expect("the VMIM");
    let target = target_pod(&vmi, &vmim);
    let refusal = make_pod(&stage.namespace, true, &target).await.expect_err("a full network");
    assert!(refusal.contains("network data") && refusal.contains("10.18.0.0/30"), "{refusal}");
    stage.player.delete_vm("rival").await;
    let name = format!("testvm.{ns}.net2.{ns}.ovn");
    eventually("there is room", || async { stage.northbound.port(&name).ok_or("there is none") }).await;
    let migration = stage.player.create_target(migration).await;
    let target = port(&stage.player.pod(&migration.target_pod).await.expect("the target"));
    assert_eq!(target["port"], json!(format!("testvm.{ns}.net2.{ns}.ovn")));
    assert_eq!((&target["mac"], &target["interface"]), (&before["mac"], &before["interface"]));
    assert_eq!(target["ips"], json!(["10.18.0.2/30"]));
    let elements = annotation(&stage.player.pod(&migration.target_pod).await.expect("the target"), MULTUS_ANNOTATION);
    assert_eq!(elements.expect("the networks")[0]["cni-args"]["ovnPort"], target["port"]);
    // Any edit of the guest's pod finds its own port again.
    stage.player.bind_target(&migration).await;
    stage.player.pod_phase(&run.pod, "Running").await;
    stage.player.vmi_scheduled("testvm", "n1").await;
    assert_eq!(port(&stage.player.pod(&run.pod).await.expect("the pod")), before);
    stage.player.fail(&migration).await;
    assert_eq!(port(&stage.player.pod(&migration.target_pod).await.expect("the target")), target);
}

#[tokio::test]
async fn the_pod_of_the_readmes_vm_is_plugged_by_multus_where_the_operator_names_a_nad_for_it() {
    let (stage, _service) = hooked(prepared("default-nad").await, &["--default-network", "kube-system/ovn"]).await;
    stage
        .player
        .create_vm("testvm", VmOptions::default().annotation("ovn.kubernetes.io/ip_address", "10.16.0.15"))
        .await;
    let run = stage.player.start("testvm", "n1").await;
    let pod = stage.player.pod(&run.pod).await.expect("the pod");
    let (mac, ips) = ("0a:58:0a:10:00:0f", json!(["10.16.0.15/16"]));
    let element = json!([{
        "name": "ovn", "namespace": "kube-system", "mac": mac, "ips": ips,
        "cni-args": {"ovnPort": stage.name("testvm"), "mac": mac, "ips": ips},
    }]);
    assert_eq!(annotation(&pod, DEFAULT_NETWORK), Some(element));
}

#[tokio::test]
async fn a_hot_plug_is_merged_again_each_time_and_a_second_pass_changes_nothing() {
    let (stage, _service) = hooked(prepared("hot-plug").await, &[]).await;
    stage.player.create_vm("testvm", VmOptions::default().nics([Nic::pod("default"), Nic::nad("red", "net1")])).await;
    let run = stage.player.start("testvm", "n1").await;
    let pod = || async { stage.player.pod(&run.pod).await.expect("the pod") };
    let names = |pod: &Value| -> Vec<String> {
        let elements = annotation(pod, MULTUS_ANNOTATION).expect("the networks");
        let name = |element: &Value| element["cni-args"]["ovnPort"].as_str().unwrap_or_default().to_owned();
        elements.as_array().expect("a list").iter().map(name).collect()
    };
    let before = pod().await;
    stage.player.plug("testvm", &Nic::nad("blue", "net1")).await;
    let ns = &stage.namespace.name;
    let port = format!("testvm.{ns}.net1.{ns}.ovn");
    let both = [port.clone(), format!("{port}.blue")];
    let plugged = pod().await;
    assert_eq!(names(&plugged), both);
    assert_eq!(annotation(&plugged, PORTS).and_then(|ports| ports.as_array().map(Vec::len)), Some(3));
    for _ in 0..2 {
        stage.player.regenerate_multus("testvm").await;
        let again = pod().await;
        assert_eq!(names(&again), both);
        let version = |pod: &Value| pod["metadata"]["resourceVersion"].clone();
        assert_eq!(version(&again), version(&plugged), "the API server has nothing to store");
    }
    stage.player.unplug("testvm", "blue").await;
    stage.player.unplugged("testvm", "blue").await;
    assert_eq!(annotation(&pod().await, PORTS), annotation(&before, PORTS));
}

#[tokio::test]
async fn a_launcher_that_virt_controller_did_not_make_is_refused() {
    let (stage, _service) = hooked(prepared("forged").await, &["--launcher-creators", "system:restore"]).await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    stage.player.create_vmi("testvm").await;
    let vmi = stage.player.vmi("testvm").await.expect("the VMI");
    let pod = launcher_pod(&vmi);
    let error = make_pod(&stage.namespace, false, &pod).await.expect_err("a tenant's");
    assert!(error.contains("must not make launcher pods") && error.contains("--kubevirt-namespace"), "{error}");
    // The label alone, and the owner alone: the webhook is called for the label here.
    let mut unowned = pod.clone();
    unowned["metadata"]["ownerReferences"] = json!([]);
    make_pod(&stage.namespace, false, &unowned).await.expect_err("the label alone");
    let mut plain = pod.clone();
    plain["metadata"]["labels"] = json!({"hooked": "true"});
    make_pod(&stage.namespace, false, &plain).await.expect_err("the owner alone");
    plain["metadata"]["ownerReferences"] = json!([]);
    let plain = make_pod(&stage.namespace, false, &plain).await.expect("a pod of a tenant");
    // A pod that becomes a launcher later is one as well.
    let pods: Api<k8s_openapi::api::core::v1::Pod> =
        Api::namespaced(stage.namespace.client.clone(), &stage.namespace.name);
    let name = plain["metadata"]["name"].as_str().expect("a name");
    let label = json!({"metadata": {"labels": {"kubevirt.io": "virt-launcher"}}});
    let edited = pods.patch(name, &PatchParams::default(), &Patch::Merge(label)).await;
    let error = edited.expect_err("a tenant's").to_string();
    assert!(error.contains("must not make launcher pods"), "{error}");
    // In two steps: the owner first, for which no webhook of the manifests is called, and then the label.
    let owner = json!({"metadata": {"ownerReferences": pod["metadata"]["ownerReferences"]}});
    pods.patch(name, &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"hooked": null}}})))
        .await
        .expect("an edit");
    pods.patch(name, &PatchParams::default(), &Patch::Merge(owner)).await.expect("an edit that no webhook sees");
    let label = json!({"metadata": {"labels": {"kubevirt.io": "virt-launcher"}}});
    let error =
        pods.patch(name, &PatchParams::default(), &Patch::Merge(label)).await.expect_err("a tenant's").to_string();
    assert!(error.contains("must not make launcher pods"), "{error}");
    make_pod(&stage.namespace, true, &pod).await.expect("virt-controller's");
}

/// Sends an edit of a pod as a user. Gives back the pod, or the message of the refusal.
async fn edit_pod_as(namespace: &Namespace, user: Option<&str>, pod: &str, patch: &Value) -> Result<Value, String> {
    let mut request = hyper::Request::patch(format!("/api/v1/namespaces/{}/pods/{pod}", namespace.name))
        .header("content-type", "application/merge-patch+json");
    if let Some(user) = user {
        // Groups decide about permissions, which are not tested here.
        request = request.header("impersonate-user", user).header("impersonate-group", "system:masters");
    }
    let request = request.body(serde_json::to_vec(patch).expect("JSON")).expect("a request");
    namespace.client.request::<Value>(request).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_launcher_stays_one_until_virt_controller_or_the_garbage_collector_says_otherwise() {
    let (stage, _service) = hooked(prepared("stays").await, &[]).await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    let run = stage.player.start("testvm", "n1").await;
    let ports = annotation(&stage.player.pod(&run.pod).await.expect("the pod"), PORTS).expect("the ports");
    let label = json!({"metadata": {"labels": {"kubevirt.io": null}}});
    let owner = json!({"metadata": {"ownerReferences": []}});
    let purpose = json!({"metadata": {"annotations": {"kubevirt.io/ephemeral-provisioning": "true"}}});
    for patch in [&label, &owner, &purpose] {
        let error = edit_pod_as(&stage.namespace, None, &run.pod, patch).await.expect_err("a tenant's");
        assert!(error.contains("a launcher of its VM") && error.contains("stop the VM"), "{error}");
    }
    // An orphan keeps its annotations: the same edit cannot change them, nor can one of a pod that ends.
    let orphan = json!({"metadata": {"ownerReferences": [], "annotations": {PORTS: "[]"}}});
    let collector = "system:serviceaccount:kube-system:generic-garbage-collector";
    let pod = edit_pod_as(&stage.namespace, Some(collector), &run.pod, &orphan).await.expect("the collector's");
    assert_eq!((annotation(&pod, PORTS), &pod["metadata"]["ownerReferences"]), (Some(ports), &Value::Null));
}

#[tokio::test]
async fn an_interface_or_a_nad_that_is_not_known_yet_is_waited_for() {
    let (stage, _service) = hooked(prepared("unread").await, &[]).await;
    stage.player.create_vm("testvm", VmOptions::default().nics([Nic::nad("red", "late")])).await;
    stage.player.create_vmi("testvm").await;
    let pod = launcher_pod(&stage.player.vmi("testvm").await.expect("the VMI"));
    let error = make_pod(&stage.namespace, true, &pod).await.expect_err("no NAD");
    let nad = format!("the NetworkAttachmentDefinition {}/late is not known", stage.namespace.name);
    assert!(error.contains(&nad) && error.contains("tries again"), "{error}");
    let mut ahead = pod.clone();
    ahead["metadata"]["annotations"][MULTUS_ANNOTATION] = json!(r#"[{"name":"net1","interface":"pod0123456789a"}]"#);
    let error = make_pod(&stage.namespace, true, &ahead).await.expect_err("no such network");
    assert!(error.contains("the network of the interface pod0123456789a"), "{error}");
    let namespace = stage.namespace.clone();
    let waiting = tokio::spawn(async move { make_pod(&namespace, true, &pod).await });
    stage.player.create_nad("late", Some("blue")).await;
    let pod = waiting.await.expect("a task").expect("the NAD came while the pod waited");
    assert_eq!(annotation(&pod, PORTS).expect("the ports")[0]["switch"], json!("blue"));
}

#[tokio::test]
async fn a_tenants_edit_of_a_launcher_pod_is_corrected_and_a_pod_without_ports_has_no_annotation() {
    let (stage, _service) = hooked(prepared("restored").await, &[]).await;
    stage.player.create_vm("testvm", VmOptions::default().nics([Nic::nad("red", "net1")])).await;
    let run = stage.player.start("testvm", "n1").await;
    let before = stage.player.pod(&run.pod).await.expect("the pod");
    let pods: Api<k8s_openapi::api::core::v1::Pod> =
        Api::namespaced(stage.namespace.client.clone(), &stage.namespace.name);
    let forged = r#"[{"network":"red","interface":"eth0","port":"another.vm"}]"#;
    for annotations in [json!({PORTS: forged}), json!({PORTS: null}), json!({MULTUS_ANNOTATION: "[]"})] {
        let patch = json!({"metadata": {"annotations": annotations}});
        pods.patch(&run.pod, &PatchParams::default(), &Patch::Merge(patch)).await.expect("an edit");
        let after = stage.player.pod(&run.pod).await.expect("the pod");
        let has_element = annotation(&after, MULTUS_ANNOTATION) != Some(json!([]));
        assert_eq!(annotation(&after, PORTS), annotation(&before, PORTS).filter(|_| has_element));
    }
    // The launcher of a deleted instance keeps its annotations.
    let carried = stage.player.pod(&run.pod).await.expect("the pod")["metadata"]["annotations"].clone();
    stage.player.delete_vmi_start("testvm").await;
    stage.player.remove_vmi_finalizer("testvm").await;
    // At some time during these the service sees that the instance is gone; the pod is about to end.
    holds_for("it keeps what it carries", Duration::from_millis(500), || async {
        let patch = json!({"metadata": {"annotations": {PORTS: forged}}});
        pods.patch(&run.pod, &PatchParams::default(), &Patch::Merge(patch)).await.expect("an edit");
        let now = stage.player.pod(&run.pod).await.expect("the pod")["metadata"]["annotations"].clone();
        if now == carried { Ok(()) } else { Err(format!("{now}")) }
    })
    .await;
    let options = VmOptions::default().nics([Nic::nad("other", "plain")]).annotation(PORTS, forged);
    stage.player.create_vm("foreign", options).await;
    let run = stage.player.start("foreign", "n1").await;
    let pod = stage.player.pod(&run.pod).await.expect("the pod");
    assert_eq!(annotation(&pod, PORTS), None);
    assert!(annotation(&pod, MULTUS_ANNOTATION).expect("the networks")[0].get("cni-args").is_none());
}

#[tokio::test]
async fn a_pod_whose_port_cannot_be_made_is_refused_with_the_reason() {
    let (stage, _service) = hooked(prepared("refused").await, &[]).await;
    stage.player.put_nad_on("plain", Some("nowhere")).await;
    stage.player.create_vm("testvm", VmOptions::default().nics([Nic::nad("red", "plain")])).await;
    stage.player.create_vmi("testvm").await;
    let pod = launcher_pod(&stage.player.vmi("testvm").await.expect("the VMI"));
    let error = make_pod(&stage.namespace, true, &pod).await.expect_err("no such switch");
    assert!(error.contains("network red") && error.contains("nowhere"), "{error}");
    let mut unknown = pod.clone();
    unknown["metadata"]["ownerReferences"][0]["uid"] = json!("6a0e2a0e-0000-4000-8000-000000000000");
    let error = make_pod(&stage.namespace, true, &unknown).await.expect_err("no such VMI");
    assert!(error.contains("6a0e2a0e") && error.contains("tries again"), "{error}");
    stage.northbound.add_switch("nowhere", &[("subnet", "10.18.0.0/24")]);
    let pod = make_pod(&stage.namespace, true, &pod).await.expect("a switch by now");
    assert_eq!(annotation(&pod, PORTS).expect("the ports")[0]["ips"], json!(["10.18.0.2/24"]));
}

#[tokio::test]
async fn a_follower_answers_from_its_own_snapshot_and_has_a_pod_wait_for_the_leaders_commit() {
    let prepared = Stage::build("follower").lease(600).prepare().await;
    let mut stage = Hooked::on(prepared).await;
    let leader = stage.prepared.setup().start().await;
    stage.make("first").await;
    let follower = stage.setup("150s").flags(["--nb-probe-interval", "1"]).start().await;
    stage.call(&follower).await;
    stage.called().await;
    let run = stage.player.start("first", "n1").await;
    let pod = stage.player.pod(&run.pod).await.expect("the pod");
    assert_eq!(annotation(&pod, PORTS).expect("the ports")[0]["port"], json!(stage.name("first")));
    // No transaction commits while the leader is frozen.
    leader.freeze();
    stage.player.create_vm("second", VmOptions::default()).await;
    stage.player.create_vmi("second").await;
    let pod = launcher_pod(&stage.player.vmi("second").await.expect("the VMI"));
    let error = make_pod(&stage.namespace, true, &pod).await.expect_err("no port yet");
    assert!(error.contains("network default is not in the northbound database yet"), "{error}");
    let namespace = stage.namespace.clone();
    let waiting = tokio::spawn(async move { make_pod(&namespace, true, &pod).await });
    leader.thaw();
    let pod = waiting.await.expect("a task").expect("the port came while the pod waited");
    assert_eq!(annotation(&pod, PORTS).expect("the ports")[0]["port"], json!(stage.name("second")));
}

#[tokio::test]
async fn a_follower_whose_database_is_silent_refuses_rather_than_guess() {
    let prepared = Stage::build("silent").prepare().await;
    prepared.player.create_vm("testvm", VmOptions::default()).await;
    let mut stage = Hooked::on(prepared).await;
    let valve =
        Valve::start(stage.northbound.remote().trim_start_matches("unix:").as_ref(), &stage.dir().join("valve.sock"));
    let service = stage.setup("150s").nb(&valve.remote()).flags(["--nb-probe-interval", "1"]).start().await;
    stage.call(&service).await;
    stage.called().await;
    stage.player.create_vmi("testvm").await;
    let pod = launcher_pod(&stage.player.vmi("testvm").await.expect("the VMI"));
    valve.shut();
    eventually("a pod is refused for a database that is silent or away", || async {
        match make_pod(&stage.namespace, true, &pod).await {
            Err(error) if error.contains("the northbound database") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    valve.open();
    eventually("a pod is made again", || async { make_pod(&stage.namespace, true, &pod).await.map(drop) }).await;
}

#[tokio::test]
async fn a_nic_whose_link_is_down_has_its_port_all_the_same() {
    let (stage, _service) = hooked(prepared("link-down").await, &[]).await;
    let set = |vm: &mut Value, state: Value| {
        vm["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0]["state"] = state;
    };
    stage.player.create_vm("testvm", VmOptions::default().nics([Nic::nad("red", "net1")])).await;
    stage.player.edit_vm("testvm", |vm| set(vm, json!("down"))).await;
    let run = stage.player.start("testvm", "n1").await;
    let down = stage.player.pod(&run.pod).await.expect("the pod");
    let ports = annotation(&down, PORTS).expect("the ports");
    assert_eq!(ports[0]["ips"], json!(["10.17.0.2/24"]));
    stage.player.edit_vm("testvm", |vm| set(vm, json!("up"))).await;
    stage.player.stop("testvm").await;
    let run = stage.player.start("testvm", "n1").await;
    let up = stage.player.pod(&run.pod).await.expect("the pod");
    assert_eq!(annotation(&up, PORTS), Some(ports));
}
