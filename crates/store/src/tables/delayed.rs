//! Records of delayed events (MSC4140) and sticky events (MSC4354).

use myelin_core::{RoomNid, UserNid};
use serde::{Deserialize, Serialize};

use crate::codec::Record;

/// An event that is to be sent later, or what has become of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayedEventRecord {
    pub user: UserNid,
    pub guest: bool,
    pub room_id: String,
    pub event_type: String,
    /// Set for state events.
    pub state_key: Option<String>,
    /// JSON.
    pub content: String,
    pub sticky_duration_ms: Option<u64>,
    pub delay_ms: u64,
    /// When it was scheduled, or restarted last.
    pub running_since_ms: u64,
    /// Its place in `due_delayed_events`.
    pub due_ms: u64,
    pub outcome: Option<DelayedOutcomeRecord>,
}
impl Record for DelayedEventRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayedOutcomeRecord {
    pub at_ms: u64,
    /// Somebody asked for it; else the time had come.
    pub by_action: bool,
    /// `None`: it was cancelled.
    pub event_id: Option<String>,
    /// What the room said to it: errcode and message.
    pub error: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayedEventRef {
    /// `None`: it is still to be sent.
    pub finalised_ms: Option<u64>,
}
impl Record for DelayedEventRef {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StickyEventRecord {
    pub room: RoomNid,
}
impl Record for StickyEventRecord {}
