//! `decide`: what the service would do for an object.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::explain::waits_for;
use super::failure::{Failure, Reason};
use super::method::Method;
use super::model::{DecideParams, Decided, DecidedRow, RowAction};
use super::sources::Api;
use super::view::View;
use crate::contract::VmKey;
use crate::controller::Moment;
use crate::escaped::EscapedError;
use crate::kubevirt::objects::{VirtualMachine, VirtualMachineInstance};
use crate::kubevirt::{Cluster, VmObjects};
use crate::ovn::Northbound;
use crate::plan::{PortChange, RowChange, decide_for};

/// The limit for the answer of the writer.
const PATIENCE: Duration = Duration::from_secs(10);

/// `decide`
pub(super) struct Decide;

impl Method for Decide {
    const NAME: &'static str = "decide";
    const SUMMARY: &'static str =
        "Says what the service would do for a VM with this object in the place of the stored one. Nothing is written.";
    const ERRORS: &'static [Reason] = &[Reason::NotReady, Reason::TimedOut];
    type Params = DecideParams;
    type Answer = Decided;

    async fn call(api: Arc<Api>, DecideParams { object }: DecideParams) -> Result<Decided, Failure> {
        let object = Object::read(object)?;
        let vm = object.vm()?;
        let asked = api.sources.asker.ask(&vm, PATIENCE, move |moment| ControlFlow::Break(decided(moment, &object)));
        Ok(asked.await?)
    }
}

/// An object that asks for ports.
enum Object {
    Vm(Box<VirtualMachine>),
    Run(Box<VirtualMachineInstance>),
}

impl Object {
    fn read(object: Map<String, Value>) -> Result<Self, Failure> {
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        let unreadable = |error: serde_json::Error| {
            let error = error.to_string();
            Failure::invalid(format!("The object cannot be read: {}. Correct it.", EscapedError(&error)))
        };
        let object = Value::Object(object);
        match kind.as_str() {
            "VirtualMachine" => serde_json::from_value(object).map(Self::Vm).map_err(unreadable),
            "VirtualMachineInstance" => serde_json::from_value(object).map(Self::Run).map_err(unreadable),
            _ => Err(Failure::invalid(
                "The object is neither a VirtualMachine nor a VirtualMachineInstance. Write one with its kind.",
            )),
        }
    }

    fn vm(&self) -> Result<VmKey, Failure> {
        let metadata = match self {
            Self::Vm(vm) => &vm.metadata,
            Self::Run(run) => &run.metadata,
        };
        match (metadata.namespace.clone(), metadata.name.clone()) {
            (Some(namespace), Some(name)) => Ok(VmKey::new(namespace, name)),
            _ => Err(Failure::invalid("The object has no namespace or no name. Write both into its metadata.")),
        }
    }

    fn in_place(&self, cluster: &Cluster) -> (VmKey, VmObjects) {
        match self {
            Self::Vm(vm) => cluster.with_vm(VirtualMachine::clone(vm)),
            Self::Run(run) => cluster.with_run(VirtualMachineInstance::clone(run)),
        }
    }
}

fn decided(moment: &Moment<'_>, object: &Object) -> Decided {
    let northbound = moment.snapshot.northbound;
    let (vm, objects) = object.in_place(moment.snapshot.cluster);
    let decision = decide_for(moment.snapshot, moment.claims, &vm, &objects);
    let view = View { northbound, southbound: None };
    let changes = decision.rows.iter().filter_map(RowChange::as_port);
    Decided {
        served: !decision.status.is_empty() || !decision.rows.is_empty(),
        ports: view.ports_of(&vm, Some(&decision.status)),
        rows: changes.filter_map(|change| row(northbound, change)).collect(),
        waits_for: waits_for(northbound, &decision.waits),
        namespace: vm.namespace,
        vm: vm.name,
    }
}

fn row(northbound: &Northbound, change: &PortChange) -> Option<DecidedRow> {
    let view = View { northbound, southbound: None };
    let PortChange { uuid: _, before, after } = change;
    let name = &after.as_ref().or(before.as_ref())?.row.name;
    let [before_row, after_row] =
        [before, after].map(|placed| placed.as_ref().map(|placed| view.row(Some(placed.switch), &placed.row)));
    let action = match (before, after) {
        (None, _) => RowAction::Create,
        (Some(_), Some(_)) => RowAction::Update,
        (Some(_), None) => RowAction::Delete,
    };
    Some(DecidedRow { action, port: name.clone(), before: before_row, after: after_row })
}
