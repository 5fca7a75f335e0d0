//! From the text of an event to its fields.

use std::sync::{Arc, OnceLock};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId,
    events::TimelineEventType,
    room_version_rules::{EventsReferenceFormatVersion, RoomVersionRules},
};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{ParseError, Pdu, content, readable_levels, room_id_of_create};

/// `R` is how the room version refers to events.
#[derive(Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de>"))]
struct Fields<'a, R> {
    #[serde(default, deserialize_with = "present")]
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    #[serde(rename = "type")]
    event_type: TimelineEventType,
    #[serde(default, deserialize_with = "present")]
    state_key: Option<String>,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    depth: u64,
    prev_events: Vec<R>,
    auth_events: Vec<R>,
    /// Read only where it means something; elsewhere it may be anything.
    #[serde(borrow)]
    redacts: Option<&'a RawValue>,
    #[serde(borrow)]
    content: &'a RawValue,
}

/// An event id and its hashes, as in versions 1 and 2.
#[derive(Deserialize)]
struct HashedReference(OwnedEventId, IgnoredAny);

pub fn parse(json: Arc<str>, event_id: OwnedEventId, rules: &RoomVersionRules) -> Result<Pdu, ParseError> {
    match rules.events_reference_format {
        EventsReferenceFormatVersion::V1 => parse_as::<HashedReference>(json, event_id, rules),
        _ => parse_as::<OwnedEventId>(json, event_id, rules),
    }
}

fn parse_as<R>(json: Arc<str>, event_id: OwnedEventId, rules: &RoomVersionRules) -> Result<Pdu, ParseError>
where
    R: Into<OwnedEventId> + for<'de> Deserialize<'de>,
{
    let fields: Fields<'_, R> = serde_json::from_str(&json)?;
    let content = fields.content.to_owned();
    let levels = readable_levels(&fields.event_type, &content, rules);
    let room_id_in_json = fields.room_id.is_some();
    let room_id = match fields.room_id {
        Some(room_id) => room_id,
        None => room_id_of_create(&event_id, &fields.event_type, rules).ok_or(ParseError::NoRoomId)?,
    };
    let redacts = match fields.event_type {
        TimelineEventType::RoomRedaction => redacts(fields.redacts, &content, rules),
        _ => None,
    };
    let ids = |references: Vec<R>| references.into_iter().map(Into::into).collect();
    Ok(Pdu {
        event_id,
        room_id,
        sender: fields.sender,
        event_type: fields.event_type,
        state_key: fields.state_key,
        origin_server_ts: fields.origin_server_ts,
        depth: fields.depth,
        prev_events: ids(fields.prev_events),
        auth_events: ids(fields.auth_events),
        redacts,
        content,
        json,
        rejected: false,
        levels,
        decoded: OnceLock::new(),
        room_id_in_json,
    })
}

/// A field may be absent, but if it is there it is not `null`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn redacts(
    top_level: Option<&RawValue>,
    content: &RawValue,
    rules: &RoomVersionRules,
) -> Option<OwnedEventId> {
    if rules.redaction.content_field_redacts {
        return content::field(content, "redacts");
    }
    top_level.and_then(|raw| serde_json::from_str(raw.get()).ok())
}

impl From<HashedReference> for OwnedEventId {
    fn from(reference: HashedReference) -> Self {
        reference.0
    }
}
