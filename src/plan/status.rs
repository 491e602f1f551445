//! The status of a VM: each of its ports as it is, and the problems. Owners and operators read it.

use uuid::Uuid;

use super::lost::LastLease;
use super::problem::Problem;
use crate::contract::NadKey;
use crate::kubevirt::{AnnotatedPort, AnnotatedProblem, Guest};
use crate::ovn::dhcp::Family;
use crate::ovn::{Addresses, LogicalSwitchPort, Northbound, mac_text};

/// The status of a VM, as it is once its decision is committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VmStatus {
    /// The status of each NIC that is ours.
    pub ports: Vec<PortStatus>,
    /// The problems of the VM as a whole.
    pub problems: Vec<Problem>,
    /// Other rows carry marks of the VM and are left alone, so that the rows do not give this status.
    pub strays: bool,
}

/// The status of one NIC's port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortStatus {
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
    /// The NADs that the port serves, in a decision; none on the pod network.
    pub nads: Vec<NadKey>,
    /// The guest is not plugged to it yet: a running VM changes the network of the NIC, which has another port meanwhile.
    pub coming: bool,
    /// The last lease in the VM's annotation, while the row is lost.
    pub last: Option<Box<LastLease>>,
    /// The addresses that the running guest uses, if they differ from the port's.
    pub guest: Option<Box<Guest>>,
    /// The DHCP that OVN answers for this service.
    pub dhcp: DhcpFamilies,
    /// The problems of the port.
    pub problems: Vec<Problem>,
}

/// The families of DHCP that OVN answers on a port, by rows of ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DhcpFamilies {
    /// DHCPv4.
    pub v4: bool,
    /// DHCPv6.
    pub v6: bool,
}

impl DhcpFamilies {
    /// Those of a row.
    pub fn of(northbound: &Northbound, port: &LogicalSwitchPort) -> Self {
        let is_ours = |row: Option<Uuid>| row.is_some_and(|row| northbound.is_our_dhcp_row(&row));
        Self { v4: is_ours(port.dhcpv4_options), v6: is_ours(port.dhcpv6_options) }
    }

    /// The families.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        [(self.v4, Family::V4), (self.v6, Family::V6)].into_iter().filter(|(is_on, _)| *is_on).map(|(_, family)| family)
    }
}

impl VmStatus {
    /// The status of a VM that has no ports of ours, and a problem.
    pub fn of_problem(problem: Problem) -> Self {
        Self { problems: vec![problem], ..Self::default() }
    }

    /// Returns true if there is nothing to tell: the VM has no NIC of ours.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.problems.is_empty()
    }

    /// Returns true if the VM's rows alone give the same status: every port stands, and nothing is wrong.
    pub fn follows_from_rows(&self) -> bool {
        let follows = |port: &PortStatus| {
            let stands = port.row.is_some() && port.last.is_none() && port.guest.is_none();
            port.problems.is_empty() && stands && !port.coming
        };
        self.problems.is_empty() && !self.strays && self.ports.iter().all(follows)
    }

    /// All problems: those of its ports, then those of the VM as a whole.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.ports.iter().flat_map(|port| &port.problems).chain(&self.problems)
    }

    /// The status as it stands in the annotation `ovn-kubevirt.io/ports`. The problems of the VM as a whole stand in an
    /// element without a network.
    pub fn annotated(&self) -> Vec<AnnotatedPort> {
        let whole = (!self.problems.is_empty()).then(|| {
            let problems = self.problems.clone();
            AnnotatedPort::from(&PortStatus { problems, ..PortStatus::default() })
        });
        self.ports.iter().map(AnnotatedPort::from).chain(whole).collect()
    }
}

impl From<&PortStatus> for AnnotatedPort {
    fn from(status: &PortStatus) -> Self {
        let PortStatus { network, port, row: _, switch, addresses, next, nads: _, coming, last, guest, dhcp, problems } =
            status;
        let assigned = port.is_some() && addresses.is_some();
        let first = problems.first().map(|problem| problem.reason());
        Self {
            network: network.clone(),
            port: port.clone(),
            switch: switch.clone().or_else(|| last.as_ref().map(|last| last.switch.clone())),
            mac: addresses.map(|addresses| mac_text(addresses.mac)),
            ips: addresses.iter().flat_map(|addresses| addresses.ips()).map(|ip| ip.to_string()).collect(),
            state: if assigned { "Assigned" } else { first.unwrap_or("Pending") }.to_owned(),
            next: next.map(|next| next.to_string()),
            coming: *coming,
            last: last.as_ref().filter(|_| !assigned).map(|last| last.addresses.to_string()),
            guest: guest.as_deref().cloned(),
            dhcp: dhcp.iter().map(|family| family.to_string()).collect(),
            problems: problems
                .iter()
                .map(|problem| AnnotatedProblem { reason: problem.reason().to_owned(), message: problem.to_string() })
                .collect(),
        }
    }
}
