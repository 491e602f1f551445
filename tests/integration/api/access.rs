//! The permitted callers, and the limits.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use ovn_kubevirt::api::rpc::{ApiClient, ApiUrl, ClientError, Credentials};

use super::{call, client};
use crate::support::{Service, Stage};

/// The answer to curl: the status, and the body.
fn curl(arguments: &[&str]) -> (u16, String) {
    let output = Command::new("curl").args(["-s", "-w", "\n%{http_code}", "--max-time", "20"]).args(arguments).output();
    let text = String::from_utf8_lossy(&output.expect("curl runs").stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').expect("a status");
    (code.parse().expect("a number"), body.to_owned())
}

const JSON: [&str; 2] = ["-H", "content-type: application/json"];

fn post(url: &str, body: &str, more: &[&str]) -> (u16, String) {
    curl(&[&JSON[..], more, &["-d", body, url]].concat())
}

const STATUS: &str = r#"{"jsonrpc":"2.0","id":1,"method":"status"}"#;

#[tokio::test]
async fn without_a_token_a_page_of_another_site_is_refused_and_a_notification_is_never_executed() {
    let stage = Stage::build("api-access").flags(super::API).start().await;
    let address = stage.service.api().await;
    let url = format!("http://{address}/rpc");
    let (code, body) = post(&url, STATUS, &[]);
    let status: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((code, &status["result"]["role"]), (200, &json!("leading")), "{body}");
    for more in [["-H", "host: evil.example"], ["-H", "origin: http://evil.example"], ["-H", "origin: null"]] {
        let (code, body) = post(&url, STATUS, &more);
        assert!(
            code == 403 && body.contains("127.0.0.1") || body.contains("page of this listener"),
            "{more:?}: {code} {body}"
        );
    }
    assert_eq!(post(&url, STATUS, &["-H", &format!("origin: http://{address}")]).0, 200);
    // The requests that a form of another site can send without a preflight.
    assert_eq!(curl(&["-H", "content-type: text/plain", "-d", STATUS, &url]).0, 415);
    let port = address.rsplit_once(':').expect("a port").1;
    assert_eq!(post(&format!("http://localhost:{port}/"), STATUS, &[]).0, 200);
    assert!(curl(&[&format!("http://{address}/")]).1.contains("<title>ovn-kubevirt</title>"));

    let notification = r#"{"jsonrpc":"2.0","method":"log.setLevel","params":{"filter":"off"}}"#;
    // The library answers an HTTP request with an empty JSON value.
    assert_eq!(post(&url, notification, &[]).1, "null");
    assert_eq!(
        call(&mut client(&stage.service).await, "status", json!({})).await["logFilter"],
        "info,ovn_kubevirt=debug"
    );
    let (_, body) = post(&url, &format!("[{notification},{STATUS}]"), &[]);
    let answers: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(answers.as_array().map(Vec::len), Some(1), "{body}");
    assert_ne!(answers[0]["result"]["logFilter"], "off");

    let errors = |body: &str, more: &[&str]| {
        let (_, answer) = post(&url, body, more);
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"));
        (
            answer["error"]["code"].as_i64().unwrap_or_default(),
            answer["error"]["message"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let batch = format!("[{}]", [STATUS; 17].join(","));
    assert_eq!(errors(&batch, &[]).0, -32010);
    assert_eq!(errors("{", &[]).0, -32700);
    assert_eq!(errors(r#"{"jsonrpc":"2.0","id":1,"method":"ports.subscribe"}"#, &[]).0, -32603);
    for (params, words) in [
        (r#"{"nmaespace":"a"}"#, "There is no parameter \"nmaespace\""),
        (r#"["a"]"#, "Write an object"),
        (r#"{"limit":0}"#, "Write 1 to 2000"),
        (r#"{"cursor":"x"}"#, "nextCursor"),
        (r#"{"state":"gone"}"#, "cannot be read"),
    ] {
        let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ports.list","params":{params}}}"#);
        let (code, message) = errors(&request, &[]);
        assert!(code == -32602 && message.contains(words), "{params}: {code} {message}");
    }
    let large = stage.dir().join("large.json");
    std::fs::write(&large, vec![b' '; 3 << 20]).expect("a file");
    assert_eq!(curl(&[&JSON[..], &["--data-binary", &format!("@{}", large.display()), &url]].concat()).0, 413);
}

#[tokio::test]
async fn the_filter_of_the_log_is_set_while_the_service_runs() {
    let stage = Stage::build("api-log").flags(super::API).start().await;
    let mut api = client(&stage.service).await;
    let set = call(&mut api, "log.setLevel", json!({"filter": "warn"})).await;
    assert_eq!(set["before"], "info,ovn_kubevirt=debug");
    stage.make("quiet").await;
    call(&mut api, "log.setLevel", json!({"filter": "info"})).await;
    stage.make("loud").await;
    crate::support::eventually("the second port is logged", || async {
        let log = stage.service.log();
        if log.contains(&format!("port={:?}", stage.name("loud"))) { Ok(()) } else { Err(log) }
    })
    .await;
    assert!(!stage.service.log().contains(&format!("port={:?}", stage.name("quiet"))), "{}", stage.service.log());
    let (code, message) = super::refused(&mut api, "log.setLevel", json!({"filter": "a=b=c"})).await;
    assert!(code == -32602 && message.contains("RUST_LOG"), "{message}");
}

/// Writes a certificate for 127.0.0.1, its key and a token.
fn files(dir: &Path) -> [String; 3] {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    [
        write("api.crt", &made.cert.pem()),
        write("api.key", &made.signing_key.serialize_pem()),
        write("api.token", "a-token-of-32-characters-or-more\n"),
    ]
}

#[tokio::test]
async fn beyond_loopback_tls_and_a_token_are_asked_for() {
    let stage = Stage::build("api-tls").prepare().await;
    let [certificate, key, token] = files(stage.dir());
    for (flags, words) in [
        (vec!["--api", "0.0.0.0:0"], "--api-certificate, --api-private-key, --api-token is missing"),
        (
            vec!["--api", "0.0.0.0:0", "--api-certificate", &certificate, "--api-private-key", &key],
            "--api-token is missing",
        ),
        (
            vec![
                "--api",
                "0.0.0.0:0",
                "--api-certificate",
                &certificate,
                "--api-private-key",
                &token,
                "--api-token",
                &token,
            ],
            "cannot be used",
        ),
        (vec!["--api", "127.0.0.1:0", "--api-token", &certificate], "openssl rand"),
    ] {
        let output = Service::command_line(
            &[&["run", "--no-lease", "--http", "127.0.0.1:0", "--kubeconfig", "/nowhere"], &flags[..]].concat(),
        );
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        // A flag that is missing is found as the command line is read.
        let code = if words.ends_with("is missing") { 2 } else { 1 };
        assert!(output.status.code() == Some(code) && text.contains(words), "{flags:?}: {text}");
    }
    let flags =
        ["--api", "0.0.0.0:0", "--api-certificate", &certificate, "--api-private-key", &key, "--api-token", &token];
    let service = stage.setup().flags(flags).start().await;
    let address = service.api().await.replace("0.0.0.0", "127.0.0.1");
    let url = format!("https://{address}/rpc");
    let trust = ["--cacert", &certificate];
    let (code, body) = post(&url, STATUS, &trust);
    assert!(code == 401 && body.contains("--api-token"), "{code} {body}");
    let (code, _) =
        post(&url, STATUS, &[&trust[..], &["-H", "authorization: Bearer a-token-of-32-characters-or-mor"]].concat());
    assert_eq!(code, 401);
    let (code, body) =
        post(&url, STATUS, &[&trust[..], &["-H", "authorization: Bearer a-token-of-32-characters-or-more"]].concat());
    assert!(code == 200 && body.contains("leading"), "{code} {body}");
    // The page and the description hold no data.
    assert_eq!(curl(&[&trust[..], &[&format!("https://{address}/openrpc.json")]].concat()).0, 200);
    let status = |more: &[&str]| {
        let output = Service::command_line(&[&["status", "--api", &url, "--http", "127.0.0.1:1"], more].concat());
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, text) = status(&["--api-ca", &certificate, "--api-token", &token]);
    assert!(code == Some(0) && text.starts_with("ready, leading\n"), "{code:?} {text}");
    let (code, text) = status(&["--api-ca", &certificate]);
    assert!(code == Some(1) && text.contains("give the file of its token with --api-token"), "{code:?} {text}");
}

#[tokio::test]
async fn a_web_socket_ends_when_the_token_that_opened_it_is_replaced() {
    let stage = Stage::build("api-revoked").prepare().await;
    let [_, _, token] = files(stage.dir());
    let service = stage.setup().flags(["--api", "127.0.0.1:0", "--api-token", &token]).start().await;
    let url: ApiUrl = service.api().await.parse().expect("an address");
    let credentials = Credentials { token: Some(token.clone().into()), ca: None };
    let mut subscriber = ApiClient::connect(&url, &credentials).await.expect("an API");
    call(&mut subscriber, "ports.subscribe", json!({})).await;
    assert_eq!(subscriber.message::<Value>().await.expect("the state")["complete"], true);
    std::fs::write(format!("{token}.new"), "another-token-of-32-characters-or-more").expect("a file");
    std::fs::rename(format!("{token}.new"), &token).expect("a file");
    let ended = tokio::time::timeout(Duration::from_secs(30), subscriber.message::<Value>()).await;
    assert!(matches!(ended, Ok(Err(ClientError::Broken(_)))), "{ended:?}");
    assert!(service.log().contains("the token that opened it was replaced"), "{}", service.log());
    let mut next = ApiClient::connect(&url, &credentials).await.expect("an API with the next token");
    call(&mut next, "status", json!({})).await;
}
