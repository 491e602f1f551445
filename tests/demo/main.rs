//! `make demo`: the main job, shown to a person.
//!
//! A VM is applied with kubectl to a real API server and gets its port in a real northbound database;
//! it is restarted onto another node, stopped and started, and migrated, and its port stays. Where network namespaces can
//! be made, a guest then migrates between real chassis while it is pinged. KubeVirt's part (the VMI and the launcher pods)
//! is played; everything else is what runs beside an ovn-central.

#[allow(dead_code, unused_imports, unreachable_pub, reason = "each target uses a part of the harness")]
#[path = "../support/mod.rs"]
mod support;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use support::lab::{Lab, Moved, Pointing};
use support::{Binding, Cluster, Port, Stage, eventually};

const FIRST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/demo/first-vm.yaml");
const SECOND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/demo/second-vm.yaml");

#[tokio::main]
async fn main() -> ExitCode {
    let demo = Demo::prepare().await;
    let rows = demo.play().await;
    println!("\n{}", table(&rows));
    with_packets().await;
    let kept = rows.iter().all(|row| row.kept);
    println!("{}", if kept { "The address never changed." } else { "An address changed: this is a bug." });
    if std::env::var("KEEP").is_ok_and(|keep| !keep.is_empty() && keep != "0") {
        demo.keep().await;
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Demo {
    stage: Stage,
}

/// A line of the table at the end.
struct Row {
    what: &'static str,
    before: String,
    after: String,
    chassis: String,
    kept: bool,
    took: Duration,
}

impl Demo {
    async fn prepare() -> Self {
        say(
            "Starting ovsdb-server (northbound and southbound), ovn-northd, etcd, kube-apiserver and kube-controller-manager",
        );
        let builder =
            Stage::build("demo").switch("ovn-default", "10.16.0.0/16").router("ovn-default", &["10.16.0.1/16"]);
        let prepared = builder.northd().prepare().await;
        say("Starting ovn-kubevirt");
        Self { stage: prepared.start().await }
    }

    async fn play(&self) -> Vec<Row> {
        let sibling = self.stage.namespace.sibling("b").await;
        let mut rows = Vec::new();
        let name = self.stage.name("testvm");
        let whatever = |_: &Port| true;

        say("A VM is applied; nothing runs yet, and its port is there");
        let begun = Instant::now();
        self.kubectl(&["apply", "-n", &self.stage.namespace.name, "-f", FIRST]);
        let first = self.port(&name, whatever).await;
        rows.push(row("VM applied", None, &first, begun));
        self.stage.player.adopt_vm("testvm").await;

        say("A VM that asks for 10.16.0.15 gets just that");
        let begun = Instant::now();
        self.kubectl(&["apply", "-n", &sibling.name, "-f", SECOND]);
        let second = self.port(&format!("testvm.{}", sibling.name), whatever).await;
        rows.push(row("VM with an address applied", None, &second, begun));
        eventually("the VM has its Event", || async {
            let events = self.stage.namespace.events("testvm").await;
            if events.is_empty() { Err("no Event yet") } else { Ok(()) }
        })
        .await;
        self.show("ovn-nbctl", &["--db", &self.stage.northbound.remote(), "show"]);
        self.kubectl(&["describe", "vm", "testvm", "-n", &self.stage.namespace.name]);

        say("The VM starts on node n1");
        let begun = Instant::now();
        self.stage.player.start("testvm", "n1").await;
        let started = self.port(&name, on("n1")).await;
        rows.push(row("started on n1", Some(&first), &started, begun));

        say("The VM is restarted: another VMI, another launcher pod, another node");
        let begun = Instant::now();
        self.stage.player.restart("testvm", "n2").await;
        let restarted = self.port(&name, on("n2")).await;
        rows.push(row("restarted onto n2", Some(&started), &restarted, begun));

        say("The VM is stopped, and started again");
        self.stage.player.stop("testvm").await;
        self.port(&name, |port| port.option("requested-chassis").is_none()).await;
        self.ports_command();
        let begun = Instant::now();
        self.stage.player.start("testvm", "n3").await;
        let again = self.port(&name, on("n3")).await;
        rows.push(row("stopped, started on n3", Some(&restarted), &again, begun));

        say("The VM migrates live");
        let begun = Instant::now();
        self.stage.player.migrate("testvm", "n1").await;
        let migrated = self.port(&name, on("n1")).await;
        rows.push(row("migrated to n1", Some(&again), &migrated, begun));
        self.ports_command();

        say("The VM is deleted: its port goes with it, the other VM's stays");
        let begun = Instant::now();
        self.stage.player.delete_vm("testvm").await;
        self.stage.port_gone("testvm").await;
        let took = begun.elapsed();
        rows.push(Row {
            what: "deleted",
            before: ip(&migrated),
            after: "(released)".to_owned(),
            chassis: "-".to_owned(),
            kept: true,
            took,
        });
        self.show("ovn-nbctl", &["--db", &self.stage.northbound.remote(), "show"]);
        rows
    }

    async fn port(&self, name: &str, fits: impl Fn(&Port) -> bool) -> Port {
        eventually(&format!("the port {name} is as it should be"), || async {
            match self.stage.northbound.port(name) {
                Some(port) if fits(&port) => Ok(port),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    fn kubectl(&self, arguments: &[&str]) {
        let kubeconfig = format!("--kubeconfig={}", Cluster::shared().kubeconfig().display());
        println!("$ kubectl {}", arguments.join(" "));
        run(Command::new("kubectl").arg(kubeconfig).args(arguments));
    }

    fn ports_command(&self) {
        println!("$ ovn-kubevirt ports");
        run(Command::new(support::service::binary()).args(["ports", "--nb", &self.stage.northbound.remote()]));
    }

    fn show(&self, program: &str, arguments: &[&str]) {
        println!("$ {program} {}", arguments.last().unwrap_or(&""));
        run(Command::new(program).args(arguments));
    }

    /// Leaves everything running until the reader has played enough.
    async fn keep(&self) {
        println!("\nEverything runs on. In another terminal:\n");
        println!("  export KUBECONFIG={}", Cluster::shared().kubeconfig().display());
        println!("  export OVN_NB_DB={0} OVN_KUBEVIRT_NB={0}", self.stage.northbound.remote());
        println!("  export OVN_SB_DB={}", self.stage.northbound.sb_remote());
        println!("  export PATH=$PATH:{}", parent(&support::service::binary()));
        println!("  kubectl -n {} apply -f {FIRST}", self.stage.namespace.name);
        println!("  ovn-kubevirt ports; ovn-nbctl show; curl http://{}/readyz", self.stage.service.listening().await);
        println!("\nCtrl-C ends it all.");
        if let Err(error) = tokio::signal::ctrl_c().await {
            eprintln!("Ctrl-C cannot be caught: {error}");
        }
    }
}

/// A live migration with packets on three chassis of its own; where none can be made, the demo goes on without.
async fn with_packets() {
    say("A live migration with packets: three chassis with userspace OVS in network namespaces");
    if let Err(reason) = support::netns::available() {
        println!("Skipped: network namespaces cannot be made here ({reason}).");
        println!("As root (sudo -E make demo), or in a privileged container, a guest is pinged while it migrates.");
        return;
    }
    let mut lab = Lab::start(Stage::build("demo-packets"), Pointing::Service("rarp"), Binding::Bridge).await;
    println!("testvm runs on hv1 ({}); hv3 pings it every 5 ms and keeps a TCP connection to it busy.", lab.state());
    let (there, back) = (("hv1", "hv2"), ("hv2", "hv1"));
    for (from, to) in [there, back] {
        let Moved { pings, tcp } = lab.migrate(from, to, Duration::ZERO).await;
        println!(
            "{from} -> {to}: {} of {} pings lost, {} doubled; silent for {:.1} ms at most; {} TCP echoes, {} resets; now {}",
            pings.lost,
            pings.sent,
            pings.duplicates,
            pings.silence_ms,
            tcp.echoes,
            tcp.resets,
            lab.state()
        );
    }
}

fn parent(program: &std::ffi::OsStr) -> String {
    std::path::Path::new(program).parent().map(|path| path.display().to_string()).unwrap_or_default()
}

fn on(node: &'static str) -> impl Fn(&Port) -> bool {
    move |port| port.option("requested-chassis") == Some(node)
}

fn ip(port: &Port) -> String {
    port.addresses.iter().flat_map(|text| text.split(' ').skip(1)).collect::<Vec<_>>().join(" ")
}

fn row(what: &'static str, before: Option<&Port>, after: &Port, begun: Instant) -> Row {
    let took = begun.elapsed();
    let same = |before: &Port| before.uuid == after.uuid && before.addresses == after.addresses;
    Row {
        what,
        before: before.map_or_else(|| "-".to_owned(), ip),
        after: ip(after),
        chassis: after.option("requested-chassis").unwrap_or("-").to_owned(),
        kept: before.is_none_or(same),
        took,
    }
}

fn say(what: &str) {
    println!("\n=== {what}");
}

fn run(command: &mut Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{command:?}: {status}"),
        Err(error) => panic!("{command:?}: {error}; `make demo` installs what is needed"),
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<28}{:<14}{:<14}{:<10}{:<22}{}\n",
        "WHAT WAS DONE", "BEFORE", "AFTER", "CHASSIS", "SAME ROW AND ADDRESS", "TOOK"
    );
    for Row { what, before, after, chassis, kept, took } in rows {
        let kept = match (before.as_str(), after.as_str()) {
            ("-", _) | (_, "(released)") => "-",
            _ if *kept => "yes",
            _ => "NO",
        };
        let took = format!("{} ms", took.as_millis());
        text.push_str(&format!("{what:<28}{before:<14}{after:<14}{chassis:<10}{kept:<22}{took}\n"));
    }
    text
}
