//! The status for a VM's owner: each port as it is, and its problems.

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

/// One NIC's port, as it is after the decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortReport {
    /// The network's name in the VM.
    pub network: String,
    /// The port, if there is one.
    pub port: Option<String>,
    /// The port's row, if there is one.
    pub row: Option<Uuid>,
    /// The switch, by name.
    pub switch: Option<String>,
    /// Its lease.
    pub addresses: Option<Addresses>,
    /// The reservation for the next start.
    pub next: Option<Addresses>,
    /// The last lease in the VM's annotation, while the row is lost.
    pub last: Option<Box<LastLease>>,
    /// The addresses that the running guest uses, if they differ from the port's.
    pub guest: Option<Box<Guest>>,
    /// The problems of the port.
    pub problems: Vec<Problem>,
}
