//! The auth events of a new event, out of the state it is made in, and what to tell people when the rules say no.

use std::sync::Arc;

use myelin_dag::{Pdu, Rejection};
use myelin_view::{Event, RoomInfo};
use ruma::{
    EventId, OwnedEventId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
    state_res::events::{RoomPowerLevelsEvent, RoomPowerLevelsIntField},
};

use crate::{Error, power_levels::PowerLevels};

/// The part of a room's state that authorises one event.
pub struct AuthSet {
    entries: Vec<(StateEventType, String, Arc<Event>)>,
    /// Whether the create event is named by the room id and so is not among the auth events.
    create_is_implied: bool,
}

impl AuthSet {
    pub fn new(info: &RoomInfo, entries: Vec<(StateEventType, String, Arc<Event>)>) -> Self {
        Self { entries, create_is_implied: info.rules.authorization.room_create_event_id_as_room_id }
    }

    /// The auth events as the PDU lists them.
    pub fn auth_events(&self) -> Vec<OwnedEventId> {
        self.listed().map(|event| event.pdu.event_id.clone()).collect()
    }

    /// All of them, the implied create event too.
    pub fn events(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.entries.iter().map(|(_, _, event)| event)
    }

    pub fn state(&self, event_type: &StateEventType, state_key: &str) -> Option<&Pdu> {
        let entry = self.entries.iter().find(|(of_type, key, _)| of_type == event_type && key == state_key);
        entry.map(|(_, _, event)| &*event.pdu)
    }

    pub fn event(&self, id: &EventId) -> Option<&Pdu> {
        self.events().map(|event| &*event.pdu).find(|pdu| pdu.event_id == id)
    }

    /// Whether these events are all that is in it, and all of them are.
    pub fn consists_of(&self, events: &[Arc<Event>]) -> bool {
        let is_among = |entry: &Arc<Event>| events.iter().any(|event| event.nid == entry.nid);
        self.entries.len() == events.len() && self.events().all(is_among)
    }

    fn listed(&self) -> impl Iterator<Item = &Arc<Event>> {
        let implied =
            |event_type: &StateEventType| self.create_is_implied && *event_type == StateEventType::RoomCreate;
        self.entries.iter().filter(move |(event_type, ..)| !implied(event_type)).map(|(_, _, event)| event)
    }

    fn membership(&self, user: &str) -> Option<MembershipState> {
        self.state(&StateEventType::RoomMember, user)?.membership()
    }
}

/// The rules say no: finds the words for it.
pub fn explain(info: &RoomInfo, auth: &AuthSet, pdu: &Pdu, rejection: &Rejection) -> Error {
    let Some(create) = auth.state(&StateEventType::RoomCreate, "") else {
        return Error::Forbidden(format!("The room does not allow this: {rejection}."));
    };
    let levels = auth.state(&StateEventType::RoomPowerLevels, "");
    let levels = PowerLevels::new(&info.rules.authorization, create, levels);
    let reason = match &pdu.event_type {
        TimelineEventType::RoomMember => explain_member(info, auth, pdu, &levels),
        _ => explain_event(info, auth, pdu, &levels),
    };
    if reason.is_none() && is_malformed(info, pdu) {
        return Error::BadJson(format!("These power levels are not right: {rejection}."));
    }
    Error::Forbidden(reason.unwrap_or_else(|| format!("The room does not allow this: {rejection}.")))
}

const INTEGERS: [RoomPowerLevelsIntField; 7] = {
    use RoomPowerLevelsIntField as F;
    [F::UsersDefault, F::EventsDefault, F::StateDefault, F::Ban, F::Redact, F::Kick, F::Invite]
};

/// Power levels that no sender could set: what is wrong is the request.
fn is_malformed(info: &RoomInfo, pdu: &Pdu) -> bool {
    let (rules, levels) = (&info.rules.authorization, RoomPowerLevelsEvent::new(pdu));
    pdu.event_type == TimelineEventType::RoomPowerLevels
        && (levels.users(rules).is_err()
            || levels.events(rules).is_err()
            || levels.notifications(rules).is_err()
            || INTEGERS.iter().any(|field| levels.get_as_int(*field, rules).is_err()))
}

fn explain_event(info: &RoomInfo, auth: &AuthSet, pdu: &Pdu, levels: &PowerLevels<'_>) -> Option<String> {
    if auth.membership(pdu.sender.as_str()) != Some(MembershipState::Join) {
        return Some(format!("You are not in the room {}.", info.room_id));
    }
    let needed = levels.to_send(&pdu.event_type, pdu.state_key.as_deref());
    let kind = if pdu.is_state() { "set" } else { "send" };
    lacking(levels, &pdu.sender, needed, &format!("{kind} {} events", pdu.event_type))
}

fn explain_member(info: &RoomInfo, auth: &AuthSet, pdu: &Pdu, levels: &PowerLevels<'_>) -> Option<String> {
    let target = pdu.state_key.as_deref()?;
    let before = auth.membership(target);
    let membership = pdu.membership()?;
    let own = pdu.sender.as_str() == target;
    match (&membership, &before) {
        (MembershipState::Join | MembershipState::Knock, Some(MembershipState::Ban)) => {
            return Some("You are banned from this room.".to_owned());
        }
        (MembershipState::Invite, Some(MembershipState::Ban)) => {
            return Some(format!("{target} is banned from this room."));
        }
        (MembershipState::Invite, Some(MembershipState::Join)) => {
            return Some(format!("{target} is in this room already."));
        }
        (MembershipState::Join, _) if own => return Some("You are not invited to this room.".to_owned()),
        (MembershipState::Join, _) => return Some("You cannot join for somebody else.".to_owned()),
        (MembershipState::Knock, _) => return Some("You are not allowed to knock on this room.".to_owned()),
        _ => {}
    }
    if auth.membership(pdu.sender.as_str()) != Some(MembershipState::Join) {
        return Some(format!("You are not in the room {}.", info.room_id));
    }
    let (field, verb) = match (membership, before) {
        (MembershipState::Invite, _) => (RoomPowerLevelsIntField::Invite, "invite"),
        (MembershipState::Ban, _) => (RoomPowerLevelsIntField::Ban, "ban"),
        (_, Some(MembershipState::Ban)) => (RoomPowerLevelsIntField::Ban, "unban"),
        _ => (RoomPowerLevelsIntField::Kick, "kick"),
    };
    let lacks = lacking(levels, &pdu.sender, levels.to(field), &format!("{verb} people"));
    lacks.or_else(|| Some(format!("{target} has as much power in this room as you have.")))
}

fn lacking(levels: &PowerLevels<'_>, user: &UserId, needed: ruma::Int, what: &str) -> Option<String> {
    use ruma::events::room::power_levels::UserPowerLevel;
    match levels.of_user(user) {
        UserPowerLevel::Int(has) if has < needed => {
            Some(format!("You need power level {needed} to {what}, you have {has}."))
        }
        _ => None,
    }
}
