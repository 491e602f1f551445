//! What NICs of one VM do to each other. What one names, the others do not choose. Where each names what the other has,
//! they exchange it in one transaction, or not at all: one after the other, each would wait for ever.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use macaddr::MacAddr6;
use uuid::Uuid;

use super::change::{Placed, PortChange};
use super::lease::{lease, reserved, written};
use super::planner::{Planner, Switch, VmPlan};
use super::report::PortReport;
use super::vm_rows::VmRows;
use crate::intent::{Intent, Nic, SwitchWish, Wish};
use crate::ipam::RangeSet;
use crate::ovn::{Addresses, PortRef};

/// What only one port of a switch may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Claim {
    Ip(IpAddr),
    Mac(MacAddr6),
}

fn claims(addresses: Addresses) -> Vec<Claim> {
    addresses.ips().map(Claim::Ip).chain([Claim::Mac(addresses.mac)]).collect()
}

/// What a wish names.
pub(super) fn wished(wish: &Wish) -> impl Iterator<Item = Claim> {
    let ips = [wish.ipv4.map(IpAddr::V4), wish.ipv6.map(IpAddr::V6)];
    ips.into_iter().flatten().map(Claim::Ip).chain(wish.mac.map(Claim::Mac))
}

/// What a NIC names that another of its VM holds, and where.
struct Crossed {
    network: String,
    switch: String,
    claim: Claim,
}

/// What the NICs of the VM at hand name, by the name of the switch; nothing, where it has one NIC.
#[derive(Default)]
pub(super) struct Named {
    on: HashMap<String, NamedOn>,
    /// What the transaction gives away and what is named, of a family on a switch.
    barred: HashMap<(Uuid, bool), RangeSet>,
}

/// What NICs name on one switch.
#[derive(Default)]
struct NamedOn {
    /// By which network's NIC; `None`: by several.
    by: HashMap<Claim, Option<String>>,
    /// By each network's NIC.
    of: HashMap<String, Vec<Claim>>,
    ipv4: RangeSet,
    ipv6: RangeSet,
}

impl NamedOn {
    fn insert(&mut self, network: &str, claim: Claim) {
        let by = self.by.entry(claim).or_insert_with(|| Some(network.to_owned()));
        if by.as_deref().is_some_and(|by| by != network) {
            *by = None;
        }
        self.of.entry(network.to_owned()).or_default().push(claim);
        if let Claim::Ip(ip) = claim {
            self.family(ip.is_ipv4()).insert(ip);
        }
    }

    fn family(&mut self, ipv4: bool) -> &mut RangeSet {
        if ipv4 { &mut self.ipv4 } else { &mut self.ipv6 }
    }

    /// The addresses of a family that no NIC but this one names.
    fn of_this_alone(&self, network: &str, ipv4: bool) -> Vec<IpAddr> {
        let alone = |claim: &Claim| match claim {
            Claim::Ip(ip) if ip.is_ipv4() == ipv4 && self.by.get(claim).is_some_and(Option::is_some) => Some(*ip),
            _ => None,
        };
        self.of.get(network).into_iter().flatten().filter_map(alone).collect()
    }
}

impl Named {
    /// Calls a function with the addresses of a family that may not be chosen for a NIC: all that are `given` away or named
    /// for others of the VM, and the latter alone.
    pub(super) fn with_barred<T>(
        &mut self,
        switch: &Switch,
        (network, ipv4): (&str, bool),
        given: &RangeSet,
        call: impl FnOnce(&RangeSet, &RangeSet) -> T,
    ) -> T {
        let Self { on, barred } = self;
        let Some(on) = on.get_mut(&switch.name) else { return call(given, &RangeSet::default()) };
        if *on.family(ipv4) == RangeSet::default() {
            return call(given, &RangeSet::default());
        }
        let own = on.of_this_alone(network, ipv4);
        let NamedOn { by, ipv4: named4, ipv6: named6, .. } = on;
        let named = if ipv4 { named4 } else { named6 };
        let barred = barred.entry((switch.uuid, ipv4)).or_insert_with(|| {
            let mut barred = given.clone();
            let ips = by.keys().filter_map(|claim| if let Claim::Ip(ip) = claim { Some(*ip) } else { None });
            ips.filter(|ip| ip.is_ipv4() == ipv4).for_each(|ip| barred.insert(ip));
            barred
        });
        for ip in &own {
            named.remove(*ip);
            if !given.contains(*ip) {
                barred.remove(*ip);
            }
        }
        let result = call(barred, named);
        own.iter().for_each(|ip| [&mut *named, &mut *barred].into_iter().for_each(|set| set.insert(*ip)));
        result
    }

    /// Whether a NIC of the VM other than this names a MAC, on whatever switch: a guest cannot tell two of one MAC apart.
    pub(super) fn mac_by_another(&self, network: &str, mac: MacAddr6) -> bool {
        let by = |on: &NamedOn| on.by.get(&Claim::Mac(mac)).is_some_and(|by| by.as_deref() != Some(network));
        self.on.values().any(by)
    }

    /// The transaction gives an address away.
    pub(super) fn given(&mut self, switch: Uuid, address: IpAddr) {
        if let Some(barred) = self.barred.get_mut(&(switch, address.is_ipv4())) {
            barred.insert(address);
        }
    }
}

impl<'a> Planner<'a> {
    /// What the NICs name, now or for the next start, where there are several.
    pub(super) fn named_by(&self, intent: &Intent, rows: &VmRows<'_, '_>) -> Named {
        let mut named = Named::default();
        for nic in intent.nics.iter().filter(|_| intent.nics.len() > 1) {
            let wishes = [Some(&nic.now), nic.next.as_ref()];
            let claims: Vec<Claim> = wishes.into_iter().flatten().flatten().flat_map(wished).collect();
            if claims.is_empty() {
                continue;
            }
            let present = rows.of(&nic.network).next();
            let present = present.and_then(|port| Some(&self.view.switch(&port.switch?)?.name));
            let switches = nic.switch.iter().flat_map(SwitchWish::names).chain(&nic.next_switch).chain(present);
            for switch in switches {
                let on = named.on.entry(switch.clone()).or_default();
                claims.iter().for_each(|claim| on.insert(&nic.network, *claim));
            }
        }
        named
    }

    /// Whether a row that the index has as a holder is none to another NIC of its VM: they exchange what they have, or
    /// the same plan takes it out.
    pub(super) fn is_no_holder(&self, holder: Uuid, claim: Claim) -> bool {
        self.siblings.binary_search(&holder).is_ok() && (self.exchanging || self.only_seems_to_hold(holder, claim))
    }

    /// Whether somebody wrote it into a row of ours, whose lease is another: it is taken out as soon as that one's VM is
    /// looked at.
    pub(super) fn only_seems_to_hold(&self, holder: Uuid, claim: Claim) -> bool {
        let Some(port) = self.view.port(&holder) else { return false };
        let has = |addresses: Addresses| claims(addresses).contains(&claim);
        port.row.is_of(&port.uuid, self.view.instance())
            && !lease(self.view, &port).is_some_and(has)
            && !reserved(port.row).is_some_and(has)
    }

    /// The plan of a VM one of whose NICs wishes for what another has, where that one gives it up at the same time.
    pub(super) fn exchanged(&mut self, intent: &Intent, rows: &VmRows<'a, '_>) -> Option<VmPlan> {
        let crossed = self.crossed(intent, rows);
        if crossed.is_empty() {
            return None;
        }
        let before = (self.given.clone(), self.names.clone());
        self.exchanging = true;
        let plan = self.plan_nics(intent, rows);
        self.exchanging = false;
        let mut reports: HashMap<(&str, Option<&str>), &PortReport> = HashMap::new();
        for report in &plan.reports {
            reports.entry((&report.network, report.switch.as_deref())).or_insert(report);
        }
        let has = |Crossed { network, switch, claim }: &Crossed| {
            let addresses = reports.get(&(network.as_str(), Some(switch.as_str()))).and_then(|report| report.addresses);
            addresses.is_some_and(|addresses| claims(addresses).contains(claim))
        };
        if plan.again || !crossed.iter().all(has) || !self.shares_nothing(rows, &plan.changes) {
            (self.given, self.names) = before;
            self.named.barred.clear();
            return None;
        }
        Some(plan)
    }

    /// What NICs name that another of the VM's holds, on the switch that they are on or come to.
    fn crossed(&self, intent: &Intent, rows: &VmRows<'_, '_>) -> Vec<Crossed> {
        let names_something = |nic: &Nic| nic.now.as_ref().is_ok_and(|wish| wished(wish).next().is_some());
        if intent.nics.len() < 2 || !intent.nics.iter().any(names_something) {
            return Vec::new();
        }
        let name = |port: &PortRef<'_>| Some(self.view.switch(&port.switch?)?.name.as_str());
        // Whose lease it is on a switch: one network's, or several's.
        let mut held: HashMap<(&str, Claim), Vec<&str>> = HashMap::new();
        for (network, port) in rows.all() {
            let Some((switch, lease)) = name(&port).zip(lease(self.view, &port)) else { continue };
            claims(lease).into_iter().for_each(|claim| held.entry((switch, claim)).or_default().push(network));
        }
        let mut crossed = Vec::new();
        for nic in intent.nics.iter().filter(|nic| names_something(nic)) {
            let own = rows.of(&nic.network).next();
            let present = own.as_ref().and_then(name);
            let stays = |wish: &&SwitchWish| {
                let by_default = !wish.explicit && own.is_some_and(|own| self.is_on_the_network_of(nic, &own));
                by_default || present.is_some_and(|present| wish.has(present))
            };
            let comes_to = nic.switch.as_ref().filter(|wish| !stays(wish)).map(|wish| wish.name.as_str());
            let Some(switch) = comes_to.or(present) else { continue };
            let by_another = |claim: &Claim| {
                held.get(&(switch, *claim)).is_some_and(|by| by.iter().any(|network| *network != nic.network))
            };
            let claims = nic.now.as_ref().ok().into_iter().flat_map(wished).filter(by_another);
            crossed.extend(claims.map(|claim| Crossed {
                network: nic.network.clone(),
                switch: switch.to_owned(),
                claim,
            }));
        }
        crossed
    }

    /// Whether no two of the VM's ports have the same after these changes.
    fn shares_nothing(&self, rows: &VmRows<'_, '_>, changes: &[PortChange]) -> bool {
        let changed: HashSet<Uuid> = changes.iter().map(|change| change.uuid).collect();
        let standing = rows.all().map(|(_, port)| port).filter(|port| !changed.contains(&port.uuid));
        let standing = standing.filter_map(|port| Some(Placed { switch: port.switch?, row: port.row.clone() }));
        let mut held = HashSet::new();
        changes.iter().filter_map(|change| change.after.clone()).chain(standing).all(|Placed { switch, row }| {
            let own: HashSet<Claim> = written(&row).into_iter().chain(reserved(&row)).flat_map(claims).collect();
            own.into_iter().all(|claim| held.insert((switch, claim)))
        })
    }
}
