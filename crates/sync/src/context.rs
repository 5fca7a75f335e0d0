//! What surrounds an event: `/context`, `/timestamp_to_event`, `/initialSync` of a room, and peeking by `/events`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{FutureExt, select_biased};
use myelin_core::{Position, RoomNid, SyncToken, TimelineOrder, TimelineToken, limits};
use myelin_store::{
    Direction,
    tables::{ACCOUNT_DATA, PUBLIC_ROOMS},
};
use myelin_view::{Event, View};
use ruma::{EventId, OwnedEventId, RoomId};

use crate::{
    Error, Requester, Sync,
    access::{Access, Readable},
    client_event::{membership_name, small_event},
    filter::EventFilter,
    json,
    json::Object,
    room_state::{load_events, state_at, without_members},
    timeline::{Found, Placed, Stretch, Wanted, walk},
    visibility::Viewer,
};

const CONTEXT_LIMIT_DEFAULT: u64 = 10;
const CONTEXT_LIMIT_MAX: u64 = 100;
const INITIAL_SYNC_LIMIT: usize = 20;
const PEEK_LIMIT: usize = 100;
const ACCOUNT_DATA_TYPES_MAX: usize = 1_000;
/// Events looked at on each side of where a timestamp is found: clocks of senders disagree.
const TIMESTAMP_NEIGHBOURS: usize = 100;

/// What surrounds an event, as JSON.
pub struct Surroundings {
    pub start: String,
    pub end: String,
    /// Newest first.
    pub before: Vec<String>,
    /// Oldest first.
    pub after: Vec<String>,
    /// User ids with the member event that they had, if asked for.
    pub profiles: Vec<(String, Arc<Event>)>,
}

impl Sync {
    /// `GET /rooms/{roomId}/context/{eventId}`
    pub async fn context(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        event_id: &EventId,
        limit: Option<u64>,
        filter: &EventFilter,
    ) -> Result<String, Error> {
        let readable = self.readable(requester, room_id).await?;
        let placed = self.visible_event(requester, room_id, event_id).await?;
        let limit = limit.unwrap_or(CONTEXT_LIMIT_DEFAULT).min(CONTEXT_LIMIT_MAX) as usize;
        let (before, after) = (limit / 2, limit - limit / 2);
        let past =
            Stretch { after: TimelineOrder::MIN, until: TimelineOrder(placed.order.0.saturating_sub(1)) };
        let future = Stretch { after: placed.order, until: readable.until };
        let before = self.side(requester, &readable, past, Direction::Reverse, before, filter).await?;
        let after = self.side(requester, &readable, future, Direction::Forward, after, filter).await?;
        self.write_context(requester, &readable, placed, &before, &after, filter).await
    }

    async fn side(
        &self,
        requester: &Requester,
        readable: &Readable,
        stretch: Stretch,
        direction: Direction,
        limit: usize,
        filter: &EventFilter,
    ) -> Result<Found, Error> {
        if limit == 0 {
            return Ok(Found::default());
        }
        let ignored = self.view.ignored.load(requester.user).await?;
        let wanted = Wanted { filter, ignored: &ignored };
        let mut viewer = Viewer::new(&self.view, &readable.room, requester.user, &requester.user_id).await?;
        walk(&self.view, &mut viewer, readable.room.nid(), stretch, direction, limit, &wanted).await
    }

    async fn write_context(
        &self,
        requester: &Requester,
        readable: &Readable,
        placed: Placed,
        before: &Found,
        after: &Found,
        filter: &EventFilter,
    ) -> Result<String, Error> {
        let first = before.events.last().unwrap_or(&placed).order;
        let last = after.events.last().unwrap_or(&placed).order;
        let mut text = String::with_capacity(2048);
        let mut body = Object::open(&mut text);
        body.string("start", &TimelineToken(TimelineOrder(first.0.saturating_sub(1))).to_string());
        body.string("end", &TimelineToken(last).to_string());
        body.raw("event", &self.write_placed(requester, &placed).await?);
        body.array("events_before", self.write_all(requester, &before.events).await?);
        body.array("events_after", self.write_all(requester, &after.events).await?);
        let state = self.context_state(requester, readable, filter, last, &placed, before, after).await?;
        body.array("state", state);
        body.close();
        Ok(text)
    }

    /// What surrounds a hit of a search, with the profiles that the senders had then.
    pub async fn surroundings(
        &self,
        requester: &Requester,
        readable: &Readable,
        placed: &Placed,
        (before, after): (usize, usize),
        with_profiles: bool,
    ) -> Result<Surroundings, Error> {
        let filter = EventFilter::default();
        let past =
            Stretch { after: TimelineOrder::MIN, until: TimelineOrder(placed.order.0.saturating_sub(1)) };
        let future = Stretch { after: placed.order, until: readable.until };
        let before = self.side(requester, readable, past, Direction::Reverse, before, &filter).await?;
        let after = self.side(requester, readable, future, Direction::Forward, after, &filter).await?;
        let first = before.events.last().unwrap_or(placed).order;
        let last = after.events.last().unwrap_or(placed).order;
        let mut profiles = Vec::new();
        if with_profiles {
            let shown = before.events.iter().chain(&after.events).chain([placed]);
            let senders: BTreeSet<_> = shown.map(|placed| placed.event.pdu.sender.as_str()).collect();
            let state = state_at(&self.view, readable.room.nid(), last).await?;
            for sender in senders {
                let key = self.view.interner.lookup_state_key("m.room.member", sender).await?;
                let Some(member) = key.and_then(|key| state.get(key)) else { continue };
                let Some(member) = self.view.events.load(member).await? else { continue };
                profiles.push((sender.to_owned(), member));
            }
        }
        Ok(Surroundings {
            start: TimelineToken(TimelineOrder(first.0.saturating_sub(1))).to_string(),
            end: TimelineToken(last).to_string(),
            before: self.write_all(requester, &before.events).await?,
            after: self.write_all(requester, &after.events).await?,
            profiles,
        })
    }

    /// The state at the last event; with lazy-loading only the members that are needed.
    #[expect(clippy::too_many_arguments, reason = "the parts of one answer")]
    async fn context_state(
        &self,
        requester: &Requester,
        readable: &Readable,
        filter: &EventFilter,
        last: TimelineOrder,
        placed: &Placed,
        before: &Found,
        after: &Found,
    ) -> Result<Vec<String>, Error> {
        let state = state_at(&self.view, readable.room.nid(), last).await?;
        let mut nids: Vec<_> = state.iter().map(|(_, event)| event).collect();
        if filter.lazy_load_members {
            nids = without_members(&self.view, &state).await?;
            let shown = before.events.iter().chain(&after.events).chain([placed]);
            let senders: BTreeSet<_> = shown.map(|placed| placed.event.pdu.sender.as_str()).collect();
            for sender in senders {
                let key = self.view.interner.lookup_state_key("m.room.member", sender).await?;
                nids.extend(key.and_then(|key| state.get(key)));
            }
        }
        let events = load_events(&self.view, &nids).await?;
        self.write_state_events(requester, readable, &events).await
    }

    pub(crate) async fn write_all(
        &self,
        requester: &Requester,
        events: &[Placed],
    ) -> Result<Vec<String>, Error> {
        let mut json = Vec::with_capacity(events.len());
        for placed in events {
            json.push(self.write_placed(requester, placed).await?);
        }
        Ok(json)
    }

    /// `GET /rooms/{roomId}/timestamp_to_event`: the event closest to `ts_ms` in that direction, of those that are held,
    /// and its time.
    pub async fn event_at(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        ts_ms: u64,
        direction: Direction,
    ) -> Result<(OwnedEventId, u64), Error> {
        const NOTHING: &str = "There is no event in that direction.";
        let readable = self.readable(requester, room_id).await?;
        let near = order_at(&self.view, readable.room.nid(), readable.until, ts_ms).await?;
        let filter = EventFilter::default();
        let past = Stretch { after: TimelineOrder::MIN, until: near };
        let future = Stretch { after: near, until: readable.until };
        let mut events = Vec::new();
        for (stretch, way) in [(past, Direction::Reverse), (future, Direction::Forward)] {
            let found = self.side(requester, &readable, stretch, way, TIMESTAMP_NEIGHBOURS, &filter).await?;
            events.extend(found.events);
        }
        let ts = |placed: &Placed| u64::from(placed.event.pdu.origin_server_ts.get());
        let fits = |placed: &&Placed| match direction {
            Direction::Forward => ts(placed) >= ts_ms,
            Direction::Reverse => ts(placed) <= ts_ms,
        };
        let found =
            events.iter().filter(fits).min_by_key(|placed| (ts(placed).abs_diff(ts_ms), placed.order));
        let found = found.ok_or(Error::NotFound(NOTHING))?;
        Ok((found.event.pdu.event_id.clone(), ts(found)))
    }

    /// `GET /rooms/{roomId}/initialSync`
    pub async fn room_initial_sync(&self, requester: &Requester, room_id: &RoomId) -> Result<String, Error> {
        self.initial_room(requester, room_id, INITIAL_SYNC_LIMIT).await
    }

    /// A room with its newest `limit` events.
    pub(crate) async fn initial_room(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        limit: usize,
    ) -> Result<String, Error> {
        let readable = self.readable(requester, room_id).await?;
        let filter = EventFilter::default();
        let stretch = everything(&readable);
        let mut found = self.side(requester, &readable, stretch, Direction::Reverse, limit, &filter).await?;
        found.events.reverse();
        let start = found.events.first().map_or(readable.until, |first| TimelineOrder(first.order.0 - 1));
        let mut text = String::with_capacity(4096);
        let mut body = Object::open(&mut text);
        body.string("room_id", room_id.as_str());
        if let Some(membership) = readable.room.membership(requester.user) {
            body.string("membership", membership_name(membership));
        }
        let mut messages = body.object("messages");
        messages.array("chunk", self.write_all(requester, &found.events).await?);
        messages.string("start", &TimelineToken(start).to_string());
        messages.string("end", &TimelineToken(readable.until).to_string());
        messages.close();
        body.raw("state", &self.state(requester, room_id).await?);
        let public = self.view.store.get(&PUBLIC_ROOMS, &readable.room.nid()).await?.is_some();
        body.string("visibility", if public { "public" } else { "private" });
        body.array("account_data", self.room_account_data_of(requester, &readable).await?);
        body.close();
        Ok(text)
    }

    async fn room_account_data_of(
        &self,
        requester: &Requester,
        readable: &Readable,
    ) -> Result<Vec<String>, Error> {
        let prefix = (requester.user, readable.room.nid());
        let limit = ACCOUNT_DATA_TYPES_MAX;
        let rows = self.view.store.scan(&ACCOUNT_DATA, &prefix, Direction::Forward, limit).await?;
        Ok(rows.into_iter().map(|((_, _, kind), row)| small_event(&kind, &row.value.json)).collect())
    }

    /// `GET /events` with a room id: waits for events of a room that the user may read, joined or not.
    pub async fn peek(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        from: Option<TimelineToken>,
        timeout_ms: u64,
    ) -> Result<String, Error> {
        let readable = self.readable(requester, room_id).await?;
        let from = from.map_or(readable.until, |token| token.0);
        let timeout = Duration::from_millis(timeout_ms.min(limits::SYNC_TIMEOUT_MS_MAX));
        let mut timeout = self.view.env.clock.sleep(timeout).fuse();
        // Wakes it when the process shuts down.
        let waiter = self.view.feed.register(requester.user);
        loop {
            // Taken before looking: what comes in between ends the wait.
            let seen = self.view.feed.published();
            let readable = self.readable(requester, room_id).await?;
            let stretch = Stretch { after: from, until: readable.until };
            let filter = EventFilter::default();
            let found =
                self.side(requester, &readable, stretch, Direction::Forward, PEEK_LIMIT, &filter).await?;
            if !found.events.is_empty() || readable.access == Access::Left || self.is_draining() {
                return self.write_peek(requester, from, &found, readable.until).await;
            }
            let room = readable.room.nid();
            select_biased! {
                () = self.room_moved_past(room, seen).fuse() => {}
                () = waiter.wait().fuse() => {}
                () = timeout => return self.write_peek(requester, from, &found, readable.until).await,
            }
        }
    }

    async fn room_moved_past(&self, room: RoomNid, mut seen: Position) {
        loop {
            self.view.feed.moved_past(seen).await;
            let published = self.view.feed.published();
            if self.view.feed.last_change(room).is_some_and(|last| last > seen) {
                return;
            }
            seen = published;
        }
    }

    async fn write_peek(
        &self,
        requester: &Requester,
        from: TimelineOrder,
        found: &Found,
        until: TimelineOrder,
    ) -> Result<String, Error> {
        let end = match found.stopped_at {
            Some(stopped) => stopped,
            None => until.max(from),
        };
        let mut text = String::new();
        let mut body = Object::open(&mut text);
        let token = |order: TimelineOrder| match order.position() {
            Some(position) => SyncToken { position, ephemeral: 0, to_device: None }.to_string(),
            None => TimelineToken(order).to_string(),
        };
        json::push_string(body.key("start"), &token(from));
        json::push_string(body.key("end"), &token(end));
        body.array("chunk", self.write_all(requester, &found.events).await?);
        body.close();
        Ok(text)
    }
}

/// An answer of `/events`.
pub(crate) fn write_chunk(start: Position, end: Position, events: &[String]) -> String {
    let token = |position| SyncToken { position, ephemeral: 0, to_device: None }.to_string();
    let mut text = String::new();
    let mut body = Object::open(&mut text);
    body.string("start", &token(start));
    body.string("end", &token(end));
    body.array("chunk", events);
    body.close();
    text
}

/// Where in the timeline up to `until` a time is found: bisects by the timestamps on the way, O(log) look-ups.
pub async fn order_at(
    view: &View,
    room: RoomNid,
    until: TimelineOrder,
    ts_ms: u64,
) -> Result<TimelineOrder, Error> {
    let everything = Stretch { after: TimelineOrder::MIN, until };
    let oldest = crate::timeline::rows(view, room, everything, Direction::Forward, 1).await?;
    let Some((oldest, _)) = oldest.first() else { return Ok(until) };
    let (mut low, mut high) = (oldest.0, until.0);
    while low < high {
        let middle = low + (high - low) / 2;
        let stretch = Stretch { after: TimelineOrder(middle - 1), until };
        let row = crate::timeline::rows(view, room, stretch, Direction::Forward, 1).await?;
        let event = match row.first() {
            Some((_, nid)) => view.events.load(*nid).await?,
            None => None,
        };
        match event {
            Some(event) if u64::from(event.pdu.origin_server_ts.get()) < ts_ms => {
                low = row.first().map_or(high, |(order, _)| order.0 + 1).max(middle + 1);
            }
            _ => high = middle,
        }
    }
    Ok(TimelineOrder(low))
}

fn everything(readable: &Readable) -> Stretch {
    Stretch { after: TimelineOrder::MIN, until: readable.until }
}
