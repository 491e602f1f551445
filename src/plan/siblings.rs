//! What NICs of one VM do to each other. What one names, the others do not choose. Where each names what the other has,
//! they exchange it in one transaction, or not at all: one after the other, each would wait for ever.

use std::collections::HashSet;
use std::net::IpAddr;

use macaddr::MacAddr6;
use uuid::Uuid;

use super::change::{Placed, PortChange};
use super::lease::{lease, reserved, written};
use super::planner::{Planner, Switch, VmPlan};
use super::report::PortReport;
use crate::intent::{Intent, SwitchWish, Wish};
use crate::ovn::{Addresses, Owner, PortRef};

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

/// What a NIC names, and where.
pub(super) struct Named {
    network: String,
    switch: String,
    claim: Claim,
}

impl Planner<'_> {
    /// What the NICs name, now or for the next start, where there are several.
    pub(super) fn named_by(&self, intent: &Intent) -> Vec<Named> {
        let mut named = Vec::new();
        for nic in intent.nics.iter().filter(|_| intent.nics.len() > 1) {
            let present = self.view.ports_of(&intent.vm).find(|(network, _)| *network == nic.network);
            let present = present.and_then(|(_, port)| Some(self.view.switch(&port.switch?)?.name.clone()));
            let switches = [nic.switch.as_ref().map(|wish| wish.name.clone()), nic.next_switch.clone(), present];
            let wishes =
                [Some(&nic.now), nic.next.as_ref()].into_iter().flatten().filter_map(|wish| wish.as_ref().ok());
            for claim in wishes.flat_map(wished) {
                named.extend(switches.iter().flatten().map(|switch| Named {
                    network: nic.network.clone(),
                    switch: switch.clone(),
                    claim,
                }));
            }
        }
        named
    }

    /// Whether a row that the index has as a holder is none to another NIC of its VM: they exchange what they have, or
    /// the same plan takes it out.
    pub(super) fn is_no_holder(&self, holder: Uuid, claim: Claim) -> bool {
        self.siblings.contains(&holder) && (self.exchanging || self.only_seems_to_hold(holder, claim))
    }

    /// Whether somebody wrote it into a row of ours, whose lease is another: it is taken out as soon as that one's VM is
    /// looked at.
    pub(super) fn only_seems_to_hold(&self, holder: Uuid, claim: Claim) -> bool {
        let Some(port) = self.view.port(&holder) else { return false };
        let has = |addresses: Addresses| claims(addresses).contains(&claim);
        Owner::is_of(&port.row.external_ids, self.view.instance())
            && !lease(self.view, &port).is_some_and(has)
            && !reserved(port.row).is_some_and(has)
    }

    fn claims_of_others<'s>(&'s self, switch: &'s Switch, nic: &'s str) -> impl Iterator<Item = Claim> + 's {
        let others = self.named.iter().filter(move |named| named.switch == switch.name && named.network != nic);
        others.map(|named| named.claim)
    }

    /// The addresses of a family on a switch that NICs of the VM other than this name.
    pub(super) fn named_by_others(&self, switch: &Switch, nic: &str, ipv4: bool) -> Vec<IpAddr> {
        let ip = |claim| if let Claim::Ip(ip) = claim { Some(ip) } else { None };
        self.claims_of_others(switch, nic).filter_map(ip).filter(|ip| ip.is_ipv4() == ipv4).collect()
    }

    /// The MACs that NICs of the VM other than this name, on whatever switch: a guest cannot tell two of one MAC apart.
    pub(super) fn macs_named_by_others(&self, nic: &str) -> Vec<MacAddr6> {
        let mac = |claim| if let Claim::Mac(mac) = claim { Some(mac) } else { None };
        self.named.iter().filter(|named| named.network != nic).filter_map(|named| mac(named.claim)).collect()
    }

    /// The plan of a VM one of whose NICs wishes for what another has, where that one gives it up at the same time.
    pub(super) fn exchanged(&mut self, intent: &Intent) -> Option<VmPlan> {
        let crossed = self.crossed(intent);
        if crossed.is_empty() {
            return None;
        }
        let before = (self.given.clone(), self.names.clone());
        self.exchanging = true;
        let plan = self.plan_nics(intent);
        self.exchanging = false;
        let has = |crossed: &Named| {
            let of_nic = |report: &&PortReport| {
                report.network == crossed.network && report.switch.as_ref() == Some(&crossed.switch)
            };
            let addresses = plan.reports.iter().find(of_nic).and_then(|report| report.addresses);
            addresses.is_some_and(|addresses| claims(addresses).contains(&crossed.claim))
        };
        if plan.again || !crossed.iter().all(has) || !self.shares_nothing(intent, &plan.changes) {
            (self.given, self.names) = before;
            return None;
        }
        Some(plan)
    }

    /// What NICs name that another of the VM's holds, on the switch that they are on or come to.
    fn crossed(&self, intent: &Intent) -> Vec<Named> {
        if intent.nics.len() < 2 {
            return Vec::new();
        }
        let rows = || self.view.ports_of(&intent.vm);
        let name = |port: &PortRef<'_>| Some(self.view.switch(&port.switch?)?.name.clone());
        let mut crossed = Vec::new();
        for nic in &intent.nics {
            let own = rows().find(|(network, _)| *network == nic.network).map(|(_, port)| port);
            let stays = |wish: &&SwitchWish| !wish.explicit && own.is_some_and(|own| nic.is_on_the_network_of(own.row));
            let comes_to = nic.switch.as_ref().filter(|wish| !stays(wish)).map(|wish| wish.name.clone());
            let Some(switch) = comes_to.or_else(|| own.as_ref().and_then(name)) else { continue };
            let held = |claim: &Claim| {
                let mut others = rows().filter(|(network, _)| *network != nic.network).map(|(_, port)| port);
                others.any(|port| {
                    let lease = lease(self.view, &port).filter(|_| name(&port).as_ref() == Some(&switch));
                    lease.is_some_and(|lease| claims(lease).contains(claim))
                })
            };
            let claims = nic.now.as_ref().ok().into_iter().flat_map(wished).filter(held);
            crossed.extend(claims.map(|claim| Named { network: nic.network.clone(), switch: switch.clone(), claim }));
        }
        crossed
    }

    /// Whether no two of the VM's ports have the same after these changes.
    fn shares_nothing(&self, intent: &Intent, changes: &[PortChange]) -> bool {
        let is_changed = |port: Uuid| changes.iter().any(|change| change.uuid == port);
        let standing = self.view.ports_of(&intent.vm).map(|(_, port)| port).filter(|port| !is_changed(port.uuid));
        let standing = standing.filter_map(|port| Some(Placed { switch: port.switch?, row: port.row.clone() }));
        let mut held = HashSet::new();
        changes.iter().filter_map(|change| change.after.clone()).chain(standing).all(|Placed { switch, row }| {
            let own: HashSet<Claim> = written(&row).into_iter().chain(reserved(&row)).flat_map(claims).collect();
            own.into_iter().all(|claim| held.insert((switch, claim)))
        })
    }
}
