//! `Outcome` is true for a transaction on a connection that breaks, and the epoch settles the unknown ones.
//!
//! The link takes office as in the service, and the test sends a transaction of its own over its connection.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ovn_kubevirt::controller::Office;
use ovn_kubevirt::ovsdb::{Atom, Datum, Mutation, Mutator, Operation, Outcome, RejectionKind, Transaction};
use serde_json::{Value, json};
use uuid::Uuid;

use super::ends;
use super::harness::{Sample, Servers, Service, TestBed, block_on, in_parallel, start_service};
use super::scenario::{self, BLUE, Start};
use crate::support::cutter::{Carried, Cut, Cutter, Direction};
use crate::support::eventually::deadline;
use crate::support::{Northbound, eventually};

/// The name of the row that a test inserts. All UUIDs and epochs are of one length, and so are all its transactions.
const PROBE: &str = "probe";

/// Inserts the row, by the epoch of this office or by none.
fn insertion(fence: Option<&Office>) -> Transaction {
    let row = Uuid::new_v4();
    let column = |text: &str| Datum::One(Atom::from(text));
    let insert = Operation::Insert { table: "Logical_Switch_Port", uuid: row, row: vec![("name", column(PROBE))] };
    let refer = Mutation { column: "ports", mutator: Mutator::Insert, value: Datum::Set(vec![row.into()]) };
    let refer = Operation::Mutate { table: "Logical_Switch", uuid: BLUE, mutations: vec![refer] };
    Transaction { fence: fence.map(|office| office.epoch.fence.clone()), operations: vec![insert, refer] }
}

fn is_there(northbound: &Northbound) -> bool {
    northbound.port(PROBE).is_some()
}

/// The service in office on a fresh database, through a proxy.
struct InOffice {
    cutter: Cutter,
    service: Service,
    office: Arc<Office>,
}

impl InOffice {
    async fn on(stage: &mut TestBed, cuts: Vec<Cut>) -> Self {
        scenario::reset(&stage.northbound, Start::Successor);
        let cutter = stage.cutter(&cuts);
        let mut service = start_service(&cutter.remote());
        let office = service.office(None).await;
        Self { cutter, service, office }
    }

    /// The link has made a new connection and raised the epoch over it: a transaction that is not committed now never will be.
    async fn barrier(&mut self) {
        self.office = self.service.office(Some(&self.office)).await;
    }
}

/// The bytes of an undisturbed transaction: the ranges of its bytes both ways, and where messages end.
struct Undisturbed {
    request: (u64, u64),
    answer: (u64, u64),
    ends: Vec<u64>,
}

impl Undisturbed {
    async fn of(stage: &mut TestBed, fenced: bool) -> Self {
        let InOffice { cutter, service: _service, office } = InOffice::on(stage, Vec::new()).await;
        let before = cutter.carried().remove(0);
        let outcome = office.connection.transact(&insertion(fenced.then_some(&*office))).await;
        assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
        let Carried { to_server, to_client, .. } = cutter.carried().remove(0);
        let length = |bytes: &[u8]| bytes.len() as u64;
        let ends = ends(&to_client).into_iter().filter(|end| *end > length(&before.to_client)).collect();
        let request = (length(&before.to_server), length(&to_server));
        Self { request, answer: (length(&before.to_client), length(&to_client)), ends }
    }

    /// Every byte from the first of the request to the last of the reply.
    fn cuts(&self, sample: &Sample) -> Vec<Cut> {
        let (Self { request, answer, ends }, up, down) = (self, Direction::ToServer, Direction::ToClient);
        // Before the request, after it, before, between and after the server's messages for it.
        let mut cuts = vec![Cut::Before(up, request.0), Cut::After(up, request.1), Cut::Before(down, answer.0)];
        cuts.extend(ends.iter().map(|end| Cut::After(down, *end)));
        cuts.extend(ends.iter().filter(|end| **end < answer.1).map(|end| Cut::Before(down, *end)));
        let inside = (request.0 + 1..request.1).map(|at| Cut::After(up, at));
        let inside = inside.chain((answer.0 + 1..answer.1).map(|at| Cut::After(down, at)));
        cuts.extend(sample.of(8.0, inside));
        cuts
    }
}

#[test]
fn the_outcome_of_a_transaction_is_true_whatever_byte_the_connection_is_cut_at() {
    let sample = Sample::from_environment();
    let undisturbed = block_on(async { Undisturbed::of(&mut TestBed::new(Servers::Standalone).await, true).await });
    let cases = undisturbed.cuts(&sample);
    let seen = Mutex::new(BTreeSet::new());
    in_parallel(Servers::Standalone, &sample, &cases, async |stage, cut| {
        let mut link = InOffice::on(stage, vec![*cut]).await;
        let transaction = insertion(Some(&link.office));
        let outcome = link.office.connection.transact(&transaction).await;
        let in_replica = link.service.northbound.read().port_named(PROBE).is_some();
        // Every one of these cuts is made, the last of them behind the whole reply.
        let closed = tokio::time::timeout(deadline(), link.office.connection.closed()).await;
        assert!(closed.is_ok(), "the cut was never reached");
        let after = link.office.connection.transact(&transaction).await;
        assert!(matches!(after, Outcome::NotSent), "over a connection that is gone: {after:?}");
        link.barrier().await;
        let there = is_there(&stage.northbound);
        let outcome = match outcome {
            Outcome::Committed { .. } => {
                assert!(there && in_replica, "committed: in the database {there}, in the replica {in_replica}");
                "committed"
            }
            Outcome::Unknown(_) if there => "unknown, and it is there",
            Outcome::Unknown(_) => "unknown, and it is not there",
            Outcome::NotSent => panic!("something may have been sent"),
            Outcome::Rejected(_) | Outcome::Fenced | Outcome::Raced => {
                panic!("there is no reason to refuse it: {outcome:?}")
            }
        };
        // The finding of the barrier is final: a transaction over the new connection comes after all of the old.
        let settled = link.office.connection.transact(&Transaction::default()).await;
        assert!(matches!(settled, Outcome::Committed { .. }), "{settled:?}");
        assert_eq!(is_there(&stage.northbound), there, "the row has come, or gone, behind the barrier");
        seen.lock().unwrap_or_else(PoisonError::into_inner).insert(outcome);
    });
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    let all = ["committed", "unknown, and it is not there", "unknown, and it is there"];
    assert_eq!(seen, BTreeSet::from(all), "each of these happens");
}

/// A transaction that the network keeps until the next connection has raised the epoch: the server's answer,
/// and whether the row exists then.
async fn late(fenced: bool) -> (Value, bool) {
    let stage = &mut TestBed::new(Servers::Standalone).await;
    let (from, to) = Undisturbed::of(stage, fenced).await.request;
    let mut link = InOffice::on(stage, vec![Cut::Late { from, to, until: u64::MAX }]).await;
    let outcome = link.office.connection.transact(&insertion(fenced.then_some(&*link.office))).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    link.barrier().await;
    assert!(!is_there(&stage.northbound), "it is late");
    link.cutter.deliver().await;
    let answer = link.cutter.late_answer().expect("an answer to what was late");
    (answer["result"].clone(), is_there(&stage.northbound))
}

#[tokio::test]
async fn a_transaction_that_is_late_never_commits_behind_the_next_epoch_and_without_its_fence_it_does() {
    for _ in 0..10 {
        let (answer, there) = late(true).await;
        assert_eq!((answer[0]["error"].as_str(), there), (Some("timed out"), false), "{answer}");
        let (answer, there) = late(false).await;
        assert_eq!((answer.to_string().contains("error"), there), (false, true), "{answer}");
    }
}

#[tokio::test]
async fn a_caller_that_gives_up_cancels_no_transaction_and_the_connection_continues() {
    let mut stage = TestBed::new(Servers::Standalone).await;
    let link = InOffice::on(&mut stage, Vec::new()).await;
    let transaction = insertion(Some(&link.office));
    // Never asked for, never sent.
    drop(link.office.connection.transact(&transaction));
    let nothing = link.office.connection.transact(&Transaction::default()).await;
    assert!(matches!(nothing, Outcome::Committed { .. }) && !is_there(&stage.northbound), "{nothing:?}");

    stage.northbound.freeze();
    let in_time = tokio::time::timeout(Duration::from_millis(50), link.office.connection.transact(&transaction)).await;
    assert!(in_time.is_err(), "a server that is stopped answers: {in_time:?}");
    stage.northbound.thaw();
    eventually("what the caller gave up is done all the same", async || {
        if is_there(&stage.northbound) { Ok(()) } else { Err("it is not there") }
    })
    .await;
    // An answer without a caller does no harm; were the transaction repeated, it would collide.
    match link.office.connection.transact(&transaction).await {
        Outcome::Rejected(rejection) => assert_eq!(rejection.kind, RejectionKind::DuplicateUuid),
        other => panic!("{other:?}"),
    }
    assert!(!link.office.connection.is_closed());
}

#[tokio::test]
async fn a_transaction_that_its_caller_abandoned_is_settled_by_the_next_epoch() {
    let mut stage = TestBed::new(Servers::Standalone).await;
    let (from, to) = Undisturbed::of(&mut stage, true).await.request;
    let mut link = InOffice::on(&mut stage, vec![Cut::Late { from, to, until: u64::MAX }]).await;
    {
        let transaction = insertion(Some(&link.office));
        let sent = link.office.connection.transact(&transaction);
        tokio::pin!(sent);
        // One look sends it; then the caller goes away.
        assert!(futures::poll!(&mut sent).is_pending());
    }
    link.barrier().await;
    link.cutter.deliver().await;
    let answer = link.cutter.late_answer().expect("an answer to what was late");
    assert_eq!(answer["result"][0]["error"], json!("timed out"), "{answer}");
    assert!(!is_there(&stage.northbound), "it has come behind the barrier");
}
