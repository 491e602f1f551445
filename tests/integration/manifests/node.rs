//! `deploy/kubernetes/node`: a DaemonSet that has no more rights than the socket of Open vSwitch takes, and a role of which
//! each verb is needed.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use super::rbac::cut::{cut, refused};
use super::rbac::{Call, Where, account, allowed_of, client, every_call, owned, resources};
use super::{apply, effective, list, named, of_kind, take_away};
use crate::node::NodeStage;
use crate::support::local_switch::{LocalSwitch, Plug};
use crate::support::{Cluster, NodeSetup, Service, deploy, eventually, holds_for};

/// The folder, and the name of all its objects.
const OVERLAY: &str = "node";
const NAME: &str = "ovn-kubevirt-node";

/// Every call that the service of a node may make.
const ALLOWED: [Call; 3] = [("", "pods", "list"), ("", "pods", "watch"), ("events.k8s.io", "events", "create")];

/// The objects as the API server answered.
fn applied() -> &'static [Value] {
    static APPLIED: OnceLock<Vec<Value>> = OnceLock::new();
    APPLIED.get_or_init(|| {
        let objects = apply(OVERLAY);
        take_away(OVERLAY);
        objects
    })
}

fn pod() -> &'static Value {
    &of_kind(applied(), "DaemonSet")["spec"]["template"]
}

#[tokio::test]
async fn the_daemon_set_has_the_socket_and_no_other_right_on_the_node() {
    let (pod, set) = (pod(), &of_kind(applied(), "DaemonSet")["spec"]);
    assert!(super::selects(&set["selector"]["matchLabels"], pod));
    let spec = &pod["spec"];
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        assert_ne!(spec[host], true, "{host}");
    }
    assert_eq!(spec["priorityClassName"], "system-node-critical");
    assert_eq!(spec["tolerations"], json!([{"operator": "Exists"}]));
    let containers = list(&spec["containers"]);
    assert_eq!(containers.len(), 1);
    let container = named(&spec["containers"], NAME);
    // What differs from the level `restricted`: the folder of the socket, and its owner.
    let folder = json!({"path": "/run/openvswitch", "type": "Directory"});
    assert_eq!(spec["volumes"], json!([{"name": "run-openvswitch", "hostPath": folder}]));
    let mount = json!({"name": "run-openvswitch", "mountPath": "/run/openvswitch", "readOnly": true});
    assert_eq!(container["volumeMounts"], json!([mount]));
    assert_eq!(*effective(spec, container, "runAsUser"), 0);
    assert_eq!(*effective(spec, container, "seccompProfile"), json!({"type": "RuntimeDefault"}));
    let own =
        json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}});
    assert_eq!(container["securityContext"], own);
    assert!(list(&container["ports"]).iter().all(|port| port["hostPort"].is_null()));
    for resource in [["requests", "cpu"], ["requests", "memory"], ["limits", "memory"]] {
        assert!(container["resources"][resource[0]][resource[1]].is_string(), "{resource:?}");
    }
    for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        let get = &container[probe]["httpGet"];
        assert_eq!((&get["path"], &get["port"]), (&json!(path), &json!("http")));
    }
    let namespace = of_kind(applied(), "Namespace");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged");
    let tried: Pod =
        serde_json::from_value(json!({"metadata": {"generateName": "try-"}, "spec": spec})).expect("a pod");
    let pods: Api<Pod> = Api::namespaced(Cluster::shared().client().await, NAME);
    let tried = pods.create(&PostParams { dry_run: true, ..PostParams::default() }, &tried).await;
    tried.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn a_pod_of_the_daemon_set_runs_as_the_account_that_the_role_is_bound_to() {
    let (role, binding) = (of_kind(applied(), "ClusterRole"), of_kind(applied(), "ClusterRoleBinding"));
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    assert_eq!(binding["subjects"], json!([{"kind": "ServiceAccount", "name": NAME, "namespace": NAME}]));
    let spec = &pod()["spec"];
    assert_eq!((&spec["serviceAccountName"], &spec["automountServiceAccountToken"]), (&json!(NAME), &json!(true)));
    let container = named(&spec["containers"], NAME);
    assert_eq!((&container["command"], &container["args"]), (&json!(["ovn-kubevirt"]), &json!(["node"])));
    // Each variable is one of the command's, and the node comes from the pod itself.
    let help = String::from_utf8(Service::command_line(&["node", "--help"]).stdout).expect("text");
    for variable in list(&container["env"]) {
        assert!(help.contains(variable["name"].as_str().expect("a name")), "{variable} in\n{help}");
    }
    let node = named(&container["env"], "OVN_KUBEVIRT_NODE");
    assert_eq!(node["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
    let (socket, http) = (named(&container["env"], "OVN_KUBEVIRT_OVS"), named(&container["env"], "OVN_KUBEVIRT_HTTP"));
    assert_eq!(socket["value"], "unix:/run/openvswitch/db.sock");
    let listens: std::net::SocketAddr = http["value"].as_str().and_then(|text| text.parse().ok()).expect("an address");
    assert!(listens.ip().is_unspecified());
    assert_eq!(named(&container["ports"], "http")["containerPort"], listens.port());
}

#[tokio::test]
async fn the_role_allows_three_calls_of_all_that_the_api_server_knows() {
    let cluster = Cluster::shared();
    let stage = NodeStage::new("node-allowed").await;
    let dir = stage.switch.dir();
    let stranger = client(&account(&stage.namespace, "stranger", dir).await).await;
    let service = client(stage.setup.present_kubeconfig()).await;
    let calls = every_call(&resources(&cluster.client().await).await);
    let everywhere: std::collections::BTreeSet<_> = ALLOWED.map(owned).into();
    let home = Where { namespace: Some(deploy::NODE_ACCOUNT), name: None };
    for place in [Where::default(), home] {
        assert_eq!(allowed_of(&calls, &service, &stranger, place).await, everywhere);
    }
}

#[tokio::test]
async fn without_any_one_of_its_verbs_the_service_of_a_node_does_not_do_its_job() {
    let admin = Cluster::shared().client().await;
    deploy::apply_node_account(
        Cluster::shared().kubeconfig(),
        &Cluster::shared().service_kubeconfig().with_file_name("node-cut.kubeconfig"),
    )
    .await
    .unwrap_or_else(|error| panic!("{error}"));
    let rules = Api::<ClusterRole>::all(admin).get(NAME).await.expect("the role").rules.unwrap_or_default();
    for (index, without) in ALLOWED.into_iter().map(Some).chain([None]).enumerate() {
        let rules = cut(&rules, &ALLOWED, without);
        let switch = LocalSwitch::start().await;
        let stage = with_rules(&format!("node-cut-{index}"), switch, &rules).await;
        match without {
            Some(call @ (_, _, "list")) => never_listed(&stage, call).await,
            Some(call @ (_, _, "watch")) => news_unseen(&stage, call).await,
            Some(call) => untold(&stage, call).await,
            None => all_is_well(&stage).await,
        }
        let name = &stage.namespace.name;
        let client = || stage.namespace.client.clone();
        Api::<ClusterRoleBinding>::all(client()).delete(name, &DeleteParams::default()).await.expect("the binding");
        Api::<ClusterRole>::all(client()).delete(name, &DeleteParams::default()).await.expect("the role");
    }
}

/// A node whose service runs under a copy of the role, with less in it.
async fn with_rules(name: &str, switch: LocalSwitch, rules: &[PolicyRule]) -> NodeStage {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace(name).await;
    let kubeconfig: PathBuf = account(&namespace, "service", switch.dir()).await;
    let name = namespace.name.clone();
    let role = json!({"metadata": {"name": name}, "rules": rules});
    let binding = json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "service", "namespace": name}],
    });
    let all = || namespace.client.clone();
    let role: ClusterRole = serde_json::from_value(role).expect("a role");
    Api::all(all()).create(&PostParams::default(), &role).await.expect("a role");
    let binding: ClusterRoleBinding = serde_json::from_value(binding).expect("a binding");
    Api::all(all()).create(&PostParams::default(), &binding).await.expect("a binding");
    let group = rules.last().and_then(|rule| rule.api_groups.as_ref()?.first()).expect("a rule");
    deploy::await_rights_to(&kubeconfig, group).await.unwrap_or_else(|error| panic!("{error}"));
    let node = format!("{name}-n1");
    let setup = NodeSetup::new(cluster, &switch.server.remote(), &node, switch.dir()).await;
    let setup = setup.kubeconfig(kubeconfig).args(&["--interface-deadline", "200ms"]);
    let service = setup.spawn();
    let player = crate::support::Player::within(&namespace);
    NodeStage { switch, namespace, player, node, setup, service }
}

/// Without `list` no pod is known.
async fn never_listed(stage: &NodeStage, call: Call) {
    let launcher = stage.plain_launcher("testvm").await;
    stage.bind(&launcher).await;
    stage.switch.plug(&Plug::new("veth1", &launcher.uid, "eth0"));
    refused(&stage.service, call).await;
    stays_bare(stage, "veth1").await;
}

/// Without `watch` those are known that were listed.
async fn news_unseen(stage: &NodeStage, call: Call) {
    refused(&stage.service, call).await;
    let launcher = stage.plain_launcher("testvm").await;
    stage.bind(&launcher).await;
    stage.switch.plug(&Plug::new("veth1", &launcher.uid, "eth0"));
    stays_bare(stage, "veth1").await;
}

/// Without `create` the pod is not told, and served all the same.
async fn untold(stage: &NodeStage, call: Call) {
    let launcher = stage.plain_launcher("testvm").await;
    stage.bind(&launcher).await;
    refused(&stage.service, call).await;
    assert_eq!(stage.namespace.events(&launcher.pod).await, []);
    stage.switch.plug(&Plug::new("veth1", &launcher.uid, "eth0"));
    stage.switch.set("veth1", &launcher.uid, &stage.port("testvm")).await;
}

/// The copy itself takes nothing away.
async fn all_is_well(stage: &NodeStage) {
    stage.service.ready().await;
    let launcher = stage.plain_launcher("testvm").await;
    stage.bind(&launcher).await;
    stage.event(&launcher, "InterfaceMissing", &[]).await;
    stage.switch.plug(&Plug::new("veth1", &launcher.uid, "eth0"));
    stage.switch.set("veth1", &launcher.uid, &stage.port("testvm")).await;
}

async fn stays_bare(stage: &NodeStage, interface: &str) {
    eventually("the service says that it is not ready", || async {
        match stage.service.http_get("/readyz").await {
            (503, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    holds_for("the interface has no port", Duration::from_millis(300), || async {
        match stage.switch.ids(interface) {
            ids if ids.is_empty() => Ok(()),
            ids => Err(format!("{ids:?}")),
        }
    })
    .await;
}
