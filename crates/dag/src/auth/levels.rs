//! Power levels, decoded once per event and shown to the rules as small as the question.
//!
//! ruma's rules read the whole content of the power levels for each event that they judge. In a room with many
//! moderators that is most of their cost, so they are shown an excerpt: the levels of those whom the event is about.

use std::collections::HashMap;

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UserId,
    events::TimelineEventType,
    room_version_rules::AuthorizationRules,
    state_res::{
        Event,
        events::{RoomPowerLevelsEvent, RoomPowerLevelsIntField as Field},
    },
};
use serde_json::value::RawValue;

use crate::{Pdu, canonical::push_json_string};

const FIELDS: [Field; 7] = [
    Field::Ban,
    Field::EventsDefault,
    Field::Invite,
    Field::Kick,
    Field::Redact,
    Field::StateDefault,
    Field::UsersDefault,
];

/// What an `m.room.power_levels` event says, as its room version reads it.
#[derive(Debug, Clone)]
pub struct Levels {
    /// In the order of [`FIELDS`].
    fields: [Option<i64>; 7],
    users: HashMap<String, i64>,
    events: HashMap<String, i64>,
}

impl Levels {
    /// `None` if anything is malformed: the rules then say so themselves.
    pub fn decode(pdu: &Pdu, rules: &AuthorizationRules) -> Option<Self> {
        let event = RoomPowerLevelsEvent::new(pdu);
        let mut fields = [None; 7];
        for (level, field) in fields.iter_mut().zip(FIELDS) {
            *level = event.get_as_int(field, rules).ok()?.map(i64::from);
        }
        let users = event.users(rules).ok()?.into_iter().flatten();
        let events = event.events(rules).ok()?.unwrap_or_default();
        Some(Self {
            fields,
            users: users.map(|(user, level)| (user.to_string(), i64::from(*level))).collect(),
            events: events.into_iter().map(|(kind, level)| (kind.to_string(), i64::from(level))).collect(),
        })
    }

    /// Of a user who is no creator.
    pub fn of_user(&self, user: &UserId) -> i64 {
        self.users.get(user.as_str()).copied().or(self.fields[6]).unwrap_or(0)
    }

    /// What is left if nobody but these users and no events but of this type are looked at.
    fn excerpt(&self, users: &[&str], event_type: &str) -> Option<Box<RawValue>> {
        let mut out = String::with_capacity(256);
        out.push('{');
        for (field, level) in FIELDS.iter().zip(self.fields) {
            if let Some(level) = level {
                push_level(&mut out, field.as_str(), level);
            }
        }
        push_levels(&mut out, "events", &self.events, &[event_type]);
        out.push(',');
        push_levels(&mut out, "users", &self.users, users);
        out.push('}');
        RawValue::from_string(out).ok()
    }
}

fn push_levels(out: &mut String, name: &str, levels: &HashMap<String, i64>, wanted: &[&str]) {
    push_json_string(out, name);
    out.push_str(":{");
    let start = out.len();
    for name in wanted {
        if let Some(level) = levels.get(*name) {
            push_level(out, name, *level);
        }
    }
    if out.len() > start {
        out.pop();
    }
    out.push('}');
}

/// With a comma behind it.
fn push_level(out: &mut String, name: &str, level: i64) {
    push_json_string(out, name);
    out.push(':');
    out.push_str(&level.to_string());
    out.push(',');
}

/// Somebody's hold on a PDU.
pub trait Held: Event {
    fn pdu(&self) -> &Pdu;
}

impl Held for Pdu {
    fn pdu(&self) -> &Pdu {
        self
    }
}

impl<T: Held> Held for &T {
    fn pdu(&self) -> &Pdu {
        (**self).pdu()
    }
}

impl<T: Held> Held for std::sync::Arc<T> {
    fn pdu(&self) -> &Pdu {
        (**self).pdu()
    }
}

/// An event as the rules see it while they judge another one.
pub struct Seen<E> {
    event: E,
    excerpt: Option<Box<RawValue>>,
}

impl<E: Held> Seen<E> {
    /// `judged` is the event in question. New power levels are compared with all that there is.
    pub fn by(judged: &Pdu, event: E, rules: &AuthorizationRules) -> Self {
        let is_levels = *event.event_type() == TimelineEventType::RoomPowerLevels;
        let excerpt = match is_levels && judged.event_type != TimelineEventType::RoomPowerLevels {
            true => excerpt_for(judged, event.pdu(), rules),
            false => None,
        };
        Self { event, excerpt }
    }
}

fn excerpt_for(judged: &Pdu, levels: &Pdu, rules: &AuthorizationRules) -> Option<Box<RawValue>> {
    let levels = levels.decoded_levels(rules)?;
    let event_type = judged.event_type.to_string();
    let sender = judged.sender.as_str();
    if judged.event_type != TimelineEventType::RoomMember {
        return levels.excerpt(&[sender], &event_type);
    }
    let authoriser: Option<String> = judged.content_field("join_authorised_via_users_server");
    let mut users = vec![sender];
    users.extend(judged.state_key.as_deref());
    users.extend(authoriser.as_deref());
    users.sort_unstable();
    users.dedup();
    levels.excerpt(&users, &event_type)
}

impl<E: Held> Event for Seen<E> {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        self.event.pdu().event_id()
    }

    fn room_id(&self) -> Option<&RoomId> {
        self.event.room_id()
    }

    fn sender(&self) -> &UserId {
        self.event.sender()
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.event.origin_server_ts()
    }

    fn event_type(&self) -> &TimelineEventType {
        self.event.event_type()
    }

    fn content(&self) -> &RawValue {
        match &self.excerpt {
            Some(excerpt) => excerpt,
            None => self.event.content(),
        }
    }

    fn state_key(&self) -> Option<&str> {
        self.event.state_key()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        self.event.pdu().prev_events()
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        self.event.pdu().auth_events()
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.event.pdu().redacts()
    }

    fn rejected(&self) -> bool {
        self.event.rejected()
    }
}
