//! `ports.subscribe`: the state of all ports, and then every change.
//!
//! ```text
//!  names, in order --read--> state, in parts --+
//!                                              +--> sequence 1, 2, 3, ... --> the connection's buffer
//!  the journal's order --read--> changes ------+
//! ```
//!
//! The reader of the journal is there before the first name is read. So a change that the state does not show comes
//! after it, and there is no gap. A VM that changes while its subscriber waits is read once, as it is then.
//!
//! All subscriptions together send so many bytes a second, and each has its share of them, however many they are: a storm of changes costs the
//! writer the same with one subscriber and with hundreds. The data of a VM is made once and shared by its readers.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use jsonrpsee::core::server::{SubscriptionCloseResponse, SubscriptionMessage};
use jsonrpsee::core::{RegisterMethodError, SubscriptionError};
use jsonrpsee::server::SubscriptionSink;
use jsonrpsee::{Extensions, PendingSubscriptionSink, RpcModule};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::Instant;

use super::failure::{Failure, Reason};
use super::journal::Reader;
use super::listener::Peer;
use super::method::{Known, Subscription};
use super::model::{Port, PortsMessage, SubscribeParams, VmPorts};
use super::ports::{chosen, first_of, read};
use super::sources::Api;
use super::subscriptions::{MOST, Shown, show};
use super::view::Chosen;
use crate::contract::VmKey;

/// A message ends with the VM that takes it over this size.
const PART: usize = 48 * 1_024;
/// VMs that are read at a time.
const AT_ONCE: usize = 64;
/// A subscriber whose messages are not taken for this long is cut off.
const PATIENCE: Duration = Duration::from_secs(5);

/// The cost of reading a VM, beside the bytes that are sent of it.
const READING_COSTS: f64 = 200.0;
/// The cost of a message beside its bytes, as measured: system calls and a turn of two tasks.
const MESSAGE_COSTS: f64 = 24_000.0;

/// `ports.subscribe`
pub(super) struct PortsSubscribe;

impl Subscription for PortsSubscribe {
    const NAMES: [&'static str; 3] = ["ports.subscribe", "ports.unsubscribe", "ports.changed"];
    const SUMMARY: &'static str =
        "Sends the state of the ports, in parts, and then every VM that changes, as it is then. WebSocket alone.";
    const ERRORS: &'static [Reason] = &[Reason::NotReady, Reason::TooMany];
    type Params = SubscribeParams;
    type Message = PortsMessage;
}

/// Serves the subscription.
pub(super) fn register(module: &mut RpcModule<Arc<Api>>) -> Result<(), RegisterMethodError> {
    let [subscribe, unsubscribe, changed] = PortsSubscribe::NAMES;
    let known = Arc::new(Known::of::<SubscribeParams>());
    let registered =
        module.register_subscription(subscribe, changed, unsubscribe, move |params, pending, api, extensions| {
            let params = known.read::<SubscribeParams>(&params);
            async move { accepted(params, pending, Arc::clone(&api), extensions).await }
        });
    registered.map(drop)
}

async fn accepted(
    params: Result<SubscribeParams, Failure>,
    pending: PendingSubscriptionSink,
    api: Arc<Api>,
    extensions: Extensions,
) -> SubscriptionCloseResponse {
    let begun = params.and_then(|params| {
        api.has_read()?;
        let full = || {
            let message = format!("There are {MOST} subscriptions already. End one, or ask another replica.");
            Failure::new(Reason::TooMany, message)
        };
        Ok((params, api.subscriptions.begin().ok_or_else(full)?))
    });
    let (params, _counted) = match begun {
        Ok(begun) => begun,
        Err(failure) => {
            pending.reject(failure).await;
            return SubscriptionCloseResponse::None;
        }
    };
    let Ok(sink) = pending.accept().await else { return SubscriptionCloseResponse::None };
    // The connection does not make room for others.
    let _busy = extensions.get::<Peer>().map(|peer| peer.work.begin());
    let chosen = chosen(&api, params.filter).await;
    let journal = Arc::clone(&api.subscriptions.journal);
    let reader = api.heavily(move || journal.reader()).await;
    let told = HashSet::new();
    let mut stream = Stream { api, sink, chosen, reader, told, sequence: 0, next: Instant::now() };
    match stream.run(params.changes_only != Some(true)).await {
        Ended::Left => SubscriptionCloseResponse::None,
        Ended::TooSlow => {
            tracing::info!(sequence = stream.sequence, "a subscriber takes its messages too slowly, and is cut off");
            let message = format!(
                "Messages were not taken within {PATIENCE:?}, and the subscription ends. Subscribe again, and read faster or with a filter."
            );
            let reason = Cut { reason: Reason::TooSlow, message };
            to_raw_value(&reason).map_or(SubscriptionCloseResponse::None, |reason| {
                SubscriptionCloseResponse::NotifErr(SubscriptionError::from_json(reason))
            })
        }
    }
}

/// The last word to a subscriber.
#[derive(Serialize)]
struct Cut {
    reason: Reason,
    message: String,
}

/// The end of a subscription.
enum Ended {
    /// The subscriber has left.
    Left,
    /// The subscriber does not take its messages.
    TooSlow,
}

/// A subscription in progress.
struct Stream {
    api: Arc<Api>,
    sink: SubscriptionSink,
    chosen: Chosen,
    reader: Reader<Shown>,
    /// With a filter: the VMs with ports that it takes, as far as the subscriber knows.
    told: HashSet<VmKey>,
    sequence: u64,
    /// The next message is not sent before.
    next: Instant,
}

impl Stream {
    async fn run(&mut self, with_state: bool) -> Ended {
        let state = if with_state { self.state().await } else { self.send_state(&[], true).await };
        if let Err(ended) = state {
            return ended;
        }
        loop {
            tokio::select! {
                () = self.sink.closed() => return Ended::Left,
                () = self.reader.moved() => {}
            }
            // Changes in the meantime are included.
            if let Err(ended) = self.wait().await {
                return ended;
            }
            if let Err(ended) = self.changes().await {
                return ended;
            }
        }
    }

    /// Sends the state, some VMs at a time.
    async fn state(&mut self) -> Result<(), Ended> {
        let mut after = first_of(&self.chosen);
        let (mut parts, mut size) = (Vec::new(), 0);
        loop {
            // A filter may take few of many VMs: reading them is paced as well.
            self.wait().await?;
            let vms = self.api.subscriptions.names_after(after.as_ref(), AT_ONCE);
            self.charge(vms.len() as f64 * READING_COSTS);
            let last = vms.last().cloned();
            for port in read(self.api.replicas(), &self.chosen, &vms) {
                if !self.chosen.takes_all() {
                    self.told.insert(VmKey::new(port.namespace.clone(), port.vm.clone()));
                }
                let Ok(json) = to_raw_value(&port) else { continue };
                size += json.get().len();
                parts.push(json);
            }
            let is_last = last.as_ref().is_none_or(|last| self.chosen.is_past(last));
            if size > PART || is_last {
                self.send_state(&parts, is_last).await?;
                (parts, size) = (Vec::new(), 0);
            }
            match last.filter(|_| !is_last) {
                Some(last) => after = Bound::Excluded(VmKey::clone(&last)),
                None => return Ok(()),
            }
        }
    }

    async fn send_state(&mut self, ports: &[Box<RawValue>], complete: bool) -> Result<(), Ended> {
        #[derive(Serialize)]
        struct State<'a> {
            kind: &'static str,
            sequence: u64,
            ports: &'a [Box<RawValue>],
            complete: bool,
        }
        self.wait().await?;
        self.sequence += 1;
        let message = State { kind: "state", sequence: self.sequence, ports, complete };
        self.send(to_raw_value(&message)).await
    }

    /// Sends one message of changes.
    async fn changes(&mut self) -> Result<(), Ended> {
        #[derive(Serialize)]
        struct Changes<'a> {
            kind: &'static str,
            sequence: u64,
            vms: Vec<&'a RawValue>,
        }
        let (mut shown, mut own, mut size) = (Vec::new(), Vec::new(), 0);
        while size < PART {
            let changes = self.reader.read(AT_ONCE);
            let is_last = changes.len() < AT_ONCE;
            for one in show(self.api.replicas(), &changes) {
                size += one.json.get().len();
                shown.push(one);
            }
            if is_last {
                break;
            }
        }
        if !self.chosen.takes_all() {
            self.charge(size as f64);
            own = std::mem::take(&mut shown).iter().filter_map(|shown| self.filtered(shown)).collect();
        }
        let vms: Vec<&RawValue> =
            shown.iter().map(|shown| &*shown.json).chain(own.iter().map(|json| &**json)).collect();
        if vms.is_empty() {
            return Ok(());
        }
        self.sequence += 1;
        let message = Changes { kind: "changes", sequence: self.sequence, vms };
        let message = to_raw_value(&message);
        self.send(message).await
    }

    /// A VM as the filter takes it. A VM that has left the filter is sent once, without ports.
    fn filtered(&mut self, shown: &Shown) -> Option<Box<RawValue>> {
        if !self.chosen.takes_vm(&shown.vm) {
            return None;
        }
        let ports: Vec<Port> = shown.ports.iter().filter(|port| self.chosen.takes(port)).cloned().collect();
        let is_news = match ports.is_empty() {
            true => self.told.remove(&*shown.vm),
            false => {
                self.told.insert(VmKey::clone(&shown.vm));
                true
            }
        };
        let VmKey { namespace, name: vm } = VmKey::clone(&shown.vm);
        is_news.then(|| to_raw_value(&VmPorts { namespace, vm, ports }).ok())?
    }

    /// Delays the next message by the cost of so many bytes.
    fn charge(&mut self, bytes: f64) {
        let costs = bytes / self.api.subscriptions.share();
        self.next = self.next.max(Instant::now()) + Duration::from_secs_f64(costs);
    }

    /// Waits for the turn of the next message.
    async fn wait(&mut self) -> Result<(), Ended> {
        tokio::select! {
            () = self.sink.closed() => Err(Ended::Left),
            () = tokio::time::sleep_until(self.next) => Ok(()),
        }
    }

    async fn send(&mut self, message: Result<Box<RawValue>, serde_json::Error>) -> Result<(), Ended> {
        let Ok(message) = message else { return Err(Ended::Left) };
        self.charge(message.get().len() as f64 + MESSAGE_COSTS);
        match self.sink.send_timeout(SubscriptionMessage::from(message), PATIENCE).await {
            Ok(()) => Ok(()),
            Err(jsonrpsee::SendTimeoutError::Timeout(_)) => Err(Ended::TooSlow),
            Err(jsonrpsee::SendTimeoutError::Closed(_)) => Err(Ended::Left),
        }
    }
}
