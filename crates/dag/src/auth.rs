//! Authorisation (room versions, "Authorization rules"): ruma's rules over this crate's PDUs.
//!
//! Must not know: where auth events and room state come from; both are asked for through closures.

mod levels;

use ruma::{
    EventId, OwnedEventId, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
    state_res,
};
use serde_json::value::RawValue;

pub use self::levels::Held;
pub(crate) use self::levels::Levels;
use self::levels::Seen;
use crate::{Pdu, room_version};

/// The rule that an event broke, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejection {
    pub reason: String,
}

/// What became of a PDU that is an event at all (Server-Server API, "Checks performed on receipt of a PDU").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    /// Authorised where it stands in the graph, but not by the current state: kept, not shown, not built upon.
    SoftFailed {
        reason: String,
    },
    /// Not authorised: kept, so that its children can be judged, never shown.
    Rejected {
        reason: String,
    },
}

impl Verdict {
    pub fn is_accepted(&self) -> bool {
        *self == Self::Accepted
    }

    pub fn is_rejected(&self) -> bool {
        matches!(self, Self::Rejected { .. })
    }
}

impl From<String> for Rejection {
    fn from(reason: String) -> Self {
        Self { reason }
    }
}

/// The `(type, state_key)` pairs of the room state that authorise an event ("Auth events selection"). In version 12
/// and up the create event is not among them, though [`authorize`] still asks for it.
pub fn auth_types(
    rules: &RoomVersionRules,
    event_type: &TimelineEventType,
    sender: &UserId,
    state_key: Option<&str>,
    content: &RawValue,
) -> Result<Vec<(StateEventType, String)>, Rejection> {
    let types = state_res::auth_types_for_event(event_type, sender, state_key, content, &rules.authorization);
    types.map_err(Rejection::from)
}

/// All authorisation rules for an event made here: by its auth events, and by the state before it.
pub fn authorize<E: Held, S: Held>(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    fetch_event: impl Fn(&EventId) -> Option<E>,
    fetch_state: impl Fn(&StateEventType, &str) -> Option<S>,
) -> Result<(), Rejection> {
    authorize_by_auth_events(rules, pdu, fetch_event)?;
    authorize_by_state(rules, pdu, fetch_state)
}

/// The state-independent rules: the auth events are the right ones, known, of the same room, and not rejected.
pub fn authorize_by_auth_events<E: Held>(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    fetch_event: impl Fn(&EventId) -> Option<E>,
) -> Result<(), Rejection> {
    if pdu.event_type == TimelineEventType::RoomCreate && room_version::of_create(&pdu.content).is_none() {
        return Err(Rejection { reason: "`room_version` of the create event is not recognised".to_owned() });
    }
    Ok(state_res::check_state_independent_auth_rules(&rules.authorization, pdu, fetch_event)?)
}

/// The state-dependent rules against one state of the room.
pub fn authorize_by_state<E: Held>(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    fetch_state: impl Fn(&StateEventType, &str) -> Option<E>,
) -> Result<(), Rejection> {
    let auth_rules = &rules.authorization;
    let seen = |event_type: &StateEventType, state_key: &str| {
        Some(Seen::by(pdu, fetch_state(event_type, state_key)?, auth_rules))
    };
    Ok(state_res::check_state_dependent_auth_rules(auth_rules, pdu, seen)?)
}

/// The create event that is not listed because the room id is its name.
pub(crate) fn implied_create_event(pdu: &Pdu, rules: &RoomVersionRules) -> Option<OwnedEventId> {
    let implied = rules.authorization.room_create_event_id_as_room_id && pdu.room_id_in_json;
    implied.then(|| EventId::new_v2_or_v3(pdu.room_id.strip_sigil()).ok()).flatten()
}

#[cfg(test)]
mod tests;
