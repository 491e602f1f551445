//! The known state of the chassis, and northd's progress.

use std::collections::HashMap;

use uuid::Uuid;

use crate::ovn::{Multichassis, Northbound, RequestedChassis, Southbound};
use crate::ovsdb::Map;

/// The known state of the southbound.
#[derive(Clone, Copy)]
pub enum Seen<'a> {
    /// It is not read (no `--sb`): a chassis has the name of its node, and `NB_Global:sb_cfg` shows northd's progress.
    Never(&'a Settling),
    /// It has not been read yet.
    NotYet,
    /// It was read, and is disconnected: its chassis are valid, and its port bindings are not.
    Before(&'a Southbound),
    /// It is in sync.
    Now(&'a Southbound),
}

impl Seen<'_> {
    /// The support for lists in `requested-chassis`. Before the southbound has been read, no list is started, and a
    /// present one is left alone.
    pub(super) fn multichassis(&self, view: &Northbound) -> Multichassis {
        match self {
            Self::Never(_) => view.multichassis(),
            Self::NotYet => Multichassis::Activated,
            Self::Before(southbound) | Self::Now(southbound) => southbound.multichassis(),
        }
    }
}

/// Collapses that northd may not have processed yet, if only the northbound is read.
#[derive(Debug, Default)]
pub struct Settling {
    /// The first `nb_cfg` of ours: a collapse from before the start of this process is processed when `sb_cfg` reaches
    /// it.
    first: Option<i64>,
    /// The `nb_cfg` of the commit that collapsed a port.
    collapsed: HashMap<Uuid, i64>,
}

impl Settling {
    /// Records that a transaction was committed that raised `nb_cfg` to this value or more and collapsed these ports.
    pub fn committed(&mut self, nb_cfg: i64, collapsed: impl IntoIterator<Item = Uuid>) {
        self.first.get_or_insert(nb_cfg);
        self.collapsed.extend(collapsed.into_iter().map(|port| (port, nb_cfg)));
    }

    /// Forgets all progress: others may have written meanwhile.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Records northd's progress.
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

/// A port and its binding.
pub(super) struct Bound<'a> {
    pub(super) uuid: Uuid,
    pub(super) name: &'a str,
    /// Its options in the database; `None` if there is no row yet.
    pub(super) present: Option<&'a Map>,
}

impl<'a> Bound<'a> {
    /// The present value of `options:requested-chassis`.
    pub(super) fn requested(&self) -> RequestedChassis<'a> {
        self.present.map(RequestedChassis::of).unwrap_or_default()
    }
}
