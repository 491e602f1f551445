//! Compares `docs/metrics.md` with the metrics of the code, and the alerts and the dashboard with both.

use std::collections::{BTreeMap, BTreeSet};

use super::{CONTRACT, code, literals, page, quoted};
use crate::admission::WebhookMetrics;
use crate::controller::Metrics;
use crate::node::NodeMetrics;

const TABLE: &str = "docs/metrics.md";
const ALERTS: &str = "deploy/monitoring/alerts.yaml";
const RULE: &str = "deploy/monitoring/prometheus-rule.yaml";
const DASHBOARD: &str = "deploy/monitoring/dashboard.json";
const OPERATING: &str = "docs/operating.md";
/// Labels of the scrape, and those that PromQL adds.
const OTHER_LABELS: [&str; 5] = ["namespace", "job", "pod", "instance", "le"];

/// A metric, as it is exported.
#[derive(Debug, Default)]
struct Exported {
    kind: String,
    unit: String,
    help: String,
    labels: BTreeSet<String>,
}

impl Exported {
    /// The name that a query has; that of a histogram has further parts.
    fn name(&self, family: &str) -> String {
        let suffix = match self.kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        format!("{family}{suffix}")
    }

    /// The names of its series, each with true if it only grows.
    fn series(&self, family: &str) -> Vec<(String, bool)> {
        match self.kind.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"].map(|part| (format!("{family}{part}"), true)).into(),
            kind => vec![(self.name(family), kind == "counter")],
        }
    }
}

/// The metrics in an exposition, by the name of their family.
fn exported(text: &str) -> BTreeMap<String, Exported> {
    let mut all: BTreeMap<String, Exported> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), Some(help)) => {
                let known = all.insert(name.to_owned(), Exported { help: help.to_owned(), ..Exported::default() });
                assert!(known.is_none(), "two metrics are called {name}");
            }
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                all.entry(name.to_owned()).or_default().kind = kind.into()
            }
            (Some("#"), Some("UNIT"), Some(name), Some(unit)) => {
                all.entry(name.to_owned()).or_default().unit = unit.into()
            }
            (Some("#"), ..) => {}
            _ => {
                let (name, labels) = line.split_once('{').unwrap_or((line.split(' ').next().unwrap_or_default(), ""));
                let is_of = |(family, of): &(&String, &mut Exported)| {
                    of.series(family).iter().any(|(series, _)| series == name)
                };
                let (_, family) = all.iter_mut().find(is_of).unwrap_or_else(|| panic!("no TYPE: {line}"));
                family.labels.extend(label_names(labels).filter(|label| *label != "le").map(ToOwned::to_owned));
            }
        }
    }
    all
}

/// The names before `=` or `=~` in front of a quotation mark.
fn label_names(labels: &str) -> impl Iterator<Item = &str> {
    let before = labels.split('"').step_by(2);
    before.filter_map(|text| {
        let name = text.trim_end_matches(['=', '~', '!']).trim_start_matches([',', ' ']);
        (name.len() < text.len() && !name.is_empty() && !name.starts_with('}')).then_some(name)
    })
}

fn all() -> BTreeMap<String, Exported> {
    // The complete metrics come last: they have a sample of each but the webhooks'.
    let mut all = exported(&Metrics::with(WebhookMetrics::registered).0.text());
    all.extend(exported(&Metrics::complete().text()));
    // Both programs have the metrics of a process.
    all.extend(exported(&NodeMetrics::complete().text()));
    all
}

#[test]
fn every_metric_is_in_its_table_as_it_is_exported() {
    let row = |(family, metric): (&String, &Exported)| {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, unit) = (metric.name(family), &metric.kind, &metric.unit);
        format!("| `{name}` | {kind} | {} | {unit} | {} |", labels.join(", "), metric.help.trim_end_matches('.'))
    };
    let expected: Vec<String> = all().iter().map(row).collect();
    let page = page(TABLE);
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(rows == expected, "write these rows into {TABLE}:\n{}\n", expected.join("\n"));
}

/// A metric without a sample is not exported: the table would not miss it.
#[test]
fn every_metric_in_the_code_is_among_those_that_are_compared() {
    let lines: String = ["admission", "controller", "node"].map(|folder| code(folder).join("\n")).concat();
    let known = all();
    let mut count = 0;
    for call in [".register(", ".register_with_unit("] {
        for after in lines.split(call).skip(1) {
            let name = literals(after).next().unwrap_or_default();
            let has = |family: &String| {
                let family = family.strip_prefix("ovn_kubevirt_").unwrap_or(family);
                let family = family.strip_prefix("node_").unwrap_or(family);
                family == name || family.strip_prefix(name).is_some_and(|unit| unit == "_seconds" || unit == "_bytes")
            };
            assert!(known.keys().any(has), "{name} is in no sample: add one to Metrics::complete");
            count += 1;
        }
    }
    assert!(count > 15, "{count}");
}

#[test]
fn the_names_and_the_help_obey_openmetrics() {
    for (family, metric) in all() {
        assert!(family.chars().all(|character| character.is_ascii_lowercase() || character == '_'), "{family}");
        assert!(metric.unit.is_empty() || family.ends_with(&format!("_{}", metric.unit)), "{family}");
        for reserved in ["_total", "_info", "_bucket", "_sum", "_count", "_created"] {
            assert!(!family.ends_with(reserved), "{family}");
        }
        assert!(metric.help.ends_with('.') && !metric.help.ends_with("..") && !metric.help.contains('\\'), "{family}");
    }
}

/// The queries of the alerts and of the dashboard, each with the place where it stands.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for alert in alerts() {
        queries.push((alert.name.clone(), alert.text("expr")));
    }
    assert!(queries.len() > 15, "{ALERTS}");
    let dashboard: serde_json::Value = serde_json::from_str(&page(DASHBOARD)).expect(DASHBOARD);
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push((title.to_owned(), target["expr"].as_str().expect("a query").to_owned()));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        queries.extend(variable["definition"].as_str().map(|query| ("a variable".to_owned(), query.to_owned())));
    }
    queries
}

#[test]
fn alerts_and_dashboard_query_metrics_that_there_are_each_by_its_type() {
    let all = all();
    let series: BTreeMap<String, (bool, &BTreeSet<String>)> = all
        .iter()
        .flat_map(|(family, of)| of.series(family).into_iter().map(move |(name, grows)| (name, (grows, &of.labels))))
        .collect();
    let mut asked = BTreeSet::new();
    for (place, query) in queries() {
        for (before, name, selector) in metrics_in(&query) {
            let (grows, labels) = series.get(name).unwrap_or_else(|| panic!("{place}: no metric is called {name}"));
            let rated = ["rate(", "increase("].iter().any(|function| before.ends_with(function));
            assert_eq!(rated, *grows, "{place}: {name} only grows: {grows}; {query}");
            for label in label_names(selector) {
                let known = labels.contains(label) || OTHER_LABELS.contains(&label);
                assert!(known, "{place}: {name} has no label {label}");
            }
            asked.insert(name.to_owned());
        }
        let lists = [" by (", " on ("].into_iter().flat_map(|word| query.split(word).skip(1));
        for label in lists.filter_map(|rest| rest.split(')').next()).flat_map(|list| list.split(", ")) {
            let known = OTHER_LABELS.contains(&label) || all.values().any(|metric| metric.labels.contains(label));
            assert!(known, "{place}: no metric has the label {label}: {query}");
        }
    }
    // A metric without a panel and an alert is of no use to most operators.
    let unused = all.iter().filter(|(family, of)| of.series(family).iter().all(|(name, _)| !asked.contains(name)));
    let unused: Vec<&str> = unused.map(|(family, _)| family.as_str()).collect();
    let expected = [
        "ovn_kubevirt_node_build",
        "ovn_kubevirt_node_watch_age_seconds",
        "ovn_kubevirt_node_watch_failures",
        "process_max_fds",
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
    ];
    assert_eq!(unused, expected, "add a panel to {DASHBOARD}");
}

/// The metrics in a query: the text before each, its name, and its selector.
fn metrics_in(query: &str) -> Vec<(&str, &str, &str)> {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = query[from..].find(is_word).map(|at| from + at) {
        let end = query[at..].find(|character| !is_word(character)).map_or(query.len(), |length| at + length);
        let name = &query[at..end];
        if name.starts_with("ovn_kubevirt_") || name.starts_with("process_") {
            let selector = query[end..].strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
            found.push((&query[..at], name, selector));
        }
        from = end;
    }
    found
}

/// An alert as it is written: its name, and its lines.
struct Alert {
    name: String,
    lines: Vec<String>,
}

impl Alert {
    /// The value of a key, without quotation marks; empty if it is not there.
    fn text(&self, key: &str) -> String {
        let value = self.lines.iter().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
        value.unwrap_or_default().trim_matches('\'').replace("''", "'")
    }
}

fn alerts() -> Vec<Alert> {
    let page = page(ALERTS);
    let mut alerts: Vec<Alert> = Vec::new();
    for line in page.lines() {
        match line.strip_prefix("  - alert: ") {
            Some(name) => alerts.push(Alert { name: name.to_owned(), lines: Vec::new() }),
            None => alerts.last_mut().into_iter().for_each(|alert| alert.lines.push(line.to_owned())),
        }
    }
    alerts
}

/// The sections themselves are compared by [`super::pages`].
#[test]
fn every_alert_has_a_remedy_and_names_its_section_of_the_manual() {
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let name = &alert.name;
        assert!(names.insert(name.clone()), "{name} stands twice");
        assert!(["critical", "warning", "info"].contains(&alert.text("severity").as_str()), "{name}");
        for key in ["expr", "summary", "description", "remedy"] {
            assert!(!alert.text(key).is_empty(), "{name} has no {key}");
        }
        assert!(alert.text("description").ends_with('.') && alert.text("remedy").ends_with('.'), "{name}");
        assert_eq!(alert.text("runbook"), format!("{OPERATING}#{}", name.to_lowercase()));
    }
}

#[test]
fn the_reasons_in_alerts_are_reasons_of_events() {
    let words = quoted(&page(CONTRACT));
    let queries: Vec<String> = alerts().iter().map(|alert| alert.text("expr")).collect();
    let lists = queries.iter().filter_map(|query| query.split("reason=~\"").nth(1)?.split('"').next());
    let reasons: Vec<&str> = lists.flat_map(|list| list.split('|')).collect();
    assert!(reasons.len() > 5, "{reasons:?}");
    for reason in reasons {
        assert!(words.contains(reason), "{ALERTS}: no Event has the reason {reason}");
    }
}

#[test]
fn the_operators_rule_has_the_same_alerts_as_the_plain_file() {
    let rule = page(RULE);
    let (head, spec) = rule.split_once("\nspec:\n").expect("a spec");
    assert!(head.contains("kind: PrometheusRule"), "{head}");
    let plain = page(ALERTS);
    let expected: String =
        plain.lines().filter(|line| !line.starts_with('#')).map(|line| format!("  {line}\n")).collect();
    assert!(spec == expected, "below `spec:`, {RULE} has to be {ALERTS}, indented by two blanks:\n{expected}");
}
