//! Who waits for what in the northbound database. It replaces timers: a VM that could not be served
//! is looked at again when, and only when, what stood in its way has changed.

use std::collections::{BTreeSet, HashMap};

use crate::ovn::{VmKey, Wake};

/// VMs by what they wait for.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    vms: HashMap<Wake, BTreeSet<VmKey>>,
    wakes: HashMap<VmKey, Vec<Wake>>,
}

impl Waiting {
    /// From now on the VM waits for these, and for nothing else.
    pub(super) fn set(&mut self, vm: &VmKey, wakes: Vec<Wake>) {
        for wake in self.wakes.remove(vm).unwrap_or_default() {
            if let Some(vms) = self.vms.get_mut(&wake) {
                vms.remove(vm);
                if vms.is_empty() {
                    self.vms.remove(&wake);
                }
            }
        }
        if wakes.is_empty() {
            return;
        }
        for wake in &wakes {
            self.vms.entry(wake.clone()).or_default().insert(vm.clone());
        }
        self.wakes.insert(vm.clone(), wakes);
    }

    /// Who waits for this.
    pub(super) fn on(&self, wake: &Wake) -> impl Iterator<Item = &VmKey> {
        self.vms.get(wake).into_iter().flatten()
    }
}
