//! Where a VM's ports are bound: a function of what there is, never of the order it came in.

use crate::kubevirt::{Launcher, VmObjects};

/// What `options:requested-chassis` should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// As it is: launcher pods are there, but none that is live and scheduled.
    Keep,
    /// Absent: no launcher pod at all.
    Unbound,
    /// The node where the guest runs, or will.
    On(String),
}

impl Placement {
    /// Places a VM.
    pub fn of(objects: &VmObjects) -> Self {
        if objects.launchers.is_empty() {
            return Self::Unbound;
        }
        home(objects).map_or(Self::Keep, |node| Self::On(node.to_owned()))
    }
}

/// The node of the migration's target once the guest is ready there; else where the VMI says that
/// it runs; else where its newest launcher was scheduled.
fn home(objects: &VmObjects) -> Option<&str> {
    let run = objects.run.as_ref()?;
    let target = run.domain_ready_on.as_ref().and_then(|pod| objects.launchers.get(pod));
    if let Some(node) = target.filter(|launcher| launcher.live).and_then(|launcher| launcher.node.as_deref()) {
        return Some(node);
    }
    let live = || objects.launchers.iter().filter(|(_, launcher)| launcher.live);
    if let Some(node) = run.node.as_deref()
        && live().any(|(_, launcher)| launcher.node.as_deref() == Some(node))
    {
        return Some(node);
    }
    let own = live().filter(|(_, launcher)| launcher.run_uid == run.uid && launcher.node.is_some());
    let newest: Option<(_, &Launcher)> = own.max_by_key(|(name, launcher)| (launcher.created, *name));
    newest.and_then(|(_, launcher)| launcher.node.as_deref())
}
