//! The time that the webhooks add to a request of the API server: the round trip of a review beside that of the same body to a path
//! that is not served, on one TLS connection, the two taking turns; and VMs that come at a fixed rate.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::machine::Busy;
use common::support::objects::{self, launcher_pod};
use common::support::{Nic, Service, Stage, VmOptions, cluster};
use common::{is_test, milliseconds, setting};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Pods of each kind.
const PODS: usize = 10_000;
const WARM_UP: usize = 500;
/// VMs a second, and for how many seconds they come.
const RATE: usize = 1_000;
const SECONDS: usize = 10;
/// Connections that the API server is taken to have.
const CONNECTIONS: usize = 16;
const LISTENER: &str = "127.0.0.1:0";

#[tokio::main]
async fn main() {
    if is_test() {
        return;
    }
    let pods = setting("BENCH_RUNS", &[PODS])[0];
    let prepared = Stage::build("bench-admission").nad("net1", "blue").switch("blue", "10.17.0.0/16");
    let prepared = prepared.nad("plain", None).prepare().await;
    let authority = certificate(prepared.dir());
    let [cert, key] = ["tls.crt", "tls.key"].map(|file| prepared.dir().join(file).display().to_string());
    let flags = ["--webhooks", LISTENER, "--webhook-cert", &cert, "--webhook-key", &key];
    let stage = prepared.with(|setup| setup.flags(flags)).start().await;

    let pod = async |vm: &str, nics: [Nic; 2]| -> Value {
        stage.player.create_vm(vm, VmOptions::default().nics(nics)).await;
        stage.player.create_vmi(vm).await;
        let vmi = stage.player.vmi(vm).await.expect("the VMI");
        launcher_pod(&vmi)
    };
    let ours = pod("ours", [Nic::pod("default"), Nic::nad("second", "net1")]).await;
    stage.port("ours").await;
    let foreign = pod("foreign", [Nic::nad("first", "plain"), Nic::nad("second", "plain")]).await;
    let namespace = &stage.namespace.name;
    let [ours, foreign] = [&ours, &foreign].map(|pod| question("", "pods", "Pod", namespace, pod));

    let busy = Busy::begin();
    let mut connection = connect(&stage.service, &authority).await;
    let mut times: [Vec<Duration>; 4] = Default::default();
    for round in 0..WARM_UP + pods {
        let bodies = [("/nothing", &foreign), ("/mutate", &foreign), ("/nothing", &ours), ("/mutate", &ours)];
        for (times, (path, body)) in times.iter_mut().zip(bodies) {
            let begun = Instant::now();
            let (status, _) = post(&mut connection, path, body.clone()).await;
            let took = begun.elapsed();
            assert_eq!(status, if path == "/nothing" { 404 } else { 200 });
            if round >= WARM_UP {
                times.push(took);
            }
        }
    }
    let [bare, of_others, bare_of_ours, of_ours] = times.map(Quantiles::of);
    println!("one launcher pod after the other, {pods} of each kind, on one TLS connection");
    println!("{:<52}{:>10}{:>10}", "", "p50 ms", "p99 ms");
    let line = |what: &str, times: &Quantiles| println!("{what:<52}{:>10.3}{:>10.3}", times.p50, times.p99);
    let more = |what: &str, times: &Quantiles, bare: &Quantiles| {
        println!("{what:<52}{:>10.3}{:>10.3}", times.p50 - bare.p50, times.p99 - bare.p99);
    };
    line("bare round trip, the pod that is not ours", &bare);
    line("mutating webhook, the pod that is not ours", &of_others);
    more("  more than the bare one (goal: 1 ms at p99)", &of_others, &bare);
    line("bare round trip, the pod of ours", &bare_of_ours);
    line("mutating webhook, the pod of ours, two ports stand", &of_ours);
    more("  more than the bare one (goal: 2 ms at p99)", &of_ours, &bare_of_ours);

    let (first, last, waiting) = storm(&stage, &authority).await;
    println!("validating webhook, {RATE} VMs a second for {SECONDS} s, each a new one that asks for an address");
    line("the first second", &first);
    line("the last second", &last);
    println!("{:<52}{waiting:>10}", "most that waited for their answer at a time");
    println!("machine: {}", busy.end());
}

/// VMs at a fixed rate: the times of the first second, of the last one, and the most that waited at a time.
async fn storm(stage: &Stage, authority: &str) -> (Quantiles, Quantiles, usize) {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Arc::new(tokio::sync::Mutex::new(connect(&stage.service, authority).await)));
    }
    let (mut tasks, mut waiting) = (JoinSet::new(), 0);
    let mut times: Vec<(usize, Duration)> = Vec::new();
    let begun = tokio::time::Instant::now();
    for index in 0..RATE * SECONDS {
        let due =
            begun + Duration::from_secs(1) * u32::try_from(index).expect("few") / u32::try_from(RATE).expect("few");
        tokio::time::sleep_until(due).await;
        let address = format!("10.16.{}.{}", index / 250 + 1, index % 250 + 2);
        let options = VmOptions::default().annotation("ovn.kubernetes.io/ip_address", &address);
        let vm = objects::vm(&format!("vm-{index}"), &options);
        let body = question("kubevirt.io", "virtualmachines", "VirtualMachine", &stage.namespace.name, &vm);
        let connection = Arc::clone(&connections[index % CONNECTIONS]);
        tasks.spawn(async move {
            // The time runs from when the VM was due: a wait for a connection, or for the bench itself, counts.
            let (status, answer) = post(&mut *connection.lock().await, "/validate", body).await;
            assert_eq!((status, answer["response"]["allowed"].as_bool()), (200, Some(true)), "{answer}");
            (index, due.elapsed())
        });
        while let Some(ended) = tasks.try_join_next() {
            times.push(ended.expect("an answer"));
        }
        waiting = waiting.max(tasks.len());
    }
    while let Some(ended) = tasks.join_next().await {
        times.push(ended.expect("an answer"));
    }
    let of = |second: usize| {
        let within = |(index, _): &&(usize, Duration)| index / RATE == second;
        Quantiles::of(times.iter().filter(within).map(|(_, time)| *time).collect())
    };
    (of(0), of(SECONDS - 1), waiting)
}

/// Milliseconds.
struct Quantiles {
    p50: f64,
    p99: f64,
}

impl Quantiles {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |part: f64| milliseconds(times[((times.len() - 1) as f64 * part) as usize]);
        Self { p50: at(0.5), p99: at(0.99) }
    }
}

/// The request of the API server.
fn question(group: &str, resource: &str, kind: &str, namespace: &str, object: &Value) -> Bytes {
    let version = json!({"group": group, "version": "v1", "kind": kind});
    let resource = json!({"group": group, "version": "v1", "resource": resource});
    let question = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "kind": version, "resource": resource,
            "name": object["metadata"]["name"].as_str().unwrap_or_default(), "namespace": namespace,
            "operation": "CREATE", "userInfo": {"username": cluster::VIRT_CONTROLLER, "groups": ["system:authenticated"]},
            "object": object, "oldObject": null, "dryRun": false, "options": {"kind": "CreateOptions"},
        },
    });
    serde_json::to_vec(&question).expect("JSON").into()
}

/// Writes a certificate for the listener and its key; gives back the certificate.
fn certificate(dir: &std::path::Path) -> String {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    std::fs::write(dir.join("tls.key"), made.signing_key.serialize_pem()).expect("a file");
    std::fs::write(dir.join("tls.crt"), made.cert.pem()).expect("a file");
    made.cert.pem()
}

async fn connect(service: &Service, authority: &str) -> SendRequest<Full<Bytes>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.expect("PEM")).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(service.webhooks().await).await.expect("the listener");
    stream.set_nodelay(true).expect("a TCP socket");
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    sender
}

async fn post(connection: &mut SendRequest<Full<Bytes>>, path: &str, body: Bytes) -> (u16, Value) {
    let request = hyper::Request::post(path).header("host", "127.0.0.1").header("content-type", "application/json");
    connection.ready().await.expect("the connection stands");
    let response = connection.send_request(request.body(Full::new(body)).expect("a request")).await.expect("an answer");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}
