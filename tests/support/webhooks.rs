//! The admission webhooks of a service on the test run's API server, which calls them over TLS by URL, for the namespaces of
//! one test alone.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use uuid::Uuid;

use super::cluster::{Cluster, Namespace};
use super::deploy::{self, Account, kubectl};
use super::eventually::eventually;
use super::service::Setup;

/// Both kinds of configurations, as a path of the API has them.
pub const CONFIGURATIONS: [&str; 2] = ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"];

/// Flags of a service whose webhooks are called by URL at this IP address and port, with the configurations of this name.
pub fn webhook_flags(address: &str, configuration: &str) -> Vec<String> {
    let (host, _) = address.rsplit_once(':').expect("an address and a port");
    let flags = ["--webhooks", address, "--webhook-host", host, "--webhook-configuration", configuration];
    flags.map(ToOwned::to_owned).into()
}

/// The webhooks as an operator applies them, before the service starts; the API server calls them no more once the value is
/// gone. [`Prepared::start_called`](super::Prepared::start_called) gives one.
pub struct Webhooks {
    _configurations: Configurations,
    /// The service's account, which may patch these configurations and no others.
    account: Account,
    address: String,
    namespace: Namespace,
}

impl Webhooks {
    /// Applies them for the test's namespaces. `dir` takes the kubeconfig of the service's account.
    pub(super) async fn apply(namespace: &Namespace, dir: &Path) -> Self {
        let (everywhere, at_home) = deploy::shipped_rules(namespace.client.clone()).await;
        let account = Account::new(namespace, dir, &everywhere, &at_home).await;
        // A loopback address of its own, so that the port is known before the service listens, and no other has it.
        let [first, second, third, ..] = *Uuid::new_v4().as_bytes();
        let address = format!("127.{}.{second}.{third}:9443", first.clamp(1, 254));
        let configurations = Configurations::new(namespace, &address);
        Self { _configurations: configurations, account, address, namespace: namespace.clone() }
    }

    /// The flags of the service for them.
    pub(super) fn setup(&self, setup: Setup) -> Setup {
        setup.kubeconfig(&self.account.kubeconfig).flags(webhook_flags(&self.address, &self.namespace.name))
    }

    /// Waits until the API server calls both webhooks.
    pub(super) async fn called(&self) {
        called(&self.namespace).await;
    }
}

/// Waits until the API server calls both webhooks for a namespace: each refuses an object that only it would refuse.
pub async fn called(namespace: &Namespace) {
    eventually("the API server calls both webhooks", || refused(namespace)).await;
}

/// Tries a VM and a pod that the webhooks refuse. Neither is stored.
async fn refused(namespace: &Namespace) -> Result<(), String> {
    let vm = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "tried"},
        "spec": {"runStrategy": "Halted", "template": {
            "metadata": {"annotations": {"ovn.kubernetes.io/ip_address": "none of these"}},
            "spec": {"domain": {"devices": {}}},
        }},
    });
    let pod = json!({
        "metadata": {"name": "tried", "labels": {"kubevirt.io": "virt-launcher"}},
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    });
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let never_stored = PostParams { dry_run: true, ..PostParams::default() };
    let path = format!("/apis/kubevirt.io/v1/namespaces/{}/virtualmachines?dryRun=All", namespace.name);
    let refuses = |answer: Result<(), kube::Error>, words: &str| match answer {
        Err(error) if error.to_string().contains(words) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    refuses(pods.create(&never_stored, &pod).await.map(drop), "must not make launcher pods")?;
    let request = hyper::Request::post(&path).header("content-type", "application/json");
    let request = request.body(serde_json::to_vec(&vm).expect("JSON")).expect("a request");
    refuses(namespace.client.request::<Value>(request).await.map(drop), "none of these")
}

/// Webhook configurations of one test, which are gone with the value. They are named after the namespace.
pub struct Configurations(String);

impl Configurations {
    /// Calls the listener at this address, and takes no silence for an answer.
    pub fn new(namespace: &Namespace, address: &str) -> Self {
        let hook = |name: &str, path: &str, rule: Value, selector: Value| {
            json!({
                "name": format!("{name}.ovn-kubevirt.io"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": {"url": format!("https://{address}/{path}")}, "rules": [rule],
                "namespaceSelector": {"matchLabels": {namespace.label_key(): namespace.label}},
                "objectSelector": selector, "failurePolicy": "Fail", "timeoutSeconds": 10,
            })
        };
        let rule = |group: &str, resource: &str| {
            let operations = ["CREATE", "UPDATE"];
            json!({"apiGroups": [group], "apiVersions": ["v1"], "operations": operations, "resources": [resource]})
        };
        let configuration = |kind: &str, webhooks: Vec<Value>| {
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "webhooks": webhooks,
                "metadata": {"name": namespace.name},
            })
        };
        let vms = hook("vms", "validate", rule("kubevirt.io", "virtualmachines"), json!({}));
        let runs = hook("runs", "validate", rule("kubevirt.io", "virtualmachineinstances"), json!({}));
        let pods = |name, label| hook(name, "mutate", rule("", "pods"), json!({"matchLabels": label}));
        let hooked = pods("pods", json!({"hooked": "true"}));
        let launchers = pods("launchers", json!({"kubevirt.io": "virt-launcher"}));
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            configuration("ValidatingWebhookConfiguration", vec![vms, runs]),
            configuration("MutatingWebhookConfiguration", vec![hooked, launchers]),
        ]});
        let made = Self(namespace.name.clone());
        let applied = kubectl(Cluster::shared().kubeconfig(), &["create", "-f", "-"], &objects.to_string());
        applied.unwrap_or_else(|error| panic!("{error}"));
        made
    }
}

impl Drop for Configurations {
    fn drop(&mut self) {
        let [validating, mutating] = CONFIGURATIONS.map(|kind| format!("{kind}/{}", self.0));
        let arguments = ["delete", &validating, &mutating, "--ignore-not-found", "--wait=false"];
        if let Err(error) = kubectl(Cluster::shared().kubeconfig(), &arguments, "") {
            eprintln!("{error}");
        }
    }
}
