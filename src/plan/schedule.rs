//! The VMs that are decided for one transaction: one loop that the writer and the tests share.

use super::claims::Claims;
use super::decide::{Decision, decide};
use super::expectation::Freed;
use super::snapshot::Snapshot;
use crate::contract::VmKey;

/// VMs that are decided for one transaction.
#[derive(Debug, Default)]
pub struct Filled {
    /// In their order; some have no changes.
    pub decided: Vec<(VmKey, Decision)>,
    /// A VM that must wait for the transaction in flight: it is the next one after that.
    pub held: Option<VmKey>,
    /// The first VM with changes, or with a conflict in the transaction.
    first: Option<VmKey>,
    /// The number of rows to write.
    rows: usize,
}

impl Filled {
    /// The number of rows to write.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The first VM with changes, or with a conflict in the transaction.
    pub fn first(&self) -> Option<&VmKey> {
        self.first.as_ref()
    }
}

/// Decides for VMs in order: the claims of one VM are not granted to the next, though the replica does not show them
/// yet. `next` names the VMs as long as there is room; `claims` holds the claims in flight, and `freed` the claims that
/// the transaction in flight releases.
pub fn fill(
    snapshot: &Snapshot<'_>,
    mut claims: Claims,
    freed: Option<&Freed>,
    mut next: impl FnMut(&Filled) -> Option<VmKey>,
) -> Filled {
    let mut filled = Filled::default();
    while let Some(vm) = next(&filled) {
        let mut decision = decide(snapshot, &claims, &vm);
        let Decision { rows, waits, .. } = &decision;
        if freed.is_some_and(|freed| waits.batch || freed.concerns(rows, &waits.wakes)) {
            // It conflicts with the transaction in flight, or is decided differently after it.
            filled.held = Some(vm);
            break;
        }
        claims.extend(std::mem::take(&mut decision.claims));
        filled.rows += decision.rows.len();
        if filled.first.is_none() && (!decision.rows.is_empty() || decision.waits.batch) {
            filled.first = Some(vm.clone());
        }
        filled.decided.push((vm, decision));
    }
    filled
}
