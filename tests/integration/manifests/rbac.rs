//! The ClusterRole of `deploy/kubernetes`: all that the service needs, and nothing else.
//!
//! That it suffices is what every other test shows: their service runs under it ([`deploy::apply_account`]).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use hyper::Request;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule};
use kube::api::{DeleteParams, PostParams};
use kube::config::Kubeconfig;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::stage::{SUBNET, Stage};
use crate::support::{Cluster, Namespace, Northbound, Player, Service, VmOptions, deploy, eventually, holds_for};

/// API group, resource and verb.
type Call = (&'static str, &'static str, &'static str);

/// Every call that the service may make.
const ALLOWED: [Call; 15] = [
    ("kubevirt.io", "virtualmachines", "list"),
    ("kubevirt.io", "virtualmachines", "watch"),
    ("kubevirt.io", "virtualmachines", "patch"),
    ("kubevirt.io", "virtualmachineinstances", "list"),
    ("kubevirt.io", "virtualmachineinstances", "watch"),
    ("kubevirt.io", "virtualmachineinstances", "patch"),
    ("kubevirt.io", "virtualmachineinstancemigrations", "list"),
    ("kubevirt.io", "virtualmachineinstancemigrations", "watch"),
    ("", "pods", "list"),
    ("", "pods", "watch"),
    ("", "nodes", "list"),
    ("", "nodes", "watch"),
    ("", "namespaces", "list"),
    ("", "namespaces", "watch"),
    ("events.k8s.io", "events", "create"),
];

const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
/// Verbs of RBAC itself, and everything at once.
const SPECIAL: [Call; 8] = [
    ("", "users", "impersonate"),
    ("", "groups", "impersonate"),
    ("", "serviceaccounts", "impersonate"),
    ("rbac.authorization.k8s.io", "clusterroles", "bind"),
    ("rbac.authorization.k8s.io", "clusterroles", "escalate"),
    ("certificates.k8s.io", "signers", "approve"),
    ("certificates.k8s.io", "signers", "sign"),
    ("*", "*", "*"),
];

const PORTS: &str = "ovn-kubevirt.io/ports";

async fn client(kubeconfig: &Path) -> Client {
    let config = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    deploy::client(config).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Every resource and subresource that the API server has, with its group.
async fn resources(admin: &Client) -> BTreeSet<(String, String)> {
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

/// Whether whoever the client is may do so in all namespaces.
async fn may(client: &Client, (group, resource, verb): &(String, String, String)) -> bool {
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (resource.as_str(), None),
    };
    let attributes = ResourceAttributes {
        group: Some(group.clone()),
        resource: Some(resource.to_owned()),
        subresource,
        verb: Some(verb.clone()),
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
async fn account(namespace: &Namespace, name: &str, dir: &Path) -> PathBuf {
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": name}})).expect("an account");
    let accounts: Api<ServiceAccount> = Api::namespaced(namespace.client.clone(), &namespace.name);
    accounts.create(&PostParams::default(), &account).await.unwrap_or_else(|error| panic!("account {name}: {error}"));
    let file = dir.join(format!("{name}.kubeconfig"));
    let written = deploy::write_kubeconfig(Cluster::shared().kubeconfig(), &namespace.name, name, &file).await;
    written.unwrap_or_else(|error| panic!("{error}"));
    file
}

#[tokio::test]
async fn the_role_allows_fifteen_calls_of_all_that_the_api_server_knows() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("allowed").await;
    let dir = tempfile::tempdir().expect("a directory");
    let (service, nobody) =
        (client(cluster.service_kubeconfig()).await, client(&account(&namespace, "nobody", dir.path()).await).await);
    let known = resources(&namespace.client).await;
    let calls = known.iter().flat_map(|(group, resource)| VERBS.map(|verb| (group.as_str(), resource.as_str(), verb)));
    let owned = |(group, resource, verb): (&str, &str, &str)| (group.to_owned(), resource.to_owned(), verb.to_owned());
    let calls: Vec<_> = calls.chain(SPECIAL).map(owned).collect();
    assert!(calls.len() > 500, "only {} calls: {known:?}", calls.len());
    let (service, nobody) = (&service, &nobody);
    let allowed: BTreeSet<_> = futures::stream::iter(calls)
        // What every account may do (ask what it may do) is not of this role.
        .map(|call| async move { (may(service, &call).await && !may(nobody, &call).await).then_some(call) })
        .buffer_unordered(32)
        .filter_map(async |call| call)
        .collect()
        .await;
    assert_eq!(allowed, ALLOWED.map(owned).into());
}

#[tokio::test]
async fn calls_outside_of_the_role_are_refused() {
    let stage = Stage::new("refused").await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    let run = stage.player.start("testvm", "n1").await;
    let client = client(Cluster::shared().service_kubeconfig()).await;
    let core = format!("/api/v1/namespaces/{}", stage.namespace.name);
    let kubevirt = format!("/apis/kubevirt.io/v1/namespaces/{}", stage.namespace.name);
    let subresources = format!("/apis/subresources.kubevirt.io/v1/namespaces/{}", stage.namespace.name);
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", stage.namespace.name);
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
        ("GET", "/api/v1/secrets".to_owned()),
        ("GET", format!("{core}/secrets/any")),
        ("GET", format!("{core}/configmaps")),
        ("GET", format!("{core}/events")),
        ("POST", format!("{core}/events")),
        ("POST", format!("{core}/serviceaccounts/default/token")),
        ("GET", "/api/v1/nodes/n1".to_owned()),
        ("PATCH", "/api/v1/nodes/n1".to_owned()),
        ("POST", leases.clone()),
        ("GET", format!("{leases}/any")),
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

#[tokio::test]
async fn without_any_one_of_its_verbs_the_service_does_not_do_its_job() {
    // Before all run at once: whoever comes first starts the servers.
    let role = Api::<ClusterRole>::all(Cluster::shared().client().await).get(deploy::ACCOUNT).await;
    let rules = role.expect("the role of the manifests").rules.unwrap_or_default();
    let mut cases = JoinSet::new();
    for (index, without) in ALLOWED.into_iter().map(Some).chain([None]).enumerate() {
        let cut = cut(&rules, without);
        cases.spawn(async move { Cut::new(index, &cut).await.shows_the_need_for(without).await });
    }
    while let Some(ended) = cases.join_next().await {
        if let Err(error) = ended {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// The rules, each with one resource and one verb, but for the call that is taken away.
fn cut(rules: &[PolicyRule], without: Option<Call>) -> Vec<PolicyRule> {
    let mut left = Vec::new();
    let mut taken = 0;
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    if without == Some((group.as_str(), resource.as_str(), verb.as_str())) {
                        taken += 1;
                        continue;
                    }
                    left.push(PolicyRule {
                        api_groups: Some(vec![group.clone()]),
                        resources: Some(vec![resource.clone()]),
                        verbs: vec![verb.clone()],
                        ..PolicyRule::default()
                    });
                }
            }
        }
    }
    assert_eq!((left.len(), taken), (ALLOWED.len() - taken, usize::from(without.is_some())), "{rules:?}");
    left
}

/// A stage whose service runs under a copy of the role, with less in it.
struct Cut {
    northbound: Northbound,
    namespace: Namespace,
    player: Player,
    kubeconfig: PathBuf,
}

impl Cut {
    async fn new(index: usize, rules: &[PolicyRule]) -> Self {
        let northbound = Northbound::start().await;
        northbound.add_switch("ovn-default", &SUBNET);
        let namespace = Cluster::shared().namespace(&format!("cut-{index}")).await;
        let kubeconfig = account(&namespace, "service", northbound.dir()).await;
        let (name, client) = (&namespace.name, &namespace.client);
        let role = json!({"metadata": {"name": name}, "rules": rules});
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "service", "namespace": name}],
        });
        let role: ClusterRole = serde_json::from_value(role).expect("a role");
        Api::all(client.clone()).create(&PostParams::default(), &role).await.expect("a role");
        let binding: ClusterRoleBinding = serde_json::from_value(binding).expect("a binding");
        Api::all(client.clone()).create(&PostParams::default(), &binding).await.expect("a binding");
        deploy::await_rights(&kubeconfig).await.unwrap_or_else(|error| panic!("{error}"));
        let player = Player::within(&namespace);
        Self { northbound, namespace, player, kubeconfig }
    }

    async fn shows_the_need_for(self, call: Option<Call>) {
        let setup = Service::setup(&self.northbound, Cluster::shared(), &self.namespace).kubeconfig(&self.kubeconfig);
        match call {
            None => self.all_is_well(&setup.start().await).await,
            Some(call @ (_, _, "list")) => self.never_ready(&setup.spawn(), call).await,
            Some(call @ (_, _, "watch")) => self.news_unseen(&setup.start().await, call).await,
            Some(call) => self.owner_untold(&setup.start().await, call).await,
        }
        let name = &self.namespace.name;
        let client = || self.namespace.client.clone();
        Api::<ClusterRoleBinding>::all(client()).delete(name, &DeleteParams::default()).await.expect("the binding");
        Api::<ClusterRole>::all(client()).delete(name, &DeleteParams::default()).await.expect("the role");
    }

    /// The copy itself takes nothing away: with all its rules the same VMs are served.
    async fn all_is_well(&self, _service: &Service) {
        self.player.create_vm("testvm", VmOptions::default()).await;
        self.player.start("testvm", "n1").await;
        self.player.create_bare_vmi("bare", VmOptions::default()).await;
        let sibling = self.namespace.sibling("b").await;
        Player::within(&sibling).create_vm("testvm", VmOptions::default()).await;
        self.port(&format!("testvm.{}", sibling.name)).await;
        eventually("both owners are told, and the VM is bound", || async {
            let vm = self.player.vm("testvm").await.unwrap_or_default();
            let bare = self.player.vmi("bare").await.unwrap_or_default();
            let port = self.northbound.port(&self.name("testvm"));
            let bound = port.is_some_and(|port| port.option("requested-chassis") == Some("n1"));
            let told = [&vm, &bare].iter().all(|object| object["metadata"]["annotations"][PORTS].is_string());
            let events = self.namespace.events("testvm").await;
            if bound && told && !events.is_empty() { Ok(()) } else { Err(format!("{bound} {vm} {bare} {events:?}")) }
        })
        .await;
    }

    /// Without `list`: no object of that kind is known, and so no port is made or released.
    async fn never_ready(&self, service: &Service, call: Call) {
        self.player.create_vm("testvm", VmOptions::default()).await;
        service.listening().await;
        refused(service, call).await;
        holds_for(&format!("not ready without {call:?}"), Duration::from_millis(300), || async {
            match service.http_get("/readyz").await {
                (503, _) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        assert_eq!(self.northbound.ports(), [], "{call:?}");
    }

    /// Without `watch`: what happens after the start goes unseen, while what another watch tells is served.
    async fn news_unseen(&self, service: &Service, call: Call) {
        refused(service, call).await;
        let (_, resource, _) = call;
        let unseen = match resource {
            "virtualmachines" => {
                self.player.create_vm("unseen", VmOptions::default()).await;
                self.name("unseen")
            }
            "virtualmachineinstances" => {
                self.player.create_bare_vmi("unseen", VmOptions::default()).await;
                self.name("unseen")
            }
            "namespaces" => {
                let sibling = self.namespace.sibling("b").await;
                Player::within(&sibling).create_vm("unseen", VmOptions::default()).await;
                format!("unseen.{}", sibling.name)
            }
            "pods" => {
                self.player.create_vm("unseen", VmOptions::default()).await;
                self.player.start("unseen", "n1").await;
                self.name("unseen")
            }
            "nodes" => {
                let node = self.namespace.annotated_node("chassis-1").await;
                self.player.create_vm("unseen", VmOptions::default()).await;
                self.player.start("unseen", &node).await;
                self.name("unseen")
            }
            "virtualmachineinstancemigrations" => {
                self.player.create_vm("unseen", VmOptions::default()).await;
                self.player.start("unseen", "n1").await;
                let migration = self.player.start_migration("unseen", "n2").await;
                self.player.bind_target(&migration).await;
                self.name("unseen")
            }
            other => panic!("{other} is not watched"),
        };
        if resource == "virtualmachines" {
            self.player.create_bare_vmi("seen", VmOptions::default()).await;
        } else {
            self.player.create_vm("seen", VmOptions::default()).await;
        }
        self.port(&self.name("seen")).await;
        holds_for(&format!("unseen without {call:?}"), Duration::from_millis(300), || async {
            match self.northbound.port(&unseen) {
                None => Ok(()),
                // The port is there, but nobody says where the VM runs.
                Some(port) if resource == "pods" && port.options.is_empty() => Ok(()),
                // Nobody says that the node has another name, or that the VM moves.
                Some(port) if ["nodes", "virtualmachineinstancemigrations"].contains(&resource) => {
                    let requested = port.option("requested-chassis").unwrap_or_default();
                    if requested == "chassis-1" || requested.contains(',') { Err(format!("{port:#?}")) } else { Ok(()) }
                }
                Some(port) => Err(format!("{port:#?}")),
            }
        })
        .await;
    }

    /// Without `patch` or `create`: there is a port, and its owner does not learn of it by the annotation or by an Event.
    async fn owner_untold(&self, service: &Service, call: Call) {
        let bare = call.1 == "virtualmachineinstances";
        if bare {
            self.player.create_bare_vmi("untold", VmOptions::default()).await;
        } else {
            self.player.create_vm("untold", VmOptions::default()).await;
        }
        self.port(&self.name("untold")).await;
        refused(service, call).await;
        let object = if bare { self.player.vmi("untold").await } else { self.player.vm("untold").await };
        let annotations = &object.expect("it is there")["metadata"]["annotations"];
        if call.1 == "events" {
            assert_eq!(self.namespace.events("untold").await, []);
        } else {
            assert!(annotations[PORTS].is_null(), "{call:?}: {annotations}");
            // The annotation is tried again, and the Event that came through is not repeated.
            eventually("the annotation was refused twice", || async {
                let log = service.log();
                let tries = log.lines().filter(|line| line.contains("the VM's owner could not be told")).count();
                if tries >= 2 { Ok(()) } else { Err(log) }
            })
            .await;
            let reasons: Vec<String> =
                self.namespace.events("untold").await.into_iter().map(|(_, reason, _)| reason).collect();
            assert_eq!(reasons, ["AddressAssigned"]);
        }
    }

    fn name(&self, vm: &str) -> String {
        format!("{vm}.{}", self.namespace.name)
    }

    async fn port(&self, name: &str) {
        let look = || async { self.northbound.port(name).map(drop).ok_or_else(|| self.northbound.dump()) };
        eventually(&format!("the port {name} is there"), look).await;
    }
}

/// The service says what it was refused.
async fn refused(service: &Service, (group, resource, verb): Call) {
    let refusal = format!("cannot {verb} resource \"{resource}\" in API group \"{group}\"");
    eventually(&format!("the log says: {refusal}"), || async {
        let log = service.log().replace('\\', "");
        if log.contains(&refusal) { Ok(()) } else { Err(log) }
    })
    .await;
}
