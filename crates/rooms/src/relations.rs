//! What relations a client may send (Client-Server API, "Avoiding duplicate annotations", "Threading": validation).

use myelin_core::{RoomNid, UserNid};
use myelin_dag::Relation;
use myelin_store::{
    Direction,
    tables::{RELATIONS, RelationRecord},
};
use ruma::events::TimelineEventType;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Error, Rooms};

/// Relations of one event that are searched for a duplicate; beyond them duplicates pass.
const SEARCHED_MAX: usize = 1_000;

#[derive(Deserialize)]
struct Relating {
    #[serde(rename = "m.relates_to")]
    relates_to: Option<RelatesTo>,
}

#[derive(Deserialize)]
struct RelatesTo {
    rel_type: Option<String>,
    event_id: Option<String>,
    key: Option<String>,
}

impl Rooms {
    pub(crate) async fn check_relation(
        &self,
        room: RoomNid,
        sender: UserNid,
        event_type: &TimelineEventType,
        content: &RawValue,
    ) -> Result<(), Error> {
        // Most events have none, and a search is cheaper than a parse.
        if !content.get().contains("m.relates_to") {
            return Ok(());
        }
        // Content of any other shape relates to nothing.
        let Ok(Relating { relates_to: Some(relation) }) = serde_json::from_str(content.get()) else {
            return Ok(());
        };
        match (relation.rel_type.as_deref(), relation.event_id) {
            (Some("m.annotation"), Some(target)) => {
                let same = |record: &RelationRecord| {
                    record.sender == sender
                        && record.rel_type == "m.annotation"
                        && record.key == relation.key
                        && record.event_type == event_type.to_string()
                };
                self.check_annotation(room, target, same).await
            }
            (Some("m.thread"), Some(target)) => self.check_thread(room, &target).await,
            _ => Ok(()),
        }
    }

    async fn check_annotation(
        &self,
        room: RoomNid,
        target: String,
        same: impl Fn(&RelationRecord) -> bool,
    ) -> Result<(), Error> {
        let prefix = (room, target);
        let rows = self.view.store.scan(&RELATIONS, &prefix, Direction::Reverse, SEARCHED_MAX).await?;
        if rows.iter().any(|(_, record)| same(record)) { Err(Error::DuplicateAnnotation) } else { Ok(()) }
    }

    /// Threads do not nest, and do not start at an event that relates to another.
    async fn check_thread(&self, room: RoomNid, root: &str) -> Result<(), Error> {
        let Ok(root) = <&ruma::EventId>::try_from(root) else { return Ok(()) };
        let Some(root) = self.view.events.load_by_id(root).await? else { return Ok(()) };
        let nests =
            root.room == room && root.pdu.relates_to().is_some_and(|r: Relation| !r.rel_type.is_empty());
        if nests {
            return Err(Error::Unknown(
                "A thread cannot start at an event that relates to another one.".to_owned(),
            ));
        }
        Ok(())
    }
}
