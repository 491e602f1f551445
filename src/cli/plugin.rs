//! As a plugin of kubectl: the way to the service, from wherever kubectl reaches the API server.
//!
//! ```text
//!  plugin --> 127.0.0.1:<free port> --> API server --> kubelet --> 127.0.0.1:<port> in the pod of the process that writes
//!             kubectl port-forward
//! ```
//!
//! The Lease names the process that writes, and so its pod. A forwarded port reaches the pod's loopback address, so a listener
//! that is there alone is found, too. kubectl does the work: it is there, and it has the user's contexts and credentials.

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// The limit for kubectl's answers.
const PATIENCE: Duration = Duration::from_secs(15);
/// The container's name in the manifests (`deploy/kubernetes`).
const CONTAINER: &str = "ovn-kubevirt";

/// A listener of the service.
pub(super) struct Listener {
    /// The variable of its address.
    pub(super) variable: &'static str,
    /// Its port where the pod does not set the variable; `None` where there is no listener then.
    pub(super) port: Option<u16>,
    /// Beyond the loopback addresses it has TLS, with a certificate for another name than that of a forwarded port.
    pub(super) has_tls: bool,
}

/// A port of this machine that leads to the service, for as long as this lives.
pub(super) struct Forwarded {
    /// Its address.
    pub(super) address: SocketAddr,
    /// Ends with this.
    _kubectl: Child,
    /// kubectl tells of each connection, and ends where it cannot.
    _words: AbortOnDrop,
}

/// A task that ends with this.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Forwards a port to a listener of the process that writes for the instance.
///
/// # Errors
/// Where the Lease, the pod or the port is not found or may not be used, with kubectl's own words.
pub(super) async fn forward(instance: &str, listener: &Listener) -> anyhow::Result<Forwarded> {
    let lease = format!("metadata.name=ovn-kubevirt-{instance}");
    let leases = objects(&["get", "leases", "--all-namespaces", "--field-selector", &lease]).await?;
    let (namespace, host) = holder(&leases, instance)?;
    let pods = objects(&["get", "pods", "--namespace", &namespace]).await?;
    let pod = pod(&pods, &host).with_context(|| {
        format!("no pod in the namespace {namespace} is the holder of its Lease, {host}: name the service's address by a flag")
    })?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let address = address(pod, listener);
    if let Some(address) = address.filter(|address| listener.has_tls && !address.ip().is_loopback()) {
        bail!(
            "the pod {namespace}/{name} listens on {address} with TLS: give --api https://<name>:<port> with --api-ca and --api-token"
        );
    }
    let port = address.map(|address| address.port()).or(listener.port).with_context(|| {
        format!("the pod {namespace}/{name} does not listen there: set {} in its container", listener.variable)
    })?;
    eprintln!("From the pod {namespace}/{name}, port {port}.");
    let forwarded = tokio::time::timeout(PATIENCE, start(&namespace, name, port)).await;
    forwarded
        .context("kubectl has not answered in time")
        .flatten()
        .with_context(|| format!("the port {port} of the pod {namespace}/{name} cannot be forwarded"))
}

async fn start(namespace: &str, pod: &str, port: u16) -> anyhow::Result<Forwarded> {
    let mut command = Command::new("kubectl");
    command.args([
        "port-forward",
        "--address",
        "127.0.0.1",
        "--namespace",
        namespace,
        &format!("pod/{pod}"),
        &format!(":{port}"),
    ]);
    forwarded(command).await
}

/// Starts kubectl, and waits for its line with the forwarded port. Its later output is read and dropped.
async fn forwarded(mut command: Command) -> anyhow::Result<Forwarded> {
    let mut kubectl = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("kubectl cannot be run")?;
    let mut lines = BufReader::new(kubectl.stdout.take().context("kubectl has no output")?).lines();
    while let Some(line) = lines.next_line().await? {
        // "Forwarding from 127.0.0.1:40001 -> 9443"
        let address = line.strip_prefix("Forwarding from ").and_then(|rest| rest.split(' ').next()?.parse().ok());
        if let Some(address) = address {
            let errors = kubectl.stderr.take();
            let words = tokio::spawn(async move {
                let read = async { while let Ok(Some(_)) = lines.next_line().await {} };
                let read_errors = async {
                    if let Some(mut errors) = errors {
                        let _ = tokio::io::copy(&mut errors, &mut tokio::io::sink()).await;
                    }
                };
                tokio::join!(read, read_errors);
            });
            return Ok(Forwarded { address, _kubectl: kubectl, _words: AbortOnDrop(words) });
        }
    }
    let mut words = String::new();
    if let Some(mut errors) = kubectl.stderr.take() {
        errors.read_to_string(&mut words).await?;
    }
    bail!("{}", words.trim().trim_start_matches("error: "))
}

/// The items of a list that kubectl gets.
async fn objects(arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
    let mut kubectl = Command::new("kubectl");
    kubectl.args(arguments).args(["--output", "json"]).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, kubectl.output()).await.context("kubectl has not answered in time")?;
    let Output { status, stdout, stderr } = output.context("kubectl cannot be run")?;
    if !status.success() {
        bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&stderr).trim());
    }
    let mut list: Value = serde_json::from_slice(&stdout).context("kubectl's answer cannot be read")?;
    Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

/// The namespace of the Lease, and the host name of its holder.
fn holder(leases: &[Value], instance: &str) -> anyhow::Result<(String, String)> {
    let held = |lease: &Value| {
        // `<host name>_<UUID>`: docs/contract.md.
        let (host, _) = lease["spec"]["holderIdentity"].as_str()?.rsplit_once('_')?;
        Some((lease["metadata"]["namespace"].as_str()?.to_owned(), host.to_owned()))
    };
    let mut holders: Vec<(String, String)> = leases.iter().filter_map(held).collect();
    match (holders.pop(), holders.len()) {
        (Some(holder), 0) => Ok(holder),
        (Some(_), _) => {
            bail!("several namespaces have a Lease ovn-kubevirt-{instance}: name the service's address by a flag")
        }
        (None, _) if leases.is_empty() => bail!(
            "no namespace has a Lease ovn-kubevirt-{instance}: is the service of that instance running in this cluster? Where its Lease has another name, name its address by a flag"
        ),
        (None, _) => bail!("no process holds the Lease ovn-kubevirt-{instance}: look at the pods of the service"),
    }
}

/// The pod with this host name: its own, or its node's where it is on the host network.
fn pod<'a>(pods: &'a [Value], host: &str) -> Option<&'a Value> {
    let named = pods.iter().find(|pod| pod["metadata"]["name"] == host);
    let on_host = |pod: &&Value| {
        pod["spec"]["hostNetwork"] == true && pod["spec"]["nodeName"] == host && container(pod).is_some()
    };
    named.or_else(|| pods.iter().find(on_host))
}

fn container(pod: &Value) -> Option<&Value> {
    pod["spec"]["containers"].as_array()?.iter().find(|container| container["name"] == CONTAINER)
}

/// The port of the listener, by the variable in the pod's container.
/// The address in the variable of the pod's container.
fn address(pod: &Value, listener: &Listener) -> Option<SocketAddr> {
    let variables = container(pod).and_then(|container| container["env"].as_array());
    let variable =
        variables.and_then(|variables| variables.iter().find(|variable| variable["name"] == listener.variable));
    variable.and_then(|variable| variable["value"].as_str()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn kubectl_may_go_on_telling_of_connections() {
        // More than a pipe holds, on both.
        let words = "echo 'Forwarding from 127.0.0.1:40001 -> 9443'; told=0; \
            while [ $told -lt 20000 ]; do echo 'Handling connection'; echo error >&2; told=$((told + 1)); done; exit 7";
        let mut shell = Command::new("sh");
        shell.args(["-c", words]);
        let mut forwarded = forwarded(shell).await.expect("a port");
        assert_eq!(forwarded.address.port(), 40_001);
        let ended = tokio::time::timeout(PATIENCE, forwarded._kubectl.wait()).await.expect("it is read to its end");
        assert_eq!(ended.expect("a status").code(), Some(7));
    }

    fn lease(namespace: &str, holder: &str) -> Value {
        json!({"metadata": {"namespace": namespace}, "spec": {"holderIdentity": holder}})
    }

    #[test]
    fn the_lease_names_the_pod_that_writes() {
        let found = holder(&[lease("ovn", "ovn-kubevirt-7d_9_0c5e")], "default");
        assert_eq!(found.expect("a holder"), ("ovn".to_owned(), "ovn-kubevirt-7d_9".to_owned()));
        for (leases, words) in [
            (vec![], "no namespace has a Lease ovn-kubevirt-blue"),
            (vec![lease("ovn", "")], "no process holds the Lease ovn-kubevirt-blue"),
            (vec![lease("a", "x_1"), lease("b", "y_1")], "several namespaces"),
        ] {
            let error = holder(&leases, "blue").expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_pod_is_found_by_its_name_or_on_the_host_network_by_its_node() {
        let container = |http: &str| json!([{"name": "other"}, {"name": CONTAINER, "env": [{"name": "OVN_KUBEVIRT_HTTP", "value": http}]}]);
        let pods = [
            json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1", "containers": container("0.0.0.0:9443")}}),
            json!({"metadata": {"name": "b"}, "spec": {"nodeName": "n1", "hostNetwork": true, "containers": [{"name": "x"}]}}),
            json!({"metadata": {"name": "c"}, "spec": {"nodeName": "n1", "hostNetwork": true, "containers": container("[::]:9500")}}),
        ];
        let listener = Listener { variable: "OVN_KUBEVIRT_HTTP", port: None, has_tls: false };
        let found = |host: &str| {
            pod(&pods, host).map(|pod| {
                let port = address(pod, &listener).map(|address| address.port());
                (pod["metadata"]["name"].as_str().unwrap_or("?"), port)
            })
        };
        assert_eq!(found("a"), Some(("a", Some(9443))));
        assert_eq!(found("n1"), Some(("c", Some(9500))));
        assert_eq!(found("b"), Some(("b", None)));
        assert_eq!(found("n2"), None);
    }
}
