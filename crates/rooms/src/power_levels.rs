//! Who may do what in a room, for guards and for messages to people. Decisions are the authorisation rules' alone.

use std::collections::HashSet;

use myelin_dag::Pdu;
use ruma::{
    Int, OwnedUserId, UserId,
    events::{TimelineEventType, room::power_levels::UserPowerLevel},
    room_version_rules::AuthorizationRules,
    state_res::events::{RoomCreateEvent, RoomPowerLevelsEvent, RoomPowerLevelsIntField},
};

/// The power levels in one state of a room.
pub struct PowerLevels<'a> {
    rules: &'a AuthorizationRules,
    creators: HashSet<OwnedUserId>,
    event: Option<RoomPowerLevelsEvent<&'a Pdu>>,
}

impl<'a> PowerLevels<'a> {
    /// Levels that do not parse count as their defaults, as nobody can use them.
    pub fn new(rules: &'a AuthorizationRules, create: &'a Pdu, power_levels: Option<&'a Pdu>) -> Self {
        let creators = RoomCreateEvent::new(create).creators(rules).unwrap_or_default();
        Self { rules, creators, event: power_levels.map(RoomPowerLevelsEvent::new) }
    }

    pub fn of_user(&self, user: &UserId) -> UserPowerLevel {
        let is_creator = self.creators.contains(user);
        match &self.event {
            _ if is_creator && self.rules.explicitly_privilege_room_creators => UserPowerLevel::Infinite,
            Some(event) => event.user_power_level(user, self.rules).unwrap_or_default().into(),
            None if is_creator => Int::from(100_u8).into(),
            None => Int::from(0_u8).into(),
        }
    }

    pub fn to_send(&self, event_type: &TimelineEventType, state_key: Option<&str>) -> Int {
        let default = if state_key.is_some() {
            RoomPowerLevelsIntField::StateDefault
        } else {
            RoomPowerLevelsIntField::EventsDefault
        };
        let level = self.event.as_ref().map(|e| e.event_power_level(event_type, state_key, self.rules));
        level.and_then(Result::ok).unwrap_or_else(|| default.default_value())
    }

    pub fn to(&self, field: RoomPowerLevelsIntField) -> Int {
        let level = self.event.as_ref().map(|e| e.get_as_int_or_default(field, self.rules));
        level.and_then(Result::ok).unwrap_or_else(|| field.default_value())
    }

    /// The creators and whom the event names.
    pub fn named(&self) -> Vec<OwnedUserId> {
        let users = self.event.as_ref().and_then(|event| event.users(self.rules).ok()).flatten();
        self.creators.iter().chain(users.into_iter().flat_map(|users| users.keys())).cloned().collect()
    }

    pub fn may_send(&self, user: &UserId, event_type: &TimelineEventType, state_key: Option<&str>) -> bool {
        self.of_user(user) >= self.to_send(event_type, state_key)
    }

    pub fn may(&self, user: &UserId, field: RoomPowerLevelsIntField) -> bool {
        self.of_user(user) >= self.to(field)
    }
}
