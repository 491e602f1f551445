//! Reports as values: the annotation for an object, and Events for the differences from the last report.

use crate::contract::{keys, port_uuid};
use crate::escaped::{Escaped, EscapedError};
use crate::kubevirt::{AnnotatedPort, AnnotatedProblem, PortsAnnotation};
use crate::ovn::LogicalSwitchPort;
use crate::ovn::dhcp::Family;
use crate::plan::{Problem, VmStatus};

const PORT_RELEASED: &str = "PortReleased";

/// The action for an object's annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No write: it is correct, or it belongs to another instance and has no effect here.
    Leave,
    /// Writes this text; `None` removes the annotation.
    Write(Option<String>),
    /// The instance with this name serves the VM.
    Elsewhere(String),
}

/// Compares the annotation of the VM with this UID with its ports.
///
/// An annotation that names this VM's UID and another instance is not written by this instance, unless the other has
/// handed over one of the ports: the row of such a port has the UID that the other instance gave it. An annotation with
/// another UID was copied from another VM and is ignored.
pub(super) fn verdict(instance: &str, uid: &str, present: Option<&str>, status: &VmStatus) -> Verdict {
    let text = (!status.is_empty()).then(|| annotation(instance, uid, status));
    // The usual case: the annotation is correct.
    if text.as_deref() == present {
        return Verdict::Leave;
    }
    let report = present.and_then(PortsAnnotation::parse);
    let ours = |report: &PortsAnnotation| report.instance.is_empty() || report.instance == instance;
    if let Some(other) = served_by(status) {
        return if report.as_ref().is_some_and(ours) {
            Verdict::Write(None)
        } else {
            Verdict::Elsewhere(other.to_owned())
        };
    }
    let Some(text) = text else {
        return if report.as_ref().is_some_and(ours) { Verdict::Write(None) } else { Verdict::Leave };
    };
    match report {
        Some(PortsAnnotation { instance: other, uid: of, ports: theirs })
            if !other.is_empty()
                && other != instance
                && of == uid
                && theirs.iter().any(|port| port.port.is_some())
                && !is_handed_over(&other, status) =>
        {
            Verdict::Elsewhere(other)
        }
        _ => Verdict::Write(Some(text)),
    }
}

/// The other instance that serves the VM, if this one has no port of it.
fn served_by(status: &VmStatus) -> Option<&str> {
    if status.ports.iter().any(|port| port.port.is_some()) {
        return None;
    }
    status.problems().find_map(|problem| match problem {
        Problem::ServedByAnotherInstance { instance } => Some(instance.as_str()),
        _ => None,
    })
}

/// Returns true if a port has a row that the other instance made.
fn is_handed_over(by: &str, status: &VmStatus) -> bool {
    status.ports.iter().any(|port| {
        let made = port.port.as_ref().map(|name| port_uuid(by, name));
        made.is_some() && port.row == made
    })
}

fn annotation(instance: &str, uid: &str, status: &VmStatus) -> String {
    PortsAnnotation { instance: instance.to_owned(), uid: uid.to_owned(), ports: status.annotated() }.text()
}

/// The last report to the owner, if the annotation was written for this object. An annotation of the first release may
/// be a copy from another VM: of its ports only those that are still true count.
pub(super) fn last_report(text: Option<&str>, uid: &str, now: &[AnnotatedPort]) -> Vec<AnnotatedPort> {
    let Some(report) = text.and_then(PortsAnnotation::parse) else { return Vec::new() };
    if report.is_of_first_release() {
        return report.ports.into_iter().filter(|port| now.contains(port)).collect();
    }
    if report.is_for(uid) { report.ports } else { Vec::new() }
}

/// An Event to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct News {
    pub(super) warning: bool,
    pub(super) reason: String,
    pub(super) note: String,
}

/// The Events for the differences between the last report and the present ports.
pub(super) fn news(before: &[AnnotatedPort], now: &[AnnotatedPort]) -> Vec<News> {
    let mut news = Vec::new();
    for port in now {
        let old = last_of(port, before, now);
        let AnnotatedPort { network, port: name, switch, mac, ips, next, problems, .. } = port;
        let network = Escaped(network);
        let on = format!("network {network}, port {}, switch {}", text(name), Escaped(text(switch)));
        if mac.is_some() && old.is_none_or(|old| old.ips != *ips || old.mac != *mac || old.switch != *switch) {
            let note = format!("{} on {on}", addresses(ips, text(mac), "with"));
            news.push(News { warning: false, reason: "AddressAssigned".to_owned(), note });
        }
        news.extend(old.and_then(|old| stale_lease(old, port)));
        if let Some(next) = next
            && old.is_none_or(|old| old.next.as_ref() != Some(next))
        {
            let note = format!(
                "{next} is reserved and takes effect at the next start of the VM; until then {} stays ({on})",
                if ips.is_empty() { text(mac).to_owned() } else { ips.join(" and ") }
            );
            news.push(News { warning: false, reason: "AddressReserved".to_owned(), note });
        }
        for problem in problems {
            if old.is_none_or(|old| !old.problems.contains(problem)) {
                let AnnotatedProblem { reason, message } = problem.clone();
                let note = if port.network.is_empty() { message } else { format!("network {network}: {message}") };
                news.push(News { warning: true, reason, note });
            }
        }
    }
    // A network that was renamed kept its port. The loss of a port in another way has its own Event above.
    let goes_on = |old: &AnnotatedPort, port: &AnnotatedPort| last_of(port, before, now).is_some_and(|it| it == old);
    let is_there = |old: &AnnotatedPort| now.iter().any(|now| now.port == old.port || goes_on(old, now));
    for old in before.iter().filter(|old| !is_there(old)) {
        let AnnotatedPort { network, port, mac, ips, .. } = old;
        if let Some(port) = port {
            let held = addresses(ips, text(mac), "and");
            // Tenants can write the annotation.
            let (port, network, held) = (EscapedError(port), Escaped(network), Escaped(&held));
            let why = match now.iter().any(|now| now.network == old.network) {
                true => "the NIC is on another network",
                false => "the VM has no such NIC",
            };
            let note = format!("the port {port} of network {network} with {held} was released: {why}");
            news.push(News { warning: false, reason: PORT_RELEASED.to_owned(), note });
        }
    }
    news
}

/// OVN confirms every DHCPv6 address that a guest asks about, for ever: a guest that has stored its lease keeps an address
/// that its port has lost.
fn stale_lease(old: &AnnotatedPort, port: &AnnotatedPort) -> Option<News> {
    fn ipv6(port: &AnnotatedPort) -> Option<&str> {
        port.ips.iter().find(|ip| ip.contains(':')).map(String::as_str)
    }
    let is_on = |port: &AnnotatedPort| port.dhcp.iter().any(|family| *family == Family::V6.to_string());
    let (before, now) = (ipv6(old)?, ipv6(port)?);
    (before != now && is_on(old) && is_on(port)).then(|| News {
        warning: true,
        reason: "DhcpLeaseStale".to_owned(),
        note: format!(
            "network {}: the address {} is now {now}, and a guest that has stored its DHCPv6 lease keeps the old one, which OVN \
            confirms for ever. Delete the stored lease in the guest and request a new one, as in `dhclient -6 -r` and \
            `dhclient -6`.",
            Escaped(&port.network),
            Escaped(before)
        ),
    })
}

/// The last report of a port: of its NIC, which has two ports while a running VM changes the NIC's network.
fn last_of<'a>(port: &AnnotatedPort, before: &'a [AnnotatedPort], now: &[AnnotatedPort]) -> Option<&'a AnnotatedPort> {
    let of_nic = || before.iter().filter(|old| old.network == port.network);
    let is_anothers = |old: &AnnotatedPort| old.port.is_some() && now.iter().any(|now| now.port == old.port);
    let same = of_nic().find(|old| old.port == port.port);
    same.or_else(|| {
        let has_one = |old: &&AnnotatedPort| !is_anothers(old) && (port.coming || !old.coming);
        of_nic().find(has_one)
    })
}

/// The Event about the port of a deleted VM.
pub(super) fn released(port: &LogicalSwitchPort) -> News {
    let network = port.external_ids.get(keys::NETWORK).unwrap_or_default();
    let addresses = port.addresses.iter().collect::<Vec<_>>().join(", ");
    News {
        warning: false,
        reason: PORT_RELEASED.to_owned(),
        note: format!(
            "the port {} of network {} with {} was released: the VM is gone",
            EscapedError(&port.name),
            Escaped(network),
            Escaped(&addresses)
        ),
    }
}

/// The Event about a VM that another instance serves.
pub(super) fn elsewhere(instance: String) -> News {
    let problem = Problem::ServedByAnotherInstance { instance };
    News { warning: true, reason: problem.reason().to_owned(), note: problem.to_string() }
}

/// `10.16.0.2 with MAC 0a:58:0a:10:00:02`, or the MAC alone.
fn addresses(ips: &[String], mac: &str, link: &str) -> String {
    if ips.is_empty() { format!("the MAC {mac} alone") } else { format!("{} {link} MAC {mac}", ips.join(" and ")) }
}

fn text(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or("none")
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::contract::VmKey;
    use crate::ovn::Addresses;
    use crate::plan::{Holder, PortStatus};

    fn port(name: &str, made_by: &str) -> VmStatus {
        let addresses: Addresses = "0a:58:0a:10:00:02 10.16.0.2".parse().expect("addresses");
        let port = PortStatus {
            network: "default".into(),
            port: Some(name.into()),
            row: Some(port_uuid(made_by, name)),
            switch: Some("blue".into()),
            addresses: Some(addresses),
            ..PortStatus::default()
        };
        VmStatus { ports: vec![port], ..VmStatus::default() }
    }

    fn write(instance: &str, uid: &str, status: &VmStatus) -> String {
        match verdict(instance, uid, None, status) {
            Verdict::Write(Some(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_annotation_of_another_instance_for_the_same_vm_is_left_alone() {
        let (ours, none) = (port("a.n", "red"), VmStatus::default());
        let theirs = write("blue", "u-1", &port("a.n", "blue"));
        assert_eq!(verdict("red", "u-1", Some(&theirs), &ours), Verdict::Elsewhere("blue".into()));
        assert_eq!(verdict("red", "u-1", Some(&theirs), &none), Verdict::Leave);
        // The first instance continues.
        assert_eq!(verdict("blue", "u-1", Some(&theirs), &port("a.n", "blue")), Verdict::Leave);
        assert_eq!(verdict("blue", "u-1", Some(&theirs), &none), Verdict::Write(None));
    }

    #[test]
    fn a_port_that_another_instance_handed_over_brings_its_annotation_along() {
        let handed = port("a.n", "blue");
        let theirs = write("blue", "u-1", &handed);
        let now = verdict("red", "u-1", Some(&theirs), &handed);
        assert_eq!(now, Verdict::Write(Some(write("red", "u-1", &handed))));
        let report = last_report(Some(&theirs), "u-1", &handed.annotated());
        assert_eq!(news(&report, &handed.annotated()), [], "it is the same port with the same address");
    }

    #[test]
    fn a_guest_with_dhcpv6_is_told_to_drop_its_stored_lease_once_it_is_renumbered() {
        let at = |ip: &str, dhcp: &[&str]| AnnotatedPort {
            network: "default".into(),
            port: Some("a.n".into()),
            ips: vec!["10.16.0.2".into(), ip.into()],
            mac: Some("0a:58:0a:10:00:02".into()),
            dhcp: dhcp.iter().map(|family| (*family).to_owned()).collect(),
            ..AnnotatedPort::default()
        };
        let both = ["DHCPv4", "DHCPv6"];
        let told = |before: AnnotatedPort, now: AnnotatedPort| {
            let news = news(&[before], &[now]);
            news.into_iter().filter(|news| news.reason == "DhcpLeaseStale").map(|news| news.note).collect::<Vec<_>>()
        };
        let notes = told(at("fd00::2", &both), at("fd00::3", &both));
        assert!(notes.len() == 1 && notes[0].contains("fd00::2 is now fd00::3"), "{notes:?}");
        assert!(notes[0].contains("dhclient -6 -r"), "{notes:?}");
        assert_eq!(told(at("fd00::2", &both), at("fd00::2", &both)), [""; 0]);
        assert_eq!(told(at("fd00::2", &["DHCPv4"]), at("fd00::3", &both)), [""; 0]);
        assert_eq!(told(at("fd00::2", &both), at("fd00::3", &[])), [""; 0]);
    }

    #[test]
    fn an_annotation_of_the_first_release_is_ours() {
        let ours = port("a.n", "red");
        let list = serde_json::to_string(&ours.annotated()).expect("JSON");
        assert_eq!(verdict("red", "u-1", Some(&list), &ours), Verdict::Write(Some(write("red", "u-1", &ours))));
        assert_eq!(verdict("red", "u-1", Some(&list), &VmStatus::default()), Verdict::Write(None));
    }

    #[test]
    fn the_annotation_that_a_clone_has_from_its_parent_is_ignored() {
        let parents = write("red", "u-parent", &port("parent.n", "red"));
        let holder = Box::new(Holder::Vm { key: VmKey::new("n", "parent"), port: "parent.n".into() });
        let address = IpAddr::from([10, 16, 0, 2]);
        let conflict = Problem::AddressHeld { address, switch: "blue".into(), holder };
        let child = PortStatus { network: "default".into(), problems: vec![conflict], ..PortStatus::default() };
        let child = VmStatus { ports: vec![child], ..VmStatus::default() };
        assert!(matches!(verdict("red", "u-child", Some(&parents), &child), Verdict::Write(Some(_))));
        let now = child.annotated();
        let report = last_report(Some(&parents), "u-child", &now);
        let reasons: Vec<String> = news(&report, &now).into_iter().map(|news| news.reason).collect();
        assert_eq!(reasons, ["AddressConflict"], "no PortReleased of the parent's port");
        // Also if another instance serves the parent.
        let elsewhere = write("blue", "u-parent", &port("parent.n", "blue"));
        assert!(matches!(verdict("red", "u-child", Some(&elsewhere), &child), Verdict::Write(Some(_))));
        // The form of the first release has no UID: its ports that are not true here are ignored, too.
        let list = serde_json::to_string(&port("parent.n", "red").annotated()).expect("JSON");
        let report = last_report(Some(&list), "u-child", &now);
        assert_eq!(news(&report, &now).len(), 1);
    }
}
