//! `ssl:` remotes, with ovs-pki's certificates and others like them: a CA, and no DNS name.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::stage::SUBNET;
use crate::support::process::{Daemon, mortal};
use crate::support::{Cluster, Northbound, Player, Service, VmOptions, eventually};

/// A CA and certificates of it, in a folder.
struct Pki {
    dir: PathBuf,
}

impl Pki {
    fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("a folder");
        let pki = Self { dir: dir.to_owned() };
        pki.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/C=US/CN=a CA",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
        ]);
        pki
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(&self.dir).output().expect("openssl");
        assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A certificate for a name that is no host's. Days below 0 make it expired.
    fn issue(&self, name: &str, days: i32) {
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        let subject = format!("/C=US/CN={name} id:1234");
        self.openssl(&["req", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-keyout", &key, "-out", &request]);
        std::fs::write(self.dir.join("v3.ext"), "basicConstraints=CA:FALSE\n").expect("a file");
        let days = days.to_string();
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            &days,
            "-extfile",
            "v3.ext",
            "-out",
            &certificate,
        ]);
    }

    fn path(&self, file: &str) -> String {
        self.dir.join(file).display().to_string()
    }
}

/// Opens an `ssl:` remote on a database of its own, with a certificate of the PKI.
async fn serve(dir: &Path, pki: &Pki, name: &str) -> (Daemon, String) {
    let (database, log) = (dir.join(format!("{name}.db")), dir.join(format!("{name}.log")));
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/ovsdb-schemas/ovn-nb.ovsschema");
    let created = Command::new("ovsdb-tool").arg("create").arg(&database).arg(schema).status();
    assert!(created.expect("ovsdb-tool").success());
    let mut server = mortal("ovsdb-server");
    server.arg(&database).args(["--remote=pssl:0:127.0.0.1", "-vconsole:off"]);
    server.arg(format!("--remote=punix:{}", dir.join(format!("{name}.sock")).display()));
    server.arg(format!("--log-file={}", log.display()));
    server.arg(format!("--unixctl={}", dir.join(format!("{name}.ctl")).display()));
    server.arg(format!("--private-key={}", pki.path(&format!("{name}.key"))));
    server.arg(format!("--certificate={}", pki.path(&format!("{name}.crt"))));
    server.arg(format!("--ca-cert={}", pki.path("ca.crt")));
    let daemon = Daemon::start("ovsdb-server", server);
    let port = eventually("ovsdb-server says which port it got", || async {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let port = text.lines().find_map(|line| line.split_once("listening on port ")).map(|(_, port)| port.to_owned());
        port.ok_or(text)
    })
    .await;
    (daemon, format!("ssl:127.0.0.1:{}", port.trim()))
}

fn flags(pki: &Pki, name: &str) -> [String; 6] {
    [
        "--ca-cert".to_owned(),
        pki.path("ca.crt"),
        "--certificate".to_owned(),
        pki.path(&format!("{name}.crt")),
        "--private-key".to_owned(),
        pki.path(&format!("{name}.key")),
    ]
}

/// What `ports` says of a remote, with the certificates of a PKI.
fn ports(remote: &str, flags: &[String]) -> String {
    let mut arguments = vec!["ports", "--nb", remote];
    arguments.extend(flags.iter().map(String::as_str));
    let output = Service::command_line(&arguments);
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test]
async fn certificates_without_a_dns_name_are_verified_by_their_chain() {
    let northbound = Northbound::start().await;
    let dir = northbound.dir();
    let (ours, theirs) = (Pki::new(&dir.join("pki")), Pki::new(&dir.join("other")));
    ours.issue("server", 1);
    ours.issue("client", 1);
    ours.issue("late", -1);
    theirs.issue("client", 1);
    let (_server, remote) = serve(dir, &ours, "server").await;
    assert!(ports(&remote, &flags(&ours, "client")).contains("No VM ports"));
    // The wrong CA, an expired server, no files, a file that is none: each in plain words.
    let wrong = ports(&remote, &flags(&theirs, "client"));
    assert!(wrong.contains("was not issued by the CA in --ca-cert"), "{wrong}");
    let (_late, late) = serve(dir, &ours, "late").await;
    let expired = ports(&late, &flags(&ours, "client"));
    assert!(expired.contains("the certificate has expired"), "{expired}");
    let none = ports(&remote, &[]);
    assert!(none.contains("--ca-cert, --certificate and --private-key"), "{none}");
    let mut missing = flags(&ours, "client");
    missing[5] = "/nowhere/key".to_owned();
    let missing = ports(&remote, &missing);
    assert!(missing.contains("/nowhere/key holds no usable private key"), "{missing}");
}

#[tokio::test]
async fn the_service_does_its_work_over_tls_with_certificates_of_ovs_pki() {
    let northbound = Northbound::start().await;
    let pki = northbound.dir().join("ovs-pki");
    std::fs::create_dir(&pki).expect("a folder");
    let ovs_pki = |arguments: &[&str]| {
        let mut command = Command::new("ovs-pki");
        command.current_dir(&pki).arg(format!("--dir={}/pki", pki.display()));
        command.arg(format!("--log={}/log", pki.display())).args(arguments);
        let output = command.output().expect("ovs-pki");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    ovs_pki(&["init"]);
    for name in ["server", "client"] {
        ovs_pki(&["-u", "req+sign", name, "switch"]);
        for (made, wanted) in [("privkey.pem", "key"), ("cert.pem", "crt")] {
            std::fs::rename(pki.join(format!("{name}-{made}")), pki.join(format!("{name}.{wanted}"))).expect("a file");
        }
    }
    std::fs::copy(pki.join("pki/switchca/cacert.pem"), pki.join("ca.crt")).expect("the CA's certificate");
    let pki = Pki { dir: pki };
    let (_server, remote) = serve(northbound.dir(), &pki, "server").await;
    let unix = format!("--db=unix:{}", northbound.dir().join("server.sock").display());
    let nbctl = |arguments: &[&str]| {
        let output = Command::new("ovn-nbctl").arg(&unix).args(arguments).output().expect("ovn-nbctl");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    nbctl(&["init"]);
    nbctl(&["ls-add", "ovn-default"]);
    for (key, value) in SUBNET {
        nbctl(&["set", "Logical_Switch", "ovn-default", &format!("other_config:{key}={value}")]);
    }
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("tls").await;
    let flags = flags(&pki, "client");
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let _service = Service::setup(&northbound, cluster, &namespace).nb(&remote).args(&flags).start().await;
    Player::within(&namespace).create_vm("testvm", VmOptions::default()).await;
    let name = format!("testvm.{}", namespace.name);
    eventually("the VM has its port", || async {
        let shown = nbctl(&["show"]);
        if shown.contains(&name) && shown.contains("10.16.0.2") { Ok(()) } else { Err(shown) }
    })
    .await;
}
