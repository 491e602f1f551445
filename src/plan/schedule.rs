//! Which VMs are decided for one transaction: the one loop that the writer and the tests share.

use super::claims::Claims;
use super::decide::{Decision, decide};
use super::expectation::Freed;
use super::snapshot::Snapshot;
use crate::ovn::VmKey;

/// VMs that are decided for one transaction.
#[derive(Debug, Default)]
pub struct Filled {
    /// In their order; some have nothing to be written.
    pub decided: Vec<(VmKey, Decision)>,
    /// A VM of which more is known after the transaction in flight: it is the next one then.
    pub held: Option<VmKey>,
    /// The first that has something to be written.
    first: Option<VmKey>,
    /// Ports that are written.
    ports: usize,
}

impl Filled {
    /// Ports that are written.
    pub fn ports(&self) -> usize {
        self.ports
    }

    /// The first VM with something to be written, or that clashed.
    pub fn first(&self) -> Option<&VmKey> {
        self.first.as_ref()
    }
}

/// Decides for VMs, one after the other: what one of them takes is not given to the next, though the replica does not show
/// it yet. `next` names the VMs, for as long as there is room; `claims` is what is on its way already, and `freed` what the
/// transaction in flight gives up.
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
            // It clashes with the transaction in flight, or gets something else after it.
            filled.held = Some(vm);
            break;
        }
        claims.extend(std::mem::take(&mut decision.claims));
        filled.ports += decision.rows.len();
        if filled.first.is_none() && (!decision.rows.is_empty() || decision.waits.batch) {
            filled.first = Some(vm.clone());
        }
        filled.decided.push((vm, decision));
    }
    filled
}
