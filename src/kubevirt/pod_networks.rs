//! The networks that a launcher pod is plugged to, by its own annotation `k8s.v1.cni.cncf.io/networks`.
//!
//! virt-controller writes the annotation when it makes the pod, and Multus reads it. While a running VM changes a
//! network, the spec of its instance names the new NetworkAttachmentDefinition (NAD), and only this annotation of the
//! guest's pod tells the present one.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::annotations::{MOST_NETWORKS, is_subdomain};
use crate::contract::annotations::NETWORKS;
use crate::contract::{NadKey, is_hashed, pod_interface};

/// The networks of a launcher pod beside its default one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNetworks(
    /// `None` if the annotation cannot be read.
    Option<Arc<[Interface]>>,
);

/// An interface of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Interface {
    name: String,
    nad: NadKey,
    /// The port that it was plugged to, if that is not named for the NAD.
    port: Option<Box<str>>,
}

/// The network of a NIC in a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugged<'a> {
    /// The pod has the NIC, on this NAD.
    On(&'a NadKey),
    /// The pod lacks the NIC.
    Lacks,
    /// The annotation does not tell: it cannot be read, or has interfaces with numbered names.
    Unknown,
}

/// An element of the annotation, as far as it is read (Multus, NetworkSelectionElement).
#[derive(Deserialize)]
struct Element {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    interface: Option<String>,
    #[serde(default, rename = "cni-args")]
    arguments: Option<Arguments>,
}

/// The arguments of an element, as the mutating webhook writes them.
#[derive(Deserialize)]
struct Arguments {
    #[serde(default, rename = "ovnPort")]
    port: Option<String>,
}

impl Default for PodNetworks {
    fn default() -> Self {
        Self(Some(Arc::default()))
    }
}

impl PodNetworks {
    /// Reads the annotation of a pod.
    pub(super) fn of(metadata: &ObjectMeta) -> Self {
        let text = metadata.annotations.as_ref().and_then(|annotations| annotations.get(NETWORKS));
        match text.map(|text| text.trim()).filter(|text| !text.is_empty()) {
            Some(text) => Self(read(text, metadata.namespace.as_deref().unwrap_or_default())),
            None => Self::default(),
        }
    }

    /// The network that a network of the VM is plugged to.
    pub fn of_network(&self, network: &str) -> Plugged<'_> {
        let Some(interfaces) = &self.0 else { return Plugged::Unknown };
        match self.interface(network) {
            Some(interface) => Plugged::On(&interface.nad),
            None if interfaces.iter().all(|interface| is_hashed(&interface.name)) => Plugged::Lacks,
            None => Plugged::Unknown,
        }
    }

    /// The port that a network of the VM was plugged to, if it is not named for its NAD: the VM has come to the NAD since
    /// the port was made.
    pub fn port_of(&self, network: &str) -> Option<&str> {
        self.interface(network)?.port.as_deref()
    }

    fn interface(&self, network: &str) -> Option<&Interface> {
        let interfaces = self.0.as_ref().filter(|interfaces| !interfaces.is_empty())?;
        let name = pod_interface(network);
        interfaces.iter().find(|interface| interface.name == name)
    }

    /// The NADs that the pod is plugged to.
    pub(super) fn nads(&self) -> impl Iterator<Item = &NadKey> {
        self.0.iter().flat_map(|interfaces| interfaces.iter()).map(|interface| &interface.nad)
    }
}

/// Returns true if a port has the name of one on a NAD: its end, perhaps with the network's name behind it.
fn is_named_for(port: &str, nad: &NadKey) -> bool {
    let ends_so = |name: &str| name.strip_suffix(&nad.provider()).is_some_and(|rest| rest.ends_with('.'));
    ends_so(port) || port.rsplit_once('.').is_some_and(|(name, _)| ends_so(name))
}

/// Reads a list of networks. A pod with more networks than a VM may have, or with an invalid name, is unreadable.
fn read(text: &str, namespace: &str) -> Option<Arc<[Interface]>> {
    let elements: Vec<Element> = serde_json::from_str(text).ok()?;
    if elements.len() > MOST_NETWORKS {
        return None;
    }
    let interface = |Element { name, namespace: named, interface, arguments }: Element| {
        let namespace = named.unwrap_or_else(|| namespace.to_owned());
        let is_valid = is_subdomain(&name) && is_subdomain(&namespace);
        let nad = NadKey::new(namespace, name);
        let is_of_another = |port: &String| !is_named_for(port, &nad);
        let port = arguments.and_then(|arguments| arguments.port).filter(is_of_another).map(String::into_boxed_str);
        is_valid.then(|| Interface { name: interface.unwrap_or_default(), nad, port })
    };
    elements.into_iter().map(interface).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(annotation: Option<&str>) -> PodNetworks {
        let annotations = annotation.map(|text| [(NETWORKS.to_owned(), text.to_owned())].into());
        PodNetworks::of(&ObjectMeta { namespace: Some("ns".into()), annotations, ..ObjectMeta::default() })
    }

    #[test]
    fn a_network_is_where_the_pods_annotation_has_its_interface() {
        let pod =
            of(Some(r#"[{"name":"net1","namespace":"default","interface":"pod3a6eb0790f3","mac":"x","ips":[]}]"#));
        assert_eq!(pod.of_network("data"), Plugged::On(&NadKey::new("default", "net1")));
        assert_eq!(pod.of_network("other"), Plugged::Lacks);
        let bare = of(Some(r#"[{"name":"net1","interface":"pod3a6eb0790f3"}]"#));
        assert_eq!(bare.of_network("data"), Plugged::On(&NadKey::new("ns", "net1")));
        for none in [None, Some(""), Some("[]")] {
            assert_eq!(of(none).of_network("data"), Plugged::Lacks, "{none:?}");
        }
    }

    #[test]
    fn a_port_that_is_named_for_another_network_is_reported() {
        let pod = |port: &str| {
            let element = r#""name":"net1","namespace":"default","interface":"pod3a6eb0790f3""#;
            of(Some(&format!(r#"[{{{element},"cni-args":{{"ovnPort":"{port}","mac":"x"}}}}]"#)))
        };
        assert_eq!(pod("vm.ns.net0.default.ovn").port_of("data"), Some("vm.ns.net0.default.ovn"));
        assert_eq!(pod("vm.ns.net1.default.ovn.data").port_of("data"), None);
        assert_eq!(pod("vm.ns.net1.default.ovn.data~2").port_of("data"), None);
        for other in ["vm.ns.xnet1.default.ovn", "vm.ns.xnet1.default.ovn.data", "net1.default.ovn.ns.net0.default.ovn"]
        {
            assert_eq!(pod(other).port_of("data"), Some(other));
        }
        assert_eq!(pod("x").port_of("other"), None);
    }

    #[test]
    fn an_annotation_that_does_not_tell_takes_no_nic_away() {
        let many = format!("[{}]", vec![r#"{"name":"a","interface":"pod3a6eb0790f3"}"#; MOST_NETWORKS + 1].join(","));
        for text in [
            "net1,net2",
            "{}",
            "[1]",
            r#"[{"name":"net1"}]"#,
            r#"[{"name":"net1","interface":"net1"}]"#,
            r#"[{"name":"../x","interface":"pod3a6eb0790f3"}]"#,
            &many,
        ] {
            assert_eq!(of(Some(text)).of_network("data"), Plugged::Unknown, "{text}");
        }
    }
}
