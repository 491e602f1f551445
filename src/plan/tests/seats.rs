//! The networks that the pods of a VM are plugged to, by the objects alone; and the laws of the ports there.

use std::collections::BTreeSet;

use super::objects::{Pod, Present};
use super::rules::base;
use super::world::{INSTANCE, World};
use crate::contract::{NadKey, VmKey, keys};
use crate::ovn::LogicalSwitchPort;
use crate::plan::Placed;

/// The base names of the ports that a NIC on NADs may have: of the NAD that the guest's pod is plugged to, of those of
/// pods that wait for the guest, and of the one that is requested. Empty without a pod that shows it.
pub(super) fn of(world: &World, vm: &VmKey, network: &str) -> BTreeSet<String> {
    let Some(present) = world.present.get(vm) else { return BTreeSet::new() };
    let on = |networks: &[(String, String)]| Some(vm.port_name_on(&nad(vm, network, networks)?));
    let of_run = present.run.as_ref().map(|(_, template, ..)| template);
    let requested = of_run.or(present.template.as_ref()).and_then(|template| on(&template.plugged()));
    let runs = present.pods.iter().any(|pod| pod.live);
    let of_guest = guest(present).and_then(|pod| on(&pod.networks));
    if runs && of_guest.is_none() || requested.is_none() {
        return BTreeSet::new();
    }
    let waiting = present.pods.iter().filter(|pod| waits(present, pod)).filter_map(|pod| on(&pod.networks));
    waiting.chain(of_guest).chain(requested).collect()
}

/// The pod of the guest.
fn guest(present: &Present) -> Option<&Pod> {
    let (run, _, node, ready) = present.run.as_ref()?;
    let live = || present.pods.iter().filter(|pod| pod.live);
    let arrived = live().find(|pod| Some(&pod.name) == ready.as_ref() && pod.node.is_some());
    let there = || live().filter(|pod| pod.node.is_some() && pod.node == *node).max_by_key(|pod| pod.run == *run);
    // Before any has a node, the newest.
    let newest = || live().filter(|pod| pod.run == *run).max_by_key(|pod| pod.node.is_some());
    arrived.or_else(there).or_else(newest)
}

/// A target of a migration under way.
fn waits(present: &Present, pod: &Pod) -> bool {
    let under_way = |uid: &String| present.migrations.iter().any(|(other, under_way)| other == uid && *under_way);
    pod.live && pod.migration.as_ref().is_some_and(under_way)
}

/// The NAD of a network among those of a pod.
fn nad(vm: &VmKey, network: &str, networks: &[(String, String)]) -> Option<NadKey> {
    let (_, nad) = networks.iter().find(|(name, _)| name == network)?;
    let (namespace, name) = nad.split_once('/').unwrap_or((&vm.namespace, nad));
    Some(NadKey::new(namespace, name))
}

/// The nodes of the targets of migrations under way.
pub(super) fn targets(world: &World, vm: &VmKey) -> Vec<String> {
    let Some(present) = world.present.get(vm) else { return Vec::new() };
    present.pods.iter().filter(|pod| waits(present, pod)).filter_map(|pod| pod.node.clone()).collect()
}

/// Returns true if a row is that of the guest, as far as the guest's pod tells.
pub(super) fn is_of_guest(world: &World, vm: &VmKey, row: &LogicalSwitchPort) -> bool {
    let Some(network) = row.external_ids.get(keys::NETWORK) else { return true };
    let pod = world.present.get(vm).and_then(guest);
    let plugged = pod.map(|pod| nad(vm, network, &pod.networks));
    plugged.is_none_or(|nad| nad.is_some_and(|nad| vm.port_name_on(&nad) == base(vm, row)))
}

/// The network of a NIC's pod on a node, if that is another one than the port's, on another switch.
pub(super) fn plugged_elsewhere(
    world: &World,
    vm: &VmKey,
    port: &Placed,
    is_node: impl Fn(&str) -> bool,
) -> Option<String> {
    let network = port.row.external_ids.get(keys::NETWORK)?;
    let present = world.present.get(vm)?;
    let (run, ..) = present.run.as_ref()?;
    let is_there = |pod: &&Pod| pod.live && pod.run == *run && pod.node.as_deref().is_some_and(&is_node);
    let mut pods = present.pods.iter().filter(is_there).peekable();
    pods.peek()?;
    let nads: Vec<NadKey> = pods.filter_map(|pod| nad(vm, network, &pod.networks)).collect();
    let switch = &world.tables.switches[&port.switch].name;
    let is_its = |nad: &NadKey| {
        let named = world.cluster.vm(vm).and_then(|objects| objects.nads.get(nad).cloned().flatten());
        vm.port_name_on(nad) == base(vm, &port.row) || named.as_ref() == Some(switch)
    };
    nads.iter().find(|_| !nads.iter().any(is_its)).map(ToString::to_string)
}

/// At rest, each of several rows of a NIC is that of a network where a pod of the VM is, or is to be.
pub(super) fn no_port_is_left_over(world: &World, vm: &VmKey) {
    let rows = world.tables.ports.iter().filter_map(|(port, row)| Some((row.owner(port, INSTANCE)?, row)));
    for (owner, row) in rows.filter(|(owner, _)| owner.vm == *vm) {
        let seats = of(world, vm, &owner.network);
        if seats.is_empty() {
            // No pod shows it, or the NIC is being unplugged.
            continue;
        }
        let several = world.northbound.ports_of(vm).filter(|(network, _)| *network == owner.network).nth(1).is_some();
        assert!(!several || seats.contains(&base(vm, row)), "{vm}: {} is left over beside {seats:?}", row.name);
    }
}
