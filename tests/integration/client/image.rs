//! The content of the database in the columns that we read, and that of a replica, in one form; and all answers of a
//! replica's indexes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ovn_kubevirt::contract::VmKey;
use ovn_kubevirt::ipam::{Pool, Subnet};
use ovn_kubevirt::ovn::{
    LoadBalancer, LoadBalancerGroup, LogicalRouter, LogicalRouterPort, LogicalSwitch, LogicalSwitchPort, Nat,
    Northbound as View,
};
use ovn_kubevirt::ovsdb::{Map, Replica};
use serde_json::{Value, json};
use uuid::Uuid;

use super::writer::{GLOBAL_KEYS, IPS, MACS, PORT_NAMES, SWITCH_NAMES, VMS};
use crate::support::Northbound;

/// A column's value: the atoms of a scalar or a set, or the pairs of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Atoms(BTreeSet<String>),
    Pairs(BTreeMap<String, String>),
}

/// A row by its columns.
pub(super) type Line = BTreeMap<&'static str, Cell>;

/// The tables that we read, row by row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Image(BTreeMap<&'static str, BTreeMap<Uuid, Line>>);

/// Whether a key of a port's map is one that the replica keeps.
fn is_kept(column: &str, key: &str) -> bool {
    match column {
        "external_ids" => key == "vendor" || key.starts_with("ovn-kubevirt.io/"),
        _ => {
            let bound = ["requested-chassis", "activation-strategy", "router-port"];
            bound.contains(&key) || ["virtual-ip", "arp_proxy", "nat-addresses"].contains(&key)
        }
    }
}

/// The owner of a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owned {
    pub(super) vm: VmKey,
    pub(super) network: String,
}

impl Image {
    /// The results of `select`, as of one moment.
    #[track_caller]
    pub(super) fn of_database(northbound: &Northbound) -> Self {
        let selects = View::TABLES.iter().map(|table| {
            let columns = table.columns.iter().map(|column| column.name).chain(["_uuid"]);
            json!({"op": "select", "table": table.name, "where": [], "columns": columns.collect::<Vec<_>>()})
        });
        let mut results = northbound.transact(selects.collect());
        let tables = View::TABLES.iter().zip(&mut results).map(|(table, result)| {
            let rows = result["rows"].as_array().expect("a select gives rows");
            let rows = rows.iter().map(|row| {
                let columns = table.columns.iter().map(|column| (column.name, cell(&row[column.name])));
                (row["_uuid"][1].as_str().and_then(|text| text.parse().ok()).expect("a UUID"), columns.collect())
            });
            (table.name, rows.collect())
        });
        Self(tables.collect())
    }

    /// The content of a replica.
    pub(super) fn of_replica(view: &View) -> Self {
        let global = view.global().map(|uuid| {
            let ids = GLOBAL_KEYS.iter().filter_map(|key| Some((*key, view.global_external_id(key)?)));
            let line = [("external_ids", pairs(ids)), ("nb_cfg", one(view.nb_cfg())), ("sb_cfg", one(view.sb_cfg()))];
            (uuid, Line::from(line))
        });
        let switches = view.switches().map(|(uuid, row)| {
            let LogicalSwitch {
                name,
                ports,
                other_config,
                load_balancer,
                load_balancer_group,
                forwarding_groups,
                dns_records,
                external_ids,
            } = row;
            let line = [
                ("name", one(name)),
                ("ports", atoms(ports)),
                ("other_config", map(other_config)),
                ("load_balancer", atoms(load_balancer)),
                ("load_balancer_group", atoms(load_balancer_group)),
                ("forwarding_groups", atoms(forwarding_groups)),
                ("dns_records", atoms(dns_records)),
                ("external_ids", map(external_ids)),
            ];
            (*uuid, Line::from(line))
        });
        let ports = view.ports().map(|port| {
            let LogicalSwitchPort { name, kind, addresses, dynamic_addresses, port_security, .. } = port.row;
            let LogicalSwitchPort { options, external_ids, dhcpv4_options, dhcpv6_options, .. } = port.row;
            let line = [
                ("name", one(name)),
                ("type", one(kind)),
                ("addresses", atoms(addresses.iter())),
                ("dynamic_addresses", atoms(dynamic_addresses)),
                ("port_security", atoms(port_security.iter())),
                ("dhcpv4_options", atoms(dhcpv4_options)),
                ("dhcpv6_options", atoms(dhcpv6_options)),
                ("options", map(options)),
                ("external_ids", map(external_ids.map())),
            ];
            (port.uuid, Line::from(line))
        });
        let router_ports = view.router_ports().map(|(uuid, row)| {
            let LogicalRouterPort { name, mac, networks, ipv6_ra_configs } = row;
            let line = [
                ("name", one(name)),
                ("mac", one(mac)),
                ("networks", atoms(networks.iter())),
                ("ipv6_ra_configs", map(ipv6_ra_configs)),
            ];
            (*uuid, Line::from(line))
        });
        let routers = view.routers().map(|(uuid, row)| {
            let LogicalRouter { name, ports, nat, load_balancer, load_balancer_group } = row;
            let line = [
                ("name", one(name)),
                ("ports", atoms(ports)),
                ("nat", atoms(nat)),
                ("load_balancer", atoms(load_balancer)),
                ("load_balancer_group", atoms(load_balancer_group)),
            ];
            (*uuid, Line::from(line))
        });
        let nats = view.nats().map(|(uuid, Nat { external_ip, external_mac })| {
            let line = [("external_ip", one(external_ip)), ("external_mac", atoms(external_mac))];
            (*uuid, Line::from(line))
        });
        let balancers = view.load_balancers().map(|(uuid, LoadBalancer { name, vips, ip_port_mappings })| {
            let line = [("name", one(name)), ("vips", map(vips)), ("ip_port_mappings", map(ip_port_mappings))];
            (*uuid, Line::from(line))
        });
        let groups = view.load_balancer_groups().map(|(uuid, LoadBalancerGroup { load_balancer })| {
            (*uuid, Line::from([("load_balancer", atoms(load_balancer))]))
        });
        Self(BTreeMap::from([
            ("Logical_Router", routers.collect()),
            ("NAT", nats.collect()),
            ("Load_Balancer", balancers.collect()),
            ("Load_Balancer_Group", groups.collect()),
            ("NB_Global", global.into_iter().collect()),
            ("Logical_Switch", switches.collect()),
            ("Logical_Switch_Port", ports.collect()),
            ("Logical_Router_Port", router_ports.collect()),
        ]))
    }

    /// The same without the keys that are not read, which the replica does not keep.
    pub(super) fn kept(&self) -> Self {
        let mut image = self.clone();
        for line in image.0.entry("Logical_Switch_Port").or_default().values_mut() {
            for (column, cell) in line {
                if let Cell::Pairs(pairs) = cell {
                    pairs.retain(|key, _| is_kept(column, key));
                }
            }
        }
        for line in image.0.entry("Logical_Switch").or_default().values_mut() {
            if let Some(Cell::Pairs(pairs)) = line.get_mut("external_ids") {
                pairs.retain(|key, _| key == "ovn-kubevirt.io/namespaces" || key == "ovn-kubevirt.io/allow");
            }
        }
        image
    }

    fn table(&self, name: &str) -> &BTreeMap<Uuid, Line> {
        static NONE: BTreeMap<Uuid, Line> = BTreeMap::new();
        self.0.get(name).unwrap_or(&NONE)
    }

    /// All ports.
    pub(super) fn ports(&self) -> &BTreeMap<Uuid, Line> {
        self.table("Logical_Switch_Port")
    }

    /// All switches.
    pub(super) fn switches(&self) -> &BTreeMap<Uuid, Line> {
        self.table("Logical_Switch")
    }

    /// The switches that refer to a port.
    pub(super) fn switches_of(&self, port: Uuid) -> BTreeSet<Uuid> {
        let refers = |line: &Line| self::holds(&line["ports"], &port.to_string());
        self.switches().iter().filter(|(_, line)| refers(line)).map(|(uuid, _)| *uuid).collect()
    }

    /// Ports that more than one switch refers to. Which of them counts depends on which came first.
    pub(super) fn doubled(&self) -> BTreeSet<Uuid> {
        self.ports().keys().copied().filter(|port| self.switches_of(*port).len() > 1).collect()
    }

    /// The addresses that routers answer for, and their connections: their rows, and those of the ports that lead to them.
    pub(super) fn routing(&self) -> BTreeMap<Uuid, (Line, BTreeSet<Uuid>)> {
        let tables = ["Logical_Router", "Logical_Router_Port", "NAT", "Load_Balancer", "Load_Balancer_Group"];
        let rows = tables.iter().flat_map(|table| self.table(table));
        let router = ("type", one("router"));
        let peers = self.ports().iter().filter(|(_, line)| line.get(router.0) == Some(&router.1));
        rows.chain(peers).map(|(uuid, line)| (*uuid, (line.clone(), self.switches_of(*uuid)))).collect()
    }

    /// The owner of a port of the instance `default`.
    pub(super) fn owner(&self, port: Uuid) -> Option<Owned> {
        let Cell::Pairs(ids) = &self.ports().get(&port)?["external_ids"] else { return None };
        if ids.get("vendor")? != "ovn-kubevirt" || ids.get("ovn-kubevirt.io/instance")? != "default" {
            return None;
        }
        let (namespace, name) = ids.get("ovn-kubevirt.io/vm")?.split_once('/')?;
        let network = ids.get("ovn-kubevirt.io/network")?.clone();
        Some(Owned { vm: VmKey::new(namespace, name), network })
    }

    /// Where the two differ, for a person.
    pub(super) fn difference(&self, other: &Self) -> String {
        let mut lines = Vec::new();
        for table in self.0.keys() {
            let (here, there) = (self.table(table), other.table(table));
            let uuids: BTreeSet<&Uuid> = here.keys().chain(there.keys()).collect();
            for uuid in uuids.into_iter().filter(|uuid| here.get(uuid) != there.get(uuid)) {
                lines.push(format!("{table} {uuid}:\n  {:?}\n  {:?}", here.get(uuid), there.get(uuid)));
            }
        }
        lines.join("\n")
    }
}

/// Whether a set has an atom.
fn holds(cell: &Cell, atom: &str) -> bool {
    matches!(cell, Cell::Atoms(atoms) if atoms.contains(atom))
}

fn one(value: impl ToString) -> Cell {
    Cell::Atoms(BTreeSet::from([value.to_string()]))
}

fn atoms<T: ToString>(values: impl IntoIterator<Item = T>) -> Cell {
    Cell::Atoms(values.into_iter().map(|value| value.to_string()).collect())
}

fn pairs<'a>(values: impl Iterator<Item = (&'a str, &'a str)>) -> Cell {
    Cell::Pairs(values.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

fn map(values: &Map) -> Cell {
    pairs(values.iter())
}

/// A value as the wire has it (RFC 7047 section 5.1).
fn cell(value: &Value) -> Cell {
    match value[0].as_str() {
        Some("map") => {
            let pairs = value[1].as_array().expect("pairs").iter();
            Cell::Pairs(pairs.map(|pair| (atom(&pair[0]), atom(&pair[1]))).collect())
        }
        Some("set") => Cell::Atoms(value[1].as_array().expect("a set").iter().map(atom).collect()),
        _ => Cell::Atoms(BTreeSet::from([atom(value)])),
    }
}

fn atom(value: &Value) -> String {
    let bare = if value[0] == "uuid" { &value[1] } else { value };
    bare.as_str().map_or_else(|| bare.to_string(), ToOwned::to_owned)
}

/// The holders of each address on each switch, but for switches with a port of `without`.
pub(super) fn pools(view: &View, without: &BTreeSet<Uuid>) -> BTreeMap<Uuid, Pool<Uuid>> {
    let switches = view.switches().filter(|(_, row)| !row.ports.iter().any(|port| without.contains(port)));
    switches.map(|(uuid, _)| (*uuid, view.pool(uuid).cloned().unwrap_or_default())).collect()
}

/// Everything that the indexes of a replica answer, about all that the writers ever name. Ports in `without` are left
/// out.
pub(super) fn answers(view: &View, without: &BTreeSet<Uuid>) -> BTreeMap<String, String> {
    let mut answers = BTreeMap::new();
    let mut note = |question: String, answer: String| assert_eq!(answers.insert(question, answer), None);
    let shown = |uuids: &mut dyn Iterator<Item = Uuid>| -> String {
        let uuids: BTreeSet<String> =
            uuids.filter(|uuid| !without.contains(uuid)).map(|uuid| uuid.to_string()).collect();
        format!("{uuids:?}")
    };
    for (switch, row) in view.switches() {
        for ip in IPS.map(|text| text.parse::<IpAddr>().expect("an address")) {
            note(format!("{switch} {ip}"), shown(&mut view.holders(switch, ip).iter().copied()));
        }
        for mac in MACS {
            let holders = view.mac_holders(switch, mac.parse().expect("a MAC"));
            note(format!("{switch} {mac}"), shown(&mut holders.into_iter()));
        }
        if !row.ports.iter().any(|port| without.contains(port)) {
            note(format!("{switch} subnet"), format!("{:?}", view.subnet(switch)));
            let mut pool = view.pool(switch).cloned().unwrap_or_default();
            // A replica that was read again has no resting addresses.
            for ip in IPS.map(|text| text.parse::<IpAddr>().expect("an address")) {
                pool.rest_of(ip).into_iter().for_each(|rest| pool.end_rest(ip, rest));
            }
            for text in ["10.0.0.0/28", "10.1.0.0/24"] {
                let subnet = Subnet::new(Some(text), None, Some("fd00::"), []).expect("a subnet");
                let free = [true, false]
                    .map(|ipv4| pool.lowest_free(&subnet.spans(ipv4, None), &[], view.service_addresses(ipv4)));
                note(format!("{switch} free in {text}"), format!("{free:?}"));
            }
        }
    }
    for name in SWITCH_NAMES {
        note(format!("switch {name}"), shown(&mut view.switches_named(name)));
    }
    for name in PORT_NAMES {
        note(format!("port {name}"), shown(&mut view.port_named(name).map(|port| port.uuid).into_iter()));
    }
    for port in view.ports().filter(|port| !without.contains(&port.uuid)) {
        note(format!("switch of {}", port.uuid), format!("{:?}", port.switch));
    }
    for vm in VMS.map(|name| VmKey::new("n", name)) {
        let rows: BTreeSet<String> =
            view.ports_of(&vm).map(|(network, port)| format!("{network} {}", port.uuid)).collect();
        note(format!("ports of {vm}"), format!("{rows:?}"));
    }
    note("VMs".to_owned(), format!("{:?}", view.vms().collect::<BTreeSet<_>>()));
    answers
}
