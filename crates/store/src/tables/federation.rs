//! Records of what is said to other servers.

use myelin_core::{EventNid, Position};
use serde::{Deserialize, Serialize};

use crate::codec::Record;

/// An EDU that has to arrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRecord {
    pub edu_type: String,
    /// The content, JSON as text.
    pub json: String,
}
impl Record for OutboxRecord {}

/// A server that has not got everything, and how it stands with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationRecord {
    /// Whatever the log has for it from here on may not have arrived.
    pub behind_from: Position,
    /// Since when, milliseconds.
    pub behind_since_ms: u64,
    /// Consecutive transactions that failed.
    pub failures: u32,
    /// Not before this time, milliseconds.
    pub retry_at_ms: u64,
    pub last_success_ms: Option<u64>,
    pub last_error: Option<String>,
    /// Events that it has to get even when only the newest of each room go: those that take its users out of rooms.
    pub targeted: Vec<EventNid>,
}
impl Record for DestinationRecord {}
