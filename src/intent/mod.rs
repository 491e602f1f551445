//! From a VM's objects to what its ports should be.
//!
//! Pure, and ignorant of the northbound database: what is wished here may turn out to be impossible
//! there, which is the plan's to say. The VMI decides what is in force while one exists, because it
//! is what runs; the VM's template is then the wish for the next start.

mod placement;
mod wish;

use std::collections::BTreeSet;

pub use placement::Placement;
pub use wish::{InvalidWish, Wish};

use crate::kubevirt::objects::InstanceSpec;
use crate::kubevirt::{Namespace, Template, VmObjects};
use crate::ovn::VmKey;

/// Our annotation on VMs: the ports as they are.
pub const PORTS_ANNOTATION: &str = "ovn-kubevirt.io/ports";

/// What the operator chose for all VMs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The switch of pod networks that nothing else names.
    pub default_switch: Option<String>,
    /// The first two bytes of MACs that are made from addresses.
    pub mac_prefix: [u8; 2],
    /// What opens the second chassis of a port that migrates.
    pub strategy: Strategy,
}

/// What opens the second chassis of a port that migrates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// The guest's own RARP, which QEMU sends when it runs there.
    #[default]
    Rarp,
    /// Nothing: it is open at once, and traffic is doubled meanwhile. For datapaths where RARP is lost.
    None,
}

impl Strategy {
    /// The value of `options:activation-strategy` (ovn-nb(5)).
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Rarp => Some("rarp"),
            Self::None => None,
        }
    }
}

/// What a VM's ports should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The VM.
    pub vm: VmKey,
    /// The VM's UID, also while only its VMI is left, or a bare VMI's; `None` while only launcher pods are left.
    pub uid: Option<String>,
    /// Its NICs on OVN.
    pub nics: Vec<Nic>,
    /// Networks whose ports stay as they are; `None`: all that are not in `nics`.
    pub untouched: Option<BTreeSet<String>>,
    /// Where its ports are bound.
    pub placement: Placement,
}

/// What one NIC's port should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The network's name in the VM.
    pub network: String,
    /// The switch that is named for it; `None`: none is, and the NIC is not ours unless it has a
    /// port already.
    pub switch: Option<SwitchWish>,
    /// What holds now.
    pub now: Result<Wish, InvalidWish>,
    /// What holds from the next start on, where that is known and may differ.
    pub next: Option<Result<Wish, InvalidWish>>,
    /// The switch that the template names for the next start, while something else is in force.
    pub next_switch: Option<String>,
    /// An old launcher may still run: what the port holds stays, and `now` waits.
    pub held_by_old_launcher: bool,
    /// A launcher is live: the port does not change switches under it.
    pub running: bool,
    /// Annotations that nobody here serves.
    pub unserved: Vec<String>,
}

/// A switch by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchWish {
    /// The name.
    pub name: String,
    /// The VM's owner named it: a stopped VM's port moves there. A namespace's or the operator's
    /// default holds for new ports only.
    pub explicit: bool,
}

impl Intent {
    /// Works out what a VM should have. There is something of it: a VM, a VMI or a launcher pod.
    pub fn of(vm: &VmKey, objects: &VmObjects, namespace: &Namespace, settings: &Settings) -> Self {
        let run_uid = objects.run.as_ref().map(|run| run.uid.as_str());
        let live = || objects.launchers.values().filter(|launcher| launcher.live);
        let old_launcher = live().any(|launcher| Some(launcher.run_uid.as_str()) != run_uid);
        let of_run = objects.run.as_ref().map(|run| run.template.as_ref());
        let of_vm = objects.vm.as_ref().map(|vm| vm.template.as_ref());
        let of_run_uid = objects.run.as_ref().map(|run| run.vm_uid.as_ref().unwrap_or(&run.uid));
        let uid = objects.vm.as_ref().map(|vm| &vm.uid).or(of_run_uid).cloned();
        let mut intent =
            Self { vm: vm.clone(), uid, nics: Vec::new(), untouched: None, placement: Placement::of(objects) };
        // While nothing, or nothing readable, says what the NICs are, ports stay as they are.
        let (Some(Ok(now)), next) = (of_run.or(of_vm), of_run.and(of_vm)) else { return intent };
        let next = match next {
            Some(Err(_)) => return intent,
            Some(Ok(template)) => Some(template),
            None => None,
        };
        let source = Source { namespace, settings, old_launcher, running: live().next().is_some() };
        intent.nics.extend(source.pod_nic(now, next));
        // An old launcher may still use a port that the template no longer names.
        intent.untouched = (!old_launcher).then(|| next.and_then(|next| pod_network(&next.spec)).into_iter().collect());
        intent
    }
}

struct Source<'a> {
    namespace: &'a Namespace,
    settings: &'a Settings,
    old_launcher: bool,
    running: bool,
}

impl Source<'_> {
    fn pod_nic(&self, now: &Template, next: Option<&Template>) -> Option<Nic> {
        let network = pod_network(&now.spec)?;
        let own = wish::switch(now, &network).map(|name| SwitchWish { name, explicit: true });
        let defaults = || {
            let default = self.namespace.switch.as_ref().or(self.settings.default_switch.as_ref());
            default.map(|name| SwitchWish { name: name.clone(), explicit: false })
        };
        let wished_next = next.filter(|next| pod_network(&next.spec).as_ref() == Some(&network));
        Some(Nic {
            now: Wish::of(now, &network),
            next: wished_next.map(|next| Wish::of(next, &network)),
            next_switch: wished_next.and_then(|next| wish::switch(next, &network)),
            switch: own.or_else(defaults),
            held_by_old_launcher: self.old_launcher,
            running: self.running,
            unserved: wish::unserved(wished_next.unwrap_or(now), &network),
            network,
        })
    }
}

/// The name of the network that is the pod's own. A VM without networks and interfaces gets one
/// named `default`, unless it says otherwise.
fn pod_network(spec: &InstanceSpec) -> Option<String> {
    let networks = spec.networks.as_deref().unwrap_or_default();
    let interfaces = spec.domain.devices.interfaces.as_deref().unwrap_or_default();
    if networks.is_empty() && interfaces.is_empty() {
        let attached = spec.domain.devices.autoattach_pod_interface.unwrap_or(true);
        return attached.then(|| "default".to_owned());
    }
    networks.iter().find(|network| network.pod.is_some()).map(|network| network.name.clone())
}

#[cfg(test)]
mod tests;
