//! Filters (Client-Server API, "Filtering").

use myelin_core::patterns::wildcard;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::Deserialize;

use crate::Format;

/// Timeline events per room when the filter names no limit, as other servers do.
pub const TIMELINE_LIMIT_DEFAULT: usize = 10;
/// The most that a filter may ask for.
pub const TIMELINE_LIMIT_MAX: usize = 1000;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Filter {
    pub event_fields: Option<Vec<String>>,
    pub event_format: Format,
    pub presence: EventFilter,
    pub account_data: EventFilter,
    pub room: RoomFilter,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RoomFilter {
    pub rooms: Option<Vec<OwnedRoomId>>,
    pub not_rooms: Vec<OwnedRoomId>,
    pub include_leave: bool,
    pub account_data: EventFilter,
    pub ephemeral: EventFilter,
    pub state: EventFilter,
    pub timeline: EventFilter,
}

/// `EventFilter` and `RoomEventFilter` in one: the fields that only the latter has are absent from the former.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EventFilter {
    pub limit: Option<u64>,
    pub senders: Option<Vec<OwnedUserId>>,
    pub not_senders: Vec<OwnedUserId>,
    pub types: Option<Vec<String>>,
    pub not_types: Vec<String>,
    pub rooms: Option<Vec<OwnedRoomId>>,
    pub not_rooms: Vec<OwnedRoomId>,
    pub contains_url: Option<bool>,
    pub lazy_load_members: bool,
    pub include_redundant_members: bool,
    pub unread_thread_notifications: bool,
    /// `/messages`: only events that somebody relates to in this way (v1.3, MSC3874).
    pub related_by_rel_types: Option<Vec<String>>,
    pub related_by_senders: Option<Vec<OwnedUserId>>,
}

impl RoomFilter {
    pub fn allows_room(&self, room: &RoomId) -> bool {
        listed(self.rooms.as_deref(), &self.not_rooms, |r| r == room)
    }
}

impl EventFilter {
    /// At least 1.
    pub fn limit_or(&self, default: usize) -> usize {
        let limit = self.limit.map_or(default, |n| usize::try_from(n).unwrap_or(usize::MAX));
        limit.clamp(1, TIMELINE_LIMIT_MAX)
    }

    /// Nothing is left out: the common case, decided once per filter part.
    pub fn is_open(&self) -> bool {
        self.senders.is_none()
            && self.not_senders.is_empty()
            && self.types.is_none()
            && self.not_types.is_empty()
            && self.contains_url.is_none()
    }

    pub fn allows_room(&self, room: &RoomId) -> bool {
        listed(self.rooms.as_deref(), &self.not_rooms, |r| r == room)
    }

    pub fn allows_type(&self, event_type: &str) -> bool {
        listed(self.types.as_deref(), &self.not_types, |pattern| wildcard(pattern, event_type))
    }

    pub fn allows_sender(&self, sender: &UserId) -> bool {
        listed(self.senders.as_deref(), &self.not_senders, |s| s == sender)
    }

    /// Type, sender and `contains_url` together.
    pub fn allows(&self, event_type: &str, sender: &UserId, has_url: impl FnOnce() -> bool) -> bool {
        self.is_open()
            || (self.allows_type(event_type)
                && self.allows_sender(sender)
                && self.contains_url.is_none_or(|wanted| wanted == has_url()))
    }

    pub fn allows_event(&self, pdu: &myelin_dag::Pdu) -> bool {
        // The name of a type is only made into text where something asks for it.
        self.is_open()
            || self.allows(&pdu.event_type.to_string(), &pdu.sender, || {
                pdu.content_field::<serde_json::Value>("url").is_some_and(|url| url.is_string())
            })
    }
}

/// An exclusion wins over an inclusion; no list of inclusions includes everything.
fn listed<T>(included: Option<&[T]>, excluded: &[T], is: impl Fn(&T) -> bool) -> bool {
    !excluded.iter().any(&is) && included.is_none_or(|list| list.iter().any(&is))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusions_win_over_inclusions() {
        let filter: EventFilter =
            serde_json::from_str(r#"{"types":["m.*"],"not_types":["m.room.member"],"not_senders":["@a:b"]}"#)
                .expect("a filter");
        let sender: OwnedUserId = "@c:d".try_into().expect("a user id");
        let ignored: OwnedUserId = "@a:b".try_into().expect("a user id");
        assert!(filter.allows("m.room.name", &sender, || false));
        assert!(!filter.allows("m.room.member", &sender, || false));
        assert!(!filter.allows("x", &sender, || false));
        assert!(!filter.allows("m.room.name", &ignored, || false));
    }

    #[test]
    fn an_empty_list_of_inclusions_includes_nothing() {
        let filter: EventFilter = serde_json::from_str(r#"{"types":[]}"#).expect("a filter");
        assert!(!filter.allows_type("m.room.name"));
        assert!(!filter.is_open());
    }

    #[test]
    fn contains_url_looks_at_the_content() {
        let filter: EventFilter = serde_json::from_str(r#"{"contains_url":true}"#).expect("a filter");
        let sender: OwnedUserId = "@c:d".try_into().expect("a user id");
        assert!(filter.allows("m.room.message", &sender, || true));
        assert!(!filter.allows("m.room.message", &sender, || false));
    }

    #[test]
    fn limits_are_bounded() {
        let limit = |json: &str| serde_json::from_str::<EventFilter>(json).expect("a filter").limit_or(10);
        assert_eq!((limit("{}"), limit(r#"{"limit":0}"#), limit(r#"{"limit":99999999999}"#)), (10, 1, 1000));
    }
}
