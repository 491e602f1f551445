//! Allocation: the addresses that a port gets, and the conflicts of those that it has.

use std::net::IpAddr;
use std::sync::Arc;

use macaddr::MacAddr6;
use uuid::Uuid;

use super::claims::Claim;
use super::lease::reserved;
use super::problem::{Holder, Problem};
use super::remarks::{Refusal, Remarks};
use super::view::{InTheWay, Switch, View};
use crate::intent::{Permission, PortIntent, Request};
use crate::ipam::{AddressPool, Pool, RangeSet, Subnet};
use crate::ovn::{Addresses, Wake};

/// The holdings of a NIC on a switch.
#[derive(Clone, Copy)]
pub(super) struct Holding<'a> {
    /// Its network's name in the VM.
    pub(super) nic: &'a str,
    /// Its row.
    pub(super) own: Option<Uuid>,
    /// The row that the NIC has without a lease, or will have: it may have the last addresses of that row again.
    pub(super) lost: Option<Uuid>,
    /// The lease of the row.
    pub(super) lease: Option<Addresses>,
    /// The reservation for the next start.
    pub(super) reserved: Option<Addresses>,
    /// A guest uses the lease: no other address is allocated for it. It still gets an address that was requested, or
    /// that was reserved before it started.
    pub(super) running: bool,
    /// The last lease in the VM's status, if the row is lost: the addresses and the MAC that it can have again.
    pub(super) told: Option<Retakable>,
}

/// A NIC's last lease, as far as the NIC can have it again.
#[derive(Clone, Copy)]
pub(super) struct Retakable {
    /// The whole last lease.
    pub(super) told: Addresses,
    /// The free part of it. At least one address, unless the last lease had no address.
    pub(super) free: Addresses,
    /// True if the MAC is free.
    pub(super) mac_is_free: bool,
}

fn of_family(addresses: Addresses, ipv4: bool) -> Option<IpAddr> {
    addresses.ips().find(|address| address.is_ipv4() == ipv4)
}

impl View<'_> {
    /// Decides the lease: the present one, changed as the owner requests. Addresses in neither are allocated.
    pub(super) fn settle(
        &self,
        switch: &Switch,
        request: &Request,
        holding: &Holding<'_>,
    ) -> Result<Addresses, Refusal> {
        let Holding { own, lease, .. } = *holding;
        if self.wants_mac_alone(switch, request, holding) {
            let mac = self.settle_mac(switch, request, holding, None)?;
            return Ok(Addresses::new(mac, []));
        }
        let requested = [request.ipv4.map(IpAddr::V4), request.ipv6.map(IpAddr::V6)];
        for address in requested.into_iter().flatten() {
            if lease.is_none_or(|lease| !lease.ips().any(|held| held == address)) {
                self.check(switch, address, own)?;
            }
        }
        let [ipv4, ipv6] = requested;
        let families = [(ipv4, true), (ipv6, false)].map(|(address, is_ipv4)| match address {
            Some(_) => Ok(address),
            None => self.keep_or_choose(switch, request, holding, is_ipv4),
        });
        let [ipv4, ipv6] = match families {
            // A problem that only the VM's owner can fix is reported before one that may pass by itself.
            [
                Err(_),
                Err(refusal @ Refusal::Problem(Problem::PoolOutOfSubnet { .. } | Problem::FamilyMissing { .. }, _)),
            ] => {
                return Err(refusal);
            }
            [ipv4, ipv6] => [ipv4?, ipv6?],
        };
        let mac = self.settle_mac(switch, request, holding, ipv4.or(ipv6))?;
        Ok(Addresses::new(mac, [ipv4, ipv6].into_iter().flatten()))
    }

    /// Returns true if the port gets no address: its owner says so, or the switch has no addresses (`mac_only`) and
    /// neither the request nor the lease, present or lost, names one.
    fn wants_mac_alone(&self, switch: &Switch, request: &Request, holding: &Holding<'_>) -> bool {
        let named =
            request.ipv4.is_some() || request.ipv6.is_some() || request.pool.is_some() || request.family.is_some();
        let leases = [holding.lease, holding.told.map(|told| told.free)];
        let held = leases.into_iter().flatten().any(|lease| lease.ips().next().is_some());
        request.no_address || !named && !held && self.northbound().is_mac_only(&switch.uuid)
    }

    /// The MAC that is requested, or held, or made for a port with this address.
    fn settle_mac(
        &self,
        switch: &Switch,
        request: &Request,
        holding: &Holding<'_>,
        address: Option<IpAddr>,
    ) -> Result<MacAddr6, Refusal> {
        match (request.mac, holding.lease) {
            (Some(mac), Some(lease)) if mac == lease.mac => Ok(mac),
            (Some(mac), _) => self.check_mac(switch, mac, holding.own),
            (None, Some(lease)) => Ok(lease.mac),
            (None, None) => match holding.told.filter(|told| told.mac_is_free) {
                Some(told) => Ok(told.told.mac),
                None => Ok(self.make_mac(switch, address, holding)),
            },
        }
    }

    /// The address of a family that the owner did not request: the held one, unless the owner's pool excludes it; else
    /// a reserved one; else a free one.
    fn keep_or_choose(
        &self,
        switch: &Switch,
        request: &Request,
        holding: &Holding<'_>,
        ipv4: bool,
    ) -> Result<Option<IpAddr>, Refusal> {
        let Holding { nic, own, lost, lease, reserved, running, told } = *holding;
        let pool = request.pool.as_ref().filter(|pool| !pool.is_empty(ipv4));
        let fits = |address: &IpAddr| pool.is_none_or(|pool| pool.contains(*address));
        if request.family.is_some_and(|family| !family.has(ipv4)) {
            // A guest that runs keeps it, unless it was to go at this guest's start.
            let goes = reserved.is_some_and(|reserved| of_family(reserved, ipv4).is_none());
            let kept = lease.or(told.map(|told| told.free)).filter(|_| running && !goes);
            return Ok(kept.and_then(|kept| of_family(kept, ipv4)));
        }
        let unasked = pool.is_none() && request.family.is_none();
        if let Some(Retakable { told, free, .. }) = told {
            if let Some(address) = of_family(free, ipv4).filter(fits) {
                return Ok(Some(address));
            }
            // The last lease was complete: see below.
            if free.ips().next().is_some() && of_family(told, ipv4).is_none() && unasked {
                return Ok(None);
            }
        }
        let held = lease.and_then(|lease| of_family(lease, ipv4));
        let complete = lease.is_some_and(|lease| lease.ips().next().is_some());
        // A lease is complete: a family that the switch gained later is not added to it, unless its owner asks for it.
        if held.is_some_and(|held| fits(&held)) || complete && held.is_none() && unasked {
            return Ok(held);
        }
        let reserved = reserved.and_then(|reserved| of_family(reserved, ipv4)).filter(fits);
        if let Some(reserved) =
            reserved.filter(|reserved| own.is_some_and(|own| self.is_held_by(switch, *reserved, own)))
        {
            return Ok(Some(reserved));
        }
        if complete && running {
            return Ok(held);
        }
        if lease.is_some() && running {
            // A guest that runs with its MAC alone: only addresses that were removed from its row by hand are restored.
            let left = lost.and_then(|row| self.left_by(switch, ipv4, pool, row));
            return left.map(|left| self.unclaimed_address(switch, left)).transpose();
        }
        match self.choose(switch, ipv4, pool, lost, nic)? {
            None if request.family.is_some() => {
                let (name, subnet) = (switch.name.clone(), self.subnet(switch)?.nets());
                Err(Refusal::on_switch(&switch.name, Problem::FamilyMissing { ipv4, switch: name, subnet }))
            }
            chosen => Ok(chosen),
        }
    }

    /// Decides the reservation for the next start: empty if it equals the lease. A remark says why it differs from the
    /// request.
    pub(super) fn next(
        &self,
        nic: &PortIntent,
        switch: &Switch,
        holding: &Holding<'_>,
    ) -> (Option<Addresses>, Remarks) {
        let coming = nic.life.next();
        let next = if nic.life.is_leaving() { Some(nic.life.request()) } else { coming.map(|next| &next.request) };
        let elsewhere = coming.and_then(|next| next.switch.as_ref()).filter(|requested| requested.name != switch.name);
        if let Some(requested) = elsewhere {
            return (None, self.deferred(switch, requested));
        }
        let request = match next {
            None => return (None, Remarks::default()),
            Some(Ok(request)) => request,
            Some(Err(invalid)) => return (None, Remarks::of(Problem::Invalid(invalid.clone()))),
        };
        match self.settle(switch, request, holding) {
            Ok(next) => ((Some(next) != holding.lease).then_some(next), Remarks::default()),
            Err(refusal) => (self.still_reserved(switch, request, holding), refusal.into()),
        }
    }

    /// The part of the reservation that is still requested, while the rest of the request is refused.
    fn still_reserved(&self, switch: &Switch, request: &Request, holding: &Holding<'_>) -> Option<Addresses> {
        let (reserved, lease, own) = (holding.reserved?, holding.lease?, holding.own?);
        let is_requested = |address: &IpAddr| {
            let named = if address.is_ipv4() { request.ipv4.map(IpAddr::V4) } else { request.ipv6.map(IpAddr::V6) };
            named.map_or_else(|| request.names(*address), |named| named == *address)
        };
        let is_own = |address: &IpAddr| self.is_held_by(switch, *address, own);
        let requested: Vec<IpAddr> = reserved.ips().filter(is_requested).filter(is_own).collect();
        let mac = if request.mac == Some(reserved.mac) { reserved.mac } else { lease.mac };
        let new = requested.iter().any(|address| lease.ips().all(|held| held != *address));
        new.then(|| Addresses::new(mac, requested))
    }

    /// Checks that the port may have a requested address.
    fn check(&self, switch: &Switch, address: IpAddr, own: Option<Uuid>) -> Result<(), Refusal> {
        // A reservation counts like a lease, even if the switch has changed since.
        let is_reserved = |own: Uuid| {
            let reserved = self.northbound().port(&own).and_then(|port| reserved(port.row));
            reserved.is_some_and(|reserved| reserved.ips().any(|reserved| reserved == address))
        };
        if own.is_some_and(|own| self.is_held_by(switch, address, own) && is_reserved(own)) {
            return Ok(());
        }
        let subnet = self.subnet(switch)?;
        let Some(block) = subnet.block_of(address) else {
            let (name, subnet) = (switch.name.clone(), subnet.nets());
            let problem = Problem::OutOfSubnet { address, switch: name, subnet };
            return Err(Refusal::on_switch(&switch.name, problem));
        };
        self.may_name(switch, block, address)?;
        let Some(holder) = self.holder(switch, Claim::Ip(address), own) else { return Ok(()) };
        let problem = |holder| Problem::AddressHeld { address, switch: switch.name.clone(), holder };
        Err(kept_by(holder, problem, || {
            vec![Wake::Address(switch.uuid, address), Wake::Switch(switch.name.clone()), Wake::Services]
        }))
    }

    fn check_mac(&self, switch: &Switch, mac: MacAddr6, own: Option<Uuid>) -> Result<MacAddr6, Refusal> {
        let Some(holder) = self.holder(switch, Claim::Mac(mac), own) else { return Ok(mac) };
        let problem = |holder| Problem::MacHeld { mac, switch: switch.name.clone(), holder };
        Err(kept_by(holder, problem, || {
            vec![Wake::Mac(switch.uuid, mac), Wake::Switch(switch.name.clone()), Wake::Services]
        }))
    }

    /// The lowest free address of a family, from the owner's pool if there is one; `None` if the switch has no subnet
    /// of that family.
    fn choose(
        &self,
        switch: &Switch,
        ipv4: bool,
        pool: Option<&AddressPool>,
        lost: Option<Uuid>,
        nic: &str,
    ) -> Result<Option<IpAddr>, Refusal> {
        let subnet = self.subnet(switch)?;
        let name = || switch.name.clone();
        let spans = subnet.spans(ipv4, pool);
        match pool {
            None if spans.is_empty() => return Ok(None),
            Some(pool) if spans.is_empty() => {
                let (pool, subnet) = (Box::new(pool.clone()), subnet.nets());
                let problem = Problem::PoolOutOfSubnet { pool, switch: name(), subnet };
                return Err(Refusal::on_switch(&switch.name, problem));
            }
            _ => {}
        }
        if let Some(problem) = self.renumbering(switch, &subnet, ipv4, pool) {
            return Err(Refusal::on_switch(&switch.name, problem));
        }
        let empty = Pool::default();
        let held = self.northbound().pool(&switch.uuid).unwrap_or(&empty);
        let services = self.northbound().service_addresses(ipv4);
        // Addresses that another NIC of the VM requests, and addresses that the guest of another VM may still use.
        let requested = self.named.by_others(&switch.name, nic, ipv4);
        let lost_by_others = self.snapshot.lost.addresses(&self.access(switch), ipv4);
        let kept: Vec<&RangeSet> = requested.as_deref().into_iter().chain(lost_by_others).collect();
        // The row's last address, lost for any reason: its guest may be running. The policy applies to a row to come.
        let left = lost.and_then(|row| held.left_by(row, &subnet.spans_held(ipv4, pool), &kept, services));
        let is_there = lost.is_some_and(|row| self.northbound().port(&row).is_some());
        let may_return = |ip| subnet.block_of(ip).is_some_and(|block| self.may_return(switch, block, ip));
        if let Some(left) = left.filter(|ip| is_there || may_return(*ip)) {
            return self.unclaimed_address(switch, left).map(Some);
        }
        pool.map_or(Ok(()), |pool| self.may_choose_from(switch, &subnet, ipv4, pool))?;
        let spans = subnet.open_spans(ipv4, pool, self.openness(switch));
        let barred: Vec<&RangeSet> =
            kept.iter().copied().chain(self.claimed(switch, ipv4).into_iter().flatten()).collect();
        if let Some(free) = held.lowest_free(&spans, &barred, services) {
            return Ok(Some(free));
        }
        if held.lowest_free(&spans, &kept, services).is_some() {
            // The transaction determines if the other ports get the last addresses.
            return Err(Refusal::Batch);
        }
        let problem = match pool {
            Some(pool) => Problem::PoolExhausted { pool: Box::new(pool.clone()), switch: name() },
            None => Problem::SubnetExhausted { switch: name(), subnet: subnet.nets(), ipv4 },
        };
        Err(Refusal::Problem(problem, vec![Wake::Room(switch.uuid), Wake::Switch(name()), Wake::Services]))
    }

    /// The addresses of a family that this transaction grants on a switch.
    fn claimed(&self, switch: &Switch, ipv4: bool) -> [Option<&RangeSet>; 2] {
        [&self.own, self.batch].map(|claims| claims.addresses(switch.uuid, ipv4))
    }

    /// The last address of a row, lost for any reason, if no port holds it. This transaction may grant it.
    fn left_by(&self, switch: &Switch, ipv4: bool, pool: Option<&AddressPool>, row: Uuid) -> Option<IpAddr> {
        let subnet = self.subnet(switch).ok()?;
        let held = self.northbound().pool(&switch.uuid)?;
        held.left_by(row, &subnet.spans_held(ipv4, pool), &[], self.northbound().service_addresses(ipv4))
    }

    /// Checks that this transaction does not grant an address: another address, or a problem, would be the others' doing.
    fn unclaimed_address(&self, switch: &Switch, address: IpAddr) -> Result<IpAddr, Refusal> {
        if self.is_claimed(switch.uuid, Claim::Ip(address)) { Err(Refusal::Batch) } else { Ok(address) }
    }

    /// The reason why no address may be allocated beside OVN's own IPAM: northd allocates the same addresses at the
    /// same time, and renumbers its own port if two ports have one address. `exclude_ips` is left alone by
    /// northd, and IPv6 addresses are made from MACs.
    fn renumbering(&self, switch: &Switch, subnet: &Subnet, ipv4: bool, pool: Option<&AddressPool>) -> Option<Problem> {
        let port = self.northbound().dynamic_port(&switch.uuid).filter(|_| ipv4)?.row.name.clone();
        let rule = [Permission::Explicit, Permission::Excluded].into_iter().find_map(|it| self.lacks(switch, it));
        let switch = switch.name.clone();
        match pool {
            None => Some(Problem::PoolRequired { switch, port, rule }),
            Some(pool) if subnet.northd_spares(true, pool) => None,
            Some(pool) => Some(Problem::PoolNotExcluded {
                pool: Box::new(pool.clone()),
                switch,
                port,
                // If northd read the setting as we do, it would exclude the pool.
                by_northd: subnet.excludes_all(true, pool),
                rule,
            }),
        }
    }

    /// A MAC made from the address, or from a hash of it if a port of ours on any switch has that MAC: a guest with
    /// NICs on several switches tells them apart by MAC.
    fn make_mac(&self, switch: &Switch, address: Option<IpAddr>, holding: &Holding<'_>) -> MacAddr6 {
        let [first, second] = self.snapshot.settings.mac_prefix;
        let mac = |tail: [u8; 4]| MacAddr6::new(first, second, tail[0], tail[1], tail[2], tail[3]);
        let hashed = |attempt: u32| {
            // Without an address, the MAC is made from the row, which is unique.
            let of = match (address, holding.own.or(holding.lost)) {
                (None, Some(row)) => row.to_string(),
                _ => format!("{address:?}"),
            };
            let seed = format!("{}/{of}/{attempt}", switch.uuid);
            let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, seed.as_bytes()).as_u128();
            mac(u32::try_from(hash >> 96).unwrap_or_default().to_be_bytes())
        };
        let first = match address {
            Some(IpAddr::V4(address)) => mac(address.octets()),
            _ => hashed(0),
        };
        let mut candidates = std::iter::once(first).chain((1..).map(hashed));
        // The iterator is infinite, and there are fewer ports than MACs.
        candidates.find(|mac| self.is_free_anywhere(switch, *mac, holding.own, holding.nic)).unwrap_or(first)
    }

    pub(super) fn subnet(&self, switch: &Switch) -> Result<Arc<Subnet>, Refusal> {
        self.snapshot.subnet(switch.uuid).map_err(|reason| {
            Refusal::on_switch(&switch.name, Problem::NoSubnet { switch: switch.name.clone(), reason })
        })
    }

    /// Reports settings of the switch that were skipped: they may have been meant to keep addresses from allocation.
    pub(super) fn unread_settings(&self, switch: &Switch) -> Option<Problem> {
        let subnet = self.subnet(switch).ok()?;
        let unread = subnet.unread().to_vec();
        (!unread.is_empty()).then(|| Problem::SettingUnread { switch: switch.name.clone(), unread })
    }

    /// The conflicts of a lease that stands: another port has it, too, or the subnet of the switch has changed.
    /// `request` is `None` if the request is unknown.
    pub(super) fn conflicts(
        &self,
        switch: &Switch,
        lease: Addresses,
        own: Option<Uuid>,
        request: Option<&Request>,
    ) -> Vec<Problem> {
        let name = || switch.name.clone();
        let mut conflicts = Vec::new();
        for address in lease.ips() {
            if let Some(holder) = self.other_holder(switch, Claim::Ip(address), own) {
                conflicts.push(Problem::AddressDoubled { address, switch: name(), holder: holder.into() });
            }
            let Ok(subnet) = self.subnet(switch) else { continue };
            let requested = request.is_none_or(|request| request.names(address));
            match subnet.block_of(address) {
                None => conflicts.push(Problem::LeaseOutside { address, switch: name(), subnet: subnet.nets() }),
                Some(block) if block.excludes(address) && !requested => {
                    conflicts.push(Problem::LeaseExcluded { address, switch: name() });
                }
                Some(_) => {}
            }
        }
        if let Some(holder) = self.other_holder(switch, Claim::Mac(lease.mac), own) {
            conflicts.push(Problem::MacDoubled { mac: lease.mac, switch: name(), holder: holder.into() });
        }
        conflicts
    }
}

/// Reports the addresses outside the owner's pool that a port keeps while its guest runs.
pub(super) fn outside_the_pool(lease: Addresses, request: &Request) -> Vec<Problem> {
    let Some(pool) = &request.pool else { return Vec::new() };
    let confined = |address: &IpAddr| !pool.is_empty(address.is_ipv4());
    let outside = lease.ips().filter(|address| confined(address) && !request.names(*address));
    outside.map(|address| Problem::LeaseOutsidePool { address, pool: Box::new(pool.clone()) }).collect()
}

/// The refusal of a claim that something is in the way of.
fn kept_by(
    in_the_way: InTheWay,
    problem: impl FnOnce(Box<Holder>) -> Problem,
    wakes: impl FnOnce() -> Vec<Wake>,
) -> Refusal {
    match in_the_way {
        InTheWay::Batch => Refusal::Batch,
        InTheWay::Holder(holder) => Refusal::Problem(problem(Box::new(holder)), wakes()),
    }
}
