//! `ports`, `ports get`, `switches` and `status` through the API and from the database.

use std::process::Output;

use serde_json::Value;

use super::{API, IP_ADDRESS};
use crate::support::{Service, Stage, VmOptions};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[tokio::test]
async fn commands_read_through_the_api_and_else_from_the_database_and_say_which() {
    let stage = Stage::build("api-cli").flags(API).start().await;
    let ns = stage.namespace.name.clone();
    stage.make("a").await;
    stage.player.create_vm("b", VmOptions::default().annotation(IP_ADDRESS, "10.16.0.2")).await;
    stage.event("b", "AddressConflict", &["10.16.0.2"]).await;
    let (api, nb) = (stage.service.api().await, stage.northbound.remote());
    let through = |arguments: &[&str]| Service::command_line(&[arguments, &["--api", &api]].concat());
    let direct = |arguments: &[&str]| Service::command_line(&[arguments, &["--nb", &nb]].concat());

    let output = through(&["ports", "-o", "wide"]);
    let table = done(&output);
    assert!(text(&output.stderr).contains(&format!("From the API at http://{api}.")), "{}", text(&output.stderr));
    assert!(table.contains("pending (AddressConflict)") && !table.contains('\u{1b}'), "{table}");
    let output = direct(&["ports"]);
    assert!(!done(&output).contains("pending"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains(&format!("From the database {nb}")), "{}", text(&output.stderr));
    // Where no API answers, the database does.
    let output = Service::command_line(&["ports", "--api", "127.0.0.1:1", "--nb", &nb, "-o", "name"]);
    assert_eq!(done(&output), format!("a.{ns}\n"));
    assert!(text(&output.stderr).contains("no API answers at http://127.0.0.1:1"), "{}", text(&output.stderr));

    let json: Value = serde_json::from_str(&done(&through(&["ports", "--problems", "-o", "json"]))).expect("JSON");
    assert_eq!((json.as_array().map(Vec::len), &json[0]["vm"]), (Some(1), &Value::from("b")));
    assert!(done(&direct(&["ports", "-o", "yaml"])).contains("vm: a"));

    let explained = done(&through(&["ports", "get", &format!("{ns}/b")]));
    for words in ["has no port yet", "AddressConflict: ", "It is decided again when", "releases it."] {
        assert!(explained.contains(words), "{explained}");
    }
    assert!(done(&direct(&["ports", "get", &format!("{ns}/a")])).contains("holds 10.16.0.2"));
    for output in [through(&["ports", "get", &format!("{ns}/none")]), direct(&["switches", "none"])] {
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    }
    assert_eq!(through(&["ports", "get", "none"]).status.code(), Some(2));

    let switches = done(&through(&["switches"]));
    assert_eq!(switches, done(&direct(&["switches"])));
    assert!(switches.contains("ovn-default   10.16.0.0/16   [#...................]   <0.1%"), "{switches}");
    let status = done(&Service::command_line(&["status", "--api", &api]));
    assert!(status.starts_with("ready, leading\n") && status.contains("1 AddressConflict"), "{status}");
}

#[tokio::test]
async fn a_watch_prints_each_change_through_the_api_and_from_the_database() {
    let stage = Stage::build("api-watch").flags(API).start().await;
    stage.make("a").await;
    let api = stage.service.api().await;
    let mut watches = Vec::new();
    for source in [["--api", &api], ["--nb", &stage.northbound.remote()]] {
        let mut command = crate::support::process::mortal(crate::support::service::binary());
        command.args(["ports", "--watch"]).args(source);
        watches.push(Service::begin(stage.dir(), command));
    }
    let shows = |watch: &'static str, words: String| {
        let watches = &watches;
        crate::support::eventually(watch, move || {
            let logs: Vec<String> = watches.iter().map(Service::log).collect();
            let all = logs.iter().all(|log| log.lines().any(|line| words.split(' ').all(|word| line.contains(word))));
            async move { if all { Ok(()) } else { Err(logs.concat()) } }
        })
    };
    shows("the port is shown", format!("/a a.{} unbound", stage.namespace.name)).await;
    stage.player.start("a", "n1").await;
    shows("the port is shown where it is", "/a n1 bound".to_owned()).await;
    stage.player.stop("a").await;
    stage.player.delete_vm("a").await;
    shows("the port is shown to be gone", "/a gone".to_owned()).await;
}
