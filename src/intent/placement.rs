//! The placement of a VM's ports: a function of the present objects, independent of the order of events.

use crate::kubevirt::{Launcher, Run, VmObjects};

/// The placement of a VM's ports, by nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// As they are: live launchers exist, and belong to another VMI.
    Keep,
    /// As they are, but on one chassis: launcher pods exist, but none is live and scheduled, so a guest cannot arrive
    /// on a second one.
    KeepHome,
    /// Nowhere: there is no launcher pod.
    Unbound,
    /// On the node of the guest, present or future.
    On {
        /// The node.
        home: String,
        /// The node that a live migration goes to, where a launcher waits for the guest.
        target: Option<String>,
    },
}

impl Placement {
    /// Places a VM.
    pub fn of(objects: &VmObjects) -> Self {
        if objects.launchers.is_empty() {
            return Self::Unbound;
        }
        if !objects.launchers.values().any(|launcher| launcher.live && launcher.node.is_some()) {
            return Self::KeepHome;
        }
        let Some(run) = &objects.run else { return Self::Keep };
        match home(objects, run) {
            Some(home) => Self::On { home: home.to_owned(), target: target(objects, run, home).map(ToOwned::to_owned) },
            None => Self::Keep,
        }
    }
}

/// The node of the migration's target once the guest is ready there; else the node in the VMI's status; else the node
/// of its newest scheduled launcher.
fn home<'a>(objects: &'a VmObjects, run: &'a Run) -> Option<&'a str> {
    let target = run.domain_ready_on.as_ref().and_then(|pod| objects.launchers.get(pod));
    if let Some(node) = target.filter(|launcher| launcher.live).and_then(|launcher| launcher.node.as_deref()) {
        return Some(node);
    }
    let mut live = objects.launchers.values().filter(|launcher| launcher.live);
    if let Some(node) = run.node.as_deref()
        && live.any(|launcher| launcher.node.as_deref() == Some(node))
    {
        return Some(node);
    }
    newest(objects, run, |_| true)
}

/// The node of a launcher that a migration in progress has created for the guest, on another node than home. The label
/// of the migration stays after its end: it counts only while that migration has not ended.
fn target<'a>(objects: &'a VmObjects, run: &Run, home: &str) -> Option<&'a str> {
    let under_way = |uid: &String| objects.migrations.values().any(|found| found.uid == *uid && !found.finished);
    newest(objects, run, |launcher| {
        launcher.node.as_deref() != Some(home) && launcher.migration.as_ref().is_some_and(under_way)
    })
}

/// The node of the newest of the run's live and scheduled launchers.
fn newest<'a>(objects: &'a VmObjects, run: &Run, fits: impl Fn(&Launcher) -> bool) -> Option<&'a str> {
    let own = objects.launchers.iter().filter(|(_, launcher)| {
        launcher.live && launcher.run_uid == run.uid && launcher.node.is_some() && fits(launcher)
    });
    own.max_by_key(|(name, launcher)| (launcher.created, *name)).and_then(|(_, launcher)| launcher.node.as_deref())
}
