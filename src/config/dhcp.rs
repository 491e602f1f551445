//! Flags of DHCP by OVN.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::intent::{DhcpMode, DhcpSettings, Retention};
use crate::ovn::dhcp::Text;

/// Options of DHCP by OVN.
#[derive(Debug, Clone, Args)]
pub struct DhcpFlags {
    /// The NICs for which OVN answers DHCP: auto, those with a binding of --dhcp-bindings and those that request it;
    /// always, all without a DHCP server of virt-launcher; never, no NIC
    #[arg(long, env = "OVN_KUBEVIRT_DHCP", value_name = "MODE", default_value = "auto", value_parser = mode)]
    pub dhcp: DhcpMode,

    /// The network binding plugins that leave DHCP to the network, by their names in the KubeVirt object: those with the
    /// domainAttachmentType managedTap; several comma-separated
    #[arg(long, env = "OVN_KUBEVIRT_DHCP_BINDINGS", value_name = "NAME,...", value_delimiter = ',',
        default_values_t = DhcpSettings::BINDINGS.map(str::to_owned))]
    pub dhcp_bindings: Vec<String>,

    /// The DNS servers that guests get by DHCP, IPv4 and IPv6; several comma-separated
    #[arg(long, env = "OVN_KUBEVIRT_DHCP_DNS", value_name = "IP,...", value_delimiter = ',', value_parser = dns)]
    pub dhcp_dns: Vec<IpAddr>,

    /// The domain that guests get by DHCPv4
    #[arg(long, env = "OVN_KUBEVIRT_DHCP_DOMAIN", value_name = "DOMAIN", value_parser = domain)]
    pub dhcp_domain: Option<Text>,

    /// The lifetime of a DHCPv4 lease: a duration as in 1h or 90m. DHCPv6 leases of OVN have no end
    #[arg(long, env = "OVN_KUBEVIRT_DHCP_LEASE_TIME", value_name = "DURATION", default_value = "1h", value_parser = lease_time)]
    pub dhcp_lease_time: Seconds,

    /// The MTU that guests get by DHCP and that launcher pods carry, on a logical switch without other_config:mtu. By
    /// default guests get 1442, the MTU of Geneve over Ethernet
    #[arg(long, env = "OVN_KUBEVIRT_MTU", value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(68..))]
    pub mtu: Option<u16>,

    /// The time for which a row of DHCP options stays after its last port
    #[arg(long, env = "OVN_KUBEVIRT_DHCP_GRACE", value_name = "DURATION", default_value = "60s", value_parser = super::rest,
        hide = true)]
    pub dhcp_grace: Duration,
}

/// A number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub u32);

fn mode(text: &str) -> Result<DhcpMode, String> {
    match text {
        "auto" => Ok(DhcpMode::Auto),
        "always" => Ok(DhcpMode::Always),
        "never" => Ok(DhcpMode::Never),
        _ => Err("write auto, always or never".to_owned()),
    }
}

fn dns(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text.trim().parse().map_err(|_| "write IP addresses with commas between".to_owned())?;
    match ip {
        ip if ip.is_unspecified() || ip.is_multicast() => Err("write the address of a server".to_owned()),
        IpAddr::V4(ip) if ip.is_broadcast() => Err("write the address of a server".to_owned()),
        ip => Ok(ip),
    }
}

fn domain(text: &str) -> Result<Text, String> {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_');
    let refused = || "write a domain, as in vms.example.org".to_owned();
    if text.len() > 200 || !text.chars().all(is_plain) {
        return Err(refused());
    }
    Text::try_from(text).map_err(|_| refused())
}

fn lease_time(text: &str) -> Result<Seconds, String> {
    let seconds = match text.parse() {
        Ok(Retention::For(time)) => u32::try_from(time.as_secs()).ok(),
        Ok(Retention::Forever) | Err(_) => None,
    };
    let seconds = seconds.filter(|seconds| *seconds >= 60);
    seconds.map(Seconds).ok_or_else(|| "write a duration of a minute at least, as in 1h or 90m".to_owned())
}

impl DhcpFlags {
    /// The settings for all VMs.
    pub(super) fn settings(&self) -> DhcpSettings {
        DhcpSettings {
            mode: self.dhcp,
            bindings: self.dhcp_bindings.iter().map(|name| name.trim().to_owned()).collect(),
            mtu: self.mtu,
            dns_servers: self.dhcp_dns.clone(),
            domain: self.dhcp_domain.clone(),
            lease_time: self.dhcp_lease_time.0,
            table: Arc::default(),
        }
    }
}
