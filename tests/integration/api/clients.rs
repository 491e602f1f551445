//! A client that is not ours: `websockets` from PyPI.

use std::process::Command;

use serde_json::{Value, json};

use super::API;
use crate::support::{Stage, python};

const SUBSCRIBER: &str = r#"
import asyncio, json, sys, websockets

async def main(url, count):
    async with websockets.connect(url, subprotocols=["ovn-kubevirt"], max_size=None) as socket:
        assert socket.subprotocol == "ovn-kubevirt", socket.subprotocol
        await socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ports.subscribe", "params": {}}))
        subscription, sequence, ports = None, 0, {}
        print("connected", flush=True)
        while len(ports) < count:
            message = json.loads(await socket.recv())
            if message.get("id") == 1:
                subscription = message["result"]
                continue
            assert message["method"] == "ports.changed", message
            assert message["params"]["subscription"] == subscription, message
            result = message["params"]["result"]
            sequence += 1
            assert result["sequence"] == sequence, message
            for port in result["ports"] if result["kind"] == "state" else sum((vm["ports"] for vm in result["vms"]), []):
                ports[port["port"]] = port["ips"]
        await socket.send(json.dumps({"jsonrpc": "2.0", "id": 2, "method": "ports.unsubscribe", "params": [subscription]}))
        while json.loads(await socket.recv()).get("id") != 2:
            pass
        print(json.dumps(ports), flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"#;

#[tokio::test]
async fn a_websocket_client_from_pypi_subscribes_and_sees_each_port() {
    let stage = Stage::build("api-python").flags(API).start().await;
    stage.make("first").await;
    let url = format!("ws://{}/rpc", stage.service.api().await);
    let mut command = Command::new(python::with_websockets());
    command
        .args(["-c", SUBSCRIBER, &url, "2"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let client = command.spawn().expect("Python runs");
    stage.make("second").await;
    let waiting = tokio::task::spawn_blocking(move || client.wait_with_output());
    let output =
        tokio::time::timeout(std::time::Duration::from_secs(30), waiting).await.expect("it ends").expect("a task");
    let output = output.expect("an output");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ports: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!(ports, json!({(stage.name("first")): ["10.16.0.2"], (stage.name("second")): ["10.16.0.3"]}));
}
