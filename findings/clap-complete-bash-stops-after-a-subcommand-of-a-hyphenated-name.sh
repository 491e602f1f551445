#!/usr/bin/env bash
# Finding: the bash completion that clap_complete makes for a program with a hyphen in its name completes nothing after a subcommand.
#
# Version: clap 4.6.9 and clap_complete 4.6.12 (crates.io), bash of Debian 12.
# Input: a program with the subcommand `ports` that has the flag --watch, once named "kubectlx" and once "kubectl-x", as every plugin
# of kubectl is named.
# Seen: after `kubectlx ports --w` the script offers --watch, after `kubectl-x ports --w` it offers no word. It names the state of the subcommand
# in two spellings: the hyphen becomes "__" where the state is looked up, and "__subcmd__" where it is entered.
#
# Needs: bash, cargo 1.85 or newer, and a registry. Everything is built in a temporary folder.
set -euo pipefail

clap=4.6.9
complete=4.6.12
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/src"
cat >"$dir/Cargo.toml" <<TOML
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
clap = { version = "=$clap", default-features = false, features = ["std"] }
clap_complete = { version = "=$complete", default-features = false }
TOML
cat >"$dir/src/main.rs" <<'RUST'
use clap::{Arg, ArgAction, Command};

fn main() {
    let name: &'static str = std::env::args().nth(1).expect("the name of the program").leak();
    let watch = Arg::new("watch").long("watch").action(ArgAction::SetTrue);
    let mut command = Command::new(name).subcommand(Command::new("ports").arg(watch));
    clap_complete::generate(clap_complete::Shell::Bash, &mut command, name, &mut std::io::stdout());
}
RUST
(cd "$dir" && CARGO_TARGET_DIR="$dir/target" cargo build --quiet)

# The words that bash offers after `PROGRAM ports --w`.
offered() {
    "$dir/target/debug/finding" "$1" >"$dir/$1.bash"
    bash -c 'source "$1"; COMP_WORDS=("$2" ports --w); COMP_CWORD=2
        function=$(complete -p "$2" | sed -E "s/.* -F ([^ ]+) .*/\1/")
        "$function" "$2" --w ports; echo "${COMPREPLY[*]:-}"' _ "$dir/$1.bash" "$1"
}
plain=$(offered kubectlx)
hyphenated=$(offered kubectl-x)
echo "clap_complete $complete: kubectlx: \"$plain\"; kubectl-x: \"$hyphenated\""
[ "$plain" = --watch ] || { echo "a plain name is completed otherwise: the behaviour has changed"; exit 1; }
[ -z "$hyphenated" ] || { echo "a hyphenated name is completed: the behaviour has changed"; exit 1; }
