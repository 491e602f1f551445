use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Keys, each with how often it had become dirty when it was planned.
#[derive(Debug, Clone, Default, PartialEq)]
struct Batch(Vec<(u8, u32)>);

impl OfKeys<u8> for Batch {
    fn keys(&self) -> impl DoubleEndedIterator<Item = &u8> {
        self.0.iter().map(|(key, _)| key)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8),
    PushFirst(u8),
    Prepare(usize),
    Hold,
    Drop,
    Send(usize),
    Answer(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12u8).prop_map(Step::Push),
        2 => (0..12u8).prop_map(Step::PushFirst),
        4 => (1..6usize).prop_map(Step::Prepare),
        1 => Just(Step::Hold),
        1 => Just(Step::Drop),
        4 => (1..6usize).prop_map(Step::Send),
        4 => any::<bool>().prop_map(Step::Answer),
    ]
}

/// A writer, and how often each key has become dirty, and had when it was last committed.
#[derive(Default)]
struct Model {
    pipeline: Pipeline<u8, Batch>,
    dirty: BTreeMap<u8, u32>,
    committed: BTreeMap<u8, u32>,
    flight: Option<Batch>,
    /// The last that was to go first.
    first: Option<u8>,
    /// All that are to go first, and have not gone.
    urgent: BTreeSet<u8>,
}

impl Model {
    fn push(&mut self, key: u8, first: bool) {
        *self.dirty.entry(key).or_default() += 1;
        if first {
            self.pipeline.push_first(key);
            self.first = Some(key);
            self.urgent.insert(key);
        } else {
            self.pipeline.push(key, Turn::Any);
        }
    }

    fn fill(&mut self, mut batch: Batch, count: usize) {
        for _ in 0..count {
            if !self.pipeline.joins(batch.keys().next()) {
                break;
            }
            let Some(key) = self.pipeline.pop() else { break };
            let flying = self.flight.as_ref().is_some_and(|batch| batch.keys().any(|flying| *flying == key));
            assert!(!flying, "{key} is planned while it is in flight");
            assert!(batch.keys().all(|other| *other != key), "{key} is prepared twice");
            batch.0.push((key, self.dirty[&key]));
        }
        if !batch.0.is_empty() {
            self.pipeline.prepare(batch);
        }
    }

    fn send(&mut self) {
        let Some(batch) = self.pipeline.launch() else { return };
        for (key, planned) in &batch.0 {
            assert_eq!(self.dirty[key], *planned, "{key} is sent as it was before it became dirty");
        }
        // In the next transaction, after any prepared one.
        if let Some(first) = self.first.take() {
            assert_eq!(batch.0[0].0, first, "{batch:?}");
        }
        if self.urgent.contains(&batch.0[0].0) {
            assert!(batch.keys().all(|key| self.urgent.contains(key)), "an urgent one waits for others: {batch:?}");
        }
        self.urgent.retain(|key| batch.keys().all(|sent| sent != key));
        self.flight = Some(batch);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Push(key) => self.push(key, false),
            Step::PushFirst(key) => self.push(key, true),
            Step::Prepare(count) => {
                if !self.pipeline.is_idle() && self.pipeline.may_prepare() {
                    let batch = self.pipeline.lift().unwrap_or_default();
                    self.fill(batch, count);
                }
            }
            Step::Hold => {
                if !self.pipeline.is_idle()
                    && self.pipeline.may_prepare()
                    && let Some(key) = self.pipeline.pop()
                {
                    self.pipeline.hold(key);
                    assert!(!self.pipeline.may_prepare());
                }
            }
            Step::Drop => {
                let dropped = self.pipeline.prepared().cloned();
                self.pipeline.drop_prepared();
                if let Some(Batch(keys)) = dropped {
                    // They are next, in the same order.
                    let again: Vec<u8> = keys.iter().filter_map(|_| self.pipeline.pop()).collect();
                    assert_eq!(again, keys.iter().map(|(key, _)| *key).collect::<Vec<_>>());
                    again.into_iter().rev().for_each(|key| {
                        self.pipeline.push_first(key);
                        self.urgent.insert(key);
                    });
                }
            }
            Step::Send(count) if self.pipeline.is_idle() => {
                if self.pipeline.prepared().is_none() {
                    self.fill(Batch::default(), count);
                }
                self.send();
            }
            Step::Send(_) => {}
            Step::Answer(committed) => {
                let Some(batch) = self.flight.take() else { return };
                if !committed {
                    self.pipeline.drop_prepared();
                }
                self.pipeline.answered();
                if committed {
                    self.committed.extend(batch.0);
                    self.send();
                } else {
                    batch.0.into_iter().for_each(|(key, _)| self.pipeline.push(key, Turn::Any));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// At every step: no VM is sent that became dirty after its decision, none is decided while it is in flight, and
    /// the urgent ones go first. In the end, every dirty VM has been committed in its last state.
    #[test]
    fn every_dirty_vm_is_decided_afterwards_and_no_change_is_lost(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut model = Model::default();
        steps.into_iter().for_each(|step| model.take(step));
        for _ in 0..60 {
            model.take(Step::Answer(true));
            model.take(Step::Send(3));
        }
        prop_assert!(model.flight.is_none() && model.pipeline.is_empty());
        prop_assert_eq!(model.committed, model.dirty);
    }
}

#[test]
fn a_batch_that_is_dropped_again_and_again_is_not_prepared_any_more_before_the_answer() {
    let mut model = Model::default();
    (0..6).for_each(|key| model.take(Step::Push(key)));
    model.take(Step::Send(1));
    for _ in 0..DROPS {
        model.take(Step::Prepare(3));
        assert!(model.pipeline.prepared().is_some());
        model.take(Step::Push(2));
        assert!(model.pipeline.prepared().is_none());
    }
    assert!(!model.pipeline.may_prepare(), "it is not worth it");
    model.take(Step::Answer(true));
    model.take(Step::Send(1));
    assert!(model.pipeline.may_prepare());
}
