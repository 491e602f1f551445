//! `ovn-kubevirt node` as the DaemonSet runs it: with the rights of its own account.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::cluster::{Cluster, Namespace};
use super::deploy;
use super::process::mortal;
use super::service::{Service, binary};

/// The annotation of a launcher pod.
const PORTS: &str = "ovn-kubevirt.io/ports";

/// The setup of `ovn-kubevirt node`.
#[derive(Debug, Clone)]
pub struct NodeSetup {
    ovs: String,
    node: String,
    kubeconfig: PathBuf,
    arguments: Vec<String>,
    dir: PathBuf,
}

impl NodeSetup {
    /// The node of that name, with its database at `ovs`; logs go to `dir`.
    pub async fn new(cluster: &Cluster, ovs: &str, node: &str, dir: &Path) -> Self {
        static ACCOUNT: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();
        let account = ACCOUNT.get_or_init(|| async {
            let admin = cluster.kubeconfig();
            let file = cluster.service_kubeconfig().with_file_name("node.kubeconfig");
            deploy::apply_node_account(admin, &file).await.map(|()| file)
        });
        let kubeconfig = account.await.clone().unwrap_or_else(|error| panic!("the account of the nodes: {error}"));
        Self { ovs: ovs.to_owned(), node: node.to_owned(), kubeconfig, arguments: Vec::new(), dir: dir.to_owned() }
    }

    /// Reaches the API server with this file: through a proxy, or with fewer rights.
    #[must_use]
    pub fn kubeconfig(mut self, kubeconfig: impl Into<PathBuf>) -> Self {
        self.kubeconfig = kubeconfig.into();
        self
    }

    /// The file by which it reaches the API server.
    pub fn present_kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// More arguments.
    #[must_use]
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Starts it and does not wait for anything.
    pub fn spawn(&self) -> Service {
        let mut command = mortal(binary());
        command
            .args(["node", "--ovs", &self.ovs, "--http", "127.0.0.1:0"])
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            // As the downward API does it.
            .env("OVN_KUBEVIRT_NODE", &self.node)
            .args(&self.arguments);
        Service::begin(&self.dir, command)
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&self) -> Service {
        let service = self.spawn();
        service.ready().await;
        service
    }
}

/// One element of the annotation `ovn-kubevirt.io/ports` of a launcher pod, as the webhook writes it.
pub fn pod_port(network: &str, interface: &str, port: &str) -> Value {
    json!({
        "network": network, "interface": interface, "port": port, "switch": "blue", "mac": "0a:58:0a:10:00:02",
        "ips": ["10.16.0.2/24"], "gateway": ["10.16.0.1"], "mtu": 1400,
    })
}

/// Writes the annotation on a launcher pod in the webhook's place, or takes it off.
pub async fn annotate(namespace: &Namespace, pod: &str, ports: Option<&[Value]>) {
    let text = ports.map(|ports| Value::from(ports.to_vec()).to_string());
    annotate_with(namespace, pod, text.as_deref()).await;
}

/// Writes any text there.
pub async fn annotate_with(namespace: &Namespace, pod: &str, text: Option<&str>) {
    let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let patch = Patch::Merge(json!({"metadata": {"annotations": {PORTS: text}}}));
    let patched = pods.patch(pod, &PatchParams::default(), &patch).await;
    patched.unwrap_or_else(|error| panic!("annotation of pod {pod}: {error}"));
}
