//! `ovn-kubevirt switches`: the logical switches, with a bar for the use of each subnet.

use clap::{Args, ValueEnum};

use super::source::{Source, SourceOptions};
use super::table::{Cell, Tone, print as print_text, table, takes_colours};
use crate::api::rpc::list_switches;
use crate::api::rpc::model::{Switch, Switches, SwitchesParams, UseCounts};

const HEADER: [&str; 7] = ["SWITCH", "SUBNET", "USE", "", "FREE", "VMS", "OTHERS"];
/// The cells of a bar.
const BAR: u64 = 20;

/// Options of `switches`.
#[derive(Debug, Clone, Args)]
pub(super) struct SwitchesOptions {
    /// Only this logical switch, by name or UUID
    #[arg(value_name = "SWITCH")]
    switch: Option<String>,

    /// The form of the output; by default a table
    #[arg(long, short, value_name = "FORM")]
    output: Option<Form>,

    #[command(flatten)]
    source: SourceOptions,
}

impl SwitchesOptions {
    /// Where the command reads.
    pub(super) fn source_mut(&mut self) -> &mut SourceOptions {
        &mut self.source
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A JSON list
    Json,
    /// A YAML list
    Yaml,
    /// The names
    Name,
}

/// Prints the switches.
pub(super) async fn print(options: &SwitchesOptions) -> anyhow::Result<()> {
    let Switches { switches } = match options.source.open().await? {
        Source::Api(mut client) => {
            client.call("switches.list", &SwitchesParams { switch: options.switch.clone() }).await?
        }
        Source::Databases(databases) => list_switches(&databases.northbound, options.switch.as_deref())?,
    };
    let text = match options.output {
        Some(Form::Json) => format!("{}\n", serde_json::to_string_pretty(&switches)?),
        Some(Form::Yaml) => serde_saphyr::to_string(&switches)?,
        Some(Form::Name) => switches.iter().map(|switch| format!("{}\n", switch.name)).collect(),
        None => table(Some(&HEADER), &rows(&switches), &mut Vec::new(), takes_colours()),
    };
    if switches.is_empty() {
        eprintln!("No logical switches.");
    }
    print_text(&text)?;
    Ok(())
}

fn rows(switches: &[Switch]) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    for switch in switches {
        let name = Cell::new(&switch.name);
        for subnet in &switch.subnets {
            rows.push([vec![name.clone(), Cell::new(&subnet.subnet)], used(&subnet.counts)].concat());
        }
        if let Some(trouble) = &switch.trouble {
            rows.push(vec![name, Cell::toned(trouble, Tone::Bad)]);
        }
    }
    rows
}

/// The bar, the part that is used, and the numbers.
fn used(counts: &UseCounts) -> Vec<Cell> {
    let UseCounts { free, vm, reserved, retained, foreign, service, conflict, .. } = *counts;
    let (vms, others) = (vm + reserved + retained + conflict, foreign + service);
    let held = vms.saturating_add(others);
    let all = held.saturating_add(free).saturating_add(counts.resting).max(1);
    // Where anything is held, the bar shows it; and where anything is free, it is not full.
    let full = (u128::from(held) * u128::from(BAR)).div_ceil(u128::from(all)) as u64;
    let full = if free > 0 { full.min(BAR - 1) } else { full };
    let bar: String = (0..BAR).map(|cell| if cell < full { '#' } else { '.' }).collect();
    let percent = held as f64 * 100.0 / all as f64;
    let tone = match percent {
        percent if percent >= 95.0 => Tone::Bad,
        percent if percent >= 80.0 => Tone::Busy,
        _ => Tone::Good,
    };
    let percent = if held > 0 && percent < 0.1 { "<0.1%".to_owned() } else { format!("{percent:.1}%") };
    vec![Cell::toned(format!("[{bar}]"), tone), Cell::toned(percent, tone), number(free), number(vms), number(others)]
}

fn number(number: u64) -> Cell {
    Cell::new(if number >= (1 << 53) - 1 { "more than 9e15".to_owned() } else { number.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_the_first_address_and_is_full_with_the_last() {
        let bar = |free: u64, vm: u64| {
            let cells = used(&UseCounts { free, vm, ..UseCounts::default() });
            (cells[0].text.matches('#').count(), cells[1].text.clone())
        };
        assert_eq!(bar(1_000, 0), (0, "0.0%".into()));
        assert_eq!(bar(1_000_000, 1), (1, "<0.1%".into()));
        assert_eq!(bar(50, 50), (10, "50.0%".into()));
        assert_eq!(bar(1, 100_000), (19, "100.0%".into()));
        assert_eq!(bar(0, 7), (20, "100.0%".into()));
        assert_eq!(bar((1 << 53) - 1, 1).0, 1);
    }
}
