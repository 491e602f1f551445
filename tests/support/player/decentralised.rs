//! Plays one side of a decentralised migration: to or from a VM of another namespace or another cluster.
//!
//! ```text
//!  the sender's side                              the receiver's side
//!  VMIM sendTo       Synchronizing                VM with runStrategy WaitAsReceiver, VMI WaitingForSync
//!                                                 VMIM receive      WaitingForSync
//!                    Pending, Scheduling          target pod, labelled with this side's VMIM, bound to a node
//!  migrationState: the other side's pod and node, as the synchronisation controllers tell each other
//!                    TargetReady, Running
//!  targetNodeDomainReadyTimestamp on both sides
//!  VMI Succeeded, source pod Succeeded, VM stopped
//!                                                 VMI Running, nodeName here
//! ```
//!
//! Neither side has the other's pod or node, and names of nodes may be the same on both.

use serde_json::{Value, json};

use super::{Migration, Part, Player, enter_phase, name_of, objects, uid};

/// The launcher of the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The pod's name there.
    pub pod: String,
    /// The node's name there.
    pub node: String,
}

impl Remote {
    /// A launcher of that VM on a node there.
    pub fn new(vm: &str, node: &str) -> Self {
        Self { pod: format!("virt-launcher-{vm}-there"), node: node.to_owned() }
    }
}

// --- the sender ---
impl Player {
    /// The VMIM of the sender, and the state that names the other side's launcher: up to Running.
    pub async fn send(&self, vm: &str, remote: &Remote) -> Migration {
        let vmi = self.must_vmi(vm).await;
        let node = vmi["status"]["nodeName"].as_str().expect("it runs").to_owned();
        let pod = self.launchers(vm).await.pop().expect("a launcher");
        let vmim = self.decentralised_vmim(vm, "sendTo").await;
        let migration = Migration {
            name: name_of(&vmim),
            uid: uid(&vmim),
            vm: vm.to_owned(),
            source_node: node,
            source_pod: pod,
            target_node: remote.node.clone(),
            target_pod: remote.pod.clone(),
        };
        for phase in ["Synchronizing", "Pending", "Scheduling", "Scheduled", "PreparingTarget"] {
            self.vmim_phase(&migration, phase).await;
        }
        self.synchronise(&migration).await;
        for phase in ["TargetReady", "Running"] {
            self.vmim_phase(&migration, phase).await;
        }
        migration
    }

    /// The end in the sender's objects: its guest runs elsewhere, and here all ends.
    pub async fn sent(&self, migration: &Migration) {
        self.source_ends(migration).await;
        self.modify(&self.vmis, Part::Whole, &migration.vm, |vmi| {
            let ended = json!({"completed": true, "endTimestamp": objects::now()});
            objects::merge(&mut vmi["status"]["migrationState"], &ended);
            enter_phase(&mut vmi["status"], "Succeeded");
        })
        .await;
        self.vmim_phase(migration, "Succeeded").await;
    }
}

// --- the receiver ---
impl Player {
    /// The VMI of a VM that waits as a receiver, and the VMIM that it waits by. No guest runs, and there is no pod.
    pub async fn wait_as_receiver(&self, vm: &str, remote: &Remote) -> Migration {
        self.create_vmi(vm).await;
        self.vmi_phase(vm, "WaitingForSync").await;
        let vmim = self.decentralised_vmim(vm, "receive").await;
        let migration = Migration {
            name: name_of(&vmim),
            uid: uid(&vmim),
            vm: vm.to_owned(),
            source_node: remote.node.clone(),
            source_pod: remote.pod.clone(),
            target_node: String::new(),
            target_pod: String::new(),
        };
        self.vmim_phase(&migration, "WaitingForSync").await;
        migration
    }

    /// The source in the receiver's VMI before a pod is here, in the fields of KubeVirt 1.6 and in the older ones.
    pub async fn source_known(&self, migration: &Migration) {
        let state = json!({
            "migrationUid": migration.uid, "sourceNode": migration.source_node, "sourcePod": migration.source_pod,
            "sourceState": {"pod": migration.source_pod, "node": migration.source_node, "migrationUID": "of-the-other",
                            "syncAddress": "10.0.0.1:9185"},
            "targetState": {"migrationUID": migration.uid},
        });
        self.modify(&self.vmis, Part::Whole, &migration.vm, |vmi| vmi["status"]["migrationState"] = state.clone())
            .await;
    }

    /// The receiver's target pod, not bound to a node yet.
    pub async fn create_receiver(&self, migration: Migration, node: &str) -> Migration {
        let (vmi, vmim) = (self.must_vmi(&migration.vm).await, self.vmim(&migration.name).await.unwrap_or_default());
        let pod = self.create(&self.pods, objects::target_pod(&vmi, &vmim)).await;
        self.vmim_phase(&migration, "Scheduling").await;
        Migration { target_pod: name_of(&pod), target_node: node.to_owned(), ..migration }
    }

    /// The receiver's target pod could not be readied: it ends, and the VMI waits again.
    pub async fn receiver_fails(&self, migration: &Migration) {
        self.pod_phase(&migration.target_pod, "Failed").await;
        self.vmi_phase(&migration.vm, "WaitingForSync").await;
        self.vmim_phase(migration, "Failed").await;
    }

    /// The end in the receiver's objects: its guest runs here.
    pub async fn received(&self, migration: &Migration) {
        self.vmi_scheduled(&migration.vm, &migration.target_node).await;
        self.vmi_running(&migration.vm, &migration.target_node).await;
        self.vmim_phase(migration, "Succeeded").await;
    }
}

// --- both ---
impl Player {
    async fn decentralised_vmim(&self, vm: &str, side: &str) -> Value {
        let mut vmim =
            objects::vmim(&format!("{side}-{}", &uuid::Uuid::new_v4().simple().to_string()[..5]).to_lowercase(), vm);
        vmim["spec"][side] = json!({"migrationID": "move-it"});
        if side == "sendTo" {
            vmim["spec"][side]["connectURL"] = json!("sync.elsewhere.example:9185");
        }
        self.create(&self.vmims, vmim).await
    }

    /// The data that the two synchronisation controllers exchange: both launchers, of which one is here.
    pub async fn synchronise(&self, migration: &Migration) {
        let side = |pod: &str, node: &str| {
            json!({"pod": pod, "node": node, "migrationUID": migration.uid, "domainName": migration.vm,
                   "syncAddress": "10.0.0.1:9185"})
        };
        let state = json!({
            "migrationConfiguration": objects::migration_configuration(), "migrationUid": migration.uid,
            "sourceNode": migration.source_node, "sourcePod": migration.source_pod,
            "targetNode": migration.target_node, "targetPod": migration.target_pod,
            "sourceState": side(&migration.source_pod, &migration.source_node),
            "targetState": side(&migration.target_pod, &migration.target_node),
        });
        self.modify(&self.vmis, Part::Whole, &migration.vm, |vmi| vmi["status"]["migrationState"] = state.clone())
            .await;
    }

    /// The cut-over, as either side's VMI tells it.
    pub async fn arrived(&self, migration: &Migration) {
        let now = objects::now();
        let ready = json!({
            "targetNodeDomainDetected": true, "targetNodeDomainReadyTimestamp": now,
            "targetState": {"domainDetected": true, "domainReadyTimestamp": now},
        });
        self.modify(&self.vmis, Part::Whole, &migration.vm, |vmi| {
            objects::merge(&mut vmi["status"]["migrationState"], &ready);
        })
        .await;
    }
}
