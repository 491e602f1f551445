//! The parts of KubeVirt's and Kubernetes' objects that are read, as types.
//!
//! Only these fields are decoded; the rest of each object (a launcher pod is some 10 kB) is skipped.
//! Names and meanings: kubevirt.io/v1 and core/v1.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::annotations;
use crate::contract::NadKey;

/// A VirtualMachine.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct VirtualMachine {
    /// Name, UID, deletion, our own annotation, and misplaced ones.
    #[serde(deserialize_with = "annotations::metadata")]
    pub metadata: ObjectMeta,
    /// The desired state.
    #[serde(default)]
    pub spec: VirtualMachineSpec,
}

/// `VirtualMachine.spec`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct VirtualMachineSpec {
    /// The template of the next VirtualMachineInstance.
    #[serde(default)]
    pub template: InstanceTemplate,
}

/// `VirtualMachine.spec.template`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct InstanceTemplate {
    /// Annotations are copied from here to the instance, once, when it is created.
    #[serde(default)]
    pub metadata: TemplateMeta,
    /// The instance's spec.
    #[serde(default)]
    pub spec: InstanceSpec,
}

/// `VirtualMachine.spec.template.metadata`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct TemplateMeta {
    /// The user's requests.
    #[serde(default, deserialize_with = "annotations::of_template")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A VirtualMachineInstance (VMI): a running VM.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct VirtualMachineInstance {
    /// Its UID is different at every start.
    #[serde(deserialize_with = "annotations::metadata")]
    pub metadata: ObjectMeta,
    /// The running spec.
    #[serde(default)]
    pub spec: InstanceSpec,
    /// The state of the run.
    #[serde(default)]
    pub status: InstanceStatus,
}

/// `VirtualMachineInstance.spec`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct InstanceSpec {
    /// The guest's devices.
    #[serde(default)]
    pub domain: Domain,
    /// The networks of its interfaces: as many as a VM may have, and one more.
    #[serde(default, deserialize_with = "few")]
    pub networks: Option<Vec<Network>>,
}

/// `spec.domain`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct Domain {
    /// Its devices.
    #[serde(default)]
    pub devices: Devices,
}

/// `spec.domain.devices`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Devices {
    /// Matched with the networks by name; as many as allowed, and one more.
    #[serde(default, deserialize_with = "few")]
    pub interfaces: Option<Vec<Interface>>,
    /// `false`: a VM without networks gets no network.
    #[serde(default)]
    pub autoattach_pod_interface: Option<bool>,
}

/// One of `spec.domain.devices.interfaces`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// The network's name.
    #[serde(deserialize_with = "annotations::name")]
    pub name: String,
    /// The guest's MAC.
    #[serde(default, deserialize_with = "annotations::optional_name")]
    pub mac_address: Option<String>,
    /// `absent`: it is to be unplugged, or has been.
    #[serde(default, deserialize_with = "annotations::optional_name")]
    pub state: Option<String>,
    /// Present for this binding.
    #[serde(default)]
    pub bridge: Option<BindingMethod>,
    /// Present for this binding.
    #[serde(default)]
    pub masquerade: Option<BindingMethod>,
    /// Present for this binding.
    #[serde(default)]
    pub passt_binding: Option<BindingMethod>,
    /// Present for this binding, which KubeVirt 1.3 has removed.
    #[serde(default)]
    pub passt: Option<BindingMethod>,
    /// Present for this binding, which KubeVirt 1.3 has removed.
    #[serde(default)]
    pub slirp: Option<BindingMethod>,
    /// Present for this binding.
    #[serde(default)]
    pub sriov: Option<BindingMethod>,
    /// Present for this binding, which KubeVirt 1.3 has removed.
    #[serde(default)]
    pub macvtap: Option<BindingMethod>,
    /// Present for a network binding plugin.
    #[serde(default)]
    pub binding: Option<BindingPlugin>,
}

/// `interfaces[].bridge` and its like
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct BindingMethod {}

/// `interfaces[].binding`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct BindingPlugin {
    /// The name under which the KubeVirt object has the plugin.
    #[serde(default, deserialize_with = "annotations::name")]
    pub name: String,
}

/// One of `spec.networks`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct Network {
    /// Its name in the VM.
    #[serde(deserialize_with = "annotations::name")]
    pub name: String,
    /// Present for the pod network.
    #[serde(default)]
    pub pod: Option<PodNetwork>,
    /// Present for a network of Multus.
    #[serde(default)]
    pub multus: Option<MultusNetwork>,
}

impl Network {
    /// The NAD of the network, by a name that may be invalid. A bare name is in the VM's own namespace.
    pub fn nad(&self, namespace: &str) -> Option<NadKey> {
        let name = &self.multus.as_ref()?.network_name;
        let (namespace, name) = name.split_once('/').unwrap_or((namespace, name));
        Some(NadKey::new(namespace, name))
    }
}

/// `networks[].pod`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct PodNetwork {}

/// `networks[].multus`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MultusNetwork {
    /// `[<namespace>/]<name>` of a NetworkAttachmentDefinition.
    #[serde(default, deserialize_with = "annotations::name")]
    pub network_name: String,
    /// It replaces the pod network. Its port is on its NAD in both cases.
    #[serde(default)]
    pub default: bool,
}

/// `VirtualMachineInstance.status`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// The node of the guest.
    #[serde(default, deserialize_with = "annotations::optional_name")]
    pub node_name: Option<String>,
    /// The migration under way, or the last one.
    #[serde(default)]
    pub migration_state: Option<MigrationState>,
}

/// `VirtualMachineInstance.status.migrationState`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationState {
    /// The target launcher's pod.
    #[serde(default, deserialize_with = "annotations::optional_name")]
    pub target_pod: Option<String>,
    /// Set when the guest is ready on the target: the cut-over.
    #[serde(default)]
    pub target_node_domain_ready_timestamp: Option<String>,
}

/// A VirtualMachineInstanceMigration (VMIM): one live migration.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct VirtualMachineInstanceMigration {
    /// Its UID is on the target's launcher pod.
    #[serde(deserialize_with = "annotations::metadata")]
    pub metadata: ObjectMeta,
    /// The VMI that migrates.
    #[serde(default)]
    pub spec: MigrationSpec,
    /// The progress.
    #[serde(default)]
    pub status: MigrationStatus,
}

/// `VirtualMachineInstanceMigration.spec`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationSpec {
    /// The VMI's name.
    #[serde(default, deserialize_with = "annotations::name")]
    pub vmi_name: String,
}

/// `VirtualMachineInstanceMigration.status`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct MigrationStatus {
    /// `Pending` to `Running`, and at the end `Succeeded` or `Failed`.
    #[serde(default)]
    pub phase: Option<String>,
}

/// A NetworkAttachmentDefinition (NAD), for a network of Multus. Only its annotations are read.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct NetworkAttachmentDefinition {
    /// Name and annotations.
    #[serde(deserialize_with = "annotations::metadata")]
    pub metadata: ObjectMeta,
}

/// A launcher pod. Unreadable parts of its spec and status count as absent: then the pod is live, on an unknown node,
/// so that no port is released. Pods are many and change often, so they are decoded without a buffer for each.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct LauncherPod {
    /// Labels, annotations and the owner, which identify a launcher, and its networks.
    #[serde(deserialize_with = "annotations::metadata_of_pod")]
    pub metadata: ObjectMeta,
    /// The node.
    #[serde(default, deserialize_with = "lenient")]
    pub spec: PodSpec,
    /// The progress.
    #[serde(default, deserialize_with = "lenient")]
    pub status: PodStatus,
}

/// `Pod.spec`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// The node, once scheduled.
    #[serde(default, deserialize_with = "lenient_text")]
    pub node_name: Option<String>,
}

/// `Pod.status`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`.
    #[serde(default, deserialize_with = "lenient_text")]
    pub phase: Option<String>,
}

/// Keeps as many elements of a list as a VM may have, and one more, which shows that there are too many.
fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Vec<T>>, D::Error> {
    struct Few<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
        type Value = Option<Vec<T>>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a sequence")
        }

        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_seq(self)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
            let mut few = Vec::new();
            while few.len() <= annotations::MOST_NETWORKS {
                match elements.next_element()? {
                    Some(element) => few.push(element),
                    None => return Ok(Some(few)),
                }
            }
            while elements.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Some(few))
        }
    }

    deserializer.deserialize_option(Few(PhantomData))
}

/// A value that counts as absent if it has another type.
struct Lenient<T>(PhantomData<T>);

impl<'de, T: Default + FromMap<'de>> Visitor<'de> for Lenient<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("anything")
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_none<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(T::from_text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<T, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(T::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<T, A::Error> {
        T::from_map(entries)
    }
}

/// The two types that [`Lenient`] serves: a struct from a map, a text from a string.
trait FromMap<'de>: Sized + Default {
    fn from_text(_: &str) -> Self {
        Self::default()
    }

    fn from_map<A: MapAccess<'de>>(entries: A) -> Result<Self, A::Error>;
}

impl<'de> FromMap<'de> for PodSpec {
    fn from_map<A: MapAccess<'de>>(entries: A) -> Result<Self, A::Error> {
        Self::deserialize(MapAccessDeserializer::new(entries))
    }
}

impl<'de> FromMap<'de> for PodStatus {
    fn from_map<A: MapAccess<'de>>(entries: A) -> Result<Self, A::Error> {
        Self::deserialize(MapAccessDeserializer::new(entries))
    }
}

impl<'de> FromMap<'de> for Option<String> {
    fn from_text(text: &str) -> Self {
        Some(text.to_owned())
    }

    fn from_map<A: MapAccess<'de>>(mut entries: A) -> Result<Self, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

fn lenient<'de, D: Deserializer<'de>, T: FromMap<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(Lenient(PhantomData))
}

fn lenient_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    lenient(deserializer)
}

macro_rules! resource {
    ($type:ty, $group:literal, $version:literal, $api_version:literal, $kind:literal, $plural:literal) => {
        impl k8s_openapi::Resource for $type {
            const API_VERSION: &'static str = $api_version;
            const GROUP: &'static str = $group;
            const KIND: &'static str = $kind;
            const VERSION: &'static str = $version;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = NamespaceResourceScope;
        }
        impl k8s_openapi::Metadata for $type {
            type Ty = ObjectMeta;
            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(VirtualMachine, "kubevirt.io", "v1", "kubevirt.io/v1", "VirtualMachine", "virtualmachines");
resource!(
    VirtualMachineInstance,
    "kubevirt.io",
    "v1",
    "kubevirt.io/v1",
    "VirtualMachineInstance",
    "virtualmachineinstances"
);
resource!(
    VirtualMachineInstanceMigration,
    "kubevirt.io",
    "v1",
    "kubevirt.io/v1",
    "VirtualMachineInstanceMigration",
    "virtualmachineinstancemigrations"
);
resource!(
    NetworkAttachmentDefinition,
    "k8s.cni.cncf.io",
    "v1",
    "k8s.cni.cncf.io/v1",
    "NetworkAttachmentDefinition",
    "network-attachment-definitions"
);
resource!(LauncherPod, "", "v1", "v1", "Pod", "pods");
