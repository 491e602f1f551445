//! Certificates that the service makes, shares, announces and rotates, and those that it is given.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;

use super::*;
use crate::support::deploy::kubectl;
use crate::support::{holds_for, never};

/// Long enough for a test to see no renewal.
const LONG: &str = "150s";

#[tokio::test]
async fn the_api_server_trusts_the_webhooks_by_the_ca_that_the_service_writes() {
    let mut stage = Hooked::new("trusted").await;
    let service = stage.setup(LONG).start().await;
    stage.caller(&service).await;
    stage.call(&service).await;
    let refused = stage.try_vm().await.err();
    assert!(refused.is_none_or(|error| error.contains("x509")), "the CA is not there yet, or is");
    stage.announced().await;
    stage.called().await;
    let secret = stage.secrets().get(SECRET).await.expect("the Secret");
    let labels = secret.metadata.labels.unwrap_or_default();
    assert_eq!(labels["app.kubernetes.io/managed-by"], "ovn-kubevirt");
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
    // Correct objects are not written again.
    let versions = || async {
        let secret = stage.secrets().get(SECRET).await.expect("the Secret");
        secret.metadata.resource_version
    };
    let before = versions().await;
    holds_for("nothing is written", Duration::from_secs(5), || async {
        let now = versions().await;
        if now == before { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    assert_eq!(service.log().matches("has the CA of the webhooks").count(), 2, "{}", service.log());
}

#[tokio::test]
async fn rotation_of_the_certificate_and_of_the_ca_fails_no_call() {
    let mut stage = Hooked::new("rotated").await;
    let service = stage.setup("21s").start().await;
    let caller = stage.caller(&service).await;
    stage.call(&service).await;
    stage.announced().await;
    stage.called().await;
    let stage = Arc::new(stage);
    let (stopping, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (stage, stopping, calls) = (Arc::clone(&stage), Arc::clone(&stopping), Arc::clone(&calls));
        let address = caller.address.clone();
        load.spawn(async move {
            while !stopping.load(Ordering::Relaxed) {
                stage.try_vm().await.expect("a VM is let through");
                stage.try_pod().await.expect("a pod is let through");
                // The API server keeps its connections; a new one, by what the API server trusts now:
                let bundles = stage.bundles().await;
                let caller = Caller::new(&address, &bundles[0]).expect("CAs");
                let answer = caller.post("/mutate", &question("7")).await.expect("an answer");
                assert_eq!(answer.0, 200);
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let (first, authorities) = (stage.secret("tls.crt").await, stage.secret("ca.crt").await);
    let changed = async |key: &str, from: &str| {
        eventually(&format!("{key} changes"), || async {
            let now = stage.secret(key).await;
            if now == from { Err(service.log()) } else { Ok(now) }
        })
        .await
    };
    let second = changed("tls.crt", &first).await;
    assert_eq!(stage.secret("ca.crt").await, authorities);
    // By hand, as the CA is good for ten times as long.
    stage.patch_secret(json!({"data": {"ca.key": null}})).await;
    let both = changed("ca.crt", &authorities).await;
    assert!(both.ends_with(&authorities) && both.len() > authorities.len(), "{both}");
    changed("tls.crt", &second).await;
    // New connections see the certificate of the new CA.
    let newest = both.strip_suffix(&authorities).expect("the newest CA").to_owned();
    eventually("the new CA has issued what is shown", || async {
        Caller::new(&caller.address, &newest)?.shown().await
    })
    .await;
    let before = calls.load(Ordering::Relaxed);
    eventually("calls go on", || async {
        let now = calls.load(Ordering::Relaxed);
        if now > before + 20 { Ok(()) } else { Err(now) }
    })
    .await;
    stopping.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    }
    let metrics = service.http_get("/metrics").await.1;
    let counted = |line: &str| metrics.lines().find_map(|found| found.strip_prefix(line)?.trim().parse::<f64>().ok());
    for hook in ["validate", "mutate"] {
        let line = format!("ovn_kubevirt_webhook_duration_seconds_count{{hook=\"{hook}\",outcome=\"allowed\"}}");
        assert!(counted(&line).is_some_and(|count| count >= 20.0), "{metrics}");
    }
    assert!(counted("ovn_kubevirt_webhook_certificate_expiry_seconds").is_some_and(|at| at > 1e9), "{metrics}");
}

#[tokio::test]
async fn removed_and_overwritten_objects_are_restored() {
    let mut stage = Hooked::new("restored").await;
    let service = stage.setup(LONG).start().await;
    stage.caller(&service).await;
    stage.call(&service).await;
    stage.announced().await;
    // The Secret: as it was, as its CA is the one that is trusted.
    let before = (stage.secret("ca.crt").await, stage.secret("tls.crt").await);
    stage.secrets().delete(SECRET, &DeleteParams::default()).await.expect("it is deleted");
    eventually("the Secret is there again", || async {
        let now = (stage.secret("ca.crt").await, stage.secret("tls.crt").await);
        if now == before { Ok(()) } else { Err(format!("{now:?}\n{}", service.log())) }
    })
    .await;
    // The configurations: written over by an operator who applies the manifest again, then recreated.
    stage.configurations = None;
    stage.call(&service).await;
    stage.announced().await;
    for (kind, index) in [(CONFIGURATIONS[0], 1), (CONFIGURATIONS[1], 0)] {
        let patch = json!([{"op": "remove", "path": format!("/webhooks/{index}/clientConfig/caBundle")}]).to_string();
        let arguments = ["patch", kind, &stage.namespace.name, "--type=json", "--patch", &patch];
        kubectl(Cluster::shared().kubeconfig(), &arguments, "").unwrap_or_else(|error| panic!("{error}"));
    }
    stage.announced().await;
    stage.called().await;
}

#[tokio::test]
async fn processes_that_start_at_the_same_moment_agree_on_one_certificate() {
    let stage = Hooked::new("agreed").await;
    let setups =
        ["n1.example", "n2.example", "n1.example"].map(|host| stage.setup(LONG).flags(["--webhook-host", host]));
    let setups = setups.map(|setup| setup.lease(&format!("{}/ovn-kubevirt-default", stage.namespace.name)));
    let services = setups.map(|setup| setup.spawn());
    let mut shown = Vec::new();
    eventually("all show one certificate, for the hosts of all", || async {
        let mut certificates = Vec::new();
        for service in &services {
            certificates.push(stage.caller(service).await.shown().await?);
        }
        certificates.dedup();
        let text = String::from_utf8_lossy(&certificates[0]).into_owned();
        let all = certificates.len() == 1 && text.contains("n1.example") && text.contains("n2.example");
        if all { Ok(()) } else { Err(format!("{certificates:?}")) }
    })
    .await;
    shown.push(stage.secret("tls.crt").await);
    never("the Secret is written again", Duration::from_secs(5), || async {
        let now = stage.secret("tls.crt").await;
        (now != shown[0]).then_some(now)
    })
    .await;
    for service in &services {
        assert!(!service.log().contains("cannot be kept in its Secret"), "{}", service.log());
    }
}

#[tokio::test]
async fn a_secret_of_another_program_is_left_alone_and_named() {
    let stage = Hooked::new("others").await;
    let foreign = json!({"metadata": {"name": SECRET}, "stringData": {"tls.crt": "nonsense", "password": "x"}});
    let foreign: Secret = serde_json::from_value(foreign).expect("a Secret");
    let made = stage.secrets().create(&PostParams::default(), &foreign).await.expect("a Secret");
    let service = stage.setup(LONG).start().await;
    eventually("the log names the Secret and what to do", || async {
        let log = service.log();
        let words = [&format!("{}/{SECRET}", stage.namespace.name), "managed-by=ovn-kubevirt", "--webhook-secret"];
        if words.iter().all(|word| log.contains(*word)) { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(service.log().matches("lacks the label").count(), 1);
    let kept = stage.secrets().get(SECRET).await.expect("the Secret");
    assert_eq!((kept.data, kept.metadata.resource_version), (made.data, made.metadata.resource_version));
    // Without a certificate there is no TLS, and all else works.
    let nothing = Caller::new(&service.webhooks().await, "").expect("no CAs");
    let error = nothing.connect().await.err().unwrap_or_default();
    assert!(!error.is_empty() && !error.contains("UnknownIssuer"), "{error}");
    stage.secrets().delete(SECRET, &DeleteParams::default()).await.expect("it is deleted");
    stage.caller(&service).await;
    // A damaged Secret of ours is replaced.
    stage.patch_secret(json!({"stringData": {"tls.crt": "nonsense", "tls.key": "nonsense", "ca.crt": "\u{0}"}})).await;
    eventually("the Secret is mended", || async {
        let now = stage.secret("tls.crt").await;
        if now.contains("BEGIN CERTIFICATE") { Ok(()) } else { Err(service.log()) }
    })
    .await;
    stage.caller(&service).await;
}

/// A certificate that another program has made, and its CA.
pub(super) fn issue(dir: &Path) -> String {
    let authority_key = rcgen::KeyPair::generate().expect("a key");
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).expect("parameters");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(authority, authority_key).expect("a CA");
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    let certificate = certificate.signed_by(&key, &authority).expect("a certificate");
    // Not at once, as programs write them.
    std::fs::write(dir.join("tls.key"), key.serialize_pem()).expect("a file");
    std::fs::write(dir.join("tls.crt"), certificate.pem()).expect("a file");
    authority.pem()
}

#[tokio::test]
async fn a_certificate_in_files_is_read_again_when_it_changes_and_connections_stay() {
    let stage = Hooked::new("files").await;
    let dir = stage.northbound.dir();
    let (certificate, key) = (dir.join("tls.crt"), dir.join("tls.key"));
    let files = [certificate.display().to_string(), key.display().to_string()];
    let service = stage.setup(LONG).flags(["--webhook-cert", &*files[0], "--webhook-key", &*files[1]]).start().await;
    eventually("the log names the file that is missing", || async {
        let log = service.log();
        if log.contains("tls.crt cannot be read") { Ok(()) } else { Err(log) }
    })
    .await;
    let address = service.webhooks().await;
    let shows = async |authority: &str| {
        eventually("the certificate is shown", || async { Caller::new(&address, authority)?.connect().await }).await
    };
    let mut standing = shows(&issue(dir)).await;
    std::fs::write(&certificate, "nonsense").expect("a file");
    eventually("the log says that it cannot be used", || async {
        let log = service.log();
        if log.contains("it holds no usable certificate") { Ok(()) } else { Err(log) }
    })
    .await;
    shows(&issue(dir)).await;
    // The first connection has seen three states of the files.
    let body = question("7");
    let request = format!("POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    standing.write_all(request.as_bytes()).await.expect("it is there");
    let mut answer = [0; 15];
    standing.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    // Another program does all the rest.
    assert!(stage.secrets().get_opt(SECRET).await.expect("an answer").is_none());
}
