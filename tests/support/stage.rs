//! The set-up of a test: databases with switches, a namespace with a player of KubeVirt in it, and the service.
//!
//! One [`Builder`] makes it all, for the tests, the demo and the benches:
//!
//! ```text
//!  let stage = Stage::build("blue").switch("blue", "10.17.0.0/24").nad("net1", "blue").start().await;
//!  stage.player.create_vm("testvm", VmOptions::default().nic(Nic::nad("second", "net1"))).await;
//!  assert_eq!(stage.port("testvm").await.switches, ["ovn-default"]);
//!
//!  Stage::build(name) --.northbound()--> Northbound   the databases alone: no API server is started
//!                     --.prepare()-----> Prepared     all but a service: the test starts one later, or several
//!                     --.start()-------> Stage        all, and the service is ready
//! ```
//!
//! A [`Stage`] is a [`Prepared`] with a service on it, so that each method of the one is there on the other.

mod builder;

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

pub use self::builder::Builder;
use super::cluster::Namespace;
use super::eventually::eventually;
use super::front::Front;
use super::gate::Gate;
use super::northbound::{Northbound, Port};
use super::objects::VmOptions;
use super::player::{PORTS_ANNOTATION, Player};
use super::service::{Service, Setup};
use super::webhooks::Webhooks;

/// The switch of every VM that names no other.
pub const DEFAULT_SWITCH: &str = "ovn-default";
/// The `other_config` of [`DEFAULT_SWITCH`], unless a test gives it another.
pub const SUBNET: [(&str, &str); 2] = [("subnet", "10.16.0.0/16"), ("exclude_ips", "10.16.0.1")];

/// Everything that a test begins with, but for a service.
pub struct Prepared {
    /// The databases. Several of these may share them: [`Builder::beside`].
    pub northbound: Arc<Northbound>,
    /// The namespace of the test's VMs.
    pub namespace: Namespace,
    /// KubeVirt in that namespace.
    pub player: Player,
    /// By which a service reaches the API server without a proxy.
    kubeconfig: PathBuf,
    setup: Setup,
}

/// Everything that a test begins with, and a service.
pub struct Stage {
    /// The service.
    pub service: Service,
    // After the service, which ends first.
    prepared: Prepared,
}

impl Stage {
    /// Begins the set-up of a test. `name` becomes the first part of the namespace's name.
    pub fn build(name: &str) -> Builder<'static> {
        Builder::new(name)
    }

    /// Kills the service with SIGKILL, where it still runs, and starts it again with the same flags. Waits until it is
    /// ready.
    pub async fn restart(&mut self) {
        self.service.kill9();
        self.service = self.prepared.setup.start().await;
    }

    /// As [`restart`](Self::restart), with another set-up from now on: `restart_with(|setup| setup.flags(["--x"]))`.
    pub async fn restart_with(&mut self, change: impl FnOnce(Setup) -> Setup) {
        self.prepared.setup = change(self.prepared.setup());
        self.restart().await;
    }
}

impl Deref for Stage {
    type Target = Prepared;

    fn deref(&self) -> &Prepared {
        &self.prepared
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Prepared {
        &mut self.prepared
    }
}

// --- services ---
impl Prepared {
    /// The setup of a service here, for one beside that of the stage: `stage.setup().flags(["--x"]).start()`.
    pub fn setup(&self) -> Setup {
        self.setup.clone()
    }

    /// Changes the setup of every service here from now on.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(Setup) -> Setup) -> Self {
        self.setup = change(self.setup);
        self
    }

    /// Starts the service, and waits until it is ready.
    pub async fn start(self) -> Stage {
        let service = self.setup.start().await;
        Stage { service, prepared: self }
    }

    /// Starts the service without waiting for it.
    pub fn spawn(self) -> Stage {
        Stage { service: self.setup.spawn(), prepared: self }
    }

    /// Starts the service with webhooks, and waits until the API server calls them for the test's namespaces: for as long as
    /// the second value lives.
    pub async fn start_called(&mut self) -> (Service, Webhooks) {
        let webhooks = Webhooks::apply(&self.namespace, self.dir()).await;
        self.setup = webhooks.setup(self.setup());
        let service = self.setup.start().await;
        webhooks.called().await;
        (service, webhooks)
    }

    /// A gate to the API server: every service that starts from now on reaches it through the gate.
    pub async fn gate_to_api_server(&mut self) -> Gate {
        let (gate, through) = Gate::to_api_server(&self.kubeconfig, self.northbound.dir()).await;
        self.setup = self.setup().kubeconfig(through);
        gate
    }

    /// A gate to the northbound, on TCP: every service that starts from now on reaches it through the gate.
    pub async fn gate_to_northbound(&mut self) -> Gate {
        let gate = Gate::to(self.northbound.tcp_remote().await.trim_start_matches("tcp:")).await;
        self.setup = self.setup().nb(&gate.remote());
        gate
    }

    /// A proxy to the API server that loses, refuses and counts requests: every service that starts from now on reaches it
    /// through the proxy.
    pub async fn front(&mut self) -> Front {
        let (front, through) = Front::to_api_server(&self.kubeconfig, self.northbound.dir()).await;
        self.setup = self.setup().kubeconfig(through);
        front
    }

    /// The directory of the databases' files and of the services' logs.
    pub fn dir(&self) -> &Path {
        self.northbound.dir()
    }
}

// --- what is there ---
impl Prepared {
    /// All ports by name: each on the switch `ovn-default`, with port security for just its addresses, which no other port
    /// has.
    ///
    /// # Panics
    /// When a port is otherwise.
    #[track_caller]
    pub fn ports(&self) -> BTreeMap<String, Port> {
        let ports = self.northbound.ports();
        let mut holders = BTreeMap::new();
        for port in &ports {
            assert_eq!(port.switches, [DEFAULT_SWITCH], "{port:#?}");
            assert_eq!(port.addresses, port.port_security, "{port:#?}");
            for address in &port.addresses {
                let holder = holders.insert(address.clone(), port.name.clone());
                assert_eq!(holder, None, "{address} is held by {} as well", port.name);
            }
        }
        ports.into_iter().map(|port| (port.name.clone(), port)).collect()
    }
}

// --- what a test waits for ---
impl Prepared {
    /// The name of the port of a VM in this namespace, of its NIC on the pod network.
    pub fn name(&self, vm: &str) -> String {
        format!("{vm}.{}", self.namespace.name)
    }

    /// Makes a VM, and waits for its port.
    pub async fn make(&self, vm: &str) -> Port {
        self.player.create_vm(vm, VmOptions::default()).await;
        self.port(vm).await
    }

    /// Waits until the VM has its port.
    pub async fn port(&self, vm: &str) -> Port {
        self.port_named(&self.name(vm)).await
    }

    /// Waits until there is a port with this name, as in [`name`](Self::name).
    pub async fn port_named(&self, name: &str) -> Port {
        eventually(&format!("the port {name} is there"), || async {
            self.northbound.port(name).ok_or_else(|| self.northbound.dump())
        })
        .await
    }

    /// Waits until the VM's port satisfies `holds`; `what` describes that for the message of a failure.
    pub async fn port_where(&self, vm: &str, what: &str, holds: impl Fn(&Port) -> bool) -> Port {
        let name = self.name(vm);
        eventually(&format!("the port {name}: {what}"), || async {
            match self.northbound.port(&name) {
                Some(port) if holds(&port) => Ok(port),
                other => Err(format!("{other:#?}")),
            }
        })
        .await
    }

    /// Waits until the VM has no port.
    pub async fn port_gone(&self, vm: &str) {
        let name = self.name(vm);
        eventually(&format!("the port {name} is gone"), || async {
            self.northbound.port(&name).map_or(Ok(()), |port| Err(format!("{port:#?}")))
        })
        .await;
    }

    /// Waits until the status of the VM's ports, the annotation `ovn-kubevirt.io/ports`, has all these words. Gives back the
    /// status.
    pub async fn status(&self, vm: &str, words: &[&str]) -> Value {
        self.status_where(vm, &format!("has {words:?}"), |text, _| words.iter().all(|word| text.contains(word))).await
    }

    /// Waits until the status of the VM's ports satisfies `holds`, which gets it as text and as JSON; `what` describes that
    /// for the message of a failure. Gives back the status.
    pub async fn status_where(&self, vm: &str, what: &str, holds: impl Fn(&str, &Value) -> bool) -> Value {
        eventually(&format!("the status of {vm}: {what}"), || async {
            let vm = self.player.vm(vm).await.unwrap_or_default();
            let text = vm["metadata"]["annotations"][PORTS_ANNOTATION].as_str().unwrap_or_default();
            let status = serde_json::from_str(text).unwrap_or(Value::Null);
            if !status.is_null() && holds(text, &status) { Ok(status) } else { Err(vm["metadata"].to_string()) }
        })
        .await
    }

    /// Waits for an Event on an object whose message has all these words. Gives back the message.
    pub async fn event(&self, object: &str, reason: &str, words: &[&str]) -> String {
        let what = format!("an Event {reason} with {words:?} on {object}");
        eventually(&what, || async {
            let events = self.namespace.events(object).await;
            let fits = |(_, found, message): &&(String, String, String)| {
                found == reason && words.iter().all(|word| message.contains(word))
            };
            events.iter().find(fits).map(|(_, _, message)| message.clone()).ok_or(format!("{events:#?}"))
        })
        .await
    }
}
