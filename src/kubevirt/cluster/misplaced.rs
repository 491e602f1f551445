//! Misplaced requests: annotations that would be requests on the template, and have no effect in their place.
//!
//! KubeVirt copies annotations from `VirtualMachine.spec.template.metadata` to the instance and on to the launcher pod,
//! once. Annotations on the VirtualMachine itself, or added to a pod, have no effect. Only the keys are kept, and no
//! more of them than a message names.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::contract::NadKey;
use crate::contract::annotations::{SWITCH_ANNOTATION, asks_for_something, is_of_kube_ovn, is_ours};
use crate::escaped::LISTED;
use crate::kubevirt::state::{Place, VmObjects};

/// The most keys that are kept for a place: one more than a message names.
const MOST_KEYS: usize = LISTED + 1;

/// The annotations of an object that are requests for ports.
fn requests(metadata: &ObjectMeta) -> impl Iterator<Item = (&String, &String)> {
    let is_request = |key: &str| {
        let of_kube_ovn = key.split_once('/').is_some_and(|(domain, _)| is_of_kube_ovn(domain));
        (of_kube_ovn || is_ours(key)) && asks_for_something(key)
    };
    let annotations = metadata.annotations.iter().flatten();
    annotations.filter(move |(key, value)| is_request(key) && !value.trim().is_empty())
}

/// The requests on a VirtualMachine.
pub(super) fn on_vm(metadata: &ObjectMeta) -> Vec<String> {
    requests(metadata).map(|(key, _)| key.clone()).take(MOST_KEYS).collect()
}

/// The requests on a NAD, without the switch, which belongs there.
pub(super) fn on_nad(metadata: &ObjectMeta) -> Vec<String> {
    requests(metadata).map(|(key, _)| key.clone()).filter(|key| key != SWITCH_ANNOTATION).take(MOST_KEYS).collect()
}

/// The requests on a launcher pod, with a hash of each value. Kube-OVN writes its allocation there if it serves the
/// pod.
fn on_launcher(metadata: &ObjectMeta) -> Vec<(String, u64)> {
    let annotations = metadata.annotations.as_ref();
    let of_kube_ovn = |key: &str| {
        let allocated = key.split_once('/').map(|(domain, _)| format!("{domain}/allocated"));
        allocated.is_some_and(|key| annotations.is_some_and(|annotations| annotations.contains_key(&key)))
    };
    let requests = requests(metadata).filter(|(key, _)| !of_kube_ovn(key));
    requests.map(|(key, value)| (key.clone(), hash(value))).collect()
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

impl VmObjects {
    /// Records the requests in a place. No keys remove the place.
    pub(super) fn put_misplaced(&mut self, place: Place, keys: Vec<String>) {
        if keys.is_empty() {
            self.misplaced.remove(&place);
        } else {
            self.misplaced.insert(place, keys.into());
        }
    }

    /// Records the requests on the NADs of the VM's networks.
    pub(super) fn put_on_nads(&mut self, keys: BTreeMap<NadKey, Arc<[String]>>) {
        self.misplaced.retain(|place, _| !matches!(place, Place::Nad(_)));
        self.misplaced.extend(keys.into_iter().map(|(nad, keys)| (Place::Nad(nad), keys)));
    }

    /// Records the requests on a launcher pod. Returns true if their report changes.
    pub(super) fn put_on_launcher(&mut self, pod: &str, metadata: &ObjectMeta) -> bool {
        let requests = on_launcher(metadata);
        if requests.is_empty() && self.on_launchers.is_empty() {
            return false;
        }
        let place = Place::Launcher(pod.to_owned());
        let before = self.misplaced.get(&place).cloned();
        self.on_launchers.insert(pod.to_owned(), requests);
        self.compare_launchers();
        self.misplaced.get(&place) != before.as_ref()
    }

    pub(super) fn remove_launcher(&mut self, pod: &str) {
        self.launchers.remove(pod);
        self.on_launchers.remove(pod);
        self.misplaced.remove(&Place::Launcher(pod.to_owned()));
    }

    /// Compares the launcher pods' annotations with the instance's, from which they were copied: equal ones are no
    /// requests of their own, and are dropped. Without an instance there is nothing to compare.
    pub(super) fn compare_launchers(&mut self) {
        if self.on_launchers.is_empty() {
            return;
        }
        let Self { run, launchers, misplaced, on_launchers, .. } = self;
        misplaced.retain(|place, _| !matches!(place, Place::Launcher(_)));
        let Some(run) = run else { return };
        let Ok(template) = &run.template else { return };
        let is_copied = |key: &str, said: u64| template.annotations.get(key).is_some_and(|value| hash(value) == said);
        on_launchers.retain(|pod, requests| {
            if launchers.get(pod).is_none_or(|launcher| launcher.run_uid != run.uid) {
                return true;
            }
            requests.retain(|(key, said)| !is_copied(key, *said));
            if !requests.is_empty() {
                let keys = requests.iter().map(|(key, _)| key.clone()).take(MOST_KEYS).collect();
                misplaced.insert(Place::Launcher(pod.clone()), keys);
            }
            !requests.is_empty()
        });
    }
}
