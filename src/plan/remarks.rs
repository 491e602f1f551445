//! The remarks of a step of a decision: problems for the owner, and the VM's waits.

use super::problem::Problem;
use crate::ovn::Wake;

/// The findings on the way to a decision.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    /// For the status; each once.
    pub(super) problems: Vec<Problem>,
    /// The VM is decided again when one of these happens.
    pub(super) wakes: Vec<Wake>,
    /// Another VM of this transaction is in the way: the decision follows after the transaction.
    pub(super) batch: bool,
    /// Raise `NB_Global:nb_cfg`: northd's progress matters.
    pub(super) northd: bool,
}

impl Remarks {
    /// A problem that waits for no change.
    pub(super) fn of(problem: Problem) -> Self {
        Self { problems: vec![problem], ..Self::default() }
    }

    /// A problem, and the changes that it waits for.
    pub(super) fn waiting(problem: Problem, wakes: Vec<Wake>) -> Self {
        Self { problems: vec![problem], wakes, ..Self::default() }
    }

    /// Adds a problem once: the present lease and the reservation may fail alike.
    pub(super) fn tell(&mut self, problem: Problem) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Adds the remarks of a later step.
    pub(super) fn add(&mut self, later: impl Into<Self>) {
        let Self { problems, wakes, batch, northd } = later.into();
        problems.into_iter().for_each(|problem| self.tell(problem));
        self.wakes.extend(wakes);
        self.batch |= batch;
        self.northd |= northd;
    }
}

/// The reason why a port gets no addresses, or no new ones.
pub(super) enum Refusal {
    /// The problem goes into the status, and the VM is decided again when one of these happens.
    Problem(Problem, Vec<Wake>),
    /// Another VM of this transaction claims it: the decision follows after the transaction.
    Batch,
}

impl Refusal {
    /// The VM is also decided again when one of these happens.
    #[must_use]
    pub(super) fn or_when(self, more: impl IntoIterator<Item = Wake>) -> Self {
        match self {
            Self::Problem(problem, mut wakes) => {
                wakes.extend(more);
                Self::Problem(problem, wakes)
            }
            Self::Batch => Self::Batch,
        }
    }

    /// A problem of a switch, which passes when the switch changes.
    pub(super) fn on_switch(name: &str, problem: Problem) -> Self {
        Self::Problem(problem, vec![Wake::Switch(name.to_owned())])
    }
}

impl From<Refusal> for Remarks {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Problem(problem, wakes) => Self::waiting(problem, wakes),
            Refusal::Batch => Self { batch: true, ..Self::default() },
        }
    }
}
