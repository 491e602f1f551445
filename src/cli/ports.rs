//! `ovn-kubevirt ports`: the VM ports in the databases.

use std::io::Write;
use std::sync::Arc;

use clap::Args;

use crate::config::NorthboundOptions;
use crate::contract::keys;
use crate::ovn::{Northbound, Southbound};
use crate::ovsdb::{Remotes, Replica, Session, Shared, Target};

/// The state comes from the southbound, if `--sb` names one.
const HEADER: [&str; 7] = ["VM", "NETWORK", "PORT", "SWITCH", "ADDRESSES", "CHASSIS", "STATE"];

/// Options of `ports`.
#[derive(Debug, Clone, Args)]
pub(super) struct PortsOptions {
    #[command(flatten)]
    northbound: NorthboundOptions,

    /// The southbound database, written as --nb: shows where each port is bound
    #[arg(long, env = "OVN_KUBEVIRT_SB", value_name = "REMOTES")]
    sb: Option<Remotes>,
}

/// Reads the databases once and prints the table.
pub(super) async fn print(options: &PortsOptions) -> anyhow::Result<()> {
    let PortsOptions { northbound: options, sb } = options;
    // Any member of a cluster can be read.
    let target = Target { leader_only: false, ..options.target() };
    let southbound = match sb {
        Some(remotes) => {
            Some(read(Target { remotes: remotes.clone(), ..target.clone() }, Southbound::default()).await?)
        }
        None => None,
    };
    let northbound = read(target, Northbound::new(options.instance.clone())).await?;
    let rows = rows(&northbound.read(), southbound.as_ref().map(|southbound| southbound.read()).as_deref());
    if rows.is_empty() {
        eprintln!("No VM ports of instance \"{}\" in {}.", options.instance, options.nb);
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(table(&rows, southbound.is_some()).as_bytes()) {
        // `ports | head` closes the pipe early.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// A replica at one moment.
async fn read<R: Replica>(target: Target, replica: R) -> anyhow::Result<Arc<Shared<R>>> {
    let shared = Arc::new(Shared::new(replica));
    Session::new(target, Arc::clone(&shared)).connect().await?;
    Ok(shared)
}

/// One row for each port, sorted by VM and network.
fn rows(view: &Northbound, southbound: Option<&Southbound>) -> Vec<[String; 7]> {
    let ours = view.ports().filter_map(|port| Some((port.row.owner(&port.uuid, view.instance())?, port)));
    let mut rows: Vec<[String; 7]> = ours
        .map(|(owner, port)| {
            let switch = port.switch.and_then(|switch| view.switch(&switch)).map(|switch| switch.name.clone());
            let addresses = port.row.addresses.iter().collect::<Vec<_>>().join(", ");
            let chassis = port.row.options.get(keys::REQUESTED_CHASSIS).unwrap_or("-");
            let bound = southbound.and_then(|southbound| southbound.bound(&port.row.name));
            [
                owner.vm.to_string(),
                owner.network,
                port.row.name.clone(),
                switch.unwrap_or_else(|| "-".to_owned()),
                addresses,
                chassis.to_owned(),
                bound.map_or_else(|| "not in the southbound yet".to_owned(), |bound| bound.to_string()),
            ]
        })
        .collect();
    rows.sort_unstable();
    rows
}

/// Columns as wide as their widest cell, three spaces apart, as kubectl prints them.
fn table(rows: &[[String; 7]], with_state: bool) -> String {
    let header = HEADER.map(str::to_owned);
    let columns = if with_state { HEADER.len() } else { HEADER.len() - 1 };
    let lines: Vec<&[String]> =
        std::iter::once(&header).chain(rows).map(|line| line.get(..columns).unwrap_or_default()).collect();
    let widths: Vec<usize> =
        (0..columns).map(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0)).collect();
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
            [vm, "default", "a.b", "ovn-default", "0a:58:0a:10:00:02 10.16.0.2", chassis, "on n1"].map(str::to_owned)
        };
        let rows = [row("b/a", "n1"), row("longer/name", "-")];
        let text = table(&rows, false);
        assert_eq!(
            text,
            "VM            NETWORK   PORT   SWITCH        ADDRESSES                     CHASSIS\n\
             b/a           default   a.b    ovn-default   0a:58:0a:10:00:02 10.16.0.2   n1\n\
             longer/name   default   a.b    ovn-default   0a:58:0a:10:00:02 10.16.0.2   -\n"
        );
        let first = table(&rows, true).lines().next().map(str::to_owned).unwrap_or_default();
        assert!(first.ends_with("CHASSIS   STATE"), "{first}");
    }
}
