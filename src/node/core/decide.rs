//! The decision: the interfaces that get or lose an `iface-id`, and the problems to report.

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use super::pods::Life;
use super::{Change, Edit, LocalSwitch, Mark, Nics, NodePod, Notice, Plugged, Pods, Problem};
use crate::contract::VmKey;
use crate::kubevirt::PodPort;

/// The changes to make, and the problems to report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// One for an interface at most.
    pub changes: Vec<Change>,
    /// The problems to report at once.
    pub problems: Vec<Notice>,
    /// NICs without an interface: reported if it lasts.
    pub waits: Vec<Notice>,
}

/// Compares the pods with the interfaces.
///
/// An interface is a NIC's where its port names the pod's UID and the interface in the pod, and is on OVN's bridge.
/// A value is removed only once all pods are known, and only if this service has set it.
pub fn decide(pods: &Pods, switch: &LocalSwitch) -> Decision {
    let plugged = switch.plugged();
    let mut deciding = Deciding {
        bridge: switch.integration_bridge(),
        of_nic: by_nic(&plugged),
        plugged: &plugged,
        wanted: HashSet::new(),
        superseded: HashSet::new(),
        decision: Decision::default(),
    };
    for pod in pods.iter().filter(|pod| pod.life != Life::Ended) {
        match &pod.nics {
            Nics::Untold => {}
            Nics::Unreadable(reason) => {
                deciding.tell(pod, Problem::InvalidPortsAnnotation { reason: reason.clone() });
            }
            Nics::Listed(vm, ports) => ports.iter().for_each(|port| deciding.serve(pod, vm, port)),
        }
    }
    if pods.is_complete() {
        deciding.remove_leftovers(pods);
    }
    deciding.decision
}

type ByNic<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a Plugged<'a>>>;

fn by_nic<'a>(plugged: &'a [Plugged<'a>]) -> ByNic<'a> {
    let mut of_nic = ByNic::new();
    for one in plugged {
        if let (Some(uid), Some(interface)) = (one.pod_uid, one.pod_interface) {
            of_nic.entry((uid, interface)).or_default().push(one);
        }
    }
    of_nic
}

struct Deciding<'a> {
    bridge: &'a str,
    of_nic: ByNic<'a>,
    plugged: &'a [Plugged<'a>],
    /// Interfaces of NICs that are served.
    wanted: HashSet<Uuid>,
    /// Interfaces of a former sandbox of a NIC that is served by another.
    superseded: HashSet<Uuid>,
    decision: Decision,
}

impl Deciding<'_> {
    fn tell(&mut self, pod: &NodePod, problem: Problem) {
        self.decision.problems.push(Notice { pod: pod.pod.clone(), problem });
    }

    /// Decides about one NIC.
    fn serve(&mut self, pod: &NodePod, vm: &VmKey, nic: &PodPort) {
        let PodPort { network, interface, port, .. } = nic;
        if !vm.has_named(port) {
            let (interface, port, vm) = (interface.clone(), port.clone(), vm.clone());
            return self.tell(pod, Problem::PortRefused { interface, port, vm });
        }
        let all = self.of_nic.get(&(pod.pod.uid.as_str(), interface.as_str())).cloned().unwrap_or_default();
        // Of the interfaces of several sandboxes the one whose device is there; else the one that has the port already.
        let here = all.iter().filter(|one| one.bridge == self.bridge);
        let best = here.min_by_key(|one| (one.is_dead(), one.iface_id() != Some(port), one.uuid)).copied();
        let Some(best) = best else {
            let elsewhere = all.first().map(|one| one.bridge.to_owned());
            if pod.life == Life::Alive && !self.is_plugged_by_another(port) {
                let (network, interface, bridge) = (network.clone(), interface.clone(), self.bridge.to_owned());
                let problem = Problem::InterfaceMissing { network, interface, bridge, elsewhere };
                self.decision.waits.push(Notice { pod: pod.pod.clone(), problem });
            }
            return;
        };
        self.wanted.insert(best.uuid);
        self.superseded.extend(all.iter().map(|one| one.uuid).filter(|uuid| *uuid != best.uuid));
        match best.iface_id() {
            Some(present) if present == port => {}
            Some(present) if !best.is_ours() => {
                let (ovs, present) = (best.interface.name.clone(), present.to_owned());
                let (interface, port) = (interface.clone(), port.clone());
                self.tell(pod, Problem::IfaceIdConflict { interface, ovs, present, port });
            }
            _ => {
                let mark = Mark { pod_uid: pod.pod.uid.clone(), port: port.clone() };
                self.change(best, Edit::Set { mark, plugged: (best.port, interface.clone()) });
            }
        }
    }

    /// Returns true if an interface has the port by a CNI that does not say which pod it is for.
    fn is_plugged_by_another(&self, port: &str) -> bool {
        let mut others = self.plugged.iter().filter(|one| one.bridge == self.bridge && one.pod_uid.is_none());
        others.any(|one| one.iface_id() == Some(port))
    }

    fn change(&mut self, one: &Plugged<'_>, edit: Edit) {
        let (name, seen) = (one.interface.name.clone(), one.interface.external_ids.clone());
        self.decision.changes.push(Change { interface: one.uuid, name, seen, edit });
    }

    /// Decides about the interfaces with a mark and without a NIC.
    fn remove_leftovers(&mut self, pods: &Pods) {
        for one in self.plugged {
            let Some(mark) = one.mark().filter(|_| !self.wanted.contains(&one.uuid)) else { continue };
            if self.superseded.contains(&one.uuid) || is_over(pods, &mark, one) {
                self.change(one, Edit::Remove { mark });
            }
        }
    }
}

/// Returns true if the NIC of a mark is no more: its pod is gone or has ended, or has a list of NICs without it.
fn is_over(pods: &Pods, mark: &Mark, one: &Plugged<'_>) -> bool {
    let Some(pod) = pods.get(&mark.pod_uid) else { return true };
    match &pod.nics {
        _ if pod.life == Life::Ended => true,
        // A pod without an annotation, or with one that cannot be read, may still have the NIC.
        Nics::Untold | Nics::Unreadable(_) => false,
        Nics::Listed(_, nics) => {
            let is_its = one.pod_uid == Some(mark.pod_uid.as_str());
            is_its && one.pod_interface.is_some_and(|interface| nics.iter().all(|nic| nic.interface != interface))
        }
    }
}
