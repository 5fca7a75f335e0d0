use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
};

use proptest::prelude::*;
use ruma::{
    RoomVersionId,
    state_res::{self, StateMap},
};
use serde_json::json;

use super::*;
use crate::{
    NewEvent,
    auth::authorize_by_state,
    samples::{SampleRoom, State, user},
};

/// A server's view of a room: nids as they came, and the state after each event.
pub struct World {
    rules: RoomVersionRules,
    pub events: Vec<Arc<Pdu>>,
    chains: Vec<Arc<AuthChain>>,
    keys: Vec<(StateEventType, String)>,
    pub states_after: HashMap<OwnedEventId, StateTree>,
}

impl Graph for World {
    fn event(&self, id: &EventId) -> Lookup<Arc<Pdu>> {
        self.event_nid(id).map_or(Lookup::Missing, |nid| self.event_by_nid(nid))
    }

    fn event_by_nid(&self, nid: EventNid) -> Lookup<Arc<Pdu>> {
        Lookup::Found(self.events[nid.0 as usize - 1].clone())
    }

    fn event_nid(&self, id: &EventId) -> Option<EventNid> {
        self.events.iter().position(|pdu| pdu.event_id == id).map(|at| EventNid(at as u64 + 1))
    }

    fn auth_chain(&self, nid: EventNid) -> Option<Arc<AuthChain>> {
        Some(self.chains[nid.0 as usize - 1].clone())
    }

    fn state_key(&self, nid: StateKeyNid) -> Option<(StateEventType, String)> {
        Some(self.keys[nid.0 as usize - 1].clone())
    }

    fn state_key_nid(&self, event_type: &StateEventType, state_key: &str) -> Option<StateKeyNid> {
        let found = self.keys.iter().position(|key| key.0 == *event_type && key.1 == state_key);
        found.map(|at| StateKeyNid(at as u64 + 1))
    }
}

impl World {
    pub fn new(rules: &RoomVersionRules) -> Self {
        let (events, chains, keys, states_after) = Default::default();
        Self { rules: rules.clone(), events, chains, keys, states_after }
    }

    fn states_before(&self, prev_events: &[OwnedEventId]) -> Vec<StateTree> {
        prev_events.iter().map(|id| self.states_after[id].clone()).collect()
    }

    fn state_before(&self, prev_events: &[OwnedEventId]) -> StateTree {
        resolve(&self.rules, &self.states_before(prev_events), self).unwrap()
    }

    pub fn nid(&self, id: &EventId) -> EventNid {
        self.event_nid(id).unwrap()
    }

    pub fn key(&self, key: StateKeyNid) -> (StateEventType, String) {
        self.state_key(key).unwrap()
    }

    /// What had the key of a state event before it.
    pub fn replaced(&self, event: EventNid) -> Option<EventNid> {
        let pdu = &self.events[event.0 as usize - 1];
        let key = (StateEventType::from(pdu.event_type.to_string()), pdu.state_key.clone()?);
        self.state_before(&pdu.prev_events).get(self.state_key_nid(&key.0, &key.1)?)
    }

    pub fn pdus(&self, state: &StateTree) -> State {
        let pdu = |nid: EventNid| self.events[nid.0 as usize - 1].clone();
        state.iter().map(|(key, event)| (self.state_key(key).unwrap(), pdu(event))).collect()
    }

    pub fn ids(&self, state: &StateTree) -> BTreeMap<(StateEventType, String), OwnedEventId> {
        self.pdus(state).into_iter().map(|(key, pdu)| (key, pdu.event_id.clone())).collect()
    }

    /// Adds an accepted event.
    pub fn add(&mut self, pdu: Arc<Pdu>) {
        let mut state = self.state_before(&pdu.prev_events);
        let auth: Vec<_> = pdu.auth_events.iter().map(|id| self.event_nid(id).unwrap()).collect();
        let chain = AuthChain::of(auth.iter().map(|nid| (*nid, &*self.chains[nid.0 as usize - 1])));
        self.chains.push(Arc::new(chain));
        self.events.push(pdu.clone());
        if let Some(state_key) = &pdu.state_key {
            let key = (StateEventType::from(pdu.event_type.to_string()), state_key.clone());
            if self.state_key_nid(&key.0, &key.1).is_none() {
                self.keys.push(key.clone());
            }
            let nid = self.state_key_nid(&key.0, &key.1).unwrap();
            state = state.insert(nid, EventNid(self.events.len() as u64));
        }
        self.states_after.insert(pdu.event_id.clone(), state);
    }
}

/// The specification's definition with whole maps and chains, walked event by event.
fn resolve_whole(world: &World, states: &[StateTree]) -> BTreeMap<(StateEventType, String), OwnedEventId> {
    let maps: Vec<StateMap<OwnedEventId>> =
        states.iter().map(|state| world.ids(state).into_iter().collect()).collect();
    let fetch = |id: &EventId| world.events.iter().find(|pdu| pdu.event_id == id).cloned();
    let chain = |ids: Vec<OwnedEventId>| {
        let (mut pending, mut seen) = (ids, HashSet::new());
        while let Some(id) = pending.pop() {
            pending.extend(
                fetch(&id).unwrap().auth_events.iter().filter(|id| seen.insert((*id).clone())).cloned(),
            );
        }
        seen
    };
    // With the events of the state themselves, as Synapse has it.
    let full_chain = |map: &StateMap<OwnedEventId>| {
        let own: Vec<_> = map.values().cloned().collect();
        chain(own.clone()).into_iter().chain(own).collect()
    };
    let chains = maps.iter().map(full_chain).collect();
    let subgraph = |conflicted: &StateMap<Vec<OwnedEventId>>| {
        let conflicted: HashSet<_> = conflicted.values().flatten().cloned().collect();
        let below = chain(conflicted.iter().cloned().collect());
        let reaches = |id: &OwnedEventId| chain(vec![id.clone()]).iter().any(|id| conflicted.contains(id));
        Some(below.into_iter().filter(reaches).chain(conflicted.iter().cloned()).collect())
    };
    let v2 = world.rules.state_res.v2_rules().unwrap();
    state_res::resolve(&world.rules.authorization, v2, &maps, chains, fetch, subgraph)
        .unwrap()
        .into_iter()
        .collect()
}

#[derive(Debug, Clone)]
struct Step {
    actor: u8,
    action: u8,
    value: u8,
    /// How far back the one or two parents are.
    parents: (u8, u8),
    tick: u8,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0_u8..3, 0_u8..9, any::<u8>(), (0_u8..6, 0_u8..6), 0_u8..3);
    let step =
        step.prop_map(|(actor, action, value, parents, tick)| Step { actor, action, value, parents, tick });
    prop::collection::vec(step, 1..28)
}

const ACTORS: [&str; 3] = ["alice", "bob", "carol"];

fn event_of(room: &SampleRoom, step: &Step) -> NewEvent {
    let actor = ACTORS[usize::from(step.actor)];
    let other = format!("@{}:example.org", ACTORS[usize::from(step.value) % 3]);
    let own = user(actor).to_string();
    let member = |membership: &str| json!({ "membership": membership, "reason": step.value.to_string() });
    let pick = usize::from(step.value / 3);
    let (event_type, state_key, content) = match step.action {
        0 => ("m.room.topic", "", json!({ "topic": step.value })),
        1 => ("m.room.name", "", json!({ "name": step.value })),
        2 => ("m.room.join_rules", "", json!({ "join_rule": (["public", "invite"][pick % 2]) })),
        3 => ("m.room.power_levels", "", power_levels(room, pick)),
        4 => ("m.room.member", own.as_str(), member("join")),
        5 => ("m.room.member", own.as_str(), member("leave")),
        6 => ("m.room.member", other.as_str(), member("ban")),
        7 => ("m.room.member", other.as_str(), member("leave")),
        _ => ("m.room.member", other.as_str(), member("invite")),
    };
    room.new_event(actor, event_type, Some(state_key), content)
}

fn power_levels(room: &SampleRoom, pick: usize) -> serde_json::Value {
    let level = |n: usize| [0, 50, 100][n % 3];
    let mut users = json!({ "@bob:example.org": level(pick), "@carol:example.org": level(pick / 3) });
    if !room.rules.authorization.explicitly_privilege_room_creators {
        users["@alice:example.org"] = json!(100);
    }
    json!({ "users": users, "state_default": level(pick / 9) })
}

/// A room with forks and merges; every event is authorised by the state before it, as resolved there.
fn grow(version: &RoomVersionId, steps: &[Step]) -> World {
    let mut room = SampleRoom::new(version);
    for name in ["bob", "carol"] {
        room.send(name, "m.room.member", Some(user(name).as_str()), json!({ "membership": "join" }));
    }
    let mut world = World::new(&room.rules);
    room.events.iter().for_each(|pdu| world.add(pdu.clone()));
    let mut now_ms = 2_000;
    for step in steps {
        now_ms += u64::from(step.tick);
        let back = |n: u8| world.events[world.events.len() - 1 - usize::from(n)].clone();
        let (first, second) = (back(step.parents.0), back(step.parents.1));
        let prevs: Vec<&Pdu> =
            if first.event_id == second.event_id { vec![&first] } else { vec![&first, &second] };
        let ids: Vec<_> = prevs.iter().map(|pdu| pdu.event_id.clone()).collect();
        let state = world.pdus(&world.state_before(&ids));
        let pdu = room.make(event_of(&room, step), &prevs, &state, now_ms);
        let fetch = |event_type: &StateEventType, key: &str| {
            state.get(&(event_type.clone(), key.to_owned())).cloned()
        };
        let is_new = world.event_nid(&pdu.event_id).is_none();
        if is_new && authorize_by_state(&world.rules, &pdu, fetch).is_ok() {
            world.add(Arc::new(pdu));
        }
    }
    world
}

fn merges(world: &World) -> impl Iterator<Item = Vec<StateTree>> + '_ {
    let forked = world.events.iter().filter(|pdu| pdu.prev_events.len() > 1);
    forked.map(|pdu| world.states_before(&pdu.prev_events))
}

/// The same events in another topological order; so with other nids.
fn replay(world: &World, choices: &[u8]) -> World {
    let mut other = World::new(&world.rules);
    let mut left = world.events.clone();
    let mut choices = choices.iter().cycle();
    while !left.is_empty() {
        let known = |id: &OwnedEventId| other.event_nid(id).is_some();
        let ready: Vec<usize> = (0..left.len())
            .filter(|at| left[*at].prev_events.iter().chain(&left[*at].auth_events).all(known))
            .collect();
        let choice = usize::from(*choices.next().unwrap_or(&0)) % ready.len();
        other.add(left.remove(ready[choice]));
    }
    other
}

/// Those with the second algorithm.
fn versions() -> impl Strategy<Value = RoomVersionId> {
    use RoomVersionId as V;
    prop::sample::select(vec![V::V2, V::V3, V::V5, V::V6, V::V11, V::V12])
}

fn all_versions() -> impl Strategy<Value = RoomVersionId> {
    prop_oneof![1 => Just(RoomVersionId::V1), 3 => versions()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn resolving_the_conflict_equals_resolving_the_whole(version in versions(), steps in steps()) {
        let world = grow(&version, &steps);
        for states in merges(&world) {
            let resolved = resolve(&world.rules, &states, &world).unwrap();
            prop_assert_eq!(world.ids(&resolved), resolve_whole(&world, &states));
        }
        // Three and more at once, of any age.
        let states: Vec<_> = world.events.iter().rev().take(4).map(|pdu| world.states_after[&pdu.event_id].clone()).collect();
        let resolved = resolve(&world.rules, &states, &world).unwrap();
        prop_assert_eq!(world.ids(&resolved), resolve_whole(&world, &states));
    }

    #[test]
    fn the_order_of_inputs_does_not_matter(version in all_versions(), steps in steps(), turn in 0_usize..4) {
        let world = grow(&version, &steps);
        let mut states: Vec<_> = world.events.iter().rev().take(4).map(|pdu| world.states_after[&pdu.event_id].clone()).collect();
        let resolved = resolve(&world.rules, &states, &world).unwrap();
        states.rotate_left(turn);
        states.swap(0, 1);
        states.push(states[2].clone());
        prop_assert_eq!(resolve(&world.rules, &states, &world).unwrap(), resolved);
    }

    #[test]
    fn going_on_from_a_resolution_equals_resolving_anew(
        version in versions(),
        steps in steps(),
        fixed in prop::collection::vec(0_usize..34, 1..3),
        moves in prop::collection::vec((0_usize..34, 0_usize..34, any::<bool>()), 0..40),
    ) {
        let world = grow(&version, &steps);
        let after = |at: usize| world.states_after[&world.events[at % world.events.len()].event_id].clone();
        let mut fixed: Vec<_> = fixed.into_iter().map(after).collect();
        let driver = Driver::new(&world, None);
        let mut last = Resolution::from(StateTree::new());
        // As it comes, and to and fro, two at once at times.
        let as_it_comes = (0..world.events.len()).map(|at| (at, 0, false));
        for (at, other, moves_both) in as_it_comes.chain(moves) {
            if moves_both {
                fixed[0] = after(other);
            }
            let states: Vec<_> = fixed.iter().cloned().chain([after(at)]).collect();
            let anew = Resolution::of(&world.rules, &states, &world).unwrap();
            let followed = driver.complete(100, |driver| last.follow(&world.rules, &states, driver));
            prop_assert_eq!(&followed.state, &anew.state, "{} at {}", &version, at);
            last = followed;
        }
    }

    #[test]
    fn any_topological_order_gives_the_same_state_at_each_event(
        version in all_versions(), steps in steps(), choices in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let world = grow(&version, &steps);
        let other = replay(&world, &choices);
        for pdu in &world.events {
            let (here, there) = (&world.states_after[&pdu.event_id], &other.states_after[&pdu.event_id]);
            prop_assert_eq!(world.ids(here), other.ids(there), "after {}", pdu.event_id);
        }
    }
}

/// Bob left on both sides, and comes back on one. What he said before that on the other side counts again, since he is
/// judged by his auth events where the conflict has not yet said anything about him.
#[test]
fn what_is_no_longer_agreed_on_is_judged_again() {
    let step = |actor, action, value, parents| Step { actor, action, value, parents, tick: 1 };
    let steps = [
        step(0, 3, 3, (0, 0)), // alice: power levels (bob 50)
        step(0, 0, 1, (0, 0)), // alice: topic
        step(1, 0, 2, (0, 0)), // bob: topic
        step(1, 5, 3, (1, 1)), // bob leaves, after alice's topic
        step(0, 1, 4, (0, 1)), // alice: name, after both
        step(1, 4, 5, (1, 1)), // bob joins, after he left
    ];
    let world = grow(&RoomVersionId::V11, &steps);
    let after = |back: usize| &world.states_after[&world.events[world.events.len() - 1 - back].event_id];
    let resolution = |left: &StateTree, before: &Resolution| {
        before.follow(&world.rules, &[after(1).clone(), left.clone()], &world).unwrap()
    };
    let topic = world.state_key_nid(&StateEventType::RoomTopic, "").unwrap();
    let gone = resolution(after(2), &StateTree::new().into());
    let back = resolution(after(0), &gone);
    assert_eq!(back.state, resolution(after(0), &StateTree::new().into()).state);
    assert_ne!(gone.state.get(topic), back.state.get(topic));
}

/// Has nothing at first, and then what was asked for.
struct Driver<'w> {
    world: &'w World,
    events: RefCell<HashSet<OwnedEventId>>,
    chains: RefCell<HashSet<EventNid>>,
    keys: RefCell<HashSet<StateKeyNid>>,
    lost: Option<OwnedEventId>,
}

impl<'w> Driver<'w> {
    fn new(world: &'w World, lost: Option<OwnedEventId>) -> Self {
        Self { world, lost, events: Default::default(), chains: Default::default(), keys: Default::default() }
    }

    fn bring(&self, need: Need) {
        let id = |nid: EventNid| self.world.events[nid.0 as usize - 1].event_id.clone();
        match need {
            Need::Events(ids) => self.events.borrow_mut().extend(ids),
            Need::EventNids(nids) => self.events.borrow_mut().extend(nids.into_iter().map(id)),
            Need::AuthChains(nids) => self.chains.borrow_mut().extend(nids),
            Need::StateKeys(nids) => self.keys.borrow_mut().extend(nids),
        }
    }

    fn resolve(&self, states: &[StateTree]) -> StateTree {
        self.resolve_within(200, states)
    }

    fn resolve_within(&self, rounds: usize, states: &[StateTree]) -> StateTree {
        self.complete(rounds, |driver| resolve(&self.world.rules, states, driver))
    }

    fn complete<T>(&self, rounds: usize, attempt: impl Fn(&Self) -> Result<T, ResolveError>) -> T {
        for _ in 0..rounds {
            match attempt(self) {
                Ok(done) => return done,
                Err(ResolveError::Need(need)) => self.bring(need),
                Err(error) => panic!("{error}"),
            }
        }
        panic!("asks for the same things for ever");
    }
}

impl Graph for Driver<'_> {
    fn event(&self, id: &EventId) -> Lookup<Arc<Pdu>> {
        match &self.lost {
            Some(lost) if lost == id => Lookup::Unobtainable,
            _ if self.events.borrow().contains(id) => self.world.event(id),
            _ => Lookup::Missing,
        }
    }

    fn event_by_nid(&self, nid: EventNid) -> Lookup<Arc<Pdu>> {
        self.event(&self.world.events[nid.0 as usize - 1].event_id)
    }

    fn event_nid(&self, id: &EventId) -> Option<EventNid> {
        self.world.event_nid(id)
    }

    fn auth_chain(&self, nid: EventNid) -> Option<Arc<AuthChain>> {
        self.world.auth_chain(nid).filter(|_| self.chains.borrow().contains(&nid))
    }

    fn state_key(&self, nid: StateKeyNid) -> Option<(StateEventType, String)> {
        self.world.state_key(nid).filter(|_| self.keys.borrow().contains(&nid))
    }

    fn state_key_nid(&self, event_type: &StateEventType, state_key: &str) -> Option<StateKeyNid> {
        self.world.state_key_nid(event_type, state_key)
    }
}

/// Two topics after the power levels were changed on one side.
fn forked(version: &RoomVersionId) -> World {
    let step = |actor, action, value, back| Step { actor, action, value, parents: (back, back), tick: 1 };
    // alice: power levels (bob 50); bob: topic; and beside them carol leaves; alice: another topic.
    grow(version, &[step(0, 3, 3, 0), step(1, 0, 1, 0), step(2, 5, 0, 2), step(0, 0, 2, 0)])
}

fn tips(world: &World) -> Vec<StateTree> {
    let last = world.events.len() - 1;
    [last, last - 2].map(|at| world.states_after[&world.events[at].event_id].clone()).to_vec()
}

#[test]
fn what_is_missing_is_asked_for_until_it_is_there() {
    for version in [RoomVersionId::V1, RoomVersionId::V11, RoomVersionId::V12] {
        let world = forked(&version);
        let states = tips(&world);
        let expected = resolve(&world.rules, &states, &world).unwrap();
        assert!(!states.contains(&expected), "both sides have a part in it");
        assert_eq!(Driver::new(&world, None).resolve(&states), expected);
    }
}

/// A hundred power levels, one after the other, and a topic by each of two servers.
#[test]
fn a_long_history_of_power_levels_is_asked_for_at_once() {
    for version in [RoomVersionId::V6, RoomVersionId::V11, RoomVersionId::V12] {
        let step = |action, value, back| Step { actor: 0, action, value, parents: (back, back), tick: 1 };
        let mut steps: Vec<Step> = (0..100).map(|n| step(3, (n % 9) * 3, 0)).collect();
        steps.extend([step(0, 1, 0), step(0, 2, 1)]);
        let world = grow(&version, &steps);
        let last = world.events.len() - 1;
        let states: Vec<_> =
            [last, last - 1].map(|at| world.states_after[&world.events[at].event_id].clone()).to_vec();
        assert_ne!(states[0], states[1]);
        let expected = resolve(&world.rules, &states, &world).unwrap();
        assert_eq!(Driver::new(&world, None).resolve_within(8, &states), expected, "{version}");
    }
}

#[test]
fn an_event_that_cannot_be_had_is_passed_over() {
    for version in [RoomVersionId::V1, RoomVersionId::V11] {
        pass_over(&forked(&version));
    }
}

fn pass_over(world: &World) {
    let states = tips(world);
    let topic = world.keys.iter().position(|key| key.0 == StateEventType::RoomTopic).unwrap();
    let topic = StateKeyNid(topic as u64 + 1);
    let whole = resolve(&world.rules, &states, world).unwrap();
    let winner = world.events[whole.get(topic).unwrap().0 as usize - 1].event_id.clone();
    let without = Driver::new(world, Some(winner)).resolve(&states);
    let other = without.get(topic).unwrap();
    assert!(Some(other) != whole.get(topic) && states.iter().any(|state| state.get(topic) == Some(other)));
}

#[test]
fn equal_states_need_no_graph_and_no_algorithm() {
    let world = forked(&RoomVersionId::V12);
    let state = tips(&world).remove(0);
    assert_eq!(resolve(&world.rules, &[state.clone(), state.clone()], &world).unwrap(), state);
    assert!(resolve(&world.rules, &[], &world).unwrap().is_empty());
}
