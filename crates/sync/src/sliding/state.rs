//! `required_state` of a room: the state as it is now, as far as the client asks for it and does not have it.

use std::{collections::BTreeSet, sync::Arc};

use myelin_core::{EventNid, Position, StateKeyNid};
use myelin_dag::StateTree;
use myelin_view::{Event, RoomSnapshot, StateKey};

use super::{Answering, request::RoomConfig, required_state::RequiredStates, told::Task};
use crate::{
    Error, Sync,
    room_state::{load_events, state_at},
    timeline::Placed,
    v2::lazy,
};

const MEMBER: &str = "m.room.member";

/// What is new in the state of a room.
#[derive(Default)]
pub(super) struct StateNews {
    pub events: Vec<Arc<Event>>,
    /// Required state that is no longer there.
    pub gone: Vec<Arc<StateKey>>,
    pub name_changed: bool,
    pub avatar_changed: bool,
    pub members_changed: bool,
}

/// A change of the state, named.
struct Change {
    key: StateKeyNid,
    name: Arc<StateKey>,
    event: Option<EventNid>,
}

impl Sync {
    #[expect(clippy::too_many_arguments, reason = "one call, and a struct would be as long")]
    pub(super) async fn state_news(
        &self,
        answering: &Answering<'_>,
        room: &RoomSnapshot,
        task: &Task,
        since: Option<Position>,
        state: &StateTree,
        shown: &[Placed],
        gappy: bool,
    ) -> Result<StateNews, Error> {
        let config = &task.interest.config;
        let mut news = StateNews::default();
        let mut wanted: BTreeSet<EventNid> = BTreeSet::new();
        let changed = match since {
            Some(since) => self.state_changes(answering, room, task, since, state).await?,
            None => Vec::new(),
        };
        news.note(&changed, &config.required_state);
        if since.is_none() {
            wanted.extend(self.matching(state, &config.required_state).await?);
        } else {
            let required = changed.iter().filter(|change| change.is_required(&config.required_state));
            wanted.extend(required.filter_map(|change| change.event));
            wanted.extend(self.newly_required(task, state).await?);
        }
        if config.required_state.lazy_members() {
            let all_changes = since.is_some() && !gappy;
            let needed = self.window_members(state, shown, &changed, all_changes).await?;
            wanted.extend(self.not_yet_sent(answering, task, since, &needed));
        }
        news.events = load_events(&self.view, &wanted.into_iter().collect::<Vec<_>>()).await?;
        Ok(news)
    }

    async fn state_changes(
        &self,
        answering: &Answering<'_>,
        room: &RoomSnapshot,
        task: &Task,
        since: Position,
        state: &StateTree,
    ) -> Result<Vec<Change>, Error> {
        let unchanged = !task.was_out_of_sight && !answering.changes.state_may_have_changed(room.nid());
        if unchanged && task.is_joined() {
            return Ok(Vec::new());
        }
        let before = state_at(&self.view, room.nid(), since.into()).await?;
        let changes = before.diff(state);
        let keys: Vec<_> = changes.iter().map(|change| change.0).collect();
        let names = self.view.interner.state_key_names(&keys).await?;
        let named = changes.into_iter().zip(names);
        Ok(named.map(|((key, _, event), name)| Change { key, name, event }).collect())
    }

    /// Everything in a state that is asked for.
    async fn matching(&self, state: &StateTree, required: &RequiredStates) -> Result<Vec<EventNid>, Error> {
        if let Some(keys) = required.exact_keys() {
            let mut found = Vec::with_capacity(keys.len());
            for (event_type, state_key) in keys {
                if required.matches(event_type, state_key) {
                    found.extend(self.state_event_of(state, event_type, state_key).await?);
                }
            }
            return Ok(found);
        }
        let (keys, events): (Vec<_>, Vec<_>) = state.iter().unzip();
        let names = self.view.interner.state_key_names(&keys).await?;
        let named = names.iter().zip(events);
        let matching = named.filter(|(name, _)| required.matches(&name.event_type, &name.state_key));
        Ok(matching.map(|(_, event)| event).collect())
    }

    /// What the client asks for and did not ask for before.
    async fn newly_required(&self, task: &Task, state: &StateTree) -> Result<Vec<EventNid>, Error> {
        let Some(before) = &task.before else { return Ok(Vec::new()) };
        let RoomConfig { required_state, .. } = &*task.interest.config;
        if before.required_state.covers(required_state) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for event in load_events(&self.view, &self.matching(state, required_state).await?).await? {
            let key = event.pdu.state_key.as_deref().unwrap_or_default();
            if !before.required_state.matches(&event.pdu.event_type.to_string(), key) {
                found.push(event.nid);
            }
        }
        Ok(found)
    }

    /// Members by whom a client can show the timeline; and whoever changed, as long as the client misses nothing.
    async fn window_members(
        &self,
        state: &StateTree,
        shown: &[Placed],
        changed: &[Change],
        all_changes: bool,
    ) -> Result<Vec<(StateKeyNid, EventNid)>, Error> {
        let mut users: BTreeSet<&str> = shown.iter().map(|placed| placed.event.pdu.sender.as_str()).collect();
        let members = shown.iter().filter(|placed| placed.event.pdu.event_type.to_string() == MEMBER);
        users.extend(members.filter_map(|placed| placed.event.pdu.state_key.as_deref()));
        let mut needed = Vec::new();
        for user in users {
            let Some(key) = self.view.interner.lookup_state_key(MEMBER, user).await? else { continue };
            needed.extend(state.get(key).map(|event| (key, event)));
        }
        if all_changes {
            let members = changed.iter().filter(|change| change.name.event_type == MEMBER);
            needed.extend(members.filter_map(|change| Some((change.key, change.event?))));
        }
        Ok(needed)
    }

    /// Those of the members that the client does not have; from now on they count as sent.
    fn not_yet_sent(
        &self,
        answering: &Answering<'_>,
        task: &Task,
        since: Option<Position>,
        needed: &[(StateKeyNid, EventNid)],
    ) -> Vec<EventNid> {
        let requester = &answering.context.request.requester;
        let sent = self.lazy.of(requester.user, &answering.lazy_owner, task.room);
        let mut sent = sent.lock();
        if since.is_none() {
            // The client starts with this room anew.
            sent.clear();
        }
        let acknowledged = since.and(answering.context.since);
        let known = |(key, event): &&(StateKeyNid, EventNid)| lazy::has(&sent, *key, *event, acknowledged);
        let missing: Vec<_> = needed.iter().filter(|member| !known(member)).copied().collect();
        sent.extend(missing.iter().map(|(key, event)| (*key, (*event, answering.context.now))));
        missing.into_iter().map(|(_, event)| event).collect()
    }
}

impl Change {
    fn is_required(&self, required: &RequiredStates) -> bool {
        required.matches(&self.name.event_type, &self.name.state_key)
    }
}

impl StateNews {
    fn note(&mut self, changed: &[Change], required: &RequiredStates) {
        for change in changed {
            match (change.name.event_type.as_str(), change.name.state_key.as_str()) {
                (MEMBER, _) => self.members_changed = true,
                ("m.room.name", "") => self.name_changed = true,
                ("m.room.avatar", "") => self.avatar_changed = true,
                _ => {}
            }
            if change.event.is_none() && change.is_required(required) {
                self.gone.push(change.name.clone());
            }
        }
    }
}
