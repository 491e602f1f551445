//! The service's writing path inside the test, the servers that it runs on, and the choice of the places to cut at.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use ovn_kubevirt::controller::{Link, Office, Report};
use ovn_kubevirt::ovn;
use ovn_kubevirt::ovsdb::Shared;
use ovn_kubevirt::plan::Problem;
use serde_json::Value;

use super::scenario::{self, Effects, Pace, Start, Written};
use crate::support::cutter::{Carried, Cut, Cutter};
use crate::support::eventually::deadline;
use crate::support::history::History;
use crate::support::in_process::InProcess;
use crate::support::{Northbound, Port, eventually};

/// One byte of so many is cut at, unless `OVN_KUBEVIRT_CUT_STRIDE` says otherwise.
const DEFAULT_STRIDE: u64 = 199;
/// Servers restart after so many cases: they compact a log that has grown large.
const CASES_A_SERVER: usize = 500;

/// The service's writing path, and how often it was asked whether it is idle.
pub(super) struct Service {
    pub(super) northbound: Arc<Shared<ovn::Northbound>>,
    of: InProcess,
    looks: usize,
}

/// Starts it on these remotes; on any member of a cluster, leading or not.
pub(super) fn start_service(remotes: &str) -> Service {
    let of = InProcess::on(remotes).any_member().default_switch(scenario::DEFAULT_SWITCH).room(1_000).start();
    Service { northbound: Arc::clone(&of.northbound), of, looks: 0 }
}

impl Service {
    /// Waits until the writer has no work and no transaction in flight.
    async fn idle(&mut self) {
        let looks = &mut self.looks;
        self.of.idle(async |of| looked(of, looks).await).await;
    }

    /// Waits until it is in office by another epoch than this.
    pub(super) async fn office(&mut self, other_than: Option<&Office>) -> Arc<Office> {
        let before = other_than.map(|office| office.epoch.value.as_str());
        let in_office = self.of.link.wait_for(|link| match link {
            Link::Up(office) => before != Some(office.epoch.value.as_str()),
            Link::NotYet | Link::Down(_) | Link::Following | Link::Barred(_) => false,
        });
        let linked = tokio::time::timeout(deadline(), in_office).await.expect("an office in time");
        match &*linked.unwrap_or_else(|_| panic!("the link has ended")) {
            Link::Up(office) => Arc::clone(office),
            Link::NotYet | Link::Down(_) | Link::Following | Link::Barred(_) => unreachable!("waited for above"),
        }
    }

    /// The error of a task that has ended; no task should end.
    fn ended(&mut self) -> Option<String> {
        self.of.tasks.try_join_next().map(|ended| ended.unwrap_or_else(|error| error.to_string()))
    }
}

/// Waits until the writer has decided all that it was fed: the status of a VM without a switch comes then.
async fn looked(service: &mut InProcess, looks: &mut usize) {
    *looks += 1;
    let switch = scenario::hopeless_switch(*looks);
    service.feed([scenario::hopeless(*looks)]);
    let reported = async {
        while let Some(report) = service.reports.recv().await {
            let Report::Status { status, .. } = report else { continue };
            let mut problems = status.problems();
            if problems.any(|problem| *problem == Problem::SwitchNotFound(switch.clone())) {
                return;
            }
        }
    };
    let reported = tokio::time::timeout(deadline(), reported).await;
    assert!(reported.is_ok(), "the writer looks at nothing any more: {:?}", service.tasks.try_join_next());
}

/// One run of the scenario.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) start: Start,
    pub(super) pace: Pace,
    pub(super) cuts: Vec<Cut>,
}

/// The results of a run.
pub(super) struct Ran {
    pub(super) carried: Vec<Carried>,
    pub(super) written: Written,
    pub(super) late_answer: Option<Value>,
    /// A connection to a member of a cluster began with only the updates that the client had missed.
    pub(super) resumed: bool,
}

/// The server of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Servers {
    /// A standalone server: it sends everything again on every connection.
    Standalone,
    /// The one member of a RAFT cluster: it knows the last transaction that the client has seen, and sends the later ones.
    Member,
    /// Three members: a connection after a cut one is to another of them.
    Cluster,
}

/// Servers, and the runs on them.
pub(super) struct TestBed {
    pub(super) northbound: Northbound,
    runs: usize,
}

impl TestBed {
    pub(super) async fn new(servers: Servers) -> Self {
        let northbound = match servers {
            Servers::Standalone => Northbound::start().await,
            Servers::Member => Northbound::start_cluster_of(1).await,
            Servers::Cluster => Northbound::start_cluster().await,
        };
        Self { northbound, runs: 0 }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.northbound.dir().join(name)
    }

    /// A proxy to each server, from another one on at each run. The cuts are the first one's.
    fn cutters(&mut self, cuts: &[Cut]) -> Vec<Cutter> {
        self.runs += 1;
        let members = self.northbound.members();
        let proxies = (0..members.len()).map(|place| {
            let server = members[(self.runs + place) % members.len()].remote();
            let socket = self.file(&format!("cut-{}-{place}.sock", self.runs));
            let cuts = if place == 0 { cuts.to_vec() } else { Vec::new() };
            Cutter::start(server.trim_start_matches("unix:").as_ref(), &socket, cuts)
        });
        proxies.collect()
    }

    /// A proxy to the first server.
    pub(super) fn cutter(&mut self, cuts: &[Cut]) -> Cutter {
        self.cutters(cuts).remove(0)
    }

    /// The log of the server that has everything.
    fn history(&self) -> History {
        let remote = self.northbound.members()[self.northbound.leader()].remote();
        let socket = PathBuf::from(remote.trim_start_matches("unix:"));
        History::from_now(socket.with_extension("db"))
    }

    /// Runs the scenario on connections that are cut, and returns their bytes.
    ///
    /// # Panics
    /// When anything but the scenario's effects, each of them once, is found in the database or in its log.
    pub(super) async fn run(&mut self, case: &Case) -> Ran {
        scenario::reset(&self.northbound, case.start);
        let history = self.history();
        let cutters = self.cutters(&case.cuts);
        let remotes: Vec<String> = cutters.iter().map(Cutter::remote).collect();
        let mut service = start_service(&remotes.join(","));
        let cutter = &cutters[0];
        let steps = scenario::steps(case.pace);
        let (count, last) = (steps.len(), steps.last().expect("a step").ports.clone());
        for (number, step) in steps.into_iter().enumerate() {
            service.of.feed(step.changes);
            let waits = number + 1 == count || case.pace == Pace::Patient;
            eventually(&format!("the database is as it should be after step {number}"), || {
                let ports = self.northbound.ports();
                let seen = match service.ended() {
                    Some(ended) => panic!("{ended}"),
                    None if ports == step.ports || (!waits && cutter.has_cut(0)) => Ok(()),
                    None => Err(difference(&ports, &step.ports)),
                };
                std::future::ready(seen)
            })
            .await;
        }
        service.idle().await;
        // The bytes that were kept back are delivered now.
        cutter.deliver().await;
        service.idle().await;
        let difference = difference(&self.northbound.ports(), &last);
        assert!(difference.is_empty(), "the database has changed after the last step:{difference}");
        let written = scenario::written(&history.committed());
        check_effects(case.pace, &written.effects);
        check_epochs(&written.epochs, cutters.iter().map(Cutter::connections).sum());
        let resumed = cutters.iter().flat_map(Cutter::carried).any(|carried| has_resumed(&carried));
        Ran { carried: cutter.carried(), written, late_answer: cutter.late_answer(), resumed }
    }
}

/// Whether the answer to `monitor_cond_since` says that the server knew the transaction that was named (ovsdb-server(7)).
fn has_resumed(carried: &Carried) -> bool {
    carried.to_client.windows(15).any(|bytes| bytes == b"\"result\":[true,")
}

/// The rows that are not as they should be.
fn difference(found: &[Port], expected: &[Port]) -> String {
    let wrong = found.iter().filter(|port| !expected.contains(port)).map(|port| format!("\n  found: {port:?}"));
    let missing = expected.iter().filter(|port| !found.contains(port)).map(|port| format!("\n  instead of: {port:?}"));
    wrong.chain(missing).collect()
}

/// Each change was made once. A change that became needless before that may be missing.
fn check_effects(pace: Pace, effects: &Effects) {
    let once = scenario::effects();
    match pace {
        Pace::Patient => assert_eq!(*effects, once, "what was written to each row"),
        Pace::Hasty => {
            for (row, effects) in effects {
                let once = once.get(row).unwrap_or_else(|| panic!("nothing is to be done to {row}: {effects:?}"));
                let inserted = |effects: &[String]| effects.iter().filter(|effect| *effect == "inserted").count();
                let within = effects.len() <= once.len() && inserted(effects) <= inserted(once);
                assert!(within, "{row}: {effects:?}, where this would have done: {once:?}");
            }
        }
    }
}

/// Each epoch is greater than the one before, and no connection has taken two.
fn check_epochs(epochs: &[String], connections: usize) {
    let numbers: Vec<Option<u64>> =
        epochs.iter().map(|epoch| epoch.split('.').next().and_then(|number| number.parse().ok())).collect();
    assert!(numbers.iter().all(Option::is_some) && numbers.is_sorted_by(|a, b| a < b), "{epochs:?}");
    assert!(numbers.len() <= connections, "epochs of {connections} connections: {epochs:?}");
}

/// Which cases a run takes.
pub(super) struct Sample {
    stride: u64,
    seed: u64,
}

impl Sample {
    pub(super) fn from_environment() -> Self {
        let number = |variable: &str| {
            let text = std::env::var(variable).ok()?;
            Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is no number")))
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
        let stride = number("OVN_KUBEVIRT_CUT_STRIDE").unwrap_or(DEFAULT_STRIDE).max(1);
        let seed = number("OVN_KUBEVIRT_CUT_SEED").unwrap_or(u64::from(now.subsec_nanos()));
        Self { stride, seed }
    }

    /// One of so many of them, from another one on with each seed. With `weight` 2, twice as many.
    pub(super) fn of<T>(&self, weight: f64, all: impl IntoIterator<Item = T>) -> Vec<T> {
        let stride = (self.stride as f64 / weight).ceil().max(1.0) as usize;
        let offset = usize::try_from(self.seed).expect("a number of 64 bits") % stride;
        all.into_iter().skip(offset).step_by(stride).collect()
    }

    /// A number below `limit` that is the same at each run with this seed.
    pub(super) fn choose(&self, number: usize, limit: usize) -> u64 {
        // SplitMix64 (Steele, Lea and Flood 2014).
        let mut mixed = self.seed.wrapping_add((number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % (limit as u64).max(1)
    }
}

/// Says which case it was when a check fails, and that the others need not go on.
struct Announced<'a, T: std::fmt::Debug>(&'a T, &'a Sample, &'a AtomicUsize);

impl<T: std::fmt::Debug> Drop for Announced<'_, T> {
    fn drop(&mut self) {
        let Self(case, Sample { stride, seed }, next) = self;
        if std::thread::panicking() {
            next.store(usize::MAX / 2, Ordering::Relaxed);
            eprintln!("{case:?}; again with OVN_KUBEVIRT_CUT_STRIDE={stride} OVN_KUBEVIRT_CUT_SEED={seed}");
        }
    }
}

/// Runs all cases, several at a time, each on a server that no other case uses meanwhile.
pub(super) fn in_parallel<T, F>(servers: Servers, sample: &Sample, cases: &[T], run: F)
where
    T: std::fmt::Debug + Sync,
    F: AsyncFn(&mut TestBed, &T) + Sync,
{
    let (began, next) = (Instant::now(), AtomicUsize::new(0));
    // A case waits most of its time: for a server, for a link to be tried again.
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let workers = if servers == Servers::Cluster { cores } else { cores * 2 };
    println!("{} cases, OVN_KUBEVIRT_CUT_STRIDE={} OVN_KUBEVIRT_CUT_SEED={}", cases.len(), sample.stride, sample.seed);
    let work = async || {
        let mut bed = TestBed::new(servers).await;
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            if bed.runs >= CASES_A_SERVER {
                bed = TestBed::new(servers).await;
            }
            let _announced = Announced(case, sample, &next);
            run(&mut bed, case).await;
        }
    };
    let ended: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers.min(cases.len())).map(|_| scope.spawn(|| block_on(work()))).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    ended.into_iter().for_each(|ended| ended.unwrap_or_else(|panic| resume_unwind(panic)));
    println!("{} cases in {:?}", cases.len(), began.elapsed());
}

/// Runs a future on a runtime of this thread alone: while the test looks, the service does not run.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}
