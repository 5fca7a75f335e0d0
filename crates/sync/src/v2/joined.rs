//! `rooms.join` of a sync.

use myelin_core::{EventNid, Position, RoomNid, TimelineOrder, TimelineToken, UserNid};
use myelin_store::{Direction, tables::Membership};
use myelin_view::RoomSnapshot;
use ruma::events::TimelineEventType;

use super::{
    Changes, Context,
    state::{StateRequest, wants_state},
    summary::Summary,
};
use crate::{
    Error, Sync,
    filter::{EventFilter, TIMELINE_LIMIT_DEFAULT},
    json::Object,
    room_state::state_at,
    sticky::StickyRequest,
    timeline::{Found, PassedOver, Placed, Stretch, Wanted, walk},
    unread::Counts,
    visibility::Viewer,
};

/// The stretch of a room's timeline in one answer.
pub(crate) struct Timeline {
    pub events: Vec<Placed>,
    /// There is more between the token and the first event.
    pub limited: bool,
    pub passed_over: PassedOver,
    pub prev_batch: TimelineToken,
}

/// What is asked of a room's timeline.
pub(crate) struct TimelineRequest<'a> {
    /// The client has what came before; `None`: nothing.
    pub since: Option<Position>,
    pub until: TimelineOrder,
    pub limit: usize,
    pub filter: &'a EventFilter,
    /// Not further back than where the state changed without the user seeing it: the state at the start of the timeline
    /// is to fit.
    pub up_to_hidden_state: bool,
}

/// The parts of one joined room.
struct Joined {
    summary: Option<Summary>,
    state: Vec<String>,
    timeline: Timeline,
    ephemeral: Vec<String>,
    account_data: Vec<String>,
    sticky: Vec<String>,
    /// The user moved a receipt of their own: counts may have changed though nothing is shown.
    read: bool,
}

impl Sync {
    pub(crate) async fn push_joined(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        rooms: &mut Object<'_>,
    ) -> Result<(), Error> {
        let mut text = String::new();
        let mut join = Object::open(&mut text);
        for nid in &changes.changed {
            let joined = changes.rooms.get(nid).is_some_and(|room| room.membership == Membership::Join);
            let room = if joined { self.view.rooms.load(*nid).await? } else { None };
            let Some(room) = room else { continue };
            if !context.request.filter.room.allows_room(&room.info.room_id) {
                continue;
            }
            // Clients that want all members are shown the room when these are known.
            if room.members_omitted && !is_lazy(context) {
                continue;
            }
            if let Some(json) = self.joined_room(context, changes, &room).await? {
                join.raw(room.info.room_id.as_str(), &json);
            }
        }
        let news = !join.is_empty();
        join.close();
        if news {
            rooms.raw("join", &text);
        }
        Ok(())
    }

    /// `None` if nothing in the room is news for this client.
    async fn joined_room(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        room: &RoomSnapshot,
    ) -> Result<Option<String>, Error> {
        let newly_joined = context.since.is_some() && self.newly_joined(context, changes, room.nid()).await?;
        let unseen = !is_lazy(context) && changes.completed.contains(&room.nid());
        let since = context.since.filter(|_| !newly_joined && !unseen);
        let full = since.is_none() || context.request.full_state;
        let parts = self.joined_parts(context, changes, room, since).await?;
        if !full && parts.is_quiet() && !self.counts_anew(context, room, &parts.timeline, since).await? {
            return Ok(None);
        }
        let mut json = String::with_capacity(512);
        let mut out = Object::open(&mut json);
        if let Some(summary) = &parts.summary {
            summary.push(&mut out);
        }
        out.events(context.request.state_form.key(), &parts.state);
        self.push_timeline(context, &parts.timeline, &mut out).await?;
        out.events("ephemeral", &parts.ephemeral);
        out.events("account_data", &parts.account_data);
        if !parts.sticky.is_empty() {
            out.events("msc4354_sticky", &parts.sticky);
        }
        self.push_unread(context, room, &mut out).await?;
        out.close();
        Ok(Some(json))
    }

    /// Whether the counts may have changed by what the client is not shown (filters, senders who are ignored by now).
    async fn counts_anew(
        &self,
        context: &Context<'_>,
        room: &RoomSnapshot,
        timeline: &Timeline,
        since: Option<Position>,
    ) -> Result<bool, Error> {
        let Some(since) = since else { return Ok(false) };
        if timeline.passed_over.redaction {
            return Ok(true);
        }
        self.notified_since(context.request.requester.user, room, since.into()).await
    }

    /// Counts are given whole whenever there is anything to tell of the room.
    async fn push_unread(
        &self,
        context: &Context<'_>,
        room: &RoomSnapshot,
        out: &mut Object<'_>,
    ) -> Result<(), Error> {
        let unread = self.unread(context.request.requester.user, room).await?;
        let by_thread = context.request.filter.room.timeline.unread_thread_notifications;
        push_counts(out, "unread_notifications", if by_thread { unread.main } else { unread.total() });
        if by_thread {
            let mut threads = out.object("unread_thread_notifications");
            for (root, counts) in &unread.threads {
                push_counts(&mut threads, root.as_str(), *counts);
            }
            threads.close();
        }
        Ok(())
    }

    async fn joined_parts(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        room: &RoomSnapshot,
        since: Option<Position>,
    ) -> Result<Joined, Error> {
        let mut viewer = self.viewer(context, room).await?;
        let mut timeline = self.timeline(context, room, &mut viewer, since, context.now.into()).await?;
        // What the client may hold of a room that it was in before does not join on to this.
        timeline.limited |= since.is_none() && context.since.is_some();
        let full = since.is_none() || context.request.full_state;
        let summary = if full || timeline.changes_summary() {
            Some(self.summary(room, context.request.requester.user).await?)
        } else {
            None
        };
        let heroes = summary.as_ref().and_then(|summary| summary.heroes.clone());
        let request = StateRequest {
            room,
            since,
            until: context.now.into(),
            timeline: &timeline,
            moved: changes.state_may_have_moved(room.nid()),
            members: heroes.unwrap_or_default(),
        };
        let state = self.write_state(context, &request, &mut viewer).await?;
        let ephemeral = self.room_ephemeral(context, changes, room, since).await?;
        let account_data = self.room_account_data(context, changes, room, since).await?;
        let shown: Vec<_> = timeline.events.iter().map(|placed| placed.event.nid).collect();
        let request =
            StickyRequest { since: since.unwrap_or(Position::ZERO), until: context.now, shown: &shown };
        let sticky = self.sticky_events(&context.writer, &mut viewer, room, &request).await?;
        let read = self.has_read(context, changes, room.nid(), since).await?;
        Ok(Joined { summary, state, timeline, ephemeral, account_data, sticky, read })
    }

    /// Not joined at the token: the client starts with this room anew. Who left and came back in between gets what
    /// happened meanwhile, as far as they may see it, and the state that changed.
    pub(crate) async fn newly_joined(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        room: RoomNid,
    ) -> Result<bool, Error> {
        let Some(since) = context.since.filter(|_| changes.memberships.contains_key(&room)) else {
            return Ok(false);
        };
        Ok(!self.was_inside_at(context, room, since).await?)
    }

    /// What a member event replaced.
    pub(crate) async fn membership_before(
        &self,
        member_event: EventNid,
    ) -> Result<Option<Membership>, Error> {
        let Some(event) = self.view.events.load(member_event).await? else { return Ok(None) };
        let (Some(root), Some(key)) = (event.state_before, event.state_key) else { return Ok(None) };
        let Some(before) = self.view.states.load(root).await?.get(key) else { return Ok(None) };
        let before = self.view.events.load(before).await?;
        Ok(before.and_then(|event| event.pdu.membership()).as_ref().map(Membership::from))
    }

    /// Whether the user was in a room at a position. Its state then tells, not the events since: state resolution takes
    /// people out without one.
    pub(super) async fn was_inside_at(
        &self,
        context: &Context<'_>,
        room: RoomNid,
        since: Position,
    ) -> Result<bool, Error> {
        let user_id = context.request.requester.user_id.as_str();
        let Some(key) = self.view.interner.lookup_state_key("m.room.member", user_id).await? else {
            return Ok(false);
        };
        let Some(member) = state_at(&self.view, room, since.into()).await?.get(key) else { return Ok(false) };
        let member = self.view.events.load(member).await?;
        let membership = member.and_then(|event| event.pdu.membership());
        Ok(membership.as_ref().map(Membership::from) == Some(Membership::Join))
    }

    pub(crate) async fn viewer(
        &self,
        context: &Context<'_>,
        room: &RoomSnapshot,
    ) -> Result<Viewer<'_>, Error> {
        let requester = &context.request.requester;
        Viewer::new(&self.view, room, requester.user, &requester.user_id).await
    }

    /// The newest events in `(since, until]`, oldest first.
    pub(crate) async fn timeline(
        &self,
        context: &Context<'_>,
        room: &RoomSnapshot,
        viewer: &mut Viewer<'_>,
        since: Option<Position>,
        until: TimelineOrder,
    ) -> Result<Timeline, Error> {
        let filter = &context.request.filter.room.timeline;
        if !filter.allows_room(&room.info.room_id) {
            return Ok(Timeline::left_out(until));
        }
        let limit = filter.limit_or(TIMELINE_LIMIT_DEFAULT);
        let up_to_hidden_state = !context.request.state_form.is_after();
        let request = TimelineRequest { since, until, limit, filter, up_to_hidden_state };
        self.read_timeline(context.request.requester.user, room, viewer, request).await
    }

    /// The newest events that the user may see and wants, oldest first.
    pub(crate) async fn read_timeline(
        &self,
        user: UserNid,
        room: &RoomSnapshot,
        viewer: &mut Viewer<'_>,
        request: TimelineRequest<'_>,
    ) -> Result<Timeline, Error> {
        let TimelineRequest { since, until, limit, filter, up_to_hidden_state } = request;
        let ignored = self.view.ignored.load(user).await?;
        let wanted = Wanted { filter, ignored: &ignored };
        let since = since.map(TimelineOrder::from);
        // What was held before this server was away does not join on.
        let gap = self.gap_of(room).await?;
        let gap = gap.filter(|gap| *gap < until && since.is_none_or(|since| since < *gap));
        let stretch = Stretch { after: gap.or(since).unwrap_or(TimelineOrder::MIN), until };
        let found = walk(&self.view, viewer, room.nid(), stretch, Direction::Reverse, limit, &wanted).await?;
        if filter.limit == Some(0) && !found.events.is_empty() {
            return Ok(Timeline { limited: true, ..Timeline::left_out(until) });
        }
        let cut = found.passed_over.hidden_state.filter(|_| up_to_hidden_state);
        let mut timeline = Timeline::of(found, until, cut);
        timeline.limited |= gap.is_some();
        Ok(timeline)
    }

    /// The place right before the newest event that does not join on.
    async fn gap_of(&self, room: &RoomSnapshot) -> Result<Option<TimelineOrder>, Error> {
        let Some(event) = room.gap else { return Ok(None) };
        let order = self.view.events.load(event).await?.and_then(|event| event.order);
        Ok(order.map(|order| TimelineOrder(order.0.saturating_sub(1))))
    }

    pub(crate) async fn push_timeline(
        &self,
        context: &Context<'_>,
        timeline: &Timeline,
        out: &mut Object<'_>,
    ) -> Result<(), Error> {
        let events = self.write_timeline(context, timeline).await?;
        let mut batch = out.object("timeline");
        batch.array("events", events);
        batch.bool("limited", timeline.limited);
        batch.string("prev_batch", &timeline.prev_batch.to_string());
        batch.close();
        Ok(())
    }

    /// The events as JSON, with their aggregations.
    pub(crate) async fn write_timeline(
        &self,
        context: &Context<'_>,
        timeline: &Timeline,
    ) -> Result<Vec<String>, Error> {
        // What relates to an event comes after it, and the timeline reaches up to now.
        let complete = !timeline.passed_over.between;
        let bundles = self.bundles(&context.request.requester, &timeline.events, complete).await?;
        let mut events = Vec::with_capacity(timeline.events.len());
        for placed in &timeline.events {
            let bundle = bundles.get(&placed.event.nid).map(String::as_str);
            events.push(context.writer.write(&placed.event, placed.seen, bundle).await?);
        }
        Ok(events)
    }

    /// State events as JSON. State that the user has a right to (they are joined, or it is as of their leaving) is not
    /// subject to history visibility.
    pub(crate) async fn write_state(
        &self,
        context: &Context<'_>,
        request: &StateRequest<'_>,
        viewer: &mut Viewer<'_>,
    ) -> Result<Vec<String>, Error> {
        let filter = &context.request.filter.room.state;
        let mut json = Vec::new();
        if !wants_state(filter) || !filter.allows_room(&request.room.info.room_id) {
            return Ok(json);
        }
        for event in self.state_events(context, request).await? {
            let seen = viewer.see_as_state(&event).await?;
            json.push(context.writer.write(&event, seen, None).await?);
        }
        Ok(json)
    }

    pub(crate) async fn room_account_data(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        room: &RoomSnapshot,
        since: Option<Position>,
    ) -> Result<Vec<String>, Error> {
        let filter = &context.request.filter.room.account_data;
        if !filter.allows_room(&room.info.room_id) {
            return Ok(Vec::new());
        }
        if since.is_none() {
            return self.all_account_data(context, room.nid(), filter).await;
        }
        self.changed_account_data(context, room.nid(), changes.account_data.get(&room.nid()), filter).await
    }
}

impl Timeline {
    /// The client wants none, and so gets every change of the state as state.
    fn left_out(until: TimelineOrder) -> Self {
        let passed_over = PassedOver { state_beyond: true, ..PassedOver::default() };
        Self { events: Vec::new(), limited: false, passed_over, prev_batch: TimelineToken(until) }
    }

    /// `cut`: where the state changed without the client seeing it. What came before is left for pagination: the state
    /// that goes with the timeline is the one at its start.
    fn of(found: Found, until: TimelineOrder, cut: Option<TimelineOrder>) -> Self {
        let Found { mut events, stopped_at, passed_over } = found;
        events.reverse();
        let mut limited = stopped_at.is_some();
        if let Some(cut) = cut {
            let before = events.partition_point(|placed| placed.order < cut);
            events.drain(..before);
            limited |= before > 0;
        }
        let first = events.first().map(|first| first.order).or(stopped_at.filter(|_| cut.is_none()));
        let prev_batch = TimelineToken(first.map_or(until, |first| TimelineOrder(first.0.saturating_sub(1))));
        Self { events, limited, passed_over, prev_batch }
    }

    /// Whether the members or the name may have changed in it.
    fn changes_summary(&self) -> bool {
        let about = |placed: &Placed| {
            use TimelineEventType as T;
            matches!(placed.event.pdu.event_type, T::RoomMember | T::RoomName | T::RoomCanonicalAlias)
        };
        self.limited || self.events.iter().any(about)
    }
}

impl Joined {
    fn is_quiet(&self) -> bool {
        let nothing_shown = self.timeline.events.is_empty() && !self.timeline.limited;
        nothing_shown
            && !self.read
            && self.state.is_empty()
            && self.ephemeral.is_empty()
            && self.account_data.is_empty()
            && self.sticky.is_empty()
    }
}

fn is_lazy(context: &Context<'_>) -> bool {
    context.request.filter.room.state.lazy_load_members
}

fn push_counts(out: &mut Object<'_>, key: &str, counts: Counts) {
    let mut object = out.object(key);
    object.number("notification_count", counts.notification_count);
    object.number("highlight_count", counts.highlight_count);
    object.close();
}
