//! A room of 10,000 members split in two: on one side 1,000 of them change their names, on the other they leave and come back,
//! are kicked, or change their names too. How long does it take to agree again?

use std::{collections::HashMap, sync::Arc};

use criterion::Criterion;
use myelin_core::{EventNid, StateKeyNid};
use myelin_dag::{
    AuthChain, NewEvent, Parents, Pdu, SigningKey, StateTree, auth_types, build, resolve,
    resolve::{Graph, Lookup, Resolution},
    rules,
};
use ruma::{
    EventId, OwnedEventId, OwnedUserId, RoomVersionId, events::StateEventType,
    room_version_rules::RoomVersionRules,
};
use serde_json::{Value, json};

const MEMBERS: usize = 10_000;
const DISPUTED: usize = 1_000;
const MODERATORS: usize = 50;

type Key = (StateEventType, String);

/// Everything at hand, as a server has it after the first round of asking.
struct World {
    rules: RoomVersionRules,
    key: SigningKey,
    events: Vec<Arc<Pdu>>,
    nids: HashMap<OwnedEventId, EventNid>,
    chains: Vec<Arc<AuthChain>>,
    keys: Vec<Key>,
    key_nids: HashMap<Key, StateKeyNid>,
}

impl Graph for World {
    fn event(&self, id: &EventId) -> Lookup<Arc<Pdu>> {
        self.nids.get(id).map_or(Lookup::Unobtainable, |nid| self.event_by_nid(*nid))
    }

    fn event_by_nid(&self, nid: EventNid) -> Lookup<Arc<Pdu>> {
        Lookup::Found(self.events[nid.0 as usize - 1].clone())
    }

    fn event_nid(&self, id: &EventId) -> Option<EventNid> {
        self.nids.get(id).copied()
    }

    fn auth_chain(&self, nid: EventNid) -> Option<Arc<AuthChain>> {
        Some(self.chains[nid.0 as usize - 1].clone())
    }

    fn state_key(&self, nid: StateKeyNid) -> Option<Key> {
        Some(self.keys[nid.0 as usize - 1].clone())
    }

    fn state_key_nid(&self, event_type: &StateEventType, state_key: &str) -> Option<StateKeyNid> {
        self.key_nids.get(&(event_type.clone(), state_key.to_owned())).copied()
    }
}

fn user(n: usize) -> OwnedUserId {
    OwnedUserId::try_from(format!("@user{n}:example{}.org", n % 7)).expect("a user id")
}

impl World {
    fn new(version: &RoomVersionId) -> (Self, StateTree) {
        let key = SigningKey::from_seed("bench", [1; 32]).expect("a key");
        let (events, nids, chains, keys, key_nids) = Default::default();
        let rules = rules(version).expect("supported");
        let mut world = Self { rules, key, events, nids, chains, keys, key_nids };
        let mut state = StateTree::new();
        let levels: HashMap<_, _> = (1..=MODERATORS).map(|n| (user(n), 50)).collect();
        let first = user(0);
        world.send(&mut state, &first, "m.room.create", "", &json!({ "room_version": version }), 0);
        world.join(&mut state, 0, 0);
        world.send(&mut state, &first, "m.room.power_levels", "", &json!({ "users": levels }), 0);
        world.send(&mut state, &first, "m.room.join_rules", "", &json!({ "join_rule": "public" }), 0);
        (1..MEMBERS).for_each(|n| world.join(&mut state, n, 0));
        (world, state)
    }

    fn join(&mut self, state: &mut StateTree, n: usize, at_ms: u64) {
        let content = json!({ "membership": "join", "displayname": format!("user {n} at {at_ms}") });
        self.send(state, &user(n), "m.room.member", user(n).as_str(), &content, at_ms);
    }

    fn send(
        &mut self,
        state: &mut StateTree,
        sender: &OwnedUserId,
        event_type: &str,
        state_key: &str,
        content: &Value,
        at_ms: u64,
    ) {
        let event = NewEvent::state(sender.clone(), event_type, state_key, content).expect("JSON");
        let types = auth_types(&self.rules, &event.event_type, sender, Some(state_key), &event.content);
        let auth = types.expect("well-formed").into_iter();
        let auth: Vec<EventNid> = auth.filter_map(|key| state.get(*self.key_nids.get(&key)?)).collect();
        let create = self.events.first();
        let derived = self.rules.authorization.room_create_event_id_as_room_id;
        let parents = Parents {
            room_id: match create {
                Some(create) => Some(create.room_id.clone()),
                None => (!derived).then(|| "!room:example0.org".try_into().expect("a room id")),
            },
            prev_events: self.events.last().map(|last| last.event_id.clone()).into_iter().collect(),
            auth_events: auth.iter().map(|nid| self.events[nid.0 as usize - 1].event_id.clone()).collect(),
            depth: 1,
            names: None,
        };
        let now_ms = 1_700_000_000_000 + at_ms;
        let pdu = build(&self.rules, event, parents, now_ms, &self.key).expect("a good event");
        let known = auth.iter().chain(create.map(|_| &EventNid(1)));
        let chain = AuthChain::of(known.map(|nid| (*nid, &*self.chains[nid.0 as usize - 1])));
        let nid = EventNid(self.events.len() as u64 + 1);
        self.nids.insert(pdu.event_id.clone(), nid);
        self.chains.push(Arc::new(chain));
        let key = (StateEventType::from(event_type), state_key.to_owned());
        self.events.push(Arc::new(pdu));
        let next = StateKeyNid(self.keys.len() as u64 + 1);
        let key_nid = *self.key_nids.entry(key.clone()).or_insert(next);
        if key_nid == next {
            self.keys.push(key);
        }
        *state = state.insert(key_nid, nid);
    }

    /// Both sides of the split: names on the one, names, absences and kicks on the other. Then the other one before its
    /// last event.
    fn split(&mut self, base: &StateTree) -> ([StateTree; 2], StateTree) {
        let (mut here, mut there) = (base.clone(), base.clone());
        let mut before = there.clone();
        for n in 0..DISPUTED {
            before = there.clone();
            let member = MODERATORS + 1 + n;
            self.join(&mut here, member, 10 + n as u64);
            let away = |who: usize| (user(who), json!({ "membership": "leave" }));
            let (sender, content) = match n % 4 {
                0 => away(member),
                1 => away(1 + n % MODERATORS),
                _ => (user(member), json!({ "membership": "join", "displayname": "somebody" })),
            };
            self.send(&mut there, &sender, "m.room.member", user(member).as_str(), &content, 20 + n as u64);
        }
        here.root();
        there.root();
        ([here, there], before)
    }
}

pub fn resolution(c: &mut Criterion) {
    let mut group = c.benchmark_group("resolve 1,000 disputed members of 10,000");
    group.sample_size(10);
    for version in [RoomVersionId::V11, RoomVersionId::V12] {
        let (mut world, base) = World::new(&version);
        let (sides, before) = world.split(&base);
        group.bench_function(version.as_str(), |b| {
            b.iter(|| resolve(&world.rules, &sides, &world).expect("agrees"))
        });
        let before = Resolution::of(&world.rules, &[sides[0].clone(), before], &world).expect("agrees");
        group.bench_function(format!("{version}, the last event of one side"), |b| {
            b.iter(|| before.follow(&world.rules, &sides, &world).expect("agrees"))
        });
    }
    group.finish();
}
