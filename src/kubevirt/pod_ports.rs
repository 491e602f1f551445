//! The annotation `ovn-kubevirt.io/ports` on a launcher pod: a list with one element for each NIC that this service
//! serves.
//!
//! The mutating webhook writes it before any CNI runs. CNIs may read it, as `ovn-kubevirt node` does. The annotation on
//! the VM ([`PORTS_ANNOTATION`](crate::contract::annotations::PORTS_ANNOTATION)) has the same key, but another value:
//! see [`PortsAnnotation`](super::PortsAnnotation).

use serde::{Deserialize, Serialize};

use super::annotations::MOST_NETWORKS;

/// One NIC of a launcher pod, and its port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPort {
    /// The network's name in the VM.
    pub network: String,
    /// The interface's name in the pod.
    pub interface: String,
    /// The port's name, for `external_ids:iface-id` of the OVS interface.
    pub port: String,
    /// The logical switch, by name.
    #[serde(default)]
    pub switch: String,
    /// The MAC.
    #[serde(default)]
    pub mac: String,
    /// The addresses with prefix length, IPv4 first.
    #[serde(default)]
    pub ips: Vec<String>,
    /// The gateways, IPv4 first.
    #[serde(default)]
    pub gateway: Vec<String>,
    /// The MTU, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// The error of an annotation that is no list of ports.
#[derive(Debug, thiserror::Error)]
pub enum PodPortsError {
    /// It is no JSON, or has other members.
    #[error("it is no list of ports: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// It has more elements than a VM may have NICs.
    #[error("it lists {0} ports, and at most {MOST_NETWORKS} are allowed")]
    TooMany(usize),
    /// Two elements name one interface of the pod.
    #[error("it lists the interface \"{0}\" twice")]
    InterfaceTwice(String),
    /// Two elements name one port.
    #[error("it lists the port \"{0}\" twice")]
    PortTwice(String),
}

impl PodPort {
    /// Reads the annotation. Unknown members are ignored: a newer webhook may write more.
    ///
    /// # Errors
    /// If the text is no such list, or two of its elements name one interface or one port.
    pub fn parse(text: &str) -> Result<Vec<Self>, PodPortsError> {
        let ports: Vec<Self> = serde_json::from_str(text)?;
        if ports.len() > MOST_NETWORKS {
            return Err(PodPortsError::TooMany(ports.len()));
        }
        for (index, port) in ports.iter().enumerate() {
            let before = &ports[..index];
            if before.iter().any(|other| other.interface == port.interface) {
                return Err(PodPortsError::InterfaceTwice(port.interface.clone()));
            }
            if before.iter().any(|other| other.port == port.port) {
                return Err(PodPortsError::PortTwice(port.port.clone()));
            }
        }
        Ok(ports)
    }

    /// The annotation's text.
    pub fn text(ports: &[Self]) -> String {
        // Strings, numbers and lists always serialize.
        serde_json::to_string(ports).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> PodPort {
        PodPort {
            network: "net1".into(),
            interface: "pod16477688c0e".into(),
            port: "vm.ns.net1.ns.ovn".into(),
            switch: "blue".into(),
            mac: "0a:58:0a:10:00:02".into(),
            ips: vec!["10.16.0.2/24".into()],
            gateway: vec!["10.16.0.1".into()],
            mtu: Some(1400),
        }
    }

    #[test]
    fn the_annotation_is_read_as_it_is_written() {
        let text = r#"[{"network":"net1","interface":"pod16477688c0e","port":"vm.ns.net1.ns.ovn","switch":"blue","mac":"0a:58:0a:10:00:02","ips":["10.16.0.2/24"],"gateway":["10.16.0.1"],"mtu":1400}]"#;
        assert_eq!(PodPort::text(&[port()]), text);
        assert_eq!(PodPort::parse(text).expect("a list"), [port()]);
        assert_eq!(PodPort::parse("[]").expect("a list"), []);
    }

    #[test]
    fn unknown_members_are_ignored_and_empty_ones_may_be_omitted() {
        let text = r#"[{"network":"a","interface":"eth0","port":"vm.ns","vlan":7}]"#;
        let least =
            PodPort { network: "a".into(), interface: "eth0".into(), port: "vm.ns".into(), ..PodPort::default() };
        assert_eq!(PodPort::parse(text).expect("a list"), [least]);
    }

    #[test]
    fn any_other_text_is_refused_with_the_reason() {
        for text in ["", "x", "{}", "null", "[1]", r#"[{"network":"a"}]"#, r#"{"instance":"i","uid":"u","ports":[]}"#] {
            let error = PodPort::parse(text).expect_err(text).to_string();
            assert!(error.starts_with("it is no list of ports: "), "{text}: {error}");
        }
        let other = |change: fn(&mut PodPort)| {
            let mut other = PodPort { interface: "eth0".into(), port: "vm.ns".into(), ..port() };
            change(&mut other);
            PodPort::parse(&PodPort::text(&[port(), other])).map_err(|error| error.to_string())
        };
        assert!(other(|_| {}).is_ok());
        let twice = other(|other| other.interface = port().interface).expect_err("twice");
        assert_eq!(twice, "it lists the interface \"pod16477688c0e\" twice");
        let twice = other(|other| other.port = port().port).expect_err("twice");
        assert_eq!(twice, "it lists the port \"vm.ns.net1.ns.ovn\" twice");
        let many: Vec<PodPort> = (0..=MOST_NETWORKS).map(|n| PodPort { port: n.to_string(), ..port() }).collect();
        let error = PodPort::parse(&PodPort::text(&many)).expect_err("too many").to_string();
        assert_eq!(error, "it lists 257 ports, and at most 256 are allowed");
    }
}
