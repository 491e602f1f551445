//! `ovn-kubevirt ports`: VM ports as the northbound database has them.

use std::io::Write;
use std::sync::Arc;

use crate::config::NorthboundOptions;
use crate::ovn::{Northbound, Owner, keys};
use crate::ovsdb::{Session, Shared, Target};

const HEADER: [&str; 6] = ["VM", "NETWORK", "PORT", "SWITCH", "ADDRESSES", "CHASSIS"];

/// Reads the database once and prints the table.
pub(super) async fn print(options: &NorthboundOptions) -> anyhow::Result<()> {
    let shared = Arc::new(Shared::new(Northbound::new(options.instance.clone())));
    // To look, any member of a cluster will do.
    let target = Target { leader_only: false, ..options.target() };
    let _connection = Session::new(target, Arc::clone(&shared)).connect().await?;
    let rows = rows(&shared.read());
    if rows.is_empty() {
        eprintln!("No VM ports of instance \"{}\" in {}.", options.instance, options.nb);
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(table(&rows).as_bytes()) {
        // `ports | head` closes the pipe early.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// One row a port, sorted by VM and network.
fn rows(view: &Northbound) -> Vec<[String; 6]> {
    let ours = view.ports().filter_map(|port| Some((Owner::of(&port.row.external_ids, view.instance())?, port)));
    let mut rows: Vec<[String; 6]> = ours
        .map(|(owner, port)| {
            let switch = port.switch.and_then(|switch| view.switch(&switch)).map(|switch| switch.name.clone());
            let addresses = port.row.addresses.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let chassis = port.row.options.get(keys::REQUESTED_CHASSIS).unwrap_or("-");
            [
                owner.vm.to_string(),
                owner.network,
                port.row.name.clone(),
                switch.unwrap_or_else(|| "-".to_owned()),
                addresses,
                chassis.to_owned(),
            ]
        })
        .collect();
    rows.sort_unstable();
    rows
}

/// Columns as wide as their widest cell, two spaces apart, as kubectl prints them.
fn table(rows: &[[String; 6]]) -> String {
    let header = HEADER.map(str::to_owned);
    let lines: Vec<&[String; 6]> = std::iter::once(&header).chain(rows).collect();
    let widths: Vec<usize> =
        (0..HEADER.len()).map(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |vm: &str, chassis: &str| {
            [vm, "default", "a.b", "ovn-default", "0a:58:0a:10:00:02 10.16.0.2", chassis].map(str::to_owned)
        };
        let text = table(&[row("b/a", "n1"), row("longer/name", "-")]);
        assert_eq!(
            text,
            "VM            NETWORK   PORT   SWITCH        ADDRESSES                     CHASSIS\n\
             b/a           default   a.b    ovn-default   0a:58:0a:10:00:02 10.16.0.2   n1\n\
             longer/name   default   a.b    ovn-default   0a:58:0a:10:00:02 10.16.0.2   -\n"
        );
    }
}
