//! Values of `status` and `log.setLevel`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of a method that has none.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

/// The role of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// It writes.
    Leading,
    /// Another process writes, and this one has the same data.
    Following,
    /// It is not ready.
    None,
}

/// What is known of the southbound database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SouthboundState {
    /// It is in sync.
    Synced,
    /// It is away: what was last read counts.
    Away,
    /// It is not read.
    Unread,
}

/// The status of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceStatus {
    /// The version of the program.
    pub version: String,
    /// The instance.
    pub instance: String,
    /// True if the process is ready.
    pub ready: bool,
    /// Its role.
    pub role: Role,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The other process that leads, where it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub leader: Option<String>,
    /// What an operator has to look at, such as ports that are held.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remark: Option<String>,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// The northbound database.
    pub northbound: NorthboundStatus,
    /// The southbound database.
    pub southbound: SouthboundState,
    /// The watches on the API server.
    pub watches: Vec<WatchStatus>,
    /// The number of problems in the statuses of VMs, by the reason of their Events.
    pub problems: std::collections::BTreeMap<String, u64>,
    /// The number of subscriptions to this process.
    pub subscriptions: u64,
    /// The filter of the log.
    pub log_filter: String,
}

/// The replica of the northbound database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NorthboundStatus {
    /// Seconds since the server last sent data; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub silent_seconds: Option<u64>,
    /// The number of all logical switch ports.
    pub ports: u64,
    /// The number of VMs with ports of this instance.
    pub vms: u64,
}

/// A watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WatchStatus {
    /// The kind of objects.
    pub kind: String,
    /// Seconds since the API server was last heard on it; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub age_seconds: Option<u64>,
}

/// Parameters of `log.setLevel`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogParams {
    /// The filter, as `RUST_LOG` takes it: `info,ovn_kubevirt=debug`.
    pub filter: String,
}

/// The filter of the log before the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogLevel {
    /// The filter that held before.
    pub before: String,
}
