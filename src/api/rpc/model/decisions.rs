//! Values of `migrations.list`, `leases.release` and `decide`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Port;

/// The migrations that have not ended, in the order of namespace and VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Migrations {
    /// The migrations.
    pub migrations: Vec<Migrating>,
}

/// A live migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Migrating {
    /// The namespace of the VM.
    pub namespace: String,
    /// The name of the VM.
    pub vm: String,
    /// The name of the VirtualMachineInstanceMigration.
    pub migration: String,
    /// KubeVirt's own phase of it, `Pending` to `Running`.
    pub phase: String,
    /// The node of the guest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<String>,
    /// The node that it goes to, once a target pod is there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<String>,
    /// The step of the ports.
    pub step: MigrationStep,
    /// The ports of the VM.
    pub ports: Vec<Port>,
}

/// The step of a VM's ports in a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum MigrationStep {
    /// No target pod is on a node yet.
    Waiting,
    /// The target is known, and not every port is open there yet.
    Opening,
    /// Every port is open on the target, behind its activation strategy.
    Open,
    /// The target's chassis has claimed every port. Known with the southbound database alone.
    Claimed,
    /// The target has seen the guest. Known with the southbound database alone.
    Activated,
    /// The guest is ready on the target.
    Arrived,
}

/// The retained leases that were released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Released {
    /// The leases.
    pub released: Vec<Port>,
}

/// Parameters of `decide`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DecideParams {
    /// A VirtualMachine or a VirtualMachineInstance, as `kubectl apply` takes it.
    pub object: Map<String, Value>,
}

/// The decision for a VM as it would be with an object. It is not written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decided {
    /// The namespace of the VM.
    pub namespace: String,
    /// The name of the VM.
    pub vm: String,
    /// True if the service has a part in the VM: a NIC of its own, or something to tell.
    pub served: bool,
    /// Its NICs, as they would be.
    pub ports: Vec<Port>,
    /// The changes of rows.
    pub rows: Vec<DecidedRow>,
    /// The changes after which the service would decide again.
    pub waits_for: Vec<String>,
}

/// What happens to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RowAction {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It is deleted.
    Delete,
}

/// The change of a logical switch port's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DecidedRow {
    /// What happens.
    pub action: RowAction,
    /// The name of the port.
    pub port: String,
    /// The row as it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<PortRow>,
    /// The row as it would be.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<PortRow>,
}

/// A row of `Logical_Switch_Port` (ovn-nb(5)), as far as the service reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortRow {
    /// The name of its logical switch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub switch: Option<String>,
    /// `addresses`
    pub addresses: Vec<String>,
    /// `port_security`
    pub port_security: Vec<String>,
    /// `dhcpv4_options`, the UUID of a row in `DHCP_Options`
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dhcpv4_options: Option<String>,
    /// `dhcpv6_options`, the same
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dhcpv6_options: Option<String>,
    /// `options`
    pub options: Map<String, Value>,
    /// `external_ids`
    pub external_ids: Map<String, Value>,
}
