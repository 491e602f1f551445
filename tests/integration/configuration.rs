//! Flags, variables and a file together; and the files that a package has: completions, manual pages, the plugin of kubectl.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::service::binary;
use crate::support::{Cluster, Stage, VmOptions, deploy};

/// Runs the binary with variables, away from those of the test's own environment.
fn ran(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    let ours = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OVN_KUBEVIRT_"));
    for (name, _) in ours {
        command.env_remove(name);
    }
    texts(command.args(arguments).envs(variables.iter().copied()).output().expect("the program runs"))
}

fn texts(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn file(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("ovn-kubevirt.yaml");
    std::fs::write(&path, text).expect("the file is written");
    path
}

#[tokio::test]
async fn a_service_takes_options_from_a_file_and_logs_each_difference_from_the_defaults_with_its_source() {
    let prepared = Stage::build("configured").prepare().await;
    let path =
        file(prepared.dir(), "mac-prefix: 02:fe\naddress-rest: 5m\nallow: [explicit, first]\nlease-duration: 15\n");
    let path = path.display().to_string();
    let variables = |setup: crate::support::service::Setup| {
        setup.env("OVN_KUBEVIRT_CONFIG", &path).env("OVN_KUBEVIRT_ADDRESS_REST", "6m").env("RUST_LOG", "info")
    };
    let stage = prepared.with(variables).start().await;
    stage.player.create_vm("vm", VmOptions::default()).await;
    assert_eq!(stage.port("vm").await.addresses.iter().next().map(String::as_str), Some("02:fe:0a:10:00:02 10.16.0.2"));
    let log = stage.service.log();
    let line = log.lines().find(|line| line.contains(" configuration ")).unwrap_or_else(|| panic!("{log}"));
    for words in [
        format!("file=\"{path}\""),
        "variables=\"address-rest=6m\"".to_owned(),
        "keys=\"mac-prefix=02:fe allow=explicit,first\"".to_owned(),
        format!("flags=\"nb={} ", stage.northbound.remote()),
        " no-lease=true".to_owned(),
    ] {
        assert!(line.contains(&words), "{words} in {line}");
    }
    // A default is not logged, although the file has it.
    assert!(!line.contains("lease-duration"), "{line}");
}

#[test]
fn config_check_refuses_the_same_input_as_run_with_the_same_words_and_exit_code() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = file(dir.path(), "htpt: 127.0.0.1:0\nlease: nowhere\n").display().to_string();
    let variables = [("OVN_KUBEVIRT_NB", "nonsense"), ("OVN_KUBEVIRT_CONFIG", path.as_str())];
    let checked = ran(&["config", "check"], &variables);
    let expected = [
        format!("error: {path}:1: the key htpt is unknown: did you mean http?"),
        format!("error: {path}:2: lease: \"nowhere\": write <namespace>/<name>, as in ovn/ovn-kubevirt-default"),
        "error: OVN_KUBEVIRT_NB: \"nonsense\" is no OVSDB remote".to_owned(),
    ];
    let (code, out, errors) = checked.clone();
    assert_eq!((code, out.as_str(), errors.lines().count()), (Some(2), "", 3), "{errors}");
    for (line, expected) in errors.lines().zip(&expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
    assert_eq!(ran(&["run"], &variables), checked);
    let open = ["--api", "0.0.0.0:1"];
    let (code, out, errors) = ran(&[&["config", "check"], &open[..]].concat(), &[]);
    assert!(code == Some(2) && errors.contains("--api-token is missing"), "{code:?} {errors}");
    assert_eq!(ran(&[&["run"], &open[..]].concat(), &[]), (code, out, errors));
    // Values that do not go together: clap's words, and the place of each that is no flag.
    let path = file(dir.path(), "certificate: cert.pem\n").display().to_string();
    let (code, _, errors) = ran(&["config", "check", "--config", &path], &[]);
    assert!(code == Some(2) && errors.contains("--ca-cert <FILE>"), "{errors}");
    assert!(errors.ends_with(&format!("note: {path}:1: sets --certificate\n")), "{errors}");
    let path = file(dir.path(), "node: n1\n").display().to_string();
    assert_eq!(ran(&["config", "check", "node", "--config", &path], &[]), (Some(0), "ok\n".to_owned(), String::new()));
}

#[test]
fn config_show_prints_a_file_that_config_show_reads_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = file(dir.path(), "default-switch: a b\nsb: [tcp:a:1, tcp:b:1]\n").display().to_string();
    let (code, shown, errors) =
        ran(&["config", "show", "--config", &path, "--no-lease"], &[("OVN_KUBEVIRT_MAX_NICS", "7")]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let values = |shown: &str| -> BTreeMap<String, (String, String)> {
        let lines = shown.lines().filter_map(|line| line.split_once("  # "));
        let pairs = lines.map(|(setting, source)| (setting.split_once(':').expect("a key"), source));
        pairs.map(|((key, value), source)| (key.to_owned(), (value.trim().to_owned(), source.to_owned()))).collect()
    };
    let first = values(&shown);
    for (key, value, source) in [
        ("default-switch", "\"a b\"", format!("{path}:1")),
        ("sb", "tcp:a:1,tcp:b:1", format!("{path}:2")),
        ("no-lease", "true", "flag".to_owned()),
        ("max-nics", "7", "OVN_KUBEVIRT_MAX_NICS".to_owned()),
        ("mac-prefix", "0a:58", "default".to_owned()),
    ] {
        assert_eq!(first.get(key), Some(&(value.to_owned(), source)), "{shown}");
    }
    let again = file(dir.path(), &shown).display().to_string();
    let (_, shown, _) = ran(&["config", "show", "--config", &again], &[]);
    let plain = |values: BTreeMap<String, (String, String)>| -> Vec<_> {
        values.into_iter().map(|(key, (value, _))| (key, value)).collect()
    };
    assert_eq!(plain(values(&shown)), plain(first));
}

#[test]
fn a_package_has_the_plugin_of_kubectl_manual_pages_and_completions() {
    let dir = tempfile::tempdir().expect("a folder");
    let installed = Command::new("make")
        .args(["--silent", "--no-print-directory", "install", "PREFIX=/usr"])
        .arg(format!("DESTDIR={}", dir.path().display()))
        .arg(format!("BINARY={}", Path::new(&binary()).display()))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("make runs");
    assert!(installed.status.success(), "{installed:?}");
    let usr = dir.path().join("usr");
    let text = |path: &str| std::fs::read_to_string(usr.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let page = text("share/man/man1/ovn-kubevirt-run.1");
    assert!(page.contains(".TH OVN-KUBEVIRT-RUN 1") && page.contains("OVN_KUBEVIRT_MAX_NICS"), "{page}");
    for command in ["", "-node", "-ports", "-status", "-config", "-config-check", "-completions", "-man", "-version"] {
        let page = text(&format!("share/man/man1/ovn-kubevirt{command}.1"));
        assert!(page.contains("Exit codes"), "{command}: {page}");
    }
    assert!(text("share/zsh/site-functions/_ovn-kubevirt").starts_with("#compdef ovn-kubevirt"));
    assert!(text("share/fish/vendor_completions.d/ovn-kubevirt.fish").contains("default-switch"));
    // Completed as bash does it.
    let script = "source \"$1\"; function=$(complete -p ovn-kubevirt | sed 's/.* -F \\([^ ]*\\).*/\\1/'); \
                  COMP_WORDS=(ovn-kubevirt run --default-s); COMP_CWORD=2; \
                  $function ovn-kubevirt --default-s run; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let bash = Command::new("bash")
        .args(["--norc", "-c", script, "bash"])
        .arg(usr.join("share/bash-completion/completions/ovn-kubevirt"))
        .output();
    assert_eq!(texts(bash.expect("bash runs")), (Some(0), "--default-switch\n".to_owned(), String::new()));
    // As kubectl runs it.
    let path = std::env::var("PATH").unwrap_or_default();
    let plugin = Command::new("kubectl")
        .args(["ovn-kubevirt", "ports", "--help"])
        .env("PATH", format!("{}:{path}", usr.join("bin").display()))
        .output();
    let (code, help, errors) = texts(plugin.expect("kubectl runs"));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(help.contains("Usage: kubectl ovn-kubevirt ports [OPTIONS]"), "{help}");
}

/// There is no kubelet here, so the last step ends with kubectl's words about it.
#[tokio::test]
async fn the_plugin_of_kubectl_finds_the_pod_and_the_port_of_the_process_that_writes() {
    let prepared = Stage::build("plugin").lease(2).prepare().await;
    let namespace = prepared.namespace.name.clone();
    let lease = format!("{namespace}/ovn-kubevirt-{namespace}");
    let stage = prepared.with(|setup| setup.lease(&lease)).start().await;
    let plugin = stage.dir().join("kubectl-ovn_kubevirt");
    std::os::unix::fs::symlink(binary(), &plugin).expect("a link");
    let path = format!("{}:{}", stage.dir().display(), std::env::var("PATH").unwrap_or_default());
    let asked = |instance: &str| {
        let mut kubectl = Command::new("kubectl");
        kubectl.args(["ovn-kubevirt", "status", "--instance", instance]).env("PATH", &path);
        texts(kubectl.env("KUBECONFIG", Cluster::shared().kubeconfig()).output().expect("kubectl runs"))
    };
    let (code, _, errors) = asked("nowhere");
    assert!(code == Some(1) && errors.contains("no namespace has a Lease ovn-kubevirt-nowhere"), "{errors}");
    let (code, _, errors) = asked(&namespace);
    assert!(
        code == Some(1) && errors.contains(&format!("no pod in the namespace {namespace} is the holder")),
        "{errors}"
    );
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let variable = serde_json::json!({"name": "OVN_KUBEVIRT_HTTP", "value": "127.0.0.1:9500"});
    let container = serde_json::json!({"name": "ovn-kubevirt", "image": "ovn-kubevirt", "env": [variable]});
    let metadata = serde_json::json!({"name": host.trim(), "namespace": namespace});
    let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}});
    let applied = deploy::kubectl(Cluster::shared().kubeconfig(), &["apply", "-f", "-"], &pod.to_string());
    applied.unwrap_or_else(|error| panic!("{error}"));
    let (code, _, errors) = asked(&namespace);
    let host = host.trim();
    for words in [
        format!("From the pod {namespace}/{host}, port 9500."),
        format!(
            "the port 9500 of the pod {namespace}/{host} cannot be forwarded: unable to forward port because pod is not running"
        ),
    ] {
        assert!(code == Some(1) && errors.contains(&words), "{words} in {errors}");
    }
}
