//! What a VM's owner is told: each port as it is, and its problems.

use uuid::Uuid;

use super::lost::LastLease;
use super::problem::Problem;
use crate::kubevirt::Guest;
use crate::ovn::Addresses;

impl PortReport {
    /// A problem of the VM as a whole.
    pub fn of_vm(problem: Problem) -> Self {
        Self { problems: vec![problem], ..Self::default() }
    }
}

/// One NIC's port, as it is after the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortReport {
    /// The network's name in the VM.
    pub network: String,
    /// The port, where there is one.
    pub port: Option<String>,
    /// The port's row, where there is one.
    pub row: Option<Uuid>,
    /// The switch, by name.
    pub switch: Option<String>,
    /// What it holds.
    pub addresses: Option<Addresses>,
    /// What is reserved for the next start.
    pub next: Option<Addresses>,
    /// What the VM was last told, while its row is lost and not made anew.
    pub last: Option<Box<LastLease>>,
    /// What the guest uses that runs, where that is not what the port has.
    pub guest: Option<Box<Guest>>,
    /// What stands in the way.
    pub problems: Vec<Problem>,
}
