//! Ownership of rows, also after a person or another controller changed the marks.
//!
//! A row's UUID is a hash of this instance and the port's name. A row with such a UUID belongs to this instance even if
//! its marks were removed or its name was changed, and both are repaired. A row of another instance belongs to it until
//! that instance offers the row (`ovn-kubevirt.io/handover`), because its operator does not select the VM's namespace
//! any more.

use uuid::Uuid;

use super::problem::Problem;
use super::remarks::{Refusal, Remarks};
use super::snapshot::Snapshot;
use super::view::View;
use super::vm_rows::{VmRows, is_made_for};
use crate::contract::{VmKey, keys, port_uuid};
use crate::intent::{PortIntent, VmIntent};
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
        VmKey::candidates(port_name).any(|other| other != *vm && self.cluster.vm(&other).is_some())
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
        let several: Vec<PortRef<'a>> = rows.of(&nic.network).collect();
        let marked = match several[..] {
            [port] => Some(port),
            _ => several.into_iter().max_by_key(|port| is_made_for(self.instance(), nic, port)),
        };
        let marked = marked.filter(|port| !self.snapshot.may_be_anothers(&intent.vm, port));
        let is_left = |port: &PortRef<'_>| !taken.contains(&port.uuid);
        marked.or_else(|| self.unmarked(intent, nic, names, is_left)).or_else(|| rows.renamed(nic).filter(is_left))
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
        let told = self.told.iter().flat_map(|told| &told.ports).find(|port| port.network == nic.network);
        let told = told.and_then(|port| port.port.as_ref());
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

    /// The first free one of a new port's names.
    pub(super) fn free_name(&self, names: &[String]) -> Result<String, Refusal> {
        let free = names.iter().find(|name| self.is_free_name(name));
        match free {
            // The transaction determines if the other VM's port is created.
            Some(name) if self.is_name_claimed(name) => Err(Refusal::Batch),
            Some(name) => Ok(name.clone()),
            None => {
                let wakes = names.iter().flat_map(|name| self.waits_for_name(name)).collect();
                Err(Refusal::Problem(Problem::NameTaken(names.to_vec()), wakes))
            }
        }
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
