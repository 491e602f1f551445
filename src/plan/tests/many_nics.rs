//! More NICs than any VM has: an algorithm that is quadratic in them, or worse, takes minutes here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::world::{map, port_changes, settings, uuid};
use crate::contract::VmKey;
use crate::intent::{Binding, Life, Placement, PortIntent, Request, Seat, SwitchRequest, VmIntent};
use crate::kubevirt::Cluster;
use crate::ovn::{LogicalSwitch, Northbound};
use crate::plan::decide::decide_intent;
use crate::plan::{Claims, Decision, RowChange, Seen, Settling, Snapshot};

const MANY: u16 = 3_000;

/// A NIC on a NAD of its own. Each second one requests an address.
fn nic(index: u16, network: &str, requested: Option<u16>) -> PortIntent {
    let ipv4 = requested.map(|at| Ipv4Addr::from(0x0a01_0000 + u32::from(at)));
    PortIntent {
        network: format!("{network}-{index}"),
        base_name: format!("vm.n.nad-{index}.n.ovn"),
        ambiguous: None,
        another_before: false,
        switch: Some(SwitchRequest::new("blue", true)),
        on_none_of_ours: false,
        missing_nad: None,
        nads: Vec::new(),
        seat: Seat::default(),
        arrived: None,
        pod_port: None,
        binding: Binding::Bridge,
        life: Life::Stopped { request: Ok(Request { ipv4, ..Request::default() }), next: None },
        placement: Placement::Unbound,
        unserved: Vec::new(),
    }
}

fn plan(northbound: &Northbound, nics: impl Iterator<Item = PortIntent>) -> Decision {
    let intent = VmIntent {
        selected: true,
        vm: VmKey::new("n", "vm"),
        uid: Some("u".into()),
        ports: nics.collect(),
        untouched: Some(BTreeSet::new()),
        placement: Placement::Unbound,
        apart: BTreeMap::new(),
        retain: None,
        invalid: Vec::new(),
        unserved: Vec::new(),
        unmatched: Vec::new(),
        misplaced: Vec::new(),
    };
    let (cluster, settling, settings) = (Cluster::default(), Settling::default(), settings());
    let snapshot = Snapshot::new(northbound, &cluster, Seen::Never(&settling), &settings, 0);
    decide_intent(&snapshot, &Claims::default(), &intent, None)
}

fn apply(northbound: &mut Northbound, plan: &Decision) {
    for change in &port_changes(&plan.rows) {
        if let Some(after) = &change.after {
            northbound.put_port(change.uuid, after.row.clone());
        }
    }
    let ports = plan.rows.iter().map(RowChange::uuid).collect();
    let other_config = map([("subnet", "10.0.0.0/15")]);
    northbound
        .put_switch(uuid(1, 0), LogicalSwitch { name: "blue".into(), other_config, ports, ..LogicalSwitch::default() });
}

#[test]
fn thousands_of_nics_get_their_ports_are_renamed_and_exchange_their_addresses() {
    let mut northbound = Northbound::new("default");
    apply(&mut northbound, &Decision::default());
    let requested = |index: u16| index.is_multiple_of(2).then_some(index);
    let made = plan(&northbound, (0..MANY).map(|index| nic(index, "net", requested(index))));
    let problems: Vec<_> = made.status.problems().collect();
    assert_eq!((made.rows.len(), problems), (usize::from(MANY), vec![]));
    apply(&mut northbound, &made);

    // Each network has another name now, and each pair of those that request an address the other's.
    let exchanged = |index: u16| requested(index).map(|index| if index % 4 == 0 { index + 2 } else { index - 2 });
    let renamed = plan(&northbound, (0..MANY).map(|index| nic(index, "other", requested(index))));
    let stay = port_changes(&renamed.rows).iter().all(|change| change.before.is_some() && change.after.is_some());
    assert!(!renamed.waits.batch && stay);
    assert_eq!(renamed.rows.len(), usize::from(MANY));
    apply(&mut northbound, &renamed);
    let swapped = plan(&northbound, (0..MANY).map(|index| nic(index, "other", exchanged(index))));
    assert!(!swapped.waits.batch, "all exchange at once");
    assert_eq!(swapped.rows.len(), usize::from(MANY / 2));
    let problems = swapped.status.problems().count();
    assert_eq!(problems, 0);
}
