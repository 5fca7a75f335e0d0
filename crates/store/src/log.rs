//! What a commit tells its readers. An entry says *what* changed, by numeric id; the reader loads the rest.

use myelin_core::{EventNid, RoomNid, StateKeyNid, TimelineOrder, UserNid};
use serde::{Deserialize, Serialize};

use crate::codec::Record;

/// One row of the commit log.
///
/// Variants are only ever appended: postcard stores their index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogEntry {
    /// An accepted event was appended to the timeline of its room, at the position of this entry.
    Event {
        room: RoomNid,
        event: EventNid,
        sender: UserNid,
        /// Set for state events.
        state_key: Option<StateKeyNid>,
        /// Set for `m.room.member`: whose membership it is.
        member: Option<UserNid>,
        /// The version of the room's head with this event: an older snapshot of the room is stale.
        head: u64,
        /// This server is to bring it to the other servers in the room: it was made here, or it came through a
        /// handshake (`send_join` and relatives) that made this server answer for it.
        relay: bool,
        /// Local users who are notified of it otherwise than the shared push rules say, or who from here on are.
        targeted: Vec<UserNid>,
    },
    /// A read receipt (public, private or threaded) of `user`.
    Receipt { room: RoomNid, user: UserNid },
    /// Account data of `user`; global if `room` is `RoomNid::GLOBAL`.
    AccountData { user: UserNid, room: RoomNid, kind: String },
    /// The profile of a local user changed; readers propagate it to the user's rooms.
    Profile { user: UserNid },
    /// Sessions, devices or the status (locked, suspended, deactivated) of an account changed: drop what is cached.
    Account { user: UserNid },
    /// `user` forgot `room`.
    Forgotten { user: UserNid, room: RoomNid },
    /// Aliases or directory visibility of a room changed.
    Directory { room: RoomNid },
    /// The membership of a local user in a room that this server does not take part in changed (an invite or knock
    /// from elsewhere, or its end): `user_stream` says what.
    Outside { user: UserNid, room: RoomNid },
    /// A to-device message was put into the inbox of a device of a local user.
    ToDevice { user: UserNid },
    /// Devices, their keys or the cross-signing keys of a user (local or remote) changed.
    DeviceList { user: UserNid },
    /// Something durable that is targeted at another server (a to-device or device-list EDU) waits in its outbox.
    Outbox { server: String },
    /// What lacked of the state of a partially joined room has come.
    Completed { room: RoomNid },
    /// One-time or fallback keys of a device of a local user were uploaded or claimed.
    KeyStock { user: UserNid },
    /// A local user signed the keys of somebody else: `user_stream` says whose.
    Signed { user: UserNid },
    /// The event of the *next* entry is sticky until `until_ms` (MSC4354).
    Sticky { room: RoomNid, event: EventNid, until_ms: u64 },
    /// The texts of these messages are gone, and they are not in the timeline any more: their time was over (MSC1763).
    Purged { room: RoomNid, events: Vec<EventNid> },
    /// A local user subscribed to a thread, or no longer is.
    ThreadSubscription { user: UserNid },
    /// Older history was put before the timeline of a room, at these (negative) orders.
    History { room: RoomNid, from: TimelineOrder, to: TimelineOrder },
    /// The current state of a room changed beside what its events say (by state resolution, or because it came from
    /// another server). `user`: a local user whose membership changed with it; `user_stream` says to what.
    Resolved { room: RoomNid, user: Option<UserNid> },
}

impl Record for LogEntry {}
