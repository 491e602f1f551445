//! Big northbound databases, made fast: thousands of rows a transaction.

use serde_json::{Value, json};

use super::support::Northbound;

/// A switch's ports have 15-bit tunnel keys (ovn-architecture(7)): no real one has more than 32,767 ports.
pub(crate) const PORTS_PER_SWITCH: usize = 10_000;
/// Rows a transaction.
const ROWS: usize = 5_000;

/// Ports of pods as Kube-OVN writes them, on switches `pods-0`, `pods-1`, ... of [`PORTS_PER_SWITCH`] each.
pub(crate) fn foreign_ports(northbound: &Northbound, count: usize) {
    for switch in 0..count.div_ceil(PORTS_PER_SWITCH) {
        let subnet = format!("10.{}.0.0/16", 64 + switch);
        let name = format!("pods-{switch}");
        northbound.add_switch(&name, &[("subnet", &subnet)]);
        let ports = (0..PORTS_PER_SWITCH).take(count - switch * PORTS_PER_SWITCH);
        let ports: Vec<usize> = ports.collect();
        for rows in ports.chunks(ROWS) {
            let rows = rows.iter().map(|index| foreign_port(switch, *index));
            insert(northbound, &name, rows.collect());
        }
    }
}

/// A pod's port: a Deployment's pod name, its namespace, Kube-OVN's marks.
fn foreign_port(switch: usize, index: usize) -> Value {
    let hash = (switch * PORTS_PER_SWITCH + index).wrapping_mul(0x9e37_79b9) % 0x10_0000_0000;
    let (pod, namespace) =
        (format!("web-frontend-{hash:09x}-{:05x}", switch * PORTS_PER_SWITCH + index), format!("team-{}", index % 97));
    let ip = format!("10.{}.{}.{}", 64 + switch, (index + 2) / 256, (index + 2) % 256);
    let addresses = format!("00:00:00:{switch:02x}:{:02x}:{:02x} {ip}", index / 256, index % 256);
    json!({
        "name": format!("{pod}.{namespace}"),
        "addresses": addresses,
        "port_security": addresses,
        "up": true,
        "external_ids": ["map", [
            ["ip", ip], ["ls", format!("pods-{switch}")], ["pod", format!("{namespace}/{pod}")], ["vendor", "kube-ovn"],
        ]],
    })
}

/// Inserts port rows and has the switch of that name refer to them, in one transaction.
pub(crate) fn insert(northbound: &Northbound, switch: &str, rows: Vec<Value>) {
    let names: Vec<String> = (0..rows.len()).map(|index| format!("p{index}")).collect();
    let references: Vec<Value> = names.iter().map(|name| json!(["named-uuid", name])).collect();
    let insert = |(row, name): (Value, &String)| json!({"op": "insert", "table": "Logical_Switch_Port", "uuid-name": name, "row": row});
    let mut operations: Vec<Value> = rows.into_iter().zip(&names).map(insert).collect();
    operations.push(json!({"op": "mutate", "table": "Logical_Switch", "where": [["name", "==", switch]],
        "mutations": [["ports", "insert", ["set", references]]]}));
    northbound.transact(Value::Array(operations));
}
