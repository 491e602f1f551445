//! Sentences for people: the reasons for the state of a VM's ports, and the events that the service waits for.

use uuid::Uuid;

use super::model::{Binding, Nic, Port, PortState};
use crate::escaped::Escaped;
use crate::intent::Placement;
use crate::kubevirt::VmObjects;
use crate::ovn::{Northbound, Wake, mac_text};
use crate::plan::Waits;

/// The sentences of a wait that are given: a VM with many NICs may wait for hundreds of changes.
const MOST_WAITS: usize = 20;

/// The state of a VM in Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// It has no object.
    Gone,
    /// It has objects.
    Exists {
        /// Its namespace is served.
        served: bool,
        /// Where its guest is, or goes to.
        placement: Placement,
        /// A live migration has not ended.
        migrates: bool,
    },
    /// Unknown, for this reason.
    Unknown(String),
}

impl Known {
    /// The data from the objects of a VM.
    pub fn of(objects: Option<&VmObjects>, served: bool) -> Self {
        objects.map_or(Self::Gone, |objects| Self::Exists {
            served,
            placement: Placement::of(objects),
            migrates: objects.is_migrating(),
        })
    }

    /// True if it exists, if that is known.
    pub fn exists(&self) -> Option<bool> {
        match self {
            Self::Gone => Some(false),
            Self::Exists { .. } => Some(true),
            Self::Unknown(_) => None,
        }
    }
}

/// The sentences for the ports of a VM.
pub fn explanation(ports: &[Port], known: &Known) -> Vec<String> {
    let mut sentences = vec![of_vm(ports, known)];
    for port in ports {
        sentences.extend(of_port(port, known));
        let dhcp = (!port.dhcp.is_empty()).then(|| port.dhcp.join(" and "));
        sentences.extend(dhcp.map(|dhcp| format!("OVN answers {dhcp} on it.")));
        sentences.extend(port.problems.iter().map(|problem| format!("{}: {}", problem.reason, problem.message)));
    }
    sentences
}

fn of_vm(ports: &[Port], known: &Known) -> String {
    match known {
        Known::Gone => "The VM has no object in Kubernetes: it is deleted.".to_owned(),
        Known::Unknown(reason) => format!("The objects of the VM in Kubernetes are not known here: {reason}."),
        Known::Exists { served: false, .. } => {
            "The namespace of the VM is not selected by --namespace-selector: ports that stand follow the VM, and new \
             NICs get none."
                .to_owned()
        }
        Known::Exists { .. } if ports.is_empty() => {
            "None of its NICs is on a logical switch that ovn-kubevirt knows of: no annotation of the VM, of a \
             NetworkAttachmentDefinition or of the namespace names one, and --default-switch has none for the pod network."
                .to_owned()
        }
        Known::Exists { migrates: true, placement: Placement::On { home, target: Some(target), .. }, .. } => {
            format!("The VM migrates live from the node {} to {}.", Escaped(home), Escaped(target))
        }
        Known::Exists { migrates: true, placement: Placement::On { home, target: None, .. }, .. } => format!(
            "A live migration of the VM has not ended. Its guest is on the node {}, and no target pod waits on another node.",
            Escaped(home)
        ),
        Known::Exists { placement: Placement::On { home, .. }, .. } => {
            format!("The VM is on the node {}.", Escaped(home))
        }
        Known::Exists { placement: Placement::Unbound, .. } => {
            "The VM has no launcher pod: it is stopped, or about to start.".to_owned()
        }
        Known::Exists { placement: Placement::KeepHome, .. } => {
            "The launcher pods of the VM have ended, or are not scheduled yet.".to_owned()
        }
        Known::Exists { placement: Placement::Keep, .. } => {
            "The live launcher pods belong to another instance of the VM, and its ports stay as they are.".to_owned()
        }
    }
}

fn of_port(port: &Port, known: &Known) -> Vec<String> {
    if port.network.is_empty() && port.port.is_none() {
        return Vec::new();
    }
    let network = Escaped(&port.network);
    let Some(name) = &port.port else {
        let why = if port.problems.is_empty() { "it is being decided" } else { "a problem stands in the way" };
        return vec![format!("The network {network} has no port yet: {why}.")];
    };
    let switch = port.switch.as_deref().unwrap_or("that is gone");
    let holds = match &port.mac {
        Some(mac) => addresses(mac, &port.ips),
        None => "no addresses that can be read".to_owned(),
    };
    let mut sentences = vec![format!(
        "The network {network} has the port {} on the logical switch {}, which holds {holds}.",
        Escaped(name),
        Escaped(switch)
    )];
    if port.coming {
        sentences.push(
            "The VM changes this network while it runs: a live migration brings the guest to this port.".to_owned(),
        );
    }
    sentences.extend(place(port, known));
    sentences.extend(port.binding.as_ref().map(binding));
    if let Some(Nic { mac, ips }) = &port.next {
        sentences.push(format!("At its next start it gets {}.", addresses(mac, ips)));
    }
    sentences
}

fn addresses(mac: &str, ips: &[String]) -> String {
    match ips {
        [] => format!("the MAC {mac} and no address"),
        ips => format!("{} with the MAC {mac}", ips.join(" and ")),
    }
}

/// Where the port is requested, and why.
fn place(port: &Port, known: &Known) -> Option<String> {
    let chassis: Vec<String> = port.chassis.iter().map(|chassis| Escaped(chassis).to_string()).collect();
    Some(match port.state {
        PortState::Pending => return None,
        PortState::Retained => {
            let until = port.retained_until.as_deref().unwrap_or_default();
            let (vm, end) =
                (format!("{}/{}", port.namespace, port.vm), if until == "forever" { "for ever" } else { until });
            let until = if until == "forever" { end.to_owned() } else { format!("until {end}") };
            format!(
                "The VM is deleted, and the addresses stay reserved for a VM of its name {until}. leases.release gives up those of {}.",
                Escaped(&vm)
            )
        }
        PortState::Unbound if port.coming => "It is requested on no chassis until a migration has a target.".to_owned(),
        PortState::Unbound => match known {
            Known::Exists { placement: Placement::On { .. }, .. } => {
                "It is requested on no chassis, although the VM is on a node.".to_owned()
            }
            _ => "It is requested on no chassis.".to_owned(),
        },
        PortState::Bound if port.coming => {
            format!("It is requested on the chassis {}, where a migration's target waits.", chassis.join(", "))
        }
        PortState::Bound => format!("It is requested on the chassis {}.", chassis.join(", ")),
        PortState::Moving => {
            let (home, targets) = chassis.split_first()?;
            format!(
                "It is requested on the chassis {home}, where the guest is, and on {}, where it opens when the guest announces itself.",
                targets.join(", ")
            )
        }
    })
}

fn binding(binding: &Binding) -> String {
    match binding {
        Binding::Unseen => "northd has not put it into the southbound database yet.".to_owned(),
        Binding::Unbound => {
            "No chassis has claimed it: no interface on the requested chassis has its name in external_ids:iface-id yet."
                .to_owned()
        }
        Binding::Bound { chassis, up: true } => {
            format!("The chassis {} has claimed it, and its traffic flows.", Escaped(chassis))
        }
        Binding::Bound { chassis, up: false } => {
            format!("The chassis {} has claimed it, and is about to set up its flows.", Escaped(chassis))
        }
        Binding::Moving { chassis, additional, processed, activated } => {
            let to = additional.iter().map(|chassis| Escaped(chassis).to_string()).collect::<Vec<_>>().join(", ");
            let progress = match (activated, processed) {
                (true, _) => "has seen the guest",
                (false, true) => "has set up its flows and waits for the guest",
                (false, false) => "waits for the guest",
            };
            format!("It is on {}, and {to} has claimed it and {progress}.", Escaped(chassis))
        }
    }
}

/// The changes after which a VM is decided again, each as a sentence.
pub(super) fn waits_for(northbound: &Northbound, waits: &Waits) -> Vec<String> {
    let mut sentences: Vec<String> = waits.wakes.iter().map(|wake| wait(northbound, wake)).collect();
    sentences.sort_unstable();
    sentences.dedup();
    if waits.batch {
        sentences.insert(0, "The transaction that is in flight is answered.".to_owned());
    }
    if let Some(due) = waits.due.and_then(|due| k8s_openapi::jiff::Timestamp::from_second(due).ok()) {
        sentences.push(format!("It is {due}."));
    }
    let more = sentences.len().saturating_sub(MOST_WAITS);
    if more > 0 {
        sentences.truncate(MOST_WAITS);
        sentences.push(format!("Any of {more} changes more."));
    }
    sentences
}

fn wait(northbound: &Northbound, wake: &Wake) -> String {
    let switch = |uuid: &Uuid| match northbound.switch(uuid) {
        Some(row) => Escaped(&row.name).to_string(),
        None => uuid.to_string(),
    };
    match wake {
        Wake::Switch(name) => {
            format!("A logical switch named {} appears, goes, or gets other settings or ports.", Escaped(name))
        }
        Wake::Address(on, ip) => format!("The holder of {ip} on the logical switch {} releases it.", switch(on)),
        Wake::Mac(on, mac) => {
            format!("The holder of the MAC {} on the logical switch {} releases it.", mac_text(*mac), switch(on))
        }
        Wake::Room(on) => format!("An address of the logical switch {} is released.", switch(on)),
        Wake::Name(name) => format!("The port name {} is released.", Escaped(name)),
        Wake::Processed => "northd has processed more of the northbound database.".to_owned(),
        Wake::Binding(port) => format!("The southbound database has another binding of the port {}.", Escaped(port)),
        Wake::Services => "A NAT rule or a load balancer changes.".to_owned(),
        Wake::Chassis(name) => format!("A chassis of the name or hostname {} appears, goes or changes.", Escaped(name)),
        Wake::Claim(port) => format!("A chassis claims or releases the port {}.", Escaped(port)),
        Wake::Southbound => "The southbound database comes into sync.".to_owned(),
        Wake::DhcpOptions => "OVN supports other DHCP options.".to_owned(),
        Wake::Gone(vm) => format!("The VM {} is deleted.", Escaped(&vm.to_string())),
        Wake::Namespace(name) => format!("A port of a VM in the namespace {} is deleted.", Escaped(name)),
    }
}
