//! A port's report as it stands in the annotation `ovn-kubevirt.io/ports`.

use super::report::PortReport;
use crate::kubevirt::{PortStatus, ProblemStatus};
use crate::ovn::mac_text;

impl From<&PortReport> for PortStatus {
    fn from(report: &PortReport) -> Self {
        let PortReport { network, port, row: _, switch, addresses, next, last, guest, problems } = report;
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
            last: last.as_ref().filter(|_| !assigned).map(|last| last.addresses.to_string()),
            guest: guest.as_deref().cloned(),
            problems: problems
                .iter()
                .map(|problem| ProblemStatus { reason: problem.reason().to_owned(), message: problem.to_string() })
                .collect(),
        }
    }
}
