//! Three services, each beside one member of a RAFT cluster and reaching only that one, as sidecars of ovn-central do.
//!
//! VMs are created and deleted all the time, and an accident happens. At the end every row follows the contract, and the
//! cluster's own log has the history: no port was created twice, changed its addresses, or was written without a
//! leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tokio::task::JoinHandle;

use crate::contract::bound_to;
use crate::fleet::LEASE_SECONDS;
use crate::support::raft_log::{History, Life};
use crate::support::{Northbound, Player, Port, Prepared, Service, Stage, VmOptions, eventually};

/// A VM that is there: its UID, and the node that it runs on.
type Alive = BTreeMap<String, (String, Option<&'static str>)>;

struct Sidecars {
    prepared: Prepared,
    services: Vec<Service>,
    /// Those of the test's own making.
    alive: Alive,
}

impl Sidecars {
    async fn new(name: &str, northbound: Northbound, flags: &[&str]) -> Self {
        let prepared = Stage::build(name).on(northbound).lease(LEASE_SECONDS).flags(flags).prepare().await;
        let mut this = Self { prepared, services: Vec::new(), alive: Alive::new() };
        for member in 0..3 {
            let service = this.sidecar(member).await;
            this.services.push(service);
        }
        this.make("first").await;
        this
    }

    async fn sidecar(&self, member: usize) -> Service {
        self.prepared.setup().nb(&self.northbound().members()[member].remote()).start().await
    }

    fn northbound(&self) -> &Northbound {
        &self.prepared.northbound
    }

    /// Makes a VM and waits for its port: the service that leads now writes.
    async fn make(&mut self, vm: &str) {
        let uid = self.prepared.player.create_vm(vm, VmOptions::default()).await;
        self.alive.insert(vm.to_owned(), (uid, None));
        self.prepared.port(vm).await;
    }

    /// Makes a VM whose port stays unread in the frozen member that its sidecar speaks with, and freezes the sidecar:
    /// it neither gives up nor asks again.
    async fn leave_unread(&mut self, vm: &str, member: usize) {
        self.northbound().members()[member].freeze();
        let uid = self.prepared.player.create_vm(vm, VmOptions::default()).await;
        self.alive.insert(vm.to_owned(), (uid, None));
        eventually("the port has been sent to the frozen member", || async {
            if self.northbound().members()[member].unread() > 0 { Ok(()) } else { Err("nothing is unread") }
        })
        .await;
        self.services[member].freeze();
    }

    /// Wakes a member, and waits until it has processed the requests that it was sent while it slept.
    async fn wake_member(&self, member: usize) {
        let server = &self.northbound().members()[member];
        server.thaw();
        eventually("the member follows another", || async {
            let row = server.membership()?;
            if row["leader"] == false && row["connected"] == true { Ok(()) } else { Err(row.to_string()) }
        })
        .await;
        // The member repeats a failed proposal only when the database changes.
        eventually("the member takes a transaction", || async {
            server.try_transact(json!([{"op": "insert", "table": "Logical_Switch", "row": {"name": "awake"}}]))
        })
        .await;
        eventually("the member has answered everything", || async {
            match server.unread() + server.unanswered() {
                0 => Ok(()),
                _ => Err(server.appctl(&["memory/show"])),
            }
        })
        .await;
    }

    /// Waits until the database has the contract's rows for these VMs and the test's own, and no others; then checks the history.
    async fn settled(&self, of_churn: Alive) {
        let alive: Alive = self.alive.clone().into_iter().chain(of_churn).collect();
        eventually("every VM has its row, and there is no other", || async {
            let ports = self.prepared.ports();
            let expected = alive.iter().map(|(vm, (uid, node))| self.row(vm, uid, *node, &ports));
            let expected: BTreeMap<String, Port> = expected.map(|port| (port.name.clone(), port)).collect();
            if ports == expected { Ok(()) } else { Err(difference(&ports, &expected)) }
        })
        .await;
        for vm in alive.keys() {
            self.has_status(vm).await;
        }
        self.northbound().members_agree().await;
        self.looked_back(&alive).await;
        for service in &self.services {
            assert!(service.is_running() && !service.log().contains("panicked"), "{}", service.log());
        }
    }

    /// The row that the VM should have; only its UUID and its addresses are taken from the one that is there.
    fn row(&self, vm: &str, uid: &str, node: Option<&'static str>, ports: &BTreeMap<String, Port>) -> Port {
        let there = ports.get(&self.prepared.name(vm));
        let uuid = there.map(|port| port.uuid.as_str()).unwrap_or_default();
        let addresses = there.and_then(|port| port.addresses.first()).map(String::as_str).unwrap_or_default();
        let row = self.prepared.contract_row(vm, uid, uuid, addresses);
        match node {
            Some(node) => bound_to(row, node),
            None => row,
        }
    }

    /// Waits until the VM's status has its address: no VM is forgotten.
    async fn has_status(&self, vm: &str) {
        let port = self.northbound().port(&self.prepared.name(vm)).expect("a port that was there a moment ago");
        let address = port.addresses.first().and_then(|addresses| addresses.split(' ').nth(1)).expect("MAC and IP");
        self.prepared.status(vm, &[&format!("\"{address}\"")]).await;
    }

    /// Looks through the cluster's log, from its first transaction.
    async fn looked_back(&self, alive: &Alive) {
        let log = eventually("all members have the same log", || async {
            let [first, second, third] = [0, 1, 2].map(|member| self.northbound().committed(member));
            if first == second && second == third {
                Ok(first)
            } else {
                Err(format!("{first:#?}\n{second:#?}\n{third:#?}"))
            }
        })
        .await;
        let history = History::of(&log, "default");
        for (name, life) in &history.lives {
            let once = Life { made: 1, readdressed: 0, released: usize::from(!self.is_port_of(alive, name)) };
            assert_eq!(*life, once, "{name}: {history:#?}");
        }
        assert!(history.without_epoch.is_empty(), "{:#?}", history.without_epoch);
        let numbers: Vec<u64> = history.epochs.iter().map(|epoch| number(epoch)).collect();
        assert!(numbers.is_sorted_by(|earlier, later| earlier < later), "{:?}", history.epochs);
    }

    fn is_port_of(&self, alive: &Alive, name: &str) -> bool {
        alive.keys().any(|vm| self.prepared.name(vm) == name)
    }
}

/// VMs that come, start, restart elsewhere and go, on threads of their own: they do not wait for the test.
struct Churn {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Alive>,
}

impl Churn {
    fn start(player: &Player) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(churn(player.clone(), Arc::clone(&stop)));
        Self { stop, task }
    }

    /// Ends it, and says which VMs are there.
    async fn end(self) -> Alive {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the churn does not panic")
    }
}

async fn churn(player: Player, stop: Arc<AtomicBool>) -> Alive {
    let mut alive = Alive::new();
    let name = |index: usize| format!("churn-{index}");
    for index in 0.. {
        let uid = player.create_vm(&name(index), VmOptions::default()).await;
        alive.insert(name(index), (uid, None));
        if index % 3 == 0 {
            player.start(&name(index), "n1").await;
            alive.entry(name(index)).and_modify(|vm| vm.1 = Some("n1"));
        }
        if let Some(earlier) = index.checked_sub(3).filter(|earlier| earlier % 6 == 0) {
            player.restart(&name(earlier), "n2").await;
            alive.entry(name(earlier)).and_modify(|vm| vm.1 = Some("n2"));
        }
        if let Some(earlier) = index.checked_sub(4).filter(|earlier| earlier % 6 != 0) {
            player.delete_vm(&name(earlier)).await;
            alive.remove(&name(earlier));
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    alive
}

fn number(epoch: &str) -> u64 {
    let number = epoch.split('.').next().and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{epoch} has no number"))
}

/// The rows that are not as they should be.
fn difference(ports: &BTreeMap<String, Port>, expected: &BTreeMap<String, Port>) -> String {
    let wrong = ports.iter().filter(|(name, port)| expected.get(*name) != Some(port)).map(|(_, port)| port);
    let missing = expected.keys().filter(|name| !ports.contains_key(*name));
    format!("wrong: {:#?}\nmissing: {:?}", wrong.collect::<Vec<_>>(), missing.collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_moves_of_the_leadership_over_all_members_lose_no_port_and_leave_no_vm_waiting() {
    let mut sidecars = Sidecars::new("moves", Northbound::start_cluster().await, &[]).await;
    let churn = Churn::start(&sidecars.prepared.player);
    for round in 0..10 {
        let next = (sidecars.northbound().leader() + 1) % 3;
        sidecars.northbound().move_leader_to(next).await;
        // Only the sidecar of that member can have made it.
        sidecars.make(&format!("round-{round}")).await;
    }
    sidecars.settled(churn.end().await).await;
    for service in &sidecars.services {
        let log = service.log();
        assert!(log.matches("in office").count() >= 2, "it had its turn again and again\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_dies_with_its_member_and_its_sidecar_loses_no_port() {
    let mut sidecars = Sidecars::new("host-dies", Northbound::start_cluster().await, &[]).await;
    let churn = Churn::start(&sidecars.prepared.player);
    sidecars.make("before").await;
    let old = sidecars.northbound().leader();
    sidecars.services[old].kill9();
    sidecars.northbound().members()[old].kill9();
    sidecars.make("meanwhile").await;
    sidecars.northbound().members()[old].start_again().await;
    sidecars.services[old] = sidecars.sidecar(old).await;
    sidecars.make("after").await;
    sidecars.settled(churn.end().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_sleeps_while_another_takes_over_changes_nothing_when_it_wakes() {
    let mut sidecars = Sidecars::new("sidecar-sleeps", Northbound::start_cluster().await, &[]).await;
    let churn = Churn::start(&sidecars.prepared.player);
    sidecars.make("before").await;
    let old = sidecars.northbound().leader();
    sidecars.services[old].freeze();
    // Only the sidecar of the leading member may write.
    sidecars.northbound().move_leader_to((old + 1) % 3).await;
    sidecars.make("meanwhile").await;
    sidecars.services[old].thaw();
    sidecars.make("after").await;
    sidecars.northbound().move_leader_to(old).await;
    sidecars.make("in-office-again").await;
    sidecars.settled(churn.end().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_sleeps_while_another_leads_changes_nothing_when_it_wakes() {
    let probing = ["--nb-probe-interval", "1"];
    let mut sidecars = Sidecars::new("member-sleeps", Northbound::start_cluster().await, &probing).await;
    let churn = Churn::start(&sidecars.prepared.player);
    sidecars.make("before").await;
    let old = sidecars.northbound().leader();
    sidecars.northbound().members()[old].freeze();
    sidecars.make("meanwhile").await;
    sidecars.northbound().members()[old].thaw();
    sidecars.make("after").await;
    sidecars.settled(churn.end().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_cable_is_out_is_left_by_its_sidecar_and_catches_up() {
    let mut sidecars = Sidecars::new("cable", Northbound::start_cluster_on_hosts().await, &[]).await;
    let churn = Churn::start(&sidecars.prepared.player);
    sidecars.make("before").await;
    let old = sidecars.northbound().leader();
    sidecars.northbound().cut_off(old);
    sidecars.make("meanwhile").await;
    sidecars.northbound().reconnect(old);
    sidecars.make("after").await;
    sidecars.settled(churn.end().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_epoch_no_service_writes_even_if_it_is_wiped_repeatedly() {
    let mut sidecars = Sidecars::new("wiped", Northbound::start_cluster().await, &[]).await;
    let churn = Churn::start(&sidecars.prepared.player);
    for round in 0..3 {
        sidecars.northbound().nbctl(&["clear", "NB_Global", ".", "external_ids"]);
        sidecars.make(&format!("round-{round}")).await;
    }
    sidecars.settled(churn.end().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_sent_to_a_sleeping_member_in_an_old_epoch_is_not_committed_in_a_new_one() {
    let mut sidecars = Sidecars::new("late", Northbound::start_cluster().await, &[]).await;
    let old = sidecars.northbound().leader();
    sidecars.leave_unread("late", old).await;
    sidecars.northbound().leader_other_than(old).await;
    // By another sidecar, once the Lease has run out; and the VM goes before the member wakes.
    sidecars.prepared.port("late").await;
    sidecars.prepared.player.delete_vm("late").await;
    sidecars.alive.remove("late");
    let name = sidecars.prepared.name("late");
    eventually("the port is gone", || async {
        sidecars.northbound().port(&name).map_or(Ok(()), |port| Err(format!("{port:#?}")))
    })
    .await;
    sidecars.wake_member(old).await;
    sidecars.looked_back(&sidecars.alive).await;
    sidecars.services[old].thaw();
    sidecars.make("after").await;
    sidecars.settled(Alive::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_sent_to_a_sleeping_member_is_not_committed_once_the_epoch_is_wiped() {
    let mut sidecars = Sidecars::new("late-wiped", Northbound::start_cluster().await, &[]).await;
    let old = sidecars.northbound().leader();
    for member in [0, 1, 2].into_iter().filter(|member| *member != old) {
        // No other process may become leader: the wiped epoch stays absent.
        sidecars.services[member].freeze();
    }
    sidecars.leave_unread("late", old).await;
    sidecars.northbound().leader_other_than(old).await;
    sidecars.northbound().nbctl(&["clear", "NB_Global", ".", "external_ids"]);
    sidecars.wake_member(old).await;
    let name = sidecars.prepared.name("late");
    assert_eq!(sidecars.northbound().port(&name), None);
    sidecars.services.iter().for_each(Service::thaw);
    sidecars.prepared.port("late").await;
    sidecars.settled(Alive::new()).await;
}
