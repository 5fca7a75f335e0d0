//! `GET /rooms/{roomId}/messages` (Client-Server API, "Paginating").
//!
//! A token is a gap in the timeline and means the same in both directions, across forks and restarts: events are
//! ordered by when they arrived here, which never changes.

use std::{collections::BTreeSet, sync::Arc};

use myelin_core::{TimelineOrder, TimelineToken};
use myelin_store::Direction;
use myelin_view::Event;
use ruma::RoomId;

use crate::{
    Error, Format, Requester, Sync,
    access::Readable,
    client_event::Writer,
    filter::{EventFilter, TIMELINE_LIMIT_MAX},
    json::Object,
    room_state::{load_events, state_at},
    timeline::{Found, Placed, Stretch, Wanted, walk},
    v2::lazy,
    visibility::Viewer,
};

const LIMIT_DEFAULT: usize = 10;

#[derive(Clone, Debug)]
pub struct MessagesRequest {
    pub from: Option<TimelineToken>,
    pub to: Option<TimelineToken>,
    pub direction: Direction,
    pub limit: Option<u64>,
    pub filter: EventFilter,
}

/// What lies beyond the timeline that is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beyond {
    /// There may be older history elsewhere: a page then has an end even if nothing older is held.
    pub older: bool,
    /// What this server missed is being brought in from here on: a page does not go beyond yet.
    pub gap: Option<TimelineOrder>,
}

impl Sync {
    pub async fn messages(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        request: &MessagesRequest,
    ) -> Result<String, Error> {
        self.messages_held(requester, room_id, request, Beyond::default()).await
    }

    /// The same where not all is held.
    pub async fn messages_held(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        request: &MessagesRequest,
        beyond: Beyond,
    ) -> Result<String, Error> {
        let readable = self.readable(requester, room_id).await?;
        let from = request.start(&readable);
        let found = self.page(requester, &readable, request, from, beyond).await?;
        let end = request.end(&found, beyond);
        let bundles = self.bundles(requester, &found.events, false).await?;
        let writer = self.room_writer(requester);
        let mut chunk = Vec::with_capacity(found.events.len());
        for placed in &found.events {
            let bundle = bundles.get(&placed.event.nid).map(String::as_str);
            chunk.push(writer.write(&placed.event, placed.seen, bundle).await?);
        }
        let state = self.lazy_members(requester, &readable, &request.filter, &found.events).await?;
        let mut json = String::with_capacity(256 + chunk.iter().map(String::len).sum::<usize>());
        let mut body = Object::open(&mut json);
        body.array("chunk", chunk);
        body.string("start", &TimelineToken(from).to_string());
        if let Some(end) = end {
            body.string("end", &TimelineToken(end).to_string());
        }
        if !state.is_empty() {
            body.array("state", state);
        }
        body.close();
        Ok(json)
    }

    async fn page(
        &self,
        requester: &Requester,
        readable: &Readable,
        request: &MessagesRequest,
        from: TimelineOrder,
        beyond: Beyond,
    ) -> Result<Found, Error> {
        if !request.filter.allows_room(&readable.room.info.room_id) {
            return Ok(Found::default());
        }
        let mut stretch = request.stretch(readable, from);
        stretch.after = stretch.after.max(beyond.gap.unwrap_or(TimelineOrder::MIN));
        let limit = request.limit.map_or(LIMIT_DEFAULT, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let limit = limit.min(request.filter.limit_or(TIMELINE_LIMIT_MAX)).clamp(1, TIMELINE_LIMIT_MAX);
        let ignored = self.view.ignored.load(requester.user).await?;
        let wanted = Wanted { filter: &request.filter, ignored: &ignored };
        let mut viewer = Viewer::new(&self.view, &readable.room, requester.user, &requester.user_id).await?;
        let room = readable.room.nid();
        walk(&self.view, &mut viewer, room, stretch, request.direction, limit, &wanted).await
    }

    /// Member events of the senders, where the client loads members lazily.
    pub(crate) async fn lazy_members(
        &self,
        requester: &Requester,
        readable: &Readable,
        filter: &EventFilter,
        events: &[Placed],
    ) -> Result<Vec<String>, Error> {
        let Some(newest) = events.iter().map(|placed| placed.order).max() else { return Ok(Vec::new()) };
        if !filter.lazy_load_members {
            return Ok(Vec::new());
        }
        let state = state_at(&self.view, readable.room.nid(), newest).await?;
        let senders: BTreeSet<_> = events.iter().map(|placed| placed.event.pdu.sender.as_str()).collect();
        let mut nids = Vec::with_capacity(senders.len());
        let sent = self.lazy.of(requester.user, &requester.device_id, readable.room.nid());
        for sender in senders {
            let key = self.view.interner.lookup_state_key("m.room.member", sender).await?;
            let member = key.and_then(|key| Some((key, state.get(key)?)));
            let now = Some(self.view.feed.published());
            nids.extend(
                member
                    .filter(|(key, event)| {
                        filter.include_redundant_members || !lazy::has(&sent.lock(), *key, *event, now)
                    })
                    .map(|(_, event)| event),
            );
        }
        self.write_state_events(requester, readable, &load_events(&self.view, &nids).await?).await
    }

    /// State events in client form; the caller has made sure that the reader has a right to them.
    pub(crate) async fn write_state_events(
        &self,
        requester: &Requester,
        readable: &Readable,
        events: &[Arc<Event>],
    ) -> Result<Vec<String>, Error> {
        let mut viewer = Viewer::new(&self.view, &readable.room, requester.user, &requester.user_id).await?;
        let writer = self.room_writer(requester);
        let mut json = Vec::with_capacity(events.len());
        for event in events {
            let seen = viewer.see_as_state(event).await?;
            json.push(writer.write(event, seen, None).await?);
        }
        Ok(json)
    }

    /// Events outside of sync: with their room id, for this device.
    pub(crate) fn room_writer<'a>(&'a self, requester: &'a Requester) -> Writer<'a> {
        Writer {
            view: &self.view,
            requester,
            now_ms: self.view.env.now_ms(),
            format: Format::Client,
            event_fields: None,
            with_room_id: true,
        }
    }
}

impl MessagesRequest {
    /// Where a page towards older events begins, and how many events it has at most; `None` for the other direction.
    pub fn backwards(&self) -> Option<(TimelineOrder, usize)> {
        let from = self.from.map_or(TimelineOrder::MAX, |token| token.0);
        let limit = self.limit.map_or(LIMIT_DEFAULT, |n| usize::try_from(n).unwrap_or(usize::MAX));
        (self.direction == Direction::Reverse).then(|| (from, limit.clamp(1, TIMELINE_LIMIT_MAX)))
    }

    /// Without `from`: from the newest event backwards, from the oldest forwards.
    fn start(&self, readable: &Readable) -> TimelineOrder {
        match (self.from, self.direction) {
            (Some(token), _) => token.0.min(readable.until),
            (None, Direction::Reverse) => readable.until,
            (None, Direction::Forward) => TimelineOrder::MIN,
        }
    }

    fn stretch(&self, readable: &Readable, from: TimelineOrder) -> Stretch {
        match self.direction {
            Direction::Reverse => {
                Stretch { after: self.to.map_or(TimelineOrder::MIN, |to| to.0), until: from }
            }
            Direction::Forward => {
                Stretch { after: from, until: self.to.map_or(readable.until, |to| to.0.min(readable.until)) }
            }
        }
    }

    /// Backwards there is an end once history is exhausted; forwards more may come, as long as anything came.
    fn end(&self, found: &Found, beyond: Beyond) -> Option<TimelineOrder> {
        let last = found.events.last().map(|last| last.order);
        match self.direction {
            Direction::Reverse => {
                let before = |order: TimelineOrder| TimelineOrder(order.0.saturating_sub(1));
                let stopped = found.stopped_at.or(last.filter(|_| beyond.older));
                stopped.map(before).or(beyond.gap)
            }
            Direction::Forward => found.stopped_at.or(last),
        }
    }
}
