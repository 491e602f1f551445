//! A toy of ovsdb-server: tables, operations, garbage collection, and `update2` differences in any
//! order. The replica under test is fed by these alone, so a change that the server would refuse, or
//! an index that leans on the order of an update, shows.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::hash::FastSet;
use crate::ovn::{
    DhcpOptions, ForwardingGroup, LoadBalancer, LoadBalancerGroup, LogicalRouter, LogicalRouterPort, LogicalSwitch,
    LogicalSwitchPort, Nat, Northbound, PortHealthCheck, StaticMacBinding,
};
use crate::ovsdb::{Atom, Datum, Map, Mutation, Mutator, Operation, Row, apply_updates};

/// The northbound database as the server has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tables {
    pub(super) switches: BTreeMap<Uuid, LogicalSwitch>,
    pub(super) ports: BTreeMap<Uuid, LogicalSwitchPort>,
    pub(super) router_ports: BTreeMap<Uuid, LogicalRouterPort>,
    pub(super) routers: BTreeMap<Uuid, LogicalRouter>,
    pub(super) nats: BTreeMap<Uuid, Nat>,
    pub(super) balancers: BTreeMap<Uuid, LoadBalancer>,
    pub(super) groups: BTreeMap<Uuid, LoadBalancerGroup>,
    pub(super) forwarding: BTreeMap<Uuid, ForwardingGroup>,
    pub(super) checks: BTreeMap<Uuid, PortHealthCheck>,
    pub(super) bindings: BTreeMap<Uuid, StaticMacBinding>,
    pub(super) dhcp: BTreeMap<Uuid, DhcpOptions>,
}

impl Tables {
    /// The switch that refers to a port.
    pub(super) fn switch_of(&self, port: &Uuid) -> Option<Uuid> {
        self.switches.iter().find(|(_, row)| row.ports.contains(port)).map(|(uuid, _)| *uuid)
    }

    /// Puts a port on a switch, wherever it was.
    pub(super) fn put_port(&mut self, switch: Uuid, uuid: Uuid, row: LogicalSwitchPort) {
        self.switches.values_mut().for_each(|row| row.ports.retain(|port| *port != uuid));
        self.switches.get_mut(&switch).expect("the switch is there").ports.insert(uuid);
        self.ports.insert(uuid, row);
    }

    /// Takes a port away.
    pub(super) fn remove_port(&mut self, uuid: Uuid) {
        self.switches.values_mut().for_each(|row| row.ports.retain(|port| *port != uuid));
        self.ports.remove(&uuid);
    }

    pub(super) fn port_named(&self, name: &str) -> Option<(Uuid, &LogicalSwitchPort)> {
        self.ports.iter().find(|(_, row)| row.name == name).map(|(uuid, row)| (*uuid, row))
    }

    /// A port is no root row: without a reference from a switch, it is collected (RFC 7047 section 3.2).
    pub(super) fn collect_garbage(&mut self) {
        let referred: HashSet<Uuid> = self.switches.values().flat_map(|row| row.ports.iter().copied()).collect();
        self.ports.retain(|uuid, _| referred.contains(uuid));
        // A weak reference goes with its row (RFC 7047 section 3.2).
        for port in self.ports.values_mut() {
            port.dhcpv4_options = port.dhcpv4_options.filter(|row| self.dhcp.contains_key(row));
            port.dhcpv6_options = port.dhcpv6_options.filter(|row| self.dhcp.contains_key(row));
        }
    }

    /// The constraint that a transaction violates.
    pub(super) fn violation(&self) -> Option<String> {
        let mut names = BTreeSet::new();
        if let Some(row) = self.ports.values().find(|row| !names.insert(row.name.as_str())) {
            return Some(format!("two ports are named {}", row.name));
        }
        let mut referred = self.switches.values().flat_map(|row| &row.ports);
        referred.find(|uuid| !self.ports.contains_key(uuid)).map(|uuid| format!("a reference to no port: {uuid}"))
    }

    /// Executes one transaction.
    pub(super) fn transact(&mut self, operations: &[Operation]) {
        operations.iter().for_each(|operation| self.execute(operation));
        self.collect_garbage();
        assert_eq!(self.violation(), None, "the server refuses {operations:#?}");
    }

    fn execute(&mut self, operation: &Operation) {
        match operation {
            Operation::Insert { table: "Logical_Switch_Port", uuid, row } => {
                let mut port = LogicalSwitchPort::default();
                row.iter().for_each(|(column, value)| set_column(&mut port, column, value));
                assert!(self.ports.insert(*uuid, port).is_none(), "an insert of a row that is there: {uuid}");
            }
            Operation::Update { table: "Logical_Switch_Port", uuid, row } => {
                let port = self.ports.get_mut(uuid).expect("the updated port is there");
                row.iter().for_each(|(column, value)| set_column(port, column, value));
            }
            Operation::Mutate { table: "Logical_Switch_Port", uuid, mutations } => {
                let port = self.ports.get_mut(uuid).expect("the mutated port is there");
                mutations.iter().for_each(|mutation| mutate_port(port, mutation));
            }
            Operation::Mutate { table: "Logical_Router_Port", uuid, mutations } => {
                let port = self.router_ports.get_mut(uuid).expect("the mutated router port is there");
                let [Mutation { column: "ipv6_ra_configs", mutator: Mutator::Insert, value }] = &mutations[..] else {
                    panic!("{operation:?}")
                };
                for (key, value) in pairs_of(value) {
                    if port.ipv6_ra_configs.get(key).is_none() {
                        port.ipv6_ra_configs.insert(key, value.as_str());
                    }
                }
            }
            Operation::Mutate { table: "Logical_Switch", uuid, mutations } => {
                let switch = self.switches.get_mut(uuid).expect("the mutated switch is there");
                for Mutation { column, mutator, value } in mutations {
                    let (&"ports", Datum::Set(atoms)) = (column, value) else { panic!("{operation:?}") };
                    for atom in atoms {
                        let Atom::Uuid(port) = atom else { panic!("{operation:?}") };
                        match mutator {
                            Mutator::Insert => switch.ports.insert(*port),
                            Mutator::Delete => switch.ports.remove(port),
                            Mutator::Add => panic!("{operation:?}"),
                        };
                    }
                }
            }
            Operation::Delete { table: "Logical_Switch_Port", uuid } => {
                self.ports.remove(uuid).expect("the deleted port is there");
            }
            Operation::Insert { table: "DHCP_Options", uuid, row } => {
                let mut dhcp = DhcpOptions::default();
                row.iter().for_each(|(column, value)| set_dhcp_column(&mut dhcp, column, value));
                assert!(self.dhcp.insert(*uuid, dhcp).is_none(), "an insert of a row that is there: {uuid}");
            }
            Operation::Update { table: "DHCP_Options", uuid, row } => {
                let dhcp = self.dhcp.get_mut(uuid).expect("the updated row is there");
                row.iter().for_each(|(column, value)| set_dhcp_column(dhcp, column, value));
            }
            Operation::Mutate { table: "DHCP_Options", uuid, mutations } => {
                let dhcp = self.dhcp.get_mut(uuid).expect("the mutated row is there");
                mutations.iter().for_each(|mutation| {
                    assert_eq!(mutation.column, "external_ids");
                    mutate_map(&mut dhcp.external_ids, mutation);
                });
            }
            Operation::Delete { table: "DHCP_Options", uuid } => {
                self.dhcp.remove(uuid).expect("the deleted row is there");
            }
            other => panic!("the plan of a VM has no business with {other:?}"),
        }
    }

    /// The server's update for a monitor: one `table-updates2`, its tables and rows rotated by
    /// `order`, for the server promises none.
    pub(super) fn send_changes(&self, before: &Self, order: usize, replica: &mut Northbound) {
        let mut tables = [
            ("Logical_Switch", differences(&before.switches, &self.switches)),
            ("Logical_Switch_Port", differences(&before.ports, &self.ports)),
            ("Logical_Router_Port", differences(&before.router_ports, &self.router_ports)),
            ("Logical_Router", differences(&before.routers, &self.routers)),
            ("NAT", differences(&before.nats, &self.nats)),
            ("Load_Balancer", differences(&before.balancers, &self.balancers)),
            ("Load_Balancer_Group", differences(&before.groups, &self.groups)),
            ("Forwarding_Group", differences(&before.forwarding, &self.forwarding)),
            ("Logical_Switch_Port_Health_Check", differences(&before.checks, &self.checks)),
            ("Static_MAC_Binding", differences(&before.bindings, &self.bindings)),
            ("DHCP_Options", differences(&before.dhcp, &self.dhcp)),
        ];
        let count = tables.len();
        tables.rotate_left(order % count);
        if order % 2 == 1 {
            tables.reverse();
        }
        let mut texts = Vec::new();
        for (table, mut rows) in tables {
            if rows.is_empty() {
                continue;
            }
            let count = rows.len();
            rows.rotate_left(order / 6 % count);
            if order / 7 % 2 == 1 {
                rows.reverse();
            }
            let rows: Vec<String> = rows.into_iter().map(|(uuid, update)| format!("\"{uuid}\":{update}")).collect();
            texts.push(format!("\"{table}\":{{{}}}", rows.join(",")));
        }
        let text = format!("{{{}}}", texts.join(","));
        apply_updates(replica, &text).unwrap_or_else(|error| panic!("{error}: {text}"));
    }

    /// A replica that has just connected.
    pub(super) fn replica(&self, instance: &str) -> Northbound {
        let mut replica = Northbound::new(instance);
        self.send_changes(&Self::default(), 0, &mut replica);
        replica
    }
}

fn text_of(value: &Datum) -> String {
    match value {
        Datum::One(Atom::Text(text)) => text.clone(),
        other => panic!("{other:?} is no string"),
    }
}

fn texts_of(value: &Datum) -> Vec<String> {
    let Datum::Set(atoms) = value else { panic!("{value:?} is no set") };
    atoms.iter().map(|atom| text_of(&Datum::One(atom.clone()))).collect()
}

fn pairs_of(value: &Datum) -> &[(String, String)] {
    let Datum::Map(pairs) = value else { panic!("{value:?} is no map") };
    pairs
}

fn reference_of(value: &Datum) -> Option<Uuid> {
    match value {
        Datum::Set(atoms) => match &atoms[..] {
            [] => None,
            [Atom::Uuid(to)] => Some(*to),
            other => panic!("{other:?} is no reference"),
        },
        other => panic!("{other:?} is no set"),
    }
}

fn set_dhcp_column(dhcp: &mut DhcpOptions, column: &str, value: &Datum) {
    match column {
        "cidr" => dhcp.cidr = text_of(value),
        "options" => dhcp.options = pairs_of(value).iter().cloned().collect(),
        "external_ids" => dhcp.external_ids = pairs_of(value).iter().cloned().collect(),
        other => panic!("the plan writes no column {other}"),
    }
}

fn set_column(port: &mut LogicalSwitchPort, column: &str, value: &Datum) {
    match column {
        "name" => port.name = text_of(value),
        "type" => port.kind = text_of(value),
        "dhcpv4_options" => port.dhcpv4_options = reference_of(value),
        "dhcpv6_options" => port.dhcpv6_options = reference_of(value),
        "addresses" => port.addresses = texts_of(value).into_iter().collect(),
        "port_security" => port.port_security = texts_of(value).into_iter().collect(),
        "options" => port.options = pairs_of(value).iter().cloned().collect(),
        "external_ids" => port.external_ids = pairs_of(value).iter().cloned().collect(),
        other => panic!("the plan writes no column {other}"),
    }
}

fn mutate_port(port: &mut LogicalSwitchPort, mutation: &Mutation) {
    let mut map = match mutation.column {
        "options" => port.options.clone(),
        "external_ids" => port.external_ids.map().clone(),
        other => panic!("the plan mutates no column {other}"),
    };
    mutate_map(&mut map, mutation);
    match mutation.column {
        "options" => port.options = map,
        _ => port.external_ids = map.into(),
    }
}

fn mutate_map(map: &mut Map, Mutation { column, mutator, value }: &Mutation) {
    match mutator {
        Mutator::Add => panic!("{column} is no integer"),
        Mutator::Delete => texts_of(value).iter().for_each(|key| drop(map.remove(key))),
        Mutator::Insert => {
            for (key, value) in pairs_of(value) {
                if map.get(key).is_none() {
                    map.insert(key, value.as_str());
                }
            }
        }
    }
}

/// A row as `update2` writes it.
trait Wire: Row + Clone {
    /// The columns of this row, each as its difference to another one's.
    fn columns(&self, before: &Self) -> Vec<(&'static str, Value)>;
}

impl Wire for LogicalSwitch {
    fn columns(&self, before: &Self) -> Vec<(&'static str, Value)> {
        vec![
            ("name", json!(self.name)),
            ("ports", uuid_difference(&self.ports, &before.ports)),
            ("other_config", map_difference(&self.other_config, &before.other_config)),
            ("load_balancer", uuid_difference(&self.load_balancer, &before.load_balancer)),
            ("load_balancer_group", uuid_difference(&self.load_balancer_group, &before.load_balancer_group)),
            ("forwarding_groups", uuid_difference(&self.forwarding_groups, &before.forwarding_groups)),
            ("external_ids", map_difference(&self.external_ids, &before.external_ids)),
        ]
    }
}

impl Wire for LogicalRouter {
    fn columns(&self, before: &Self) -> Vec<(&'static str, Value)> {
        vec![
            ("name", json!(self.name)),
            ("ports", uuid_difference(&self.ports, &before.ports)),
            ("nat", uuid_difference(&self.nat, &before.nat)),
            ("load_balancer", uuid_difference(&self.load_balancer, &before.load_balancer)),
            ("load_balancer_group", uuid_difference(&self.load_balancer_group, &before.load_balancer_group)),
        ]
    }
}

impl Wire for Nat {
    fn columns(&self, _: &Self) -> Vec<(&'static str, Value)> {
        let external_mac = self.external_mac.as_ref().map_or(json!(["set", []]), |text| json!(text));
        vec![("external_ip", json!(self.external_ip)), ("external_mac", external_mac)]
    }
}

impl Wire for ForwardingGroup {
    fn columns(&self, _: &Self) -> Vec<(&'static str, Value)> {
        vec![("name", json!(self.name)), ("vip", json!(self.vip)), ("vmac", json!(self.vmac))]
    }
}

impl Wire for PortHealthCheck {
    fn columns(&self, _: &Self) -> Vec<(&'static str, Value)> {
        vec![("address", json!(self.address)), ("src_ip", json!(self.src_ip))]
    }
}

impl Wire for StaticMacBinding {
    fn columns(&self, _: &Self) -> Vec<(&'static str, Value)> {
        vec![("ip", json!(self.ip)), ("mac", json!(self.mac))]
    }
}

impl Wire for DhcpOptions {
    fn columns(&self, before: &Self) -> Vec<(&'static str, Value)> {
        vec![
            ("cidr", json!(self.cidr)),
            ("options", map_difference(&self.options, &before.options)),
            ("external_ids", map_difference(&self.external_ids, &before.external_ids)),
        ]
    }
}

impl Wire for LoadBalancer {
    fn columns(&self, before: &Self) -> Vec<(&'static str, Value)> {
        vec![
            ("name", json!(self.name)),
            ("vips", map_difference(&self.vips, &before.vips)),
            ("ip_port_mappings", map_difference(&self.ip_port_mappings, &before.ip_port_mappings)),
        ]
    }
}

impl Wire for LoadBalancerGroup {
    fn columns(&self, before: &Self) -> Vec<(&'static str, Value)> {
        vec![("load_balancer", uuid_difference(&self.load_balancer, &before.load_balancer))]
    }
}

fn reference(to: Option<Uuid>) -> Value {
    to.map_or(json!(["set", []]), |to| json!(["uuid", to.to_string()]))
}

fn uuid_difference(after: &FastSet<Uuid>, before: &FastSet<Uuid>) -> Value {
    let toggled = after.symmetric_difference(before).map(|uuid| json!(["uuid", uuid.to_string()]));
    json!(["set", toggled.collect::<Vec<_>>()])
}

impl Wire for LogicalSwitchPort {
    fn columns(&self, before: &Self) -> Vec<(&'static str, Value)> {
        vec![
            ("name", json!(self.name)),
            ("type", json!(self.kind)),
            ("addresses", set_difference(self.addresses.iter(), before.addresses.iter())),
            ("dynamic_addresses", self.dynamic_addresses.as_ref().map_or(json!(["set", []]), |text| json!(text))),
            ("port_security", set_difference(self.port_security.iter(), before.port_security.iter())),
            ("dhcpv4_options", reference(self.dhcpv4_options)),
            ("dhcpv6_options", reference(self.dhcpv6_options)),
            ("options", map_difference(&self.options, &before.options)),
            ("external_ids", map_difference(self.external_ids.map(), before.external_ids.map())),
        ]
    }
}

impl Wire for LogicalRouterPort {
    fn columns(&self, before: &Self) -> Vec<(&'static str, Value)> {
        vec![
            ("name", json!(self.name)),
            ("mac", json!(self.mac)),
            ("networks", set_difference(self.networks.iter(), before.networks.iter())),
            ("ipv6_ra_configs", map_difference(&self.ipv6_ra_configs, &before.ipv6_ra_configs)),
        ]
    }
}

fn set_difference<T: ToString>(after: impl Iterator<Item = T>, before: impl Iterator<Item = T>) -> Value {
    let after: BTreeSet<String> = after.map(|text| text.to_string()).collect();
    let before = before.map(|text| text.to_string()).collect();
    let toggled: Vec<String> = after.symmetric_difference(&before).cloned().collect();
    json!(["set", toggled])
}

fn map_difference(after: &Map, before: &Map) -> Value {
    let fresh = after.iter().filter(|(key, value)| before.get(key) != Some(value));
    let gone = before.iter().filter(|(key, _)| after.get(key).is_none());
    json!(["map", fresh.chain(gone).collect::<Vec<_>>()])
}

fn differences<R: Wire>(before: &BTreeMap<Uuid, R>, after: &BTreeMap<Uuid, R>) -> Vec<(Uuid, String)> {
    let keys: BTreeSet<&Uuid> = before.keys().chain(after.keys()).collect();
    let update = |uuid: &Uuid| match (before.get(uuid), after.get(uuid)) {
        (Some(before), Some(after)) if before == after => None,
        (Some(before), Some(after)) => {
            // Columns that did not change are not named; an unchanged scalar would do no harm.
            let (changed, same) = (after.columns(before), after.columns(after));
            let unlike_before = before.columns(before);
            let columns = changed.into_iter().zip(same).zip(unlike_before);
            let columns = columns.filter(|((changed, same), before)| changed != same || changed != before);
            let row: serde_json::Map<String, Value> =
                columns.map(|(((column, value), _), _)| (column.to_owned(), value)).collect();
            Some(json!({ "modify": row }))
        }
        (None, Some(after)) => {
            let columns = after.columns(&R::default());
            let row: serde_json::Map<String, Value> =
                columns.into_iter().map(|(column, value)| (column.to_owned(), value)).collect();
            Some(json!({ "insert": row }))
        }
        (Some(_), None) => Some(json!({ "delete": null })),
        (None, None) => None,
    };
    keys.into_iter().filter_map(|uuid| Some((*uuid, update(uuid)?.to_string()))).collect()
}
