//! Obstacles to a Lease: garbage in it, missing rights, a missing namespace.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use ovn_kubevirt::controller::Leadership;
use serde_json::{Value, json};

use super::candidate::{Candidate, Log, Place, one_leads};
use crate::support::{Cluster, Namespace, deploy, eventually};

#[tokio::test]
async fn garbage_in_a_lease_locks_no_candidate_out() {
    let garbage = [
        (json!({}), 1),
        (json!({"holderIdentity": ""}), 1),
        (json!({"holderIdentity": "ghost"}), 1),
        (json!({"leaseTransitions": 41}), 42),
        (json!({"holderIdentity": "ghost", "leaseDurationSeconds": i32::MAX, "leaseTransitions": 1}), 2),
        (json!({"holderIdentity": "ghost", "leaseTransitions": i32::MAX}), i32::MAX.unsigned_abs().into()),
        (json!({"holderIdentity": "ghost", "renewTime": "9999-12-31T23:59:59.999999Z"}), 1),
        (json!({"holderIdentity": "ghost", "renewTime": "9999-12-31T23:59:59.999999-23:59"}), 1),
        (
            json!({"holderIdentity": "ghost", "acquireTime": "0000-01-01T00:00:00.000000Z", "leaseDurationSeconds": 1}),
            1,
        ),
    ];
    for (spec, term) in garbage {
        let place = Place::new("garbage").await;
        place.create(&spec).await;
        let candidate = place.candidate(1);
        println!("{spec}");
        one_leads(&[&candidate], term).await;
        candidate.stop().await.expect("it ends well");
        assert_eq!(place.lease().await["spec"]["holderIdentity"], Value::Null, "{spec}");
    }
}

/// The log has a line with all these words, once.
async fn says_once(log: &Log, words: &[&str]) {
    let count = |text: &str| text.lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
    eventually(&format!("the log says {words:?}"), || async {
        let text = log.text();
        if count(&text) == 1 { Ok(()) } else { Err(text) }
    })
    .await;
}

/// An account whose rights on the Lease the test sets.
struct Account {
    namespace: Namespace,
    kubeconfig: PathBuf,
    _directory: tempfile::TempDir,
}

impl Account {
    async fn new(namespace: &Namespace) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let namespaced = (namespace.client.clone(), namespace.name.as_str());
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "service"}})).expect("one");
        let accounts: Api<ServiceAccount> = Api::namespaced(namespaced.0.clone(), namespaced.1);
        accounts.create(&PostParams::default(), &account).await.expect("an account");
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": {"name": "service"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "service"},
            "subjects": [{"kind": "ServiceAccount", "name": "service", "namespace": namespace.name}],
        }))
        .expect("a binding");
        let bindings: Api<RoleBinding> = Api::namespaced(namespaced.0, namespaced.1);
        bindings.create(&PostParams::default(), &binding).await.expect("a binding");
        let kubeconfig = directory.path().join("kubeconfig");
        let written =
            deploy::write_kubeconfig(Cluster::shared().kubeconfig(), &namespace.name, "service", &kubeconfig).await;
        written.unwrap_or_else(|error| panic!("{error}"));
        let account = Self { namespace: namespace.clone(), kubeconfig, _directory: directory };
        account.may(&[]).await;
        account
    }

    async fn may(&self, verbs: &[&str]) {
        let rules = match verbs {
            [] => json!([]),
            verbs => json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs}]),
        };
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "service"}, "rules": rules,
        });
        let roles: Api<Role> = Api::namespaced(self.namespace.client.clone(), &self.namespace.name);
        let force = PatchParams::apply("test").force();
        roles.patch("service", &force, &Patch::Apply(&role)).await.expect("a role");
    }
}

#[tokio::test]
async fn rights_that_are_missing_are_named_and_once_given_used_without_a_restart() {
    let (log, _guard) = Log::capture();
    let place = Place::new("rights").await;
    let account = Account::new(&place.namespace).await;
    let candidate = place.candidate_through(&account.kubeconfig, 2).await;
    let role = format!("its Role in the namespace {} needs", place.namespace.name);
    let needs = |verbs: &str| format!("{role} {verbs} on leases of coordination.k8s.io");
    says_once(&log, &[&needs("get"), "cannot get resource", "deploy/kubernetes/rbac"]).await;
    says_once(&log, &[&needs("list and watch"), "cannot list resource"]).await;
    account.may(&["get"]).await;
    says_once(&log, &[&needs("create"), "cannot create resource"]).await;
    account.may(&["get", "create"]).await;
    one_leads(&[&candidate], 1).await;
    says_once(&log, &[&needs("update"), "cannot update resource"]).await;
    // It cannot renew.
    says_once(&log, &["this process leads no longer", "could not be renewed"]).await;
    account.may(&["get", "create", "update"]).await;
    one_leads(&[&candidate], 2).await;
    account.may(&["get", "create", "update", "list"]).await;
    says_once(&log, &[&needs("list and watch"), "cannot watch resource"]).await;
    let text = log.text();
    assert!(text.lines().filter(|line| line.contains("WARN")).count() <= 8, "{text}");
}

#[tokio::test]
async fn without_a_watch_a_follower_still_takes_over_soon() {
    let place = Place::new("blind").await;
    let account = Account::new(&place.namespace).await;
    account.may(&["get", "create", "update"]).await;
    let leader = place.candidate(60);
    one_leads(&[&leader], 1).await;
    let blind = place.candidate_through(&account.kubeconfig, 60).await;
    blind.follows(&leader).await;
    leader.stop().await.expect("it ends well");
    // Not after a minute.
    one_leads(&[&blind], 2).await;
}

#[tokio::test]
async fn a_missing_namespace_is_named_and_used_once_it_exists() {
    let (log, _guard) = Log::capture();
    let place = Place::new("nowhere").await;
    let missing = format!("{}-b", place.namespace.name);
    let candidate = Candidate::start(place.namespace.client.clone(), missing.clone(), 2);
    says_once(&log, &[&format!("there is no namespace {missing}"), "create it, or name another with --lease"]).await;
    assert_eq!(candidate.leadership(), Leadership::Follower { leader: None });
    place.namespace.sibling("b").await;
    one_leads(&[&candidate], 1).await;
}

#[tokio::test]
async fn the_service_waits_for_an_api_server_that_is_absent_at_the_start() {
    let (log, _guard) = Log::capture();
    let place = Place::new("away").await;
    let directory = tempfile::tempdir().expect("a directory");
    let (gate, through) = crate::support::Gate::to_api_server(Cluster::shared().kubeconfig(), directory.path()).await;
    gate.shut();
    let candidate = place.candidate_through(&through, 2).await;
    says_once(&log, &["the API server does not answer the get of the Lease"]).await;
    gate.open();
    one_leads(&[&candidate], 1).await;
}
