//! `ovn-kubevirt ports`: the ports of VMs, once or as they change, and why they are as they are.

mod get;
mod watch;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::source::{Databases, Source, SourceOptions};
use super::table::{Cell, Printed, Tone, print as print_text, table, takes_colours};
use crate::api::rpc::model::{Binding, ListParams, Port, PortFilter, PortPage, PortState};
use crate::api::rpc::{ApiClient, Chosen, View};
use crate::contract::VmKey;

const HEADER: [&str; 7] = ["VM", "NETWORK", "PORT", "SWITCH", "ADDRESSES", "CHASSIS", "STATE"];
const WIDE_HEADER: [&str; 9] =
    ["VM", "NETWORK", "PORT", "SWITCH", "ADDRESSES", "CHASSIS", "STATE", "NEXT START", "PROBLEM"];
/// The ports of a page that is asked for.
const PAGE: u32 = 1_000;

/// Options of `ports`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct PortsOptions {
    #[command(subcommand)]
    command: Option<PortsCommand>,

    #[command(flatten)]
    list: ListOptions,
}

#[derive(Debug, Clone, Subcommand)]
enum PortsCommand {
    /// Say in sentences why the ports of a VM are as they are, and what they wait for
    #[command(after_help = super::examples::PORTS_GET)]
    Get(get::GetOptions),
}

/// Options of the list.
#[derive(Debug, Clone, Args)]
struct ListOptions {
    #[command(flatten)]
    source: SourceOptions,

    /// Only the VMs of this namespace
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,

    /// Only the VMs of this name
    #[arg(long, value_name = "NAME")]
    vm: Option<String>,

    /// Only the ports on this logical switch
    #[arg(long, value_name = "NAME")]
    switch: Option<String>,

    /// Only the ports on this node or chassis
    #[arg(long, value_name = "NAME")]
    node: Option<String>,

    /// Only the ports in this state
    #[arg(long, value_name = "STATE")]
    state: Option<StateOption>,

    /// Only the ports with problems
    #[arg(long)]
    problems: bool,

    /// Only the ports with this address or MAC, or with this part in a name, an address or a MAC
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,

    /// Print the ports, and then each that changes
    #[arg(long, short)]
    watch: bool,

    /// The form of the output; by default a table
    #[arg(long, short, value_name = "FORM")]
    output: Option<Form>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A table with the addresses of the next start, and the problems
    Wide,
    /// A JSON list; with --watch an object a line
    Json,
    /// A YAML list; with --watch a document for each port
    Yaml,
    /// The names of the logical switch ports
    Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StateOption {
    /// There is no port yet
    Pending,
    /// The VM is stopped
    Unbound,
    /// On one chassis
    Bound,
    /// In a live migration
    Moving,
    /// The VM is deleted, and its addresses are reserved
    Retained,
}

impl ListOptions {
    fn filter(&self) -> PortFilter {
        PortFilter {
            namespace: self.namespace.clone(),
            vm: self.vm.clone(),
            switch: self.switch.clone(),
            node: self.node.clone(),
            state: self.state.map(|state| match state {
                StateOption::Pending => PortState::Pending,
                StateOption::Unbound => PortState::Unbound,
                StateOption::Bound => PortState::Bound,
                StateOption::Moving => PortState::Moving,
                StateOption::Retained => PortState::Retained,
            }),
            problems: self.problems.then_some(true),
            search: self.search.clone(),
        }
    }
}

impl PortsOptions {
    /// Where the command reads.
    pub(super) fn source_mut(&mut self) -> &mut SourceOptions {
        match &mut self.command {
            Some(PortsCommand::Get(options)) => options.source_mut(),
            None => &mut self.list.source,
        }
    }
}

/// Executes the command.
pub(super) async fn print(options: &PortsOptions) -> anyhow::Result<()> {
    let list = match &options.command {
        Some(PortsCommand::Get(options)) => return get::print(options).await,
        None => &options.list,
    };
    let mut source = list.source.open().await?;
    if list.watch {
        return watch::print(source, list).await;
    }
    let ports = match &mut source {
        Source::Api(client) => all(client, &list.filter()).await?,
        Source::Databases(databases) => read(databases, &list.filter()),
    };
    if ports.is_empty() && list.output.is_none() {
        eprintln!("No VM ports of {}.", list.source.scope());
        return Ok(());
    }
    let mut shown = Shown::new(list.output);
    let text = match list.output {
        Some(Form::Json) => format!("{}\n", serde_json::to_string_pretty(&ports)?),
        Some(Form::Yaml) => serde_saphyr::to_string(&ports)?,
        Some(Form::Name | Form::Wide) | None => shown.next(&ports)?,
    };
    print_text(&text)?;
    Ok(())
}

/// All pages of a list.
async fn all(client: &mut ApiClient, filter: &PortFilter) -> anyhow::Result<Vec<Port>> {
    let mut ports = Vec::new();
    let mut cursor = None;
    loop {
        let params = ListParams { filter: filter.clone(), limit: Some(PAGE), cursor };
        let PortPage { ports: page, next_cursor } = client.call("ports.list", &params).await?;
        ports.extend(page);
        cursor = next_cursor;
        if cursor.is_none() {
            return Ok(ports);
        }
    }
}

/// The ports in the databases, in the order of namespace, VM and network.
fn read(databases: &Databases, filter: &PortFilter) -> Vec<Port> {
    let northbound = databases.northbound.read();
    let southbound = databases.southbound.as_ref().map(|southbound| southbound.read());
    let mut chosen = Chosen::new(filter.clone(), None);
    chosen.locate(southbound.as_deref());
    let view = View { northbound: &northbound, southbound: southbound.as_deref() };
    let mut vms: Vec<&VmKey> = northbound.vms().filter(|vm| chosen.takes_vm(vm)).collect();
    vms.sort_unstable();
    let ports = vms.into_iter().flat_map(|vm| view.ports_of(vm, None));
    ports.filter(|port| chosen.takes(port)).collect()
}

/// The output so far.
struct Shown {
    form: Option<Form>,
    colours: bool,
    widths: Vec<usize>,
    has_header: bool,
}

impl Shown {
    fn new(form: Option<Form>) -> Self {
        Self { form, colours: takes_colours(), widths: Vec::new(), has_header: false }
    }

    /// The text for some more ports.
    fn next(&mut self, ports: &[Port]) -> anyhow::Result<String> {
        Ok(match self.form {
            Some(Form::Json) => ports
                .iter()
                .map(|port| Ok(format!("{}\n", serde_json::to_string(port)?)))
                .collect::<anyhow::Result<_>>()?,
            Some(Form::Yaml) => ports
                .iter()
                .map(|port| Ok(format!("---\n{}", serde_saphyr::to_string(port)?)))
                .collect::<anyhow::Result<_>>()?,
            Some(Form::Name) => {
                ports.iter().filter_map(|port| port.port.as_ref()).map(|name| format!("{name}\n")).collect()
            }
            Some(Form::Wide) | None => {
                let wide = self.form.is_some();
                let header: &[&str] = if wide { &WIDE_HEADER } else { &HEADER };
                let header = (!std::mem::replace(&mut self.has_header, true)).then_some(header);
                let rows: Vec<Vec<Cell>> = ports.iter().map(|port| row(port, wide)).collect();
                table(header, &rows, &mut self.widths, self.colours)
            }
        })
    }

    /// The text for a VM whose ports are gone.
    fn gone(&mut self, port: &Port) -> anyhow::Result<String> {
        Ok(match self.form {
            Some(Form::Json) => format!("{}\n", gone(port)),
            Some(Form::Yaml) => format!("---\n{}", serde_saphyr::to_string(&gone(port))?),
            Some(Form::Name) => String::new(),
            Some(Form::Wide) | None => {
                let mut cells = row(port, self.form.is_some());
                if let Some(cell) = cells.get_mut(6) {
                    *cell = Cell::toned("gone", Tone::Faint);
                }
                table(None, &[cells], &mut self.widths, self.colours)
            }
        })
    }
}

/// A port that is gone, as an object.
fn gone(port: &Port) -> Value {
    json!({"namespace": port.namespace, "vm": port.vm, "network": port.network, "state": "gone"})
}

/// Prints text, and returns true if there is still a reader.
fn goes_on(text: &str) -> anyhow::Result<bool> {
    Ok(print_text(text)? == Printed::Taken)
}

fn row(port: &Port, wide: bool) -> Vec<Cell> {
    let or_dash = |text: &Option<String>| Cell::new(text.clone().unwrap_or_else(|| "-".to_owned()));
    let addresses: Vec<&str> = port.mac.iter().chain(&port.ips).map(String::as_str).collect();
    let dash = |text: String| Cell::new(if text.is_empty() { "-".to_owned() } else { text });
    let mut cells = vec![
        Cell::new(format!("{}/{}", port.namespace, port.vm)),
        dash(port.network.clone()),
        or_dash(&port.port),
        or_dash(&port.switch),
        dash(addresses.join(" ")),
        dash(port.chassis.join(",")),
        state(port),
    ];
    if wide {
        let next = port.next.as_ref().map(|next| format!("{} {}", next.mac, next.ips.join(" ")));
        cells.push(or_dash(&next));
        let reasons: Vec<&str> = port.problems.iter().map(|problem| problem.reason.as_str()).collect();
        let tone = if reasons.is_empty() { Tone::Plain } else { Tone::Bad };
        cells.push(Cell { tone, ..dash(reasons.join(",")) });
    }
    cells
}

/// The state of a port, with its binding where that is known.
fn state(port: &Port) -> Cell {
    let problem = port.problems.first().map(|problem| format!(" ({})", problem.reason)).unwrap_or_default();
    let (text, tone) = match (&port.state, &port.binding) {
        (PortState::Pending, _) => ("pending".to_owned(), Tone::Busy),
        (PortState::Retained, _) => (
            format!("retained until {}", port.retained_until.as_deref().unwrap_or_default())
                .replace("until forever", "for ever"),
            Tone::Faint,
        ),
        (state, None) => (state.word().to_owned(), if *state == PortState::Moving { Tone::Busy } else { Tone::Good }),
        (_, Some(Binding::Unseen)) => ("not in the southbound yet".to_owned(), Tone::Busy),
        (PortState::Unbound, Some(Binding::Unbound)) => ("unbound".to_owned(), Tone::Good),
        (_, Some(Binding::Unbound)) => ("not bound".to_owned(), Tone::Busy),
        (PortState::Moving, Some(Binding::Bound { chassis, .. })) => {
            let targets: Vec<&str> = port.chassis.iter().filter(|to| *to != chassis).map(String::as_str).collect();
            let targets = targets.join(",");
            (format!("moving {chassis} -> {targets} (not claimed by {targets})"), Tone::Busy)
        }
        (_, Some(Binding::Bound { chassis, up: true })) => (format!("on {chassis}"), Tone::Good),
        (_, Some(Binding::Bound { chassis, up: false })) => (format!("on {chassis} (not up)"), Tone::Busy),
        (_, Some(Binding::Moving { chassis, additional, processed, activated })) => {
            let progress = match (activated, processed) {
                (true, _) => "activated",
                (false, true) => "ready for the guest",
                (false, false) => "waiting for the guest",
            };
            (format!("moving {chassis} -> {} ({progress})", additional.join(",")), Tone::Busy)
        }
    };
    let (coming, tone) = if port.coming { (", the guest is to come", Tone::Busy) } else { ("", tone) };
    Cell::toned(format!("{text}{coming}{problem}"), if problem.is_empty() { tone } else { Tone::Bad })
}
