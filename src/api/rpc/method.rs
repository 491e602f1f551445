//! The form of a method, and how its parameters are read.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use jsonrpsee::types::Params;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::failure::{Failure, Reason};
use super::sources::Api;
use crate::escaped::{Escaped, EscapedError};

/// A method.
pub(super) trait Method: 'static {
    /// Its name.
    const NAME: &'static str;
    /// What it does, in a sentence.
    const SUMMARY: &'static str;
    /// The errors of our own that it may answer, beside [`Reason::InvalidParams`].
    const ERRORS: &'static [Reason];
    /// Its parameters, by name.
    type Params: DeserializeOwned + JsonSchema + Send + 'static;
    /// Its answer.
    type Answer: Serialize + JsonSchema + Clone + Send + 'static;

    /// Answers a call.
    fn call(api: Arc<Api>, params: Self::Params) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;
}

/// A subscription.
pub(super) trait Subscription: 'static {
    /// The names of the method, of the method that ends it, and of its notifications.
    const NAMES: [&'static str; 3];
    /// What it does, in a sentence.
    const SUMMARY: &'static str;
    /// The errors of our own that it may answer, beside [`Reason::InvalidParams`].
    const ERRORS: &'static [Reason];
    /// Its parameters, by name.
    type Params: DeserializeOwned + JsonSchema + Send + 'static;
    /// A message.
    type Message: JsonSchema;
}

/// Visits every method.
pub(super) trait Visitor {
    /// Visits a method.
    fn method<M: Method>(&mut self);
    /// Visits the subscription of ports.
    fn subscription<S: Subscription>(&mut self);
}

/// The names of a method's parameters.
pub(super) struct Known(BTreeSet<String>);

impl Known {
    /// The names in the schema of the parameters.
    pub(super) fn of<P: JsonSchema>() -> Self {
        let schema = schemars::schema_for!(P);
        let properties = schema.as_value().get("properties").and_then(Value::as_object);
        Self(properties.into_iter().flat_map(Map::keys).cloned().collect())
    }

    /// Reads parameters: an object, or nothing.
    pub(super) fn read<P: DeserializeOwned>(&self, params: &Params<'_>) -> Result<P, Failure> {
        let given = params.as_str().unwrap_or("{}");
        let given: Value = serde_json::from_str(given).map_err(|error| Failure::invalid(error.to_string()))?;
        let given = match given {
            Value::Object(given) => given,
            Value::Null => Map::new(),
            Value::Array(given) if given.is_empty() => Map::new(),
            _ => return Err(Failure::invalid(format!("The parameters have no names. Write an object with {self}."))),
        };
        if let Some(unknown) = given.keys().find(|name| !self.0.contains(*name)) {
            return Err(Failure::invalid(format!(
                "There is no parameter \"{}\". Write an object with {self}.",
                Escaped(unknown)
            )));
        }
        serde_json::from_value(Value::Object(given)).map_err(|error| {
            let error = error.to_string();
            Failure::invalid(format!(
                "The parameters cannot be read: {}. docs/openrpc.json describes them.",
                EscapedError(&error)
            ))
        })
    }
}

impl std::fmt::Display for Known {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.0.iter().map(String::as_str).collect();
        match names.as_slice() {
            [] => formatter.write_str("no members"),
            names => write!(formatter, "any of the members {}", names.join(", ")),
        }
    }
}
