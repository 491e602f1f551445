//! The kept part of an object: the annotations that are read, up to a bound.
//!
//! Tenants write arbitrary values: 1.5 MB is the API server's limit for an object, and nothing else limits the
//! annotations in a VirtualMachine's template. Decoding cuts them at once, so that no VM costs more memory, log or time
//! than one that is used to the full.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer};

use crate::contract::annotations::{
    LAUNCHER_LABEL, MIGRATION_LABEL, NETWORKS, PORTS_ANNOTATION, PROVISIONING, SERVED, is_of_kube_ovn, is_ours,
};

/// The longest value of an annotation that is read, in bytes. A list of 256 IPv6 ranges is not longer.
pub const LONGEST_VALUE: usize = 4_096;
/// The most networks of a VM, and the most interfaces: KubeVirt's own limit.
pub const MOST_NETWORKS: usize = 256;
/// The most annotations that are kept for an object: eight for each of 256 networks.
const MOST_KEYS: usize = 8 * MOST_NETWORKS;
/// The most bytes of annotations that are kept for an object: the API server's own limit for `metadata.annotations`, so
/// that a template with more has no instance.
const MOST_BYTES: usize = 256 * 1_024;
/// The longest key of an annotation in Kubernetes: a DNS subdomain, a slash and a name.
const LONGEST_KEY: usize = 253 + 1 + 63;
/// The longest kept name of a network, an interface, a NAD with its namespace, or a MAC. Valid ones are far shorter,
/// and a longer one stays invalid after it is cut to this.
const LONGEST_NAME: usize = 400;
/// The longest kept text of our own annotation on a VM; beyond that a KiB for each network.
const LONGEST_REPORT: usize = 64 * 1_024;

/// Returns true if an annotation may concern this service; the others are not kept. A served key in another domain of
/// `kubernetes.io` may be one that lacks `.ovn`.
pub(super) fn is_read(key: &str) -> bool {
    key.split_once('/').is_some_and(|(domain, name)| {
        is_of_kube_ovn(domain) || is_ours(key) || domain.ends_with(".kubernetes.io") && SERVED.contains(&name)
    })
}

/// Cuts a text after this many bytes, at the next whole character.
fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (most..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        text.truncate(end);
        text.shrink_to_fit();
    }
}

/// Drops the annotations that are not read. A value that is too long is cut, but stays too long.
fn keep_read_ones(annotations: &mut BTreeMap<String, String>, also: impl Fn(&str) -> bool) {
    annotations
        .retain(|key, value| key.len() <= LONGEST_KEY && (is_read(key) && !value.trim().is_empty() || also(key)));
    for (key, value) in annotations.iter_mut().filter(|(_, value)| value.len() > LONGEST_VALUE) {
        let is_long = matches!(key.as_str(), PORTS_ANNOTATION | NETWORKS);
        cut(value, if is_long { MOST_BYTES } else { LONGEST_VALUE + 1 });
    }
}

/// The annotations of a template that are read. An empty one counts as absent.
pub(super) fn of_template<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    let mut annotations = Option::<BTreeMap<String, String>>::deserialize(deserializer)?;
    annotations.iter_mut().for_each(|annotations| keep_read_ones(annotations, |_| false));
    Ok(annotations)
}

/// An object's metadata without the parts that are not read: other annotations and labels, and the managed fields,
/// which are longer than all else.
pub(super) fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    metadata_with(deserializer, |_| false)
}

/// The same of a pod: also its networks.
pub(super) fn metadata_of_pod<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    metadata_with(deserializer, |key| key == NETWORKS)
}

fn metadata_with<'de, D: Deserializer<'de>>(
    deserializer: D,
    more: impl Fn(&str) -> bool,
) -> Result<ObjectMeta, D::Error> {
    let mut metadata = ObjectMeta::deserialize(deserializer)?;
    metadata.managed_fields = None;
    metadata.finalizers = None;
    let is_label = |label: &str| label == LAUNCHER_LABEL.0 || label == MIGRATION_LABEL;
    metadata.labels.iter_mut().for_each(|labels| labels.retain(|label, _| is_label(label)));
    let also = |key: &str| key == PORTS_ANNOTATION || key == PROVISIONING || more(key);
    metadata.annotations.iter_mut().for_each(|annotations| keep_read_ones(annotations, also));
    Ok(metadata)
}

/// A name in a template or an instance.
pub(super) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let mut name = String::deserialize(deserializer)?;
    cut(&mut name, LONGEST_NAME);
    Ok(name)
}

/// A name that may be absent.
pub(super) fn optional_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let mut name = Option::<String>::deserialize(deserializer)?;
    name.iter_mut().for_each(|name| cut(name, LONGEST_NAME));
    Ok(name)
}

/// The reason why a template has too many annotations, if it does.
pub(super) fn too_many(annotations: &BTreeMap<String, String>) -> Option<String> {
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if annotations.len() > MOST_KEYS {
        return Some(format!("it has {} annotations for OVN, and at most {MOST_KEYS} are allowed", annotations.len()));
    }
    (bytes > MOST_BYTES)
        .then(|| format!("its annotations for OVN have {bytes} bytes, and at most {MOST_BYTES} are allowed"))
}

/// Returns true if our own annotation on a VM with this many networks is not too long to be ours.
pub(super) fn is_a_report(text: &str, networks: usize) -> bool {
    text.len() <= LONGEST_REPORT.max(networks.saturating_mul(1_024))
}

/// Returns true if a text is a DNS subdomain (RFC 1123), as the names of Kubernetes' objects and nodes are.
pub fn is_subdomain(text: &str) -> bool {
    let is_inner = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
    let is_label = |label: &str| {
        !label.is_empty() && label.chars().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Returns true if a text may be a UID. It goes into `external_ids`, and tenants can write an owner reference.
pub(super) fn is_uid(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.chars().all(|character| character.is_ascii_alphanumeric() || character == '-')
}
