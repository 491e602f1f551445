//! The ports that the brake holds (`writer/brake.rs`), as shown to operators.

use std::fmt;

use crate::contract::VmKey;

/// The held ports, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The number of held ports.
    pub ports: usize,
    /// The number of all ports of the instance at the last count. Retained ports are in neither number.
    pub total: usize,
    /// Some of their VMs.
    pub examples: Vec<VmKey>,
    /// True if there are more VMs than the examples.
    pub more: bool,
}

impl fmt::Display for Holding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.examples.iter().map(|vm| vm.to_string().escape_debug().to_string()).collect();
        write!(
            formatter,
            "holding {} of {} ports: their VMs are gone, and their deletion was not seen ({}{}). Check that this process serves the right cluster and that its API server lists all VMs. If they are gone for good, start once with --allow-mass-release",
            self.ports,
            self.total,
            names.join(", "),
            if self.more { ", ..." } else { "" },
        )
    }
}
