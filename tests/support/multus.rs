//! The configuration that Multus 4.3 passes to the CNI plugins of a launcher pod: read from the pod alone.

use serde_json::Value;

use super::objects::MULTUS_ANNOTATION;

/// The annotation that names the network of `eth0` in the place of the cluster's own.
pub const DEFAULT_NETWORK_ANNOTATION: &str = "v1.multus-cni.io/default-network";

/// One call of a plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    /// `K8S_POD_UID` in `CNI_ARGS`.
    pub pod_uid: String,
    /// `CNI_IFNAME`.
    pub interface: String,
    /// The element of the annotation.
    element: Value,
}

impl Attachment {
    /// The calls for a pod, in their order. The cluster's default network is not among them.
    ///
    /// # Panics
    /// Where an annotation is no list of elements.
    pub fn of(pod: &Value) -> Vec<Self> {
        let pod_uid = text(&pod["metadata"]["uid"]);
        let elements = |annotation: &str| -> Vec<Value> {
            let list = pod["metadata"]["annotations"][annotation].as_str().unwrap_or("[]");
            serde_json::from_str(list).unwrap_or_else(|error| panic!("{annotation} is no list: {error}: {list}"))
        };
        let default = elements(DEFAULT_NETWORK_ANNOTATION).into_iter().map(|element| ("eth0".to_owned(), element));
        let others = elements(MULTUS_ANNOTATION).into_iter().map(|element| (text(&element["interface"]), element));
        let attachment = |(interface, element)| Self { pod_uid: pod_uid.clone(), interface, element };
        default.chain(others).map(attachment).collect()
    }

    /// `MAC` in `CNI_ARGS`.
    pub fn mac(&self) -> String {
        text(&self.element["mac"])
    }

    /// The addresses that the IPAM plugin `static` gives the interface, without the length of the prefix.
    pub fn address(&self) -> String {
        let address = text(&self.element["ips"][0]);
        let (address, _) = address.split_once('/').unwrap_or_else(|| panic!("{address}: `static` needs a prefix"));
        address.to_owned()
    }

    /// A value of `args.cni` in the plugin's configuration.
    pub fn argument(&self, key: &str) -> String {
        text(&self.element["cni-args"][key])
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text: the pod carries too little")).to_owned()
}
