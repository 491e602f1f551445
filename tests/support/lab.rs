//! One VM on three chassis that migrates, with packets: for the tests of the data path, the benchmark and the demo.
//!
//! The VM `testvm` runs on hv1; a guest on hv3 pings it every 5 ms and keeps a TCP connection to it busy; hv2 is where
//! it goes. A migration goes in [`Phase`]s, in each of which the service or the database may have a [`Fault`].

mod chassis;
mod last_mile;
mod network_change;

use std::ops::Deref;
use std::time::Duration;

pub use self::chassis::{Away, Guests};
use self::last_mile::LastMile;
pub use self::last_mile::OvsCni;
pub use self::network_change::{Changed, Seen, TwoNetworks};
use super::cluster::Cluster;
use super::eventually::{eventually, holds_for};
use super::fabric::{Cni, Echo, Echoed, Fabric, Guest, Probe, Probed};
use super::northbound::Port;
use super::objects::{Binding, VmOptions};
use super::player::Migration;
use super::service::Service;
use super::stage::{Builder, DEFAULT_SWITCH, Prepared};

/// The prober's own port.
const PROBER: (&str, &str, &str) = ("prober", "0a:00:00:00:00:01", "10.16.9.9");
/// The time of pings before and after the measured event.
const AROUND: Duration = Duration::from_millis(400);

/// The controller that sets the port's chassis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pointing {
    /// The service, with this `--activation-strategy`.
    Service(&'static str),
    /// A controller that follows past events: no change before the guest has arrived; then, so much later, the target
    /// alone.
    Afterwards(Duration),
}

/// The events of a migration that matter to the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The target pod gets its node.
    Scheduled,
    /// The VMI is handed to the two virt-handlers.
    HandedOff,
    /// The guest leaves the source and goes on on the target.
    CutOver,
    /// The VMI says that it is there.
    DomainReady,
    /// `status.nodeName` moves.
    NodeMoved,
    /// The VMIM succeeds, and the source pod ends.
    Succeeded,
}

impl Phase {
    /// All, in their order.
    pub const ALL: [Self; 6] =
        [Self::Scheduled, Self::HandedOff, Self::CutOver, Self::DomainReady, Self::NodeMoved, Self::Succeeded];
}

/// A fault in the middle of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The service is killed with -9 before this comes, and started again after it.
    Killed(Phase),
    /// Another member of the northbound's cluster leads when this comes.
    LeaderMoved(Phase),
}

/// The measurements of a migration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moved {
    /// The pings.
    pub pings: Probed,
    /// The TCP connection.
    pub tcp: Echoed,
}

/// The network, the VM on it, and the service.
pub struct Lab {
    // The guests end before their chassis, and those before the databases.
    prober: Guest,
    guest: Option<Guest>,
    service: Option<Service>,
    /// Where ovs-cni plugs the VM; else the test does, which knows the port.
    last_mile: Option<LastMile>,
    fabric: Fabric,
    prepared: Prepared,
    pointing: Pointing,
    binding: Binding,
    port: Port,
}

/// Packets on their way.
struct Traffic(Probe, Echo);

impl Traffic {
    fn end(self) -> Moved {
        let Self(probe, echo) = self;
        Moved { tcp: echo.end(), pings: probe.end() }
    }
}

// --- the set-up ---
impl Lab {
    /// The VM runs on hv1, with such a binding of its NIC, and answers. `builder` names the test, and the northbound if
    /// it is not the default.
    pub async fn start(builder: Builder<'_>, pointing: Pointing, binding: Binding) -> Self {
        let prepared = Self::prepared(builder, pointing).await;
        let (service, name) = (prepared.setup().start().await, prepared.name("testvm"));
        let options = VmOptions::default().binding(binding);
        let mut lab = Self::bound_to_hv1(prepared, service, pointing, options, &name).await;
        lab.binding = binding;
        lab.begin().await;
        lab
    }

    async fn prepared(builder: Builder<'_>, pointing: Pointing) -> Prepared {
        let strategy = match pointing {
            Pointing::Service(strategy) => strategy,
            Pointing::Afterwards(_) => "rarp",
        };
        let builder = builder.northd().reads_southbound().flags(["--activation-strategy", strategy]);
        let mut prepared = builder.prepare().await;
        let client = Cluster::shared().prompt_client().await;
        prepared.player = prepared.player.clone().writing_vmis_by(client);
        prepared
    }

    /// The VM is bound to hv1 with its port of this name, and its guest is not there yet.
    async fn bound_to_hv1(
        prepared: Prepared,
        service: Service,
        pointing: Pointing,
        options: VmOptions,
        name: &str,
    ) -> Self {
        let fabric = Fabric::start(&prepared.northbound, 3).await;
        let (port, mac, address) = PROBER;
        prepared.northbound.add_foreign_port(DEFAULT_SWITCH, port, &[&format!("{mac} {address}")]);
        let mut prober = fabric.plug(3, port, mac, address);
        prober.wake();
        prepared.player.create_vm("testvm", options).await;
        prepared.player.start("testvm", "hv1").await;
        let port = eventually("the port is bound to hv1", || async {
            let port = prepared.northbound.port(name);
            port.filter(|port| port.option("requested-chassis") == Some("hv1"))
                .ok_or_else(|| prepared.northbound.dump())
        })
        .await;
        // From here on the port is the test's own, where it stands for another controller.
        let service = matches!(pointing, Pointing::Service(_)).then_some(service);
        let (last_mile, binding) = (None, Binding::Bridge);
        Self { prober, guest: None, service, last_mile, fabric, prepared, pointing, binding, port }
    }

    /// The guest begins on hv1, and answers.
    async fn begin(&mut self) {
        let mut guest = self.plug_launcher("hv1").await;
        guest.wake();
        self.guest = Some(guest);
        self.reachable().await;
    }

    /// The VM's other self, asleep.
    pub fn plug(&self, chassis: &str) -> Guest {
        let host = chassis.trim_start_matches("hv").parse().expect("hv and a number");
        let (mac, address) = self.addresses();
        self.plug_by(host, &Cni::IfaceId(&self.port.name), mac, address)
    }

    fn plug_by(&self, host: usize, cni: &Cni<'_>, mac: &str, address: &str) -> Guest {
        let guest = self.fabric.plug_by(host, cni, mac, address, self.binding);
        let (_, mac, address) = PROBER;
        guest.knows(address, mac);
        guest
    }

    /// The VM, where it runs.
    pub fn guest(&self) -> &Guest {
        self.guest.as_ref().expect("the VM runs")
    }

    /// Its port goes, and then itself.
    pub fn unplug(&self, guest: Guest) {
        self.fabric.unplug(guest);
    }
}

impl Deref for Lab {
    type Target = Prepared;

    fn deref(&self) -> &Prepared {
        &self.prepared
    }
}

// --- what happens ---
impl Lab {
    /// One migration there, `pause` being the guest's own between its last breath here and its first there.
    pub async fn migrate(&mut self, from: &str, to: &str, pause: Duration) -> Moved {
        self.migrate_through(from, to, pause, None).await
    }

    /// The same with a fault.
    pub async fn migrate_through(&mut self, from: &str, to: &str, pause: Duration, fault: Option<Fault>) -> Moved {
        let (migration, arriving) = self.prepare(from, to, fault).await;
        let traffic = self.traffic();
        tokio::time::sleep(AROUND).await;
        self.inject(fault, Phase::CutOver);
        let known = self.player.must_vmi("testvm").await;
        let leaving = self.cut_over(arriving, to, pause).await;
        self.recover(fault, Phase::CutOver).await;
        self.inject(fault, Phase::DomainReady);
        self.player.domain_ready_of(&migration, known).await;
        self.recover(fault, Phase::DomainReady).await;
        self.inject(fault, Phase::NodeMoved);
        self.player.node_moved(&migration).await;
        self.recover(fault, Phase::NodeMoved).await;
        self.inject(fault, Phase::Succeeded);
        self.player.migration_succeeded(&migration).await;
        self.player.source_ends(&migration).await;
        self.recover(fault, Phase::Succeeded).await;
        self.bound(to).await;
        self.flows_stand();
        tokio::time::sleep(AROUND).await;
        self.fabric.unplug(leaving);
        tokio::time::sleep(AROUND).await;
        let moved = traffic.end();
        self.reachable().await;
        moved
    }

    /// The guest leaves for the target, with all its connections; and a controller that follows past events sets the chassis.
    pub async fn cut_over(&mut self, mut arriving: Guest, to: &str, pause: Duration) -> Guest {
        let mut leaving = self.guest.take().expect("the VM runs");
        let memory = leaving.sleep();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        arriving.wake_with(&memory);
        if let Pointing::Afterwards(late) = self.pointing {
            tokio::time::sleep(late).await;
            self.point(to);
        }
        self.guest = Some(arriving);
        leaving
    }

    /// A migration that fails once the target is prepared.
    pub async fn roll_back(&mut self, from: &str, to: &str) -> Moved {
        let traffic = self.traffic();
        tokio::time::sleep(AROUND).await;
        // The target is there, and is not let go: not a packet is to reach it.
        let (migration, arriving) = self.prepare(from, to, None).await;
        self.player.fail(&migration).await;
        self.bound(from).await;
        self.flows_stand();
        self.fabric.unplug(arriving);
        tokio::time::sleep(AROUND).await;
        traffic.end()
    }

    /// A migration up to the hand-over to the two virt-handlers: the target is there, asleep, and has the port where
    /// it is asked to.
    pub async fn prepare(&mut self, from: &str, to: &str, fault: Option<Fault>) -> (Migration, Guest) {
        let migration = self.player.start_migration("testvm", to).await;
        self.inject(fault, Phase::Scheduled);
        self.player.bind_target(&migration).await;
        self.recover(fault, Phase::Scheduled).await;
        if self.service.is_some() {
            self.bound(&format!("{from},{to}")).await;
        }
        self.player.target_running(&migration).await;
        self.player.migration_scheduled(&migration).await;
        self.inject(fault, Phase::HandedOff);
        self.player.hand_off(&migration).await;
        self.recover(fault, Phase::HandedOff).await;
        let arriving = self.plug_launcher(to).await;
        if self.service.is_some() {
            self.claimed().await;
        }
        self.flows_stand();
        (migration, arriving)
    }

    /// Waits until every chassis has installed the content of the databases.
    pub fn flows_stand(&self) {
        self.northbound.nbctl(&["--wait=hv", "sync"]);
    }

    /// The target's ovn-controller has the port.
    async fn claimed(&self) {
        let binding = format!("logical_port={}", self.port.name);
        let additional = ["--bare", "--columns=additional_chassis", "find", "Port_Binding", &binding];
        eventually("the target has claimed the port", || async {
            let chassis = self.northbound.sbctl(&additional);
            if chassis.trim().is_empty() { Err(self.shown()) } else { Ok(()) }
        })
        .await;
    }

    /// The VM is restarted on another node, while its old pod is still terminating there.
    pub async fn replace_pod(&mut self, to: &str) -> Moved {
        let old = self.player.launchers("testvm").await.pop().expect("a launcher");
        let mut ending = self.guest.take().expect("the VM runs");
        self.player.delete_vmi_start("testvm").await;
        self.player.delete_pod_start(&old).await;
        self.player.remove_vmi_finalizer("testvm").await;
        ending.sleep();
        self.player.start("testvm", to).await;
        self.bound(to).await;
        let mut beginning = self.plug_launcher(to).await;
        beginning.wake();
        self.reachable().await;
        let traffic = self.traffic();
        tokio::time::sleep(AROUND).await;
        // Only now the old one is gone for good.
        self.fabric.unplug(ending);
        self.player.delete_pod(&old).await;
        tokio::time::sleep(AROUND).await;
        self.guest = Some(beginning);
        traffic.end()
    }

    /// The VM has ended: its interface goes with it.
    pub fn forget_guest(&mut self) {
        self.guest.take().into_iter().for_each(|guest| self.fabric.unplug(guest));
    }

    fn inject(&mut self, fault: Option<Fault>, phase: Phase) {
        match fault {
            Some(Fault::Killed(at)) if at == phase => self.service.take().expect("the service runs").kill9(),
            Some(Fault::LeaderMoved(at)) if at == phase => drop(self.northbound.move_leader()),
            _ => {}
        }
    }

    async fn recover(&mut self, fault: Option<Fault>, phase: Phase) {
        if fault == Some(Fault::Killed(phase)) {
            self.service = Some(self.setup().start().await);
        }
    }

    /// The write of a controller other than ours.
    fn point(&self, chassis: &str) {
        self.northbound.nbctl(&["lsp-set-options", &self.port.name, &format!("requested-chassis={chassis}")]);
    }
}

// --- what is seen ---
impl Lab {
    fn traffic(&self) -> Traffic {
        Traffic(self.prober.probe(self.address()), self.prober.echo(self.address()))
    }

    /// Only pings, as long as the caller likes.
    pub fn pings(&self) -> Probe {
        self.prober.probe(self.address())
    }

    /// Only a TCP connection, as long as the caller likes.
    pub fn echo(&self) -> Echo {
        self.prober.echo(self.address())
    }

    fn addresses(&self) -> (&str, &str) {
        addresses(&self.port)
    }

    /// The name of the VM's port.
    pub fn port_name(&self) -> &str {
        &self.port.name
    }

    /// The VM's address, by its port.
    pub fn address(&self) -> &str {
        self.addresses().1
    }

    /// The prober's pings are answered.
    pub async fn reachable(&self) {
        eventually("the VM answers", || async {
            if self.prober.ping(self.address()).is_ok() { Ok(()) } else { Err(self.shown()) }
        })
        .await;
    }

    /// One ping from hv3: the line of its answer.
    pub fn ping(&self) -> String {
        self.prober.ping(self.address()).unwrap_or_else(|said| panic!("{said}"))
    }

    fn is_bound(&self, requested: &str) -> Result<(), String> {
        let port = self.northbound.port(&self.port.name);
        let bound = port.as_ref().and_then(|port| port.option("requested-chassis")) == Some(requested);
        if bound { Ok(()) } else { Err(format!("{port:#?}")) }
    }

    /// Waits until these chassis are asked for.
    pub async fn bound(&self, requested: &str) {
        eventually(&format!("the port is bound to {requested}"), || async { self.is_bound(requested) }).await;
    }

    /// These chassis are asked for all the time.
    pub async fn stays_bound(&self, requested: &str, time: Duration) {
        holds_for(&format!("the port is bound to {requested}"), time, || async { self.is_bound(requested) }).await;
    }

    /// The `external_ids` of a guest's interface on its chassis, as ovs-vsctl prints them.
    pub fn interface_ids(&self, guest: &Guest) -> String {
        self.fabric.interface_ids(guest)
    }

    /// The line of `ovn-kubevirt ports --sb` about the port.
    pub fn state(&self) -> String {
        let (nb, sb) = (self.northbound.remote(), self.northbound.sb_remote());
        let output = Service::command_line(&["ports", "--nb", &nb, "--sb", &sb]);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let line = text.lines().find(|line| line.contains(&self.port.name)).unwrap_or(&text);
        line.split("   ").last().unwrap_or_default().trim().to_owned()
    }

    /// Waits until it says so.
    pub async fn shows(&self, state: &str) {
        eventually(&format!("`ports --sb` says \"{state}\""), || async {
            let said = self.state();
            if said == state { Ok(()) } else { Err(said) }
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

    /// The whole northbound as text, without counters and the values that a migration changes.
    pub fn northbound_without_counters(&self) -> String {
        let dump = self.northbound.dump();
        let lines = dump.lines().filter(|line| !line.starts_with("NB_Global") && !line.contains("requested-chassis"));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn shown(&self) -> String {
        format!("{}\n{}", self.northbound.nbctl(&["show"]), self.northbound.sbctl(&["show"]))
    }
}

/// The MAC and the address of a port.
fn addresses(port: &Port) -> (&str, &str) {
    port.addresses.first().and_then(|text| text.split_once(' ')).expect("a MAC and an address")
}
