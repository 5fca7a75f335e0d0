//! How far an index is: lies beside its documents and becomes durable with them, so that neither can be ahead of the other.

use std::collections::BTreeMap;

use myelin_core::{EventNid, Position, RoomNid, UserNid};
use serde::{Deserialize, Serialize};

/// Raised when documents are made in another way: the index is then made anew.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    version: u32,
    server_name: String,
    /// Everything in the log up to here is in the index.
    pub log: Position,
    /// Of the events from before the index was made, those below this number are still to be looked at.
    pub events_below: EventNid,
    /// The same of members: those after this one.
    pub members_after: Option<(RoomNid, UserNid)>,
    pub accounts_after: Option<UserNid>,
    /// Rooms whose members came or changed all at once, with how far they have been gone through.
    pub rooms: BTreeMap<RoomNid, UserNid>,
    /// The newest event taken in, by number and id: a store that was put back to an earlier day has another one there.
    pub witness: Option<(EventNid, String)>,
}

impl Progress {
    /// Of a new index: what is in the log after `now` is followed, everything else is still to come.
    pub fn begin(server_name: &str, now: Position) -> Self {
        Self {
            version: VERSION,
            server_name: server_name.to_owned(),
            log: now,
            events_below: EventNid(u64::MAX),
            members_after: Some((RoomNid(0), UserNid(0))),
            accounts_after: Some(UserNid(0)),
            rooms: BTreeMap::new(),
            witness: None,
        }
    }

    /// `None` if the index was made by another version, for another server, or for a log that went further.
    pub fn read(payload: &str, server_name: &str, now: Position) -> Option<Self> {
        let progress: Self = serde_json::from_str(payload).ok()?;
        let fits = progress.version == VERSION && progress.server_name == server_name && progress.log <= now;
        fits.then_some(progress)
    }

    pub fn payload(&self) -> String {
        // Numbers, strings and lists of them: this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub fn is_complete(&self) -> bool {
        self.events_below == EventNid(0)
            && self.members_after.is_none()
            && self.accounts_after.is_none()
            && self.rooms.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_survives_the_round_trip() {
        let mut progress = Progress::begin("a.org", Position(7));
        progress.rooms.insert(RoomNid(3), UserNid(4));
        progress.witness = Some((EventNid(9), "$x".to_owned()));
        let payload = progress.payload();
        assert_eq!(Progress::read(&payload, "a.org", Position(7)), Some(progress));
        assert_eq!(Progress::read(&payload, "b.org", Position(7)), None);
        assert_eq!(Progress::read(&payload, "a.org", Position(6)), None);
        assert_eq!(Progress::read("{}", "a.org", Position(6)), None);
        let older = payload.replace("\"version\":1", "\"version\":0");
        assert_eq!(Progress::read(&older, "a.org", Position(7)), None);
    }

    #[test]
    fn a_new_index_has_everything_before_it() {
        let mut progress = Progress::begin("a.org", Position(7));
        assert!(!progress.is_complete());
        (progress.events_below, progress.members_after, progress.accounts_after) = (EventNid(0), None, None);
        assert!(progress.is_complete());
    }
}
