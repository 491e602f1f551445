//! Which chassis a port is bound to, and when a second one may be opened.
//!
//! A second chassis is opened behind `activation-strategy`: its traffic flows only once the guest is
//! seen there. northd keeps the mark of an old activation for as long as any additional chassis
//! remains, so a port that has just been collapsed to one chassis waits until northd has processed
//! that: were the next target opened before, it would be open without its guest.

use std::collections::HashMap;

use uuid::Uuid;

use super::chassis::Chassis;
use super::problem::Problem;
use crate::intent::{Placement, Strategy};
use crate::kubevirt::Cluster;
use crate::ovn::{Multichassis, Northbound, Southbound, Wake, keys};
use crate::ovsdb::Map;

/// The network's nodes, as a plan sees them.
#[derive(Clone, Copy)]
pub struct Fabric<'a> {
    /// For the annotations of nodes.
    pub cluster: &'a Cluster,
    /// What is known of the chassis.
    pub southbound: Seen<'a>,
    /// What opens an additional chassis.
    pub strategy: Strategy,
}

/// What is known of the southbound.
#[derive(Clone, Copy)]
pub enum Seen<'a> {
    /// It is not read (no `--sb`): chassis are named as nodes are, and northd's progress shows in
    /// `NB_Global:sb_cfg`.
    Never(&'a Settling),
    /// It has not been read yet.
    NotYet,
    /// It was read, and is away: its chassis hold, where ports are does not.
    Before(&'a Southbound),
    /// It is in sync.
    Now(&'a Southbound),
}

impl Seen<'_> {
    /// What this OVN takes in `requested-chassis`. Before the southbound has been read no list is begun, and one that
    /// stands is left alone.
    fn multichassis(&self, view: &Northbound) -> Multichassis {
        match self {
            Self::Never(_) => view.multichassis(),
            Self::NotYet => Multichassis::Activated,
            Self::Before(southbound) | Self::Now(southbound) => southbound.multichassis(),
        }
    }
}

/// Collapses that northd may not have processed yet, where only the northbound is read.
#[derive(Debug, Default)]
pub struct Settling {
    /// The first `nb_cfg` of ours: what was collapsed before this process began is processed when
    /// `sb_cfg` reaches it.
    first: Option<i64>,
    /// The `nb_cfg` of the commit that collapsed a port.
    collapsed: HashMap<Uuid, i64>,
}

impl Settling {
    /// A transaction that raised `nb_cfg`, to this or more, and collapsed these ports, was committed.
    pub fn committed(&mut self, nb_cfg: i64, collapsed: impl IntoIterator<Item = Uuid>) {
        self.first.get_or_insert(nb_cfg);
        self.collapsed.extend(collapsed.into_iter().map(|port| (port, nb_cfg)));
    }

    /// Others may have written meanwhile.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// northd has come so far.
    pub fn processed(&mut self, sb_cfg: i64) {
        self.collapsed.retain(|_, nb_cfg| *nb_cfg > sb_cfg);
    }

    fn is_settled(&self, port: Uuid, sb_cfg: i64) -> bool {
        self.first.is_some_and(|first| sb_cfg >= first)
            && self.collapsed.get(&port).is_none_or(|nb_cfg| sb_cfg >= *nb_cfg)
    }
}

/// What stood in the way of a binding, and what it needs.
#[derive(Debug, Default)]
pub(super) struct Hindrance {
    pub(super) problems: Vec<Problem>,
    pub(super) waits: Vec<Wake>,
    /// `nb_cfg` is to be raised, so that northd's progress can be seen.
    pub(super) sync: bool,
}

/// A port, as far as its binding goes.
pub(super) struct Bound<'a> {
    pub(super) uuid: Uuid,
    pub(super) name: &'a str,
    /// Its options as the database has them; `None`: there is no row yet.
    pub(super) present: Option<&'a Map>,
}

impl Fabric<'_> {
    /// Writes our keys of `options`; what others put there stays.
    pub(super) fn bind(
        &self,
        view: &Northbound,
        port: &Bound<'_>,
        options: &mut Map,
        placement: &Placement,
    ) -> Hindrance {
        let mut hindrance = Hindrance::default();
        let (home, target) = match placement {
            Placement::Keep => return hindrance,
            Placement::KeepHome => {
                let home = options.get(keys::REQUESTED_CHASSIS).and_then(|requested| requested.split_once(','));
                if let Some(home) = home.map(|(home, _)| home.to_owned()) {
                    alone(options, home);
                }
                return hindrance;
            }
            Placement::Unbound => {
                unbind(options);
                return hindrance;
            }
            Placement::On { home, target } => (home, target),
        };
        let (home, home_has_row) = match self.locate(home, port, &mut hindrance) {
            Chassis::Named { name, has_row } => (name, has_row),
            Chassis::NotYet => return hindrance,
            Chassis::Unknown => {
                unbind(options);
                return hindrance;
            }
        };
        let target = match target.as_ref().map(|node| self.locate_target(node, port, &mut hindrance)) {
            Some(Chassis::Named { name, has_row }) if name != home && has_row && home_has_row => Some(name),
            // Who knows whether it is open already: after a restart, what stands there is the best that is known.
            Some(Chassis::NotYet) if is_at(options, &home) => return hindrance,
            Some(Chassis::Named { .. } | Chassis::Unknown | Chassis::NotYet) | None => None,
        };
        let target = target.filter(|_| self.may_be_listed(view));
        match target.filter(|target| self.may_open(view, port, target, &mut hindrance)) {
            Some(target) => {
                options.insert(keys::REQUESTED_CHASSIS, format!("{home},{target}"));
                match self.strategy.name() {
                    Some(strategy) => drop(options.insert(keys::ACTIVATION_STRATEGY, strategy)),
                    None => drop(options.remove(keys::ACTIVATION_STRATEGY)),
                }
            }
            None => alone(options, home),
        }
        hindrance
    }

    /// Whether this OVN takes a second chassis in the way that it is to be opened. Where it does not, the port follows
    /// the guest with one: the source until domain-ready, then the target.
    fn may_be_listed(&self, view: &Northbound) -> bool {
        self.southbound.multichassis(view) >= self.strategy.needs()
    }

    /// Whether the target's chassis may be added now.
    fn may_open(&self, view: &Northbound, port: &Bound<'_>, target: &str, hindrance: &mut Hindrance) -> bool {
        let Some(present) = port.present else { return true };
        let requested = present.get(keys::REQUESTED_CHASSIS).unwrap_or_default();
        match requested.split_once(',') {
            Some((_, additional)) if additional == target => return true,
            // Another target is open: it goes first.
            Some(_) => {
                self.wait(port, hindrance);
                return false;
            }
            None => {}
        }
        let settled = match self.southbound {
            Seen::Never(settling) => {
                hindrance.sync |= settling.first.is_none();
                settling.is_settled(port.uuid, view.sb_cfg())
            }
            Seen::NotYet | Seen::Before(_) => false,
            Seen::Now(southbound) => !southbound.has_additional_chassis(port.name),
        };
        if !settled {
            self.wait(port, hindrance);
        }
        settled
    }

    fn wait(&self, port: &Bound<'_>, hindrance: &mut Hindrance) {
        hindrance.waits.push(match self.southbound {
            Seen::Never(_) => Wake::Processed,
            Seen::NotYet | Seen::Before(_) => Wake::Southbound,
            Seen::Now(_) => Wake::Binding(port.name.to_owned()),
        });
    }
}

/// Whether this chassis is the first that is asked for.
fn is_at(options: &Map, home: &str) -> bool {
    let requested = options.get(keys::REQUESTED_CHASSIS).unwrap_or_default();
    requested.split(',').next() == Some(home)
}

fn alone(options: &mut Map, home: String) {
    options.insert(keys::REQUESTED_CHASSIS, home);
    options.remove(keys::ACTIVATION_STRATEGY);
}

fn unbind(options: &mut Map) {
    options.remove(keys::REQUESTED_CHASSIS);
    options.remove(keys::ACTIVATION_STRATEGY);
}
