//! The requests of a VM's owner, in annotations and on the interface.
//!
//! A key is `<domain>/<what>`. The domain selects the networks: `ovn.kubernetes.io` selects the pod network,
//! `<nad>.<nad-namespace>.ovn.kubernetes.io` those on a NAD, and, stronger than both, `<network>.ovn.kubernetes.io` the
//! network of that name in the VM.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Bound;

use macaddr::MacAddr6;

use super::dhcp::DhcpRequest;
use super::family::IpFamily;
use super::networks::Network;
use super::retention::Retention;
use crate::contract::annotations::{
    DHCP, DHCP_V4_OPTIONS, DHCP_V6_OPTIONS, IP_ADDRESS, IP_FAMILY, IP_POOL, LOGICAL_SWITCH, MAC_ADDRESS, PORT_SECURITY,
    PORT_VIPS, RETAIN, SERVED, asks_for_something, is_ours,
};
use crate::escaped::{Escaped, EscapedList, LISTED};
use crate::ipam::{AddressPool, BadPool};
use crate::kubevirt::Template;
use crate::kubevirt::annotations::LONGEST_VALUE;
use crate::ovn::Addresses;
use crate::ovn::dhcp::{DhcpOptions, Family, OptionError, OptionTable};

/// The most addresses of [`PORT_VIPS`]: each costs some flows on the port's chassis.
pub(crate) const MOST_VIPS: usize = 16;

/// The value of [`IP_ADDRESS`] for a port with its MAC alone.
const NO_ADDRESS: &str = "none";

/// The request for a port. The service allocates the values that are `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// An IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// An IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// No address at all: the port has its MAC alone, and the guest gets its address from others.
    pub no_address: bool,
    /// A MAC.
    pub mac: Option<MacAddr6>,
    /// The pool that addresses are allocated from. A family without an address in the pool is unrestricted.
    pub pool: Option<AddressPool>,
    /// The families of its addresses; `None`: those that the switch has.
    pub family: Option<IpFamily>,
    /// True if the port admits its own addresses only.
    pub port_security: bool,
    /// Further addresses that it admits, in order.
    pub vips: Vec<IpAddr>,
    /// DHCP by OVN.
    pub dhcp: DhcpRequest,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            ipv4: None,
            ipv6: None,
            no_address: false,
            mac: None,
            pool: None,
            family: None,
            port_security: true,
            vips: Vec::new(),
            dhcp: DhcpRequest::default(),
        }
    }
}

impl Request {
    /// Returns true if the owner named the address, alone or in a pool.
    pub fn names(&self, address: IpAddr) -> bool {
        let alone = [self.ipv4.map(IpAddr::V4), self.ipv6.map(IpAddr::V6)].contains(&Some(address));
        alone || self.pool.as_ref().is_some_and(|pool| pool.contains(address))
    }
}

impl Request {
    /// Returns true if a lease has all that the owner named.
    pub fn has(&self, lease: Addresses) -> bool {
        let Self { ipv4, ipv6, no_address, mac, pool, family, port_security: _, vips: _, dhcp: _ } = self;
        let is_named = |ip: IpAddr| {
            let named = if ip.is_ipv4() { ipv4.map(IpAddr::V4) } else { ipv6.map(IpAddr::V6) };
            let is_confined = |pool: &&AddressPool| !pool.is_empty(ip.is_ipv4());
            let within = || pool.as_ref().filter(is_confined).is_none_or(|pool| pool.contains(ip));
            named.map_or_else(within, |named| named == ip)
        };
        let held = |named: Option<IpAddr>| named.is_none_or(|named| lease.ips().any(|ip| ip == named));
        let all = held(ipv4.map(IpAddr::V4)) && held(ipv6.map(IpAddr::V6));
        let is_bare = !no_address || lease.ips().next().is_none();
        let has_families = family
            .is_none_or(|family| family.has(true) == lease.ipv4.is_some() && family.has(false) == lease.ipv6.is_some());
        mac.is_none_or(|mac| mac == lease.mac) && all && is_bare && has_families && lease.ips().all(is_named)
    }
}

/// A request that has no meaning. Each message is two sentences: the error, and the correction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// `networks[].name`
    #[error("The network name \"{}\" cannot be used. Write at most 63 letters, digits, - and _.", Escaped(.0))]
    NetworkName(String),
    /// `networks[].multus.networkName`
    #[error(
        "The networkName \"{}\" is not the name of a NetworkAttachmentDefinition. Write <namespace>/<name>, or <name> for \
        one in the VM's namespace.",
        Escaped(.0)
    )]
    NadName(String),
    /// An annotation that is longer than the limit.
    #[error("The annotation {} is longer than {LONGEST_VALUE} bytes and is not read. Shorten its value.", Escaped(.0))]
    TooLong(String),
    /// `ip_address`
    #[error(
        "The annotation {} is \"{}\", which cannot be read. Write one IPv4 address, one IPv6 address, both with a comma \
        between, or none.",
        Escaped(key),
        Escaped(value)
    )]
    IpAddress {
        /// The annotation.
        key: String,
        /// Its value.
        value: String,
    },
    /// `mac_address` or the interface's `macAddress`
    #[error("{at} is \"{}\", which is not a unicast MAC. Write six bytes, as in 02:00:00:00:00:01.", Escaped(value))]
    MacAddress {
        /// The field with the MAC.
        at: MacField,
        /// Its value.
        value: String,
    },
    /// Both, with different values.
    #[error(
        "The interface of the network {} has macAddress {}, but the annotation {} is {}. Remove one of them.",
        Escaped(network),
        Escaped(field),
        Escaped(key),
        Escaped(annotation)
    )]
    MacMismatch {
        /// The network.
        network: String,
        /// The value of the interface.
        field: String,
        /// The annotation.
        key: String,
        /// Its value.
        annotation: String,
    },
    /// `ip_pool`
    #[error(
        "The annotation {} is \"{}\", in which {reason}. Write ranges as in 10.16.0.2..10.16.0.9, networks as in \
        10.16.0.0/28, and single addresses, with commas between.",
        Escaped(key),
        Escaped(value)
    )]
    IpPool {
        /// The annotation.
        key: String,
        /// Its value.
        value: String,
        /// The part that is wrong.
        reason: BadPool,
    },
    /// `ip_family`
    #[error(
        "The annotation {} is \"{}\", which cannot be read. Write ipv4, ipv6 or dual.",
        Escaped(key),
        Escaped(value)
    )]
    IpFamily {
        /// The annotation.
        key: String,
        /// Its value.
        value: String,
    },
    /// An address of a family that is not requested.
    #[error(
        "The annotation {} is {family}, but the requested address {address} is of the other family. Remove one of them.",
        Escaped(key)
    )]
    FamilyMismatch {
        /// The annotation `ip_family`.
        key: String,
        /// Its value.
        family: IpFamily,
        /// The address.
        address: IpAddr,
    },
    /// `port_security`
    #[error(
        "The annotation {} is \"{}\", which cannot be read. Write \"true\", which is the default, or \"false\".",
        Escaped(key),
        Escaped(value)
    )]
    PortSecurity {
        /// The annotation.
        key: String,
        /// Its value.
        value: String,
    },
    /// `port_vips`
    #[error(
        "The annotation {} is \"{}\", which cannot be read. Write up to {MOST_VIPS} IPv4 and IPv6 addresses with commas \
        between.",
        Escaped(key),
        Escaped(value)
    )]
    PortVips {
        /// The annotation.
        key: String,
        /// Its value.
        value: String,
    },
    /// `dhcp`
    #[error(
        "The annotation {} is \"{}\", which cannot be read. Write \"true\", or \"false\" for no DHCP by OVN.",
        Escaped(key),
        Escaped(value)
    )]
    Dhcp {
        /// The annotation.
        key: String,
        /// Its value.
        value: String,
    },
    /// `dhcp-v4-options`, `dhcp-v6-options`
    #[error("The annotation {} has no effect, because {}. {}.", Escaped(key), error.problem(), error.remedy())]
    DhcpOptions {
        /// The annotation.
        key: String,
        /// The option that is wrong.
        error: Box<OptionError>,
    },
    /// One address for several NICs.
    #[error(
        "The annotation {} applies to the networks {}, which cannot have the same {what}. Write one annotation for each, \
        as in {}.ovn.kubernetes.io/{what}.",
        Escaped(key),
        EscapedList(networks, " and "),
        Escaped(network)
    )]
    OneForSeveral {
        /// The annotation.
        key: String,
        /// The networks on its NAD: at most one more than a message names.
        networks: Vec<String>,
        /// The one at hand.
        network: String,
        /// The key's second half.
        what: &'static str,
    },
    /// `ovn-kubevirt.io/retain`
    #[error(
        "The annotation {RETAIN} is \"{}\", which is not a duration. Write one as in 0s, 90m, 72h or 7d, or forever.",
        Escaped(.0)
    )]
    Retain(String),
}

/// The field in which a MAC is requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MacField {
    /// `macAddress` of the interface of this network.
    Interface(String),
    /// This annotation.
    Annotation(String),
}

/// At the beginning of a sentence.
impl fmt::Display for MacField {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(network) => write!(formatter, "macAddress of the interface {}", Escaped(network)),
            Self::Annotation(key) => write!(formatter, "The annotation {}", Escaped(key)),
        }
    }
}

/// An annotation for a network.
struct Found<'a> {
    key: &'a String,
    value: &'a str,
    /// It selects this network by its name, and so only this one.
    own: bool,
}

/// Finds the annotation for a network, first by the network's own name. An empty value counts as absent.
fn find<'a>(template: &'a Template, network: &Network, what: &str) -> Result<Option<Found<'a>>, InvalidRequest> {
    for (domain, own) in [(&network.own_domain, true), (&network.domain, false)] {
        let found = of_domain(template, domain).find(|(key, _)| key[domain.len() + 1..] == *what);
        let Some((key, value)) = found else { continue };
        match value.trim() {
            "" => {}
            _ if value.len() > LONGEST_VALUE => return Err(InvalidRequest::TooLong(key.clone())),
            value => return Ok(Some(Found { key, value, own })),
        }
    }
    Ok(None)
}

/// The annotations of a domain.
fn of_domain<'a>(template: &'a Template, domain: &str) -> impl Iterator<Item = (&'a String, &'a String)> {
    let from = (Bound::Included(domain), Bound::Unbounded);
    let begin_so = template.annotations.range::<str, _>(from).take_while(move |(key, _)| key.starts_with(domain));
    begin_so.filter(move |(key, _)| key.as_bytes().get(domain.len()) == Some(&b'/'))
}

/// An annotation with a value that only one NIC can have.
fn find_for_one<'a>(
    template: &'a Template,
    network: &Network,
    what: &'static str,
) -> Result<Option<Found<'a>>, InvalidRequest> {
    match find(template, network, what)? {
        Some(Found { key, own: false, .. }) if network.sharers.len() > 1 => Err(InvalidRequest::OneForSeveral {
            key: key.clone(),
            networks: network.sharers.iter().take(LISTED + 1).cloned().collect(),
            network: network.name.clone(),
            what,
        }),
        found => Ok(found),
    }
}

/// The switch that the owner names. A value that is too long becomes `""`, on which no NIC is served.
pub(super) fn switch(template: &Template, network: &Network) -> Option<String> {
    match find(template, network, LOGICAL_SWITCH) {
        Ok(found) => found.map(|found| found.value.to_owned()),
        Err(_) => Some(String::new()),
    }
}

/// Annotations for a network that have no effect here: another product's, or mistyped. Those for several networks are
/// reported for the first of them.
pub(super) fn unserved(template: &Template, network: &Network) -> Vec<String> {
    let mut domains = vec![&network.own_domain];
    if network.sharers.first() == Some(&network.name) {
        domains.push(&network.domain);
    }
    domains.sort_unstable();
    domains.dedup();
    let mut unserved = Vec::new();
    for domain in domains {
        let is_unserved = |key: &str| {
            let (_, what) = key.split_once('/').unwrap_or_default();
            !SERVED.contains(&what) && asks_for_something(key)
        };
        let asks = of_domain(template, domain).filter(|(key, value)| is_unserved(key) && !value.trim().is_empty());
        unserved.extend(asks.map(|(key, _)| key.clone()));
    }
    unserved
}

/// Unknown annotations in our own domain.
pub(super) fn unknown(template: &Template) -> Vec<String> {
    let asks = template.annotations.iter().filter(|(_, value)| !value.trim().is_empty()).map(|(key, _)| key);
    asks.filter(|key| is_ours(key) && *key != RETAIN).cloned().collect()
}

/// The time that the addresses stay reserved after the VM is deleted, if its owner requests one.
pub(super) fn retention(template: &Template) -> Result<Option<Retention>, InvalidRequest> {
    let value = template.annotations.get(RETAIN).filter(|value| !value.trim().is_empty());
    let Some(value) = value else { return Ok(None) };
    if value.len() > LONGEST_VALUE {
        return Err(InvalidRequest::TooLong(RETAIN.to_owned()));
    }
    value.trim().parse().map(Some).map_err(|_| InvalidRequest::Retain(value.clone()))
}

impl Request {
    /// Reads the requests for a network.
    pub(super) fn of(template: &Template, network: &Network, table: &OptionTable) -> Result<Self, InvalidRequest> {
        let name = &network.name;
        let good = |character: char| character.is_ascii_alphanumeric() || character == '-' || character == '_';
        if name.is_empty() || name.len() > 63 || !name.chars().all(good) {
            return Err(InvalidRequest::NetworkName(name.clone()));
        }
        if let Some(written) = network.on.invalid() {
            return Err(InvalidRequest::NadName(written));
        }
        find(template, network, LOGICAL_SWITCH)?;
        let no_address = wants_no_address(template, network);
        let (ipv4, ipv6) = if no_address { (None, None) } else { ip_addresses(template, network)? };
        let mac = mac_address(template, network)?;
        // A pool may be written for all NICs of a NAD, while this one requests no address.
        let pool = pool(template, network)?.filter(|_| !no_address);
        let family = family(template, network, [ipv4.map(IpAddr::V4), ipv6.map(IpAddr::V6)])?.filter(|_| !no_address);
        let (port_security, vips) = (port_security(template, network)?, vips(template, network)?);
        let dhcp = dhcp(template, network, table)?;
        Ok(Self { ipv4, ipv6, no_address, mac, pool, family, port_security, vips, dhcp })
    }
}

/// Returns true if `ip_address` is `none`, which several NICs may share.
fn wants_no_address(template: &Template, network: &Network) -> bool {
    matches!(find(template, network, IP_ADDRESS), Ok(Some(found)) if found.value.eq_ignore_ascii_case(NO_ADDRESS))
}

fn ip_addresses(
    template: &Template,
    network: &Network,
) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), InvalidRequest> {
    let (mut ipv4, mut ipv6) = (None, None);
    let Some(Found { key, value, .. }) = find_for_one(template, network, IP_ADDRESS)? else { return Ok((None, None)) };
    let invalid = || InvalidRequest::IpAddress { key: key.clone(), value: value.to_owned() };
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

fn mac_address(template: &Template, network: &Network) -> Result<Option<MacAddr6>, InvalidRequest> {
    let name = &network.name;
    let field = network.mac_address.as_deref();
    let on_interface = field.map(|text| unicast(text, || MacField::Interface(name.clone()))).transpose()?;
    let Some(Found { key, value, .. }) = find_for_one(template, network, MAC_ADDRESS)? else {
        return Ok(on_interface);
    };
    let annotated = unicast(value, || MacField::Annotation(key.clone()))?;
    match on_interface {
        Some(mac) if mac != annotated => Err(InvalidRequest::MacMismatch {
            network: name.clone(),
            field: field.unwrap_or_default().to_owned(),
            key: key.clone(),
            annotation: value.to_owned(),
        }),
        _ => Ok(Some(annotated)),
    }
}

fn unicast(text: &str, at: impl Fn() -> MacField) -> Result<MacAddr6, InvalidRequest> {
    let mac = text.parse::<MacAddr6>().ok().filter(|mac| mac.is_unicast() && !mac.is_nil());
    mac.ok_or_else(|| InvalidRequest::MacAddress { at: at(), value: text.to_owned() })
}

fn pool(template: &Template, network: &Network) -> Result<Option<AddressPool>, InvalidRequest> {
    let Some(Found { key, value, .. }) = find(template, network, IP_POOL)? else { return Ok(None) };
    let pool =
        value.parse().map_err(|reason| InvalidRequest::IpPool { key: key.clone(), value: value.to_owned(), reason })?;
    Ok(Some(pool))
}

fn vips(template: &Template, network: &Network) -> Result<Vec<IpAddr>, InvalidRequest> {
    let Some(Found { key, value, .. }) = find(template, network, PORT_VIPS)? else { return Ok(Vec::new()) };
    let invalid = || InvalidRequest::PortVips { key: key.clone(), value: value.to_owned() };
    let one = |text: &str| text.trim().parse().ok().filter(is_vip).ok_or_else(invalid);
    let mut vips = value.split(',').map(one).collect::<Result<Vec<IpAddr>, _>>()?;
    vips.sort_unstable();
    vips.dedup();
    if vips.len() > MOST_VIPS { Err(invalid()) } else { Ok(vips) }
}

/// A subnet has no other addresses; `::ffff:10.0.0.1` is another spelling of one.
fn is_vip(ip: &IpAddr) -> bool {
    !ip.is_multicast() && !ip.is_unspecified() && !ip.is_loopback() && ip.to_canonical() == *ip
}

fn family(
    template: &Template,
    network: &Network,
    requested: [Option<IpAddr>; 2],
) -> Result<Option<IpFamily>, InvalidRequest> {
    let Some(Found { key, value, .. }) = find(template, network, IP_FAMILY)? else { return Ok(None) };
    let invalid = |()| InvalidRequest::IpFamily { key: key.clone(), value: value.to_owned() };
    let family: IpFamily = value.parse().map_err(invalid)?;
    match requested.into_iter().flatten().find(|address| !family.has(address.is_ipv4())) {
        Some(address) => Err(InvalidRequest::FamilyMismatch { key: key.clone(), family, address }),
        None => Ok(Some(family)),
    }
}

fn port_security(template: &Template, network: &Network) -> Result<bool, InvalidRequest> {
    match find(template, network, PORT_SECURITY)? {
        None | Some(Found { value: "true", .. }) => Ok(true),
        Some(Found { value: "false", .. }) => Ok(false),
        Some(Found { key, value, .. }) => {
            Err(InvalidRequest::PortSecurity { key: key.clone(), value: value.to_owned() })
        }
    }
}

fn dhcp(template: &Template, network: &Network, table: &OptionTable) -> Result<DhcpRequest, InvalidRequest> {
    let wanted = match find(template, network, DHCP)? {
        None => None,
        Some(Found { value: "true", .. }) => Some(true),
        Some(Found { value: "false", .. }) => Some(false),
        Some(Found { key, value, .. }) => {
            return Err(InvalidRequest::Dhcp { key: key.clone(), value: value.to_owned() });
        }
    };
    let options = |what, family| {
        let Some(Found { key, value, .. }) = find(template, network, what)? else { return Ok(None) };
        let parsed = DhcpOptions::parse(value, family, table);
        let parsed =
            parsed.map_err(|error| InvalidRequest::DhcpOptions { key: key.clone(), error: Box::new(error) })?;
        Ok((!parsed.is_empty()).then_some(parsed))
    };
    Ok(DhcpRequest { wanted, v4: options(DHCP_V4_OPTIONS, Family::V4)?, v6: options(DHCP_V6_OPTIONS, Family::V6)? })
}
