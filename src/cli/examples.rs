//! The end of each command's help: examples, and the exit codes. A test parses every example.

use clap::Command;
use clap::builder::StyledStr;

/// The name of the program in the examples.
const CALLED: &str = "ovn-kubevirt";
/// The same, as a plugin of kubectl.
pub(super) const CALLED_AS_PLUGIN: &str = "kubectl ovn-kubevirt";

pub(super) const ALL: &str = "\
Examples:
  ovn-kubevirt run --config /etc/ovn-kubevirt.yaml
  ovn-kubevirt ports
  ovn-kubevirt status

`ovn-kubevirt help COMMAND` has the flags, the variables and examples of a command. A program called
kubectl-ovn_kubevirt that is a link to this one makes it a plugin: kubectl ovn-kubevirt.

Exit codes:
    0  the command has done its work; `run` and `node` were stopped by a signal
    1  it failed: the last line says why
    2  the command line, a variable or the file of --config cannot be used
    3  there is no such VM or switch
  101  a defect: please report the last line";

pub(super) const RUN: &str = "\
Examples:
  ovn-kubevirt run --default-switch ovn-default --sb unix:/var/run/ovn/ovnsb_db.sock
  ovn-kubevirt run --nb tcp:192.0.2.1:6641,tcp:192.0.2.2:6641,tcp:192.0.2.3:6641 --webhooks 0.0.0.0:9444
  OVN_KUBEVIRT_DEFAULT_SWITCH=ovn-default ovn-kubevirt run --config /etc/ovn-kubevirt.yaml

A file for --config:
  nb: [\"tcp:192.0.2.1:6641\", \"tcp:192.0.2.2:6641\"]
  default-switch: ovn-default
  switch-namespaces: [red=team-a, \"blue=*\"]
  no-lease: false

RUST_LOG sets the log levels, as in RUST_LOG=info,ovn_kubevirt=debug.
Exit codes: 0 after SIGTERM or SIGINT, 1 when it cannot continue, 2 for values that cannot be used.";

pub(super) const NODE: &str = "\
Examples:
  ovn-kubevirt node --node \"$(hostname)\" --kubeconfig /etc/kubernetes/node.kubeconfig
  OVN_KUBEVIRT_NODE=node1 ovn-kubevirt node --ovs unix:/var/run/openvswitch/db.sock --http 0.0.0.0:9443
  ovs-vsctl --columns=name,external_ids find Interface 'external_ids:\"ovn-kubevirt.io/node\"!=\"\"'

In a pod of the DaemonSet (deploy/kubernetes/node) the downward API sets OVN_KUBEVIRT_NODE.
Exit codes: 0 after SIGTERM or SIGINT, 1 when it cannot continue, 2 for values that cannot be used.";

pub(super) const PORTS: &str = "\
Examples:
  ovn-kubevirt ports -n prod --problems -o wide
  ovn-kubevirt ports --nb tcp:192.0.2.1:6641 --sb tcp:192.0.2.1:6642
  ovn-kubevirt ports --search 10.16.0.15
  ovn-kubevirt ports --watch --node node1 --api http://127.0.0.1:9445
  ovn-kubevirt ports get prod/db-0 --api 127.0.0.1:9445

Exit codes: 0, also without a port; 1 when neither an API nor a database can be read; 2 for values
that cannot be used; 3 when there is no such VM.";

pub(super) const PORTS_GET: &str = "\
Examples:
  ovn-kubevirt ports get prod/db-0
  ovn-kubevirt ports get prod/db-0 --api 127.0.0.1:9445

Exit codes: 0; 1 when neither an API nor a database can be read; 2 for values that cannot be used;
3 when there is no such VM.";

pub(super) const SWITCHES: &str = "\
Examples:
  ovn-kubevirt switches
  ovn-kubevirt switches ovn-default -o json --api http://127.0.0.1:9445

Exit codes: 0; 1 when neither an API nor a database can be read; 2 for values that cannot be used;
3 when there is no such switch.";

pub(super) const STATUS: &str = "\
Examples:
  ovn-kubevirt status
  ovn-kubevirt status --http 192.0.2.1:9443

As a plugin of kubectl it asks the process that holds the Lease, through `kubectl port-forward`, unless --http is given.
Exit codes: 0 when it is ready, 1 when it is not or does not answer, 2 for values that cannot be used.";

pub(super) const CONFIG: &str = "\
Examples:
  ovn-kubevirt config check --config /etc/ovn-kubevirt.yaml
  ovn-kubevirt config check node --config /etc/ovn-kubevirt-node.yaml
  ovn-kubevirt config show --default-switch ovn-default

Exit codes: 0, or 2 for values that cannot be used.";

pub(super) const CHECK: &str = "\
Examples:
  ovn-kubevirt config check --config /etc/ovn-kubevirt.yaml
  ovn-kubevirt config check node --config /etc/ovn-kubevirt-node.yaml

It reads what `run` or `node` would read with these flags, in this environment, and connects to nothing.
Exit codes: 0 and \"ok\"; or 2, with every value that cannot be used.";

pub(super) const SHOW: &str = "\
Examples:
  ovn-kubevirt config show --config /etc/ovn-kubevirt.yaml
  ovn-kubevirt config show node --node node1
  ovn-kubevirt config show --default-switch ovn-default --http 0.0.0.0:9443 >ovn-kubevirt.yaml

It prints a file for --config. The comments have the source of each value: a flag, a variable, a line of the file, or the
default. Secrets are not printed.
Exit codes: 0, or 2 for values that cannot be used.";

pub(super) const COMPLETIONS: &str = "\
Examples:
  ovn-kubevirt completions bash >/etc/bash_completion.d/ovn-kubevirt
  ovn-kubevirt completions zsh >/usr/share/zsh/site-functions/_ovn-kubevirt
  ovn-kubevirt completions fish >/usr/share/fish/vendor_completions.d/ovn-kubevirt.fish

Exit codes: 0, or 2 for a shell that is not known.";

pub(super) const MAN: &str = "\
Examples:
  ovn-kubevirt man /usr/share/man/man1

Exit codes: 0, or 1 when a page cannot be written.";

pub(super) const VERSION: &str = "\
Examples:
  ovn-kubevirt version

Exit codes: 0.";

/// The command with the examples of the plugin.
pub(super) fn of_plugin(command: Command) -> Command {
    let renamed = command.get_after_help().map(|help| {
        let replaced = |line: &str| match line.starts_with("  ") {
            true => line.replacen(CALLED, CALLED_AS_PLUGIN, 1),
            false => line.replace(&format!("`{CALLED} "), &format!("`{CALLED_AS_PLUGIN} ")),
        };
        let lines: Vec<String> = help.to_string().lines().map(replaced).collect();
        StyledStr::from(lines.join("\n"))
    });
    let command = match renamed {
        Some(help) => command.after_help(help),
        None => command,
    };
    command.mut_subcommands(of_plugin)
}
