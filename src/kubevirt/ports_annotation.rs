//! The last report to a VM's owner: the annotation `ovn-kubevirt.io/ports` on the VM, or on a bare VMI.
//!
//! The annotation names the instance that wrote it and the VM's UID. A clone or a restored manifest has its parent's
//! UID, so the annotation is ignored there. With the VM's own UID it is also the source of a guest's addresses after
//! the northbound database has lost their row.

use serde::{Deserialize, Serialize};

/// An instance's name has up to 40 characters, a UID has 36.
const LONGEST_NAME: usize = 64;

/// The annotation, parsed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsAnnotation {
    /// The instance of this service that wrote it.
    pub instance: String,
    /// The UID of the VM that it was written for.
    pub uid: String,
    /// The VM's ports.
    pub ports: Vec<AnnotatedPort>,
}

/// One port in the annotation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnotatedPort {
    /// The network's name in the VM; empty for problems of the whole VM.
    pub network: String,
    /// The port's name, if there is a port.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<String>,
    /// The logical switch, by name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub switch: Option<String>,
    /// The MAC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mac: Option<String>,
    /// The addresses, IPv4 first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ips: Vec<String>,
    /// `MAC IP...` of the lost port, until it is made again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last: Option<String>,
    /// The addresses of the running guest, if its port has others.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub guest: Option<Guest>,
    /// The DHCP that OVN answers: `DHCPv4`, `DHCPv6`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub dhcp: Vec<String>,
    /// `Assigned`, or the reason of the first problem.
    pub state: String,
    /// The reservation for the next start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
    /// The guest is not plugged to the port yet: the VM changes the NIC's network while it runs.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub coming: bool,
    /// The problems.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub problems: Vec<AnnotatedProblem>,
}

/// The addresses of a guest that runs since before its port was made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// The UID of the VMI: the next one uses the addresses of the port.
    pub run: String,
    /// `MAC IP...`
    pub addresses: String,
}

/// One problem in the annotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnotatedProblem {
    /// The reason of its Event.
    pub reason: String,
    /// The message.
    pub message: String,
}

impl PortsAnnotation {
    /// Reads the annotation. The first release wrote only the list of ports: then instance and UID are empty. `None`
    /// for any other text.
    ///
    /// Tenants can write the annotation: with an invalid instance or UID it is not ours.
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim_start().starts_with('[') {
            return Some(Self { ports: serde_json::from_str(text).ok()?, ..Self::default() });
        }
        let report: Self = serde_json::from_str(text).ok()?;
        let is_plain = |text: &str| {
            let plain = |character: char| character.is_ascii_alphanumeric() || character == '-';
            !text.is_empty() && text.len() <= LONGEST_NAME && text.chars().all(plain)
        };
        (is_plain(&report.instance) && is_plain(&report.uid)).then_some(report)
    }

    /// The annotation's text.
    pub fn text(&self) -> String {
        // Strings, lists and options always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns true if it was written for the VM with this UID.
    pub fn is_for(&self, uid: &str) -> bool {
        !self.uid.is_empty() && self.uid == uid
    }

    /// Returns true if the first release wrote it, for a VM that may be another one.
    pub fn is_of_first_release(&self) -> bool {
        self.instance.is_empty() && self.uid.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_is_read_as_it_is_written_and_in_the_form_of_the_first_release() {
        let port = AnnotatedPort { network: "default".into(), state: "Assigned".into(), ..AnnotatedPort::default() };
        let report = PortsAnnotation { instance: "blue".into(), uid: "u-1".into(), ports: vec![port.clone()] };
        assert_eq!(
            report.text(),
            r#"{"instance":"blue","uid":"u-1","ports":[{"network":"default","state":"Assigned"}]}"#
        );
        assert_eq!(PortsAnnotation::parse(&report.text()), Some(report.clone()));
        assert!(report.is_for("u-1") && !report.is_for("u-2"));
        let first = PortsAnnotation::parse(r#"[{"network":"default","state":"Assigned"}]"#).expect("a list");
        assert_eq!(first.ports, [port]);
        assert!(first.is_of_first_release() && !first.is_for(""));
        let forged = r#"{"instance":"x\nINFO port released","uid":"u-1","ports":[]}"#;
        for text in ["", "x", "{}", "[1]", r#"{"ports":[]}"#, "null", forged] {
            assert_eq!(PortsAnnotation::parse(text), None, "{text}");
        }
    }
}
