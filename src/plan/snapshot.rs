//! The input of a decision: both sides as they are at one moment, read only.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;
use uuid::Uuid;

use super::dhcp::DhcpRow;
use super::fabric::Seen;
use super::lost::Lost;
use super::switch_policy::SwitchPolicy;
use crate::contract::VmKey;
use crate::hash::FastMap;
use crate::intent::{Settings, VmIntent};
use crate::ipam::{Subnet, SubnetError};
use crate::kubevirt::{Cluster, VmObjects};
use crate::ovn::Northbound;

/// Deleted VMs with ports that the brake holds, and the number of these ports.
pub type Held = BTreeMap<VmKey, usize>;

/// Both sides as they are at one moment. The same snapshot gives the same decisions to every caller.
pub struct Snapshot<'a> {
    /// The northbound replica.
    pub northbound: &'a Northbound,
    /// The objects of every VM.
    pub cluster: &'a Cluster,
    /// The known state of the chassis.
    pub southbound: Seen<'a>,
    /// The operator's settings for all VMs.
    pub settings: &'a Settings,
    /// The lost leases of VMs, which are kept for them.
    pub lost: &'a Lost,
    /// Ports that are not to be released.
    pub held: &'a Held,
    /// Deleted VMs whose retained ports are to be released now.
    pub releasing: &'a BTreeSet<VmKey>,
    /// Seconds since the epoch.
    pub now: i64,
    /// The subnets of switches: each is parsed once.
    subnets: Subnets,
    /// The policies on switches: each is parsed once.
    policies: Policies,
    /// The rows that ports of a switch share: each is composed once.
    pub(super) dhcp_rows: DhcpRowCache,
}

/// Rows of `DHCP_Options` by switch, network and router.
pub(super) type DhcpRowCache = RefCell<FastMap<(Uuid, IpNet, Option<IpAddr>), Arc<DhcpRow>>>;

/// Parsed subnets by switch.
#[derive(Default)]
struct Subnets(RefCell<FastMap<Uuid, Result<Arc<Subnet>, SubnetError>>>);

/// Parsed policies by switch.
#[derive(Default)]
struct Policies(RefCell<FastMap<Uuid, Arc<SwitchPolicy>>>);

impl<'a> Snapshot<'a> {
    /// Creates a snapshot of a cluster and a northbound database, at so many seconds since the epoch, without lost
    /// leases and held ports.
    pub fn new(
        northbound: &'a Northbound,
        cluster: &'a Cluster,
        southbound: Seen<'a>,
        settings: &'a Settings,
        now: i64,
    ) -> Self {
        static NO_LEASE: LazyLock<Lost> = LazyLock::new(Lost::default);
        static NO_PORT: Held = Held::new();
        static NO_VM: BTreeSet<VmKey> = BTreeSet::new();
        let (lost, held, releasing) = (&*NO_LEASE, &NO_PORT, &NO_VM);
        let (subnets, policies, dhcp_rows) = (Subnets::default(), Policies::default(), DhcpRowCache::default());
        Self { northbound, cluster, southbound, settings, lost, held, releasing, now, subnets, policies, dhcp_rows }
    }

    /// Adds lost leases, and ports that the brake holds.
    #[must_use]
    pub fn with(self, lost: &'a Lost, held: &'a Held) -> Self {
        Self { lost, held, ..self }
    }

    /// Adds deleted VMs whose retained ports are to be released now.
    #[must_use]
    pub fn releasing(self, releasing: &'a BTreeSet<VmKey>) -> Self {
        Self { releasing, ..self }
    }

    /// The intent of the VM; `None` if it has no object in Kubernetes.
    pub fn intent(&self, vm: &VmKey) -> Option<VmIntent> {
        self.cluster.vm(vm).map(|objects| self.intent_of(vm, objects))
    }

    /// The intent of a VM with these objects.
    pub(super) fn intent_of(&self, vm: &VmKey, objects: &VmObjects) -> VmIntent {
        match self.cluster.namespace(&vm.namespace) {
            Some(namespace) => VmIntent::of(vm, objects, namespace, self.settings),
            None => VmIntent::of_unselected(vm, objects, self.settings),
        }
    }

    /// The objects of a VM in Kubernetes.
    pub(super) fn objects(&self, vm: &VmKey) -> Option<&'a VmObjects> {
        self.cluster.vm(vm)
    }

    /// The subnet of a switch.
    ///
    /// # Errors
    /// The switch has none, or its settings cannot be read.
    pub fn subnet(&self, switch: Uuid) -> Result<Arc<Subnet>, SubnetError> {
        let mut subnets = self.subnets.0.borrow_mut();
        subnets.entry(switch).or_insert_with(|| self.northbound.subnet(&switch).map(Arc::new)).clone()
    }
    /// The policy on the row of a switch.
    pub(super) fn policy_on(&self, switch: Uuid) -> Arc<SwitchPolicy> {
        let mut policies = self.policies.0.borrow_mut();
        let read = || self.northbound.switch(&switch).map(SwitchPolicy::of).unwrap_or_default();
        policies.entry(switch).or_insert_with(|| Arc::new(read())).clone()
    }
}
