//! Chassis rows that are deleted, inserted and duplicated in the middle of two migrations.

use super::{RESTARTS, Stage, State, all_from, name, number};

/// Chassis rows that are deleted or duplicated in one history, unless `OVN_KUBEVIRT_FAULTS` says more.
const FAULTS: u8 = 1;

impl State {
    /// The same with rows that are inserted and deleted. With a southbound, a restart is no case of its own: each decision is one.
    pub(super) fn with_faults(back: bool) -> Self {
        let faults = std::env::var("OVN_KUBEVIRT_FAULTS").ok().and_then(|faults| faults.parse().ok());
        Self { faults: faults.or(Some(FAULTS)), restarts: RESTARTS, ..Self::first(true, back) }
    }

    pub(super) fn row(&mut self, node: u8) -> bool {
        let Some(faults) = self.faults.filter(|_| self.doubled != Some(node)) else { return false };
        let row = &mut self.rows[usize::from(node)];
        if std::mem::replace(row, !*row) {
            self.faults = faults.checked_sub(1);
            // References to it are weak; its mark stays until northd runs.
            self.binding.main.take_if(|main| *main == node);
            self.binding.additional.take_if(|additional| *additional == node);
        }
        self.faults.is_some()
    }

    pub(super) fn double(&mut self, node: u8) -> bool {
        let Some(faults) = self.faults.filter(|_| self.rows[usize::from(node)]) else { return false };
        if self.doubled.take_if(|doubled| *doubled == node).is_some() {
            return true;
        }
        self.faults = faults.checked_sub(1);
        self.doubled.replace(node).is_none() && self.faults.is_some()
    }

    pub(super) fn has_row(&self, node: u8) -> bool {
        self.rows[usize::from(node)]
    }

    /// The laws of chassis rows after every decision.
    pub(super) fn judge_rows(&self, before: &[u8]) {
        let requested = &self.requested;
        let rows = requested.iter().all(|node| self.has_row(*node));
        assert!(requested.len() < 2 || rows, "a list with an unknown chassis opens the other one at once\n{self:#?}");
        let Some(home) = self.home() else { return };
        if before.first() == Some(&home) {
            assert_eq!(requested.first(), Some(&home), "a port whose VM stays keeps its chassis\n{self:#?}");
        }
        if requested.is_empty() {
            let unsure = !self.has_row(home) || self.doubled == Some(home);
            assert!(unsure, "unbound, though its node is a chassis\n{self:#?}");
        }
    }

    /// The node that KubeVirt has the guest on, as far as it has said.
    pub(super) fn home(&self) -> Option<u8> {
        let arriving = self.stages.contains(&Stage::At(4));
        self.guest.map(|guest| if arriving { self.node } else { guest })
    }

    /// The name of a node's chassis.
    pub(super) fn chassis(&self, node: u8) -> String {
        if self.faults.is_some() { format!("c{node}") } else { name(node) }
    }

    pub(super) fn chassis_named(&self, chassis: &str) -> u8 {
        let node = number(chassis);
        assert_eq!(chassis, self.chassis(node), "the port has never been on a stale chassis");
        node
    }
}

#[test]
fn every_interleaving_there_and_back_with_chassis_rows_that_go_come_and_double() {
    all_from(&State::with_faults(true));
}

#[test]
fn every_interleaving_on_to_a_third_node_with_chassis_rows_that_go_come_and_double() {
    all_from(&State::with_faults(false));
}
