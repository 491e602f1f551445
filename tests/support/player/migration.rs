//! Plays a live migration: the VMIM's phases, the target's pod, and `VMI.status.migrationState`, a function a step.
//!
//! ```text
//!  step                VMIM              target pod        VMI
//!  create_migration    Pending           -                 migrationState: the previous migration's, or none
//!  create_target       Scheduling        created           activePods: target, no node yet
//!  bind_target         .                 bound             .
//!  target_running      .                 Running, Ready    activePods: target on its node
//!  migration_scheduled Scheduled         .                 .
//!  hand_off            PreparingTarget   .                 migrationState: migrationUid, source*, target*
//!  target_ready        TargetReady       .                 targetNodeAddress
//!  migration_running   Running           .                 startTimestamp
//!  domain_ready        .                 ready annotation  targetNodeDomainDetected, targetNodeDomainReadyTimestamp
//!  node_moved          .                 .                 nodeName = targetNode, endTimestamp
//!  migration_succeeded Succeeded         label nodeName    completed
//!  source_ends         .                 .                 (the source pod is Succeeded)
//! ```

use kube::api::DeleteParams;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Part, Player, enter_phase, name_of, objects, uid};

/// One migration under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// The VMIM's name.
    pub name: String,
    /// The VMIM's UID.
    pub uid: String,
    /// The VM that moves.
    pub vm: String,
    /// Where it runs.
    pub source_node: String,
    /// The launcher pod there.
    pub source_pod: String,
    /// Where it goes.
    pub target_node: String,
    /// The launcher pod there; empty before [`Player::create_target`].
    pub target_pod: String,
}

impl Player {
    /// The whole migration, to its success.
    pub async fn migrate(&self, vm: &str, node: &str) -> Migration {
        let migration = self.start_migration(vm, node).await;
        self.bind_target(&migration).await;
        self.target_running(&migration).await;
        self.migration_scheduled(&migration).await;
        self.hand_off(&migration).await;
        self.target_ready(&migration).await;
        self.migration_running(&migration).await;
        self.domain_ready(&migration).await;
        self.succeed(&migration).await;
        migration
    }

    /// `virtctl migrate`, up to the target pod, which is not bound yet: Pending and Scheduling.
    pub async fn start_migration(&self, vm: &str, target_node: &str) -> Migration {
        let migration = self.create_migration(vm, target_node).await;
        self.create_target(migration).await
    }

    /// Step 1, Pending: the VMIM alone.
    pub async fn create_migration(&self, vm: &str, target_node: &str) -> Migration {
        let vmi = self.must_vmi(vm).await;
        let source_node = vmi["status"]["nodeName"].as_str().unwrap_or_else(|| panic!("{vm} runs nowhere")).to_owned();
        let launchers = self.launcher_objects(vm).await;
        let source = launchers
            .iter()
            .rev()
            .find(|pod| pod["spec"]["nodeName"] == source_node.as_str() && pod["status"]["phase"] == "Running");
        let source = source.unwrap_or_else(|| panic!("no launcher of {vm} runs on {source_node}"));
        let name = format!("kubevirt-migrate-vm-{}", &Uuid::new_v4().simple().to_string()[..5]);
        let vmim = self.create(&self.vmims, objects::vmim(&name, vm)).await;
        let migration = Migration {
            uid: uid(&vmim),
            vm: vm.to_owned(),
            source_node,
            source_pod: name_of(source),
            target_node: target_node.to_owned(),
            target_pod: String::new(),
            name,
        };
        self.vmim_phase(&migration, "Pending").await;
        migration
    }

    /// Step 2, Scheduling: the target pod, whose `nodeName` label names the *source* node, as KubeVirt's does.
    pub async fn create_target(&self, migration: Migration) -> Migration {
        self.modify(&self.vmis, Part::Whole, &migration.vm, |vmi| {
            vmi["metadata"]["annotations"]["kubevirt.io/nonroot"] = json!("true");
            vmi["status"]["runtimeUser"] = json!(107);
        })
        .await;
        let vmi = self.must_vmi(&migration.vm).await;
        let vmim = self.vmim(&migration.name).await.unwrap_or_else(|| panic!("no VMIM {}", migration.name));
        let pod = self.create(&self.pods, objects::target_pod(&vmi, &vmim)).await;
        self.active_pod(&migration.vm, &uid(&pod), "").await;
        self.modify(&self.vmims, Part::Status, &migration.name, |vmim| {
            vmim["status"]["migrationState"] = json!({"sourcePod": migration.source_pod});
            enter_phase(&mut vmim["status"], "Scheduling");
        })
        .await;
        Migration { target_pod: name_of(&pod), ..migration }
    }

    /// Step 3: the scheduler binds the target pod.
    pub async fn bind_target(&self, migration: &Migration) {
        self.bind_pod(&migration.target_pod, &migration.target_node).await;
    }

    /// Step 4: the target pod runs and is ready: its CNI is done.
    pub async fn target_running(&self, migration: &Migration) {
        self.pod_phase(&migration.target_pod, "Running").await;
        let pod = self.pod(&migration.target_pod).await.unwrap_or_else(|| panic!("no pod {}", migration.target_pod));
        self.active_pod(&migration.vm, &uid(&pod), &migration.target_node).await;
    }

    /// Step 5, Scheduled.
    pub async fn migration_scheduled(&self, migration: &Migration) {
        self.vmim_phase(migration, "Scheduled").await;
    }

    /// Step 6, PreparingTarget: `migrationState` is replaced, and is this migration's from now on.
    pub async fn hand_off(&self, migration: &Migration) {
        let state = json!({
            "migrationConfiguration": objects::migration_configuration(),
            "migrationUid": migration.uid,
            "sourceNode": migration.source_node, "sourcePod": migration.source_pod,
            "targetNode": migration.target_node, "targetPod": migration.target_pod,
            "targetMemoryOverhead": "302114888",
        });
        self.modify(&self.vmis, Part::Whole, &migration.vm, |vmi| {
            vmi["metadata"]["labels"]["kubevirt.io/migrationTargetNodeName"] = json!(migration.target_node);
            vmi["status"]["migrationState"] = state.clone();
        })
        .await;
        self.vmim_phase(migration, "PreparingTarget").await;
    }

    /// Step 7, TargetReady: the target's virt-handler listens.
    pub async fn target_ready(&self, migration: &Migration) {
        let listening = json!({"targetNodeAddress": "192.168.0.2", "targetDirectMigrationNodePorts": {"49152": 0}});
        self.migration_state(migration, listening).await;
        self.vmim_phase(migration, "TargetReady").await;
    }

    /// Step 8, Running: the source's virt-handler sends the guest.
    pub async fn migration_running(&self, migration: &Migration) {
        self.migration_state(migration, json!({"startTimestamp": objects::now(), "mode": "PreCopy"})).await;
        self.vmim_phase(migration, "Running").await;
    }

    /// Step 9, the cut-over: the guest runs on the target. The VMIM does not show it.
    pub async fn domain_ready(&self, migration: &Migration) {
        let known = self.must_vmi(&migration.vm).await;
        self.domain_ready_of(migration, known).await;
    }

    /// The same with the VMI as virt-handler knows it from its informer: one request, as virt-handler makes it.
    pub async fn domain_ready_of(&self, migration: &Migration, known: Value) {
        let ready = json!({"targetNodeDomainDetected": true, "targetNodeDomainReadyTimestamp": objects::now()});
        self.migration_state_of(migration, Some(known), ready).await;
        let annotations = json!({objects::TARGET_READY_ANNOTATION: objects::now_in_go()});
        self.patch(&self.pods, &migration.target_pod, json!({"metadata": {"annotations": annotations}})).await;
    }

    /// Steps 10 to 12: success.
    pub async fn succeed(&self, migration: &Migration) {
        self.node_moved(migration).await;
        self.migration_succeeded(migration).await;
        self.source_ends(migration).await;
    }

    /// Step 10: `status.nodeName` moves, and the migration has an end.
    pub async fn node_moved(&self, migration: &Migration) {
        self.modify(&self.vmis, Part::Whole, &migration.vm, |vmi| {
            vmi["metadata"]["labels"]["kubevirt.io/nodeName"] = json!(migration.target_node);
            vmi["status"]["nodeName"] = json!(migration.target_node);
            vmi["status"]["migrationState"]["endTimestamp"] = json!(objects::now());
        })
        .await;
    }

    /// Step 11, Succeeded: `completed`, and the whole state is copied to the VMIM. The pod keeps its migration label.
    pub async fn migration_succeeded(&self, migration: &Migration) {
        self.migration_state(migration, json!({"completed": true})).await;
        let labels = json!({"kubevirt.io/nodeName": migration.target_node});
        self.patch(&self.pods, &migration.target_pod, json!({"metadata": {"labels": labels}})).await;
        self.unpaused(&migration.target_pod).await;
        self.finish(migration, "Succeeded").await;
    }

    /// Step 12: the source pod ends. KubeVirt leaves it there, Succeeded.
    pub async fn source_ends(&self, migration: &Migration) {
        self.pod_phase(&migration.source_pod, "Succeeded").await;
    }

    /// Failure, after any step: the guest stays where it is, and the target pod fails. Before the hand-off the VMI's
    /// `migrationState` is never touched.
    pub async fn fail(&self, migration: &Migration) {
        self.abandon(migration, json!({"failed": true, "failureReason": "played by a test"})).await;
        self.finish(migration, "Failed").await;
    }

    /// Cancels by deleting the VMIM, which its finalizer holds until the migration has ended as failed.
    pub async fn cancel(&self, migration: &Migration) {
        self.cancel_start(migration).await;
        self.abandon(migration, json!({"failed": true, "abortRequested": true, "abortStatus": "Succeeded"})).await;
        self.modify(&self.vmims, Part::Status, &migration.name, |vmim| enter_phase(&mut vmim["status"], "Failed"))
            .await;
        self.remove_finalizers(&self.vmims, &migration.name).await;
    }

    /// The first step of [`cancel`](Self::cancel): a deletionTimestamp on the VMIM.
    pub async fn cancel_start(&self, migration: &Migration) {
        self.delete(&self.vmims, &migration.name, &DeleteParams::background()).await;
    }

    /// The VMIM, if there is one.
    pub async fn vmim(&self, name: &str) -> Option<Value> {
        self.get(&self.vmims, name).await
    }

    /// Merges `change` into the VMI's `migrationState`, which must be this migration's.
    async fn migration_state(&self, migration: &Migration, change: Value) {
        self.migration_state_of(migration, None, change).await;
    }

    async fn migration_state_of(&self, migration: &Migration, known: Option<Value>, change: Value) {
        self.modify_known(&self.vmis, Part::Whole, &migration.vm, known, |vmi| {
            let state = &mut vmi["status"]["migrationState"];
            assert_eq!(state["migrationUid"], migration.uid.as_str(), "the VMI was handed off to this migration");
            objects::merge(state, &change);
        })
        .await;
    }

    /// Ends an unsuccessful migration on the VMI, where it was handed off, and on the target pod, where there is one.
    async fn abandon(&self, migration: &Migration, change: Value) {
        let vmi = self.must_vmi(&migration.vm).await;
        if vmi["status"]["migrationState"]["migrationUid"] == migration.uid.as_str() {
            self.migration_state(migration, change).await;
            self.migration_state(migration, json!({"completed": true, "endTimestamp": objects::now()})).await;
        }
        if !migration.target_pod.is_empty() && self.pod(&migration.target_pod).await.is_some() {
            self.pod_phase(&migration.target_pod, "Failed").await;
        }
    }

    /// The VMIM enters a phase.
    pub async fn vmim_phase(&self, migration: &Migration, phase: &str) {
        self.modify(&self.vmims, Part::Status, &migration.name, |vmim| enter_phase(&mut vmim["status"], phase)).await;
    }

    /// A final phase: with the VMI's state, if it is this migration's, and without the finalizer.
    async fn finish(&self, migration: &Migration, phase: &str) {
        let state = self.must_vmi(&migration.vm).await["status"]["migrationState"].take();
        self.modify(&self.vmims, Part::Status, &migration.name, |vmim| {
            if state["migrationUid"] == migration.uid.as_str() {
                vmim["status"]["migrationState"] = state.clone();
            }
            enter_phase(&mut vmim["status"], phase);
        })
        .await;
        self.remove_finalizers(&self.vmims, &migration.name).await;
    }
}
