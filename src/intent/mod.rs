//! The intent: from a VM's objects to the requests for its ports.
//!
//! Pure, and independent of the northbound database: a request may turn out to be impossible there, which is for the
//! decision to find. While a VMI exists, it is in force, because it describes the running guest; the VM's template is
//! then the request for the next start.

mod dhcp;
mod family;
mod misplaced;
mod networks;
mod placement;
mod policy;
mod port;
mod request;
mod retention;
mod seats;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

pub use dhcp::{Binding, DhcpMode, DhcpRequest, DhcpSettings};
pub use family::IpFamily;
pub use misplaced::Misplaced;
pub use networks::Attachment;
pub(crate) use networks::networks;
pub use placement::Placement;
pub use policy::{Namespaces, Permission, Permissions, Policy, UnknownWord};
pub use port::{Arrived, Life, Next, PortIntent, Seat, SwitchRequest, Written};
pub use request::{InvalidRequest, MacField, Request};
pub use retention::Retention;

use crate::contract::VmKey;
use crate::kubevirt::{Namespace, Place, Template, VmObjects};
use crate::ovn::Multichassis;
use networks::Network;
use seats::{Pods, Seated};

/// The operator's settings for all VMs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The default switch of pod networks.
    pub default_switch: Option<String>,
    /// The first two bytes of MACs that are made from addresses.
    pub mac_prefix: [u8; 2],
    /// The strategy that opens the second chassis of a port that migrates.
    pub strategy: Strategy,
    /// The default time that addresses stay reserved after their VM is deleted.
    pub default_retain: Retention,
    /// The policy.
    pub policy: Policy,
    /// Router ports of switches with IPv6 ports get the keys that they lack to advertise themselves.
    pub manage_ra: bool,
    /// DHCP by OVN.
    pub dhcp: DhcpSettings,
}

impl Settings {
    /// The longest time that addresses may stay reserved: the operator's own default is always allowed.
    pub fn longest_retention(&self) -> Retention {
        self.policy.max_retain.max(self.default_retain)
    }
}

/// The strategy that opens the second chassis of a port that migrates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// The guest's own RARP, which QEMU sends when it runs there.
    #[default]
    Rarp,
    /// No activation: it is open at once, and traffic is doubled meanwhile. For datapaths where RARP is lost.
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

    /// The required capability of OVN. Without it a port that migrates has one chassis at a time: a second chassis
    /// without activation would answer beside the guest.
    pub fn needs(self) -> Multichassis {
        match self {
            Self::Rarp => Multichassis::Activated,
            Self::None => Multichassis::List,
        }
    }
}

/// The requests for a VM's ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmIntent {
    /// The VM.
    pub vm: VmKey,
    /// The VM's UID, also while only its VMI is left, or a bare VMI's; `None` while only launcher pods are left.
    pub uid: Option<String>,
    /// True if this instance serves the VM's namespace by the operator's choice. Existing ports are served in any case,
    /// and new ones are created only then.
    pub selected: bool,
    /// Its NICs on OVN.
    pub ports: Vec<PortIntent>,
    /// Networks with ports that stay as they are; `None`: all that are not in `ports`.
    pub untouched: Option<BTreeSet<String>>,
    /// The placement of its ports.
    pub placement: Placement,
    /// Another placement of ports that stay as they are, by network: some of the VM's pods lack the NIC.
    pub apart: BTreeMap<String, Placement>,
    /// The time that its addresses stay reserved after it is deleted, if its owner requests one.
    pub retain: Option<Retention>,
    /// Unreadable requests for the VM as a whole.
    pub invalid: Vec<InvalidRequest>,
    /// Unknown annotations in our own domain.
    pub unserved: Vec<String>,
    /// Annotations for networks that the VM does not have.
    pub unmatched: Vec<String>,
    /// Requests in places where they have no effect.
    pub misplaced: Vec<Misplaced>,
}

impl VmIntent {
    /// Returns the intent of a VM in a namespace without the labels of the operator's selector: see
    /// [`VmIntent::selected`]. The namespace's annotation is unknown then, and would apply to new ports only.
    pub fn of_unselected(vm: &VmKey, objects: &VmObjects, settings: &Settings) -> Self {
        Self { selected: false, ..Self::of(vm, objects, &Namespace::default(), settings) }
    }

    /// Returns the intent of a VM. At least one of its objects exists: a VM, a VMI or a launcher pod.
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
            apart: BTreeMap::new(),
            retain: None,
            invalid: Vec::new(),
            unserved: Vec::new(),
            unmatched: Vec::new(),
            misplaced: Vec::new(),
        };
        // Without a readable list of the NICs, ports stay as they are.
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
            pods: Pods::of(objects),
        };
        let ports = source.ports();
        // An old launcher may still use a port that the template no longer names.
        let untouched = (!old_launcher).then(|| source.untouched());
        let newest = source.next.as_ref().unwrap_or(&source.now);
        let misplaced = source.misplaced(newest, &ports);
        let apart = source.apart().into_iter().collect();
        Self { ports, untouched, apart, misplaced, ..intent.with_the_whole(newest) }
    }

    /// Adds the requests of the newest template for the VM as a whole. The retention time does not affect the running
    /// guest: the newest value applies at once.
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
    /// The index of each network by name.
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
    pods: Pods<'a>,
}

impl Source<'_> {
    /// The ports of all NICs: those of the guest first, so that a NIC that comes to a network takes no name from one there.
    fn ports(&self) -> Vec<PortIntent> {
        let (mut ports, mut coming) = (Vec::new(), Vec::new());
        for network in self.now.networks.iter().filter(|network| !network.absent) {
            let mut seats = self.seats(network).into_iter().map(|seated| self.nic(seated));
            ports.extend(seats.next());
            coming.extend(seats);
        }
        ports.append(&mut coming);
        let mut named = HashSet::new();
        for nic in &mut ports {
            nic.another_before = named.contains(&nic.base_name);
            if nic.switch.is_some() {
                named.insert(nic.base_name.clone());
            }
        }
        ports
    }

    fn nic(&self, seated: Seated) -> PortIntent {
        let Seated { network, named_for, nads, switch, seat, arrived, is_prepared, placement } = seated;
        let next = self.next.as_ref().and_then(|next| Some((next, next.present(&network.name)?)));
        let (newest, newest_network) = next.unwrap_or((&self.now, &network));
        let switch = switch.or_else(|| self.default_switch(&network.on));
        let missing_nad = match &network.on {
            Attachment::Pod => None,
            Attachment::Nad(nad) => Some(nad).filter(|nad| !self.objects.nads.contains_key(nad)),
        };
        // Told once.
        let unserved = match seat {
            Seat::Coming => Vec::new(),
            _ => request::unserved(newest.template, newest_network),
        };
        PortIntent {
            network: network.name.clone(),
            base_name: named_for.port_name(self.vm),
            ambiguous: named_for.ambiguous(self.vm),
            another_before: false,
            // A NAD that has not been read yet may name a switch.
            on_none_of_ours: switch.is_none() && missing_nad.is_none(),
            // A name that no NAD can have is reported with the request.
            missing_nad: missing_nad.filter(|_| network.on.invalid().is_none()).cloned(),
            switch,
            nads,
            seat,
            arrived,
            binding: network.binding.clone(),
            pod_port: self.pods.port_of(&network.name).filter(|_| matches!(seat, Seat::Left | Seat::Moved)),
            life: self.life(&network, seat, is_prepared),
            placement,
            unserved,
        }
    }

    fn request(&self, of: &Networked<'_>, network: &Network) -> Written {
        Request::of(of.template, network, &self.settings.dhcp.table)
    }

    fn life(&self, network: &Network, seat: Seat, is_prepared: bool) -> Life {
        if seat == Seat::Coming {
            let request = match self.newest_on(network) {
                Some((next, network)) => self.request(next, network),
                None => self.request(&self.now, network),
            };
            return match is_prepared {
                true => Life::Leaving { request, next: None },
                false => Life::Stopped { request, next: None },
            };
        }
        let request = self.request(&self.now, network);
        // At its next start the NIC is elsewhere.
        let next = self.next.as_ref().filter(|_| seat != Seat::Left);
        let next = next.and_then(|next| Some((next, next.present(&network.name)?))).map(|(next, network)| Next {
            request: self.request(next, network),
            switch: self.switch_of(next, network).filter(|request| !request.name.is_empty()),
        });
        match (self.old_launcher, self.running) {
            (true, _) => Life::Leaving { request, next },
            (false, true) => Life::Running { now: request, next },
            (false, false) => Life::Stopped { request, next },
        }
    }

    fn switch_of_nad(&self, on: &Attachment) -> Option<String> {
        match on {
            Attachment::Pod => None,
            Attachment::Nad(nad) => self.objects.nads.get(nad).cloned().flatten(),
        }
    }

    /// The default switch of a pod network.
    fn default_switch(&self, on: &Attachment) -> Option<SwitchRequest> {
        match on {
            Attachment::Pod => {
                let default = || self.settings.default_switch.clone().map(|name| SwitchRequest::new(name, false));
                let of_namespace = self.namespace.switches.split_first().map(|(name, others)| SwitchRequest {
                    name: name.clone(),
                    others: others.to_vec(),
                    explicit: false,
                    of_vm: false,
                });
                of_namespace.or_else(default)
            }
            Attachment::Nad(_) => None,
        }
    }

    /// The requests in places where they have no effect: on the VM, its launcher pods, and the NADs of its NICs of
    /// ours.
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

    /// Networks with ports that this decision leaves alone: those of the next start, and those that are being unplugged from the
    /// running guest. Their pod's interface may exist until they are removed from the VMI.
    fn untouched(&self) -> BTreeSet<String> {
        let coming = self.next.iter().flat_map(|next| next.networks.iter().filter(|network| !network.absent));
        let unplugged = self.now.networks.iter().filter(|network| network.absent && self.objects.run.is_some());
        coming.chain(unplugged).map(|network| network.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
