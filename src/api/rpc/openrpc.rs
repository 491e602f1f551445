//! The OpenRPC document (<https://spec.open-rpc.org>), made from the table of methods and the types of their values.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::failure::{FailureData, Reason};
use super::method::{Method, Subscription, Visitor};
use super::methods::visit;

/// The document as it is served, and as `docs/openrpc.json` has it.
pub fn document() -> String {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut documenter = Documenter { generator: settings.into_generator(), methods: Vec::new() };
    visit(&mut documenter);
    let Documenter { mut generator, methods } = documenter;
    let data = generator.subschema_for::<FailureData>();
    let errors: Map<String, Value> =
        Reason::ALL.into_iter().map(|reason| (name(reason), error(reason, &data))).collect();
    let schemas = generator.take_definitions(true);
    let document = json!({
        "openrpc": "1.3.2",
        "info": {
            "title": "ovn-kubevirt",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The API for operators. Parameters are given by name. Members that are absent are left out.",
            "license": {"name": "Apache-2.0"},
        },
        "methods": methods,
        "components": {"schemas": schemas, "errors": errors},
    });
    // A map of strings to values has no value that cannot be written.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

struct Documenter {
    generator: SchemaGenerator,
    methods: Vec<Value>,
}

impl Documenter {
    fn params<P: schemars::JsonSchema>(&mut self) -> Vec<Value> {
        let schema = P::json_schema(&mut self.generator);
        let members = schema.as_value().get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        let required = schema.as_value().get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        let param = |(name, schema): (String, Value)| {
            let mut schema = schema;
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            json!({"name": name, "description": description, "required": required.contains(&json!(name)), "schema": schema})
        };
        members.into_iter().map(param).collect()
    }
}

impl Visitor for Documenter {
    fn method<M: Method>(&mut self) {
        let params = self.params::<M::Params>();
        let answer = self.generator.subschema_for::<M::Answer>();
        self.methods.push(json!({
            "name": M::NAME,
            "summary": M::SUMMARY,
            "paramStructure": "by-name",
            "params": params,
            "result": {"name": "result", "schema": answer},
            "errors": errors(M::ERRORS),
        }));
    }

    fn subscription<S: Subscription>(&mut self) {
        let [subscribe, unsubscribe, changed] = S::NAMES;
        let params = self.params::<S::Params>();
        let message = self.generator.subschema_for::<S::Message>();
        let id = json!({"oneOf": [{"type": "integer"}, {"type": "string"}]});
        self.methods.push(json!({
            "name": subscribe,
            "summary": S::SUMMARY,
            "paramStructure": "by-name",
            "params": params,
            "result": {"name": "subscription", "schema": id},
            "errors": errors(S::ERRORS),
            "x-notification": {"name": changed, "schema": message},
        }));
        self.methods.push(json!({
            "name": unsubscribe,
            "summary": format!("Ends a subscription of {subscribe}."),
            "paramStructure": "by-position",
            "params": [{"name": "subscription", "required": true, "schema": id}],
            "result": {"name": "ended", "schema": {"type": "boolean"}},
        }));
    }
}

fn name(reason: Reason) -> String {
    serde_json::to_value(reason).ok().and_then(|name| name.as_str().map(ToOwned::to_owned)).unwrap_or_default()
}

fn errors(reasons: &[Reason]) -> Vec<Value> {
    let all = std::iter::once(&Reason::InvalidParams).chain(reasons);
    all.map(|reason| json!({"$ref": format!("#/components/errors/{}", name(*reason))})).collect()
}

fn error(reason: Reason, data: &schemars::Schema) -> Value {
    json!({"code": reason.code(), "message": reason.summary(), "data": {"reason": name(reason)}, "x-data": data})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_in_docs_is_that_of_the_code() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openrpc.json");
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        if std::env::var_os("OVN_KUBEVIRT_WRITE_DOCS").is_some() {
            std::fs::write(&path, document()).expect("docs/openrpc.json");
        } else {
            let hint = "run again with OVN_KUBEVIRT_WRITE_DOCS=1, and commit the file";
            assert!(committed == document(), "docs/openrpc.json differs from the code: {hint}");
        }
    }

    #[test]
    fn every_parameter_and_every_member_is_described() {
        let document: Value = serde_json::from_str(&document()).expect("JSON");
        for method in document["methods"].as_array().expect("methods") {
            for param in method["params"].as_array().expect("params") {
                let is_described = param["description"].is_string() || param["name"] == "subscription";
                assert!(is_described, "{param} of {}", method["name"]);
            }
        }
        for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
            assert!(schema["description"].is_string(), "{name}");
            for (member, schema) in schema["properties"].as_object().into_iter().flatten() {
                assert!(
                    schema["description"].is_string() || schema["const"].is_string(),
                    "{member} of {name}: {schema}"
                );
            }
        }
    }
}
