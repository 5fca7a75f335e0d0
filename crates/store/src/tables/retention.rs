//! Records of what was purged because its time was over.

use serde::{Deserialize, Serialize};

use crate::codec::Record;

/// How far a room has been purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgedRecord {
    /// The place in the timeline up to which there is nothing left to purge.
    pub through: i64,
    /// What the room's head said then: more history may have come before that place since.
    pub backfilled: u64,
    /// Events in all.
    pub events: u64,
    pub last_ms: u64,
}
impl Record for PurgedRecord {}
