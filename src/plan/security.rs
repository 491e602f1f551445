//! Port security: what a port admits from its guest.

use std::net::IpAddr;

use uuid::Uuid;

use super::claims::Claim;
use super::problem::{Holder, Problem};
use super::remarks::{Refusal, Remarks};
use super::view::{Switch, View};
use crate::intent::{Permission, PortIntent, Request, Seat, Written};
use crate::ovn::{Addresses, Elements, LogicalSwitchPort, Secured, Wake};

impl View<'_> {
    /// Decides on port security: off if the owner requests that and the operator allows it.
    pub(super) fn port_security(
        &self,
        nic: &PortIntent,
        switch: &Switch,
        standing: &Standing<'_>,
    ) -> (bool, Option<Problem>) {
        if let Some(rule) = self.lacks(switch, Permission::PortSecurityOff) {
            let (network, switch, keeps) = (nic.network.clone(), switch.name.clone(), standing.own.is_some());
            let is_requested = nic.life.requests().any(|request| !request.port_security);
            return (true, is_requested.then_some(Problem::PortSecurityKept { network, switch, rule, keeps }));
        }
        let secured = match (standing.row, nic.life.request()) {
            // As the old launcher has it, and unchanged while the request is unreadable.
            (Some(row), _) if nic.life.is_leaving() => !row.port_security.is_empty(),
            (Some(row), Err(_)) => !row.port_security.is_empty(),
            // As it was when the guest came: the instance may have the request of its start, on another network.
            (Some(row), Ok(request)) if has_come(nic, |next| next.port_security != request.port_security) => {
                !row.port_security.is_empty()
            }
            (None, request) => match standing.request.unwrap_or(request) {
                Ok(request) => request.port_security,
                Err(_) => true,
            },
            (_, Ok(request)) => request.port_security,
        };
        (secured, None)
    }

    /// What a port with this lease admits. Any link-local address passes only by the operator's word: such a guest can
    /// claim those of its neighbours and of the router, and no ACL stops it (decision 0031).
    pub(super) fn secured(&self, switch: &Switch, lease: Addresses, vips: Vec<IpAddr>) -> Secured {
        // Beside IPv4 addresses alone, a network of IPv6 would let IPv6 through.
        let link_locals = lease.ipv6.is_some() && self.lacks(switch, Permission::LinkLocal).is_none();
        Secured { lease, link_locals, vips }
    }

    /// Port security of a port that stays as it is, to which the operator's policy applies at once.
    pub(super) fn kept_security(&self, switch: &Switch, lease: Addresses, present: &Elements) -> Elements {
        let is_off = present.is_empty() && self.lacks(switch, Permission::PortSecurityOff).is_none();
        if is_off {
            return Elements::default();
        }
        let vips = if self.lacks(switch, Permission::Vips).is_none() { present.vips() } else { Vec::new() };
        self.secured(switch, lease, vips).into()
    }

    /// Decides on the further addresses that a port admits. One that cannot be had is left out, and the port is served.
    pub(super) fn vips(
        &self,
        nic: &PortIntent,
        switch: &Switch,
        standing: &Standing<'_>,
        lease: Addresses,
    ) -> (Vec<IpAddr>, Remarks) {
        let has_come = |now: &Request| standing.row.is_some() && has_come(nic, |next| next.vips != now.vips);
        let asked = match standing.request {
            Some(Ok(request)) if !nic.life.is_leaving() && !standing.elsewhere && !has_come(request) => &request.vips,
            // As the old launcher has it or the guest found it, and unchanged while the request is unreadable.
            _ => &standing.vips,
        };
        let coming = nic.life.next().filter(|_| !standing.elsewhere).and_then(|next| next.request.as_ref().ok());
        let coming = coming.map(|request| &request.vips[..]).unwrap_or_default();
        if asked.is_empty() && coming.is_empty() {
            return Default::default();
        }
        if let Some(rule) = self.lacks(switch, Permission::Vips) {
            let (network, switch) = (nic.network.clone(), switch.name.clone());
            let problem = Problem::VipsNotAllowed { network, switch, rule, keeps: standing.own.is_some() };
            return (Vec::new(), Remarks::of(problem));
        }
        let is_own = |vip: &&IpAddr| lease.ips().any(|own| own == **vip);
        let (mut vips, mut remarks) = (Vec::new(), Remarks::default());
        for vip in asked.iter().filter(|vip| !is_own(vip)) {
            match self.may_have_vip(switch, *vip, standing) {
                Ok(()) => vips.push(*vip),
                Err(refusal) => remarks.add(refusal),
            }
        }
        // Those of the next start are not kept for it.
        let news = coming.iter().filter(|vip| !asked.contains(vip) && !is_own(vip));
        for refusal in news.filter_map(|vip| self.may_have_vip(switch, *vip, standing).err()) {
            if !matches!(refusal, Refusal::Batch) {
                remarks.add(refusal);
            }
        }
        (vips, remarks)
    }

    /// Checks that a port may have a further address: as for one of its own, but that the VMs of a namespace may share it,
    /// which is what VRRP is for.
    fn may_have_vip(&self, switch: &Switch, vip: IpAddr, standing: &Standing<'_>) -> Result<(), Refusal> {
        let holders = self.northbound().holders(&switch.uuid, vip);
        if standing.vips.contains(&vip) || standing.own.is_some_and(|own| holders.contains(&own)) {
            return Ok(());
        }
        let subnet = self.subnet(switch)?;
        let Some(block) = subnet.block_of(vip) else {
            let (name, subnet) = (switch.name.clone(), subnet.nets());
            return Err(Refusal::on_switch(&switch.name, Problem::OutOfSubnet { address: vip, switch: name, subnet }));
        };
        self.may_name(switch, block, vip)?;
        let claim = Claim::Ip(vip);
        let is_mine = |holder: Uuid| Some(holder) == standing.own || self.shares_vip(holder, vip);
        let holder = self.holder_that(switch, claim, |holder| !is_mine(holder) && !self.is_set_aside(holder, claim));
        let holder = holder.or_else(|| self.guest_with(switch, claim).cloned().map(Holder::LostBy));
        if let Some(holder) = holder {
            let problem = Problem::AddressHeld { address: vip, switch: switch.name.clone(), holder: Box::new(holder) };
            let wakes = vec![Wake::Address(switch.uuid, vip), Wake::Switch(switch.name.clone()), Wake::Services];
            return Err(Refusal::Problem(problem, wakes));
        }
        // It is shared already, or this transaction determines who has it.
        let is_shared = holders.iter().any(|holder| is_mine(*holder));
        if !is_shared && self.is_claimed(switch.uuid, claim) { Err(Refusal::Batch) } else { Ok(()) }
    }

    /// Returns true if a port of the VM's namespace has the address as a further one alone.
    fn shares_vip(&self, holder: Uuid, vip: IpAddr) -> bool {
        let row = self.northbound().port(&holder).map(|port| port.row);
        let namespace = row.and_then(|row| row.owner(&holder, self.instance())).map(|owner| owner.vm.namespace);
        namespace.as_ref() == Some(&self.vm.namespace) && self.northbound().has_vip(&holder, vip)
    }
}

/// Returns true if the guest has come to the port by a live change, and the request of its next start differs from that
/// of the instance.
pub(super) fn has_come(nic: &PortIntent, differs: impl FnOnce(&Request) -> bool) -> bool {
    let differs = || match nic.life.next().map(|next| next.request.as_ref()) {
        Some(next) => next.map_or(true, differs),
        None => nic.seat == Seat::Left,
    };
    nic.arrived.is_some() && differs()
}

/// A port as it stands, and the request in force.
pub(super) struct Standing<'a> {
    /// The row as it was.
    pub(super) row: Option<&'a LogicalSwitchPort>,
    /// The request; `None`: the lease stands.
    pub(super) request: Option<&'a Written>,
    /// The UUID of the row.
    pub(super) own: Option<Uuid>,
    /// Its further addresses, if it is on the switch at hand.
    pub(super) vips: Vec<IpAddr>,
    /// Another switch is requested: the requests are for that one.
    pub(super) elsewhere: bool,
}
