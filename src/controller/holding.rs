//! Ports that the brake holds (`writer/brake.rs`), as operators are told of them.

use std::fmt;

use crate::contract::VmKey;

/// What is held, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Ports that are held.
    pub ports: usize,
    /// All ports of the instance when they were counted last; retained ones are in neither number.
    pub total: usize,
    /// Some of their VMs.
    pub examples: Vec<VmKey>,
    /// There are more VMs than these.
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
