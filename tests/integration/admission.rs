//! The admission webhooks on a real API server, which calls them over TLS by URL.
//!
//! All tests share the API server. Each has webhook configurations of its own, for its own namespaces alone, and an account
//! with the rules of `deploy/kubernetes` for the service.

mod certificates;
mod launchers;
mod server;
mod vms;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::deploy::{self, Account};
use crate::support::service::{Setup, read_response};
use crate::support::webhooks::{CONFIGURATIONS, Configurations, called, webhook_flags};
use crate::support::{Cluster, Namespace, Prepared, Service, Stage, eventually};

/// The Secret's name, unless a flag names another.
pub(crate) const SECRET: &str = "ovn-kubevirt-webhook";
/// Databases, a namespace with KubeVirt in it, an account and, once they are made, webhook configurations.
struct Hooked {
    prepared: Prepared,
    account: Account,
    configurations: Option<Configurations>,
}

impl Deref for Hooked {
    type Target = Prepared;

    fn deref(&self) -> &Prepared {
        &self.prepared
    }
}

impl Hooked {
    async fn new(name: &str) -> Self {
        Self::on(Stage::build(name).prepare().await).await
    }

    async fn on(prepared: Prepared) -> Self {
        let (everywhere, at_home) = deploy::shipped_rules(Cluster::shared().client().await).await;
        let account = Account::new(&prepared.namespace, prepared.dir(), &everywhere, &at_home).await;
        Self { prepared, account, configurations: None }
    }

    /// A service with webhooks on a port of its own, and certificates that are good for so long.
    fn setup(&self, lifetime: &str) -> Setup {
        self.setup_on("127.0.0.1:0", lifetime)
    }

    /// The same on a port that is known.
    fn setup_on(&self, address: &str, lifetime: &str) -> Setup {
        let flags = webhook_flags(address, &self.namespace.name);
        let setup = self.prepared.setup().kubeconfig(&self.account.kubeconfig).flags(flags);
        setup.flags(["--webhook-certificate-lifetime", lifetime])
    }

    /// Has the API server call the webhooks of this service for VMs, and for pods with the label `hooked`.
    async fn call(&mut self, service: &Service) {
        self.configurations = Some(Configurations::new(&self.namespace, &service.webhooks().await));
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.namespace.client.clone(), &self.namespace.name)
    }

    /// A key of the Secret's data; empty where there is none.
    async fn secret(&self, key: &str) -> String {
        let secret = self.secrets().get_opt(SECRET).await.expect("an answer");
        let data = secret.and_then(|secret| secret.data).unwrap_or_default();
        data.get(key).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
    }

    /// Changes the Secret's data, as an operator does it.
    async fn patch_secret(&self, patch: Value) {
        let patched = self.secrets().patch(SECRET, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.expect("the Secret");
    }

    /// Waits until the service shows a certificate that the Secret's CAs have issued.
    async fn caller(&self, service: &Service) -> Caller {
        let address = service.webhooks().await;
        eventually("the service shows a certificate of the Secret", || async {
            let caller = Caller::new(&address, &self.secret("ca.crt").await)?;
            caller.connect().await.map(|_| caller)
        })
        .await
    }

    /// The answer of the API server and its webhook to the creation of a VM, which is not stored.
    async fn try_vm(&self) -> Result<(), String> {
        let vm = json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "tried"},
            "spec": {"runStrategy": "Halted", "template": {"spec": {"domain": {"devices": {}}}}},
        });
        let path = format!("/apis/kubevirt.io/v1/namespaces/{}/virtualmachines?dryRun=All", self.namespace.name);
        self.post(&path, &vm).await
    }

    /// The same with a pod that is no launcher.
    async fn try_pod(&self) -> Result<(), String> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tried", "labels": {"hooked": "true"}},
            "spec": {"containers": [{"name": "a", "image": "a"}]},
        });
        self.post(&format!("/api/v1/namespaces/{}/pods?dryRun=All", self.namespace.name), &pod).await
    }

    async fn post(&self, path: &str, object: &Value) -> Result<(), String> {
        let request = hyper::Request::post(path).header("content-type", "application/json");
        let request = request.body(serde_json::to_vec(object).expect("JSON")).expect("a request");
        self.namespace.client.request::<Value>(request).await.map(drop).map_err(|error| error.to_string())
    }

    /// Waits until the API server reaches both webhooks.
    async fn called(&self) {
        called(&self.namespace).await;
    }

    /// The CA bundles in all webhooks of both configurations.
    async fn bundles(&self) -> Vec<String> {
        let mut all = Vec::new();
        for kind in CONFIGURATIONS {
            let bundles = bundles(&self.namespace, kind).await;
            all.extend(bundles);
        }
        all
    }

    /// Waits until every webhook has the CAs of the Secret.
    async fn announced(&self) {
        eventually("every webhook has the CAs of the Secret", || async {
            let (wanted, bundles) = (self.secret("ca.crt").await, self.bundles().await);
            let all = bundles.len() == 4 && !wanted.is_empty() && bundles.iter().all(|bundle| *bundle == wanted);
            if all { Ok(()) } else { Err(format!("{wanted}\n{bundles:?}")) }
        })
        .await;
    }
}

/// The CA bundles in the webhooks of the test's configuration of a kind.
pub(crate) async fn bundles(namespace: &Namespace, kind: &str) -> Vec<String> {
    let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}/{}", namespace.name);
    let request = hyper::Request::get(path).body(Vec::new()).expect("a request");
    let object: Value = namespace.client.request(request).await.unwrap_or_default();
    let webhooks = object["webhooks"].as_array().cloned().unwrap_or_default();
    let bundle = |webhook: &Value| -> String {
        let bundle = webhook["clientConfig"]["caBundle"].clone();
        let bundle: k8s_openapi::ByteString = serde_json::from_value(bundle).unwrap_or_default();
        String::from_utf8_lossy(&bundle.0).into_owned()
    };
    webhooks.iter().map(bundle).collect()
}

/// Calls the webhooks as the API server does, without it.
struct Caller {
    address: String,
    connector: TlsConnector,
}

impl Caller {
    /// Trusts these CAs (PEM).
    fn new(address: &str, authorities: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
        Ok(Self { address: address.to_owned(), connector: TlsConnector::from(Arc::new(config)) })
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, String> {
        let stream = TcpStream::connect(&self.address).await.map_err(|error| error.to_string())?;
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let connecting = tokio::time::timeout(Duration::from_secs(10), self.connector.connect(name, stream));
        connecting.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// The certificate that is shown to a new connection.
    async fn shown(&self) -> Result<CertificateDer<'static>, String> {
        let stream = self.connect().await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
        shown.ok_or_else(|| "none".to_owned())
    }

    /// One request on a connection of its own, with these bytes: the status and the body.
    async fn send(&self, request: &[u8]) -> Result<(u16, String), String> {
        let mut stream = self.connect().await?;
        // It may be answered, and the connection closed, before all of it has been read.
        let _ = stream.write_all(request).await;
        let mut response = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut response)).await;
        // A closed connection without TLS' own goodbye is one.
        let _ = read.map_err(|error| error.to_string())?;
        let response = String::from_utf8_lossy(&response);
        read_response(&response).ok_or_else(|| format!("no response: {response:?}"))
    }

    async fn post(&self, path: &str, body: &str) -> Result<(u16, String), String> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.send(format!("{head}{body}").as_bytes()).await
    }
}

/// A question about a pod that is no launcher.
fn question(uid: &str) -> String {
    let gvk = json!({"group": "", "version": "v1", "kind": "Pod"});
    let question = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": uid, "kind": gvk, "resource": {"group": "", "version": "v1", "resource": "pods"}, "name": "a",
            "namespace": "default", "operation": "CREATE", "userInfo": {"username": "u", "groups": ["g"]},
            "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}, "oldObject": null, "dryRun": false,
        },
    });
    question.to_string()
}
