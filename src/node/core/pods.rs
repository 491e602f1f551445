//! The pods of the node, from the watch.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::contract::VmKey;
use crate::contract::annotations::PORTS_ANNOTATION;
use crate::kubevirt::objects::LauncherPod;
use crate::kubevirt::{self, Kind, PodPort, launcher_owner};

/// The pods of the node, by UID: all of them, since a pod has interfaces until it is deleted.
#[derive(Debug, Default)]
pub struct Pods {
    pods: BTreeMap<String, NodePod>,
    /// While a list comes in: the UIDs that it has named.
    listing: Option<HashSet<String>>,
    /// A list was complete once.
    complete: bool,
}

/// A pod by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
}

/// A pod of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePod {
    /// Which it is.
    pub pod: PodRef,
    /// Whether its containers have all ended, or its deletion was requested.
    pub life: Life,
    /// The NICs that it says are ours.
    pub nics: Nics,
}

/// How far a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It runs, or will.
    Alive,
    /// Its deletion was requested, and it may still run.
    Ending,
    /// No container of it runs any more (`Succeeded`, `Failed`), nor will one.
    Ended,
}

/// The NICs in a pod's annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nics {
    /// The pod is no launcher, or has no annotation.
    Untold,
    /// The annotation cannot be read; the reason.
    Unreadable(String),
    /// These, of this VM.
    Listed(VmKey, Vec<PodPort>),
}

impl Pods {
    /// Takes a change of the watch in.
    pub fn apply(&mut self, change: &kubevirt::Change) {
        match change {
            kubevirt::Change::Launcher(pod) => self.put(pod),
            kubevirt::Change::Gone(Kind::Launcher, metadata) => {
                let uid = metadata.uid.as_deref().unwrap_or_default();
                self.pods.remove(uid);
            }
            kubevirt::Change::ListBegins(Kind::Launcher) => self.listing = Some(HashSet::new()),
            kubevirt::Change::ListEnds(Kind::Launcher) => {
                // A list that was never complete ends in another `ListBegins`, and does not remove any pod.
                if let Some(named) = self.listing.take() {
                    self.pods.retain(|uid, _| named.contains(uid));
                    self.complete = true;
                }
            }
            _ => {}
        }
    }

    fn put(&mut self, pod: &LauncherPod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        if let Some(named) = &mut self.listing {
            named.insert(uid.clone());
        }
        let life = match pod.status.phase.as_deref() {
            Some("Succeeded" | "Failed") => Life::Ended,
            _ if pod.metadata.deletion_timestamp.is_some() => Life::Ending,
            _ => Life::Alive,
        };
        let pod = NodePod { pod: reference(&pod.metadata, &uid), life, nics: nics(&pod.metadata) };
        self.pods.insert(uid, pod);
    }

    /// Returns true if all pods of the node are known: one that is not here is gone.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// A pod by its UID.
    pub fn get(&self, uid: &str) -> Option<&NodePod> {
        self.pods.get(uid)
    }

    /// All of them, in the order of their UIDs.
    pub fn iter(&self) -> impl Iterator<Item = &NodePod> {
        self.pods.values()
    }
}

fn reference(metadata: &ObjectMeta, uid: &str) -> PodRef {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    PodRef { namespace: text(&metadata.namespace), name: text(&metadata.name), uid: uid.to_owned() }
}

/// The annotation is trusted as far as it names ports of the pod's own VM, which is that of the VMI that controls the pod.
fn nics(metadata: &ObjectMeta) -> Nics {
    let Some((vm, _)) = launcher_owner(metadata) else { return Nics::Untold };
    let annotation = metadata.annotations.as_ref().and_then(|annotations| annotations.get(PORTS_ANNOTATION));
    match annotation.filter(|text| !text.trim().is_empty()).map(|text| PodPort::parse(text)) {
        None => Nics::Untold,
        Some(Err(error)) => Nics::Unreadable(error.to_string()),
        Some(Ok(ports)) => Nics::Listed(VmKey::new(metadata.namespace.clone().unwrap_or_default(), vm), ports),
    }
}
