//! The reference: the requests in Kubernetes, the rows of the database, and the rows that must follow from the requests.
//! It has no index, no pool and no queue: plain sets, searched from the beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ovn_kubevirt::kubevirt::PortsAnnotation;

use crate::support::Port;

use super::super::NEXT;

/// The request of a VM's owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Request {
    /// `ip_address`, of each family one at most.
    pub(super) addresses: Vec<IpAddr>,
    /// `ip_pool`, as it is written.
    pub(super) pool: Option<&'static str>,
}

/// All pools that VMs request, with their addresses in the subnet: no VM gets one that is no host of it.
const POOLS: [(&str, &[&str], &[u8]); 5] = [
    ("10.0.0.4..10.0.0.6", &[], &[4, 5, 6]),
    ("10.0.0.0/29", &[], &[1, 2, 3, 4, 5, 6, 7]),
    ("10.0.0.12..10.0.0.99, fd00::10..fd00::11", &["fd00::10", "fd00::11"], &[12, 13, 14]),
    ("10.0.0.2", &[], &[2]),
    ("10.9.0.0/30", &[], &[]),
];

/// The addresses of the subnet that a port may have.
pub(super) const HOSTS: std::ops::RangeInclusive<u8> = 1..=14;

pub(super) fn host(host: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, host])
}

pub(super) fn pools() -> impl Iterator<Item = &'static str> {
    POOLS.iter().map(|(text, ..)| *text)
}

impl Request {
    fn address(&self, ipv4: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == ipv4)
    }

    /// The addresses of the pool in a family; `None` if the pool does not limit that family.
    fn pool(&self, ipv4: bool) -> Option<Vec<IpAddr>> {
        let (_, ipv6, hosts) = POOLS.iter().find(|(text, ..)| Some(*text) == self.pool)?;
        match ipv4 {
            true => Some(hosts.iter().map(|at| host(*at)).collect()),
            false if ipv6.is_empty() => None,
            false => Some(ipv6.iter().map(|text| text.parse().expect("an address")).collect()),
        }
    }

    fn names(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.pool(address.is_ipv4()).is_some_and(|pool| pool.contains(&address))
    }

    /// Returns true if an address satisfies this request.
    fn fits(&self, address: IpAddr) -> bool {
        match self.address(address.is_ipv4()) {
            Some(requested) => requested == address,
            None => self.pool(address.is_ipv4()).is_none_or(|pool| pool.contains(&address)),
        }
    }
}

/// The objects of a VM in Kubernetes.
#[derive(Debug, Clone, Default)]
pub(super) struct Machine {
    pub(super) uid: String,
    pub(super) vm: Option<Request>,
    /// The VMI: its UID and the request that it was made with.
    pub(super) run: Option<(String, Request)>,
    /// Launcher pods, all of them live: name, and the UID of their VMI.
    pub(super) pods: Vec<(String, String)>,
    /// The annotation of ours that its VM has.
    pub(super) status: Option<String>,
}

impl Machine {
    pub(super) fn is_gone(&self) -> bool {
        self.vm.is_none() && self.run.is_none() && self.pods.is_empty()
    }

    /// There is no launcher pod.
    fn is_unbound(&self) -> bool {
        self.pods.is_empty()
    }

    /// An old launcher may still use the addresses of the port.
    fn held(&self) -> bool {
        self.pods.iter().any(|(_, of)| self.run.as_ref().is_none_or(|(uid, _)| uid != of))
    }

    fn now(&self) -> Option<&Request> {
        self.run.as_ref().map(|(_, request)| request).or(self.vm.as_ref())
    }

    /// The addresses in its last status.
    fn status_addresses(&self) -> BTreeSet<IpAddr> {
        let status = self.status.as_deref().and_then(PortsAnnotation::parse);
        let ports = status.into_iter().flat_map(|status| status.ports);
        ports.flat_map(|port| [port.ips.join(" "), port.last.unwrap_or_default()]).flat_map(|text| ips(&text)).collect()
    }

    /// Every request that counts.
    pub(super) fn requests(&self) -> impl Iterator<Item = &Request> {
        self.run.iter().map(|(_, request)| request).chain(&self.vm)
    }
}

/// The lease of a VM's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    uuid: String,
    mac: String,
    ips: BTreeSet<IpAddr>,
    next: BTreeSet<IpAddr>,
    /// Its addresses, marks, name or type have drifted, and are not repaired yet.
    broken: bool,
    /// Where it is bound.
    requested: Option<String>,
}

fn ips(text: &str) -> BTreeSet<IpAddr> {
    text.split(' ').filter_map(|word| word.parse().ok()).collect()
}

impl Lease {
    fn of(vm: &str, port: &Port) -> Self {
        // The row is repaired from this column.
        let text = port.port_security.iter().next().map_or("", String::as_str);
        let next = port.external_id(NEXT).map(ips).unwrap_or_default();
        let mac = text.split(' ').next().unwrap_or_default().to_owned();
        let marks = [
            ("vendor", "ovn-kubevirt"),
            ("ovn-kubevirt.io/instance", "default"),
            ("ovn-kubevirt.io/network", "default"),
        ];
        let marked = marks.iter().all(|(key, value)| port.external_id(key) == Some(*value));
        let named = port.name == format!("{vm}.n") && port.r#type.is_empty();
        let broken = port.addresses != port.port_security || !marked || !named;
        let requested = port.option("requested-chassis").map(ToOwned::to_owned);
        Self { uuid: port.uuid.clone(), mac, ips: ips(text), next, broken, requested }
    }

    fn all(&self) -> BTreeSet<IpAddr> {
        self.ips.union(&self.next).copied().collect()
    }

    fn of_family(&self, ipv4: bool) -> Option<IpAddr> {
        self.ips.iter().copied().find(|address| address.is_ipv4() == ipv4)
    }
}

/// The state at rest.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) machines: BTreeMap<String, Machine>,
    /// The addresses of foreign ports, by the ports' names.
    pub(super) foreign: BTreeMap<String, BTreeSet<IpAddr>>,
    /// The hosts that `exclude_ips` names.
    pub(super) excluded: BTreeSet<u8>,
    /// The chassis rows of the node that all VMs run on.
    pub(super) chassis: BTreeSet<String>,
    pub(super) leases: BTreeMap<String, Lease>,
}

/// The events between two states at rest.
#[derive(Debug, Clone, Default)]
pub(super) struct Between {
    /// Every request of each VM.
    pub(super) requests: BTreeMap<String, Vec<Request>>,
    /// VMs that had no object at some time, or lost their row.
    pub(super) gone: BTreeSet<String>,
    /// The addresses that foreign ports released, even if they hold them again.
    pub(super) let_go: BTreeSet<IpAddr>,
    /// The hosts that `exclude_ips` named meanwhile.
    pub(super) excluded: Vec<BTreeSet<u8>>,
    /// The switch was recreated, and no other event happened.
    pub(super) remade: bool,
    /// Chassis that lost their row.
    pub(super) lost_chassis: BTreeSet<String>,
}

impl State {
    /// Reads the ports of the database; an error if a row has no owner.
    pub(super) fn read(&mut self, ports: &[Port]) -> Result<(), String> {
        self.leases.clear();
        let mut foreign = BTreeMap::new();
        for port in ports {
            match port.external_id("ovn-kubevirt.io/vm").and_then(|vm| vm.strip_prefix("n/")) {
                Some(vm) => {
                    if self.leases.insert(vm.to_owned(), Lease::of(vm, port)).is_some() {
                        return Err(format!("{vm} has two rows"));
                    }
                }
                None => {
                    let held = port.addresses.iter().flat_map(|text| ips(text)).collect();
                    foreign.insert(port.name.clone(), held);
                }
            }
        }
        if foreign != self.foreign { Err(format!("foreign rows: {:?}, now {foreign:?}", self.foreign)) } else { Ok(()) }
    }

    /// All addresses but those of this VM.
    fn held_by_others(&self, vm: &str) -> BTreeSet<IpAddr> {
        let ours = self.leases.iter().filter(|(other, _)| *other != vm).flat_map(|(_, lease)| lease.all());
        // The addresses of a status are kept for its VM until it has a port again.
        let lost = self.machines.iter().filter(|(other, _)| *other != vm && !self.leases.contains_key(*other));
        let lost = lost.flat_map(|(_, machine)| machine.status_addresses());
        ours.chain(self.foreign.values().flatten().copied()).chain(lost).collect()
    }

    /// Every rule, against the state before.
    pub(super) fn check(&self, before: &Self, between: &Between) -> Result<(), String> {
        self.no_address_is_shared()?;
        for (vm, lease) in &self.leases {
            let machine = self.machines.get(vm).filter(|machine| !machine.is_gone());
            let Some(machine) = machine else { return Err(format!("{vm} is gone and holds {lease:?}")) };
            self.no_address_was_taken_from_others(before, between, vm, lease)?;
            self.the_lease_is_stable(before, between, vm, lease)?;
            self.the_request_is_granted(vm, machine, lease)?;
            self.the_port_is_bound(before, between, vm, machine, lease)?;
        }
        for (vm, machine) in &self.machines {
            if let (None, Some(request)) = (self.leases.get(vm), machine.now())
                && self.can_be_had(vm, request, None, false)
            {
                return Err(format!("{vm} has no port, and {request:?} could be had"));
            }
        }
        Ok(())
    }

    /// A port is bound to the one chassis of its VM's node, and keeps the chassis that it has for as long as its guest stays.
    fn the_port_is_bound(
        &self,
        before: &Self,
        between: &Between,
        vm: &str,
        machine: &Machine,
        lease: &Lease,
    ) -> Result<(), String> {
        if machine.is_unbound() {
            let bound = lease.requested.as_ref().map(|requested| format!("{vm} does not run, and is on {requested}"));
            return bound.map_or(Ok(()), Err);
        }
        let Some((run, _)) = machine.run.as_ref().filter(|_| !machine.pods.is_empty()) else { return Ok(()) };
        let requested = lease.requested.as_deref();
        if let [only] = self.chassis.iter().collect::<Vec<_>>()[..] {
            let bound = requested == Some(only);
            return if bound { Ok(()) } else { Err(format!("{vm} is on {requested:?}, and its node is {only}")) };
        }
        let stayed = before.machines.get(vm).is_some_and(|machine| {
            let same_run = machine.run.as_ref().is_some_and(|(before, _)| before == run);
            same_run && !machine.pods.is_empty()
        });
        // With its row, a port has lost the chassis that it had.
        let is_new = between.remade || between.gone.contains(vm);
        let had = before.leases.get(vm).filter(|_| stayed && !is_new);
        let Some(had) = had.and_then(|lease| lease.requested.as_deref()) else { return Ok(()) };
        let none_came = self.chassis == before.chassis && between.lost_chassis.is_empty();
        let stood = before.chassis.contains(had) && !between.lost_chassis.contains(had) || none_came;
        // One that came and went meanwhile was the node's, too.
        let known = |name: &str| self.chassis.contains(name) || between.lost_chassis.contains(name);
        let kept = requested == Some(had) || !stood && requested.is_some_and(known);
        if kept { Ok(()) } else { Err(format!("{vm} was on {had}, and is on {requested:?}, with {:?}", self.chassis)) }
    }

    fn no_address_is_shared(&self) -> Result<(), String> {
        let (mut holders, mut macs) = (BTreeMap::new(), BTreeMap::new());
        for (vm, lease) in &self.leases {
            for address in lease.all() {
                if let Some(other) = holders.insert(address, vm) {
                    return Err(format!("{address} is held by {vm} and {other}"));
                }
            }
            if let Some(other) = macs.insert(&lease.mac, vm) {
                return Err(format!("{} is held by {vm} and {other}", lease.mac));
            }
        }
        Ok(())
    }

    /// An address that is newly held was free, is in the subnet, and excluded only where the owner requested it.
    fn no_address_was_taken_from_others(
        &self,
        before: &Self,
        between: &Between,
        vm: &str,
        lease: &Lease,
    ) -> Result<(), String> {
        let had = before.leases.get(vm).map(Lease::all).unwrap_or_default();
        let named =
            |address: IpAddr| between.requests.get(vm).into_iter().flatten().any(|request| request.names(address));
        for address in lease.all().difference(&had).copied() {
            let all_the_time = |(name, held): (&String, &BTreeSet<IpAddr>)| {
                held.contains(&address) && before.foreign.get(name).is_some_and(|held| held.contains(&address))
            };
            let holder = self.foreign.iter().find(|(name, held)| all_the_time((name, held)));
            if let Some((holder, _)) = holder.filter(|_| !between.let_go.contains(&address)) {
                return Err(format!("{vm} was given {address}, which {holder} holds"));
            }
            let inside = match address {
                IpAddr::V4(ipv4) => {
                    let octets = ipv4.octets();
                    octets[..3] == [10, 0, 0] && HOSTS.contains(&octets[3])
                }
                IpAddr::V6(ipv6) => ipv6.segments()[..4] == [0xfd00, 0, 0, 0] && ipv6.segments()[4..] != [0; 4],
            };
            if !inside {
                return Err(format!("{vm} was given {address}, which is outside the subnet"));
            }
            let excludes = |excluded: &BTreeSet<u8>| excluded.iter().any(|at| host(*at) == address);
            let mut all = between.excluded.iter().chain([&self.excluded, &before.excluded]);
            // An address in the status is as good as requested, where the row was lost.
            let in_status =
                before.machines.get(vm).is_some_and(|machine| machine.status_addresses().contains(&address));
            if all.all(excludes) && !named(address) && !in_status {
                return Err(format!("{vm} was given {address}, which is excluded and which it did not name"));
            }
        }
        Ok(())
    }

    /// A lease that every request since was content with is the same.
    fn the_lease_is_stable(&self, before: &Self, between: &Between, vm: &str, lease: &Lease) -> Result<(), String> {
        let Some(had) = before.leases.get(vm).filter(|_| !between.gone.contains(vm)) else { return Ok(()) };
        if between.remade && !self.takes_up_again(before, between, vm, had) {
            return Ok(());
        }
        if had.uuid != lease.uuid || had.mac != lease.mac {
            return Err(format!("{vm} had {had:?} and has {lease:?}"));
        }
        for address in &had.ips {
            let content = between.requests.get(vm).into_iter().flatten().all(|request| request.fits(*address));
            if content && !lease.ips.contains(address) {
                return Err(format!("{vm} had {had:?} and has {lease:?}, without a request"));
            }
        }
        Ok(())
    }

    /// Returns true if a VM that lost its row with its switch has to get the same lease again: its status has it, its guest runs or
    /// no other VM names one of its addresses.
    fn takes_up_again(&self, before: &Self, between: &Between, vm: &str, had: &Lease) -> bool {
        let Some(machine) = before.machines.get(vm) else { return false };
        let in_status = machine.status_addresses();
        let others = between.requests.iter().filter(|(other, _)| *other != vm).flat_map(|(_, requests)| requests);
        let is_named = others.flat_map(|request| &request.addresses).any(|address| had.ips.contains(address));
        had.ips.iter().all(|address| in_status.contains(address)) && (!machine.pods.is_empty() || !is_named)
    }

    /// Every request that can be granted is granted; now, and for the next start.
    fn the_request_is_granted(&self, vm: &str, machine: &Machine, lease: &Lease) -> Result<(), String> {
        let running = !machine.pods.is_empty();
        let content = |request: &Request, ips: &BTreeSet<IpAddr>, running: bool| {
            [true, false].into_iter().all(|ipv4| match (request.address(ipv4), running) {
                (Some(address), _) => ips.contains(&address),
                (None, true) => true,
                (None, false) => ips.iter().any(|address| address.is_ipv4() == ipv4 && request.fits(*address)),
            })
        };
        let is_of = |request: &Request, address: &IpAddr| match request.address(address.is_ipv4()) {
            Some(named) => named == *address,
            None => request.fits(*address),
        };
        let Some(now) = machine.now() else { return Ok(()) };
        if lease.broken {
            return Err(format!("{vm} has {lease:?}, and it is not repaired"));
        }
        if !machine.held() && self.can_be_had(vm, now, Some(lease), running) && !content(now, &lease.ips, running) {
            return Err(format!("{vm} has {lease:?}, and {now:?} could be had"));
        }
        let next = match (machine.held(), &machine.run, &machine.vm) {
            (true, ..) => Some(now),
            (false, Some(_), Some(request)) => Some(request),
            _ => None,
        };
        let planned = if lease.next.is_empty() { &lease.ips } else { &lease.next };
        // For a guest that runs with the very request no other address is allocated.
        let edited = matches!((&machine.run, &machine.vm), (Some((_, now)), Some(next)) if now != next);
        let fixed = running && !edited;
        match next {
            None if !lease.next.is_empty() => Err(format!("{vm} has {lease:?} reserved for no start")),
            Some(request) if self.can_be_had(vm, request, Some(lease), fixed) && !content(request, planned, fixed) => {
                Err(format!("{vm} has {lease:?} planned, and {request:?} could be had"))
            }
            Some(request) if lease.next.is_empty() || content(request, planned, fixed) => Ok(()),
            // The whole request cannot be granted; its earlier reservation stays.
            Some(request) if lease.next.iter().all(|address| is_of(request, address)) => Ok(()),
            Some(request) => Err(format!("{vm} has {lease:?} reserved, which is not {request:?}")),
            None => Ok(()),
        }
    }

    /// Whether a request can be granted in both families.
    fn can_be_had(&self, vm: &str, request: &Request, lease: Option<&Lease>, running: bool) -> bool {
        let held = self.held_by_others(vm);
        let family = |ipv4: bool| {
            let is_host = |address: &IpAddr| match address {
                IpAddr::V4(_) => HOSTS.map(host).any(|host| host == *address),
                IpAddr::V6(ipv6) => ipv6.segments()[0] == 0xfd00,
            };
            if let Some(address) = request.address(ipv4) {
                let kept = lease.is_some_and(|lease| lease.ips.contains(&address));
                return kept || (is_host(&address) && !held.contains(&address));
            }
            let had = lease.and_then(|lease| lease.of_family(ipv4));
            if had.is_some_and(|had| running || request.fits(had)) {
                return true;
            }
            let free = |address: &IpAddr| !held.contains(address);
            match (request.pool(ipv4), ipv4) {
                (Some(pool), _) => pool.iter().any(free),
                // The first host needs a request.
                (None, true) => {
                    HOSTS.filter(|at| *at > 1 && !self.excluded.contains(at)).map(host).any(|address| free(&address))
                }
                (None, false) => true,
            }
        };
        family(true) && family(false)
    }
}
