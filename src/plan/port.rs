//! One NIC's port: the row to write and the status for its owner.

use std::borrow::Cow;

use macaddr::MacAddr6;
use uuid::Uuid;

use super::addresses::{Holding, Retakable, outside_the_pool};
use super::change::{DhcpChange, Mark, Placed, PortChange};
use super::claims::Claims;
use super::dhcp::Dhcp;
use super::fabric::Bound;
use super::lease::{lease, repair, reserved};
use super::lost::LastLease;
use super::problem::Problem;
use super::remarks::{Refusal, Remarks};
use super::security::Standing;
use super::status::{DhcpFamilies, PortStatus};
use super::switches::OnSwitch;
use super::view::{Switch, View};
use super::vm_rows::is_on_the_network_of;
use crate::contract::{keys, port_uuid};
use crate::intent::{Placement, PortIntent, Request, Seat, VmIntent, Written};
use crate::kubevirt::Guest;
use crate::ovn::{Addresses, Elements, LogicalSwitchPort, Northbound, PortRef, Secured, Wake};

/// The decision for one port.
#[derive(Default)]
pub(super) struct PortDecision {
    pub(super) change: Option<PortChange>,
    /// Rows of `DHCP_Options` that it refers to, and that are to be written.
    pub(super) dhcp: Vec<DhcpChange>,
    /// `None` if the NIC is not ours, or if its port is deleted.
    pub(super) status: Option<PortStatus>,
    /// Its problems are moved into the status.
    pub(super) remarks: Remarks,
    pub(super) claims: Claims,
}

impl PortDecision {
    /// Moves the problems of the remarks into the status.
    fn new(change: Option<PortChange>, mut status: PortStatus, mut remarks: Remarks) -> Self {
        status.problems = std::mem::take(&mut remarks.problems);
        Self { change, status: Some(status), remarks, ..Self::default() }
    }

    /// The port is deleted.
    pub(super) fn removal(port: PortRef<'_>) -> Self {
        Self { change: PortChange::removal(port), ..Self::default() }
    }
}

/// A port that gets its addresses.
struct Served {
    change: PortChange,
    dhcp: Vec<DhcpChange>,
    /// Its problems are among the remarks.
    status: PortStatus,
    claims: Claims,
    remarks: Remarks,
}

/// The switch of a NIC's port, and the lease on it.
struct Site<'a> {
    /// The NIC's present row.
    port: Option<PortRef<'a>>,
    switch: Switch,
    /// Another switch is requested, and the move is deferred.
    elsewhere: bool,
    /// The lease of the row on this switch.
    lease: Option<Addresses>,
    /// The last lease in the VM's status, if the row has no lease.
    last: Option<LastLease>,
}

impl<'a> Site<'a> {
    fn own(&self) -> Option<Uuid> {
        self.port.map(|port| port.uuid)
    }

    fn before(&self) -> Option<&'a LogicalSwitchPort> {
        self.port.map(|port| port.row)
    }

    /// The reservation of the row on this switch.
    fn reserved(&self) -> Option<Addresses> {
        self.port.filter(|port| port.switch == Some(self.switch.uuid)).and_then(|port| reserved(port.row))
    }

    /// The row on this switch with its further addresses, and the request in force.
    fn standing<'s>(&'s self, nic: &'s PortIntent) -> Standing<'s> {
        let stands = self.port.filter(|port| port.switch == Some(self.switch.uuid));
        Standing {
            row: self.before(),
            request: self.request(nic),
            own: self.own(),
            vips: stands.map(|port| port.row.port_security.vips()).unwrap_or_default(),
            elsewhere: self.elsewhere,
        }
    }

    /// The request in force; `None`: the lease stands. A guest that has come to a network by a live change got what the
    /// VM's template requested there, and KubeVirt does not bring annotations to a running instance: the instance may have
    /// the requests of its start, on another network. A lease that lacks them stands by the template where it has what
    /// that requests, and by itself otherwise.
    fn request<'n>(&self, nic: &'n PortIntent) -> Option<&'n Written> {
        let has = |written: &Written, lease| written.as_ref().is_ok_and(|request| request.has(lease));
        let (now, next) = (nic.life.request(), nic.life.next().map(|next| &next.request));
        match (self.lease.or_else(|| self.last_lease()), next) {
            (Some(lease), _) if nic.arrived.is_none() || has(now, lease) => Some(now),
            (Some(lease), Some(next)) => Some(next).filter(|next| has(next, lease)),
            (Some(_), None) if nic.seat == Seat::Left => None,
            _ => Some(now),
        }
    }

    /// The last lease on this switch in the VM's status, if the row has none.
    fn last_lease(&self) -> Option<Addresses> {
        self.last.as_ref().filter(|last| last.switch == self.switch.name).map(|last| last.addresses)
    }

    /// The changes that may give the NIC its last lease on the switch again.
    fn last_addresses_free(&self) -> Vec<Wake> {
        let addresses = self.last_lease().into_iter().flat_map(|last| last.ips().collect::<Vec<_>>());
        addresses.map(|ip| Wake::Address(self.switch.uuid, ip)).collect()
    }

    /// Collects the NIC's holdings on the switch. A row that is `to_come` holds nothing yet.
    fn holding<'n>(&self, nic: &'n PortIntent, told: Option<Retakable>, to_come: Option<Uuid>) -> Holding<'n> {
        let running = nic.life.has_guest();
        // A MAC alone may be the remainder of a larger lease.
        let bare = self.lease.is_none_or(|lease| lease.ips().next().is_none());
        Holding {
            nic: &nic.network,
            own: self.own(),
            lost: self.own().filter(|_| bare).or(to_come),
            lease: self.lease,
            // A reservation for a template that was edited since does not apply to the running guest.
            reserved: self.reserved().filter(|_| !(nic.life.is_edited() && running)),
            running,
            told,
        }
    }

    /// Builds the status of the port.
    fn status(&self, nic: &PortIntent, granted: &Granted, guest: Option<Box<Guest>>) -> PortStatus {
        PortStatus {
            network: nic.network.clone(),
            port: Some(granted.name.clone()),
            row: Some(granted.uuid),
            switch: Some(self.switch.name.clone()),
            addresses: Some(granted.addresses),
            next: granted.next,
            last: self.last.clone().map(Box::new),
            guest,
            dhcp: granted.dhcp.families(),
            ..PortStatus::default()
        }
    }
}

impl<'a> View<'a> {
    /// Decides for a NIC and its present row.
    pub(super) fn decide_nic(
        &self,
        intent: &VmIntent,
        nic: &PortIntent,
        names: &[String],
        port: Option<PortRef<'a>>,
    ) -> PortDecision {
        let present = port.and_then(|port| port.switch);
        let present = present.and_then(|uuid| Some(Switch { uuid, name: self.switch_name(uuid)? }));
        if port.is_none() {
            let may = self.may_have_a_new_port(intent, nic, names);
            match may.and_then(|may| if may { self.has_its_nad(nic).map(|()| true) } else { Ok(false) }) {
                Ok(true) => {}
                Ok(false) if intent.selected => return self.without_a_switch(nic),
                Ok(false) => return PortDecision::default(),
                Err(refusal) => {
                    let last = self.last_lease(nic).map(Box::new);
                    let status = PortStatus { network: nic.network.clone(), last, ..PortStatus::default() };
                    return PortDecision::new(None, status, refusal.into());
                }
            }
        }
        // A NIC without a switch is not ours. A row that has left its switch is about to be collected, and a second row
        // beside it would double its addresses.
        if present.is_none() && (nic.switch.is_none() || port.is_some()) {
            return PortDecision::default();
        }
        // A NIC that has moved from a network of ours to another's is not ours either, once no guest uses the port.
        let leaves = |port: &PortRef<'_>| nic.on_none_of_ours && !is_on_the_network_of(self.northbound(), nic, port);
        if let Some(port) = port.filter(leaves).filter(|_| !nic.life.has_guest() && !nic.life.is_leaving()) {
            return PortDecision::removal(port);
        }
        let unserved = (!nic.unserved.is_empty()).then(|| Remarks::of(Problem::Unserved(nic.unserved.clone())));
        let mut remarks = unserved.unwrap_or_default();
        let site = match self.site(nic, port, present.clone()) {
            Ok((site, later)) => {
                remarks.add(later);
                site
            }
            Err(refusal) => return self.refused(intent, nic, (port, present), remarks, refusal),
        };
        match self.serve(intent, nic, names, &site) {
            Ok(Served { change, dhcp, status, claims, remarks: later }) => {
                remarks.add(later);
                PortDecision { dhcp, claims, ..PortDecision::new(Some(change), status, remarks) }
            }
            Err(refusal) => self.refused(intent, nic, (port, present), remarks, refusal),
        }
    }

    /// A NIC without a switch is not ours, unless it had a port and its NAD is missing: the NAD may return with the switch.
    fn without_a_switch(&self, nic: &PortIntent) -> PortDecision {
        let last = self.told.and_then(|told| LastLease::of_network(told, &nic.network));
        let (Some(nad), Some(last)) = (&nic.missing_nad, last) else { return PortDecision::default() };
        let problem = Problem::NadNotFound { network: nic.network.clone(), nad: nad.clone() };
        let last = Some(Box::new(last));
        let status = PortStatus { network: nic.network.clone(), last, ..PortStatus::default() };
        PortDecision::new(None, status, Remarks::of(problem))
    }

    /// A port that holds a lease keeps it, even if its request is refused.
    fn refused(
        &self,
        intent: &VmIntent,
        nic: &PortIntent,
        (port, present): (Option<PortRef<'a>>, Option<Switch>),
        mut remarks: Remarks,
        refusal: Refusal,
    ) -> PortDecision {
        remarks.add(refusal);
        let addresses = port.and_then(|port| lease(self.northbound(), &port));
        let last = if addresses.is_none() { self.last_lease(nic) } else { None };
        let status = PortStatus {
            network: nic.network.clone(),
            port: port.map(|port| port.row.name.clone()),
            row: port.map(|port| port.uuid),
            switch: present.map(|switch| switch.name),
            addresses,
            last: last.map(Box::new),
            dhcp: port.map(|port| DhcpFamilies::of(self.northbound(), port.row)).unwrap_or_default(),
            ..PortStatus::default()
        };
        let Some(port) = port else { return PortDecision::new(None, status, remarks) };
        let retention = self.snapshot.retention_mark(port.row.external_ids.map(), intent);
        self.keep(intent, (port, &nic.placement), retention, status, remarks)
    }

    /// Keeps a port as it is except for its chassis binding and the marks of its VM.
    pub(super) fn keep(
        &self,
        intent: &VmIntent,
        (port, placement): (PortRef<'a>, &Placement),
        retention: Option<Mark>,
        status: PortStatus,
        mut remarks: Remarks,
    ) -> PortDecision {
        let Some(switch) = port.switch else { return PortDecision::new(None, status, remarks) };
        let mut row = repair(port.row, lease(self.northbound(), &port).as_ref());
        let (kind, later) = self.repaired_type(&row, status.switch.as_deref());
        row.kind = kind;
        remarks.add(later);
        let bound = Bound { uuid: port.uuid, name: &port.row.name, present: Some(&port.row.options) };
        let (binding, later) = self.snapshot.bind(&bound, placement);
        row.options = binding.apply(row.options);
        remarks.add(later);
        // A row that lost its mark gets the mark of the network that it is known to serve.
        let lost = row.external_ids.get(keys::NETWORK).is_none() && !status.network.is_empty();
        let marks = self.marks(intent, lost.then_some(status.network.as_str()));
        row.external_ids = row.external_ids.edited(marks.into_iter().chain(retention));
        if let (Some(addresses), Some(name)) = (status.addresses, self.switch_name(switch)) {
            let switch = Switch { uuid: switch, name };
            row.port_security = self.kept_security(&switch, addresses, &row.port_security);
            self.conflicts(&switch, addresses, Some(port.uuid), None).into_iter().for_each(|it| remarks.tell(it));
        }
        PortDecision::new(PortChange::rewrite(port, row), status, remarks)
    }

    /// Finds the switch for the port, and the port's lease on it.
    fn site(
        &self,
        nic: &PortIntent,
        port: Option<PortRef<'a>>,
        present: Option<Switch>,
    ) -> Result<(Site<'a>, Remarks), Refusal> {
        let OnSwitch { switch, elsewhere, remarks } = match (port.zip(present), &nic.switch) {
            (Some((port, present)), _) => self.stay_or_move(nic, port, present),
            (None, Some(request)) => {
                let (switch, remarks) = self.switch_for(nic, request, None)?;
                OnSwitch { switch, elsewhere: false, remarks }
            }
            (None, None) => return Err(Refusal::Batch),
        };
        let held = port.and_then(|port| lease(self.northbound(), &port));
        let last = if held.is_none() { self.last_lease(nic) } else { None };
        let stands_there = port.is_some_and(|port| port.switch == Some(switch.uuid));
        Ok((Site { port, switch, elsewhere, lease: held.filter(|_| stands_there), last }, remarks))
    }

    /// Creates or updates a NIC's port. Refusals that leave the port in service become remarks.
    fn serve(&self, intent: &VmIntent, nic: &PortIntent, names: &[String], site: &Site<'a>) -> Result<Served, Refusal> {
        let (own, switch) = (site.own(), &site.switch);
        let told = self.retakable(switch, site.last.as_ref(), own)?;
        let name = site.port.map_or_else(|| self.free_name(names), |port| Ok(port.row.name.clone()));
        // The row that a name stands for has the same last address if another VM of the transaction claims the name.
        let new_name = name.as_ref().ok().filter(|_| own.is_none());
        let to_come = new_name.map(|name| port_uuid(self.instance(), name));
        let holding = site.holding(nic, told, to_come);
        let settled = self.settle_now(nic, site, &holding);
        let (addresses, mut remarks) = settled.map_err(|refusal| refusal.or_when(site.last_addresses_free()))?;
        let (name, later) = match own {
            Some(own) => self.repaired_name(names, own, &name?),
            None => (self.unclaimed(name?)?, Remarks::default()),
        };
        remarks.add(later);
        let uuid = own.or(to_come).unwrap_or_else(|| port_uuid(self.instance(), &name));
        if own.is_none() && !self.replaces_another(nic) {
            self.may_have_another_port()?;
        }
        let standing = site.standing(nic);
        let (secured, problem) = self.port_security(nic, switch, &standing);
        problem.into_iter().for_each(|problem| remarks.tell(problem));
        let (vips, later) = if secured { self.vips(nic, switch, &standing, addresses) } else { Default::default() };
        remarks.add(later);
        let secured = secured.then(|| self.secured(switch, addresses, vips));
        // A lease that changes in part keeps the rest. A lease that is restored is restored unchanged.
        if site.lease.is_some() || told.is_some() {
            self.judge_lease(nic, site, addresses, &remarks).into_iter().for_each(|it| remarks.tell(it));
        }
        let unread = self.unread_settings(switch).into_iter().chain(self.unread_policy(switch));
        unread.for_each(|problem| remarks.tell(problem));
        let (next, later) = self.reserve(nic, site, addresses);
        remarks.add(later);
        let guest = self.guest_with_another(nic, addresses, site.last.as_ref()).map(|(addresses, guest)| {
            remarks.tell(Problem::GuestHasAnother { guest: addresses });
            Box::new(guest)
        });
        let (dhcp, problem) = self.dhcp(nic, (switch, site.before()), addresses, &name);
        problem.into_iter().for_each(|problem| remarks.tell(problem));
        let granted = Granted { uuid, name, addresses, secured, next, dhcp };
        let status = site.status(nic, &granted, guest);
        let mut claims = granted.claims(switch.uuid);
        let dhcp = granted.dhcp.rows().filter_map(|row| self.dhcp_row_to_write(row)).collect::<Vec<_>>();
        dhcp.iter().for_each(|change| claims.add_dhcp_row(change.uuid));
        if own.is_none() {
            claims.add_new_port(&self.vm.namespace);
        }
        let (change, later) = self.row(intent, nic, site, granted);
        remarks.add(later);
        Ok(Served { change, dhcp, status, claims, remarks })
    }

    /// A request with the MAC of the guest that comes to the port from another network, or has come: it keeps its MAC,
    /// and one that is requested applies from the next start on.
    fn with_the_guests_mac<'r>(
        &self,
        nic: &PortIntent,
        site: &Site<'_>,
        request: Cow<'r, Request>,
    ) -> Cow<'r, Request> {
        let comes = nic.seat == Seat::Coming || site.port.is_none() && site.last_lease().is_none();
        match self.mac_of_guest(nic).filter(|_| comes) {
            Some(mac) => Cow::Owned(Request { mac: Some(mac), ..request.into_owned() }),
            None => request,
        }
    }

    /// The MAC of the guest that is to come to a NIC's port, or has come to it while this service was away: that of the
    /// NIC's other port.
    fn mac_of_guest(&self, nic: &PortIntent) -> Option<MacAddr6> {
        match nic.seat {
            Seat::Coming => self.guests.iter().find(|(network, _)| *network == nic.network).map(|(_, mac)| *mac),
            Seat::Moved | Seat::Left => {
                let mut left = self.northbound().ports_of(self.vm).filter(|(network, _)| *network == nic.network);
                let told = || LastLease::of_network(self.told?, &nic.network).map(|last| last.addresses);
                left.find_map(|(_, port)| lease(self.northbound(), &port)).or_else(told).map(|lease| lease.mac)
            }
            Seat::Assumed | Seat::Known => None,
        }
    }

    /// Decides the reservation for the next start beside the present lease.
    fn reserve(&self, nic: &PortIntent, site: &Site<'_>, addresses: Addresses) -> (Option<Addresses>, Remarks) {
        if site.elsewhere && nic.life.is_leaving() {
            return (None, Remarks::default());
        }
        let holding = Holding {
            nic: &nic.network,
            own: site.own(),
            lost: None,
            lease: Some(addresses),
            reserved: site.reserved(),
            running: nic.life.has_guest() && !nic.life.is_edited(),
            told: None,
        };
        self.next(nic, &site.switch, &holding)
    }

    /// Decides the lease: the present one, changed as the owner requests, or a new allocation.
    fn settle_now(
        &self,
        nic: &PortIntent,
        site: &Site<'_>,
        holding: &Holding<'_>,
    ) -> Result<(Addresses, Remarks), Refusal> {
        let switch = &site.switch;
        // The request applies to the other switch, or to a network that the guest has left.
        let is_set_aside = |request: &Option<&Written>| match request {
            Some(Ok(_)) => site.elsewhere,
            Some(Err(_)) => false,
            None => true,
        };
        let settled = match (site.lease, site.request(nic)) {
            (Some(lease), _) if nic.life.is_leaving() => Ok(lease),
            // The VM waits for the switch: a port that would move to it is served on its present switch once the
            // requested one is gone.
            (_, Some(Err(invalid))) => Err(Refusal::on_switch(&switch.name, Problem::Invalid(invalid.clone()))),
            (Some(lease), request) if is_set_aside(&request) => Ok(lease),
            (_, request) => {
                let request = request.filter(|_| !is_set_aside(&request)).and_then(|request| request.as_ref().ok());
                let request = request.map_or_else(Cow::default, Cow::Borrowed);
                self.settle(switch, &self.with_the_guests_mac(nic, site, request), holding)
            }
        };
        match (settled, site.lease) {
            (Ok(addresses), _) => Ok((addresses, Remarks::default())),
            // The lease stands, and the request for the next start is still processed.
            (Err(refusal), Some(lease)) => Ok((lease, refusal.into())),
            (Err(refusal), None) => Err(refusal),
        }
    }

    /// Reports the problems of a lease that stands.
    fn judge_lease(&self, nic: &PortIntent, site: &Site<'_>, addresses: Addresses, before: &Remarks) -> Vec<Problem> {
        let request = site.request(nic).and_then(|request| request.as_ref().ok()).filter(|_| !site.elsewhere);
        let mut problems = self.conflicts(&site.switch, addresses, site.own(), request);
        let told = before.problems.iter().any(Problem::is_of_a_pool);
        if let Some(request) = request.filter(|_| nic.life.has_guest() && !told) {
            problems.extend(outside_the_pool(addresses, request));
        }
        problems
    }

    /// Composes the row of a port that is served.
    fn row(&self, intent: &VmIntent, nic: &PortIntent, site: &Site<'_>, granted: Granted) -> (PortChange, Remarks) {
        let Granted { uuid, name, addresses, secured, next, dhcp } = granted;
        let mut row = site.before().cloned().unwrap_or_default();
        row.name = name;
        row.addresses = addresses.into();
        row.port_security = secured.map(Elements::from).unwrap_or_default();
        let (kind, mut remarks) = self.repaired_type(&row, Some(&site.switch.name));
        row.kind = kind;
        let bound = Bound { uuid, name: &row.name, present: site.before().map(|before| &before.options) };
        let (binding, later) = self.snapshot.bind(&bound, &nic.placement);
        row.options = binding.apply(row.options);
        remarks.add(later);
        dhcp.apply(&mut row);
        let mut marks = self.marks(intent, Some(&nic.network));
        // The base name records the NIC's present attachment. While a move is deferred, the port still serves the former one.
        if nic.switch.is_some() && !site.elsewhere {
            let base_name = (!nic.was_named_for(&row.name)).then(|| nic.base_name.clone().into());
            marks.push((keys::BASE_NAME, base_name));
        }
        marks.extend(self.snapshot.retention_mark(row.external_ids.map(), intent));
        marks.push((keys::NEXT_ADDRESSES, next.map(|next| next.to_string().into())));
        row.external_ids = row.external_ids.edited(marks);
        let before = site.port.and_then(|port| Some(Placed { switch: port.switch?, row: port.row.clone() }));
        (PortChange { uuid, before, after: Some(Placed { switch: site.switch.uuid, row }) }, remarks)
    }

    /// Our keys in `external_ids`. Keys of others stay.
    fn marks(&self, intent: &VmIntent, network: Option<&str>) -> Vec<Mark> {
        let mut marks: Vec<Mark> = vec![
            (keys::VENDOR, Some(keys::OUR_VENDOR.into())),
            (keys::INSTANCE, Some(self.instance().to_owned().into())),
            (keys::VM, Some(intent.vm.to_string().into())),
            (keys::RETAINED_UNTIL, None),
            (keys::HANDOVER, (!intent.selected).then(|| "true".into())),
        ];
        marks.extend(intent.uid.as_ref().map(|uid| (keys::VM_UID, Some(uid.clone().into()))));
        marks.extend(network.map(|network| (keys::NETWORK, Some(network.to_owned().into()))));
        marks
    }
}

/// The values granted to a port.
struct Granted {
    /// Its row.
    uuid: Uuid,
    name: String,
    addresses: Addresses,
    /// What its guest may speak with; `None`: port security is off.
    secured: Option<Secured>,
    /// The reservation for the next start.
    next: Option<Addresses>,
    dhcp: Dhcp,
}

impl Granted {
    fn claims(&self, switch: Uuid) -> Claims {
        let mut claims = Claims::default();
        [Some(self.addresses), self.next].into_iter().flatten().for_each(|addresses| claims.add(switch, addresses));
        claims.add_ips(switch, self.secured.iter().flat_map(|secured| secured.vips.iter().copied()));
        claims.add_name(self.name.clone());
        claims
    }
}

/// Gives the status of a port as it is.
pub(super) fn status_of(northbound: &Northbound, network: &str, port: PortRef<'_>) -> PortStatus {
    PortStatus {
        network: network.to_owned(),
        port: Some(port.row.name.clone()),
        row: Some(port.uuid),
        switch: port.switch.and_then(|switch| northbound.switch(&switch)).map(|switch| switch.name.clone()),
        addresses: lease(northbound, &port),
        next: reserved(port.row),
        dhcp: DhcpFamilies::of(northbound, port.row),
        ..PortStatus::default()
    }
}
