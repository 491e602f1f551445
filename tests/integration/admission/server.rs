//! The listener under nonsense and under attack: each answer names the fault, and calls of the API server are still served.

use kube::core::admission::AdmissionResponse;
use ovn_kubevirt::admission::{Certificates, Request, Review, WebhookMetrics, serve};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use super::certificates::issue;
use super::*;
use crate::support::holds_for;

async fn listening(stage: &Hooked) -> (Service, Caller) {
    let service = stage.setup("150s").start().await;
    let caller = stage.caller(&service).await;
    (service, caller)
}

#[tokio::test]
async fn an_answer_has_the_questions_uid() {
    let stage = Hooked::new("answers").await;
    let (_service, caller) = listening(&stage).await;
    for path in ["/validate", "/mutate"] {
        let (status, body) = caller.post(path, &question("7-8-9")).await.expect("an answer");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(
            (status, &answer["response"]["uid"], &answer["response"]["allowed"]),
            (200, &json!("7-8-9"), &json!(true))
        );
        assert_eq!(
            (&answer["apiVersion"], &answer["kind"]),
            (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
        );
    }
}

/// Refuses every VM, and never comes to an end with a pod.
struct Hard;

impl Review for Hard {
    async fn validate(&self, request: Request<'_>) -> AdmissionResponse {
        request.allow().deny(format!("not {}, said the review", request.name))
    }

    async fn mutate(&self, _: Request<'_>) -> AdmissionResponse {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_refusal_is_handed_on_and_a_review_that_never_ends_is_given_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = issue(dir.path());
    let read = |file: &str| std::fs::read(dir.path().join(file)).expect("a file");
    let certificates = Certificates::default();
    certificates.show(&read("tls.crt"), &read("tls.key")).expect("a certificate");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let caller = Caller::new(&listener.local_addr().expect("a port").to_string(), &authority).expect("a CA");
    let mut registry = Registry::default();
    let metrics = WebhookMetrics::registered(&mut registry);
    let serving = tokio::spawn(async move { serve(listener, &certificates, Hard, metrics).await });
    let (status, body) = caller.post("/validate", &question("7")).await.expect("an answer");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &answer["response"]["allowed"]), (200, &json!(false)));
    assert_eq!(answer["response"]["status"]["message"], "not a, said the review");
    let (status, text) = caller.post("/mutate", &question("7")).await.expect("an answer");
    assert!(status == 504 && text.contains("longer than 10s"), "{status} {text}");
    let mut counted = String::new();
    encode(&mut counted, &registry).expect("metrics");
    for line in [
        "webhook_refusals_total{hook=\"validate\"} 1",
        "webhook_duration_seconds_count{hook=\"validate\",outcome=\"refused\"} 1",
        "webhook_duration_seconds_count{hook=\"mutate\",outcome=\"timed_out\"} 1",
    ] {
        assert!(counted.contains(line), "{counted}");
    }
    serving.abort();
}

#[tokio::test]
async fn nonsense_is_answered_with_an_error_and_harms_no_other_call() {
    let stage = Hooked::new("nonsense").await;
    let (service, caller) = listening(&stage).await;
    let beta = question("7").replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    let nested = "[".repeat(500_000);
    let cut = &question("7")[..100];
    for (body, words) in [
        ("", "no AdmissionReview"),
        ("{", "no AdmissionReview"),
        ("{}", "reads AdmissionReview"),
        (cut, "no AdmissionReview"),
        (&nested, "no AdmissionReview"),
        (&beta, "admissionReviewVersions"),
        (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#, "has no request"),
    ] {
        let (status, text) = caller.post("/mutate", body).await.expect("an answer");
        assert!(status == 400 && text.contains(words) && text.len() < 500, "{status} {text}");
    }
    let raw = async |request: &str| caller.send(request.as_bytes()).await.expect("an answer").0;
    assert_eq!(raw("GET /mutate HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await, 405);
    assert_eq!(raw("POST /other HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await, 404);
    let chunked =
        "POST /mutate HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(raw(chunked).await, 411);
    assert_eq!(raw("POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n").await, 413);
    // A body that never comes.
    assert_eq!(raw("POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{").await, 408);
    assert_eq!(raw("POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n{").await, 408);
    // No TLS at all.
    let mut plain = TcpStream::connect(&caller.address).await.expect("a connection");
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("it is sent");
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest).await;
    assert_eq!(caller.post("/mutate", &question("7")).await.expect("an answer").0, 200);
    let metrics = service.http_get("/metrics").await.1;
    let line = "ovn_kubevirt_webhook_duration_seconds_count{hook=\"mutate\",outcome=\"unreadable\"} 11";
    assert!(metrics.contains(line), "{metrics}");
    assert!(!service.log().contains("panic"), "{}", service.log());
}

#[tokio::test]
async fn objects_as_large_as_the_api_server_takes_are_read() {
    let stage = Hooked::new("large").await;
    let (_service, caller) = listening(&stage).await;
    // As it would be and as it is, 3 MiB each.
    let asked = |size: usize| {
        let object = format!(r#"{{"kind":"Pod","metadata":{{"name":"a"}},"x":"{}"}}"#, "x".repeat(size));
        let body = question("7").replace(r#""oldObject":null"#, &format!(r#""oldObject":{object}"#));
        body.replacen(r#""object":{"#, &format!(r#""object":{object},"unknown":{{"#), 1)
    };
    let largest = asked(3 << 20);
    assert!(largest.len() > 6 << 20, "{}", largest.len());
    assert_eq!(caller.post("/validate", &largest).await.expect("an answer").0, 200);
    // More at once than are in memory at the same time.
    let (caller, body) = (Arc::new(caller), asked(100 << 10));
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..24 {
        let (caller, body) = (Arc::clone(&caller), body.clone());
        all.spawn(async move { caller.post("/mutate", &body).await });
    }
    while let Some(answer) = all.join_next().await {
        assert_eq!(answer.expect("it ends").expect("an answer").0, 200);
    }
}

#[tokio::test]
async fn silent_connections_do_not_block_calls() {
    let mut stage = Hooked::new("silent").await;
    let (service, caller) = listening(&stage).await;
    stage.call(&service).await;
    stage.announced().await;
    stage.called().await;
    let mut silent = Vec::new();
    let mut half = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(&caller.address).await.expect("a connection"));
    }
    for _ in 0..20 {
        let mut stream = caller.connect().await.expect("a connection");
        stream.write_all(b"POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n{").await.expect("sent");
        half.push(stream);
    }
    holds_for("the API server is answered", Duration::from_secs(4), || async {
        let calls = async {
            stage.try_vm().await?;
            stage.try_pod().await
        };
        tokio::time::timeout(Duration::from_secs(2), calls).await.map_err(|error| error.to_string())?
    })
    .await;
    // Those that never made a handshake are closed.
    let stream = silent.first_mut().expect("a connection");
    let mut nothing = [0; 1];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut nothing)).await;
    assert_eq!(read.expect("it is closed").unwrap_or(0), 0);
}

#[tokio::test]
async fn while_the_service_is_away_the_configurations_policy_holds_and_afterwards_all_is_well() {
    let mut stage = Hooked::new("away").await;
    let (service, caller) = listening(&stage).await;
    stage.call(&service).await;
    stage.announced().await;
    stage.called().await;
    assert!(service.stop().await.success());
    let error = stage.try_pod().await.expect_err("no server answers");
    assert!(error.contains("failed calling webhook"), "{error}");
    // On the port of before, with the certificate of before.
    let _again = stage.setup_on(&caller.address, "150s").start().await;
    stage.called().await;
}
