//! Plays KubeVirt: makes the writes of virt-controller, virt-handler and the kubelet to the API server, in their order.
//!
//! Every step is a function, so that a test can stop between any two of them; [`Player::start`], [`Player::stop`] and
//! their like do the usual ones in a row. The player keeps no state: each step reads the objects afresh, as a
//! controller does, so that it goes on after any accident that a test stages. Migrations are in [`migration`], hot-plug
//! is in [`hotplug`], the change of a network in [`networks`], a migration to or from elsewhere in [`decentralised`], pods that are no launchers in [`beside`], and
//! [`api`] is the way to the server.
//!
//! A CNI's report (the pod's address, the guest's NICs) is taken from the ports that the service has reported on
//! the VM; where it has not, the status has no address.

mod api;
mod beside;
mod decentralised;
mod hotplug;
mod migration;
mod networks;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::cluster::Namespace;
use super::eventually::eventually;
use super::objects::{self, VmOptions};

use api::{Part, name_of, uid, value_of};
pub use decentralised::Remote;
pub use migration::Migration;

/// The annotation in which the service reports a VM's ports.
pub const PORTS_ANNOTATION: &str = "ovn-kubevirt.io/ports";

/// KubeVirt in one namespace.
#[derive(Clone)]
pub struct Player {
    namespace: String,
    vms: Api<DynamicObject>,
    vmis: Api<DynamicObject>,
    vmims: Api<DynamicObject>,
    pods: Api<DynamicObject>,
    nads: Api<DynamicObject>,
}

/// One run of a VM: from the VMI to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The UID of the VMI: another at every start.
    pub vmi_uid: String,
    /// The name of the launcher pod.
    pub pod: String,
}

// --- the VM, as its user has it ---
impl Player {
    /// A player for the namespace of that name.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self::of(client.clone(), client, namespace)
    }

    fn of(client: Client, virt_controller: Client, namespace: &str) -> Self {
        let api = |resource: &ApiResource| Api::namespaced_with(client.clone(), namespace, resource);
        let kubevirt = |kind| api(&ApiResource::from_gvk(&GroupVersionKind::gvk("kubevirt.io", "v1", kind)));
        let nad = GroupVersionKind::gvk("k8s.cni.cncf.io", "v1", "NetworkAttachmentDefinition");
        Self {
            namespace: namespace.to_owned(),
            vms: kubevirt("VirtualMachine"),
            vmis: kubevirt("VirtualMachineInstance"),
            vmims: kubevirt("VirtualMachineInstanceMigration"),
            pods: Api::namespaced_with(virt_controller, namespace, &ApiResource::erase::<Pod>(&())),
            nads: api(&ApiResource::from_gvk_with_plural(&nad, "network-attachment-definitions")),
        }
    }

    /// A player for a test's namespace.
    pub fn within(namespace: &Namespace) -> Self {
        Self::of(namespace.client.clone(), namespace.virt_controller.clone(), &namespace.name)
    }

    /// The same player with this client for VMIs, for a measurement of the time that their changes take.
    #[must_use]
    pub fn writing_vmis_by(self, client: Client) -> Self {
        Self { vmis: Self::new(client, &self.namespace).vmis, ..self }
    }

    /// `kubectl apply` of a VM, and virt-controller's first write to it. Gives back its UID.
    pub async fn create_vm(&self, name: &str, options: VmOptions) -> String {
        let uid = self.apply_vm(name, options).await;
        self.adopt_vm(name).await;
        uid
    }

    /// Only `kubectl apply`: the VM has no finalizer yet.
    pub async fn apply_vm(&self, name: &str, options: VmOptions) -> String {
        uid(&self.create(&self.vms, objects::vm(name, &options)).await)
    }

    /// virt-controller's first write to a VM: its finalizer, the firmware's UUID, a status.
    pub async fn adopt_vm(&self, name: &str) {
        self.modify(&self.vms, Part::Whole, name, objects::adopt_vm).await;
        self.vm_status(name, "Stopped", false).await;
    }

    /// Sets an annotation of the VM's template, or takes it off. The VMI that runs does not see it.
    pub async fn edit_template_annotation(&self, name: &str, key: &str, value: Option<&str>) {
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {key: value}}}}});
        self.patch(&self.vms, name, patch).await;
    }

    /// Any edit of the VM by its user.
    pub async fn edit_vm(&self, name: &str, change: impl Fn(&mut Value)) {
        self.modify(&self.vms, Part::Whole, name, change).await;
    }

    /// A NetworkAttachmentDefinition, on a logical switch if one is named.
    pub async fn create_nad(&self, name: &str, switch: Option<&str>) {
        self.create(&self.nads, objects::nad(name, switch)).await;
    }

    /// Sets the switch that a NetworkAttachmentDefinition names, or takes it off.
    pub async fn put_nad_on(&self, name: &str, switch: Option<&str>) {
        let annotations = json!({"ovn.kubernetes.io/logical_switch": switch});
        self.patch(&self.nads, name, json!({"metadata": {"annotations": annotations}})).await;
    }

    /// Deletes a NetworkAttachmentDefinition.
    pub async fn delete_nad(&self, name: &str) {
        self.delete(&self.nads, name, &DeleteParams::default()).await;
    }
}

// --- one run ---
impl Player {
    /// Starts the VM on a node, all the way to Running. The node need not exist.
    pub async fn start(&self, vm: &str, node: &str) -> Run {
        self.create_vmi(vm).await;
        self.launch(vm, node).await
    }

    /// Stops the VM: its VMI is deleted, the launcher pod ends, and all is gone.
    pub async fn stop(&self, vm: &str) {
        self.delete_vmi_start(vm).await;
        for pod in self.launchers(vm).await {
            self.pod_phase(&pod, "Succeeded").await;
            self.delete_pod(&pod).await;
        }
        self.remove_vmi_finalizer(vm).await;
    }

    /// `virtctl restart`: a VMI with the same name, another UID and another pod.
    pub async fn restart(&self, vm: &str, node: &str) -> Run {
        self.stop(vm).await;
        self.start(vm, node).await
    }

    /// From a VMI that is there, with a VM or without, to Running.
    pub async fn launch(&self, vm: &str, node: &str) -> Run {
        let pod = self.create_launcher(vm).await;
        self.bind_pod(&pod, node).await;
        self.pod_phase(&pod, "Running").await;
        self.vmi_scheduled(vm, node).await;
        self.vmi_running(vm, node).await;
        Run { vmi_uid: uid(&self.must_vmi(vm).await), pod }
    }

    /// Step 1: the VMI, a copy of the VM's template. Gives back its UID.
    pub async fn create_vmi(&self, vm: &str) -> String {
        let vm_now = self.get(&self.vms, vm).await.unwrap_or_else(|| panic!("no VM {vm} to start"));
        let vmi = self.create(&self.vmis, objects::vmi_of(&vm_now)).await;
        self.vmi_phase(vm, "Pending").await;
        self.vm_status(vm, "Starting", false).await;
        uid(&vmi)
    }

    /// Step 1 without a VM: a bare VMI. Gives back its UID.
    pub async fn create_bare_vmi(&self, name: &str, options: VmOptions) -> String {
        let vmi = self.create(&self.vmis, objects::bare_vmi(name, &options)).await;
        self.vmi_phase(name, "Pending").await;
        uid(&vmi)
    }

    /// Step 2: the launcher pod, not bound to a node yet; the VMI is Scheduling. Gives back the pod's name.
    pub async fn create_launcher(&self, vm: &str) -> String {
        let vmi = self.must_vmi(vm).await;
        let pod = self.create(&self.pods, objects::launcher_pod(&vmi)).await;
        self.unpaused(&name_of(&pod)).await;
        self.modify(&self.vmis, Part::Whole, vm, |vmi| {
            vmi["status"]["activePods"][uid(&pod)] = json!("");
            vmi["status"]["conditions"] = json!([not_ready()]);
        })
        .await;
        self.vmi_phase(vm, "Scheduling").await;
        name_of(&pod)
    }

    /// Step 3: the scheduler binds the pod to a node.
    pub async fn bind_pod(&self, pod: &str, node: &str) {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let bound = self.pods.create_subresource::<_, Value>("binding", pod, &PostParams::default(), &binding).await;
        bound.unwrap_or_else(|error| panic!("pod {pod} does not bind to {node}: {error}"));
    }

    /// Step 4, and the pod's end: the kubelet's status for `Running` (and Ready), `Succeeded` or `Failed`.
    pub async fn pod_phase(&self, pod: &str, phase: &str) {
        let vm = self.vm_of_pod(pod).await;
        let address = self.reported_ports(&vm).await.into_values().find_map(|port| port.addresses.into_iter().next());
        let time = objects::now();
        let running = phase == "Running";
        self.modify(&self.pods, Part::Status, pod, |object| {
            let unpaused = object["status"]["conditions"].as_array().into_iter().flatten();
            let unpaused = unpaused.filter(|condition| condition["type"] == "kubevirt.io/virtual-machine-unpaused");
            let mut conditions: Vec<Value> = unpaused.cloned().collect();
            for (kind, holds) in
                [("PodScheduled", true), ("Initialized", true), ("ContainersReady", running), ("Ready", running)]
            {
                let mut condition = json!({
                    "type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": time,
                });
                if !holds {
                    condition["reason"] = json!("PodCompleted");
                }
                conditions.push(condition);
            }
            let status = &mut object["status"];
            status["conditions"] = Value::Array(conditions);
            status["phase"] = json!(phase);
            status["containerStatuses"] = json!([container_status(phase, &time)]);
            if running {
                status["startTime"] = json!(time);
                status["hostIP"] = json!("192.168.0.1");
                if let Some(address) = &address {
                    status["podIP"] = json!(address);
                    status["podIPs"] = json!([{"ip": address}]);
                }
            }
        })
        .await;
    }

    /// Step 5: virt-controller has seen the pod ready, and hands the VMI to the node.
    pub async fn vmi_scheduled(&self, vm: &str, node: &str) {
        let vmi = self.must_vmi(vm).await;
        for pod in self.launcher_objects(vm).await {
            if pod["spec"]["nodeName"] == node && pod["metadata"]["labels"]["kubevirt.io/created-by"] == uid(&vmi) {
                let name = name_of(&pod);
                self.patch(&self.pods, &name, json!({"metadata": {"labels": {"kubevirt.io/nodeName": node}}})).await;
                self.active_pod(vm, &uid(&pod), node).await;
            }
        }
        self.modify(&self.vmis, Part::Whole, vm, |vmi| {
            vmi["metadata"]["labels"]["kubevirt.io/nodeName"] = json!(node);
            vmi["status"]["nodeName"] = json!(node);
            let plugged = objects::networks_of(vmi)
                .map(|network| json!({"name": network["name"], "podInterfaceName": objects::pod_interface(network)}));
            vmi["status"]["interfaces"] = plugged.collect();
        })
        .await;
        self.vmi_phase(vm, "Scheduled").await;
    }

    /// Step 6: virt-handler has started the domain on the node.
    pub async fn vmi_running(&self, vm: &str, node: &str) {
        let ports = self.reported_ports(vm).await;
        self.modify(&self.vmis, Part::Whole, vm, |vmi| {
            let interfaces = objects::networks_of(vmi).enumerate().map(|(index, network)| {
                let port = network["name"].as_str().and_then(|name| ports.get(name));
                guest_interface(index, network, port)
            });
            let interfaces: Vec<Value> = interfaces.collect();
            let status = &mut vmi["status"];
            status["interfaces"] = Value::Array(interfaces);
            status["nodeName"] = json!(node);
            status["migrationMethod"] = json!("BlockMigration");
            status["migrationTransport"] = json!("Unix");
            status["conditions"] = json!([
                {"type": "Ready", "status": "True", "lastTransitionTime": objects::now()},
                {"type": "LiveMigratable", "status": "True"},
                {"type": "StorageLiveMigratable", "status": "True"},
            ]);
        })
        .await;
        self.vmi_phase(vm, "Running").await;
        self.vm_status(vm, "Running", true).await;
    }

    /// Sets the VMI's phase: also `Succeeded` (the guest shut itself down) and `Failed`.
    pub async fn vmi_phase(&self, vm: &str, phase: &str) {
        self.modify(&self.vmis, Part::Whole, vm, |vmi| enter_phase(&mut vmi["status"], phase)).await;
    }
}

// --- ends ---
impl Player {
    /// Deletes the VM, and plays all to its end.
    pub async fn delete_vm(&self, vm: &str) {
        self.delete_vm_start(vm).await;
        if self.vmi(vm).await.is_some() {
            self.stop(vm).await;
        }
        self.remove_vm_finalizer(vm).await;
    }

    /// Step 1: `kubectl delete vm`: a deletionTimestamp, and the finalizer holds.
    pub async fn delete_vm_start(&self, vm: &str) {
        self.delete(&self.vms, vm, &DeleteParams::background()).await;
    }

    /// The last step: the VM is gone. On an orphan-delete it comes while the VMI and its pods live on.
    pub async fn remove_vm_finalizer(&self, vm: &str) {
        self.remove_finalizers(&self.vms, vm).await;
    }

    /// Stop, step 1: the VMI gets a deletionTimestamp, and its finalizer holds.
    pub async fn delete_vmi_start(&self, vm: &str) {
        self.delete(&self.vmis, vm, &DeleteParams::background()).await;
        self.vm_status(vm, "Stopping", false).await;
    }

    /// `kubectl delete pod`, an eviction: a deletionTimestamp, and the pod stays until its kubelet has ended it.
    ///
    /// A pod that is bound to no node has no kubelet to wait for, and goes at once.
    pub async fn delete_pod_start(&self, pod: &str) {
        self.delete(&self.pods, pod, &DeleteParams::default()).await;
    }

    /// Stop, step 2: the pod is gone, as after its kubelet's last word.
    pub async fn delete_pod(&self, pod: &str) {
        self.delete(&self.pods, pod, &DeleteParams::default().grace_period(0)).await;
        eventually(&format!("pod {pod} is gone"), async || match self.get(&self.pods, pod).await {
            None => Ok(()),
            Some(pod) => Err(pod.to_string()),
        })
        .await;
    }

    /// Stop, step 3: the VMI is gone.
    pub async fn remove_vmi_finalizer(&self, vm: &str) {
        self.remove_finalizers(&self.vmis, vm).await;
        self.vm_status(vm, "Stopped", false).await;
    }
}

// --- what there is ---
impl Player {
    /// The VM, if there is one.
    pub async fn vm(&self, name: &str) -> Option<Value> {
        self.get(&self.vms, name).await
    }

    /// The VMI, if there is one.
    pub async fn vmi(&self, name: &str) -> Option<Value> {
        self.get(&self.vmis, name).await
    }

    /// The pod, if there is one.
    pub async fn pod(&self, name: &str) -> Option<Value> {
        self.get(&self.pods, name).await
    }

    /// The names of the VM's launcher pods, migration targets included, oldest first.
    pub async fn launchers(&self, vm: &str) -> Vec<String> {
        self.launcher_objects(vm).await.iter().map(name_of).collect()
    }

    async fn launcher_objects(&self, vm: &str) -> Vec<Value> {
        let launchers = self.pods.list(&ListParams::default().labels("kubevirt.io=virt-launcher")).await;
        let launchers = launchers.unwrap_or_else(|error| panic!("pods of {}: {error}", self.namespace));
        let mut launchers: Vec<Value> = launchers.items.into_iter().map(value_of).collect();
        launchers.retain(|pod| pod["metadata"]["annotations"]["kubevirt.io/domain"] == vm);
        launchers.sort_by_key(|pod| pod["metadata"]["creationTimestamp"].to_string());
        launchers
    }

    /// The VMI, as it is now.
    pub async fn must_vmi(&self, vm: &str) -> Value {
        self.vmi(vm).await.unwrap_or_else(|| panic!("no VMI {vm} in {}", self.namespace))
    }

    async fn vm_of_pod(&self, pod: &str) -> String {
        let object = self.pod(pod).await.unwrap_or_else(|| panic!("no pod {pod} in {}", self.namespace));
        let domain = object["metadata"]["annotations"]["kubevirt.io/domain"].as_str();
        domain.unwrap_or_else(|| panic!("pod {pod} is no launcher")).to_owned()
    }

    /// The ports that the service has reported on the VM so far, by network.
    async fn reported_ports(&self, vm: &str) -> BTreeMap<String, ReportedPort> {
        let Some(vm) = self.vm(vm).await else {
            return BTreeMap::new();
        };
        let text = vm["metadata"]["annotations"][PORTS_ANNOTATION].as_str().unwrap_or("null");
        let status: Value = serde_json::from_str(text).unwrap_or_default();
        let ports = status["ports"].as_array().cloned().unwrap_or_default();
        let port = |port: &Value| {
            let addresses = port["ips"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let addresses = addresses.map(|ip| ip.split('/').next().unwrap_or(ip).to_owned()).collect();
            let mac = port["mac"].as_str().map(str::to_owned);
            Some((port["network"].as_str()?.to_owned(), ReportedPort { mac, addresses }))
        };
        ports.iter().filter_map(port).collect()
    }
}

/// The MAC and the addresses that the guest gets from a port.
struct ReportedPort {
    mac: Option<String>,
    addresses: Vec<String>,
}

// --- parts of steps ---
impl Player {
    /// The VM's status, where the VMI has a VM that is still there.
    async fn vm_status(&self, vm: &str, printable: &str, ready: bool) {
        if self.vm(vm).await.is_none() {
            return;
        }
        self.modify(&self.vms, Part::Status, vm, |vm| {
            let status = &mut vm["status"];
            status["printableStatus"] = json!(printable);
            status["created"] = json!(printable != "Stopped");
            status["ready"] = json!(ready);
        })
        .await;
    }

    /// `VMI.status.activePods`: which pod is where.
    async fn active_pod(&self, vm: &str, pod_uid: &str, node: &str) {
        self.modify(&self.vmis, Part::Whole, vm, |vmi| vmi["status"]["activePods"][pod_uid] = json!(node)).await;
    }

    /// virt-controller's readiness gate on a launcher pod.
    async fn unpaused(&self, pod: &str) {
        let time = objects::now();
        self.modify(&self.pods, Part::Status, pod, |pod| {
            let conditions = &mut pod["status"]["conditions"];
            if conditions.is_null() {
                *conditions = json!([]);
            }
            conditions.as_array_mut().expect("conditions are a list").push(json!({
                "type": "kubevirt.io/virtual-machine-unpaused", "status": "True", "reason": "NotPaused",
                "message": "the virtual machine is not paused", "lastProbeTime": time, "lastTransitionTime": time,
            }));
        })
        .await;
    }
}

/// Sets `phase` and notes when.
fn enter_phase(status: &mut Value, phase: &str) {
    status["phase"] = json!(phase);
    let entry = json!({"phase": phase, "phaseTransitionTimestamp": objects::now()});
    match status["phaseTransitionTimestamps"].as_array_mut() {
        Some(entries) => entries.push(entry),
        None => status["phaseTransitionTimestamps"] = json!([entry]),
    }
}

fn not_ready() -> Value {
    json!({
        "type": "Ready", "status": "False", "reason": "GuestNotRunning",
        "message": "Guest VM is not reported as running", "lastTransitionTime": objects::now(),
    })
}

fn guest_interface(index: usize, network: &Value, port: Option<&ReportedPort>) -> Value {
    let mut interface = json!({
        "name": network["name"], "interfaceName": format!("eth{index}"), "infoSource": "domain",
        "podInterfaceName": objects::pod_interface(network), "queueCount": 1,
    });
    if let Some(mac) = port.and_then(|port| port.mac.as_ref()) {
        interface["mac"] = json!(mac);
    }
    if let Some((address, all)) = port.and_then(|port| Some((port.addresses.first()?, &port.addresses))) {
        interface["ipAddress"] = json!(address);
        interface["ipAddresses"] = json!(all);
    }
    interface
}

fn container_status(phase: &str, time: &str) -> Value {
    let running = phase == "Running";
    let state = if running {
        json!({"running": {"startedAt": time}})
    } else {
        let (code, reason) = if phase == "Failed" { (1, "Error") } else { (0, "Completed") };
        json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": time, "finishedAt": time}})
    };
    json!({
        "name": "compute", "image": "quay.io/kubevirt/virt-launcher:v1.9.0",
        "imageID": format!("quay.io/kubevirt/virt-launcher@sha256:{:064x}", 1),
        "containerID": "fake://compute", "restartCount": 0, "lastState": {},
        "ready": running, "started": running, "state": state,
    })
}
