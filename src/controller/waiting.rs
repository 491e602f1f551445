//! Who waits for what in the northbound database. It replaces timers: a VM that could not be served
//! is looked at again when, and only when, what stood in its way has changed.

use std::collections::{BTreeSet, HashMap};

use crate::contract::VmKey;
use crate::ovn::Wake;

/// VMs by what they wait for.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    vms: HashMap<Wake, BTreeSet<VmKey>>,
    wakes: HashMap<VmKey, Vec<Wake>>,
}

impl Waiting {
    /// From now on the VM waits for these, and for nothing else.
    pub(super) fn set(&mut self, vm: &VmKey, wakes: Vec<Wake>) {
        if wakes.is_empty() && self.wakes.is_empty() {
            return;
        }
        let before = self.wakes.remove(vm).unwrap_or_default();
        if wakes.iter().any(holds_a_target) && !before.iter().any(holds_a_target) {
            // Who wonders why a migration's target is not open yet finds it here, and later that it is.
            let (namespace, vm) = (&vm.namespace, &vm.name);
            tracing::info!(namespace, vm, "the migration's target waits: northd has not processed the last change yet");
        }
        for wake in before {
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

/// Whether a migration's target waits for it.
fn holds_a_target(wake: &Wake) -> bool {
    matches!(wake, Wake::Processed | Wake::Binding(_))
}
