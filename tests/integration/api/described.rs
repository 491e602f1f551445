//! The OpenRPC document compared with the service: every method, and every member of real answers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{API, IP_ADDRESS, call, client, refused};
use crate::support::{Stage, VmOptions};

/// Checks a value against a schema of the document. It knows the words that the document has, and panics at others.
fn check(document: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let Some(schema) = schema.as_object() else { return Ok(()) };
    let wrong = |what: &str| Err(format!("{place}: {what}: {value}"));
    for (word, rule) in schema {
        match word.as_str() {
            "$ref" => {
                let path = rule.as_str().and_then(|path| path.strip_prefix('#')).expect("a path");
                let found = document.pointer(path).unwrap_or_else(|| panic!("{path} is not in the document"));
                check(document, found, value, place)?;
            }
            "type" => {
                let is = |kind: &str| match kind {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    kind => panic!("the type {kind}"),
                };
                let kinds = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                if !kinds.iter().any(|kind| kind.as_str().is_some_and(is)) {
                    return wrong("another type");
                }
            }
            "properties" => {
                for (name, schema) in rule.as_object().expect("properties") {
                    if let Some(value) = value.get(name) {
                        check(document, schema, value, &format!("{place}.{name}"))?;
                    }
                }
            }
            "required" => {
                let missing = rule
                    .as_array()
                    .expect("names")
                    .iter()
                    .find(|name| value.get(name.as_str().expect("a name")).is_none());
                if let Some(missing) = missing {
                    return wrong(&format!("{missing} is missing"));
                }
            }
            "additionalProperties" if *rule == json!(false) => {
                let known = schema.get("properties").and_then(Value::as_object);
                let unknown = value.as_object().and_then(|members| {
                    members.keys().find(|name| known.is_none_or(|known| !known.contains_key(*name)))
                });
                if let Some(unknown) = unknown {
                    return wrong(&format!("{unknown} is not described"));
                }
            }
            "additionalProperties" if rule.is_object() => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    check(document, rule, value, &format!("{place}.{name}"))?;
                }
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    check(document, rule, value, &format!("{place}[{index}]"))?;
                }
            }
            "enum" if !rule.as_array().is_some_and(|all| all.contains(value)) => return wrong("not in the list"),
            "const" if rule != value => return wrong("another constant"),
            "allOf" => {
                for schema in rule.as_array().expect("schemas") {
                    check(document, schema, value, place)?;
                }
            }
            "oneOf" | "anyOf" => {
                let tried: Vec<_> = rule
                    .as_array()
                    .expect("schemas")
                    .iter()
                    .map(|schema| check(document, schema, value, place))
                    .collect();
                if tried.iter().all(Result::is_err) {
                    return wrong(&format!("none of {tried:?}"));
                }
            }
            "enum"
            | "const"
            | "additionalProperties"
            | "description"
            | "format"
            | "minimum"
            | "maximum"
            | "default" => {}
            word => panic!("the document has the word {word}, which this test does not know"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_method_is_served_and_every_member_of_its_answer_is_described() {
    let stage = Stage::build("api-described").flags(API).flags(["--max-retain", "forever"]).start().await;
    let document: Value = {
        let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openrpc.json"))
            .expect("docs/openrpc.json");
        serde_json::from_str(&committed).expect("JSON")
    };
    let ns = stage.namespace.name.clone();
    for vm in ["a", "kept"] {
        stage.player.create_vm(vm, VmOptions::default().annotation(super::RETAIN, "forever")).await;
        stage.port(vm).await;
    }
    stage.player.create_vm("b", VmOptions::default().annotation(IP_ADDRESS, "10.16.0.2")).await;
    stage.event("b", "AddressConflict", &[]).await;
    stage.player.delete_vm("kept").await;
    stage.port_where("kept", "is retained", |port| port.external_id("ovn-kubevirt.io/retained-until").is_some()).await;
    stage.player.start("a", "n1").await;
    stage.player.start_migration("a", "n2").await;
    stage.player.edit_template_annotation("a", IP_ADDRESS, Some("10.16.0.77")).await;
    stage
        .port_where("a", "has a reservation", |port| port.external_id("ovn-kubevirt.io/next-addresses").is_some())
        .await;
    let mut object = crate::support::objects::vm("new", &VmOptions::default());
    object["metadata"]["namespace"] = ns.clone().into();
    let calls = [
        ("ports.list", json!({})),
        ("ports.get", json!({"namespace": ns, "vm": "b"})),
        ("switches.list", json!({})),
        ("switches.map", json!({"switch": "ovn-default", "to": "10.16.0.255"})),
        ("migrations.list", json!({})),
        ("decide", json!({"object": object})),
        ("status", json!({})),
        ("log.setLevel", json!({"filter": "info,ovn_kubevirt=debug"})),
        ("leases.release", json!({"namespace": ns, "vm": "kept"})),
        ("ports.subscribe", json!({})),
        ("ports.unsubscribe", json!([0])),
    ];
    let methods = document["methods"].as_array().expect("methods");
    let described: BTreeSet<&str> = methods.iter().map(|method| method["name"].as_str().expect("a name")).collect();
    assert_eq!(described, calls.iter().map(|(name, _)| *name).collect());
    let mut api = client(&stage.service).await;
    for (name, params) in &calls {
        let answer = call(&mut api, name, params.clone()).await;
        let method = methods.iter().find(|method| method["name"] == *name).expect("a method");
        let checked = check(&document, &method["result"]["schema"], &answer, name);
        assert_eq!(checked, Ok(()), "{answer:#}");
        if *name == "ports.subscribe" {
            let message: Value = api.message().await.expect("a message");
            assert_eq!(check(&document, &method["x-notification"]["schema"], &message, "message"), Ok(()));
        }
    }
    assert_eq!(refused(&mut api, "ports.none", json!({})).await.0, -32601);
    // A member that the document lacks is found.
    let page = json!({"ports": [], "more": 1});
    assert!(check(&document, &json!({"$ref": "#/components/schemas/PortPage"}), &page, "page").is_err());
}
