//! The objects that a user, virt-api and virt-controller create, shaped as KubeVirt 1.9 wrote them on a real API
//! server.
//!
//! A call gives JSON, and [`Player`](super::player::Player) sends it, without the fields that the API server sets. The
//! launcher pod is a file, `objects/launcher-pod.json`, with `@VM@`, `@VMI_UID@`, `@NAMESPACE@`, `@HOSTNAME@` and
//! `@ID@` to fill in; its container disk is an `emptyDir`, since API servers before 1.31 know no image volumes.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Holds a VM until its VMI is gone, and a VMI until its pods are.
pub const VM_FINALIZER: &str = "kubevirt.io/virtualMachineControllerFinalize";
/// Holds a migration until it is final.
pub const VMIM_FINALIZER: &str = "kubevirt.io/migrationJobFinalize";
/// The annotation by which KubeVirt asks Multus for the secondary networks.
pub const MULTUS_ANNOTATION: &str = "k8s.v1.cni.cncf.io/networks";
/// The annotation of a migration's target pod that says when the guest runs there.
pub const TARGET_READY_ANNOTATION: &str = "kubevirt.io/migration-target-ready-timestamp";

const LAUNCHER_POD: &str = include_str!("objects/launcher-pod.json");

/// Kubernetes allows no longer value in a label, and no longer host name.
const LABEL_MAX: usize = 63;

/// How a VM's NIC is bound to its pod's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// virt-launcher hands the pod's address to the guest by its own DHCP server.
    Bridge,
    /// A tap, and no DHCP server: OVN answers.
    ManagedTap,
    /// The guest hides behind the pod's address.
    Masquerade,
    /// The same by passt, which KubeVirt has in its core since 1.7.
    Passt,
    /// The same by the network binding plugin of that name, which came before.
    PasstPlugin,
    /// A function of the node's network card, handed to the guest.
    Sriov,
}

/// The network of a VM's NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum On {
    /// The pod network.
    Pod,
    /// A NetworkAttachmentDefinition, `[<namespace>/]<name>`.
    Nad(String),
    /// A NetworkAttachmentDefinition in the pod network's place.
    DefaultNad(String),
}

/// One NIC of a VM: an interface and the network of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The name that ties interface and network together.
    pub name: String,
    /// Its network.
    pub on: On,
    /// How it is bound.
    pub binding: Binding,
    /// `interfaces[].macAddress`.
    pub mac: Option<String>,
}

impl Nic {
    /// A bridged NIC on the pod network.
    pub fn pod(name: &str) -> Self {
        Self { name: name.to_owned(), on: On::Pod, binding: Binding::Bridge, mac: None }
    }

    /// A bridged NIC on a NetworkAttachmentDefinition.
    pub fn nad(name: &str, nad: &str) -> Self {
        Self { on: On::Nad(nad.to_owned()), ..Self::pod(name) }
    }

    /// A bridged NIC on a NetworkAttachmentDefinition that takes the pod network's place.
    pub fn default_nad(name: &str, nad: &str) -> Self {
        Self { on: On::DefaultNad(nad.to_owned()), ..Self::pod(name) }
    }

    /// With `interfaces[].macAddress`.
    #[must_use]
    pub fn mac(mut self, mac: &str) -> Self {
        self.mac = Some(mac.to_owned());
        self
    }

    /// With another binding.
    #[must_use]
    pub fn binding(mut self, binding: Binding) -> Self {
        self.binding = binding;
        self
    }

    /// The element of `interfaces`.
    pub fn interface(&self) -> Value {
        let mut interface = match self.binding {
            Binding::Bridge => json!({"bridge": {}}),
            Binding::ManagedTap => json!({"binding": {"name": "managedtap"}}),
            Binding::Masquerade => json!({"masquerade": {}}),
            Binding::Passt => json!({"passtBinding": {}}),
            Binding::PasstPlugin => json!({"binding": {"name": "passt"}}),
            Binding::Sriov => json!({"sriov": {}}),
        };
        interface["name"] = json!(self.name);
        if let Some(mac) = &self.mac {
            interface["macAddress"] = json!(mac);
        }
        interface
    }

    /// The element of `networks`.
    pub fn network(&self) -> Value {
        match &self.on {
            On::Pod => json!({"name": self.name, "pod": {}}),
            On::Nad(nad) => json!({"name": self.name, "multus": {"networkName": nad}}),
            On::DefaultNad(nad) => {
                json!({"name": self.name, "multus": {"networkName": nad, "default": true}})
            }
        }
    }
}

/// The properties of a VM that a test may change. The default is the seed's: one bridged NIC on the pod network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmOptions {
    /// `spec.template.metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `spec.runStrategy`.
    pub run_strategy: String,
    /// Interfaces and networks; `None` states neither of the two.
    pub nics: Option<Vec<Nic>>,
    /// `domain.devices.autoattachPodInterface`.
    pub autoattach_pod_interface: Option<bool>,
}

impl Default for VmOptions {
    fn default() -> Self {
        let migratable = ("kubevirt.io/allow-pod-bridge-network-live-migration".to_owned(), "true".to_owned());
        Self {
            annotations: [migratable].into(),
            run_strategy: "Always".to_owned(),
            nics: Some(vec![Nic::pod("default")]),
            autoattach_pod_interface: None,
        }
    }
}

impl VmOptions {
    /// One more annotation on the template.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Another `spec.runStrategy`.
    #[must_use]
    pub fn run_strategy(mut self, run_strategy: &str) -> Self {
        run_strategy.clone_into(&mut self.run_strategy);
        self
    }

    /// Another binding of the first NIC.
    #[must_use]
    pub fn binding(mut self, binding: Binding) -> Self {
        self.first_nic().binding = binding;
        self
    }

    /// `interfaces[].macAddress` of the first NIC.
    #[must_use]
    pub fn mac(mut self, mac: &str) -> Self {
        self.first_nic().mac = Some(mac.to_owned());
        self
    }

    /// One more NIC.
    #[must_use]
    pub fn nic(mut self, nic: Nic) -> Self {
        self.nics.get_or_insert_default().push(nic);
        self
    }

    /// These NICs and no others.
    #[must_use]
    pub fn nics(mut self, nics: impl Into<Vec<Nic>>) -> Self {
        self.nics = Some(nics.into());
        self
    }

    /// Neither `networks` nor `interfaces`: KubeVirt attaches the pod network by itself.
    #[must_use]
    pub fn without_networks(mut self) -> Self {
        self.nics = None;
        self
    }

    /// `autoattachPodInterface`.
    #[must_use]
    pub fn autoattach_pod_interface(mut self, autoattach: bool) -> Self {
        self.autoattach_pod_interface = Some(autoattach);
        self
    }

    fn first_nic(&mut self) -> &mut Nic {
        self.nics.as_mut().and_then(|nics| nics.first_mut()).expect("these options have a NIC")
    }

    /// `VirtualMachineInstanceSpec`, as a user writes it.
    fn spec(&self) -> Value {
        let mut spec = json!({
            "domain": {
                "devices": {
                    "disks": [
                        {"name": "containerdisk", "disk": {"bus": "virtio"}},
                        {"name": "cloudinitdisk", "disk": {"bus": "virtio"}},
                    ],
                },
                "resources": {"requests": {"memory": "64M"}},
            },
            "volumes": [
                {"name": "containerdisk", "containerDisk": {"image": "quay.io/kubevirt/cirros-container-disk-demo"}},
                {"name": "cloudinitdisk", "cloudInitNoCloud": {"userDataBase64": "SGkuXG4="}},
            ],
        });
        if let Some(nics) = &self.nics {
            spec["domain"]["devices"]["interfaces"] = nics.iter().map(Nic::interface).collect();
            spec["networks"] = nics.iter().map(Nic::network).collect();
        }
        if let Some(autoattach) = self.autoattach_pod_interface {
            spec["domain"]["devices"]["autoattachPodInterface"] = json!(autoattach);
        }
        spec
    }
}

/// The body of `kubectl apply` for a VM.
pub fn vm(name: &str, options: &VmOptions) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {
            "runStrategy": options.run_strategy,
            "template": {
                "metadata": {"annotations": options.annotations, "labels": template_labels(name)},
                "spec": options.spec(),
            },
        },
    })
}

/// The fields that virt-controller adds to a new VM.
pub fn adopt_vm(vm: &mut Value) {
    observed_versions(vm);
    vm["metadata"]["finalizers"] = json!([VM_FINALIZER]);
    let id = vm["metadata"]["uid"].as_str().unwrap_or_default();
    let firmware = Uuid::new_v5(&Uuid::NAMESPACE_OID, id.as_bytes());
    vm["spec"]["template"]["spec"]["domain"]["firmware"] = json!({"uuid": firmware});
}

/// The VMI that virt-controller makes of a VM: the template, once, as it is now.
pub fn vmi_of(vm: &Value) -> Value {
    let (name, uid) = (&vm["metadata"]["name"], &vm["metadata"]["uid"]);
    let template = &vm["spec"]["template"];
    let mut vmi = json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {
            "name": name,
            "annotations": template["metadata"].get("annotations").cloned().unwrap_or_else(|| json!({})),
            "labels": template["metadata"].get("labels").cloned().unwrap_or_else(|| json!({})),
            "finalizers": [VM_FINALIZER],
            "ownerReferences": [{
                "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": name, "uid": uid,
                "blockOwnerDeletion": true, "controller": true,
            }],
        },
        "spec": template["spec"],
    });
    observed_versions(&mut vmi);
    vmi["metadata"]["annotations"]["kubevirt.io/vm-generation"] = json!(vm["metadata"]["generation"].to_string());
    attach_pod_network(&mut vmi["spec"]);
    vmi
}

/// A VMI without a VM.
pub fn bare_vmi(name: &str, options: &VmOptions) -> Value {
    let mut vmi = json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {
            "name": name, "annotations": options.annotations, "labels": template_labels(name),
            "finalizers": [VM_FINALIZER],
        },
        "spec": options.spec(),
    });
    observed_versions(&mut vmi);
    attach_pod_network(&mut vmi["spec"]);
    vmi
}

/// The launcher pod that virt-controller creates for a VMI; the server generates the end of the name.
pub fn launcher_pod(vmi: &Value) -> Value {
    let (name, namespace) = (string(&vmi["metadata"]["name"]), string(&vmi["metadata"]["namespace"]));
    let host = name.split('.').next().unwrap_or(name);
    let filled = LAUNCHER_POD
        .replace("@VM@", name)
        .replace("@VMI_UID@", string(&vmi["metadata"]["uid"]))
        .replace("@NAMESPACE@", namespace)
        .replace("@HOSTNAME@", shortened(host))
        .replace("@ID@", shortened(name));
    let mut pod: Value = serde_json::from_str(&filled).expect("objects/launcher-pod.json is JSON");

    merge(&mut pod["metadata"]["labels"], &vmi["metadata"]["labels"]);
    let mut annotations = vmi["metadata"]["annotations"].clone();
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.retain(|key, _| !key.ends_with("-observed-api-version"));
    }
    merge(&mut pod["metadata"]["annotations"], &annotations);
    let networks = multus_networks(vmi);
    if !networks.is_empty() {
        pod["metadata"]["annotations"][MULTUS_ANNOTATION] = json!(Value::from(networks).to_string());
    }
    if let Some(nad) = networks_of(vmi).find_map(|network| {
        let multus = &network["multus"];
        (multus["default"] == true).then(|| multus["networkName"].clone())
    }) {
        pod["metadata"]["annotations"]["v1.multus-cni.io/default-network"] = nad;
    }
    pod
}

/// The target pod that virt-controller creates for a migration: a launcher pod with the UID of the migration.
pub fn target_pod(vmi: &Value, vmim: &Value) -> Value {
    let mut pod = launcher_pod(vmi);
    pod["metadata"]["labels"]["kubevirt.io/migrationJobUID"] = vmim["metadata"]["uid"].clone();
    pod["metadata"]["annotations"]["kubevirt.io/migrationJobName"] = vmim["metadata"]["name"].clone();
    pod["spec"]["affinity"]["podAntiAffinity"] = json!({
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": {"matchLabels": {"kubevirt.io/created-by": vmi["metadata"]["uid"]}},
            "topologyKey": "kubernetes.io/hostname",
        }],
    });
    pod
}

/// The body of `virtctl migrate`, with virt-api's finalizer and label.
pub fn vmim(name: &str, vmi: &str) -> Value {
    let mut vmim = json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceMigration",
        "metadata": {
            "name": name, "annotations": {}, "finalizers": [VMIM_FINALIZER],
            "labels": {"kubevirt.io/vmi-name": shortened(vmi)},
        },
        "spec": {"vmiName": vmi},
    });
    observed_versions(&mut vmim);
    vmim
}

/// A NetworkAttachmentDefinition of the Kube-OVN style, on a switch if one is named.
pub fn nad(name: &str, switch: Option<&str>) -> Value {
    let config = json!({"cniVersion": "0.3.1", "name": name, "type": "ovs", "bridge": "br-int"});
    let annotations = switch.map(|switch| json!({"ovn.kubernetes.io/logical_switch": switch}));
    json!({
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "annotations": annotations.unwrap_or_else(|| json!({}))},
        "spec": {"config": config.to_string()},
    })
}

/// `migrationState.migrationConfiguration`, which this service does not read.
pub fn migration_configuration() -> Value {
    json!({
        "allowAutoConverge": false, "allowPostCopy": false, "allowWorkloadDisruption": false,
        "bandwidthPerMigration": "0", "completionTimeoutPerGiB": 150, "maxDowntimeMs": 900,
        "nodeDrainTaintKey": "kubevirt.io/drain", "parallelMigrationsPerCluster": 5,
        "parallelOutboundMigrationsPerNode": 2, "progressTimeout": 150, "unsafeMigrationOverride": false,
        "utilityVolumesTimeout": 150,
    })
}

/// `spec.networks` of a VMI.
pub fn networks_of(vmi: &Value) -> impl Iterator<Item = &Value> {
    vmi["spec"]["networks"].as_array().into_iter().flatten()
}

/// The name of a network's interface in the pod: `eth0` for the main one, `pod` and 11 hex digits for the others.
pub fn pod_interface(network: &Value) -> String {
    if network.get("pod").is_some() || network["multus"]["default"] == true {
        return "eth0".to_owned();
    }
    format!("pod{}", &sha256(string(&network["name"]))[..11])
}

/// Now, as Kubernetes writes it.
pub fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Now, as Go prints a time: how KubeVirt writes [`TARGET_READY_ANNOTATION`].
pub fn now_in_go() -> String {
    Timestamp::now().strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

/// Copies the keys of `from` into `into`, and overwrites present ones.
pub fn merge(into: &mut Value, from: &Value) {
    if into.is_null() {
        *into = Value::Object(Map::new());
    }
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(from.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
}

/// The elements of [`MULTUS_ANNOTATION`]: no addresses and no cni-args, as KubeVirt writes them.
pub fn multus_networks(vmi: &Value) -> Vec<Value> {
    let namespace = string(&vmi["metadata"]["namespace"]);
    let interfaces = vmi["spec"]["domain"]["devices"]["interfaces"].as_array();
    let element = |network: &Value| {
        let multus = network.get("multus").filter(|multus| multus["default"] != true)?;
        let interface = interfaces.into_iter().flatten().find(|nic| nic["name"] == network["name"])?;
        let full = string(&multus["networkName"]);
        let (namespace, nad) = full.split_once('/').unwrap_or((namespace, full));
        let mut element = json!({"name": nad, "namespace": namespace, "interface": pod_interface(network)});
        if let Some(mac) = interface.get("macAddress") {
            element["mac"] = mac.clone();
        }
        (interface["state"] != "absent").then_some(element)
    };
    networks_of(vmi).filter_map(element).collect()
}

/// A VM that states no networks gets one NIC on the pod network when its VMI is made.
fn attach_pod_network(spec: &mut Value) {
    let devices = &spec["domain"]["devices"];
    let states_none = spec.get("networks").is_none() && devices.get("interfaces").is_none();
    if states_none && devices["autoattachPodInterface"] != false {
        let nic = Nic::pod("default");
        spec["domain"]["devices"]["interfaces"] = json!([nic.interface()]);
        spec["networks"] = json!([nic.network()]);
    }
}

fn template_labels(name: &str) -> Value {
    json!({"kubevirt.io/domain": shortened(name), "kubevirt.io/size": "small"})
}

fn observed_versions(object: &mut Value) {
    let versions = json!({
        "kubevirt.io/latest-observed-api-version": "v1",
        "kubevirt.io/storage-observed-api-version": "v1",
    });
    merge(&mut object["metadata"]["annotations"], &versions);
}

fn shortened(name: &str) -> &str {
    name.get(..LABEL_MAX).unwrap_or(name)
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string"))
}

/// By coreutils: the harness shares no code with the service, and no other test needs a hash.
fn sha256(text: &str) -> String {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sha256sum (coreutils) runs");
    child.stdin.take().expect("standard input is piped").write_all(text.as_bytes()).expect("sha256sum reads");
    let output = child.wait_with_output().expect("sha256sum ends");
    String::from_utf8(output.stdout).expect("sha256sum writes hex digits")
}
