//! The switches in the annotations of NetworkAttachmentDefinitions (NADs), and the VMs with networks on them.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Cluster, Kind, VmObjects, misplaced, named_switch};
use crate::contract::{NadKey, VmKey};

impl VmObjects {
    /// The NADs of a VM's networks: those of its pods, of its instance, and from the next start on.
    fn nads_of<'a>(&'a self, vm: &'a VmKey) -> impl Iterator<Item = NadKey> + 'a {
        let of_run = self.run.as_ref().and_then(|run| run.template.as_ref().ok());
        let of_vm = self.vm.as_ref().and_then(|vm| vm.template.as_ref().ok());
        let networks = of_run.into_iter().chain(of_vm).flat_map(|template| template.spec.networks.iter().flatten());
        let of_pods = self.launchers.values().flat_map(|launcher| launcher.networks.nads()).cloned();
        networks.filter_map(|network| network.nad(&vm.namespace)).chain(of_pods)
    }
}

impl Cluster {
    pub(super) fn put_nad(&mut self, metadata: &ObjectMeta) -> BTreeSet<VmKey> {
        let VmKey { namespace, name } = self.confirm(Kind::Nad, metadata);
        let (nad, switch) = (NadKey::new(namespace, name), named_switch(metadata));
        let keys = misplaced::on_nad(metadata);
        let same = self.misplaced_on_nads.get(&nad).map(|keys| &keys[..]).unwrap_or_default() == keys;
        match keys.is_empty() {
            true => drop(self.misplaced_on_nads.remove(&nad)),
            false => drop(self.misplaced_on_nads.insert(nad.clone(), keys.into())),
        }
        let before = self.nads.insert(nad.clone(), switch.clone());
        if before == Some(switch) && same { BTreeSet::new() } else { self.nad_changed(nad) }
    }

    pub(super) fn remove_nad(&mut self, nad: &NadKey) -> BTreeSet<VmKey> {
        self.misplaced_on_nads.remove(nad);
        self.nads.remove(nad).map(|_| self.nad_changed(nad.clone())).unwrap_or_default()
    }

    /// The VMs on a NAD. During a list they are returned at its end.
    fn nad_changed(&mut self, nad: NadKey) -> BTreeSet<VmKey> {
        self.changed_nads.insert(nad);
        if self.unconfirmed.contains_key(&Kind::Nad) { BTreeSet::new() } else { self.vms_on_changed_nads() }
    }

    /// Updates and returns the VMs on changed NADs.
    pub(super) fn vms_on_changed_nads(&mut self) -> BTreeSet<VmKey> {
        let changed = std::mem::take(&mut self.changed_nads);
        if changed.is_empty() {
            return BTreeSet::new();
        }
        let concerned = |(vm, objects): &(&VmKey, &VmObjects)| objects.nads_of(vm).any(|nad| changed.contains(&nad));
        let vms: BTreeSet<VmKey> = self.vms.iter().filter(concerned).map(|(vm, _)| vm.clone()).collect();
        vms.iter().for_each(|vm| self.find_nads(vm));
        vms
    }

    /// Looks up the NADs of a VM.
    pub(super) fn find_nads(&mut self, vm: &VmKey) {
        let Some(mut objects) = self.vms.get_mut(vm).map(std::mem::take) else { return };
        self.find_nads_of(vm, &mut objects);
        self.vms.insert(vm.clone(), objects);
    }

    /// Looks up the NADs of a VM with these objects.
    pub(super) fn find_nads_of(&self, vm: &VmKey, objects: &mut VmObjects) {
        let there = |nad: NadKey| self.nads.get(&nad).cloned().map(|switch| (nad, switch));
        objects.nads = objects.nads_of(vm).filter_map(there).collect();
        if !self.misplaced_on_nads.is_empty() || !objects.misplaced.is_empty() {
            let keys = |nad: &NadKey| self.misplaced_on_nads.get(nad).map(|keys| (nad.clone(), keys.clone()));
            let keys = objects.nads.keys().filter_map(keys).collect();
            objects.put_on_nads(keys);
        }
    }
}
