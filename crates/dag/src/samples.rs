//! Rooms for tests: real events, hashed and signed, with auth events chosen as the rules say.

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use ruma::{
    EventId, OwnedEventId, OwnedUserId, RoomVersionId, events::StateEventType,
    room_version_rules::RoomVersionRules,
};
use serde_json::{Value, json, value::to_raw_value};

use crate::{Names, NewEvent, Parents, Pdu, SigningKey, auth_types, build, needs_names};

/// A state as the specification has it.
pub type State = BTreeMap<(StateEventType, String), Arc<Pdu>>;

pub struct SampleRoom {
    pub rules: RoomVersionRules,
    pub key: SigningKey,
    pub state: State,
    /// All events in the order of their making.
    pub events: Vec<Arc<Pdu>>,
    /// Where the room version wants event ids to be given.
    pub names_given: Cell<u32>,
}

pub fn user(name: &str) -> OwnedUserId {
    format!("@{name}:example.org").try_into().unwrap()
}

pub fn signing_key() -> SigningKey {
    SigningKey::from_seed("k1", [7; 32]).unwrap()
}

pub fn auth_events(rules: &RoomVersionRules, event: &NewEvent, state: &State) -> Vec<Arc<Pdu>> {
    let (sender, state_key) = (&event.sender, event.state_key.as_deref());
    let types = auth_types(rules, &event.event_type, sender, state_key, &event.content).unwrap_or_default();
    types.iter().filter_map(|key| state.get(key).cloned()).collect()
}

impl SampleRoom {
    /// A room that alice made and joined, with power levels and join rule `public`.
    pub fn new(version: &RoomVersionId) -> Self {
        let rules = crate::rules(version).unwrap();
        let mut room = Self {
            rules,
            key: signing_key(),
            state: State::new(),
            events: Vec::new(),
            names_given: Cell::new(0),
        };
        let mut create = json!({ "room_version": version });
        if !room.rules.authorization.use_room_create_sender {
            create["creator"] = json!("@alice:example.org");
        }
        room.send("alice", "m.room.create", Some(""), create);
        room.send("alice", "m.room.member", Some("@alice:example.org"), json!({ "membership": "join" }));
        let creator_is_listed = !room.rules.authorization.explicitly_privilege_room_creators;
        let users = if creator_is_listed { json!({ "@alice:example.org": 100 }) } else { json!({}) };
        room.send("alice", "m.room.power_levels", Some(""), json!({ "users": users }));
        room.send("alice", "m.room.join_rules", Some(""), json!({ "join_rule": "public" }));
        room
    }

    pub fn new_event(
        &self,
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> NewEvent {
        NewEvent {
            sender: user(sender),
            event_type: event_type.into(),
            state_key: state_key.map(ToOwned::to_owned),
            content: to_raw_value(&content).unwrap(),
            redacts: None,
            sticky_duration_ms: None,
        }
    }

    /// An event after `prevs`, authorised by `state`; the room itself does not change.
    pub fn make(&self, event: NewEvent, prevs: &[&Pdu], state: &State, now_ms: u64) -> Pdu {
        let derives_room_id = self.rules.authorization.room_create_event_id_as_room_id;
        let room_id = match self.events.first() {
            Some(create) => Some(create.room_id.clone()),
            None => (!derives_room_id).then(|| "!room:example.org".try_into().unwrap()),
        };
        let auth_events = auth_events(&self.rules, &event, state);
        let refer = |pdu: &Pdu| pdu.reference(&self.rules);
        let names = needs_names(&self.rules).then(|| Names {
            event_id: self.new_event_id(),
            reference_hashes: prevs
                .iter()
                .map(|pdu| refer(pdu))
                .chain(auth_events.iter().map(|pdu| refer(pdu)))
                .collect(),
        });
        let parents = Parents {
            room_id,
            prev_events: prevs.iter().map(|pdu| pdu.event_id.clone()).collect(),
            auth_events: auth_events.iter().map(|pdu| pdu.event_id.clone()).collect(),
            depth: prevs.iter().map(|pdu| pdu.depth + 1).max().unwrap_or(1),
            names,
        };
        build(&self.rules, event, parents, now_ms, &self.key).unwrap()
    }

    fn new_event_id(&self) -> OwnedEventId {
        let number = self.names_given.get();
        self.names_given.set(number + 1);
        format!("$e{number}:example.org").try_into().unwrap()
    }

    /// Adds an event at the end of the room, without asking whether it is allowed.
    pub fn send(
        &mut self,
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Arc<Pdu> {
        self.add(self.new_event(sender, event_type, state_key, content))
    }

    pub fn add(&mut self, event: NewEvent) -> Arc<Pdu> {
        let last: Vec<&Pdu> = self.events.last().map(|pdu| &**pdu).into_iter().collect();
        let pdu = Arc::new(self.make(event, &last, &self.state, 1_000 + self.events.len() as u64));
        if let Some(state_key) = &pdu.state_key {
            let key = (pdu.event_type.to_string().into(), state_key.clone());
            self.state.insert(key, pdu.clone());
        }
        self.events.push(pdu.clone());
        pdu
    }

    pub fn event(&self, id: &EventId) -> Option<Arc<Pdu>> {
        self.events.iter().find(|pdu| pdu.event_id == id).cloned()
    }

    pub fn state_event(&self, event_type: &StateEventType, state_key: &str) -> Option<Arc<Pdu>> {
        self.state.get(&(event_type.clone(), state_key.to_owned())).cloned()
    }
}
