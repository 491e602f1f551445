//! The attachments that a NIC has at one moment: one, or several while a running VM changes the NIC's network.
//!
//! KubeVirt puts another NetworkAttachmentDefinition (NAD) into the spec of a running instance at once, and moves the
//! guest to it by a live migration seconds later, by several where one fails. Meanwhile the spec tells the requested
//! attachment, and the annotation of each launcher pod (`kubevirt/pod_networks.rs`) tells the one that the pod is
//! plugged to. Each attachment is a seat with a port of its own:
//!
//! ```text
//!   the guest's pod -----------------> net1   the guest's seat, bound to the guest's node
//!   a migration's target pod --------> net2   a coming seat, bound to the target's node
//!   spec.networks[] of the VMI ------> net2   the same; without a target pod it is bound nowhere
//! ```
//!
//! The seats are a function of the present objects: a migration that fails leaves the requested seat, and an edit that is
//! taken back removes it. NADs on one logical switch are one seat, because the guest keeps its MAC and so its port.

use super::SwitchRequest;
use super::networks::{Attachment, Network};
use super::placement::{Launchers, Placement, waiting};
use super::port::{Arrived, Seat};
use super::{Networked, Source, request};
use crate::contract::NadKey;
use crate::kubevirt::{Launcher, Plugged, VmObjects};

/// The launchers between which the guest moves.
pub(super) struct Pods<'a> {
    launchers: Launchers<'a>,
    waiting: Vec<&'a Launcher>,
    placement: Placement,
}

/// One attachment of a NIC.
pub(super) struct Seated {
    /// The network as it is there.
    pub(super) network: Network,
    /// The attachment that its port is named for: the one that the guest's pod is plugged to, where several are one seat.
    pub(super) named_for: Attachment,
    /// Its NADs; none on the pod network.
    pub(super) nads: Vec<NadKey>,
    pub(super) switch: Option<SwitchRequest>,
    pub(super) seat: Seat,
    pub(super) arrived: Option<Arrived>,
    /// A launcher pod that waits for the guest is plugged to it.
    pub(super) is_prepared: bool,
    pub(super) placement: Placement,
}

impl<'a> Pods<'a> {
    pub(super) fn of(objects: &'a VmObjects) -> Self {
        let waiting = objects.run.iter().flat_map(|run| waiting(objects, run)).collect();
        Self { launchers: Launchers::of(objects), waiting, placement: Placement::of(objects) }
    }

    /// The NAD that the guest's pod is plugged to.
    fn of_guest(&self, network: &str) -> Option<&'a NadKey> {
        self.launchers.home.and_then(|launcher| on(launcher, network))
    }

    /// The port that the guest's pod was plugged to, if it was named for another NAD.
    pub(super) fn port_of(&self, network: &str) -> Option<String> {
        self.launchers.home.and_then(|launcher| launcher.networks.port_of(network)).map(ToOwned::to_owned)
    }

    /// Returns true if a live migration has brought the guest to its pod.
    fn have_moved(&self) -> bool {
        self.launchers.home.is_some_and(|home| home.migration.is_some())
    }

    /// Places a port by the pods that have the NIC: a pod that does not tell has it, where the guest is.
    fn place(&self, network: &str, nads: &[NadKey], is_guests: bool) -> Option<Placement> {
        let Placement::On { home, target, arrived } = &self.placement else { return None };
        let has = |launcher: Option<&Launcher>| {
            launcher.is_some_and(|launcher| match launcher.networks.of_network(network) {
                Plugged::On(nad) => nads.contains(nad),
                Plugged::Unknown => is_guests,
                Plugged::Lacks => false,
            })
        };
        let Launchers { home: source, target: destination } = self.launchers;
        let on = |node: &String, arrived| Placement::On { home: node.clone(), target: None, arrived };
        match (has(source), has(destination), target) {
            (true, true, _) => Some(self.placement.clone()),
            (true, false, _) => Some(on(home, *arrived)),
            (false, true, Some(target)) => Some(on(target, false)),
            (false, _, _) => Some(Placement::Unbound),
        }
    }
}

/// The NAD that a pod is plugged to.
fn on<'a>(launcher: &'a Launcher, network: &str) -> Option<&'a NadKey> {
    match launcher.networks.of_network(network) {
        Plugged::On(nad) => Some(nad),
        Plugged::Lacks | Plugged::Unknown => None,
    }
}

impl Source<'_> {
    /// The attachments of a NIC, the guest's first.
    pub(super) fn seats(&self, network: &Network) -> Vec<Seated> {
        let placement = self.pods.placement.clone();
        let only = |network: Network, nads, switch| Seated {
            named_for: network.on.clone(),
            network,
            nads,
            switch,
            seat: Seat::Assumed,
            arrived: None,
            is_prepared: false,
            placement,
        };
        let nad = match &network.on {
            Attachment::Nad(nad) if !network.default && self.running && !self.old_launcher => nad,
            on => {
                let nads = if let Attachment::Nad(nad) = on { vec![nad.clone()] } else { Vec::new() };
                return vec![only(network.clone(), nads, self.switch_of(&self.now, network))];
            }
        };
        let of_guest = self.pods.of_guest(&network.name);
        let mut seats = vec![self.seated(network, of_guest.unwrap_or(nad), true)];
        let prepared = self.pods.waiting.iter().filter_map(|launcher| on(launcher, &network.name));
        for (nad, is_prepared) in prepared.map(|nad| (nad, true)).chain([(nad, false)]) {
            let other = self.seated(network, nad, false);
            let is_same = |seat: &&mut Seated| {
                let name = |switch: &'_ Option<SwitchRequest>| switch.as_ref().map(|switch| switch.name.clone());
                let on_one_switch = seat.switch.is_some() && name(&seat.switch) == name(&other.switch);
                seat.nads.contains(nad) || on_one_switch
            };
            match seats.iter_mut().find(is_same) {
                Some(seat) => {
                    seat.is_prepared |= is_prepared;
                    seat.nads.extend((!seat.nads.contains(nad)).then(|| nad.clone()));
                }
                None => seats.push(Seated { is_prepared, ..other }),
            }
        }
        let several = seats.len() > 1;
        for (at, seated) in seats.iter_mut().enumerate() {
            seated.seat = match (several, at, of_guest) {
                (true, 0, _) => Seat::Left,
                (true, _, _) => Seat::Coming,
                (false, _, None) => Seat::Assumed,
                (false, _, Some(_)) if self.pods.have_moved() => Seat::Moved,
                (false, _, Some(_)) => Seat::Known,
            };
            let placed = self.pods.place(&network.name, &seated.nads, at == 0);
            seated.placement = match (placed, several, &self.pods.placement) {
                // A pod that lacks the NIC is about to get it.
                (Some(Placement::Unbound) | None, false, placement) => placement.clone(),
                (Some(placed), _, _) => placed,
                (None, true, placement) if at == 0 || *placement == Placement::Keep => placement.clone(),
                (None, true, _) => Placement::Unbound,
            };
        }
        if let [only] = &mut seats[..] {
            // One port serves all of its NADs, by the requests for the one that the spec names.
            only.network = network.clone();
            only.switch = self.switch_of(&self.now, network);
        }
        if let Some(guests) = seats.first_mut().filter(|_| of_guest.is_some() && self.pods.have_moved()) {
            guests.arrived = Some(Arrived { switch: self.switch_there(&guests.network) });
        }
        seats
    }

    /// The switch that a network names without the requests of the instance, which are those of its start.
    fn switch_there(&self, network: &Network) -> Option<SwitchRequest> {
        match self.newest_on(network) {
            Some((next, network)) => self.switch_of(next, network),
            None => self.switch_of(&self.now, &network.without_its_name()),
        }
    }

    /// A NIC on a NAD. For a guest that is not there yet, the newest template with that NAD tells the request; without
    /// one, what the instance has for the NIC by its name is for the network of its start.
    fn seated(&self, network: &Network, nad: &NadKey, is_guests: bool) -> Seated {
        let mut network = network.moved_to(nad);
        let newest = self.newest_on(&network).filter(|_| !is_guests);
        let switch = newest.map(|(next, network)| self.switch_of(next, network));
        if switch.is_none() && !is_guests && self.next.is_some() {
            network = network.without_its_name();
        }
        let switch = switch.unwrap_or_else(|| self.switch_of(&self.now, &network));
        let (named_for, nads) = (network.on.clone(), vec![nad.clone()]);
        let (seat, placement) = (Seat::Assumed, Placement::Keep);
        Seated { network, named_for, nads, switch, seat, arrived: None, is_prepared: false, placement }
    }

    /// The network in the VM's template, if the template has it on the same attachment.
    pub(super) fn newest_on(&self, network: &Network) -> Option<(&Networked<'_>, &Network)> {
        let next = self.next.as_ref()?;
        next.present(&network.name).filter(|next| next.on == network.on).map(|network| (next, network))
    }

    /// The switch that a template, or the NAD in it, names for a network.
    pub(super) fn switch_of(&self, networked: &Networked<'_>, network: &Network) -> Option<SwitchRequest> {
        let of_vm = request::switch(networked.template, network).map(SwitchRequest::of_vm);
        of_vm.or_else(|| self.switch_of_nad(&network.on).map(|name| SwitchRequest::new(name, true)))
    }

    /// The placement of ports whose NICs are being unplugged, if it differs from the VM's: a pod that lacks the NIC does
    /// not get the port.
    pub(super) fn apart(&self) -> Vec<(String, Placement)> {
        let is_unplugged = |network: &&Network| network.absent && !network.default && self.running;
        let unplugged = self.now.networks.iter().filter(is_unplugged).filter(|_| !self.old_launcher);
        let placed = unplugged.filter_map(|network| {
            let Attachment::Nad(nad) = &network.on else { return None };
            let nad = self.pods.of_guest(&network.name).unwrap_or(nad).clone();
            let placed = match (self.pods.place(&network.name, &[nad], true)?, &self.pods.placement) {
                // virt-controller takes the NIC out of the annotation before the pod loses the interface.
                (Placement::Unbound, Placement::On { home, arrived, .. }) if !self.pods.have_moved() => {
                    Placement::On { home: home.clone(), target: None, arrived: *arrived }
                }
                (placed, _) => placed,
            };
            Some((network.name.clone(), placed))
        });
        placed.collect()
    }
}
