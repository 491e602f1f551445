//! One NIC's port: the row to write and the status for its owner.

use uuid::Uuid;

use super::addresses::{Holding, Retakable, outside_the_pool};
use super::change::{Mark, Placed, PortChange};
use super::claims::Claims;
use super::fabric::Bound;
use super::lease::{lease, repair, reserved};
use super::lost::LastLease;
use super::problem::Problem;
use super::remarks::{Refusal, Remarks};
use super::status::PortStatus;
use super::switches::OnSwitch;
use super::view::{Switch, View};
use super::vm_rows::is_on_the_network_of;
use crate::contract::{keys, port_uuid};
use crate::intent::{Permission, PortIntent, Request, VmIntent};
use crate::kubevirt::Guest;
use crate::ovn::{Addresses, Elements, LogicalSwitchPort, Northbound, PortRef};

/// The decision for one port.
#[derive(Default)]
pub(super) struct PortDecision {
    pub(super) change: Option<PortChange>,
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
        Self { change, status: Some(status), remarks, claims: Claims::default() }
    }

    /// The port is deleted.
    pub(super) fn removal(port: PortRef<'_>) -> Self {
        Self { change: PortChange::removal(port), ..Self::default() }
    }
}

/// A port that gets its addresses.
struct Served {
    change: PortChange,
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
            problems: Vec::new(),
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
                Ok(false) => return PortDecision::default(),
                Err(refusal) => {
                    let status = PortStatus { network: nic.network.clone(), ..PortStatus::default() };
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
            Ok(Served { change, status, claims, remarks: later }) => {
                remarks.add(later);
                PortDecision { claims, ..PortDecision::new(Some(change), status, remarks) }
            }
            Err(refusal) => self.refused(intent, nic, (port, present), remarks, refusal),
        }
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
            ..PortStatus::default()
        };
        let Some(port) = port else { return PortDecision::new(None, status, remarks) };
        let retention = self.snapshot.retention_mark(port.row.external_ids.map(), intent);
        self.keep(intent, port, retention, status, remarks)
    }

    /// Keeps a port as it is except for its chassis binding and the marks of its VM.
    pub(super) fn keep(
        &self,
        intent: &VmIntent,
        port: PortRef<'a>,
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
        let (binding, later) = self.snapshot.bind(&bound, &intent.placement);
        row.options = binding.apply(row.options);
        remarks.add(later);
        // A row that lost its mark gets the mark of the network that it is known to serve.
        let lost = row.external_ids.get(keys::NETWORK).is_none() && !status.network.is_empty();
        let marks = self.marks(intent, lost.then_some(status.network.as_str()));
        row.external_ids = row.external_ids.edited(marks.into_iter().chain(retention));
        if let (Some(addresses), Some(name)) = (status.addresses, self.switch_name(switch)) {
            let switch = Switch { uuid: switch, name };
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
        let new_name = name.as_ref().ok().filter(|_| own.is_none());
        let to_come = new_name.map(|name| port_uuid(self.instance(), name));
        let holding = site.holding(nic, told, to_come);
        let (addresses, mut remarks) = self.settle_now(nic, site, &holding)?;
        let (name, later) = match own {
            Some(own) => self.repaired_name(names, own, &name?),
            None => (name?, Remarks::default()),
        };
        remarks.add(later);
        let uuid = own.or(to_come).unwrap_or_else(|| port_uuid(self.instance(), &name));
        if own.is_none() {
            self.may_have_another_port()?;
        }
        let (secured, problem) = self.port_security(nic, site);
        problem.into_iter().for_each(|problem| remarks.tell(problem));
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
        let granted = Granted { uuid, name, addresses, secured, next };
        let status = site.status(nic, &granted, guest);
        let mut claims = granted.claims(switch.uuid);
        if own.is_none() {
            claims.add_new_port(&self.vm.namespace);
        }
        let (change, later) = self.row(intent, nic, site, granted);
        remarks.add(later);
        Ok(Served { change, status, claims, remarks })
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
        let settled = match (site.lease, nic.life.request()) {
            (Some(lease), _) if nic.life.is_leaving() => Ok(lease),
            // The VM waits for the switch: a port that would move to it is served on its present switch once the
            // requested one is gone.
            (_, Err(invalid)) => Err(Refusal::on_switch(&switch.name, Problem::Invalid(invalid.clone()))),
            // The request applies to the other switch.
            (Some(lease), Ok(_)) if site.elsewhere => Ok(lease),
            (None, Ok(_)) if site.elsewhere => self.settle(switch, &Request::default(), holding),
            (_, Ok(request)) => self.settle(switch, request, holding),
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
        let request = nic.life.request().as_ref().ok().filter(|_| !site.elsewhere);
        let mut problems = self.conflicts(&site.switch, addresses, site.own(), request);
        let told = before.problems.iter().any(Problem::is_of_a_pool);
        if let Some(request) = request.filter(|_| nic.life.has_guest() && !told) {
            problems.extend(outside_the_pool(addresses, request));
        }
        problems
    }

    /// Composes the row of a port that is served.
    fn row(&self, intent: &VmIntent, nic: &PortIntent, site: &Site<'_>, granted: Granted) -> (PortChange, Remarks) {
        let Granted { uuid, name, addresses, secured, next } = granted;
        let mut row = site.before().cloned().unwrap_or_default();
        row.name = name;
        row.addresses = addresses.into();
        row.port_security = if secured { addresses.into() } else { Elements::default() };
        let (kind, mut remarks) = self.repaired_type(&row, Some(&site.switch.name));
        row.kind = kind;
        let bound = Bound { uuid, name: &row.name, present: site.before().map(|before| &before.options) };
        let (binding, later) = self.snapshot.bind(&bound, &nic.placement);
        row.options = binding.apply(row.options);
        remarks.add(later);
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

    /// Decides on port security: off if the owner requests that and the operator allows it.
    fn port_security(&self, nic: &PortIntent, site: &Site<'a>) -> (bool, Option<Problem>) {
        if let Some(rule) = self.lacks(&site.switch, Permission::PortSecurityOff) {
            let (network, switch, keeps) = (nic.network.clone(), site.switch.name.clone(), site.port.is_some());
            let is_requested = nic.life.requests().any(|request| !request.port_security);
            return (true, is_requested.then_some(Problem::PortSecurityKept { network, switch, rule, keeps }));
        }
        let secured = match (site.before(), nic.life.request()) {
            // As the old launcher has it, and unchanged while the request is unreadable.
            (Some(row), _) if nic.life.is_leaving() => !row.port_security.is_empty(),
            (Some(row), Err(_)) => !row.port_security.is_empty(),
            (None, Err(_)) => true,
            (_, Ok(request)) => request.port_security,
        };
        (secured, None)
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
    /// Port security is on.
    secured: bool,
    /// The reservation for the next start.
    next: Option<Addresses>,
}

impl Granted {
    fn claims(&self, switch: Uuid) -> Claims {
        let mut claims = Claims::default();
        [Some(self.addresses), self.next].into_iter().flatten().for_each(|addresses| claims.add(switch, addresses));
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
        ..PortStatus::default()
    }
}
