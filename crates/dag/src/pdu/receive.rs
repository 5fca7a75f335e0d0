//! The first check on receipt of a PDU: "is a valid event, otherwise it is dropped" (Server-Server API, "Checks
//! performed on receipt of a PDU"; room versions, "Event format").

use std::sync::Arc;

use myelin_core::limits::{EVENT_FIELD_SIZE_MAX, PDU_SIZE_MAX};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, room_version_rules::RoomVersionRules,
    signatures, state_res,
};
use serde_json::value::RawValue;

use super::{ParseError, Pdu};
use crate::canonical::{JsonError, canonicalize};

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
    Format(String),
    #[error("no event id can be computed: {0}")]
    EventId(String),
    #[error(transparent)]
    Parse(#[from] ParseError),
}

/// A received PDU in canonical form, as object and as text, and its event id.
pub(crate) type Received = (CanonicalJsonObject, Arc<str>, OwnedEventId);

pub fn receive(raw: &RawValue, rules: &RoomVersionRules) -> Result<Pdu, ReceiveError> {
    let (_, json, event_id) = received_object(raw, rules)?;
    Ok(Pdu::parse(json, event_id, rules)?)
}

/// Checks format and sizes, drops `unsigned` (nobody vouches for it), and computes the event id.
pub(crate) fn received_object(raw: &RawValue, rules: &RoomVersionRules) -> Result<Received, ReceiveError> {
    let text = canonicalize(raw.get().as_bytes())?;
    let mut object: CanonicalJsonObject =
        serde_json::from_str(&text).map_err(|_| ReceiveError::NotAnObject)?;
    let had_unsigned = object.remove("unsigned").is_some();
    let json = if had_unsigned { to_text(&object)? } else { text };
    if json.len() > PDU_SIZE_MAX {
        return Err(ReceiveError::TooLarge(json.len()));
    }
    check_format(&mut object, rules)?;
    let hash =
        signatures::reference_hash(&object, rules).map_err(|e| ReceiveError::EventId(e.to_string()))?;
    let event_id = EventId::new_v2_or_v3(&hash).map_err(|e| ReceiveError::EventId(e.to_string()))?;
    Ok((object, json.into(), event_id))
}

/// ruma's check, which draws the line for the whole PDU one byte below the specification; so it is shown the PDU
/// without signatures, and the size has been checked before.
fn check_format(object: &mut CanonicalJsonObject, rules: &RoomVersionRules) -> Result<(), ReceiveError> {
    let signatures = object.remove("signatures");
    let checked = state_res::check_pdu_format(object, &rules.event_format).map_err(ReceiveError::Format);
    if let Some(signatures) = signatures {
        object.insert("signatures".to_owned(), signatures);
    }
    checked?;
    match object.get("content") {
        Some(CanonicalJsonValue::Object(_)) => Ok(()),
        _ => Err(ReceiveError::Format("`content` must be an object".to_owned())),
    }
}

fn to_text(object: &CanonicalJsonObject) -> Result<String, ReceiveError> {
    serde_json::to_string(object).map_err(|e| ReceiveError::Parse(e.into()))
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
