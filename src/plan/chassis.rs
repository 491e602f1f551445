//! Which chassis a node is, and what a port keeps while that cannot be said.
//!
//! The decision is a function of the port's `requested-chassis` as it stands, of the node, and of the southbound's rows,
//! so a restart of the service changes nothing:
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
//! A chassis whose row is gone may have been another node's, where both have no row and the chassis has a name of its
//! own. Such a port is kept, which binds it nowhere until the row returns and says whose it is.

use super::binding::{Bound, Fabric, Hindrance, Seen};
use super::problem::Problem;
use crate::ovn::{NodeChassis, Southbound, Wake, keys};

/// Where a node is on the network.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chassis {
    /// A chassis by this name.
    Named {
        name: String,
        /// northd finds it, as far as is known: a list with an unknown chassis in it opens the other one at once.
        has_row: bool,
    },
    /// On no chassis that could be named.
    Unknown,
    /// The southbound has not been read yet.
    NotYet,
}

impl Chassis {
    fn with_row(name: &str) -> Self {
        Self::Named { name: name.to_owned(), has_row: true }
    }
}

impl Fabric<'_> {
    /// The chassis of the node that a port's VM is on, or goes to: what its annotation says; else what the southbound
    /// knows by its name; else, where the southbound is not read, its name.
    pub(super) fn locate(&self, node: &str, port: &Bound<'_>, hindrance: &mut Hindrance) -> Chassis {
        let annotated = match self.cluster.chassis_of(node) {
            Ok(annotated) => annotated,
            // Not the node's name in its place: the annotation says that the chassis has another.
            Err(invalid) => {
                hindrance.problems.push(Problem::InvalidChassis(node.to_owned(), invalid.clone()));
                let mut standing = requested(port).split(',').filter(|chassis| !chassis.is_empty());
                let standing = standing.find(|chassis| !self.is_another_nodes(node, chassis));
                return standing
                    .map_or(Chassis::Unknown, |name| Chassis::Named { name: name.to_owned(), has_row: false });
            }
        };
        let southbound = match self.southbound {
            Seen::Never(_) => return Chassis::with_row(annotated.unwrap_or(node)),
            Seen::NotYet => {
                let Some(annotated) = annotated else {
                    hindrance.waits.push(Wake::Southbound);
                    return Chassis::NotYet;
                };
                return Chassis::with_row(annotated);
            }
            Seen::Before(southbound) | Seen::Now(southbound) => southbound,
        };
        if let Some(annotated) = annotated {
            if southbound.has_chassis(annotated) {
                return Chassis::with_row(annotated);
            }
            return kept(node, annotated, hindrance);
        }
        match southbound.chassis_of_node(node) {
            NodeChassis::One(name) => Chassis::with_row(name),
            NodeChassis::Several(rows) => one_of(node, &rows, southbound, port, hindrance),
            NodeChassis::Absent => match self.without_row(node, requested(port), southbound) {
                Some(standing) => kept(node, standing, hindrance),
                None => {
                    hindrance.problems.push(Problem::ChassisNotFound(node.to_owned()));
                    hindrance.waits.push(Wake::Chassis(node.to_owned()));
                    Chassis::Unknown
                }
            },
        }
    }

    /// The same of the node that a migration goes to. A target without a row has nothing to keep.
    pub(super) fn locate_target(&self, node: &str, port: &Bound<'_>, hindrance: &mut Hindrance) -> Chassis {
        let mut own = Hindrance::default();
        let located = self.locate(node, port, &mut own);
        if matches!(located, Chassis::Named { has_row: false, .. }) {
            own.problems = vec![Problem::ChassisNotFound(node.to_owned())];
        }
        hindrance.problems.append(&mut own.problems);
        hindrance.waits.append(&mut own.waits);
        located
    }

    /// Whether a chassis is that of another node than this, whose annotation cannot be read.
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

    /// The chassis among these that may be the node's, though it has no row: no row and no other node has its name.
    fn without_row<'r>(&self, node: &str, requested: &'r str, southbound: &Southbound) -> Option<&'r str> {
        let is_own = |chassis: &&str| *chassis == node || node.split('.').next() == Some(chassis);
        let of_another =
            |chassis: &&str| southbound.has_chassis(chassis) || (!is_own(chassis) && self.cluster.has_node(chassis));
        let left = || requested.split(',').filter(|chassis| !chassis.is_empty() && !of_another(chassis));
        left().find(is_own).or_else(|| left().next())
    }
}

/// What `options:requested-chassis` has now.
pub(super) fn requested<'a>(port: &Bound<'a>) -> &'a str {
    port.present.and_then(|options| options.get(keys::REQUESTED_CHASSIS)).unwrap_or_default()
}

/// The chassis' row is gone, or has not come yet.
fn kept(node: &str, chassis: &str, hindrance: &mut Hindrance) -> Chassis {
    let (node, name) = (node.to_owned(), chassis.to_owned());
    hindrance.waits.push(Wake::Chassis(name.clone()));
    hindrance.problems.push(Problem::ChassisGone { node, chassis: name.clone() });
    Chassis::Named { name, has_row: false }
}

/// Of several rows of one node, the one that the port has, or that has the port.
fn one_of(node: &str, rows: &[&str], southbound: &Southbound, port: &Bound<'_>, hindrance: &mut Hindrance) -> Chassis {
    let standing = requested(port).split(',').find(|chassis| rows.contains(chassis));
    let claimed = || southbound.chassis_of_port(port.name).filter(|chassis| rows.contains(chassis));
    let found = standing.or_else(claimed);
    hindrance.problems.push(Problem::ChassisAmbiguous {
        node: node.to_owned(),
        rows: rows.iter().map(|row| (*row).to_owned()).collect(),
        kept: found.map(ToOwned::to_owned),
    });
    match found {
        Some(name) => Chassis::with_row(name),
        None => {
            hindrance.waits.push(Wake::Claim(port.name.to_owned()));
            Chassis::Unknown
        }
    }
}
