//! `make demo`: the main job, shown to a person.
//!
//! A VM is applied with kubectl to a real API server and gets its port in a real northbound database; its launcher pod
//! carries the port by itself, and a VM that asks for an address of another is refused. The VM is restarted
//! onto another node, stopped and started, and migrated, and its port stays. Where network namespaces can be made,
//! [`packets`] then reach a guest on real chassis. KubeVirt's part (the VMI and the launcher pods) and ovs-cni's are played;
//! everything else runs as it does beside an ovn-central.

#[allow(dead_code, unused_imports, unreachable_pub, reason = "each target uses a part of the harness")]
#[path = "../support/mod.rs"]
mod support;

mod packets;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use support::webhooks::Webhooks;
use support::{Cluster, Port, Prepared, Service, Stage, deploy, eventually};

/// The network in the place of the pod network, which Multus plugs.
const NAD: &str = "ovn";
const FIRST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/demo/first-vm.yaml");
/// The annotations of a launcher pod that say its ports: to any CNI, and to Multus.
const CARRIED: &str = r#"jsonpath={.metadata.annotations.ovn-kubevirt\.io/ports}{"\n"}{.metadata.annotations.v1\.multus-cni\.io/default-network}{"\n"}"#;
const SECOND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/demo/second-vm.yaml");

#[tokio::main]
async fn main() -> ExitCode {
    let demo = Demo::prepare().await;
    let rows = demo.play().await;
    println!("\n{}", table(&rows));
    packets::with_packets().await;
    let kept = rows.iter().all(|row| row.kept);
    println!("{}", if kept { "The address never changed." } else { "An address changed: this is a bug." });
    if std::env::var("KEEP").is_ok_and(|keep| !keep.is_empty() && keep != "0") {
        demo.keep().await;
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Demo {
    // They end before the service that they lead to.
    _webhooks: Webhooks,
    service: Service,
    stage: Prepared,
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
        let prepared = builder.nad(NAD, "ovn-default").northd().prepare().await;
        say("Starting ovn-kubevirt, with webhooks that the API server calls for the namespaces of this demo");
        let default_network = format!("{}/{NAD}", prepared.namespace.name);
        let mut stage = prepared.with(|setup| setup.flags(["--default-network", &default_network]));
        let (service, webhooks) = stage.start_called().await;
        Self { _webhooks: webhooks, service, stage }
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

        say("A VM that asks for the same address is refused when it is applied");
        self.refused(&sibling.name);

        say(
            "The VM starts on node n1: its launcher pod is made without a hint, and carries its port before any CNI runs",
        );
        let begun = Instant::now();
        let pod = self.stage.player.start("testvm", "n1").await.pod;
        let started = self.port(&name, on("n1")).await;
        rows.push(row("started on n1", Some(&first), &started, begun));
        self.kubectl(&["get", "pod", &pod, "-n", &self.stage.namespace.name, "-o", CARRIED]);

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
        // kubectl's cache for a server that ends with the demo would stay in the home folder.
        let cache = format!("--cache-dir={}", self.stage.dir().join("kubectl").display());
        run(Command::new("kubectl").args([kubeconfig, cache]).args(arguments));
    }

    /// Applies the second VM under another name, and shows the answer.
    fn refused(&self, namespace: &str) {
        let vm = std::fs::read_to_string(SECOND).unwrap_or_else(|error| panic!("{SECOND}: {error}"));
        let vm = vm.replace("name: testvm", "name: latecomer");
        println!("$ sed 's/name: testvm/name: latecomer/' {SECOND} | kubectl apply -n {namespace} -f -");
        let answer = deploy::kubectl(Cluster::shared().kubeconfig(), &["apply", "-n", namespace, "-f", "-"], &vm);
        let error = answer.err().unwrap_or_else(|| panic!("two VMs may not have one address"));
        let (_, words) = error.split_once("\": ").unwrap_or(("", &error));
        println!("{}", words.trim());
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
        println!("  ovn-kubevirt ports; ovn-nbctl show; curl http://{}/readyz", self.service.listening().await);
        println!("\nCtrl-C ends it all.");
        if let Err(error) = tokio::signal::ctrl_c().await {
            eprintln!("Ctrl-C cannot be caught: {error}");
        }
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
