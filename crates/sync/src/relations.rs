//! `GET /rooms/{roomId}/relations/{eventId}…` and `GET /rooms/{roomId}/threads` (Client-Server API, "Relationships
//! API", "Querying threads in a room").

use std::collections::{BTreeMap, BTreeSet};

use myelin_core::{EventNid, RoomNid, TimelineOrder, TimelineToken};
use myelin_store::{
    Direction,
    tables::{RELATIONS, RelationRecord, THREAD_ROOTS},
};
use ruma::{EventId, RoomId};

use crate::{Error, Requester, Sync, json::Object, timeline::Placed, visibility::Viewer};

const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 100;
/// Events whose children are looked up for one answer.
const PARENTS_MAX: usize = 200;
const CHILDREN_MAX: usize = 5_000;
/// How deep `recurse` goes; the specification recommends at least 3.
const RECURSION_DEPTH: usize = 3;
const THREADS_MAX: usize = 20_000;

#[derive(Clone, Debug)]
pub struct RelationsRequest {
    pub rel_type: Option<String>,
    pub event_type: Option<String>,
    pub from: Option<TimelineToken>,
    pub to: Option<TimelineToken>,
    pub direction: Direction,
    pub limit: Option<u64>,
    pub recurse: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    All,
    Participated,
}

impl Sync {
    pub async fn relations(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        event_id: &EventId,
        request: &RelationsRequest,
    ) -> Result<String, Error> {
        let parent = self.visible_event(requester, room_id, event_id).await?;
        let children = self.children(parent.event.room, event_id.as_str(), request.recurse).await?;
        let candidates: Vec<_> = request.in_order(children).collect();
        let limit = page_size(request.limit);
        let (page, more) = self.visible_page(requester, room_id, &candidates, limit).await?;
        let mut text = String::with_capacity(1024);
        let mut body = Object::open(&mut text);
        body.array("chunk", self.write_all(requester, &page).await?);
        if let Some(from) = request.from {
            body.string("prev_batch", &from.to_string());
        }
        if let Some(last) = page.last().filter(|_| more) {
            let gap = match request.direction {
                Direction::Reverse => TimelineOrder(last.order.0.saturating_sub(1)),
                Direction::Forward => last.order,
            };
            body.string("next_batch", &TimelineToken(gap).to_string());
        }
        if request.recurse {
            body.number("recursion_depth", RECURSION_DEPTH as u64);
        }
        body.close();
        Ok(text)
    }

    /// Relating events by order; with `recurse` also those that relate to them.
    async fn children(
        &self,
        room: RoomNid,
        event_id: &str,
        recurse: bool,
    ) -> Result<BTreeMap<TimelineOrder, RelationRecord>, Error> {
        let mut found = BTreeMap::new();
        let mut parents = vec![event_id.to_owned()];
        let mut seen: BTreeSet<String> = parents.iter().cloned().collect();
        for _ in 0..if recurse { RECURSION_DEPTH } else { 1 } {
            let mut next = Vec::new();
            for parent in parents.drain(..).take(PARENTS_MAX) {
                let prefix = (room, parent);
                let rows =
                    self.view.store.scan(&RELATIONS, &prefix, Direction::Reverse, CHILDREN_MAX).await?;
                for ((_, _, order), relation) in rows {
                    next.push(relation.event);
                    found.insert(order, relation);
                }
            }
            if recurse {
                let events = crate::room_state::load_events(&self.view, &next).await?;
                let ids = events.into_iter().map(|event| event.pdu.event_id.to_string());
                parents = ids.filter(|id| seen.insert(id.clone())).collect();
            }
        }
        Ok(found)
    }

    /// The first `limit` of the candidates that the requester may see, and whether there are more.
    async fn visible_page(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        candidates: &[(TimelineOrder, EventNid)],
        limit: usize,
    ) -> Result<(Vec<Placed>, bool), Error> {
        let mut page = Vec::new();
        let Some(room) = self.view.room_by_id(room_id).await? else { return Ok((page, false)) };
        let mut viewer = Viewer::new(&self.view, &room, requester.user, &requester.user_id).await?;
        let ignored = self.view.ignored.load(requester.user).await?;
        for (order, nid) in candidates {
            let Some(event) = self.view.events.load(*nid).await? else { continue };
            // A redacted event relates to nothing any more.
            if ignored.contains(&event.pdu.sender) || event.redacted_by.is_some() {
                continue;
            }
            if let Some(seen) = viewer.see(&event).await? {
                if page.len() == limit {
                    return Ok((page, true));
                }
                page.push(Placed { order: *order, event, seen });
            }
        }
        Ok((page, false))
    }

    /// Thread roots, the thread with the newest reply first.
    pub async fn threads(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        include: Include,
        limit: Option<u64>,
        from: Option<TimelineToken>,
    ) -> Result<String, Error> {
        let room = self.readable(requester, room_id).await?.room;
        let rows = self.view.store.scan(&THREAD_ROOTS, &room.nid(), Direction::Forward, THREADS_MAX).await?;
        let until = from.map_or(TimelineOrder::MAX, |token| token.0);
        let mut threads: Vec<(TimelineOrder, String)> = Vec::new();
        for ((_, root), row) in rows {
            let latest = TimelineOrder::from(row.position);
            if latest <= until && self.takes_part(requester, room.nid(), &root, include).await? {
                threads.push((latest, root));
            }
        }
        threads.sort_unstable_by(|a, b| b.cmp(a));
        let (page, next) = self.thread_page(requester, room_id, &threads, page_size(limit)).await?;
        let mut text = String::with_capacity(1024);
        let mut body = Object::open(&mut text);
        body.array("chunk", self.write_all(requester, &page).await?);
        if let Some(next) = next {
            body.string("next_batch", &TimelineToken(next).to_string());
        }
        body.close();
        Ok(text)
    }

    /// Whether the requester started the thread or replied in it, if that is asked for.
    async fn takes_part(
        &self,
        requester: &Requester,
        room: RoomNid,
        root: &str,
        include: Include,
    ) -> Result<bool, Error> {
        if include == Include::All {
            return Ok(true);
        }
        let prefix = (room, root.to_owned());
        let rows = self.view.store.scan(&RELATIONS, &prefix, Direction::Forward, CHILDREN_MAX).await?;
        let own =
            |relation: &RelationRecord| relation.rel_type == "m.thread" && relation.sender == requester.user;
        if rows.iter().any(|(_, relation)| own(relation)) {
            return Ok(true);
        }
        let Ok(root) = <&EventId>::try_from(root) else { return Ok(false) };
        let root = self.view.events.load_by_id(root).await?;
        Ok(root.is_some_and(|root| root.sender == requester.user))
    }

    /// The page, and the token of the next one.
    async fn thread_page(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        threads: &[(TimelineOrder, String)],
        limit: usize,
    ) -> Result<(Vec<Placed>, Option<TimelineOrder>), Error> {
        let ignored = self.view.ignored.load(requester.user).await?;
        let mut page = Vec::new();
        for (latest, root) in threads {
            let Ok(root) = <&EventId>::try_from(root.as_str()) else { continue };
            let placed = match self.visible_event(requester, room_id, root).await {
                Ok(placed) => placed,
                Err(Error::NotFound(_)) => continue,
                Err(error) => return Err(error),
            };
            if ignored.contains(&placed.event.pdu.sender) {
                continue;
            }
            if page.len() == limit {
                return Ok((page, Some(*latest)));
            }
            page.push(placed);
        }
        Ok((page, None))
    }
}

impl RelationsRequest {
    fn in_order(
        &self,
        children: BTreeMap<TimelineOrder, RelationRecord>,
    ) -> impl Iterator<Item = (TimelineOrder, EventNid)> {
        let fits = |relation: &RelationRecord| {
            self.rel_type.as_ref().is_none_or(|t| *t == relation.rel_type)
                && self.event_type.as_ref().is_none_or(|t| *t == relation.event_type)
        };
        let (after, until) = match self.direction {
            Direction::Reverse => (self.to, self.from),
            Direction::Forward => (self.from, self.to),
        };
        let inside = |order: TimelineOrder| {
            after.is_none_or(|token| order > token.0) && until.is_none_or(|token| order <= token.0)
        };
        let mut rows: Vec<_> = children
            .into_iter()
            .filter(|(order, relation)| inside(*order) && fits(relation))
            .map(|(order, relation)| (order, relation.event))
            .collect();
        if self.direction == Direction::Reverse {
            rows.reverse();
        }
        rows.into_iter()
    }
}

fn page_size(limit: Option<u64>) -> usize {
    limit.map_or(LIMIT_DEFAULT, |n| usize::try_from(n).unwrap_or(usize::MAX)).clamp(1, LIMIT_MAX)
}
