//! `ports.list` and `ports.get`.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::time::Duration;

use super::explain::{Known, explanation, waits_for};
use super::failure::{Failure, Reason};
use super::method::Method;
use super::model::{Explained, ListParams, Port, PortFilter, PortPage, VmName};
use super::replicas::Replicas;
use super::sources::Api;
use super::subscriptions::Subscriptions;
use super::view::{Chosen, place};
use crate::contract::VmKey;
use crate::escaped::Escaped;
use crate::plan::decide;

/// The ports of a page.
const USUAL_LIMIT: u32 = 500;
const MOST_LIMIT: u32 = 2_000;
/// VMs that are read under one lock.
const AT_ONCE: usize = 64;
/// The limit for a question to the writer about a node or a VM.
const PATIENCE: Duration = Duration::from_secs(2);

/// `ports.list`
pub(super) struct List;

impl Method for List {
    const NAME: &'static str = "ports.list";
    const SUMMARY: &'static str = "Lists ports of VMs, a page at a time. The problems of the VMs come with them.";
    const ERRORS: &'static [Reason] = &[Reason::NotReady];
    type Params = ListParams;
    type Answer = PortPage;

    async fn call(api: Arc<Api>, params: ListParams) -> Result<PortPage, Failure> {
        api.has_read()?;
        let ListParams { filter, limit, cursor } = params;
        let limit = limit.unwrap_or(USUAL_LIMIT);
        if !(1..=MOST_LIMIT).contains(&limit) {
            return Err(Failure::invalid(format!("The limit is {limit}. Write 1 to {MOST_LIMIT}.")));
        }
        let from = cursor.as_deref().map(Cursor::read).transpose()?;
        let chosen = chosen(&api, filter).await;
        let worker = Arc::clone(&api);
        let list = move || page(&worker.sources.replicas, &worker.subscriptions, &chosen, from, limit as usize);
        Ok(api.heavily(list).await)
    }
}

/// Reads a filter, and finds the chassis of its node.
pub(super) async fn chosen(api: &Api, filter: PortFilter) -> Chosen {
    let annotated = match filter.node.clone() {
        // The writer alone has the annotations of nodes. Without its answer the other names count.
        Some(node) => {
            let anyone = VmKey::new("", "");
            let asked = api.sources.asker.ask(&anyone, PATIENCE, move |moment| {
                let chassis = moment.snapshot.cluster.chassis_of(&node);
                ControlFlow::Break(chassis.ok().flatten().map(ToOwned::to_owned))
            });
            asked.await.ok().flatten()
        }
        None => None,
    };
    let mut chosen = Chosen::new(filter, annotated);
    api.replicas().look(|view| chosen.locate(view.southbound));
    chosen
}

/// The place after which a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    vm: VmKey,
    network: String,
    /// A VM may have a second port of a network, for instance one that was left over. It is empty without a port.
    port: String,
}

impl Cursor {
    fn read(text: &str) -> Result<Self, Failure> {
        // The names of Kubernetes have no slash; the name of a port may have some.
        let mut parts = text.splitn(4, '/');
        let mut part = || parts.next().map(ToOwned::to_owned);
        match (part(), part(), part(), part()) {
            (Some(namespace), Some(name), Some(network), Some(port)) => {
                Ok(Self { vm: VmKey::new(namespace, name), network, port })
            }
            _ => Err(Failure::invalid(format!(
                "The cursor \"{}\" is none of ovn-kubevirt's. Write nextCursor of the page before, or leave it out.",
                Escaped(text)
            ))),
        }
    }

    fn of(port: &Port) -> String {
        let (network, name) = place(port);
        format!("{}/{}/{network}/{name}", port.namespace, port.vm)
    }

    /// Returns true if the port is on a page before.
    fn is_past(&self, port: &Port) -> bool {
        port.vm == self.vm.name
            && port.namespace == self.vm.namespace
            && place(port) <= (self.network.as_str(), self.port.as_str())
    }
}

/// One page. It reads some VMs at a time, and holds no lock in between.
fn page(
    replicas: &Replicas,
    subscriptions: &Subscriptions,
    chosen: &Chosen,
    from: Option<Cursor>,
    limit: usize,
) -> PortPage {
    let mut page = PortPage { ports: Vec::new(), next_cursor: None };
    let mut add = |vms: &[Arc<VmKey>]| -> ControlFlow<()> {
        for port in read(replicas, chosen, vms) {
            if from.as_ref().is_some_and(|from| from.is_past(&port)) {
                continue;
            }
            if page.ports.len() == limit {
                page.next_cursor = page.ports.last().map(Cursor::of);
                return ControlFlow::Break(());
            }
            page.ports.push(port);
        }
        ControlFlow::Continue(())
    };
    let few = match chosen.vm() {
        Some(vm) => Some(vec![vm]),
        None if chosen.is_for_problems() => {
            let mut kept = replicas.ledger.kept();
            kept.sort_unstable();
            Some(kept)
        }
        None => replicas.look(|view| chosen.holders(view.northbound)),
    };
    if let Some(few) = few {
        let after = |vm: &VmKey| from.as_ref().is_none_or(|from| *vm >= from.vm);
        let few: Vec<Arc<VmKey>> = few.into_iter().filter(after).map(Arc::new).collect();
        for vms in few.chunks(AT_ONCE) {
            if add(vms).is_break() {
                break;
            }
        }
        return page;
    }
    let mut after = match &from {
        Some(from) => Bound::Included(from.vm.clone()),
        None => first_of(chosen),
    };
    loop {
        let vms = subscriptions.names_after(after.as_ref(), AT_ONCE);
        let Some(last) = vms.last().cloned() else { return page };
        let is_past = chosen.is_past(&last);
        if add(&vms).is_break() || is_past {
            return page;
        }
        after = Bound::Excluded(VmKey::clone(&last));
    }
}

/// The first name that may be meant.
pub(super) fn first_of(chosen: &Chosen) -> Bound<VmKey> {
    chosen.namespace().map_or(Bound::Unbounded, |namespace| Bound::Included(VmKey::new(namespace, "")))
}

/// The ports of some VMs that are meant, read at one moment.
pub(super) fn read(replicas: &Replicas, chosen: &Chosen, vms: &[Arc<VmKey>]) -> Vec<Port> {
    let vms: Vec<&VmKey> = vms.iter().map(Arc::as_ref).filter(|vm| chosen.takes_vm(vm)).collect();
    let kept = replicas.ledger.kept_of(vms.iter().copied());
    replicas.look(|view| {
        let vms = vms.into_iter().zip(&kept);
        let ports = vms.flat_map(|(vm, kept)| view.ports_of(vm, kept.as_deref()));
        ports.filter(|port| chosen.takes(port)).collect()
    })
}

/// `ports.get`
pub(super) struct Get;

impl Method for Get {
    const NAME: &'static str = "ports.get";
    const SUMMARY: &'static str =
        "Explains the ports of one VM: why they are as they are, and what the service waits for.";
    const ERRORS: &'static [Reason] = &[Reason::NotReady, Reason::NotFound];
    type Params = VmName;
    type Answer = Explained;

    async fn call(api: Arc<Api>, VmName { namespace, vm }: VmName) -> Result<Explained, Failure> {
        api.has_read()?;
        let vm = VmKey::new(namespace, vm);
        let key = vm.clone();
        // A decision has the awaited events; the writer alone knows the objects in Kubernetes.
        let asked = api.sources.asker.ask(&vm, PATIENCE, move |moment| {
            let decision = decide(moment.snapshot, moment.claims, &key);
            let objects = moment.snapshot.cluster.vm(&key);
            let waits = waits_for(moment.snapshot.northbound, &decision.waits);
            let served = moment.snapshot.cluster.namespace(&key.namespace).is_some();
            ControlFlow::Break((Known::of(objects, served), waits))
        });
        let (known, waits_for) = match asked.await {
            Ok((known, waits)) => (known, waits),
            Err(unanswered) => (Known::Unknown(unanswered.to_string()), Vec::new()),
        };
        let ports = read(api.replicas(), &Chosen::default(), &[Arc::new(vm.clone())]);
        if ports.is_empty() && matches!(known, Known::Gone) {
            return Err(Failure::not_found(format!(
                "There is no VM {} in Kubernetes, and no port of it. ports.list shows those that there are.",
                Escaped(&vm.to_string())
            )));
        }
        let explanation = explanation(&ports, &known);
        let exists = known.exists();
        Ok(Explained { namespace: vm.namespace, vm: vm.name, exists, ports, explanation, waits_for })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_the_name_of_the_last_port() {
        let cursor = Cursor::read("ns/vm/net1/a/b").expect("a cursor");
        assert_eq!(cursor, Cursor { vm: VmKey::new("ns", "vm"), network: "net1".into(), port: "a/b".into() });
        assert_eq!(Cursor::read("ns/vm//").expect("a cursor").network, "");
        for bad in ["", "ns", "ns/vm", "ns/vm/net1"] {
            assert_eq!(Cursor::read(bad).expect_err(bad).reason, Reason::InvalidParams);
        }
    }
}
