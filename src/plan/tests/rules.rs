//! The laws of every replica, every transaction and every state: a plain model, written
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
use crate::ovn::{Addresses, DhcpOptions, Elements, LogicalRouterPort, LogicalSwitchPort, Northbound, Owner, Secured};
use crate::ovsdb::Map;
use crate::plan::{Decision, DhcpChange, PortChange, Problem, RowChange};

/// The claims of a port: addresses and MACs as text.
pub(super) fn claims(tables: &Tables, port: &Uuid, row: &LogicalSwitchPort) -> BTreeSet<String> {
    let texts = |elements: &Elements| elements.iter().map(Cow::into_owned).collect::<Vec<String>>();
    // The link-local addresses are no one's.
    let secured: Vec<String> = texts(&row.port_security).iter().map(|text| text.replace(" fe80::/64", "")).collect();
    let addresses = texts(&row.addresses);
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

/// The indexes of the replica are those of one that is rebuilt from the rows, and both agree with
/// the rows.
pub(super) fn the_index_agrees_with_the_rows(northbound: &Northbound, tables: &Tables) {
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

/// The rows after a transaction are those of its changes.
pub(super) fn the_operations_agree_with_the_changes(tables: &Tables, changes: &[PortChange]) {
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

/// A transaction of ours leaves every other row unchanged, and the values of others in our rows.
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
    assert_eq!(before.router_ports.len(), after.router_ports.len());
    for ((uuid, old), new) in before.router_ports.iter().zip(after.router_ports.values()) {
        // By `--manage-ra` keys that were missing are added.
        let configs = old.ipv6_ra_configs.iter().all(|(key, value)| new.ipv6_ra_configs.get(key) == Some(value));
        let same = LogicalRouterPort { ipv6_ra_configs: new.ipv6_ra_configs.clone(), ..old.clone() };
        assert!(configs && same == *new, "{uuid}: {old:?} became {new:?}");
    }
    let foreign_dhcp = |tables: &Tables| -> BTreeMap<Uuid, DhcpOptions> {
        tables.dhcp.iter().filter(|(row, _)| !is_made_by_us(row)).map(|(row, it)| (*row, it.clone())).collect()
    };
    assert_eq!(foreign_dhcp(before), foreign_dhcp(after));
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
    let ours = [keys::VENDOR, keys::REQUESTED_CHASSIS, keys::ACTIVATION_STRATEGY, keys::HOSTNAME];
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
pub(super) fn no_port_is_given_an_address_of_another(tables: &Tables, changes: &[PortChange]) {
    let mut given: BTreeSet<(Uuid, String)> = BTreeSet::new();
    for change in changes {
        let Some(after) = &change.after else { continue };
        let stayed = change.before.as_ref().filter(|before| before.switch == after.switch);
        let columns = |row: &LogicalSwitchPort| (row.addresses.clone(), row.port_security.clone());
        let had = stayed.map(|before| match columns(&before.row) == columns(&after.row) {
            // A claim that the row has already is not given again.
            true => claims(tables, &change.uuid, &before.row),
            false => had(tables, &change.uuid, &before.row),
        });
        let had = had.unwrap_or_default();
        for claim in claims(tables, &change.uuid, &after.row).difference(&had) {
            let is_vip = |row: &LogicalSwitchPort| row.port_security.vips().iter().any(|vip| vip.to_string() == *claim);
            let is_new = given.insert((after.switch, claim.clone()));
            assert!(is_new || is_vip(&after.row), "{claim} is given twice: {changes:#?}");
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
                let is_shared = is_vip(row) && is_vip(&after.row) && row.namespace() == after.row.namespace();
                assert!(
                    given_up || is_shared || !claims(tables, other, row).contains(claim),
                    "{claim} goes to {} and is held by {row:?}",
                    after.row.name
                );
            }
        }
    }
}

/// The claims of one of our rows. Where `addresses` has a NIC's addresses, text in `port_security` alone does not count.
fn had(tables: &Tables, port: &Uuid, row: &LogicalSwitchPort) -> BTreeSet<String> {
    let is_overwritten = row.addresses.iter().all(|text| text.parse::<Addresses>().is_err());
    let port_security = row.port_security.iter().filter(|_| is_overwritten).collect();
    claims(tables, port, &LogicalSwitchPort { port_security, ..row.clone() })
}

/// No two ports of ours on a switch share an address or a MAC, reserved ones included.
pub(super) fn no_two_of_ours_share_anything(tables: &Tables) {
    let mut held: BTreeMap<(Uuid, String), (&LogicalSwitchPort, bool)> = BTreeMap::new();
    for (port, row) in tables.ports.iter().filter(|(port, row)| row.owner(port, INSTANCE).is_some()) {
        if row.kind == "router" {
            // A person connected a router by it: it has the router port's addresses, too.
            continue;
        }
        let switch = tables.switch_of(port).expect("no orphans");
        let vips: Vec<String> = row.port_security.vips().iter().map(ToString::to_string).collect();
        for claim in claims(tables, port, row) {
            let is_vip = vips.contains(&claim);
            if let Some((other, was_vip)) = held.insert((switch, claim.clone()), (row, is_vip)) {
                let are_vips = is_vip && was_vip && other.namespace() == row.namespace();
                assert!(are_vips, "{claim} is held by {} and {}", other.name, row.name);
            }
        }
    }
}

/// The possible leases of a row: the entry that both columns have; without one, the entries of either.
fn leases(row: &LogicalSwitchPort) -> Vec<Addresses> {
    let of = |elements: &Elements| elements.iter().filter_map(|text| text.parse().ok()).collect::<Vec<Addresses>>();
    let secured = row.port_security.iter().filter_map(|text| text.parse::<Secured>().ok()).map(|secured| secured.lease);
    let (addresses, secured) = (of(&row.addresses), secured.collect::<Vec<Addresses>>());
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
            // Only its name shows the owner of a row without marks.
            let Some(network) = before.row.external_ids.get(keys::NETWORK) else { continue };
            let nic = intent.as_ref().and_then(|intent| intent.ports.iter().find(|nic| nic.network == network));
            let has_left = nic.is_some_and(|nic| nic.on_none_of_ours && nic.base_name != base(vm, &before.row));
            let seats = super::seats::of(world, vm, network);
            let is_left_behind = !seats.is_empty() && !seats.contains(&base(vm, &before.row));
            assert!(
                !is_named(objects, network) || has_left && live().next().is_none() || is_left_behind,
                "{vm}: the port of {network} goes, which is there: {objects:#?}"
            );
            continue;
        };
        let repaired =
            port_uuid(INSTANCE, &before.row.name) != change.uuid && port_uuid(INSTANCE, &after.row.name) == change.uuid;
        assert!(after.row.name == before.row.name || repaired, "a port keeps its name: {change:#?}");
        let Some(network) = after.row.external_ids.get(keys::NETWORK) else {
            let (olds, news) = (leases(&before.row), leases(&after.row));
            let is_repaired =
                before.row.addresses != before.row.port_security && news.iter().all(|new| olds.contains(new));
            assert!(news == olds || is_repaired, "{vm}: the port of an unknown network keeps its lease: {change:#?}");
            continue;
        };
        renaming_is_lawful(world, vm, &before.row, network);
        let of_nic = || intent.iter().flat_map(|intent| &intent.ports).filter(|nic| nic.network == network);
        let nic = of_nic().find(|nic| nic.base_name == base(vm, &before.row)).or_else(|| of_nic().next());
        let request = nic.and_then(|nic| nic.life.request().clone().ok()).filter(|_| !old_launcher).unwrap_or_default();
        if after.switch != before.switch {
            assert!(live().next().is_none(), "{vm}: its port changes switches while it runs");
            // A NIC that changes its network needs no request for the new switch.
            let was_elsewhere = nic.is_some_and(|nic| nic.base_name != base(vm, &before.row));
            let requested = nic.and_then(|nic| nic.switch.as_ref()).filter(|request| request.explicit || was_elsewhere);
            let name = &world.tables.switches[&after.switch].name;
            assert!(requested.is_some_and(|request| request.has(name)), "{vm}: no request names {name}");
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
        let by_family = |ipv4: bool, new: Option<IpAddr>, old: Option<IpAddr>| {
            let asks = request.family.is_some_and(|family| family.has(ipv4) == new.is_some());
            asks && new.is_some() != old.is_some() && (!running || reserved.is_some())
        };
        let lawful = |old: &Addresses| {
            let [old_ipv4, new_ipv4] = [*old, new].map(|lease| lease.ipv4.map(IpAddr::V4));
            let [old_ipv6, new_ipv6] = [*old, new].map(|lease| lease.ipv6.map(IpAddr::V6));
            let requested_ipv4 = request.ipv4.is_some() && new.ipv4 == request.ipv4
                || by_pool(new_ipv4, old_ipv4)
                || by_family(true, new_ipv4, old_ipv4);
            let requested_ipv6 = request.ipv6.is_some() && new.ipv6 == request.ipv6
                || by_pool(new_ipv6, old_ipv6)
                || by_family(false, new_ipv6, old_ipv6);
            let gives_up = request.no_address && new.ips().next().is_none();
            // A port with a MAC alone may get an address when its guest does not run, or the address that was taken out of its row.
            let was_reserved =
                || reserved.is_some_and(|reserved| new.ips().all(|ip| reserved.ips().any(|own| own == ip)));
            let gains =
                !request.no_address && old.ips().next().is_none() && (!running || world.resting || was_reserved());
            (new.ipv4 == old.ipv4 || requested_ipv4 || gives_up || gains)
                && (new.ipv6 == old.ipv6 || requested_ipv6 || gives_up || gains)
                && (new.mac == old.mac || Some(new.mac) == request.mac)
        };
        // An address that another program wrote into the row and that another port of ours holds is not a lease.
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

/// An allocation without a request takes no MAC that another port of ours has on any switch, no address that OVN
/// answers for anywhere, and not the first host address. `given` has the transaction's changes for other VMs.
pub(super) fn a_choice_is_lawful(world: &World, vm: &VmKey, given: &[PortChange], changes: &[PortChange]) {
    let intent = world.intent(vm);
    let requests: Vec<Request> = intent.iter().flat_map(|intent| &intent.ports).flat_map(requests_of).collect();
    for change in changes {
        let Some(after) = &change.after else { continue };
        let had = change.before.as_ref().map(|before| claims(&world.tables, &change.uuid, &before.row));
        let had = had.unwrap_or_default();
        let new = claims(&world.tables, &change.uuid, &after.row);
        let named = |claim: &String| match claim.parse::<IpAddr>() {
            Ok(ip) => requests.iter().any(|request| request.names(ip) || request.vips.contains(&ip)),
            Err(_) => {
                requests.iter().any(|request| request.mac.is_some_and(|mac| mac.to_string().to_lowercase() == *claim))
            }
        };
        let stayed = change.before.as_ref().is_some_and(|before| before.switch == after.switch);
        // The lease in the VM's annotation is restored.
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

/// A deleted VM leaves its addresses reserved for the time of its retention.
fn retention_is_lawful(world: &World, vm: &VmKey, row: &LogicalSwitchPort) {
    if world.cluster.vm(vm).is_some() || row.external_ids.get(keys::RETAIN).is_none() {
        return;
    }
    let until = row.external_ids.get(keys::RETAINED_UNTIL).unwrap_or_else(|| panic!("{vm} is not retained: {row:#?}"));
    let until: k8s_openapi::jiff::Timestamp = until.parse().unwrap_or_else(|_| panic!("{vm} goes at {until}"));
    assert!(until.as_second() <= world.now, "{vm} goes before {until}");
}

/// Returns true if a network is in the running instance, unplugged ones included, or in the template.
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

/// The base name of a row's network: the mark, or the start of the row's name.
pub(super) fn base(vm: &VmKey, row: &LogicalSwitchPort) -> String {
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

/// A VM waits only for a problem of the northbound database, not for one of the other VMs in its transaction:
/// if their changes were refused, no event would wake it.
pub(super) fn the_status_holds_without_the_other_vms(plan: &Decision, alone: &Decision) {
    let problems = |plan: &Decision| plan.status.problems().cloned().collect::<Vec<_>>();
    if !plan.waits.wakes.is_empty() {
        assert_eq!(
            (problems(plan), &plan.waits.wakes),
            (problems(alone), &alone.waits.wakes),
            "decided in a transaction, and alone"
        );
    }
}

/// While a transaction is in flight, a VM that it does not concern gets the plan that it would get after it.
pub(super) fn a_decision_made_ahead_equals_the_one_made_after(vm: &VmKey, ahead: &Decision, after: &Decision) {
    assert!(!after.waits.batch, "{vm}");
    assert_eq!((&ahead.rows, &ahead.waits.wakes), (&after.rows, &after.waits.wakes), "{vm}");
    // A holder's port may get the name back that a person changed.
    let words = |problem: &Problem| problem.to_string().replace("-renamed", "");
    let said = |plan: &Decision| plan.status.problems().map(words).collect::<Vec<_>>();
    assert_eq!(said(ahead), said(after), "{vm}");
}

/// Our own commit does not count as a foreign change, and each VM's rows meet the expectation of its decision; with
/// any of its rows changed, they do not.
pub(super) fn our_commit_is_not_a_foreign_change(
    foreign_changes: u64,
    northbound: &Northbound,
    changed: &BTreeSet<VmKey>,
    sent: &[Sent],
) {
    let takes_over =
        |change: &PortChange| change.before.as_ref().is_some_and(|before| !before.row.is_of(&change.uuid, INSTANCE));
    let restores_marks = |change: &RowChange| match change {
        RowChange::Dhcp(change) => change.before.as_ref().is_some_and(|before| !has_our_marks(before)),
        RowChange::Port(_) | RowChange::RouterPort(_) => false,
    };
    let changes = || sent.iter().flat_map(|sent| &sent.changes);
    if changes().filter_map(RowChange::as_port).any(takes_over) || changes().any(restores_marks) {
        // The row was another instance's, or had lost its marks and its name: all prepared decisions are made again.
        return;
    }
    if sent.iter().flat_map(|sent| &sent.changes).any(|change| matches!(change, RowChange::RouterPort(_))) {
        // The row is another's, and is told as any change of it.
        return;
    }
    assert_eq!(northbound.foreign_changes(), foreign_changes, "only rows of ours were written");
    for vm in changed {
        // Another VM shares an address with one of them: it is decided again.
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
                RowChange::RouterPort(change) => change.uuid = Uuid::nil(),
                RowChange::Dhcp(DhcpChange { after: Some(after), .. }) => after.cidr.push('x'),
                RowChange::Dhcp(DhcpChange { after: None, .. }) => drop(other.remove(index)),
            }
            let met = expectation.is_met(northbound, vm, &other);
            assert_eq!(met, other.len() < changes.len(), "{vm}: {other:#?}");
        }
    }
}

fn has_our_marks(row: &DhcpOptions) -> bool {
    let mark = |key| row.external_ids.get(key);
    mark(keys::VENDOR) == Some(keys::OUR_VENDOR) && mark(keys::INSTANCE) == Some(INSTANCE)
}
