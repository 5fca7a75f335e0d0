//! Requests that an operation must refuse, made from a valid one and the specification of what it takes.

use http::Method;
use serde_json::{Map, Value, json};

use super::{
    call::{Call, Content, Reply, Who},
    digest::{Authentication, Digest, Operation},
    place::Place,
    shapes::of_frame,
};

/// How deep wrong values are put into a body.
const DEPTH_MAX: usize = 5;
const LONG: usize = 70_000;
/// Longer than any identifier may be.
const LONG_ID: usize = 300;

pub struct Trial {
    pub what: String,
    pub call: Call,
    wants: Wants,
}

#[derive(Clone, Copy)]
enum Wants {
    /// Exactly this.
    Error(u16, &'static str),
    /// Success, whatever the operation wants.
    Success,
    /// Any `4xx`.
    Refusal,
    /// Anything but a failure of the server.
    Answer,
}

impl Trial {
    fn new(what: impl Into<String>, call: Call, wants: Wants) -> Self {
        Self { what: what.into(), call, wants }
    }

    /// What is wrong with the answer.
    pub fn judge(&self, reply: &Reply) -> Option<String> {
        let status = reply.status.as_u16();
        let problem = of_frame(reply).into_iter().next().or_else(|| match self.wants {
            Wants::Error(wanted, errcode) if (status, reply.errcode()) != (wanted, errcode) => {
                Some(format!("{status} {} instead of {wanted} {errcode}", reply.errcode()))
            }
            Wants::Success if !reply.status.is_success() => Some(format!("answers {status}")),
            Wants::Refusal if !reply.status.is_client_error() => Some(format!("answers {status}")),
            _ => None,
        });
        problem.map(|problem| format!("{}: {problem}", self.what))
    }
}

pub fn of(operation: &Operation, call: &Call, digest: &Digest, place: &Place) -> Vec<Trial> {
    let maker = Maker { operation, call, digest, place };
    let mut trials = maker.identities();
    trials.push(maker.wrong_method());
    trials.push(maker.preflight());
    trials.extend(maker.paths());
    trials.extend(maker.foreign());
    trials.extend(maker.queries());
    trials.extend(maker.bodies());
    trials.retain(|trial| !call.lenient.iter().any(|(beginning, _)| trial.what.starts_with(beginning)));
    trials
}

struct Maker<'a> {
    operation: &'a Operation,
    call: &'a Call,
    digest: &'a Digest,
    place: &'a Place,
}

impl Maker<'_> {
    fn with(&self, change: impl FnOnce(&mut Call)) -> Call {
        let mut call = self.call.clone();
        change(&mut call);
        call
    }

    fn identities(&self) -> Vec<Trial> {
        let as_who = |who: Who| self.with(|call| call.who = who);
        let missing = |status, errcode| {
            Trial::new("without authentication", as_who(Who::Nobody), Wants::Error(status, errcode))
        };
        let unknown = Trial::new(
            "with an unknown token",
            as_who(Who::Token("nonsense".to_owned())),
            Wants::Error(401, "M_UNKNOWN_TOKEN"),
        );
        match self.operation.authentication {
            Authentication::None => Vec::new(),
            Authentication::Optional => vec![unknown],
            Authentication::Token => vec![missing(401, "M_MISSING_TOKEN"), unknown],
            Authentication::Signature => {
                let wants = Wants::Error(401, "M_UNAUTHORIZED");
                vec![
                    missing(401, "M_UNAUTHORIZED"),
                    Trial::new("with a forged signature", as_who(Who::Forged), wants),
                ]
            }
        }
    }

    fn wrong_method(&self) -> Trial {
        let call = self.with(|call| call.method = Some(Method::PATCH));
        Trial::new("with a wrong method", call, Wants::Error(405, "M_UNRECOGNIZED"))
    }

    fn preflight(&self) -> Trial {
        let call = self.with(|call| (call.method, call.who) = (Some(Method::OPTIONS), Who::Nobody));
        Trial::new("the preflight of a browser", call, Wants::Success)
    }

    fn paths(&self) -> Vec<Trial> {
        let mut trials = Vec::new();
        for parameter in self.operation.parameters.iter().filter(|parameter| parameter.in_path) {
            let Some((name, valid)) = self.call.path.get_key_value(parameter.name.as_str()) else { continue };
            let put = |value: String| self.with(|call| drop(call.path.insert(name, value)));
            let long = "x".repeat(LONG_ID);
            if is_identifier(name) {
                let sigil = valid.chars().next().unwrap_or_default();
                trials.push(Trial::new(
                    format!("a malformed {name}"),
                    put("nonsense".into()),
                    Wants::Refusal,
                ));
                let long = format!("{sigil}{long}:here.test");
                trials.push(Trial::new(format!("a too long {name}"), put(long), Wants::Refusal));
            } else {
                trials.push(Trial::new(format!("a long {name}"), put(long), Wants::Answer));
            }
            if parameter.schema["enum"].is_array() {
                trials.push(Trial::new(format!("an unknown {name}"), put("nonsense".into()), Wants::Refusal));
            }
        }
        trials
    }

    /// What is not the user's, and what is nowhere.
    fn foreign(&self) -> Vec<Trial> {
        let mut trials = Vec::new();
        let put = |name: &'static str, value: &str| {
            self.with(|call| drop(call.path.insert(name, value.to_owned())))
        };
        if self.has("{roomId}") && !self.call.any_room {
            for (what, room) in
                [("a foreign room", self.place.foreign.as_str()), ("an unknown room", "!nowhere:here.test")]
            {
                trials.push(Trial::new(what, put("roomId", room), Wants::Refusal));
            }
        }
        let own = self.has("/user/{userId}/")
            || self.has("/typing/")
            || self.operation.method != "GET" && (self.has("/profile/") || self.has("/presence/"));
        if own && self.operation.authentication == Authentication::Token {
            trials.push(Trial::new("another user", put("userId", &self.place.bob.id), Wants::Refusal));
        }
        trials
    }

    fn has(&self, part: &str) -> bool {
        self.operation.path.contains(part)
    }

    fn queries(&self) -> Vec<Trial> {
        let mut trials = Vec::new();
        for parameter in self.operation.parameters.iter().filter(|parameter| !parameter.in_path) {
            let name = &parameter.name;
            let without = self.with(|call| call.query.retain(|(known, _)| known != name));
            if parameter.required {
                trials.push(Trial::new(format!("without ?{name}"), without.clone(), Wants::Refusal));
            }
            let wants = match parameter.schema["type"].as_str() {
                _ if parameter.schema["enum"].is_array() => Wants::Refusal,
                Some("integer" | "number" | "boolean") => Wants::Refusal,
                _ => Wants::Answer,
            };
            let mut wrong = without;
            wrong.query.push((name.clone(), "nonsense".to_owned()));
            trials.push(Trial::new(format!("?{name} of the wrong kind"), wrong, wants));
        }
        trials
    }

    fn bodies(&self) -> Vec<Trial> {
        let (Some(schema), Content::Json(body)) = (&self.operation.body, &self.call.content) else {
            return Vec::new();
        };
        let raw =
            |text: &str| self.with(|call| call.content = Content::Bytes("application/json", text.into()));
        let mut trials = vec![
            Trial::new("a body that is not JSON", raw("{"), Wants::Error(400, "M_NOT_JSON")),
            Trial::new("a body that is not text", raw("\u{0}"), Wants::Error(400, "M_NOT_JSON")),
        ];
        let mut changes = Vec::new();
        if self.digest.merged(schema)["type"] == "object" {
            changes.push(Change {
                what: "a body that is a list".into(),
                body: json!([]),
                wants: Wants::Refusal,
            });
        }
        self.change(schema, body, &mut Vec::new(), body, &mut changes);
        trials.extend(changes.into_iter().map(|change| {
            let call = self.with(|call| call.content = Content::Json(change.body));
            Trial::new(change.what, call, change.wants)
        }));
        trials
    }

    /// Every field that the schema knows, with a value of the wrong type; or left out, if it is required.
    fn change(
        &self,
        schema: &Value,
        here: &Value,
        at: &mut Vec<String>,
        whole: &Value,
        changes: &mut Vec<Change>,
    ) {
        let schema = self.digest.merged(schema);
        if at.len() > DEPTH_MAX {
            return;
        }
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for name in required.filter(|name| here.get(name).is_some()) {
            at.push(name.to_owned());
            changes.push(Change::new("without", at, whole, None, Wants::Refusal));
            at.pop();
        }
        for (name, field) in fields(&schema, here) {
            at.push(name.clone());
            let field = self.digest.merged(&field);
            if let Some(wrong) = wrong_type(&field) {
                changes.push(Change::new("the wrong type of", at, whole, Some(wrong), Wants::Refusal));
            }
            if field["enum"].is_array() && field["type"] == "string" {
                changes.push(Change::new("an unknown", at, whole, Some(json!("nonsense")), Wants::Refusal));
            }
            if here.get(&name).is_some_and(Value::is_string) {
                changes.push(Change::new("a long", at, whole, Some("x".repeat(LONG).into()), Wants::Answer));
            }
            if let Some(below) = here.get(&name) {
                self.change(&field, below, at, whole, changes);
            }
            at.pop();
        }
        if let (Some(first), true) = (here.get(0), schema["items"].is_object()) {
            at.push("0".to_owned());
            if let Some(wrong) = wrong_type(&self.digest.merged(&schema["items"])) {
                changes.push(Change::new("the wrong type of", at, whole, Some(wrong), Wants::Refusal));
            }
            self.change(&schema["items"], first, at, whole, changes);
            at.pop();
        }
    }
}

struct Change {
    what: String,
    body: Value,
    wants: Wants,
}

impl Change {
    fn new(what: &str, at: &[String], whole: &Value, value: Option<Value>, wants: Wants) -> Self {
        let mut body = whole.clone();
        put(&mut body, at, value);
        Self { what: format!("{what} {}", at.join(".")), body, wants }
    }
}

/// Puts a value, or takes one away, at a place whose parent is there.
fn put(body: &mut Value, at: &[String], value: Option<Value>) {
    let Some((last, parents)) = at.split_last() else { return };
    let parent = parents.iter().try_fold(body, |body, name| match body {
        Value::Object(object) => object.get_mut(name),
        Value::Array(list) => list.get_mut(name.parse::<usize>().ok()?),
        _ => None,
    });
    match (parent, value) {
        (Some(Value::Object(object)), Some(value)) => drop(object.insert(last.clone(), value)),
        (Some(Value::Object(object)), None) => drop(object.remove(last)),
        (Some(Value::Array(list)), Some(value)) => list[0] = value,
        _ => (),
    }
}

/// The named ones, and where any name will do, one that the valid body has.
fn fields(schema: &Value, here: &Value) -> Vec<(String, Value)> {
    let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let named: Map<String, Value> = object(&schema["properties"]);
    let mut fields: Vec<_> = named.clone().into_iter().collect();
    let patterns = object(&schema["patternProperties"]);
    let other = patterns.values().next().unwrap_or(&schema["additionalProperties"]);
    let free = here.as_object().into_iter().flatten().find(|(name, _)| !named.contains_key(*name));
    if let (true, Some((name, _))) = (other.is_object(), free) {
        fields.push((name.clone(), other.clone()));
    }
    fields
}

fn wrong_type(schema: &Value) -> Option<Value> {
    match schema["type"].as_str()? {
        "string" => Some(json!(5)),
        "integer" | "number" | "boolean" | "object" | "array" => Some(json!("nonsense")),
        _ => None,
    }
}

fn is_identifier(parameter: &str) -> bool {
    matches!(parameter, "userId" | "roomId" | "roomAlias" | "roomIdOrAlias" | "eventId")
}
