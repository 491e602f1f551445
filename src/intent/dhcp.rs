//! DHCP by OVN: the NICs that get it, what their owners request of it, and the operator's settings.
//!
//! OVN answers a guest beside any other server on the network: it acknowledges requests that were meant for another. So
//! it never serves a NIC for which virt-launcher runs a DHCP server, whatever is requested.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::escaped::Escaped;
use crate::kubevirt::objects::Interface;
use crate::ovn::dhcp::{DhcpOptions, Family, OptionTable, Text};

/// The MTU of a switch where neither its row nor the operator names one: that of Geneve over Ethernet.
const GENEVE_MTU: u16 = 1_442;
/// The network binding plugin of KubeVirt's own, which came before `passtBinding`.
const PASST_PLUGIN: &str = "passt";

/// The operator's settings of DHCP by OVN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpSettings {
    /// The NICs that get it.
    pub mode: DhcpMode,
    /// The network binding plugins that leave DHCP to the network.
    pub bindings: BTreeSet<String>,
    /// The MTU of switches whose rows name none.
    pub mtu: Option<u16>,
    /// The DNS servers that guests get, each by its family's DHCP.
    pub dns_servers: Vec<IpAddr>,
    /// The domain that guests get.
    pub domain: Option<Text>,
    /// In seconds.
    pub lease_time: u32,
    /// The options that owners may write.
    pub table: Arc<OptionTable>,
}

impl DhcpSettings {
    /// The plugins that KubeVirt's documents and OVN-Kubernetes' have for a managed tap.
    pub const BINDINGS: [&str; 2] = ["l2bridge", "managedtap"];
    /// In seconds.
    pub const LEASE_TIME: u32 = 3_600;

    /// The MTU of a switch, in its row or by the operator.
    pub fn mtu(&self, on_switch: Option<&str>) -> Option<u16> {
        on_switch.and_then(|mtu| mtu.trim().parse().ok()).filter(|mtu| *mtu >= 68).or(self.mtu)
    }

    /// The MTU that guests of a switch get by DHCP.
    pub fn mtu_of_guests(&self, on_switch: Option<&str>) -> u16 {
        self.mtu(on_switch).unwrap_or(GENEVE_MTU)
    }
}

impl Default for DhcpSettings {
    fn default() -> Self {
        Self {
            mode: DhcpMode::default(),
            bindings: Self::BINDINGS.map(str::to_owned).into(),
            mtu: None,
            dns_servers: Vec::new(),
            domain: None,
            lease_time: Self::LEASE_TIME,
            table: Arc::default(),
        }
    }
}

/// The NICs that get DHCP by OVN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DhcpMode {
    /// Those whose binding leaves DHCP to the network, and those that request it.
    #[default]
    Auto,
    /// All for which virt-launcher runs no DHCP server.
    Always,
    /// None.
    Never,
}

/// The request for the DHCP of a NIC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DhcpRequest {
    /// Whether OVN is to answer; `None` leaves it to the operator's settings.
    pub wanted: Option<bool>,
    /// DHCPv4 options of the owner's.
    pub v4: Option<DhcpOptions>,
    /// DHCPv6 options of the owner's.
    pub v6: Option<DhcpOptions>,
}

impl DhcpRequest {
    /// Returns true if the owner requests DHCP by OVN: options without it have no effect.
    pub fn asks(&self) -> bool {
        self.wanted.unwrap_or(self.v4.is_some() || self.v6.is_some())
    }

    /// Returns true if the owner declines it.
    pub fn declines(&self) -> bool {
        self.wanted == Some(false)
    }

    /// The owner's options of a family.
    pub fn options(&self, family: Family) -> Option<&DhcpOptions> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }
}

/// How a guest's interface is bound to its pod's (KubeVirt `interfaces[]`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Binding {
    /// KubeVirt chooses one when the VM starts: bridge or masquerade.
    #[default]
    Default,
    /// `bridge`: virt-launcher's DHCP server hands the pod's address to the guest.
    Bridge,
    /// `masquerade`: virt-launcher's DHCP server gives the guest an address of its own.
    Masquerade,
    /// `passtBinding`, or the plugin before it: passt has a DHCP server.
    Passt,
    /// `slirp`, which has a DHCP server.
    Slirp,
    /// `sriov` or `macvtap`: the guest is on the network by itself.
    Direct,
    /// A network binding plugin, by its name in the KubeVirt object.
    Plugin(String),
}

impl Binding {
    /// The binding of an interface.
    pub(super) fn of(interface: &Interface) -> Self {
        let Interface { name: _, mac_address: _, state: _, bridge, masquerade, .. } = interface;
        let Interface { passt_binding, passt, slirp, sriov, macvtap, binding, .. } = interface;
        match binding {
            Some(plugin) if plugin.name == PASST_PLUGIN => Self::Passt,
            Some(plugin) => Self::Plugin(plugin.name.clone()),
            None if bridge.is_some() => Self::Bridge,
            None if masquerade.is_some() => Self::Masquerade,
            None if passt_binding.is_some() || passt.is_some() => Self::Passt,
            None if slirp.is_some() => Self::Slirp,
            None if sriov.is_some() || macvtap.is_some() => Self::Direct,
            None => Self::Default,
        }
    }

    /// Returns true if virt-launcher, or a program beside it, answers the guest's DHCP.
    pub fn has_a_server(&self) -> bool {
        match self {
            Self::Default | Self::Bridge | Self::Masquerade | Self::Passt | Self::Slirp => true,
            Self::Direct | Self::Plugin(_) => false,
        }
    }

    /// Returns true if the operator says that the binding leaves DHCP to the network.
    pub fn leaves_dhcp(&self, settings: &DhcpSettings) -> bool {
        matches!(self, Self::Plugin(name) if settings.bindings.contains(name))
    }
}

/// As in `its binding is bridge`
impl fmt::Display for Binding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("KubeVirt's default, bridge or masquerade"),
            Self::Bridge => formatter.write_str("bridge"),
            Self::Masquerade => formatter.write_str("masquerade"),
            Self::Passt => formatter.write_str("passt"),
            Self::Slirp => formatter.write_str("slirp"),
            Self::Direct => formatter.write_str("sriov or macvtap"),
            Self::Plugin(name) => write!(formatter, "the plugin {}", Escaped(name)),
        }
    }
}
