//! The `state` (or `state_after`) of a room in sync.

use std::{collections::BTreeSet, sync::Arc};

use myelin_core::{EventNid, Position, StateKeyNid, TimelineOrder};
use myelin_dag::StateTree;
use myelin_view::{Event, RoomSnapshot};
use ruma::{OwnedUserId, events::TimelineEventType};

use super::{Context, joined::Timeline, lazy};
use crate::{
    Error, Sync,
    filter::EventFilter,
    room_state::{load_events, state_at, state_now, without_members},
    timeline::Placed,
};

/// What the state part of one room stands on.
pub(crate) struct StateRequest<'a> {
    pub room: &'a RoomSnapshot,
    /// What the client has; `None`: nothing (initial, newly joined).
    pub since: Option<Position>,
    /// Up to where the timeline of this answer reaches.
    pub until: TimelineOrder,
    pub timeline: &'a Timeline,
    /// The state may have changed beside what the events say (by state resolution, or because a room was completed).
    pub moved: bool,
    /// Members who must be known beside the senders (heroes).
    pub members: Vec<OwnedUserId>,
}

impl Sync {
    /// The state events to send, from the state trees alone: O(what changed).
    pub(crate) async fn state_events(
        &self,
        context: &Context<'_>,
        request: &StateRequest<'_>,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let filter = &context.request.filter.room.state;
        let target = match target_order(context, request) {
            Some(order) => Some(state_at(&self.view, request.room.nid(), order).await?),
            None => None,
        };
        let changed = self.changed_events(context, request, target.as_ref()).await?;
        let mut events = load_events(&self.view, &changed).await?;
        if filter.lazy_load_members {
            events = self.lazy_load(context, request, target, events).await?;
        }
        events.retain(|event| filter.allows_event(&event.pdu));
        Ok(events)
    }

    async fn changed_events(
        &self,
        context: &Context<'_>,
        request: &StateRequest<'_>,
        target: Option<&StateTree>,
    ) -> Result<Vec<EventNid>, Error> {
        let Some(target) = target else { return Ok(Vec::new()) };
        let Some(since) = request.since.filter(|_| !context.request.full_state) else {
            // The members who are needed are added after this.
            if context.request.filter.room.state.lazy_load_members {
                return without_members(&self.view, target).await;
            }
            return Ok(target.iter().map(|(_, event)| event).collect());
        };
        let before = state_at(&self.view, request.room.nid(), since.into()).await?;
        let changed = before.diff(target).into_iter().filter_map(|change| change.2);
        if context.request.state_form.is_after() {
            return Ok(changed.collect());
        }
        let shown = request.shown();
        Ok(changed.filter(|event| !shown.contains(event)).collect())
    }

    /// Leaves out members who are not needed and adds those who are and have not been sent.
    async fn lazy_load(
        &self,
        context: &Context<'_>,
        request: &StateRequest<'_>,
        target: Option<StateTree>,
        changed: Vec<Arc<Event>>,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let state = match target {
            Some(state) => state,
            None => self.state_until(context, request).await?,
        };
        let full = request.since.is_none() || context.request.full_state;
        let needed = self.needed_members(context, request, &state, full).await?;
        let is_member = |event: &Arc<Event>| event.pdu.event_type == TimelineEventType::RoomMember;
        // In a gap every change of a member counts; in a full state only those who are needed.
        let (mut members, mut events): (Vec<_>, Vec<_>) = changed.into_iter().partition(is_member);
        let requester = &context.request.requester;
        let sent = self.lazy.of(requester.user, &requester.device_id, request.room.nid());
        let missing = {
            let (sent, held) = (sent.lock(), members.iter().map(|m| m.nid).collect::<BTreeSet<_>>());
            let redundant = context.request.filter.room.state.include_redundant_members;
            let known = |key, event| !redundant && lazy::has(&sent, key, event, request.since);
            let missing =
                needed.into_iter().filter(|(key, event)| !held.contains(event) && !known(*key, *event));
            missing.map(|(_, event)| event).collect::<Vec<_>>()
        };
        members.extend(load_events(&self.view, &missing).await?);
        remember(&mut sent.lock(), context.now, &members, &request.timeline.events);
        events.extend(members);
        Ok(events)
    }

    /// The state up to which the answer reaches. If that is the newest, it is in memory.
    async fn state_until(
        &self,
        context: &Context<'_>,
        request: &StateRequest<'_>,
    ) -> Result<StateTree, Error> {
        if request.until == TimelineOrder::from(context.now) {
            return state_now(&self.view, request.room, context.now).await;
        }
        state_at(&self.view, request.room.nid(), request.until).await
    }

    /// State keys and events of the members needed to show the timeline.
    async fn needed_members(
        &self,
        context: &Context<'_>,
        request: &StateRequest<'_>,
        state: &StateTree,
        full: bool,
    ) -> Result<BTreeSet<(StateKeyNid, EventNid)>, Error> {
        let mut users: BTreeSet<&str> =
            request.timeline.events.iter().map(|p| p.event.pdu.sender.as_str()).collect();
        users.extend(request.members.iter().map(|id| id.as_str()));
        if full {
            users.insert(context.request.requester.user_id.as_str());
        }
        let shown = request.shown();
        let mut needed = BTreeSet::new();
        for user in users {
            let Some(key) = self.view.interner.lookup_state_key("m.room.member", user).await? else {
                continue;
            };
            let event = state
                .get(key)
                .filter(|event| context.request.state_form.is_after() || !shown.contains(event));
            needed.extend(event.map(|event| (key, event)));
        }
        Ok(needed)
    }
}

impl StateRequest<'_> {
    /// Where branches meet, state resolution may change the state beside what the events of the timeline say; where
    /// events lack in between (the room was left and joined again, or a gap was not filled), it changed unseen.
    fn is_forked(&self) -> bool {
        self.room.head.extremities.len() > 1 || !self.is_line()
    }

    /// Whether each event follows from the one before it. What was passed over cannot be looked at.
    fn is_line(&self) -> bool {
        let follows = |pair: &[Placed]| match pair[1].event.pdu.prev_events.as_slice() {
            [prev] => self.timeline.passed_over.between || *prev == pair[0].event.pdu.event_id,
            _ => false,
        };
        let merges = |placed: &Placed| placed.event.pdu.prev_events.len() > 1;
        !self.timeline.events.first().is_some_and(merges) && self.timeline.events.windows(2).all(follows)
    }

    fn shown(&self) -> BTreeSet<EventNid> {
        self.timeline.events.iter().map(|placed| placed.event.nid).collect()
    }
}

/// Where the state that the client is to have stands; `None` where it has it already: the timeline is all that happened
/// since, and it says everything.
fn target_order(context: &Context<'_>, request: &StateRequest<'_>) -> Option<TimelineOrder> {
    let full = request.since.is_none() || context.request.full_state;
    let Timeline { events, limited, passed_over, .. } = request.timeline;
    // State events that the timeline does not show have to come as state.
    let forked = request.is_forked();
    let complete = !forked && !limited && !passed_over.state_between && !passed_over.state_beyond;
    if context.request.state_form.is_after() {
        let moved = events.iter().any(|placed| placed.event.state_key.is_some());
        return (full || !complete || moved || request.moved).then_some(request.until);
    }
    if !full && complete {
        return request.moved.then_some(request.until);
    }
    let start = events.first().filter(|_| !forked && !passed_over.state_between);
    Some(start.map_or(request.until, |first| TimelineOrder(first.order.0.saturating_sub(1))))
}

/// Member events of the timeline count as sent, too.
fn remember(sent: &mut lazy::Sent, now: Position, members: &[Arc<Event>], timeline: &[Placed]) {
    let in_timeline = timeline.iter().map(|placed| &placed.event);
    let in_timeline = in_timeline.filter(|event| event.pdu.event_type == TimelineEventType::RoomMember);
    for event in members.iter().chain(in_timeline) {
        if let Some(key) = event.state_key {
            sent.insert(key, (event.nid, now));
        }
    }
}

/// Whether a filter asks for any state at all: a client that excludes everything saves the work.
pub(crate) fn wants_state(filter: &EventFilter) -> bool {
    filter.types.as_ref().is_none_or(|types| !types.is_empty())
}
