//! Making events: content hash, signature and event id (Server-Server API, "Signing events"; room versions).
//!
//! This is on the path of every message: the canonical JSON is assembled as text, three times over the same fields
//! (to hash, to sign, to keep), instead of through maps. The tests hold it to ruma's verification.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use base64::{Engine, engine::general_purpose};
use myelin_core::limits::{
    AUTH_EVENTS_MAX, EVENT_FIELD_SIZE_MAX, JSON_INTEGER_MAX, PDU_SIZE_MAX, PREV_EVENTS_MAX,
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, IdParseError, MilliSecondsSinceUnixEpoch, OwnedEventId,
    OwnedRoomId, OwnedUserId, UInt,
    events::TimelineEventType,
    room_version_rules::{EventIdFormatVersion, RoomVersionRules},
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest, Sha256};

use crate::{
    SigningKey,
    canonical::{JsonError, canonicalize, push_json_string},
    hashes::hash_of_signed,
    pdu::{Pdu, check_field_sizes, readable_levels, room_id_of_create},
    redaction::push_kept_content,
};

/// What the sender wants to say.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub sender: OwnedUserId,
    pub event_type: TimelineEventType,
    pub state_key: Option<String>,
    /// Any JSON object; it is brought into canonical form.
    pub content: Box<RawValue>,
    /// For `m.room.redaction`; put where the room version wants it.
    pub redacts: Option<OwnedEventId>,
    /// How long it is to be sticky (MSC4354).
    pub sticky_duration_ms: Option<u64>,
}

/// Contents are the same if their texts are.
impl PartialEq for NewEvent {
    fn eq(&self, other: &Self) -> bool {
        let said = |event: &Self| (event.redacts.clone(), event.sticky_duration_ms);
        (&self.sender, &self.event_type, &self.state_key)
            == (&other.sender, &other.event_type, &other.state_key)
            && self.content.get() == other.content.get()
            && said(self) == said(other)
    }
}

/// Where in the graph the event goes.
#[derive(Debug, Clone, Default)]
pub struct Parents {
    /// `None` only for the create event of version 12 and up.
    pub room_id: Option<OwnedRoomId>,
    pub prev_events: Vec<OwnedEventId>,
    pub auth_events: Vec<OwnedEventId>,
    pub depth: u64,
    /// What versions 1 and 2 want besides; see [`needs_names`].
    pub names: Option<Names>,
}

/// In versions 1 and 2 an event is not named after its hash: its server chooses a name, and the hashes stand beside
/// the names of the events that it refers to.
#[derive(Debug, Clone)]
pub struct Names {
    /// `$opaque:server`, the server being that of the sender; never used before.
    pub event_id: OwnedEventId,
    /// Of all prev events and auth events: see [`Pdu::reference`].
    pub reference_hashes: BTreeMap<OwnedEventId, String>,
}

/// Whether [`Parents::names`] must be given in this room version.
pub fn needs_names(rules: &RoomVersionRules) -> bool {
    rules.event_id_format == EventIdFormatVersion::V1
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("the content is not canonical JSON: {0}")]
    Json(#[from] JsonError),
    #[error("the content of an event must be an object")]
    ContentNotAnObject,
    #[error("the event has {0} bytes, more than {PDU_SIZE_MAX}")]
    TooLarge(usize),
    #[error("'{0}' is longer than {EVENT_FIELD_SIZE_MAX} bytes")]
    FieldTooLong(&'static str),
    #[error("{count} {name}, more than {max}")]
    TooManyParents { name: &'static str, count: usize, max: usize },
    #[error("the event has no room id, and only a create event of room version 12 and up may have none")]
    NoRoomId,
    #[error("a create event of this room version must not carry a room id")]
    RoomIdOfCreate,
    #[error("'{0}' is beyond 2^53 - 1")]
    IntegerOutOfRange(&'static str),
    #[error("no identifier can be made of the hash: {0}")]
    Id(#[from] IdParseError),
    #[error("in this room version, and only there, an event gets its event id from its sender's server")]
    Names,
    #[error("the reference hash of {0} is not given")]
    NoReferenceHash(OwnedEventId),
}

impl BuildError {
    /// Whether a size limit of the specification was exceeded (`M_TOO_LARGE`).
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge(_) | Self::FieldTooLong(_))
    }
}

impl NewEvent {
    /// A message event with any serialisable content.
    pub fn message(
        sender: OwnedUserId,
        event_type: impl Into<TimelineEventType>,
        content: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        let content = to_raw_value(content)?;
        Ok(Self {
            sender,
            event_type: event_type.into(),
            state_key: None,
            content,
            redacts: None,
            sticky_duration_ms: None,
        })
    }

    /// A state event with any serialisable content.
    pub fn state(
        sender: OwnedUserId,
        event_type: impl Into<TimelineEventType>,
        state_key: impl Into<String>,
        content: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        let event = Self::message(sender, event_type, content)?;
        Ok(Self { state_key: Some(state_key.into()), ..event })
    }
}

/// Makes, hashes and signs an event as the server of its sender.
pub fn build(
    rules: &RoomVersionRules,
    event: NewEvent,
    parents: Parents,
    now_ms: u64,
    key: &SigningKey,
) -> Result<Pdu, BuildError> {
    let content = final_content(&event, rules)?;
    let event_type = event.event_type.to_string();
    check(rules, &event, &event_type, &parents, now_ms)?;
    let in_content = rules.redaction.content_field_redacts;
    let draft = Draft {
        event: &event,
        event_type: &event_type,
        parents: &parents,
        names: parents.names.as_ref(),
        now_ms,
        redacts: event.redacts.as_deref().filter(|_| !in_content),
        sticky_duration_ms: event.sticky_duration_ms,
    };
    let (event_id, json) = seal(&draft, &content, rules, key)?;
    let derived_room_id =
        || room_id_of_create(&event_id, &event.event_type, rules).ok_or(BuildError::NoRoomId);
    let room_id_in_json = parents.room_id.is_some();
    let room_id = parents.room_id.map_or_else(derived_room_id, Ok)?;
    let content = RawValue::from_string(content).map_err(|_| BuildError::ContentNotAnObject)?;
    let levels = readable_levels(&event.event_type, &content, rules);
    Ok(Pdu {
        event_id,
        room_id,
        sender: event.sender,
        event_type: event.event_type,
        state_key: event.state_key,
        origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::new_saturating(now_ms)),
        depth: parents.depth,
        prev_events: parents.prev_events,
        auth_events: parents.auth_events,
        redacts: event.redacts,
        content,
        levels,
        decoded: OnceLock::new(),
        json,
        rejected: false,
        room_id_in_json,
    })
}

/// The content in canonical form, with `redacts` where version 11 and up want it.
fn final_content(event: &NewEvent, rules: &RoomVersionRules) -> Result<String, BuildError> {
    let content = canonicalize(event.content.get().as_bytes())?;
    if !content.starts_with('{') {
        return Err(BuildError::ContentNotAnObject);
    }
    let Some(redacts) = event.redacts.as_ref().filter(|_| rules.redaction.content_field_redacts) else {
        return Ok(content);
    };
    let mut object: CanonicalJsonObject =
        serde_json::from_str(&content).map_err(|_| BuildError::ContentNotAnObject)?;
    object.insert("redacts".to_owned(), redacts.to_string().into());
    Ok(CanonicalJsonValue::Object(object).to_string())
}

fn check(
    rules: &RoomVersionRules,
    event: &NewEvent,
    event_type: &str,
    parents: &Parents,
    now_ms: u64,
) -> Result<(), BuildError> {
    let derives_room_id = rules.authorization.room_create_event_id_as_room_id
        && event.event_type == TimelineEventType::RoomCreate;
    match &parents.room_id {
        None if !derives_room_id => return Err(BuildError::NoRoomId),
        Some(_) if derives_room_id => return Err(BuildError::RoomIdOfCreate),
        _ => {}
    }
    check_names(rules, event, parents)?;
    check_count("prev_events", parents.prev_events.len(), PREV_EVENTS_MAX)?;
    check_count("auth_events", parents.auth_events.len(), AUTH_EVENTS_MAX)?;
    check_integer("depth", parents.depth)?;
    check_integer("origin_server_ts", now_ms)?;
    let room_id = parents.room_id.as_ref().map_or("", |id| id.as_str());
    let fields = [
        ("type", event_type),
        ("state_key", event.state_key.as_deref().unwrap_or_default()),
        ("sender", event.sender.as_str()),
        ("room_id", room_id),
    ];
    check_field_sizes(fields).map_err(BuildError::FieldTooLong)
}

fn check_names(rules: &RoomVersionRules, event: &NewEvent, parents: &Parents) -> Result<(), BuildError> {
    let names = match (&parents.names, needs_names(rules)) {
        (None, false) => return Ok(()),
        (Some(names), true) if names.event_id.server_name() == Some(event.sender.server_name()) => names,
        _ => return Err(BuildError::Names),
    };
    let unknown = |id: &&OwnedEventId| !names.reference_hashes.contains_key(*id);
    match parents.prev_events.iter().chain(&parents.auth_events).find(unknown) {
        Some(id) => Err(BuildError::NoReferenceHash(id.clone())),
        None => Ok(()),
    }
}

fn check_count(name: &'static str, count: usize, max: usize) -> Result<(), BuildError> {
    if count > max { Err(BuildError::TooManyParents { name, count, max }) } else { Ok(()) }
}

fn check_integer(name: &'static str, value: u64) -> Result<(), BuildError> {
    if value > JSON_INTEGER_MAX.unsigned_abs() { Err(BuildError::IntegerOutOfRange(name)) } else { Ok(()) }
}

/// The top-level field of sticky events, under its unstable name (MSC4354).
pub(crate) const STICKY: &str = "msc4354_sticky";

/// Hashes and signs; gives the event id and the final JSON.
fn seal(
    draft: &Draft<'_>,
    content: &str,
    rules: &RoomVersionRules,
    key: &SigningKey,
) -> Result<(OwnedEventId, Arc<str>), BuildError> {
    let hash = general_purpose::STANDARD_NO_PAD.encode(Sha256::digest(draft.text(content, &Seal::NONE)));
    let hashed = Seal { hash: Some(&hash), ..Seal::NONE };
    let mut kept = String::new();
    push_kept_content(&mut kept, draft.event_type, content, &rules.redaction);
    // What is signed is the redacted event, and the reference hash is over the same bytes.
    let redacted = Draft { redacts: None, sticky_duration_ms: None, ..*draft }.text(&kept, &hashed);
    let signature = key.sign(redacted.as_bytes());
    let server = draft.event.sender.server_name().as_str();
    let json = draft.text(content, &Seal { signature: Some((server, key.key_id(), &signature)), ..hashed });
    if json.len() > PDU_SIZE_MAX {
        return Err(BuildError::TooLarge(json.len()));
    }
    let event_id = match draft.names {
        Some(names) => names.event_id.clone(),
        None => EventId::new_v2_or_v3(&hash_of_signed(&redacted, rules))?,
    };
    Ok((event_id, json.into()))
}

/// The fields that do not change between the three texts.
#[derive(Clone, Copy)]
struct Draft<'a> {
    event: &'a NewEvent,
    event_type: &'a str,
    parents: &'a Parents,
    names: Option<&'a Names>,
    now_ms: u64,
    /// The top-level field of versions up to 10; redaction removes it.
    redacts: Option<&'a EventId>,
    /// The same goes for this one.
    sticky_duration_ms: Option<u64>,
}

#[derive(Clone, Copy)]
struct Seal<'a> {
    hash: Option<&'a str>,
    /// Server, key id, signature.
    signature: Option<(&'a str, &'a str, &'a str)>,
}

impl Seal<'_> {
    const NONE: Self = Self { hash: None, signature: None };
}

impl Draft<'_> {
    /// Invariant: the keys are written in the order of canonical JSON.
    fn text(&self, content: &str, seal: &Seal<'_>) -> String {
        let mut out = String::with_capacity(content.len() + 1024);
        out.push_str("{\"auth_events\":");
        self.push_references(&mut out, &self.parents.auth_events);
        out.push_str(",\"content\":");
        out.push_str(content);
        out.push_str(",\"depth\":");
        push_number(&mut out, self.parents.depth);
        push_field(&mut out, "event_id", self.names.map(|names| names.event_id.as_str()));
        if let Some(hash) = seal.hash {
            push_all(&mut out, &[",\"hashes\":{\"sha256\":\"", hash, "\"}"]);
        }
        if let Some(duration_ms) = self.sticky_duration_ms {
            push_all(&mut out, &[",\"", STICKY, "\":{\"duration_ms\":"]);
            push_number(&mut out, duration_ms);
            out.push('}');
        }
        out.push_str(",\"origin_server_ts\":");
        push_number(&mut out, self.now_ms);
        out.push_str(",\"prev_events\":");
        self.push_references(&mut out, &self.parents.prev_events);
        push_field(&mut out, "redacts", self.redacts.map(EventId::as_str));
        push_field(&mut out, "room_id", self.parents.room_id.as_ref().map(|id| id.as_str()));
        push_field(&mut out, "sender", Some(self.event.sender.as_str()));
        if let Some((server, key_id, signature)) = seal.signature {
            out.push_str(",\"signatures\":{");
            push_json_string(&mut out, server);
            push_all(&mut out, &[":{\"", key_id, "\":\"", signature, "\"}}"]);
        }
        push_field(&mut out, "state_key", self.event.state_key.as_deref());
        push_field(&mut out, "type", Some(self.event_type));
        out.push('}');
        out
    }

    fn push_references(&self, out: &mut String, ids: &[OwnedEventId]) {
        out.push('[');
        for (index, id) in ids.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            match self.names.and_then(|names| names.reference_hashes.get(id)) {
                Some(hash) => push_hashed_reference(out, id, hash),
                None => push_json_string(out, id.as_str()),
            }
        }
        out.push(']');
    }
}

fn push_hashed_reference(out: &mut String, id: &EventId, hash: &str) {
    out.push('[');
    push_json_string(out, id.as_str());
    match hash {
        // Somebody else's template did not say it.
        "" => out.push_str(",{}]"),
        hash => push_all(out, &[",{\"sha256\":\"", hash, "\"}]"]),
    }
}

fn push_field(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        push_all(out, &[",\"", name, "\":"]);
        push_json_string(out, value);
    }
}

fn push_number(out: &mut String, number: u64) {
    out.push_str(&number.to_string());
}

fn push_all(out: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| out.push_str(part));
}

#[cfg(test)]
mod tests;
