//! Writes the CA bundle into the two webhook configurations, if it differs.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Failed, ask};

/// A configuration of either kind.
trait Configuration: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug {
    /// The name and the client configuration of each webhook.
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Configuration for ValidatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|hook| (hook.name.as_str(), &hook.client_config)).collect()
    }
}

impl Configuration for MutatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|hook| (hook.name.as_str(), &hook.client_config)).collect()
    }
}

/// Writes the bundle into both configurations with this name. A missing one is tried again later.
pub(super) async fn announce(client: &Client, name: &str, bundle: &str) -> Result<(), Failed> {
    let validating = announce_in::<ValidatingWebhookConfiguration>(client, name, bundle).await;
    let mutating = announce_in::<MutatingWebhookConfiguration>(client, name, bundle).await;
    validating.and(mutating)
}

async fn announce_in<K: Configuration>(client: &Client, name: &str, bundle: &str) -> Result<(), Failed> {
    let api: Api<K> = Api::all(client.clone());
    let kind = K::kind(&());
    let Some(present) = ask(&format!("get {kind} {name}"), api.get_opt(name)).await? else { return Ok(()) };
    let Some(patch) = patch(&present, bundle) else { return Ok(()) };
    let (parameters, patch) = (PatchParams::default(), Patch::Strategic(patch));
    ask(&format!("patch {kind} {name}"), api.patch(name, &parameters, &patch)).await?;
    tracing::info!(%kind, name, "the webhook configuration has the CA of the webhooks");
    Ok(())
}

/// A strategic merge patch, with the names of the webhooks as keys of its lists. `None` if the bundle does not differ.
fn patch<K: Configuration>(present: &K, bundle: &str) -> Option<serde_json::Value> {
    let bundle = ByteString(bundle.as_bytes().to_vec());
    let webhooks = present.webhooks().into_iter();
    let others = webhooks.filter(|(_, config)| config.ca_bundle.as_ref() != Some(&bundle));
    let others: Vec<_> = others.map(|(name, _)| json!({"name": name, "clientConfig": {"caBundle": bundle}})).collect();
    // Conditional: otherwise a webhook that was removed in between would return incomplete.
    let version = &present.meta().resource_version;
    (!others.is_empty()).then(|| json!({"metadata": {"resourceVersion": version}, "webhooks": others}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differences_are_written_by_the_name_of_the_webhook() {
        let hook = |name: &str, bundle: serde_json::Value| {
            json!({
                "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://a/validate", "caBundle": bundle},
            })
        };
        let configuration = |webhooks: serde_json::Value| -> ValidatingWebhookConfiguration {
            let all = json!({"metadata": {"name": "a", "resourceVersion": "7"}, "webhooks": webhooks});
            serde_json::from_value(all).expect("a configuration")
        };
        let two = configuration(json!([hook("a.b.c", json!("Q0E=")), hook("d.e.f", json!(null))]));
        let expected = json!({
            "metadata": {"resourceVersion": "7"},
            "webhooks": [{"name": "d.e.f", "clientConfig": {"caBundle": "Q0E="}}],
        });
        assert_eq!(patch(&two, "CA"), Some(expected));
        assert_eq!(patch(&configuration(json!([hook("a.b.c", json!("Q0E="))])), "CA"), None);
        assert_eq!(patch(&configuration(json!(null)), "CA"), None);
    }
}
