//! Options of `node`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{DEFAULT_HTTP, FileOptions, rest};
use crate::kubevirt::annotations::is_subdomain;
use crate::ovsdb::{Remote, Remotes};

/// Options of `node`.
#[derive(Debug, Clone, Args)]
pub struct NodeOptions {
    /// The file with further options.
    #[command(flatten)]
    pub file: FileOptions,

    /// The Open vSwitch database of this node: unix:/path/to/socket or tcp:host:port
    #[arg(long, env = "OVN_KUBEVIRT_OVS", value_name = "REMOTE", default_value = "unix:/run/openvswitch/db.sock",
        value_parser = local)]
    pub ovs: Remotes,

    /// The name of this node in Kubernetes, which a pod gets from the downward API (spec.nodeName)
    #[arg(long, env = "OVN_KUBEVIRT_NODE", value_name = "NAME", value_parser = node)]
    pub node: String,

    /// A kubeconfig file; by default the configuration inside the cluster, or the user's own
    #[arg(long, env = "OVN_KUBEVIRT_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The address for /livez, /readyz and /metrics; port 0 takes a free one
    #[arg(long, env = "OVN_KUBEVIRT_HTTP", value_name = "ADDRESS:PORT", default_value = DEFAULT_HTTP)]
    pub http: SocketAddr,

    /// The time for which a NIC may lack an interface before its pod gets an Event
    #[arg(long, hide = true, value_name = "DURATION", default_value = "30s", value_parser = rest)]
    pub interface_deadline: Duration,
}

/// `--ovs`: one server, without certificates.
fn local(text: &str) -> Result<Remotes, String> {
    match text.trim().parse() {
        Ok(Remote::Ssl { .. }) => Err("the database of a node is local: write unix:/path/to/socket".to_owned()),
        Ok(remote) => Ok(Remotes(vec![remote])),
        Err(error) => Err(error.to_string()),
    }
}

/// `--node`: it is used in a field selector.
fn node(text: &str) -> Result<String, String> {
    match text.trim() {
        name if is_subdomain(name) => Ok(name.to_owned()),
        _ => Err("write the name that `kubectl get nodes` prints".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Node {
        #[command(flatten)]
        options: NodeOptions,
    }

    fn parsed(arguments: &[&str]) -> Result<NodeOptions, String> {
        let arguments = [&["node"], arguments].concat();
        Node::try_parse_from(arguments).map(|node| node.options).map_err(|error| error.to_string())
    }

    #[test]
    fn a_node_has_a_name_and_a_database_of_its_own() {
        let options = parsed(&["--node", " n1.example\n"]).expect("options");
        assert_eq!((options.node.as_str(), options.interface_deadline), ("n1.example", Duration::from_secs(30)));
        assert_eq!(options.ovs.to_string(), "unix:/run/openvswitch/db.sock");
        assert!(parsed(&["--node", "n1", "--ovs", "tcp:127.0.0.1:6640"]).is_ok());
        for bad in [&[][..], &["--node", ""], &["--node", "a,spec.nodeName!=a"], &["--node", "N1"]] {
            let error = parsed(bad).expect_err("no name");
            assert!(error.contains("--node"), "{error}");
        }
        for bad in ["ssl:127.0.0.1:6640", "/run/openvswitch/db.sock", "unix:"] {
            assert!(parsed(&["--node", "n1", "--ovs", bad]).is_err(), "{bad}");
        }
    }
}
