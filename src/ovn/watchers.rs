//! The effect of each change of a row on the indexes ([`Index`]).

use std::collections::hash_map::Entry;
use std::hash::BuildHasher;

use uuid::Uuid;

use super::index::{Index, Wake};
use super::marks::is_marked;
use super::rows::{DhcpOptions, LogicalRouterPort, LogicalSwitch, LogicalSwitchPort, NbGlobal};
use super::services::Services;
use crate::contract::{epoch_key, epoch_number, keys};
use crate::hash::FastSet;
use crate::ovsdb::{Map, Table, Unwatched, Watcher};

/// Watches the one row of `NB_Global`.
pub(super) struct GlobalWatcher<'a>(pub(super) &'a mut Index);

impl GlobalWatcher<'_> {
    fn note_epoch(&mut self, row: &NbGlobal) {
        let epoch = row.external_ids.get(&epoch_key(&self.0.instance)).and_then(epoch_number);
        self.0.highest_epoch = self.0.highest_epoch.max(epoch.unwrap_or_default());
    }
}

impl Watcher<NbGlobal> for GlobalWatcher<'_> {
    fn added(&mut self, _: Uuid, row: &NbGlobal) {
        self.0.foreign_changes += 1;
        self.note_epoch(row);
        self.0.changes.wakes.insert(Wake::Processed);
    }
    fn changing(&mut self, _: Uuid, row: &NbGlobal, _: &NbGlobal) {
        self.0.sb_cfg_before = row.sb_cfg;
    }
    fn changed(&mut self, _: Uuid, row: &NbGlobal) {
        self.note_epoch(row);
        if row.sb_cfg != self.0.sb_cfg_before {
            self.0.changes.wakes.insert(Wake::Processed);
        }
    }
    fn removed(&mut self, _: Uuid, _: &NbGlobal) {}
}

pub(super) struct SwitchWatcher<'a> {
    pub(super) index: &'a mut Index,
    pub(super) ports: &'a Table<LogicalSwitchPort>,
    pub(super) router_ports: &'a Table<LogicalRouterPort>,
    pub(super) services: &'a mut Services,
    /// Name, settings and policy of the row that is changing.
    pub(super) before: Option<(String, Map, Map)>,
}

impl SwitchWatcher<'_> {
    fn enter(&mut self, switch: Uuid, port: Uuid) {
        match self.index.switch_of_port.entry(port) {
            Entry::Vacant(none) => {
                none.insert(switch);
                self.attach(port);
            }
            // A port that moves may be entered here before its old switch drops it in the same update.
            Entry::Occupied(_) => self.index.more_switches_of_port.entry(port).or_default().push(switch),
        }
    }

    fn leave(&mut self, switch: Uuid, port: Uuid) {
        if self.index.switch_of(&port) != Some(switch) {
            if let Entry::Occupied(mut more) = self.index.more_switches_of_port.entry(port) {
                more.get_mut().retain(|present| *present != switch);
                if more.get().is_empty() {
                    more.remove();
                }
            }
            return;
        }
        // A row that was removed before was detached then.
        if let Some(row) = self.ports.get(&port) {
            self.index.note_foreign(&port, row);
            self.index.note_names_of(port, row);
            self.index.detach(port, row, switch);
        }
        self.index.switch_of_port.remove(&port);
        if let Entry::Occupied(mut more) = self.index.more_switches_of_port.entry(port) {
            let next = more.get_mut().remove(0);
            if more.get().is_empty() {
                more.remove();
            }
            self.index.switch_of_port.insert(port, next);
            self.attach(port);
        }
    }

    fn attach(&mut self, port: Uuid) {
        if let Some(row) = self.ports.get(&port) {
            self.index.note_foreign(&port, row);
            self.index.attach(port, row, self.router_ports);
            self.index.note_names_of(port, row);
            // It may have moved to another switch, or off its switch.
            self.index.changes.vms.extend(row.owner(&port, &self.index.instance).map(|owner| owner.vm));
        }
    }

    fn settings_changed(&mut self, name: &str, ports: &FastSet<Uuid>) {
        self.index.foreign_changes += 1;
        let changes = &mut self.index.changes;
        changes.wakes.insert(Wake::Switch(name.to_owned()));
        // VMs with ports on the switch are decided again, too.
        let rows = ports.iter().filter_map(|port| Some((port, self.ports.get(port)?)));
        let owners = rows.filter_map(|(port, row)| row.owner(port, &self.index.instance));
        changes.vms.extend(owners.map(|owner| owner.vm));
    }
}

impl Watcher<LogicalSwitch> for SwitchWatcher<'_> {
    fn added(&mut self, uuid: Uuid, row: &LogicalSwitch) {
        self.index.switches_by_name.entry(row.name.clone()).or_default().insert(uuid);
        let on_switch = self.index.on_switch.entry(uuid).or_default();
        on_switch.name.clone_from(&row.name);
        // A first sync reads the switches before their ports.
        on_switch.pool.reserve(row.ports.len());
        on_switch.macs.reserve(row.ports.len());
        self.index.switch_of_port.reserve(row.ports.len());
        self.services.referred(row);
        self.services.querier(uuid, &Map::default(), &row.other_config);
        row.ports.iter().for_each(|port| self.enter(uuid, *port));
        self.index.note_names_on(uuid);
        self.settings_changed(&row.name, &row.ports);
    }

    fn changing(&mut self, uuid: Uuid, row: &LogicalSwitch, difference: &LogicalSwitch) {
        self.before = Some((row.name.clone(), row.other_config.clone(), row.external_ids.clone()));
        self.services.referred(difference);
        if !difference.dns_records.is_empty() {
            self.index.note_names_on(uuid);
        }
        for port in &difference.ports {
            if row.ports.contains(port) {
                self.leave(uuid, *port);
            } else {
                self.enter(uuid, *port);
            }
        }
    }

    fn changed(&mut self, uuid: Uuid, row: &LogicalSwitch) {
        let Some((name, other_config, external_ids)) = self.before.take() else { return };
        if name != row.name {
            if let Some(switches) = self.index.switches_by_name.get_mut(&name) {
                switches.remove(&uuid);
            }
            self.index.switches_by_name.entry(row.name.clone()).or_default().insert(uuid);
            self.index.on_switch.entry(uuid).or_default().name.clone_from(&row.name);
            self.index.changes.wakes.insert(Wake::Switch(name.clone()));
        }
        self.services.querier(uuid, &other_config, &row.other_config);
        if name != row.name || other_config != row.other_config || external_ids != row.external_ids {
            self.settings_changed(&row.name, &row.ports);
        }
    }

    /// Only the difference counts: a switch may hold many thousand ports that stay as they are.
    fn replaced(&mut self, uuid: Uuid, row: &LogicalSwitch, by: &LogicalSwitch) {
        self.before = Some((row.name.clone(), row.other_config.clone(), row.external_ids.clone()));
        for row in [row, by] {
            self.services.referred(row);
        }
        by.ports.difference(&row.ports).for_each(|port| self.enter(uuid, *port));
        row.ports.difference(&by.ports).for_each(|port| self.leave(uuid, *port));
        self.index.note_names_on(uuid);
        self.changed(uuid, by);
    }

    fn removed(&mut self, uuid: Uuid, row: &LogicalSwitch) {
        self.index.note_names_on(uuid);
        self.settings_changed(&row.name, &row.ports);
        self.services.referred(row);
        self.services.querier(uuid, &row.other_config, &Map::default());
        row.ports.iter().for_each(|port| self.leave(uuid, *port));
        self.index.on_switch.remove(&uuid);
        if let Some(switches) = self.index.switches_by_name.get_mut(&row.name) {
            switches.remove(&uuid);
            if switches.is_empty() {
                self.index.switches_by_name.remove(&row.name);
            }
        }
    }
}

pub(super) struct PortWatcher<'a> {
    pub(super) index: &'a mut Index,
    pub(super) router_ports: &'a Table<LogicalRouterPort>,
}

impl PortWatcher<'_> {
    fn enter(&mut self, uuid: Uuid, row: &LogicalSwitchPort) {
        let name = self.index.name_hash.hash_one(row.name.as_str());
        self.index.ports_by_name.insert(name, uuid);
        if let Some(peer) = row.options.get(keys::ROUTER_PORT) {
            self.index.peers.entry(peer.to_owned()).or_default().insert(uuid);
        }
        self.index.note_foreign(&uuid, row);
        self.index.attach(uuid, row, self.router_ports);
        self.index.dhcp.refer(row);
        self.index.add_ours(uuid, row);
    }

    fn leave(&mut self, uuid: Uuid, row: &LogicalSwitchPort) {
        self.index.note_foreign(&uuid, row);
        self.index.dhcp.release(row);
        self.index.remove_ours(uuid, row);
        if let Some(switch) = self.index.switch_of(&uuid) {
            self.index.detach(uuid, row, switch);
        }
        if let Some(peer) = row.options.get(keys::ROUTER_PORT)
            && let Some(ports) = self.index.peers.get_mut(peer)
        {
            ports.remove(&uuid);
        }
        self.index.ports_by_name.remove(self.index.name_hash.hash_one(row.name.as_str()), uuid);
        self.index.changes.wakes.insert(Wake::Name(row.name.clone()));
    }
}

impl Watcher<LogicalSwitchPort> for PortWatcher<'_> {
    fn added(&mut self, uuid: Uuid, row: &LogicalSwitchPort) {
        self.index.note_names_of(uuid, row);
        self.enter(uuid, row);
    }

    fn changing(&mut self, uuid: Uuid, row: &LogicalSwitchPort, difference: &LogicalSwitchPort) {
        self.index.note_names_changing(uuid, row, difference);
        self.leave(uuid, row);
    }

    fn changed(&mut self, uuid: Uuid, row: &LogicalSwitchPort) {
        self.index.note_names_changed(uuid, row);
        self.enter(uuid, row);
    }

    fn removed(&mut self, uuid: Uuid, row: &LogicalSwitchPort) {
        self.index.note_names_of(uuid, row);
        self.leave(uuid, row);
    }
}

pub(super) struct RouterPortWatcher<'a> {
    pub(super) index: &'a mut Index,
    pub(super) ports: &'a Table<LogicalSwitchPort>,
}

impl Watcher<LogicalRouterPort> for RouterPortWatcher<'_> {
    fn added(&mut self, uuid: Uuid, row: &LogicalRouterPort) {
        self.index.foreign_changes += 1;
        self.index.router_ports_by_name.insert(row.name.clone(), uuid);
        let mut only = Table::default();
        only.put(uuid, row.clone(), &mut Unwatched);
        for port in self.index.peers.get(&row.name).cloned().unwrap_or_default() {
            if let Some(peer) = self.ports.get(&port) {
                self.index.enter_again(port, peer, &only);
            }
        }
    }

    fn changing(&mut self, uuid: Uuid, row: &LogicalRouterPort, _: &LogicalRouterPort) {
        self.removed(uuid, row);
    }

    fn changed(&mut self, uuid: Uuid, row: &LogicalRouterPort) {
        self.added(uuid, row);
    }

    fn removed(&mut self, uuid: Uuid, row: &LogicalRouterPort) {
        self.index.foreign_changes += 1;
        // Another router port of its name may have been added earlier in the same update: the switch ports belong to
        // that one.
        if self.index.router_ports_by_name.get(&row.name) != Some(&uuid) {
            return;
        }
        self.index.router_ports_by_name.remove(&row.name);
        let none = Table::default();
        for port in self.index.peers.get(&row.name).cloned().unwrap_or_default() {
            if let Some(peer) = self.ports.get(&port) {
                self.index.enter_again(port, peer, &none);
            }
        }
    }
}

/// A row of ours counts by its use; any other by the addresses that its server answers from.
pub(super) struct DhcpWatcher<'a> {
    pub(super) index: &'a mut Index,
    pub(super) services: &'a mut Services,
    /// The row that is changing is ours.
    pub(super) was_ours: bool,
}

impl DhcpWatcher<'_> {
    fn is_ours(&self, row: &DhcpOptions) -> bool {
        is_marked(&row.external_ids, &self.index.instance)
    }
}

impl Watcher<DhcpOptions> for DhcpWatcher<'_> {
    fn added(&mut self, uuid: Uuid, row: &DhcpOptions) {
        match self.is_ours(row) {
            true => self.index.dhcp.enter(uuid),
            false => self.services.enter_dhcp(uuid, row),
        }
    }

    fn changing(&mut self, uuid: Uuid, row: &DhcpOptions, _: &DhcpOptions) {
        self.was_ours = self.is_ours(row);
        self.removed(uuid, row);
    }

    fn changed(&mut self, uuid: Uuid, row: &DhcpOptions) {
        self.added(uuid, row);
        if (self.was_ours || self.is_ours(row)) && !row.is_intact(&uuid, &self.index.instance) {
            self.index.dhcp.drift(uuid);
        }
    }

    fn removed(&mut self, uuid: Uuid, row: &DhcpOptions) {
        match self.is_ours(row) {
            true => self.index.dhcp.leave(uuid),
            false => self.services.take_out_dhcp(uuid, row),
        }
    }
}
