//! Questions to the writer: the decision for a VM, on the snapshot of the task that decides.
//!
//! ```text
//!   webhooks --Question--> writer, between two turns: on its snapshot --answer--> webhooks
//!                            |                 ^
//!                            +-- not yet: -----+
//!                                again when the VM has been decided
//! ```
//!
//! A question is a function of a [`Moment`]. Leader and followers give the same answers, as long as their data is
//! current.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::ledger::Ledger;
use crate::contract::VmKey;
use crate::plan::{Claims, Snapshot};

/// The most questions in the channel; further senders wait.
const QUESTIONS_AHEAD: usize = 256;
/// The most questions that are asked between two turns of the writer, so that many do not delay its transactions.
const QUESTIONS_PER_TURN: usize = 16;

/// The data for a question.
pub struct Moment<'a> {
    /// The present state of both sides.
    pub snapshot: &'a Snapshot<'a>,
    /// The claims of the transactions that are in flight or about to be sent.
    pub claims: &'a Claims,
    /// The status of every VM.
    pub ledger: &'a Ledger,
    /// Returns true if this process writes.
    pub leads: bool,
    /// The orders of this turn's questions.
    pub(super) releases: &'a RefCell<BTreeSet<VmKey>>,
}

impl Moment<'_> {
    /// Orders the release of the retained ports of a deleted VM. The writer decides for the VM again, with the end of the
    /// retention at hand: the ports go in a transaction like any other. The order lapses when this process leads no longer.
    pub fn release(&self, vm: &VmKey) {
        self.releases.borrow_mut().insert(vm.clone());
    }
}

/// The reason why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The data of this process is not current, for this reason.
    #[error("{0}")]
    NotCurrent(String),
    /// The time is up, with this still missing.
    #[error("{0}")]
    NotYet(String),
}

/// Asks the writer. Clones ask the same writer.
#[derive(Clone)]
pub struct Asker(mpsc::Sender<Question>);

/// The questions to a writer.
pub struct Questions {
    incoming: mpsc::Receiver<Question>,
    /// Questions for the next turn.
    due: Vec<Question>,
    /// Questions that wait until their VM has been decided.
    waiting: HashMap<VmKey, Vec<Question>>,
}

/// A question with its answer channel.
pub(super) struct Question {
    vm: VmKey,
    asked: Box<dyn Asked>,
}

trait Asked: Send {
    /// Asks the question. Returns true if there is an answer.
    fn ask(&mut self, moment: &Moment<'_>) -> bool;

    /// Answers that the data is not current.
    fn fail(&mut self, reason: &str);

    /// Returns true if the answer is still awaited.
    fn is_open(&self) -> bool;
}

struct Open<T, F> {
    question: F,
    answer: Option<oneshot::Sender<Result<T, Unanswered>>>,
    /// The missing part, from the last try.
    missing: Arc<Mutex<String>>,
}

impl<T: Send, F: FnMut(&Moment<'_>) -> ControlFlow<T, String> + Send> Asked for Open<T, F> {
    fn ask(&mut self, moment: &Moment<'_>) -> bool {
        match (self.question)(moment) {
            ControlFlow::Break(answer) => {
                // The receiver may have stopped waiting.
                self.answer.take().map(|sender| sender.send(Ok(answer)));
                true
            }
            ControlFlow::Continue(missing) => {
                *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = missing;
                false
            }
        }
    }

    fn fail(&mut self, reason: &str) {
        let answer = Err(Unanswered::NotCurrent(reason.to_owned()));
        self.answer.take().map(|sender| sender.send(answer));
    }

    fn is_open(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !answer.is_closed())
    }
}

impl Asker {
    /// Creates an asker, and its other end for the writer.
    pub fn channel() -> (Self, Questions) {
        let (sender, incoming) = mpsc::channel(QUESTIONS_AHEAD);
        (Self(sender), Questions { incoming, due: Vec::new(), waiting: HashMap::new() })
    }

    /// Asks about a VM until the question breaks with an answer, at most for this time. A question that continues
    /// returns the missing part, and is asked again whenever the VM has been decided.
    ///
    /// # Errors
    /// If the data of this process is not current, or the time is up.
    pub async fn ask<T: Send + 'static>(
        &self,
        vm: &VmKey,
        within: Duration,
        question: impl FnMut(&Moment<'_>) -> ControlFlow<T, String> + Send + 'static,
    ) -> Result<T, Unanswered> {
        const ENDING: &str = "ovn-kubevirt is ending. Try again";
        let (sender, answer) = oneshot::channel();
        let missing = Arc::new(Mutex::new("ovn-kubevirt has not come to this VM yet. Try again".to_owned()));
        let asked = Box::new(Open { question, answer: Some(sender), missing: Arc::clone(&missing) });
        let asking = async {
            self.0.send(Question { vm: vm.clone(), asked }).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(within, asking).await {
            Ok(Some(answer)) => answer,
            Ok(None) => Err(Unanswered::NotCurrent(ENDING.to_owned())),
            Err(_) => Err(Unanswered::NotYet(missing.lock().unwrap_or_else(PoisonError::into_inner).clone())),
        }
    }
}

impl Questions {
    /// Waits for the next question. Questions that a turn has left over are there already.
    pub(super) async fn arrive(&mut self) {
        if !self.due.is_empty() {
            return;
        }
        match self.incoming.recv().await {
            Some(question) => self.due.push(question),
            // This process has no askers.
            None => std::future::pending().await,
        }
    }

    /// Makes the questions about a decided VM due again.
    pub(super) fn decided(&mut self, vm: &VmKey) {
        if !self.waiting.is_empty() {
            self.due.extend(self.waiting.remove(vm).into_iter().flatten());
        }
    }

    /// Returns true if there are no questions, as in most turns of the writer.
    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty() && self.waiting.is_empty() && self.incoming.is_empty()
    }

    /// Removes and returns the questions for this turn, in the order of their arrival. If the data is not current, these are all questions.
    pub(super) fn take_due(&mut self, is_current: bool) -> Vec<Question> {
        while self.due.len() < QUESTIONS_AHEAD
            && let Ok(question) = self.incoming.try_recv()
        {
            self.due.push(question);
        }
        if !is_current {
            self.due.extend(self.waiting.drain().flat_map(|(_, questions)| questions));
        }
        self.due.retain(|question| question.asked.is_open());
        let count = if is_current { self.due.len().min(QUESTIONS_PER_TURN) } else { self.due.len() };
        self.due.drain(..count).collect()
    }

    /// Keeps a question without an answer.
    pub(super) fn keep(&mut self, question: Question) {
        let waiting = self.waiting.entry(question.vm.clone()).or_default();
        waiting.retain(|question| question.asked.is_open());
        waiting.push(question);
        if waiting.len() == 1 {
            // Drops the questions without a receiver, too.
            self.waiting.retain(|_, questions| questions.iter().any(|question| question.asked.is_open()));
        }
    }
}

impl Question {
    /// Asks the question. Returns true if there is an answer.
    pub(super) fn ask(&mut self, moment: &Moment<'_>) -> bool {
        self.asked.ask(moment)
    }

    /// Answers that the data is not current.
    pub(super) fn fail(&mut self, reason: &str) {
        self.asked.fail(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Numbered(usize, Arc<Mutex<Vec<usize>>>);

    impl Asked for Numbered {
        fn ask(&mut self, _moment: &Moment<'_>) -> bool {
            true
        }

        fn fail(&mut self, _reason: &str) {
            self.1.lock().expect("a lock").push(self.0);
        }

        fn is_open(&self) -> bool {
            true
        }
    }

    #[tokio::test]
    async fn many_questions_are_spread_over_turns_in_the_order_of_their_arrival() {
        let (Asker(sender), mut questions) = Asker::channel();
        let failed: Arc<Mutex<Vec<usize>>> = Arc::default();
        for number in 0..40 {
            let asked = Box::new(Numbered(number, Arc::clone(&failed)));
            assert!(sender.try_send(Question { vm: VmKey::new("ns", "vm"), asked }).is_ok());
        }
        for count in [16, 16] {
            questions.arrive().await;
            let due = questions.take_due(true);
            assert_eq!(due.len(), count);
            due.into_iter().for_each(|mut question| question.fail(""));
        }
        // The channel is empty, and the last ones wait: the writer is not left asleep.
        questions.arrive().await;
        // Without current data all are told at once.
        questions.take_due(false).into_iter().for_each(|mut question| question.fail(""));
        assert_eq!(*failed.lock().expect("a lock"), (0..40).collect::<Vec<_>>());
        assert!(questions.is_empty());
    }
}
