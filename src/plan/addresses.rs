//! Which addresses a NIC gets, and what has befallen those that it has.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use macaddr::MacAddr6;
use uuid::Uuid;

use super::lease::{reserved, written};
use super::planner::{Planner, Refusal, Switch, VmPlan};
use super::problem::{Holder, Problem};
use super::report::PortReport;
use super::siblings::Claim;
use crate::intent::{Nic, Wish};
use crate::ipam::{AddressPool, Pool, RangeSet, Subnet, SubnetError};
use crate::ovn::{Addresses, Wake};

/// What a transaction gives away on one switch, unknown to the replica yet.
#[derive(Default, Clone)]
pub(super) struct Given {
    ipv4: RangeSet,
    ipv6: RangeSet,
    pub(super) macs: HashSet<MacAddr6>,
    /// The switch's subnet, which is read once a transaction.
    subnet: Option<Result<Arc<Subnet>, SubnetError>>,
}

impl Given {
    pub(super) fn family(&mut self, ipv4: bool) -> &mut RangeSet {
        if ipv4 { &mut self.ipv4 } else { &mut self.ipv6 }
    }
}

/// What a NIC has on the switch already.
#[derive(Clone, Copy)]
pub(super) struct Holding<'a> {
    /// Its network's name in the VM.
    pub(super) nic: &'a str,
    /// Its row.
    pub(super) own: Option<Uuid>,
    /// The row that it has without a lease, or will have: what that held last is still its own to have.
    pub(super) lost: Option<Uuid>,
    /// What the row holds.
    pub(super) lease: Option<Addresses>,
    /// What is reserved for the next start.
    pub(super) reserved: Option<Addresses>,
    /// A guest uses the lease: nothing else is chosen for it. What was wished for, or reserved before it started, it is
    /// given all the same.
    pub(super) running: bool,
    /// What it was last told, where the row is lost: the addresses that it can have again, and the MAC.
    pub(super) told: Option<Retakable>,
}

/// What a NIC was last told and can have again.
#[derive(Clone, Copy)]
pub(super) struct Retakable {
    /// All that it was told.
    pub(super) told: Addresses,
    /// Of that, what is free. At least one address, or there was none.
    pub(super) free: Addresses,
    /// Whether the MAC is.
    pub(super) mac_is_free: bool,
}

impl Planner<'_> {
    /// What the port holds from now on: the lease, changed where the owner wishes; what neither says
    /// is chosen.
    pub(super) fn settle(&mut self, switch: &Switch, wish: &Wish, holding: &Holding<'_>) -> Result<Addresses, Refusal> {
        let Holding { own, lease, .. } = *holding;
        if self.wants_mac_alone(switch, wish, holding) {
            let mac = self.settle_mac(switch, wish, holding, None)?;
            return Ok(Addresses::new(mac, []));
        }
        let wished = [wish.ipv4.map(IpAddr::V4), wish.ipv6.map(IpAddr::V6)];
        for address in wished.into_iter().flatten() {
            if lease.is_none_or(|lease| !lease.ips().any(|held| held == address)) {
                self.check(switch, address, own)?;
            }
        }
        let [ipv4, ipv6] = wished;
        let families = [(ipv4, true), (ipv6, false)].map(|(address, is_ipv4)| match address {
            Some(_) => Ok(address),
            None => self.keep_or_choose(switch, wish, holding, is_ipv4),
        });
        let [ipv4, ipv6] = match families {
            // What only the VM's owner can mend is told before what may pass by itself.
            [Err(_), Err(refusal @ Refusal::Problem(Problem::PoolOutOfSubnet { .. }, _))] => return Err(refusal),
            [ipv4, ipv6] => [ipv4?, ipv6?],
        };
        let mac = self.settle_mac(switch, wish, holding, ipv4.or(ipv6))?;
        Ok(Addresses::new(mac, [ipv4, ipv6].into_iter().flatten()))
    }

    /// Returns true if the port is to have no address: its owner says so, or the switch has none to give and neither the
    /// owner nor the lease names one.
    fn wants_mac_alone(&self, switch: &Switch, wish: &Wish, holding: &Holding<'_>) -> bool {
        let named = wish.ipv4.is_some() || wish.ipv6.is_some() || wish.pool.is_some();
        let held = holding.lease.is_some_and(|lease| lease.ips().next().is_some());
        wish.no_address || !named && !held && self.view.is_mac_only(&switch.uuid)
    }

    /// The MAC that is requested, or held, or made for a port with this address.
    fn settle_mac(
        &mut self,
        switch: &Switch,
        wish: &Wish,
        holding: &Holding<'_>,
        address: Option<IpAddr>,
    ) -> Result<MacAddr6, Refusal> {
        match (wish.mac, holding.lease) {
            (Some(mac), Some(lease)) if mac == lease.mac => Ok(mac),
            (Some(mac), _) => self.check_mac(switch, mac, holding.own),
            (None, Some(lease)) => Ok(lease.mac),
            (None, None) => match holding.told.filter(|told| told.mac_is_free) {
                Some(told) => Ok(told.told.mac),
                None => Ok(self.make_mac(switch, address, holding)),
            },
        }
    }

    /// The address of a family that nobody named: the one that it has, unless the owner's pool has others; else one
    /// that was reserved; else one that is free.
    fn keep_or_choose(
        &mut self,
        switch: &Switch,
        wish: &Wish,
        holding: &Holding<'_>,
        ipv4: bool,
    ) -> Result<Option<IpAddr>, Refusal> {
        let Holding { nic, own, lost, lease, reserved, running, told } = *holding;
        let pool = wish.pool.as_ref().filter(|pool| !pool.is_empty(ipv4));
        let fits = |address: &IpAddr| pool.is_none_or(|pool| pool.contains(*address));
        if let Some(Retakable { told, free, .. }) = told {
            let of_family =
                |addresses: Addresses| addresses.ips().find(|address| address.is_ipv4() == ipv4).filter(fits);
            if let Some(address) = of_family(free) {
                return Ok(Some(address));
            }
            // It was complete: see below.
            if free.ips().next().is_some() && told.ips().all(|address| address.is_ipv4() != ipv4) && pool.is_none() {
                return Ok(None);
            }
        }
        let of_family = |addresses: Option<Addresses>| {
            addresses.and_then(|addresses| addresses.ips().find(|address| address.is_ipv4() == ipv4))
        };
        let held = of_family(lease);
        let complete = lease.is_some_and(|lease| lease.ips().next().is_some());
        // A lease is complete: a family that the switch gained later is not forced upon it.
        if held.is_some_and(|held| fits(&held)) || complete && held.is_none() && pool.is_none() {
            return Ok(held);
        }
        if let Some(reserved) = of_family(reserved).filter(fits)
            && own.is_some_and(|own| self.view.holders(&switch.uuid, reserved) == [own])
        {
            return Ok(Some(reserved));
        }
        if complete && running {
            return Ok(held);
        }
        if lease.is_some() && running {
            // A guest that runs with its MAC alone: what was taken out of its row by hand is put back, and nothing else.
            return Ok(lost.and_then(|row| self.left_by(switch, ipv4, pool, row)));
        }
        self.choose(switch, ipv4, pool, lost, nic)
    }

    /// What is reserved for the next start: nothing where it would be what holds already. Why it is not what is wished is
    /// noted.
    pub(super) fn next(
        &mut self,
        nic: &Nic,
        switch: &Switch,
        holding: &Holding<'_>,
        report: &mut PortReport,
        plan: &mut VmPlan,
    ) -> Option<Addresses> {
        let next = if nic.held_by_old_launcher { Some(&nic.now) } else { nic.next.as_ref() };
        if let Some(wished) = nic.next_switch.as_ref().filter(|wished| **wished != switch.name) {
            self.deferred(switch, wished).into_iter().for_each(|refusal| refusal.note(report, plan));
            return None;
        }
        let wish = match next? {
            Ok(wish) => wish,
            Err(invalid) => {
                Refusal::Problem(Problem::Invalid(invalid.clone()), Vec::new()).note(report, plan);
                return None;
            }
        };
        match self.settle(switch, wish, holding) {
            Ok(next) => (Some(next) != holding.lease).then_some(next),
            Err(refusal) => {
                refusal.note(report, plan);
                self.still_reserved(switch, wish, holding)
            }
        }
    }

    /// What has been reserved and is still wished, while the rest of the wish cannot be had.
    fn still_reserved(&self, switch: &Switch, wish: &Wish, holding: &Holding<'_>) -> Option<Addresses> {
        let (reserved, lease, own) = (holding.reserved?, holding.lease?, holding.own?);
        let is_own = |address: &IpAddr| self.view.holders(&switch.uuid, *address) == [own];
        let is_wished = |address: &IpAddr| {
            let named = if address.is_ipv4() { wish.ipv4.map(IpAddr::V4) } else { wish.ipv6.map(IpAddr::V6) };
            named.map_or_else(|| wish.names(*address), |named| named == *address)
        };
        let wished: Vec<IpAddr> = reserved.ips().filter(is_wished).filter(is_own).collect();
        let mac = if wish.mac == Some(reserved.mac) { reserved.mac } else { lease.mac };
        let new = wished.iter().any(|address| lease.ips().all(|held| held != *address));
        new.then(|| Addresses::new(mac, wished))
    }

    /// Whether a wished address may be had.
    fn check(&mut self, switch: &Switch, address: IpAddr, own: Option<Uuid>) -> Result<(), Refusal> {
        // What is reserved for it already is as good as a lease, whatever the switch says now.
        let is_reserved = |own: Uuid| {
            let reserved = self.view.port(&own).and_then(|port| reserved(port.row));
            reserved.is_some_and(|reserved| reserved.ips().any(|reserved| reserved == address))
        };
        if own.is_some_and(|own| self.view.holders(&switch.uuid, address) == [own] && is_reserved(own)) {
            return Ok(());
        }
        let subnet = self.subnet(switch)?;
        if subnet.block_of(address).is_none() {
            let (name, subnet) = (switch.name.clone(), subnet.nets());
            let problem = Problem::OutOfSubnet { address, switch: name, subnet };
            return Err(Refusal::on_switch(&switch.name, problem));
        }
        if let Some(holder) = self.another_holder(switch, address, own) {
            let problem = Problem::AddressHeld { address, switch: switch.name.clone(), holder: holder.into() };
            let waits = vec![Wake::Address(switch.uuid, address), Wake::Switch(switch.name.clone()), Wake::Services];
            return Err(Refusal::Problem(problem, waits));
        }
        if self.given.entry(switch.uuid).or_default().family(address.is_ipv4()).contains(address) {
            return Err(Refusal::Again);
        }
        let Some(vm) = self.lost_by_a_guest(switch, Claim::Ip(address)) else { return Ok(()) };
        let holder = Box::new(Holder::LostBy(vm));
        let waits = vec![Wake::Address(switch.uuid, address), Wake::Switch(switch.name.clone()), Wake::Services];
        Err(Refusal::Problem(Problem::AddressHeld { address, switch: switch.name.clone(), holder }, waits))
    }

    fn check_mac(&mut self, switch: &Switch, mac: MacAddr6, own: Option<Uuid>) -> Result<MacAddr6, Refusal> {
        if let Some(holder) = self.another_mac_holder(switch, mac, own) {
            let problem = Problem::MacHeld { mac, switch: switch.name.clone(), holder: holder.into() };
            let waits = vec![Wake::Mac(switch.uuid, mac), Wake::Switch(switch.name.clone()), Wake::Services];
            return Err(Refusal::Problem(problem, waits));
        }
        if self.given.entry(switch.uuid).or_default().macs.contains(&mac) {
            return Err(Refusal::Again);
        }
        let Some(vm) = self.lost_by_a_guest(switch, Claim::Mac(mac)) else { return Ok(mac) };
        let holder = Box::new(Holder::LostBy(vm));
        let waits = vec![Wake::Mac(switch.uuid, mac), Wake::Switch(switch.name.clone())];
        Err(Refusal::Problem(Problem::MacHeld { mac, switch: switch.name.clone(), holder }, waits))
    }

    /// Who else has an address: a port, or OVN itself.
    pub(super) fn another_holder(&self, switch: &Switch, address: IpAddr, own: Option<Uuid>) -> Option<Holder> {
        let in_the_way = |holder: &&Uuid| Some(**holder) != own && !self.is_no_holder(**holder, Claim::Ip(address));
        let holder = self.view.holders(&switch.uuid, address).iter().find(in_the_way);
        let service = || self.view.service(&switch.uuid, address).map(Holder::Service);
        holder.map(|holder| self.describe(*holder)).or_else(service)
    }

    pub(super) fn another_mac_holder(&self, switch: &Switch, mac: MacAddr6, own: Option<Uuid>) -> Option<Holder> {
        let in_the_way = |holder: &Uuid| Some(*holder) != own && !self.is_no_holder(*holder, Claim::Mac(mac));
        let holder = self.view.mac_holders(&switch.uuid, mac).find(in_the_way);
        let service = || self.view.mac_service(&switch.uuid, mac).map(Holder::Service);
        holder.map(|holder| self.describe(holder)).or_else(service)
    }

    /// Who else has what a port holds. What somebody wrote into a row of ours, which is not its lease, is about to go.
    fn doubled_by(&self, switch: &Switch, claim: Claim, own: Option<Uuid>) -> Option<Holder> {
        let counts = |holder: &Uuid| {
            Some(*holder) != own && !self.is_no_holder(*holder, claim) && !self.only_seems_to_hold(*holder, claim)
        };
        let holder = match claim {
            Claim::Ip(ip) => self.view.holders(&switch.uuid, ip).iter().copied().find(counts),
            Claim::Mac(mac) => self.view.mac_holders(&switch.uuid, mac).find(counts),
        };
        let service = || match claim {
            Claim::Ip(ip) => self.view.service(&switch.uuid, ip),
            Claim::Mac(mac) => self.view.mac_service(&switch.uuid, mac),
        };
        holder.map(|holder| self.describe(holder)).or_else(|| service().map(Holder::Service))
    }

    /// The lowest free address of a family, of the owner's pool where there is one; `None` where the switch has none
    /// of that family.
    fn choose(
        &mut self,
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
                return Err(Refusal::on_switch(
                    &switch.name,
                    Problem::PoolOutOfSubnet { pool, switch: name(), subnet },
                ));
            }
            _ => {}
        }
        if let Some(problem) = self.renumbering(switch, &subnet, ipv4, pool) {
            return Err(Refusal::on_switch(&switch.name, problem));
        }
        let empty = Pool::default();
        let held = self.view.pool(&switch.uuid).unwrap_or(&empty);
        let services = self.view.service_addresses(ipv4);
        // What a guest may still use is for its VM.
        let lost_by_others = self.lost.and_then(|lost| lost.addresses(&switch.name, ipv4));
        let given = self.given.entry(switch.uuid).or_default().family(ipv4);
        // What another NIC of the VM names is for that one.
        let (free, is_full) = self.named.with_barred(switch, (nic, ipv4), given, |barred, named| {
            let [barred, named] = [barred, named].map(|set| with_lost(set, lost_by_others));
            // What the row had and lost, by whatever hand: its guest may run.
            let left = lost.and_then(|row| held.left_by(row, &subnet.spans_held(ipv4, pool), &barred, services));
            let free = left.or_else(|| held.lowest_free(&spans, &barred, services));
            (free, free.is_none() && held.lowest_free(&spans, &named, services).is_none())
        });
        if free.is_some() {
            return Ok(free);
        }
        if !is_full {
            // Whether the others get the last ones is known after this transaction.
            return Err(Refusal::Again);
        }
        let problem = match pool {
            Some(pool) => Problem::PoolExhausted { pool: Box::new(pool.clone()), switch: name() },
            None => Problem::SubnetExhausted { switch: name(), subnet: subnet.nets(), ipv4 },
        };
        let waits = vec![Wake::Room(switch.uuid), Wake::Switch(switch.name.clone()), Wake::Services];
        Err(Refusal::Problem(problem, waits))
    }

    /// What a row had and lost, by whatever hand, where it is free.
    fn left_by(&mut self, switch: &Switch, ipv4: bool, pool: Option<&AddressPool>, row: Uuid) -> Option<IpAddr> {
        let subnet = self.subnet(switch).ok()?;
        let held = self.view.pool(&switch.uuid)?;
        let given = self.given.entry(switch.uuid).or_default().family(ipv4);
        held.left_by(row, &subnet.spans_held(ipv4, pool), given, self.view.service_addresses(ipv4))
    }

    /// Why nothing may be chosen beside OVN's own IPAM: it gives the same addresses away at the same time, and of two
    /// ports that have one, northd renumbers its own. What `exclude_ips` names it leaves alone. IPv6 addresses it
    /// makes from MACs.
    fn renumbering(&self, switch: &Switch, subnet: &Subnet, ipv4: bool, pool: Option<&AddressPool>) -> Option<Problem> {
        let port = self.view.dynamic_port(&switch.uuid).filter(|_| ipv4)?.row.name.clone();
        let switch = switch.name.clone();
        match pool {
            None => Some(Problem::PoolRequired { switch, port }),
            Some(pool) if subnet.northd_spares(true, pool) => None,
            Some(pool) => Some(Problem::PoolNotExcluded {
                pool: Box::new(pool.clone()),
                switch,
                port,
                // Were our reading of it northd's, it would do.
                by_northd: subnet.excludes_all(true, pool),
            }),
        }
    }

    /// A MAC made from the address, or from a hash of it where a port of ours has that one, on whatever switch: a guest
    /// with NICs on several tells them apart by it.
    fn make_mac(&mut self, switch: &Switch, address: Option<IpAddr>, holding: &Holding<'_>) -> MacAddr6 {
        let [first, second] = self.settings.mac_prefix;
        let mac = |tail: [u8; 4]| MacAddr6::new(first, second, tail[0], tail[1], tail[2], tail[3]);
        let hashed = |attempt: u32| {
            // Without an address it is made from the row, of which there is one alike.
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
        let candidates = std::iter::once(first).chain((1..).map(hashed));
        // What the row itself has on the switch that it leaves is its own.
        let row = holding.own.and_then(|own| self.view.port(&own)).map(|port| port.row);
        let own = |mac: &MacAddr6| row.and_then(written).is_some_and(|addresses| addresses.mac == *mac);
        let free = |mac: &MacAddr6| {
            let lost =
                || self.lost.zip(self.vm.as_ref()).is_some_and(|(lost, vm)| lost.has_mac(&switch.name, *mac, vm));
            let given = || self.given.values().any(|given| given.macs.contains(mac));
            let on_switch = || self.view.mac_holders(&switch.uuid, *mac).next().is_some();
            let of_ours = || self.view.ports_with(*mac) > u32::from(own(mac));
            let named = || self.named.mac_by_another(holding.nic, *mac);
            !on_switch() && !of_ours() && !self.view.answers_with(*mac) && !given() && !named() && !lost()
        };
        // The iterator does not end, and there are fewer ports than there are MACs.
        candidates.into_iter().find(free).unwrap_or(first)
    }

    pub(super) fn subnet(&mut self, switch: &Switch) -> Result<Arc<Subnet>, Refusal> {
        let view = self.view;
        let given = self.given.entry(switch.uuid).or_default();
        let subnet = given.subnet.get_or_insert_with(|| view.subnet(&switch.uuid).map(Arc::new));
        subnet.clone().map_err(|reason| {
            Refusal::on_switch(&switch.name, Problem::NoSubnet { switch: switch.name.clone(), reason })
        })
    }

    /// Tells what of a switch's settings is skipped: it may have been meant to keep addresses from being chosen.
    pub(super) fn note_unread(&mut self, switch: &Switch, report: &mut PortReport) {
        let Ok(subnet) = self.subnet(switch) else { return };
        if !subnet.unread().is_empty() {
            let problem = Problem::SettingUnread { switch: switch.name.clone(), unread: subnet.unread().to_vec() };
            report.problems.push(problem);
        }
    }

    pub(super) fn give(&mut self, switch: Uuid, addresses: Addresses) {
        let given = self.given.entry(switch).or_default();
        for ip in addresses.ips() {
            given.family(ip.is_ipv4()).insert(ip);
            self.named.given(switch, ip);
        }
        given.macs.insert(addresses.mac);
    }

    /// Tells what others did to a lease that stands: somebody else has it, too, or the switch's subnet is another. It
    /// stands all the same. Without a `wish` nobody knows what was asked for.
    pub(super) fn what_befell(
        &mut self,
        switch: &Switch,
        lease: &Addresses,
        own: Option<Uuid>,
        wish: Option<(&Wish, bool)>,
        report: &mut PortReport,
    ) {
        let name = || switch.name.clone();
        let running = wish.is_some_and(|(_, running)| running);
        let wish = wish.map(|(wish, _)| wish);
        let mut befell = Vec::new();
        for address in lease.ips() {
            if let Some(holder) = self.doubled_by(switch, Claim::Ip(address), own) {
                befell.push(Problem::AddressDoubled { address, switch: name(), holder: holder.into() });
            }
            let pool = wish.and_then(|wish| wish.pool.as_ref()).filter(|pool| !pool.is_empty(address.is_ipv4()));
            let told = report.problems.iter().any(Problem::is_of_a_pool);
            if let Some(pool) = pool
                && !pool.contains(address)
                && !wish.is_some_and(|wish| wish.names(address))
                && running
                && !told
            {
                befell.push(Problem::LeaseOutsidePool { address, pool: Box::new(pool.clone()) });
            }
            let Ok(subnet) = self.subnet(switch) else { continue };
            let wished = wish.is_none_or(|wish| wish.names(address));
            match subnet.block_of(address) {
                None => befell.push(Problem::LeaseOutside { address, switch: name(), subnet: subnet.nets() }),
                Some(block) if block.excludes(address) && !wished => {
                    befell.push(Problem::LeaseExcluded { address, switch: name() });
                }
                Some(_) => {}
            }
        }
        if let Some(holder) = self.doubled_by(switch, Claim::Mac(lease.mac), own) {
            befell.push(Problem::MacDoubled { mac: lease.mac, switch: name(), holder: holder.into() });
        }
        for problem in befell {
            if !report.problems.contains(&problem) {
                report.problems.push(problem);
            }
        }
    }
}

/// A set with the addresses that guests have lost.
fn with_lost<'s>(set: &'s RangeSet, lost: Option<&RangeSet>) -> Cow<'s, RangeSet> {
    let Some(lost) = lost else { return Cow::Borrowed(set) };
    let mut set = set.clone();
    set.insert_all(lost);
    Cow::Owned(set)
}
