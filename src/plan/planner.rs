//! The plan of one VM after another, for one transaction.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::addresses::{Given, Holding};
use super::binding::{Bound, Fabric, Hindrance};
use super::change::{Placed, PortChange};
use super::lease::{heal, lease, reserved, written};
use super::lost::Lost;
use super::problem::{Holder, Problem};
use super::report::PortReport;
use super::siblings::Named;
use super::vm_rows::VmRows;
use crate::intent::{Intent, Nic, Settings, SwitchWish, Wish};
use crate::kubevirt::Told;
use crate::ovn::{LogicalSwitchPort, Northbound, PortRef, VmKey, Wake, keys, port_uuid};
use crate::ovsdb::{Map, Set};

/// What is to be done for one VM.
#[derive(Debug, Default)]
pub struct VmPlan {
    /// Changes of rows; empty ones are left out.
    pub changes: Vec<PortChange>,
    /// Its ports, for its owner.
    pub reports: Vec<PortReport>,
    /// What in the northbound database it waits for.
    pub waits: Vec<Wake>,
    /// It clashed with another VM of the same transaction: to be planned again after it.
    pub again: bool,
    /// `NB_Global:nb_cfg` is to be raised with its changes, or alone: northd's progress matters.
    pub sync: bool,
    /// To be looked at again then, in seconds since the epoch.
    pub due: Option<i64>,
}

/// Why a NIC gets nothing, or nothing new.
pub(super) enum Refusal {
    /// The owner is told, and the VM is looked at again when one of these happens.
    Problem(Problem, Vec<Wake>),
    /// Another VM of this transaction has it; after the transaction we know more.
    Again,
}

impl Refusal {
    /// Tells the owner, and sees to it that the VM is looked at again.
    pub(super) fn note(self, report: &mut PortReport, plan: &mut VmPlan) {
        match self {
            Self::Problem(problem, waits) => {
                // What holds now and what comes next may fail alike.
                if !report.problems.contains(&problem) {
                    report.problems.push(problem);
                }
                plan.waits.extend(waits);
            }
            Self::Again => plan.again = true,
        }
    }

    pub(super) fn on_switch(name: &str, problem: Problem) -> Self {
        Self::Problem(problem, vec![Wake::Switch(name.to_owned())])
    }
}

impl Hindrance {
    /// Tells the owner, and sees to it that the VM is looked at again.
    fn note(self, report: &mut PortReport, plan: &mut VmPlan) {
        let Self { problems, waits, sync } = self;
        problems.into_iter().for_each(|problem| {
            if !report.problems.contains(&problem) {
                report.problems.push(problem);
            }
        });
        plan.waits.extend(waits);
        plan.sync |= sync;
    }
}

/// Plans VMs against the replica, minding what it gave to those before.
pub struct Planner<'a> {
    pub(super) view: &'a Northbound,
    pub(super) settings: &'a Settings,
    pub(super) fabric: Fabric<'a>,
    pub(super) given: HashMap<Uuid, Given>,
    pub(super) names: HashSet<String>,
    /// The rows of the VM at hand, sorted.
    pub(super) siblings: Vec<Uuid>,
    /// They are no holders to each other: see `siblings.rs`.
    pub(super) exchanging: bool,
    /// What the VM at hand names, where it has several NICs.
    pub(super) named: Named,
    /// Seconds since the epoch.
    pub(super) now: i64,
    /// The lost leases of other VMs.
    pub(super) lost: Option<&'a Lost>,
    /// The VM at hand.
    pub(super) vm: Option<VmKey>,
    /// What it was last told, where that matters.
    pub(super) told: Option<Told>,
}

/// A switch that was found.
#[derive(Clone)]
pub(super) struct Switch {
    pub(super) uuid: Uuid,
    pub(super) name: String,
}

impl<'a> Planner<'a> {
    /// A planner for one transaction, at so many seconds since the epoch.
    pub fn new(view: &'a Northbound, settings: &'a Settings, fabric: Fabric<'a>, now: i64) -> Self {
        let (given, names, siblings, exchanging, named) = Default::default();
        let (lost, vm, told) = Default::default();
        Self { view, settings, fabric, given, names, siblings, exchanging, named, now, lost, vm, told }
    }

    /// Keeps what VMs have lost for those VMs.
    #[must_use]
    pub fn keeping(mut self, lost: &'a Lost) -> Self {
        self.lost = Some(lost);
        self
    }

    /// Minds what these changes give away, too: they are on their way, and the replica does not have them yet.
    pub fn mind<'c>(&mut self, changes: impl IntoIterator<Item = &'c PortChange>) {
        for Placed { switch, row } in changes.into_iter().filter_map(|change| change.after.as_ref()) {
            written(row).into_iter().chain(reserved(row)).for_each(|addresses| self.give(*switch, addresses));
            self.names.insert(row.name.clone());
        }
    }

    /// Plans a VM's ports.
    pub fn plan(&mut self, intent: &Intent) -> VmPlan {
        let rows = VmRows::new(self.view, intent);
        self.siblings = rows.all().map(|(_, port)| port.uuid).collect();
        self.siblings.sort_unstable();
        self.named = self.named_by(intent, &rows);
        self.vm = Some(intent.vm.clone());
        self.told = self.told_where_it_matters(intent, &rows);
        self.exchanged(intent, &rows).unwrap_or_else(|| self.plan_nics(intent, &rows))
    }

    pub(super) fn plan_nics(&mut self, intent: &Intent, rows: &VmRows<'a, '_>) -> VmPlan {
        let mut plan = VmPlan::default();
        let mut taken = Vec::new();
        for nic in &intent.nics {
            let port = self.port_of(intent, nic, rows, &taken);
            taken.extend(port.map(|port| port.uuid));
            self.nic(intent, nic, port, &mut plan);
        }
        taken.sort_unstable();
        let runs = intent.nics.iter().any(|nic| nic.running);
        let mut networks: Vec<&str> = intent.nics.iter().map(|nic| nic.network.as_str()).collect();
        networks.sort_unstable();
        for (network, port) in rows.all().filter(|(_, port)| taken.binary_search(&port.uuid).is_err()) {
            if networks.binary_search(&network).is_ok() || self.may_be_anothers(&intent.vm, &port) {
                // Somebody copied our marks onto another row: it goes with the VM, and not before.
                continue;
            }
            match &intent.untouched {
                // What a guest runs on may be a row whose mark is lost.
                Some(untouched) if !(untouched.contains(network) || network.is_empty() && runs) => {
                    plan.changes.extend(removal(port));
                }
                // Where a guest may run, and whose the port is, holds for ports that stay, too.
                _ => {
                    let mut report = report_of(self.view, network, port);
                    let change = self.kept(intent, port, &mut report, &mut plan);
                    plan.changes.extend(change);
                    plan.reports.push(report);
                }
            }
        }
        if !plan.reports.is_empty() {
            plan.reports.extend(of_the_whole(intent));
        }
        plan.changes.retain(|change| !change.is_empty());
        plan.sync |= plan.changes.iter().any(PortChange::collapses);
        plan
    }

    /// A port that stays as it is but for where it is bound and whom it belongs to.
    fn kept(
        &mut self,
        intent: &Intent,
        port: PortRef<'_>,
        report: &mut PortReport,
        plan: &mut VmPlan,
    ) -> Option<PortChange> {
        let switch = port.switch?;
        let mut row = port.row.clone();
        heal(&mut row, lease(self.view, &port).as_ref());
        self.repair_type(&mut row, report, plan);
        let bound = Bound { uuid: port.uuid, name: &port.row.name, present: Some(&port.row.options) };
        self.fabric.bind(self.view, &bound, &mut row.options, &intent.placement).note(report, plan);
        // A row that lost the mark gets the network that it is known to be for.
        let lost = row.external_ids.get(keys::NETWORK).is_none() && !report.network.is_empty();
        self.mark(&mut row.external_ids, intent, lost.then_some(report.network.as_str()));
        if let (Some(addresses), Some(name)) = (report.addresses, self.switch_name(switch)) {
            self.what_befell(&Switch { uuid: switch, name }, &addresses, Some(port.uuid), None, report);
        }
        let before = Some(Placed { switch, row: port.row.clone() });
        Some(PortChange { uuid: port.uuid, before, after: Some(Placed { switch, row }) })
    }

    fn nic(&mut self, intent: &Intent, nic: &Nic, port: Option<PortRef<'_>>, plan: &mut VmPlan) {
        let present = port.and_then(|port| port.switch);
        let present = present.and_then(|uuid| Some(Switch { uuid, name: self.switch_name(uuid)? }));
        if port.is_none() && !self.may_have_a_new_port(intent, nic, plan) {
            return;
        }
        // A NIC that nobody named a switch for is not ours; a row that is on no switch (any more) is
        // about to be collected, and a second one beside it would double its addresses.
        if present.is_none() && (nic.switch.is_none() || port.is_some()) {
            return;
        }
        // Nor is one that has come from a network of ours to another's, once no guest uses the port.
        let leaves = |port: &PortRef<'_>| nic.on_none_of_ours && !self.is_on_the_network_of(nic, port);
        if let Some(port) = port.filter(leaves).filter(|_| !nic.running && !nic.held_by_old_launcher) {
            plan.changes.extend(removal(port));
            return;
        }
        let mut report = PortReport {
            network: nic.network.clone(),
            port: port.map(|port| port.row.name.clone()),
            row: port.map(|port| port.uuid),
            switch: present.as_ref().map(|switch| switch.name.clone()),
            addresses: port.and_then(|port| lease(self.view, &port)),
            next: None,
            last: None,
            guest: None,
            problems: Vec::new(),
        };
        if report.addresses.is_none() {
            report.last = self.last_lease(nic).map(Box::new);
        }
        if !nic.unserved.is_empty() {
            report.problems.push(Problem::Unserved(nic.unserved.clone()));
        }
        match self.serve(intent, nic, port.zip(present), &mut report, plan) {
            Ok(change) => plan.changes.push(change),
            Err(refusal) => {
                refusal.note(&mut report, plan);
                // A VM that holds a lease keeps it, whatever became of its wish.
                let mut change = port.and_then(|port| self.kept(intent, port, &mut report, plan));
                if let Some(kept) = change.as_mut().and_then(|change| change.after.as_mut()) {
                    self.note_retention(&mut kept.row.external_ids, intent);
                }
                plan.changes.extend(change);
            }
        }
        plan.reports.push(report);
    }

    /// The change that gives a NIC its port, or its port what it should be. Refusals that do not
    /// stand in its way are noted.
    fn serve(
        &mut self,
        intent: &Intent,
        nic: &Nic,
        port: Option<(PortRef<'_>, Switch)>,
        report: &mut PortReport,
        plan: &mut VmPlan,
    ) -> Result<PortChange, Refusal> {
        let own = port.as_ref().map(|(port, _)| port.uuid);
        let before = port.as_ref().map(|(port, switch)| Placed { switch: switch.uuid, row: port.row.clone() });
        let (switch, stays) = match (port, &nic.switch) {
            (Some((port, present)), _) => self.stay_or_move(nic, port, present, plan),
            (None, Some(wish)) => (self.switch_for(nic, wish, None, plan)?, Vec::new()),
            (None, None) => return Err(Refusal::Again),
        };
        // What is wished is wished on the other switch: neither is it had here, nor is it judged by what is here.
        let elsewhere = !stays.is_empty();
        stays.into_iter().for_each(|refusal| refusal.note(report, plan));
        let stands_there = before.as_ref().is_some_and(|before| before.switch == switch.uuid);
        let lease = report.addresses.filter(|_| stands_there);
        let reserved = before.as_ref().and_then(|before| reserved(&before.row)).filter(|_| stands_there);
        // What is reserved for a template that was edited since is not for the guest that runs.
        let edited = nic.next.as_ref().is_some_and(|next| *next != nic.now);
        let to_come = if own.is_none() { self.row_to_come(nic) } else { None };
        // A MAC alone may be what is left of more.
        let bare = lease.is_none_or(|lease| lease.ips().next().is_none());
        let lost = own.filter(|_| bare).or(to_come);
        let of_run = reserved.filter(|_| !(edited && nic.running));
        let told = self.retakable(&switch, report, own, lease)?;
        let holding = Holding { nic: &nic.network, own, lost, lease, reserved: of_run, running: nic.running, told };
        let settled = match (lease, &nic.now) {
            (Some(lease), _) if nic.held_by_old_launcher => Ok(lease),
            // On a switch that it would move to, there being that switch is what keeps it from being served where it is.
            (_, Err(invalid)) => Err(Refusal::on_switch(&switch.name, Problem::Invalid(invalid.clone()))),
            (Some(lease), Ok(_)) if elsewhere => Ok(lease),
            (None, Ok(_)) if elsewhere => self.settle(&switch, &Wish::default(), &holding),
            (_, Ok(wish)) => self.settle(&switch, wish, &holding),
        };
        let addresses = match (settled, lease) {
            (Ok(addresses), _) => addresses,
            // What holds goes on holding, and what is wished for the next start is seen to all the same.
            (Err(refusal), Some(lease)) => {
                refusal.note(report, plan);
                lease
            }
            (Err(refusal), None) => return Err(refusal),
        };
        let name = match &before {
            Some(before) => self.repaired_name(nic, own, &before.row.name, report, plan),
            None => self.free_name(nic)?,
        };
        let secured = self.port_security(nic, before.as_ref().map(|before| &before.row), report);
        // Of a lease that changes in part, the rest stands; one that is taken up again stands as it was.
        if lease.is_some() || told.is_some() {
            let wish = nic.now.as_ref().ok().filter(|_| !elsewhere);
            self.what_befell(&switch, &addresses, own, wish.map(|wish| (wish, nic.running)), report);
        }
        let running = nic.running && !edited;
        let holding =
            Holding { nic: &nic.network, own, lost: None, lease: Some(addresses), reserved, running, told: None };
        self.note_unread(&switch, report);
        let next =
            if elsewhere && nic.held_by_old_launcher { None } else { self.next(nic, &switch, &holding, report, plan) };
        self.give(switch.uuid, addresses);
        next.into_iter().for_each(|next| self.give(switch.uuid, next));
        self.names.insert(name.clone());
        report.port = Some(name.clone());
        report.switch = Some(switch.name);
        report.addresses = Some(addresses);
        report.next = next;
        self.tell_of_the_guest(nic, addresses, report);
        let uuid = own.unwrap_or_else(|| port_uuid(self.view.instance(), &name));
        report.row = Some(uuid);
        let mut row = before.as_ref().map_or_else(LogicalSwitchPort::default, |before| before.row.clone());
        row.name = name;
        let text = addresses.to_string();
        row.addresses = Set::from_iter([text.clone()]);
        row.port_security = Set::from_iter(secured.then_some(text));
        self.repair_type(&mut row, report, plan);
        let present = before.as_ref().map(|before| &before.row.options);
        let bound = Bound { uuid, name: &row.name, present };
        self.fabric.bind(self.view, &bound, &mut row.options, &intent.placement).note(report, plan);
        self.mark(&mut row.external_ids, intent, Some(&nic.network));
        // It stands where the NIC is now, if anything says where that is.
        if nic.switch.is_some() && !elsewhere {
            match nic.was_named_for(&row.name) {
                true => drop(row.external_ids.remove(keys::BASE_NAME)),
                false => drop(row.external_ids.insert(keys::BASE_NAME, nic.base_name.as_str())),
            }
        }
        self.note_retention(&mut row.external_ids, intent);
        match next {
            Some(next) => drop(row.external_ids.insert(keys::NEXT_ADDRESSES, next.to_string())),
            None => drop(row.external_ids.remove(keys::NEXT_ADDRESSES)),
        }
        Ok(PortChange { uuid, before, after: Some(Placed { switch: switch.uuid, row }) })
    }

    /// The switch that a port stays on, or moves to; and, where it stays though another is wished,
    /// why.
    fn stay_or_move(
        &mut self,
        nic: &Nic,
        port: PortRef<'_>,
        present: Switch,
        plan: &mut VmPlan,
    ) -> (Switch, Vec<Refusal>) {
        // A row that was made for another network is on that one's switch: it has no business there.
        let moves = |wish: &SwitchWish| wish.explicit || !self.is_on_the_network_of(nic, &port);
        match &nic.switch {
            // What is named cannot be read, which is told with the rest of the request.
            Some(wish) if wish.name.is_empty() => (present, Vec::new()),
            Some(wish) if moves(wish) && !wish.has(&present.name) && nic.running => {
                let refusals = self.deferred(&present, &wish.name);
                (present, refusals)
            }
            Some(wish) if moves(wish) && !wish.has(&present.name) => {
                match self.switch_for(nic, wish, Some(port.uuid), plan) {
                    Ok(switch) => (switch, Vec::new()),
                    Err(refusal) => (present, vec![refusal]),
                }
            }
            _ => (present, Vec::new()),
        }
    }

    /// Why a port does not go to another switch under a guest that runs, and whether it ever can. What is wished there is
    /// looked at when it goes: it cannot be reserved where the port is not.
    pub(super) fn deferred(&self, present: &Switch, wished: &str) -> Vec<Refusal> {
        let (present, name) = (present.name.clone(), wished.to_owned());
        let waits = vec![Wake::Switch(name.clone())];
        let deferred = Refusal::Problem(Problem::SwitchDeferred { present, wished: name }, waits);
        [Some(deferred), self.find_switch(wished).err()].into_iter().flatten().collect()
    }

    /// The switch that a port comes to: the first of those that are named that can serve it. Where none can, the first
    /// one's reason is told, and the VM waits for all of them.
    fn switch_for(
        &mut self,
        nic: &Nic,
        wish: &SwitchWish,
        own: Option<Uuid>,
        plan: &mut VmPlan,
    ) -> Result<Switch, Refusal> {
        if let (true, Err(invalid)) = (wish.name.is_empty(), &nic.now) {
            return Err(Refusal::Problem(Problem::Invalid(invalid.clone()), Vec::new()));
        }
        if wish.others.is_empty() {
            return self.find_switch(&wish.name);
        }
        // A VM that has lost its port goes to where it was. While its guest runs, it waits for that switch.
        let told = self.last_lease(nic).map(|last| last.switch);
        if let Some(told) = told {
            match self.find_switch(&told) {
                Err(_) if !nic.running => {}
                found => return found,
            }
        }
        let (mut first, mut waits) = (None, Vec::new());
        for name in wish.names() {
            let tried = self.find_switch(name).and_then(|switch| self.would_serve(nic, &switch, own).map(|()| switch));
            match tried {
                Ok(switch) => {
                    // What one of those before may get yet would change the choice until the port is there.
                    plan.waits.extend(waits);
                    return Ok(switch);
                }
                Err(Refusal::Problem(problem, its_waits)) => {
                    first.get_or_insert(problem);
                    waits.extend(its_waits);
                }
                Err(Refusal::Again) => return Err(Refusal::Again),
            }
        }
        Err(first.map_or(Refusal::Again, |problem| Refusal::Problem(problem, waits)))
    }

    /// Whether a port that has nothing on a switch can have what is requested there.
    fn would_serve(&mut self, nic: &Nic, switch: &Switch, own: Option<Uuid>) -> Result<(), Refusal> {
        let Ok(wish) = &nic.now else { return Ok(()) };
        let lost = own.or_else(|| self.row_to_come(nic));
        let holding =
            Holding { nic: &nic.network, own, lost, lease: None, reserved: None, running: nic.running, told: None };
        self.settle(switch, wish, &holding).map(drop)
    }

    /// The row that a NIC without one is going to have.
    fn row_to_come(&self, nic: &Nic) -> Option<Uuid> {
        let free = nic.names().into_iter().find(|name| self.is_free(name));
        free.map(|name| port_uuid(self.view.instance(), &name))
    }

    fn find_switch(&self, name: &str) -> Result<Switch, Refusal> {
        let mut found = self.view.switches_named(name);
        match (found.len(), found.next()) {
            (1, Some(uuid)) => Ok(Switch { uuid, name: name.to_owned() }),
            (0, _) | (_, None) => Err(Refusal::on_switch(name, Problem::SwitchNotFound(name.to_owned()))),
            (count, _) => Err(Refusal::on_switch(name, Problem::SwitchAmbiguous { name: name.to_owned(), count })),
        }
    }

    fn switch_name(&self, uuid: Uuid) -> Option<String> {
        self.view.switch(&uuid).map(|switch| switch.name.clone())
    }

    /// The first of a new port's names that nobody has.
    fn free_name(&self, nic: &Nic) -> Result<String, Refusal> {
        let names = nic.names();
        let free = names.iter().find(|name| self.is_free(name));
        match free {
            // Whether the other VM's port comes about is known after this transaction.
            Some(name) if self.names.contains(name) => Err(Refusal::Again),
            Some(name) => Ok(name.clone()),
            None => {
                let waits = names.iter().flat_map(|name| self.waits_for_name(name)).collect();
                Err(Refusal::Problem(Problem::NameTaken(names), waits))
            }
        }
    }

    /// Whether the port is to have port security: off where its owner wishes so and the operator allows it.
    fn port_security(&self, nic: &Nic, present: Option<&LogicalSwitchPort>, report: &mut PortReport) -> bool {
        let off = |wish: &Result<Wish, _>| wish.as_ref().is_ok_and(|wish| !wish.port_security);
        if !self.settings.allow_port_security_off {
            if off(&nic.now) || nic.next.as_ref().is_some_and(off) {
                report.problems.push(Problem::PortSecurityKept(nic.network.clone()));
            }
            return true;
        }
        match (present, &nic.now) {
            // As the old launcher has it, and as it is while nobody can say what is wished.
            (Some(row), _) if nic.held_by_old_launcher => !row.port_security.is_empty(),
            (Some(row), Err(_)) => !row.port_security.is_empty(),
            (None, Err(_)) => true,
            (_, Ok(wish)) => wish.port_security,
        }
    }

    /// The holder that a row is.
    pub(super) fn describe(&self, holder: Uuid) -> Holder {
        let Some(PortRef { row, .. }) = self.view.port(&holder) else { return Holder::Gone };
        let port = row.name.clone();
        match row.owner(&holder, self.view.instance()) {
            Some(owner) => Holder::Vm { key: owner.vm, port },
            None if row.kind == "router" => Holder::RouterPort { port },
            None => match row.other_instance(self.view.instance()) {
                Some(instance) => Holder::OtherInstance { port, instance: instance.to_owned() },
                None => Holder::ForeignPort { port },
            },
        }
    }

    /// Our keys in `external_ids`; what others put there stays.
    fn mark(&self, external_ids: &mut Map, intent: &Intent, network: Option<&str>) {
        external_ids.insert(keys::VENDOR, keys::OUR_VENDOR);
        external_ids.insert(keys::INSTANCE, self.view.instance());
        external_ids.insert(keys::VM, intent.vm.to_string());
        external_ids.remove(keys::RETAINED_UNTIL);
        match intent.selected {
            true => drop(external_ids.remove(keys::HANDOVER)),
            false => drop(external_ids.insert(keys::HANDOVER, "true")),
        }
        if let Some(uid) = &intent.uid {
            external_ids.insert(keys::VM_UID, uid.as_str());
        }
        if let Some(network) = network {
            external_ids.insert(keys::NETWORK, network);
        }
    }
}

/// What is wrong with a VM as a whole, for one that has a NIC of ours: the others are none of our business.
fn of_the_whole(intent: &Intent) -> Option<PortReport> {
    let Intent { invalid, unserved, unmatched, misplaced, .. } = intent;
    let mut problems: Vec<Problem> = invalid.iter().cloned().map(Problem::Invalid).collect();
    problems.extend((!intent.selected).then(|| Problem::NamespaceNotSelected(intent.vm.namespace.clone())));
    problems.extend((!unserved.is_empty()).then(|| Problem::Unserved(unserved.clone())));
    problems.extend((!unmatched.is_empty()).then(|| Problem::Unmatched(unmatched.clone())));
    problems.extend(misplaced.iter().cloned().map(Problem::Misplaced));
    (!problems.is_empty()).then(|| PortReport { problems, ..PortReport::default() })
}

/// A VM's ports as they are.
pub fn present(view: &Northbound, vm: &VmKey) -> Vec<PortReport> {
    view.ports_of(vm).map(|(network, port)| report_of(view, network, port)).collect()
}

fn report_of(view: &Northbound, network: &str, port: PortRef<'_>) -> PortReport {
    PortReport {
        network: network.to_owned(),
        port: Some(port.row.name.clone()),
        row: Some(port.uuid),
        switch: port.switch.and_then(|switch| view.switch(&switch)).map(|switch| switch.name.clone()),
        addresses: lease(view, &port),
        next: reserved(port.row),
        last: None,
        guest: None,
        problems: Vec::new(),
    }
}

pub(super) fn removal(port: PortRef<'_>) -> Option<PortChange> {
    let before = Placed { switch: port.switch?, row: port.row.clone() };
    Some(PortChange { uuid: port.uuid, before: Some(before), after: None })
}
