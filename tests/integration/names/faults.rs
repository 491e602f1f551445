//! Names, and a database or a leader that fails: what is written follows from the state, whatever was lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::AbortHandle;

use super::{FLAGS, borrowed, has, named, names_on, of_one, rows, writes};
use crate::support::stage::DEFAULT_SWITCH;
use crate::support::{Northbound, Service, Stage, eventually, holds_for};

/// A proxy in front of the northbound. Of the first transactions with names, the server gets each and the client no answer: the
/// connection breaks. It keeps what the client has sent.
struct Loser {
    socket: PathBuf,
    lost: Arc<AtomicUsize>,
    sent: Arc<std::sync::Mutex<String>>,
    task: AbortHandle,
}

impl Loser {
    fn start(northbound: &Northbound, losses: usize) -> Self {
        let server = PathBuf::from(northbound.remote().trim_start_matches("unix:"));
        let socket = northbound.dir().join("loser.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let (lost, sent): (Arc<AtomicUsize>, Arc<std::sync::Mutex<String>>) = Default::default();
        let (counter, log) = (Arc::clone(&lost), Arc::clone(&sent));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, counter, log) = (server.clone(), Arc::clone(&counter), Arc::clone(&log));
                tokio::spawn(async move { drop(carry(client, &server, losses, &counter, &log).await) });
            }
        });
        Self { socket, lost, sent, task: task.abort_handle() }
    }

    fn remote(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    fn sent(&self) -> String {
        self.sent.lock().expect("the text").clone()
    }
}

impl Drop for Loser {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(
    mut client: UnixStream,
    server: &Path,
    losses: usize,
    lost: &AtomicUsize,
    log: &std::sync::Mutex<String>,
) -> std::io::Result<()> {
    let mut server = UnixStream::connect(server).await?;
    let (mut request, mut answer) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let read = read?;
                let text = String::from_utf8_lossy(&request[..read]).into_owned();
                log.lock().expect("the text").push_str(&text);
                server.write_all(&request[..read]).await?;
                let writes_names = text.contains(r#""op":"insert","table":"DNS""#) || text.contains(r#""op":"mutate","table":"DNS""#);
                if writes_names && lost.load(Ordering::SeqCst) < losses {
                    // The server has answered, and the answer is lost.
                    let _ = server.read(&mut answer).await?;
                    lost.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
                if read == 0 {
                    return Ok(());
                }
            }
            read = server.read(&mut answer) => {
                let read = read?;
                client.write_all(&answer[..read]).await?;
                if read == 0 {
                    return Ok(());
                }
            }
        }
    }
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_looked_for_and_not_repeated() {
    let prepared = named("names-lost").prepare().await;
    let loser = Loser::start(&prepared.northbound, 2);
    let stage = prepared.with(|setup| setup.nb(&loser.remote())).start().await;
    stage.make("first").await;
    let mut expected = of_one(&stage, "first", "10.16.0.2");
    has(&stage.northbound, DEFAULT_SWITCH, &borrowed(&expected)).await;
    eventually("the first answer is lost", || async {
        (loser.lost.load(Ordering::SeqCst) == 1).then_some(()).ok_or("not yet")
    })
    .await;
    stage.make("second").await;
    expected.extend(of_one(&stage, "second", "10.16.0.3"));
    has(&stage.northbound, DEFAULT_SWITCH, &borrowed(&expected)).await;
    eventually("the second, too", || async { (loser.lost.load(Ordering::SeqCst) == 2).then_some(()).ok_or("not yet") })
        .await;
    stage.service.ready().await;
    stage.make("third").await;
    expected.extend(of_one(&stage, "third", "10.16.0.4"));
    has(&stage.northbound, DEFAULT_SWITCH, &borrowed(&expected)).await;
    assert_eq!(writes(&stage.northbound), 3, "each change once");
}

#[tokio::test]
async fn without_a_domain_no_name_is_read() {
    for (flags, reads) in [(&[][..], false), (&FLAGS[..], true)] {
        let prepared = Stage::build("names-unread").flags(flags.iter().copied()).prepare().await;
        let loser = Loser::start(&prepared.northbound, 0);
        let stage = prepared.with(|setup| setup.nb(&loser.remote())).start().await;
        stage.make("testvm").await;
        let sent = loser.sent();
        assert!(sent.contains("monitor_cond_since") && sent.contains(r#""Logical_Switch_Port":[{"columns""#), "{sent}");
        let monitors = [r#""dns_records""#, r#""DNS":[{"columns""#].map(|words| sent.contains(words));
        assert_eq!(monitors, [reads; 2], "{flags:?}: {sent}");
    }
}

#[tokio::test]
async fn names_are_written_after_a_database_that_was_killed() {
    let stage = named("names-killed").start().await;
    stage.make("before").await;
    let mut expected = of_one(&stage, "before", "10.16.0.2");
    has(&stage.northbound, DEFAULT_SWITCH, &borrowed(&expected)).await;
    stage.make("meanwhile").await;
    // Before or after its names were written.
    stage.northbound.kill9();
    stage.northbound.start_again().await;
    stage.make("after").await;
    expected.extend(of_one(&stage, "meanwhile", "10.16.0.3"));
    expected.extend(of_one(&stage, "after", "10.16.0.4"));
    has(&stage.northbound, DEFAULT_SWITCH, &borrowed(&expected)).await;
}

/// The database takes no row of names with more than so many records.
fn bound_records(northbound: &Northbound, most: Option<u32>) {
    let schema = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/ovsdb-schemas/ovn-nb.ovsschema"));
    let mut schema: serde_json::Value = serde_json::from_str(&schema.expect("the schema")).expect("JSON");
    let max = most.map_or(json!("unlimited"), |most| json!(most));
    schema["tables"]["DNS"]["columns"]["records"]["type"]["max"] = max;
    let file = northbound.dir().join("few-records.ovsschema");
    std::fs::write(&file, schema.to_string()).expect("a schema file");
    let converted =
        std::process::Command::new("ovsdb-client").arg("convert").arg(northbound.remote()).arg(&file).status();
    assert!(converted.expect("ovsdb-client").success());
}

#[tokio::test]
async fn names_that_the_database_refuses_hold_up_no_port_and_are_tried_again() {
    let stage = named("names-refused").start().await;
    bound_records(&stage.northbound, Some(1));
    for vm in ["a", "b", "c"] {
        stage.make(vm).await;
    }
    let failed = "ovn_kubevirt_name_writes_total{outcome=\"failed\"} ";
    eventually("a write has failed", || async {
        let (_, metrics) = stage.service.http_get("/metrics").await;
        let is_counted = |line: &str| line.strip_prefix(failed).is_some_and(|count| count != "0");
        if metrics.lines().any(is_counted) { Ok(()) } else { Err(metrics) }
    })
    .await;
    stage.make("d").await;
    assert_eq!(rows(&stage.northbound), []);
    bound_records(&stage.northbound, None);
    eventually("all have their names", || async {
        let names = names_on(&stage.northbound, DEFAULT_SWITCH).len();
        if names == 12 { Ok(()) } else { Err(format!("{names} names\n{}", stage.service.log())) }
    })
    .await;
}

#[tokio::test]
async fn a_leader_that_slept_through_its_term_writes_no_names_after_it() {
    // A change waits for two seconds.
    let flags = ["--dns-domain", "vm.test", "--dns-interval", "10s"];
    let fleet = Stage::build("names-deposed").lease(2).flags(flags).prepare().await;
    let services = [fleet.setup().start().await, fleet.setup().start().await];
    let old = eventually("one of the services is in office", || async {
        services.iter().position(|service: &Service| service.log().contains("in office")).ok_or("none is")
    })
    .await;
    fleet.make("testvm").await;
    services[old].freeze();
    assert_eq!(rows(&fleet.northbound), []);
    let wrote = "names written";
    eventually("the other writes the names", || async {
        if services[1 - old].log().contains(wrote) { Ok(()) } else { Err(services[1 - old].log()) }
    })
    .await;
    fleet.player.delete_vm("testvm").await;
    eventually("the names are gone", || async {
        let rows = rows(&fleet.northbound);
        if rows.is_empty() { Ok(()) } else { Err(format!("{rows:#?}")) }
    })
    .await;
    services[old].thaw();
    holds_for("the sleeper writes no name", Duration::from_secs(3), || async {
        let rows = rows(&fleet.northbound);
        if rows.is_empty() { Ok(()) } else { Err(format!("{rows:#?}")) }
    })
    .await;
    assert!(!services[old].log().contains(wrote), "{}", services[old].log());
    assert!(services.iter().all(Service::is_running));
}
