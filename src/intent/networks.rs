//! The networks of a VM's template: their attachments, and the keys of their annotations.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::{Binding, Misplaced};
use crate::contract::annotations::{DOMAIN, SERVED, asks_for_something, is_of_kube_ovn};
use crate::contract::{NadKey, VmKey};
use crate::kubevirt::Template;
use crate::kubevirt::annotations::is_subdomain;
use crate::kubevirt::objects::InstanceSpec;

/// The attachment of a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attachment {
    /// The pod network.
    Pod,
    /// A NetworkAttachmentDefinition, also in the pod network's place (`multus.default`): the NAD then determines the
    /// network of the NIC.
    Nad(NadKey),
}

impl Attachment {
    /// The name of a VM's port on it.
    pub(super) fn port_name(&self, vm: &VmKey) -> String {
        match self {
            Self::Pod => vm.port_name(),
            Self::Nad(nad) => vm.port_name_on(nad),
        }
    }

    /// The number of labels of the NAD's name, if the name of a VM's port on it may be read as another VM's: see
    /// [`VmKey::has_another_reading`].
    pub(super) fn ambiguous(&self, vm: &VmKey) -> Option<usize> {
        match self {
            Self::Pod => vm.has_another_reading(None),
            Self::Nad(nad) => vm.has_another_reading(Some(nad)),
        }
    }

    /// The NAD as it is written, if that is an invalid name: KubeVirt takes `[<namespace>/]<name>`.
    pub(super) fn invalid(&self) -> Option<String> {
        let Self::Nad(nad) = self else { return None };
        let is_nad = is_subdomain(&nad.name) && is_subdomain(&nad.namespace) && !nad.namespace.contains('.');
        (!is_nad).then(|| nad.to_string())
    }

    /// The domain of the annotations for it: `ovn.kubernetes.io`, or `<nad>.<nad-namespace>.ovn.kubernetes.io`.
    pub(super) fn domain(&self) -> String {
        match self {
            Self::Pod => DOMAIN.to_owned(),
            Self::Nad(nad) => format!("{}.kubernetes.io", nad.provider()),
        }
    }
}

/// One network of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    /// Its name in the VM.
    pub(crate) name: String,
    pub(crate) on: Attachment,
    /// It takes the pod network's place (`multus.default`).
    pub(crate) default: bool,
    /// Its interface's `state` is `absent`: the guest does not have it, or not for long.
    pub(super) absent: bool,
    /// The binding of its interface.
    pub(super) binding: Binding,
    /// Its interface's `macAddress`.
    pub(super) mac_address: Option<String>,
    /// The domain of its annotations by the network's name, which are the strongest.
    pub(super) own_domain: String,
    /// The domain of its annotations by its attachment.
    pub(super) domain: String,
    /// The names of all networks of the VM with the same attachment, this one included.
    pub(super) sharers: Arc<[String]>,
}

impl Network {
    /// The network on another NAD.
    pub(super) fn moved_to(&self, nad: &NadKey) -> Self {
        let on = Attachment::Nad(nad.clone());
        if on == self.on {
            return self.clone();
        }
        Self { domain: on.domain(), on, sharers: [self.name.clone()].into(), ..self.clone() }
    }

    /// The network without its annotations by its own name: only those for its attachment apply.
    pub(super) fn without_its_name(&self) -> Self {
        Self { own_domain: self.domain.clone(), ..self.clone() }
    }
}

/// The networks of a template that may be on OVN, in its order. A VM without networks and interfaces gets one on the
/// pod network named `default`, unless its template disables that.
pub(crate) fn networks(spec: &InstanceSpec, namespace: &str) -> Vec<Network> {
    let listed = spec.networks.as_deref().unwrap_or_default();
    let interfaces = spec.domain.devices.interfaces.as_deref().unwrap_or_default();
    let network = |name: &str, on: Attachment| Network {
        name: name.to_owned(),
        own_domain: format!("{name}.{DOMAIN}"),
        domain: on.domain(),
        on,
        default: false,
        absent: false,
        binding: Binding::Default,
        mac_address: None,
        sharers: Arc::default(),
    };
    if listed.is_empty() && interfaces.is_empty() {
        let attached = spec.domain.devices.autoattach_pod_interface.unwrap_or(true);
        return if attached { with_sharers(vec![network("default", Attachment::Pod)]) } else { Vec::new() };
    }
    let mut of_network = HashMap::new();
    for interface in interfaces {
        of_network.entry(interface.name.as_str()).or_insert(interface);
    }
    let (mut seen, mut has_pod) = (HashSet::new(), false);
    let mut found = Vec::new();
    for listed in listed {
        let on = match listed.nad(namespace) {
            Some(nad) => Attachment::Nad(nad),
            None if listed.pod.is_some() => Attachment::Pod,
            None => continue,
        };
        // KubeVirt rejects duplicate names and a second pod network.
        let is_pod = on == Attachment::Pod;
        if is_pod && has_pod || !seen.insert(&listed.name) {
            continue;
        }
        has_pod |= is_pod;
        let mut network = network(&listed.name, on);
        network.default = listed.multus.as_ref().is_some_and(|multus| multus.default);
        if let Some(interface) = of_network.get(listed.name.as_str()) {
            network.absent = interface.state.as_deref() == Some("absent");
            network.binding = Binding::of(interface);
            network.mac_address = interface.mac_address.clone().filter(|mac| !mac.trim().is_empty());
        }
        found.push(network);
    }
    with_sharers(found)
}

fn with_sharers(mut networks: Vec<Network>) -> Vec<Network> {
    if let [network] = &mut networks[..] {
        network.sharers = (!network.absent).then(|| network.name.clone()).into_iter().collect();
        return networks;
    }
    let mut on: BTreeMap<&Attachment, Vec<String>> = BTreeMap::new();
    for network in &networks {
        let sharers = on.entry(&network.on).or_default();
        if !network.absent {
            sharers.push(network.name.clone());
        }
    }
    let on: BTreeMap<Attachment, Arc<[String]>> =
        on.into_iter().map(|(on, sharers)| (on.clone(), sharers.into())).collect();
    for network in &mut networks {
        network.sharers = on.get(&network.on).cloned().unwrap_or_default();
    }
    networks
}

/// The annotations of a template in the domain of OVN that match no network of it: mistyped, or left behind.
pub(super) fn unmatched(template: &Template, networks: &[Network]) -> Vec<String> {
    if !template.annotations.keys().any(|key| key.split_once('/').is_some_and(|(domain, _)| is_of_kube_ovn(domain))) {
        return Vec::new();
    }
    let domains: BTreeSet<&str> =
        networks.iter().flat_map(|network| [&*network.own_domain, &*network.domain]).collect();
    let is_unmatched = |key: &&String| {
        key.split_once('/').is_some_and(|(domain, _)| is_of_kube_ovn(domain) && !domains.contains(domain))
    };
    let asks = |(_, value): &(&String, &String)| !value.trim().is_empty();
    let keys = template.annotations.iter().filter(asks).map(|(key, _)| key).filter(is_unmatched);
    keys.filter(|key| asks_for_something(key)).cloned().collect()
}

/// Finds annotations of a template with a domain that names a network or NAD of the VM and lacks `.ovn`. Other domains
/// without `.ovn` belong to other products.
pub(super) fn lacking_ovn(template: &Template, networks: &[Network]) -> Vec<Misplaced> {
    let asks = |(key, value): (&'_ String, &String)| {
        let (domain, what) = key.split_once('/')?;
        let name = domain.strip_suffix(".kubernetes.io").filter(|_| !is_of_kube_ovn(domain))?;
        let is_served = SERVED.contains(&what) && !value.trim().is_empty();
        is_served.then(|| (key.clone(), name.to_owned(), what.to_owned()))
    };
    let asked: Vec<(String, String, String)> = template.annotations.iter().filter_map(asks).collect();
    if asked.is_empty() {
        return Vec::new();
    }
    let mut domains = HashMap::new();
    for network in networks {
        if let Attachment::Nad(nad) = &network.on {
            domains.insert(nad.name.clone(), &network.domain);
            domains.insert(format!("{}.{}", nad.name, nad.namespace), &network.domain);
        }
    }
    domains.extend(networks.iter().map(|network| (network.name.clone(), &network.own_domain)));
    let named = asked.into_iter().filter_map(|(key, name, what)| Some((key, domains.get(&name)?, what)));
    named.map(|(key, right, what)| Misplaced::LacksOvn { key, right: format!("{right}/{what}") }).collect()
}
