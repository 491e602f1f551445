//! The builder of a test's set-up.

use std::sync::Arc;

use super::super::cluster::Cluster;
use super::super::northbound::Northbound;
use super::super::player::Player;
use super::super::service::Setup;
use super::{DEFAULT_SWITCH, Prepared, SUBNET, Stage};

/// The set-up of a test. No process is started before [`northbound`](Self::northbound), [`prepare`](Self::prepare) or
/// [`start`](Self::start).
#[must_use = "nothing is started before northbound(), prepare() or start()"]
pub struct Builder<'a> {
    name: String,
    databases: Databases,
    cluster: Option<&'a Cluster>,
    /// Name and switch.
    nads: Vec<(String, Option<String>)>,
    reads_southbound: bool,
    lease_seconds: Option<u64>,
    flags: Vec<String>,
}

struct Databases {
    northbound: Source,
    beside: Beside,
    /// Name and `other_config`.
    switches: Vec<(String, Vec<(String, String)>)>,
    has_default_switch: bool,
    /// Switch and networks.
    routers: Vec<(String, Vec<String>)>,
    /// Name and host name.
    chassis: Vec<(String, String)>,
}

/// Where the northbound comes from.
enum Source {
    /// A server of the test's own, which stands alone.
    New,
    /// One that runs already, such as a RAFT cluster.
    Given(Box<Northbound>),
    /// That of another set-up.
    Shared(Arc<Northbound>),
}

/// The processes beside the northbound.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    Southbound,
    Northd,
}

// --- databases ---
impl<'a> Builder<'a> {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            databases: Databases {
                northbound: Source::New,
                beside: Beside::Nothing,
                switches: Vec::new(),
                has_default_switch: true,
                routers: Vec::new(),
                chassis: Vec::new(),
            },
            cluster: None,
            nads: Vec::new(),
            reads_southbound: false,
            lease_seconds: None,
            flags: Vec::new(),
        }
    }

    /// A logical switch with this subnet. Every set-up has the switch `ovn-default` with [`SUBNET`]; named here, it has the
    /// subnet given here.
    pub fn switch(self, name: &str, subnet: &str) -> Self {
        self.switch_with(name, &[("subnet", subnet)])
    }

    /// A logical switch with this `other_config`.
    pub fn switch_with(mut self, name: &str, other_config: &[(&str, &str)]) -> Self {
        self.databases.switches.push((name.to_owned(), owned(other_config)));
        self
    }

    /// There is no switch `ovn-default`.
    pub fn without_default_switch(mut self) -> Self {
        self.databases.has_default_switch = false;
        self
    }

    /// A router on a switch, by a port with these networks: `router("blue", &["10.17.0.1/24"])`.
    pub fn router(mut self, switch: &str, networks: &[&str]) -> Self {
        self.databases.routers.push((switch.to_owned(), networks.iter().map(|&network| network.to_owned()).collect()));
        self
    }

    /// A southbound that no northd writes.
    pub fn southbound(mut self) -> Self {
        self.databases.beside = Beside::Southbound;
        self
    }

    /// A southbound, and `ovn-northd` between the two.
    pub fn northd(mut self) -> Self {
        self.databases.beside = Beside::Northd;
        self
    }

    /// A chassis in the southbound, as ovn-controller registers one.
    pub fn chassis(mut self, name: &str, hostname: &str) -> Self {
        self.databases.chassis.push((name.to_owned(), hostname.to_owned()));
        self
    }

    /// A northbound that runs already, such as a RAFT cluster, in the place of a server of its own.
    pub fn on(mut self, northbound: Northbound) -> Self {
        self.databases.northbound = Source::Given(Box::new(northbound));
        self
    }

    /// The databases of another set-up: for a second instance, a second cluster, or namespaces with other labels. It has no
    /// switches but those that are named here.
    pub fn beside(mut self, other: &Prepared) -> Self {
        self.databases.northbound = Source::Shared(Arc::clone(&other.northbound));
        self.databases.has_default_switch = false;
        self
    }
}

// --- Kubernetes ---
impl<'a> Builder<'a> {
    /// A NetworkAttachmentDefinition in the test's namespace, on a switch, or on none: `nad("net1", None)`.
    pub fn nad<'s>(mut self, name: &str, switch: impl Into<Option<&'s str>>) -> Self {
        self.nads.push((name.to_owned(), switch.into().map(ToOwned::to_owned)));
        self
    }

    /// Another API server than the one that all tests share.
    pub fn cluster<'b>(self, cluster: &'b Cluster) -> Builder<'b>
    where
        'a: 'b,
    {
        Builder { cluster: Some(cluster), ..self }
    }
}

// --- the service ---
impl<'a> Builder<'a> {
    /// Flags of the service: `flags(["--address-rest", "1h"])`.
    pub fn flags(mut self, flags: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.flags.extend(flags.into_iter().map(|flag| flag.as_ref().to_owned()));
        self
    }

    /// Owners of VMs may name excluded addresses and the first host address, too.
    pub fn every_address(self) -> Self {
        self.flags(["--allow", "explicit,excluded,first"])
    }

    /// The service reads the southbound (`--sb`).
    pub fn reads_southbound(mut self) -> Self {
        self.reads_southbound = true;
        self
    }

    /// Services stand for one Lease in the test's namespace, with this duration. Without it each leads by `--no-lease`, and
    /// the next one deposes it.
    pub fn lease(mut self, seconds: u64) -> Self {
        self.lease_seconds = Some(seconds);
        self
    }
}

// --- the ends ---
impl Builder<'_> {
    /// Starts the databases alone, for a test without Kubernetes.
    pub async fn northbound(self) -> Arc<Northbound> {
        self.databases.start().await
    }

    /// Starts everything but a service.
    pub async fn prepare(self) -> Prepared {
        let Self { name, databases, cluster, nads, reads_southbound, lease_seconds, flags } = self;
        let northbound = databases.start().await;
        let cluster = cluster.unwrap_or_else(|| Cluster::shared());
        let namespace = cluster.namespace(&name).await;
        let player = Player::within(&namespace);
        for (name, switch) in nads {
            player.create_nad(&name, switch.as_deref()).await;
        }
        let mut setup = Setup::new(&northbound, cluster, &namespace);
        if let Some(seconds) = lease_seconds {
            namespace.allow_leases().await;
            let lease = format!("{}/services", namespace.name);
            setup = setup.lease(&lease).flags(["--lease-duration", &seconds.to_string()]);
        }
        if reads_southbound {
            setup = setup.flags(["--sb", &northbound.sb_remote()]);
        }
        let kubeconfig = cluster.service_kubeconfig().to_owned();
        Prepared { northbound, namespace, player, kubeconfig, setup: setup.flags(flags) }
    }

    /// Starts everything, and waits until the service is ready.
    pub async fn start(self) -> Stage {
        self.prepare().await.start().await
    }
}

impl Databases {
    async fn start(self) -> Arc<Northbound> {
        let Self { northbound, beside, mut switches, has_default_switch, routers, chassis } = self;
        let northbound = match northbound {
            Source::New => Arc::new(beside.of(Northbound::start().await).await),
            Source::Given(northbound) => Arc::new(beside.of(*northbound).await),
            Source::Shared(northbound) => northbound,
        };
        if has_default_switch && switches.iter().all(|(name, _)| name != DEFAULT_SWITCH) {
            switches.push((DEFAULT_SWITCH.to_owned(), owned(&SUBNET)));
        }
        for (name, other_config) in &switches {
            let other_config: Vec<_> = other_config.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            northbound.add_switch(name, &other_config);
        }
        for (switch, networks) in &routers {
            let networks: Vec<_> = networks.iter().map(String::as_str).collect();
            northbound.add_router_port(switch, &networks);
        }
        for (name, hostname) in &chassis {
            northbound.add_chassis(name, hostname);
        }
        northbound
    }
}

impl Beside {
    async fn of(self, northbound: Northbound) -> Northbound {
        match self {
            Self::Nothing => northbound,
            Self::Southbound => northbound.with_southbound().await,
            Self::Northd => northbound.with_northd().await,
        }
    }
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}
