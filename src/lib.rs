//! Fixed addresses for KubeVirt VMs on OVN.
//!
//! A sidecar of ovn-central: it watches VMs through the Kubernetes API and keeps one logical switch
//! port per VM NIC in OVN's northbound database, with addresses that never change. ARCHITECTURE.md
//! has the picture; the modules below are its rooms.

pub mod admission;
pub mod api;
pub mod cli;
pub mod config;
pub mod connections;
pub mod contract;
pub mod controller;
pub mod escaped;
pub mod hash;
pub mod intent;
pub mod ipam;
pub mod kubevirt;
pub mod node;
pub mod ovn;
pub mod ovsdb;
pub mod plan;
pub mod supervisor;
pub mod telemetry;

#[cfg(test)]
mod documented;
#[cfg(test)]
mod layering;
