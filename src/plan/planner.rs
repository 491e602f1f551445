//! The plan of one VM after another, for one transaction.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use macaddr::MacAddr6;
use uuid::Uuid;

use super::binding::{Bound, Fabric, Hindrance};
use super::change::{Placed, PortChange};
use super::report::{PortReport, Problem};
use crate::intent::{Intent, Nic, Settings, Wish};
use crate::ipam::{Pool, RangeSet, Subnet};
use crate::ovn::{Addresses, LogicalSwitchPort, Northbound, Owner, PortRef, VmKey, Wake, keys, port_uuid};
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
}

/// Why a NIC gets nothing, or nothing new.
enum Refusal {
    /// The owner is told, and the VM is looked at again when one of these happens.
    Problem(Problem, Vec<Wake>),
    /// Another VM of this transaction has it; after the transaction we know more.
    Again,
}

impl Refusal {
    /// Tells the owner, and sees to it that the VM is looked at again.
    fn note(self, report: &mut PortReport, plan: &mut VmPlan) {
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

    fn on_switch(name: &str, problem: Problem) -> Self {
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

/// What this transaction gives away on one switch, unknown to the replica yet.
#[derive(Default)]
struct Given {
    ips: RangeSetOfBoth,
    macs: HashSet<MacAddr6>,
    subnet: Option<Result<Subnet, crate::ipam::SubnetError>>,
}

#[derive(Default)]
struct RangeSetOfBoth {
    ipv4: RangeSet,
    ipv6: RangeSet,
}

impl RangeSetOfBoth {
    fn family(&mut self, ipv4: bool) -> &mut RangeSet {
        if ipv4 { &mut self.ipv4 } else { &mut self.ipv6 }
    }
}

/// Plans VMs against the replica, minding what it gave to those before.
pub struct Planner<'a> {
    view: &'a Northbound,
    settings: &'a Settings,
    fabric: Fabric<'a>,
    given: HashMap<Uuid, Given>,
    names: HashSet<String>,
}

/// A switch that was found.
#[derive(Clone)]
struct Switch {
    uuid: Uuid,
    name: String,
}

impl<'a> Planner<'a> {
    /// A planner for one transaction.
    pub fn new(view: &'a Northbound, settings: &'a Settings, fabric: Fabric<'a>) -> Self {
        Self { view, settings, fabric, given: HashMap::new(), names: HashSet::new() }
    }

    /// Minds what these changes give away, too: they are on their way, and the replica does not have them yet.
    pub fn mind<'c>(&mut self, changes: impl IntoIterator<Item = &'c PortChange>) {
        for Placed { switch, row } in changes.into_iter().filter_map(|change| change.after.as_ref()) {
            let reserved = row.external_ids.get(keys::NEXT_ADDRESSES).and_then(|next| next.parse().ok());
            lease(row).into_iter().chain(reserved).for_each(|addresses| self.give(*switch, addresses));
            self.names.insert(row.name.clone());
        }
    }

    /// Nothing of the VM is left in Kubernetes: its ports go.
    pub fn release(&self, vm: &VmKey) -> VmPlan {
        let changes = self.view.ports_of(vm).filter_map(|(_, port)| removal(port)).collect();
        VmPlan { changes, ..VmPlan::default() }
    }

    /// Plans a VM's ports.
    pub fn plan(&mut self, intent: &Intent) -> VmPlan {
        let mut plan = VmPlan::default();
        let mut taken = Vec::new();
        for nic in &intent.nics {
            let port = self.port_of(intent, nic);
            taken.extend(port.map(|port| port.uuid));
            self.nic(intent, nic, port, &mut plan);
        }
        for (network, port) in self.view.ports_of(&intent.vm).filter(|(_, port)| !taken.contains(&port.uuid)) {
            if intent.nics.iter().any(|nic| nic.network == network) {
                // Somebody copied our marks onto another row: it goes with the VM, and not before.
                continue;
            }
            match &intent.untouched {
                Some(untouched) if !untouched.contains(network) => plan.changes.extend(removal(port)),
                // Where a guest may run, and whose the port is, holds for ports that stay, too.
                _ => {
                    let mut report = report_of(self.view, network, port);
                    let change = self.kept(intent, port, &mut report, &mut plan);
                    plan.changes.extend(change);
                    plan.reports.push(report);
                }
            }
        }
        plan.changes.retain(|change| !change.is_empty());
        plan.sync |= plan.changes.iter().any(PortChange::collapses);
        plan
    }

    /// The NIC's row: the one marked with its network. Of several (somebody copied one), the one that
    /// we made; a network that was renamed keeps its row.
    fn port_of(&self, intent: &Intent, nic: &Nic) -> Option<PortRef<'a>> {
        let rows = || self.view.ports_of(&intent.vm);
        let made_by_us = |port: &PortRef<'_>| port.uuid == port_uuid(self.view.instance(), &port.row.name);
        let marked = rows().filter(|(network, _)| *network == nic.network).map(|(_, port)| port);
        let renamed = || {
            let claimed = |network: &str| {
                intent.nics.iter().any(|nic| nic.network == network)
                    || intent.untouched.as_ref().is_some_and(|untouched| untouched.contains(network))
            };
            rows().find(|(network, _)| !claimed(network)).map(|(_, port)| port)
        };
        marked.max_by_key(made_by_us).or_else(renamed)
    }

    /// A port that stays as it is but for where it is bound and whom it belongs to.
    fn kept(
        &self,
        intent: &Intent,
        port: PortRef<'_>,
        report: &mut PortReport,
        plan: &mut VmPlan,
    ) -> Option<PortChange> {
        let switch = port.switch?;
        let mut row = port.row.clone();
        let bound = Bound { uuid: port.uuid, name: &port.row.name, present: Some(&port.row.options) };
        self.fabric.bind(self.view, &bound, &mut row.options, &intent.placement).note(report, plan);
        self.mark(&mut row.external_ids, intent, None);
        let before = Some(Placed { switch, row: port.row.clone() });
        Some(PortChange { uuid: port.uuid, before, after: Some(Placed { switch, row }) })
    }

    fn nic(&mut self, intent: &Intent, nic: &Nic, port: Option<PortRef<'_>>, plan: &mut VmPlan) {
        let present = port.and_then(|port| port.switch);
        let present = present.and_then(|uuid| Some(Switch { uuid, name: self.switch_name(uuid)? }));
        // A NIC that nobody named a switch for is not ours; a row that is on no switch (any more) is
        // about to be collected, and a second one beside it would double its addresses.
        if present.is_none() && (nic.switch.is_none() || port.is_some()) {
            return;
        }
        let mut report = PortReport {
            network: nic.network.clone(),
            port: port.map(|port| port.row.name.clone()),
            switch: present.as_ref().map(|switch| switch.name.clone()),
            addresses: port.and_then(|port| lease(port.row)),
            next: None,
            problems: Vec::new(),
        };
        if !nic.unserved.is_empty() {
            report.problems.push(Problem::Unserved(nic.unserved.clone()));
        }
        match self.serve(intent, nic, port.zip(present), &mut report, plan) {
            Ok(change) => plan.changes.push(change),
            Err(refusal) => {
                refusal.note(&mut report, plan);
                // A VM that holds a lease keeps it, whatever became of its wish.
                let change = port.and_then(|port| self.kept(intent, port, &mut report, plan));
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
            (Some((_, present)), _) => self.stay_or_move(nic, present),
            (None, Some(wish)) => (self.find_switch(&wish.name)?, None),
            (None, None) => return Err(Refusal::Again),
        };
        stays.into_iter().for_each(|refusal| refusal.note(report, plan));
        let stands_there = before.as_ref().is_some_and(|before| before.switch == switch.uuid);
        let lease = report.addresses.filter(|_| stands_there);
        let settled = match (lease, &nic.now) {
            (Some(lease), _) if nic.held_by_old_launcher => Ok(lease),
            (_, Ok(wish)) => self.settle(&switch, wish, lease, own),
            (_, Err(invalid)) => Err(Refusal::Problem(Problem::Invalid(invalid.clone()), Vec::new())),
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
            Some(before) => before.row.name.clone(),
            None => self.free_name(&intent.vm, &nic.network)?,
        };
        let next = self.next(nic, &switch, &addresses, own).unwrap_or_else(|refusal| {
            refusal.note(report, plan);
            None
        });
        self.give(switch.uuid, addresses);
        next.into_iter().for_each(|next| self.give(switch.uuid, next));
        self.names.insert(name.clone());
        report.port = Some(name.clone());
        report.switch = Some(switch.name);
        report.addresses = Some(addresses);
        report.next = next;
        let uuid = own.unwrap_or_else(|| port_uuid(self.view.instance(), &name));
        let mut row = before.as_ref().map_or_else(LogicalSwitchPort::default, |before| before.row.clone());
        row.name = name;
        let text = addresses.to_string();
        row.addresses = Set::from_iter([text.clone()]);
        row.port_security = Set::from_iter([text]);
        let present = before.as_ref().map(|before| &before.row.options);
        let bound = Bound { uuid, name: &row.name, present };
        self.fabric.bind(self.view, &bound, &mut row.options, &intent.placement).note(report, plan);
        self.mark(&mut row.external_ids, intent, Some(&nic.network));
        match next {
            Some(next) => drop(row.external_ids.insert(keys::NEXT_ADDRESSES, next.to_string())),
            None => drop(row.external_ids.remove(keys::NEXT_ADDRESSES)),
        }
        Ok(PortChange { uuid, before, after: Some(Placed { switch: switch.uuid, row }) })
    }

    /// The switch that a port stays on, or moves to; and, where it stays though another is wished,
    /// why.
    fn stay_or_move(&self, nic: &Nic, present: Switch) -> (Switch, Option<Refusal>) {
        match &nic.switch {
            Some(wish) if wish.explicit && wish.name != present.name && nic.running => {
                let problem = Problem::SwitchDeferred { present: present.name.clone(), wished: wish.name.clone() };
                (present, Some(Refusal::Problem(problem, Vec::new())))
            }
            Some(wish) if wish.explicit && wish.name != present.name => match self.find_switch(&wish.name) {
                Ok(switch) => (switch, None),
                Err(refusal) => (present, Some(refusal)),
            },
            _ => (present, None),
        }
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

    /// What the port holds from now on: the lease, changed where the owner wishes; what neither says
    /// is chosen.
    fn settle(
        &mut self,
        switch: &Switch,
        wish: &Wish,
        lease: Option<Addresses>,
        own: Option<Uuid>,
    ) -> Result<Addresses, Refusal> {
        let wished = wish.ipv4.map(IpAddr::V4).into_iter().chain(wish.ipv6.map(IpAddr::V6));
        for address in wished {
            if lease.is_none_or(|lease| !lease.ips().any(|held| held == address)) {
                self.check(switch, address, own)?;
            }
        }
        let mut ipv4 = wish.ipv4.or(lease.and_then(|lease| lease.ipv4));
        let mut ipv6 = wish.ipv6.or(lease.and_then(|lease| lease.ipv6));
        // A lease is complete: a family that the switch gained later is not forced upon it.
        if lease.is_none_or(|lease| lease.ips().next().is_none()) {
            if ipv4.is_none()
                && let Some(IpAddr::V4(chosen)) = self.choose(switch, true)?
            {
                ipv4 = Some(chosen);
            }
            if ipv6.is_none()
                && let Some(IpAddr::V6(chosen)) = self.choose(switch, false)?
            {
                ipv6 = Some(chosen);
            }
        }
        let mac = match (wish.mac, lease) {
            (Some(mac), Some(lease)) if mac == lease.mac => mac,
            (Some(mac), _) => self.check_mac(switch, mac, own)?,
            (None, Some(lease)) => lease.mac,
            (None, None) => self.make_mac(switch, ipv4.map(IpAddr::V4).or(ipv6.map(IpAddr::V6))),
        };
        Ok(Addresses { mac, ipv4, ipv6 })
    }

    /// What is reserved for the next start: nothing where it would be what holds already.
    fn next(
        &mut self,
        nic: &Nic,
        switch: &Switch,
        present: &Addresses,
        own: Option<Uuid>,
    ) -> Result<Option<Addresses>, Refusal> {
        let next = if nic.held_by_old_launcher { Some(&nic.now) } else { nic.next.as_ref() };
        if let Some(wished) = nic.next_switch.as_ref().filter(|wished| **wished != switch.name) {
            let (present, wished) = (switch.name.clone(), wished.clone());
            return Err(Refusal::Problem(Problem::SwitchDeferred { present, wished }, Vec::new()));
        }
        match next {
            None => Ok(None),
            Some(Err(invalid)) => Err(Refusal::Problem(Problem::Invalid(invalid.clone()), Vec::new())),
            Some(Ok(wish)) => {
                let next = self.settle(switch, wish, Some(*present), own)?;
                Ok((next != *present).then_some(next))
            }
        }
    }

    /// Whether a wished address may be had.
    fn check(&mut self, switch: &Switch, address: IpAddr, own: Option<Uuid>) -> Result<(), Refusal> {
        // What is reserved for it already is as good as a lease, whatever the switch says now.
        if own.is_some_and(|own| self.view.holders(&switch.uuid, address) == [own]) {
            return Ok(());
        }
        let subnet = self.subnet(switch)?;
        if subnet.block_of(address).is_none() {
            let (name, subnet) = (switch.name.clone(), subnet.to_string());
            let problem = Problem::OutOfSubnet { address, switch: name, subnet };
            return Err(Refusal::on_switch(&switch.name, problem));
        }
        let holder = self.view.holders(&switch.uuid, address).iter().find(|holder| Some(**holder) != own);
        if let Some(holder) = holder {
            let holder = self.describe(*holder);
            let problem = Problem::AddressHeld { address, switch: switch.name.clone(), holder };
            let waits = vec![Wake::Address(switch.uuid, address), Wake::Switch(switch.name.clone())];
            return Err(Refusal::Problem(problem, waits));
        }
        let given = self.given.entry(switch.uuid).or_default();
        if given.ips.family(address.is_ipv4()).contains(address) { Err(Refusal::Again) } else { Ok(()) }
    }

    fn check_mac(&mut self, switch: &Switch, mac: MacAddr6, own: Option<Uuid>) -> Result<MacAddr6, Refusal> {
        if let Some(holder) = self.view.mac_holders(&switch.uuid, mac).find(|holder| Some(*holder) != own) {
            let holder = self.describe(holder);
            let problem = Problem::MacHeld { mac, switch: switch.name.clone(), holder };
            let waits = vec![Wake::Mac(switch.uuid, mac), Wake::Switch(switch.name.clone())];
            return Err(Refusal::Problem(problem, waits));
        }
        if self.given.entry(switch.uuid).or_default().macs.contains(&mac) { Err(Refusal::Again) } else { Ok(mac) }
    }

    /// The lowest free address of a family; `None` where the switch has none of that family.
    fn choose(&mut self, switch: &Switch, ipv4: bool) -> Result<Option<IpAddr>, Refusal> {
        let subnet = self.subnet(switch)?;
        if subnet.blocks(ipv4).next().is_none() {
            return Ok(None);
        }
        let empty = Pool::default();
        let pool = self.view.pool(&switch.uuid).unwrap_or(&empty);
        let given = self.given.entry(switch.uuid).or_default().ips.family(ipv4);
        if let Some(address) = pool.lowest_free(&subnet, ipv4, given) {
            return Ok(Some(address));
        }
        if pool.lowest_free(&subnet, ipv4, &RangeSet::default()).is_some() {
            // Whether the others get the last ones is known after this transaction.
            return Err(Refusal::Again);
        }
        let problem = Problem::SubnetExhausted { switch: switch.name.clone(), subnet: subnet.to_string(), ipv4 };
        let waits = vec![Wake::Room(switch.uuid), Wake::Switch(switch.name.clone())];
        Err(Refusal::Problem(problem, waits))
    }

    /// A MAC made from the address, or from a hash of it where that one is held.
    fn make_mac(&mut self, switch: &Switch, address: Option<IpAddr>) -> MacAddr6 {
        let [first, second] = self.settings.mac_prefix;
        let mac = |tail: [u8; 4]| MacAddr6::new(first, second, tail[0], tail[1], tail[2], tail[3]);
        let hashed = |attempt: u32| {
            let seed = format!("{}/{address:?}/{attempt}", switch.uuid);
            let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, seed.as_bytes()).as_u128();
            mac(u32::try_from(hash >> 96).unwrap_or_default().to_be_bytes())
        };
        let given = &self.given.entry(switch.uuid).or_default().macs;
        let first = match address {
            Some(IpAddr::V4(address)) => mac(address.octets()),
            _ => hashed(0),
        };
        let candidates = std::iter::once(first).chain((1..).map(hashed));
        let free = |mac: &MacAddr6| self.view.mac_holders(&switch.uuid, *mac).next().is_none() && !given.contains(mac);
        // The iterator does not end, and a switch has fewer ports than there are MACs.
        candidates.into_iter().find(free).unwrap_or(first)
    }

    /// The port's name, or the one with the network appended.
    fn free_name(&self, vm: &VmKey, network: &str) -> Result<String, Refusal> {
        let name = vm.port_name();
        let fallback = format!("{name}.{network}");
        for name in [&name, &fallback] {
            if self.view.port_named(name).is_some() {
                continue;
            }
            // Whether the other VM's port comes about is known after this transaction.
            return if self.names.contains(name) { Err(Refusal::Again) } else { Ok(name.clone()) };
        }
        let waits = vec![Wake::Name(name.clone()), Wake::Name(fallback.clone())];
        Err(Refusal::Problem(Problem::NameTaken { name, fallback }, waits))
    }

    fn subnet(&mut self, switch: &Switch) -> Result<Subnet, Refusal> {
        let view = self.view;
        let given = self.given.entry(switch.uuid).or_default();
        let subnet = given.subnet.get_or_insert_with(|| view.subnet(&switch.uuid));
        subnet.clone().map_err(|reason| {
            Refusal::on_switch(&switch.name, Problem::NoSubnet { switch: switch.name.clone(), reason })
        })
    }

    fn give(&mut self, switch: Uuid, addresses: Addresses) {
        let given = self.given.entry(switch).or_default();
        addresses.ips().for_each(|ip| given.ips.family(ip.is_ipv4()).insert(ip));
        given.macs.insert(addresses.mac);
    }

    /// A holder as its owner would name it.
    fn describe(&self, holder: Uuid) -> String {
        let Some(port) = self.view.port(&holder) else { return "a port that just went".to_owned() };
        let name = &port.row.name;
        match Owner::of(&port.row.external_ids, self.view.instance()) {
            Some(owner) => format!("the VM {} (port {name})", owner.vm),
            None if port.row.kind == "router" => format!("the router port {name}"),
            None => format!("the port {name}, which is not ovn-kubevirt's"),
        }
    }

    /// Our keys in `external_ids`; what others put there stays.
    fn mark(&self, external_ids: &mut Map, intent: &Intent, network: Option<&str>) {
        external_ids.insert(keys::VENDOR, keys::OUR_VENDOR);
        external_ids.insert(keys::INSTANCE, self.view.instance());
        external_ids.insert(keys::VM, intent.vm.to_string());
        if let Some(uid) = &intent.uid {
            external_ids.insert(keys::VM_UID, uid.as_str());
        }
        if let Some(network) = network {
            external_ids.insert(keys::NETWORK, network);
        }
    }
}

/// A VM's ports as they are.
pub fn present(view: &Northbound, vm: &VmKey) -> Vec<PortReport> {
    view.ports_of(vm).map(|(network, port)| report_of(view, network, port)).collect()
}

fn report_of(view: &Northbound, network: &str, port: PortRef<'_>) -> PortReport {
    let next = port.row.external_ids.get(keys::NEXT_ADDRESSES);
    PortReport {
        network: network.to_owned(),
        port: Some(port.row.name.clone()),
        switch: port.switch.and_then(|switch| view.switch(&switch)).map(|switch| switch.name.clone()),
        addresses: lease(port.row),
        next: next.and_then(|next| next.parse().ok()),
        problems: Vec::new(),
    }
}

/// What a row of ours holds: its `port_security`, from which `addresses` are healed where somebody
/// overwrote them; else the first of its `addresses` that is a NIC's.
fn lease(row: &LogicalSwitchPort) -> Option<Addresses> {
    row.port_security.iter().chain(row.addresses.iter()).find_map(|text| text.parse().ok())
}

fn removal(port: PortRef<'_>) -> Option<PortChange> {
    let before = Placed { switch: port.switch?, row: port.row.clone() };
    Some(PortChange { uuid: port.uuid, before: Some(before), after: None })
}
