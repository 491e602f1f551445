//! The row of a VM's port as `docs/contract.md` has it.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Port, Prepared};

impl Prepared {
    /// The row of a VM's NIC on the pod network: every value of the contract, and no other.
    pub(crate) fn contract_row(&self, vm: &str, vm_uid: &str, uuid: &str, addresses: &str) -> Port {
        let external_ids = [
            ("vendor", "ovn-kubevirt".to_owned()),
            ("ovn-kubevirt.io/instance", "default".to_owned()),
            ("ovn-kubevirt.io/vm", format!("{}/{vm}", self.namespace.name)),
            ("ovn-kubevirt.io/vm-uid", vm_uid.to_owned()),
            ("ovn-kubevirt.io/network", "default".to_owned()),
        ];
        Port {
            uuid: uuid.to_owned(),
            name: self.name(vm),
            r#type: String::new(),
            addresses: BTreeSet::from([addresses.to_owned()]),
            dynamic_addresses: None,
            port_security: BTreeSet::from([addresses.to_owned()]),
            options: BTreeMap::new(),
            external_ids: external_ids.map(|(key, value)| (key.to_owned(), value)).into(),
            enabled: None,
            up: None,
            dhcpv4_options: None,
            dhcpv6_options: None,
            ha_chassis_group: None,
            mirror_rules: BTreeSet::new(),
            parent_name: None,
            tag: None,
            tag_request: None,
            switches: vec!["ovn-default".to_owned()],
        }
    }
}

/// The row with the chassis that it is bound to.
pub(crate) fn bound_to(mut port: Port, chassis: &str) -> Port {
    port.options.insert("requested-chassis".to_owned(), chassis.to_owned());
    port
}
