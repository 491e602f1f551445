//! The tables and columns that we read (ovn-nb(5), ovn-sb(5)).

use uuid::Uuid;

use super::elements::Elements;
use super::marks::{Marks, Owner, PortMarks, is_marked};
use crate::contract::keys::{is_mark, is_policy, is_read_of_binding, is_read_of_dns, is_read_of_ra, is_read_option};
use crate::contract::{VmKey, dhcp_uuid, keys, port_uuid};
use crate::hash::FastSet;
use crate::ovsdb::{Map, Set};
use crate::ovsdb_row;

ovsdb_row! {
    /// The one row of the database's own settings.
    pub struct NbGlobal = "NB_Global" {
        /// The epochs of instances are here.
        external_ids: Map = "external_ids",
        /// Raised by clients that want to know northd's progress.
        nb_cfg: i64 = "nb_cfg",
        /// The `nb_cfg` that northd has processed into the southbound.
        sb_cfg: i64 = "sb_cfg",
    }
}

ovsdb_row! {
    /// A logical switch.
    pub struct LogicalSwitch = "Logical_Switch" {
        /// Not unique.
        name: String = "name",
        /// References to its ports.
        ports: FastSet<Uuid> = "ports",
        /// `subnet`, `exclude_ips`, `ipv6_prefix`, `mac_only`, `mcast_ip4_src`, `mcast_ip6_src`.
        other_config: Map = "other_config",
        /// Load balancers with addresses that it answers for.
        load_balancer: FastSet<Uuid> = "load_balancer",
        /// The same by groups.
        load_balancer_group: FastSet<Uuid> = "load_balancer_group",
        /// Groups of ports with an address that it answers for.
        forwarding_groups: FastSet<Uuid> = "forwarding_groups",
        /// The names that its guests can look up. Read only where names are written.
        dns_records: FastSet<Uuid> = "dns_records",
        /// The operator's policy: `ovn-kubevirt.io/namespaces`, `ovn-kubevirt.io/allow`.
        external_ids: Map = "external_ids" where is_policy,
    }
}

ovsdb_row! {
    /// A logical switch port (LSP).
    pub struct LogicalSwitchPort = "Logical_Switch_Port" {
        /// Unique.
        name: String = "name",
        /// `""` for VMs and containers, `router`, `virtual`, `localnet`, ...
        kind: String = "type",
        /// `MAC IP...`, `dynamic`, `unknown`, `router`.
        addresses: Elements = "addresses",
        /// The addresses that northd allocated to a `dynamic` port.
        dynamic_addresses: Option<String> = "dynamic_addresses",
        /// `MAC IP...`
        port_security: Elements = "port_security",
        /// `requested-chassis`, `router-port`, `virtual-ip`, ...
        options: Map = "options" where is_read_option,
        /// A reference to the row in `DHCP_Options`, which goes with that row.
        dhcpv4_options: Option<Uuid> = "dhcpv4_options",
        /// The same for DHCPv6.
        dhcpv6_options: Option<Uuid> = "dhcpv6_options",
        /// The marks of its owner.
        external_ids: PortMarks = "external_ids" where is_mark,
    }
}

ovsdb_row! {
    /// A logical router port (LRP).
    pub struct LogicalRouterPort = "Logical_Router_Port" {
        /// Unique.
        name: String = "name",
        /// Its MAC.
        mac: String = "mac",
        /// `address/length`
        networks: Set = "networks",
        /// `address_mode`, `send_periodic`, `mtu` of its advertisements.
        ipv6_ra_configs: Map = "ipv6_ra_configs" where is_read_of_ra,
    }
}

ovsdb_row! {
    /// A logical router.
    pub struct LogicalRouter = "Logical_Router" {
        /// Not unique.
        name: String = "name",
        /// References to its ports.
        ports: FastSet<Uuid> = "ports",
        /// References to its translations.
        nat: FastSet<Uuid> = "nat",
        /// Load balancers with addresses that it answers for.
        load_balancer: FastSet<Uuid> = "load_balancer",
        /// The same by groups.
        load_balancer_group: FastSet<Uuid> = "load_balancer_group",
    }
}

ovsdb_row! {
    /// A translation of a router.
    pub struct Nat = "NAT" {
        /// The address that the router answers for.
        external_ip: String = "external_ip",
        /// The MAC of the answer, if the translation is distributed.
        external_mac: Option<String> = "external_mac",
    }
}

ovsdb_row! {
    /// A load balancer.
    pub struct LoadBalancer = "Load_Balancer" {
        /// Not unique.
        name: String = "name",
        /// The backends by address, or by address and port.
        vips: Map = "vips",
        /// By endpoint: its port, and the address that health checks come from.
        ip_port_mappings: Map = "ip_port_mappings",
    }
}

ovsdb_row! {
    /// Load balancers that are applied together.
    pub struct LoadBalancerGroup = "Load_Balancer_Group" {
        /// The load balancers.
        load_balancer: FastSet<Uuid> = "load_balancer",
    }
}

ovsdb_row! {
    /// Ports that share an address.
    pub struct ForwardingGroup = "Forwarding_Group" {
        /// Not unique.
        name: String = "name",
        /// The address that the switch answers for.
        vip: String = "vip",
        /// The MAC of the answer.
        vmac: String = "vmac",
    }
}

ovsdb_row! {
    /// A health check of a logical switch port (OVN 26.03).
    pub struct PortHealthCheck = "Logical_Switch_Port_Health_Check" {
        /// The port's address that is checked.
        address: String = "address",
        /// The address that the check comes from.
        src_ip: String = "src_ip",
    }
}

ovsdb_row! {
    /// A neighbour that a router resolves without a request.
    pub struct StaticMacBinding = "Static_MAC_Binding" {
        /// Its address.
        ip: String = "ip",
        /// Its MAC.
        mac: String = "mac",
    }
}

ovsdb_row! {
    /// The DHCP options that OVN sends to guests.
    pub struct DhcpOptions = "DHCP_Options" {
        /// The network of the addresses that OVN hands out.
        cidr: String = "cidr",
        /// `server_id`, `server_mac`, `router` and many more.
        options: Map = "options",
        /// The marks of its owner.
        external_ids: Map = "external_ids" where is_mark,
    }
}

impl DhcpOptions {
    /// Returns true if the row has the marks of an instance, and the content that its UUID stands for.
    pub fn is_intact(&self, uuid: &Uuid, instance: &str) -> bool {
        let mark = |key| self.external_ids.get(key);
        let is_of = |switch| {
            let options = self.options.iter();
            dhcp_uuid(instance, switch, mark(keys::DHCP_PORT), &self.cidr, options) == *uuid
        };
        is_marked(&self.external_ids, instance) && mark(keys::DHCP_SWITCH).is_some_and(is_of)
    }
}

ovsdb_row! {
    /// Names for the guests of the switches that refer to the row. Read only where names are written.
    pub struct Dns = "DNS" {
        /// Addresses by name, and names by address (`...in-addr.arpa`, `...ip6.arpa`).
        records: Map = "records",
        /// `ovn-owned` (OVN 24.03).
        options: Map = "options" where is_read_of_dns,
        /// The marks of its owner.
        external_ids: Map = "external_ids" where is_mark,
    }
}

impl LogicalSwitchPort {
    /// The rows of `DHCP_Options` that it refers to.
    pub fn dhcp_rows(&self) -> impl Iterator<Item = Uuid> {
        [self.dhcpv4_options, self.dhcpv6_options].into_iter().flatten()
    }

    /// The owner of the row; `None` if the row is not this instance's. A row with the UUID that this instance gives to
    /// a port of that name is this instance's even if its marks were removed, as long as they name no other instance.
    /// Its network is empty then, unless that mark is left.
    pub fn owner(&self, uuid: &Uuid, instance: &str) -> Option<Owner> {
        if let Some(owner) = Owner::of(self.external_ids.map(), instance) {
            return Some(owner);
        }
        if !self.is_unmarked(uuid, instance) {
            return None;
        }
        let marked = self.external_ids.get(keys::VM).and_then(|vm| vm.split_once('/'));
        let vm = marked.map(|(namespace, name)| VmKey::new(namespace, name));
        let network = self.external_ids.get(keys::NETWORK).unwrap_or_default().to_owned();
        Some(Owner { vm: vm.or_else(|| VmKey::of_port_name(&self.name))?, network })
    }

    /// The namespace of its VM, from its marks or else from its name.
    pub fn namespace(&self) -> Option<String> {
        let marked = self.external_ids.get(keys::VM).and_then(|vm| vm.split_once('/'));
        marked.map(|(namespace, _)| namespace.to_owned()).or_else(|| Some(VmKey::of_port_name(&self.name)?.namespace))
    }

    /// Returns true if the row is this instance's: see [`LogicalSwitchPort::owner`].
    pub fn is_of(&self, uuid: &Uuid, instance: &str) -> bool {
        Owner::is_of(self.external_ids.map(), instance) || self.is_unmarked(uuid, instance)
    }

    /// Returns true if this instance made it and its marks were removed, all of them or some.
    pub fn is_unmarked(&self, uuid: &Uuid, instance: &str) -> bool {
        // Servers make UUIDs of version 4: few rows need a hash.
        uuid.get_version_num() == 5
            && self.external_ids.get(keys::INSTANCE).is_none_or(|marked| marked == instance)
            && !Owner::is_of(self.external_ids.map(), instance)
            && port_uuid(instance, &self.name) == *uuid
    }

    /// Returns true if the row has a UUID as this service makes them (version 5), and no marks of this instance, or a
    /// name that does not begin as those of its VM's ports do. This costs less than making the UUID of a name.
    pub(super) fn is_odd(&self, uuid: &Uuid, instance: &str) -> bool {
        uuid.get_version_num() == 5
            && Marks::of(self.external_ids.map(), instance).is_none_or(|marks| !marks.has_named(&self.name))
    }

    /// The other instance of this service that has marked it, if there is one.
    pub fn other_instance(&self, instance: &str) -> Option<&str> {
        let marked = self.external_ids.get(keys::INSTANCE).filter(|marked| *marked != instance)?;
        (self.external_ids.get(keys::VENDOR) == Some(keys::OUR_VENDOR)).then_some(marked)
    }
}

#[cfg(test)]
impl LogicalSwitchPort {
    /// The row as a replica keeps it: without unread keys.
    pub(crate) fn as_kept(&self) -> Self {
        let options = self.options.iter().filter(|(key, _)| is_read_option(key)).collect();
        let external_ids = self.external_ids.iter().filter(|(key, _)| is_mark(key)).collect();
        Self { options, external_ids, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::marker::PhantomData;

    use serde::de::{Deserializer as _, MapAccess, Visitor};

    use super::LogicalSwitchPort;
    use crate::ovn::Northbound;
    use crate::ovsdb::{ColumnMask, Map, Replica, Row, Schema};

    #[test]
    fn the_columns_are_in_ovns_own_schema() {
        let schema: Schema =
            serde_json::from_str(include_str!("../../ovsdb-schemas/ovn-nb.ovsschema")).expect("a schema");
        assert_eq!(schema.name, Northbound::DATABASE);
        assert_eq!(schema.check(Northbound::TABLES), Ok(()));
        let present: Vec<&str> = schema
            .present(Northbound::OPTIONAL_TABLES, Northbound::OPTIONAL_COLUMNS)
            .iter()
            .map(|table| table.name)
            .collect();
        // The table of ports' health checks came with OVN 26.03, and `DNS:options` with 24.03.
        assert_eq!(present, ["Forwarding_Group", "Static_MAC_Binding", "DHCP_Options", "DNS"]);
    }

    #[test]
    fn unread_keys_are_not_kept() {
        let port =
            r#"{"external_ids":["map",[["neutron:port","x"],["vendor","y"]]],"options":["map",[["mcast","true"]]]}"#;
        let mut decoder = serde_json::Deserializer::from_str(port);
        let (row, _) = decoder.deserialize_map(Decode(PhantomData::<LogicalSwitchPort>)).expect("a row");
        assert_eq!(row.external_ids, [("vendor", "y")].into_iter().collect());
        assert_eq!(row.options, Map::default());
    }

    struct Decode<R>(PhantomData<R>);

    impl<'de, R: Row> Visitor<'de> for Decode<R> {
        type Value = (R, ColumnMask);
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a row")
        }
        fn visit_map<A: MapAccess<'de>>(self, columns: A) -> Result<Self::Value, A::Error> {
            R::decode(columns)
        }
    }
}

ovsdb_row! {
    /// A hypervisor or gateway, of the southbound database (ovn-sb(5)).
    pub struct Chassis = "Chassis" {
        /// Unique.
        name: String = "name",
        /// The name of the machine.
        hostname: String = "hostname",
    }
}

ovsdb_row! {
    /// The binding of a logical port, of the southbound database (ovn-sb(5)).
    pub struct PortBinding = "Port_Binding" {
        /// The name of the logical switch port; unique.
        logical_port: String = "logical_port",
        /// Its chassis.
        chassis: Option<Uuid> = "chassis",
        /// The chassis that are prepared for it, too.
        additional_chassis: FastSet<Uuid> = "additional_chassis",
        /// `additional-chassis-activated`, ...
        options: Map = "options" where is_read_of_binding,
        /// True if the chassis has set up its flows.
        up: Option<bool> = "up",
    }
}

ovsdb_row! {
    /// The one row of the southbound database's own settings.
    pub(super) struct SbGlobal = "SB_Global" {
        /// `NB_Global:nb_cfg` as northd has processed it.
        nb_cfg: i64 = "nb_cfg",
    }
}

ovsdb_row! {
    /// What a chassis writes about itself, of the southbound database (ovn-sb(5)).
    pub(super) struct ChassisPrivate = "Chassis_Private" {
        /// Its row in `Chassis`.
        chassis: Option<Uuid> = "chassis",
        /// The last `SB_Global:nb_cfg` that it has processed.
        nb_cfg: i64 = "nb_cfg",
    }
}

ovsdb_row! {
    /// An option that OVN's DHCPv4 supports, of the southbound database (ovn-sb(5)): written by northd.
    pub(super) struct SupportedDhcpv4Option = "DHCP_Options" {
        /// The key in the northbound's `DHCP_Options:options`.
        name: String = "name",
        /// `bool`, `uint8`, `ipv4`, `str`, ...
        kind: String = "type",
    }
}

ovsdb_row! {
    /// The same for DHCPv6.
    pub(super) struct SupportedDhcpv6Option = "DHCPv6_Options" {
        /// The key in the northbound's `DHCP_Options:options`.
        name: String = "name",
        /// `ipv6`, `str`, `mac` or `domain`.
        kind: String = "type",
    }
}
