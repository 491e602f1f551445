//! The values of the API, as JSON has them. Their documentation is the text of the OpenRPC document.

mod decisions;
mod ports;
mod service;
mod switches;

pub use self::decisions::{
    DecideParams, Decided, DecidedRow, Migrating, MigrationStep, Migrations, PortRow, Released, RowAction,
};
pub use self::ports::{
    Binding, Explained, ListParams, Nic, Party, Port, PortFilter, PortPage, PortState, PortsMessage, SubscribeParams,
    Trouble, VmName, VmPorts,
};
pub use self::service::{
    LogLevel, LogParams, NoParams, NorthboundStatus, Role, ServiceStatus, SouthboundState, WatchStatus,
};
pub use self::switches::{
    AddressHolder, Family, MapParams, PortCounts, SubnetUse, Switch, SwitchMap, Switches, SwitchesParams, UseCounts,
    UseKind, UsedAddress,
};
