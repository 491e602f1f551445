//! From a VM's objects to what its ports should be.
//!
//! Pure, and ignorant of the northbound database: what is requested here may turn out to be impossible
//! there, which is the plan's to say. The VMI decides what is in force while one exists, because it
//! is what runs; the VM's template is then the request for the next start.

mod misplaced;
mod networks;
mod placement;
mod port;
mod request;
mod retention;

use std::collections::{BTreeSet, HashMap, HashSet};

pub use misplaced::Misplaced;
pub use networks::Attachment;
pub use placement::Placement;
pub use port::{Life, Next, PortIntent, SwitchRequest};
pub use request::{InvalidRequest, MacField, Request};
pub use retention::Retention;

use crate::kubevirt::{Namespace, Place, Template, VmObjects};
use crate::ovn::{Multichassis, VmKey};
use networks::Network;

/// What the operator chose for all VMs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The switch of pod networks that nothing else names.
    pub default_switch: Option<String>,
    /// The first two bytes of MACs that are made from addresses.
    pub mac_prefix: [u8; 2],
    /// What opens the second chassis of a port that migrates.
    pub strategy: Strategy,
    /// Whether VM owners may turn port security off.
    pub allow_port_security_off: bool,
    /// How long addresses stay reserved after their VM is deleted, where its owner does not say.
    pub default_retain: Retention,
}

/// What opens the second chassis of a port that migrates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// The guest's own RARP, which QEMU sends when it runs there.
    #[default]
    Rarp,
    /// Nothing: it is open at once, and traffic is doubled meanwhile. For datapaths where RARP is lost.
    None,
}

impl Strategy {
    /// The value of `options:activation-strategy` (ovn-nb(5)).
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Rarp => Some("rarp"),
            Self::None => None,
        }
    }

    /// What the OVN must be capable of. Without it a port that migrates has one chassis at a time: a second one that
    /// nothing keeps closed would answer beside the guest.
    pub fn needs(self) -> Multichassis {
        match self {
            Self::Rarp => Multichassis::Activated,
            Self::None => Multichassis::List,
        }
    }
}

/// What a VM's ports should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmIntent {
    /// The VM.
    pub vm: VmKey,
    /// The VM's UID, also while only its VMI is left, or a bare VMI's; `None` while only launcher pods are left.
    pub uid: Option<String>,
    /// The operator has this instance serve the VM's namespace: ports that exist are served in any case, and new ones
    /// are made only then.
    pub selected: bool,
    /// Its NICs on OVN.
    pub ports: Vec<PortIntent>,
    /// Networks whose ports stay as they are; `None`: all that are not in `nics`.
    pub untouched: Option<BTreeSet<String>>,
    /// Where its ports are bound.
    pub placement: Placement,
    /// How long its addresses stay reserved after it is deleted, where its owner says so.
    pub retain: Option<Retention>,
    /// Requests for the VM as a whole that cannot be understood.
    pub invalid: Vec<InvalidRequest>,
    /// Annotations in our own domain that mean nothing.
    pub unserved: Vec<String>,
    /// Annotations that speak of networks that the VM does not have.
    pub unmatched: Vec<String>,
    /// Requests that stand where they have no effect.
    pub misplaced: Vec<Misplaced>,
}

impl VmIntent {
    /// Works out what a VM should have whose namespace the operator does not select, or not any more: see
    /// [`VmIntent::selected`]. What the namespace's annotation says is not known then, and counts for new ports only.
    pub fn of_unselected(vm: &VmKey, objects: &VmObjects, settings: &Settings) -> Self {
        Self { selected: false, ..Self::of(vm, objects, &Namespace::default(), settings) }
    }

    /// Works out what a VM should have. There is something of it: a VM, a VMI or a launcher pod.
    pub fn of(vm: &VmKey, objects: &VmObjects, namespace: &Namespace, settings: &Settings) -> Self {
        let run_uid = objects.run.as_ref().map(|run| run.uid.as_str());
        let live = || objects.launchers.values().filter(|launcher| launcher.live);
        let old_launcher = live().any(|launcher| Some(launcher.run_uid.as_str()) != run_uid);
        let of_run = objects.run.as_ref().map(|run| run.template.as_ref());
        let of_vm = objects.vm.as_ref().map(|vm| vm.template.as_ref());
        let of_run_uid = objects.run.as_ref().map(|run| run.vm_uid.as_ref().unwrap_or(&run.uid));
        let uid = objects.vm.as_ref().map(|vm| &vm.uid).or(of_run_uid).cloned();
        let intent = Self {
            vm: vm.clone(),
            uid,
            selected: true,
            ports: Vec::new(),
            untouched: None,
            placement: Placement::of(objects),
            retain: None,
            invalid: Vec::new(),
            unserved: Vec::new(),
            unmatched: Vec::new(),
            misplaced: Vec::new(),
        };
        // While nothing, or nothing readable, says what the NICs are, ports stay as they are.
        let (Some(Ok(now)), next) = (of_run.or(of_vm), of_run.and(of_vm)) else { return intent };
        let next = match next {
            Some(Err(_)) => return intent,
            Some(Ok(template)) => Some(template),
            None => None,
        };
        let source = Source {
            vm,
            objects,
            namespace,
            settings,
            now: Networked::new(now, vm),
            next: next.map(|next| Networked::new(next, vm)),
            old_launcher,
            running: live().next().is_some(),
            placement: Placement::of(objects),
        };
        let ports = source.ports();
        // An old launcher may still use a port that the template no longer names.
        let untouched = (!old_launcher).then(|| source.untouched());
        let newest = source.next.as_ref().unwrap_or(&source.now);
        let misplaced = source.misplaced(newest, &ports);
        Self { ports, untouched, misplaced, ..intent.with_the_whole(newest) }
    }

    /// What the newest template says of the VM as a whole. How long its addresses stay reserved is nothing that runs:
    /// the newest word counts at once.
    fn with_the_whole(self, newest: &Networked<'_>) -> Self {
        let (retain, invalid) = match request::retention(newest.template) {
            Ok(retain) => (retain, Vec::new()),
            Err(invalid) => (None, vec![invalid]),
        };
        let unserved = request::unknown(newest.template);
        let unmatched = networks::unmatched(newest.template, &newest.networks);
        Self { retain, invalid, unserved, unmatched, ..self }
    }
}

/// A template and the networks in it.
struct Networked<'a> {
    template: &'a Template,
    networks: Vec<Network>,
    /// Where each is in them.
    places: HashMap<String, usize>,
}

impl<'a> Networked<'a> {
    fn new(template: &'a Template, vm: &VmKey) -> Self {
        let networks = networks::networks(&template.spec, &vm.namespace);
        let places = networks.iter().enumerate().map(|(place, network)| (network.name.clone(), place)).collect();
        Self { template, networks, places }
    }

    /// The network of that name, unless it is to be unplugged.
    fn present(&self, name: &str) -> Option<&Network> {
        self.places.get(name).map(|place| &self.networks[*place]).filter(|network| !network.absent)
    }
}

struct Source<'a> {
    vm: &'a VmKey,
    objects: &'a VmObjects,
    namespace: &'a Namespace,
    settings: &'a Settings,
    now: Networked<'a>,
    next: Option<Networked<'a>>,
    old_launcher: bool,
    running: bool,
    placement: Placement,
}

impl Source<'_> {
    fn ports(&self) -> Vec<PortIntent> {
        let mut named = HashSet::new();
        let mut ports: Vec<PortIntent> = Vec::new();
        for network in self.now.networks.iter().filter(|network| !network.absent) {
            let mut nic = self.nic(network);
            nic.another_before = named.contains(&nic.base_name);
            if nic.switch.is_some() {
                named.insert(nic.base_name.clone());
            }
            ports.push(nic);
        }
        ports
    }

    fn nic(&self, network: &Network) -> PortIntent {
        let named = |networked: &Networked<'_>, network: &Network| {
            request::switch(networked.template, network).or_else(|| self.switch_of_nad(&network.on))
        };
        let next = self.next.as_ref().and_then(|next| Some((next, next.present(&network.name)?)));
        let own = named(&self.now, network).map(|name| SwitchRequest::new(name, true));
        let (newest, newest_network) = next.unwrap_or((&self.now, network));
        let switch = own.or_else(|| self.default_switch(&network.on));
        let is_there = match &network.on {
            Attachment::Pod => true,
            // One that has not come yet may name a switch.
            Attachment::Nad(nad) => self.objects.nads.contains_key(nad),
        };
        let request = Request::of(self.now.template, network);
        let coming = next.map(|(next, network)| Next {
            request: Request::of(next.template, network),
            switch: named(next, network).filter(|name| !name.is_empty()),
        });
        let life = match (self.old_launcher, self.running) {
            (true, _) => Life::Leaving { request, next: coming },
            (false, true) => Life::Running { now: request, next: coming },
            (false, false) => Life::Stopped { request, next: coming },
        };
        PortIntent {
            network: network.name.clone(),
            base_name: network.on.port_name(self.vm),
            ambiguous: network.on.ambiguous(self.vm),
            another_before: false,
            on_none_of_ours: switch.is_none() && is_there,
            switch,
            life,
            placement: self.placement.clone(),
            unserved: request::unserved(newest.template, newest_network),
        }
    }

    fn switch_of_nad(&self, on: &Attachment) -> Option<String> {
        match on {
            Attachment::Pod => None,
            Attachment::Nad(nad) => self.objects.nads.get(nad).cloned().flatten(),
        }
    }

    /// What pod networks get that nobody names a switch for.
    fn default_switch(&self, on: &Attachment) -> Option<SwitchRequest> {
        match on {
            Attachment::Pod => {
                let default = || self.settings.default_switch.clone().map(|name| SwitchRequest::new(name, false));
                let of_namespace = self.namespace.switches.split_first().map(|(name, others)| SwitchRequest {
                    name: name.clone(),
                    others: others.to_vec(),
                    explicit: false,
                });
                of_namespace.or_else(default)
            }
            Attachment::Nad(_) => None,
        }
    }

    /// The requests that stand where they have no effect: on the VM, its launcher pods, and the NADs of its NICs of ours.
    fn misplaced(&self, newest: &Networked<'_>, ports: &[PortIntent]) -> Vec<Misplaced> {
        let ours = ports.iter().filter(|nic| nic.switch.is_some()).filter_map(|nic| self.now.present(&nic.network));
        let on: HashSet<&Attachment> = ours.map(|network| &network.on).collect();
        let is_ours = |place: &Place| match place {
            Place::Vm | Place::Launcher(_) => true,
            Place::Nad(nad) => on.contains(&Attachment::Nad(nad.clone())),
        };
        let standing = self.objects.misplaced.iter().filter(|(place, _)| is_ours(place));
        let standing = standing.map(|(place, keys)| Misplaced::Elsewhere { place: place.clone(), keys: keys.to_vec() });
        standing.chain(networks::lacking_ovn(newest.template, &newest.networks)).collect()
    }

    /// Networks whose ports stay as they are: those that the next start brings, and those that are being unplugged from
    /// the guest that runs. Their pod's interface may be there until the VMI no longer names them.
    fn untouched(&self) -> BTreeSet<String> {
        let coming = self.next.iter().flat_map(|next| next.networks.iter().filter(|network| !network.absent));
        let unplugged = self.now.networks.iter().filter(|network| network.absent && self.objects.run.is_some());
        coming.chain(unplugged).map(|network| network.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
