//! Chassis rows of the small world, which are inserted, deleted, duplicated and renamed; and the chassis that a port keeps.

use super::seats;
use super::world::World;
use crate::contract::{VmKey, keys};
use crate::intent::Placement;
use crate::ovn::{Chassis, NodeChassis, Southbound, Wake};
use crate::plan::{Placed, PortChange, Problem, VmStatus};

/// The possible rows of a node: none, its own, a second one, a replacement, one with the node's own name.
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

/// A port keeps its chassis while its VM stays on its node: while that has a row beside others of the node, and while the
/// node has no row at all. A port is never on a chassis that is another node's, but for the target of a migration; and it
/// is never where a pod is plugged to another network, unless the pod started with it, because the requested switch cannot
/// serve yet.
pub(super) fn a_chassis_is_kept(world: &World, vm: &VmKey, changes: &[PortChange], status: &VmStatus) {
    let Some(southbound) = &world.southbound else { return };
    let Some(Placement::On { home, .. }) = world.intent(vm).map(|intent| intent.placement) else { return };
    // A deleted port has no chassis.
    for change in changes.iter() {
        let Some(now) = &change.after else { continue };
        let requested = |placed: Option<&Placed>| {
            let requested = placed.and_then(|placed| placed.row.options.get(keys::REQUESTED_CHASSIS));
            requested.into_iter().flat_map(|list| list.split(',')).map(ToOwned::to_owned).collect::<Vec<String>>()
        };
        let (before, after) = (requested(change.before.as_ref()), requested(Some(now)));
        let is_on = |chassis: &str, node: &str| chassis[1..] == node[1..];
        let is_guests = seats::is_of_guest(world, vm, &now.row);
        if let Some(before) = before.first().filter(|before| is_on(before, &home) && is_guests) {
            let stays = match southbound.chassis_of_node(&home) {
                NodeChassis::Absent => true,
                NodeChassis::One(one) => one == before,
                NodeChassis::Several(rows) => rows.contains(&before.as_str()),
            };
            assert!(!stays || after.first() == Some(before), "{vm} on {home}: {before} became {after:?}");
        }
        let targets = seats::targets(world, vm);
        let known = after.iter().enumerate().filter(|(_, chassis)| southbound.has_chassis(chassis));
        for (at, chassis) in known {
            let is_target = || targets.iter().any(|node| is_on(chassis, node));
            let is_there =
                if at == 0 && is_guests { is_on(chassis, &home) } else { is_on(chassis, &home) || is_target() };
            assert!(is_there, "{vm} on {home}, targets {targets:?}: {after:?}");
            let elsewhere = seats::plugged_elsewhere(world, vm, now, |node| is_on(chassis, node));
            let deferred = status.ports.iter().filter(|port| port.row == Some(change.uuid));
            let deferred = deferred.flat_map(|port| &port.problems);
            let is_deferred = deferred.into_iter().any(|problem| matches!(problem, Problem::SwitchDeferred { .. }));
            assert_eq!(elsewhere.filter(|_| !is_deferred), None, "{vm}: {} is bound to {chassis}", now.row.name);
        }
    }
}
