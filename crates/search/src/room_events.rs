//! `POST /search` for events: the index proposes, the store and the visibility rules decide.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use myelin_core::{EventNid, RoomNid, UserNid};
use myelin_store::tables::Membership;
use myelin_sync::{
    Placed, Requester,
    access::Readable,
    filter::EventFilter,
    json::Object,
    visibility::{Seen, Viewer},
};
use myelin_view::Event;
use ruma::{OwnedRoomId, OwnedUserId};
use tantivy::query::Query;

use crate::{
    Error, Search, Searched,
    clauses::{Clauses, among},
    collector::{Best, Hit},
    documents::own_text,
    text,
    token::{Group, Token},
};

const RESULTS_DEFAULT: usize = 10;
const RESULTS_MAX: usize = 100;
/// Hits whose visibility is looked at for one answer; a search that finds mostly what is hidden goes on with `next_batch`.
const CANDIDATES_MAX: usize = 2_000;
/// Hits taken from the index at a time.
const PAGE_MIN: usize = 32;
const SURROUNDING_MAX: usize = 50;
const SEARCH_TERM_SIZE_MAX: usize = 4_096;
const HIGHLIGHTS_MAX: usize = 100;
/// Former versions of a room that is searched.
const PREDECESSORS_MAX: usize = 10;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Rank,
    Recent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKey {
    RoomId,
    Sender,
}

/// `event_context`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surrounding {
    pub before: usize,
    pub after: usize,
    pub profiles: bool,
}

/// `room_events` of a search.
#[derive(Clone, Debug, Default)]
pub struct Criteria {
    pub term: String,
    /// `None`: all of them.
    pub keys: Option<Vec<Searched>>,
    pub filter: EventFilter,
    pub order: Order,
    pub surrounding: Option<Surrounding>,
    pub include_state: bool,
    pub group_by: Vec<GroupKey>,
    pub next_batch: Option<String>,
}

struct Visible {
    hit: Hit,
    room_id: OwnedRoomId,
    placed: Placed,
}

/// What one answer is made of.
#[derive(Default)]
struct Results {
    results: Vec<Visible>,
    /// The last hit that was looked at, if there are more.
    next: Option<Hit>,
    count: u64,
}

impl Search {
    /// The `room_events` of the answer, as JSON.
    pub async fn room_events(&self, requester: &Requester, criteria: &Criteria) -> Result<String, Error> {
        if criteria.term.len() > SEARCH_TERM_SIZE_MAX {
            let message = format!("A search term has at most {SEARCH_TERM_SIZE_MAX} bytes.");
            return Err(Error::InvalidParam(message));
        }
        let token = criteria.next_batch.as_deref().map(str::parse::<Token>).transpose()?;
        self.catch_up().await?;
        let clauses = Clauses::parse(&criteria.term);
        let mut rooms = self.searched_rooms(requester, &criteria.filter).await?;
        if let Some(Token { group: Some(Group::Room(room)), .. }) = token {
            rooms.retain(|nid, _| *nid == room);
        }
        let mut results = Results::default();
        let keys = criteria.keys.as_deref().unwrap_or(&Searched::ALL);
        if let Some(query) = clauses.query(&self.index.fields, keys)
            && !rooms.is_empty()
        {
            let query = self.restricted(query, &rooms, criteria, token).await?;
            results = self.visible_results(requester, criteria, query, &rooms, token).await?;
        }
        self.answer(requester, criteria, &clauses, results).await
    }

    /// The rooms that the requester is in or has left, as far as the filter wants them.
    async fn searched_rooms(
        &self,
        requester: &Requester,
        filter: &EventFilter,
    ) -> Result<BTreeMap<RoomNid, OwnedRoomId>, Error> {
        let own = self.view.user_rooms.load(requester.user).await?;
        let readable = own.iter().filter(|(_, room)| match room.membership {
            Membership::Join => true,
            Membership::Leave | Membership::Ban => room.was_joined && !room.forgotten,
            Membership::Invite | Membership::Knock => false,
        });
        let wanted = self.wanted_rooms(filter).await?;
        let mut rooms = BTreeMap::new();
        for (nid, _) in readable {
            if wanted.as_ref().is_some_and(|wanted| !wanted.contains(nid)) {
                continue;
            }
            let Some(info) = self.view.interner.room_info(*nid).await? else { continue };
            if !filter.not_rooms.contains(&info.room_id) {
                rooms.insert(*nid, info.room_id.clone());
            }
        }
        Ok(rooms)
    }

    /// `rooms` of the filter with what they were before they were upgraded; `None`: all.
    async fn wanted_rooms(&self, filter: &EventFilter) -> Result<Option<HashSet<RoomNid>>, Error> {
        let Some(named) = &filter.rooms else { return Ok(None) };
        let mut wanted = HashSet::new();
        for room_id in named {
            let mut next = Some(room_id.clone());
            for _ in 0..=PREDECESSORS_MAX {
                let Some(room_id) = next.take() else { break };
                let Some(nid) = self.view.interner.lookup_room(&room_id).await? else { break };
                if !wanted.insert(nid) {
                    break;
                }
                let Some(info) = self.view.interner.room_info(nid).await? else { break };
                let create = self.view.events.load(info.create_event).await?;
                let predecessor =
                    create.and_then(|e| e.pdu.content_field::<serde_json::Value>("predecessor"));
                next = predecessor.and_then(|p| p.get("room_id")?.as_str()?.try_into().ok());
            }
        }
        Ok(Some(wanted))
    }

    async fn restricted(
        &self,
        query: Box<dyn Query>,
        rooms: &BTreeMap<RoomNid, OwnedRoomId>,
        criteria: &Criteria,
        token: Option<Token>,
    ) -> Result<Box<dyn Query>, Error> {
        let fields = &self.index.fields;
        let mut query = among(query, fields.room, rooms.keys().map(|room| room.0));
        if let Some(senders) = &criteria.filter.senders {
            let nids = self.known_users(senders).await?;
            query = among(query, fields.user, nids.into_iter().map(|user| user.0));
        }
        if let Some(Token { group: Some(Group::Sender(user)), .. }) = token {
            query = among(query, fields.user, [user.0].into_iter());
        }
        Ok(query)
    }

    async fn known_users(&self, ids: &[OwnedUserId]) -> Result<Vec<UserNid>, Error> {
        let mut nids = Vec::new();
        for id in ids {
            nids.extend(self.view.interner.lookup_user(id).await?);
        }
        Ok(nids)
    }

    async fn visible_results(
        &self,
        requester: &Requester,
        criteria: &Criteria,
        query: Box<dyn Query>,
        rooms: &BTreeMap<RoomNid, OwnedRoomId>,
        token: Option<Token>,
    ) -> Result<Results, Error> {
        let limit = criteria.filter.limit_or(RESULTS_DEFAULT).min(RESULTS_MAX);
        let page = (limit * 2).max(PAGE_MIN);
        let mut eye = Eye::new(self, requester, rooms, &criteria.filter).await?;
        let (mut results, mut below, mut looked_at) = (Results::default(), token.map(|t| t.after), 0_usize);
        loop {
            let best = Best { by_score: criteria.order == Order::Rank, below, keep: page };
            let found = self.index.look_up(query.box_clone(), best).await?;
            let nids: Vec<_> = found.hits.iter().map(|hit| EventNid(hit.event)).collect();
            let events = self.view.events.load_many(&nids).await?;
            for (index, (hit, event)) in found.hits.iter().zip(events).enumerate() {
                looked_at += 1;
                below = Some(*hit);
                if let Some(event) = event
                    && let Some((room_id, placed)) = eye.see(&event).await?
                {
                    results.results.push(Visible { hit: *hit, room_id, placed });
                }
                let more = found.more || index + 1 < found.hits.len();
                if more && (results.results.len() == limit || looked_at >= CANDIDATES_MAX) {
                    results.next = below;
                    results.count = estimate(&results, looked_at as u64, found.matches);
                    return Ok(results);
                }
            }
            if !found.more || found.hits.is_empty() {
                let seen_before = token.is_some();
                results.count = match seen_before {
                    true => estimate(&results, looked_at as u64, found.matches),
                    false => results.results.len() as u64,
                };
                return Ok(results);
            }
        }
    }

    async fn answer(
        &self,
        requester: &Requester,
        criteria: &Criteria,
        clauses: &Clauses,
        found: Results,
    ) -> Result<String, Error> {
        let mut text = String::with_capacity(4096);
        let mut body = Object::open(&mut text);
        body.number("count", found.count);
        let highlights = highlights(clauses, &found.results);
        body.array("highlights", highlights.iter().map(|word| myelin_sync::json::string(word)));
        let mut written = Vec::with_capacity(found.results.len());
        for result in &found.results {
            written.push(self.write_result(requester, criteria, result).await?);
        }
        body.array("results", written);
        if criteria.include_state {
            let rooms: BTreeSet<_> = found.results.iter().map(|result| &result.room_id).collect();
            let mut state = body.object("state");
            for room_id in rooms {
                state.raw(room_id.as_str(), &self.sync.state(requester, room_id).await?);
            }
            state.close();
        }
        if !criteria.group_by.is_empty() {
            let mut groups = body.object("groups");
            for key in &criteria.group_by {
                push_groups(&mut groups, *key, &found);
            }
            groups.close();
        }
        if let Some(after) = found.next {
            let group = criteria.next_batch.as_deref().and_then(|token| token.parse::<Token>().ok()?.group);
            body.string("next_batch", &Token { after, group }.to_string());
        }
        body.close();
        Ok(text)
    }

    async fn write_result(
        &self,
        requester: &Requester,
        criteria: &Criteria,
        result: &Visible,
    ) -> Result<String, Error> {
        let mut text = String::with_capacity(1024);
        let mut object = Object::open(&mut text);
        let rank = match criteria.order {
            Order::Rank => f32::from_bits(u32::try_from(result.hit.key).unwrap_or_default()),
            Order::Recent => 0.0,
        };
        object.raw("rank", &serde_json::json!(rank).to_string());
        object.raw("result", &self.sync.write_placed(requester, &result.placed).await?);
        if let Some(wanted) = criteria.surrounding {
            let context = self.write_surroundings(requester, wanted, result).await?;
            object.raw("context", &context);
        }
        object.close();
        Ok(text)
    }

    async fn write_surroundings(
        &self,
        requester: &Requester,
        wanted: Surrounding,
        result: &Visible,
    ) -> Result<String, Error> {
        let readable = self.sync.readable(requester, &result.room_id).await?;
        let sides = (wanted.before.min(SURROUNDING_MAX), wanted.after.min(SURROUNDING_MAX));
        let around =
            self.sync.surroundings(requester, &readable, &result.placed, sides, wanted.profiles).await?;
        let mut text = String::with_capacity(2048);
        let mut context = Object::open(&mut text);
        context.string("start", &around.start);
        context.string("end", &around.end);
        context.array("events_before", around.before);
        context.array("events_after", around.after);
        if wanted.profiles {
            let mut profiles = context.object("profile_info");
            for (user_id, member) in around.profiles {
                let mut profile = profiles.object(&user_id);
                for field in ["displayname", "avatar_url"] {
                    if let Some(value) = member.pdu.content_field::<String>(field) {
                        profile.string(field, &value);
                    }
                }
                profile.close();
            }
            profiles.close();
        }
        context.close();
        Ok(text)
    }
}

/// One requester looking at hits of several rooms.
struct Eye<'a> {
    search: &'a Search,
    requester: &'a Requester,
    rooms: &'a BTreeMap<RoomNid, OwnedRoomId>,
    filter: &'a EventFilter,
    ignored: std::sync::Arc<HashSet<OwnedUserId>>,
    viewers: HashMap<RoomNid, (Readable, Viewer<'a>)>,
}

impl<'a> Eye<'a> {
    async fn new(
        search: &'a Search,
        requester: &'a Requester,
        rooms: &'a BTreeMap<RoomNid, OwnedRoomId>,
        filter: &'a EventFilter,
    ) -> Result<Self, Error> {
        let ignored = search.view.ignored.load(requester.user).await?;
        Ok(Self { search, requester, rooms, filter, ignored, viewers: HashMap::new() })
    }

    /// `None`: not for this requester's eyes, or not what they want.
    async fn see(&mut self, event: &Event) -> Result<Option<(OwnedRoomId, Placed)>, Error> {
        let Some(room_id) = self.rooms.get(&event.room) else { return Ok(None) };
        let ignored = event.state_key.is_none() && self.ignored.contains(&event.pdu.sender);
        if event.redacted_by.is_some() || ignored || !self.filter.allows_event(&event.pdu) {
            return Ok(None);
        }
        let Some(order) = event.order else { return Ok(None) };
        let Some(seen) = self.look(room_id, event).await? else { return Ok(None) };
        let event = self.search.view.events.load(event.nid).await?;
        Ok(event.map(|event| (room_id.clone(), Placed { order, event, seen })))
    }

    async fn look(&mut self, room_id: &OwnedRoomId, event: &Event) -> Result<Option<Seen>, Error> {
        if !self.viewers.contains_key(&event.room) {
            let readable = match self.search.sync.readable(self.requester, room_id).await {
                Ok(readable) => readable,
                // Left and forgotten a moment ago.
                Err(myelin_sync::Error::Forbidden(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let (user, user_id) = (self.requester.user, &self.requester.user_id);
            let viewer = Viewer::new(&self.search.view, &readable.room, user, user_id).await?;
            self.viewers.insert(event.room, (readable, viewer));
        }
        let Some((readable, viewer)) = self.viewers.get_mut(&event.room) else { return Ok(None) };
        if event.order.is_none_or(|order| order > readable.until) {
            return Ok(None);
        }
        Ok(viewer.see(event).await?)
    }
}

/// As many of all matches as of those that were looked at: it says nothing of what is hidden.
fn estimate(results: &Results, looked_at: u64, matches: u64) -> u64 {
    let visible = results.results.len() as u64;
    match looked_at {
        0 => visible,
        _ => visible.max(matches.saturating_mul(visible) / looked_at),
    }
}

/// The words by which the results were found, as they are written there.
fn highlights(clauses: &Clauses, results: &[Visible]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for result in results {
        for text in Searched::ALL.into_iter().filter_map(|key| own_text(&result.placed.event, key)) {
            for word in text::surfaces(&text) {
                let folded = text::fold(word);
                if clauses.words.contains(&folded) {
                    found.insert(word.to_lowercase());
                } else {
                    // A script without spaces: the word is inside.
                    let inside = clauses.words.iter().filter(|w| !w.is_ascii() && folded.contains(*w));
                    found.extend(inside.cloned());
                }
                if found.len() >= HIGHLIGHTS_MAX {
                    return found;
                }
            }
        }
    }
    found
}

fn push_groups(groups: &mut Object<'_>, key: GroupKey, found: &Results) {
    let mut order: Vec<(Group, &str)> = Vec::new();
    let mut members: HashMap<Group, (Vec<String>, Hit)> = HashMap::new();
    for result in &found.results {
        let event = &result.placed.event;
        let (group, name) = match key {
            GroupKey::RoomId => (Group::Room(event.room), result.room_id.as_str()),
            GroupKey::Sender => (Group::Sender(event.sender), event.pdu.sender.as_str()),
        };
        let (ids, last) = members.entry(group).or_insert_with(|| {
            order.push((group, name));
            (Vec::new(), result.hit)
        });
        ids.push(myelin_sync::json::string(event.pdu.event_id.as_str()));
        *last = result.hit;
    }
    let mut by_key = groups.object(match key {
        GroupKey::RoomId => "room_id",
        GroupKey::Sender => "sender",
    });
    for (index, (group, name)) in order.into_iter().enumerate() {
        let Some((ids, after)) = members.remove(&group) else { continue };
        let mut object = by_key.object(name);
        object.number("order", index as u64 + 1);
        object.array("results", ids);
        if found.next.is_some() {
            object.string("next_batch", &Token { after, group: Some(group) }.to_string());
        }
        object.close();
    }
    by_key.close();
}
