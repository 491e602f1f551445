//! The connection to the northbound database cut at every byte, in both directions, while VMs come, change and go: each
//! change is made exactly once.
//!
//! ```text
//!   changes of VMs -> writer -> link ---- Cutter ----> ovsdb-server -> its log: the transactions, in their order
//! ```
//!
//! The service's writing path runs inside the test, on a fresh link and a fresh proxy for each cut, so that thousands of
//! cuts cost seconds. A run takes a sample, another one each time, and says how to have the same again:
//! `OVN_KUBEVIRT_CUT_SEED` chooses it, `OVN_KUBEVIRT_CUT_STRIDE` says that one byte of so many is cut at. `make soak`
//! cuts at each.

mod harness;
mod outcomes;
mod scenario;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use self::harness::{Case, Ran, Sample, Servers, TestBed, block_on, in_parallel};
use self::scenario::{Pace, Start};
use crate::support::cutter::{Carried, Cut, Direction};

/// The bytes of a connection that is not cut, and their results.
struct Streams {
    start: Start,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    differences: BTreeMap<String, Vec<String>>,
}

impl Streams {
    /// One for each start.
    fn all() -> [Self; 2] {
        [Start::Fresh, Start::Successor].map(|start| Self::of(Servers::Standalone, start))
    }

    fn of(servers: Servers, start: Start) -> Self {
        let Ran { mut carried, written, .. } = block_on(async {
            let mut stage = TestBed::new(servers).await;
            stage.run(&Case { start, pace: Pace::Patient, cuts: Vec::new() }).await
        });
        assert_eq!(carried.len(), 1, "connections of a run without a cut");
        let Carried { to_server, to_client, .. } = carried.remove(0);
        Self { start, to_server, to_client, differences: written.differences }
    }

    fn stream(&self, direction: Direction) -> &[u8] {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }

    /// Every place at which the connection can be cut, both ways: between messages, and inside them, where it makes no
    /// difference whether the cut is after one byte or before the next, for they come together.
    fn cuts(&self) -> (Vec<Cut>, Vec<Cut>) {
        let (mut between, mut inside) = (Vec::new(), Vec::new());
        for direction in [Direction::ToServer, Direction::ToClient] {
            let stream = self.stream(direction);
            let ends = ends(stream);
            between.extend(ends.iter().map(|at| Cut::After(direction, *at)));
            between.extend(ends.iter().filter(|at| **at < stream.len() as u64).map(|at| Cut::Before(direction, *at)));
            let within = (0..stream.len() as u64).filter(|at| ends.binary_search(at).is_err());
            inside.extend(within.map(|at| Cut::After(direction, at)));
        }
        (between, inside)
    }

    /// The requests that write, each by the range of its bytes; the first takes office.
    fn writes(&self) -> Vec<(u64, u64)> {
        let ends = ends(&self.to_server);
        let request = |range: &&[u64]| -> Value {
            let bytes = &self.to_server[usize::try_from(range[0]).unwrap()..usize::try_from(range[1]).unwrap()];
            serde_json::from_slice(bytes).expect("a request")
        };
        let writes = |request: &Value| request["method"] == "transact" && request["params"][1]["op"] != "select";
        ends.windows(2).filter(|range| writes(&request(range))).map(|range| (range[0], range[1])).collect()
    }

    /// A case of this start.
    fn case(&self, cuts: impl Into<Vec<Cut>>) -> Case {
        Case { start: self.start, pace: Pace::Patient, cuts: cuts.into() }
    }
}

/// Where the messages of a stream end; the first "ends" at 0.
fn ends(stream: &[u8]) -> Vec<u64> {
    let mut messages = serde_json::Deserializer::from_slice(stream).into_iter::<Value>();
    let mut ends = vec![0];
    while let Some(message) = messages.next() {
        message.expect("a stream of JSON");
        ends.push(messages.byte_offset() as u64);
    }
    ends
}

/// The rows' histories are those of a run without cuts, difference by difference.
fn check_history(references: &[Streams], case: &Case, ran: &Ran) {
    if case.pace == Pace::Hasty {
        return;
    }
    let reference = references.iter().find(|reference| reference.start == case.start).expect("a reference");
    assert_eq!(ran.written.differences, reference.differences, "what was written to each row");
}

#[test]
fn a_connection_cut_at_any_byte_makes_each_change_exactly_once() {
    let sample = Sample::from_environment();
    let references = Streams::all();
    let mut cases = Vec::new();
    for streams in &references {
        let (to_server, to_client) = (streams.to_server.len(), streams.to_client.len());
        println!("{:?}: {to_server} bytes to the server, {to_client} to the client", streams.start);
        let (between, inside) = streams.cuts();
        let cuts = between.into_iter().chain(sample.of(1.0, inside));
        cases.extend(cuts.map(|cut| streams.case([cut])));
    }
    in_parallel(Servers::Standalone, &sample, &cases, async |stage, case| {
        let ran = stage.run(case).await;
        assert!(ran.carried[0].cut, "the cut was never reached");
        assert!(ran.carried.len() <= 2, "{} connections", ran.carried.len());
        check_history(&references, case, &ran);
    });
}

#[test]
fn changes_while_the_connection_is_lost_are_made_at_most_once() {
    let sample = Sample::from_environment();
    let mut cases = Vec::new();
    for streams in &Streams::all() {
        let (between, inside) = streams.cuts();
        let cuts = sample.of(20.0, between).into_iter().chain(sample.of(0.5, inside));
        cases.extend(cuts.map(|cut| Case { pace: Pace::Hasty, ..streams.case([cut]) }));
    }
    in_parallel(Servers::Standalone, &sample, &cases, async |stage, case| drop(stage.run(case).await));
}

#[test]
fn a_connection_that_is_cut_while_it_mends_another_ones_cut_does_no_harm() {
    let sample = Sample::from_environment();
    let references = Streams::all();
    let mut cases = Vec::new();
    for streams in &references {
        let (between, inside) = streams.cuts();
        for first in sample.of(0.3, between.into_iter().chain(inside)) {
            let direction = if sample.choose(cases.len(), 2) == 0 { Direction::ToServer } else { Direction::ToClient };
            let length = streams.stream(direction).len();
            // The second connection is the shorter, the later the first was cut.
            let at = sample.choose(cases.len() + 1, length).min(sample.choose(cases.len() + 2, length));
            cases.push(streams.case([first, Cut::After(direction, at)]));
        }
    }
    in_parallel(Servers::Standalone, &sample, &cases, async |stage, case| {
        let ran = stage.run(case).await;
        assert!(ran.carried[0].cut, "the first cut was never reached");
        check_history(&references, case, &ran);
    });
}

/// The member sends its own state as well, and the growth of its log: the bytes differ a little from run to run, and a cut
/// near its end may come too late. A cluster's members are slower than a server alone.
fn cut_a_cluster(servers: Servers, weight: f64) {
    let sample = Sample::from_environment();
    let reference = Streams::of(servers, Start::Successor);
    let (between, inside) = reference.cuts();
    let cuts = sample.of(20.0 * weight, between).into_iter().chain(sample.of(weight, inside));
    // The epoch of another member fences off the bytes that a member is given late.
    let late = reference.writes().into_iter().map(|(from, to)| Cut::Late { from, to, until: u64::MAX });
    let cases: Vec<Case> = cuts.chain(late).map(|cut| reference.case([cut])).collect();
    let (made, resumed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let references = [reference];
    in_parallel(servers, &sample, &cases, async |stage, case| {
        let ran = stage.run(case).await;
        made.fetch_add(usize::from(ran.carried[0].cut), Ordering::Relaxed);
        resumed.fetch_add(usize::from(ran.resumed), Ordering::Relaxed);
        let answer = ran.late_answer.as_ref().map_or_else(String::new, |answer| answer["result"].to_string());
        assert_eq!(answer.contains("timed out"), matches!(case.cuts[0], Cut::Late { .. }), "{answer}");
        check_history(&references, case, &ran);
    });
    let (made, resumed, cases) = (made.into_inner(), resumed.into_inner(), cases.len());
    assert!(made * 10 >= cases * 9, "{made} of {cases} cuts were made");
    // A connection that was cut before its first sync cannot be resumed.
    assert!(resumed * 10 >= cases, "{resumed} of {cases} connections were resumed");
}

#[test]
fn on_a_cluster_the_client_resumes_behind_a_cut_and_each_change_is_made_exactly_once() {
    cut_a_cluster(Servers::Member, 0.5);
}

#[test]
fn behind_a_cut_another_member_of_the_cluster_is_used_and_each_change_is_made_exactly_once() {
    cut_a_cluster(Servers::Cluster, 0.25);
}

#[test]
fn a_transaction_over_which_the_connection_breaks_again_and_again_is_taken_apart_and_done_once() {
    let sample = Sample::from_environment();
    let references = Streams::all();
    let [_, successor] = &references;
    let mut cases = Vec::new();
    for streams in &references {
        // A connection after the first one: the handshake, its epoch, and the transaction once more.
        let (_, in_office) = successor.writes()[0];
        for (from, to) in streams.writes().into_iter().skip(1) {
            let halfway = (to - from) / 2;
            let again = Cut::After(Direction::ToServer, in_office + halfway);
            cases.push(streams.case([Cut::After(Direction::ToServer, from + halfway), again, again]));
        }
    }
    in_parallel(Servers::Standalone, &sample, &cases, async |stage, case| {
        let ran = stage.run(case).await;
        assert!(ran.carried.len() == 4 && ran.carried[..3].iter().all(|carried| carried.cut), "three cuts");
        check_history(&references, case, &ran);
    });
}

#[test]
fn a_transaction_that_comes_late_commits_before_the_next_connections_epoch_or_never() {
    let sample = Sample::from_environment();
    let references = Streams::all();
    let [_, successor] = &references;
    let (_, in_office) = successor.writes()[0];
    let mut cases = Vec::new();
    for streams in &references {
        for (number, (from, to)) in streams.writes().into_iter().enumerate() {
            // Before each message of the next connection: its handshake, and then the transaction that was lost, and
            // those that follow.
            let handshake = ends(&successor.to_server).into_iter().filter(|end| *end <= in_office);
            let first = if number == 0 { to } else { from };
            let rest = ends(&streams.to_server)
                .into_iter()
                .filter(|end| *end > first && *end < streams.to_server.len() as u64);
            let places = handshake.chain(rest.map(|end| end - first + in_office)).chain([u64::MAX]);
            cases.extend(places.map(|until| streams.case([Cut::Late { from, to, until }])));
        }
    }
    // The same with changes that come meanwhile: by then the late one may be another than is wanted.
    let hasty = sample.of(50.0, cases.clone()).into_iter().map(|case| Case { pace: Pace::Hasty, ..case });
    cases.extend(hasty);
    in_parallel(Servers::Standalone, &sample, &cases, async |stage, case| {
        let ran = stage.run(case).await;
        let Cut::Late { until, .. } = case.cuts[0] else { unreachable!("all of them are late") };
        let answer = ran.late_answer.as_ref().expect("an answer to what was late");
        let results = answer["result"].as_array().expect("a result for each operation");
        let error = results.iter().find_map(|result| result["error"].as_str());
        let expected = if until < in_office { None } else { Some("timed out") };
        assert_eq!(error, expected, "{answer}");
        check_history(&references, case, &ran);
    });
}
