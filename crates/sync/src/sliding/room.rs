//! One room of an answer (MSC4186, "RoomResult").

use std::collections::BTreeSet;

use myelin_core::{EventNid, Position, TimelineOrder, TimelineToken};
use myelin_dag::StateTree;
use myelin_store::tables::Membership;
use myelin_view::{Event, RoomSnapshot};
use ruma::{OwnedEventId, events::room::member::MembershipState};

use super::{Answering, recency::bump_in, request::Dialect, state::StateNews, told::Task};
use crate::{
    Error, Sync,
    client_event::membership_name,
    filter::EventFilter,
    json,
    json::Object,
    room_state::{state_at, state_now},
    v2::{Timeline, TimelineRequest},
    visibility::{Seen, Viewer},
};

/// What came of a room.
pub(super) struct Told {
    pub json: String,
    /// Worth telling.
    pub news: bool,
    /// The client starts with this room anew.
    pub anew: bool,
    /// The client may lack events before those that it was shown.
    pub limited: bool,
    /// The events of the timeline.
    pub shown: BTreeSet<OwnedEventId>,
    /// The first of them.
    pub shown_since: Option<TimelineOrder>,
}

/// A room that the user is in, or was.
struct Inside<'a> {
    room: &'a RoomSnapshot,
    /// Up to where the user may look.
    until: TimelineOrder,
    /// What the client has; `None`: nothing that counts.
    since: Option<Position>,
    expanded: bool,
    timeline: Option<Timeline>,
    state: StateNews,
}

impl Sync {
    pub(super) async fn tell_of(
        &self,
        answering: &Answering<'_>,
        task: &Task,
    ) -> Result<Option<Told>, Error> {
        let held = &task.interest.held;
        match held.membership {
            Membership::Invite | Membership::Knock => self.tell_of_invite(answering, task).await.map(Some),
            Membership::Join => match self.view.rooms.load(task.room).await? {
                Some(room) => self.tell_of_joined(answering, &room, task).await.map(Some),
                None => Ok(None),
            },
            Membership::Leave | Membership::Ban => self.tell_of_left(answering, task).await,
        }
    }

    async fn tell_of_invite(&self, answering: &Answering<'_>, task: &Task) -> Result<Told, Error> {
        let held = &task.interest.held;
        let mut told = Told::nothing();
        let news = task.since.is_none_or(|since| since < held.position);
        let member = self.view.events.load(held.event).await?;
        let Some(member) = member.filter(|_| news) else { return Ok(told) };
        let user = answering.context.request.requester.user;
        let stripped = self.recognisable_state(user, task.room, &member).await?;
        let mut out = Object::open(&mut told.json);
        push_head(&mut out, answering, task, task.since.is_none());
        out.number("bump_stamp", held.position.0);
        let key = match answering.request.dialect {
            Dialect::Unstable => "invite_state",
            Dialect::V4 => "stripped_state",
        };
        out.array(key, stripped);
        out.close();
        told.news = true;
        Ok(told)
    }

    async fn tell_of_joined(
        &self,
        answering: &Answering<'_>,
        room: &RoomSnapshot,
        task: &Task,
    ) -> Result<Told, Error> {
        let since = match task.since {
            Some(since) if self.was_joined_at(answering, room, task, since).await? => Some(since),
            _ => None,
        };
        let until = answering.context.now.into();
        let state = state_now(&self.view, room, answering.context.now).await?;
        self.tell_of_inside(answering, room, task, since, until, &state).await
    }

    /// Up to and including the event by which the user left; only that, if there was nothing to leave.
    async fn tell_of_left(&self, answering: &Answering<'_>, task: &Task) -> Result<Option<Told>, Error> {
        let held = &task.interest.held;
        if task.since.is_some_and(|since| since >= held.position) {
            return Ok(None);
        }
        let Some(member) = self.view.events.load(held.event).await? else { return Ok(None) };
        let was_inside = self.membership_before(held.event).await? == Some(Membership::Join);
        let room = self.view.rooms.load(task.room).await?;
        let Some(room) = room.filter(|_| was_inside && member.order.is_some()) else {
            return self.tell_of_end(answering, task, &member).await.map(Some);
        };
        let since = match task.since {
            Some(since) if self.was_joined_at(answering, &room, task, since).await? => Some(since),
            _ => None,
        };
        let until = TimelineOrder::from(held.position);
        let state = state_at(&self.view, task.room, until).await?;
        self.tell_of_inside(answering, &room, task, since, until, &state).await.map(Some)
    }

    /// Whether the user was joined at a position, so that what the client was told up to there is theirs.
    async fn was_joined_at(
        &self,
        answering: &Answering<'_>,
        room: &RoomSnapshot,
        task: &Task,
        since: Position,
    ) -> Result<bool, Error> {
        let held = &task.interest.held;
        if held.position <= since {
            return Ok(held.membership == Membership::Join);
        }
        let user_id = answering.context.request.requester.user_id.as_str();
        let Some(key) = self.view.interner.lookup_state_key("m.room.member", user_id).await? else {
            return Ok(false);
        };
        let state = state_at(&self.view, room.nid(), since.into()).await?;
        let Some(member) = state.get(key) else { return Ok(false) };
        let member = self.view.events.load(member).await?;
        let membership = member.and_then(|member| member.pdu.membership());
        Ok(membership.as_ref().map(Membership::from) == Some(Membership::Join))
    }

    /// A membership that ended without the user having been in the room: that end is all there is.
    async fn tell_of_end(
        &self,
        answering: &Answering<'_>,
        task: &Task,
        member: &Event,
    ) -> Result<Told, Error> {
        let held = &task.interest.held;
        let mut told = Told::nothing();
        // Where state resolution took the user out, that shows in no event.
        let shown = member.pdu.membership() != Some(MembershipState::Join);
        let event =
            answering.context.writer.write(member, Seen { membership: held.membership }, None).await?;
        let mut out = Object::open(&mut told.json);
        push_head(&mut out, answering, task, task.since.is_none());
        out.number("bump_stamp", held.position.0);
        let required = &task.interest.config.required_state;
        let own = member.pdu.state_key.as_deref().unwrap_or_default();
        if shown && (required.lazy_members() || required.matches("m.room.member", own)) {
            out.array("required_state", [&event]);
        }
        if task.interest.config.timeline_limit > 0 {
            out.array("timeline", shown.then_some(&event));
            out.bool("limited", false);
            out.string("prev_batch", &TimelineToken(held.position.into()).to_string());
            out.number("num_live", u64::from(answering.is_live(held.position.into())));
        }
        out.close();
        told.news = true;
        Ok(told)
    }

    async fn tell_of_inside(
        &self,
        answering: &Answering<'_>,
        room: &RoomSnapshot,
        task: &Task,
        since: Option<Position>,
        until: TimelineOrder,
        state: &StateTree,
    ) -> Result<Told, Error> {
        let requester = &answering.context.request.requester;
        let mut viewer = Viewer::new(&self.view, room, requester.user, &requester.user_id).await?;
        let expanded = since.is_some() && task.expands_timeline();
        let timeline =
            self.sliding_timeline(answering, room, task, &mut viewer, (since, until), expanded).await?;
        let limited = timeline.as_ref().is_some_and(|timeline| timeline.limited);
        let shown = timeline.as_ref().map_or(&[][..], |timeline| &timeline.events);
        let reaches = shown.first().zip(since).is_some_and(|(first, since)| first.order <= since.into());
        let news = self.state_news(answering, room, task, since, state, shown, limited && !reaches).await?;
        let inside = Inside { room, until, since, expanded, timeline, state: news };
        self.write_inside(answering, task, inside, state, &mut viewer).await
    }

    async fn sliding_timeline(
        &self,
        answering: &Answering<'_>,
        room: &RoomSnapshot,
        task: &Task,
        viewer: &mut Viewer<'_>,
        (since, until): (Option<Position>, TimelineOrder),
        expanded: bool,
    ) -> Result<Option<Timeline>, Error> {
        let limit = task.interest.config.timeline_limit;
        if limit == 0 {
            return Ok(None);
        }
        let since = since.filter(|_| !expanded);
        let filter = &EventFilter::default();
        let request = TimelineRequest { since, until, limit, filter, up_to_hidden_state: false };
        let user = answering.context.request.requester.user;
        let mut timeline = self.read_timeline(user, room, viewer, request).await?;
        // What the client holds from before the user came back does not join on to this.
        timeline.limited |= since.is_none() && task.since.is_some() && !expanded;
        Ok(Some(timeline))
    }

    async fn write_inside(
        &self,
        answering: &Answering<'_>,
        task: &Task,
        inside: Inside<'_>,
        state: &StateTree,
        viewer: &mut Viewer<'_>,
    ) -> Result<Told, Error> {
        let mut told = Told::nothing();
        let initial = inside.since.is_none();
        let mut out = Object::open(&mut told.json);
        push_head(&mut out, answering, task, initial);
        told.anew = initial;
        told.news = initial || inside.expanded;
        told.news |= self.push_summary(answering, task, &inside, state, &mut out).await?;
        told.news |= self.push_counts(answering, task, &inside, &mut out).await?;
        let mut required = Vec::new();
        for event in &inside.state.events {
            let seen = viewer.see_as_state(event).await?;
            required.push(answering.context.writer.write(event, seen, None).await?);
        }
        if answering.request.dialect == Dialect::V4 {
            required.extend(inside.state.gone.iter().map(|key| stub(&key.event_type, &key.state_key)));
        }
        if !required.is_empty() {
            told.news = true;
            out.array("required_state", required);
        }
        self.push_sliding_timeline(answering, &inside, &mut out).await?;
        self.push_bump_stamp(task, &inside, &mut out).await?;
        out.close();
        told.limited = inside.timeline.is_none();
        if let Some(timeline) = &inside.timeline {
            told.news |= !timeline.events.is_empty() || timeline.limited;
            told.limited = timeline.limited;
            told.shown = timeline.events.iter().map(|placed| placed.event.pdu.event_id.clone()).collect();
            told.shown_since = timeline.events.first().map(|placed| placed.order);
        }
        Ok(told)
    }

    async fn push_sliding_timeline(
        &self,
        answering: &Answering<'_>,
        inside: &Inside<'_>,
        out: &mut Object<'_>,
    ) -> Result<(), Error> {
        let Some(timeline) = &inside.timeline else { return Ok(()) };
        let events = self.write_timeline(&answering.context, timeline).await?;
        if !events.is_empty() {
            out.array("timeline", events);
        }
        out.bool("limited", timeline.limited);
        out.string("prev_batch", &timeline.prev_batch.to_string());
        let live = timeline.events.iter().rev().take_while(|placed| answering.is_live(placed.order));
        out.number("num_live", live.count() as u64);
        if inside.expanded {
            let key = match answering.request.dialect {
                Dialect::Unstable => "unstable_expanded_timeline",
                Dialect::V4 => "expanded_timeline",
            };
            out.bool(key, true);
        }
        Ok(())
    }

    /// Given with everything but an increment in which nothing of interest happened.
    async fn push_bump_stamp(
        &self,
        task: &Task,
        inside: &Inside<'_>,
        out: &mut Object<'_>,
    ) -> Result<(), Error> {
        let shown = inside.timeline.as_ref().map_or(&[][..], |timeline| &timeline.events);
        let complete = inside.timeline.as_ref().is_some_and(|timeline| !timeline.limited);
        let stamp = if !task.is_joined() {
            Some(task.interest.held.position.0)
        } else if inside.since.is_some() && complete {
            bump_in(shown)
        } else {
            Some(self.bump_stamp(task.room, inside.until, shown).await?)
        };
        if let Some(stamp) = stamp {
            out.number("bump_stamp", stamp);
        }
        Ok(())
    }

    /// Name, avatar, heroes and numbers of members, as far as they changed.
    async fn push_summary(
        &self,
        answering: &Answering<'_>,
        task: &Task,
        inside: &Inside<'_>,
        state: &StateTree,
        out: &mut Object<'_>,
    ) -> Result<bool, Error> {
        let (initial, news) = (inside.since.is_none(), &inside.state);
        let name = self.text_of(state, "m.room.name", "name").await?;
        if initial || news.name_changed {
            push_text(out, "name", name.as_deref(), initial);
        }
        if initial || news.avatar_changed {
            let avatar = self.text_of(state, "m.room.avatar", "url").await?;
            push_text(out, "avatar", avatar.as_deref(), initial);
        }
        if !task.is_joined() {
            return Ok(news.name_changed || news.avatar_changed);
        }
        if name.is_none() && (initial || news.members_changed || news.name_changed) {
            self.push_heroes(answering, inside.room, out).await?;
        }
        if initial || news.members_changed {
            out.number("joined_count", inside.room.joined_count);
            out.number("invited_count", inside.room.invited_count);
        }
        Ok(news.name_changed || news.avatar_changed || news.members_changed)
    }

    async fn push_heroes(
        &self,
        answering: &Answering<'_>,
        room: &RoomSnapshot,
        out: &mut Object<'_>,
    ) -> Result<(), Error> {
        let heroes = self.heroes(room, answering.context.request.requester.user).await?;
        let mut described = Vec::with_capacity(heroes.len());
        for hero in heroes {
            let member = self.view.current_state_event(room, "m.room.member", hero.as_str()).await?;
            let field = |name: &str| member.as_ref()?.pdu.content_field::<String>(name);
            let mut text = String::new();
            let mut out = Object::open(&mut text);
            out.string("user_id", hero.as_str());
            for name in ["displayname", "avatar_url"] {
                if let Some(value) = field(name) {
                    out.string(name, &value);
                }
            }
            out.close();
            described.push(text);
        }
        if !described.is_empty() {
            out.array("heroes", described);
        }
        Ok(())
    }

    /// Unread counts; they are news where the user's own receipts moved.
    async fn push_counts(
        &self,
        answering: &Answering<'_>,
        task: &Task,
        inside: &Inside<'_>,
        out: &mut Object<'_>,
    ) -> Result<bool, Error> {
        if !task.is_joined() {
            return Ok(false);
        }
        let user = answering.context.request.requester.user;
        let unread = self.unread(user, inside.room).await?.total();
        out.number("notification_count", unread.notification_count);
        out.number("highlight_count", unread.highlight_count);
        let Some(since) = inside.since else { return Ok(true) };
        if !task.was_out_of_sight && !answering.changes.may_have_receipts(task.room) {
            return Ok(false);
        }
        let receipts = self.receipts_since(task.room, Some(since), answering.context.now).await?;
        Ok(receipts.iter().any(|((reader, _, _), _)| *reader == user))
    }

    /// A string in the content of a state event; empty ones are none.
    async fn text_of(
        &self,
        state: &StateTree,
        event_type: &str,
        field: &str,
    ) -> Result<Option<String>, Error> {
        let Some(event) = self.state_event_of(state, event_type, "").await? else { return Ok(None) };
        let event = self.view.events.load(event).await?;
        Ok(event.and_then(|event| event.pdu.content_field::<String>(field)).filter(|text| !text.is_empty()))
    }

    pub(super) async fn state_event_of(
        &self,
        state: &StateTree,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<EventNid>, Error> {
        let key = self.view.interner.lookup_state_key(event_type, state_key).await?;
        Ok(key.and_then(|key| state.get(key)))
    }
}

impl Told {
    fn nothing() -> Self {
        Self {
            json: String::with_capacity(256),
            news: false,
            anew: false,
            limited: false,
            shown: BTreeSet::new(),
            shown_since: None,
        }
    }
}

/// What every room has.
fn push_head(out: &mut Object<'_>, answering: &Answering<'_>, task: &Task, initial: bool) {
    if initial {
        out.bool("initial", true);
    }
    out.string("membership", membership_name(task.interest.held.membership));
    let names = answering.request.lists.keys().enumerate();
    let of_room =
        names.filter(|(n, _)| task.interest.lists & (1 << n) != 0).map(|(_, name)| json::string(name));
    let lists: Vec<_> = of_room.collect();
    if !lists.is_empty() {
        out.array("lists", lists);
    }
    let direct = answering.direct.contains(task.info.room_id.as_str());
    if direct || (!initial && answering.direct_rooms_changed()) {
        out.bool("is_dm", direct);
    }
}

/// What is gone is `null`; what never was is left out.
fn push_text(out: &mut Object<'_>, key: &str, text: Option<&str>, initial: bool) {
    match text {
        Some(text) => out.string(key, text),
        None if initial => {}
        None => out.raw(key, "null"),
    }
}

/// State that is no longer there (MSC4186, "StateStub").
fn stub(event_type: &str, state_key: &str) -> String {
    let mut text = String::new();
    let mut out = Object::open(&mut text);
    out.string("type", event_type);
    out.string("state_key", state_key);
    out.close();
    text
}
