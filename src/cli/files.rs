//! `ovn-kubevirt completions` and `ovn-kubevirt man`: files for packages, made from the clap command.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;

use super::print;

/// Options of `completions`.
#[derive(Debug, Clone, Args)]
pub(super) struct CompletionsOptions {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Options of `man`.
#[derive(Debug, Clone, Args)]
pub(super) struct ManOptions {
    /// The folder, which is made if it does not exist
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Prints the script for the shell.
pub(super) fn print_completions(options: &CompletionsOptions, mut command: Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(options.shell, &mut command, name.as_str(), &mut script);
    print(&with_one_label(&String::from_utf8(script)?, &name))
}

/// In bash, clap_complete spells the states of a program with a hyphen in its name in two ways, so that nothing is completed
/// after a subcommand: <https://github.com/clap-rs/clap/issues/6421>.
fn with_one_label(script: &str, name: &str) -> String {
    script.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"))
}

/// Writes `ovn-kubevirt.1`, `ovn-kubevirt-run.1` and so on.
pub(super) fn write_pages(options: &ManOptions, mut command: Command) -> anyhow::Result<()> {
    let folder = &options.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("the folder {} cannot be made", folder.display()))?;
    command.build();
    let name = command.get_name().to_owned();
    write_page(folder, &command, &name)
}

/// Writes the page of a command and those of its subcommands. `help` has none: it prints what the others have.
fn write_page(folder: &Path, command: &Command, name: &str) -> anyhow::Result<()> {
    let mut page = Vec::new();
    let titled = command.clone().display_name(name.to_owned()).disable_help_subcommand(true);
    clap_mangen::Man::new(titled).title(name.to_uppercase()).manual("ovn-kubevirt").render(&mut page)?;
    let path = folder.join(format!("{name}.1"));
    std::fs::write(&path, page).with_context(|| format!("the page {} cannot be written", path.display()))?;
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        write_page(folder, subcommand, &format!("{name}-{}", subcommand.get_name()))?;
    }
    Ok(())
}
