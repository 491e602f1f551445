//! Packets: three chassis with userspace Open vSwitch, guests on them, and a prober that pings every 5 ms.

use std::time::Duration;

use crate::stage::{SUBNET, Stage};
use crate::support::{Cluster, Fabric, Guest, Northbound, Player, Service, VmOptions, eventually};

/// A stage on three chassis: the VM `testvm` on hv1, and a guest on hv3 that pings it.
struct Lab {
    stage: Stage,
    fabric: Fabric,
    prober: Guest,
    /// The VM where it runs.
    guest: Guest,
    port: String,
    mac: String,
    address: String,
}

impl Lab {
    async fn new(name: &str) -> Self {
        let northbound = Northbound::start().await.with_northd().await;
        northbound.add_switch("ovn-default", &SUBNET);
        let fabric = Fabric::start(&northbound, 3).await;
        northbound.add_foreign_port("ovn-default", "prober", &["0a:00:00:00:00:01 10.16.9.9"]);
        let cluster = Cluster::shared();
        let namespace = cluster.namespace(name).await;
        let player = Player::within(&namespace);
        let sb = northbound.sb_remote();
        let service = Service::start(&northbound, cluster, &namespace, &["--sb", &sb]).await;
        let stage = Stage { northbound, namespace, player, service };
        stage.player.create_vm("testvm", VmOptions::default()).await;
        stage.player.start("testvm", "hv1").await;
        let port =
            stage.port_where("testvm", "is on hv1", |port| port.option("requested-chassis") == Some("hv1")).await;
        let text = port.addresses.first().cloned().expect("addresses");
        let (mac, address) = text.split_once(' ').expect("a MAC and an address");
        let mut prober = fabric.plug(3, "prober", "0a:00:00:00:00:01", "10.16.9.9");
        prober.wake();
        let mut guest = fabric.plug(1, &port.name, mac, address);
        guest.wake();
        let (port, mac, address) = (port.name.clone(), mac.to_owned(), address.to_owned());
        let lab = Self { stage, fabric, prober, guest, port, mac, address };
        lab.reachable().await;
        lab
    }

    async fn reachable(&self) {
        eventually("the VM answers", || async {
            if self.prober.pings(&self.address) { Ok(()) } else { Err(self.shown()) }
        })
        .await;
    }

    fn shown(&self) -> String {
        let northbound = &self.stage.northbound;
        format!("{}\n{}", northbound.nbctl(&["show"]), northbound.sbctl(&["show"]))
    }

    async fn bound(&self, requested: &str) {
        let what = format!("is bound to {requested}");
        self.stage.port_where("testvm", &what, |port| port.option("requested-chassis") == Some(requested)).await;
    }

    /// The southbound has the port there as well, and both chassis have done what there is to do.
    async fn prepared(&self) {
        let additional = || {
            self.stage.northbound.sbctl(&[
                "--bare",
                "--columns=additional_chassis",
                "find",
                "Port_Binding",
                &format!("logical_port={}", self.port),
            ])
        };
        eventually("the target is claimed", || async {
            let chassis = additional();
            if chassis.trim().is_empty() { Err(self.shown()) } else { Ok(()) }
        })
        .await;
        self.stage.northbound.nbctl(&["--wait=hv", "sync"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_loses_no_more_than_the_guests_own_pause_and_doubles_nothing() {
    let mut lab = Lab::new("packets").await;
    let player = &lab.stage.player;
    let migration = player.start_migration("testvm", "hv2").await;
    player.bind_target(&migration).await;
    lab.bound("hv1,hv2").await;
    let mut arriving = lab.fabric.plug(2, &lab.port, &lab.mac, &lab.address);
    lab.prepared().await;
    player.target_running(&migration).await;
    player.migration_scheduled(&migration).await;
    player.hand_off(&migration).await;
    let probe = lab.prober.probe(&lab.address);
    tokio::time::sleep(Duration::from_millis(300)).await;
    // The cut-over: for a moment the guest runs nowhere.
    lab.guest.sleep();
    arriving.wake();
    player.domain_ready(&migration).await;
    player.succeed(&migration).await;
    lab.bound("hv2").await;
    lab.stage.northbound.nbctl(&["--wait=hv", "sync"]);
    let gone = std::mem::replace(&mut lab.guest, arriving);
    lab.fabric.unplug(gone);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let probed = probe.end();
    assert_eq!(probed.duplicates, 0, "{probed:?}");
    // A second is far more than it takes; without a port on the target it would be for ever.
    assert!(probed.sent > 100 && probed.silence_ms < 1_000.0, "{probed:?}");
    lab.reachable().await;
    eprintln!("{probed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_is_rolled_back_loses_nothing() {
    let lab = Lab::new("rollback").await;
    let player = &lab.stage.player;
    let probe = lab.prober.probe(&lab.address);
    let migration = player.start_migration("testvm", "hv2").await;
    player.bind_target(&migration).await;
    lab.bound("hv1,hv2").await;
    // It is there, and has not been let go: not a packet is to reach it.
    let arriving = lab.fabric.plug(2, &lab.port, &lab.mac, &lab.address);
    lab.prepared().await;
    player.fail(&migration).await;
    lab.bound("hv1").await;
    lab.stage.northbound.nbctl(&["--wait=hv", "sync"]);
    lab.fabric.unplug(arriving);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let probed = probe.end();
    assert_eq!((probed.lost, probed.duplicates), (0, 0), "{probed:?}");
}
