//! The lease of a row of ours, also after drift.

use uuid::Uuid;

use crate::ovn::{Addresses, Elements, LogicalSwitchPort, Northbound, PortRef, Secured};

/// The lease of a row as we write it: `addresses` and `port_security` have the same one, or only one of them is set.
pub(super) fn written(row: &LogicalSwitchPort) -> Option<Addresses> {
    row.addresses.nics().next().or_else(|| row.port_security.secured().map(|secured| secured.lease).next())
}

/// The reservation for the next start.
pub(super) fn reserved(row: &LogicalSwitchPort) -> Option<Addresses> {
    row.external_ids.reserved()
}

/// The lease of a port: the value in both columns. If they have nothing in common, `port_security` is the lease, from
/// which an overwritten `addresses` is repaired. An unclaimed value is preferred, and a value that another port of ours
/// holds is never the lease: then that column has drifted.
pub(super) fn lease(view: &Northbound, port: &PortRef<'_>) -> Option<Addresses> {
    let row = port.row;
    let secured = || row.port_security.secured().map(|secured| secured.lease);
    let in_force = || row.addresses.nics();
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
    // If both values have other holders, a value in force elsewhere is not given to a second port.
    let unclaimed = |addresses: &Addresses| {
        let holds = |other: &Uuid| view.port(other).is_some_and(|other| is_in_force(view, &other, addresses));
        !others(addresses).iter().any(holds)
    };
    secured().chain(in_force()).find(is_nobodys).or_else(|| in_force().chain(secured()).find(unclaimed))
}

/// Returns true if a row of ours has any of these addresses for its guest, now or from the next start on. A value that
/// was only written into `port_security` does not count.
fn is_in_force(view: &Northbound, port: &PortRef<'_>, addresses: &Addresses) -> bool {
    let row = port.row;
    let is_overwritten = row.addresses.nics().next().is_none();
    let secured = row.port_security.secured().map(|secured| secured.lease);
    let of_guest = row.addresses.nics().chain(secured.filter(|_| is_overwritten));
    let shares =
        |held: Addresses| held.mac == addresses.mac || held.ips().any(|ip| addresses.ips().any(|own| own == ip));
    row.is_of(&port.uuid, view.instance()) && of_guest.chain(reserved(row)).any(shares)
}

/// Restores the lease of a row that has drifted, and keeps the rest of the row. Without a lease, the addresses in the
/// row are removed: they may be another's.
pub(super) fn repair(row: &LogicalSwitchPort, lease: Option<&Addresses>) -> LogicalSwitchPort {
    let addresses = lease.copied().map(Elements::from).unwrap_or_default();
    let secured = lease.filter(|_| !row.port_security.is_empty()).map(|lease| readdressed(&row.port_security, *lease));
    let port_security = secured.map(Elements::from).unwrap_or_default();
    LogicalSwitchPort { port_security, addresses, ..row.clone() }
}

/// Port security for a lease, which keeps what the guest may speak with besides.
pub(super) fn readdressed(port_security: &Elements, lease: Addresses) -> Secured {
    let besides = port_security.secured().find(|secured| secured.lease == lease);
    let besides = besides.or_else(|| port_security.secured().next());
    Secured { lease, ..besides.unwrap_or_else(|| lease.into()) }
}
