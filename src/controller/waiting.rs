//! VMs and the changes in the northbound database that they wait for. It replaces timers: a VM that cannot be served is
//! decided again when, and only when, an obstacle has changed.

use std::collections::{BTreeSet, HashMap};

use crate::contract::VmKey;
use crate::ovn::Wake;

/// VMs by the changes that they wait for.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    vms: HashMap<Wake, BTreeSet<VmKey>>,
    wakes: HashMap<VmKey, Vec<Wake>>,
}

impl Waiting {
    /// Makes the VM wait for these changes, and for no other.
    pub(super) fn set(&mut self, vm: &VmKey, wakes: Vec<Wake>) {
        if wakes.is_empty() && self.wakes.is_empty() {
            return;
        }
        let before = self.wakes.remove(vm).unwrap_or_default();
        if wakes.iter().any(holds_a_target) && !before.iter().any(holds_a_target) {
            // An operator finds here the reason for a migration's closed target, and its end.
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

    /// The VMs that wait for this change.
    pub(super) fn on(&self, wake: &Wake) -> impl Iterator<Item = &VmKey> {
        self.vms.get(wake).into_iter().flatten()
    }
}

/// Returns true if the target of a migration waits for this change.
fn holds_a_target(wake: &Wake) -> bool {
    matches!(wake, Wake::Processed | Wake::Binding(_))
}
