//! The command line of an operator.

use crate::support::{Service, Stage, VmOptions};

#[tokio::test]
async fn ports_lists_vm_ports_as_an_aligned_table() {
    let stage = Stage::build("table").start().await;
    stage.northbound.add_foreign_port("ovn-default", "printer", &["0a:00:00:00:00:01 10.16.0.70"]);
    stage.player.create_vm("b", VmOptions::default()).await;
    stage.port("b").await;
    stage.player.create_vm("a-longer-name", VmOptions::default()).await;
    stage.port("a-longer-name").await;
    stage.player.start("b", "n1").await;
    stage.port_where("b", "is on n1", |port| port.option("requested-chassis") == Some("n1")).await;
    let output = Service::command_line(&["ports", "--nb", &stage.northbound.remote()]);
    assert!(output.status.success());
    let ns = &stage.namespace.name;
    let pad = " ".repeat(ns.len());
    let expected = [
        format!(
            "VM             {pad} NETWORK   PORT           {pad} SWITCH        ADDRESSES                     CHASSIS   STATE"
        ),
        format!(
            "{ns}/a-longer-name   default   a-longer-name.{ns}   ovn-default   0a:58:0a:10:00:03 10.16.0.3   -         unbound"
        ),
        format!(
            "{ns}/b               default   b.{ns}               ovn-default   0a:58:0a:10:00:02 10.16.0.2   n1        bound"
        ),
    ];
    let text = String::from_utf8(output.stdout).expect("text");
    let squeeze = |line: &str| line.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    for (line, expected) in lines.iter().zip(&expected) {
        assert_eq!(squeeze(line), squeeze(expected), "{text}");
    }
    // Each column begins at the same place in every line.
    for word in ["default ", "ovn-default", "0a:58:"] {
        let places: Vec<Option<usize>> = lines[1..].iter().map(|line| line.find(word)).collect();
        assert!(places[0].is_some() && places[0] == places[1], "{word} in\n{text}");
    }
}

#[test]
fn a_database_that_is_not_there_is_named() {
    let output = Service::command_line(&["ports", "--nb", "unix:/nowhere/nb.sock"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("no database answers at unix:/nowhere/nb.sock"), "{text}");
}

#[test]
fn run_explains_invalid_flags() {
    for (flags, words) in [
        (vec!["run", "--no-lease", "--nb", "nonsense"], "\"nonsense\" is no OVSDB remote"),
        (vec!["run", "--no-lease", "--mac-prefix", "01:00"], "multicast"),
        (
            vec!["run", "--no-lease", "--kubeconfig", "/nowhere/kubeconfig", "--http", "127.0.0.1:0"],
            "/nowhere/kubeconfig",
        ),
    ] {
        let output = Service::command_line(&flags);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(words), "{flags:?}: {text}");
    }
}

#[tokio::test]
async fn status_says_whether_the_service_is_ready_and_why_not() {
    let stage = Stage::build("status").start().await;
    let address = stage.service.listening().await.to_owned();
    let ask = || {
        let output = Service::command_line(&["status", "--http", &address]);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    assert_eq!(ask(), (Some(0), "ready, leading\n".to_owned()));
    stage.northbound.kill9();
    crate::support::eventually("status says that the database is away", || async {
        let (code, text) = ask();
        if code == Some(1) && text.contains("the northbound database is away") { Ok(()) } else { Err(text) }
    })
    .await;
    stage.service.kill9();
    let (code, text) = ask();
    assert!(code == Some(1) && text.contains(&format!("no ovn-kubevirt answers at {address}")), "{text}");
}
