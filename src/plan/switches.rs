//! The switch of a port: staying, moving, and the first of several switches that can serve it.

use uuid::Uuid;

use super::addresses::Holding;
use super::problem::Problem;
use super::remarks::{Refusal, Remarks};
use super::view::{Switch, View};
use super::vm_rows::{VmRows, is_on_the_network_of};
use crate::contract::port_uuid;
use crate::intent::{PortIntent, SwitchRequest, VmIntent};
use crate::kubevirt::PortsAnnotation;
use crate::ovn::{Northbound, PortRef, Wake};

/// The decision on a port's switch.
pub(super) struct OnSwitch {
    pub(super) switch: Switch,
    /// Another switch is requested, and the move is deferred or refused: a remark says why.
    pub(super) elsewhere: bool,
    pub(super) remarks: Remarks,
}

impl OnSwitch {
    fn as_requested(switch: Switch) -> Self {
        Self { switch, elsewhere: false, remarks: Remarks::default() }
    }
}

/// The intent with the switches where guests are that live migrations have brought to their pods, if these are not those
/// that their instances name. An instance has the annotations of its start: one that names a switch stands for a guest
/// that has stayed on its network, and the template, or the NAD, tells the switch of one that has changed it. The row tells
/// which, or else the VM's last status.
pub(super) fn with_switches_there(
    northbound: &Northbound,
    intent: &VmIntent,
    rows: &VmRows<'_, '_>,
    told: Option<&PortsAnnotation>,
) -> Option<VmIntent> {
    let there = |nic: &PortIntent| {
        let there = nic.arrived.as_ref().map(|arrived| &arrived.switch).filter(|there| **there != nic.switch)?;
        let is_pods = |name: &str| nic.pod_port.as_deref() == Some(name);
        let is_its = |port: &PortRef<'_>| is_on_the_network_of(northbound, nic, port) || is_pods(&port.row.name);
        let row = rows.of(&nic.network).find(is_its);
        let present = row.and_then(|port| Some(&northbound.switch(&port.switch?)?.name));
        let told = told.iter().flat_map(|told| &told.ports).filter(|port| port.network == nic.network);
        let mut told =
            told.filter(|port| port.port.as_ref().is_some_and(|name| nic.was_named_for(name) || is_pods(name)));
        let present = present.or_else(|| told.find_map(|port| port.switch.as_ref()));
        let stays = present.is_some_and(|present| nic.switch.as_ref().is_some_and(|named| named.has(present)));
        (!stays).then(|| there.clone())
    };
    let there: Vec<Option<Option<SwitchRequest>>> = intent.ports.iter().map(there).collect();
    if there.iter().all(Option::is_none) {
        return None;
    }
    let mut intent = intent.clone();
    for (nic, there) in intent.ports.iter_mut().zip(there) {
        if let Some(there) = there {
            nic.on_none_of_ours = there.is_none() && nic.missing_nad.is_none();
            nic.switch = there;
        }
    }
    Some(intent)
}

impl View<'_> {
    /// Decides whether an existing port stays on its switch or moves.
    pub(super) fn stay_or_move(&self, nic: &PortIntent, port: PortRef<'_>, present: Switch) -> OnSwitch {
        // A row that was made for another network is on that network's switch, which this NIC has left.
        let moves = |request: &SwitchRequest| {
            let may_move = request.explicit || !is_on_the_network_of(self.northbound(), nic, &port);
            // An empty name stands for an unreadable request, which is reported with the rest of the request.
            may_move && !request.name.is_empty() && !request.has(&present.name)
        };
        let Some(request) = nic.switch.as_ref().filter(|request| moves(request)) else {
            return OnSwitch::as_requested(present);
        };
        if self.keeps_its_type(port.row) {
            // The port would take a router's connection, or a NIC outside br-int, with it. Its type is reported.
            return OnSwitch { switch: present, elsewhere: true, remarks: Remarks::default() };
        }
        if nic.life.has_guest() {
            let remarks = self.deferred(&present, request);
            return OnSwitch { switch: present, elsewhere: true, remarks };
        }
        match self.switch_for(nic, request, Some(port.uuid)) {
            Ok((switch, remarks)) => OnSwitch { switch, elsewhere: false, remarks },
            Err(refusal) => OnSwitch { switch: present, elsewhere: true, remarks: refusal.into() },
        }
    }

    /// Reports that a move to another switch is deferred while a guest runs, and whether that switch can be found. The
    /// request there is checked at the move: an address is reserved only on the present switch of a port.
    pub(super) fn deferred(&self, present: &Switch, requested: &SwitchRequest) -> Remarks {
        let (present, name) = (present.name.clone(), requested.name.clone());
        let wakes = vec![Wake::Switch(name.clone())];
        let mut remarks = Remarks::waiting(Problem::SwitchDeferred { present, requested: name }, wakes);
        if let Err(refusal) = self.find_switch(&requested.name, requested, true) {
            remarks.add(refusal);
        }
        remarks
    }

    /// Finds the switch for a port: the first of the named switches that can serve it. If they all fail, the reason of
    /// the first one is reported, and the VM waits for all of them.
    pub(super) fn switch_for(
        &self,
        nic: &PortIntent,
        request: &SwitchRequest,
        own: Option<Uuid>,
    ) -> Result<(Switch, Remarks), Refusal> {
        if let (true, Err(invalid)) = (request.name.is_empty(), nic.life.request()) {
            return Err(Refusal::Problem(Problem::Invalid(invalid.clone()), Vec::new()));
        }
        let alone = |found: Result<Switch, Refusal>| found.map(|switch| (switch, Remarks::default()));
        if request.others.is_empty() {
            return alone(self.find_switch(&request.name, request, own.is_some()));
        }
        // A VM that has lost its port returns to its last switch. While its guest runs, it waits for that switch.
        if let Some(last) = self.last_lease(nic) {
            match self.find_switch(&last.switch, request, own.is_some()) {
                Err(_) if !nic.life.has_guest() => {}
                found => return alone(found),
            }
        }
        let (mut first, mut wakes) = (None, Vec::new());
        for name in request.names() {
            let found = self.find_switch(name, request, own.is_some());
            let tried = found.and_then(|switch| self.would_serve(nic, &switch, own).map(|()| switch));
            match tried {
                // A change of an earlier switch would change the choice until the port is created.
                Ok(switch) => return Ok((switch, Remarks { wakes, ..Remarks::default() })),
                Err(Refusal::Problem(problem, its_wakes)) => {
                    first.get_or_insert(problem);
                    wakes.extend(its_wakes);
                }
                Err(Refusal::Batch) => return Err(Refusal::Batch),
            }
        }
        Err(first.map_or(Refusal::Batch, |problem| Refusal::Problem(problem, wakes)))
    }

    /// Checks that a port without holdings on a switch can have its request there.
    fn would_serve(&self, nic: &PortIntent, switch: &Switch, own: Option<Uuid>) -> Result<(), Refusal> {
        let Ok(request) = nic.life.request() else { return Ok(()) };
        let lost = own.or_else(|| self.row_to_come(nic));
        let holding = Holding {
            nic: &nic.network,
            own,
            lost,
            lease: None,
            reserved: None,
            running: nic.life.has_guest(),
            told: None,
        };
        self.settle(switch, request, &holding).map(drop)
    }

    /// The row that a NIC without one is going to have.
    fn row_to_come(&self, nic: &PortIntent) -> Option<Uuid> {
        self.free_name(&nic.names()).ok().map(|name| port_uuid(self.instance(), &name))
    }

    /// Finds one of the requested switches, if the VM's namespace may use it. A port of the NIC may be `standing`
    /// elsewhere.
    fn find_switch(&self, name: &str, request: &SwitchRequest, standing: bool) -> Result<Switch, Refusal> {
        let mut found = self.northbound().switches_named(name);
        match (found.len(), found.next()) {
            (1, Some(uuid)) => {
                let switch = Switch { uuid, name: name.to_owned() };
                self.may_use(&switch, request, standing).map(|()| switch)
            }
            (0, _) | (_, None) => Err(Refusal::on_switch(name, Problem::SwitchNotFound(name.to_owned()))),
            (count, _) => Err(Refusal::on_switch(name, Problem::SwitchAmbiguous { name: name.to_owned(), count })),
        }
    }
}
