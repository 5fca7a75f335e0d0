//! An event as rules look at it: parsed once, its text cut into words once.

use std::{borrow::Cow, collections::HashSet, sync::OnceLock};

use ruma::{EventId, RoomId, UserId};
use serde_json::{Value, value::RawValue};

use crate::{glob::is_word_char, path::Path};

pub struct Subject<'a> {
    pub event_id: &'a EventId,
    pub room_id: &'a RoomId,
    pub sender: &'a UserId,
    pub event_type: &'a str,
    pub state_key: Option<&'a str>,
    content: Value,
    body: OnceLock<Option<String>>,
}

/// The value of a property.
pub(crate) enum Property<'a> {
    Text(&'a str),
    Json(&'a Value),
}

impl<'a> Subject<'a> {
    /// Content that is no object has no properties.
    pub fn new(
        event_id: &'a EventId,
        room_id: &'a RoomId,
        sender: &'a UserId,
        event_type: &'a str,
        state_key: Option<&'a str>,
        content: &RawValue,
    ) -> Self {
        let content = serde_json::from_str(content.get()).unwrap_or_default();
        Self { event_id, room_id, sender, event_type, state_key, content, body: OnceLock::new() }
    }

    /// `m.mentions.user_ids` as the sender wrote them (Client-Server API, "User and room mentions").
    pub fn mentioned(&self) -> impl Iterator<Item = &str> {
        let mentions = self.content.get("m.mentions").and_then(|mentions| mentions.get("user_ids"));
        mentions.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// Whether it wants to notify the whole room.
    pub fn mentions_room(&self) -> bool {
        let mentions = self.content.get("m.mentions").and_then(|mentions| mentions.get("room"));
        mentions.and_then(Value::as_bool).unwrap_or(false)
    }

    pub(crate) fn property(&self, path: &Path) -> Option<Property<'_>> {
        Some(match path {
            Path::EventId => Property::Text(self.event_id.as_str()),
            Path::RoomId => Property::Text(self.room_id.as_str()),
            Path::Sender => Property::Text(self.sender.as_str()),
            Path::StateKey => Property::Text(self.state_key?),
            Path::Type => Property::Text(self.event_type),
            Path::Content(parts) => {
                let mut value = &self.content;
                for part in parts {
                    value = value.as_object()?.get(part)?;
                }
                Property::Json(value)
            }
            Path::Nowhere => return None,
        })
    }

    /// `content.body` in lower case.
    pub(crate) fn body(&self) -> Option<&str> {
        let body = self.body.get_or_init(|| Some(self.content.get("body")?.as_str()?.to_lowercase()));
        body.as_deref()
    }

    /// The words of the body.
    pub(crate) fn words(&self) -> HashSet<&str> {
        let words = self.body().into_iter().flat_map(|body| body.split(|c| !is_word_char(c)));
        words.filter(|word| !word.is_empty()).collect()
    }
}

impl<'a> Property<'a> {
    pub fn as_str(&self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Json(value) => value.as_str(),
        }
    }

    pub fn to_value(&self) -> Cow<'a, Value> {
        match self {
            Self::Text(text) => Cow::Owned(Value::String((*text).to_owned())),
            Self::Json(value) => Cow::Borrowed(value),
        }
    }
}
