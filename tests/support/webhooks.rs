//! The admission webhooks of a service on the test run's API server, which calls them over TLS by URL, for the namespaces of
//! one test alone.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::cluster::{Cluster, Namespace};
use super::deploy::{Account, kubectl};
use super::eventually::eventually;

/// Both kinds of configurations, as a path of the API has them.
pub const CONFIGURATIONS: [&str; 2] = ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"];

/// Flags of a service whose webhooks are called by URL, with the configurations of this name.
pub fn webhook_flags(address: &str, configuration: &str) -> Vec<String> {
    let flags = ["--webhooks", address, "--webhook-host", "127.0.0.1", "--webhook-configuration", configuration];
    flags.map(ToOwned::to_owned).into()
}

/// What has the API server call the webhooks of a service; it calls them no more once the value is gone.
/// [`Prepared::start_called`](super::Prepared::start_called) gives one.
pub struct Webhooks {
    _configurations: Configurations,
    /// The service's account, which may patch these configurations and no others.
    _account: Account,
}

impl Webhooks {
    /// Waits until the API server calls the listener at this address for the test's namespaces.
    pub(super) async fn new(namespace: &Namespace, address: &str, account: Account) -> Self {
        let configurations = Configurations::new(namespace, address);
        reached(namespace).await;
        Self { _configurations: configurations, _account: account }
    }
}

/// Waits until the API server calls both webhooks: each refuses what only it would refuse. Nothing is stored.
async fn reached(namespace: &Namespace) {
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
    eventually("the API server calls both webhooks", || async {
        refuses(pods.create(&never_stored, &pod).await.map(drop), "must not make launcher pods")?;
        let request = hyper::Request::post(&path).header("content-type", "application/json");
        let request = request.body(serde_json::to_vec(&vm).expect("JSON")).expect("a request");
        refuses(namespace.client.request::<Value>(request).await.map(drop), "none of these")
    })
    .await;
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
        for kind in CONFIGURATIONS {
            let arguments = ["delete", kind, &self.0, "--ignore-not-found", "--wait=false"];
            if let Err(error) = kubectl(Cluster::shared().kubeconfig(), &arguments, "") {
                eprintln!("{error}");
            }
        }
    }
}
