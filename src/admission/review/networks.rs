//! The Multus annotations of a launcher pod: which interface of the pod each network of the VM has, and the port's
//! addresses merged into the element that makes that interface.
//!
//! virt-controller rewrites `k8s.v1.cni.cncf.io/networks` on a running pod while a NIC is plugged or unplugged, so the
//! merge is by interface, keeps the values of others, and makes no change the second time.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::contract::annotations::NETWORKS;
use crate::contract::{FIRST_INTERFACE, NadKey, is_hashed, pod_interface};
use crate::kubevirt::PodPort;

/// The network in the place of the cluster's default one (Multus).
pub(super) const DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";

/// A network of the VM that a launcher pod may have an interface for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodNetwork {
    /// Its name in the VM.
    pub(super) name: String,
    /// Its NAD; `None` for the pod network.
    pub(super) nad: Option<NadKey>,
    /// It takes the default network's place (`multus.default`).
    pub(super) default: bool,
}

/// An interface that a launcher pod has or is to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plugged {
    /// The network's name in the VM.
    pub(super) network: String,
    /// The interface's name in the pod.
    pub(super) interface: String,
    /// The NAD that the pod itself names for it; `None` if the VM's networks tell.
    pub(super) nad: Option<NadKey>,
    /// The place that makes it.
    pub(super) by: MadeBy,
}

/// The place that makes an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MadeBy {
    /// The cluster's default network.
    Default,
    /// `v1.multus-cni.io/default-network`, on this NAD.
    DefaultNad(NadKey),
    /// The element of `k8s.v1.cni.cncf.io/networks` with this index.
    Element(usize),
}

/// The networks annotation is not in the form of virt-controller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the annotation {NETWORKS} of the launcher pod is no JSON list of networks: {0}. Let virt-controller write it, from the VM's networks"
)]
pub(super) struct NotAList(String);

/// Reads `k8s.v1.cni.cncf.io/networks`; absent, it has no elements.
pub(super) fn elements(annotation: Option<&str>) -> Result<Vec<Map<String, Value>>, NotAList> {
    match annotation {
        Some(text) if !text.trim().is_empty() => {
            serde_json::from_str(text).map_err(|error| NotAList(error.to_string()))
        }
        _ => Ok(Vec::new()),
    }
}

/// The names of the interfaces that elements make.
pub(super) fn interfaces(elements: &[Map<String, Value>]) -> impl Iterator<Item = &str> {
    elements.iter().filter_map(|element| element.get("interface")?.as_str())
}

/// Interfaces that KubeVirt has named for a network that is not among these.
pub(super) fn unknown_interfaces<'a>(
    networks: &[PodNetwork],
    elements: &'a [Map<String, Value>],
) -> impl Iterator<Item = &'a str> {
    interfaces(elements).filter(move |interface| {
        is_hashed(interface) && networks.iter().all(|network| pod_interface(&network.name) != *interface)
    })
}

/// Finds the interfaces of a pod for the networks of its VM. A network without an interface is left out: it is yet to be
/// plugged, or was unplugged.
///
/// An element belongs to the network whose name its interface is made of. Older instances have interfaces that are
/// numbered: there the elements on one NAD belong to the networks on it in their order, if there are as many of both.
pub(super) fn plugged(
    networks: &[PodNetwork],
    elements: &[Map<String, Value>],
    namespace: &str,
    default_nad: Option<&NadKey>,
) -> Vec<Plugged> {
    let text = |element: &Map<String, Value>, key: &str| element.get(key).and_then(Value::as_str).map(str::to_owned);
    let nad_of = |element: &Map<String, Value>| nad_of(element, namespace);
    let hashed = |network: &PodNetwork| {
        let interface = pod_interface(&network.name);
        elements.iter().position(|element| text(element, "interface").as_deref() == Some(&*interface))
    };
    let is_other = |network: &PodNetwork, at: usize| {
        let mut others = networks.iter().filter(|other| other.name != network.name);
        others.any(|other| hashed(other) == Some(at))
    };
    let numbered = |network: &PodNetwork| {
        let on = |other: &&PodNetwork| other.nad == network.nad && !other.default && hashed(other).is_none();
        let sharers: Vec<&PodNetwork> = networks.iter().filter(on).collect();
        let free =
            |(at, element): &(usize, &Map<String, Value>)| nad_of(element) == network.nad && !is_other(network, *at);
        let free: Vec<usize> = elements.iter().enumerate().filter(free).map(|(at, _)| at).collect();
        let place = sharers.iter().position(|other| other.name == network.name)?;
        (free.len() == sharers.len()).then(|| free.get(place).copied()).flatten()
    };
    let mut plugged = Vec::new();
    for network in networks {
        let first =
            |by| Plugged { network: network.name.clone(), interface: FIRST_INTERFACE.to_owned(), nad: None, by };
        match &network.nad {
            None => plugged.push(first(default_nad.map_or(MadeBy::Default, |nad| MadeBy::DefaultNad(nad.clone())))),
            Some(nad) if network.default => plugged.push(first(MadeBy::DefaultNad(nad.clone()))),
            Some(_) => {
                let Some(at) = hashed(network).or_else(|| numbered(network)) else { continue };
                let interface = elements.get(at).and_then(|element| text(element, "interface"));
                // Multus numbers the interfaces that have no name, from net1 on.
                let interface = interface.unwrap_or_else(|| format!("net{}", at + 1));
                let nad = elements.get(at).and_then(nad_of);
                plugged.push(Plugged { network: network.name.clone(), interface, nad, by: MadeBy::Element(at) });
            }
        }
    }
    plugged
}

/// Leaves the interfaces that a running pod has where they are. virt-controller writes the list anew from the instance's
/// spec while another NIC is plugged or unplugged; if the spec has a network on another NAD by then, the list would tell
/// Multus to replace the interface of a guest that a live migration is to move, and this service that the guest is there.
pub(super) fn stay_plugged(
    networks: &[PodNetwork],
    elements: &mut [Map<String, Value>],
    stored: &[Map<String, Value>],
    is_there: impl Fn(&str, &NadKey) -> bool,
    namespace: &str,
) {
    for element in elements {
        let Some(interface) = element.get("interface").and_then(Value::as_str) else { continue };
        let is_its = |network: &&PodNetwork| !network.default && pod_interface(&network.name) == interface;
        let Some(network) = networks.iter().find(is_its) else { continue };
        let at = stored.iter().find(|stored| stored.get("interface").and_then(Value::as_str) == Some(interface));
        let Some((stored, nad)) = at.and_then(|stored| Some((stored, nad_of(stored, namespace)?))) else { continue };
        if nad_of(element, namespace).as_ref() != Some(&nad) && is_there(&network.name, &nad) {
            for key in ["name", "namespace"] {
                match stored.get(key) {
                    Some(value) => drop(element.insert(key.to_owned(), value.clone())),
                    None => drop(element.remove(key)),
                }
            }
        }
    }
}

/// The NAD of an element. One without a namespace is in the pod's own.
fn nad_of(element: &Map<String, Value>, namespace: &str) -> Option<NadKey> {
    let text = |key: &str| element.get(key).and_then(Value::as_str);
    text("name").map(|name| NadKey::new(text("namespace").unwrap_or(namespace), name))
}

/// Merges a port into the element that makes its interface: `mac`, `ips` with prefix length, and the same two beside
/// `ovnPort` in `cni-args`. Other members stay.
fn merge(element: &mut Map<String, Value>, port: &PodPort) {
    let addresses = (!port.ips.is_empty()).then(|| json!(port.ips));
    let set = |map: &mut Map<String, Value>, key: &str, value: Option<Value>| match value {
        Some(value) => drop(map.insert(key.to_owned(), value)),
        None => drop(map.remove(key)),
    };
    let mut arguments = element.get("cni-args").and_then(Value::as_object).cloned().unwrap_or_default();
    set(&mut arguments, "ovnPort", Some(json!(port.port)));
    for map in [&mut *element, &mut arguments] {
        set(map, "mac", Some(json!(port.mac)));
        set(map, "ips", addresses.clone());
    }
    element.insert("cni-args".to_owned(), Value::Object(arguments));
}

/// The annotations that a launcher pod with these ports lacks, or has otherwise.
pub(super) fn merged(
    annotations: &BTreeMap<String, String>,
    mut elements: Vec<Map<String, Value>>,
    ports: &[(Plugged, PodPort)],
) -> BTreeMap<&'static str, String> {
    let mut changed = BTreeMap::new();
    let before = self::elements(annotations.get(NETWORKS).map(String::as_str)).unwrap_or_default();
    for (plugged, port) in ports {
        match &plugged.by {
            MadeBy::Default => {}
            MadeBy::Element(at) => elements.get_mut(*at).into_iter().for_each(|element| merge(element, port)),
            MadeBy::DefaultNad(nad) => {
                let present = annotations.get(DEFAULT_NETWORK).map(String::as_str).unwrap_or_default();
                let present: Option<Value> = serde_json::from_str(present).ok();
                let mut element = match present.as_ref().and_then(|list| list.as_array()?.first()?.as_object()) {
                    Some(element) => element.clone(),
                    None => Map::new(),
                };
                // An interface here would take eth0's place.
                element.remove("interface");
                element.insert("name".to_owned(), json!(nad.name));
                element.insert("namespace".to_owned(), json!(nad.namespace));
                merge(&mut element, port);
                let wanted = json!([element]);
                if present.as_ref() != Some(&wanted) {
                    changed.insert(DEFAULT_NETWORK, wanted.to_string());
                }
            }
        }
    }
    if elements != before {
        changed.insert(NETWORKS, Value::from_iter(elements.into_iter().map(Value::Object)).to_string());
    }
    changed
}

#[cfg(test)]
mod tests;
