//! The names of one VM, from its ports.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use uuid::Uuid;

use super::{DnsDomain, Records};
use crate::contract::{VmKey, keys};
use crate::escaped::Escaped;
use crate::ovn::{Northbound, PortRef};

/// The reason why a name is not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftOut {
    /// DNS cannot have it: a label has more than 63 characters, the name more than 253, or one that no name has.
    NoName,
    /// Another VM has it: that of a VM `a.b` is also that of the NIC `a` of a VM `b`, and goes to the former.
    OtherVm(VmKey),
    /// A row of another owner has it on the switch.
    Taken(String),
}

/// The names of a VM.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct VmNames {
    /// Addresses by name.
    forward: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Names by address, on the switch of the address.
    reverse: BTreeMap<(Uuid, IpAddr), String>,
    pub(super) left_out: Vec<(String, LeftOut)>,
}

/// A NIC with addresses.
struct Nic<'a> {
    network: &'a str,
    switch: Uuid,
    /// It is on the pod network.
    is_of_pod: bool,
    ips: Vec<IpAddr>,
}

impl VmNames {
    /// The switches that the VM has names on.
    pub(super) fn switches(view: &Northbound, vm: &VmKey) -> BTreeSet<Uuid> {
        nics(view, vm).map(|nic| nic.switch).collect()
    }

    /// The names of a VM: `<vm>.<namespace>.<domain>` with the addresses of its NIC on the pod network, or else of its first NIC
    /// by name; and `<network>.<vm>.<namespace>.<domain>` with those of each NIC.
    pub(super) fn of(view: &Northbound, vm: &VmKey, domain: &DnsDomain) -> Self {
        let nics: Vec<Nic<'_>> = nics(view, vm).collect();
        let main = nics.iter().find(|nic| nic.is_of_pod).or(nics.first()).map(|nic| nic.network);
        let mut names = Self::default();
        for nic in &nics {
            let own = names.name(domain, &[nic.network, &vm.name, &vm.namespace]);
            let other = VmKey::new(vm.namespace.as_str(), format!("{}.{}", nic.network.to_ascii_lowercase(), vm.name));
            let own = match own {
                Some(name) if self::nics(view, &other).next().is_some() => {
                    names.left_out.push((name, LeftOut::OtherVm(other)));
                    None
                }
                own => own,
            };
            let of_vm = (main == Some(nic.network)).then(|| names.name(domain, &[&vm.name, &vm.namespace])).flatten();
            for name in own.iter().chain(&of_vm) {
                names.forward.entry(name.clone()).or_default().extend(&nic.ips);
            }
            if let Some(name) = of_vm.or(own) {
                let addresses = nic.ips.iter().map(|ip| ((nic.switch, *ip), name.clone()));
                names.reverse.extend(addresses);
            }
        }
        names
    }

    /// Adds the records for the guests on a switch: all names, and the reverse names of the addresses there. The addresses of
    /// another switch may belong to other hosts here.
    pub(super) fn records_on(&self, switch: &Uuid, records: &mut Records) {
        for (name, ips) in &self.forward {
            let mut text = String::new();
            for ip in ips {
                let blank = if text.is_empty() { "" } else { " " };
                // A string takes whatever is written to it.
                let _ = write!(text, "{blank}{ip}");
            }
            records.insert(name.clone(), text);
        }
        let here = self.reverse.iter().filter(|((on, _), _)| on == switch);
        for ((_, ip), name) in here {
            // An address that two ports have is a conflict; the first VM keeps the name.
            records.entry(reverse_name(*ip)).or_insert_with(|| name.clone());
        }
    }

    fn name(&mut self, domain: &DnsDomain, labels: &[&str]) -> Option<String> {
        domain.name(labels).map_err(|name| self.left_out.push((name, LeftOut::NoName))).ok()
    }
}

/// The NICs of a VM that have names, in the order of their networks: a port that is retained for a deleted VM has none.
fn nics<'a>(view: &'a Northbound, vm: &'a VmKey) -> impl Iterator<Item = Nic<'a>> {
    view.ports_of(vm).filter_map(|(network, port)| {
        let is_retained = port.row.external_ids.get(keys::RETAINED_UNTIL).is_some();
        let switch = port.switch.filter(|_| !is_retained && !network.is_empty())?;
        let ips: Vec<IpAddr> =
            port.row.addresses.nics().flat_map(|addresses| addresses.ips().collect::<Vec<_>>()).collect();
        let is_of_pod = is_of_pod(vm, network, &port);
        (!ips.is_empty()).then_some(Nic { network, switch, is_of_pod, ips })
    })
}

/// Returns true if a port's name is one on the pod network: `<vm>.<namespace>`, with the network appended where that is taken.
fn is_of_pod(vm: &VmKey, network: &str, port: &PortRef<'_>) -> bool {
    let rest = port.row.name.strip_prefix(&vm.port_name());
    rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('.') == Some(network))
}

/// The name of an address below `in-addr.arpa` (RFC 1035 section 3.5) or `ip6.arpa` (RFC 3596 section 2.5).
fn reverse_name(ip: IpAddr) -> String {
    let mut name = String::new();
    match ip {
        IpAddr::V4(ip) => {
            for octet in ip.octets().iter().rev() {
                let _ = write!(name, "{octet}.");
            }
            name.push_str("in-addr.arpa");
        }
        IpAddr::V6(ip) => {
            for octet in ip.octets().iter().rev() {
                let _ = write!(name, "{:x}.{:x}.", octet & 0xf, octet >> 4);
            }
            name.push_str("ip6.arpa");
        }
    }
    name
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoName => formatter.write_str(
                "DNS has no such name: a label has at most 63 characters, and a name 253. Choose a shorter name for the VM or its network, or a shorter --dns-domain",
            ),
            Self::OtherVm(vm) => write!(
                formatter,
                "it is the name of the VM {vm}. Choose another name for one of the two VMs, or for the network"
            ),
            Self::Taken(holder) => write!(
                formatter,
                "{} has a record of that name on the switch. Remove it there, or choose another --dns-domain",
                Escaped(holder)
            ),
        }
    }
}

impl LeftOut {
    /// The categories of reasons, for metrics.
    pub const REASONS: [&str; 3] = ["no_name", "other_vm", "taken"];

    /// The category of the reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoName => "no_name",
            Self::OtherVm(_) => "other_vm",
            Self::Taken(_) => "taken",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::reverse_name;

    #[test]
    fn reverse_names_are_those_of_the_rfcs() {
        let of = |ip: &str| reverse_name(ip.parse().expect("an address"));
        assert_eq!(of("10.16.0.5"), "5.0.16.10.in-addr.arpa");
        // RFC 3596 section 2.5.
        assert_eq!(
            of("4321:0:1:2:3:4:567:89ab"),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa"
        );
    }
}
