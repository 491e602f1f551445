//! A small world: Kubernetes, the server, the replica, and a writer that decides about a VM only when
//! an event marks it. Every transaction is checked when it is committed.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::json;
use uuid::Uuid;

use super::objects::{Pod, Present, Template, launcher_change, migration_change, run_change, told_vm_change};
use super::policy_rules;
use super::rules;
use super::server::Tables;
use crate::contract::{VmKey, keys};
use crate::intent::{DhcpSettings, Permission, Permissions, Policy, Retention, Settings, Strategy, VmIntent};
use crate::kubevirt::{Change, Cluster, Kind, PortsAnnotation, VmObjects};
use crate::ovn::{LogicalSwitch, LogicalSwitchPort, Northbound, Rest, Southbound, Wake};
use crate::ovsdb::Map;
use crate::plan::{
    Claims, Decision, DhcpChange, Expectation, Filled, Freed, Held, Lost, PortChange, PortStatus, Problem, Queue,
    RowChange, Seen, Settling, Snapshot, Turn, VmStatus, Waits, decide, fill, present,
};

pub(super) const INSTANCE: &str = "default";

/// Owners may name every address.
pub(super) fn settings() -> Settings {
    Settings {
        default_switch: Some("blue".into()),
        mac_prefix: [0x0a, 0x58],
        strategy: Strategy::Rarp,
        default_retain: Retention::NONE,
        policy: Policy { allow: every_address(), max_retain: Retention::Forever, ..Policy::default() },
        manage_ra: false,
        dhcp: DhcpSettings::default(),
    }
}

/// The permissions to name any address.
pub(super) fn every_address() -> Permissions {
    [Permission::Explicit, Permission::Excluded, Permission::First]
        .into_iter()
        .fold(Permissions::NONE, Permissions::with)
}

/// A UUID that shows its table.
pub(super) fn uuid(kind: u8, slot: u8) -> Uuid {
    Uuid::from_u128(u128::from(kind) << 64 | u128::from(slot) << 8 | 1)
}

pub(super) fn map<'p, T: FromIterator<(&'p str, &'p str)>, const N: usize>(pairs: [(&'p str, &'p str); N]) -> T {
    pairs.into_iter().collect()
}

pub(super) struct World {
    pub(super) settings: Settings,
    pub(super) cluster: Cluster,
    pub(super) tables: Tables,
    pub(super) northbound: Northbound,
    pub(super) settling: Settling,
    /// Where it is read.
    pub(super) southbound: Option<Southbound>,
    pub(super) present: BTreeMap<VmKey, Present>,
    pub(super) dirty: Queue<VmKey>,
    pub(super) lost: Lost,
    pub(super) waits: BTreeMap<VmKey, Vec<Wake>>,
    pub(super) statuses: BTreeMap<VmKey, VmStatus>,
    /// How the server orders the next update.
    pub(super) order: usize,
    /// Seconds since the epoch.
    pub(super) now: i64,
    /// Released addresses rest until time passes; otherwise not at all.
    pub(super) resting: bool,
    rests: Vec<Rest>,
    due: BTreeMap<VmKey, i64>,
    created: usize,
    /// A transaction of ours that the next edit commits, and how often something foreign had changed before it.
    in_flight: Option<(u64, Vec<Sent>)>,
}

/// A VM's part in a transaction.
pub(super) struct Sent {
    pub(super) vm: VmKey,
    pub(super) changes: Vec<RowChange>,
    pub(super) expectation: Expectation,
    waits: bool,
}

/// The changes of ports.
pub(super) fn port_changes(rows: &[RowChange]) -> Vec<PortChange> {
    rows.iter().filter_map(RowChange::as_port).cloned().collect()
}

impl World {
    /// A world with these switches and the namespaces `n` and `m`.
    pub(super) fn new<const N: usize>(switches: [(&str, Map); N]) -> Self {
        let mut world = Self {
            settings: settings(),
            cluster: Cluster::default(),
            tables: Tables::default(),
            northbound: Northbound::new(INSTANCE),
            settling: Settling::default(),
            southbound: None,
            present: BTreeMap::new(),
            dirty: Queue::default(),
            lost: Lost::default(),
            waits: BTreeMap::new(),
            statuses: BTreeMap::new(),
            order: 0,
            now: 0,
            resting: false,
            rests: Vec::new(),
            due: BTreeMap::new(),
            created: 0,
            in_flight: None,
        };
        for (slot, (name, other_config)) in switches.into_iter().enumerate() {
            let row = LogicalSwitch { name: name.into(), other_config, ..Default::default() };
            world.edit(|tables| drop(tables.switches.insert(uuid(1, u8::try_from(slot).expect("few")), row)));
        }
        for namespace in ["n", "m"] {
            world.namespace(namespace, None);
        }
        world
    }

    /// Commits a transaction, ours or another's, and applies its update to the replica.
    pub(super) fn edit(&mut self, edit: impl FnOnce(&mut Tables)) {
        let before = self.tables.clone();
        edit(&mut self.tables);
        self.tables.collect_garbage();
        assert_eq!(self.tables.violation(), None, "the test's own edit");
        self.tables.send_changes(&before, self.order, &mut self.northbound);
        self.order = self.order.wrapping_mul(31).wrapping_add(7) % 1009;
        rules::the_index_agrees_with_the_rows(&self.northbound, &self.tables);
        let mut changes = self.northbound.take_changes();
        self.rests.append(&mut changes.rests);
        if !self.resting {
            self.end_rests();
        }
        if let Some((foreign_changes, plans)) = self.in_flight.take().filter(|_| self.tables != before) {
            rules::our_commit_is_not_a_foreign_change(foreign_changes, &self.northbound, &changes.vms, &plans);
            // As the writer does: a VM whose rows are as its decision made them is not decided again because of them.
            changes.vms.retain(|vm| plans.iter().find(|plan| plan.vm == *vm).is_none_or(|plan| plan.waits));
        }
        let dirty: Vec<VmKey> = changes.vms.into_iter().chain(self.woken(&changes.wakes)).collect();
        dirty.into_iter().for_each(|vm| self.mark(vm));
    }

    /// Marks a VM to be decided, as the writer does.
    pub(super) fn mark(&mut self, vm: VmKey) {
        self.look_for_lost(&vm);
        let turn = Turn::of(self.cluster.vm(&vm));
        self.dirty.push(vm, turn);
    }

    fn look_for_lost(&mut self, vm: &VmKey) {
        let namespace = self.cluster.namespace(&vm.namespace).cloned().unwrap_or_default();
        let settings = &self.settings;
        let intent = |objects: &VmObjects| VmIntent::of(vm, objects, &namespace, settings);
        for lease in self.lost.look(vm, self.cluster.served_vm(vm), &self.northbound, intent).over {
            for switch in self.northbound.switches_named(&lease.switch).collect::<Vec<_>>() {
                let ips = lease.addresses.ips().map(|ip| Wake::Address(switch, ip));
                let wakes: HashSet<Wake> =
                    ips.chain([Wake::Mac(switch, lease.addresses.mac), Wake::Room(switch)]).collect();
                self.woken(&wakes).into_iter().for_each(|vm| self.mark(vm));
            }
        }
    }

    fn woken(&self, wakes: &HashSet<Wake>) -> Vec<VmKey> {
        let woken = self.waits.iter().filter(|(_, waits)| waits.iter().any(|wait| wakes.contains(wait)));
        woken.map(|(vm, _)| vm.clone()).collect()
    }

    fn end_rests(&mut self) {
        std::mem::take(&mut self.rests).iter().for_each(|rest| self.northbound.end_rest(rest));
    }

    /// Time passes: rests end, and VMs are due.
    pub(super) fn pass(&mut self, seconds: i64) {
        self.now += seconds;
        self.end_rests();
        let due = self.due.iter().filter(|(_, due)| **due <= self.now);
        let due: Vec<VmKey> = due.map(|(vm, _)| vm.clone()).collect();
        for vm in due {
            self.due.remove(&vm);
            self.mark(vm);
        }
    }

    pub(super) fn hear(&mut self, change: Change) {
        for vm in self.cluster.apply(change) {
            if self.cluster.vm(&vm).is_none() {
                self.woken(&HashSet::from([Wake::Gone(vm.clone())])).into_iter().for_each(|waiting| self.mark(waiting));
            }
            self.mark(vm);
        }
    }

    pub(super) fn namespace(&mut self, name: &str, switch: Option<&str>) {
        let annotations = switch.map(|switch| json!({"ovn.kubernetes.io/logical_switch": switch}));
        let metadata = serde_json::from_value(json!({"name": name, "annotations": annotations}));
        self.hear(Change::Namespace(Box::new(metadata.expect("metadata"))));
    }

    /// A namespace loses its label.
    pub(super) fn unselect(&mut self, name: &str) {
        self.gone(Kind::Namespace, &VmKey::new("", ""), name);
    }

    pub(super) fn nad(&mut self, namespace: &str, name: &str, switch: Option<&str>) {
        let annotations = switch.map(|switch| json!({"ovn.kubernetes.io/logical_switch": switch}));
        let metadata = json!({"namespace": namespace, "name": name, "annotations": annotations});
        self.hear(Change::Nad(Box::new(serde_json::from_value(metadata).expect("metadata"))));
    }

    pub(super) fn nad_goes(&mut self, namespace: &str, name: &str) {
        self.gone(Kind::Nad, &VmKey::new(namespace, ""), name);
    }

    /// virt-controller brings the template's networks to the instance that runs.
    pub(super) fn plug(&mut self, vm: &VmKey) {
        let Some(present) = self.present.get_mut(vm) else { return };
        let (Some(template), Some((_, running, ..))) = (&present.template, &mut present.run) else { return };
        running.network.clone_from(&template.network);
        running.more.clone_from(&template.more);
        running.absent.clone_from(&template.absent);
        self.tell_run(vm);
    }

    /// Creates a VM, or edits its template.
    pub(super) fn apply(&mut self, vm: &VmKey, template: Template) {
        self.created += 1;
        let present = self.present.entry(vm.clone()).or_default();
        if present.template.is_none() {
            present.uid = format!("vm-{}", self.created);
            present.told = None;
        }
        let change = told_vm_change(vm, &present.uid, &template, present.told.as_deref());
        present.template = Some(template);
        self.hear(change);
    }

    pub(super) fn delete(&mut self, vm: &VmKey) {
        if self.present.get_mut(vm).is_some_and(|present| present.template.take().is_some()) {
            self.gone(Kind::Vm, vm, &vm.name);
        }
    }

    /// The VM's instance is made, from the template as it is now. No launcher pod yet.
    pub(super) fn start(&mut self, vm: &VmKey) {
        self.created += 1;
        let uid = format!("run-{}", self.created);
        let Some(present) = self.present.get_mut(vm).filter(|present| present.run.is_none()) else { return };
        let Some(template) = present.template.clone() else { return };
        present.run = Some((uid, template, None, None));
        self.tell_run(vm);
    }

    fn tell_run(&mut self, vm: &VmKey) {
        let Some((uid, template, node, ready)) = self.present.get(vm).and_then(|present| present.run.clone()) else {
            return;
        };
        self.hear(run_change(vm, &uid, &template, node.as_deref(), ready.as_deref()));
    }

    /// Deletes the VM's instance; its launcher pods may linger.
    pub(super) fn stop(&mut self, vm: &VmKey) {
        if self.present.get_mut(vm).is_some_and(|present| present.run.take().is_some()) {
            self.gone(Kind::Run, vm, &vm.name);
        }
    }

    /// A launcher pod of the present instance is scheduled.
    pub(super) fn launch(&mut self, vm: &VmKey, node: Option<&str>) {
        self.created += 1;
        let name = format!("virt-launcher-{}", self.created);
        let Some(present) = self.present.get_mut(vm) else { return };
        let Some((run, template, ..)) = &present.run else { return };
        let (run, node, networks) = (run.clone(), node.map(Into::into), template.plugged());
        present.pods.push(Pod { name, run, node, live: true, migration: None, networks, ports: BTreeMap::new() });
        self.tell_pod(vm, self.present[vm].pods.len() - 1);
    }

    /// The mutating webhook names the present ports to the newest pod of a VM.
    pub(super) fn name_ports(&mut self, vm: &VmKey) {
        let ports = self.look_at(vm).status.ports.into_iter();
        let ports = ports.filter_map(|port| Some((port.network, port.port?))).collect();
        let present = self.present.get_mut(vm).expect("it is there");
        present.pods.last_mut().expect("a pod").ports = ports;
        self.tell_pod(vm, self.present[vm].pods.len() - 1);
    }

    fn tell_pod(&mut self, vm: &VmKey, index: usize) {
        self.hear(launcher_change(vm, &self.present[vm].pods[index]));
    }

    /// virt-controller begins a live migration: its target pod is plugged to the networks of the instance's spec.
    pub(super) fn migrate(&mut self, vm: &VmKey, node: Option<&str>) {
        let Some(present) = self.present.get(vm).filter(|present| present.run.is_some()) else { return };
        if !present.pods.iter().any(|pod| pod.live) || present.migrations.iter().any(|(_, under_way)| *under_way) {
            return;
        }
        let uid = format!("migration-{}", self.created);
        self.hear(migration_change(vm, &uid, true));
        self.launch(vm, None);
        let present = self.present.get_mut(vm).expect("it runs");
        present.migrations.push((uid.clone(), true));
        let pod = present.pods.last_mut().expect("the target");
        (pod.migration, pod.node) = (Some(uid), node.map(Into::into));
        self.tell_pod(vm, self.present[vm].pods.len() - 1);
    }

    /// The migration under way ends. Without success its target pod ends with it.
    pub(super) fn end_migration(&mut self, vm: &VmKey, success: bool) {
        let Some(present) = self.present.get_mut(vm) else { return };
        let Some((uid, under_way)) = present.migrations.iter_mut().find(|(_, under_way)| *under_way) else { return };
        *under_way = false;
        let uid = uid.clone();
        let ready = present.run.as_ref().and_then(|(.., ready)| ready.clone());
        let target = present.pods.iter().position(|pod| pod.migration.as_ref() == Some(&uid));
        self.hear(migration_change(vm, &uid, false));
        let fails = |pod: &Pod| !success && ready.as_ref() != Some(&pod.name);
        if let Some(target) = target.filter(|target| fails(&self.present[vm].pods[*target])) {
            self.present.get_mut(vm).expect("it is there").pods[target].live = false;
            self.tell_pod(vm, target);
        }
    }

    /// virt-controller plugs NICs into the guest's pod, and unplugs them: those that stay keep their networks.
    pub(super) fn replug(&mut self, vm: &VmKey) {
        let Some(present) = self.present.get_mut(vm) else { return };
        let Some((_, template, node, ready)) = &present.run else { return };
        let is_guests =
            |pod: &Pod| ready.as_ref().map_or(pod.node.is_some() && pod.node == *node, |ready| *ready == pod.name);
        let Some(index) = present.pods.iter().position(|pod| pod.live && is_guests(pod)) else { return };
        let pod = &mut present.pods[index];
        let was = std::mem::take(&mut pod.networks);
        let stays = |(name, nad): (String, String)| {
            let before = was.iter().find(|(before, _)| *before == name).map(|(_, nad)| nad.clone());
            (name, before.unwrap_or(nad))
        };
        pod.networks = template.plugged().into_iter().map(stays).collect();
        self.tell_pod(vm, index);
    }

    /// The guest is ready in its newest launcher: a start or a migration is through.
    pub(super) fn ready(&mut self, vm: &VmKey) {
        let Some(present) = self.present.get_mut(vm) else { return };
        let Some(Pod { name, node, .. }) = present.pods.last().cloned() else { return };
        let Some(run) = present.run.as_mut() else { return };
        (run.2, run.3) = (node, Some(name));
        self.tell_run(vm);
    }

    /// The oldest live launcher ends.
    pub(super) fn end_launcher(&mut self, vm: &VmKey) {
        let Some(present) = self.present.get_mut(vm) else { return };
        let Some(index) = present.pods.iter().position(|pod| pod.live) else { return };
        present.pods[index].live = false;
        self.tell_pod(vm, index);
    }

    /// Deletes the oldest launcher pod.
    pub(super) fn remove_launcher(&mut self, vm: &VmKey) {
        let Some(present) = self.present.get_mut(vm).filter(|present| !present.pods.is_empty()) else { return };
        let Pod { name, .. } = present.pods.remove(0);
        self.gone(Kind::Launcher, vm, &name);
    }

    /// The service is started again with another policy: every VM is decided.
    pub(super) fn reconfigure(&mut self, policy: Policy) {
        self.settings.policy = policy;
        self.vms().into_iter().for_each(|vm| self.mark(vm));
    }

    fn gone(&mut self, kind: Kind, vm: &VmKey, name: &str) {
        let metadata = serde_json::from_value(json!({"name": name, "namespace": vm.namespace}));
        self.hear(Change::Gone(kind, Box::new(metadata.expect("metadata"))));
    }

    /// A VM that runs on a node.
    pub(super) fn run(&mut self, vm: &VmKey, template: Template, node: &str) {
        self.apply(vm, template);
        self.start(vm);
        self.launch(vm, Some(node));
        self.ready(vm);
        self.settle(100);
    }

    /// Stops a VM, pods and all, and starts it on a node.
    pub(super) fn restart(&mut self, vm: &VmKey, node: &str) {
        self.stop(vm);
        while !self.present[vm].pods.is_empty() {
            self.remove_launcher(vm);
        }
        self.start(vm);
        self.launch(vm, Some(node));
        self.ready(vm);
        self.settle(100);
    }

    /// Starts a VM that is stopped on a node.
    pub(super) fn restart_from_stop(&mut self, vm: &VmKey, node: &str) {
        self.start(vm);
        self.settle(100);
        self.launch(vm, Some(node));
        self.ready(vm);
        self.settle(100);
    }

    /// Deletes every object of a VM.
    pub(super) fn destroy(&mut self, vm: &VmKey) {
        self.delete(vm);
        self.stop(vm);
        while self.present.get(vm).is_some_and(|present| !present.pods.is_empty()) {
            self.remove_launcher(vm);
        }
        self.settle(100);
    }

    /// This moment, with another state of the replica.
    pub(super) fn snapshot_with<'a>(&'a self, northbound: &'a Northbound) -> Snapshot<'a> {
        static NO_PORT: Held = Held::new();
        let southbound = self.southbound.as_ref().map_or(Seen::Never(&self.settling), Seen::Now);
        Snapshot::new(northbound, &self.cluster, southbound, &self.settings, self.now).with(&self.lost, &NO_PORT)
    }

    pub(super) fn snapshot(&self) -> Snapshot<'_> {
        self.snapshot_with(&self.northbound)
    }

    pub(super) fn intent(&self, vm: &VmKey) -> Option<VmIntent> {
        self.snapshot().intent(vm)
    }

    /// The decision for a VM by itself.
    pub(super) fn look_at(&self, vm: &VmKey) -> Decision {
        decide(&self.snapshot(), &Claims::default(), vm)
    }

    /// Decides dirty VMs in transactions of some VMs each, until no VM is dirty.
    pub(super) fn settle(&mut self, vms: usize) {
        for _ in 0..200 {
            if self.dirty.is_empty() {
                return;
            }
            self.transact(vms);
        }
        panic!("it does not come to rest; dirty: {:?}", self.dirty);
    }

    /// One transaction.
    pub(super) fn transact(&mut self, vms: usize) {
        let batch: Vec<VmKey> = std::iter::from_fn(|| self.dirty.pop()).take(vms.max(1)).collect();
        let mut next = batch.iter().cloned();
        let Filled { decided, .. } = fill(&self.snapshot(), Claims::default(), None, |_| next.next());
        let mut changes = Vec::new();
        let mut again = BTreeSet::new();
        let mut told = Vec::new();
        let mut sent = Vec::new();
        for (vm, decision) in decided {
            let Decision { rows, waits, .. } = &decision;
            let expectation = Expectation::of(&self.northbound, &vm, rows);
            sent.push(Sent { vm: vm.clone(), changes: rows.clone(), expectation, waits: !waits.wakes.is_empty() });
            let (ports, given) = (port_changes(rows), port_changes(&changes));
            rules::a_change_is_lawful(self, &vm, &ports);
            super::told::a_lost_lease_is_restored_from_the_annotation(self, &vm, &ports, &given);
            super::fabric::a_chassis_is_kept(self, &vm, &ports, &decision.status);
            rules::a_choice_is_lawful(self, &vm, &given, &ports);
            policy_rules::every_allocation_is_within_the_policy(self, &vm, &given, &ports);
            policy_rules::a_lease_is_never_the_fault_of_its_owner(self, &vm, &decision);
            if waits.batch {
                again.insert(vm.clone());
            } else {
                rules::the_status_holds_without_the_other_vms(&decision, &self.look_at(&vm));
            }
            let Decision { rows, status, waits: Waits { wakes, due, .. }, .. } = decision;
            changes.extend(rows);
            told.push((vm, wakes, status, due));
        }
        for (vm, wakes, status, due) in told {
            match due {
                Some(due) => drop(self.due.insert(vm.clone(), due)),
                None => drop(self.due.remove(&vm)),
            }
            self.waits.insert(vm.clone(), wakes);
            self.statuses.insert(vm, status);
        }
        let ports = port_changes(&changes);
        rules::no_port_is_given_an_address_of_another(&self.tables, &ports);
        let operations: Vec<_> = changes.iter().flat_map(RowChange::operations).collect();
        let before = self.tables.clone();
        let ahead = self.planned_ahead(&batch, &changes);
        self.in_flight = Some((self.northbound.foreign_changes(), sent));
        self.edit(|tables| tables.transact(&operations));
        self.in_flight = None;
        for (vm, plan) in ahead {
            rules::a_decision_made_ahead_equals_the_one_made_after(&vm, &plan, &self.look_at(&vm));
        }
        rules::the_operations_agree_with_the_changes(&self.tables, &ports);
        rules::only_our_rows_changed(&before, &self.tables);
        assert!(again.is_empty() || !changes.is_empty(), "{again:?} clash with a transaction that writes nothing");
        batch.iter().for_each(|vm| self.look_for_lost(vm));
        batch.iter().filter(|vm| !again.contains(*vm)).for_each(|vm| self.tell(vm));
        again.into_iter().for_each(|vm| self.mark(vm));
    }

    /// The reporter writes the status of the last decision into the VM's annotation.
    fn tell(&mut self, vm: &VmKey) {
        let ports = self.statuses.get(vm).map(VmStatus::annotated).unwrap_or_default();
        let is_selected = self.cluster.namespace(&vm.namespace).is_some();
        let Some(present) = self.present.get_mut(vm) else { return };
        let Some(template) = &present.template else { return };
        if ports.is_empty() && !is_selected {
            return;
        }
        let told = PortsAnnotation { instance: INSTANCE.to_owned(), uid: present.uid.clone(), ports };
        let text = (!told.ports.is_empty()).then(|| told.text());
        if text != present.told {
            present.told = text;
            let change = told_vm_change(vm, &present.uid, template, present.told.as_deref());
            self.hear(change);
        }
    }

    /// The plans that VMs get, each by itself, while these changes of others are in flight; without those that wait for
    /// the answer.
    fn planned_ahead(&self, in_flight: &[VmKey], changes: &[RowChange]) -> Vec<(VmKey, Decision)> {
        // An address that is kept for a guest may be free once the guest has its port: VMs that wait for it are decided then.
        let lost = self.lost.vms();
        if in_flight.iter().any(|vm| lost.contains(vm)) {
            return Vec::new();
        }
        let freed = Freed::by(changes);
        let others = self.vms().into_iter().filter(|vm| !in_flight.contains(vm));
        let decided = others.map(|vm| {
            let decision = decide(&self.snapshot(), &Claims::of(changes), &vm);
            (vm, decision)
        });
        let may_go =
            |decision: &Decision| !decision.waits.batch && !freed.concerns(&decision.rows, &decision.waits.wakes);
        decided.filter(|(_, decision)| may_go(decision)).collect()
    }

    /// All VMs that either side knows.
    pub(super) fn vms(&self) -> BTreeSet<VmKey> {
        self.cluster.vms().chain(self.northbound.vms()).cloned().collect()
    }

    /// At rest: a decision about every VM changes no row, and no status has
    /// a problem that is over.
    pub(super) fn a_sweep_changes_no_row(&self) {
        policy_rules::no_retention_is_beyond_the_bound(self);
        // A conflict is reported as it is, to the word.
        let conflicts = |status: &VmStatus| {
            let conflicts = status.problems().filter(|problem| problem.is_a_conflict());
            conflicts.map(ToString::to_string).collect::<BTreeSet<_>>()
        };
        let none = VmStatus::default();
        let mut vms = self.vms().into_iter();
        for (vm, decision) in fill(&self.snapshot(), Claims::default(), None, |_| vms.next()).decided {
            assert_eq!(decision.rows, [], "{vm}: something was left undone");
            assert!(!decision.waits.batch, "{vm} clashes with nothing");
            let last = self.statuses.get(&vm).unwrap_or(&none);
            let both = |status: &VmStatus| (status.problems().next().is_none(), conflicts(status));
            assert_eq!(both(&decision.status), both(last), "{vm} has the status {last:?}, now {:?}", decision.status);
            super::seats::no_port_is_left_over(self, &vm);
            self.dhcp_rows_are_intact(&vm, &decision.status);
            // A deleted VM has no status; the rows that are retained for it show their leases.
            let is_marked = |row: &LogicalSwitchPort| row.external_ids.get(keys::VM).is_some();
            let marked = self.northbound.ports_of(&vm).all(|(_, port)| is_marked(port.row));
            // A row that lost its VM's mark may be another's.
            if marked && decision.status.follows_from_rows() && self.cluster.vm(&vm).is_some() {
                self.the_rows_give(&vm, &decision.status);
            }
        }
    }

    /// A ledger that keeps no such status finds the same in the rows.
    fn the_rows_give(&self, vm: &VmKey, status: &VmStatus) {
        let sorted = |status: &VmStatus| {
            let mut ports = status.annotated();
            ports.sort_by(|a, b| (&a.network, &a.port).cmp(&(&b.network, &b.port)));
            ports
        };
        assert_eq!(sorted(&present(&self.northbound, vm)), sorted(status), "{vm}: its rows do not give its status");
    }

    /// Our row of a VM; of several, one.
    pub(super) fn row(&self, vm: &VmKey) -> Option<(Uuid, LogicalSwitchPort)> {
        let of_vm =
            |port: &Uuid, row: &LogicalSwitchPort| row.owner(port, INSTANCE).is_some_and(|owner| owner.vm == *vm);
        self.tables.ports.iter().find(|(port, row)| of_vm(port, row)).map(|(uuid, row)| (*uuid, row.clone()))
    }

    /// The lease of a VM's row, as the row spells it.
    pub(super) fn addresses(&self, vm: &VmKey) -> Option<String> {
        self.row(vm).map(|(_, row)| row.addresses.iter().collect::<Vec<_>>().join(" | "))
    }

    /// The problems in its status.
    pub(super) fn problems(&self, vm: &VmKey) -> Vec<Problem> {
        self.statuses.get(vm).into_iter().flat_map(VmStatus::problems).cloned().collect()
    }

    /// The same, as words.
    pub(super) fn complaints(&self, vm: &VmKey) -> Vec<String> {
        self.problems(vm).iter().map(ToString::to_string).collect()
    }

    /// Rows of DHCP options to which no port refers are deleted, as the writer does it after a while.
    pub(super) fn collect(&mut self) {
        let unused: Vec<Uuid> = self.northbound.unused_dhcp_rows().collect();
        let changes = unused.into_iter().filter_map(|row| DhcpChange::removal(&self.northbound, row));
        let changes: Vec<DhcpChange> = changes.collect();
        for DhcpChange { uuid, .. } in &changes {
            assert!(self.tables.ports.values().all(|port| port.dhcp_rows().all(|row| row != *uuid)), "{uuid} is used");
        }
        let operations: Vec<_> = changes.iter().flat_map(DhcpChange::operations).collect();
        self.edit(|tables| tables.transact(&operations));
    }

    /// A port that is served as its owner requests has rows of DHCP options with the content that they stand for.
    fn dhcp_rows_are_intact(&self, vm: &VmKey, status: &VmStatus) {
        let intent = self.intent(vm);
        let nics = intent.iter().flat_map(|intent| &intent.ports);
        for nic in nics.filter(|nic| nic.life.request().is_ok() && !nic.life.is_leaving()) {
            let served = |port: &&PortStatus| port.network == nic.network && port.problems.is_empty();
            for row in status.ports.iter().filter(served).filter_map(|port| self.tables.ports.get(&port.row?)) {
                for dhcp in row.dhcp_rows().filter(|row| row.get_version_num() == 5) {
                    assert!(self.tables.dhcp[&dhcp].is_intact(&dhcp, INSTANCE), "{vm}: {:#?}", self.tables.dhcp[&dhcp]);
                }
            }
        }
    }

    /// The replica as it would be after an edit, and the VMs and waits that the edit wakes.
    pub(super) fn woken_by(
        &self,
        edit: impl FnOnce(&mut Tables),
        order: usize,
    ) -> (Northbound, HashSet<Wake>, BTreeSet<VmKey>) {
        let mut after = self.tables.clone();
        edit(&mut after);
        after.collect_garbage();
        let mut northbound = self.tables.replica(INSTANCE);
        northbound.take_changes();
        after.send_changes(&self.tables, order, &mut northbound);
        let changes = northbound.take_changes();
        (northbound, changes.wakes, changes.vms)
    }
}
