//! What is told, as values: the annotation that is to stand on an object, and Events for what differs from what was told.

use crate::contract::{keys, port_uuid};
use crate::escaped::{Escaped, EscapedError};
use crate::kubevirt::{AnnotatedPort, AnnotatedProblem, PortsAnnotation};
use crate::ovn::LogicalSwitchPort;
use crate::plan::{Problem, VmStatus};

const PORT_RELEASED: &str = "PortReleased";

/// What is to be done about an object's annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is as it should be, or it is not this instance's and says nothing that matters here.
    Leave,
    /// It is to be this; `None` takes it off.
    Write(Option<String>),
    /// Another instance serves the VM, which has this name.
    Elsewhere(String),
}

/// Compares what stands in the annotation of the VM of this UID with its ports.
///
/// An annotation that names this VM's UID and another instance is not this instance's to write, unless that instance
/// has handed over one of the ports: such a row has the UUID that the other instance gave it. An annotation of another
/// UID came along with a copy of a VM, and means nothing.
pub(super) fn verdict(instance: &str, uid: &str, present: Option<&str>, status: &VmStatus) -> Verdict {
    let text = (!status.is_empty()).then(|| annotation(instance, uid, status));
    // Nothing new is the rule: most looks at a VM end here.
    if text.as_deref() == present {
        return Verdict::Leave;
    }
    let told = present.and_then(PortsAnnotation::parse);
    let ours = |told: &PortsAnnotation| told.instance.is_empty() || told.instance == instance;
    if let Some(other) = served_by(status) {
        return if told.as_ref().is_some_and(ours) {
            Verdict::Write(None)
        } else {
            Verdict::Elsewhere(other.to_owned())
        };
    }
    let Some(text) = text else {
        return if told.as_ref().is_some_and(ours) { Verdict::Write(None) } else { Verdict::Leave };
    };
    match told {
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

/// The other instance that serves the VM, where this one has no port of it.
fn served_by(status: &VmStatus) -> Option<&str> {
    if status.ports.iter().any(|port| port.port.is_some()) {
        return None;
    }
    status.problems().find_map(|problem| match problem {
        Problem::ServedByAnotherInstance { instance } => Some(instance.as_str()),
        _ => None,
    })
}

/// Whether a port has the row that another instance made for it.
fn is_handed_over(by: &str, status: &VmStatus) -> bool {
    status.ports.iter().any(|port| {
        let made = port.port.as_ref().map(|name| port_uuid(by, name));
        made.is_some() && port.row == made
    })
}

fn annotation(instance: &str, uid: &str, status: &VmStatus) -> String {
    PortsAnnotation { instance: instance.to_owned(), uid: uid.to_owned(), ports: status.annotated() }.text()
}

/// What the owner was told before, as far as the annotation was written for this object. Of what the first release
/// wrote, which may have come along from another VM, only what is still true counts.
pub(super) fn told_before(text: Option<&str>, uid: &str, now: &[AnnotatedPort]) -> Vec<AnnotatedPort> {
    let Some(told) = text.and_then(PortsAnnotation::parse) else { return Vec::new() };
    if told.is_of_first_release() {
        return told.ports.into_iter().filter(|port| now.contains(port)).collect();
    }
    if told.is_for(uid) { told.ports } else { Vec::new() }
}

/// An Event to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct News {
    pub(super) warning: bool,
    pub(super) reason: String,
    pub(super) note: String,
}

/// What differs between what was told and what is.
pub(super) fn news(before: &[AnnotatedPort], now: &[AnnotatedPort]) -> Vec<News> {
    let mut news = Vec::new();
    for port in now {
        let old = before.iter().find(|old| old.network == port.network);
        let AnnotatedPort { network, port: name, switch, mac, ips, next, problems, last: _, guest: _, state: _ } = port;
        let network = Escaped(network);
        let on = format!("network {network}, port {}, switch {}", text(name), Escaped(text(switch)));
        if mac.is_some() && old.is_none_or(|old| old.ips != *ips || old.mac != *mac || old.switch != *switch) {
            let note = format!("{} on {on}", addresses(ips, text(mac), "with"));
            news.push(News { warning: false, reason: "AddressAssigned".to_owned(), note });
        }
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
    // A network that was renamed kept its port; one that lost it in another way is told why above.
    let is_there = |old: &AnnotatedPort| now.iter().any(|now| now.network == old.network || now.port == old.port);
    for old in before.iter().filter(|old| !is_there(old)) {
        let AnnotatedPort { network, port, mac, ips, .. } = old;
        if let Some(port) = port {
            let held = addresses(ips, text(mac), "and");
            // The annotation is the tenant's to write.
            let (port, network, held) = (EscapedError(port), Escaped(network), Escaped(&held));
            let note = format!("the port {port} of network {network} with {held} was released: the VM has no such NIC");
            news.push(News { warning: false, reason: PORT_RELEASED.to_owned(), note });
        }
    }
    news
}

/// The Event about the port of a VM that has gone.
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
        // The first instance goes on.
        assert_eq!(verdict("blue", "u-1", Some(&theirs), &port("a.n", "blue")), Verdict::Leave);
        assert_eq!(verdict("blue", "u-1", Some(&theirs), &none), Verdict::Write(None));
    }

    #[test]
    fn a_port_that_another_instance_handed_over_brings_its_annotation_along() {
        let handed = port("a.n", "blue");
        let theirs = write("blue", "u-1", &handed);
        let now = verdict("red", "u-1", Some(&theirs), &handed);
        assert_eq!(now, Verdict::Write(Some(write("red", "u-1", &handed))));
        let told = told_before(Some(&theirs), "u-1", &handed.annotated());
        assert_eq!(news(&told, &handed.annotated()), [], "it is the same port with the same address");
    }

    #[test]
    fn an_annotation_of_the_first_release_is_ours() {
        let ours = port("a.n", "red");
        let list = serde_json::to_string(&ours.annotated()).expect("JSON");
        assert_eq!(verdict("red", "u-1", Some(&list), &ours), Verdict::Write(Some(write("red", "u-1", &ours))));
        assert_eq!(verdict("red", "u-1", Some(&list), &VmStatus::default()), Verdict::Write(None));
    }

    #[test]
    fn what_a_clone_brings_along_from_its_parent_means_nothing() {
        let parents = write("red", "u-parent", &port("parent.n", "red"));
        let holder = Box::new(Holder::Vm { key: VmKey::new("n", "parent"), port: "parent.n".into() });
        let address = IpAddr::from([10, 16, 0, 2]);
        let conflict = Problem::AddressHeld { address, switch: "blue".into(), holder };
        let child = PortStatus { network: "default".into(), problems: vec![conflict], ..PortStatus::default() };
        let child = VmStatus { ports: vec![child], ..VmStatus::default() };
        assert!(matches!(verdict("red", "u-child", Some(&parents), &child), Verdict::Write(Some(_))));
        let now = child.annotated();
        let told = told_before(Some(&parents), "u-child", &now);
        let reasons: Vec<String> = news(&told, &now).into_iter().map(|news| news.reason).collect();
        assert_eq!(reasons, ["AddressConflict"], "no PortReleased of the parent's port");
        // Even where another instance serves the parent.
        let elsewhere = write("blue", "u-parent", &port("parent.n", "blue"));
        assert!(matches!(verdict("red", "u-child", Some(&elsewhere), &child), Verdict::Write(Some(_))));
        // Of the first release's form, which names no VM, what is not true here says nothing either.
        let list = serde_json::to_string(&port("parent.n", "red").annotated()).expect("JSON");
        let told = told_before(Some(&list), "u-child", &now);
        assert_eq!(news(&told, &now).len(), 1);
    }
}
