//! DHCP by OVN: the rows of `DHCP_Options` that a port refers to.
//!
//! A row is named by its content: its UUID follows from the instance, the switch, the network and the options (and from
//! the port, where the VM's owner has written options). So a row is never edited. Ports of a switch share a row while
//! theirs is equal; another MTU, or another router, is another row, and the former one is deleted once no port refers to
//! it. A row whose content is not that of its UUID was edited by another program, and is restored.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use macaddr::MacAddr6;
use uuid::Uuid;

use super::change::DhcpChange;
use super::problem::Problem;
use super::security::has_come;
use super::snapshot::Snapshot;
use super::status::DhcpFamilies;
use super::view::{Switch, View};
use crate::contract::{dhcp_uuid, keys};
use crate::intent::{DhcpMode, DhcpRequest, PortIntent};
use crate::ovn::dhcp::{DhcpOptions, Family, OptionError, Value, hostname};
use crate::ovn::{self, Addresses, Gateway, LogicalSwitchPort};

/// A row of `DHCP_Options` as it should be.
#[derive(Debug)]
pub(super) struct DhcpRow {
    uuid: Uuid,
    row: ovn::DhcpOptions,
}

/// The DHCP of a port.
pub(super) enum Dhcp {
    /// As it is: the request cannot be served.
    Keep(DhcpFamilies),
    /// By no row of ours.
    Off {
        /// References to the rows of others.
        foreign: [Option<Uuid>; 2],
        hostname: Option<String>,
    },
    /// By these rows.
    On {
        rows: [Option<Arc<DhcpRow>>; 2],
        /// References to the rows of others, in a family without a row.
        foreign: [Option<Uuid>; 2],
        hostname: Option<String>,
    },
}

impl Dhcp {
    /// The rows that the port refers to.
    pub(super) fn rows(&self) -> impl Iterator<Item = &DhcpRow> {
        let rows = match self {
            Self::On { rows, .. } => &rows[..],
            Self::Keep(_) | Self::Off { .. } => &[],
        };
        rows.iter().flatten().map(Arc::as_ref)
    }

    /// The families that OVN answers.
    pub(super) fn families(&self) -> DhcpFamilies {
        match self {
            Self::Keep(families) => *families,
            Self::Off { .. } => DhcpFamilies::default(),
            Self::On { rows: [v4, v6], .. } => DhcpFamilies { v4: v4.is_some(), v6: v6.is_some() },
        }
    }

    /// Writes the references, and the host name.
    pub(super) fn apply(self, port: &mut LogicalSwitchPort) {
        let (references, name) = match self {
            Self::Keep(_) => return,
            Self::Off { foreign, hostname } => {
                // With the row of another program, the name is that program's.
                let references = [port.dhcpv4_options, port.dhcpv6_options];
                let was_served = references.iter().flatten().any(is_named_by_content);
                let is_the_vms = port.options.get(keys::HOSTNAME) == hostname.as_deref();
                let is_ours = foreign == [None; 2] && (was_served || is_the_vms);
                (foreign, is_ours.then_some(None))
            }
            Self::On { rows: [v4, v6], foreign: [foreign_v4, foreign_v6], hostname } => {
                let references = [(v4, foreign_v4), (v6, foreign_v6)];
                let references = references.map(|(row, foreign)| row.map(|row| row.uuid).or(foreign));
                (references, hostname.map(Some))
            }
        };
        [port.dhcpv4_options, port.dhcpv6_options] = references;
        if let Some(name) = name
            && port.options.get(keys::HOSTNAME) != name.as_deref()
        {
            port.options = port.options.edited([(keys::HOSTNAME, name)]);
        }
    }
}

impl View<'_> {
    /// Decides the DHCP of a port with these addresses.
    pub(super) fn dhcp(
        &self,
        nic: &PortIntent,
        (switch, before): (&Switch, Option<&LogicalSwitchPort>),
        addresses: Addresses,
        port: &str,
    ) -> (Dhcp, Option<Problem>) {
        let northbound = self.northbound();
        let keep = |before| Dhcp::Keep(DhcpFamilies::of(northbound, before));
        let foreign = before.map_or([None; 2], |before| {
            [before.dhcpv4_options, before.dhcpv6_options].map(|row| row.filter(|row| !is_named_by_content(row)))
        });
        let none = DhcpRequest::default();
        let request = match (before, nic.life.request()) {
            // As the old launcher has it, and unchanged while the request is unreadable.
            (Some(before), _) if nic.life.is_leaving() => return (keep(before), None),
            (Some(before), Err(_)) => return (keep(before), None),
            // As it was when the guest came: the instance may have the request of its start, on another network.
            (Some(before), Ok(request)) if has_come(nic, |next| next.dhcp != request.dhcp) => {
                return (keep(before), None);
            }
            (None, Err(_)) => &none,
            (_, Ok(request)) => &request.dhcp,
        };
        // The port's name goes before that of its row.
        let own_name = request.options(Family::V4).and_then(|own| own.get("hostname")).map(ToString::to_string);
        let hostname = own_name.or_else(|| hostname(&self.vm.name));
        match self.serves_dhcp(nic, request, addresses) {
            Ok(true) => {}
            Ok(false) => return (Dhcp::Off { foreign, hostname }, None),
            Err(problem) => return (Dhcp::Off { foreign, hostname }, Some(problem)),
        }
        let row = |ip: Option<IpAddr>, family| match ip {
            Some(ip) => self.dhcp_row(switch, ip, request.options(family), port),
            None => Ok(None),
        };
        let v4 = row(addresses.ipv4.map(IpAddr::V4), Family::V4);
        let v6 = row(addresses.ipv6.map(IpAddr::V6), Family::V6);
        match v4.and_then(|v4| Ok([v4, v6?])) {
            Ok(rows) => (Dhcp::On { rows, foreign, hostname }, None),
            Err(error) => {
                let by_owner = request.options(error.family).is_some();
                let problem = Problem::DhcpOptions { network: nic.network.clone(), by_owner, error: Box::new(error) };
                (before.map_or(Dhcp::Off { foreign, hostname }, keep), Some(problem))
            }
        }
    }

    /// Returns true if OVN answers the DHCP of a NIC. The error is a request that has no effect.
    fn serves_dhcp(&self, nic: &PortIntent, request: &DhcpRequest, addresses: Addresses) -> Result<bool, Problem> {
        let settings = &self.snapshot.settings.dhcp;
        let refused = |problem| if request.asks() { Err(problem) } else { Ok(false) };
        let network = || nic.network.clone();
        match settings.mode {
            _ if request.declines() => Ok(false),
            DhcpMode::Never => refused(Problem::DhcpOff { network: network() }),
            _ if nic.binding.has_a_server() => {
                refused(Problem::DhcpByLauncher { network: network(), binding: nic.binding.clone() })
            }
            _ if addresses.ips().next().is_none() => refused(Problem::DhcpWithoutAddress { network: network() }),
            DhcpMode::Always => Ok(true),
            DhcpMode::Auto => Ok(request.asks() || nic.binding.leaves_dhcp(settings)),
        }
    }

    /// The row for a port with an address, and with the owner's options if there are any; `None` for an address outside
    /// the subnet, which OVN would not answer for.
    fn dhcp_row(
        &self,
        switch: &Switch,
        ip: IpAddr,
        own: Option<&DhcpOptions>,
        port: &str,
    ) -> Result<Option<Arc<DhcpRow>>, OptionError> {
        let Ok(subnet) = self.snapshot.subnet(switch.uuid) else { return Ok(None) };
        let Some(block) = subnet.block_of(ip) else { return Ok(None) };
        let gateway = self.northbound().gateway_of(&switch.uuid, ip);
        let at = DhcpSite { switch, net: block.net(), first_host: block.first_host(), gateway };
        if let Some(own) = own {
            return self.snapshot.compose(&at, own.clone(), Some(port)).map(Arc::new).map(Some);
        }
        let key = (switch.uuid, block.net(), gateway.map(|gateway| gateway.address.addr()));
        if let Some(row) = self.snapshot.dhcp_rows.borrow().get(&key) {
            return Ok(Some(Arc::clone(row)));
        }
        let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
        let row = Arc::new(self.snapshot.compose(&at, DhcpOptions::new(family), None)?);
        self.snapshot.dhcp_rows.borrow_mut().insert(key, Arc::clone(&row));
        Ok(Some(row))
    }

    /// The change of a row that does not stand as it should, unless another port of the transaction makes it.
    pub(super) fn dhcp_row_to_write(&self, wanted: &DhcpRow) -> Option<DhcpChange> {
        let DhcpRow { uuid, row } = wanted;
        if self.batch.has_dhcp_row(uuid) || self.own.has_dhcp_row(uuid) {
            return None;
        }
        let Some(before) = self.northbound().dhcp_row(uuid) else {
            return Some(DhcpChange { uuid: *uuid, before: None, after: Some(row.clone()) });
        };
        if before.is_intact(uuid, self.instance()) {
            return None;
        }
        let ours = [keys::VENDOR, keys::INSTANCE, keys::DHCP_SWITCH, keys::DHCP_PORT];
        let external_ids = before.external_ids.edited(ours.map(|key| (key, row.external_ids.get(key))));
        let after = ovn::DhcpOptions { external_ids, ..row.clone() };
        Some(DhcpChange { uuid: *uuid, before: Some(before.clone()), after: Some(after) })
    }
}

/// The network that a row is for.
struct DhcpSite<'a> {
    switch: &'a Switch,
    net: ipnet::IpNet,
    first_host: IpAddr,
    gateway: Option<Gateway>,
}

impl Snapshot<'_> {
    /// Composes a row: the given options, and the switch's own for all others.
    fn compose(&self, at: &DhcpSite<'_>, mut options: DhcpOptions, port: Option<&str>) -> Result<DhcpRow, OptionError> {
        let settings = &self.settings.dhcp;
        let mac = at.gateway.and_then(|gateway| gateway.mac).unwrap_or_else(|| self.server_mac(&at.switch.name));
        match options.family() {
            Family::V4 => {
                let router = at.gateway.map(|gateway| gateway.address.addr());
                // The first host address is never allocated. Nothing answers ARP for it: a guest renews by broadcast then.
                let server = router.unwrap_or(at.first_host);
                let mtu = self.northbound.switch(&at.switch.uuid).and_then(|row| row.other_config.get(keys::MTU));
                let dns = settings.dns_servers.iter().copied().filter_map(ipv4).collect();
                options.set_default("server_id", Value::Ipv4(ipv4(server).into_iter().collect()));
                options.set_default("server_mac", Value::Mac(mac));
                options.set_default("lease_time", Value::Number(settings.lease_time));
                options.set_default("router", Value::Ipv4(router.and_then(ipv4).into_iter().collect()));
                options.set_default("mtu", Value::Number(settings.mtu_of_guests(mtu).into()));
                options.set_default("dns_server", Value::Ipv4(dns));
                if let Some(domain) = &settings.domain {
                    options.set_default("domain_name", Value::Text(domain.clone()));
                }
            }
            Family::V6 => {
                let ipv6 = |ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None };
                options.set_default("server_id", Value::Mac(mac));
                options.set_default(
                    "dns_server",
                    Value::Ipv6(settings.dns_servers.iter().copied().filter_map(ipv6).collect()),
                );
            }
        }
        options.check()?;
        let (cidr, options) = (at.net.trunc().to_string(), options.encode());
        let (instance, switch) = (self.northbound.instance(), at.switch.name.as_str());
        let uuid = dhcp_uuid(instance, switch, port, &cidr, options.iter());
        let marks = [(keys::VENDOR, keys::OUR_VENDOR), (keys::INSTANCE, instance), (keys::DHCP_SWITCH, switch)];
        let external_ids = marks.into_iter().chain(port.map(|port| (keys::DHCP_PORT, port))).collect();
        Ok(DhcpRow { uuid, row: ovn::DhcpOptions { cidr, options, external_ids } })
    }

    /// The MAC of the server on a switch without a router: the same at every time, another on every switch, and none
    /// that is made for a port.
    fn server_mac(&self, switch: &str) -> MacAddr6 {
        let first = if self.settings.mac_prefix[0] == 0x0e { 0x06 } else { 0x0e };
        let uuid = dhcp_uuid(self.northbound.instance(), switch, None, "", std::iter::empty());
        let [a, b, c, d, e, ..] = *uuid.as_bytes();
        MacAddr6::new(first, a, b, c, d, e)
    }
}

/// Returns true if a row is one of ours, even where its marks were removed: servers make UUIDs of version 4.
fn is_named_by_content(row: &Uuid) -> bool {
    row.get_version_num() == 5
}

fn ipv4(ip: IpAddr) -> Option<Ipv4Addr> {
    if let IpAddr::V4(ip) = ip { Some(ip) } else { None }
}
