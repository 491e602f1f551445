//! The metrics of each switch: its ports and its addresses, read from the indexes of the replica at each scrape.
//!
//! The label `switch` is bounded: the 500 switches with the most ports of ours have series of their own, and all others
//! are added up as `other`. Switches of one name are added up, too: OVN does not make names unique, and a series is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use uuid::Uuid;

use super::Observed;
use crate::escaped::Escaped;
use crate::ipam::AddressUse;
use crate::ovn::{Northbound, PortState, SwitchUse};
use crate::ovsdb::Shared;

/// The most switches with series of their own.
pub(super) const MOST_SWITCHES: usize = 500;
/// The label of all other switches. One of this very name is among them.
const OTHER: &str = "other";
/// The number of switches that are looked at before the replica is unlocked for its writer.
const AT_ONCE: usize = 32;

/// Encodes the metrics of switches at each scrape.
#[derive(Debug)]
pub(super) struct Switches(pub(super) Arc<OnceLock<Observed>>);

/// The sum of some switches.
#[derive(Debug, Default, PartialEq)]
struct Total {
    ports: [u64; PortState::ALL.len()],
    ipv4: Option<(f64, f64)>,
    ipv6: Option<(f64, f64)>,
    conflicts: u64,
}

impl Total {
    fn add(&mut self, SwitchUse { ports, ipv4, ipv6, conflicts }: SwitchUse) {
        self.ports.iter_mut().zip(ports).for_each(|(sum, ports)| *sum += u64::from(ports));
        for (sum, more) in [(&mut self.ipv4, ipv4), (&mut self.ipv6, ipv6)] {
            if let Some(AddressUse { used, free }) = more {
                let (used_so_far, free_so_far) = sum.unwrap_or_default();
                *sum = Some((used_so_far + used as f64, free_so_far + free as f64));
            }
        }
        self.conflicts += conflicts as u64;
    }
}

/// The label of a switch: its name, escaped and cut where it is longer than a name of OVN is in practice.
fn label(name: &str) -> String {
    Escaped(name).to_string()
}

/// The switches by the label that they are counted under.
fn labelled(view: &Northbound, most: usize) -> BTreeMap<String, Vec<Uuid>> {
    let mut by_name: HashMap<String, (u32, Vec<Uuid>)> = HashMap::new();
    for (uuid, name, ports) in view.switch_sizes() {
        let (sum, uuids) = by_name.entry(label(name)).or_default();
        *sum += ports;
        uuids.push(uuid);
    }
    let (mut labelled, mut other) =
        (BTreeMap::new(), by_name.remove(OTHER).map(|(_, uuids)| uuids).unwrap_or_default());
    let mut largest: Vec<(String, (u32, Vec<Uuid>))> = by_name.into_iter().collect();
    largest.sort_unstable_by(|(one, (ports, _)), (next, (more, _))| (Reverse(ports), one).cmp(&(Reverse(more), next)));
    for (index, (name, (_, uuids))) in largest.into_iter().enumerate() {
        if index < most {
            labelled.insert(name, uuids);
        } else {
            other.extend(uuids);
        }
    }
    if !other.is_empty() {
        labelled.insert(OTHER.to_owned(), other);
    }
    labelled
}

/// The sums by label. The replica is locked for some switches at a time, so that a scrape keeps no update waiting.
fn totals(northbound: &Shared<Northbound>, most: usize) -> BTreeMap<String, Total> {
    let labelled = labelled(&northbound.read(), most);
    let all: Vec<(&String, Uuid)> =
        labelled.iter().flat_map(|(label, uuids)| uuids.iter().map(move |uuid| (label, *uuid))).collect();
    let mut totals: BTreeMap<String, Total> = BTreeMap::new();
    for some in all.chunks(AT_ONCE) {
        let view = northbound.read();
        for (label, uuid) in some {
            totals.entry((*label).clone()).or_default().add(view.switch_use(uuid));
        }
    }
    totals
}

impl Collector for Switches {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(observed) = self.0.get() else { return Ok(()) };
        let totals = totals(&observed.northbound, MOST_SWITCHES);
        let with_ports = || totals.iter().filter(|(_, total)| total.ports.iter().any(|ports| *ports > 0));
        let help = "Ports of this instance, by switch and state: bound to a chassis, moving between two, unbound, or retained for a deleted VM.";
        let mut metric = encoder.encode_descriptor("ports", help, None, MetricType::Gauge)?;
        for (switch, total) in with_ports() {
            for (state, ports) in PortState::ALL.into_iter().zip(total.ports) {
                let labels = [("switch", switch.as_str()), ("state", state.label())];
                ConstGauge::new(ports).encode(metric.encode_family(&labels)?)?;
            }
        }
        let help = "Addresses and MACs that a port of this instance and another port of the switch hold.";
        let mut metric = encoder.encode_descriptor("conflicts", help, None, MetricType::Gauge)?;
        for (switch, total) in with_ports() {
            ConstGauge::new(total.conflicts).encode(metric.encode_family(&[("switch", switch.as_str())])?)?;
        }
        let used = "Addresses of a switch's subnet, without those that are excluded, that a port holds or that OVN answers for.";
        let free = "Addresses of a switch's subnet, without those that are excluded, that are free or at rest.";
        for (name, help, is_used) in [("addresses_used", used, true), ("addresses_free", free, false)] {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (switch, total) in &totals {
                for (family, counts) in [("ipv4", total.ipv4), ("ipv6", total.ipv6)] {
                    let Some((used, free)) = counts else { continue };
                    let labels = [("switch", switch.as_str()), ("family", family)];
                    let count = if is_used { used } else { free };
                    ConstGauge::new(count).encode(metric.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{port, switch};
    use super::*;

    #[test]
    fn the_largest_switches_have_series_and_the_others_are_added_up() {
        let mut view = Northbound::new("default");
        let subnet = [("subnet", "10.0.0.0/24"), ("exclude_ips", "10.0.0.2..10.0.0.4")];
        switch(&mut view, 1, "large", &subnet);
        switch(&mut view, 2, "small", &subnet);
        switch(&mut view, 3, "other", &subnet);
        switch(&mut view, 4, "twin", &[("ipv6_prefix", "fd00::")]);
        switch(&mut view, 5, "twin", &[]);
        port(&mut view, 1, 1, "10.0.0.9", Some("hv1"));
        port(&mut view, 2, 1, "10.0.0.10", Some("hv1,hv2"));
        port(&mut view, 3, 1, "10.0.0.10", None);
        port(&mut view, 4, 3, "10.0.0.9", None);
        port(&mut view, 5, 4, "fd00::9", None);
        port(&mut view, 6, 5, "10.0.0.9", None);
        let totals = totals(&Shared::new(view), 2);
        assert_eq!(totals.keys().collect::<Vec<_>>(), ["large", "other", "twin"]);
        // From the third host address on, 10.0.0.5 to 10.0.0.254: 250.
        let large = Total { ports: [1, 1, 1, 0], ipv4: Some((2.0, 248.0)), ipv6: None, conflicts: 1 };
        assert_eq!(totals["large"], large);
        let other = Total { ports: [1, 0, 0, 0], ipv4: Some((1.0, 499.0)), ipv6: None, conflicts: 0 };
        assert_eq!(totals["other"], other, "the small one, and the one of that name");
        // Two to the 64 but for the anycast address and the first host address.
        let twin = Total { ports: [2, 0, 0, 0], ipv4: None, ipv6: Some((1.0, (u64::MAX - 2) as f64)), conflicts: 0 };
        assert_eq!(totals["twin"], twin);
    }

    #[test]
    fn a_name_cannot_break_out_of_its_label() {
        assert_eq!(label("ovn-default"), "ovn-default");
        assert_eq!(label("a\nb\"} 1"), "a\\nb\\\"} 1");
        assert!(label(&"x".repeat(10_000)).len() < 200);
    }
}
