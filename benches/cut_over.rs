//! Where the time goes between a guest that runs on its target and its first answer there, behind a binding that lets no
//! RARP out: the port waits for KubeVirt's word, and the word goes through the API server, this service, northd and the
//! target's ovn-controller.
//!
//! The same network as `migration.rs`. The clocks of all legs are this machine's.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::support::lab::{Lab, Pointing};
use common::support::{Binding, Stage};
use common::{is_test, median, setting};
use futures::StreamExt;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher::{self, watcher};
use ovn_kubevirt::contract::keys;
use ovn_kubevirt::ovn::{Bound, Northbound, Southbound};
use ovn_kubevirt::ovsdb::{Replica, Session, Shared, Target};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long pings go on before and after the cut-over.
const AROUND: Duration = Duration::from_millis(400);

/// When each leg ended, in milliseconds: of the first two since the CNI began to plug the target's interface, and of the
/// others since the guest was awake there.
struct Legs([f64; LEGS.len()]);

const LEGS: [&str; 8] = [
    "before: the target's chassis has claimed the port",
    "before: its flows are installed (ovn-installed)",
    "the VMI is written (this bench's own watch)",
    "requested-chassis is the target alone (northbound)",
    "northd has it, and the source has let go (southbound)",
    "the target has claimed it as its own (southbound)",
    "the first answer from the target",
    "lost pings beyond the guest's own pause",
];

#[tokio::main]
async fn main() {
    if is_test() {
        return;
    }
    let runs = setting("BENCH_RUNS", &[10])[0];
    for pause in [Duration::ZERO, Duration::from_millis(50)] {
        let name = format!("bench-legs-{}", pause.as_millis());
        let mut lab = Lab::start(Stage::build(&name), Pointing::Service("rarp"), Binding::Masquerade).await;
        let mut all = Vec::new();
        for run in 0..runs {
            let (from, to) = if run % 2 == 0 { ("hv1", "hv2") } else { ("hv2", "hv1") };
            all.push(legs(&mut lab, from, to, pause).await);
        }
        println!("\na cut-over behind masquerade, the guest's own pause {pause:?}, medians (and most) of {runs}");
        for (index, leg) in LEGS.iter().enumerate() {
            let times: Vec<f64> = all.iter().map(|Legs(times)| times[index]).collect();
            let most = times.iter().copied().fold(f64::MIN, f64::max);
            println!("{leg:<58}{:>9.1}{most:>9.1}", median(times));
        }
    }
}

async fn legs(lab: &mut Lab, from: &str, to: &str, pause: Duration) -> Legs {
    let migration = lab.player.start_migration("testvm", to).await;
    lab.player.bind_target(&migration).await;
    lab.bound(&format!("{from},{to}")).await;
    lab.player.target_running(&migration).await;
    lab.player.migration_scheduled(&migration).await;
    lab.player.hand_off(&migration).await;
    let (port, target) = (lab.port_name().to_owned(), to.to_owned());
    let northbound = follow(&lab.northbound.remote(), Northbound::new("default")).await;
    let southbound = follow(&lab.northbound.sb_remote(), Southbound::default()).await;
    let (named, plugged) = (port.clone(), now());
    let prepared = when(Arc::clone(&southbound), move |view| matches!(view.bound(&named), Some(Bound::Moving { .. })));
    let arriving = lab.plug(to);
    let prepared = prepared.await.expect("it comes");
    lab.flows_stand();
    let installed = installed(&lab.interface_ids(&arriving));
    let named = port.clone();
    let collapsed = when(Arc::clone(&northbound), move |view| {
        view.port_named(&named).is_some_and(|port| port.row.options.get(keys::REQUESTED_CHASSIS) == Some(&target))
    });
    let (named, source) = (port.clone(), from.to_owned());
    let left = when(Arc::clone(&southbound), move |view| view.chassis_of_port(&named) != Some(&source));
    let (named, target) = (port.clone(), to.to_owned());
    let claimed = when(Arc::clone(&southbound), move |view| view.chassis_of_port(&named) == Some(&target));
    let ready = ready(lab).await;
    let pings = lab.pings();
    tokio::time::sleep(AROUND).await;
    let known = lab.player.must_vmi("testvm").await;
    let leaving = lab.cut_over(arriving, to, pause).await;
    let awake = now();
    lab.player.domain_ready_of(&migration, known).await;
    let mut ends = [0.0; 4];
    for (end, task) in ends.iter_mut().zip([ready, collapsed, left, claimed]) {
        *end = (task.await.expect("it comes") - awake) * 1e3;
    }
    lab.player.succeed(&migration).await;
    lab.flows_stand();
    tokio::time::sleep(AROUND).await;
    lab.unplug(leaving);
    let pings = pings.end();
    assert_eq!(pings.duplicates, 0);
    let [ready, collapsed, left, claimed] = ends;
    let lost = pings.lost as f64 - pause.as_secs_f64() * 200.0;
    let (prepared, installed) = ((prepared - plugged) * 1e3, (installed - plugged) * 1e3);
    Legs([prepared, installed, ready, collapsed, left, claimed, (pings.resumed - awake) * 1e3, lost])
}

/// When ovn-controller had installed the flows of an interface, by its `external_ids` as ovs-vsctl prints them.
fn installed(ids: &str) -> f64 {
    let time = ids.split("ovn-installed-ts=\"").nth(1).and_then(|rest| rest.split('"').next());
    let time: Option<f64> = time.and_then(|milliseconds| milliseconds.parse().ok());
    time.unwrap_or_else(|| panic!("no time in {ids}")) / 1e3
}

/// Seconds since the epoch.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A replica of a database, in sync.
async fn follow<R: Replica>(remote: &str, replica: R) -> Arc<Shared<R>> {
    let remotes = remote.parse().expect("a remote");
    let target = Target { remotes, tls: None, probe_interval: PATIENCE, leader_only: false };
    let shared = Arc::new(Shared::new(replica));
    let connection = Session::new(target, Arc::clone(&shared)).connect().await.expect("a connection");
    tokio::spawn(async move { connection.closed().await });
    shared
}

/// When a replica is so for the first time.
fn when<R: Replica>(shared: Arc<Shared<R>>, is_so: impl Fn(&R) -> bool + Send + 'static) -> JoinHandle<f64> {
    tokio::spawn(async move {
        loop {
            if is_so(&shared.read()) {
                return now();
            }
            let _ = tokio::time::timeout(Duration::from_millis(1), shared.changed.notified()).await;
        }
    })
}

/// When the VMI says that the guest is ready, in a watch like the service's own.
async fn ready(lab: &Lab) -> JoinHandle<f64> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("kubevirt.io", "v1", "VirtualMachineInstance"));
    let vmis: Api<DynamicObject> = Api::namespaced_with(lab.namespace.client.clone(), &lab.namespace.name, &resource);
    let (listed, is_listed) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let mut listed = Some(listed);
        let mut events = std::pin::pin!(watcher(vmis, watcher::Config::default()));
        let before = "targetNodeDomainReadyTimestamp";
        loop {
            match events.next().await.expect("the watch goes on").expect("the watch works") {
                watcher::Event::Apply(vmi) if vmi.data["status"]["migrationState"].get(before).is_some() => {
                    return now();
                }
                watcher::Event::InitDone => drop(listed.take().map(|listed| listed.send(()))),
                _ => {}
            }
        }
    });
    is_listed.await.expect("the watch begins");
    task
}
