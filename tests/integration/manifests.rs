//! `deploy/kubernetes`: the output of kubectl, the answer of the API server, and the process of a pod.
//!
//! kubectl may be any version from 1.20 on: all of them know `bases` and `patchesStrategicMerge`.
//! The API server may be older than the manifests are for: see [`for_this_server`].

mod node;
mod rbac;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::OnceLock;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::admission::SECRET;
use crate::support::process::{Daemon, mortal};
use crate::support::{Cluster, Service, Stage, VmOptions, deploy, eventually, service};

/// The container of ours.
const OURS: &str = "ovn-kubevirt";
/// The Lease of the instance that has no other name.
const LEASE: &str = "ovn-kubevirt-default";
/// Kinds that stay applied: other tests of this run use them.
const KEPT: [&str; 6] = ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
/// The settings that the level `restricted` of the Pod Security Standards allows.
const VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];

/// The folders that are applied, in this order: an example alone, and with the sidecar.
const OVERLAYS: [&str; 8] = [
    "standalone",
    "standalone-ssl",
    "example/deployment",
    "sidecar/deployment",
    "example/statefulset",
    "sidecar/statefulset",
    "sidecar-ssl/deployment",
    "sidecar-ssl/statefulset",
];
const SIDECARS: [&str; 2] = ["deployment", "statefulset"];

/// The objects of each overlay, as the API server answered; under `patched/...` the example after `kubectl patch`.
fn applied(overlay: &str) -> &'static [Value] {
    static APPLIED: OnceLock<BTreeMap<String, Vec<Value>>> = OnceLock::new();
    let all = APPLIED.get_or_init(|| {
        let mut all: BTreeMap<String, Vec<Value>> =
            OVERLAYS.iter().map(|&overlay| (overlay.to_owned(), apply(overlay))).collect();
        for kind in SIDECARS {
            apply(&format!("example/{kind}"));
            let patch = sidecar_patch(kind);
            let patched = ["patch", kind, "ovn-central", "--namespace=ovn-central", "--patch", &patch, "--output=json"];
            all.insert(format!("patched/{kind}"), vec![parsed(&kubectl(&patched, ""))]);
        }
        OVERLAYS.iter().for_each(|overlay| take_away(overlay));
        all
    });
    &all[overlay]
}

fn kubectl(arguments: &[&str], input: &str) -> String {
    deploy::kubectl(Cluster::shared().kubeconfig(), arguments, input).unwrap_or_else(|error| panic!("{error}"))
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn sidecar_patch(kind: &str) -> String {
    std::fs::read_to_string(deploy::file(&format!("sidecar/{kind}/sidecar.yaml"))).expect("the sidecar's patch")
}

fn rendered(overlay: &str) -> Vec<(String, String)> {
    let rendered = deploy::render(overlay).unwrap_or_else(|error| panic!("{error}"));
    deploy::documents(&rendered)
}

fn joined(documents: impl IntoIterator<Item = (String, String)>) -> String {
    documents.into_iter().map(|(_, document)| document).collect::<Vec<_>>().join("\n---\n")
}

fn apply(overlay: &str) -> Vec<Value> {
    let documents = for_this_server(rendered(overlay));
    // Stored, the webhooks would be asked about the pods of every other test.
    let (tried, stored): (Vec<_>, Vec<_>) =
        documents.into_iter().partition(|(kind, _)| kind.ends_with("WebhookConfiguration"));
    let mut objects = apply_documents(overlay, stored, &[]);
    if !tried.is_empty() {
        objects.extend(apply_documents(overlay, tried, &["--dry-run=server"]));
    }
    objects
}

fn apply_documents(overlay: &str, documents: Vec<(String, String)>, options: &[&str]) -> Vec<Value> {
    let kinds: Vec<String> = documents.iter().map(|(kind, _)| kind.clone()).collect();
    let apply = [&["apply", "--server-side", "--force-conflicts", "--output=json", "--filename=-"], options].concat();
    let answer = parsed(&kubectl(&apply, &joined(documents)));
    let objects = answer["items"].as_array().cloned().unwrap_or_else(|| panic!("no list: {answer}"));
    let stored: Vec<&str> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
    assert_eq!(stored, kinds, "{overlay}");
    objects
}

/// On a cluster with all its controllers, pods would be made.
fn take_away(overlay: &str) {
    let documents = for_this_server(rendered(overlay)).into_iter().filter(|(kind, _)| !KEPT.contains(&kind.as_str()));
    kubectl(&["delete", "--ignore-not-found", "--wait=false", "--filename=-"], &joined(documents));
}

/// The manifests are for Kubernetes 1.30 and newer. An older API server gets the fields that it knows, and the output says so.
fn for_this_server(documents: Vec<(String, String)>) -> Vec<(String, String)> {
    static MINOR: OnceLock<u32> = OnceLock::new();
    let minor = *MINOR.get_or_init(|| {
        let version = parsed(&kubectl(&["get", "--raw", "/version"], ""));
        let minor = version["minor"].as_str().unwrap_or_default().trim_end_matches(|last: char| !last.is_ascii_digit());
        let minor = minor.parse().unwrap_or_else(|_| panic!("no version: {version}"));
        if minor < 21 {
            // Past the test runner, which hides the output of tests that pass.
            let _ = writeln!(
                std::io::stderr(),
                "note: Kubernetes 1.{minor} has no policy/v1: its PodDisruptionBudget is applied as policy/v1beta1"
            );
        }
        if minor < 28 {
            let _ = writeln!(
                std::io::stderr(),
                "note: Kubernetes 1.{minor} has no matchConditions: the webhooks are applied without"
            );
        }
        minor
    });
    let rewrite = |(kind, document): (String, String)| match kind.as_str() {
        "PodDisruptionBudget" if minor < 21 => {
            let old = document.replace("apiVersion: policy/v1\n", "apiVersion: policy/v1beta1\n");
            assert_ne!(old, document, "the PodDisruptionBudget is one of policy/v1");
            (kind, old)
        }
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" if minor < 28 => {
            let mut parts = document.split("  matchConditions:\n");
            let before = parts.next().unwrap_or_default().to_owned();
            // From the key to the next one of its webhook.
            let after = parts.map(|rest| &rest[rest.find("\n  match").expect("matchPolicy comes next") + 1..]);
            (kind, after.fold(before, |document, rest| document + rest))
        }
        _ => (kind, document),
    };
    documents.into_iter().map(rewrite).collect()
}

// --- what stands in the objects --------------------------------------------------------------------------------------

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let first = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    first
}

fn workload(objects: &[Value]) -> &Value {
    let kind = |object: &&Value| ["Deployment", "StatefulSet"].contains(&object["kind"].as_str().unwrap_or_default());
    objects.iter().find(kind).expect("a Deployment or StatefulSet")
}

fn pod(objects: &[Value]) -> &Value {
    &workload(objects)["spec"]["template"]
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn named<'a>(items: &'a Value, name: &str) -> &'a Value {
    list(items).iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("no {name} in {items}"))
}

fn our_container(objects: &[Value]) -> &Value {
    named(&pod(objects)["spec"]["containers"], OURS)
}

fn variables(container: &Value) -> BTreeMap<String, String> {
    let pair = |variable: &Value| {
        let text = |key: &str| variable[key].as_str().unwrap_or_else(|| panic!("{variable}")).to_owned();
        (text("name"), text("value"))
    };
    list(&container["env"]).iter().map(pair).collect()
}

/// The labels of the selector are among those of the pod.
fn selects(selector: &Value, pod: &Value) -> bool {
    let labels = &pod["metadata"]["labels"];
    selector.as_object().is_some_and(|all| !all.is_empty() && all.iter().all(|(key, value)| labels[key] == *value))
}

/// As the container has it, or else its pod.
fn effective<'a>(pod: &'a Value, container: &'a Value, field: &str) -> &'a Value {
    match &container["securityContext"][field] {
        Value::Null => &pod["securityContext"][field],
        own => own,
    }
}

// --- the tests -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_api_server_takes_every_overlay_and_selectors_find_the_pods() {
    for overlay in OVERLAYS {
        let objects = applied(overlay);
        let pod = pod(objects);
        for service in objects.iter().filter(|object| object["kind"] == "Service") {
            assert!(selects(&service["spec"]["selector"], pod), "{overlay}: {service}");
            let ports: Vec<&Value> =
                list(&pod["spec"]["containers"]).iter().flat_map(|container| list(&container["ports"])).collect();
            for port in list(&service["spec"]["ports"]) {
                assert!(ports.iter().any(|named| named["name"] == port["targetPort"]), "{overlay}: {port}");
            }
        }
        // ovn-central's is its own affair.
        let replicas = if overlay.starts_with("standalone") { 2 } else { 1 };
        assert_eq!(workload(objects)["spec"]["replicas"], replicas, "{overlay}");
    }
    let objects = applied("standalone");
    let (pod, budget, policy) =
        (pod(objects), of_kind(objects, "PodDisruptionBudget"), of_kind(objects, "NetworkPolicy"));
    assert!(selects(&budget["spec"]["selector"]["matchLabels"], pod));
    assert_eq!(budget["spec"]["maxUnavailable"], 1, "a node can be drained");
    assert!(selects(&policy["spec"]["podSelector"]["matchLabels"], pod));
    let open: Vec<&Value> = list(&policy["spec"]["ingress"]).iter().flat_map(|rule| list(&rule["ports"])).collect();
    assert_eq!(open, [9443, 9444].map(|port| json!({"protocol": "TCP", "port": port})).each_ref());
    let out = list(&policy["spec"]["egress"]).iter().flat_map(|rule| list(&rule["ports"]));
    let out: Vec<i64> = out.filter_map(|port| port["port"].as_i64()).collect();
    for port in [443, 6443, 6641, 6642, 53] {
        assert!(out.contains(&port), "{port} is closed: {out:?}");
    }
    let spread = list(&pod["spec"]["topologySpreadConstraints"]);
    assert_eq!(spread.len(), 1, "the two are on two nodes");
    assert!(selects(&spread[0]["labelSelector"]["matchLabels"], pod));
    // The new one is ready before an old one ends.
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    assert_eq!(workload(objects)["spec"]["strategy"], rolling);
}

#[tokio::test]
async fn the_webhooks_lead_to_the_port_where_the_service_listens_and_ask_about_no_more_than_they_must() {
    let failing =
        |hook: &Value| (hook["failurePolicy"].clone(), hook["timeoutSeconds"].clone(), hook["sideEffects"].clone());
    for overlay in ["standalone", "sidecar/deployment", "sidecar/statefulset"] {
        let objects = applied(overlay);
        let ours = |object: &&Value| object["kind"] == "Service" && object["metadata"]["name"] == OURS;
        let (service, container) = (objects.iter().find(ours).expect("a Service"), our_container(objects));
        let validating = &of_kind(objects, "ValidatingWebhookConfiguration")["webhooks"];
        let mutating = &of_kind(objects, "MutatingWebhookConfiguration")["webhooks"];
        for hook in list(validating).iter().chain(list(mutating)) {
            let called = &hook["clientConfig"]["service"];
            assert_eq!(
                (&called["name"], &called["namespace"]),
                (&service["metadata"]["name"], &service["metadata"]["namespace"])
            );
            // The names that the certificate is for, without a flag.
            assert_eq!(
                (&called["name"], &called["namespace"]),
                (&json!("ovn-kubevirt"), &workload(objects)["metadata"]["namespace"])
            );
            let port =
                list(&service["spec"]["ports"]).iter().find(|port| port["port"] == called["port"]).expect("a port");
            let port = named(&container["ports"], port["targetPort"].as_str().expect("a port by its name"));
            let listens: SocketAddr = variables(container)["OVN_KUBEVIRT_WEBHOOKS"].parse().expect("an address");
            assert!(port["containerPort"] == listens.port() && listens.ip().is_unspecified(), "{overlay}");
            assert_eq!(hook["admissionReviewVersions"], json!(["v1"]));
        }
        let [vms] = list(validating) else { panic!("{validating}") };
        assert_eq!(failing(vms), (json!("Ignore"), json!(3), json!("None")));
        assert_eq!(vms["clientConfig"]["service"]["path"], "/validate");
        assert_eq!(vms["rules"][0]["resources"], json!(["virtualmachines", "virtualmachineinstances"]));
        let [launchers, forged] = list(mutating) else { panic!("{mutating}") };
        assert_eq!(launchers["objectSelector"]["matchLabels"], json!({"kubevirt.io": "virt-launcher"}));
        assert_eq!(launchers["reinvocationPolicy"], "IfNeeded");
        for hook in [launchers, forged] {
            assert_eq!(failing(hook), (json!("Fail"), json!(10), json!("None")));
            assert_eq!(
                (&hook["clientConfig"]["service"]["path"], &hook["rules"][0]["resources"]),
                (&json!("/mutate"), &json!(["pods"]))
            );
        }
        // Every other pod of the cluster would be asked about without the one, and each edit of a launcher or of a VM's
        // status without the others.
        let rendered = joined(rendered(overlay));
        assert_eq!(rendered.matches("request.operation == ").count(), 2, "{overlay}");
        assert_eq!(rendered.matches("owner.kind == 'VirtualMachineInstance'").count(), 1, "{overlay}");
    }
}

#[tokio::test]
async fn every_pod_meets_the_restricted_level() {
    let client = Cluster::shared().client().await;
    for overlay in OVERLAYS {
        let objects = applied(overlay);
        let spec = &pod(objects)["spec"];
        for host in ["hostNetwork", "hostPID", "hostIPC"] {
            assert_ne!(spec[host], true, "{overlay}: {host}");
        }
        for volume in list(&spec["volumes"]) {
            let sources: Vec<&String> =
                volume.as_object().expect("an object").keys().filter(|key| *key != "name").collect();
            assert!(sources.iter().all(|source| VOLUMES.contains(&source.as_str())), "{overlay}: {volume}");
        }
        for container in list(&spec["containers"]).iter().chain(list(&spec["initContainers"])) {
            let what = format!("{overlay}: {}", container["name"]);
            let own = &container["securityContext"];
            assert_eq!(effective(spec, container, "runAsNonRoot"), true, "{what}");
            assert_ne!(effective(spec, container, "runAsUser"), 0, "{what}");
            assert_eq!(*effective(spec, container, "seccompProfile"), json!({"type": "RuntimeDefault"}), "{what}");
            assert_eq!(own["allowPrivilegeEscalation"], false, "{what}");
            assert_eq!(own["capabilities"], json!({"drop": ["ALL"]}), "{what}");
            assert_ne!(own["privileged"], true, "{what}");
            assert!(list(&container["ports"]).iter().all(|port| port["hostPort"].is_null()), "{what}");
            // More than the level asks for.
            assert_eq!(own["readOnlyRootFilesystem"], true, "{what}");
        }

        // And the API server's own word, from 1.23 on: the namespace enforces the level.
        let namespace = of_kind(objects, "Namespace");
        assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
        let mut spec = spec.clone();
        for claim in list(&workload(objects)["spec"]["volumeClaimTemplates"]) {
            let volume = json!({"name": claim["metadata"]["name"], "emptyDir": {}});
            spec["volumes"].as_array_mut().expect("volumes").push(volume);
        }
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"generateName": "try-"}, "spec": spec})).expect("a pod");
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace["metadata"]["name"].as_str().expect("a name"));
        let tried = pods.create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await;
        tried.unwrap_or_else(|error| panic!("{overlay}: {error}"));
    }
}

#[tokio::test]
async fn probes_and_resources_are_there_and_the_probed_port_is_where_the_service_listens() {
    for overlay in ["standalone", "sidecar/deployment", "sidecar/statefulset"] {
        let container = our_container(applied(overlay));
        for resource in [["requests", "cpu"], ["requests", "memory"], ["limits", "memory"]] {
            assert!(container["resources"][resource[0]][resource[1]].is_string(), "{overlay}: {resource:?}");
        }
        let listens: SocketAddr = variables(container)["OVN_KUBEVIRT_HTTP"].parse().expect("an address");
        assert!(listens.ip().is_unspecified(), "{overlay}: the kubelet probes the pod's address");
        let probe = |probe: &str| {
            let get = &container[probe]["httpGet"];
            let port = named(&container["ports"], get["port"].as_str().expect("a port by its name"));
            assert_eq!(port["containerPort"], listens.port(), "{overlay}: {probe}");
            get["path"].clone()
        };
        assert_eq!(probe("livenessProbe"), "/livez", "{overlay}");
        if overlay == "standalone" {
            assert_eq!(probe("readinessProbe"), "/readyz");
        } else {
            // A pod is ready when all its containers are: OVN's databases are not to leave their Service with ours.
            assert!(container["readinessProbe"].is_null(), "{overlay}");
        }
    }
}

#[tokio::test]
async fn the_sidecar_adds_itself_and_changes_nothing_else_of_ovn_central() {
    for kind in SIDECARS {
        let before = &pod(applied(&format!("example/{kind}")))["spec"];
        let rendered = &pod(applied(&format!("sidecar/{kind}")))["spec"];
        let patched = &pod(applied(&format!("patched/{kind}")))["spec"];
        let ours = named(&rendered["containers"], OURS);
        assert_eq!(ours, named(&patched["containers"], OURS), "{kind}: kubectl patch does as kustomize");
        for after in [rendered, patched] {
            let mut rest = after.clone();
            for (items, ours) in [("containers", OURS), ("volumes", "ovn-kubevirt-token")] {
                rest[items].as_array_mut().expect("a list").retain(|item| item["name"] != ours);
            }
            assert_eq!(rest, *before, "{kind}");
        }

        // The socket: one volume in both containers, and the user whose socket it is.
        let socket = variables(ours)["OVN_KUBEVIRT_NB"].trim_start_matches("unix:").to_owned();
        let makes = format!("--remote=punix:{socket}");
        let server =
            list(&before["containers"]).iter().find(|server| list(&server["args"]).iter().any(|it| *it == *makes));
        let server = server.expect("an ovsdb-server that makes the socket");
        let volume = |container: &Value| {
            let mounts = list(&container["volumeMounts"]);
            let holds =
                |mount: &&Value| socket.starts_with(&format!("{}/", mount["mountPath"].as_str().unwrap_or("-")));
            mounts.iter().find(holds).expect("a mount")["name"].clone()
        };
        assert_eq!(volume(ours), volume(server), "{kind}");
        assert_eq!(effective(rendered, ours, "runAsUser"), effective(rendered, server, "runAsUser"), "{kind}");
        // The token is in our container alone.
        let mounted = |container: &&Value| {
            list(&container["volumeMounts"]).iter().any(|mount| mount["name"] == "ovn-kubevirt-token")
        };
        assert_eq!(list(&rendered["containers"]).iter().filter(mounted).count(), 1, "{kind}");
    }
    assert_eq!(
        sidecar_patch("deployment").replace("kind: Deployment", ""),
        sidecar_patch("statefulset").replace("kind: StatefulSet", "")
    );
}

#[tokio::test]
async fn each_pod_runs_as_the_account_that_the_roles_are_bound_to() {
    let of_standalone = |kind| of_kind(applied("standalone"), kind);
    for overlay in ["standalone", "sidecar/deployment", "sidecar/statefulset"] {
        let objects = applied(overlay);
        let account = &of_kind(objects, "ServiceAccount")["metadata"];
        let subject = json!([{"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}]);
        for (kind, binding) in [("ClusterRole", "ClusterRoleBinding"), ("Role", "RoleBinding")] {
            let (role, binding) = (of_kind(objects, kind), of_kind(objects, binding));
            assert_eq!(role["rules"], of_standalone(kind)["rules"]);
            let reference = (&binding["roleRef"]["kind"], &binding["roleRef"]["name"]);
            assert_eq!(reference, (&json!(kind), &role["metadata"]["name"]));
            assert_eq!(binding["subjects"], subject, "{overlay}");
            if kind == "Role" {
                let namespaces = [role, binding].map(|object| &object["metadata"]["namespace"]);
                assert_eq!(namespaces, [&account["namespace"]; 2], "{overlay}: its own namespace");
            }
        }
        assert_eq!(pod(objects)["spec"]["serviceAccountName"], account["name"], "{overlay}");
        assert_eq!(workload(objects)["metadata"]["namespace"], account["namespace"], "{overlay}");
    }
}

#[tokio::test]
async fn the_binary_runs_with_the_arguments_and_variables_of_the_manifests() {
    let help = Service::command_line(&["run", "--help"]);
    // Its lines end where the terminal does.
    let help = String::from_utf8_lossy(&help.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    for overlay in ["standalone", "sidecar/deployment", "sidecar/statefulset"] {
        let container = our_container(applied(overlay));
        let variables = variables(container);
        for name in variables.keys() {
            assert!(help.contains(&format!("[env: {name}=")), "{overlay}: run knows no {name}");
        }
        assert_eq!(container["command"], json!(["ovn-kubevirt"]), "{overlay}");
        assert_eq!(container["args"], json!(["run"]), "{overlay}");
        let prepared = Stage::build("manifest").prepare().await;
        let account = &of_kind(applied(overlay), "ServiceAccount")["metadata"];
        let account = ["namespace", "name"].map(|key| account[key].as_str().expect("a name"));
        let kubeconfig = prepared.dir().join("kubeconfig");
        let written =
            deploy::write_kubeconfig(Cluster::shared().kubeconfig(), account[0], account[1], &kubeconfig).await;
        written.unwrap_or_else(|error| panic!("{error}"));
        let log = prepared.dir().join("manifest.log");
        let file = File::create(&log).expect("a log");
        let mut command = mortal(service::binary());
        // As in the pod, except for paths that differ on this machine.
        command
            .args(list(&container["args"]).iter().filter_map(Value::as_str))
            .envs(&variables)
            .env("OVN_KUBEVIRT_NB", prepared.northbound.remote())
            .env("OVN_KUBEVIRT_HTTP", "127.0.0.1:0")
            .env("OVN_KUBEVIRT_WEBHOOKS", "127.0.0.1:0")
            .env("OVN_KUBEVIRT_KUBECONFIG", &kubeconfig)
            .env("OVN_KUBEVIRT_NAMESPACE_SELECTOR", prepared.namespace.selector())
            .stdout(file.try_clone().expect("a log has two writers"))
            .stderr(file);
        let daemon = Daemon::start("ovn-kubevirt", command);
        prepared.player.create_vm("testvm", VmOptions::default()).await;
        let name = prepared.name("testvm");
        eventually("the VM has its port", || async {
            assert!(daemon.is_running(), "{}", std::fs::read_to_string(&log).unwrap_or_default());
            prepared.northbound.port(&name).ok_or_else(|| std::fs::read_to_string(&log).unwrap_or_default())
        })
        .await;
        // It leads by the Lease that the Role names, in its own namespace, and gives it back.
        let lease = || parsed(&kubectl(&["get", "lease", LEASE, "--namespace", account[0], "--output=json"], ""));
        assert!(lease()["spec"]["holderIdentity"].is_string(), "{overlay}");
        // And makes the webhooks' certificate, in the Secret that the Role names.
        eventually("the Secret of the certificate is there", || async {
            let get = ["get", "secret", SECRET, "--namespace", account[0], "--output=name"];
            deploy::kubectl(Cluster::shared().kubeconfig(), &get, "")
        })
        .await;
        assert!(daemon.stop().await.success(), "{overlay}");
        assert_eq!(lease()["spec"]["holderIdentity"], Value::Null, "{overlay}");
    }
}

#[tokio::test]
async fn the_ssl_overlays_name_flags_that_there_are_and_files_that_are_mounted() {
    let help = Service::command_line(&["run", "--help"]);
    let help = String::from_utf8(help.stdout).expect("text");
    for overlay in ["standalone-ssl", "sidecar-ssl/deployment", "sidecar-ssl/statefulset"] {
        let container = our_container(applied(overlay));
        let variables = variables(container);
        assert!(variables["OVN_KUBEVIRT_NB"].split(',').all(|remote| remote.starts_with("ssl:")), "{overlay}");
        for name in ["OVN_KUBEVIRT_CA_CERT", "OVN_KUBEVIRT_CERTIFICATE", "OVN_KUBEVIRT_PRIVATE_KEY"] {
            assert!(help.contains(name), "{name} in\n{help}");
            let file = &variables[name];
            let mounts = list(&container["volumeMounts"]);
            let mounted = mounts.iter().any(|mount| file.starts_with(mount["mountPath"].as_str().unwrap_or("-")));
            assert!(mounted, "{overlay}: {file}");
        }
    }
}
