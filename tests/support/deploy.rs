//! `deploy/kubernetes` as an operator uses it: rendered by kubectl, applied to the test run's cluster; and the
//! ServiceAccount that comes with it, as a kubeconfig.
//!
//! Every test's service runs as that account ([`apply_account`]), so each test also shows that its rights suffice.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use kube::api::PostParams;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;

use super::cluster::{Cluster, Namespace};

/// The manifests.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kubernetes");
/// The overlay that has the ServiceAccount of the tests' service.
const STANDALONE: &str = "standalone";
/// The overlay of the service on the nodes.
pub const NODE: &str = "node";
/// Its account, and its namespace, which have the same name.
pub const NODE_ACCOUNT: &str = "ovn-kubevirt-node";
/// The kinds of its objects that the tests' service needs: it runs on this machine, and not in a pod.
const ACCOUNT_KINDS: [&str; 6] =
    ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
/// That account, and its namespace, which have the same name.
pub const ACCOUNT: &str = "ovn-kubevirt";
/// A token that is left behind on a cluster of others does not stay good for long.
const TOKEN_SECONDS: i64 = 2 * 60 * 60;
/// The API server reads a new role a moment after it has stored it.
const RBAC_WITHIN: Duration = Duration::from_secs(30);

/// A file of `deploy/kubernetes`.
pub fn file(path: &str) -> PathBuf {
    Path::new(FOLDER).join(path)
}

/// An overlay rendered by kubectl, as YAML; `kubectl` is any version from 1.20 on.
pub fn render(overlay: &str) -> Result<String, String> {
    let mut command = Command::new("kubectl");
    command.arg("kustomize").arg(file(overlay));
    output(command, "")
}

/// The documents of a rendered overlay, each with its kind.
pub fn documents(rendered: &str) -> Vec<(String, String)> {
    // kustomize always writes one layout: top-level keys alone, and `---` between documents.
    let kind = |document: &str| document.lines().find_map(|line| line.strip_prefix("kind: ")).map(ToOwned::to_owned);
    let named = |document: &str| Some((kind(document)?, document.to_owned()));
    rendered.split("\n---\n").filter_map(named).collect()
}

/// Runs kubectl as the cluster's administrator, with `input` as its standard input; returns its output.
pub fn kubectl(kubeconfig: &Path, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(kubeconfig).args(arguments);
    // Discovery documents of a server that ends with this run would stay in the home folder.
    let cache = std::env::temp_dir().join(format!("ovn-kubevirt-kubectl-{}", std::process::id()));
    command.arg("--cache-dir").arg(&cache);
    let printed = output(command, input);
    let _ = std::fs::remove_dir_all(cache);
    printed
}

fn output(mut command: Command, input: &str) -> Result<String, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let mut stdin = child.stdin.take().expect("standard input is piped");
    let input = input.to_owned();
    // Beside the reading, so that neither waits for the other; a child that does not read it all has its error below.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().map_err(|error| format!("{command:?}: {error}"))?;
    let _ = writer.join();
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Applies the ServiceAccount, its roles and their bindings as they are shipped, and writes a kubeconfig for that
/// account to `file`.
pub async fn apply_account(admin: &Path, file: &Path) -> Result<(), String> {
    apply_account_of(STANDALONE, ACCOUNT, admin, file).await?;
    await_rights(file).await
}

/// The same for the service on the nodes.
pub async fn apply_node_account(admin: &Path, file: &Path) -> Result<(), String> {
    apply_account_of(NODE, NODE_ACCOUNT, admin, file).await?;
    await_rights_to(file, "events.k8s.io").await
}

/// Applies an account with its roles and writes its kubeconfig. The account and its namespace have one name.
async fn apply_account_of(overlay: &str, account: &str, admin: &Path, file: &Path) -> Result<(), String> {
    let rendered = render(overlay)?;
    let documents = documents(&rendered);
    let chosen: Vec<&str> = documents
        .iter()
        .filter(|(kind, _)| ACCOUNT_KINDS.contains(&kind.as_str()))
        .map(|(_, document)| document.as_str())
        .collect();
    kubectl(admin, &["apply", "--server-side", "--force-conflicts", "-f", "-"], &chosen.join("\n---\n"))?;
    write_kubeconfig(admin, account, account, file).await
}

/// Writes a kubeconfig for a ServiceAccount, whose token comes from the TokenRequest API. Its own namespace is that of
/// the account, as in a pod.
pub async fn write_kubeconfig(admin: &Path, namespace: &str, account: &str, file: &Path) -> Result<(), String> {
    let mut config = Kubeconfig::read_from(admin).map_err(|error| format!("{}: {error}", admin.display()))?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client(config.clone()).await?, namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
    let answer = answer.map_err(|error| format!("a token for {namespace}/{account}: {error}"))?;
    let token = answer.status.map(|status| status.token).unwrap_or_default();
    for user in &mut config.auth_infos {
        user.auth_info = Some(AuthInfo { token: Some(token.clone().into()), ..AuthInfo::default() });
    }
    for context in config.contexts.iter_mut().filter_map(|named| named.context.as_mut()) {
        context.namespace = Some(namespace.to_owned());
    }
    // JSON is YAML.
    let text = serde_json::to_string(&config).map_err(|error| error.to_string())?;
    std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

/// The rules of the ClusterRole and of the Role, as they are shipped.
pub async fn shipped_rules(admin: Client) -> (Vec<PolicyRule>, Vec<PolicyRule>) {
    let everywhere = Api::<ClusterRole>::all(admin.clone()).get(ACCOUNT).await;
    let at_home = Api::<Role>::namespaced(admin, ACCOUNT).get(ACCOUNT).await;
    let everywhere = everywhere.expect("the cluster role of the manifests").rules;
    (everywhere.unwrap_or_default(), at_home.expect("the role of the manifests").rules.unwrap_or_default())
}

/// An account of its own for the service of one test, in that test's namespace and with that name, under rules of its own.
/// They end with the value.
pub struct Account {
    name: String,
    /// The file with which the service reaches the API server.
    pub kubeconfig: PathBuf,
}

impl Account {
    /// With these rules everywhere, and those in the own namespace. The name of the webhook configurations becomes that of
    /// the namespace, as they are objects of the whole cluster.
    pub async fn new(namespace: &Namespace, dir: &Path, everywhere: &[PolicyRule], at_home: &[PolicyRule]) -> Self {
        let name = &namespace.name;
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "service"}})).expect("JSON");
        let accounts: Api<ServiceAccount> = Api::namespaced(namespace.client.clone(), name);
        accounts.create(&PostParams::default(), &account).await.expect("an account");
        let kubeconfig = dir.join("service.kubeconfig");
        let written = write_kubeconfig(Cluster::shared().kubeconfig(), name, "service", &kubeconfig).await;
        written.unwrap_or_else(|error| panic!("{error}"));
        let own = |rule: &PolicyRule| {
            let mut rule = rule.clone();
            if rule.api_groups.iter().flatten().any(|group| group == "admissionregistration.k8s.io") {
                rule.resource_names = Some(vec![name.clone()]);
            }
            rule
        };
        let everywhere: Vec<PolicyRule> = everywhere.iter().map(own).collect();
        let binding = |role: &str| {
            json!({
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": "service", "namespace": name}],
            })
        };
        let role = |rules: &[PolicyRule]| json!({"metadata": {"name": name}, "rules": rules});
        let parameters = PostParams::default();
        let all = || namespace.client.clone();
        // First that of the namespace: the other is waited for.
        let home: Role = serde_json::from_value(role(at_home)).expect("a role");
        Api::namespaced(all(), name).create(&parameters, &home).await.expect("a role");
        let bound: RoleBinding = serde_json::from_value(binding("Role")).expect("a binding");
        Api::namespaced(all(), name).create(&parameters, &bound).await.expect("a binding");
        let objects: ClusterRole = serde_json::from_value(role(&everywhere)).expect("a role");
        Api::all(all()).create(&parameters, &objects).await.expect("a role");
        let bound: ClusterRoleBinding = serde_json::from_value(binding("ClusterRole")).expect("a binding");
        Api::all(all()).create(&parameters, &bound).await.expect("a binding");
        await_rights(&kubeconfig).await.unwrap_or_else(|error| panic!("{error}"));
        Self { name: name.clone(), kubeconfig }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // Those of the namespace end with it; these two are objects of the whole cluster.
        let [binding, role] = ["clusterrolebinding", "clusterrole"].map(|kind| format!("{kind}/{}", self.name));
        let arguments = ["delete", &binding, &role, "--ignore-not-found", "--wait=false"];
        if let Err(error) = kubectl(Cluster::shared().kubeconfig(), &arguments, "") {
            eprintln!("{error}");
        }
    }
}

/// Waits until the role of the account in `kubeconfig` is in force: it takes effect as a whole.
pub async fn await_rights(kubeconfig: &Path) -> Result<(), String> {
    await_rights_to(kubeconfig, "kubevirt.io").await
}

/// The same by the API group of one of its rules.
pub async fn await_rights_to(kubeconfig: &Path, group: &str) -> Result<(), String> {
    let review = SelfSubjectRulesReview {
        // Only ClusterRoles count here, which hold in any namespace.
        spec: SelfSubjectRulesReviewSpec { namespace: Some("default".to_owned()) },
        ..SelfSubjectRulesReview::default()
    };
    let config = Kubeconfig::read_from(kubeconfig).map_err(|error| format!("{}: {error}", kubeconfig.display()))?;
    let reviews: Api<SelfSubjectRulesReview> = Api::all(client(config).await?);
    let begun = Instant::now();
    loop {
        let answer = reviews.create(&PostParams::default(), &review).await;
        let rules = answer.map_err(|error| error.to_string())?.status.unwrap_or_default().resource_rules;
        let ours = |present: &String| present == group;
        if rules.iter().any(|rule| rule.api_groups.iter().flatten().any(ours)) {
            return Ok(());
        }
        if begun.elapsed() > RBAC_WITHIN {
            return Err(format!("the rights of {} are not in force: {rules:?}", kubeconfig.display()));
        }
        tokio::time::sleep(super::eventually::POLL_EVERY).await;
    }
}

/// A client of the user in the kubeconfig.
pub async fn client(config: Kubeconfig) -> Result<Client, String> {
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
    Client::try_from(config.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
}
