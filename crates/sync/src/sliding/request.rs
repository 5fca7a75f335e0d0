//! What a client asks for in one request (MSC4186, "Request Body").

use std::{collections::BTreeMap, sync::Arc};

use myelin_store::tables::SentConfigRecord;
use ruma::{OwnedRoomId, presence::PresenceState};
use serde::Deserialize;

use super::required_state::{RequiredState, RequiredStates};
use crate::Requester;

/// Lists of one request, as the proposal says. A set of lists fits into 128 bits.
pub const LISTS_MAX: usize = 100;
pub const SUBSCRIPTIONS_MAX: usize = 100;
pub const RANGES_PER_LIST_MAX: usize = 16;
pub const LIST_NAME_SIZE_MAX: usize = 64;
pub const CONN_ID_SIZE_MAX: usize = 64;
/// Patterns of one `required_state`.
pub const REQUIRED_STATE_MAX: usize = 200;
/// The most that is sent of a timeline; who asks for more gets so many.
pub const TIMELINE_LIMIT_MAX: usize = 100;
/// Strings in one filter.
pub const FILTER_VALUES_MAX: usize = 200;
/// Rooms and lists named in one extension.
pub const SELECTED_MAX: usize = 200;

/// Which form of the proposal the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `/unstable/org.matrix.simplified_msc3575/sync`.
    Unstable,
    /// `/v4/sync`.
    V4,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub requester: Requester,
    pub dialect: Dialect,
    /// "" for none.
    pub conn_id: String,
    pub pos: Option<String>,
    pub txn_id: Option<String>,
    pub timeout_ms: u64,
    pub set_presence: PresenceState,
    pub lists: BTreeMap<String, List>,
    pub subscriptions: BTreeMap<OwnedRoomId, Arc<RoomConfig>>,
    pub extensions: Extensions,
}

#[derive(Clone, Debug)]
pub struct List {
    /// Inclusive; `None`: all rooms.
    pub ranges: Option<Vec<(u64, u64)>>,
    pub filter: RoomFilter,
    pub config: Arc<RoomConfig>,
}

/// What is sent of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomConfig {
    pub timeline_limit: usize,
    pub required_state: RequiredStates,
    pub extensions: PerRoom,
}

/// The extensions that tell of a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerRoom(u8);

impl PerRoom {
    pub const ACCOUNT_DATA: Self = Self(1);
    pub const RECEIPTS: Self = Self(2);
    pub const TYPING: Self = Self(4);

    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl RoomConfig {
    /// The superset of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            timeline_limit: self.timeline_limit.max(other.timeline_limit),
            required_state: self.required_state.and(&other.required_state),
            extensions: self.extensions.and(other.extensions),
        }
    }

    /// Whether a room that is kept up to date as this one says is so as the other says, and nothing more.
    pub fn stands_for(&self, other: &Self) -> bool {
        self.timeline_limit >= other.timeline_limit
            && self.required_state == other.required_state
            && self.extensions == other.extensions
    }

    pub fn record(&self) -> SentConfigRecord {
        SentConfigRecord {
            timeline_limit: u32::try_from(self.timeline_limit).unwrap_or(u32::MAX),
            required_state: self.required_state.iter().map(RequiredState::record).collect(),
            extensions: self.extensions.0,
        }
    }

    pub fn from_record(record: SentConfigRecord) -> Self {
        Self {
            timeline_limit: record.timeline_limit as usize,
            required_state: record.required_state.into_iter().map(RequiredState::from_record).collect(),
            extensions: PerRoom(record.extensions),
        }
    }
}

/// `filters` of a list; all of them have to be met.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RoomFilter {
    pub is_dm: Option<bool>,
    pub spaces: Option<Vec<String>>,
    pub is_encrypted: Option<bool>,
    #[serde(alias = "is_invited")]
    pub is_invite: Option<bool>,
    pub room_types: Option<Vec<Option<String>>>,
    pub not_room_types: Option<Vec<Option<String>>>,
    pub room_name_like: Option<String>,
    pub tags: Option<Vec<String>>,
    pub not_tags: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default)]
pub struct Extensions {
    pub to_device: Option<Stream>,
    pub e2ee: bool,
    pub account_data: Option<Selection>,
    pub receipts: Option<Selection>,
    pub typing: Option<Selection>,
    /// The most changes of thread subscriptions in one answer (MSC4308).
    pub thread_subscriptions: Option<usize>,
    /// Sticky events (MSC4480).
    pub sticky_events: Option<Stream>,
}

/// An extension that goes by a token of its own.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    pub since: Option<String>,
    pub limit: usize,
}

/// For which rooms an extension is on; `None` stands for all.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub lists: Option<Vec<String>>,
    pub rooms: Option<Vec<String>>,
}

impl Selection {
    fn has_list(&self, name: &str) -> bool {
        self.lists.as_ref().is_none_or(|lists| lists.iter().any(|list| list == "*" || list == name))
    }

    fn has_subscription(&self, room_id: &str) -> bool {
        self.rooms.as_ref().is_none_or(|rooms| rooms.iter().any(|room| room == "*" || room == room_id))
    }

    fn names_room(&self, room_id: &str) -> bool {
        self.rooms.as_ref().is_some_and(|rooms| rooms.iter().any(|room| room == room_id))
    }
}

impl Extensions {
    pub fn of_list(&self, name: &str) -> PerRoom {
        self.those(|selection| selection.has_list(name))
    }

    pub fn of_subscription(&self, room_id: &str) -> PerRoom {
        self.those(|selection| selection.has_subscription(room_id))
    }

    /// Those that name the room, however it came into the answer.
    pub fn of_named(&self, room_id: &str) -> PerRoom {
        self.those(|selection| selection.names_room(room_id))
    }

    fn those(&self, wanted: impl Fn(&Selection) -> bool) -> PerRoom {
        let parts = [
            (PerRoom::ACCOUNT_DATA, &self.account_data),
            (PerRoom::RECEIPTS, &self.receipts),
            (PerRoom::TYPING, &self.typing),
        ];
        let on = parts.into_iter().filter(|(_, selection)| selection.as_ref().is_some_and(&wanted));
        on.fold(PerRoom::default(), |sum, (bit, _)| sum.and(bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_on_where_they_are_asked_for() {
        let named = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let extensions = Extensions {
            account_data: Some(Selection::default()),
            receipts: Some(Selection { lists: named(&["a"]), rooms: named(&[]) }),
            typing: Some(Selection { lists: named(&[]), rooms: named(&["!x:y"]) }),
            ..Extensions::default()
        };
        let (data, receipts, typing) = (PerRoom::ACCOUNT_DATA, PerRoom::RECEIPTS, PerRoom::TYPING);
        assert_eq!(extensions.of_list("a"), data.and(receipts));
        assert_eq!(extensions.of_list("b"), data);
        assert_eq!(extensions.of_subscription("!x:y"), data.and(typing));
        assert_eq!(extensions.of_subscription("!z:y"), data);
        assert_eq!(extensions.of_named("!x:y"), typing);
        assert_eq!(Extensions::default().of_list("a"), PerRoom::default());
    }

    #[test]
    fn configs_combine_to_the_superset() {
        let config = |limit, key| RoomConfig {
            timeline_limit: limit,
            required_state: RequiredState::from_pairs([(key, "")], "@me:x").into(),
            extensions: PerRoom::TYPING,
        };
        let both = config(1, "m.room.name").and(&config(5, "m.room.topic"));
        assert_eq!(both.timeline_limit, 5);
        assert!(
            both.required_state.matches("m.room.name", "") && both.required_state.matches("m.room.topic", "")
        );
        assert!(config(5, "m.room.name").stands_for(&config(1, "m.room.name")));
        assert!(!config(1, "m.room.name").stands_for(&config(5, "m.room.name")));
        assert!(!both.stands_for(&config(1, "m.room.name")), "what it no longer is told has to be noted");
        assert_eq!(RoomConfig::from_record(both.record()), both);
    }
}
