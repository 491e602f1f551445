//! The NICs of one VM. An address that one NIC requests is not allocated to the others. NICs that request each other's
//! addresses exchange them in one transaction or not at all: in separate transactions, each would wait for ever.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use macaddr::MacAddr6;
use uuid::Uuid;

use super::change::{Placed, RowChange};
use super::claims::Claim;
use super::lease::{lease, reserved, written};
use super::status::PortStatus;
use super::vm_rows::{VmRows, is_on_the_network_of};
use crate::intent::{PortIntent, SwitchRequest, VmIntent};
use crate::ipam::RangeSet;
use crate::ovn::{Northbound, PortRef};

/// A claim that one NIC requests and another NIC of its VM holds.
struct CrossedClaim {
    network: String,
    switch: String,
    claim: Claim,
}

/// The claims that the NICs of a VM request, by switch name; empty for a VM with one NIC.
#[derive(Default)]
pub(super) struct Named(HashMap<String, NamedOn>);

/// The claims that NICs name on one switch.
#[derive(Default)]
struct NamedOn {
    /// The network of the NIC that names the claim; `None` if several do.
    by: HashMap<Claim, Option<String>>,
    /// The claims by the network of the NIC.
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
            let family = if ip.is_ipv4() { &mut self.ipv4 } else { &mut self.ipv6 };
            family.insert(ip);
        }
    }

    fn family(&self, ipv4: bool) -> &RangeSet {
        if ipv4 { &self.ipv4 } else { &self.ipv6 }
    }

    /// The addresses of a family that only this NIC names.
    fn of_this_alone(&self, network: &str, ipv4: bool) -> Vec<IpAddr> {
        let alone = |claim: &Claim| match claim {
            Claim::Ip(ip) if ip.is_ipv4() == ipv4 && self.by.get(claim).is_some_and(Option::is_some) => Some(*ip),
            _ => None,
        };
        self.of.get(network).into_iter().flatten().filter_map(alone).collect()
    }
}

impl Named {
    /// Collects the requests of the NICs, for now or for the next start, if there are several NICs.
    pub(super) fn by(northbound: &Northbound, intent: &VmIntent, rows: &VmRows<'_, '_>) -> Self {
        let mut named = Self::default();
        for nic in intent.ports.iter().filter(|_| intent.ports.len() > 1) {
            let claims: Vec<Claim> = nic.life.requests().flat_map(Claim::requested).collect();
            if claims.is_empty() {
                continue;
            }
            let next_switch = nic.life.next().and_then(|next| next.switch.as_ref()).map(|request| &request.name);
            let present = rows.of(&nic.network);
            let present = present.filter_map(|port| Some(&northbound.switch(&port.switch?)?.name));
            let switches = nic.switch.iter().flat_map(SwitchRequest::names).chain(next_switch).chain(present);
            for switch in switches {
                let on = named.0.entry(switch.clone()).or_default();
                claims.iter().for_each(|claim| on.insert(&nic.network, *claim));
            }
        }
        named
    }

    /// The addresses of a family on a switch that other NICs of the VM request; `None` if there are none.
    pub(super) fn by_others(&self, switch: &str, network: &str, ipv4: bool) -> Option<Cow<'_, RangeSet>> {
        let on = self.0.get(switch)?;
        let own = on.of_this_alone(network, ipv4);
        if own.is_empty() {
            return Some(Cow::Borrowed(on.family(ipv4)));
        }
        let mut others = on.family(ipv4).clone();
        own.into_iter().for_each(|ip| others.remove(ip));
        Some(Cow::Owned(others))
    }

    /// Returns true if another NIC of the VM names a MAC, on any switch: a guest cannot tell two NICs with one MAC
    /// apart.
    pub(super) fn mac_by_another(&self, network: &str, mac: MacAddr6) -> bool {
        let by = |on: &NamedOn| on.by.get(&Claim::Mac(mac)).is_some_and(|by| by.as_deref() != Some(network));
        self.0.values().any(by)
    }
}

/// The claims that NICs of a VM request and other NICs of it hold, on the present or the next switch.
pub(super) struct Crossed(Vec<CrossedClaim>);

impl Crossed {
    /// Finds the crossed claims.
    pub(super) fn of(northbound: &Northbound, intent: &VmIntent, rows: &VmRows<'_, '_>) -> Self {
        let requests = |nic: &PortIntent| {
            nic.life.request().as_ref().is_ok_and(|request| Claim::requested(request).next().is_some())
        };
        if intent.ports.len() < 2 || !intent.ports.iter().any(requests) {
            return Self(Vec::new());
        }
        let name = |port: &PortRef<'_>| Some(northbound.switch(&port.switch?)?.name.as_str());
        // The networks that hold a claim on a switch.
        let mut held: HashMap<(&str, Claim), Vec<&str>> = HashMap::new();
        for (network, port) in rows.all() {
            let Some((switch, lease)) = name(&port).zip(lease(northbound, &port)) else { continue };
            Claim::all(lease).into_iter().for_each(|claim| held.entry((switch, claim)).or_default().push(network));
        }
        let mut crossed = Vec::new();
        for nic in intent.ports.iter().filter(|nic| requests(nic)) {
            let is_there = |port: &PortRef<'_>| is_on_the_network_of(northbound, nic, port);
            let own = rows.of(&nic.network).find(is_there).or_else(|| rows.of(&nic.network).next());
            let present = own.as_ref().and_then(name);
            let stays = |request: &&SwitchRequest| {
                let by_default =
                    !request.explicit && own.is_some_and(|own| is_on_the_network_of(northbound, nic, &own));
                by_default || present.is_some_and(|present| request.has(present))
            };
            let comes_to = nic.switch.as_ref().filter(|request| !stays(request)).map(|request| request.name.as_str());
            let Some(switch) = comes_to.or(present) else { continue };
            let by_another = |claim: &Claim| {
                held.get(&(switch, *claim)).is_some_and(|by| by.iter().any(|network| *network != nic.network))
            };
            let claims = nic.life.request().as_ref().ok().into_iter().flat_map(Claim::requested).filter(by_another);
            let (network, switch) = (&nic.network, switch.to_owned());
            crossed.extend(claims.map(|claim| CrossedClaim {
                network: network.clone(),
                switch: switch.clone(),
                claim,
            }));
        }
        Self(crossed)
    }

    /// Returns true if no claims are crossed.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if the ports have the crossed claims, according to the status after a decision.
    pub(super) fn is_granted(&self, ports: &[PortStatus]) -> bool {
        let mut statuses: HashMap<(&str, Option<&str>), &PortStatus> = HashMap::new();
        for status in ports {
            statuses.entry((&status.network, status.switch.as_deref())).or_insert(status);
        }
        self.0.iter().all(|CrossedClaim { network, switch, claim }| {
            let addresses =
                statuses.get(&(network.as_str(), Some(switch.as_str()))).and_then(|status| status.addresses);
            addresses.is_some_and(|addresses| Claim::all(addresses).contains(claim))
        })
    }
}

/// Returns true if no two ports of a VM have the same address or MAC after these changes.
pub(super) fn share_nothing(rows: &VmRows<'_, '_>, changes: &[RowChange]) -> bool {
    let ports = || changes.iter().filter_map(RowChange::as_port);
    let changed: HashSet<Uuid> = ports().map(|change| change.uuid).collect();
    let standing = rows.all().map(|(_, port)| port).filter(|port| !changed.contains(&port.uuid));
    let standing = standing.filter_map(|port| Some(Placed { switch: port.switch?, row: port.row.clone() }));
    let mut held = HashSet::new();
    ports().filter_map(|change| change.after.clone()).chain(standing).all(|Placed { switch, row }| {
        let own: HashSet<Claim> = written(&row).into_iter().chain(reserved(&row)).flat_map(Claim::all).collect();
        own.into_iter().all(|claim| held.insert((switch, claim)))
    })
}
