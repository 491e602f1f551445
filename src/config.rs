//! The options of the operator: flags, then `OVN_KUBEVIRT_*` variables, then the YAML file of `--config`.

mod api;
mod dhcp;
mod error;
mod file;
mod in_force;
pub(crate) mod layers;
mod names;
mod node;
mod policy;
mod webhooks;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::controller::{LeaseOptions, LeaseTiming};
use crate::intent::{Retention, Settings, Strategy};
use crate::ovsdb::{Remotes, Target, TlsFiles};
pub use api::ApiOptions;
pub use dhcp::DhcpFlags;
pub use error::ConfigError;
pub use in_force::{InForce, Source};
pub use layers::{Reading, Refusal, Variables, read};
pub use names::NamesOptions;
pub use node::NodeOptions;
pub use policy::PolicyOptions;
pub use webhooks::{ServiceName, WebhookOptions};

/// The default address of `run` and `node`, also used by `status`.
pub const DEFAULT_HTTP: &str = "127.0.0.1:9443";

/// The file with options, for the commands that run on.
#[derive(Debug, Clone, Args)]
pub struct FileOptions {
    /// A YAML file with further options: each key is the long name of a flag, and a flag that takes several values takes a list.
    /// Flags and variables are stronger. It is read once, at the start
    #[arg(long, env = "OVN_KUBEVIRT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The northbound database, for every command.
#[derive(Debug, Clone, Args)]
pub struct NorthboundOptions {
    /// The northbound database: unix:/path/to/socket, tcp:host:port or ssl:host:port, several comma-separated
    #[arg(long, env = "OVN_KUBEVIRT_NB", value_name = "REMOTE,...", default_value = "unix:/var/run/ovn/ovnnb_db.sock")]
    pub nb: Remotes,

    /// The name of this installation: rows of other instances are never changed
    #[arg(long, env = "OVN_KUBEVIRT_INSTANCE", value_name = "NAME", default_value = "default", value_parser = instance)]
    pub instance: String,

    /// Seconds of silence after which the database is probed; after as many more without an answer the connection is
    /// closed
    #[arg(long, env = "OVN_KUBEVIRT_NB_PROBE_INTERVAL", value_name = "SECONDS", default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub nb_probe_interval: u32,

    /// Write only through the leader of a RAFT cluster. With a local socket alone, the service then stands
    /// for the Lease while that member leads
    #[arg(long, env = "OVN_KUBEVIRT_NB_LEADER_ONLY", value_name = "BOOLEAN", default_value_t = true, hide_possible_values = true,
        action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true,
        value_parser = clap::builder::BoolishValueParser::new())]
    pub nb_leader_only: bool,

    /// For ssl: remotes: the CA that issued the database's certificate. The three files are read anew for each connection
    #[arg(long, env = "OVN_KUBEVIRT_CA_CERT", value_name = "FILE", requires_all = ["certificate", "private_key"])]
    pub ca_cert: Option<PathBuf>,

    /// For ssl: remotes: verify that the database's certificate is for the host that the remote names. Certificates of
    /// ovs-pki name no host
    #[arg(long, env = "OVN_KUBEVIRT_NB_VERIFY_HOSTNAME", value_name = "BOOLEAN", default_value_t = false, hide_possible_values = true,
        action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true,
        value_parser = clap::builder::BoolishValueParser::new())]
    pub nb_verify_hostname: bool,

    /// For ssl: remotes: the certificate to show
    #[arg(long, env = "OVN_KUBEVIRT_CERTIFICATE", value_name = "FILE", requires_all = ["ca_cert", "private_key"])]
    pub certificate: Option<PathBuf>,

    /// For ssl: remotes: the key of --certificate
    #[arg(long, env = "OVN_KUBEVIRT_PRIVATE_KEY", value_name = "FILE", requires_all = ["ca_cert", "certificate"])]
    pub private_key: Option<PathBuf>,
}

impl NorthboundOptions {
    /// The database to connect to.
    pub fn target(&self) -> Target {
        let files = self.ca_cert.clone().zip(self.certificate.clone()).zip(self.private_key.clone());
        let tls = files.map(|((ca_cert, certificate), private_key)| TlsFiles {
            ca_cert,
            certificate,
            private_key,
            verify_hostname: self.nb_verify_hostname,
        });
        Target {
            remotes: self.nb.clone(),
            tls,
            probe_interval: Duration::from_secs(self.nb_probe_interval.into()),
            leader_only: self.nb_leader_only,
        }
    }
}

/// Options of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// The file with further options.
    #[command(flatten)]
    pub file: FileOptions,

    /// The northbound database.
    #[command(flatten)]
    pub northbound: NorthboundOptions,

    /// A kubeconfig file; by default the configuration inside the cluster, or the user's own
    #[arg(long, env = "OVN_KUBEVIRT_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The logical switch of pod networks for which neither the VM nor its namespace names one; by default such pod
    /// networks are not served
    #[arg(long, env = "OVN_KUBEVIRT_DEFAULT_SWITCH", value_name = "NAME", value_parser = switch)]
    pub default_switch: Option<String>,

    /// Serve only the namespaces with these labels, written as for `kubectl get -l`
    #[arg(long, env = "OVN_KUBEVIRT_NAMESPACE_SELECTOR", value_name = "SELECTOR", value_parser = selector)]
    pub namespace_selector: Option<String>,

    /// The Lease that decides which of several processes writes; by default ovn-kubevirt-INSTANCE in the service's own
    /// namespace
    #[arg(long, env = "OVN_KUBEVIRT_LEASE", value_name = "NAMESPACE/NAME", value_parser = lease_name,
        conflicts_with = "no_lease")]
    pub lease: Option<LeaseName>,

    /// Seconds after which another process takes over from a dead one; a process that cannot renew the Lease steps down
    /// after two thirds of it
    #[arg(long, env = "OVN_KUBEVIRT_LEASE_DURATION", value_name = "SECONDS", default_value_t = 15,
        value_parser = clap::value_parser!(u32).range(1..=600))]
    pub lease_duration: u32,

    /// Run alone, without a Kubernetes Lease: two such processes on one database depose each other
    #[arg(long, env = "OVN_KUBEVIRT_NO_LEASE", value_name = "BOOLEAN", default_value_t = false, hide_possible_values = true,
        action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true,
        value_parser = clap::builder::BoolishValueParser::new())]
    pub no_lease: bool,

    /// Take the instance over from the cluster with this UID of its namespace kube-system, after that cluster was
    /// rebuilt. The UID is in NB_Global:external_ids under ovn-kubevirt.io/cluster.INSTANCE. An instance of any other
    /// cluster is refused
    #[arg(long, env = "OVN_KUBEVIRT_TAKE_OVER_CLUSTER", value_name = "UID", value_parser = cluster_uid)]
    pub take_over_cluster: Option<String>,

    /// The address for /livez, /readyz and /metrics, with 64 connections at most, of which the oldest makes room; port 0
    /// takes a free one
    #[arg(long, env = "OVN_KUBEVIRT_HTTP", value_name = "ADDRESS:PORT", default_value = DEFAULT_HTTP)]
    pub http: SocketAddr,

    /// The packet that opens a live migration's target: rarp, the guest's own announcement there; or none, where the
    /// datapath loses RARP: traffic is duplicated while a VM moves
    #[arg(long, env = "OVN_KUBEVIRT_ACTIVATION_STRATEGY", value_name = "STRATEGY", default_value = "rarp", value_parser = strategy)]
    pub activation_strategy: Strategy,

    /// The southbound database, written as --nb: it maps nodes to chassis by name or hostname, and shows a migration
    /// where northd has a port
    #[arg(long, env = "OVN_KUBEVIRT_SB", value_name = "REMOTE,...")]
    pub sb: Option<Remotes>,

    /// The first two bytes of MACs that are generated from addresses
    #[arg(long, env = "OVN_KUBEVIRT_MAC_PREFIX", value_name = "XX:XX", default_value = "0a:58", value_parser = mac_prefix)]
    pub mac_prefix: MacPrefix,

    /// The time for which the addresses of a deleted VM stay reserved for a VM of its name, if the VM does not set it:
    /// a duration as in 90m or 72h, or forever
    #[arg(long, env = "OVN_KUBEVIRT_DEFAULT_RETAIN", value_name = "DURATION", default_value = "0s", value_parser = retention)]
    pub default_retain: Retention,

    /// Let the first sweep after this start release any number of ports. By default a sweep that would release more
    /// than 10 ports and more than a fifth of all holds them, as the VMs may be missing by mistake. It lapses an hour
    /// after the start
    #[arg(long, env = "OVN_KUBEVIRT_ALLOW_MASS_RELEASE", value_name = "BOOLEAN", default_value_t = false, hide_possible_values = true,
        action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true,
        value_parser = clap::builder::BoolishValueParser::new())]
    pub allow_mass_release: bool,

    /// Have the router ports of switches where VMs have IPv6 addresses send router advertisements: the keys address_mode,
    /// send_periodic and mtu of ipv6_ra_configs are added where they are missing. Keys that are there stay, and none is
    /// removed
    #[arg(long, env = "OVN_KUBEVIRT_MANAGE_RA", value_name = "BOOLEAN", default_value_t = false, hide_possible_values = true,
        action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true,
        value_parser = clap::builder::BoolishValueParser::new())]
    pub manage_ra: bool,

    /// The time for which a released address rests before another VM gets it, unless no other address is free
    #[arg(long, env = "OVN_KUBEVIRT_ADDRESS_REST", value_name = "DURATION", default_value = "60s", value_parser = rest)]
    pub address_rest: Duration,

    /// The names of VMs.
    #[command(flatten)]
    pub names: NamesOptions,

    /// What VM owners may do.
    #[command(flatten)]
    pub policy: PolicyOptions,

    /// DHCP by OVN.
    #[command(flatten)]
    pub dhcp: DhcpFlags,

    /// The operators' API.
    #[command(flatten)]
    pub api: ApiOptions,

    /// The admission webhooks.
    #[command(flatten)]
    pub webhooks: WebhookOptions,
}

/// OVN lets a switch have any name, even an empty one. A blank at the beginning or end of a name is a typing error.
fn switch(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("write the name of a logical switch, or leave the option out".to_owned()),
        name if name.chars().any(char::is_control) => Err("write a name without control characters".to_owned()),
        name => Ok(name.to_owned()),
    }
}

/// An empty selector would select every namespace, which is never intended.
fn selector(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("write labels as for `kubectl get -l`, or leave the option out".to_owned()),
        selector => Ok(selector.to_owned()),
    }
}

fn retention(text: &str) -> Result<Retention, String> {
    text.parse().map_err(|_| "write a duration, as in 0s, 90m or 72h, or forever".to_owned())
}

fn rest(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(Retention::For(rest)) if rest <= LONGEST_REST => Ok(rest),
        _ => Err("write a duration of up to a day, as in 0s, 60s or 5m".to_owned()),
    }
}

/// Rests are kept in memory: longer ones should be retentions.
const LONGEST_REST: Duration = Duration::from_secs(86_400);

/// `--take-over-cluster`: the UID in the message about another cluster.
fn cluster_uid(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 253 || text.chars().any(char::is_whitespace) {
        return Err("write the UID that ovn-kubevirt.io/cluster.<instance> in NB_Global:external_ids names".to_owned());
    }
    Ok(text.to_owned())
}

/// `--activation-strategy`. OVN's other strategies would open the target too early.
fn strategy(text: &str) -> Result<Strategy, String> {
    match text {
        "rarp" => Ok(Strategy::Rarp),
        "none" => Ok(Strategy::None),
        "garp" | "na" => Err(format!(
            "CNIs announce the pod's address when they set it up, long before the guest is there, so {text} would open the port too early: write rarp"
        )),
        _ => Err("write rarp, or none for datapaths where RARP is lost".to_owned()),
    }
}

impl RunOptions {
    /// The settings for all VMs.
    pub fn settings(&self) -> Settings {
        Settings {
            default_switch: self.default_switch.clone(),
            mac_prefix: self.mac_prefix.0,
            strategy: self.activation_strategy,
            default_retain: self.default_retain,
            policy: self.policy.policy(),
            manage_ra: self.manage_ra,
            dhcp: self.dhcp.settings(),
        }
    }

    /// The Lease, by default in `own_namespace`; `None` to run alone.
    pub fn lease(&self, own_namespace: &str) -> Option<LeaseOptions> {
        if self.no_lease {
            return None;
        }
        let LeaseName { namespace, name } = self.lease.clone().unwrap_or_else(|| LeaseName {
            namespace: own_namespace.to_owned(),
            name: format!("ovn-kubevirt-{}", self.northbound.instance),
        });
        Some(LeaseOptions::new(namespace, name, LeaseTiming::of_seconds(self.lease_duration)))
    }
}

/// The place of a Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

fn lease_name(text: &str) -> Result<LeaseName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if is_label(namespace) && is_name(name) => {
            Ok(LeaseName { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err("write <namespace>/<name>, as in ovn/ovn-kubevirt-default".to_owned()),
    }
}

/// The name of a Kubernetes object: a DNS subdomain (RFC 1123).
fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// A part of a Kubernetes name (RFC 1123).
fn is_label(text: &str) -> bool {
    let good = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
    !text.is_empty() && text.len() <= 63 && text.chars().all(good) && !text.starts_with('-') && !text.ends_with('-')
}

/// Two bytes of a unicast MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MacPrefix(pub [u8; 2]);

fn mac_prefix(text: &str) -> Result<MacPrefix, String> {
    let bytes: Vec<&str> = text.split(':').collect();
    let byte = |text: &str| u8::from_str_radix(text, 16).ok().filter(|_| text.len() == 2 && !text.starts_with('+'));
    match bytes[..] {
        [first, second] => match (byte(first), byte(second)) {
            (Some(first), Some(second)) if first & 1 == 0 => Ok(MacPrefix([first, second])),
            (Some(_), Some(_)) => {
                Err("the first byte is that of a multicast MAC: write an even one, as in 0a:58".to_owned())
            }
            _ => Err("write two bytes, as in 0a:58".to_owned()),
        },
        _ => Err("write two bytes, as in 0a:58".to_owned()),
    }
}

/// The instance is part of a key in `external_ids` and of a Lease's name.
fn instance(text: &str) -> Result<String, String> {
    if text.len() > 40 || !is_label(text) {
        return Err("write up to 40 lower-case letters, digits and hyphens between them".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Run {
        #[command(flatten)]
        options: RunOptions,
    }

    fn run(arguments: &[&str]) -> Result<RunOptions, String> {
        let arguments = [&["run"], arguments].concat();
        Run::try_parse_from(arguments).map(|run| run.options).map_err(|error| error.to_string())
    }

    #[test]
    fn the_lease_is_of_the_instance_and_in_the_own_namespace_unless_named() {
        let named = |arguments: &[&str]| {
            let lease = run(arguments).expect("options").lease("ovn").expect("a Lease");
            (lease.namespace, lease.name, lease.timing.lease().as_secs())
        };
        let text = |namespace: &str, name: &str, seconds| (namespace.to_owned(), name.to_owned(), seconds);
        assert_eq!(named(&[]), text("ovn", "ovn-kubevirt-default", 15));
        assert_eq!(named(&["--instance", "blue"]), text("ovn", "ovn-kubevirt-blue", 15));
        assert_eq!(named(&["--lease", "kube-system/a.b", "--lease-duration", "3"]), text("kube-system", "a.b", 3));
        assert!(run(&["--no-lease"]).expect("options").lease("ovn").is_none());
    }

    #[test]
    fn an_invalid_lease_is_refused() {
        for bad in ["", "name", "/name", "ns/", "ns/a/b", "Ns/a", "ns/-a", "ns/a..b", "n.s/a"] {
            let error = run(&["--lease", bad]).expect_err(bad);
            assert!(error.contains("<namespace>/<name>"), "{error}");
        }
        for bad in ["0", "601", "-1"] {
            run(&[&format!("--lease-duration={bad}")]).expect_err(bad);
        }
        let error = run(&["--lease", "ns/a", "--no-lease"]).expect_err("both");
        assert!(error.contains("--no-lease") && error.contains("--lease"), "{error}");
        // A Lease's name could not contain these.
        for bad in ["blue-", "-blue", "Blue", ""] {
            run(&["--instance", bad]).expect_err(bad);
        }
    }

    #[test]
    fn a_cluster_is_taken_over_by_its_uid_and_a_mass_release_is_allowed_by_a_flag() {
        let plain = run(&[]).expect("options");
        assert_eq!((plain.take_over_cluster, plain.allow_mass_release), (None, false));
        let options = run(&["--take-over-cluster", "8cf43bb0-a1ba", "--allow-mass-release"]).expect("options");
        assert_eq!((options.take_over_cluster.as_deref(), options.allow_mass_release), (Some("8cf43bb0-a1ba"), true));
        for bad in ["", "a b", "a\n"] {
            let error = run(&["--take-over-cluster", bad]).expect_err(bad);
            assert!(error.contains("ovn-kubevirt.io/cluster.<instance>"), "{error}");
        }
    }

    #[test]
    fn a_switch_has_a_name_and_no_blanks_around_it() {
        let named = |text: &str| run(&["--default-switch", text]).map(|options| options.default_switch);
        assert_eq!(named(" blue\n"), Ok(Some("blue".to_owned())));
        assert_eq!(named("a switch"), Ok(Some("a switch".to_owned())));
        for bad in ["", " ", "a\nb"] {
            let error = named(bad).expect_err(bad);
            assert!(error.contains("--default-switch"), "{error}");
        }
        assert!(run(&["--namespace-selector", " "]).is_err());
    }

    #[test]
    fn a_mac_prefix_is_two_bytes_of_a_unicast_mac() {
        assert_eq!(mac_prefix("02:fe"), Ok(MacPrefix([2, 0xfe])));
        for bad in ["", "0a", "0a:58:0a", "0a:5", "01:00", "zz:00", "+a:58"] {
            assert!(mac_prefix(bad).is_err(), "{bad}");
        }
    }
}
