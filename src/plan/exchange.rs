//! NICs of one VM that wish for each other's addresses or MACs: they exchange them in one transaction, or not at all.
//!
//! One after the other, each would wait for ever until the other lets go.

use std::collections::HashSet;
use std::net::IpAddr;

use macaddr::MacAddr6;
use uuid::Uuid;

use super::change::{Placed, PortChange};
use super::planner::{Planner, VmPlan, lease, reserved};
use crate::intent::Intent;
use crate::ovn::Addresses;

/// What only one port of a switch may have.
#[derive(PartialEq, Eq, Hash)]
enum Claim {
    Ip(IpAddr),
    Mac(MacAddr6),
}

fn claims(addresses: Addresses) -> Vec<Claim> {
    addresses.ips().map(Claim::Ip).chain([Claim::Mac(addresses.mac)]).collect()
}

impl Planner<'_> {
    /// The plan of a VM one of whose NICs wishes for what another has, where that one gives it up at the same time.
    pub(super) fn exchanged(&mut self, intent: &Intent) -> Option<VmPlan> {
        if !self.is_crossed(intent) {
            return None;
        }
        let before = (self.given.clone(), self.names.clone());
        self.exchanging = self.view.ports_of(&intent.vm).map(|(_, port)| port.uuid).collect();
        let plan = self.plan_nics(intent);
        self.exchanging = HashSet::new();
        if plan.again || !self.shares_nothing(intent, &plan.changes) {
            (self.given, self.names) = before;
            return None;
        }
        Some(plan)
    }

    /// Whether a NIC wishes for what another of the VM's holds.
    fn is_crossed(&self, intent: &Intent) -> bool {
        let held_by_another = |network: &str, claim: &Claim| {
            let mut others = self.view.ports_of(&intent.vm).filter(|(other, _)| *other != network);
            others.any(|(_, port)| lease(port.row).is_some_and(|lease| claims(lease).contains(claim)))
        };
        intent.nics.len() > 1
            && intent.nics.iter().any(|nic| {
                nic.now.as_ref().is_ok_and(|wish| {
                    let ips = [wish.ipv4.map(IpAddr::V4), wish.ipv6.map(IpAddr::V6)].into_iter().flatten();
                    let wished = ips.map(Claim::Ip).chain(wish.mac.map(Claim::Mac));
                    wished.into_iter().any(|claim| held_by_another(&nic.network, &claim))
                })
            })
    }

    /// Whether no two of the VM's ports have the same after these changes.
    fn shares_nothing(&self, intent: &Intent, changes: &[PortChange]) -> bool {
        let is_changed = |port: Uuid| changes.iter().any(|change| change.uuid == port);
        let standing = self.view.ports_of(&intent.vm).map(|(_, port)| port).filter(|port| !is_changed(port.uuid));
        let standing = standing.filter_map(|port| Some(Placed { switch: port.switch?, row: port.row.clone() }));
        let mut held = HashSet::new();
        changes.iter().filter_map(|change| change.after.clone()).chain(standing).all(|Placed { switch, row }| {
            let own: HashSet<Claim> = lease(&row).into_iter().chain(reserved(&row)).flat_map(claims).collect();
            own.into_iter().all(|claim| held.insert((switch, claim)))
        })
    }
}
