//! What a commit tells its readers. An entry says *what* changed, by numeric id; the reader loads the rest.

use myelin_core::{EventNid, RoomNid, StateKeyNid, UserNid};
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
}

impl Record for LogEntry {}
