//! Plays the change of a running VM's network: the user's edit, and virt-controller's changes. The migration that
//! moves the guest is in [`migration`](super::migration).

use serde_json::{Value, json};

use super::{Part, Player};

impl Player {
    /// Step 1: the user names other NADs for networks of the VM.
    pub async fn edit_networks(&self, vm: &str, networks: &[(&str, &str)]) {
        let change = |vm: &mut Value| {
            for network in vm["spec"]["template"]["spec"]["networks"].as_array_mut().into_iter().flatten() {
                let named = networks.iter().find(|(name, _)| network["name"] == *name);
                named.into_iter().for_each(|(_, nad)| network["multus"]["networkName"] = json!(nad));
            }
        };
        self.modify(&self.vms, Part::Whole, vm, change).await;
    }

    /// Step 2: virt-controller brings the networks to the instance that runs. Its pod stays where it is.
    pub async fn bring_networks(&self, vm: &str) {
        let edited = self.get(&self.vms, vm).await.unwrap_or_else(|| panic!("no VM {vm}"));
        let spec = edited["spec"]["template"]["spec"].clone();
        let required = json!({"type": "MigrationRequired", "status": "True", "reason": "AutoMigrationDueToLiveUpdate"});
        self.modify(&self.vmis, Part::Whole, vm, |vmi| {
            vmi["spec"]["networks"] = spec["networks"].clone();
            vmi["spec"]["domain"]["devices"]["interfaces"] = spec["domain"]["devices"]["interfaces"].clone();
            if let Some(conditions) = vmi["status"]["conditions"].as_array_mut() {
                conditions.retain(|condition| condition["type"] != "MigrationRequired");
                conditions.push(required.clone());
            }
        })
        .await;
    }

    /// Both steps.
    pub async fn change_networks(&self, vm: &str, networks: &[(&str, &str)]) {
        self.edit_networks(vm, networks).await;
        self.bring_networks(vm).await;
    }
}
