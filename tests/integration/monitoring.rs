//! `/metrics` of a running service, and `deploy/monitoring`: read by Prometheus's own tool, and compared with each other.

mod numbers;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Stage, VmOptions, deploy, eventually};

/// The value of a series in a scrape, by its name with its labels as they are written.
fn value(text: &str, series: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    rest.parse().ok()
}

async fn scrape(service: &crate::support::Service) -> String {
    service.http_get("/metrics").await.1
}

fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs promtool with this input. Returns its output.
///
/// # Panics
/// If it fails.
fn promtool(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool runs: tests/setup.sh installs Debian's package prometheus");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("promtool ends");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {text}");
    text
}

#[test]
fn promtool_reads_the_alerts_and_they_fire_when_they_should_and_else_not() {
    let checked = promtool(&["check", "rules", file("deploy/monitoring/alerts.yaml").to_str().expect("a path")], "");
    assert!(checked.contains("SUCCESS"), "{checked}");
    promtool(&["test", "rules", file("tests/monitoring/alerts.yaml").to_str().expect("a path")], "");
}

/// `promtool check metrics` reads the older text format, in which a counter's TYPE has the name of its samples, and an info is
/// a gauge.
fn in_the_older_format(text: &str) -> String {
    let kinds: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let suffix = |family: &str| match kinds.get(family) {
        Some(&"counter") => "_total",
        Some(&"info") => "_info",
        _ => "",
    };
    let mut older = String::new();
    for line in text.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let described = ["# HELP ", "# TYPE "].into_iter().find_map(|word| Some((word, line.strip_prefix(word)?)));
        match described {
            Some((word, rest)) => {
                let (family, rest) = rest.split_once(' ').expect("a family");
                let rest = if rest == "info" { "gauge" } else { rest };
                older += &format!("{word}{family}{} {rest}\n", suffix(family));
            }
            None => older += &format!("{line}\n"),
        }
    }
    older
}

/// Has Prometheus's parser of OpenMetrics read a scrape, as it does when it fills a database from a file. That asks for times.
fn assert_openmetrics(text: &str, dir: &std::path::Path) {
    let timed = |line: &str| if line.starts_with('#') { format!("{line}\n") } else { format!("{line} 1700000000\n") };
    let scrape = dir.join("scrape.om");
    std::fs::write(&scrape, text.lines().map(timed).collect::<String>()).expect("a file");
    let blocks = dir.join("blocks");
    let paths = [&scrape, &blocks].map(|path| path.to_str().expect("a path"));
    promtool(&["tsdb", "create-blocks-from", "openmetrics", paths[0], paths[1]], "");
}

/// The metrics in the table of `docs/metrics.md`: name and type.
fn documented() -> Vec<(String, String)> {
    let page = std::fs::read_to_string(file("docs/metrics.md")).expect("docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    rows.map(|(name, rest)| (name.to_owned(), rest.split(' ').next().unwrap_or_default().to_owned())).collect()
}

/// The metric is in the scrape, with its type and with a sample. The queries of the alerts and of the dashboard are compared
/// with the table by a unit test (`documented::metrics`).
fn assert_exported(text: &str, name: &str, kind: &str) {
    let family = match kind {
        "counter" => name.strip_suffix("_total").expect(name),
        "info" => name.strip_suffix("_info").expect(name),
        _ => name,
    };
    assert!(text.lines().any(|line| line == format!("# TYPE {family} {kind}")), "{name} is no {kind}:\n{text}");
    let sample = if kind == "histogram" { format!("{name}_count") } else { name.to_owned() };
    let is_sample = |line: &str| line.strip_prefix(&sample).is_some_and(|rest| rest.starts_with([' ', '{']));
    assert!(text.lines().any(is_sample), "{name} has no sample:\n{text}");
}

#[tokio::test]
async fn prometheus_reads_the_metrics_of_the_service_and_each_documented_metric_exists() {
    let stage = Stage::build("scraped").northd().reads_southbound().chassis("hv1", "n1").start().await;
    stage.make("testvm").await;
    // An address that is none: the owner has a problem.
    let outside = VmOptions::default().annotation("ovn.kubernetes.io/logical_switch", "no-such-switch");
    stage.player.create_vm("nowhere", outside).await;
    let text = eventually("the problem is counted", || async {
        let text = scrape(&stage.service).await;
        if value(&text, "ovn_kubevirt_problems{reason=\"SwitchNotFound\"}") == Some(1.0) { Ok(text) } else { Err(text) }
    })
    .await;
    assert!(text.ends_with("# EOF\n"), "{text}");
    promtool(&["check", "metrics"], &in_the_older_format(&text));
    let dir = tempfile::tempdir().expect("a folder");
    assert_openmetrics(&text, dir.path());
    let documented = documented();
    assert!(documented.len() > 30, "{documented:?}");
    for (name, kind) in documented.iter().filter(|(name, _)| !name.starts_with("ovn_kubevirt_node_")) {
        assert_exported(&text, name, kind);
    }
}

#[tokio::test]
async fn prometheus_reads_the_metrics_of_the_service_of_a_node() {
    let stage = crate::node::NodeStage::new("scraped-node").await;
    let launcher = stage.plain_launcher("testvm").await;
    stage.bind(&launcher).await;
    stage.event(&launcher, "InterfaceMissing", &[]).await;
    let text = scrape(&stage.service).await;
    promtool(&["check", "metrics"], &in_the_older_format(&text));
    assert_openmetrics(&text, tempfile::tempdir().expect("a folder").path());
    let of_node = |name: &str| name.starts_with("ovn_kubevirt_node_") || name.starts_with("process_");
    for (name, kind) in documented().iter().filter(|(name, _)| of_node(name)) {
        assert_exported(&text, name, kind);
    }
}

/// The objects of `deploy/monitoring`, or of an overlay of `deploy/kubernetes`, by their kind. No API server knows the kinds
/// of the Prometheus operator here: kubectl alone reads them.
fn objects(folder: &str) -> Vec<Value> {
    let rendered = deploy::render(folder).unwrap_or_else(|error| panic!("{error}"));
    let read = |(_, document): (String, String)| {
        let mut command = Command::new("kubectl");
        command.args(["label", "--local", "--dry-run=client", "--output=json", "--filename=-", "read=yes"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("kubectl runs");
        child.stdin.take().expect("a pipe").write_all(document.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("kubectl ends");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {document}"))
    };
    deploy::documents(&rendered).into_iter().map(read).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

/// Each label of the selector is on the object.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector["matchLabels"].as_object().expect("labels");
    !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value)
}

#[test]
fn the_monitors_find_the_service_and_the_pods_of_every_overlay_and_the_port_of_metrics() {
    let monitoring = objects("../monitoring");
    let monitor = &of_kind(&monitoring, "ServiceMonitor")["spec"];
    let endpoint = &monitor["endpoints"][0];
    assert_eq!((&endpoint["path"], &monitor["namespaceSelector"]["any"]), (&"/metrics".into(), &true.into()));
    for overlay in ["standalone", "sidecar/deployment", "sidecar/statefulset"] {
        let objects = objects(overlay);
        let services = objects.iter().filter(|object| object["kind"] == "Service");
        let found: Vec<&Value> =
            services.filter(|it| selects(&monitor["selector"], &it["metadata"]["labels"])).collect();
        assert_eq!(found.len(), 1, "{overlay}");
        let ports = found[0]["spec"]["ports"].as_array().expect("ports");
        let port = ports.iter().find(|port| port["name"] == endpoint["port"]).expect("the port of the monitor");
        let workload = objects.iter().find(|object| object["spec"]["template"].is_object()).expect("a workload");
        let containers = workload["spec"]["template"]["spec"]["containers"].as_array().expect("containers");
        let ours = containers.iter().find(|it| it["name"] == "ovn-kubevirt").expect("our container");
        let named = ours["ports"].as_array().expect("ports").iter().find(|it| it["name"] == port["targetPort"]);
        let http = ours["env"].as_array().expect("variables").iter().find(|it| it["name"] == "OVN_KUBEVIRT_HTTP");
        let listens = http.expect("the address")["value"].as_str().expect("a value").to_owned();
        let number = named.expect("a port of ours")["containerPort"].as_u64().expect("a number");
        assert!(listens.ends_with(&format!(":{number}")), "{overlay}: {listens}");
    }
    let monitor = &of_kind(&monitoring, "PodMonitor")["spec"];
    let node = objects(deploy::NODE);
    let template = &of_kind(&node, "DaemonSet")["spec"]["template"];
    assert!(selects(&monitor["selector"], &template["metadata"]["labels"]));
    let ports = template["spec"]["containers"][0]["ports"].as_array().expect("ports");
    assert!(ports.iter().any(|port| port["name"] == monitor["podMetricsEndpoints"][0]["port"]));
}

#[test]
fn the_operators_rule_and_the_dashboard_come_with_the_folder() {
    let monitoring = objects("../monitoring");
    let groups = of_kind(&monitoring, "PrometheusRule")["spec"]["groups"].as_array().expect("groups").clone();
    let plain = std::fs::read_to_string(file("deploy/monitoring/alerts.yaml")).expect("the alerts");
    let rules: usize = groups.iter().map(|group| group["rules"].as_array().map_or(0, Vec::len)).sum();
    assert_eq!(rules, plain.matches("- alert: ").count());
    let map = of_kind(&monitoring, "ConfigMap");
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let dashboard = map["data"]["ovn-kubevirt.json"].as_str().expect("the dashboard");
    assert_eq!(dashboard, std::fs::read_to_string(file("deploy/monitoring/dashboard.json")).expect("the dashboard"));
    let dashboard: Value = serde_json::from_str(dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    // No two panels share a place or a number, and none is wider than the page.
    let place = |panel: &Value| {
        let at = |key: &str| panel["gridPos"][key].as_i64().expect("a place");
        assert!(at("x") + at("w") <= 24, "{panel}");
        (at("y"), at("x"))
    };
    let places: BTreeSet<(i64, i64)> = panels.iter().map(place).collect();
    let numbers: BTreeSet<i64> = panels.iter().filter_map(|panel| panel["id"].as_i64()).collect();
    assert_eq!((places.len(), numbers.len()), (panels.len(), panels.len()));
}
