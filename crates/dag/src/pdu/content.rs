//! Reading single fields of an event's content, leniently: senders may write anything there.

use std::{borrow::Cow, fmt};

use ruma::OwnedEventId;
use serde::{
    Deserializer,
    de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// `m.relates_to` of an event (Client-Server API, "Forming relationships between events").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    pub rel_type: String,
    pub event_id: OwnedEventId,
    /// `m.annotation`: what is annotated with.
    pub key: Option<String>,
    /// `m.thread`: whether `in_reply_to` is only there for clients without threads.
    pub is_falling_back: bool,
    /// `m.in_reply_to.event_id` beside the relation.
    pub in_reply_to: Option<OwnedEventId>,
}

pub fn field<T: DeserializeOwned>(content: &RawValue, name: &str) -> Option<T> {
    let raw = serde_json::Deserializer::from_str(content.get()).deserialize_map(Field(name)).ok()??;
    serde_json::from_str(raw.get()).ok()
}

pub fn relation(content: &RawValue) -> Option<Relation> {
    // Most events have none, and a search is cheaper than a parse.
    if !content.get().contains("m.relates_to") {
        return None;
    }
    let value: Value = field(content, "m.relates_to")?;
    let event_id = |value: &Value| value.get("event_id")?.as_str()?.try_into().ok();
    Some(Relation {
        rel_type: value.get("rel_type")?.as_str()?.to_owned(),
        event_id: event_id(&value)?,
        key: value.get("key").and_then(Value::as_str).map(ToOwned::to_owned),
        is_falling_back: value.get("is_falling_back").and_then(Value::as_bool).unwrap_or(false),
        in_reply_to: value.get("m.in_reply_to").and_then(event_id),
    })
}

/// Finds one member of an object and skips the others.
struct Field<'n>(&'n str);

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Key(key)) = map.next_key()? {
            if key == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Borrows where the text has no escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
