//! The player's way to the API server: an error is a panic that names the object, a conflict is tried again.

use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{Player, eventually};

/// Where an object's status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// To the object itself. A VMI has no status subresource.
    Whole,
    /// To the status subresource.
    Status,
}

impl Player {
    pub(super) async fn get(&self, api: &Api<DynamicObject>, name: &str) -> Option<Value> {
        let found = api.get_opt(name).await;
        found.unwrap_or_else(|error| panic!("{} {name}: {error}", self.place(api))).map(value_of)
    }

    pub(super) async fn create(&self, api: &Api<DynamicObject>, object: Value) -> Value {
        let shown = object.to_string();
        let object = serde_json::from_value(object).expect("an object has metadata");
        // On a machine with much to do the API server's own admission (quotas) may be late, and creates nothing.
        let is_late = |error: &kube::Error| match error {
            kube::Error::Api(status) => status.code == 500 && status.message.ends_with("timed out"),
            _ => false,
        };
        loop {
            match api.create(&PostParams::default(), &object).await {
                Ok(created) => return value_of(created),
                Err(error) if is_late(&error) => {}
                Err(error) => panic!("{} is refused: {error}\n  {shown}", self.place(api)),
            }
        }
    }

    /// Reads, changes and writes back, again and again while another writes at the same time.
    pub(super) async fn modify(&self, api: &Api<DynamicObject>, part: Part, name: &str, change: impl Fn(&mut Value)) {
        self.modify_known(api, part, name, None, change).await;
    }

    /// The same from the object as the writer knows it, which saves the first request.
    pub(super) async fn modify_known(
        &self,
        api: &Api<DynamicObject>,
        part: Part,
        name: &str,
        mut known: Option<Value>,
        change: impl Fn(&mut Value),
    ) {
        loop {
            let read =
                async || self.get(api, name).await.unwrap_or_else(|| panic!("{} {name} is gone", self.place(api)));
            let mut object = match known.take() {
                Some(known) => known,
                None => read().await,
            };
            change(&mut object);
            let object: DynamicObject = serde_json::from_value(object).expect("an object has metadata");
            let params = PostParams::default();
            let written = match part {
                Part::Whole => api.replace(name, &params, &object).await,
                Part::Status => api.replace_status(name, &params, &object).await,
            };
            match written {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => panic!("{} {name}: {error}", self.place(api)),
            }
        }
    }

    pub(super) async fn patch(&self, api: &Api<DynamicObject>, name: &str, patch: Value) {
        let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        patched.unwrap_or_else(|error| panic!("{} {name}: {error}\n  {patch}", self.place(api)));
    }

    pub(super) async fn delete(&self, api: &Api<DynamicObject>, name: &str, params: &DeleteParams) {
        match api.delete(name, params).await {
            Ok(_) => {}
            // The garbage collector may be faster.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("{} {name} is not deleted: {error}", self.place(api)),
        }
    }

    /// Lets a deleted object go, and waits until it has gone.
    pub(super) async fn remove_finalizers(&self, api: &Api<DynamicObject>, name: &str) {
        let object = self.get(api, name).await;
        let doomed = object.unwrap_or_else(|| panic!("{} {name} is gone", self.place(api)));
        self.patch(api, name, json!({"metadata": {"finalizers": null}})).await;
        if doomed["metadata"].get("deletionTimestamp").is_none() {
            return;
        }
        eventually(&format!("{name} is gone"), async || match self.get(api, name).await {
            Some(object) if uid(&object) == uid(&doomed) => Err(object["metadata"].to_string()),
            _ => Ok(()),
        })
        .await;
    }

    fn place(&self, api: &Api<DynamicObject>) -> String {
        format!("{} of {}", api.resource_url(), self.namespace)
    }
}

/// `metadata.uid`.
pub(super) fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().expect("an object of the server has a UID").to_owned()
}

/// `metadata.name`.
pub(super) fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().expect("an object of the server has a name").to_owned()
}

/// The object as plain JSON.
pub(super) fn value_of(object: DynamicObject) -> Value {
    serde_json::to_value(object).expect("an object is JSON")
}
