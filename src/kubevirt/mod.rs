//! KubeVirt as this service sees it: the parts of its objects that are read, and the state of every VM.
//!
//! Pure. [`objects`] are decoded from the API; [`Cluster`] keeps the parts that a decision needs, and names the VMs
//! that an event concerns.

pub mod annotations;
mod cluster;
pub mod objects;
mod pod_networks;
mod pod_ports;
mod ports_annotation;
mod state;

pub use cluster::{Change, Cluster, InvalidChassis, Kind, Notice};
pub(crate) use cluster::{controller, launcher_owner, version};
pub use pod_networks::{Plugged, PodNetworks};
pub use pod_ports::{PodPort, PodPortsError};
pub use ports_annotation::{AnnotatedPort, AnnotatedProblem, Guest, PortsAnnotation};
pub use state::{Launcher, Migration, Namespace, Place, Reported, Run, Template, Vm, VmObjects};
