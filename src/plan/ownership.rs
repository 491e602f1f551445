//! Ownership of rows, also after a person or another controller changed the marks.
//!
//! A row's UUID is a hash of this instance and the port's name. A row with such a UUID belongs to this instance even if
//! its marks were removed or its name was changed, and both are repaired. A row of another instance belongs to it until
//! that instance offers the row (`ovn-kubevirt.io/handover`), because its operator does not select the VM's namespace
//! any more.

use uuid::Uuid;

use super::change::PortChange;
use super::problem::Problem;
use super::remarks::{Refusal, Remarks};
use super::snapshot::Snapshot;
use super::status::PortStatus;
use super::view::View;
use super::vm_rows::{VmRows, is_made_for, is_on_the_network_of};
use crate::contract::{VmKey, keys, port_uuid};
use crate::intent::{PortIntent, Seat, VmIntent};
use crate::ovn::{LogicalSwitchPort, Owner, PortRef, Wake};

impl Snapshot<'_> {
    /// Returns true if a row that the index has as the VM's may belong to another existing VM: its UUID and its name
    /// are not the VM's, or its marks are lost and its name is ambiguous. Such a row is not taken away.
    pub(super) fn may_be_anothers(&self, vm: &VmKey, port: &PortRef<'_>) -> bool {
        let (row, instance) = (port.row, self.northbound.instance());
        let is_marked = Owner::is_of(row.external_ids.map(), instance);
        if is_marked && vm.has_named(&row.name) {
            return false;
        }
        let is_made_so = !is_marked || port_uuid(instance, &row.name) == port.uuid;
        is_made_so && self.exists_another(vm, &row.name)
    }

    /// Returns true if a VM other than this exists that may have a port of that name.
    fn exists_another(&self, vm: &VmKey, port_name: &str) -> bool {
        self.others_with(vm, port_name).next().is_some()
    }

    /// The existing VMs other than this that may have a port of that name.
    fn others_with(&self, vm: &VmKey, port_name: &str) -> impl Iterator<Item = VmKey> {
        VmKey::candidates(port_name).filter(move |other| other != vm && self.cluster.vm(other).is_some())
    }

    /// Decides on a row of the VM that may be another's: its lease is restored if it has drifted, and the rest is left
    /// alone until the other VMs are gone. If a NIC of another VM may have the port, that VM decides on it.
    pub(super) fn decide_stray(&self, vm: &VmKey, port: PortRef<'_>) -> (Option<PortChange>, Vec<Wake>) {
        let name = &port.row.name;
        let others: Vec<VmKey> = self.others_with(vm, name).collect();
        let mut intents = others.iter().filter_map(|other| self.intent(other));
        let is_anothers = intents.any(|intent| intent.ports.iter().any(|nic| nic.names().contains(name)));
        let change = if is_anothers { None } else { self.repaired(port, None) };
        (change, others.into_iter().map(Wake::Gone).collect())
    }
}

impl<'a> View<'a> {
    /// Finds the NIC's row: the one marked with its network. Of several (one was copied), the one that this instance
    /// made. Else one that lost its marks. A network that was renamed keeps its row. Rows in `taken` belong to other
    /// NICs of the VM.
    pub(super) fn port_of(
        &self,
        intent: &VmIntent,
        nic: &PortIntent,
        names: &[String],
        rows: &VmRows<'a, '_>,
        taken: &[Uuid],
    ) -> Option<PortRef<'a>> {
        let may_be = |port: &PortRef<'_>| self.may_be_of_seat(nic, port);
        let several: Vec<PortRef<'a>> = rows.of(&nic.network).filter(may_be).collect();
        let marked = match several[..] {
            [port] => Some(port),
            _ => several.into_iter().max_by_key(|port| {
                let is_there = is_on_the_network_of(self.northbound(), nic, port);
                (is_there, is_made_for(self.instance(), nic, port))
            }),
        };
        let marked = marked.filter(|port| !self.snapshot.may_be_anothers(&intent.vm, port));
        let is_left = |port: &PortRef<'_>| !taken.contains(&port.uuid);
        marked.or_else(|| self.unmarked(intent, nic, names, is_left)).or_else(|| rows.renamed(nic).filter(is_left))
    }

    /// Returns true if a row of the NIC's network may be that of one of its attachments. A NIC with one attachment keeps
    /// the row that it has, whatever that was made for. A guest that has moved to another network while this service was
    /// away has left its row behind on another switch, unless its pod was plugged to that very row. A guest that is to
    /// leave a network has come there with the row of another one perhaps, on the same switch.
    fn may_be_of_seat(&self, nic: &PortIntent, port: &PortRef<'_>) -> bool {
        let is_there = || is_on_the_network_of(self.northbound(), nic, port);
        match nic.seat {
            Seat::Assumed | Seat::Known => true,
            Seat::Coming => is_there(),
            Seat::Left | Seat::Moved => {
                let switch = port.switch.and_then(|switch| self.switch_name(switch));
                let is_requested = || nic.switch.as_ref().zip(switch).is_some_and(|(named, it)| named.has(&it));
                is_there() || is_requested() || nic.pod_port.as_deref() == Some(port.row.name.as_str())
            }
        }
    }

    /// The names that a new port of a NIC may have: first the one that the VM was last told, which the interface of its
    /// running guest has. It may be the name for another NAD of the same switch, to which the guest's pod was plugged.
    pub(super) fn names_of(&self, nic: &PortIntent) -> Vec<String> {
        let mut names = nic.names();
        let told = self.told.iter().flat_map(|told| &told.ports).filter(|port| port.network == nic.network);
        let all = nic.all_names();
        let is_possible = |name: &&String| all.contains(name) || nic.pod_port.as_ref() == Some(*name);
        if let Some(told) = told.filter_map(|port| port.port.as_ref()).find(is_possible) {
            names.retain(|name| name != told);
            names.insert(0, told.clone());
        }
        names
    }

    /// Returns true if a row is the NIC's on a network that the NIC has left: this instance made it for the VM, the
    /// guest is known to have another port, and no other NIC may need it.
    pub(super) fn is_left_behind(
        &self,
        intent: &VmIntent,
        rows: &VmRows<'_, '_>,
        (network, port): (&str, &PortRef<'_>),
        decided: &[PortStatus],
    ) -> bool {
        let of_nic = || intent.ports.iter().filter(|nic| nic.network == network);
        let is_known = of_nic().all(|nic| nic.seat != Seat::Assumed || !nic.life.has_guest());
        let has_another = decided.iter().any(|it| it.network == network && !it.coming && it.row.is_some());
        let is_none_of_ours = || of_nic().all(|nic| nic.on_none_of_ours && nic.seat == Seat::Moved);
        let is_made_here = Owner::is_of(port.row.external_ids.map(), self.instance())
            && port_uuid(self.instance(), &port.row.name) == port.uuid
            && intent.vm.has_named(&port.row.name);
        let is_there = |nic: &PortIntent| is_on_the_network_of(self.northbound(), nic, port);
        let mut others = intent.ports.iter().filter(|nic| nic.network != network);
        let may_need = |nic: &PortIntent| is_there(nic) && rows.of(&nic.network).next().is_none();
        // Without a list of what is untouched a launcher of before may have it.
        let no_pod_of_before = intent.untouched.is_some();
        no_pod_of_before && is_known && (has_another || is_none_of_ours()) && is_made_here && !others.any(may_need)
    }

    /// Finds the row that this instance made for the NIC, if its marks name a missing VM or are lost; or the row that
    /// another instance offers.
    fn unmarked(
        &self,
        intent: &VmIntent,
        nic: &PortIntent,
        names: &[String],
        is_left: impl Fn(&PortRef<'_>) -> bool,
    ) -> Option<PortRef<'a>> {
        let (northbound, instance) = (self.northbound(), self.instance());
        // The name of a NIC that came to another network since is known only from its annotation.
        let told = self.told.iter().flat_map(|told| &told.ports).filter(|port| port.network == nic.network);
        let is_of_seat = |name: &&String| !nic.seat.is_one_of_several() || nic.was_named_for(name);
        let told = told.filter_map(|port| port.port.as_ref()).find(is_of_seat);
        let told = told.filter(|name| VmKey::candidates(name).any(|vm| vm == intent.vm));
        let made = names.iter().chain(told).filter(|_| northbound.has_odd_rows());
        let made = made.filter_map(|name| northbound.port(&port_uuid(instance, name)));
        let mut made = made.filter(|port| is_left(port) && self.has_lost_its_marks(intent, nic, port));
        made.next().or_else(|| {
            let named = names.iter().filter_map(|name| northbound.port_named(name));
            let mut offered =
                named.filter(|port| intent.selected && is_left(port) && self.is_offered(intent, port.row));
            offered.next()
        })
    }

    fn has_lost_its_marks(&self, intent: &VmIntent, nic: &PortIntent, port: &PortRef<'_>) -> bool {
        let instance = self.instance();
        let external_ids = port.row.external_ids.map();
        let names_another_instance = external_ids.get(keys::INSTANCE).is_some_and(|own| own != instance);
        let marked = external_ids.get(keys::VM).and_then(|vm| vm.split_once('/'));
        let marked = marked.map(|(namespace, name)| VmKey::new(namespace, name));
        let is_base = port_uuid(instance, &nic.base_name) == port.uuid;
        let is_lost = match (Owner::of(external_ids, instance), marked) {
            // A network of the VM that was renamed is handled elsewhere: see `renamed`.
            (Some(owner), _) if owner.vm == intent.vm => false,
            (_, Some(vm)) if vm == intent.vm => true,
            // The row of a deleted VM may be retained.
            (_, Some(vm)) => is_base && !vm.has_named(&port.row.name) && self.snapshot.cluster.vm(&vm).is_none(),
            (_, None) => true,
        };
        let network = external_ids.get(keys::NETWORK).filter(|network| *network != nic.network);
        let is_another_nics = network.is_some_and(|network| intent.ports.iter().any(|nic| nic.network == network));
        // The longer name of one VM's port may be the shorter one of another's.
        let is_sure = is_base || !self.snapshot.exists_another(&intent.vm, &port.row.name);
        is_lost && is_sure && !is_another_nics && !names_another_instance
    }

    /// Returns true if another instance of this service offers its row of the VM.
    fn is_offered(&self, intent: &VmIntent, row: &LogicalSwitchPort) -> bool {
        row.external_ids.get(keys::HANDOVER).is_some() && self.is_another_instances(intent, row).is_some()
    }

    /// The other instance that owns the row of the same VM.
    fn is_another_instances<'r>(&self, intent: &VmIntent, row: &'r LogicalSwitchPort) -> Option<&'r str> {
        let is_the_vms = row.external_ids.get(keys::VM) == Some(intent.vm.to_string().as_str());
        row.other_instance(self.instance()).filter(|_| is_the_vms)
    }

    /// Returns true if a NIC without a port may get one: the VM's namespace is selected, and no other instance serves
    /// the VM. An instance that does is reported.
    pub(super) fn may_have_a_new_port(
        &self,
        intent: &VmIntent,
        nic: &PortIntent,
        names: &[String],
    ) -> Result<bool, Refusal> {
        if !intent.selected || nic.switch.is_none() {
            return Ok(false);
        }
        let others = names.iter().filter_map(|name| {
            let row = self.northbound().port_named(name)?.row;
            Some((name, self.is_another_instances(intent, row)?))
        });
        let others: Vec<(&String, &str)> = others.collect();
        let by_row = others.first().map(|(_, instance)| (*instance).to_owned());
        let Some(instance) = by_row.or_else(|| self.other_instance_of_annotation()) else { return Ok(true) };
        let wakes = others.iter().map(|(name, _)| Wake::Name((*name).clone())).collect();
        Err(Refusal::Problem(Problem::ServedByAnotherInstance { instance }, wakes))
    }

    /// The first free one of a new port's names. Another VM of the transaction may claim it.
    pub(super) fn free_name(&self, names: &[String]) -> Result<String, Refusal> {
        let free = names.iter().find(|name| self.is_free_name(name)).cloned();
        free.ok_or_else(|| {
            let wakes = names.iter().flat_map(|name| self.waits_for_name(name)).collect();
            Refusal::Problem(Problem::NameTaken(names.to_vec()), wakes)
        })
    }

    /// Checks that no other port of the transaction claims a new port's name: the transaction determines if that port is
    /// created.
    pub(super) fn unclaimed(&self, name: String) -> Result<String, Refusal> {
        if self.is_name_claimed(&name) { Err(Refusal::Batch) } else { Ok(name) }
    }

    /// The changes in the databases that a new port waits for to get a name.
    fn waits_for_name(&self, name: &str) -> impl Iterator<Item = Wake> {
        let renamed = self.northbound().port(&port_uuid(self.instance(), name)).map(|port| port.row.name.clone());
        [Some(name.to_owned()), renamed].into_iter().flatten().map(Wake::Name)
    }

    /// The name that a port keeps for life, restored if it was changed. If another port has taken it, the present name.
    pub(super) fn repaired_name(&self, names: &[String], own: Uuid, present: &str) -> (String, Remarks) {
        let is_its = |name: &str| port_uuid(self.instance(), name) == own;
        let unchanged = || (present.to_owned(), Remarks::default());
        if names.iter().any(|name| name == present) || is_its(present) {
            return unchanged();
        }
        let Some(name) = names.iter().find(|name| is_its(name)) else { return unchanged() };
        if self.is_name_claimed(name) {
            return (present.to_owned(), Refusal::Batch.into());
        }
        if self.northbound().port_named(name).is_some() {
            let problem = Problem::NameTaken(vec![name.clone()]);
            return (present.to_owned(), Remarks::waiting(problem, vec![Wake::Name(name.clone())]));
        }
        (name.clone(), Remarks::default())
    }

    /// Repairs the type of a port: empty, as for every VM's port (ovn-nb(5) Logical_Switch_Port `type`). A port that
    /// connects a router now would take the router's connection with it, and a port that is `external` was made so for
    /// a NIC outside br-int: both types stay and are reported.
    pub(super) fn repaired_type(&self, row: &LogicalSwitchPort, switch: Option<&str>) -> (String, Remarks) {
        if !self.keeps_its_type(row) {
            return (String::new(), Remarks::default());
        }
        let problem = Problem::TypeTaken { port: row.name.clone(), kind: row.kind.clone() };
        // A router port that is deleted is reported with the switch.
        let wakes = switch.map(|switch| Wake::Switch(switch.to_owned())).into_iter().collect();
        (row.kind.clone(), Remarks::waiting(problem, wakes))
    }

    /// Returns true if a row was given a type that something else relies on.
    pub(super) fn keeps_its_type(&self, row: &LogicalSwitchPort) -> bool {
        let peer = || row.options.get(keys::ROUTER_PORT);
        let connects = || peer().is_some_and(|peer| self.northbound().has_router_port(peer));
        row.kind == "external" || row.kind == "router" && connects()
    }
}
