//! `ssl:` remotes, with ovs-pki's certificates and others like them: a CA, and no DNS name.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::process::{Daemon, mortal};
use crate::support::stage::SUBNET;
use crate::support::{Northbound, Service, Stage, VmOptions, eventually};

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

    /// A certificate for a name that is no host's.
    fn issue(&self, name: &str) {
        self.issue_with(name, "basicConstraints=CA:FALSE");
    }

    /// A certificate with these extensions.
    fn issue_with(&self, name: &str, extensions: &str) {
        self.request(name);
        std::fs::write(self.dir.join("v3.ext"), format!("{extensions}\n")).expect("a file");
        let sign = ["x509", "-req", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1"];
        self.sign(name, &[&sign[..], &["-extfile", "v3.ext"]].concat());
    }

    /// A certificate whose time is over: `x509 -days` takes none below 0 from OpenSSL 3.4 on.
    fn issue_expired(&self, name: &str) {
        self.request(name);
        let conf = "[ca]\ndefault_ca=a\n[a]\ndatabase=issued\nserial=next\nnew_certs_dir=.\ndefault_md=sha256\n\
                    policy=p\nx509_extensions=x\n[p]\ncountryName=optional\ncommonName=supplied\n\
                    [x]\nbasicConstraints=CA:FALSE\n";
        std::fs::write(self.dir.join("ca.cnf"), conf).expect("a file");
        std::fs::write(self.dir.join("issued"), "").expect("a file");
        let sign = ["ca", "-batch", "-notext", "-config", "ca.cnf", "-cert", "ca.crt", "-keyfile", "ca.key"];
        let dates = ["-rand_serial", "-startdate", "20200101000000Z", "-enddate", "20200102000000Z"];
        self.sign(name, &[&sign[..], &dates].concat());
    }

    /// A certificate of X.509 version 1: `x509 -req` makes one for a request without extensions up to OpenSSL 3.1, and
    /// `req -x509v1` later.
    fn issue_version_1(&self, name: &str) {
        self.request(name);
        std::fs::write(self.dir.join("bare.cnf"), "[req]\ndistinguished_name=n\n[n]\n").expect("a file");
        let sign = ["-CA", "ca.crt", "-CAkey", "ca.key", "-days", "1"];
        let help = Command::new("openssl").args(["req", "-help"]).output().expect("openssl");
        if String::from_utf8_lossy(&help.stderr).contains("-x509v1") {
            self.sign(name, &[&["req", "-x509", "-x509v1", "-config", "bare.cnf"][..], &sign].concat());
        } else {
            self.sign(name, &[&["x509", "-req", "-CAcreateserial"][..], &sign].concat());
        }
    }

    fn request(&self, name: &str) {
        let (key, request) = (format!("{name}.key"), format!("{name}.csr"));
        let subject = format!("/C=US/CN={name} id:1234");
        self.openssl(&["req", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-keyout", &key, "-out", &request]);
    }

    fn sign(&self, name: &str, how: &[&str]) {
        let (request, certificate) = (format!("{name}.csr"), format!("{name}.crt"));
        self.openssl(&[how, &["-in", &request, "-out", &certificate]].concat());
    }

    fn path(&self, file: &str) -> String {
        self.dir.join(file).display().to_string()
    }
}

/// Opens an `ssl:` remote on a database of its own, with a certificate of the PKI.
async fn serve(dir: &Path, pki: &Pki, name: &str) -> (Daemon, String) {
    let database = dir.join(format!("{name}.db"));
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/ovsdb-schemas/ovn-nb.ovsschema");
    let created = Command::new("ovsdb-tool").arg("create").arg(&database).arg(schema).status();
    assert!(created.expect("ovsdb-tool").success());
    serve_again(dir, pki, name, "ssl:127.0.0.1:0").await
}

/// Serves a database that is there, at this remote.
async fn serve_again(dir: &Path, pki: &Pki, name: &str, remote: &str) -> (Daemon, String) {
    let (database, log) = (dir.join(format!("{name}.db")), dir.join(format!("{name}.log")));
    let port = remote.rsplit(':').next().unwrap_or_default();
    let mut server = mortal("ovsdb-server");
    server.arg(&database).arg(format!("--remote=pssl:{port}:127.0.0.1")).arg("-vconsole:off");
    server.arg(format!("--remote=punix:{}", dir.join(format!("{name}.sock")).display()));
    server.arg(format!("--log-file={}", log.display()));
    server.arg(format!("--unixctl={}", dir.join(format!("{name}.ctl")).display()));
    server.arg(format!("--private-key={}", pki.path(&format!("{name}.key"))));
    server.arg(format!("--certificate={}", pki.path(&format!("{name}.crt"))));
    server.arg(format!("--ca-cert={}", pki.path("ca.crt")));
    let daemon = Daemon::start("ovsdb-server", server);
    // The socket of the server before is there all the while, without a listener.
    eventually("ovsdb-server listens on its socket", || async {
        let socket = std::os::unix::net::UnixStream::connect(dir.join(format!("{name}.sock")));
        socket.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    if port != "0" {
        return (daemon, remote.to_owned());
    }
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

/// The output of `ports` for a remote, with the certificates of a PKI.
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
    ours.issue("server");
    ours.issue("client");
    ours.issue_expired("late");
    theirs.issue("client");
    let (_server, remote) = serve(dir, &ours, "server").await;
    assert!(ports(&remote, &flags(&ours, "client")).contains("No VM ports"));
    // The wrong CA, an expired server, no files, a file that is none: each in plain words.
    let wrong = ports(&remote, &flags(&theirs, "client"));
    assert!(wrong.contains("was not issued by the CA in --ca-cert"), "{wrong}");
    let (_late, late) = serve(dir, &ours, "late").await;
    let expired = ports(&late, &flags(&ours, "client"));
    assert!(expired.contains("the server's certificate has expired"), "{expired}");
    let none = ports(&remote, &[]);
    assert!(none.contains("--ca-cert, --certificate and --private-key"), "{none}");
    let mut missing = flags(&ours, "client");
    missing[5] = "/nowhere/key".to_owned();
    let missing = ports(&remote, &missing);
    assert!(missing.contains("/nowhere/key holds no usable private key"), "{missing}");
}

#[tokio::test]
async fn host_names_are_verified_where_the_operator_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let pki = Pki::new(&dir.join("pki"));
    pki.issue("client");
    pki.issue("nameless");
    pki.issue_with("named", "subjectAltName=DNS:localhost");
    pki.issue_with("numbered", "subjectAltName=IP:127.0.0.1");
    let mut flags = flags(&pki, "client").to_vec();
    flags.push("--nb-verify-hostname".to_owned());
    let (_named, named) = serve(dir, &pki, "named").await;
    let by_name = named.replace("127.0.0.1", "localhost");
    assert!(ports(&by_name, &flags).contains("No VM ports"), "{}", ports(&by_name, &flags));
    let by_address = ports(&named, &flags);
    assert!(by_address.contains("certificate is for ") && by_address.contains("localhost"), "{by_address}");
    assert!(by_address.contains("not for 127.0.0.1") && by_address.contains("--nb-verify-hostname"), "{by_address}");
    let (_numbered, numbered) = serve(dir, &pki, "numbered").await;
    assert!(ports(&numbered, &flags).contains("No VM ports"), "{}", ports(&numbered, &flags));
    let (_nameless, nameless) = serve(dir, &pki, "nameless").await;
    assert!(ports(&nameless, &flags).contains("is for no name at all, not for 127.0.0.1"));
    assert!(ports(&nameless, &flags[..6]).contains("No VM ports"));
}

#[tokio::test]
async fn each_certificate_that_will_not_do_is_named_in_plain_words() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let (pki, other) = (Pki::new(&dir.join("pki")), Pki::new(&dir.join("other")));
    for name in ["server", "client", "spare"] {
        pki.issue(name);
    }
    pki.issue_expired("late");
    pki.issue_version_1("first");
    other.issue("client");
    let (_first, first) = serve(dir, &pki, "first").await;
    let version_1 = ports(&first, &flags(&pki, "client"));
    assert!(version_1.contains("of X.509 version 1, which is refused: make it anew as version 3"), "{version_1}");
    let (_server, remote) = serve(dir, &pki, "server").await;
    let expired = ports(&remote, &flags(&pki, "late"));
    assert!(expired.contains("the server refused our certificate") && expired.contains("it has expired"), "{expired}");
    // Our CA is right about the server, and the server's does not know us.
    let mut mixed = flags(&other, "client");
    mixed[1] = pki.path("ca.crt");
    let stranger = ports(&remote, &mixed);
    assert!(
        stranger.contains("the server refused our certificate") && stranger.contains("not issued by a CA"),
        "{stranger}"
    );
    let mut pair = flags(&pki, "client");
    pair[5] = pki.path("spare.key");
    let pair = ports(&remote, &pair);
    assert!(pair.contains("client.crt cannot be used with the key") && pair.contains("spare.key"), "{pair}");
    std::fs::write(dir.join("empty"), "").expect("a file");
    let mut empty = flags(&pki, "client");
    empty[1] = dir.join("empty").display().to_string();
    let empty = ports(&remote, &empty);
    assert!(empty.contains("empty holds no usable CA certificate"), "{empty}");
    let northbound = Northbound::start().await;
    let plain = northbound.tcp_remote().await.replace("tcp:", "ssl:");
    let plain = ports(&plain, &flags(&pki, "client"));
    assert!(plain.contains("no database answers") && plain.len() < 400, "{plain}");
}

#[tokio::test]
async fn certificates_are_rotated_under_a_live_connection() {
    let prepared = Stage::build("rotated").prepare().await;
    let dir = prepared.dir().to_owned();
    let (old, new) = (Pki::new(&dir.join("old")), Pki::new(&dir.join("new")));
    // As Kubernetes mounts a Secret: a link to the folder of the day.
    let today = Pki { dir: dir.join("today") };
    let rotate = |pki: &Pki| {
        let link = dir.join("link");
        std::os::unix::fs::symlink(&pki.dir, &link).expect("a link");
        std::fs::rename(&link, &today.dir).expect("the link is put in place");
    };
    for pki in [&old, &new] {
        pki.issue("server");
        pki.issue("client");
    }
    rotate(&old);
    let (server, remote) = serve(&dir, &today, "server").await;
    let unix = format!("unix:{}", dir.join("server.sock").display());
    let nbctl = |arguments: &[&str]| {
        let output = Command::new("ovn-nbctl").arg(format!("--db={unix}")).args(arguments).output().expect("ovn-nbctl");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    nbctl(&["init"]);
    nbctl(&["ls-add", "ovn-default"]);
    nbctl(&["set", "Logical_Switch", "ovn-default", "other_config:subnet=10.16.0.0/16"]);
    let stage = prepared.with(|setup| setup.nb(&remote).flags(flags(&today, "client"))).start().await;
    let made = async |vm: &str| {
        stage.player.create_vm(vm, VmOptions::default()).await;
        let name = stage.name(vm);
        eventually(&format!("the port {name} is there"), || async {
            let shown = nbctl(&["show"]);
            if shown.contains(&name) { Ok(()) } else { Err(format!("{shown}\n{}", stage.service.log())) }
        })
        .await;
    };
    let synced = || stage.service.log().matches("northbound database in sync").count();
    made("before").await;
    rotate(&new);
    // Nothing on the wire asks for the end of the connection.
    made("between").await;
    assert_eq!(synced(), 1, "{}", stage.service.log());
    // The server comes back with the new ones, on the same port.
    drop(server);
    let (_server, _) = serve_again(&dir, &today, "server", &remote).await;
    made("after").await;
    assert_eq!(synced(), 2, "{}", stage.service.log());
}

#[tokio::test]
async fn the_service_does_its_work_over_tls_with_certificates_of_ovs_pki() {
    let prepared = Stage::build("tls").prepare().await;
    let pki = prepared.dir().join("ovs-pki");
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
    let (_server, remote) = serve(prepared.dir(), &pki, "server").await;
    let unix = format!("--db=unix:{}", prepared.dir().join("server.sock").display());
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
    let stage = prepared.with(|setup| setup.nb(&remote).flags(flags(&pki, "client"))).start().await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    let name = stage.name("testvm");
    eventually("the VM has its port", || async {
        let shown = nbctl(&["show"]);
        if shown.contains(&name) && shown.contains("10.16.0.2") { Ok(()) } else { Err(shown) }
    })
    .await;
}
