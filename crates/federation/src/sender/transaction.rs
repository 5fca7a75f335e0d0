//! One transaction as it travels (Server-Server API, "Transactions"). Pure: text out of text.

use std::sync::Arc;

use bytes::Bytes;
use myelin_core::{EventNid, Position, RoomNid, UserNid};
use myelin_dag::{canonical, room_version};
use ruma::{RoomVersionId, ServerName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::receipts::Receipt;

/// The specification's bounds.
pub const PDUS_MAX: usize = 50;
pub const EDUS_MAX: usize = 100;
/// Bytes of events and EDUs together; a first one goes however large it is.
pub const SIZE_MAX: usize = 1024 * 1024;

/// An event on its way to one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingPdu {
    pub position: Position,
    pub event: EventNid,
    /// It takes users of that server out of a room: it goes even when only the newest events do.
    pub targeted: bool,
}

/// A user started (or goes on) or stopped typing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub room: RoomNid,
    pub user: UserNid,
    pub typing: bool,
}

/// Built once; what is retried is this, under the same id.
#[derive(Debug)]
pub struct Transaction {
    pub id: String,
    pub body: Bytes,
    /// The lowest position of what has to arrive; `None`: all of it is ephemeral.
    pub from: Option<Position>,
    pub pdus: Vec<PendingPdu>,
    pub receipts: Vec<Arc<Receipt>>,
    /// Rows of the outbox.
    pub outbox: Vec<Position>,
    pub typing: Vec<Told>,
    pub presence: Vec<UserNid>,
    pub edus: usize,
}

/// The texts of a body are canonical JSON, so the body is.
pub fn body(origin: &ServerName, now_ms: u64, pdus: &[&str], edus: &[String]) -> Bytes {
    let size: usize =
        pdus.iter().map(|p| p.len() + 1).sum::<usize>() + edus.iter().map(|e| e.len() + 1).sum::<usize>();
    let mut body = String::with_capacity(size + 128 + origin.as_str().len());
    body.push_str(r#"{"edus":["#);
    join(&mut body, edus.iter().map(String::as_str));
    body.push_str(r#"],"origin":"#);
    canonical::push_json_string(&mut body, origin.as_str());
    body.push_str(&format!(r#","origin_server_ts":{now_ms},"pdus":["#));
    join(&mut body, pdus.iter().copied());
    body.push_str("]}");
    body.into()
}

/// An EDU as canonical JSON; `None` if the content has no such form. Numbers of all kinds may go: to-device messages are
/// what clients made of them.
pub fn edu(edu_type: &str, content: &str) -> Option<String> {
    let mut text = String::with_capacity(content.len() + edu_type.len() + 32);
    text.push_str(r#"{"content":"#);
    text.push_str(content);
    text.push_str(r#","edu_type":"#);
    canonical::push_json_string(&mut text, edu_type);
    text.push('}');
    let lenient = room_version::rules(&RoomVersionId::V1)?.authorization;
    canonical::canonicalize_for(&lenient, text.as_bytes()).ok()
}

pub fn typing(room_id: &str, user_id: &str, typing: bool) -> Option<String> {
    edu("m.typing", &json!({ "room_id": room_id, "user_id": user_id, "typing": typing }).to_string())
}

/// The answer: what the server says about single PDUs.
#[derive(Debug, Default, Deserialize)]
pub struct Answer {
    #[serde(default)]
    pdus: serde_json::Map<String, Value>,
}

impl Answer {
    /// Event ids and what is wrong with them.
    pub fn errors(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pdus.iter().filter_map(|(event_id, result)| {
            result.get("error").map(|error| (event_id.as_str(), error.as_str().unwrap_or("unknown error")))
        })
    }
}

fn join<'a>(out: &mut String, texts: impl Iterator<Item = &'a str>) {
    for (index, text) in texts.enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::server_name;

    #[test]
    fn a_body_is_canonical_json() {
        let edus = [edu("m.test", r#"{"b": 1, "a": "x"}"#).expect("an EDU")];
        let body = body(server_name!("a.test"), 5, &[r#"{"depth":1}"#, r#"{"depth":2}"#], &edus);
        let text = r#"{"edus":[{"content":{"a":"x","b":1},"edu_type":"m.test"}],"origin":"a.test","origin_server_ts":5,"pdus":[{"depth":1},{"depth":2}]}"#;
        assert_eq!(body, text);
        assert_eq!(canonical::canonicalize(&body).as_deref(), Ok(text));
    }

    #[test]
    fn content_of_clients_may_hold_fractions_but_must_be_json() {
        assert_eq!(
            edu("m.test", r#"{"a":0.5}"#).as_deref(),
            Some(r#"{"content":{"a":0.5},"edu_type":"m.test"}"#)
        );
        assert_eq!(edu("m.test", "{"), None);
    }

    #[test]
    fn errors_of_single_events_are_found() {
        let answer: Answer =
            serde_json::from_str(r#"{"pdus":{"$a":{},"$b":{"error":"no"},"$c":{"error":7}}}"#)
                .expect("an answer");
        let errors: Vec<_> = answer.errors().collect();
        assert_eq!(errors, [("$b", "no"), ("$c", "unknown error")]);
    }
}
