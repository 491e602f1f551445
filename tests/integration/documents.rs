//! The commands and the examples of the pages, in their order, as a reader runs them.
//!
//! A block that is fenced as `sh run` is run by bash, with the variables that name the test's servers. Each VM of the owners'
//! page is applied, and gets the addresses that the page says. `documented::pages` is about the blocks that are not run here.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::service::binary;
use crate::support::{Cluster, Stage, deploy};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A step of a page.
#[derive(Debug)]
enum Step {
    Run(String),
    /// A manifest, and the paragraph after it.
    Apply(String, String),
}

fn steps(page: &str) -> Vec<Step> {
    let parts: Vec<&str> = page.split("```").collect();
    let mut steps = Vec::new();
    for pair in parts[1..].chunks(2) {
        let (block, after) = (pair[0], pair.get(1).copied().unwrap_or_default());
        let (kind, text) = block.split_once('\n').expect("a fence has lines");
        let paragraph = after.trim().split("\n\n").next().unwrap_or_default().replace('\n', " ");
        match kind {
            "sh run" => steps.push(Step::Run(text.to_owned())),
            "yaml" if text.contains("kind: VirtualMachine\n") && paragraph.contains("*You get:*") => {
                steps.push(Step::Apply(text.to_owned(), paragraph));
            }
            _ => {}
        }
    }
    steps
}

/// A reader, at a stage: a folder with the repository's files in it, and a kubeconfig for the test's namespace.
struct Reader {
    stage: Stage,
    folder: PathBuf,
    kubeconfig: PathBuf,
    address: String,
}

impl Reader {
    async fn new(name: &str) -> Self {
        let stage = Stage::build(name).without_default_switch().start().await;
        let folder = stage.dir().join("reader");
        std::fs::create_dir(&folder).expect("a folder");
        for part in ["tests", "deploy", "docs"] {
            std::os::unix::fs::symlink(Path::new(ROOT).join(part), folder.join(part)).expect("a link");
        }
        let kubeconfig = folder.join("kubeconfig");
        std::fs::copy(Cluster::shared().kubeconfig(), &kubeconfig).expect("a kubeconfig");
        let namespace = format!("--namespace={}", stage.namespace.name);
        let set = deploy::kubectl(&kubeconfig, &["config", "set-context", "--current", &namespace], "");
        set.unwrap_or_else(|error| panic!("{error}"));
        let address = stage.service.listening().await.to_owned();
        Self { stage, folder, kubeconfig, address }
    }

    fn run(&self, page: &str, script: &str) -> String {
        let binary = PathBuf::from(binary());
        let path = std::env::var("PATH").unwrap_or_default();
        let remote = self.stage.northbound.remote();
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(&self.folder)
            .env("PATH", format!("{}:{path}", binary.parent().expect("a folder").display()))
            .env("OVN_NB_DB", &remote)
            .env("OVN_KUBEVIRT_NB", &remote)
            .env("OVN_KUBEVIRT_HTTP", &self.address)
            .env("KUBECONFIG", &self.kubeconfig)
            .output()
            .expect("bash runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{page}: {}\n{script}\n{out}\n{errors}", output.status);
        out
    }

    async fn apply(&self, manifest: &str, paragraph: &str) {
        // The page is written for the namespace `default`.
        let manifest = manifest.replace(".default.ovn", &format!(".{}.ovn", self.stage.namespace.name));
        let applied = deploy::kubectl(&self.kubeconfig, &["apply", "-f", "-"], &manifest);
        applied.unwrap_or_else(|error| panic!("{error}\n{manifest}"));
        let vm =
            manifest.split("kind: VirtualMachine\nmetadata: {name: ").nth(1).and_then(|rest| rest.split('}').next());
        let vm = vm.unwrap_or_else(|| panic!("{manifest}"));
        let is_address = |word: &&str| word.parse::<std::net::IpAddr>().is_ok() || word.split(':').count() == 6;
        let words: Vec<&str> = paragraph.split('`').skip(1).step_by(2).filter(is_address).collect();
        assert!(!words.is_empty(), "{vm}: {paragraph}");
        self.stage.status(vm, &words).await;
    }
}

async fn read(page: &str) -> usize {
    let text = std::fs::read_to_string(Path::new(ROOT).join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
    let steps = steps(&text);
    let reader = Reader::new("reader").await;
    for step in &steps {
        match step {
            Step::Run(script) => drop(reader.run(page, script)),
            Step::Apply(manifest, paragraph) => reader.apply(manifest, paragraph).await,
        }
    }
    steps.len()
}

#[tokio::test]
async fn each_vm_of_the_owners_page_gets_the_documented_result() {
    let steps = read("docs/vm-owners.md").await;
    assert!(steps > 12, "{steps} steps");
}

#[tokio::test]
async fn the_commands_of_the_readme_and_of_the_pages_for_operators_run() {
    for page in ["README.md", "docs/install.md", "docs/operating.md", "docs/troubleshooting.md"] {
        let steps = read(page).await;
        assert!(steps > 0, "{page} has nothing to run");
    }
}

/// A page that is not read above has no block that says it is run.
#[test]
fn no_other_page_says_that_its_commands_are_run() {
    let read = ["README.md", "install.md", "operating.md", "troubleshooting.md", "vm-owners.md"];
    let listed = Command::new("grep")
        .args(["-rl", "--include=*.md", "^ *```sh run"])
        .args(["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "docs", "deploy"])
        .current_dir(ROOT)
        .output();
    let listed = String::from_utf8(listed.expect("grep runs").stdout).expect("text");
    let others: Vec<&str> = listed
        .lines()
        .filter(|path| !read.iter().any(|name| path.ends_with(name) && !path.starts_with("deploy")))
        .collect();
    assert_eq!(others, [""; 0]);
}
