//! Walking the timeline of a room as one user sees it.

use std::{collections::HashSet, sync::Arc};

use myelin_core::{EventNid, RoomNid, TimelineOrder};
use myelin_store::{
    Direction,
    tables::{RELATIONS, TIMELINE},
};
use myelin_view::{Event, View};
use ruma::{OwnedUserId, events::TimelineEventType};

use crate::{
    Error,
    filter::EventFilter,
    visibility::{Seen, Viewer},
};

/// Rows looked at for one answer, at most: a filter that matches next to nothing, or history that is hidden, must not
/// make one request read a whole room.
const ROWS_MAX: usize = 10_000;
/// Rows read at once when events have to be passed over.
const PAGE_MIN: usize = 32;
/// Relations of one event looked at.
const RELATIONS_MAX: usize = 5_000;

/// An event in its place.
#[derive(Clone)]
pub struct Placed {
    pub order: TimelineOrder,
    pub event: Arc<Event>,
    pub seen: Seen,
}

/// A stretch of a timeline: `after < order <= until`.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    pub after: TimelineOrder,
    pub until: TimelineOrder,
}

/// What a walk found, in the direction of the walk.
#[derive(Default)]
pub struct Found {
    pub events: Vec<Placed>,
    /// The order of the last row looked at, or `None` if the stretch was read to its end.
    pub stopped_at: Option<TimelineOrder>,
    pub passed_over: PassedOver,
}

/// What lay on the way and is not among the events: hidden from the viewer, or not wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassedOver {
    /// Anything between where the walk began and the last event found.
    pub between: bool,
    /// A state event among that which was not wanted.
    pub state_between: bool,
    /// A state event beyond the last event found.
    pub state_beyond: bool,
    /// The first state event on the way that is hidden from the viewer.
    pub hidden_state: Option<TimelineOrder>,
    pub beyond: bool,
    pub unwanted_beyond: bool,
    /// What somebody was notified of may count no longer.
    pub redaction: bool,
}

impl Found {
    fn push(&mut self, placed: Placed) {
        self.passed_over.between |= self.passed_over.beyond;
        self.passed_over.state_between |= self.passed_over.unwanted_beyond;
        self.passed_over.beyond = false;
        (self.passed_over.state_beyond, self.passed_over.unwanted_beyond) = (false, false);
        self.events.push(placed);
    }

    fn pass_over(&mut self, order: TimelineOrder, event: &Event, hidden: bool) {
        let passed_over = &mut self.passed_over;
        passed_over.beyond = true;
        passed_over.redaction |= event.pdu.event_type == TimelineEventType::RoomRedaction;
        if event.state_key.is_some() {
            passed_over.state_beyond = true;
            passed_over.unwanted_beyond |= !hidden;
        }
        if event.state_key.is_some() && hidden {
            passed_over.hidden_state.get_or_insert(order);
        }
    }
}

/// Whose events are passed over, and which are asked for.
pub struct Wanted<'a> {
    pub filter: &'a EventFilter,
    pub ignored: &'a HashSet<OwnedUserId>,
}

impl Wanted<'_> {
    fn allows(&self, event: &Event) -> bool {
        let ignored = event.state_key.is_none() && self.ignored.contains(&event.pdu.sender);
        !ignored && self.filter.allows_event(&event.pdu)
    }
}

impl Wanted<'_> {
    /// `related_by_rel_types` and `related_by_senders`: one relation has to fulfil both.
    async fn is_related(&self, view: &View, event: &Event) -> Result<bool, Error> {
        let (types, senders) = (&self.filter.related_by_rel_types, &self.filter.related_by_senders);
        if types.is_none() && senders.is_none() {
            return Ok(true);
        }
        let prefix = (event.room, event.pdu.event_id.to_string());
        let rows = view.store.scan(&RELATIONS, &prefix, Direction::Forward, RELATIONS_MAX).await?;
        for (_, relation) in rows {
            let type_fits = types.as_ref().is_none_or(|types| types.contains(&relation.rel_type));
            let sender_fits = match senders {
                Some(senders) => senders.contains(&view.interner.user_id(relation.sender).await?),
                None => true,
            };
            if type_fits && sender_fits {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Up to `limit` events of the stretch that the viewer may see and wants, from its end (`Reverse`) or its start.
pub async fn walk(
    view: &View,
    viewer: &mut Viewer<'_>,
    room: RoomNid,
    stretch: Stretch,
    direction: Direction,
    limit: usize,
    wanted: &Wanted<'_>,
) -> Result<Found, Error> {
    let mut found = Found::default();
    let mut left = stretch;
    let mut looked_at = 0;
    while looked_at < ROWS_MAX && left.after < left.until {
        let page = (limit - found.events.len() + 1).max(if looked_at == 0 { 0 } else { PAGE_MIN });
        let rows = rows(view, room, left, direction, page).await?;
        let done = rows.len() < page;
        looked_at += rows.len();
        let nids: Vec<_> = rows.iter().map(|(_, nid)| *nid).collect();
        let events = view.events.load_many(&nids).await?;
        for ((order, _), event) in rows.iter().zip(events) {
            let Some(event) = event else { continue };
            if found.events.len() == limit {
                // One more row is there: the stretch was not read to its end.
                found.stopped_at = found.events.last().map(|last| last.order);
                return Ok(found);
            }
            match viewer.see(&event).await? {
                Some(seen) if wanted.allows(&event) && wanted.is_related(view, &event).await? => {
                    found.push(Placed { order: *order, event, seen });
                }
                seen => found.pass_over(*order, &event, seen.is_none()),
            }
        }
        let Some((last, _)) = rows.last().filter(|_| !done) else {
            found.stopped_at = None;
            return Ok(found);
        };
        match direction {
            Direction::Reverse => left.until = TimelineOrder(last.0.saturating_sub(1)),
            Direction::Forward => left.after = *last,
        }
        found.stopped_at = Some(*last);
    }
    if left.after >= left.until {
        found.stopped_at = None;
    }
    Ok(found)
}

/// Rows of a stretch as they are stored: the caller sees to visibility.
pub async fn rows(
    view: &View,
    room: RoomNid,
    stretch: Stretch,
    direction: Direction,
    limit: usize,
) -> Result<Vec<(TimelineOrder, EventNid)>, Error> {
    if let Some(rows) = recent_rows(view, room, stretch, direction, limit) {
        return Ok(rows);
    }
    let next = |order: TimelineOrder| TimelineOrder(order.0.saturating_add(1));
    let (from, to) = ((room, next(stretch.after)), (room, next(stretch.until)));
    let rows = view.store.range(&TIMELINE, &from, &to, direction, limit).await?;
    Ok(rows.into_iter().map(|((_, order), nid)| (order, nid)).collect())
}

/// What happened a moment ago is in memory.
fn recent_rows(
    view: &View,
    room: RoomNid,
    stretch: Stretch,
    direction: Direction,
    limit: usize,
) -> Option<Vec<(TimelineOrder, EventNid)>> {
    let (since, until) = (stretch.after.position()?, stretch.until.position()?);
    let until = until.min(view.feed.published());
    let mut rows = view.feed.recent_events(room, since, until)?;
    if direction == Direction::Reverse {
        rows.reverse();
    }
    rows.truncate(limit);
    Some(rows.into_iter().map(|(position, nid)| (position.into(), nid)).collect())
}
