//! Waits replace timers: a change that would help a waiting VM makes the writer decide it again.

use uuid::Uuid;

use super::histories::{CONFIGS, config};
use super::policy_rules;
use super::server::Tables;
use super::world::{World, uuid};
use crate::contract::{VmKey, keys};
use crate::ovn::LogicalSwitch;
use crate::plan::{Claims, Decision, decide};

/// An edit of the northbound database by another program.
type Edit<'a> = Box<dyn Fn(&mut Tables) + 'a>;

/// All small edits of the present rows.
fn edits<'a>(world: &'a World, own: &VmKey) -> Vec<Edit<'a>> {
    let mut edits: Vec<Edit<'a>> = Vec::new();
    let own = world.row(own).map(|(port, _)| port);
    let others: Vec<Uuid> = world.tables.ports.keys().copied().filter(|port| Some(*port) != own).collect();
    let all = others.clone();
    edits.push(Box::new(move |tables| all.iter().for_each(|port| tables.remove_port(*port))));
    for port in others {
        edits.push(Box::new(move |tables| tables.remove_port(port)));
        edits.push(Box::new(move |tables| tables.ports.get_mut(&port).expect("there").name.push_str("-old")));
        edits.push(Box::new(move |tables| {
            let row = tables.ports.get_mut(&port).expect("there");
            row.external_ids.remove(keys::NEXT_ADDRESSES);
            row.options.remove(keys::VIRTUAL_IP);
            row.dynamic_addresses = None;
        }));
        for to in world.tables.switches.keys() {
            edits.push(Box::new(move |tables| {
                let row = tables.ports[&port].clone();
                tables.put_port(*to, port, row);
            }));
        }
    }
    for router_port in world.tables.router_ports.keys() {
        edits.push(Box::new(move |tables| drop(tables.router_ports.remove(router_port))));
    }
    for switch in world.tables.switches.keys() {
        edits.push(Box::new(move |tables| drop(tables.switches.remove(switch))));
        for name in ["blue", "red", "green"] {
            edits.push(Box::new(move |tables| tables.switches.get_mut(switch).expect("there").name = name.into()));
        }
        for index in 0..policy_rules::ROWS {
            edits.push(Box::new(move |tables| {
                tables.switches.get_mut(switch).expect("there").external_ids = policy_rules::row(index);
            }));
        }
        for index in 0..CONFIGS {
            let other_config = config(index);
            edits.push(Box::new(move |tables| {
                tables.switches.get_mut(switch).expect("there").other_config = other_config.clone();
            }));
        }
    }
    for name in ["blue", "red", "green"] {
        let row = LogicalSwitch { name: name.into(), other_config: config(2), ..Default::default() };
        edits.push(Box::new(move |tables| drop(tables.switches.insert(uuid(1, 9), row.clone()))));
    }
    edits
}

/// The number of changed rows and the reasons of a decision.
fn gist(decision: &Decision) -> (usize, Vec<&'static str>) {
    let problems = decision.status.problems();
    (decision.rows.len(), problems.map(|problem| problem.reason()).collect())
}

/// Tries some of the possible edits of the database, selected by `order`: where an edit would help a
/// waiting VM, the edit wakes one of its waits.
pub(super) fn a_waiting_vm_is_decided_again_when_the_cause_changes(world: &World, order: usize) {
    for (vm, waits) in world.waits.iter().filter(|(_, waits)| !waits.is_empty()) {
        if world.cluster.vm(vm).is_none() {
            continue;
        }
        let before = gist(&world.look_at(vm));
        let edits = edits(world, vm);
        for (number, edit) in edits.iter().enumerate().skip(order % 16).step_by(16) {
            let (northbound, wakes, vms) = world.woken_by(edit, order);
            let after = gist(&decide(&world.snapshot_with(&northbound), &Claims::default(), vm));
            let woken = vms.contains(vm) || waits.iter().any(|wait| wakes.contains(wait));
            let helps = after.0 > before.0 || after.1.len() < before.1.len();
            assert!(
                woken || !helps,
                "edit {number} helps {vm}: {before:?} becomes {after:?}, but none of {waits:?} is in {wakes:?}"
            );
        }
    }
}
