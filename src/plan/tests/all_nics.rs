//! Several NICs of one VM: they move together.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::world::{map, port_changes, settings, uuid};
use crate::contract::{VmKey, keys};
use crate::intent::{Binding, Life, Placement, PortIntent, Request, Seat, SwitchRequest, VmIntent};
use crate::kubevirt::Cluster;
use crate::ovn::{LogicalSwitch, Northbound};
use crate::ovsdb::{Datum, Operation};
use crate::plan::decide::decide_intent;
use crate::plan::{Claims, Decision, PortChange, Queue, RowChange, Seen, Settling, Snapshot, Turn};

const NETWORKS: [&str; 3] = ["default", "red", "blue"];

fn nic(network: &str) -> PortIntent {
    PortIntent {
        network: network.to_owned(),
        base_name: format!("vm.n.{network}.n.ovn"),
        ambiguous: None,
        another_before: false,
        switch: Some(SwitchRequest::new(network, true)),
        on_none_of_ours: false,
        missing_nad: None,
        nads: Vec::new(),
        seat: Seat::default(),
        arrived: None,
        pod_port: None,
        binding: Binding::Bridge,
        life: Life::Running { now: Ok(Request::default()), next: None },
        placement: Placement::Unbound,
        unserved: Vec::new(),
    }
}

fn intent(placement: Placement) -> VmIntent {
    let nics = NETWORKS.map(|network| PortIntent { placement: placement.clone(), ..nic(network) }).into();
    VmIntent {
        vm: VmKey::new("n", "vm"),
        uid: Some("u".into()),
        selected: true,
        ports: nics,
        untouched: None,
        placement,
        apart: BTreeMap::new(),
        retain: None,
        invalid: Vec::new(),
        unserved: Vec::new(),
        unmatched: Vec::new(),
        misplaced: Vec::new(),
    }
}

fn on(home: &str, target: Option<&str>) -> Placement {
    Placement::On { home: home.to_owned(), target: target.map(ToOwned::to_owned), arrived: false }
}

struct Ports {
    northbound: Northbound,
    settling: Settling,
}

impl Ports {
    /// Three switches, and the VM's port on each, at home on n1.
    fn new() -> Self {
        let mut northbound = Northbound::new("default");
        for (slot, name) in (0..).zip(NETWORKS) {
            let subnet = format!("10.{slot}.0.0/24");
            let other_config = map([("subnet", subnet.as_str())]);
            northbound
                .put_switch(uuid(1, slot), LogicalSwitch { name: name.into(), other_config, ..Default::default() });
        }
        let mut settling = Settling::default();
        settling.committed(0, []);
        let mut ports = Self { northbound, settling };
        // Names are given one after the other.
        while !ports.commit(on("n1", None)).is_empty() {}
        assert_eq!(ports.requested(), ["n1"; 3]);
        ports
    }

    fn plan(&self, placement: Placement) -> Decision {
        let (cluster, settings) = (Cluster::default(), settings());
        let southbound = Seen::Never(&self.settling);
        let snapshot = Snapshot::new(&self.northbound, &cluster, southbound, &settings, 0);
        decide_intent(&snapshot, &Claims::default(), &intent(placement), None)
    }

    fn commit(&mut self, placement: Placement) -> Vec<PortChange> {
        let changes = port_changes(&self.plan(placement).rows);
        for change in &changes {
            let placed = change.after.clone().expect("no port goes");
            self.northbound.put_port(change.uuid, placed.row);
            self.northbound.place_port(change.uuid, Some(placed.switch));
        }
        changes
    }

    fn requested(&self) -> Vec<String> {
        let vm = VmKey::new("n", "vm");
        let of =
            |(_, port): (_, crate::ovn::PortRef<'_>)| port.row.options.get(keys::REQUESTED_CHASSIS).map(str::to_owned);
        self.northbound.ports_of(&vm).filter_map(of).collect()
    }
}

#[test]
fn all_nics_of_a_vm_are_opened_and_moved_by_one_transaction() {
    let mut ports = Ports::new();
    for (placement, requested) in [(on("n1", Some("n2")), "n1,n2"), (on("n2", None), "n2"), (Placement::Unbound, "")] {
        let changes = ports.commit(placement);
        assert_eq!(changes.len(), 3);
        let expected: &[&str] = if requested.is_empty() { &[] } else { &[requested; 3] };
        assert_eq!(ports.requested(), expected);
    }
}

/// Keys of others are not even read: each of our keys is removed and inserted by itself (ovn-nb(5) has some thirty
/// others in `options`).
#[test]
fn only_our_own_keys_of_the_options_are_written() {
    let ports = Ports::new();
    let changes = ports.plan(on("n1", Some("n2"))).rows;
    let ours = [keys::REQUESTED_CHASSIS, keys::ACTIVATION_STRATEGY];
    for operation in changes.iter().flat_map(RowChange::operations) {
        let Operation::Mutate { table: "Logical_Switch_Port", mutations, .. } = &operation else {
            panic!("{operation:?}")
        };
        for mutation in mutations {
            assert_eq!(mutation.column, "options");
            let keys: Vec<String> = match &mutation.value {
                Datum::Map(pairs) => pairs.iter().map(|(key, _)| key.clone()).collect(),
                Datum::Set(atoms) => {
                    atoms.iter().map(|atom| format!("{atom:?}")).map(|text| text.replace(['"', '(', ')'], "")).collect()
                }
                other => panic!("{other:?}"),
            };
            let is_ours = |key: &String| ours.iter().any(|ours| key.ends_with(ours));
            assert!(!keys.is_empty() && keys.iter().all(is_ours), "{keys:?}");
        }
    }
}

/// A VM's ports collapse together, and together wait for northd.
#[test]
fn no_nic_is_opened_again_before_its_collapse_is_processed() {
    let mut ports = Ports::new();
    ports.commit(on("n1", Some("n2")));
    let collapsed = ports.commit(on("n1", None));
    ports.settling.committed(1, collapsed.iter().map(|change| change.uuid));
    let plan = ports.plan(on("n1", Some("n3")));
    assert!(plan.rows.is_empty() && plan.waits.wakes.len() == 3, "{plan:?}");
    ports.settling.processed(1);
    let uuids = |changes: &[PortChange]| changes.iter().map(|change| change.uuid).collect::<Vec<Uuid>>();
    // northd has come so far, and says so in the replica.
    ports.northbound.put_global(crate::ovn::NbGlobal { nb_cfg: 1, sb_cfg: 1, ..Default::default() });
    assert_eq!(uuids(&port_changes(&ports.plan(on("n1", Some("n3"))).rows)), uuids(&collapsed));
}

#[test]
fn a_vm_that_migrates_goes_before_all_that_wait() {
    let mut queue = Queue::default();
    (0..1_000).for_each(|key| queue.push(key, Turn::Any));
    queue.push_first(777);
    assert_eq!((queue.pop(), queue.pop(), queue.len()), (Some(777), Some(0), 998));
}
