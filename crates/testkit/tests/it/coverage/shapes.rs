//! Answers held against the schemas of the specification, with the events that are in them.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use http::header;
use jsonschema::{Draft, Validator};
use ruma::{OwnedEventId, OwnedMxcUri, OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId};
use serde_json::Value;

use super::{
    call::{Call, Reply},
    digest::{Digest, Operation},
};

/// Every errcode that the specification names.
const ERRCODES: &[&str] = &[
    "M_ALREADY_ANNOTATED",
    "M_BAD_ALIAS",
    "M_BAD_JSON",
    "M_BAD_STATE",
    "M_BAD_STATUS",
    "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM",
    "M_CANNOT_OVERWRITE_MEDIA",
    "M_CAPTCHA_INVALID",
    "M_CAPTCHA_NEEDED",
    "M_CONNECTION_FAILED",
    "M_CONNECTION_TIMEOUT",
    "M_DUPLICATE_ANNOTATION",
    "M_EXCLUSIVE",
    "M_FORBIDDEN",
    "M_GUEST_ACCESS_FORBIDDEN",
    "M_INCOMPATIBLE_ROOM_VERSION",
    "M_INVALID_PARAM",
    "M_INVALID_ROOM_STATE",
    "M_INVALID_SIGNATURE",
    "M_INVALID_USERNAME",
    "M_INVITE_BLOCKED",
    "M_KEY_TOO_LARGE",
    "M_LIMIT_EXCEEDED",
    "M_MISSING_PARAM",
    "M_MISSING_TOKEN",
    "M_NOT_FOUND",
    "M_NOT_JSON",
    "M_NOT_YET_UPLOADED",
    "M_PROFILE_TOO_LARGE",
    "M_RESOURCE_LIMIT_EXCEEDED",
    "M_ROOM_IN_USE",
    "M_SERVER_NOT_TRUSTED",
    "M_THREEPID_AUTH_FAILED",
    "M_THREEPID_DENIED",
    "M_THREEPID_IN_USE",
    "M_THREEPID_MEDIUM_NOT_SUPPORTED",
    "M_THREEPID_NOT_FOUND",
    "M_TOO_LARGE",
    "M_UNABLE_TO_AUTHORISE_JOIN",
    "M_UNABLE_TO_GRANT_JOIN",
    "M_UNAUTHORIZED",
    "M_UNKNOWN",
    "M_UNKNOWN_DEVICE",
    "M_UNKNOWN_TOKEN",
    "M_UNRECOGNIZED",
    "M_UNSUPPORTED_ROOM_VERSION",
    "M_URL_NOT_SET",
    "M_USER_DEACTIVATED",
    "M_USER_IN_USE",
    "M_USER_LOCKED",
    "M_USER_SUSPENDED",
    "M_WEAK_PASSWORD",
    "M_WRONG_ROOM_KEYS_VERSION",
];
/// Of one answer.
const PROBLEMS_MAX: usize = 4;

pub struct Shapes {
    pub digest: Digest,
    /// Compiled schemas of event contents.
    contents: RefCell<BTreeMap<String, Rc<Validator>>>,
}

impl Shapes {
    pub fn new() -> Self {
        Self { digest: Digest::read(), contents: RefCell::default() }
    }

    /// What is wrong with the answer to a valid call.
    pub fn of_answer(&self, operation: &Operation, call: &Call, reply: &Reply) -> Vec<String> {
        let mut problems = of_frame(reply);
        if reply.status.is_success() || reply.status.is_redirection() {
            problems.extend(self.of_success(operation, reply));
        } else if reply.errcode() != call.errcode {
            problems.push(format!("{} instead of {}", reply.errcode(), call.errcode));
        }
        problems.truncate(PROBLEMS_MAX);
        problems
    }

    fn of_success(&self, operation: &Operation, reply: &Reply) -> Vec<String> {
        let Some(media) = operation.responses.get(reply.status.as_str()).and_then(Value::as_object) else {
            return vec![format!("the specification has no answer {}", reply.status.as_u16())];
        };
        let Some(schema) = media.get("application/json") else { return Vec::new() };
        let validator = self.compile(schema);
        let mut problems: Vec<_> = validator
            .iter_errors(&reply.json)
            .map(|error| format!("`{}`: {}", error.instance_path(), short(&error.to_string())))
            .collect();
        self.of_events(&reply.json, "", &mut problems);
        problems
    }

    fn of_events(&self, value: &Value, at: &str, problems: &mut Vec<String>) {
        match value {
            Value::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    self.of_events(value, &format!("{at}/{index}"), problems);
                }
            }
            Value::Object(object) => {
                if let (Some(kind), Some(content)) = (value["type"].as_str(), object.get("content")) {
                    problems.extend(self.of_event(kind, content, value).map(|what| format!("`{at}` {what}")));
                }
                for (key, value) in object {
                    self.of_events(value, &format!("{at}/{key}"), problems);
                }
            }
            _ => (),
        }
    }

    fn of_event(&self, kind: &str, content: &Value, event: &Value) -> Option<String> {
        let form = ["msgtype", "method"].iter().find_map(|field| content[*field].as_str());
        let name = form.map(|form| format!("{kind}${form}"));
        let name = name.filter(|name| self.digest.events.contains_key(name)).unwrap_or(kind.to_owned());
        let schemas = self.digest.events.get(&name)?;
        if !event["unsigned"]["redacted_because"].is_null() {
            return None;
        }
        let known = self.contents.borrow().get(&name).cloned();
        let validator = known.unwrap_or_else(|| {
            let validator = Rc::new(self.compile(&schemas["content"]));
            self.contents.borrow_mut().insert(name.clone(), validator.clone());
            validator
        });
        let error = validator.iter_errors(content).next()?;
        Some(format!("{name} content `{}`: {}", error.instance_path(), short(&error.to_string())))
    }

    pub fn compile(&self, schema: &Value) -> Validator {
        let is = |check: fn(&str) -> bool| check;
        let options = jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(true);
        let options = options
            .with_format("mx-event-id", is(|id| OwnedEventId::try_from(id).is_ok()))
            .with_format("mx-mxc-uri", is(|uri| OwnedMxcUri::from(uri).is_valid()))
            .with_format("mx-room-alias", is(|id| OwnedRoomAliasId::try_from(id).is_ok()))
            .with_format("mx-room-id", is(|id| OwnedRoomId::try_from(id).is_ok()))
            .with_format("mx-server-name", is(|name| OwnedServerName::try_from(name).is_ok()))
            .with_format("mx-user-id", is(|id| OwnedUserId::try_from(id).is_ok()));
        let document = self.digest.document(schema);
        options.build(&document).unwrap_or_else(|error| panic!("{error}: {document}"))
    }
}

/// What is wrong with any answer, whatever the operation.
pub fn of_frame(reply: &Reply) -> Vec<String> {
    let mut problems = Vec::new();
    if reply.status.is_server_error() {
        problems.push(format!("{}: {}", reply.status.as_u16(), short(&reply.json.to_string())));
    }
    for name in
        ["access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers"]
    {
        if !reply.headers.contains_key(name) {
            problems.push(format!("no header {name}"));
        }
    }
    let kind = reply.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !reply.json.is_null() && kind != Some("application/json") {
        problems.push(format!("JSON is called {kind:?}"));
    }
    if reply.status.is_client_error() {
        problems.extend(of_error(reply));
    }
    problems
}

fn of_error(reply: &Reply) -> Option<String> {
    let challenge = reply.status.as_u16() == 401 && reply.json["flows"].is_array();
    if challenge && reply.json["session"].is_string() && reply.errcode().is_empty() {
        return None;
    }
    if !ERRCODES.contains(&reply.errcode()) {
        return Some(format!("{} with the errcode '{}'", reply.status.as_u16(), reply.errcode()));
    }
    reply.text("error").is_empty().then(|| format!("{} says nothing to people", reply.errcode()))
}

fn short(text: &str) -> String {
    text.chars().take(160).collect()
}
