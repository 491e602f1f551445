//! The same network with a second logical switch, and a VM that changes from the one to the other while it runs.
//!
//! ```text
//!   ovn-default   a prober on hv3   the VM's NIC on the NAD `ovn`, on hv1
//!   blue          a prober on hv3   the same NIC on the NAD `net2`, on hv2 after the change
//! ```
//!
//! ovs-cni plugs each launcher pod by what the webhook has written on it. KubeVirt is played in the order in which a
//! virt-controller was recorded: the edit, the instance's spec, then one migration after the other until one succeeds or
//! the edit is taken back. The guest has the old network's address on the source and the new one's on the target, as one
//! that asks a DHCP server anew.

use std::ops::Deref;
use std::time::Duration;

use super::super::eventually::eventually;
use super::super::fabric::{Guest, Pings, Probed};
use super::super::multus::Attachment;
use super::super::northbound::Port;
use super::super::player::Migration;
use super::last_mile::NAD;
use super::{AROUND, Builder, Lab, Moved, OvsCni, PROBER, addresses};

/// The switch that the VM changes to.
const SWITCH: &str = "blue";
const SUBNET: &str = "10.17.0.0/16";
const NETWORKS: [Network; 2] =
    [Network { nad: NAD, prober: PROBER }, Network { nad: "net2", prober: ("peer", "0a:00:00:00:00:02", "10.17.9.9") }];

/// A network that the VM's NIC may be on, and the port, the MAC and the address of the prober there.
#[derive(Debug, Clone, Copy)]
struct Network {
    nad: &'static str,
    prober: (&'static str, &'static str, &'static str),
}

/// A lab whose VM may be on either network.
pub struct TwoNetworks {
    // It ends before its chassis.
    /// The prober on the network that the VM is not on. The lab's is on the other one.
    prober: Guest,
    lab: Lab,
    /// The one that the VM is on, and the other.
    networks: [Network; 2],
}

/// What came of a change, by network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Changed {
    /// From before the edit until long after the guest has left.
    pub old: Seen,
    /// From before the guest has come.
    pub new: Seen,
}

/// What a prober saw of the guest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// All pings, also those without a guest on that network.
    pub pings: Probed,
    /// Pings that were lost though the guest was there when they were sent: until it fell silent, or since it was awake.
    pub lost: usize,
    /// For how long pings were answered that were sent without the guest there, in milliseconds.
    pub stray_ms: f64,
}

impl Seen {
    fn until(left: f64, pings: &Pings) -> Self {
        let (_, last) = pings.answered.expect("the guest has answered");
        let lost = pings.unanswered.iter().filter(|sent| **sent < left).count();
        Self { pings: pings.probed, lost, stray_ms: ((last - left) * 1e3).max(0.0) }
    }

    fn since(arrived: f64, pings: &Pings) -> Self {
        let (first, _) = pings.answered.expect("the guest has answered");
        let lost = pings.unanswered.iter().filter(|sent| **sent > arrived).count();
        Self { pings: pings.probed, lost, stray_ms: ((arrived - first) * 1e3).max(0.0) }
    }
}

impl Deref for TwoNetworks {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

// --- the set-up ---
impl TwoNetworks {
    /// The VM is on the NAD `ovn`, runs on hv1, and answers there.
    pub async fn start(builder: Builder<'_>) -> Self {
        let [_, Network { nad, prober: (port, mac, address) }] = NETWORKS;
        let builder = builder.switch(SWITCH, SUBNET).nad(nad, SWITCH);
        let lab = Lab::with_ovs_cni(builder, OvsCni::Head, Lab::nic(true)).await;
        lab.northbound.add_foreign_port(SWITCH, port, &[&format!("{mac} {address}")]);
        let mut prober = lab.fabric.plug(3, port, mac, address);
        prober.wake();
        Self { prober, lab, networks: NETWORKS }
    }
}

// --- what happens ---
impl TwoNetworks {
    /// The VM changes to the other network by one migration, `pause` being the guest's own.
    pub async fn change(&mut self, (from, to): (&str, &str), pause: Duration) -> Changed {
        let on_old = self.pings();
        tokio::time::sleep(AROUND).await;
        let coming = self.edit().await;
        let (migration, mut arriving) = self.prepare_change(&coming, (from, to)).await;
        let on_new = self.prober.probe(addresses(&coming).1);
        tokio::time::sleep(AROUND).await;
        let known = self.player.must_vmi("testvm").await;
        let mut leaving = self.lab.guest.take().expect("the VM runs");
        let left = leaving.sleep().at;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let arrived = arriving.wake();
        self.player.domain_ready_of(&migration, known).await;
        self.player.node_moved(&migration).await;
        self.player.source_ends(&migration).await;
        self.player.migration_succeeded(&migration).await;
        self.is_gone(&self.lab.port.name).await;
        self.is_requested(&coming.name, Some(to)).await;
        self.flows_stand();
        tokio::time::sleep(AROUND).await;
        self.unplug(leaving);
        tokio::time::sleep(AROUND).await;
        self.lab.guest = Some(arriving);
        self.lab.port = coming;
        std::mem::swap(&mut self.prober, &mut self.lab.prober);
        self.networks.reverse();
        let (on_old, on_new) = (on_old.end_with_times(), on_new.end_with_times());
        Changed { old: Seen::until(left, &on_old), new: Seen::since(arrived, &on_new) }
    }

    /// The user names the other network for the NIC, and virt-controller brings it to the instance. Gives back the port
    /// that comes, which is requested nowhere yet.
    pub async fn edit(&self) -> Port {
        let [_, Network { nad, .. }] = self.networks;
        self.name_network(nad).await;
        let name = format!("testvm.{0}.{nad}.{0}.ovn", self.namespace.name);
        self.is_requested(&name, None).await;
        self.northbound.port(&name).expect("the port")
    }

    /// The user takes the edit back, and virt-controller follows.
    pub async fn take_back(&self) {
        let [Network { nad, .. }, _] = self.networks;
        self.name_network(nad).await;
    }

    async fn name_network(&self, nad: &str) {
        self.player.change_networks("testvm", &[(&Lab::nic(true).name, nad)]).await;
    }

    /// A migration to the other network up to the sending of the guest: the target is there, asleep, and its chassis has
    /// the port that comes.
    pub async fn prepare_change(&self, coming: &Port, (from, to): (&str, &str)) -> (Migration, Guest) {
        let migration = self.player.start_migration("testvm", to).await;
        self.player.bind_target(&migration).await;
        self.is_requested(&coming.name, Some(to)).await;
        self.bound(from).await;
        let arriving = self.plug_launcher(to).await;
        self.networks.iter().for_each(|Network { prober: (_, mac, address), .. }| arriving.knows(address, mac));
        self.carries(to, coming).await;
        self.player.target_running(&migration).await;
        self.player.migration_scheduled(&migration).await;
        self.player.hand_off(&migration).await;
        self.player.target_ready(&migration).await;
        self.player.migration_running(&migration).await;
        self.is_claimed(&coming.name, Some(to)).await;
        self.flows_stand();
        (migration, arriving)
    }

    /// That migration fails, and its pod's interface goes.
    pub async fn fail_change(&self, coming: &Port, (migration, arriving): (Migration, Guest)) {
        self.player.fail(&migration).await;
        self.is_requested(&coming.name, None).await;
        self.flows_stand();
        self.unplug(arriving);
        self.is_claimed(&coming.name, None).await;
    }

    /// That migration is cancelled, since the user has taken the edit back.
    pub async fn cancel_change(&self, coming: &Port, (migration, arriving): (Migration, Guest)) {
        self.take_back().await;
        self.player.cancel(&migration).await;
        self.is_gone(&coming.name).await;
        self.flows_stand();
        self.unplug(arriving);
    }

    /// What the prober on the network of the VM sees of it until this future has ended.
    pub async fn while_probed(&self, what: impl Future<Output = ()>) -> Moved {
        let traffic = self.traffic();
        tokio::time::sleep(AROUND).await;
        what.await;
        tokio::time::sleep(AROUND).await;
        traffic.end()
    }

    /// A migration without a change.
    pub async fn migrate(&mut self, from: &str, to: &str) -> Moved {
        self.lab.migrate(from, to, Duration::ZERO).await
    }
}

// --- what is seen ---
impl TwoNetworks {
    /// The launcher pod there carries that port, its MAC and its address.
    async fn carries(&self, chassis: &str, port: &Port) {
        let attachments = Attachment::of(&self.launcher(chassis).await);
        let carried = attachments.iter().map(|it| (it.argument("ovnPort"), it.argument("mac"), it.address()));
        let (mac, address) = addresses(port);
        let expected = (port.name.clone(), mac.to_owned(), address.to_owned());
        assert_eq!(carried.collect::<Vec<_>>(), [expected]);
    }

    /// Waits until the port is there and requests this chassis, or none.
    async fn is_requested(&self, name: &str, chassis: Option<&str>) {
        eventually(&format!("{name} requests {chassis:?}"), || async {
            let port = self.northbound.port(name);
            let is_so = port.as_ref().is_some_and(|port| port.option("requested-chassis") == chassis);
            if is_so { Ok(()) } else { Err(format!("{port:#?}")) }
        })
        .await;
    }

    async fn is_gone(&self, name: &str) {
        eventually(&format!("{name} is gone"), || async {
            self.northbound.port(name).map_or(Ok(()), |port| Err(format!("{port:#?}")))
        })
        .await;
    }

    /// Waits until that chassis has claimed the port, or none has it.
    async fn is_claimed(&self, name: &str, chassis: Option<&str>) {
        let expected = chassis.map(|chassis| self.northbound.sbctl(&["get", "Chassis", chassis, "_uuid"]));
        let expected = expected.as_deref().map_or("[]", str::trim);
        eventually(&format!("{name} is claimed by {chassis:?}"), || async {
            let found = self.northbound.sbctl(&["get", "Port_Binding", name, "chassis"]);
            if found.trim() == expected { Ok(()) } else { Err(found) }
        })
        .await;
    }
}
