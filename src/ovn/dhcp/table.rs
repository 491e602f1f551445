//! The options that an OVN supports, by name and type.

use std::collections::BTreeMap;
use std::fmt;

use super::error::OptionFault;

/// A name counts as a misspelling of another from this similarity on.
const SIMILAR: f64 = 0.78;

/// DHCPv4 or DHCPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// DHCPv4.
    V4,
    /// DHCPv6.
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V4 => "DHCPv4",
            Self::V6 => "DHCPv6",
        })
    }
}

/// The type of an option, as the column `type` of the southbound's tables names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionType {
    /// `0` or `1`.
    Bool,
    /// A number of one byte.
    Uint8,
    /// A number of two bytes.
    Uint16,
    /// A number of four bytes.
    Uint32,
    /// IPv4 addresses.
    Ipv4,
    /// Pairs of a network and the address of its router (RFC 3442).
    StaticRoutes,
    /// A string.
    Str,
    /// An IPv4 address or a string.
    HostId,
    /// Domain names in one string, with commas between.
    Domains,
    /// IPv6 addresses.
    Ipv6,
    /// A MAC.
    Mac,
    /// One domain name.
    Domain,
    /// `true` or `false`: a key that northd reads itself.
    Switch,
    /// A type of a newer OVN.
    Other(String),
}

impl From<&str> for OptionType {
    fn from(name: &str) -> Self {
        match name {
            "bool" => Self::Bool,
            "uint8" => Self::Uint8,
            "uint16" => Self::Uint16,
            "uint32" => Self::Uint32,
            "ipv4" => Self::Ipv4,
            "static_routes" => Self::StaticRoutes,
            "str" => Self::Str,
            "host_id" => Self::HostId,
            "domains" => Self::Domains,
            "ipv6" => Self::Ipv6,
            "mac" => Self::Mac,
            "domain" => Self::Domain,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// The options of OVN 23.03, the oldest supported version.
const BUILT_IN_V4: [(&str, OptionType); 36] = [
    ("T1", OptionType::Uint32),
    ("T2", OptionType::Uint32),
    ("arp_cache_timeout", OptionType::Uint32),
    ("bootfile_name", OptionType::Str),
    ("bootfile_name_alt", OptionType::Str),
    ("broadcast_address", OptionType::Ipv4),
    ("classless_static_route", OptionType::StaticRoutes),
    ("default_ttl", OptionType::Uint8),
    ("dns_server", OptionType::Ipv4),
    ("domain_name", OptionType::Str),
    ("domain_search_list", OptionType::Domains),
    ("ethernet_encap", OptionType::Bool),
    ("hostname", OptionType::Str),
    ("ip_forward_enable", OptionType::Bool),
    ("lease_time", OptionType::Uint32),
    ("log_server", OptionType::Ipv4),
    ("lpr_server", OptionType::Ipv4),
    ("ms_classless_static_route", OptionType::StaticRoutes),
    ("mtu", OptionType::Uint16),
    ("netbios_name_server", OptionType::Ipv4),
    ("netbios_node_type", OptionType::Uint8),
    ("next_server", OptionType::Ipv4),
    ("nis_server", OptionType::Ipv4),
    ("ntp_server", OptionType::Ipv4),
    ("path_prefix", OptionType::Str),
    ("policy_filter", OptionType::Ipv4),
    ("router", OptionType::Ipv4),
    ("router_discovery", OptionType::Bool),
    ("router_solicitation", OptionType::Ipv4),
    ("server_id", OptionType::Ipv4),
    ("swap_server", OptionType::Ipv4),
    ("tcp_keepalive_interval", OptionType::Uint32),
    ("tcp_ttl", OptionType::Uint8),
    ("tftp_server", OptionType::HostId),
    ("tftp_server_address", OptionType::Ipv4),
    ("wpad", OptionType::Str),
];

/// The same for DHCPv6.
const BUILT_IN_V6: [(&str, OptionType); 3] =
    [("dns_server", OptionType::Ipv6), ("domain_search", OptionType::Str), ("server_id", OptionType::Mac)];

/// Options that came after OVN 23.03, and the first version with each.
const NEWER_V6: [(&str, &str); 3] = [("bootfile_name", "23.06"), ("bootfile_name_alt", "23.06"), ("fqdn", "23.09")];

/// The keys that northd reads itself: they are in no table of the southbound.
const OF_NORTHD: [(Family, &str, OptionType); 2] =
    [(Family::V4, "server_mac", OptionType::Mac), (Family::V6, "dhcpv6_stateless", OptionType::Switch)];

/// The options that northd adds to each row itself.
const SET_BY_OVN: [(Family, &str); 3] = [(Family::V4, "netmask"), (Family::V4, "offerip"), (Family::V6, "ia_addr")];

/// The options that an OVN supports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionTable {
    v4: Names,
    v6: Names,
}

/// Those of a family.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Names {
    types: BTreeMap<String, OptionType>,
    /// They are the southbound's, and otherwise built in.
    of_southbound: bool,
}

impl Names {
    fn built_in(options: &[(&str, OptionType)]) -> Self {
        let types = options.iter().map(|(name, kind)| ((*name).to_owned(), kind.clone())).collect();
        Self { types, of_southbound: false }
    }
}

impl OptionTable {
    /// The options of the oldest supported OVN.
    pub fn built_in() -> Self {
        Self { v4: Names::built_in(&BUILT_IN_V4), v6: Names::built_in(&BUILT_IN_V6) }
    }

    /// The options in the southbound's tables, as name and type. A family without any has those that are built in.
    pub fn of_southbound<'a>(options: impl IntoIterator<Item = (Family, &'a str, &'a str)>) -> Self {
        let mut read = [BTreeMap::new(), BTreeMap::new()];
        for (family, name, kind) in options {
            read[usize::from(family == Family::V6)].insert(name.to_owned(), OptionType::from(kind));
        }
        let built_in = Self::built_in();
        let names = |types: BTreeMap<String, OptionType>, built_in| match types.is_empty() {
            true => built_in,
            false => Names { types, of_southbound: true },
        };
        let [v4, v6] = read;
        Self { v4: names(v4, built_in.v4), v6: names(v6, built_in.v6) }
    }

    fn names(&self, family: Family) -> &Names {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The options of a family that an owner may write, with their types.
    pub fn options(&self, family: Family) -> impl Iterator<Item = (&str, &OptionType)> {
        let of_northd = OF_NORTHD.iter().filter(move |(of, ..)| *of == family).map(|(_, name, kind)| (*name, kind));
        let of_table = self.names(family).types.iter().map(|(name, kind)| (name.as_str(), kind));
        of_northd.chain(of_table).filter(move |(name, _)| !SET_BY_OVN.contains(&(family, *name)))
    }

    /// The type of an option that may be written.
    pub(super) fn kind(&self, family: Family, name: &str) -> Result<&OptionType, OptionFault> {
        if SET_BY_OVN.contains(&(family, name)) {
            return Err(OptionFault::SetByOvn);
        }
        match self.options(family).find(|(known, _)| *known == name) {
            Some((_, kind)) => Ok(kind),
            None => Err(self.unknown(family, name)),
        }
    }

    fn unknown(&self, family: Family, name: &str) -> OptionFault {
        let newer = NEWER_V6.iter().find(|(known, _)| family == Family::V6 && *known == name);
        let spelled = name.to_ascii_lowercase().replace('-', "_");
        let likeness = |known: &str| strsim::jaro_winkler(&spelled, &known.to_ascii_lowercase());
        let nearest = self.options(family).map(|(known, _)| (likeness(known), known));
        let nearest = nearest.filter(|(likeness, _)| *likeness >= SIMILAR).max_by(|a, b| a.0.total_cmp(&b.0));
        OptionFault::Unknown {
            nearest: nearest.map(|(_, known)| known.to_owned()),
            since: newer.map(|(_, version)| *version),
            of_southbound: self.names(family).of_southbound,
        }
    }
}

impl Default for OptionTable {
    fn default() -> Self {
        Self::built_in()
    }
}
