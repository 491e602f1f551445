//! The API server of a test run: one for all tests, with a namespace for each.
//!
//! It is a real etcd, kube-apiserver and kube-controller-manager, started by `tests/kube/guard.sh` at the first
//! call, or the cluster that `TEST_KUBECONFIG` names. The guard ends it all when its standard input closes. This
//! process holds the other end of that pipe in a static, so the kernel closes it however the process ends. There is no
//! parent-death signal here: it would kill the guard before it could clean up.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use k8s_openapi::api::core::v1::{self as core, Event, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use ovn_kubevirt::controller::ApiServer;
use serde_json::json;
use uuid::Uuid;

use super::{deploy, process};

/// The label that confines the service of one test to that test's namespaces.
pub const TEST_LABEL: &str = "ovn-kubevirt-test";

/// The script that runs the API server.
const GUARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kube/guard.sh");
/// The custom resources of KubeVirt and Multus.
const CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kube/crds.yaml");
/// Their names.
/// The user that virt-controller is, in the namespace where KubeVirt usually is.
pub const VIRT_CONTROLLER: &str = "system:serviceaccount:kubevirt:kubevirt-controller";
const CRD_NAMES: [&str; 4] = [
    "virtualmachines.kubevirt.io",
    "virtualmachineinstances.kubevirt.io",
    "virtualmachineinstancemigrations.kubevirt.io",
    "network-attachment-definitions.k8s.cni.cncf.io",
];

/// The start takes a few seconds, and minutes where the API server has to be built first. The scripts have deadlines of
/// their own: this one is for when they hang.
const READY_WITHIN: Duration = Duration::from_secs(900);

/// The cluster of this test run.
#[derive(Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
    service_kubeconfig: PathBuf,
    /// Held for its standard input.
    _guard: Option<Child>,
}

impl Cluster {
    /// The cluster, started at the first call.
    ///
    /// # Panics
    /// When it did not come up: a test that needs it fails, and is never skipped. It is tried once a run.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| match std::env::var_os("TEST_KUBECONFIG") {
            Some(kubeconfig) => Self::given(PathBuf::from(kubeconfig)),
            None => Self::guarded(),
        });
        shared.as_ref().unwrap_or_else(|error| panic!("{error}"))
    }

    /// A cluster of the calling test's own, for tests that would disturb the others. It ends with the test run.
    pub fn own() -> Self {
        Self::guarded().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The file with which to reach it, as its administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The file with which the service reaches it: as the ServiceAccount of `deploy/kubernetes`, with its rights.
    pub fn service_kubeconfig(&self) -> &Path {
        &self.service_kubeconfig
    }

    /// A client for the calling test: each has a runtime of its own, and a client belongs to one runtime.
    pub async fn client(&self) -> Client {
        Client::try_from(self.config().await).expect("a client of the cluster")
    }

    /// The same on connections that send at once (TCP_NODELAY), as those of Kubernetes' own client do. A request of
    /// several segments on a connection of [`client`](Self::client) waits for the acknowledgement of the first, up to 40 ms.
    pub async fn prompt_client(&self) -> Client {
        let server = ApiServer::new(self.config().await, Arc::default());
        server.requests().expect("a client of the cluster")
    }

    /// The same for requests that virt-controller makes: the API server takes them for those of its service account.
    async fn client_of_virt_controller(&self) -> Client {
        let mut config = self.config().await;
        config.auth_info.impersonate = Some(VIRT_CONTROLLER.to_owned());
        config.auth_info.impersonate_groups = Some(vec!["system:masters".to_owned()]);
        Client::try_from(config).expect("a client of the cluster")
    }

    async fn config(&self) -> Config {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).expect("the cluster's kubeconfig can be read");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        config.expect("the kubeconfig has a current context")
    }

    /// A new namespace `<story>-<6 hex digits>`, labelled so that a test's service can be confined to it.
    ///
    /// It ends with the server: deleting it would cost time that no test needs.
    pub async fn namespace(&self, story: &str) -> Namespace {
        let unique = Uuid::new_v4().simple().to_string();
        let name = format!("{story}-{}", &unique[..6]);
        Namespace::create(self.client().await, self.client_of_virt_controller().await, &name, &name).await
    }

    /// An existing cluster, with the custom resources applied where it lacks them.
    fn given(kubeconfig: PathBuf) -> Result<Self, String> {
        let kubectl = |arguments: &[&str]| {
            let mut command = Command::new("kubectl");
            command.arg("--kubeconfig").arg(&kubeconfig).args(arguments);
            let output = command.output().map_err(|error| format!("TEST_KUBECONFIG needs kubectl: {error}"))?;
            match output.status.success() {
                true => Ok(()),
                false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
            }
        };
        if kubectl(&[&["get", "crd"][..], &CRD_NAMES].concat()).is_err() {
            kubectl(&["apply", "--server-side", "-f", CRDS])?;
            let wait = ["wait", "--for=condition=established", "--timeout=60s", "crd"];
            kubectl(&[&wait[..], &CRD_NAMES].concat())?;
        }
        // Not beside the administrator's, which is in a home folder.
        let dir = tempfile::Builder::new().prefix("ovn-kubevirt-kube-").tempdir();
        let dir = dir.map_err(|error| format!("a directory for a kubeconfig: {error}"))?.keep();
        Self::with_account(kubeconfig, &dir, None)
    }

    /// The cluster once the service's account is there. `dir` takes the kubeconfig of that account.
    fn with_account(kubeconfig: PathBuf, dir: &Path, guard: Option<Child>) -> Result<Self, String> {
        let service_kubeconfig = dir.join("service.kubeconfig");
        let applied = std::thread::scope(|scope| {
            // The first caller is a test on a runtime of its own, which may not be entered twice.
            let apply = || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(|error| format!("a runtime: {error}"))?;
                runtime.block_on(deploy::apply_account(&kubeconfig, &service_kubeconfig))
            };
            scope.spawn(apply).join().unwrap_or_else(|_| Err("the thread has panicked".to_owned()))
        });
        applied.map_err(|error| format!("the service's account: {error}"))?;
        Ok(Self { kubeconfig, service_kubeconfig, _guard: guard })
    }

    /// A cluster of this run's own.
    fn guarded() -> Result<Self, String> {
        let run_dir = tempfile::Builder::new().prefix("ovn-kubevirt-kube-").tempdir();
        // The guard removes it at its end.
        let run_dir = run_dir.map_err(|error| format!("a directory for the API server: {error}"))?.keep();
        let mut options = File::options();
        let log = options.create(true).truncate(true).read(true).write(true).open(run_dir.join("guard.log"));
        let mut log = log.map_err(|error| format!("a log for the API server's guard: {error}"))?;

        let mut command = Command::new(GUARD);
        command.arg(&run_dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(log.try_clone().map_err(|error| format!("the guard's log: {error}"))?);
        let missing = |error| format!("{GUARD}: {error}: run `make test` in a whole checkout");
        let mut guard = process::spawn(command).map_err(missing)?;

        let (line, lines) = mpsc::channel();
        let stdout = BufReader::new(guard.stdout.take().expect("standard output is piped"));
        std::thread::spawn(move || {
            // Reads on to the end, so that the guard never writes into a closed pipe.
            for said in stdout.lines().map_while(Result::ok) {
                let _ = line.send(said);
            }
        });
        while let Ok(said) = lines.recv_timeout(READY_WITHIN) {
            if said.trim() == "ready" {
                return Self::with_account(run_dir.join("kubeconfig"), &run_dir, Some(guard));
            }
        }
        // The guard may have removed the log's name; the open file is still there.
        let mut said = String::new();
        let _ = log.seek(SeekFrom::Start(0)).and_then(|_| log.read_to_string(&mut said));
        Err(format!("the API server is not ready: `make test` says what is missing\n{said}"))
    }
}

/// A namespace of one test.
#[derive(Clone)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// The value of [`TEST_LABEL`], which siblings share.
    pub label: String,
    /// The test's client.
    pub client: Client,
    /// A client with virt-controller's name.
    pub virt_controller: Client,
}

impl Namespace {
    /// One more namespace of the same test, `<name>-<suffix>`, which the same service watches.
    pub async fn sibling(&self, suffix: &str) -> Self {
        let clients = (self.client.clone(), self.virt_controller.clone());
        Self::create(clients.0, clients.1, &format!("{}-{suffix}", self.name), &self.label).await
    }

    /// The value for `--namespace-selector`.
    pub fn selector(&self) -> String {
        format!("{TEST_LABEL}={}", self.label)
    }

    /// The key of the label that selectors name.
    pub fn label_key(&self) -> &'static str {
        TEST_LABEL
    }

    /// Gives the namespace to the services with this selector: see [`Namespace::selector`].
    pub async fn relabel(&self, label: &str) {
        let namespaces: Api<core::Namespace> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"metadata": {"labels": {TEST_LABEL: label}}}));
        let patched = namespaces.patch(&self.name, &PatchParams::default(), &patch).await;
        patched.unwrap_or_else(|error| panic!("label of namespace {}: {error}", self.name));
    }

    /// Sets an annotation of the namespace, or takes it off: `ovn.kubernetes.io/logical_switch` names a switch for all.
    pub async fn annotate(&self, key: &str, value: Option<&str>) {
        let namespaces: Api<core::Namespace> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
        let patched = namespaces.patch(&self.name, &PatchParams::default(), &patch).await;
        patched.unwrap_or_else(|error| panic!("annotation {key} of namespace {}: {error}", self.name));
    }

    /// Lets the service stand for Leases in this namespace, as the manifests do in its own.
    pub async fn allow_leases(&self) {
        let verbs = ["get", "create", "update", "list", "watch"];
        let role = json!({
            "metadata": {"name": "leases"},
            "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs}],
        });
        let binding = json!({
            "metadata": {"name": "leases"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "leases"},
            "subjects": [{"kind": "ServiceAccount", "name": deploy::ACCOUNT, "namespace": deploy::ACCOUNT}],
        });
        let role: Role = serde_json::from_value(role).expect("a role");
        let binding: RoleBinding = serde_json::from_value(binding).expect("a binding");
        let parameters = PostParams::default();
        let client = || self.client.clone();
        Api::namespaced(client(), &self.name).create(&parameters, &role).await.expect("a role");
        Api::namespaced(client(), &self.name).create(&parameters, &binding).await.expect("a binding");
    }

    /// A node of this test's own, whose annotation names its chassis. Gives back its name.
    pub async fn annotated_node(&self, chassis: &str) -> String {
        let name = format!("node-{}", self.name);
        let node = json!({"metadata": {"name": name, "annotations": {"ovn-kubevirt.io/chassis": chassis}}});
        let node: core::Node = serde_json::from_value(node).expect("a node");
        let created = Api::all(self.client.clone()).create(&PostParams::default(), &node).await;
        created.unwrap_or_else(|error| panic!("node {name}: {error}"));
        name
    }

    /// The Events about the object of that name, as `(type, reason, message)`, the one written last at the end.
    pub async fn events(&self, object: &str) -> Vec<(String, String, String)> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.name);
        let of_object = ListParams::default().fields(&format!("involvedObject.name={object}"));
        let mut events = events.list(&of_object).await.expect("Events can be listed").items;
        // etcd's revision: no other field orders events within one second.
        events.sort_by_key(|event| {
            event.metadata.resource_version.as_deref().and_then(|version| version.parse::<u64>().ok())
        });
        let row = |event: Event| {
            (event.type_.unwrap_or_default(), event.reason.unwrap_or_default(), event.message.unwrap_or_default())
        };
        events.into_iter().map(row).collect()
    }

    /// A Node of this test, `<namespace>-<suffix>`. Pods bind to nodes that do not exist as well: only a test of a Node's
    /// annotation (`ovn-kubevirt.io/chassis`) needs one.
    pub async fn create_node(&self, suffix: &str, annotations: &[(&str, &str)]) -> String {
        let name = format!("{}-{suffix}", self.name);
        let node = core::Node {
            metadata: kube::api::ObjectMeta {
                name: Some(name.clone()),
                annotations: Some(annotations.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()),
                ..Default::default()
            },
            ..Default::default()
        };
        let created = Api::all(self.client.clone()).create(&PostParams::default(), &node).await;
        created.unwrap_or_else(|error| panic!("node {name}: {error}"));
        name
    }

    async fn create(client: Client, virt_controller: Client, name: &str, label: &str) -> Self {
        let namespace = core::Namespace {
            metadata: kube::api::ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some([(TEST_LABEL.to_owned(), label.to_owned())].into()),
                ..Default::default()
            },
            ..Default::default()
        };
        let created = Api::all(client.clone()).create(&PostParams::default(), &namespace).await;
        created.unwrap_or_else(|error| panic!("namespace {name}: {error}"));

        // No pod is admitted before its service account is there: made here, it need not be waited for.
        let account = ServiceAccount {
            metadata: kube::api::ObjectMeta { name: Some("default".to_owned()), ..Default::default() },
            ..Default::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
        match accounts.create(&PostParams::default(), &account).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            created => drop(created.unwrap_or_else(|error| panic!("service account of {name}: {error}"))),
        }
        Self { name: name.to_owned(), label: label.to_owned(), client, virt_controller }
    }
}
