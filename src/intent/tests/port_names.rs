//! No two NICs of any VMs have the same port name, even with dots in the names of VMs.

use std::collections::HashMap;

use super::*;
use crate::contract::NadKey;

/// All names of up to so many labels, of two letters of which one is `ovn`.
fn names(most: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut longest = vec![String::new()];
    for _ in 0..most {
        let with = |name: &String| {
            ["a", "ovn"].map(|label| format!("{name}{}{label}", if name.is_empty() { "" } else { "." }))
        };
        longest = longest.iter().flat_map(with).collect();
        all.extend(longest.iter().cloned());
    }
    all
}

/// A NIC as it is named.
fn nic(vm: &VmKey, on: &Attachment, network: &str, another_before: bool) -> PortIntent {
    PortIntent {
        network: network.to_owned(),
        base_name: on.port_name(vm),
        ambiguous: on.ambiguous(vm),
        another_before,
        switch: None,
        on_none_of_ours: false,
        missing_nad: None,
        nads: Vec::new(),
        seat: Seat::default(),
        arrived: None,
        pod_port: None,
        binding: Binding::Bridge,
        life: Life::Stopped { request: Ok(Request::default()), next: None },
        placement: Placement::Unbound,
        unserved: Vec::new(),
    }
}

#[test]
fn no_two_nics_of_any_vms_have_the_same_first_name() {
    let labels = ["a", "ovn"];
    let mut attachments = vec![Attachment::Pod];
    for (name, namespace) in names(3).into_iter().flat_map(|name| labels.map(|namespace| (name.clone(), namespace))) {
        attachments.push(Attachment::Nad(NadKey::new(namespace, name)));
    }
    let mut seen: HashMap<String, (VmKey, Attachment, String)> = HashMap::new();
    for (vm, namespace) in names(6).into_iter().flat_map(|vm| labels.map(|namespace| (vm.clone(), namespace))) {
        let vm = VmKey::new(namespace, vm);
        for on in &attachments {
            // A second NIC is on a NAD only: KubeVirt admits one pod network.
            for (network, another_before) in [("a", false), ("ovn", *on != Attachment::Pod)] {
                let nic = nic(&vm, on, network, another_before);
                // Those that stand under one of their names are known by it, and no other's name is like it.
                assert!(nic.names().iter().all(|name| nic.was_named_for(name)), "{:?}", nic.names());
                let this = (vm.clone(), on.clone(), network.to_owned());
                let first = nic.names().remove(0);
                if let Some(other) = seen.insert(first.clone(), this.clone()) {
                    // The plain name does not say which network it is for: the VM has one NIC there then.
                    let same_place = (&other.0, &other.1) == (&this.0, &this.1);
                    assert!(same_place && !first.contains('~'), "{first} is the name of {this:?} and of {other:?}");
                }
            }
        }
    }
}

#[test]
fn names_without_surprising_dots_are_kube_ovns() {
    let first = |vm: &str, namespace: &str, nad: Option<&str>| {
        let vm = VmKey::new(namespace, vm);
        let on = nad.map_or(Attachment::Pod, |nad| Attachment::Nad(NadKey::new("nadns", nad)));
        nic(&vm, &on, "default", false).names()
    };
    assert_eq!(first("web.example.com", "ns", None), ["web.example.com.ns", "web.example.com.ns.default"]);
    assert_eq!(first("web", "ovn", None), ["web.ovn", "web.ovn.default"]);
    assert_eq!(first("a.b.c", "ovn", None), ["a.b.c.ovn", "a.b.c.ovn.default"]);
    assert_eq!(first("web.example", "ns", Some("net1"))[0], "web.example.ns.net1.nadns.ovn");
    // The plain name is that of the VM `x` on a NAD.
    assert_eq!(first("x", "ns", Some("nad"))[0], "x.ns.nad.nadns.ovn");
    assert_eq!(first("x.ns.nad.nadns", "ovn", None), ["x.ns.nad.nadns.ovn.default~0"]);
    // And that of the VM `x.ns` in the namespace `vlan`.
    assert_eq!(first("x", "ns", Some("vlan.100")), ["x.ns.vlan.100.nadns.ovn.default~2"]);
}
