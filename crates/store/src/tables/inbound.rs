//! Records of what comes from other servers.

use myelin_core::{EventNid, RoomNid};
use serde::{Deserialize, Serialize};

use crate::codec::Record;

/// A PDU that was acknowledged before it could be judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundPduRecord {
    pub received_ms: u64,
    /// Place among those received at the same time.
    pub index: u32,
    /// The PDU as it was brought.
    pub json: String,
}
impl Record for InboundPduRecord {}

/// A PDU that was acknowledged before its room was here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrivingPduRecord {
    pub origin: String,
    /// The PDU as it was brought.
    pub json: String,
}
impl Record for ArrivingPduRecord {}

/// What a repeated transaction is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundTransactionRecord {
    pub transaction_id: String,
    /// Event ids with what was wrong with them; "" for nothing.
    pub answers: Vec<(String, String)>,
}
impl Record for InboundTransactionRecord {}

/// Redactions of one event that is not there, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlyRedactionsRecord {
    pub by: Vec<EventNid>,
}
impl Record for EarlyRedactionsRecord {}

/// A change of the current state that no accepted event asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateResetRecord {
    pub room: RoomNid,
    /// The event whose arrival brought it about.
    pub by: EventNid,
    pub event_type: String,
    pub state_key: String,
    /// `dropped`, `reverted` or `overturned`.
    pub kind: String,
    pub before: Option<EventNid>,
    pub after: Option<EventNid>,
    /// Roots of the current state before and after.
    pub state_before: [u8; 16],
    pub state_after: [u8; 16],
}
impl Record for StateResetRecord {}
