//! Any `<table-updates2>`, one after the other: a replica takes them or refuses them, and never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ovn_kubevirt::ovn::{Northbound, Southbound};
use ovn_kubevirt::ovsdb::apply_updates;

fuzz_target!(|updates: &str| {
    let (mut northbound, mut southbound) = (Northbound::new("default"), Southbound::default());
    for updates in updates.lines() {
        if apply_updates(&mut northbound, updates).is_err() | apply_updates(&mut southbound, updates).is_err() {
            break;
        }
        let vms: Vec<_> = northbound.take_changes().vms.into_iter().collect();
        for vm in &vms {
            assert!(northbound.ports_of(vm).all(|(_, port)| northbound.port(&port.uuid).is_some()));
        }
        southbound.take_changes();
    }
});
