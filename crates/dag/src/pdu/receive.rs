//! The first check on receipt of a PDU: "is a valid event, otherwise it is dropped" (Server-Server API, "Checks
//! performed on receipt of a PDU"; room versions, "Event format").

use std::sync::Arc;

use myelin_core::limits::{AUTH_EVENTS_MAX, EVENT_FIELD_SIZE_MAX, PDU_SIZE_MAX, PREV_EVENTS_MAX};
use ruma::{
    EventId, IdParseError, OwnedEventId,
    events::TimelineEventType,
    room_version_rules::{EventIdFormatVersion, RoomVersionRules},
};
use serde_json::value::RawValue;

use super::{ParseError, Pdu};
use crate::{
    canonical::{JsonError, Outline, canonicalize_for, string_value},
    hashes::hash_of_signed,
    redaction::signed_text,
};

/// The deepest that an event may claim to be where integers are not limited by canonical JSON (room versions 1 to 5).
const DEPTH_MAX: u64 = i64::MAX as u64;

/// Why a PDU is dropped: it is not even an event.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("the PDU is not canonical JSON: {0}")]
    Json(#[from] JsonError),
    #[error("the PDU is not an object")]
    NotAnObject,
    #[error("the PDU has {0} bytes, more than {PDU_SIZE_MAX}")]
    TooLarge(usize),
    #[error("'{0}' of the PDU is longer than {EVENT_FIELD_SIZE_MAX} bytes")]
    FieldTooLong(&'static str),
    #[error("the PDU does not have the format of its room version: {0}")]
    Format(&'static str),
    #[error("the PDU has no event id: {0}")]
    EventId(#[from] IdParseError),
    #[error("the content of the PDU does not match its hash")]
    Spoilt,
    #[error(transparent)]
    Parse(#[from] ParseError),
}

/// Checks format and sizes, drops `unsigned` (nobody vouches for it), and finds the event id. Gives the event and the
/// text that its signatures are over.
pub(crate) fn receive_signed(
    raw: &RawValue,
    rules: &RoomVersionRules,
) -> Result<(Pdu, String), ReceiveError> {
    let json = canonical_without_unsigned(raw, rules)?;
    let event = Outline::of(&json);
    for (field, problem) in [
        ("content", "'content' must be an object"),
        ("hashes", "'hashes' must be an object"),
        ("signatures", "'signatures' must be an object"),
    ] {
        if !event.get(field).is_some_and(|value| value.starts_with('{')) {
            return Err(ReceiveError::Format(problem));
        }
    }
    let signed = signed_text(&event, &rules.redaction);
    let event_id = event_id(&event, &signed, rules)?;
    let pdu = Pdu::parse(json, event_id, rules)?;
    check_form(&pdu, rules)?;
    Ok((pdu, signed))
}

fn canonical_without_unsigned(raw: &RawValue, rules: &RoomVersionRules) -> Result<Arc<str>, ReceiveError> {
    let text = canonicalize_for(&rules.authorization, raw.get().as_bytes())?;
    if !text.starts_with('{') {
        return Err(ReceiveError::NotAnObject);
    }
    let json = match Outline::of(&text).get("unsigned") {
        Some(_) => without_unsigned(&text),
        None => text,
    };
    if json.len() > PDU_SIZE_MAX {
        return Err(ReceiveError::TooLarge(json.len()));
    }
    Ok(json.into())
}

fn without_unsigned(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (key, value) in Outline::of(text).iter().filter(|(key, _)| *key != "unsigned") {
        out.push_str(if out.is_empty() { "{\"" } else { ",\"" });
        out.push_str(key);
        out.push_str("\":");
        out.push_str(value);
    }
    if out.is_empty() {
        out.push('{');
    }
    out.push('}');
    out
}

/// In versions 1 and 2 the event names itself: `$opaque:server` ("Event IDs").
fn event_id(
    event: &Outline<'_>,
    signed: &str,
    rules: &RoomVersionRules,
) -> Result<OwnedEventId, ReceiveError> {
    if rules.event_id_format != EventIdFormatVersion::V1 {
        return Ok(EventId::new_v2_or_v3(&hash_of_signed(signed, rules))?);
    }
    let id = event.get("event_id").and_then(string_value);
    let id = id.ok_or(ReceiveError::Format("'event_id' must be a string"))?;
    let id = OwnedEventId::try_from(&*id)?;
    match id.server_name() {
        Some(_) if !id.localpart().is_empty() => Ok(id),
        _ => Err(ReceiveError::Format("'event_id' must be an opaque id and a server name")),
    }
}

fn check_form(pdu: &Pdu, rules: &RoomVersionRules) -> Result<(), ReceiveError> {
    let event_type = pdu.event_type.to_string();
    let fields = [
        ("type", &*event_type),
        ("state_key", pdu.state_key.as_deref().unwrap_or_default()),
        ("sender", pdu.sender.as_str()),
        ("room_id", pdu.room_id.as_str()),
        ("event_id", pdu.event_id.as_str()),
    ];
    check_field_sizes(fields).map_err(ReceiveError::FieldTooLong)?;
    if pdu.prev_events.len() > PREV_EVENTS_MAX {
        return Err(ReceiveError::Format("'prev_events' has more than 20 entries"));
    }
    if pdu.auth_events.len() > AUTH_EVENTS_MAX {
        return Err(ReceiveError::Format("'auth_events' has more than 10 entries"));
    }
    if pdu.depth > DEPTH_MAX {
        return Err(ReceiveError::Format("'depth' is beyond 2^63 - 1"));
    }
    let in_json = pdu.room_id_in_json || pdu.event_type != TimelineEventType::RoomCreate;
    let create_is_implied = !rules.event_format.allow_room_create_in_auth_events && in_json;
    let is_create = |id: &OwnedEventId| id.localpart() == pdu.room_id.strip_sigil();
    if create_is_implied && pdu.auth_events.iter().any(is_create) {
        return Err(ReceiveError::Format("'auth_events' lists the create event, which is implied"));
    }
    Ok(())
}

/// The size limits of the fields that are identifiers.
pub(crate) fn check_field_sizes<'a>(
    fields: impl IntoIterator<Item = (&'static str, &'a str)>,
) -> Result<(), &'static str> {
    fields
        .into_iter()
        .find(|(_, text)| text.len() > EVENT_FIELD_SIZE_MAX)
        .map_or(Ok(()), |(name, _)| Err(name))
}
