//! What a row of ours holds, also where somebody has written into it.

use uuid::Uuid;

use crate::ovn::{Addresses, LogicalSwitchPort, Northbound, PortRef, keys};

/// The lease of a row as we write it: `addresses` and `port_security` say the same, or the one that is there says it.
pub(super) fn written(row: &LogicalSwitchPort) -> Option<Addresses> {
    of_nic(row.addresses.iter()).next().or_else(|| of_nic(row.port_security.iter()).next())
}

/// What is reserved for the next start.
pub(super) fn reserved(row: &LogicalSwitchPort) -> Option<Addresses> {
    row.external_ids.get(keys::NEXT_ADDRESSES)?.parse().ok()
}

/// The lease of a port: what both columns say. Where they have nothing in common, `port_security`, from which `addresses`
/// are healed that somebody overwrote; but rather what nobody else has, and never what another port of ours has: then it
/// was that column that somebody wrote into.
pub(super) fn lease(view: &Northbound, port: &PortRef<'_>) -> Option<Addresses> {
    let row = port.row;
    let secured = || of_nic(row.port_security.iter());
    let in_force = || of_nic(row.addresses.iter());
    if row.addresses == row.port_security {
        return secured().next();
    }
    if let Some(in_both) = in_force().find(|addresses| secured().any(|secured| secured == *addresses)) {
        return Some(in_both);
    }
    let Some(switch) = port.switch else { return secured().chain(in_force()).next() };
    let others = |addresses: &Addresses| -> Vec<Uuid> {
        let of_ips = addresses.ips().flat_map(|ip| view.holders(&switch, ip).iter().copied());
        of_ips.chain(view.mac_holders(&switch, addresses.mac)).filter(|other| *other != port.uuid).collect()
    };
    let is_nobodys = |addresses: &Addresses| {
        others(addresses).is_empty() && addresses.ips().all(|ip| view.service(&switch, ip).is_none())
    };
    // Where each is somebody's, what is in force is not given anew.
    let unclaimed = |addresses: &Addresses| {
        let holds = |other: &Uuid| view.port(other).is_some_and(|other| is_in_force(view, &other, addresses));
        !others(addresses).iter().any(holds)
    };
    secured().chain(in_force()).find(is_nobodys).or_else(|| in_force().chain(secured()).find(unclaimed))
}

/// Whether a row of ours has any of these for its guest, now or from the next start on: not only where somebody wrote it
/// into `port_security`.
fn is_in_force(view: &Northbound, port: &PortRef<'_>, addresses: &Addresses) -> bool {
    let row = port.row;
    let is_overwritten = of_nic(row.addresses.iter()).next().is_none();
    let of_guest = of_nic(row.addresses.iter()).chain(of_nic(row.port_security.iter()).filter(|_| is_overwritten));
    let shares =
        |held: Addresses| held.mac == addresses.mac || held.ips().any(|ip| addresses.ips().any(|own| own == ip));
    row.is_of(&port.uuid, view.instance()) && of_guest.chain(reserved(row)).any(shares)
}

/// Restores the lease of a row that stays as it is otherwise, where it has drifted. Without a lease, nothing in the row is
/// its own: what is in it may be another's.
pub(super) fn repair(row: &LogicalSwitchPort, lease: Option<&Addresses>) -> LogicalSwitchPort {
    let text = lease.map(ToString::to_string);
    let port_security = text.iter().filter(|_| !row.port_security.is_empty()).cloned().collect();
    LogicalSwitchPort { port_security, addresses: text.into_iter().collect(), ..row.clone() }
}

/// Those that are a NIC's, of the elements of a column.
fn of_nic<'a>(elements: impl Iterator<Item = &'a str>) -> impl Iterator<Item = Addresses> {
    elements.filter_map(|text| text.parse().ok())
}
