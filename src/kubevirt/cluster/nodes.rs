//! The chassis in the annotations of Nodes.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Cluster, Kind, Notice};
use crate::contract::VmKey;
use crate::contract::annotations::CHASSIS_ANNOTATION;
use crate::escaped::shortened;

/// The longest name of a chassis. ovs-vsctl writes a UUID, and people write a host name.
const LONGEST_CHASSIS: usize = 253;

/// A Node's annotation without a valid chassis name. `options:requested-chassis` (ovn-nb(5)) separates chassis by
/// commas, so a name with a comma would bind ports to two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidChassis {
    /// The annotation's value, cut if it is long.
    pub value: String,
}

/// Reads the annotation; `None` if it is absent or empty.
fn chassis(metadata: &ObjectMeta) -> Option<Result<String, InvalidChassis>> {
    let value = metadata.annotations.as_ref()?.get(CHASSIS_ANNOTATION)?.trim();
    let is_good = |character: char| character != ',' && !character.is_whitespace() && !character.is_control();
    if value.is_empty() {
        return None;
    }
    let valid = value.len() <= LONGEST_CHASSIS && value.chars().all(is_good);
    Some(if valid { Ok(value.to_owned()) } else { Err(InvalidChassis { value: shortened(value.to_owned()) }) })
}

impl Cluster {
    /// The chassis in a Node's annotation.
    pub fn chassis_of(&self, node: &str) -> Result<Option<&str>, &InvalidChassis> {
        match self.nodes.get(node) {
            Some(Some(Ok(chassis))) => Ok(Some(chassis)),
            Some(Some(Err(invalid))) => Err(invalid),
            Some(None) | None => Ok(None),
        }
    }

    pub(super) fn put_node(&mut self, metadata: &ObjectMeta) -> BTreeSet<VmKey> {
        let name = self.confirm(Kind::Node, metadata).name;
        let chassis = chassis(metadata);
        let before = self.nodes.insert(name.clone(), chassis.clone()).flatten();
        if before == chassis {
            return BTreeSet::new();
        }
        if let Some(Err(InvalidChassis { value })) = chassis {
            self.notices.push(Notice::InvalidChassis { node: name.clone(), value });
        }
        self.vms_on(|node| node == name)
    }

    pub(super) fn remove_node(&mut self, name: &str) -> BTreeSet<VmKey> {
        let chassis = self.nodes.remove(name).flatten();
        chassis.map(|_| self.vms_on(|node| node == name)).unwrap_or_default()
    }
}
