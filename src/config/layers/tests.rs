use clap::{Args, FromArgMatches};

use super::*;
use crate::config::{NodeOptions, RunOptions};

/// A command line of `run`, with variables and a file.
struct Case {
    arguments: Vec<&'static str>,
    variables: Vec<(&'static str, &'static str)>,
    file: Option<tempfile::NamedTempFile>,
}

fn case(arguments: &[&'static str]) -> Case {
    Case { arguments: arguments.to_vec(), variables: Vec::new(), file: None }
}

fn command() -> Command {
    let secret = Arg::new("token").long("token").env("OVN_KUBEVIRT_TOKEN").hide_env_values(true);
    Command::new("ovn-kubevirt")
        .subcommand_required(true)
        .subcommand(RunOptions::augment_args(Command::new("run")).arg(secret))
        .subcommand(NodeOptions::augment_args(Command::new("node")))
}

impl Case {
    fn variables(mut self, variables: &[(&'static str, &'static str)]) -> Self {
        self.variables.extend(variables);
        self
    }

    fn file(mut self, text: &str) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("the file is written");
        self.file = Some(file);
        self
    }

    fn path(&self) -> String {
        self.file.as_ref().map(|file| file.path().display().to_string()).unwrap_or_default()
    }

    /// A text with `FILE` for the path of the file.
    fn plain(&self, text: impl ToString) -> String {
        let text = text.to_string();
        if self.file.is_some() { text.replace(&self.path(), "FILE") } else { text }
    }

    fn read(&self) -> Result<Reading, Refusal> {
        let mut arguments: Vec<OsString> = vec!["ovn-kubevirt".into()];
        arguments.extend(self.arguments.iter().map(OsString::from));
        let path = self.path();
        let variables = |name: &OsStr| match name.to_str() {
            Some("OVN_KUBEVIRT_CONFIG") if !path.is_empty() => Some(OsString::from(&path)),
            name => self.variables.iter().find(|(key, _)| name == Some(key)).map(|(_, value)| value.into()),
        };
        read(&command(), &arguments, &variables)
    }

    fn options(&self) -> RunOptions {
        let reading = self.read().unwrap_or_else(|refusal| panic!("{refusal:?}"));
        let (_, matches) = reading.matches.subcommand().expect("a subcommand");
        RunOptions::from_arg_matches(matches).expect("options")
    }

    /// Value and source of a key, with `FILE` for the path of the file.
    fn setting(&self, key: &str) -> (String, String) {
        let reading = self.read().unwrap_or_else(|refusal| panic!("{refusal:?}"));
        let setting = reading.in_force.settings.into_iter().find(|setting| setting.key == key).expect("a setting");
        (setting.value.unwrap_or_default(), self.plain(setting.source))
    }

    /// The errors, with `FILE` for the path of the file.
    fn errors(&self) -> Vec<String> {
        match self.read().expect_err("errors") {
            Refusal::Errors(flags, errors) => {
                let flags = flags.map(|error| error.to_string());
                let errors = errors.iter().map(|error| self.plain(error));
                flags.into_iter().chain(errors).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

fn pair(value: &str, source: &str) -> (String, String) {
    (value.to_owned(), source.to_owned())
}

#[test]
fn a_flag_is_stronger_than_a_variable_and_that_than_the_file_and_that_than_the_default() {
    let file = "instance: filed\nno-lease: true\nnb-leader-only: false\nwebhook-host: [a, b]\n";
    let instance = [("OVN_KUBEVIRT_INSTANCE", "variable")];
    let variable = "OVN_KUBEVIRT_INSTANCE";
    assert_eq!(case(&["run"]).setting("instance"), pair("default", "default"));
    assert_eq!(case(&["run"]).file(file).setting("instance"), pair("filed", "FILE:1"));
    assert_eq!(case(&["run"]).file(file).variables(&instance).setting("instance"), pair("variable", variable));
    let flag = case(&["run", "--instance", "flag"]).file(file).variables(&instance);
    assert_eq!(flag.setting("instance"), pair("flag", "flag"));
    assert_eq!(flag.options().northbound.instance, "flag");
    // A boolean is turned on and off by each layer.
    let off = case(&["run", "--no-lease=false", "--nb-leader-only"]).file(file);
    assert_eq!((off.options().no_lease, off.options().northbound.nb_leader_only), (false, true));
    let off = case(&["run"]).file(file).variables(&[("OVN_KUBEVIRT_NO_LEASE", "0")]);
    assert_eq!((off.options().no_lease, off.options().northbound.nb_leader_only), (false, false));
    assert_eq!(off.setting("no-lease"), pair("false", "OVN_KUBEVIRT_NO_LEASE"));
    // A list replaces the list of a weaker layer.
    assert_eq!(case(&["run", "--webhook-host", "c"]).file(file).options().webhooks.webhook_host, ["c"]);
}

#[test]
fn the_flag_of_the_file_is_stronger_than_its_variable() {
    let filed = case(&["run"]).file("instance: variable\n");
    let other = case(&[]).file("instance: flag\n");
    let path: &'static str = Box::leak(other.path().into_boxed_str());
    let flag = Case { arguments: vec!["run", "--config", path], ..filed };
    assert_eq!(flag.options().northbound.instance, "flag");
}

#[test]
fn values_go_through_the_parsers_of_the_flags() {
    let file = "nb: [tcp:a:1, \"tcp:[::1]:2\"]\nallow: [explicit, first]\nswitch-namespaces: [red=a, \"blue=b,c\"]\n\
                mac-prefix: 10:20\nlease-duration: 0015\ndefault-retain: 90m\nmax-nics: 7\nno-lease: yes\n";
    let listed = case(&["run"]).file(file).options();
    let flags = case(&[
        "run",
        "--nb=tcp:a:1,tcp:[::1]:2",
        "--allow=explicit,first",
        "--switch-namespaces=red=a",
        "--switch-namespaces=blue=b,c",
        "--mac-prefix=10:20",
        "--lease-duration=15",
        "--default-retain=90m",
        "--max-nics=7",
        "--no-lease",
    ]);
    assert_eq!(format!("{listed:?}"), format!("{:?}", flags.options()).replace("config: None", &config(&listed)));
}

/// As `Debug` writes it.
fn config(options: &RunOptions) -> String {
    format!("config: {:?}", options.file.config)
}

#[test]
fn all_errors_are_reported_at_once_with_their_places() {
    let file = "http: nowhere\ninstance: [a]\ndefault_switch: x\ninstance: b\nlease-duration: 0\nnb: {a: b}\nallow: [first, {}]\n";
    let case = case(&["run"]).file(file).variables(&[("OVN_KUBEVIRT_MAC_PREFIX", "01:00")]);
    let errors = case.errors();
    let expected = [
        "FILE:1: http: \"nowhere\": invalid socket address syntax",
        "FILE:2: instance takes one value: write it without a list",
        "FILE:3: the key default_switch is unknown: did you mean default-switch?",
        "FILE:4: the key instance is on line 2 already: remove one",
        "FILE:5: lease-duration: \"0\": 0 is not in 1..=600",
        "FILE:6: nb takes a value, and this is a mapping",
        "FILE:7: allow takes a value, and this is a list whose elements are not all text",
        "OVN_KUBEVIRT_MAC_PREFIX: \"01:00\": the first byte is that of a multicast MAC: write an even one, as in 0a:58",
    ];
    assert_eq!(errors, expected);
    // A wrong flag comes first, and the other errors are still reported.
    let mut case = case;
    case.arguments.push("--http=here");
    assert!(case.errors()[0].contains("'--http <ADDRESS:PORT>'"), "{:?}", case.errors());
    assert_eq!(case.errors()[1..], expected);
}

#[test]
fn the_error_of_an_unknown_key_suggests_the_nearest_name() {
    for (key, words) in [
        ("default_switch", "did you mean default-switch?"),
        ("defaultSwitch", "did you mean default-switch?"),
        ("--nb", "did you mean nb?"),
        ("OVN_KUBEVIRT_SB", "did you mean sb?"),
        ("htpt", "did you mean http?"),
        ("lease-durations", "did you mean lease-duration?"),
        ("zzz", "a key is the long name of a flag"),
        ("config", "name one by --config alone"),
        ("help", "a key is the long name of a flag"),
        ("ovs", "is for `node`"),
        ("a\u{202e}b", "the key a\\u{202e}b is unknown"),
    ] {
        let errors = case(&["run"]).file(&format!("\"{key}\": x\n")).errors();
        assert!(errors.len() == 1 && errors[0].contains(words), "{key}: {errors:?}");
    }
}

#[test]
fn an_empty_value_counts_as_absent() {
    let file = "instance:\ndefault-switch: ''\nhttp: ~\nlease: \" \"\nwebhook-host: []\n";
    let empty = [("OVN_KUBEVIRT_INSTANCE", ""), ("OVN_KUBEVIRT_HTTP", " ")];
    let options = case(&["run"]).file(file).variables(&empty).options();
    assert_eq!((options.northbound.instance.as_str(), options.default_switch), ("default", None));
    // An empty list of words allows no request, as `--allow=` does.
    let (none, flag) = (case(&["run"]).file("allow: []\n"), case(&["run", "--allow="]));
    assert_eq!(none.options().policy.allow, flag.options().policy.allow);
    assert_ne!(none.options().policy.allow, case(&["run"]).options().policy.allow);
    let shown = flag.read().expect("read").in_force.to_string();
    assert_eq!(case(&["run"]).file(&shown).options().policy.allow, flag.options().policy.allow, "{shown}");
    // An empty variable does not hide the file.
    let below = case(&["run"]).file("instance: filed\n").variables(&empty);
    assert_eq!(below.setting("instance"), pair("filed", "FILE:1"));
}

#[test]
fn rules_between_flags_hold_across_the_layers() {
    let half = case(&["run", "--ca-cert", "ca"]).file("certificate: cert\n");
    match half.read().expect_err("no key") {
        Refusal::Together(error, notes) => {
            assert!(error.to_string().contains("--private-key"), "{error}");
            let notes: Vec<String> = notes.iter().map(|note| half.plain(note)).collect();
            assert_eq!(notes, ["FILE:1: sets --certificate"]);
        }
        other => panic!("{other:?}"),
    }
    let whole = half.variables(&[("OVN_KUBEVIRT_PRIVATE_KEY", "key")]);
    assert!(whole.options().northbound.target().tls.is_some());
    let both = case(&["run", "--no-lease"]).file("lease: a/b\n");
    assert!(matches!(both.read(), Err(Refusal::Together(..))));
    let off = case(&["run"]).file("lease: a/b\nno-lease: false\n");
    assert!(off.options().lease.is_some());
    // A flag that is required may be a variable, or a key.
    assert!(case(&["node"]).file("node: n1\n").read().is_ok());
    assert!(matches!(case(&["node"]).read(), Err(Refusal::Together(..))));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = case(&["run", "--config", "/nowhere/x.yaml"]).errors();
    assert!(
        missing[0].starts_with("/nowhere/x.yaml: the configuration file cannot be read: No such file"),
        "{missing:?}"
    );
    let large = case(&["run"]).file(&"# 0123456789\n".repeat(100_000)).errors();
    assert_eq!(large, ["FILE: the configuration file has more than 1 MiB: name another file"]);
    assert_eq!(case(&["run"]).file("a: [\n").errors().len(), 1);
    // Help does not depend on it.
    let help = case(&["run", "--config", "/nowhere/x.yaml", "--help"]).read();
    assert!(matches!(help, Err(Refusal::Clap(error)) if error.to_string().contains("[env: OVN_KUBEVIRT_NB")));
}

#[test]
fn the_settings_in_force_are_an_equivalent_file_without_secrets() {
    let first = case(&["run", "--nb", "tcp:a:1,tcp:b:2", "--default-switch", "a switch: #1"])
        .file("switch-namespaces: [red=a, blue=*]\nno-lease: true\n")
        .variables(&[("OVN_KUBEVIRT_HTTP", "[::1]:9"), ("OVN_KUBEVIRT_TOKEN", "sesame")]);
    let shown = first.read().expect("read").in_force.to_string();
    for line in [
        "nb: tcp:a:1,tcp:b:2 # flag",
        "default-switch: \"a switch: #1\" # flag",
        "http: \"[::1]:9\" # OVN_KUBEVIRT_HTTP",
        "no-lease: true # FILE:2",
        "instance: default # default",
        "# lease: # not set",
        "# token: (not shown) # OVN_KUBEVIRT_TOKEN",
    ] {
        let squeezed = |line: &str| first.plain(line.split_whitespace().collect::<Vec<_>>().join(" "));
        assert!(shown.lines().any(|shown| squeezed(shown) == line), "{line} in\n{shown}");
    }
    assert!(!shown.contains("sesame"), "{shown}");
    let (again, first_options) = (case(&["run"]).file(&shown).options(), first.options());
    let without_path = |options: &RunOptions| format!("{options:?}").replace(&config(options), "");
    assert_eq!(without_path(&again), without_path(&first_options));
}
