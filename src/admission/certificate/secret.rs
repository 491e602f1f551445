//! A certificate that the service makes, shared by its processes in a Secret.
//!
//! Each process reads the Secret every few seconds, and carries out the next step ([`pki::next_step`]). If two do so at
//! the same moment, the API server refuses the second, which reads the Secret again. A watch would be faster, but
//! nothing here is urgent: the time to settle is many readings long.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use super::configurations::announce;
use super::{Failed, Trouble, ask};
use crate::admission::metrics::WebhookMetrics;
use crate::admission::pki::{self, Lifetimes, Material, Step, UnixTime};
use crate::admission::tls::Certificates;

/// The label of a Secret that may be overwritten.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "ovn-kubevirt");
/// The type of the Secret, with the keys that programs expect.
const TYPE: &str = "kubernetes.io/tls";
/// The keys in its data. The first two belong to the type.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITIES: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";

/// The interval of readings, unless certificates last for minutes only.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The interval of readings while there is no certificate to show.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The number of tries in one reading, if other processes are faster.
const MOST_CONFLICTS: usize = 5;

/// The Secret, the webhook configurations, and the content of the certificate.
#[derive(Debug, Clone)]
pub struct SecretOptions {
    /// The Secret's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The names and addresses of the certificate.
    pub hosts: Vec<String>,
    /// The name of both webhook configurations.
    pub configuration: String,
    /// The lifetime of a certificate.
    pub lifetime: Duration,
}

/// Keeps the Secret, shows its certificate and announces its CA, for ever. A failure or refusal of the API server never
/// ends this: it is logged once for each new reason, and the former certificate stays.
pub async fn keep_certificate(
    client: Client,
    options: SecretOptions,
    certificates: Certificates,
    metrics: WebhookMetrics,
) {
    let pause = LONGEST_PAUSE.min(options.lifetime / 75);
    let lifetimes = Lifetimes::of_certificates(options.lifetime);
    let secrets = Api::namespaced(client.clone(), &options.namespace);
    let mut keeper = Keeper {
        client,
        secrets,
        options,
        lifetimes,
        certificates,
        metrics,
        shown: None,
        announced: String::new(),
        secret: Trouble::default(),
        announcing: Trouble::default(),
    };
    loop {
        keeper.refresh().await;
        let pause = if keeper.shown.is_some() { pause } else { FIRST_PAUSE.min(pause) };
        tokio::time::sleep(pause).await;
    }
}

struct Keeper {
    client: Client,
    secrets: Api<Secret>,
    options: SecretOptions,
    lifetimes: Lifetimes,
    certificates: Certificates,
    metrics: WebhookMetrics,
    /// The material that this process uses.
    shown: Option<Material>,
    /// The bundle that the webhook configurations have.
    announced: String,
    secret: Trouble,
    announcing: Trouble,
}

impl Keeper {
    async fn refresh(&mut self) {
        match self.kept().await {
            Ok(material) => {
                self.secret.is_over();
                self.show(material);
            }
            Err(error) => {
                let secret = self.full_name();
                if self.secret.is_news(&error) {
                    tracing::warn!(
                        secret,
                        error,
                        "the webhooks' certificate cannot be kept in its Secret; trying again"
                    );
                }
                // The Secret may have newer CAs than this process.
                return;
            }
        }
        let Some(material) = &self.shown else { return };
        match announce(&self.client, &self.options.configuration, &material.authorities).await {
            Ok(()) => {
                self.announced.clone_from(&material.authorities);
                self.announcing.is_over();
            }
            // Another client has just written: the next reading shows the result.
            Err(Failed::Conflict) => {}
            Err(Failed::Other(error)) => {
                if self.announcing.is_news(&error) {
                    tracing::warn!(
                        error,
                        configuration = self.options.configuration,
                        "the CA of the webhooks cannot be written into the webhook configurations. Check that the ClusterRole allows `get` and `patch` on those of this name (deploy/kubernetes/rbac); trying again"
                    );
                }
            }
        }
    }

    /// Returns the content of the Secret after all due steps.
    async fn kept(&self) -> Result<Material, String> {
        for _ in 0..MOST_CONFLICTS {
            match self.kept_unless_another_is_faster().await {
                Ok(material) => return Ok(material),
                Err(Failed::Conflict) => {}
                Err(Failed::Other(error)) => return Err(error),
            }
        }
        Err(format!("other programs write the Secret {} all the time", self.full_name()))
    }

    async fn kept_unless_another_is_faster(&self) -> Result<Material, Failed> {
        let (name, hint) = (
            &self.options.name,
            "Check that the Role allows `create` on Secrets, and `get` and `update` on this one (deploy/kubernetes/rbac)",
        );
        let hinted = |failed| match failed {
            Failed::Conflict => Failed::Conflict,
            Failed::Other(error) => Failed::Other(format!("{error}. {hint}")),
        };
        let present = ask(&format!("get secret {name}"), self.secrets.get_opt(name)).await.map_err(hinted)?;
        if present.as_ref().is_some_and(|secret| !is_ours(secret)) {
            let (key, value) = MANAGED_BY;
            return Err(Failed::Other(format!(
                "the Secret {} does not belong to this service: it lacks the label {key}={value}. Delete it, or name another with --webhook-secret",
                self.full_name()
            )));
        }
        // A deleted Secret is restored.
        let material = present.as_ref().map(read).or_else(|| self.shown.clone());
        let now = now();
        let step = pki::next_step(material.as_ref(), &self.announced, &self.options.hosts, &self.lifetimes, now);
        let failed =
            |error: pki::PkiError| Failed::Other(format!("{error}. Check --webhook-host and --webhook-service"));
        let made =
            pki::carry_out(&step, material.as_ref(), &self.options.hosts, &self.lifetimes, now).map_err(failed)?;
        let wanted = match (made, &present, material) {
            (Some(made), ..) => made,
            (None, Some(_), Some(material)) => return Ok(material),
            (None, _, material) => material.unwrap_or_default(),
        };
        let written = self.write(present, &wanted);
        written.await.map_err(hinted)?;
        self.log(&step);
        Ok(wanted)
    }

    async fn write(&self, present: Option<Secret>, material: &Material) -> Result<(), Failed> {
        let (name, parameters) = (&self.options.name, PostParams::default());
        match present {
            None => {
                let metadata = ObjectMeta {
                    name: Some(name.clone()),
                    labels: Some([MANAGED_BY, ("app.kubernetes.io/name", MANAGED_BY.1)].map(owned).into()),
                    ..ObjectMeta::default()
                };
                let secret =
                    Secret { metadata, type_: Some(TYPE.to_owned()), data: Some(data(material)), ..Secret::default() };
                ask(&format!("create secret {name}"), self.secrets.create(&parameters, &secret)).await?;
            }
            // With the resourceVersion that was read.
            Some(mut secret) => {
                secret.data = Some(data(material));
                ask(&format!("update secret {name}"), self.secrets.replace(name, &parameters, &secret)).await?;
            }
        }
        Ok(())
    }

    fn show(&mut self, material: Material) {
        if self.shown.as_ref() == Some(&material) {
            return;
        }
        if let Err(error) = self.certificates.show(material.certificate.as_bytes(), material.key.as_bytes()) {
            tracing::warn!(secret = self.full_name(), %error, "the webhooks' certificate cannot be shown");
            return;
        }
        self.metrics.certificate_expires(pki::expires_at(material.certificate.as_bytes()));
        self.shown = Some(material);
    }

    fn log(&self, step: &Step) {
        let secret = self.full_name();
        match step {
            Step::Keep => {
                tracing::warn!(secret, "the Secret of the webhooks' certificate was deleted, and has been restored")
            }
            Step::Renew(reason) => tracing::info!(secret, reason, "the webhooks have a new certificate"),
            Step::Announce(reason) => {
                tracing::info!(secret, reason, "the webhooks have a new CA, which issues once it is known");
            }
            Step::Make(reason) => tracing::info!(secret, reason, "the webhooks have a new CA and a new certificate"),
        }
    }

    fn full_name(&self) -> String {
        format!("{}/{}", self.options.namespace, self.options.name)
    }
}

fn is_ours(secret: &Secret) -> bool {
    let (key, value) = MANAGED_BY;
    secret.metadata.labels.as_ref().and_then(|labels| labels.get(key)).is_some_and(|label| label == value)
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

fn read(secret: &Secret) -> Material {
    let text = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
        String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
    };
    Material {
        authorities: text(AUTHORITIES),
        authority_key: text(AUTHORITY_KEY),
        certificate: text(CERTIFICATE),
        key: text(KEY),
    }
}

fn data(material: &Material) -> BTreeMap<String, ByteString> {
    let Material { authorities, authority_key, certificate, key } = material;
    let all = [(AUTHORITIES, authorities), (AUTHORITY_KEY, authority_key), (CERTIFICATE, certificate), (KEY, key)];
    all.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.as_bytes().to_vec()))).collect()
}

fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime::try_from(since.as_secs()).unwrap_or(UnixTime::MAX)
}
