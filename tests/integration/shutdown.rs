//! How the service ends: at once after a signal, with a reason, and without a half-written row.

use std::time::{Duration, Instant};

use crate::support::{Cluster, Service, Stage, VmOptions, eventually};

#[tokio::test]
async fn sigterm_ends_the_service_and_the_last_line_says_so() {
    let stage = Stage::build("sigterm").start().await;
    let begun = Instant::now();
    let status = stage.service.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    assert_eq!(status.code(), Some(0));
    let log = stage.service.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains("stopping after SIGTERM"), "{log}");
}

#[tokio::test]
async fn sigterm_in_the_middle_of_a_storm_leaves_no_port_half_written() {
    const VMS: usize = 150;
    let mut stage = Stage::build("storm-end").start().await;
    let names: Vec<String> = (0..VMS).map(|index| format!("vm-{index:03}")).collect();
    let applied = futures::future::join_all(names.iter().map(|name| stage.player.apply_vm(name, VmOptions::default())));
    let ended = async {
        eventually("some ports are there", || async {
            let count = stage.northbound.ports().len();
            if count > VMS / 4 { Ok(()) } else { Err(count) }
        })
        .await;
        stage.service.stop().await
    };
    let (_, status) = tokio::join!(applied, ended);
    assert_eq!(status.code(), Some(0));
    // Every row that is there is whole: on its switch, with its addresses and all of our marks.
    for port in stage.northbound.ports() {
        assert_eq!(port.switches, ["ovn-default"], "{port:#?}");
        assert_eq!((port.addresses.len(), port.external_ids.len()), (1, 5), "{port:#?}");
        assert_eq!(port.addresses, port.port_security, "{port:#?}");
    }
    stage.restart().await;
    eventually("every VM has its port", || async {
        let count = stage.northbound.ports().len();
        if count == VMS { Ok(()) } else { Err(count) }
    })
    .await;
    let ports = stage.northbound.ports();
    let addresses: std::collections::BTreeSet<_> = ports.iter().flat_map(|port| &port.addresses).collect();
    assert_eq!(addresses.len(), VMS);
}

#[tokio::test]
async fn a_fault_at_the_start_ends_the_service_with_a_reason() {
    let holder = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = holder.local_addr().expect("an address").to_string();
    let kubeconfig = Cluster::shared().service_kubeconfig().display().to_string();
    let flags = ["run", "--no-lease", "--nb", "unix:/nowhere", "--kubeconfig", &kubeconfig, "--http", &address];
    let output = Service::command_line(&flags);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let last = text.lines().last().unwrap_or_default();
    assert!(last.contains(&format!("cannot listen on {address}")) && last.contains("in use"), "{text}");
}
