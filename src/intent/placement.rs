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
        /// The guest has come to the node by a live migration.
        arrived: bool,
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
        let Some((launcher, node)) = home(objects, run) else { return Self::Keep };
        let target = target(objects, run, launcher).and_then(|launcher| launcher.node.clone());
        Self::On { home: node.to_owned(), target, arrived: arrived(objects, run).is_some() }
    }
}

/// The launchers of the run at hand between which its guest is, or moves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Launchers<'a> {
    /// The guest's; before any has a node, the newest.
    pub(super) home: Option<&'a Launcher>,
    /// The one that the guest may move to, on another node.
    pub(super) target: Option<&'a Launcher>,
}

impl<'a> Launchers<'a> {
    /// Finds the launchers of a VM: those that [`Placement::of`] has the nodes of.
    pub(super) fn of(objects: &'a VmObjects) -> Self {
        let Some(run) = &objects.run else { return Self::default() };
        match home(objects, run) {
            Some((home, _)) => Self { home: Some(home), target: target(objects, run, home) },
            None => Self { home: newest(objects, run, |_| true), target: None },
        }
    }
}

/// The launcher of the migration's target, with its node, once the guest is ready there.
fn arrived<'a>(objects: &'a VmObjects, run: &Run) -> Option<(&'a Launcher, &'a str)> {
    let target = run.domain_ready_on.as_ref().and_then(|pod| objects.launchers.get(pod));
    target.filter(|launcher| launcher.live).and_then(with_node)
}

fn with_node(launcher: &Launcher) -> Option<(&Launcher, &str)> {
    Some((launcher, launcher.node.as_deref()?))
}

/// The launchers of a run that a migration in progress has created for the guest, also before they have a node. The
/// label of the migration stays after its end: it counts only while that migration has not ended.
pub(super) fn waiting<'a>(objects: &'a VmObjects, run: &'a Run) -> impl Iterator<Item = &'a Launcher> {
    let own = |launcher: &&Launcher| launcher.live && launcher.run_uid == run.uid;
    objects.launchers.values().filter(own).filter(|launcher| waits(objects, launcher))
}

fn waits(objects: &VmObjects, launcher: &Launcher) -> bool {
    let under_way = |uid: &String| objects.migrations.values().any(|found| found.uid == *uid && !found.finished);
    launcher.migration.as_ref().is_some_and(under_way)
}

/// The launcher of the guest, with its node: the migration's target once the guest is ready there; else the one on the
/// node in the VMI's status; else the newest one with a node.
fn home<'a>(objects: &'a VmObjects, run: &Run) -> Option<(&'a Launcher, &'a str)> {
    if let Some(found) = arrived(objects, run) {
        return Some(found);
    }
    let there = objects.launchers.iter().filter(|(_, launcher)| launcher.live && launcher.node == run.node);
    let of_run = |launcher: &Launcher| launcher.run_uid == run.uid;
    // A target pod on that node has no guest before it is ready there.
    let there =
        there.max_by_key(|(name, launcher)| (of_run(launcher), !waits(objects, launcher), launcher.created, *name));
    if let Some(found) = there.and_then(|(_, launcher)| with_node(launcher)) {
        return Some(found);
    }
    newest(objects, run, |launcher| launcher.node.is_some()).and_then(with_node)
}

/// The newest launcher that a migration in progress has created for the guest, on another node than home.
fn target<'a>(objects: &'a VmObjects, run: &Run, home: &Launcher) -> Option<&'a Launcher> {
    newest(objects, run, |launcher| launcher.node.is_some() && launcher.node != home.node && waits(objects, launcher))
}

/// The newest of the run's live launchers that fit.
fn newest<'a>(objects: &'a VmObjects, run: &Run, fits: impl Fn(&Launcher) -> bool) -> Option<&'a Launcher> {
    let own =
        objects.launchers.iter().filter(|(_, launcher)| launcher.live && launcher.run_uid == run.uid && fits(launcher));
    own.max_by_key(|(name, launcher)| (launcher.created, *name)).map(|(_, launcher)| launcher)
}
