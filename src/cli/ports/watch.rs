//! `ovn-kubevirt ports --watch`: the ports, and then each that changes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::source::{Databases, Source};
use super::{ListOptions, Shown, goes_on, read};
use crate::api::rpc::ApiClient;
use crate::api::rpc::model::{Port, PortsMessage, SubscribeParams, VmPorts};

/// Changes of the database within this time are shown together.
const PAUSE: Duration = Duration::from_millis(200);

/// The namespace, the VM, the network and the port.
type Key = (String, String, String, Option<String>);
/// The ports that are shown.
type Known = BTreeMap<Key, Port>;

/// Prints until the reader is gone or the source breaks.
pub(super) async fn print(source: Source, options: &ListOptions) -> anyhow::Result<()> {
    let shown = Shown::new(options.output);
    match source {
        Source::Api(client) => of_service(*client, options, shown).await,
        Source::Databases(databases) => of_databases(&databases, options, shown).await,
    }
}

async fn of_service(mut client: ApiClient, options: &ListOptions, mut shown: Shown) -> anyhow::Result<()> {
    let params = SubscribeParams { filter: options.filter(), changes_only: None };
    let _: serde_json::Value = client.call("ports.subscribe", &params).await?;
    let mut known = Known::new();
    loop {
        let text = match client.message::<PortsMessage>().await? {
            PortsMessage::State { ports, .. } => news(&mut known, ports, &mut shown)?,
            PortsMessage::Changes { vms, .. } => {
                let mut text = String::new();
                for VmPorts { namespace, vm, ports } in vms {
                    text.push_str(&gone(&mut known, &mut shown, |port| {
                        (&port.namespace, &port.vm) == (&namespace, &vm)
                            && !ports.iter().any(|left| is_known_as(port, left))
                    })?);
                    text.push_str(&news(&mut known, ports, &mut shown)?);
                }
                text
            }
        };
        if !text.is_empty() && !goes_on(&text)? {
            return Ok(());
        }
    }
}

async fn of_databases(databases: &Databases, options: &ListOptions, mut shown: Shown) -> anyhow::Result<()> {
    let filter = options.filter();
    let mut known = Known::new();
    loop {
        let changed = async {
            match &databases.southbound {
                Some(southbound) => tokio::select! {
                    () = databases.northbound.changed.notified() => {}
                    () = southbound.changed.notified() => {}
                },
                None => databases.northbound.changed.notified().await,
            }
        };
        let ports = read(databases, &filter);
        let mut text = gone(&mut known, &mut shown, |port| !ports.iter().any(|left| is_known_as(port, left)))?;
        text.push_str(&news(&mut known, ports, &mut shown)?);
        if !text.is_empty() && !goes_on(&text)? {
            return Ok(());
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), changed).await;
        anyhow::ensure!(!databases.are_lost(), "the connection to the database is lost. Try again");
        tokio::time::sleep(PAUSE).await;
    }
}

/// A NIC has two ports while a running VM changes the NIC's network.
fn key(port: &Port) -> Key {
    (port.namespace.clone(), port.vm.clone(), port.network.clone(), port.port.clone())
}

/// Returns true if a known port is still there, or the NIC without one has got it.
fn is_known_as(known: &Port, now: &Port) -> bool {
    let of_nic = |port: &Port| (port.namespace.clone(), port.vm.clone(), port.network.clone());
    of_nic(known) == of_nic(now) && (known.port == now.port || known.port.is_none())
}

/// The text for the ports that have changed.
fn news(known: &mut Known, ports: Vec<Port>, shown: &mut Shown) -> anyhow::Result<String> {
    let changed: Vec<Port> = ports.into_iter().filter(|port| known.get(&key(port)) != Some(port)).collect();
    for port in changed.iter().filter(|port| port.port.is_some()) {
        known.remove(&key(&Port { port: None, ..port.clone() }));
    }
    known.extend(changed.iter().map(|port| (key(port), port.clone())));
    if changed.is_empty() { Ok(String::new()) } else { shown.next(&changed) }
}

/// The text for known ports that are gone.
fn gone(known: &mut Known, shown: &mut Shown, is_gone: impl Fn(&Port) -> bool) -> anyhow::Result<String> {
    let gone: Vec<_> = known.iter().filter(|(_, port)| is_gone(port)).map(|(key, _)| key.clone()).collect();
    let ports = gone.iter().filter_map(|key| known.remove(key));
    ports.map(|port| shown.gone(&port)).collect()
}
