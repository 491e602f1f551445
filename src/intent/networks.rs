//! The networks of a VM's template: what each is on, and by which keys annotations speak of it.

use std::collections::BTreeSet;

use crate::kubevirt::Template;
use crate::kubevirt::objects::InstanceSpec;
use crate::ovn::{NadKey, VmKey};

/// The domain of the keys that Kube-OVN made known.
pub(super) const DOMAIN: &str = "ovn.kubernetes.io";

/// What a network is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// The pod network.
    Pod,
    /// A NetworkAttachmentDefinition, also where it takes the pod network's place (`multus.default`): it is the NAD
    /// that says which network the NIC is on then.
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
pub(super) struct Network {
    /// Its name in the VM.
    pub(super) name: String,
    pub(super) on: Attachment,
    /// Its interface's `state` is `absent`: the guest does not have it, or not for long.
    pub(super) absent: bool,
    /// The names of all networks of the VM that are on the same, this one included.
    pub(super) sharers: Vec<String>,
}

impl Network {
    /// The domain of the annotations for it by its name, which are the strongest.
    pub(super) fn own_domain(&self) -> String {
        format!("{}.{DOMAIN}", self.name)
    }
}

/// The networks of a template that may be on OVN, in its order. A VM without networks and interfaces gets one on the
/// pod network named `default`, unless it says otherwise.
pub(super) fn networks(spec: &InstanceSpec, namespace: &str) -> Vec<Network> {
    let listed = spec.networks.as_deref().unwrap_or_default();
    let interfaces = spec.domain.devices.interfaces.as_deref().unwrap_or_default();
    let network = |name: &str, on, absent| Network { name: name.to_owned(), on, absent, sharers: Vec::new() };
    if listed.is_empty() && interfaces.is_empty() {
        let attached = spec.domain.devices.autoattach_pod_interface.unwrap_or(true);
        return if attached { with_sharers(vec![network("default", Attachment::Pod, false)]) } else { Vec::new() };
    }
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for listed in listed {
        let on = match listed.nad(namespace) {
            Some(nad) => Attachment::Nad(nad),
            None if listed.pod.is_some() => Attachment::Pod,
            None => continue,
        };
        // KubeVirt admits neither two of a name nor two pod networks.
        let second_pod = on == Attachment::Pod && found.iter().any(|network: &Network| network.on == Attachment::Pod);
        if second_pod || !seen.insert(&listed.name) {
            continue;
        }
        let interface = interfaces.iter().find(|interface| interface.name == listed.name);
        let absent = interface.is_some_and(|interface| interface.state.as_deref() == Some("absent"));
        found.push(network(&listed.name, on, absent));
    }
    with_sharers(found)
}

fn with_sharers(mut networks: Vec<Network>) -> Vec<Network> {
    let all = networks.clone();
    for network in &mut networks {
        let sharers = all.iter().filter(|other| other.on == network.on && !other.absent);
        network.sharers = sharers.map(|other| other.name.clone()).collect();
    }
    networks
}

/// The annotations of a template that speak to OVN of none of its networks: mistyped, or left behind.
pub(super) fn unmatched(template: &Template, networks: &[Network]) -> Vec<String> {
    let domains: BTreeSet<String> =
        networks.iter().flat_map(|network| [network.own_domain(), network.on.domain()]).collect();
    // Of what is read of a template, all but our own keys speak to OVN.
    let speaks_to_ovn = |domain: &str| domain.ends_with(".kubernetes.io");
    let is_unmatched = |key: &&String| {
        key.split_once('/').is_some_and(|(domain, _)| speaks_to_ovn(domain) && !domains.contains(domain))
    };
    let keys = template.annotations.keys().filter(is_unmatched);
    keys.filter(|key| super::wish::asks_for_something(key)).cloned().collect()
}
