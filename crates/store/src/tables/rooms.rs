//! Records of rooms, events and memberships.

use myelin_core::{EventNid, RoomNid, StateKeyNid, UserNid};
use ruma::{ServerName, events::room::member::MembershipState};
use serde::{Deserialize, Serialize};

use super::NotifiedSoFar;
use crate::codec::Record;

/// What never changes about a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomRecord {
    pub room_id: String,
    pub room_version: String,
    /// The `type` of the create event (`m.space`).
    pub room_type: Option<String>,
    pub create_event: EventNid,
}
impl Record for RoomRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateKeyRecord {
    pub event_type: String,
    pub state_key: String,
}
impl Record for StateKeyRecord {}

/// The head of a room. Every commit to a room requires the value it was built on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomHead {
    /// Number of commits to this room; makes every head unique.
    pub version: u64,
    /// Root of the current state.
    pub current_state: [u8; 16],
    /// Forward extremities, newest first.
    pub extremities: Vec<EventNid>,
    /// Greatest depth of the extremities.
    pub depth: u64,
    /// Number of negative timeline orders used up by backfill.
    pub backfilled: u64,
    pub notified: NotifiedSoFar,
}
impl Record for RoomHead {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentStateRecord {
    pub root: [u8; 16],
}
impl Record for CurrentStateRecord {}

/// A PDU and what this server decided about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    pub room: RoomNid,
    pub event_id: String,
    pub sender: UserNid,
    /// Set for state events.
    pub state_key: Option<StateKeyNid>,
    /// Root of the room state before this event; `None` for outliers.
    pub state_before: Option<[u8; 16]>,
    /// Something of that state was still to come when the room was partially joined, and has not come since.
    pub state_is_partial: bool,
    /// It is what another server told, or follows from such a state.
    pub state_is_told: bool,
    pub placement: Placement,
    pub verdict: VerdictRecord,
    /// Who sent it here and under which transaction id (`unsigned.transaction_id`).
    pub transaction: Option<SentBy>,
    /// The redaction that was applied to it; `json` is the redacted form then.
    pub redacted_by: Option<EventNid>,
    /// Canonical JSON of the PDU in federated form.
    pub json: String,
}
impl Record for EventRecord {}

/// Where an event stands in the timeline of its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Placement {
    /// In the timeline at the position of its row.
    Live,
    /// In the timeline at this negative order.
    Backfilled(i64),
    /// Held (an auth event, or not accepted), but not shown.
    Outside,
    /// The same, with a state before it that another server told, or judged by what follows from such a state: once
    /// what it comes after is held, it is judged again.
    Told,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VerdictRecord {
    Accepted,
    SoftFailed { reason: String },
    Rejected { reason: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentBy {
    pub user: UserNid,
    pub device_id: String,
    pub transaction_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationRecord {
    pub rel_type: String,
    pub event: EventNid,
    pub event_type: String,
    pub sender: UserNid,
    /// The aggregation key of an annotation.
    pub key: Option<String>,
}
impl Record for RelationRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadRootRecord {
    /// The newest event in the thread.
    pub latest: EventNid,
}
impl Record for ThreadRootRecord {}

/// The answer that a repeated transaction gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionRecord {
    pub event_id: String,
    pub at_ms: u64,
}
impl Record for TransactionRecord {}

/// `membership` in one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Membership {
    Join,
    Invite,
    Leave,
    Ban,
    Knock,
}

impl From<&MembershipState> for Membership {
    /// Anything unknown counts as having left: it grants nothing.
    fn from(state: &MembershipState) -> Self {
        match state {
            MembershipState::Join => Self::Join,
            MembershipState::Invite => Self::Invite,
            MembershipState::Ban => Self::Ban,
            MembershipState::Knock => Self::Knock,
            _ => Self::Leave,
        }
    }
}

impl From<Membership> for MembershipState {
    fn from(membership: Membership) -> Self {
        match membership {
            Membership::Join => Self::Join,
            Membership::Invite => Self::Invite,
            Membership::Leave => Self::Leave,
            Membership::Ban => Self::Ban,
            Membership::Knock => Self::Knock,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    pub membership: Membership,
    pub event: EventNid,
}
impl Record for MemberRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRoomRecord {
    pub membership: Membership,
    pub event: EventNid,
    /// Left and forgotten: the room is gone for this user until the next membership.
    pub forgotten: bool,
    /// The user has been joined at some time (a rejected invite does not make history readable).
    pub was_joined: bool,
}
impl Record for UserRoomRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRoomRecord {
    /// Whether a user of the server is joined.
    pub joined: bool,
}
impl Record for ServerRoomRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrippedStateRecord {
    /// Stripped state events (Client-Server API, "Stripped state") as JSON.
    pub events: Vec<String>,
    /// Servers by which the room can be reached.
    pub servers: Vec<String>,
}
impl Record for StrippedStateRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialRoomRecord {
    /// The join by which this server came into the room: the state before it is what lacks.
    pub join: EventNid,
    /// Who was asked to let it in.
    pub resident: String,
    /// The servers in the room, as the resident server named them.
    pub servers: Vec<String>,
    pub since_ms: u64,
    /// Keys that were not to be had: what they signed of the state is still to come.
    pub keyless: Vec<KeylessRecord>,
    /// Whether members were left out; else the state was all there but for what `keyless` signed.
    pub members_omitted: bool,
    /// Events that were given and are not held, for want of these keys ([`LEFT_OUT`](super::LEFT_OUT)).
    pub left_out: Vec<String>,
}
impl Record for PartialRoomRecord {}

/// A PDU that nobody vouches for: its signature cannot be checked yet, or that of what authorises it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOutRecord {
    /// As it travels.
    pub json: String,
    /// Part of the state; else of what authorises that.
    pub of_state: bool,
}
impl Record for LeftOutRecord {}

/// By which something was signed that cannot be checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeylessRecord {
    pub server: String,
    /// One of these is enough.
    pub key_ids: Vec<String>,
    /// When it must have been valid, in milliseconds; 0 for any time.
    pub at_ms: u64,
}

impl PartialRoomRecord {
    pub fn servers(&self) -> impl Iterator<Item = &ServerName> {
        self.servers.iter().filter_map(|name| <&ServerName>::try_from(name.as_str()).ok())
    }
}

/// A change that concerns one user only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserChange {
    /// The user's own membership in `room` became `membership` by `event`.
    Membership { room: RoomNid, membership: Membership, event: EventNid },
    /// Account data (global if `room` is `RoomNid::GLOBAL`), tags included.
    AccountData { room: RoomNid, kind: String },
    /// The user signed the keys of `user`, and sees them signed from now on.
    Signed { user: UserNid },
    /// All members of `room`, which the user is in, are known now: clients that need them have not been shown it before.
    Completed { room: RoomNid },
}
impl Record for UserChange {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasRecord {
    pub room: RoomNid,
    pub creator: UserNid,
}
impl Record for AliasRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptRecord {
    pub event_id: String,
    /// Where that event stands; receipts only move forward.
    pub order: i64,
    pub ts_ms: u64,
}
impl Record for ReceiptRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptRef {
    pub user: UserNid,
    pub receipt_type: String,
    /// "" for none.
    pub thread_id: String,
}
impl Record for ReceiptRef {}
