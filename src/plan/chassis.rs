//! The chassis of a node, and the binding that a port keeps while the chassis is unknown.
//!
//! The decision is a function of the port's present `requested-chassis`, of the node, and of the rows of the southbound
//! database, so a restart of the service changes nothing:
//!
//! | the node | the port |
//! |---|---|
//! | has one row | is bound to it |
//! | has no row; no other node claims the standing chassis | keeps it: the row has gone from under a VM that stays |
//! | has no row; the standing chassis is another node's | is unbound: the VM has moved |
//! | has several rows, the standing chassis among them | keeps it |
//! | has several rows, one of which has claimed the port | is bound to that one: it is alive |
//! | has several rows otherwise | is unbound, so that the one with the interface can claim it |
//!
//! A chassis whose row is gone may have been another node's, if both nodes have no row and the chassis has a name of
//! its own. Such a port keeps it, which binds the port nowhere until the row returns with the name of its node.

use super::fabric::{Bound, Seen};
use super::problem::Problem;
use super::remarks::Remarks;
use super::snapshot::Snapshot;
use crate::ovn::{NodeChassis, RequestedChassis, Southbound, Wake};

/// The location of a node in the network.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chassis {
    /// A chassis by this name.
    Named {
        name: String,
        /// northd finds it, as far as is known: a list with an unknown chassis in it opens the other one at once.
        has_row: bool,
    },
    /// The chassis has no known name.
    Unknown,
    /// The southbound has not been read yet.
    NotYet,
}

impl Chassis {
    fn with_row(name: &str) -> Self {
        Self::Named { name: name.to_owned(), has_row: true }
    }
}

impl Snapshot<'_> {
    /// Finds the chassis of the node that a port's VM is on, or goes to: the chassis in the node's annotation; else the
    /// chassis that the southbound has for the node; else, if the southbound is not read, the name of the node.
    pub(super) fn locate(&self, node: &str, port: &Bound<'_>) -> (Chassis, Remarks) {
        let annotated = match self.cluster.chassis_of(node) {
            Ok(annotated) => annotated,
            // The node's name is no substitute: the annotation says that the chassis has another name.
            Err(invalid) => {
                let standing = port.requested().all().find(|chassis| !self.is_another_nodes(node, chassis));
                let located =
                    standing.map_or(Chassis::Unknown, |name| Chassis::Named { name: name.to_owned(), has_row: false });
                return (located, Remarks::of(Problem::InvalidChassis(node.to_owned(), invalid.clone())));
            }
        };
        let southbound = match (self.southbound, annotated) {
            (Seen::Never(_), _) => return (Chassis::with_row(annotated.unwrap_or(node)), Remarks::default()),
            (Seen::NotYet, Some(annotated)) => return (Chassis::with_row(annotated), Remarks::default()),
            (Seen::NotYet, None) => {
                return (Chassis::NotYet, Remarks { wakes: vec![Wake::Southbound], ..Remarks::default() });
            }
            (Seen::Before(southbound) | Seen::Now(southbound), _) => southbound,
        };
        if let Some(annotated) = annotated {
            return match southbound.has_chassis(annotated) {
                true => (Chassis::with_row(annotated), Remarks::default()),
                false => kept(node, annotated),
            };
        }
        match southbound.chassis_of_node(node) {
            NodeChassis::One(name) => (Chassis::with_row(name), Remarks::default()),
            NodeChassis::Several(rows) => one_of(node, &rows, southbound, port),
            NodeChassis::Absent => match self.without_row(node, port.requested(), southbound) {
                Some(standing) => kept(node, standing),
                None => {
                    let problem = Problem::ChassisNotFound(node.to_owned());
                    (Chassis::Unknown, Remarks::waiting(problem, vec![Wake::Chassis(node.to_owned())]))
                }
            },
        }
    }

    /// Finds the chassis of the node that a migration goes to. A target without a row has no binding to keep.
    pub(super) fn locate_target(&self, node: &str, port: &Bound<'_>) -> (Chassis, Remarks) {
        let (located, mut remarks) = self.locate(node, port);
        if matches!(located, Chassis::Named { has_row: false, .. }) {
            remarks.problems = vec![Problem::ChassisNotFound(node.to_owned())];
        }
        (located, remarks)
    }

    /// Returns true if a chassis belongs to a node other than `node`, which has an unreadable annotation.
    fn is_another_nodes(&self, node: &str, chassis: &str) -> bool {
        let is_its = |other: &str| match (self.cluster.chassis_of(other), self.southbound) {
            (Ok(Some(annotated)), _) => annotated == chassis,
            (Err(_), _) => false,
            (Ok(None), Seen::Never(_) | Seen::NotYet) => other == chassis,
            (Ok(None), Seen::Before(southbound) | Seen::Now(southbound)) => {
                matches!(southbound.chassis_of_node(other), NodeChassis::One(name) if name == chassis)
            }
        };
        self.cluster.nodes().any(|other| other != node && is_its(other))
    }

    /// Finds the chassis among these that may be the node's although it has no row: its name is in no row and is no
    /// other node's.
    fn without_row<'r>(&self, node: &str, requested: RequestedChassis<'r>, southbound: &Southbound) -> Option<&'r str> {
        let is_own = |chassis: &&str| *chassis == node || node.split('.').next() == Some(chassis);
        let of_another =
            |chassis: &&str| southbound.has_chassis(chassis) || (!is_own(chassis) && self.cluster.has_node(chassis));
        let left = || requested.all().filter(|chassis| !of_another(chassis));
        left().find(is_own).or_else(|| left().next())
    }
}

/// The row of the chassis is gone, or is still to come.
fn kept(node: &str, chassis: &str) -> (Chassis, Remarks) {
    let (node, name) = (node.to_owned(), chassis.to_owned());
    let wakes = vec![Wake::Chassis(name.clone())];
    let problem = Problem::ChassisGone { node, chassis: name.clone() };
    (Chassis::Named { name, has_row: false }, Remarks::waiting(problem, wakes))
}

/// Of several rows of one node, the one that the port is bound to, or that has claimed the port.
fn one_of(node: &str, rows: &[&str], southbound: &Southbound, port: &Bound<'_>) -> (Chassis, Remarks) {
    let standing = port.requested().all().find(|chassis| rows.contains(chassis));
    let claimed = || southbound.chassis_of_port(port.name).filter(|chassis| rows.contains(chassis));
    let found = standing.or_else(claimed);
    let mut remarks = Remarks::of(Problem::ChassisAmbiguous {
        node: node.to_owned(),
        rows: rows.iter().map(|row| (*row).to_owned()).collect(),
        kept: found.map(ToOwned::to_owned),
    });
    match found {
        Some(name) => (Chassis::with_row(name), remarks),
        None => {
            remarks.wakes.push(Wake::Claim(port.name.to_owned()));
            (Chassis::Unknown, remarks)
        }
    }
}
