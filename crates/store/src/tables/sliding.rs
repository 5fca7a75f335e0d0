//! Values of the tables of sliding sync (MSC4186) and of thread subscriptions (MSC4306).

use myelin_core::{Position, RoomNid};
use serde::{Deserialize, Serialize};

use crate::codec::Record;

/// What one connection has been told, as of one of its positions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlidingConnectionRecord {
    pub configs: Vec<SentConfigRecord>,
    pub rooms: Vec<SentRoomRecord>,
}
impl Record for SlidingConnectionRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentRoomRecord {
    pub room: RoomNid,
    /// Index into `configs`.
    pub config: u32,
    /// `None`: everything up to the position of the connection.
    pub until: Option<Position>,
}

/// As what a room has been sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentConfigRecord {
    pub timeline_limit: u32,
    pub required_state: Vec<RequiredStateRecord>,
    /// Bits of the extensions that told of the room.
    pub extensions: u8,
}

/// Patterns are (type, state key); `None` stands for any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequiredStateRecord {
    pub include: Vec<(Option<String>, Option<String>)>,
    pub exclude: Vec<(Option<String>, Option<String>)>,
    pub lazy_members: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadSubscriptionRecord {
    /// `false`: the user unsubscribed.
    pub subscribed: bool,
    /// The client subscribed by itself.
    pub automatic: bool,
}
impl Record for ThreadSubscriptionRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadRef {
    pub room: RoomNid,
    pub root: String,
}
impl Record for ThreadRef {}
