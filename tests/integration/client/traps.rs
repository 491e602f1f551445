//! Messages that our servers never send, or seldom: fed to the client by hand, through a stream in memory. They test
//! the parser; no part of a server is played.

use std::sync::Arc;
use std::time::Duration;

use ovn_kubevirt::ovn::Northbound as View;
use ovn_kubevirt::ovsdb::{Connection, Operation, Outcome, RejectionKind, Replica, Shared, Terms, Transaction};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use uuid::Uuid;

use super::shared;

/// The other end of a connection's stream.
struct Peer {
    stream: DuplexStream,
    came: Vec<u8>,
}

impl Peer {
    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("the client reads");
    }

    /// The next message of the client's.
    async fn next(&mut self) -> Value {
        loop {
            let mut messages = serde_json::Deserializer::from_slice(&self.came).into_iter::<Value>();
            if let Some(Ok(message)) = messages.next() {
                let length = messages.byte_offset();
                self.came.drain(..length);
                return message;
            }
            let count = self.stream.read_buf(&mut self.came).await.expect("the client writes");
            assert!(count > 0, "the client hung up");
        }
    }

    /// The next call, which must be of this method.
    async fn call(&mut self, method: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message["method"], method, "{message}");
        message
    }

    /// Shows that the client reads and answers.
    async fn assert_alive(&mut self) {
        self.send(r#"{"id":"alive","method":"echo","params":["?"]}"#).await;
        assert_eq!(self.next().await, json!({"id": "alive", "result": ["?"], "error": null}));
    }
}

fn start_on(view: Arc<Shared<View>>) -> (Arc<Connection>, Peer) {
    let (stream, ours) = tokio::io::duplex(64);
    let (input, output) = tokio::io::split(ours);
    let terms = Terms { probe_interval: Duration::from_secs(600), leader_only: true, ends_with_leadership: true };
    (Arc::new(Connection::start(input, output, terms, view)), Peer { stream, came: Vec::new() })
}

fn start() -> (Arc<Connection>, Peer) {
    start_on(shared())
}

/// Has the client monitor, and gives its call, which waits for a reply.
async fn monitoring(
    connection: &Arc<Connection>,
    peer: &mut Peer,
) -> (tokio::task::JoinHandle<Result<bool, String>>, Value) {
    let connection = Arc::clone(connection);
    let monitor = async move { connection.monitor(View::TABLES).await.map_err(|error| error.to_string()) };
    let monitor = tokio::spawn(monitor);
    let call = peer.call("monitor_cond_since").await;
    (monitor, call)
}

fn transaction() -> Transaction {
    let delete = Operation::Delete { table: "Logical_Switch", uuid: Uuid::nil() };
    Transaction { fence: None, operations: vec![delete] }
}

/// The outcome of a transaction with this answer: the reply's members after its id.
async fn outcome(connection: &Arc<Connection>, peer: &mut Peer, reply: &str) -> Outcome {
    let sender = Arc::clone(connection);
    let sent = tokio::spawn(async move { sender.transact(&transaction()).await });
    let call = peer.call("transact").await;
    peer.send(&format!(r#"{{"id":{},{reply}}}"#, call["id"])).await;
    sent.await.expect("an outcome")
}

const ZERO: &str = "00000000-0000-0000-0000-000000000000";
const ROW: &str = "00000000-0000-0000-0000-000000000007";

/// A reply to the monitor with one port; `more` goes into the row.
fn dump(id: &Value, transaction: &str, name: &str, more: &str) -> String {
    format!(
        r#"{{"id":{id},"result":[false,"{transaction}",{{"Logical_Switch_Port":{{"{ROW}":{{"initial":{{"name":"{name}"{more}}}}}}}}}],"error":null}}"#
    )
}

fn update(row: &str) -> String {
    format!(
        r#"{{"id":null,"method":"update3","params":["OVN_Northbound","{ZERO}",{{"Logical_Switch_Port":{{"{ROW}":{row}}}}}]}}"#
    )
}

#[tokio::test]
async fn an_echo_of_any_shape_is_answered_with_its_parameters_unless_it_has_no_id() {
    let (_connection, mut peer) = start();
    let echoes = [
        (r#"0"#, r#"[]"#),
        (r#"-7"#, r#"[1,"ü\"\\\u0000",null,{"a":[[]]}]"#),
        (r#"1.5e3"#, r#"{"no":"array"}"#),
        (r#""echo""#, r#""text""#),
        (r#"{"a":[1,{"b":"}"}]}"#, r#"7"#),
        (r#"["echo",null]"#, r#"[[[[]]]]"#),
        (r#"true"#, r#"false"#),
        (r#"18446744073709551616"#, r#"[1e300]"#),
    ];
    for (id, params) in echoes {
        peer.send(r#"{"id":null,"method":"echo","params":["a notification"]}"#).await;
        peer.send(&format!(r#" {{ "params" : {params} , "method" : "echo" , "id" : {id} }} "#)).await;
        let parsed = |text: &str| serde_json::from_str::<Value>(text).expect(text);
        assert_eq!(peer.next().await, json!({"id": parsed(id), "result": parsed(params), "error": null}));
    }
    for none in [r#""params":null,"#, ""] {
        peer.send(&format!(r#"{{{none}"method":"echo","id":1}}"#)).await;
        assert_eq!(peer.next().await, json!({"id": 1, "result": null, "error": null}));
    }
    // Many in one piece are answered in their order.
    let many: String = (0..500).map(|id| format!(r#"{{"id":{id},"method":"echo","params":[]}}"#)).collect();
    let (mut reader, mut writer) = tokio::io::split(peer.stream);
    let sending = tokio::spawn(async move { writer.write_all(many.as_bytes()).await });
    let expected: String = (0..500).map(|id| format!(r#"{{"id":{id},"result":[],"error":null}}"#)).collect();
    let mut came = vec![0; expected.len()];
    reader.read_exact(&mut came).await.expect("the answers");
    sending.await.expect("a task").expect("the client reads");
    assert_eq!(String::from_utf8(came).expect("text"), expected);
}

#[tokio::test]
async fn unrequested_messages_are_ignored() {
    let (connection, mut peer) = start();
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    for message in [
        r#"{"id":null,"method":"locked","params":["a lock"]}"#.to_owned(),
        r#"{"id":null,"method":"stolen","params":null}"#.to_owned(),
        r#"{"id":7,"method":"transact","params":["OVN_Northbound"]}"#.to_owned(),
        r#"{"id":null,"method":"update","params":["OVN_Northbound",{"Logical_Switch_Port":{}}]}"#.to_owned(),
        r#"{"id":null,"method":"update2","params":null}"#.to_owned(),
        r#"{"method":""}"#.to_owned(),
        r#"{"id":null,"method":"up\u0064ate2","params":[],"result":null,"error":null,"more":{"a":1e999}}"#.to_owned(),
        // Updates of a monitor that is not ours.
        format!(
            r#"{{"id":null,"method":"update3","params":["another","{ZERO}",{{"Logical_Switch_Port":{{"x":7}}}}]}}"#
        ),
        format!(r#"{{"id":null,"method":"no such","params":{deep}}}"#),
    ] {
        peer.send(&message).await;
        peer.assert_alive().await;
    }
    assert!(!connection.is_closed());
}

/// Returns the reason why the connection ends at this message; asserts that a transaction in flight has an unknown outcome.
async fn end(message: &str) -> String {
    let view = shared();
    let (connection, mut peer) = start_on(Arc::clone(&view));
    let (monitor, call) = monitoring(&connection, &mut peer).await;
    peer.send(&dump(&call["id"], "00000000-0000-0000-0000-000000000001", "p0", "")).await;
    assert_eq!(monitor.await.expect("a reply"), Ok(false));
    let under_way = tokio::spawn({
        let connection = Arc::clone(&connection);
        async move { connection.transact(&transaction()).await }
    });
    peer.call("transact").await;
    peer.send(message).await;
    let reason = connection.closed().await.to_string();
    match under_way.await.expect("an outcome") {
        Outcome::Unknown(found) => assert_eq!(found, reason),
        other => panic!("{message}: {other:?}"),
    }
    assert!(matches!(connection.transact(&transaction()).await, Outcome::NotSent));
    // Half of it may be in the replica: the next connection asks for everything.
    let (connection, mut peer) = start_on(Arc::clone(&view));
    let (monitor, call) = monitoring(&connection, &mut peer).await;
    if message.contains("update3") && message.contains(ROW) {
        assert_eq!(call["params"][3], ZERO, "{message}");
    }
    peer.send(&dump(&call["id"], ZERO, "p1", "")).await;
    assert_eq!(monitor.await.expect("a reply"), Ok(false));
    assert_eq!(view.read().port_named("p1").map(|port| port.uuid.to_string()).as_deref(), Some(ROW), "{message}");
    assert_eq!(view.read().port_count(), 1);
    reason
}

#[tokio::test]
async fn an_invalid_message_ends_the_connection_and_is_the_reason() {
    let not_json = "cannot be read";
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for (message, words) in [
        (r#"{"id":17,"result":[],"error":null}"#.to_owned(), "a reply to an unknown request"),
        (r#"{"id":"0","result":[],"error":null}"#.to_owned(), "a reply to an unknown request"),
        (r#"{"id":null,"result":[],"error":null}"#.to_owned(), "a reply to an unknown request"),
        (r#"{"id":-1,"result":null,"error":"x"}"#.to_owned(), "a reply to an unknown request"),
        (r#"{}"#.to_owned(), "a reply to an unknown request"),
        (r#"{"id":1,"id":1,"result":[]}"#.to_owned(), "duplicate field"),
        (r#"{"id"}"#.to_owned(), not_json),
        (r#"{"id":1,]"#.to_owned(), not_json),
        (r#"{"method":7}"#.to_owned(), not_json),
        ("{\"method\":\"\u{1}\"}".to_owned(), not_json),
        ("HTTP/1.1 400 Bad Request".to_owned(), "is this an OVSDB server?"),
        (r#"[]"#.to_owned(), "is this an OVSDB server?"),
        (r#"{"id":null,"method":"update3","params":null}"#.to_owned(), not_json),
        (r#"{"id":null,"method":"update3","params":[]}"#.to_owned(), not_json),
        (r#"{"id":null,"method":"update3","params":["OVN_Northbound",null,{}]}"#.to_owned(), not_json),
        (r#"{"id":null,"method":"update3","params":[null,null,null]}"#.to_owned(), not_json),
        (r#"{"id":null,"method":"monitor_canceled","params":["OVN_Northbound"]}"#.to_owned(), "converted"),
        (update(r#"{}"#), "empty row-update2"),
        (update(r#"7"#), not_json),
        (update(r#"{"conjure":{}}"#), "unknown variant `conjure`"),
        (update(r#"{"modify":{"name":7}}"#), not_json),
        (update(r#"{"modify":{"addresses":["set",[["set",["a"]]]]}}"#), not_json),
        (update(r#"{"modify":{"external_ids":["map",[["vendor"]]]}}"#), not_json),
        (update(r#"{"modify":{"dynamic_addresses":["set",["a","b"]]}}"#), "holds at most one"),
        (update(&format!(r#"{{"modify":{{"name":{deep}}}}}"#)), not_json),
        (update(r#"{"modify":{"name":"p1"}}"#).replace(ROW, "no uuid"), not_json),
        (update(r#"{"modify":{"name":"p1"}}"#).replace("0007", "0008"), "which it never sent"),
        (update(r#"{"modify":{"name":"p1"}}"#).replace("Logical_Switch_Port", "NB_Global"), "which it never sent"),
    ] {
        let reason = end(&message).await;
        assert!(reason.contains(words), "{message}: {reason}");
    }
    for huge in ["1e400", "9223372036854775808", "1.5", "-9223372036854775809"] {
        let message =
            update(&format!(r#"{{"insert":{{"nb_cfg":{huge}}}}}"#)).replace("Logical_Switch_Port", "NB_Global");
        let reason = end(&message).await;
        assert!(reason.contains(not_json), "{huge}: {reason}");
    }
}

#[tokio::test]
async fn an_error_of_any_shape_refuses_the_call_and_the_connection_stays() {
    let (connection, mut peer) = start();
    for error in [r#""canceled""#, r#"{"error":"no","details":"\"ü"}"#, r#"["a",["b"]]"#, "7", "false", r#""""#] {
        let sender = Arc::clone(&connection);
        let called = tokio::spawn(async move { sender.call::<IgnoredAny>("get_schema", &["x"]).await });
        let call = peer.call("get_schema").await;
        peer.send(&format!(r#"{{"id":{},"result":null,"error":{error}}}"#, call["id"])).await;
        let said = called.await.expect("a reply").map(drop).expect_err("an error").to_string();
        assert_eq!(said, format!("the server refused \"get_schema\": {error}"));

        let (monitor, call) = monitoring(&connection, &mut peer).await;
        peer.send(&format!(r#"{{"id":{},"error":{error}}}"#, call["id"])).await;
        let said = monitor.await.expect("a reply").expect_err("an error");
        assert_eq!(said, format!("the server refused \"monitor_cond_since\": {error}"));
    }
    for error in [r#"{"error":"unknown database"}"#, r#"["a"]"#, "7"] {
        match outcome(&connection, &mut peer, &format!(r#""result":null,"error":{error}"#)).await {
            Outcome::Rejected(rejection) => {
                assert_eq!((rejection.operation, rejection.details.as_str()), (None, error));
                assert!(matches!(rejection.kind, RejectionKind::Other(_)), "{rejection:?}");
            }
            other => panic!("{error}: {other:?}"),
        }
    }
    peer.assert_alive().await;
}

#[tokio::test]
async fn a_reply_with_both_members_null_or_of_another_shape_is_never_taken_for_a_commit() {
    for reply in [
        r#""result":null,"error":null"#,
        r#""error":null"#,
        r#""result":7"#,
        r#""result":{"count":1}"#,
        r#""result":[7]"#,
    ] {
        let (connection, mut peer) = start();
        match outcome(&connection, &mut peer, reply).await {
            Outcome::Unknown(reason) => assert!(reason.contains("unreadable"), "{reply}: {reason}"),
            other => panic!("{reply}: {other:?}"),
        }
    }
    let (connection, mut peer) = start();
    let (monitor, call) = monitoring(&connection, &mut peer).await;
    peer.send(&format!(r#"{{"id":{},"result":null,"error":null}}"#, call["id"])).await;
    let reason = monitor.await.expect("a reply").expect_err("it brings no rows");
    assert!(reason.contains("cannot be read"), "{reason}");
    // A call that expects no result accepts an empty one.
    let (connection, mut peer) = start();
    let sender = Arc::clone(&connection);
    let called = tokio::spawn(async move { sender.call::<Option<u8>>("unlock", &["x"]).await });
    let call = peer.call("unlock").await;
    peer.send(&format!(r#"{{"id":{},"result":null,"error":null}}"#, call["id"])).await;
    assert!(matches!(called.await.expect("a reply"), Ok(None)));
}

#[tokio::test]
async fn a_caller_that_left_does_not_end_the_connection_when_its_reply_comes() {
    let (connection, mut peer) = start();
    let sender = Arc::clone(&connection);
    let sent = tokio::spawn(async move { sender.transact(&transaction()).await });
    let call = peer.call("transact").await;
    sent.abort();
    assert!(sent.await.expect_err("it was aborted").is_cancelled());
    peer.send(&format!(r#"{{"id":{},"result":[{{"count":1}}],"error":null}}"#, call["id"])).await;
    peer.assert_alive().await;
    assert!(!connection.is_closed());
}

/// A server of tomorrow has more columns, and more in its messages.
#[tokio::test]
async fn unknown_tables_columns_and_members_are_passed_over_however_deep() {
    let view = shared();
    let (connection, mut peer) = start_on(Arc::clone(&view));
    let deep = format!(r#"{}"]}}"{}"#, r#"{"a":["#.repeat(20_000), "]}".repeat(20_000));
    let (monitor, call) = monitoring(&connection, &mut peer).await;
    peer.send(&dump(&call["id"], ZERO, "p0", &format!(r#","tomorrow":{deep},"mirror_rules":["set",[]]"#))).await;
    assert_eq!(monitor.await.expect("a reply"), Ok(false));
    peer.send(&update(&format!(r#"{{"modify":{{"tomorrow":{deep},"type":"virtual"}}}}"#))).await;
    let rows = format!(r#"{{"{ROW}":{{"modify":{{"name":"x"}}}},"no uuid":{deep}}}"#);
    peer.send(&update("{}").replace(&format!(r#"{{"{ROW}":{{}}}}"#), &rows).replace("Logical_Switch_Port", "Tomorrow"))
        .await;
    peer.assert_alive().await;
    let view = view.read();
    let row = view.port_named("p0").expect("the port").row;
    assert_eq!((row.name.as_str(), row.kind.as_str()), ("p0", "virtual"));
}

/// The client takes a dump in as it comes. One that breaks off leaves a part, which the next one puts right.
#[tokio::test]
async fn a_dump_that_breaks_off_anywhere_is_corrected_by_the_next_and_the_changes_are_noted() {
    let row = |number: u128, name: &str| {
        let marks = [
            ("vendor", "ovn-kubevirt"),
            ("ovn-kubevirt.io/instance", "default"),
            ("ovn-kubevirt.io/vm", &format!("n/{name}")),
            ("ovn-kubevirt.io/network", "default"),
        ];
        let row = json!({"initial": {"name": name, "external_ids": ["map", marks]}});
        (Uuid::from_u128(number).to_string(), row)
    };
    let dump = |id: &Value, rows: &[(String, Value)]| {
        let rows: serde_json::Map<String, Value> = rows.iter().cloned().collect();
        format!(r#"{{"id":{id},"result":[false,"{ZERO}",{{"Logical_Switch_Port":{}}}],"error":null}}"#, json!(rows))
    };
    let before = [row(1, "stays"), row(2, "goes"), row(3, "old")];
    let after = [row(1, "stays"), row(3, "new"), row(4, "comes")];
    let whole = dump(&json!(0), &after);
    for cut in (0..whole.len()).step_by(7) {
        let view = shared();
        let mut named = std::collections::BTreeSet::new();
        for (rows, length) in [(&before, None), (&after, Some(cut)), (&after, None)] {
            let (connection, mut peer) = start_on(Arc::clone(&view));
            let (monitor, call) = monitoring(&connection, &mut peer).await;
            assert_eq!(call["params"][3], ZERO);
            let dump = dump(&call["id"], rows);
            peer.send(&dump[..length.unwrap_or(dump.len())]).await;
            if length.is_none() {
                assert_eq!(monitor.await.expect("a reply"), Ok(false));
            } else {
                drop(peer);
                monitor.await.expect("a reply").expect_err("it broke off");
            }
            named.extend(view.write().take_changes().vms);
            if rows == &before {
                named.clear();
            }
        }
        let view = view.read();
        let mut present: Vec<_> = view.ports().map(|port| (port.uuid.as_u128(), port.row.name.clone())).collect();
        present.sort();
        let expected = [(1, "stays"), (3, "new"), (4, "comes")].map(|(number, name)| (number, name.to_owned()));
        assert_eq!(present, expected, "cut at {cut}");
        let named: Vec<String> = named.into_iter().map(|vm| vm.name).collect();
        assert_eq!(named, ["comes", "goes", "new", "old"], "cut at {cut}");
    }
}
