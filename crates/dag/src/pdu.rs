//! PDUs: the federated form of events, parsed once and never changed (Server-Server API, "PDUs").
//!
//! Must not know: whether an event was accepted, or where it is stored.

mod content;
mod fields;
mod levels;
mod receive;

use std::sync::{Arc, OnceLock};

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
    room_version_rules::{AuthorizationRules, RoomVersionRules},
    state_res,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, value::RawValue};

pub use self::{content::Relation, receive::ReceiveError};
pub(crate) use self::{
    levels::readable as readable_levels,
    receive::{check_field_sizes, receive_signed},
};
use crate::auth::Levels;

/// An event in its federated form.
#[derive(Debug, Clone)]
pub struct Pdu {
    pub event_id: OwnedEventId,
    /// In version 12 and up, derived from the event id for the create event.
    pub room_id: OwnedRoomId,
    pub sender: OwnedUserId,
    pub event_type: TimelineEventType,
    pub state_key: Option<String>,
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
    /// An untrusted hint of the sender.
    pub depth: u64,
    pub prev_events: Vec<OwnedEventId>,
    pub auth_events: Vec<OwnedEventId>,
    /// `content.redacts` in version 11 and up, the top-level field before; only on `m.room.redaction`.
    pub redacts: Option<OwnedEventId>,
    pub content: Box<RawValue>,
    /// Canonical JSON with hashes and signatures, without `unsigned`.
    pub json: Arc<str>,
    /// Set by the driver from what it stored (see [`Pdu::into_rejected`]); authorisation by this event then fails.
    pub rejected: bool,
    /// See [`Pdu::decoded_levels`].
    pub(crate) decoded: OnceLock<Option<Arc<Levels>>>,
    /// Power levels of old rooms in the form that the authorisation rules read, where that is another.
    pub(crate) levels: Option<Box<RawValue>>,
    /// Whether `room_id` is a field of the JSON (it is not in create events of version 12 and up).
    pub(crate) room_id_in_json: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error("the event is not a PDU: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the event has no room_id")]
    NoRoomId,
}

impl Pdu {
    /// Parses trusted bytes out of the store; hashes and signatures are not checked again.
    pub fn parse(
        json: Arc<str>,
        event_id: OwnedEventId,
        rules: &RoomVersionRules,
    ) -> Result<Self, ParseError> {
        fields::parse(json, event_id, rules)
    }

    /// Takes a PDU from outside: canonical JSON, format and size limits, the event id from the reference hash (or, in
    /// versions 1 and 2, from the event). Hashes and signatures are checked by [`crate::checks`].
    pub fn receive(raw: &RawValue, rules: &RoomVersionRules) -> Result<Self, ReceiveError> {
        Ok(receive_signed(raw, rules)?.0)
    }

    /// The same event, known to have been rejected.
    pub fn into_rejected(self) -> Self {
        Self { rejected: true, ..self }
    }

    /// How long the event is to be sticky, as its sender says (MSC4354); `None` if it is not.
    pub fn sticky_duration_ms(&self) -> Option<u64> {
        #[derive(serde::Deserialize)]
        struct Field {
            msc4354_sticky: Sticky,
        }
        #[derive(serde::Deserialize)]
        struct Sticky {
            duration_ms: u64,
        }
        // Most events are not sticky, and that is seen without parsing.
        if !self.json.contains(crate::build::STICKY) {
            return None;
        }
        serde_json::from_str::<Field>(&self.json).ok().map(|field| field.msc4354_sticky.duration_ms)
    }

    pub fn is_state(&self) -> bool {
        self.state_key.is_some()
    }

    /// Whether this is the state event of that type and state key.
    pub fn is_state_of(&self, event_type: &str, state_key: &str) -> bool {
        self.state_key.as_deref() == Some(state_key) && self.event_type == TimelineEventType::from(event_type)
    }

    /// `content.membership` of an `m.room.member` event.
    pub fn membership(&self) -> Option<MembershipState> {
        (self.event_type == TimelineEventType::RoomMember).then(|| self.content_field("membership")).flatten()
    }

    /// One field of the content; `None` if it is absent or of another type.
    pub fn content_field<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        content::field(&self.content, name)
    }

    /// What an `m.room.power_levels` event says, decoded on first use; `None` if it is malformed.
    pub(crate) fn decoded_levels(&self, rules: &AuthorizationRules) -> Option<&Levels> {
        let decoded = self.decoded.get_or_init(|| Levels::decode(self, rules).map(Arc::new));
        decoded.as_deref()
    }

    /// The content of an `m.room.power_levels` event with all levels as integers, as version 10 and up want them.
    pub fn integer_levels(&self) -> Option<Map<String, Value>> {
        levels::integers(&self.content)
    }

    /// `content.m.relates_to`, if it has a type and a target.
    pub fn relates_to(&self) -> Option<Relation> {
        content::relation(&self.content)
    }
}

/// The room id that a create event stands for in version 12 and up.
pub(crate) fn room_id_of_create(
    event_id: &EventId,
    event_type: &TimelineEventType,
    rules: &RoomVersionRules,
) -> Option<OwnedRoomId> {
    let derives =
        rules.authorization.room_create_event_id_as_room_id && *event_type == TimelineEventType::RoomCreate;
    derives.then(|| RoomId::new_v2(event_id.localpart()).ok()).flatten()
}

impl state_res::Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.event_id
    }

    /// As in the JSON: the authorisation rules refuse a create event of version 12 that carries one.
    fn room_id(&self) -> Option<&RoomId> {
        self.room_id_in_json.then_some(&*self.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.event_type
    }

    fn content(&self) -> &RawValue {
        self.levels.as_ref().unwrap_or(&self.content)
    }

    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}

#[cfg(test)]
mod tests;
