//! What must hold of every replica, every transaction and every state: a plain model, written
//! without looking at how a decision is made.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use macaddr::MacAddr6;
use uuid::Uuid;

use super::server::Tables;
use super::services;
use super::world::{INSTANCE, Sent, World};
use crate::contract::{VmKey, keys, port_uuid};
use crate::intent::{PortIntent, Request};
use crate::kubevirt::{Template, VmObjects};
use crate::ovn::{Addresses, Elements, LogicalSwitchPort, Northbound, Owner};
use crate::ovsdb::Map;
use crate::plan::{Decision, PortChange, Problem, RowChange};

/// What a port holds: addresses and MACs as text.
pub(super) fn claims(tables: &Tables, port: &Uuid, row: &LogicalSwitchPort) -> BTreeSet<String> {
    let texts = |elements: &Elements| elements.iter().map(Cow::into_owned).collect::<Vec<String>>();
    let (addresses, secured) = (texts(&row.addresses), texts(&row.port_security));
    let mut words: Vec<&str> = addresses.iter().map(String::as_str).collect();
    words.extend(row.dynamic_addresses.as_deref());
    words.extend(row.external_ids.get(keys::NEXT_ADDRESSES));
    if row.owner(port, INSTANCE).is_some() {
        words.extend(secured.iter().map(String::as_str));
    }
    if row.kind == "virtual" {
        words.extend(row.options.get("virtual-ip"));
    }
    if row.kind == "router"
        && let Some(name) = row.options.get("router-port")
    {
        for peer in tables.router_ports.values().filter(|peer| peer.name == name) {
            words.push(&peer.mac);
            words.extend(peer.networks.iter());
        }
    }
    // Where a network stands for all its addresses, it is no one's.
    let mut hosts: Vec<&str> = secured.iter().map(String::as_str).collect();
    hosts.extend(["arp_proxy", "nat-addresses"].into_iter().filter_map(|key| row.options.get(key)));
    let is_host = |word: &&str| {
        word.parse::<IpNet>().is_ok_and(|net| net.trunc() != net || net.prefix_len() == net.max_prefix_len())
    };
    let hosts = hosts.into_iter().flat_map(|text| text.split([' ', '\t']));
    let hosts = hosts.filter(|word| !word.contains('/') || is_host(word));
    let words = words.into_iter().flat_map(|text| text.split([' ', '\t'])).chain(hosts);
    let bare = words.map(|word| word.split_once('/').map_or(word, |(address, _)| address));
    bare.filter_map(canonical).collect()
}

/// An address or a MAC as OVN writes it, however it is spelled.
fn canonical(word: &str) -> Option<String> {
    let octets = word.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u8>>>();
    let ipv4 = octets.and_then(|octets| <[u8; 4]>::try_from(octets).ok()).map(IpAddr::from);
    let ip = word.parse::<IpAddr>().ok().or(ipv4).map(|ip| ip.to_string());
    let bytes = word.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect::<Option<Vec<u8>>>();
    let mac = || bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok()).map(MacAddr6::from);
    ip.or_else(|| mac().map(|mac| mac.to_string().to_lowercase()))
}

/// The indexes of the replica are those of one that is built from the rows anew, and both say what
/// the rows say.
pub(super) fn the_index_is_what_the_rows_say(northbound: &Northbound, tables: &Tables) {
    let fresh = tables.replica(INSTANCE);
    for view in [&northbound.rebuilt(), &fresh] {
        assert!(northbound.holds_the_same(view), "the index is not what is built anew from {tables:#?}");
    }
    let mut holders: HashMap<(Uuid, String), BTreeSet<Uuid>> = HashMap::new();
    for (port, row) in &tables.ports {
        let switch = tables.switch_of(port).expect("no orphans");
        let seen = northbound.port_named(&row.name).expect("found by its name");
        assert_eq!((seen.uuid, seen.switch, seen.row), (*port, Some(switch), &row.as_kept()));
        for claim in claims(tables, port, row) {
            holders.entry((switch, claim)).or_default().insert(*port);
        }
    }
    for ((switch, claim), expected) in holders {
        let found: BTreeSet<Uuid> = match claim.parse() {
            Ok(ip) => northbound.holders(&switch, ip).iter().copied().collect(),
            Err(_) => northbound.mac_holders(&switch, claim.parse().expect("a MAC")).collect(),
        };
        assert_eq!(found, expected, "the holders of {claim}");
    }
    for (uuid, row) in &tables.switches {
        assert!(northbound.switches_named(&row.name).any(|found| found == *uuid), "{row:?}");
        assert_eq!(northbound.subnet(uuid), fresh.subnet(uuid), "{row:?}");
    }
    let names: BTreeSet<&str> = tables.switches.values().map(|row| row.name.as_str()).collect();
    let named: usize = names.iter().map(|name| northbound.switches_named(name).len()).sum();
    assert_eq!((northbound.port_count(), named), (tables.ports.len(), tables.switches.len()));
}

/// What the rows are after a transaction is what its changes said.
pub(super) fn the_operations_do_what_the_changes_say(tables: &Tables, changes: &[PortChange]) {
    for PortChange { uuid, before: _, after } in changes {
        match after {
            None => assert_eq!(tables.ports.get(uuid), None),
            Some(after) => {
                assert_eq!(tables.ports.get(uuid).map(LogicalSwitchPort::as_kept).as_ref(), Some(&after.row));
                let referring = tables.switches.iter().filter(|(_, row)| row.ports.contains(uuid));
                assert_eq!(referring.map(|(uuid, _)| *uuid).collect::<Vec<_>>(), [after.switch]);
            }
        }
    }
}

/// A transaction of ours leaves every other row as it was, and what others put into ours.
pub(super) fn only_our_rows_changed(before: &Tables, after: &Tables) {
    let ours = |port: &Uuid, row: &LogicalSwitchPort| is_made_by_us(port) || row.is_of(port, INSTANCE);
    let foreign = |tables: &Tables| -> BTreeMap<Uuid, LogicalSwitchPort> {
        tables.ports.iter().filter(|(port, row)| !ours(port, row)).map(|(uuid, row)| (*uuid, row.clone())).collect()
    };
    let switches = |tables: &Tables| {
        let mut switches = tables.switches.clone();
        switches.values_mut().for_each(|row| row.ports.retain(|port| !ours(port, &tables.ports[port])));
        switches
    };
    assert_eq!(foreign(before), foreign(after));
    assert_eq!(switches(before), switches(after));
    assert_eq!(before.router_ports, after.router_ports);
    for (uuid, row) in &after.ports {
        if let Some(old) = before.ports.get(uuid) {
            assert_eq!(not_ours(old), not_ours(row), "foreign keys of {}", row.name);
            assert!(row.name == old.name || port_uuid(INSTANCE, &row.name) == *uuid, "{} was {}", row.name, old.name);
            assert!(row.kind == old.kind || row.kind.is_empty() && is_made_by_us(uuid), "{} is {}", row.name, row.kind);
        }
    }
}

/// The parts of a row of ours that others may have written.
fn not_ours(row: &LogicalSwitchPort) -> Vec<(&str, &str)> {
    let ours = [keys::VENDOR, keys::REQUESTED_CHASSIS, keys::ACTIVATION_STRATEGY];
    let pairs = row.options.iter().chain(row.external_ids.iter());
    let foreign = pairs.filter(|(key, _)| !ours.contains(key) && !key.starts_with("ovn-kubevirt.io/"));
    foreign.collect()
}

/// The test's own rows have other UUIDs.
fn is_made_by_us(port: &Uuid) -> bool {
    port.get_version_num() == 5
}

/// No address or MAC is given that another port of the switch has, or gets in this transaction. Another of the same VM may
/// have had it that gives it up in this transaction.
pub(super) fn nothing_is_given_that_another_has(tables: &Tables, changes: &[PortChange]) {
    let mut given: BTreeSet<(Uuid, String)> = BTreeSet::new();
    for change in changes {
        let Some(after) = &change.after else { continue };
        let stayed = change.before.as_ref().filter(|before| before.switch == after.switch);
        let columns = |row: &LogicalSwitchPort| (row.addresses.clone(), row.port_security.clone());
        let had = stayed.map(|before| match columns(&before.row) == columns(&after.row) {
            // What is there already is not given.
            true => claims(tables, &change.uuid, &before.row),
            false => had(tables, &change.uuid, &before.row),
        });
        let had = had.unwrap_or_default();
        for claim in claims(tables, &change.uuid, &after.row).difference(&had) {
            assert!(given.insert((after.switch, claim.clone())), "{claim} is given twice: {changes:#?}");
            let served = services::on_switch(tables, after.switch);
            assert!(!served.contains(claim), "{claim} goes to {} and is answered for: {tables:#?}", after.row.name);
            let others = tables.switches[&after.switch].ports.iter().filter(|port| **port != change.uuid);
            for other in others {
                let row = &tables.ports[other];
                let given_up = changes.iter().find(|change| change.uuid == *other).is_some_and(|other| {
                    let still = other.after.as_ref().filter(|still| still.switch == after.switch);
                    let owner = |port, row: &LogicalSwitchPort| row.owner(port, INSTANCE).map(|owner| owner.vm);
                    let owner_of_other = other.before.as_ref().and_then(|_| owner(&other.uuid, row));
                    owner_of_other.is_none_or(|vm| owner(&change.uuid, &after.row) == Some(vm))
                        && still.is_none_or(|still| !claims(tables, &other.uuid, &still.row).contains(claim))
                });
                assert!(
                    given_up || !claims(tables, other, row).contains(claim),
                    "{claim} goes to {} and is held by {row:?}",
                    after.row.name
                );
            }
        }
    }
}

/// What a row of ours had: where it has a NIC's addresses, what somebody wrote into `port_security` alone it had not.
fn had(tables: &Tables, port: &Uuid, row: &LogicalSwitchPort) -> BTreeSet<String> {
    let is_overwritten = row.addresses.iter().all(|text| text.parse::<Addresses>().is_err());
    let port_security = row.port_security.iter().filter(|_| is_overwritten).collect();
    claims(tables, port, &LogicalSwitchPort { port_security, ..row.clone() })
}

/// No two ports of ours on a switch share an address or a MAC, reserved ones included.
pub(super) fn no_two_of_ours_share_anything(tables: &Tables) {
    let mut held: BTreeMap<(Uuid, String), &str> = BTreeMap::new();
    for (port, row) in tables.ports.iter().filter(|(port, row)| row.owner(port, INSTANCE).is_some()) {
        if row.kind == "router" {
            // A person connected a router by it: it has the router port's addresses, too.
            continue;
        }
        let switch = tables.switch_of(port).expect("no orphans");
        for claim in claims(tables, port, row) {
            if let Some(other) = held.insert((switch, claim.clone()), &row.name) {
                panic!("{claim} is held by {other} and {}", row.name);
            }
        }
    }
}

/// What a row may hold: what both columns say; where they have nothing in common, what either does.
fn leases(row: &LogicalSwitchPort) -> Vec<Addresses> {
    let of = |elements: &Elements| elements.iter().filter_map(|text| text.parse().ok()).collect::<Vec<Addresses>>();
    let (addresses, secured) = (of(&row.addresses), of(&row.port_security));
    match addresses.iter().find(|addresses| secured.contains(addresses)) {
        Some(both) => vec![*both],
        None => [secured, addresses].concat(),
    }
}

fn reserved(row: &LogicalSwitchPort) -> Option<Addresses> {
    row.external_ids.get(keys::NEXT_ADDRESSES).and_then(|text| text.parse().ok())
}

/// A lease changes only where its owner requested so, and never under a launcher that may still run.
pub(super) fn a_change_is_lawful(world: &World, vm: &VmKey, changes: &[PortChange]) {
    let nothing = VmObjects::default();
    let objects = world.cluster.vm(vm).unwrap_or(&nothing);
    let run_uid = objects.run.as_ref().map(|run| run.uid.as_str());
    let live = || objects.launchers.values().filter(|launcher| launcher.live);
    let old_launcher = live().any(|launcher| Some(launcher.run_uid.as_str()) != run_uid);
    let intent = world.intent(vm);
    for change in changes {
        let Some(before) = &change.before else { continue };
        let Some(after) = &change.after else {
            retention_is_lawful(world, vm, &before.row);
            assert!(!old_launcher, "{vm}: its port goes while a launcher of before may run: {objects:#?}");
            // Whose a row without marks is, only its name says.
            let Some(network) = before.row.external_ids.get(keys::NETWORK) else { continue };
            let nic = intent.as_ref().and_then(|intent| intent.ports.iter().find(|nic| nic.network == network));
            let has_left = nic.is_some_and(|nic| nic.on_none_of_ours && nic.base_name != base(vm, &before.row));
            assert!(
                !is_named(objects, network) || has_left && live().next().is_none(),
                "{vm}: the port of {network} goes, which is there: {objects:#?}"
            );
            continue;
        };
        let repaired =
            port_uuid(INSTANCE, &before.row.name) != change.uuid && port_uuid(INSTANCE, &after.row.name) == change.uuid;
        assert!(after.row.name == before.row.name || repaired, "a port keeps its name: {change:#?}");
        let Some(network) = after.row.external_ids.get(keys::NETWORK) else {
            assert_eq!(leases(&after.row), leases(&before.row), "{vm}: the port of an unknown network stays as it is");
            continue;
        };
        renaming_is_lawful(world, vm, &before.row, network);
        let nic = intent.as_ref().and_then(|intent| intent.ports.iter().find(|nic| nic.network == network));
        let request = nic.and_then(|nic| nic.life.request().clone().ok()).filter(|_| !old_launcher).unwrap_or_default();
        if after.switch != before.switch {
            assert!(live().next().is_none(), "{vm}: its port changes switches while it runs");
            // From what one network is on to what another is, no request is needed.
            let was_elsewhere = nic.is_some_and(|nic| nic.base_name != base(vm, &before.row));
            let requested = nic.and_then(|nic| nic.switch.as_ref()).filter(|request| request.explicit || was_elsewhere);
            let name = &world.tables.switches[&after.switch].name;
            assert!(requested.is_some_and(|request| request.has(name)), "{vm}: nobody names {name}");
            continue;
        }
        let olds = leases(&before.row);
        let Some(new) = leases(&after.row).first().copied() else { continue };
        let running = live().next().is_some();
        let within =
            |address: Option<IpAddr>| request.pool.as_ref().zip(address).is_some_and(|(pool, ip)| pool.contains(ip));
        let reserved = reserved(&before.row);
        let by_pool = |new: Option<IpAddr>, old: Option<IpAddr>| {
            let was_reserved = reserved.is_some_and(|reserved| reserved.ips().any(|ip| Some(ip) == new));
            (!running || was_reserved) && within(new) && !within(old)
        };
        let lawful = |old: &Addresses| {
            let [old_ipv4, new_ipv4] = [*old, new].map(|lease| lease.ipv4.map(IpAddr::V4));
            let [old_ipv6, new_ipv6] = [*old, new].map(|lease| lease.ipv6.map(IpAddr::V6));
            let requested_ipv4 = request.ipv4.is_some() && new.ipv4 == request.ipv4 || by_pool(new_ipv4, old_ipv4);
            let requested_ipv6 = request.ipv6.is_some() && new.ipv6 == request.ipv6 || by_pool(new_ipv6, old_ipv6);
            let gives_up = request.no_address && new.ips().next().is_none();
            // A port with its MAC alone may get more when its guest does not run, or what was taken out of its row.
            let was_reserved =
                || reserved.is_some_and(|reserved| new.ips().all(|ip| reserved.ips().any(|own| own == ip)));
            let gains =
                !request.no_address && old.ips().next().is_none() && (!running || world.resting || was_reserved());
            (new.ipv4 == old.ipv4 || requested_ipv4 || gives_up || gains)
                && (new.ipv6 == old.ipv6 || requested_ipv6 || gives_up || gains)
                && (new.mac == old.mac || Some(new.mac) == request.mac)
        };
        // What somebody wrote into it and another of ours has is no lease.
        let others = world.tables.ports.iter().filter(|(port, row)| {
            **port != change.uuid
                && world.tables.switch_of(port) == Some(before.switch)
                && row.owner(port, INSTANCE).is_some()
        });
        let held: BTreeSet<String> = others.flat_map(|(port, row)| claims(&world.tables, port, row)).collect();
        let is_anothers = |old: &Addresses| {
            let row = LogicalSwitchPort { addresses: Elements::from_iter([old.to_string()]), ..Default::default() };
            claims(&world.tables, &Uuid::nil(), &row).intersection(&held).next().is_some()
        };
        assert!(
            olds.iter().any(lawful) || olds.iter().all(is_anothers),
            "{vm}: {olds:?} became {new}, requested was {request:?}"
        );
    }
}

/// What nobody named is chosen: no MAC that another port of ours has, on whatever switch, no address that anything
/// answers for anywhere, and not the first host address. `given` is what the transaction gives to others.
pub(super) fn a_choice_is_lawful(world: &World, vm: &VmKey, given: &[PortChange], changes: &[PortChange]) {
    let intent = world.intent(vm);
    let requests: Vec<Request> = intent.iter().flat_map(|intent| &intent.ports).flat_map(requests_of).collect();
    for change in changes {
        let Some(after) = &change.after else { continue };
        let had = change.before.as_ref().map(|before| claims(&world.tables, &change.uuid, &before.row));
        let had = had.unwrap_or_default();
        let new = claims(&world.tables, &change.uuid, &after.row);
        let named = |claim: &String| match claim.parse::<IpAddr>() {
            Ok(ip) => requests.iter().any(|request| request.names(ip)),
            Err(_) => {
                requests.iter().any(|request| request.mac.is_some_and(|mac| mac.to_string().to_lowercase() == *claim))
            }
        };
        let stayed = change.before.as_ref().is_some_and(|before| before.switch == after.switch);
        // What its VM was last told is taken up again.
        let told = super::told::last(world, vm);
        let chosen =
            new.iter().filter(|claim| !(named(claim) || stayed && had.contains(*claim) || told.contains(*claim)));
        for claim in chosen {
            let is_mac = claim.parse::<IpAddr>().is_err();
            if is_mac && !had.contains(claim) {
                let others = world.tables.ports.iter().filter(|(port, _)| **port != change.uuid);
                let of_others = others.filter(|(port, row)| row.is_of(port, INSTANCE));
                let mut rows = of_others.chain(placed_others(given, change.uuid));
                assert!(
                    rows.all(|(port, row)| !claims(&world.tables, port, row).contains(claim)),
                    "{vm}: {claim} is made a second time: {changes:#?}"
                );
            } else if !is_mac {
                assert!(
                    !services::anywhere(&world.tables).contains(claim),
                    "{vm}: {claim} is chosen, and answered for"
                );
                let first = first_hosts(&world.tables.switches[&after.switch].other_config);
                assert!(world.resting || !first.contains(claim), "{vm}: {claim} is chosen, the first host address");
            }
        }
    }
}

fn requests_of(nic: &PortIntent) -> impl Iterator<Item = Request> {
    nic.life.requests().cloned()
}

fn placed_others(changes: &[PortChange], but: Uuid) -> impl Iterator<Item = (&Uuid, &LogicalSwitchPort)> {
    let others = changes.iter().filter(move |change| change.uuid != but);
    others.filter_map(|change| change.after.as_ref().map(|after| (&change.uuid, &after.row)))
}

/// The second address of each network that a switch names in plain spelling.
fn first_hosts(config: &Map) -> BTreeSet<String> {
    let ipv4 = config.get("subnet").and_then(|text| text.parse::<ipnet::Ipv4Net>().ok());
    let ipv6 = config.get("ipv6_prefix").and_then(|text| text.parse::<ipnet::Ipv6Net>().ok());
    let ipv4 = ipv4.map(|net| std::net::Ipv4Addr::from(u32::from(net.network()) + 1).to_string());
    ipv4.into_iter()
        .chain(ipv6.map(|net| std::net::Ipv6Addr::from(u128::from(net.network()) + 1).to_string()))
        .collect()
}

/// A VM that is gone leaves its addresses reserved for as long as was said.
fn retention_is_lawful(world: &World, vm: &VmKey, row: &LogicalSwitchPort) {
    if world.cluster.vm(vm).is_some() || row.external_ids.get(keys::RETAIN).is_none() {
        return;
    }
    let until = row.external_ids.get(keys::RETAINED_UNTIL).unwrap_or_else(|| panic!("{vm} is not retained: {row:#?}"));
    let until: k8s_openapi::jiff::Timestamp = until.parse().unwrap_or_else(|_| panic!("{vm} goes at {until}"));
    assert!(until.as_second() <= world.now, "{vm} goes before {until}");
}

/// Whether a network is one of what runs, unplugged ones included, or of what runs next.
fn is_named(objects: &VmObjects, network: &str) -> bool {
    let of_run = objects.run.as_ref().and_then(|run| run.template.as_ref().ok());
    let of_vm = objects.vm.as_ref().and_then(|vm| vm.template.as_ref().ok());
    let named = |template: &Template, absent_too: bool| {
        let interfaces = template.spec.domain.devices.interfaces.iter().flatten();
        let absent = interfaces.filter(|interface| interface.state.is_some()).any(|absent| absent.name == network);
        let mut networks = template.spec.networks.iter().flatten();
        networks.any(|listed| listed.name == network) && (absent_too || !absent)
    };
    of_run.is_some_and(|run| named(run, true)) || of_vm.is_some_and(|vm| named(vm, false))
}

/// What a row is on: as it says, or its name.
fn base(vm: &VmKey, row: &LogicalSwitchPort) -> String {
    let name = row.name.trim_end_matches("-renamed");
    let named = || match name.find(".ovn") {
        Some(end) => name[..end + 4].to_owned(),
        None => vm.port_name(),
    };
    row.external_ids.get(keys::BASE_NAME).map_or_else(named, ToOwned::to_owned)
}

/// A row changes its network only to that of the one new NIC which is on the same, and only where no other row was left.
fn renaming_is_lawful(world: &World, vm: &VmKey, before: &LogicalSwitchPort, network: &str) {
    // One that was lost with the marks is found again by the row's UUID.
    let old = before.external_ids.get(keys::NETWORK).unwrap_or(network);
    if old == network || Owner::of(before.external_ids.map(), INSTANCE).is_none() {
        return;
    }
    let intent = world.intent(vm).expect("there is a NIC");
    let base = |row: &LogicalSwitchPort| base(vm, row);
    let rows = || {
        world.tables.ports.values().filter(|row| {
            Owner::of(row.external_ids.map(), INSTANCE).is_some_and(|owner| owner.vm == *vm)
                && base(row) == base(before)
        })
    };
    let marked = |network: &str| {
        let owner = Owner { vm: vm.clone(), network: network.to_owned() };
        world.tables.ports.iter().any(|(port, row)| row.owner(port, INSTANCE).as_ref() == Some(&owner))
    };
    let named = |network: &str| intent.ports.iter().any(|nic| nic.network == network);
    let left = rows().filter(|row| row.external_ids.get(keys::NETWORK).is_some_and(|network| !named(network)));
    let untouched = |row: &&LogicalSwitchPort| {
        let network = row.external_ids.get(keys::NETWORK).expect("our row");
        intent.untouched.as_ref().is_some_and(|untouched| untouched.contains(network))
    };
    assert_eq!(left.filter(|row| !untouched(row)).count(), 1, "{vm}: which row is {network}'s is a guess");
    let new = intent.ports.iter().filter(|nic| nic.base_name == base(before) && !marked(&nic.network));
    let new: Vec<&str> = new.map(|nic| nic.network.as_str()).collect();
    assert_eq!(new, [network], "{vm}: which network the row of {old} is for is a guess");
}

/// A problem that a VM waits with is one of the northbound database, not of the company that it was
/// planned in: were the others' changes refused, nothing would wake it.
pub(super) fn what_is_told_holds_without_the_others(plan: &Decision, alone: &Decision) {
    let problems = |plan: &Decision| plan.status.problems().cloned().collect::<Vec<_>>();
    if !plan.waits.wakes.is_empty() {
        assert_eq!(
            (problems(plan), &plan.waits.wakes),
            (problems(alone), &alone.waits.wakes),
            "planned in company, and alone"
        );
    }
}

/// While a transaction is in flight, a VM that it does not concern gets the plan that it would get after it.
pub(super) fn a_plan_that_was_made_ahead_is_the_one_that_is_made_after(vm: &VmKey, ahead: &Decision, after: &Decision) {
    assert!(!after.waits.batch, "{vm}");
    assert_eq!((&ahead.rows, &ahead.waits.wakes), (&after.rows, &after.waits.wakes), "{vm}");
    // A holder's port may get the name back that a person changed.
    let words = |problem: &Problem| problem.to_string().replace("-renamed", "");
    let said = |plan: &Decision| plan.status.problems().map(words).collect::<Vec<_>>();
    assert_eq!(said(ahead), said(after), "{vm}");
}

/// What our own commit does is no change of anybody else's, and each VM has what its plan made of it; were any of its
/// rows another, it had not.
pub(super) fn what_was_planned_is_told_from_what_others_do(
    foreign_changes: u64,
    northbound: &Northbound,
    changed: &BTreeSet<VmKey>,
    sent: &[Sent],
) {
    let takes_over =
        |change: &PortChange| change.before.as_ref().is_some_and(|before| !before.row.is_of(&change.uuid, INSTANCE));
    if sent.iter().flat_map(|sent| &sent.changes).filter_map(RowChange::as_port).any(takes_over) {
        // The row was another instance's, or had lost its marks and its name: all that is prepared is planned again.
        return;
    }
    assert_eq!(northbound.foreign_changes(), foreign_changes, "only rows of ours were written");
    for vm in changed {
        // Another shares an address with one of them: it is looked at.
        let Some(Sent { changes, expectation, .. }) = sent.iter().find(|sent| sent.vm == *vm) else { continue };
        if changes.is_empty() {
            // It is not in the transaction: a row without marks was taken for its own by the name alone.
            continue;
        }
        assert!(expectation.is_met(northbound, vm, changes), "{vm}: {changes:#?}");
        for index in 0..changes.len() {
            let mut other = changes.clone();
            match &mut other[index] {
                RowChange::Port(PortChange { after: Some(after), .. }) => after.row.name.push('x'),
                RowChange::Port(PortChange { after: None, .. }) => drop(other.remove(index)),
            }
            let met = expectation.is_met(northbound, vm, &other);
            assert_eq!(met, other.len() < changes.len(), "{vm}: {other:#?}");
        }
    }
}
