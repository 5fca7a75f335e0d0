//! A syncing client: what it would show of its rooms.

use std::{collections::BTreeMap, sync::Arc};

use myelin_core::SyncToken;
use myelin_store::Direction;
use myelin_sync::{
    Error,
    filter::Filter,
    messages::MessagesRequest,
    parse_filter,
    v2::{Request, StateForm},
};
use ruma::{RoomId, presence::PresenceState};
use serde_json::Value;

use super::world::{User, World};

pub struct Client {
    pub user: User,
    pub since: Option<SyncToken>,
    pub filter: Arc<Filter>,
    pub state_form: StateForm,
    /// What a client shows, by room id.
    pub rooms: BTreeMap<String, Shown>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    /// `join`, `invite`, `knock` or `leave`.
    pub section: String,
    /// It was shown as joined at some time.
    pub joined_once: bool,
    /// Event ids, oldest first.
    pub timeline: Vec<String>,
    /// Event ids by type and state key.
    pub state: BTreeMap<(String, String), String>,
}

impl Client {
    pub fn new(user: &User) -> Self {
        Self::with_filter(user, "{}")
    }

    pub fn with_filter(user: &User, filter: &str) -> Self {
        let filter = Arc::new(parse_filter(filter).unwrap());
        let (since, rooms) = (None, BTreeMap::new());
        Self { user: user.clone(), since, filter, state_form: StateForm::default(), rooms }
    }

    pub fn device(mut self, device_id: &str) -> Self {
        self.user.requester.device_id = device_id.to_owned();
        self
    }

    pub fn request(&self, timeout_ms: u64) -> Request {
        Request {
            requester: self.user.requester.clone(),
            since: self.since,
            filter: self.filter.clone(),
            full_state: false,
            state_form: self.state_form,
            timeout_ms,
            set_presence: PresenceState::Offline,
        }
    }

    /// One sync without waiting.
    pub fn sync(&mut self, world: &World) -> Value {
        let answer = world.run(world.sync.sync(self.request(0))).unwrap();
        self.take(&answer)
    }

    /// Parses an answer and goes on from its token.
    pub fn take(&mut self, answer: &str) -> Value {
        let answer: Value = serde_json::from_str(answer).expect("an answer is JSON");
        self.since = Some(answer["next_batch"].as_str().unwrap().parse().unwrap());
        answer
    }

    /// Syncs and shows what came, filling every gap by pagination.
    pub fn follow(&mut self, world: &World) {
        let since = self.since;
        let answer = self.sync(world);
        for section in ["join", "leave", "invite", "knock"] {
            for (room_id, room) in answer["rooms"][section].as_object().into_iter().flatten() {
                let mut shown = self.rooms.remove(room_id).unwrap_or_default();
                if matches!(section, "join" | "leave") {
                    self.show(world, room_id, room, &mut shown, since);
                } else {
                    // A room to be joined, whatever was there before.
                    shown = Shown::default();
                    assert!(!room[format!("{section}_state")]["events"].as_array().unwrap().is_empty());
                }
                shown.section = section.to_owned();
                shown.joined_once |= section == "join";
                self.rooms.insert(room_id.clone(), shown);
            }
        }
    }

    fn show(&self, world: &World, room_id: &str, room: &Value, shown: &mut Shown, since: Option<SyncToken>) {
        let was_joined = shown.section == "join";
        let timeline = &room["timeline"];
        if timeline["limited"] == true || since.is_none() {
            if !was_joined {
                // What is held of an earlier stay does not join on to what comes now.
                shown.timeline.clear();
            }
            let to = since.filter(|_| was_joined).map(|token| token.to_string());
            let from = timeline["prev_batch"].as_str().unwrap();
            match self.backwards(world, room_id, from, to.as_deref()) {
                Some(before) => shown.timeline.extend(before),
                // Forgotten meanwhile: there is nothing to fill the gap with.
                None => shown.timeline.clear(),
            }
        }
        let events = timeline["events"].as_array().unwrap();
        shown.timeline.extend(events.iter().map(id_of));
        let key = self.state_form.key();
        let mut state: Vec<&Value> = room[key]["events"].as_array().unwrap().iter().collect();
        if !self.state_form.is_after() {
            state.extend(events.iter().filter(|event| event["state_key"].is_string()));
        }
        for event in state {
            let text = |field: &str| event[field].as_str().unwrap().to_owned();
            shown.state.insert((text("type"), text("state_key")), id_of(event));
        }
    }

    /// Everything between `from` and, further back, `to`; oldest first. `None` if the room may not be read.
    pub fn backwards(
        &self,
        world: &World,
        room_id: &str,
        from: &str,
        to: Option<&str>,
    ) -> Option<Vec<String>> {
        let room_id = <&RoomId>::try_from(room_id).unwrap();
        let mut ids = Vec::new();
        let mut from = Some(from.to_owned());
        while let Some(token) = from {
            let request = MessagesRequest {
                from: Some(token.parse().unwrap()),
                to: to.map(|to| to.parse().unwrap()),
                direction: Direction::Reverse,
                limit: Some(3),
                filter: Default::default(),
            };
            let page = match world.run(world.sync.messages(&self.user.requester, room_id, &request)) {
                Err(Error::Forbidden(_)) => return None,
                page => page.unwrap(),
            };
            let page: Value = serde_json::from_str(&page).unwrap();
            ids.extend(page["chunk"].as_array().unwrap().iter().map(id_of));
            from = page["end"].as_str().map(str::to_owned);
        }
        ids.reverse();
        Some(ids)
    }
}

pub fn id_of(event: &Value) -> String {
    event["event_id"].as_str().unwrap().to_owned()
}

/// The ids of a list of events.
pub fn ids(events: &Value) -> Vec<String> {
    events.as_array().expect("a list of events").iter().map(id_of).collect()
}

/// `type` or `type/state_key` of a list of events.
pub fn kinds(events: &Value) -> Vec<String> {
    let kind = |event: &Value| match (event["type"].as_str().unwrap(), event["state_key"].as_str()) {
        (kind, None | Some("")) => kind.to_owned(),
        (kind, Some(key)) => format!("{kind}/{key}"),
    };
    events.as_array().expect("a list of events").iter().map(kind).collect()
}
