//! Chassis binding: the chassis of a port, and the moment to add a second one.
//!
//! A second chassis is added behind `activation-strategy`: its traffic flows only once the guest is seen there. northd
//! keeps the mark of an old activation for as long as any additional chassis remains. So a port that was just collapsed
//! to one chassis waits until northd has processed that: a target added earlier would be open without its guest.

use super::chassis::Chassis;
use super::fabric::{Bound, Seen};
use super::problem::Problem;
use super::remarks::Remarks;
use super::snapshot::Snapshot;
use crate::contract::keys;
use crate::intent::{Placement, Strategy};
use crate::ovn::{RequestedChassis, Wake};
use crate::ovsdb::Map;

/// The decision on a port's binding.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// It stays.
    Keep,
    /// The port is bound by whichever chassis claims it.
    Unbound,
    /// The port is bound to one chassis.
    To(String),
    /// A migration's target is open, too.
    Both { home: String, additional: String, strategy: Strategy },
}

impl Binding {
    /// Writes our keys of `options` (ovn-nb(5) Logical_Switch_Port `options:requested-chassis`). Keys of others stay.
    pub(super) fn apply(self, options: Map) -> Map {
        let (requested, strategy) = match self {
            Self::Keep => return options,
            Self::Unbound => (None, None),
            Self::To(home) => (Some(home), None),
            Self::Both { home, additional, strategy } => (Some(format!("{home},{additional}")), strategy.name()),
        };
        let strategy = strategy.map(ToOwned::to_owned);
        options.edited([(keys::REQUESTED_CHASSIS, requested), (keys::ACTIVATION_STRATEGY, strategy)])
    }
}

impl Snapshot<'_> {
    /// Decides the binding of a port.
    pub(super) fn bind(&self, port: &Bound<'_>, placement: &Placement) -> (Binding, Remarks) {
        let (home, target, arrived) = match placement {
            Placement::Keep => return (Binding::Keep, Remarks::default()),
            Placement::KeepHome => {
                let RequestedChassis { home, additional } = port.requested();
                let collapsed = additional.and(home).map(|home| Binding::To(home.to_owned()));
                return (collapsed.unwrap_or(Binding::Keep), Remarks::default());
            }
            Placement::Unbound => return (Binding::Unbound, Remarks::default()),
            Placement::On { home, target, arrived } => (home, target, *arrived),
        };
        let (located, mut remarks) = self.locate(home, port);
        if arrived {
            remarks.add(self.waiting_for_chassis(home, &located, port));
        }
        let (home, home_has_row) = match located {
            Chassis::Named { name, has_row } => (name, has_row),
            Chassis::NotYet => return (Binding::Keep, remarks),
            Chassis::Unknown => return (Binding::Unbound, remarks),
        };
        let target = target.as_ref().map(|node| self.locate_target(node, port));
        let target = target.map(|(located, later)| {
            remarks.add(later);
            located
        });
        let target = match target {
            Some(Chassis::Named { name, has_row }) if name != home && has_row && home_has_row => Some(name),
            // The target may be open already: after a restart, the present value is the best information.
            Some(Chassis::NotYet) if port.requested().home == Some(&home) => return (Binding::Keep, remarks),
            Some(Chassis::Named { .. } | Chassis::Unknown | Chassis::NotYet) | None => None,
        };
        let Some(additional) = target.filter(|_| self.takes_a_list()) else { return (Binding::To(home), remarks) };
        let (opens, later) = self.may_open(port, &additional);
        remarks.add(later);
        let strategy = self.settings.strategy;
        (if opens { Binding::Both { home, additional, strategy } } else { Binding::To(home) }, remarks)
    }

    /// Returns true if this OVN supports a second chassis with the configured strategy. Otherwise the port follows the
    /// guest with one chassis: the source until domain-ready, then the target.
    fn takes_a_list(&self) -> bool {
        self.southbound.multichassis(self.northbound) >= self.settings.strategy.needs()
    }

    /// Returns true if the target's chassis may be added now.
    fn may_open(&self, port: &Bound<'_>, target: &str) -> (bool, Remarks) {
        if port.present.is_none() {
            return (true, Remarks::default());
        }
        match port.requested().additional {
            Some(additional) if additional == target => return (true, Remarks::default()),
            // Another target is open: it is removed first.
            Some(_) => return (false, self.waiting_for_northd(port)),
            None => {}
        }
        let (settled, northd) = match self.southbound {
            Seen::Never(settling) => {
                (settling.is_settled(port.uuid, self.northbound.sb_cfg()), settling.has_seen_nothing())
            }
            Seen::NotYet | Seen::Before(_) => (false, false),
            Seen::Now(southbound) => (!southbound.has_additional_chassis(port.name), false),
        };
        let mut remarks = if settled { Remarks::default() } else { self.waiting_for_northd(port) };
        remarks.northd = northd;
        (settled, remarks)
    }

    /// A guest that has come to a node before the node's chassis has claimed the port is unreachable until it does.
    /// An OVN that takes one chassis at a time lets none claim it earlier.
    fn waiting_for_chassis(&self, node: &str, located: &Chassis, port: &Bound<'_>) -> Remarks {
        let Chassis::Named { name, has_row: true } = located else { return Remarks::default() };
        let Seen::Now(southbound) = self.southbound else { return Remarks::default() };
        if !self.takes_a_list() || southbound.is_claimed_by(port.name, name) {
            return Remarks::default();
        }
        let problem =
            Problem::ChassisNotReady { node: node.to_owned(), chassis: name.clone(), port: port.name.to_owned() };
        Remarks::waiting(problem, vec![Wake::Claim(port.name.to_owned())])
    }

    fn waiting_for_northd(&self, port: &Bound<'_>) -> Remarks {
        let wake = match self.southbound {
            Seen::Never(_) => Wake::Processed,
            Seen::NotYet | Seen::Before(_) => Wake::Southbound,
            Seen::Now(_) => Wake::Binding(port.name.to_owned()),
        };
        Remarks { wakes: vec![wake], ..Remarks::default() }
    }
}
