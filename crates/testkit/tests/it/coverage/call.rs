//! One request, and what came back.

use std::collections::BTreeMap;

use http::{HeaderMap, Method, StatusCode};
use myelin_testkit::client::percent;
use serde_json::Value;

use super::digest::Operation;

#[derive(Clone)]
pub struct Call {
    pub path: BTreeMap<&'static str, String>,
    pub query: Vec<(String, String)>,
    pub who: Who,
    pub content: Content,
    /// What a valid request is answered with.
    pub status: u16,
    pub errcode: &'static str,
    /// For the table.
    pub note: &'static str,
    pub method: Option<Method>,
    /// The room need not be one of the user's.
    pub any_room: bool,
    /// Trials that the operation may answer with success, by the beginning of their name, each with the reason.
    pub lenient: Vec<(&'static str, &'static str)>,
}

#[derive(Clone, Debug)]
pub enum Who {
    Nobody,
    Token(String),
    /// The other server.
    Signed,
    /// In its name, but not by it.
    Forged,
}

#[derive(Clone)]
pub enum Content {
    None,
    Json(Value),
    Bytes(&'static str, Vec<u8>),
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// `Null` if it is not JSON.
    pub json: Value,
}

impl Call {
    pub fn new(who: Who) -> Self {
        Self {
            path: BTreeMap::new(),
            query: Vec::new(),
            who,
            content: Content::None,
            status: 200,
            errcode: "",
            note: "",
            method: None,
            any_room: false,
            lenient: Vec::new(),
        }
    }

    pub fn path(mut self, name: &'static str, value: &str) -> Self {
        self.path.insert(name, value.to_owned());
        self
    }

    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn json(mut self, content: Value) -> Self {
        self.content = Content::Json(content);
        self
    }

    pub fn bytes(mut self, kind: &'static str, bytes: &[u8]) -> Self {
        self.content = Content::Bytes(kind, bytes.to_owned());
        self
    }

    /// The answer is an error, as specified for a server like this.
    pub fn refused(mut self, status: u16, errcode: &'static str, note: &'static str) -> Self {
        (self.status, self.errcode, self.note) = (status, errcode, note);
        self
    }

    pub fn any_room(mut self) -> Self {
        self.any_room = true;
        self
    }

    pub fn lenient(mut self, trial: &'static str, reason: &'static str) -> Self {
        self.lenient.push((trial, reason));
        self
    }

    pub fn by_nobody(mut self) -> Self {
        self.who = Who::Nobody;
        self
    }

    /// Path and query as they are sent.
    pub fn uri(&self, operation: &Operation) -> String {
        let filled = self.path.iter().fold(operation.path.clone(), |path, (name, value)| {
            path.replace(&format!("{{{name}}}"), &percent(value))
        });
        assert!(!filled.contains('{'), "{}: no value for {filled}", operation.id);
        let query: Vec<_> =
            self.query.iter().map(|(name, value)| format!("{name}={}", percent(value))).collect();
        match query.is_empty() {
            true => filled,
            false => format!("{filled}?{}", query.join("&")),
        }
    }

    pub fn method(&self, operation: &Operation) -> Method {
        self.method.clone().unwrap_or_else(|| operation.method.parse().expect("a method"))
    }
}

impl Content {
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Json(json) => json.to_string().into_bytes(),
            Self::Bytes(_, bytes) => bytes.clone(),
        }
    }
}

impl Reply {
    pub fn errcode(&self) -> &str {
        self.json["errcode"].as_str().unwrap_or_default()
    }

    pub fn text(&self, field: &str) -> String {
        self.json[field].as_str().unwrap_or_default().to_owned()
    }
}
