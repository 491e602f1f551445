//! The host name of a guest.

use super::domain::is_label;

/// The value of `options:hostname` of a VM's port, with the quotation marks that OVN needs in it: a name without them
/// takes DHCPv4 from the port.
///
/// It is the name that KubeVirt gives to the guest of a VM without `spec.hostname`: the first label of the VM's name,
/// cut to 63 bytes. `None` if that is not a label of RFC 1123.
pub fn hostname(name: &str) -> Option<String> {
    let label = name.split('.').next().unwrap_or_default();
    let cut = label.get(..label.len().min(63))?.trim_end_matches('-');
    (is_label(cut) && !cut.contains('_')).then(|| format!("\"{cut}\""))
}
