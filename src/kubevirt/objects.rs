//! The parts of KubeVirt's and Kubernetes' objects that are read, as types.
//!
//! Only these fields are decoded; the rest of each object (a launcher pod is some 10 kB) is skipped.
//! Names and meanings: kubevirt.io/v1 and core/v1.

use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::ovn::NadKey;

/// A VirtualMachine.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct VirtualMachine {
    /// Name, UID, deletion, and our own annotation.
    pub metadata: ObjectMeta,
    /// What it should be.
    #[serde(default)]
    pub spec: VirtualMachineSpec,
}

/// `VirtualMachine.spec`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct VirtualMachineSpec {
    /// What the next VirtualMachineInstance will be.
    #[serde(default)]
    pub template: InstanceTemplate,
}

/// `VirtualMachine.spec.template`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct InstanceTemplate {
    /// Annotations flow from here to the instance, once, when it is made.
    #[serde(default)]
    pub metadata: TemplateMeta,
    /// The instance's spec.
    #[serde(default)]
    pub spec: InstanceSpec,
}

/// `VirtualMachine.spec.template.metadata`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct TemplateMeta {
    /// The user's wishes.
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A VirtualMachineInstance (VMI): a running VM.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct VirtualMachineInstance {
    /// Its UID is another at every start.
    pub metadata: ObjectMeta,
    /// What runs.
    #[serde(default)]
    pub spec: InstanceSpec,
    /// Where it runs.
    #[serde(default)]
    pub status: InstanceStatus,
}

/// `VirtualMachineInstance.spec`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct InstanceSpec {
    /// The guest's devices.
    #[serde(default)]
    pub domain: Domain,
    /// The networks that its interfaces are on.
    #[serde(default)]
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
    /// Matched with the networks by name.
    #[serde(default)]
    pub interfaces: Option<Vec<Interface>>,
    /// `false`: a VM without networks gets none.
    #[serde(default)]
    pub autoattach_pod_interface: Option<bool>,
}

/// One of `spec.domain.devices.interfaces`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// The network's name.
    pub name: String,
    /// The guest's MAC.
    #[serde(default)]
    pub mac_address: Option<String>,
    /// `absent`: it is to be unplugged, or has been.
    #[serde(default)]
    pub state: Option<String>,
}

/// One of `spec.networks`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct Network {
    /// Its name in the VM.
    pub name: String,
    /// Present for the pod network.
    #[serde(default)]
    pub pod: Option<PodNetwork>,
    /// Present for a network of Multus.
    #[serde(default)]
    pub multus: Option<MultusNetwork>,
}

impl Network {
    /// The NAD that it is on. A bare name is one of the VM's own namespace.
    pub fn nad(&self, namespace: &str) -> Option<NadKey> {
        let name = &self.multus.as_ref()?.network_name;
        let (namespace, name) = name.split_once('/').unwrap_or((namespace, name));
        Some(NadKey::new(namespace, name))
    }
}

/// `networks[].pod`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct PodNetwork {}

/// `networks[].multus`. Whether it takes the pod network's place (`default`) makes no difference here: it is on its
/// NAD either way.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MultusNetwork {
    /// `[<namespace>/]<name>` of a NetworkAttachmentDefinition.
    #[serde(default)]
    pub network_name: String,
}

/// `VirtualMachineInstance.status`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// Where the guest runs.
    #[serde(default)]
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
    #[serde(default)]
    pub target_pod: Option<String>,
    /// Set when the guest is ready on the target: the cut-over.
    #[serde(default)]
    pub target_node_domain_ready_timestamp: Option<String>,
}

/// A VirtualMachineInstanceMigration (VMIM): one live migration.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct VirtualMachineInstanceMigration {
    /// Its UID is on the target's launcher pod.
    pub metadata: ObjectMeta,
    /// What migrates.
    #[serde(default)]
    pub spec: MigrationSpec,
    /// How far it is.
    #[serde(default)]
    pub status: MigrationStatus,
}

/// `VirtualMachineInstanceMigration.spec`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationSpec {
    /// The VMI's name.
    #[serde(default)]
    pub vmi_name: String,
}

/// `VirtualMachineInstanceMigration.status`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct MigrationStatus {
    /// `Pending` to `Running`, and at the end `Succeeded` or `Failed`.
    #[serde(default)]
    pub phase: Option<String>,
}

/// A NetworkAttachmentDefinition (NAD): what a network of Multus is on. Only its annotations speak to OVN.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct NetworkAttachmentDefinition {
    /// Name and annotations.
    pub metadata: ObjectMeta,
}

/// A launcher pod.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct LauncherPod {
    /// Labels, annotations and the owner that tell a launcher.
    pub metadata: ObjectMeta,
    /// Where it was scheduled.
    #[serde(default)]
    pub spec: PodSpec,
    /// How far it is.
    #[serde(default)]
    pub status: PodStatus,
}

/// `Pod.spec`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// The node, once scheduled.
    #[serde(default)]
    pub node_name: Option<String>,
}

/// `Pod.status`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`.
    #[serde(default)]
    pub phase: Option<String>,
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
