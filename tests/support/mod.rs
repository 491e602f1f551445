//! The test harness: a real API server, real OVSDB servers, the real binary, and a player of KubeVirt's part.
//!
//! Three targets include it by path (the integration tests, the demo and the benches), and each uses a part of it:
//!
//! ```text
//!  Player --- writes what virt-controller and virt-handler write --> Cluster     etcd, kube-apiserver: one a run
//!                                                                       | watch
//!                                                                    Service     the binary under test
//!                                                                       | transact
//!  the test <-- ports(), dump() ----------------------------------- Northbound   ovsdb-server (and northd): one a test
//! ```
//!
//! No function here sleeps for a condition ([`mod@eventually`] polls), every server is real, and every
//! process ends with the test process, however that ends ([`process`]).

pub mod browser;
pub mod cluster;
pub mod cutter;
pub mod deploy;
pub mod eventually;
pub mod fabric;
pub mod front;
pub mod gate;
pub mod history;
pub mod in_process;
pub mod lab;
pub mod local_switch;
pub mod multus;
pub mod netns;
pub mod node;
pub mod northbound;
pub mod objects;
pub mod ovsdb_server;
pub mod player;
pub mod process;
pub mod python;
pub mod raft_log;
pub mod service;
pub mod stage;
pub mod valve;
pub mod webhooks;

pub use browser::{Browser, Page, Screen};
pub use cluster::{Cluster, Namespace};
pub use eventually::{eventually, holds_for, never};
pub use fabric::{Echoed, Fabric, Guest, Probed};
pub use gate::Gate;
pub use local_switch::LocalSwitch;
pub use node::NodeSetup;
pub use northbound::{Northbound, Port};
pub use objects::{Binding, Nic, VmOptions};
pub use player::{Migration, Player, Run};
pub use service::Service;
pub use stage::{Prepared, Stage};
