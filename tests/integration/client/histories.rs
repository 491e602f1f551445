//! Histories: after any write, by any writer, and any loss of the connection, the replica agrees with the database, its
//! indexes are those of a new replica, and it has recorded exactly the changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ovn_kubevirt::contract::VmKey;
use ovn_kubevirt::ovn::{Changes, Northbound as View, Wake};
use ovn_kubevirt::ovsdb::{Connection, Operation, Outcome, Session, Shared, Transaction};
use uuid::Uuid;

use super::image::{Image, answers, pools};
use super::writer::{IPS, MACS, PORT_NAMES, SWITCH_NAMES, Writer, Written, connected};
use super::{shared, soak, target};
use crate::support::{Gate, Northbound};

/// A replica under observation.
struct Observer {
    view: Arc<Shared<View>>,
    session: Session<View>,
    connection: Option<Connection>,
    /// The numbers of full syncs, and of syncs with only the missed updates.
    syncs: [usize; 2],
}

impl Observer {
    async fn new(remotes: &str) -> Self {
        let view = shared();
        let session = Session::new(target(remotes, 5), Arc::clone(&view));
        let mut observer = Self { view, session, connection: None, syncs: [0, 0] };
        observer.catch_up().await;
        observer
    }

    /// Has all that was committed before: the server sends updates before it answers.
    async fn catch_up(&mut self) {
        let select = Operation::Select { table: "NB_Global", conditions: Vec::new(), columns: vec!["_uuid"] };
        let barrier = Transaction { fence: None, operations: vec![select] };
        loop {
            if let Some(connection) = &self.connection {
                match connection.transact(&barrier).await {
                    Outcome::Committed { .. } => return,
                    Outcome::NotSent | Outcome::Unknown(_) => self.connection = None,
                    other => panic!("{other:?}"),
                }
            }
            self.connection = Some(connected(&mut self.session).await);
            self.syncs[usize::from(self.session.resumed())] += 1;
        }
    }

    fn take_changes(&self) -> Changes {
        self.view.write().take_changes()
    }
}

/// A replica that has just come.
async fn newcomer(remotes: &str) -> Arc<Shared<View>> {
    Observer::new(remotes).await.view
}

/// The database at one moment, and a replica made of it.
struct Moment {
    image: Image,
    /// The same with the keys that are not read.
    whole: Image,
    view: Arc<Shared<View>>,
}

impl Moment {
    async fn now(northbound: &Northbound) -> Self {
        let view = newcomer(&northbound.remote()).await;
        let whole = Image::of_database(northbound);
        Self { image: whole.kept(), whole, view }
    }
}

/// The replica agrees with `select`, and its indexes with those of a new replica.
#[track_caller]
fn assert_equal(view: &View, moment: &Moment, when: &str) {
    let replicated = Image::of_replica(view);
    let difference = moment.image.difference(&replicated);
    assert_eq!(replicated, moment.image, "{when}: the database, and then the replica, at\n{difference}");
    let doubled = moment.image.doubled();
    let (told, expected) = (answers(view, &doubled), answers(&moment.view.read(), &doubled));
    let differing: Vec<_> = expected.iter().filter(|(key, answer)| told.get(*key) != Some(answer)).collect();
    assert_eq!(told, expected, "{when}: a newcomer says otherwise: {differing:#?}");
    assert_eq!(pools(view, &doubled), pools(&moment.view.read(), &doubled), "{when}");
}

/// VMs with a row that differs, and VMs of which it cannot be said.
fn changed_vms(before: &Image, after: &Image) -> (BTreeSet<VmKey>, BTreeSet<VmKey>) {
    let doubled: BTreeSet<Uuid> = before.doubled().union(&after.doubled()).copied().collect();
    let owners =
        |port: Uuid| [before, after].into_iter().filter_map(move |image| image.owner(port)).map(|owned| owned.vm);
    let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
    for port in before.ports().keys().chain(after.ports().keys()) {
        if before.ports().get(port) != after.ports().get(port) || before.switches_of(*port) != after.switches_of(*port)
        {
            if doubled.contains(port) { &mut may } else { &mut must }.extend(owners(*port));
        }
    }
    for switch in before.switches().keys().chain(after.switches().keys()) {
        let settings = |image: &Image| {
            let line = image.switches().get(switch)?;
            Some(["name", "other_config", "external_ids"].map(|column| line[column].clone()))
        };
        if settings(before) == settings(after) {
            continue;
        }
        for image in [before, after] {
            let on = image.ports().keys().filter(|port| image.switches_of(**port).contains(switch));
            on.for_each(|port| if doubled.contains(port) { &mut may } else { &mut must }.extend(owners(*port)));
        }
    }
    (must, may)
}

/// VMs that may be decided again because of others' rows: those that share an address or a MAC with another port, and where
/// routers have changed all. A port that two switches refer to may count on either.
fn concerned_vms(before: &Moment, after: &Moment) -> BTreeSet<VmKey> {
    let owners = |image: &Image, ports: &[Uuid]| {
        ports.iter().filter_map(|port| image.owner(*port)).map(|owned| owned.vm).collect::<Vec<_>>()
    };
    let mut concerned = BTreeSet::new();
    let rerouted = before.image.routing() != after.image.routing();
    for moment in [before, after] {
        let (view, image) = (moment.view.read(), &moment.image);
        if rerouted {
            concerned.extend(owners(image, &image.ports().keys().copied().collect::<Vec<_>>()));
        }
        let doubled = image.doubled();
        let mut sharing = |holders_on: &dyn Fn(&Uuid) -> Vec<Uuid>| {
            let anywhere: Vec<Uuid> = view.switches().flat_map(|(switch, _)| holders_on(switch)).collect();
            for (switch, _) in view.switches() {
                let mut holders: BTreeSet<Uuid> = holders_on(switch).into_iter().collect();
                let of_two = anywhere.iter().filter(|port| doubled.contains(port));
                holders.extend(of_two.filter(|port| image.switches_of(**port).contains(switch)));
                let holders: Vec<Uuid> = holders.into_iter().collect();
                concerned.extend(owners(image, if holders.len() > 1 { &holders } else { &[] }));
            }
        };
        for ip in IPS.map(|text| text.parse::<IpAddr>().expect("an address")) {
            sharing(&|switch| view.holders(switch, ip).to_vec());
        }
        for mac in MACS {
            let mac = mac.parse().expect("a MAC");
            sharing(&|switch| view.mac_holders(switch, mac).collect());
        }
    }
    concerned
}

/// The waits that a change has to wake.
fn due_wakes(before: &Moment, after: &Moment) -> BTreeSet<Wake> {
    let doubled: BTreeSet<Uuid> = before.image.doubled().union(&after.image.doubled()).copied().collect();
    let (old, new) = (before.view.read(), after.view.read());
    let mut due = BTreeSet::new();
    for (switch, _) in old.switches() {
        for ip in IPS.map(|text| text.parse::<IpAddr>().expect("an address")) {
            let mut gone = old.holders(switch, ip).iter().filter(|port| !new.holders(switch, ip).contains(port));
            if gone.any(|port| !doubled.contains(port)) {
                due.extend([Wake::Address(*switch, ip), Wake::Room(*switch)]);
            }
        }
    }
    for name in PORT_NAMES {
        let holder = |view: &View| view.port_named(name).map(|port| port.uuid);
        if holder(&old).is_some() && holder(&old) != holder(&new) {
            due.insert(Wake::Name(name.to_owned()));
        }
    }
    for name in SWITCH_NAMES {
        let says = |view: &View| -> BTreeMap<Uuid, String> {
            let switches = view.switches_named(name).filter_map(|uuid| Some((uuid, view.switch(&uuid)?)));
            let plain = switches.filter(|(_, row)| !row.ports.iter().any(|port| doubled.contains(port)));
            plain.map(|(uuid, row)| (uuid, format!("{:?} {:?}", row.other_config, view.subnet(&uuid)))).collect()
        };
        let (was, is) = (says(&old), says(&new));
        let differs = |uuid: &Uuid| was.get(uuid) != is.get(uuid);
        // A switch that is left out at one of the moments is not compared.
        let known = |uuid: &Uuid| {
            [&old, &new]
                .into_iter()
                .all(|view| view.switch(uuid).is_none_or(|row| !row.ports.iter().any(|port| doubled.contains(port))))
        };
        if was.keys().chain(is.keys()).any(|uuid| known(uuid) && differs(uuid)) {
            due.insert(Wake::Switch(name.to_owned()));
        }
    }
    if old.sb_cfg() != new.sb_cfg() {
        due.insert(Wake::Processed);
    }
    due
}

/// Exactly the changed VMs are named, and every VM that waited for a change is woken.
#[track_caller]
fn assert_noted(changes: &Changes, before: &Moment, after: &Moment, when: &str) {
    let difference = before.whole.difference(&after.whole);
    let (must, mut may) = changed_vms(&before.image, &after.image);
    // A change of keys that are not read may name its VM, too.
    may.extend(changed_vms(&before.whole, &after.whole).0);
    may.extend(concerned_vms(before, after));
    let missing: Vec<_> = must.difference(&changes.vms).collect();
    assert!(missing.is_empty(), "{when}: not named: {missing:?}, of {changes:?}, where this changed:\n{difference}");
    let known: BTreeSet<VmKey> = must.union(&may).cloned().collect();
    let needless: Vec<_> = changes.vms.difference(&known).collect();
    assert!(needless.is_empty(), "{when}: named, and did not change: {needless:?}, where this changed:\n{difference}");
    let asleep: Vec<_> = due_wakes(before, after).into_iter().filter(|wake| !changes.wakes.contains(wake)).collect();
    assert!(asleep.is_empty(), "{when}: not woken: {asleep:?}, where this changed:\n{difference}");
    if difference.is_empty() {
        assert!(changes.wakes.is_empty(), "{when}: nothing changed, and yet: {:?}", changes.wakes);
    }
}

/// The events between two comparisons.
async fn step(northbound: &Northbound, writer: &mut Writer, observer: &mut Observer) -> (String, usize) {
    let kind = writer.numbers.below(8);
    let count = if kind < 5 { 1 } else { writer.numbers.below(6) };
    if kind >= 5 {
        observer.connection = None;
    }
    let mut committed = 0;
    for _ in 0..count {
        committed += usize::from(writer.write().await == Written::Committed);
    }
    if kind == 7 && northbound.members().len() == 1 {
        northbound.kill9();
        northbound.start_again().await;
    } else if kind == 7 && writer.numbers.below(4) == 0 {
        northbound.move_leader();
    }
    observer.catch_up().await;
    let what = match kind {
        0..=4 => "one transaction was seen",
        5 | 6 => "transactions were missed",
        _ => "transactions were missed, and the server was another",
    };
    (what.to_owned(), committed)
}

/// The cases that a history covered: without any, it would be no proof.
#[derive(Debug, Default)]
struct Seen {
    steps: usize,
    committed: usize,
    /// Steps after which VMs were named.
    named: usize,
    /// Steps before which the observer was disconnected: it was sent everything, or only the missed updates.
    synced: [usize; 2],
}

/// One writer and one observer, which is compared after each step.
async fn follow(northbound: &Northbound, seed: u64, steps: usize, seen: &mut Seen) {
    let mut writer = Writer::new(&northbound.remote(), seed);
    writer.begin().await;
    let mut observer = Observer::new(&northbound.remote()).await;
    observer.take_changes();
    let mut before = Moment::now(northbound).await;
    for number in 0..steps {
        let (what, count) = step(northbound, &mut writer, &mut observer).await;
        let when = format!("seed {seed}, step {number} ({what})");
        let after = Moment::now(northbound).await;
        let changes = observer.take_changes();
        assert_equal(&observer.view.read(), &after, &when);
        assert_noted(&changes, &before, &after, &when);
        seen.steps += 1;
        seen.committed += count;
        seen.named += usize::from(!changes.vms.is_empty());
        before = after;
    }
    (0..2).for_each(|kind| seen.synced[kind] += observer.syncs[kind]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_noted_once_it_is_seen_or_synced_and_no_other() {
    let mut seen = Seen::default();
    for seed in 0..3 * soak() {
        let northbound = Northbound::start().await;
        follow(&northbound, seed, 150, &mut seen).await;
    }
    let Seen { steps, committed, named, synced: [whole, _] } = seen;
    assert!(committed > steps / 2 && named > steps / 8 && whole > steps / 5, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_recorded_where_a_cluster_sends_only_the_missed_updates() {
    let mut seen = Seen::default();
    for seed in 0..soak() {
        let northbound = Northbound::start_cluster().await;
        follow(&northbound, 1_000 + seed, 80, &mut seen).await;
    }
    let Seen { steps, committed, named, synced: [_, resumed] } = seen;
    assert!(committed > steps / 2 && named > steps / 8 && resumed > steps / 5, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replicas_of_several_writers_and_of_a_client_that_is_cut_off_all_the_time_equal_the_database() {
    for seed in 0..2 * soak() {
        let northbound = Northbound::start().await;
        let tcp = northbound.tcp_remote().await;
        let gate = Gate::to(tcp.trim_start_matches("tcp:")).await;
        let mut writers: Vec<Writer> =
            (0..4).map(|writer| Writer::new(&northbound.remote(), 2_000 + 10 * seed + writer)).collect();
        writers[0].begin().await;
        let (mut steady, mut cut) = (Observer::new(&northbound.remote()).await, Observer::new(&gate.remote()).await);
        let mut before = Moment::now(&northbound).await;
        steady.take_changes();
        cut.take_changes();
        for round in 0..4 {
            let committed;
            (writers, committed) = storm(&northbound, writers, (&gate, &mut cut), round).await;
            let when = format!("seed {seed}, round {round}");
            assert!(committed > 50, "{when}: {committed} transactions");
            steady.catch_up().await;
            cut.catch_up().await;
            let after = Moment::now(&northbound).await;
            for observer in [&steady, &cut] {
                assert_equal(&observer.view.read(), &after, &when);
                let missing = &changed_vms(&before.image, &after.image).0 - &observer.take_changes().vms;
                assert!(missing.is_empty(), "{when}: not named: {missing:?}");
            }
            for writer in &mut writers {
                writer.catch_up().await;
                assert_equal(&writer.view.read(), &after, &when);
            }
            before = after;
        }
        assert!(cut.syncs[0] > 4, "{:?}", cut.syncs);
    }
}

/// All write at once. Meanwhile an observer's connection is cut, and in every second round the server is killed.
async fn storm(
    northbound: &Northbound,
    writers: Vec<Writer>,
    (gate, cut): (&Gate, &mut Observer),
    round: u64,
) -> (Vec<Writer>, usize) {
    let write = |mut writer: Writer| async move {
        let mut committed = 0;
        for _ in 0..80 {
            committed += usize::from(writer.write().await == Written::Committed);
            if writer.numbers.below(40) == 0 {
                writer.hang_up();
            }
        }
        (writer, committed)
    };
    let tasks: Vec<_> = writers.into_iter().map(|writer| tokio::spawn(write(writer))).collect();
    for time in 0..4 {
        gate.shut();
        if let Some(connection) = cut.connection.take() {
            connection.closed().await;
        }
        if time == 1 && round % 2 == 1 {
            northbound.kill9();
            northbound.start_again().await;
        }
        gate.open();
        cut.catch_up().await;
    }
    let mut writers = Vec::new();
    let mut committed = 0;
    for task in tasks {
        let (writer, count) = task.await.expect("a writer");
        writers.push(writer);
        committed += count;
    }
    (writers, committed)
}
