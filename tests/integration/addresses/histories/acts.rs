//! The things that happen in a round.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

use ovn_kubevirt::kubevirt::{Change, Kind};
use serde_json::{Value, json};

use super::changes::{annotations, gone, object, pod_change, run_change, vm_change};
use super::model::{HOSTS, Machine, Request, host};
use super::numbers::Numbers;
use super::{CHASSIS, FOREIGN_PORTS, History, VMS};

impl History {
    /// One thing that happens.
    pub(super) async fn act(&mut self, numbers: &mut Numbers) {
        let vm = format!("vm-{}", numbers.below(VMS));
        match numbers.below(26) {
            0..=6 => self.apply(&vm, numbers.request()).await,
            7..=9 => self.start_vm(&vm).await,
            10..=11 => self.stop_vm(&vm, numbers.below(3) > 0).await,
            12 => self.end_launchers(&vm).await,
            13..=14 => self.delete_vm(&vm, numbers.below(4) > 0).await,
            15..=16 => self.write_foreign(&format!("foreign-{}", numbers.below(FOREIGN_PORTS)), numbers),
            17 => self.exclude(numbers),
            18 => self.restart().await,
            19 if numbers.below(2) == 0 => self.overwrite(&vm),
            19 => self.delete_row(&vm),
            20..=21 => self.wipe(&vm, numbers),
            22 => self.select(false).await,
            _ => self.turn_chassis(numbers.pick(&CHASSIS)),
        }
    }

    fn machine(&mut self, vm: &str) -> &mut Machine {
        self.state.machines.entry(vm.to_owned()).or_default()
    }

    /// Records the requests that count for this VM's lease from now on.
    fn note(&mut self, vm: &str, what: &str) {
        let machine = self.state.machines.get(vm).cloned().unwrap_or_default();
        self.between.requests.entry(vm.to_owned()).or_default().extend(machine.requests().cloned());
        if machine.is_gone() {
            self.between.gone.insert(vm.to_owned());
        }
        let _ = writeln!(self.log, "    {vm} {what}: {machine:?}");
    }

    fn uid(&mut self, of: &str) -> String {
        self.created += 1;
        format!("{of}-{}", self.created)
    }

    async fn apply(&mut self, vm: &str, request: Request) {
        if self.machine(vm).vm.is_none() {
            // Gone so far, even if something of it lingers: its row may be the old one or a new one.
            self.machine(vm).uid = self.uid("vm");
        }
        let text = annotations(&request);
        self.machine(vm).vm = Some(request);
        self.note(vm, "is applied");
        let Machine { uid, status, .. } = self.machine(vm).clone();
        self.send(vm_change(vm, &uid, &text, status.as_deref())).await;
    }

    async fn start_vm(&mut self, vm: &str) {
        let machine = self.machine(vm).clone();
        let (Some(request), None) = (machine.vm, machine.run) else { return };
        let (run, pod) = (self.uid("run"), self.uid("pod"));
        self.machine(vm).run = Some((run.clone(), request.clone()));
        self.machine(vm).pods.push((pod.clone(), run.clone()));
        self.note(vm, "is started");
        self.send(run_change(vm, &run, &request)).await;
        self.send(pod_change(vm, &pod, &run)).await;
    }

    /// The VMI goes; its launcher may linger.
    async fn stop_vm(&mut self, vm: &str, whole: bool) {
        if self.machine(vm).run.take().is_none() {
            return;
        }
        if whole {
            self.end_launchers(vm).await;
        }
        self.note(vm, "is stopped");
        self.send(gone(Kind::Run, vm)).await;
    }

    async fn end_launchers(&mut self, vm: &str) {
        let run = self.machine(vm).run.as_ref().map(|(uid, _)| uid.clone());
        let (stay, end) = self.machine(vm).pods.drain(..).partition(|(_, of)| Some(of) == run.as_ref());
        self.machine(vm).pods = stay;
        let end: Vec<(String, String)> = end;
        for (pod, _) in end {
            self.send(gone(Kind::Launcher, &pod)).await;
        }
        self.note(vm, "has no old launcher");
    }

    async fn delete_vm(&mut self, vm: &str, whole: bool) {
        if self.machine(vm).vm.take().is_none() {
            return;
        }
        self.machine(vm).status = None;
        self.note(vm, "is deleted");
        self.send(gone(Kind::Vm, vm)).await;
        if whole {
            self.stop_vm(vm, true).await;
            self.end_launchers(vm).await;
        }
    }

    /// The operation that has a port collected.
    fn removal(&self, name: &str) -> Option<Value> {
        let found = self.northbound.transact(json!([{"op": "select", "table": "Logical_Switch_Port",
            "where": [["name", "==", name]], "columns": ["_uuid"]}]));
        let uuid = found[0]["rows"][0].get("_uuid")?;
        Some(json!({"op": "mutate", "table": "Logical_Switch", "where": [["name", "==", "s"]],
            "mutations": [["ports", "delete", uuid]]}))
    }

    /// Another program deletes a port of ours: it is created again, unless a VM waited for its addresses.
    fn delete_row(&mut self, vm: &str) {
        let Some(operation) = self.removal(&format!("{vm}.n")) else { return };
        self.between.gone.insert(vm.to_owned());
        self.transact(vec![operation]);
        let _ = writeln!(self.log, "    the row of {vm} is deleted");
    }

    fn write_foreign(&mut self, name: &str, numbers: &mut Numbers) {
        let mut operations = Vec::new();
        if let Some(held) = self.state.foreign.remove(name) {
            self.between.let_go.extend(held);
            operations.extend(self.removal(name));
        } else {
            let held: BTreeSet<IpAddr> = (0..=numbers.below(2)).map(|_| numbers.address()).collect();
            let text = held.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let row = json!({"name": name, "addresses": format!("02:00:00:00:00:{:02x} {text}", numbers.below(256))});
            operations.push(json!({"op": "insert", "table": "Logical_Switch_Port", "uuid-name": "lsp", "row": row}));
            operations.push(json!({"op": "mutate", "table": "Logical_Switch", "where": [["name", "==", "s"]],
                "mutations": [["ports", "insert", ["named-uuid", "lsp"]]]}));
            self.state.foreign.insert(name.to_owned(), held);
        }
        self.transact(operations);
        let _ = writeln!(self.log, "    {name}: {:?}", self.state.foreign.get(name));
    }

    fn exclude(&mut self, numbers: &mut Numbers) {
        let from = u8::try_from(numbers.below(12)).expect("small");
        let to = from + u8::try_from(numbers.below(6)).expect("small");
        self.state.excluded = (from..=to).filter(|at| HOSTS.contains(at)).collect();
        self.between.excluded.push(self.state.excluded.clone());
        let text = format!("{}..{}", host(from), host(to));
        let config = json!(["map", [["subnet", "10.0.0.0/28"], ["ipv6_prefix", "fd00::"], ["exclude_ips", text]]]);
        self.transact(vec![json!({"op": "update", "table": "Logical_Switch", "where": [["name", "==", "s"]],
            "row": {"other_config": config}})]);
        let _ = writeln!(self.log, "    exclude_ips: {text}");
    }

    /// The namespace gets its label, or loses it.
    pub(super) async fn select(&mut self, selected: bool) {
        self.selected = selected;
        let metadata = json!({"name": "n"});
        self.send(match selected {
            true => Change::Namespace(object(metadata)),
            false => Change::Gone(Kind::Namespace, object(metadata)),
        })
        .await;
        let _ = writeln!(self.log, "    the namespace is selected: {selected}");
    }

    /// A chassis row of the node appears, or goes.
    pub(super) fn turn_chassis(&mut self, name: &'static str) {
        if self.state.chassis.remove(name) {
            self.northbound.remove_chassis(name);
            self.between.lost_chassis.insert(name.to_owned());
        } else {
            self.northbound.add_chassis(name, "n1");
            self.state.chassis.insert(name.to_owned());
        }
        let _ = writeln!(self.log, "    chassis: {:?}", self.state.chassis);
    }

    /// Another program takes marks off a port of ours, renames it or gives it a type.
    fn wipe(&mut self, vm: &str, numbers: &mut Numbers) {
        let port = format!("{vm}.n");
        let marks = ["vendor", "ovn-kubevirt.io/instance", "ovn-kubevirt.io/vm", "ovn-kubevirt.io/network"];
        let mut operation = json!({"table": "Logical_Switch_Port", "where": [["name", "==", port]]});
        let what = match numbers.below(4) {
            0 => json!({"op": "mutate", "mutations": [["external_ids", "delete", ["set", marks]]]}),
            1 => {
                let mark = numbers.pick(&marks);
                json!({"op": "mutate", "mutations": [["external_ids", "delete", ["set", [mark]]]]})
            }
            2 => json!({"op": "update", "row": {"name": format!("{port}-renamed")}}),
            _ => json!({"op": "update", "row": {"type": "virtual"}}),
        };
        let _ = writeln!(self.log, "    {port}: {what}");
        for (key, value) in what.as_object().into_iter().flatten() {
            operation[key] = value.clone();
        }
        self.transact(vec![operation]);
    }

    /// The switch is deleted, and recreated with the same subnet.
    pub(super) fn remake_switch(&mut self) {
        let config = json!(["map", [["subnet", "10.0.0.0/28"], ["ipv6_prefix", "fd00::"]]]);
        self.transact(vec![
            json!({"op": "delete", "table": "Logical_Switch", "where": [["name", "==", "s"]]}),
            json!({"op": "insert", "table": "Logical_Switch", "row": {"name": "s", "other_config": config}}),
        ]);
        self.between.remade = true;
        self.between.let_go.extend(std::mem::take(&mut self.state.foreign).into_values().flatten());
        self.state.excluded = BTreeSet::new();
        self.between.excluded.push(BTreeSet::new());
        let _ = writeln!(self.log, "    the switch is made anew");
    }

    async fn restart(&mut self) {
        let _ = writeln!(self.log, "    the service starts anew");
        self.service = None;
        self.start().await;
    }

    /// Another program overwrites the addresses of a port of ours.
    fn overwrite(&mut self, vm: &str) {
        let row = json!({"addresses": ["set", ["unknown"]]});
        self.transact(vec![json!({"op": "update", "table": "Logical_Switch_Port",
            "where": [["name", "==", format!("{vm}.n")]], "row": row})]);
        let _ = writeln!(self.log, "    the addresses of {vm} are overwritten");
    }
}
