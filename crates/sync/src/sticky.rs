//! Sticky events (MSC4354) as `/sync` brings them: each once, whatever the limit of the timeline, and without regard to
//! history visibility, to who is joined.

use myelin_core::{EventNid, Position};
use myelin_view::RoomSnapshot;

use crate::{Error, Sync, client_event::Writer, visibility::Viewer};

/// Of one room in one answer; of more than that the newest are told.
pub(crate) const EVENTS_MAX: usize = 1_000;

/// `(since, until]`, and what is in the timeline of the answer already.
pub struct StickyRequest<'a> {
    pub since: Position,
    pub until: Position,
    pub shown: &'a [EventNid],
}

impl Sync {
    /// Oldest first, as JSON. The requester is joined to the room.
    pub async fn sticky_events(
        &self,
        writer: &Writer<'_>,
        viewer: &mut Viewer<'_>,
        room: &RoomSnapshot,
        request: &StickyRequest<'_>,
    ) -> Result<Vec<String>, Error> {
        let mut nids = self.view.sticky.of_room(room.nid(), request.since, request.until).await?;
        nids.retain(|nid| !request.shown.contains(nid));
        nids.drain(..nids.len().saturating_sub(EVENTS_MAX));
        self.write_sticky(writer, viewer, &nids).await
    }

    pub(crate) async fn write_sticky(
        &self,
        writer: &Writer<'_>,
        viewer: &mut Viewer<'_>,
        nids: &[EventNid],
    ) -> Result<Vec<String>, Error> {
        if nids.is_empty() {
            return Ok(Vec::new());
        }
        let ignored = self.view.ignored.load(writer.requester.user).await?;
        let mut events = Vec::with_capacity(nids.len());
        for event in self.view.events.load_many(nids).await?.into_iter().flatten() {
            if event.redacted_by.is_some() || ignored.contains(&event.pdu.sender) {
                continue;
            }
            let seen = viewer.see_as_state(&event).await?;
            events.push(writer.write(&event, seen, None).await?);
        }
        Ok(events)
    }
}
