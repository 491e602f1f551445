//! The roles of `deploy/kubernetes`: all permissions that the service needs, and no others.
//!
//! Every other test shows that they suffice: their service runs under them ([`deploy::apply_account`]).

pub(super) mod cut;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use hyper::Request;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::Kubeconfig;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::admission::SECRET;
use crate::support::{Cluster, Namespace, Stage, VmOptions, deploy};

/// API group, resource and verb.
pub(super) type Call = (&'static str, &'static str, &'static str);

/// Every call that the service may make in any namespace.
const ALLOWED: [Call; 18] = [
    ("kubevirt.io", "virtualmachines", "list"),
    ("kubevirt.io", "virtualmachines", "watch"),
    ("kubevirt.io", "virtualmachines", "patch"),
    ("kubevirt.io", "virtualmachineinstances", "list"),
    ("kubevirt.io", "virtualmachineinstances", "watch"),
    ("kubevirt.io", "virtualmachineinstances", "patch"),
    ("kubevirt.io", "virtualmachineinstancemigrations", "list"),
    ("kubevirt.io", "virtualmachineinstancemigrations", "watch"),
    ("k8s.cni.cncf.io", "network-attachment-definitions", "list"),
    ("k8s.cni.cncf.io", "network-attachment-definitions", "watch"),
    ("", "pods", "list"),
    ("", "pods", "watch"),
    ("", "nodes", "list"),
    ("", "nodes", "watch"),
    ("", "namespaces", "list"),
    ("", "namespaces", "watch"),
    ("events.k8s.io", "events", "create"),
    ("events.k8s.io", "events", "patch"),
];

/// The one object outside of its own namespace that it may read by name.
const KUBE_SYSTEM: &str = "kube-system";
/// The permission on that object: to read its UID.
const ALLOWED_OF_KUBE_SYSTEM: [Call; 1] = [("", "namespaces", "get")];

/// The name of both webhook configurations.
const CONFIGURATION: &str = "ovn-kubevirt";
/// The permissions on those objects: to write its CA where it is missing.
const ALLOWED_OF_CONFIGURATIONS: [Call; 4] = [
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", "get"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", "patch"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "get"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "patch"),
];

/// Every call that it may make in its own namespace: to create a Lease and a Secret, and the others for those of its names.
const ALLOWED_AT_HOME: [Call; 8] = [
    ("coordination.k8s.io", "leases", "create"),
    ("coordination.k8s.io", "leases", "get"),
    ("coordination.k8s.io", "leases", "list"),
    ("coordination.k8s.io", "leases", "watch"),
    ("coordination.k8s.io", "leases", "update"),
    ("", "secrets", "create"),
    ("", "secrets", "get"),
    ("", "secrets", "update"),
];

pub(super) const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
/// Verbs of RBAC itself, and everything at once.
pub(super) const SPECIAL: [Call; 8] = [
    ("", "users", "impersonate"),
    ("", "groups", "impersonate"),
    ("", "serviceaccounts", "impersonate"),
    ("rbac.authorization.k8s.io", "clusterroles", "bind"),
    ("rbac.authorization.k8s.io", "clusterroles", "escalate"),
    ("certificates.k8s.io", "signers", "approve"),
    ("certificates.k8s.io", "signers", "sign"),
    ("*", "*", "*"),
];

pub(super) async fn client(kubeconfig: &Path) -> Client {
    let config = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    deploy::client(config).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Every resource and subresource that the API server has, with its group.
pub(super) async fn resources(admin: &Client) -> BTreeSet<(String, String)> {
    let get = async |path: &str| {
        let request = Request::get(path).body(Vec::new()).expect("a request");
        admin.request::<Value>(request).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let groups = get("/apis").await;
    let versions = super::list(&groups["groups"]).iter().flat_map(|group| super::list(&group["versions"]));
    let paths: Vec<String> = versions
        .filter_map(|version| version["groupVersion"].as_str())
        .map(|version| format!("/apis/{version}"))
        .collect();
    let mut found = BTreeSet::new();
    for path in paths.iter().map(String::as_str).chain(["/api/v1"]) {
        let group = path.strip_prefix("/apis/").and_then(|version| version.split('/').next()).unwrap_or_default();
        for resource in super::list(&get(path).await["resources"]) {
            found.insert((group.to_owned(), resource["name"].as_str().expect("a name").to_owned()));
        }
    }
    found
}

/// Where a call is made.
#[derive(Clone, Copy, Default)]
pub(super) struct Where {
    /// In all of them, unless one is named.
    pub(super) namespace: Option<&'static str>,
    /// On any object, unless one is named.
    pub(super) name: Option<&'static str>,
}

/// Returns true if the client's account may make the call.
pub(super) async fn may(client: &Client, (group, resource, verb): &(String, String, String), place: Where) -> bool {
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (resource.as_str(), None),
    };
    let attributes = ResourceAttributes {
        group: Some(group.clone()),
        resource: Some(resource.to_owned()),
        subresource,
        verb: Some(verb.clone()),
        namespace: place.namespace.map(ToOwned::to_owned),
        name: place.name.map(ToOwned::to_owned),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..SelfSubjectAccessReview::default()
    };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await;
    answer.expect("an access review").status.is_some_and(|status| status.allowed)
}

/// An account of the test's own, without rights.
pub(super) async fn account(namespace: &Namespace, name: &str, dir: &Path) -> PathBuf {
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": name}})).expect("an account");
    let accounts: Api<ServiceAccount> = Api::namespaced(namespace.client.clone(), &namespace.name);
    accounts.create(&PostParams::default(), &account).await.unwrap_or_else(|error| panic!("account {name}: {error}"));
    let file = dir.join(format!("{name}.kubeconfig"));
    let written = deploy::write_kubeconfig(Cluster::shared().kubeconfig(), &namespace.name, name, &file).await;
    written.unwrap_or_else(|error| panic!("{error}"));
    file
}

pub(super) fn owned((group, resource, verb): Call) -> (String, String, String) {
    (group.to_owned(), resource.to_owned(), verb.to_owned())
}

/// All calls of the resources that are known, and those of RBAC itself.
pub(super) fn every_call(known: &BTreeSet<(String, String)>) -> Vec<(String, String, String)> {
    let calls = known.iter().flat_map(|(group, resource)| VERBS.map(|verb| (group.as_str(), resource.as_str(), verb)));
    let calls = calls.map(|(group, resource, verb)| (group.to_owned(), resource.to_owned(), verb.to_owned()));
    let calls: Vec<_> = calls.chain(SPECIAL.map(owned)).collect();
    assert!(calls.len() > 500, "only {} calls: {known:?}", calls.len());
    calls
}

/// Those that the service may make there, except those of every account (to ask for its own permissions).
pub(super) async fn allowed_of(
    calls: &[(String, String, String)],
    service: &Client,
    stranger: &Client,
    place: Where,
) -> BTreeSet<(String, String, String)> {
    futures::stream::iter(calls.iter().cloned())
        .map(|call| async move {
            (may(service, &call, place).await && !may(stranger, &call, place).await).then_some(call)
        })
        .buffer_unordered(32)
        .filter_map(async |call| call)
        .collect()
        .await
}

#[tokio::test]
async fn the_roles_allow_thirty_one_calls_of_all_that_the_api_server_knows() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("allowed").await;
    let dir = tempfile::tempdir().expect("a directory");
    let (service, stranger) =
        (client(cluster.service_kubeconfig()).await, client(&account(&namespace, "stranger", dir.path()).await).await);
    let known = resources(&namespace.client).await;
    let calls = every_call(&known);
    let allowed = async |place| allowed_of(&calls, &service, &stranger, place).await;
    let everywhere: BTreeSet<_> = ALLOWED.map(owned).into();
    let with = |more: &[Call]| everywhere.iter().cloned().chain(more.iter().copied().map(owned)).collect();
    assert_eq!(allowed(Where::default()).await, everywhere);
    assert_eq!(allowed(Where { namespace: None, name: Some(KUBE_SYSTEM) }).await, with(&ALLOWED_OF_KUBE_SYSTEM));
    assert_eq!(allowed(Where { namespace: None, name: Some(CONFIGURATION) }).await, with(&ALLOWED_OF_CONFIGURATIONS));
    let at_home = async |name| allowed(Where { namespace: Some(deploy::ACCOUNT), name }).await;
    // RBAC cannot say which object may be created.
    let (leases, secrets) = ALLOWED_AT_HOME.split_at(5);
    let create = [leases[0], secrets[0]];
    assert_eq!(at_home(None).await, with(&create));
    assert_eq!(at_home(Some(super::LEASE)).await, with(&[leases, &create].concat()));
    assert_eq!(at_home(Some(SECRET)).await, with(&[secrets, &create].concat()));
    assert_eq!(at_home(Some("another")).await, with(&create));
    assert_eq!(allowed(Where { namespace: Some("default"), name: Some(super::LEASE) }).await, everywhere);
}

#[tokio::test]
async fn calls_outside_of_the_role_are_refused() {
    let stage = Stage::build("refused").start().await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    let run = stage.player.start("testvm", "n1").await;
    let client = client(Cluster::shared().service_kubeconfig()).await;
    let core = format!("/api/v1/namespaces/{}", stage.namespace.name);
    let kubevirt = format!("/apis/kubevirt.io/v1/namespaces/{}", stage.namespace.name);
    let subresources = format!("/apis/subresources.kubevirt.io/v1/namespaces/{}", stage.namespace.name);
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", stage.namespace.name);
    let home = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", deploy::ACCOUNT);
    let hooks = "/apis/admissionregistration.k8s.io/v1";
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let pod = &run.pod;
    let refused = [
        ("GET", format!("{kubevirt}/virtualmachines/testvm")),
        ("POST", format!("{kubevirt}/virtualmachines")),
        ("PUT", format!("{kubevirt}/virtualmachines/testvm")),
        ("DELETE", format!("{kubevirt}/virtualmachines/testvm")),
        ("DELETE", format!("{kubevirt}/virtualmachines")),
        ("PATCH", format!("{kubevirt}/virtualmachines/testvm/status")),
        ("PUT", format!("{kubevirt}/virtualmachineinstances/testvm")),
        ("DELETE", format!("{kubevirt}/virtualmachineinstances/testvm")),
        ("POST", format!("{kubevirt}/virtualmachineinstancemigrations")),
        ("PUT", format!("{subresources}/virtualmachines/testvm/restart")),
        (
            "POST",
            format!("/apis/k8s.cni.cncf.io/v1/namespaces/{}/network-attachment-definitions", stage.namespace.name),
        ),
        (
            "PATCH",
            format!("/apis/k8s.cni.cncf.io/v1/namespaces/{}/network-attachment-definitions/any", stage.namespace.name),
        ),
        ("GET", format!("{core}/pods/{pod}")),
        ("POST", format!("{core}/pods")),
        ("PATCH", format!("{core}/pods/{pod}")),
        ("DELETE", format!("{core}/pods/{pod}")),
        ("POST", format!("{core}/pods/{pod}/exec")),
        ("POST", format!("{core}/pods/{pod}/eviction")),
        ("GET", format!("{core}/pods/{pod}/log")),
        ("PATCH", core.clone()),
        ("DELETE", core.clone()),
        ("POST", "/api/v1/namespaces".to_owned()),
        ("GET", "/api/v1/namespaces/default".to_owned()),
        ("PATCH", "/api/v1/namespaces/kube-system".to_owned()),
        ("GET", "/api/v1/secrets".to_owned()),
        ("GET", format!("{core}/secrets/any")),
        ("POST", format!("{core}/secrets")),
        ("GET", format!("/api/v1/namespaces/{}/secrets", deploy::ACCOUNT)),
        ("GET", format!("/api/v1/namespaces/{}/secrets/any", deploy::ACCOUNT)),
        ("DELETE", format!("/api/v1/namespaces/{}/secrets/{SECRET}", deploy::ACCOUNT)),
        ("GET", format!("{hooks}/mutatingwebhookconfigurations")),
        ("POST", format!("{hooks}/mutatingwebhookconfigurations")),
        ("PATCH", format!("{hooks}/validatingwebhookconfigurations/another")),
        ("DELETE", format!("{hooks}/validatingwebhookconfigurations/{CONFIGURATION}")),
        ("GET", format!("{core}/configmaps")),
        ("GET", format!("{core}/events")),
        ("POST", format!("{core}/events")),
        ("POST", format!("{core}/serviceaccounts/default/token")),
        ("GET", "/api/v1/nodes/n1".to_owned()),
        ("PATCH", "/api/v1/nodes/n1".to_owned()),
        ("POST", leases.clone()),
        ("GET", format!("{leases}/any")),
        ("GET", format!("{home}/any")),
        ("GET", home.clone()),
        ("PUT", format!("{home}/any")),
        ("PATCH", format!("{home}/{}", super::LEASE)),
        ("DELETE", format!("{home}/{}", super::LEASE)),
        ("POST", format!("{rbac}/clusterrolebindings")),
        ("PATCH", format!("{rbac}/clusterroles/ovn-kubevirt")),
    ];
    for (method, path) in refused {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(&path).header("content-type", kind);
        let answer = client.request::<Value>(request.body(b"{}".to_vec()).expect("a request")).await;
        match answer {
            Err(kube::Error::Api(status)) if status.code == 403 => {}
            other => panic!("{method} {path}: {other:?}"),
        }
    }
    assert!(stage.player.vm("testvm").await.is_some_and(|vm| vm["metadata"]["deletionTimestamp"].is_null()));
}
