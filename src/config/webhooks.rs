//! Flags of the admission webhooks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{is_label, is_name};
use crate::admission::{CertificateFiles, ReviewOptions, SecretOptions};
use crate::contract::NadKey;
use crate::intent::Retention;

/// Options of the admission webhooks.
#[derive(Debug, Clone, Args)]
pub struct WebhookOptions {
    /// The address for the admission webhooks, over TLS; by default there are no webhooks. Port 0 takes a free one
    #[arg(long, env = "OVN_KUBEVIRT_WEBHOOKS", value_name = "ADDRESS:PORT")]
    pub webhooks: Option<SocketAddr>,

    /// The webhooks' certificate, made by another program such as cert-manager, which then also writes the CA into the
    /// webhook configurations. It is read again after a change. By default the service makes certificates itself
    #[arg(long, env = "OVN_KUBEVIRT_WEBHOOK_CERT", value_name = "FILE", requires = "webhook_key")]
    pub webhook_cert: Option<PathBuf>,

    /// The key of --webhook-cert
    #[arg(long, env = "OVN_KUBEVIRT_WEBHOOK_KEY", value_name = "FILE", requires = "webhook_cert")]
    pub webhook_key: Option<PathBuf>,

    /// The Secret in the service's own namespace through which the processes of an installation share their certificate
    #[arg(long, env = "OVN_KUBEVIRT_WEBHOOK_SECRET", value_name = "NAME", default_value = "ovn-kubevirt-webhook",
        value_parser = name)]
    pub webhook_secret: String,

    /// The Service through which the API server reaches the webhooks, by default in the service's own namespace: the
    /// certificate names it
    #[arg(long, env = "OVN_KUBEVIRT_WEBHOOK_SERVICE", value_name = "NAME[.NAMESPACE]", default_value = "ovn-kubevirt",
        value_parser = service)]
    pub webhook_service: ServiceName,

    /// Another name or IP address in the certificate, for webhooks that the API server calls by URL; several
    /// comma-separated
    #[arg(long, env = "OVN_KUBEVIRT_WEBHOOK_HOST", value_name = "HOST,...", value_delimiter = ',', value_parser = host)]
    pub webhook_host: Vec<String>,

    /// The name of the ValidatingWebhookConfiguration and of the MutatingWebhookConfiguration that get the CA
    #[arg(long, env = "OVN_KUBEVIRT_WEBHOOK_CONFIGURATION", value_name = "NAME", default_value = "ovn-kubevirt",
        value_parser = name)]
    pub webhook_configuration: String,

    /// The namespace of KubeVirt: its service account kubevirt-controller makes launcher pods, and no other user may
    #[arg(long, env = "OVN_KUBEVIRT_KUBEVIRT_NAMESPACE", value_name = "NAMESPACE", default_value = "kubevirt",
        value_parser = namespace)]
    pub kubevirt_namespace: String,

    /// Other users that may make launcher pods, by their full names as in
    /// system:serviceaccount:backup:restore; several comma-separated
    #[arg(long, env = "OVN_KUBEVIRT_LAUNCHER_CREATORS", value_name = "USER,...", value_delimiter = ',')]
    pub launcher_creators: Vec<String>,

    /// The NetworkAttachmentDefinition that replaces the pod network in launcher pods, so that Multus plugs their
    /// first interface into OVN; by default the cluster's own CNI makes that interface
    #[arg(long, env = "OVN_KUBEVIRT_DEFAULT_NETWORK", value_name = "NAMESPACE/NAME", value_parser = nad)]
    pub default_network: Option<NadKey>,

    /// The lifetime of a certificate, which is renewed after two thirds of it. Its CA lasts ten times as long
    #[arg(long, env = "OVN_KUBEVIRT_WEBHOOK_CERTIFICATE_LIFETIME", value_name = "DURATION", default_value = "8760h",
        value_parser = lifetime, hide = true)]
    pub webhook_certificate_lifetime: Duration,
}

fn namespace(text: &str) -> Result<String, String> {
    if is_label(text) { Ok(text.to_owned()) } else { Err("write the name of a namespace, as in kubevirt".to_owned()) }
}

fn nad(text: &str) -> Result<NadKey, String> {
    match text.split_once('/') {
        Some((namespace, name)) if is_label(namespace) && is_name(name) => Ok(NadKey::new(namespace, name)),
        _ => Err("write <namespace>/<name>, as in kube-system/ovn-primary".to_owned()),
    }
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceName {
    /// Its name.
    pub name: String,
    /// Its namespace; `None` for the service's own.
    pub namespace: Option<String>,
}

impl ServiceName {
    /// The names of the Service in the certificate.
    pub fn hosts(&self, own_namespace: &str) -> [String; 2] {
        let namespace = self.namespace.as_deref().unwrap_or(own_namespace);
        ["svc", "svc.cluster.local"].map(|domain| format!("{}.{namespace}.{domain}", self.name))
    }
}

impl WebhookOptions {
    /// The settings for launcher pods. `every_namespace`: no namespace is left out by a selector.
    pub fn review(&self, every_namespace: bool) -> ReviewOptions {
        ReviewOptions {
            every_namespace,
            kubevirt_namespace: self.kubevirt_namespace.clone(),
            launcher_creators: self.launcher_creators.clone(),
            default_network: self.default_network.clone(),
        }
    }

    /// The files of a certificate made by another program.
    pub fn files(&self) -> Option<CertificateFiles> {
        let (certificate, key) = self.webhook_cert.clone().zip(self.webhook_key.clone())?;
        Some(CertificateFiles { certificate, key, owner: "the webhooks", flags: ["--webhook-cert", "--webhook-key"] })
    }

    /// The Secret of a certificate made by the service.
    pub fn secret(&self, own_namespace: &str) -> SecretOptions {
        SecretOptions {
            namespace: own_namespace.to_owned(),
            name: self.webhook_secret.clone(),
            hosts: self.hosts(own_namespace),
            configuration: self.webhook_configuration.clone(),
            lifetime: self.webhook_certificate_lifetime,
        }
    }

    /// All names and addresses in a certificate.
    pub fn hosts(&self, own_namespace: &str) -> Vec<String> {
        self.webhook_service.hosts(own_namespace).into_iter().chain(self.webhook_host.iter().cloned()).collect()
    }
}

fn name(text: &str) -> Result<String, String> {
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("write the name of a Kubernetes object, as in ovn-kubevirt".to_owned()),
    }
}

fn service(text: &str) -> Result<ServiceName, String> {
    let (name, namespace) = match text.split_once('.') {
        Some((name, namespace)) => (name, Some(namespace)),
        None => (text, None),
    };
    if !is_label(name) || namespace.is_some_and(|namespace| !is_label(namespace)) {
        return Err("write <name> or <name>.<namespace>, as in ovn-kubevirt.ovn".to_owned());
    }
    Ok(ServiceName { name: name.to_owned(), namespace: namespace.map(ToOwned::to_owned) })
}

fn host(text: &str) -> Result<String, String> {
    match text.parse::<std::net::IpAddr>().is_ok() || is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("write a host's name or IP address, as in webhooks.example or 192.0.2.1".to_owned()),
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(Retention::For(lifetime)) if (SHORTEST_LIFETIME..=LONGEST_LIFETIME).contains(&lifetime) => Ok(lifetime),
        _ => Err("write a duration from 15s to 87600h".to_owned()),
    }
}

/// A shorter one would be renewed before the API server knows its predecessor.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(15);
const LONGEST_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Run {
        #[command(flatten)]
        options: WebhookOptions,
    }

    fn run(arguments: &[&str]) -> Result<WebhookOptions, String> {
        let arguments = [&["run"], arguments].concat();
        Run::try_parse_from(arguments).map(|run| run.options).map_err(|error| error.to_string())
    }

    #[test]
    fn a_certificate_names_the_service_and_the_other_hosts() {
        let hosts = |arguments: &[&str]| run(arguments).expect("options").hosts("ovn");
        assert_eq!(hosts(&[]), ["ovn-kubevirt.ovn.svc", "ovn-kubevirt.ovn.svc.cluster.local"]);
        let named = hosts(&["--webhook-service", "a.b", "--webhook-host=1.2.3.4,c.d", "--webhook-host", "::1"]);
        assert_eq!(named, ["a.b.svc", "a.b.svc.cluster.local", "1.2.3.4", "c.d", "::1"]);
    }

    #[test]
    fn invalid_names_are_refused_by_their_flag() {
        for (flag, bad) in [
            ("--webhook-service", "a.b.c"),
            ("--webhook-service", "A"),
            ("--webhook-service", "a."),
            ("--webhook-host", "a b"),
            ("--webhook-host", "-a"),
            ("--webhook-secret", "a/b"),
            ("--webhook-configuration", ""),
            ("--webhook-certificate-lifetime", "1s"),
            ("--webhook-certificate-lifetime", "forever"),
        ] {
            let error = run(&[&format!("{flag}={bad}")]).expect_err(bad);
            assert!(error.contains(flag), "{error}");
        }
        let error = run(&["--webhook-cert", "a"]).expect_err("no key");
        assert!(error.contains("--webhook-key"), "{error}");
    }
}
