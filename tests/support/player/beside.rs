//! Plays pods of a VM that are no launchers, though they look like some; and ends that come from outside KubeVirt.

use serde_json::json;

use super::{Migration, Part, Player, name_of, objects, uid};

impl Player {
    /// A pod that only provisions a volume of the VM (WaitForFirstConsumer): made from the launcher's template, and
    /// gone before the VM starts. Gives back its name.
    pub async fn create_provisioning_pod(&self, vm: &str) -> String {
        let vmi = self.must_vmi(vm).await;
        let mut pod = objects::launcher_pod(&vmi);
        pod["metadata"]["annotations"]["kubevirt.io/ephemeral-provisioning"] = json!("true");
        name_of(&self.create(&self.pods, pod).await)
    }

    /// A pod that attaches a hot-plugged disk beside the migration's target: it has the migration's labels, too, and
    /// a launcher pod for its owner. Gives back its name.
    pub async fn create_hotplug_pod(&self, migration: &Migration) -> String {
        let target = self.pod(&migration.target_pod).await.unwrap_or_else(|| panic!("no pod {}", migration.target_pod));
        let (vmi, vmim) = (self.must_vmi(&migration.vm).await, self.vmim(&migration.name).await.unwrap_or_default());
        let mut pod = objects::target_pod(&vmi, &vmim);
        pod["metadata"]["generateName"] = json!("hp-volume-");
        pod["metadata"]["labels"]["kubevirt.io"] = json!("hotplug-disk");
        pod["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "v1", "kind": "Pod", "name": migration.target_pod, "uid": uid(&target),
            "blockOwnerDeletion": true, "controller": true,
        }]);
        name_of(&self.create(&self.pods, pod).await)
    }

    /// The kubelet evicts a pod: it is Failed, and stays.
    pub async fn evict(&self, pod: &str) {
        self.pod_phase(pod, "Failed").await;
        self.modify(&self.pods, Part::Status, pod, |pod| {
            pod["status"]["reason"] = json!("Evicted");
            pod["status"]["message"] = json!("The node was low on resource: memory.");
        })
        .await;
    }

    /// A node drain begins a migration, up to the target pod, which is not bound yet: the evacuation controller's VMIM.
    pub async fn start_evacuation(&self, vm: &str, target_node: &str) -> Migration {
        let migration = self.start_migration(vm, target_node).await;
        let source = &migration.source_node;
        let annotations = json!({"kubevirt.io/evacuationMigration": source});
        self.patch(&self.vmims, &migration.name, json!({"metadata": {"annotations": annotations}})).await;
        self.modify(&self.vmis, Part::Whole, vm, |vmi| vmi["status"]["evacuationNodeName"] = json!(source)).await;
        migration
    }

    /// The VMIM's finalizer is taken away, and it is deleted: the migration is not cancelled.
    pub async fn lose_vmim(&self, migration: &Migration) {
        self.cancel_start(migration).await;
        self.remove_finalizers(&self.vmims, &migration.name).await;
    }

    /// The guest has ended by itself (`Succeeded`) or in an accident (`Failed`), and all its launchers with it. KubeVirt
    /// leaves them there until the VM's run strategy decides the next step.
    pub async fn guest_ends(&self, vm: &str, phase: &str) {
        let mut pods = self.launcher_objects(vm).await;
        // A migration's target ends after its source, which the guest has left: the other way round the source would be
        // the last that is live, and the port with it.
        pods.sort_by_key(|pod| pod["metadata"]["labels"]["kubevirt.io/migrationJobUID"].is_string());
        for pod in pods {
            self.pod_phase(pod["metadata"]["name"].as_str().expect("a name"), phase).await;
        }
        self.vmi_phase(vm, phase).await;
    }

    /// The VM waits for its next try: no VMI, no pods.
    pub async fn crash_loop(&self, vm: &str) {
        self.guest_ends(vm, "Failed").await;
        self.stop(vm).await;
        self.vm_status(vm, "CrashLoopBackOff", false).await;
    }

    /// A VMIM that the API server has just taken: it has no status yet.
    pub async fn without_phase(&self, migration: &Migration) {
        self.modify(&self.vmims, Part::Status, &migration.name, |vmim| vmim["status"] = json!({})).await;
    }
}
