//! The operator's policy: the flags that say what VM owners may do.

use clap::Args;

use crate::intent::{Namespaces, Permissions, Policy, Retention};

/// Options of `run` for the policy.
#[derive(Debug, Clone, Args)]
pub struct PolicyOptions {
    /// The namespaces that may use a logical switch: their names with commas between, or *. It may be given
    /// several times; the variable has semicolons between. external_ids:ovn-kubevirt.io/namespaces of the
    /// switch is stronger; any other switch is open to all
    #[arg(long, env = "OVN_KUBEVIRT_SWITCH_NAMESPACES", value_name = "SWITCH=NAMESPACES", value_delimiter = ';',
        value_parser = switch_namespaces)]
    pub switch_namespaces: Vec<SwitchNamespaces>,

    /// The requests that VM owners may make, with commas between: explicit (name an address or a pool), excluded (one
    /// that exclude_ips names), first (the first host address), port-security-off, link-local (guests use any link-local
    /// address), vips (further addresses of a guest, as in VRRP); or none.
    /// external_ids:ovn-kubevirt.io/allow of a logical switch is stronger
    #[arg(long, env = "OVN_KUBEVIRT_ALLOW", value_name = "WORD,...", default_value = "explicit", value_parser = allow)]
    pub allow: Permissions,

    /// The most ports of a namespace, those included that are retained for deleted VMs; without it there is no bound
    #[arg(long, env = "OVN_KUBEVIRT_MAX_NICS", value_name = "NUMBER")]
    pub max_nics: Option<usize>,

    /// The longest time that a VM may have its addresses stay reserved after it is deleted: a duration as in 72h,
    /// or forever. A longer --default-retain is the bound instead
    #[arg(long, env = "OVN_KUBEVIRT_MAX_RETAIN", value_name = "DURATION", default_value = "720h",
        value_parser = super::retention)]
    pub max_retain: Retention,
}

/// The namespaces that may use a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchNamespaces {
    switch: String,
    namespaces: Namespaces,
}

/// The name of a switch may have an equals sign, and that of a namespace has none.
fn switch_namespaces(text: &str) -> Result<SwitchNamespaces, String> {
    let (switch, namespaces) = text.rsplit_once('=').ok_or("write <switch>=<namespace>,<namespace>")?;
    let switch = super::switch(switch)?;
    let namespaces =
        namespaces.parse().map_err(|word| format!("{word} as the name of a namespace: write names, or *"))?;
    Ok(SwitchNamespaces { switch, namespaces })
}

fn allow(text: &str) -> Result<Permissions, String> {
    text.parse()
        .map_err(|word| format!("{word}: write words out of {}, with commas between, or none", Permissions::all()))
}

impl PolicyOptions {
    /// The policy. Several lists for one switch are one.
    pub(super) fn policy(&self) -> Policy {
        let Self { switch_namespaces, allow, max_nics, max_retain } = self.clone();
        let mut policy = Policy { allow, max_nics, max_retain, ..Policy::default() };
        for SwitchNamespaces { switch, namespaces } in switch_namespaces {
            let before = policy.switch_namespaces.remove(&switch);
            let all = match before {
                Some(before) => before.and(namespaces),
                None => namespaces,
            };
            policy.switch_namespaces.insert(switch, all);
        }
        policy
    }
}
