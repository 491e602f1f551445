//! One VM on three chassis that migrates, with packets: for the tests of the data path, the benchmark and the demo.
//!
//! The VM `testvm` runs on hv1, a guest on hv3 pings it every 5 ms, and hv2 is where it goes.

use std::time::Duration;

use super::cluster::Cluster;
use super::eventually::eventually;
use super::fabric::{Fabric, Guest, Probed};
use super::northbound::{Northbound, Port};
use super::objects::VmOptions;
use super::player::{Migration, Player};
use super::service::Service;

/// The prober's own port.
const PROBER: (&str, &str, &str) = ("prober", "0a:00:00:00:00:01", "10.16.9.9");
/// How long pings go on before and after what is of interest.
const AROUND: Duration = Duration::from_millis(400);

/// Who points the port at its chassis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pointing {
    /// The service, with this `--activation-strategy`.
    Service(&'static str),
    /// Nobody before the guest has arrived; then, so much later, the target alone. As a controller does that goes by
    /// what has happened already.
    Afterwards(Duration),
}

/// The network, the VM on it, and who serves it.
pub struct Lab {
    // The guests end before their chassis, and those before the databases.
    prober: Guest,
    guest: Option<Guest>,
    service: Option<Service>,
    fabric: Fabric,
    /// The databases.
    pub northbound: Northbound,
    /// KubeVirt.
    pub player: Player,
    pointing: Pointing,
    port: Port,
}

impl Lab {
    /// The VM runs on hv1, and answers.
    pub async fn new(name: &str, pointing: Pointing) -> Self {
        let northbound = Northbound::start().await.with_northd().await;
        northbound.add_switch("ovn-default", &[("subnet", "10.16.0.0/16"), ("exclude_ips", "10.16.0.1")]);
        let fabric = Fabric::start(&northbound, 3).await;
        let (port, mac, address) = PROBER;
        northbound.add_foreign_port("ovn-default", port, &[&format!("{mac} {address}")]);
        let mut prober = fabric.plug(3, port, mac, address);
        prober.wake();
        let cluster = Cluster::shared();
        let namespace = cluster.namespace(name).await;
        let player = Player::within(&namespace);
        player.create_vm("testvm", VmOptions::default()).await;
        player.start("testvm", "hv1").await;
        let sb = northbound.sb_remote();
        let strategy = match pointing {
            Pointing::Service(strategy) => strategy,
            Pointing::Afterwards(_) => "rarp",
        };
        let arguments = ["--sb", &sb, "--activation-strategy", strategy];
        let service = Service::start(&northbound, cluster, &namespace, &arguments).await;
        let name = format!("testvm.{}", namespace.name);
        let port = eventually("the VM is bound to hv1", || async {
            let port = northbound.port(&name).filter(|port| port.option("requested-chassis") == Some("hv1"));
            port.ok_or_else(|| northbound.dump())
        })
        .await;
        // From here on the port is the test's own, where it stands for another controller.
        let service = matches!(pointing, Pointing::Service(_)).then_some(service);
        let mut lab = Self { prober, guest: None, service, fabric, northbound, player, pointing, port };
        let mut guest = lab.plug("hv1");
        guest.wake();
        lab.guest = Some(guest);
        lab.reachable().await;
        lab
    }

    /// One migration there, `pause` being the guest's own between its last breath here and its first there.
    pub async fn migrate(&mut self, from: &str, to: &str, pause: Duration) -> Probed {
        let migration = self.prepare(from, to).await;
        let mut arriving = self.plug(to);
        self.prepared().await;
        let mut leaving = self.guest.take().expect("the VM runs");
        let probe = self.prober.probe(self.address());
        tokio::time::sleep(AROUND).await;
        leaving.sleep();
        tokio::time::sleep(pause).await;
        arriving.wake();
        if let Pointing::Afterwards(late) = self.pointing {
            tokio::time::sleep(late).await;
            self.point(to);
        }
        self.player.domain_ready(&migration).await;
        self.player.succeed(&migration).await;
        self.bound(to).await;
        self.northbound.nbctl(&["--wait=hv", "sync"]);
        tokio::time::sleep(AROUND).await;
        self.fabric.unplug(leaving);
        tokio::time::sleep(AROUND).await;
        self.guest = Some(arriving);
        let probed = probe.end();
        self.reachable().await;
        probed
    }

    /// A migration that fails once the target is prepared.
    pub async fn roll_back(&mut self, from: &str, to: &str) -> Probed {
        let probe = self.prober.probe(self.address());
        tokio::time::sleep(AROUND).await;
        let migration = self.prepare(from, to).await;
        // It is there, and is not let go: not a packet is to reach it.
        let arriving = self.plug(to);
        self.prepared().await;
        self.player.fail(&migration).await;
        self.bound(from).await;
        self.northbound.nbctl(&["--wait=hv", "sync"]);
        self.fabric.unplug(arriving);
        tokio::time::sleep(AROUND).await;
        probe.end()
    }

    /// KubeVirt's part, up to the hand-over to the two virt-handlers.
    async fn prepare(&self, from: &str, to: &str) -> Migration {
        let player = &self.player;
        let migration = player.start_migration("testvm", to).await;
        player.bind_target(&migration).await;
        if self.service.is_some() {
            self.bound(&format!("{from},{to}")).await;
        }
        player.target_running(&migration).await;
        player.migration_scheduled(&migration).await;
        player.hand_off(&migration).await;
        migration
    }

    /// All chassis have done what there is to do, and the target has the port where it is asked to.
    async fn prepared(&self) {
        if self.service.is_some() {
            let binding = format!("logical_port={}", self.port.name);
            let additional = ["--bare", "--columns=additional_chassis", "find", "Port_Binding", &binding];
            eventually("the target has claimed the port", || async {
                let chassis = self.northbound.sbctl(&additional);
                if chassis.trim().is_empty() { Err(self.shown()) } else { Ok(()) }
            })
            .await;
        }
        self.northbound.nbctl(&["--wait=hv", "sync"]);
    }

    /// What another controller than ours does.
    fn point(&self, chassis: &str) {
        self.northbound.nbctl(&["lsp-set-options", &self.port.name, &format!("requested-chassis={chassis}")]);
    }

    /// The VM's other self, asleep.
    fn plug(&self, chassis: &str) -> Guest {
        let host = chassis.trim_start_matches("hv").parse().expect("hv and a number");
        let (mac, address) = self.addresses();
        self.fabric.plug(host, &self.port.name, mac, address)
    }

    fn addresses(&self) -> (&str, &str) {
        self.port.addresses.first().and_then(|text| text.split_once(' ')).expect("a MAC and an address")
    }

    fn address(&self) -> &str {
        self.addresses().1
    }

    /// The prober's pings are answered.
    pub async fn reachable(&self) {
        eventually("the VM answers", || async {
            if self.prober.pings(self.address()) { Ok(()) } else { Err(self.shown()) }
        })
        .await;
    }

    async fn bound(&self, requested: &str) {
        eventually(&format!("the port is bound to {requested}"), || async {
            let port = self.northbound.port(&self.port.name);
            let bound = port.as_ref().and_then(|port| port.option("requested-chassis")) == Some(requested);
            if bound { Ok(()) } else { Err(format!("{port:#?}")) }
        })
        .await;
    }

    /// No option but the chassis is left in either database.
    pub fn residue(&self) -> String {
        let binding = format!("logical_port={}", self.port.name);
        let additional = ["--bare", "--columns=additional_chassis,options", "find", "Port_Binding", &binding];
        let port = self.northbound.port(&self.port.name).expect("the port");
        let strategy = port.option("activation-strategy").unwrap_or_default().to_owned();
        let bound: String = self.northbound.sbctl(&additional).split_whitespace().collect();
        format!(
            "{strategy}{}",
            bound.replace(&format!("requested-chassis={}", port.option("requested-chassis").unwrap_or_default()), "")
        )
    }

    fn shown(&self) -> String {
        format!("{}\n{}", self.northbound.nbctl(&["show"]), self.northbound.sbctl(&["show"]))
    }
}
