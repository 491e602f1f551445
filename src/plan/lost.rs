//! Leases whose rows the northbound database has lost: a switch was deleted and recreated, a backup was restored, or a
//! row was deleted by hand.
//!
//! The last lease of a VM stands in its annotation, and its guest may still use it. It ranks right behind an explicit
//! request of the VM, and meanwhile it is not allocated to other VMs. An explicit request of another VM gets it only if
//! no guest runs with it.
//!
//! Tenants can write the annotation, so a lease on a switch that is closed to its VM is kept from no other VM. This is
//! determined where a lease is in the way, and not when it is found: the policy on a switch may change meanwhile, and two
//! switches of one name may have different ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use macaddr::MacAddr6;

use super::claims::Claim;
use super::switch_policy::SwitchPolicy;
use super::vm_rows::is_on_the_network_of;
use crate::contract::VmKey;
use crate::intent::{Policy, PortIntent, VmIntent};
use crate::ipam::RangeSet;
use crate::kubevirt::{AnnotatedPort, PortsAnnotation, Reported, VmObjects};
use crate::ovn::{Addresses, Northbound};

/// The mark in a VM's annotation of a port that its guest is to come to.
const IS_TO_COME: &str = "\"coming\":true";

/// The last lease in a VM's annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastLease {
    /// The logical switch, by name.
    pub switch: String,
    /// The addresses.
    pub addresses: Addresses,
}

impl LastLease {
    /// Reads the lease of a port in the annotation: its present addresses, or its last ones.
    pub(super) fn of(port: &AnnotatedPort) -> Option<Self> {
        let switch = port.switch.clone()?;
        let addresses = match (&port.mac, &port.last) {
            (Some(mac), _) => format!("{mac} {}", port.ips.join(" ")).parse(),
            (None, Some(last)) => last.parse(),
            (None, None) => return None,
        };
        let addresses: Addresses = addresses.ok()?;
        // The tenant can write the annotation.
        let may_be = addresses.mac.is_unicast() && !addresses.mac.is_nil();
        may_be.then_some(Self { switch, addresses })
    }

    /// The lease of a NIC, on a switch that the NIC names. A lease on any other switch is outside the VM's scope.
    pub(super) fn of_nic(told: &PortsAnnotation, nic: &PortIntent) -> Option<Self> {
        let told = told.ports.iter().filter(|port| port.network == nic.network);
        let there = nic.arrived.iter().filter_map(|arrived| arrived.switch.as_ref());
        let named = nic.switch.iter().chain(there);
        let named = |last: &Self| named.clone().any(|named| named.has(&last.switch));
        let mut leases = told.filter_map(|port| Some((port, Self::of(port).filter(named)?)));
        let is_of_another = |port: &AnnotatedPort| port.port.as_ref().is_some_and(|name| !nic.was_named_for(name));
        match nic.seat.is_one_of_several() {
            true => leases.min_by_key(|(port, _)| is_of_another(port)).map(|(_, last)| last),
            false => leases.next().map(|(_, last)| last),
        }
    }

    /// The lease on a network of the VM, on any switch.
    pub(super) fn of_network(told: &PortsAnnotation, network: &str) -> Option<Self> {
        told.ports.iter().find(|port| port.network == network).and_then(Self::of)
    }
}

/// The annotation of a VM, if this instance wrote it for this very VM.
pub(super) fn told(objects: &VmObjects, instance: &str) -> Option<PortsAnnotation> {
    let (uid, reported) = subject(objects)?;
    let told = PortsAnnotation::parse(reported.text.as_deref()?)?;
    // Another instance that has no port of the VM any more leaves its last leases to this one.
    let is_left = || told.ports.iter().all(|port| port.port.is_none());
    (told.is_for(uid) && (told.instance == instance || is_left())).then_some(told)
}

/// The other instance that wrote a VM's annotation, and has ports of the VM.
pub(super) fn served_by_another(objects: &VmObjects, instance: &str) -> Option<String> {
    let (uid, reported) = subject(objects)?;
    let told = PortsAnnotation::parse(reported.text.as_deref()?)?;
    let has_ports = told.ports.iter().any(|port| port.port.is_some());
    (told.is_for(uid) && told.instance != instance && has_ports).then_some(told.instance)
}

/// The object that carries the annotation: the VM, or a bare VMI.
fn subject(objects: &VmObjects) -> Option<(&str, &Reported)> {
    let of_vm = objects.vm.as_ref().map(|vm| (vm.uid.as_str(), &vm.reported));
    of_vm.or_else(|| objects.run.as_ref().map(|run| (run.uid.as_str(), &run.reported)))
}

/// A switch, and the namespaces that may use it.
pub(super) struct Access<'a> {
    pub(super) switch: &'a str,
    pub(super) policy: Arc<SwitchPolicy>,
    pub(super) configured: &'a Policy,
}

impl Access<'_> {
    /// `None`: all of them.
    fn namespaces(&self) -> Option<&BTreeSet<String>> {
        self.policy.lets_in(self.switch, self.configured)
    }

    fn lets(&self, vm: &VmKey) -> bool {
        self.namespaces().is_none_or(|names| names.contains(&vm.namespace))
    }
}

/// The known lost leases of all VMs.
#[derive(Debug, Default)]
pub struct Lost {
    /// The leases of each VM, and true if its guest runs.
    of: HashMap<VmKey, (Vec<LastLease>, bool)>,
    on: HashMap<String, OnSwitch>,
}

/// The lost leases on the switches of one name.
#[derive(Debug, Default)]
struct OnSwitch {
    /// By address, the VMs that held it last, and true for those with a running guest.
    ips: HashMap<IpAddr, Vec<(VmKey, bool)>>,
    macs: HashMap<MacAddr6, Vec<(VmKey, bool)>>,
    addresses: AddressSets,
    /// The addresses that the VMs of each namespace have lost.
    of_namespaces: BTreeMap<String, AddressSets>,
}

#[derive(Debug, Default)]
struct AddressSets {
    ipv4: RangeSet,
    ipv6: RangeSet,
}

impl AddressSets {
    fn family(&self, ipv4: bool) -> &RangeSet {
        if ipv4 { &self.ipv4 } else { &self.ipv6 }
    }

    fn family_mut(&mut self, ipv4: bool) -> &mut RangeSet {
        if ipv4 { &mut self.ipv4 } else { &mut self.ipv6 }
    }

    fn is_empty(&self) -> bool {
        self.ipv4.is_empty() && self.ipv6.is_empty()
    }
}

impl OnSwitch {
    fn add(&mut self, vm: &VmKey, running: bool, addresses: Addresses) {
        for ip in addresses.ips() {
            self.ips.entry(ip).or_default().push((vm.clone(), running));
            self.addresses.family_mut(ip.is_ipv4()).insert(ip);
            self.of_namespaces.entry(vm.namespace.clone()).or_default().family_mut(ip.is_ipv4()).insert(ip);
        }
        self.macs.entry(addresses.mac).or_default().push((vm.clone(), running));
    }

    fn remove(&mut self, vm: &VmKey, addresses: Addresses) {
        for ip in addresses.ips() {
            remove(&mut self.ips, ip, vm);
            let left = self.ips.get(&ip).map(Vec::as_slice).unwrap_or_default();
            if left.is_empty() {
                self.addresses.family_mut(ip.is_ipv4()).remove(ip);
            }
            let is_shared = left.iter().any(|(other, _)| other.namespace == vm.namespace);
            if !is_shared && let Some(of_namespace) = self.of_namespaces.get_mut(&vm.namespace) {
                of_namespace.family_mut(ip.is_ipv4()).remove(ip);
                if of_namespace.is_empty() {
                    self.of_namespaces.remove(&vm.namespace);
                }
            }
        }
        remove(&mut self.macs, addresses.mac, vm);
    }
}

fn remove<K: std::hash::Hash + Eq>(of: &mut HashMap<K, Vec<(VmKey, bool)>>, key: K, vm: &VmKey) {
    let Some(vms) = of.get_mut(&key) else { return };
    vms.retain(|(other, _)| other != vm);
    if vms.is_empty() {
        of.remove(&key);
    }
}

/// The result of a search for lost leases.
#[derive(Debug, Default)]
pub struct Looked {
    /// Leases that are no longer lost, or have no running guest any more: others may wait for them.
    pub over: Vec<LastLease>,
    /// More leases are lost, or a guest has started: prepared decisions may allocate these addresses to others.
    pub grew: bool,
}

impl Lost {
    /// Searches for the lost leases of a VM that is decided again: those in its annotation, on a switch that the NIC
    /// names, with no row of that network. `intent` is called only if needed.
    pub fn look(
        &mut self,
        vm: &VmKey,
        objects: Option<&VmObjects>,
        view: &Northbound,
        intent: impl FnOnce(&VmObjects) -> VmIntent,
    ) -> Looked {
        let found = objects.map(|objects| find(vm, objects, view, intent)).unwrap_or_default();
        if found.is_empty() && !self.of.contains_key(vm) {
            return Looked::default();
        }
        let (before, ran) = self.of.remove(vm).unwrap_or_default();
        for LastLease { switch, addresses } in &before {
            if let Some(on) = self.on.get_mut(switch) {
                on.remove(vm, *addresses);
                if on.macs.is_empty() {
                    self.on.remove(switch);
                }
            }
        }
        let running = objects.is_some_and(VmObjects::may_run);
        for LastLease { switch, addresses } in &found {
            self.on.entry(switch.clone()).or_default().add(vm, running, *addresses);
        }
        let grew = found.iter().any(|lease| !before.contains(lease) || running && !ran);
        let over = before.into_iter().filter(|lease| !found.contains(lease) || ran && !running).collect();
        if !found.is_empty() {
            self.of.insert(vm.clone(), (found, running));
        }
        Looked { over, grew }
    }

    /// The VM other than this one with a running guest that has an address or MAC of a switch.
    pub(super) fn guest_with(&self, access: &Access<'_>, claim: Claim, vm: &VmKey) -> Option<&VmKey> {
        let running = |(other, running): &&(VmKey, bool)| *running && other != vm && access.lets(other);
        self.with(access.switch, claim).iter().find(running).map(|(other, _)| other)
    }

    /// Returns true if a MAC of a switch is lost by a VM other than this one.
    pub(super) fn has_mac(&self, access: &Access<'_>, mac: MacAddr6, vm: &VmKey) -> bool {
        self.with(access.switch, Claim::Mac(mac)).iter().any(|(other, _)| other != vm && access.lets(other))
    }

    /// The VMs that lost an address or MAC of a switch.
    fn with(&self, switch: &str, claim: Claim) -> &[(VmKey, bool)] {
        let on = self.on.get(switch);
        let vms = on.and_then(|on| match claim {
            Claim::Ip(ip) => on.ips.get(&ip),
            Claim::Mac(mac) => on.macs.get(&mac),
        });
        vms.map(Vec::as_slice).unwrap_or_default()
    }

    /// The lost addresses of a family on a switch.
    pub(super) fn addresses(&self, access: &Access<'_>, ipv4: bool) -> Vec<&RangeSet> {
        let Some(on) = self.on.get(access.switch) else { return Vec::new() };
        let sets: Vec<&AddressSets> = match access.namespaces() {
            None => vec![&on.addresses],
            Some(names) => names.iter().filter_map(|name| on.of_namespaces.get(name)).collect(),
        };
        sets.into_iter().map(|sets| sets.family(ipv4)).collect()
    }

    /// Returns true if a search may have a result: the VM has an annotation, or lost leases.
    pub fn concerns(&self, vm: &VmKey, objects: Option<&VmObjects>) -> bool {
        objects.and_then(subject).is_some_and(|(_, reported)| reported.text.is_some()) || self.has(vm)
    }

    /// Returns true if the VM has lost leases.
    pub fn has(&self, vm: &VmKey) -> bool {
        !self.of.is_empty() && self.of.contains_key(vm)
    }

    /// All VMs with lost leases.
    pub fn vms(&self) -> BTreeSet<VmKey> {
        self.of.keys().cloned().collect()
    }
}

fn find(
    vm: &VmKey,
    objects: &VmObjects,
    view: &Northbound,
    intent: impl FnOnce(&VmObjects) -> VmIntent,
) -> Vec<LastLease> {
    // A VM without an annotation has lost no lease.
    if subject(objects).is_none_or(|(_, reported)| reported.text.is_none()) {
        return Vec::new();
    }
    let of_run = objects.run.as_ref().map(|run| &run.template);
    let template = of_run.or(objects.vm.as_ref().map(|vm| &vm.template)).and_then(|template| template.as_ref().ok());
    let listed = template.and_then(|template| template.spec.networks.as_deref()).unwrap_or_default();
    let mut networks: BTreeSet<&str> = listed.iter().map(|network| network.name.as_str()).collect();
    if networks.is_empty() {
        // The network of a VM that lists none.
        networks.insert("default");
    }
    // The usual case: a row for each network, and no need to read the annotation.
    let rows: BTreeSet<&str> = view.ports_of(vm).map(|(network, _)| network).collect();
    networks.retain(|network| !rows.contains(network));
    // A NIC with a port that is to come has two.
    let text = subject(objects).and_then(|(_, reported)| reported.text.as_deref());
    let changes = text.is_some_and(|text| text.contains(IS_TO_COME));
    if networks.is_empty() && !changes {
        return Vec::new();
    }
    let Some(told) = told(objects, view.instance()) else { return Vec::new() };
    let intent = intent(objects);
    let lacks_one = |nic: &&PortIntent| {
        let mut rows = view.ports_of(vm).filter(|(network, _)| *network == nic.network);
        nic.seat.is_one_of_several() && !rows.any(|(_, port)| is_on_the_network_of(view, nic, &port))
    };
    let nics = intent.ports.iter().filter(|nic| networks.contains(nic.network.as_str()) || lacks_one(nic));
    nics.filter_map(|nic| LastLease::of_nic(&told, nic)).collect()
}
