//! `ovn-kubevirt ports get`: why the ports of a VM are as they are, in sentences.

use clap::Args;

use super::super::source::{Databases, Source, SourceOptions};
use super::super::table::{print as print_text, takes_colours};
use super::{Form, read};
use crate::api::rpc::model::{Explained, PortFilter, VmName};
use crate::api::rpc::{Failure, Known, explanation};

/// Options of `ports get`.
#[derive(Debug, Clone, Args)]
pub(super) struct GetOptions {
    /// The VM
    #[arg(value_name = "NAMESPACE/NAME", value_parser = vm_name)]
    vm: VmName,

    /// The form of the output; by default sentences
    #[arg(long, short, value_name = "FORM", value_parser = clap::builder::EnumValueParser::<Form>::new())]
    output: Option<Form>,

    #[command(flatten)]
    source: SourceOptions,
}

impl GetOptions {
    pub(super) fn source_mut(&mut self) -> &mut SourceOptions {
        &mut self.source
    }
}

fn vm_name(text: &str) -> Result<VmName, String> {
    match text.split_once('/') {
        Some((namespace, vm)) if !namespace.is_empty() && !vm.is_empty() && !vm.contains('/') => {
            Ok(VmName { namespace: namespace.to_owned(), vm: vm.to_owned() })
        }
        _ => Err("write <namespace>/<name>, as in default/testvm".to_owned()),
    }
}

/// Prints the explanation.
pub(super) async fn print(options: &GetOptions) -> anyhow::Result<()> {
    let explained: Explained = match options.source.open().await? {
        Source::Api(mut client) => client.call("ports.get", &options.vm).await?,
        Source::Databases(databases) => of_databases(&databases, &options.vm)?,
    };
    let text = match options.output {
        Some(Form::Json) => format!("{}\n", serde_json::to_string_pretty(&explained)?),
        Some(Form::Yaml) => serde_saphyr::to_string(&explained)?,
        Some(Form::Name) => {
            explained.ports.iter().filter_map(|port| port.port.as_ref()).map(|name| format!("{name}\n")).collect()
        }
        Some(Form::Wide) | None => sentences(&explained, takes_colours()),
    };
    print_text(&text)?;
    Ok(())
}

fn of_databases(databases: &Databases, VmName { namespace, vm }: &VmName) -> anyhow::Result<Explained> {
    let filter = PortFilter { namespace: Some(namespace.clone()), vm: Some(vm.clone()), ..PortFilter::default() };
    let ports = read(databases, &filter);
    if ports.is_empty() {
        let message =
            format!("The database has no port of the VM {namespace}/{vm}. Ask a service with --api: it knows why.");
        return Err(Failure::not_found(message).into());
    }
    let known = Known::Unknown("the database alone is read".to_owned());
    let explanation = explanation(&ports, &known);
    Ok(Explained {
        namespace: namespace.clone(),
        vm: vm.clone(),
        exists: None,
        ports,
        explanation,
        waits_for: Vec::new(),
    })
}

fn sentences(explained: &Explained, colours: bool) -> String {
    let (bold, plain) = if colours { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
    let mut text = format!("{bold}{}/{}{plain}\n", explained.namespace, explained.vm);
    explained.explanation.iter().for_each(|sentence| text.push_str(&format!("  {sentence}\n")));
    if !explained.waits_for.is_empty() {
        text.push_str(&format!("{bold}It is decided again when one of these happens:{plain}\n"));
        explained.waits_for.iter().for_each(|wait| text.push_str(&format!("  - {wait}\n")));
    }
    text
}
