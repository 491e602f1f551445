//! `switches.list` and `switches.map`: the use of each subnet's addresses.
//!
//! A switch is read in parts, with no lock in between: a port that changes meanwhile may count as it was or as it is.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use uuid::Uuid;

use super::failure::{Failure, Reason};
use super::method::Method;
use super::model::{
    AddressHolder, Family, MapParams, PortCounts, SubnetUse, Switch, SwitchMap, Switches, SwitchesParams, UseCounts,
    UseKind, UsedAddress,
};
use super::sources::Api;
use crate::contract::keys;
use crate::escaped::Escaped;
use crate::ipam::{Block, Census, Counts, Subnet, SubnetError, Use};
use crate::ovn::{Northbound, PortRef};
use crate::ovsdb::Shared;

/// Ports that are read under one lock.
const AT_ONCE: usize = 256;
/// A subnet up to this size is shown whole.
const SHOWN_WHOLE: u128 = 65_536;
/// A larger one is shown to its last use, and so many addresses at least.
const SHOWN_LEAST: u128 = 1_024;
const USUAL_CELLS: u32 = 1_024;
const MOST_CELLS: u32 = 4_096;
/// The greatest integer that every reader of JSON reads exactly.
const GREATEST: u64 = (1 << 53) - 1;

/// `switches.list`
pub(super) struct List;

impl Method for List {
    const NAME: &'static str = "switches.list";
    const SUMMARY: &'static str = "Lists the logical switches, with the use of their subnets.";
    const ERRORS: &'static [Reason] = &[Reason::NotReady, Reason::NotFound];
    type Params = SwitchesParams;
    type Answer = Switches;

    async fn call(api: Arc<Api>, SwitchesParams { switch }: SwitchesParams) -> Result<Switches, Failure> {
        api.has_read()?;
        let northbound = Arc::clone(&api.replicas().northbound);
        api.heavily(move || list(&northbound, switch.as_deref())).await
    }
}

/// `switches.map`
pub(super) struct Map;

impl Method for Map {
    const NAME: &'static str = "switches.map";
    const SUMMARY: &'static str = "Maps the addresses of a subnet: how many of each cell have which use.";
    const ERRORS: &'static [Reason] = &[Reason::NotReady, Reason::NotFound];
    type Params = MapParams;
    type Answer = SwitchMap;

    async fn call(api: Arc<Api>, params: MapParams) -> Result<SwitchMap, Failure> {
        api.has_read()?;
        let northbound = Arc::clone(&api.replicas().northbound);
        api.heavily(move || map(&northbound, &params)).await
    }
}

/// The switches of a replica, by name. `only` is the name or UUID of one.
pub fn list(northbound: &Shared<Northbound>, only: Option<&str>) -> Result<Switches, Failure> {
    let found = match only {
        Some(only) => named(northbound, only)?,
        None => northbound.read().switches().map(|(uuid, _)| *uuid).collect(),
    };
    let mut switches: Vec<Switch> =
        found.into_iter().filter_map(|uuid| Some(Held::read(northbound, uuid)?.shown())).collect();
    switches.sort_by(|one, other| (&one.name, &one.uuid).cmp(&(&other.name, &other.uuid)));
    Ok(Switches { switches })
}

fn named(northbound: &Shared<Northbound>, name: &str) -> Result<Vec<Uuid>, Failure> {
    let view = northbound.read();
    let mut found: Vec<Uuid> = view.switches_named(name).collect();
    found.extend(name.parse().ok().filter(|uuid| view.switch(uuid).is_some()));
    match found.is_empty() {
        true => Err(Failure::not_found(format!(
            "There is no logical switch {}. switches.list names those that there are.",
            Escaped(name)
        ))),
        false => Ok(found),
    }
}

/// A switch with the uses of its addresses.
struct Held {
    uuid: Uuid,
    name: String,
    subnet: Result<Subnet, SubnetError>,
    ports: PortCounts,
    uses: Vec<(IpAddr, Use)>,
}

impl Held {
    /// Reads a switch; `None` if it is gone.
    fn read(northbound: &Shared<Northbound>, uuid: Uuid) -> Option<Self> {
        let (mut held, ports) = {
            let view = northbound.read();
            let row = view.switch(&uuid)?;
            let (name, subnet) = (row.name.clone(), view.subnet(&uuid));
            let pool = view.pool(&uuid);
            let resting = pool.into_iter().flat_map(|pool| pool.resting(true).chain(pool.resting(false)));
            let mut uses: Vec<(IpAddr, Use)> = resting.map(|ip| (ip, Use::Resting)).collect();
            for net in subnet.iter().flat_map(Subnet::nets) {
                let services = view.service_addresses(net.addr().is_ipv4()).within(net);
                uses.extend(services.map(|ip| (ip, Use::Service)));
            }
            let ports: Vec<Uuid> = row.ports.iter().copied().collect();
            (Self { uuid, name, subnet, ports: PortCounts::default(), uses }, ports)
        };
        for ports in ports.chunks(AT_ONCE) {
            let view = northbound.read();
            let found = ports.iter().filter_map(|port| view.port(port)).filter(|port| port.switch == Some(uuid));
            found.for_each(|port| held.add(&view, &port));
        }
        Some(held)
    }

    fn add(&mut self, view: &Northbound, port: &PortRef<'_>) {
        let is_ours = port.row.is_of(&port.uuid, view.instance());
        let is_retained = is_ours && port.row.external_ids.get(keys::RETAINED_UNTIL).is_some();
        let (count, of) = match (is_ours, is_retained) {
            (true, true) => (&mut self.ports.retained, Use::Retained),
            (true, false) => (&mut self.ports.vm, Use::Vm),
            (false, _) => (&mut self.ports.foreign, Use::Foreign),
        };
        *count += 1;
        let reserved = port.row.external_ids.reserved().filter(|_| is_ours);
        let in_force = |ip: &IpAddr| port.row.addresses.nics().any(|nic| nic.ips().any(|held| held == *ip));
        self.uses.extend(view.addresses_of(port).into_iter().map(|ip| {
            let is_reserved = reserved.is_some_and(|reserved| reserved.ips().any(|next| next == ip)) && !in_force(&ip);
            (ip, if is_reserved { Use::Reserved } else { of })
        }));
    }

    fn shown(&self) -> Switch {
        let blocks =
            |subnet: &Subnet| [true, false].into_iter().flat_map(|ipv4| subnet.blocks(ipv4).cloned()).collect();
        let blocks: Vec<Block> = self.subnet.as_ref().map(blocks).unwrap_or_default();
        let subnets = blocks.iter().map(|block| SubnetUse {
            subnet: block.net().to_string(),
            family: family(block.net()),
            counts: shown(&Census::new(block, self.uses.iter().copied()).counts()),
        });
        Switch {
            name: self.name.clone(),
            uuid: self.uuid.to_string(),
            ports: self.ports,
            subnets: subnets.collect(),
            trouble: self.trouble(),
        }
    }

    fn trouble(&self) -> Option<String> {
        match &self.subnet {
            Err(error) => Some(error.to_string()),
            Ok(subnet) if subnet.unread().is_empty() => None,
            Ok(subnet) => {
                let unread: Vec<String> = subnet.unread().iter().map(ToString::to_string).collect();
                Some(format!("skipped: {}", unread.join(", ")))
            }
        }
    }
}

fn family(net: IpNet) -> Family {
    if net.addr().is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
}

fn cut(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(GREATEST).min(GREATEST)
}

fn shown(counts: &Counts) -> UseCounts {
    let of = |of| cut(counts.of(of));
    UseCounts {
        free: of(Use::Free),
        vm: of(Use::Vm),
        reserved: of(Use::Reserved),
        retained: of(Use::Retained),
        foreign: of(Use::Foreign),
        service: of(Use::Service),
        conflict: of(Use::Conflict),
        excluded: of(Use::Excluded),
        first: of(Use::First),
        resting: of(Use::Resting),
        unusable: of(Use::Unusable),
    }
}

fn kind(of: Use) -> UseKind {
    match of {
        Use::Free => UseKind::Free,
        Use::Vm => UseKind::Vm,
        Use::Reserved => UseKind::Reserved,
        Use::Retained => UseKind::Retained,
        Use::Foreign => UseKind::Foreign,
        Use::Service => UseKind::Service,
        Use::Conflict => UseKind::Conflict,
        Use::Excluded => UseKind::Excluded,
        Use::First => UseKind::First,
        Use::Resting => UseKind::Resting,
        Use::Unusable => UseKind::Unusable,
    }
}

/// The map of a subnet.
fn map(northbound: &Shared<Northbound>, params: &MapParams) -> Result<SwitchMap, Failure> {
    let cells = params.cells.unwrap_or(USUAL_CELLS);
    if !(1..=MOST_CELLS).contains(&cells) {
        return Err(Failure::invalid(format!("cells is {cells}. Write 1 to {MOST_CELLS}.")));
    }
    let gone = || Failure::not_found(format!("The logical switch {} is gone.", Escaped(&params.switch)));
    let uuid = named(northbound, &params.switch)?.into_iter().next().ok_or_else(gone)?;
    let held = Held::read(northbound, uuid).ok_or_else(gone)?;
    let block = block(&held, params.subnet.as_deref())?;
    let census = Census::new(&block, held.uses.iter().copied());
    let (from, to) = ends(&census, &block, params)?;
    let size = Census::size(from, to).div_ceil(cells.into()).checked_next_power_of_two().unwrap_or(u128::MAX);
    let addresses = match size {
        1 => census.marked(from, to).collect(),
        _ => Vec::new(),
    };
    Ok(SwitchMap {
        switch: held.name.clone(),
        uuid: uuid.to_string(),
        subnet: block.net().to_string(),
        family: family(block.net()),
        from: from.to_string(),
        to: to.to_string(),
        addresses_per_cell: cut(size),
        kinds: Use::ALL.map(kind).to_vec(),
        cells: census.cells(from, to, size).iter().map(cell).collect(),
        addresses: used(northbound, uuid, &addresses),
    })
}

fn block(held: &Held, subnet: Option<&str>) -> Result<Block, Failure> {
    let name = Escaped(&held.name);
    let known = held.subnet.as_ref().map_err(|error| {
        Failure::not_found(format!("The logical switch {name} has no subnet to map: {error}. Correct its settings."))
    })?;
    let mut blocks = [true, false].into_iter().flat_map(|ipv4| known.blocks(ipv4));
    let found = match subnet {
        Some(subnet) => {
            let net: Option<IpNet> = subnet.parse().ok();
            blocks.find(|block| Some(block.net()) == net)
        }
        None => blocks.next(),
    };
    found.cloned().ok_or_else(|| {
        let subnet = Escaped(subnet.unwrap_or_default()).to_string();
        Failure::not_found(format!("The logical switch {name} has no subnet {subnet}. It has {known}."))
    })
}

/// The first and the last address of a map.
fn ends(census: &Census<'_>, block: &Block, params: &MapParams) -> Result<(IpAddr, IpAddr), Failure> {
    let read = |text: &Option<String>| -> Result<Option<IpAddr>, Failure> {
        let Some(text) = text else { return Ok(None) };
        let address = text.parse().ok().filter(|address| block.net().contains(address));
        let none = || {
            Failure::invalid(format!("{} is no address of the subnet {}. Write one of it.", Escaped(text), block.net()))
        };
        address.map(Some).ok_or_else(none)
    };
    let (first, last) = census.ends();
    let from = read(&params.from)?.unwrap_or(first);
    let to = match read(&params.to)? {
        Some(to) => to,
        None if Census::size(first, last) <= SHOWN_WHOLE || params.from.is_some() => last,
        None => census.behind(first, census.extent(SHOWN_LEAST) - 1),
    };
    match from <= to {
        true => Ok((from, to)),
        false => {
            Err(Failure::invalid(format!("The map would end at {to}, before it begins at {from}. Exchange the two.")))
        }
    }
}

fn cell(counts: &Counts) -> Vec<u64> {
    let mut numbers: Vec<u64> = counts.all().into_iter().map(cut).collect();
    let end = numbers.iter().rposition(|number| *number > 0).map_or(0, |last| last + 1);
    numbers.truncate(end);
    numbers
}

fn used(northbound: &Shared<Northbound>, switch: Uuid, addresses: &[(IpAddr, Use)]) -> Vec<UsedAddress> {
    let mut used = Vec::with_capacity(addresses.len());
    for addresses in addresses.chunks(AT_ONCE) {
        let view = northbound.read();
        used.extend(addresses.iter().map(|(address, of)| {
            UsedAddress {
                address: address.to_string(),
                kind: kind(*of),
                holders: view
                    .holders(&switch, *address)
                    .iter()
                    .filter_map(|port| view.port(port))
                    .map(|port| holder(&view, &port))
                    .collect(),
                service: view.service(&switch, *address).filter(|_| *of == Use::Service),
            }
        }));
    }
    used
}

fn holder(view: &Northbound, port: &PortRef<'_>) -> AddressHolder {
    let owner = port.row.owner(&port.uuid, view.instance());
    let (vm, network) = owner.map(|owner| (owner.vm, owner.network)).unzip();
    let (namespace, vm) = vm.map(|vm| (vm.namespace, vm.name)).unzip();
    AddressHolder {
        port: port.row.name.clone(),
        namespace,
        vm,
        network,
        retained_until: port.row.external_ids.get(keys::RETAINED_UNTIL).map(ToOwned::to_owned),
    }
}
