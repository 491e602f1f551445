//! Which row is whose, also where a person, or another controller, wrote into what says so.
//!
//! A row's UUID is a hash of this instance and the port's name: a row that has it is this instance's though its marks
//! were removed or its name was changed, and both are put back. A row of another instance is that one's until it offers
//! the row (`ovn-kubevirt.io/handover`), because its operator does not select the VM's namespace any more.

use uuid::Uuid;

use super::planner::{Planner, Refusal, VmPlan};
use super::problem::Problem;
use super::report::PortReport;
use super::vm_rows::VmRows;
use crate::intent::{Intent, Nic};
use crate::ovn::{LogicalSwitchPort, Owner, PortRef, VmKey, Wake, keys, port_uuid};

impl<'a> Planner<'a> {
    /// The NIC's row: the one marked with its network. Of several (somebody copied one), the one that this instance made.
    /// Else one that lost its marks; and a network that was renamed keeps its row.
    /// None of those that other NICs of the VM have `taken`.
    pub(super) fn port_of(
        &self,
        intent: &Intent,
        nic: &Nic,
        rows: &VmRows<'a, '_>,
        taken: &[Uuid],
    ) -> Option<PortRef<'a>> {
        let several: Vec<PortRef<'a>> = rows.of(&nic.network).collect();
        let marked = match several[..] {
            [port] => Some(port),
            _ => several.into_iter().max_by_key(|port| self.made_by_us(nic, port)),
        };
        let marked = marked.filter(|port| !self.may_be_anothers(&intent.vm, port));
        let is_left = |port: &PortRef<'_>| !taken.contains(&port.uuid);
        marked.or_else(|| self.unmarked(intent, nic, is_left)).or_else(|| rows.renamed(nic).filter(is_left))
    }

    /// Whether this instance made the row for a port of the NIC, under this name or one of the NIC's own.
    pub(super) fn made_by_us(&self, nic: &Nic, port: &PortRef<'_>) -> bool {
        let instance = self.view.instance();
        let mut names = std::iter::once(port.row.name.clone()).chain(nic.names());
        names.any(|name| port_uuid(instance, &name) == port.uuid)
    }

    /// Whether a port of the VM was last served on what the NIC is on, also where somebody changed the port's name.
    pub(super) fn is_on_the_network_of(&self, nic: &Nic, port: &PortRef<'_>) -> bool {
        let has_another_name = || port_uuid(self.view.instance(), &port.row.name) != port.uuid;
        nic.is_on_the_network_of(port.row)
            || port.row.external_ids.get(keys::BASE_NAME).is_none() && has_another_name() && self.made_by_us(nic, port)
    }

    /// The row that this instance made for the NIC, where its marks name no VM any more, or one that does not exist; and
    /// the row that another instance offers.
    fn unmarked(&self, intent: &Intent, nic: &Nic, is_left: impl Fn(&PortRef<'_>) -> bool) -> Option<PortRef<'a>> {
        let instance = self.view.instance();
        let names = nic.names();
        // A NIC that came to another network since has a name that only its annotation tells.
        let told = self.told.iter().flat_map(|told| &told.ports).find(|port| port.network == nic.network);
        let told = told.and_then(|port| port.port.as_ref());
        let told = told.filter(|name| VmKey::candidates(name).any(|vm| vm == intent.vm));
        let made = names.iter().chain(told).filter(|_| self.view.has_odd_rows());
        let made = made.filter_map(|name| self.view.port(&port_uuid(instance, name)));
        let mut made = made.filter(|port| is_left(port) && self.has_lost_its_marks(intent, nic, port));
        made.next().or_else(|| {
            let named = names.iter().filter_map(|name| self.view.port_named(name));
            let mut offered =
                named.filter(|port| intent.selected && is_left(port) && self.is_offered(intent, port.row));
            offered.next()
        })
    }

    fn has_lost_its_marks(&self, intent: &Intent, nic: &Nic, port: &PortRef<'_>) -> bool {
        let external_ids = &port.row.external_ids;
        let names_another_instance = external_ids.get(keys::INSTANCE).is_some_and(|own| own != self.view.instance());
        let marked = external_ids.get(keys::VM).and_then(|vm| vm.split_once('/'));
        let marked = marked.map(|(namespace, name)| VmKey::new(namespace, name));
        let is_base = port_uuid(self.view.instance(), &nic.base_name) == port.uuid;
        let is_lost = match (Owner::of(external_ids, self.view.instance()), marked) {
            // What one of the VM's networks is now called is another matter: see `renamed`.
            (Some(owner), _) if owner.vm == intent.vm => false,
            (_, Some(vm)) if vm == intent.vm => true,
            // Of a VM that is gone, its row may be retained.
            (_, Some(vm)) => is_base && !vm.has_named(&port.row.name) && self.fabric.cluster.vm(&vm).is_none(),
            (_, None) => true,
        };
        let network = external_ids.get(keys::NETWORK).filter(|network| *network != nic.network);
        let is_another_nics = network.is_some_and(|network| intent.nics.iter().any(|nic| nic.network == network));
        // The longer name of one VM's port may be the shorter one of another's.
        let is_sure = is_base || !self.exists_another(&intent.vm, &port.row.name);
        is_lost && is_sure && !is_another_nics && !names_another_instance
    }

    fn exists_another(&self, vm: &VmKey, port_name: &str) -> bool {
        VmKey::candidates(port_name).any(|other| other != *vm && self.fabric.cluster.vm(&other).is_some())
    }

    /// Whether a row that the index has as the VM's may be of another VM, which exists: its UUID and its name are not the
    /// VM's, or its marks are lost and its name can be read in two ways. It is not taken away then.
    pub(super) fn may_be_anothers(&self, vm: &VmKey, port: &PortRef<'_>) -> bool {
        let row = port.row;
        let is_marked = Owner::is_of(&row.external_ids, self.view.instance());
        if is_marked && vm.has_named(&row.name) {
            return false;
        }
        let is_made_so = !is_marked || port_uuid(self.view.instance(), &row.name) == port.uuid;
        is_made_so && self.exists_another(vm, &row.name)
    }

    /// Whether another instance of this service offers its row of the VM.
    fn is_offered(&self, intent: &Intent, row: &LogicalSwitchPort) -> bool {
        row.external_ids.get(keys::HANDOVER).is_some() && self.is_another_instances(intent, row).is_some()
    }

    /// The other instance that the row of the same VM is of.
    fn is_another_instances<'r>(&self, intent: &Intent, row: &'r LogicalSwitchPort) -> Option<&'r str> {
        let is_the_vms = row.external_ids.get(keys::VM) == Some(intent.vm.to_string().as_str());
        row.other_instance(self.view.instance()).filter(|_| is_the_vms)
    }

    /// Whether a NIC without a port may get one: not where the VM's namespace is not selected, and not where another
    /// instance serves the VM.
    pub(super) fn may_have_a_new_port(&self, intent: &Intent, nic: &Nic, plan: &mut VmPlan) -> bool {
        if !intent.selected || nic.switch.is_none() {
            return false;
        }
        let others = nic.names().into_iter().filter_map(|name| {
            let row = self.view.port_named(&name)?.row;
            Some((name, self.is_another_instances(intent, row)?))
        });
        let others: Vec<(String, &str)> = others.collect();
        let by_row = others.first().map(|(_, instance)| (*instance).to_owned());
        let Some(instance) = by_row.or_else(|| self.other_instance_of_annotation()) else { return true };
        let problem = Problem::ServedByAnotherInstance { instance };
        let waits = others.iter().map(|(name, _)| Wake::Name(name.clone())).collect();
        let mut report = PortReport { network: nic.network.clone(), ..PortReport::default() };
        Refusal::Problem(problem, waits).note(&mut report, plan);
        plan.reports.push(report);
        false
    }

    /// Whether a new port may have a name: no port has it, and no port had it first and was renamed since.
    pub(super) fn is_free(&self, name: &str) -> bool {
        self.view.port_named(name).is_none() && self.view.port(&port_uuid(self.view.instance(), name)).is_none()
    }

    /// What a new port waits for that is to have a name.
    pub(super) fn waits_for_name(&self, name: &str) -> impl Iterator<Item = Wake> {
        let renamed = self.view.port(&port_uuid(self.view.instance(), name)).map(|port| port.row.name.clone());
        [Some(name.to_owned()), renamed].into_iter().flatten().map(Wake::Name)
    }

    /// The name that a port keeps for life, where somebody changed it; the one that it has where another port has taken
    /// that.
    pub(super) fn repaired_name(
        &mut self,
        nic: &Nic,
        own: Option<Uuid>,
        present: &str,
        report: &mut PortReport,
        plan: &mut VmPlan,
    ) -> String {
        let instance = self.view.instance();
        let names = nic.names();
        let Some(own) = own.filter(|_| !names.iter().any(|name| name == present)) else { return present.to_owned() };
        let is_its = |name: &str| port_uuid(instance, name) == own;
        let Some(name) = names.into_iter().find(|name| is_its(name)).filter(|_| !is_its(present)) else {
            return present.to_owned();
        };
        if self.names.contains(&name) {
            Refusal::Again.note(report, plan);
            return present.to_owned();
        }
        if self.view.port_named(&name).is_some() {
            let problem = Problem::NameTaken(vec![name.clone()]);
            Refusal::Problem(problem, vec![Wake::Name(name)]).note(report, plan);
            return present.to_owned();
        }
        name
    }

    /// A VM's port has no type (ovn-nb(5) Logical_Switch_Port `type`). One that connects a router now would take the
    /// router's connection with it, and one that is `external` was made so for a NIC outside br-int: both are told.
    pub(super) fn repair_type(&self, row: &mut LogicalSwitchPort, report: &mut PortReport, plan: &mut VmPlan) {
        let connects = || row.options.get(keys::ROUTER_PORT).is_some_and(|peer| self.view.has_router_port(peer));
        match row.kind.as_str() {
            "" => {}
            kind if kind == "router" && connects() || kind == "external" => {
                let problem = Problem::TypeTaken { port: row.name.clone(), kind: kind.to_owned() };
                // A router port that goes is told with the switch.
                let waits = report.switch.iter().cloned().map(Wake::Switch).collect();
                Refusal::Problem(problem, waits).note(report, plan);
            }
            _ => row.kind.clear(),
        }
    }
}
