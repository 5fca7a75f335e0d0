//! Purges messages whose time is over (MSC1763). What is expired is hidden from readers at once (`myelin_view::View::
//! expired_before_ms`); here its text goes, and it leaves the timeline. State stays.
//!
//! The event itself stays in its redacted form, outside the timeline, marked as redacted by itself: what refers to it goes
//! on to find it, and history that is fetched again does not bring it back.
//!
//! One room at a time and a few events at a time, with pauses; how far it has come in each room is in `purged`.

use std::{sync::Arc, time::Duration};

use myelin_core::{EventNid, Position, RoomNid, TimelineOrder};
use myelin_dag::{StateTree, redaction::redact, state_tree::NodeHash};
use myelin_store::{
    Batch, CommitError, Direction,
    codec::AtPosition,
    log::LogEntry,
    tables::{
        EVENTS, EventRecord, PURGED, Placement, PurgedRecord, RELATIONS, ROOM_HEADS, RoomHead, TIMELINE,
    },
};
use myelin_view::{Event, RoomInfo};

use crate::{Error, Rooms};

/// Timeline rows looked at, and events purged, in one commit.
const PAGE: usize = 100;
/// Rooms looked at between two pauses.
const ROOMS_PAGE: usize = 100;
/// Between two commits, so that it never crowds out what people wait for.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two rounds.
const ROUND_PAUSE: Duration = Duration::from_secs(600);

/// Purges for ever.
pub async fn run_retention(rooms: Arc<Rooms>) {
    let clock = rooms.view.env.clock.clone();
    loop {
        match rooms.purge_all().await {
            Ok(0) => {}
            Ok(events) => tracing::info!(events, "expired messages were purged"),
            Err(error) => tracing::error!(%error, "expired messages cannot be purged; trying again"),
        }
        clock.sleep(ROUND_PAUSE).await;
    }
}

impl Rooms {
    /// One round; answers how many events went.
    async fn purge_all(&self) -> Result<u64, Error> {
        let everywhere = self.view.retention.policy().applies_to_all();
        if !everywhere && self.view.retention_key().await?.is_none() {
            return Ok(0);
        }
        let store = &self.view.store;
        let (mut after, mut purged) = (RoomNid(0), 0);
        loop {
            let (from, to) = (RoomNid(after.0.saturating_add(1)), RoomNid(u64::MAX));
            let heads = store.range(&ROOM_HEADS, &from, &to, Direction::Forward, ROOMS_PAGE).await?;
            for (room, head) in &heads {
                if everywhere || self.has_retention(head).await? {
                    purged += self.purge_room(*room).await?;
                }
            }
            match heads.last().filter(|_| heads.len() == ROOMS_PAGE) {
                Some((last, _)) => after = *last,
                None => return Ok(purged),
            }
            self.view.env.clock.sleep(PAUSE).await;
        }
    }

    async fn has_retention(&self, head: &RoomHead) -> Result<bool, Error> {
        let Some(key) = self.view.retention_key().await? else { return Ok(false) };
        let state: StateTree = self.view.states.load(NodeHash(head.current_state)).await?;
        Ok(state.get(key).is_some())
    }

    async fn purge_room(&self, nid: RoomNid) -> Result<u64, Error> {
        let Some(room) = self.view.rooms.load(nid).await? else { return Ok(0) };
        let Some(before_ms) = self.view.expired_before_ms(&room).await? else { return Ok(0) };
        let mut purged = 0;
        loop {
            let held = self.view.store.get(&PURGED, &nid).await?;
            let page = self.expired_page(&room.info, held, room.head.backfilled, before_ms).await?;
            let Some(page) = page else { return Ok(purged) };
            let (events, done) = (page.expired.len() as u64, page.done);
            if self.commit_page(&room.info, held, page).await? {
                purged += events;
            }
            if done {
                return Ok(purged);
            }
            self.view.env.clock.sleep(PAUSE).await;
        }
    }

    /// `None`: nothing has changed since the last time.
    async fn expired_page(
        &self,
        info: &RoomInfo,
        held: Option<PurgedRecord>,
        backfilled: u64,
        before_ms: u64,
    ) -> Result<Option<Page>, Error> {
        let through = held.filter(|held| held.backfilled == backfilled).map_or(i64::MIN, |held| held.through);
        let from = (info.nid, TimelineOrder(through.saturating_add(1)));
        let to = (info.nid, TimelineOrder::MAX);
        let store = &self.view.store;
        let rows = store.range(&TIMELINE, &from, &to, Direction::Forward, PAGE).await?;
        let nids: Vec<EventNid> = rows.iter().map(|(_, nid)| *nid).collect();
        let events = store.multi_get(&EVENTS, &nids).await?;
        let mut page = Page { expired: Vec::new(), through, backfilled, done: rows.len() < PAGE };
        for (((_, order), nid), row) in rows.into_iter().zip(events) {
            let Some(row) = row else { continue };
            if row.value.state_key.is_none() {
                let event = Event::from_row(nid, row.clone(), info)?;
                if u64::from(event.pdu.origin_server_ts.get()) >= before_ms {
                    // What comes later is newer, mostly: it is looked at when this one's time is over.
                    page.done = true;
                    break;
                }
                page.expired.push((order, row, event));
            }
            page.through = order.0;
        }
        let unchanged = page.expired.is_empty() && page.through == through;
        Ok((!unchanged).then_some(page))
    }

    /// `false`: somebody else changed one of the events, or purged; the next round looks again.
    async fn commit_page(
        &self,
        info: &RoomInfo,
        held: Option<PurgedRecord>,
        page: Page,
    ) -> Result<bool, Error> {
        let mut batch = Batch::new();
        let mut events = Vec::with_capacity(page.expired.len());
        for (order, row, event) in &page.expired {
            events.push(event.nid);
            purge(&mut batch, info, *order, row, event);
        }
        let record = PurgedRecord {
            through: page.through,
            backfilled: page.backfilled,
            events: held.map_or(0, |held| held.events) + events.len() as u64,
            last_ms: self.view.env.now_ms(),
        };
        batch.require_unchanged(&PURGED, &info.nid, held.as_ref());
        batch.put(&PURGED, &info.nid, &record);
        if !events.is_empty() {
            batch.log(&LogEntry::Purged { room: info.nid, events });
        }
        self.commit_purge(batch).await
    }

    async fn commit_purge(&self, batch: Batch) -> Result<bool, Error> {
        match self.view.store.commit(batch).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict { .. }) => Ok(false),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }
}

/// What one commit purges.
struct Page {
    expired: Vec<(TimelineOrder, AtPosition<EventRecord>, Event)>,
    through: i64,
    backfilled: u64,
    /// There is nothing more to purge now.
    done: bool,
}

/// Whether the text of an event was purged.
pub(crate) fn is_purged(event: &Event) -> bool {
    event.redacted_by == Some(event.nid)
}

fn purge(
    batch: &mut Batch,
    info: &RoomInfo,
    order: TimelineOrder,
    row: &AtPosition<EventRecord>,
    event: &Event,
) {
    batch.require_equal(&EVENTS, &event.nid, row);
    let record = EventRecord {
        json: redact(&event.pdu, &info.rules).to_string(),
        placement: Placement::Outside,
        transaction: None,
        redacted_by: Some(event.nid),
        ..row.value.clone()
    };
    batch.put(&EVENTS, &event.nid, &AtPosition { position: Position::ZERO, value: record });
    batch.delete(&TIMELINE, &(info.nid, order));
    if let Some(relation) = event.pdu.relates_to() {
        batch.delete(&RELATIONS, &(info.nid, relation.event_id.to_string(), order));
    }
}
