//! The names of ports, and the UUIDs that follow from them.

use uuid::Uuid;

use super::{NadKey, VmKey};

impl VmKey {
    /// The port's name on the pod network: `<vm>.<namespace>`, as in Kube-OVN.
    pub fn port_name(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }

    /// The VM of a port's name, read as Kube-OVN writes it; `None` for a name that no port of a VM has. A VM's name,
    /// and a NAD's, may have dots, so the name alone is no proof: see [`VmKey::candidates`].
    pub(crate) fn of_port_name(name: &str) -> Option<Self> {
        let labels: Vec<&str> = name.split('.').collect();
        // The network's name may follow the part for a NAD.
        let namespace = match labels[..] {
            [.., "ovn"] if labels.len() >= 5 => labels.len() - 4,
            [.., "ovn", _] if labels.len() >= 6 => labels.len() - 5,
            _ => labels.len() - 1,
        };
        Self::candidates(name).find(|vm| vm.name.split('.').count() == namespace)
    }

    /// Returns true if a port's name begins as those of the VM's ports do.
    pub(crate) fn has_named(&self, port_name: &str) -> bool {
        begins_as_a_port_of(&self.namespace, &self.name, port_name)
    }

    /// All VMs that a port of this name may belong to: a namespace has no dot.
    pub(crate) fn candidates(name: &str) -> impl Iterator<Item = Self> {
        let dots = name.match_indices('.').map(|(at, _)| at);
        dots.filter_map(|dot| {
            let (vm, rest) = (&name[..dot], &name[dot + 1..]);
            let namespace = rest.split('.').next().unwrap_or_default();
            (!vm.is_empty() && !namespace.is_empty()).then(|| Self::new(namespace, vm))
        })
    }

    /// The port's name on a NAD: `<vm>.<namespace>.<nad>.<nad-namespace>.ovn`, as in Kube-OVN.
    pub fn port_name_on(&self, nad: &NadKey) -> String {
        format!("{}.{}", self.port_name(), nad.provider())
    }

    /// The number of labels of the NAD's name (0 for the pod network, `nad` of `None`) if the name of the VM's port
    /// there may be read as another VM's; `None` if the plain name belongs to this VM.
    ///
    /// The names of VMs and NADs may have dots, those of namespaces have none. Of the readings of `a.b.c.d.e.ovn`, the
    /// plain name goes to the one on a NAD whose own name has no dot, since VMs are named like hosts more often than
    /// NADs are. On the pod network a plain name has no label `ovn` after its fourth: a name with one may be a name on
    /// a NAD, or such a name with a network appended.
    pub fn has_another_reading(&self, nad: Option<&NadKey>) -> Option<usize> {
        match nad {
            None => {
                let mut labels = self.name.split('.').chain([self.namespace.as_str()]);
                labels.by_ref().take(4).for_each(drop);
                labels.any(|label| label == "ovn").then_some(0)
            }
            Some(nad) => Some(nad.name.split('.').count()).filter(|labels| *labels > 1),
        }
    }
}

/// Returns true if a port's name begins as those of this VM's ports do.
pub(crate) fn begins_as_a_port_of(namespace: &str, name: &str, port_name: &str) -> bool {
    let rest = port_name.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
    let rest = rest.and_then(|rest| rest.strip_prefix(namespace));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A UUIDv4 made once for the UUIDs of our rows.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_9a52_43c7_4e0b_9b1e_5a0c_d2f8_7314);

/// The UUID of a row of `DHCP_Options` by its content: equal rows are one row, and a row with another content is
/// another row. `port` has the row for itself.
pub fn dhcp_uuid<'o>(
    instance: &str,
    switch: &str,
    port: Option<&str>,
    cidr: &str,
    options: impl Iterator<Item = (&'o str, &'o str)>,
) -> Uuid {
    let mut text = format!("DHCP_Options/{instance}");
    // Each part with its length: no two lists of parts give one text.
    let mut add = |part: &str| text.push_str(&format!("/{}:{part}", part.len()));
    add(switch);
    add(port.unwrap_or_default());
    add(cidr);
    options.for_each(|(key, value)| {
        add(key);
        add(value);
    });
    Uuid::new_v5(&NAMESPACE, text.as_bytes())
}

/// The UUID of a row of ours, the same at every attempt: a repeated insert collides with the first one, so it cannot
/// make a second row.
pub fn port_uuid(instance: &str, port_name: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("Logical_Switch_Port/{instance}/{port_name}").as_bytes())
}
