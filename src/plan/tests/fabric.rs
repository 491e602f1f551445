//! Chassis rows of the small world, which come, go, double and are renamed; and what a port keeps meanwhile.

use super::world::World;
use crate::contract::{VmKey, keys};
use crate::intent::Placement;
use crate::ovn::{Chassis, NodeChassis, Southbound, Wake};
use crate::plan::PortChange;

/// What a node's rows may be: none, its own, one beside it, one that has taken its place, one of the node's own name.
pub(super) const KINDS: usize = 5;

impl World {
    /// Reads a southbound where each of the nodes n1 to n3 has its chassis.
    pub(super) fn with_southbound(mut self) -> Self {
        self.southbound = Some(Southbound::default());
        (0..3).for_each(|node| self.chassis(node, 1));
        self
    }

    /// A node's chassis rows are of this kind from now on.
    pub(super) fn chassis(&mut self, node: u8, kind: usize) {
        let Some(southbound) = &mut self.southbound else { return };
        let (number, hostname) = (u128::from(node) * 10, format!("n{}", node + 1));
        let own = ("c", [1, 2].contains(&kind), hostname.as_str());
        let anew = ("d", [2, 3].contains(&kind), hostname.as_str());
        let exact = ("n", kind == 4, "elsewhere");
        for (slot, (letter, is_there, hostname)) in (0..).zip([own, anew, exact]) {
            let row = Chassis { name: format!("{letter}{}", node + 1), hostname: hostname.to_owned() };
            match is_there {
                true => southbound.put_chassis(number + slot, row),
                false => southbound.remove_chassis(number + slot),
            }
        }
        // As the writer does it.
        let changed = southbound.take_changes().chassis;
        let woken = self.waits.iter().filter(|(_, waits)| {
            waits.iter().any(|wait| matches!(wait, Wake::Chassis(name) if changed.contains(name)))
        });
        let woken: Vec<VmKey> = woken.map(|(vm, _)| vm.clone()).collect();
        let affected = self.cluster.vms_on(|node| changed.contains(node));
        let dirty: Vec<VmKey> = affected.into_iter().chain(woken).collect();
        dirty.into_iter().for_each(|vm| self.mark(vm));
    }
}

/// A port whose VM is where it was keeps its chassis: while that has a row beside others of the node, and while the
/// node has no row at all. A port is never on a chassis that is another node's.
pub(super) fn a_chassis_is_kept(world: &World, vm: &VmKey, changes: &[PortChange]) {
    let Some(southbound) = &world.southbound else { return };
    let Some(Placement::On { home, .. }) = world.intent(vm).map(|intent| intent.placement) else { return };
    // A port that goes, goes.
    for change in changes.iter().filter(|change| change.after.is_some()) {
        let requested = |placed: Option<&crate::plan::Placed>| {
            placed.and_then(|placed| placed.row.options.get(keys::REQUESTED_CHASSIS)).map(ToOwned::to_owned)
        };
        let (before, after) = (requested(change.before.as_ref()), requested(change.after.as_ref()));
        let is_of_home = |chassis: &str| chassis[1..] == home[1..];
        if let Some(before) = before.filter(|before| is_of_home(before)) {
            let stays = match southbound.chassis_of_node(&home) {
                NodeChassis::Absent => true,
                NodeChassis::One(one) => one == before,
                NodeChassis::Several(rows) => rows.contains(&before.as_str()),
            };
            assert!(!stays || after.as_deref() == Some(&before), "{vm} on {home}: {before} became {after:?}");
        }
        let others = after.filter(|after| southbound.has_chassis(after) && !is_of_home(after));
        assert_eq!(others, None, "{vm} on {home}");
    }
}
