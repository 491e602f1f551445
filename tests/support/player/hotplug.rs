//! Plays NIC hot-plug: the user's edit of the VM's template, and virt-controller's changes of a running VM.
//!
//! virt-controller regenerates the whole Multus annotation of the pods, over the changes that others have merged into it.

use serde_json::{Value, json};

use super::objects::{self, Nic};
use super::{Part, Player, name_of};

impl Player {
    /// Plugs a NIC into the VM, and into its VMI and pods where it runs.
    pub async fn plug(&self, vm: &str, nic: &Nic) {
        self.change_nics(vm, |spec| {
            push(&mut spec["domain"]["devices"]["interfaces"], nic.interface());
            push(&mut spec["networks"], nic.network());
        })
        .await;
    }

    /// Unplugs the NIC of that name: its interface becomes `state: absent`.
    pub async fn unplug(&self, vm: &str, nic: &str) {
        self.set_state(vm, nic, "absent").await;
    }

    /// Sets the state of a NIC's interface: `up`, `down`, `absent`.
    pub async fn set_state(&self, vm: &str, nic: &str, state: &str) {
        self.change_nics(vm, |spec| {
            for interface in spec["domain"]["devices"]["interfaces"].as_array_mut().into_iter().flatten() {
                if interface["name"] == nic {
                    interface["state"] = json!(state);
                }
            }
        })
        .await;
    }

    /// The guest has let go of a NIC that is unplugged: virt-controller takes it off the VMI and the template.
    pub async fn unplugged(&self, vm: &str, nic: &str) {
        self.change_nics(vm, |spec| {
            let without = |list: &mut Value| {
                list.as_array_mut().into_iter().for_each(|list| list.retain(|element| element["name"] != nic));
            };
            without(&mut spec["domain"]["devices"]["interfaces"]);
            without(&mut spec["networks"]);
        })
        .await;
    }

    async fn change_nics(&self, vm: &str, change: impl Fn(&mut Value)) {
        self.modify(&self.vms, Part::Whole, vm, |vm| change(&mut vm["spec"]["template"]["spec"])).await;
        if self.vmi(vm).await.is_some() {
            self.modify(&self.vmis, Part::Whole, vm, |vmi| change(&mut vmi["spec"])).await;
            self.regenerate_multus(vm).await;
        }
    }

    /// Writes the Multus annotation of every launcher pod of the VM afresh, as virt-controller does.
    pub async fn regenerate_multus(&self, vm: &str) {
        let vmi = self.must_vmi(vm).await;
        let networks = Value::from(objects::multus_networks(&vmi)).to_string();
        for pod in self.launcher_objects(vm).await {
            let annotations = json!({objects::MULTUS_ANNOTATION: networks});
            self.patch(&self.pods, &name_of(&pod), json!({"metadata": {"annotations": annotations}})).await;
        }
    }
}

fn push(list: &mut Value, element: Value) {
    match list.as_array_mut() {
        Some(elements) => elements.push(element),
        None => *list = json!([element]),
    }
}
