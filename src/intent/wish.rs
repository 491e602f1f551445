//! What a VM's owner asks for, in annotations and on the interface.
//!
//! For the pod network a key is `ovn.kubernetes.io/<what>`, or, stronger,
//! `<network>.ovn.kubernetes.io/<what>` with the network's name in the VM.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use macaddr::MacAddr6;

use crate::kubevirt::Template;

const DOMAIN: &str = "ovn.kubernetes.io";
const IP_ADDRESS: &str = "ip_address";
const MAC_ADDRESS: &str = "mac_address";
const LOGICAL_SWITCH: &str = "logical_switch";

/// Addresses that were asked for; what is `None` is for the service to choose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    /// An IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// An IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// A MAC.
    pub mac: Option<MacAddr6>,
}

/// A wish that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWish {
    /// `networks[].name`
    #[error("the network name {0:?} cannot be used: write letters, digits, - and _, up to 63")]
    NetworkName(String),
    /// `ip_address`
    #[error(
        "the annotation {key} is \"{value}\": write one IPv4 address, one IPv6 address, or both with a comma between"
    )]
    IpAddress {
        /// The annotation.
        key: String,
        /// What it says.
        value: String,
    },
    /// `mac_address` or the interface's `macAddress`
    #[error("{source_name} is \"{value}\": write a unicast MAC of six bytes, as in 02:00:00:00:00:01")]
    MacAddress {
        /// The annotation or the field.
        source_name: String,
        /// What it says.
        value: String,
    },
    /// Both, and not the same.
    #[error(
        "the interface of network {network} has macAddress {field}, but the annotation {key} is {annotation}: remove one of them"
    )]
    MacMismatch {
        /// The network.
        network: String,
        /// The interface's.
        field: String,
        /// The annotation.
        key: String,
        /// What it says.
        annotation: String,
    },
}

/// An annotation for a network: its key and its value.
fn annotation<'a>(template: &'a Template, network: &str, what: &str) -> Option<(String, &'a str)> {
    let keys = [format!("{network}.{DOMAIN}/{what}"), format!("{DOMAIN}/{what}")];
    keys.into_iter().find_map(|key| template.annotations.get(&key).map(|value| (key, value.trim())))
}

/// The switch that the owner names.
pub(super) fn switch(template: &Template, network: &str) -> Option<String> {
    let (_, name) = annotation(template, network, LOGICAL_SWITCH)?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Annotations that speak to OVN and that nobody here serves: another product's, or mistyped.
pub(super) fn unserved(template: &Template, network: &str) -> Vec<String> {
    let served = |key: &str| {
        let Some((domain, what)) = key.split_once('/') else { return false };
        (domain == DOMAIN || domain.strip_suffix(DOMAIN).and_then(|rest| rest.strip_suffix('.')) == Some(network))
            && [IP_ADDRESS, MAC_ADDRESS, LOGICAL_SWITCH].contains(&what)
    };
    template.annotations.keys().filter(|key| !served(key)).cloned().collect()
}

impl Wish {
    /// Reads the wishes for a network.
    pub(super) fn of(template: &Template, network: &str) -> Result<Self, InvalidWish> {
        let good = |character: char| character.is_ascii_alphanumeric() || character == '-' || character == '_';
        if network.is_empty() || network.len() > 63 || !network.chars().all(good) {
            return Err(InvalidWish::NetworkName(network.to_owned()));
        }
        let (ipv4, ipv6) = ip_addresses(template, network)?;
        Ok(Self { ipv4, ipv6, mac: mac_address(template, network)? })
    }
}

fn ip_addresses(template: &Template, network: &str) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), InvalidWish> {
    let (mut ipv4, mut ipv6) = (None, None);
    let Some((key, value)) = annotation(template, network, IP_ADDRESS) else { return Ok((None, None)) };
    let invalid = || InvalidWish::IpAddress { key: key.clone(), value: value.to_owned() };
    for text in value.split(',') {
        let before = match text.trim().parse().map_err(|_| invalid())? {
            IpAddr::V4(ip) => ipv4.replace(ip).is_some(),
            IpAddr::V6(ip) => ipv6.replace(ip).is_some(),
        };
        if before {
            return Err(invalid());
        }
    }
    Ok((ipv4, ipv6))
}

fn mac_address(template: &Template, network: &str) -> Result<Option<MacAddr6>, InvalidWish> {
    let interfaces = template.spec.domain.devices.interfaces.as_deref().unwrap_or_default();
    let field = interfaces.iter().find(|interface| interface.name == network);
    let field = field.and_then(|interface| interface.mac_address.as_deref()).filter(|mac| !mac.is_empty());
    let on_interface =
        field.map(|text| unicast(text, || format!("macAddress of the interface {network}"))).transpose()?;
    let Some((key, value)) = annotation(template, network, MAC_ADDRESS) else { return Ok(on_interface) };
    let annotated = unicast(value, || format!("the annotation {key}"))?;
    match on_interface {
        Some(mac) if mac != annotated => Err(InvalidWish::MacMismatch {
            network: network.to_owned(),
            field: field.unwrap_or_default().to_owned(),
            key,
            annotation: value.to_owned(),
        }),
        _ => Ok(Some(annotated)),
    }
}

fn unicast(text: &str, source_name: impl Fn() -> String) -> Result<MacAddr6, InvalidWish> {
    let mac = text.parse::<MacAddr6>().ok().filter(|mac| mac.is_unicast() && !mac.is_nil());
    mac.ok_or_else(|| InvalidWish::MacAddress { source_name: source_name(), value: text.to_owned() })
}
