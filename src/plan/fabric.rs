//! What is known of the chassis, and how far northd has come.

use std::collections::HashMap;

use uuid::Uuid;

use crate::ovn::{Multichassis, Northbound, RequestedChassis, Southbound};
use crate::ovsdb::Map;

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
    pub(super) fn multichassis(&self, view: &Northbound) -> Multichassis {
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

    /// Returns true if no commit of ours has raised `nb_cfg` yet.
    pub(super) fn has_seen_nothing(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn is_settled(&self, port: Uuid, sb_cfg: i64) -> bool {
        self.first.is_some_and(|first| sb_cfg >= first)
            && self.collapsed.get(&port).is_none_or(|nb_cfg| sb_cfg >= *nb_cfg)
    }
}

/// A port, as far as its binding goes.
pub(super) struct Bound<'a> {
    pub(super) uuid: Uuid,
    pub(super) name: &'a str,
    /// Its options as the database has them; `None`: there is no row yet.
    pub(super) present: Option<&'a Map>,
}

impl<'a> Bound<'a> {
    /// What `options:requested-chassis` has now.
    pub(super) fn requested(&self) -> RequestedChassis<'a> {
        self.present.map(RequestedChassis::of).unwrap_or_default()
    }
}
