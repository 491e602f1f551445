//! The first sync of a big northbound database: the cost of the whole service until it is ready, beside the C IDL
//! (`ovn-nbctl`'s daemon until its first answer), `ovsdb-client dump` and Python's IDL.
//!
//! All in one run and in turns, so that other load on the machine meets all of them.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod common;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use common::support::service::Setup;
use common::support::{Northbound, Stage};
use common::usage::{self, NbctlDaemon, Usage};
use common::{fill, machine::Busy, median, milliseconds, setting};

/// Foreign ports in the database, and how often each program is run.
const PORTS: &[usize] = &[20_000, 100_000];
const ROUNDS: &[usize] = &[5];

/// The whole of Python's IDL: connects, and says so when it has the database.
const PYTHON_IDL: &str = r"
import sys
import ovs.db.idl
import ovs.poller
remote, schema = sys.argv[1:]
helper = ovs.db.idl.SchemaHelper(location=schema)
helper.register_all()
idl = ovs.db.idl.Idl(remote, helper, leader_only=False)
while not idl.has_ever_connected():
    if idl.run():
        continue
    poller = ovs.poller.Poller()
    idl.wait(poller)
    poller.block()
";

#[tokio::main]
async fn main() {
    if common::is_test() {
        return;
    }
    for ports in setting("BENCH_PORTS", PORTS) {
        let prepared = Stage::build("bench").switch("ovn-default", "10.16.0.0/16").prepare().await;
        fill::foreign_ports(&prepared.northbound, ports);
        let service = prepared.setup().env("RUST_LOG", "info");
        measure(&prepared.northbound, &service, ports, setting("BENCH_ROUNDS", ROUNDS)[0]).await;
    }
}

async fn measure(northbound: &Northbound, service: &Setup, ports: usize, rounds: usize) {
    let mut programs: Vec<(&str, Vec<Usage>)> =
        ["ovn-kubevirt run", "ovn-nbctl's daemon (C IDL)", "ovsdb-client dump", "Python's IDL"]
            .map(|name| (name, Vec::new()))
            .into();
    let busy = Busy::begin();
    for round in 0..rounds {
        programs[0].1.push(of_service(service).await);
        programs[1].1.push(of_nbctl(northbound));
        programs[2].1.push(usage::of_command(dump(&northbound.remote())));
        // It takes longer than all others together: once is enough.
        if round == 0 && has_python_idl() {
            programs[3].1.push(usage::of_command(python(&northbound.remote())));
        }
    }
    println!("First sync of {ports} foreign ports, standalone ovsdb-server, medians of {rounds} (Python's IDL: 1)");
    println!("{:<30}{:>12}{:>12}{:>12}{:>10}{:>10}", "", "wall ms", "CPU ms", "peak MB", "CPU", "peak");
    let of = |usages: &[Usage]| {
        let each = |figure: fn(&Usage) -> f64| median(usages.iter().map(figure).collect());
        (
            each(|usage| milliseconds(usage.wall)),
            each(|usage| milliseconds(usage.cpu)),
            each(|usage| usage.peak as f64 / 1024.0),
        )
    };
    let (_, c_cpu, c_peak) = of(&programs[1].1);
    for (name, usages) in &programs {
        if usages.is_empty() {
            println!("{name:<30}  not measured: python3 has no `ovs` (apt install python3-openvswitch)");
            continue;
        }
        let (wall, cpu, peak) = of(usages);
        println!("{name:<30}{wall:>12.0}{cpu:>12.0}{peak:>12.1}{:>10.3}{:>10.3}", cpu / c_cpu, peak / c_peak);
    }
    println!("CPU and peak as parts of the C IDL's; the goal for the service: at most 0.25 and 0.3");
    println!("machine: {}", busy.end());
}

async fn of_service(setup: &Setup) -> Usage {
    let begun = Instant::now();
    let service = setup.start().await;
    usage::so_far(service.pid(), begun)
}

/// Until the first command is answered, which it is when the daemon has the database.
fn of_nbctl(northbound: &Northbound) -> Usage {
    let daemon = NbctlDaemon::start(&northbound.remote(), northbound.dir());
    daemon.run(&["ls-list"]);
    daemon.usage()
}

fn dump(remote: &str) -> Command {
    let mut command = Command::new("ovsdb-client");
    command.args(["dump", remote, "OVN_Northbound"]);
    command
}

const PYTHON: &str = "/usr/bin/python3";

fn has_python_idl() -> bool {
    Path::new(PYTHON).exists()
        && Command::new(PYTHON).args(["-c", "import ovs.db.idl"]).output().is_ok_and(|output| output.status.success())
}

fn python(remote: &str) -> Command {
    let mut command = Command::new(PYTHON);
    command.args(["-c", PYTHON_IDL, remote, "/usr/share/ovn/ovn-nb.ovsschema"]);
    command
}
