//! The digest of the specification (`crates/testkit/spec/digest.json`, written by `cargo xtask spec`), as tests read it.

use serde_json::{Map, Value};

const DIGEST: &str = include_str!("../../../spec/digest.json");
/// Definitions are nested no deeper than this.
const REFERENCES_MAX: usize = 16;

pub struct Digest {
    pub client_server: Vec<Operation>,
    pub server_server: Vec<Operation>,
    /// By event type: the schemas of `content` and `state_key`.
    pub events: Map<String, Value>,
    pub definitions: Map<String, Value>,
}

pub struct Operation {
    pub id: String,
    pub method: String,
    pub path: String,
    pub authentication: Authentication,
    pub parameters: Vec<Parameter>,
    /// The schema of the JSON body.
    pub body: Option<Value>,
    /// Schemas by status and content type.
    pub responses: Map<String, Value>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Authentication {
    None,
    Optional,
    Token,
    Signature,
}

pub struct Parameter {
    pub name: String,
    pub in_path: bool,
    pub required: bool,
    pub schema: Value,
}

impl Digest {
    pub fn read() -> Self {
        let mut digest: Value = serde_json::from_str(DIGEST).expect("the digest is JSON");
        let mut map = |part: &str| match digest[part].take() {
            Value::Object(map) => map,
            _ => panic!("the digest has no {part}"),
        };
        let (events, definitions) = (map("events"), map("definitions"));
        let operations = |part: &str, signed: bool| {
            let operations = digest[part].as_array().expect("operations").iter();
            operations.map(|operation| Operation::read(operation, signed)).collect()
        };
        Self {
            client_server: operations("client-server", false),
            server_server: operations("server-server", true),
            events,
            definitions,
        }
    }

    /// A schema without a reference at its top, and what it is made of as one.
    pub fn merged(&self, schema: &Value) -> Value {
        let mut merged = self.resolved(schema).clone();
        let parts = merged.as_object_mut().and_then(|schema| schema.remove("allOf"));
        for part in parts.as_ref().and_then(Value::as_array).into_iter().flatten() {
            merge(&mut merged, self.merged(part));
        }
        merged
    }

    fn resolved<'a>(&'a self, mut schema: &'a Value) -> &'a Value {
        for _ in 0..REFERENCES_MAX {
            let Some(name) = reference(schema) else { return schema };
            schema = &self.definitions[name];
        }
        panic!("definitions refer to each other in a circle")
    }

    /// A schema with the definitions that it needs.
    pub fn document(&self, schema: &Value) -> Value {
        let mut needed = Map::new();
        self.collect(schema, &mut needed);
        let mut document = schema.clone();
        document["definitions"] = Value::Object(needed);
        document
    }

    fn collect(&self, value: &Value, needed: &mut Map<String, Value>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.collect(value, needed)),
            Value::Object(object) => {
                if let Some(name) = reference(value).filter(|name| !needed.contains_key(*name)) {
                    let definition = self.definitions[name].clone();
                    needed.insert(name.to_owned(), definition.clone());
                    self.collect(&definition, needed);
                }
                object.values().for_each(|value| self.collect(value, needed));
            }
            _ => (),
        }
    }
}

fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix("#/definitions/")
}

fn merge(into: &mut Value, part: Value) {
    let Value::Object(part) = part else { return };
    for (key, value) in part {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(known)), Value::Object(more)) => known.extend(more),
            (Some(Value::Array(known)), Value::Array(more)) => known.extend(more),
            (Some(_), _) => (),
            (None, value) => into[key] = value,
        }
    }
}

impl Operation {
    fn read(operation: &Value, signed: bool) -> Self {
        let text = |field: &str| operation[field].as_str().expect("text").to_owned();
        let parameters = operation["parameters"].as_array().expect("parameters").iter();
        Self {
            id: text("id"),
            method: text("method"),
            path: text("path"),
            authentication: authentication(&text("authentication"), signed),
            parameters: parameters.filter_map(Parameter::read).collect(),
            body: operation["body"]["content"].get("application/json").cloned(),
            responses: operation["responses"].as_object().expect("responses").clone(),
        }
    }

    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

impl Parameter {
    fn read(parameter: &Value) -> Option<Self> {
        let place = parameter["in"].as_str().filter(|place| matches!(*place, "path" | "query"))?;
        Some(Self {
            name: parameter["name"].as_str()?.to_owned(),
            in_path: place == "path",
            required: parameter["required"] == true,
            schema: parameter["schema"].clone(),
        })
    }
}

/// Schemes are those of the text of the specification: its files name another one in two places.
fn authentication(scheme: &str, signed: bool) -> Authentication {
    match (scheme, signed) {
        ("none", _) => Authentication::None,
        (_, true) => Authentication::Signature,
        ("accessTokenBearer" | "appserviceAccessTokenBearer", false) => Authentication::Token,
        ("accessTokenBearer?" | "signedRequest", false) => Authentication::Optional,
        (other, false) => panic!("an unknown scheme: {other}"),
    }
}
