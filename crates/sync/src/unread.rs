//! How much of a room a user has not read (Client-Server API, "Receiving notifications", "Threaded read receipts").

use std::collections::BTreeMap;

use myelin_core::UserNid;
use myelin_view::RoomSnapshot;
use ruma::OwnedEventId;

use crate::{Error, Sync};

/// `notification_count` and `highlight_count`; the latter is part of the former.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub notification_count: u64,
    pub highlight_count: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// The main timeline alone.
    pub main: Counts,
    /// Threads that have unread notifications, by their roots.
    pub threads: BTreeMap<OwnedEventId, Counts>,
}

impl Unread {
    /// For clients that do not know threads.
    pub fn total(&self) -> Counts {
        self.threads.values().fold(self.main, |sum, counts| Counts {
            notification_count: sum.notification_count + counts.notification_count,
            highlight_count: sum.highlight_count + counts.highlight_count,
        })
    }
}

impl Sync {
    /// As of the newest durable event of the room.
    pub async fn unread(&self, _user: UserNid, _room: &RoomSnapshot) -> Result<Unread, Error> {
        Ok(Unread::default())
    }
}
