//! `leases.release`: gives up the addresses that are retained for a deleted VM.
//!
//! The writer alone writes. It gets an order, decides for the VM again, and sends the change in a fenced transaction like
//! any other. The question that gave the order is asked again after that, until the rows are gone.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::failure::{Failure, Reason};
use super::method::Method;
use super::model::{Port, Released, VmName};
use super::sources::Api;
use super::view::View;
use crate::contract::{VmKey, keys};
use crate::controller::{Leadership, Moment};
use crate::escaped::Escaped;

/// The limit for the commit.
const PATIENCE: Duration = Duration::from_secs(10);

/// `leases.release`
pub(super) struct Release;

impl Method for Release {
    const NAME: &'static str = "leases.release";
    const SUMMARY: &'static str =
        "Releases the ports that are retained for a deleted VM, with their addresses. The process that leads does it.";
    const ERRORS: &'static [Reason] =
        &[Reason::NotReady, Reason::NotFound, Reason::NotLeader, Reason::Refused, Reason::TimedOut];
    type Params = VmName;
    type Answer = Released;

    async fn call(api: Arc<Api>, VmName { namespace, vm }: VmName) -> Result<Released, Failure> {
        let vm = VmKey::new(namespace, vm);
        let leader = match &*api.sources.leadership.borrow() {
            Leadership::Follower { leader } => leader.clone(),
            Leadership::Leader { .. } => None,
        };
        let mut order = Order { vm: vm.clone(), leader, released: None };
        api.sources.asker.ask(&vm, PATIENCE, move |moment| order.ask(moment)).await?
    }
}

struct Order {
    vm: VmKey,
    /// The other process that leads.
    leader: Option<String>,
    /// The ports that are to be released, once the order is given.
    released: Option<Vec<Port>>,
}

impl Order {
    fn ask(&mut self, moment: &Moment<'_>) -> ControlFlow<Result<Released, Failure>, String> {
        let name = Escaped(&self.vm.to_string()).to_string();
        if !moment.leads {
            return ControlFlow::Break(Err(self.not_leader()));
        }
        if moment.snapshot.cluster.vm(&self.vm).is_some() {
            return ControlFlow::Break(Err(Failure::new(
                Reason::Refused,
                format!(
                    "The VM {name} exists, and holds its addresses. Delete the VM: its ports go with it, or are retained."
                ),
            )));
        }
        let view = View { northbound: moment.snapshot.northbound, southbound: None };
        let rows = || moment.snapshot.northbound.ports_of(&self.vm);
        let is_retained = rows().any(|(_, port)| port.row.external_ids.get(keys::RETAINED_UNTIL).is_some());
        match (is_retained, self.released.take()) {
            (false, Some(released)) => ControlFlow::Break(Ok(Released { released })),
            (false, None) if rows().next().is_some() => ControlFlow::Break(Err(Failure::new(
                Reason::Refused,
                format!("The ports of the VM {name} are not retained: they are held, as status tells. See its remark."),
            ))),
            (false, None) => ControlFlow::Break(Err(Failure::not_found(format!(
                "No addresses are retained for a VM {name}. ports.list with the state retained shows those that are."
            )))),
            (true, released) => {
                let retained = || {
                    let ports = view.ports_of(&self.vm, None);
                    ports.into_iter().filter(|port| port.retained_until.is_some()).collect()
                };
                // A decision that leaves the row alone is not asked for again.
                if released.is_none() {
                    moment.release(&self.vm);
                }
                self.released = Some(released.unwrap_or_else(retained));
                ControlFlow::Continue(format!(
                    "The ports of the VM {name} were not released within {PATIENCE:?}. Look at status, and ask ports.get about the VM"
                ))
            }
        }
    }

    fn not_leader(&self) -> Failure {
        let message = match &self.leader {
            Some(leader) => {
                format!("Another process leads, and it alone releases ports: {}. Ask that one.", Escaped(leader))
            }
            None => {
                "This process does not lead, and the leader is not known yet. Try again, or ask another one.".to_owned()
            }
        };
        Failure { reason: Reason::NotLeader, message, leader: self.leader.clone() }
    }
}
