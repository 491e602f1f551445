//! The operator's policy in any history: values that change, and the laws under each of them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;
use uuid::Uuid;

use super::server::Tables;
use super::world::{self, INSTANCE, World};
use crate::contract::{VmKey, keys};
use crate::intent::{Namespaces, Permission, Permissions, Policy, PortIntent, Retention};
use crate::ovn::{Addresses, LogicalSwitch, LogicalSwitchPort};
use crate::ovsdb::Map;
use crate::plan::{Decision, Fault, PortChange, Problem, Requested, present};

/// The policies that the row of a switch may have.
const NAMESPACES: [Option<&str>; 8] = [None, None, None, Some("n"), Some("m"), Some("n, m"), Some("*"), Some("n;m")];
const ALLOW: [Option<&str>; 9] = [
    None,
    None,
    Some("explicit,excluded,first"),
    Some("explicit"),
    Some("none"),
    Some("explicit, first"),
    Some("explicit,link-local"),
    Some("explicit,vips"),
    Some("explicit,excludde,port-security-off"),
];
/// The number of policies on a row.
pub(super) const ROWS: usize = NAMESPACES.len() * ALLOW.len();

/// One of the policies on a row.
pub(super) fn row(index: usize) -> Map {
    let namespaces = NAMESPACES[index % NAMESPACES.len()].map(|text| (keys::NAMESPACES, text));
    let allow = ALLOW[index / NAMESPACES.len() % ALLOW.len()].map(|text| (keys::ALLOW, text));
    namespaces.into_iter().chain(allow).collect()
}

/// A change of policy.
#[derive(Debug, Clone)]
pub(super) enum Edit {
    /// The operator edits a row.
    Row(u8, usize),
    /// The service is started with other flags.
    Flags(Policy),
}

/// Any flags.
pub(super) fn flags() -> impl Strategy<Value = Policy> {
    let allow = prop_oneof![Just(Permissions::all()), Just(Permissions::default()), Just(Permissions::NONE)];
    let max_nics = proptest::sample::select(vec![None, None, None, Some(0), Some(1), Some(2), Some(4)]);
    let seconds = |seconds| Retention::For(std::time::Duration::from_secs(seconds));
    let max_retain = proptest::sample::select(vec![Retention::Forever, seconds(5), seconds(40)]);
    let only = |names: &[&str]| Namespaces::Only(names.iter().map(|name| (*name).to_owned()).collect());
    let namespaces =
        proptest::sample::select(vec![None, None, Some(only(&["m"])), Some(only(&[])), Some(Namespaces::All)]);
    (allow, max_nics, max_retain, namespaces).prop_map(|(allow, max_nics, max_retain, namespaces)| Policy {
        switch_namespaces: namespaces.map(|namespaces| ("red".to_owned(), namespaces)).into_iter().collect(),
        allow,
        max_nics,
        max_retain,
    })
}

pub(super) fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        2 => (0..3u8, 0..ROWS).prop_map(|(slot, policy)| Edit::Row(slot, policy)),
        1 => flags().prop_map(Edit::Flags),
    ]
}

pub(super) fn take(world: &mut World, edit: Edit) {
    match edit {
        Edit::Row(slot, policy) => world.edit(|tables| {
            if let Some(switch) = tables.switches.get_mut(&world::uuid(1, slot)) {
                switch.external_ids = row(policy);
            }
        }),
        Edit::Flags(policy) => world.reconfigure(policy),
    }
}

/// Whether a namespace may use a switch.
pub(super) fn may_use(world: &World, switch: &LogicalSwitch, namespace: &str) -> bool {
    match switch.external_ids.get(keys::NAMESPACES) {
        Some("*") => true,
        Some(text) => !text.contains(';') && text.split(',').any(|name| name.trim() == namespace),
        None => match world.settings.policy.switch_namespaces.get(&switch.name) {
            None | Some(Namespaces::All) => true,
            Some(Namespaces::Only(names)) => names.contains(namespace),
        },
    }
}

/// Whether owners have a permission on a switch.
fn may(world: &World, switch: &LogicalSwitch, permission: Permission) -> bool {
    match switch.external_ids.get(keys::ALLOW) {
        Some(text) => text.split(',').any(|word| word.trim() == permission.word()),
        None => world.settings.policy.allow.has(permission),
    }
}

/// Returns true if the policy of a switch permits a kept address, which may be excluded or the first.
pub(super) fn opens(world: &World, switch: &Uuid, address: IpAddr) -> bool {
    let row = &world.tables.switches[switch];
    let Ok(subnet) = world.northbound.subnet(switch) else { return true };
    subnet.block_of(address).is_none_or(|block| {
        (!block.excludes(address) || may(world, row, Permission::Excluded))
            && (!block.keeps_first(address) || may(world, row, Permission::First))
    })
}

/// The addresses of a row, now and for the next start.
fn held(row: &LogicalSwitchPort) -> BTreeSet<IpAddr> {
    let secured = row.port_security.secured().map(|secured| secured.lease);
    let elements = row.addresses.nics().chain(secured).chain(row.external_ids.reserved());
    elements.flat_map(|addresses: Addresses| addresses.ips().collect::<Vec<_>>()).collect()
}

/// The allocations of a transaction follow the policy of the moment. `given` has its allocations to other VMs.
pub(super) fn every_allocation_is_within_the_policy(
    world: &World,
    vm: &VmKey,
    given: &[PortChange],
    changes: &[PortChange],
) {
    let intent = world.intent(vm);
    for change in changes {
        let Some(after) = &change.after else { continue };
        let switch = &world.tables.switches[&after.switch];
        let stayed = change.before.as_ref().filter(|before| before.switch == after.switch);
        assert!(stayed.is_some() || may_use(world, switch, &vm.namespace), "{vm} comes to {}: {switch:?}", switch.name);
        let had = stayed.map(|before| held(&before.row)).unwrap_or_default();
        for ip in held(&after.row).difference(&had).filter(|_| !world.resting) {
            assert!(opens(world, &after.switch, *ip), "{vm} gets {ip} of {switch:?}: {:?}", world.settings.policy);
        }
        // A retained port stays as it is.
        if intent.is_some() {
            for secured in after.row.port_security.secured() {
                let opens = secured.lease.ipv6.is_some() && may(world, switch, Permission::LinkLocal);
                assert_eq!(secured.link_locals, opens, "{vm}: {secured} on {switch:?}");
            }
        }
        if change.before.is_some() {
            continue;
        }
        let network = after.row.external_ids.get(keys::NETWORK).expect("our row");
        let nic = intent.iter().flat_map(|intent| &intent.ports).find(|nic| nic.network == network).expect("its NIC");
        assert!(is_attached(world, vm, nic), "{vm}: a port for {network}, which has no NAD");
        let request = nic.life.request().clone().unwrap_or_default();
        let named = [request.ipv4.map(IpAddr::V4), request.ipv6.map(IpAddr::V6)];
        let is_named = held(&after.row).iter().any(|ip| named.contains(&Some(*ip)));
        assert!(!is_named || may(world, switch, Permission::Explicit), "{vm} gets what it names on {switch:?}");
        assert!(
            !after.row.port_security.is_empty() || may(world, switch, Permission::PortSecurityOff),
            "{vm} is not secured on {switch:?}"
        );
    }
    let new = |changes: &[PortChange]| {
        let new = changes.iter().filter(|change| change.before.is_none()).filter_map(|change| change.after.as_ref());
        new.filter(|after| after.row.namespace().as_ref() == Some(&vm.namespace)).count()
    };
    let (here, all) = (new(changes), new(changes) + new(given) + ports_in(&world.tables, &vm.namespace));
    let limit = world.settings.policy.max_nics;
    // A port may take the place of one that goes with it.
    let gone = changes.iter().filter(|change| change.before.is_some() && change.after.is_none()).count();
    assert!(here == 0 || limit.is_none_or(|limit| all <= limit + gone), "{vm}: port number {all} of {limit:?}");
}

fn ports_in(tables: &Tables, namespace: &str) -> usize {
    let owners = tables.ports.iter().filter_map(|(port, row)| row.owner(port, INSTANCE));
    owners.filter(|owner| owner.vm.namespace == namespace).count()
}

/// Whether a NIC is on the pod network, or on a NAD that exists.
fn is_attached(world: &World, vm: &VmKey, nic: &PortIntent) -> bool {
    let nads = world.cluster.vm(vm).map(|objects| &objects.nads);
    nic.base_name == vm.port_name()
        || nads.is_some_and(|nads| nads.keys().any(|nad| vm.port_name_on(nad) == nic.base_name))
}

/// A policy blames the owner only for a request that differs from the lease, never for the lease.
pub(super) fn a_lease_is_never_the_fault_of_its_owner(world: &World, vm: &VmKey, decision: &Decision) {
    let intent = world.intent(vm);
    for standing in present(&world.northbound, vm).ports {
        let (Some(lease), Some(switch)) = (standing.addresses, standing.switch) else { continue };
        let has = |ip: IpAddr| lease.ips().chain(standing.next.iter().flat_map(Addresses::ips)).any(|own| own == ip);
        let status = decision.status.ports.iter().find(|port| port.row == standing.row && port.row.is_some());
        // The network may have another name now.
        let network = status.map(|port| &port.network);
        let nic = intent.iter().flat_map(|intent| &intent.ports).find(|nic| Some(&nic.network) == network);
        let problems = status.iter().flat_map(|port| &port.problems);
        let blamed = problems.filter(|problem| problem.fault() == Fault::Owner);
        for problem in blamed {
            match problem {
                Problem::NotAllowed { requested: Requested::Address(address), switch: on, .. } => {
                    assert!(*on != switch || !has(*address), "{vm} has {address}, and is told {problem}");
                }
                Problem::NotAllowed { requested: Requested::Pool(pool), switch: on, .. } => {
                    let lacks =
                        |ipv4| !pool.is_empty(ipv4) && !lease.ips().any(|ip| ip.is_ipv4() == ipv4 && pool.contains(ip));
                    assert!(*on != switch || lacks(true) || lacks(false), "{vm} has {lease}, and is told {problem}");
                }
                Problem::NamespaceNotAllowed { switch: other, .. } => {
                    let next = nic.and_then(|nic| nic.life.next()?.switch.as_ref());
                    let mut requests = nic.and_then(|nic| nic.switch.as_ref()).into_iter().chain(next);
                    assert!(*other != switch, "{vm} is on {switch}, and is told {problem}");
                    assert!(requests.any(|request| request.of_vm && request.has(other)), "{vm} does not name {other}");
                }
                Problem::TooManyNics { .. }
                | Problem::NadNotFound { .. }
                | Problem::PortSecurityKept { .. }
                | Problem::RetainTooLong { .. } => panic!("{vm} has {lease}, and is told {problem}"),
                _ => {}
            }
        }
        let whole = decision.status.problems.iter().find(|problem| matches!(problem, Problem::RetainTooLong { .. }));
        assert!(whole.is_none_or(|problem| problem.fault() == Fault::Operator), "{vm} has {lease}: {whole:?}");
    }
}

/// At rest no address stays reserved longer than the operator allows.
pub(super) fn no_retention_is_beyond_the_bound(world: &World) {
    let Retention::For(most) = world.settings.longest_retention() else { return };
    for row in world.tables.ports.values().filter(|row| row.external_ids.get(keys::INSTANCE) == Some(INSTANCE)) {
        let vm = row.external_ids.get(keys::VM).and_then(|vm| vm.split_once('/'));
        let Some((namespace, name)) = vm.filter(|_| row.owner(&Uuid::nil(), INSTANCE).is_some()) else { continue };
        let until = row.external_ids.get(keys::RETAINED_UNTIL);
        let Some(until) = until.filter(|_| world.cluster.vm(&VmKey::new(namespace, name)).is_none()) else { continue };
        let until: k8s_openapi::jiff::Timestamp = until.parse().unwrap_or_else(|_| panic!("{name} stays {until}"));
        let left = until.as_second() - world.now;
        assert!(left <= i64::try_from(most.as_secs()).expect("short"), "{name} stays {left} s more");
    }
}
