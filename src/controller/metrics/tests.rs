//! Rows for the metrics of switches, and one of every metric for the test of `docs/metrics.md`.

use super::*;
use crate::contract::keys;
use crate::controller::link::Link;
use crate::kubevirt::Kind;
use crate::ovn::{LogicalSwitch, LogicalSwitchPort};
use crate::plan::Problem;
use uuid::Uuid;

/// Puts a switch in place.
pub(super) fn switch(view: &mut Northbound, number: u128, name: &str, config: &[(&str, &str)]) {
    let other_config = config.iter().copied().collect();
    view.put_switch(Uuid::from_u128(number), LogicalSwitch { name: name.into(), other_config, ..Default::default() });
}

/// Puts a port of ours on a switch.
pub(super) fn port(view: &mut Northbound, number: u128, switch: u128, address: &str, chassis: Option<&str>) {
    let vm = format!("n/vm-{number}");
    let marks =
        [(keys::VENDOR, keys::OUR_VENDOR), (keys::INSTANCE, "default"), (keys::VM, &vm), (keys::NETWORK, "default")];
    let row = LogicalSwitchPort {
        name: format!("port-{number}"),
        addresses: [format!("0a:58:00:00:00:{number:02x} {address}")].into_iter().collect(),
        options: chassis.map(|chassis| (keys::REQUESTED_CHASSIS, chassis)).into_iter().collect(),
        external_ids: marks.into_iter().collect(),
        ..LogicalSwitchPort::default()
    };
    view.put_port(Uuid::from_u128(1_000 + number), row);
    view.place_port(Uuid::from_u128(1_000 + number), Some(Uuid::from_u128(switch)));
}

impl Metrics {
    /// Metrics of a process with a sample of each.
    pub(crate) fn complete() -> Self {
        let metrics = Self::default();
        metrics.health.received(Kind::Vm);
        metrics.problems().add(&VmStatus::of_problem(Problem::SwitchNotFound("blue".into())));
        let mut view = Northbound::new("default");
        switch(&mut view, 1, "red", &[("subnet", "10.0.0.0/24")]);
        port(&mut view, 1, 1, "10.0.0.9", None);
        let (northbound, southbound) = (Arc::new(Shared::new(view)), Arc::new(Shared::new(Southbound::default())));
        northbound.hear();
        let status = Status::new(tokio::sync::watch::channel(Link::default()).1);
        metrics.observe(Observed { northbound, southbound: Some(southbound), status });
        metrics
    }
}
