//! A netsplit, event by event: what going on from the last resolution gives, and what it looks at.

use std::cell::Cell;

use ruma::{RoomVersionId, events::room::member::MembershipState};
use serde_json::json;

use super::*;
use crate::{
    AuthChain,
    resolve::{Resolution, tests::World},
    samples::{SampleRoom, user},
};

/// Alice, a moderator, and members.
struct Split {
    room: SampleRoom,
    world: World,
    here: StateTree,
    there: Vec<StateTree>,
}

impl Split {
    /// All members have another name here. There some leave, some are banned, the others have a name of their own, too.
    fn of(version: &RoomVersionId, members: usize) -> Self {
        let mut room = SampleRoom::new(version);
        let mut levels = json!({ "users": { "@mod:example.org": 50 } });
        if !room.rules.authorization.explicitly_privilege_room_creators {
            levels["users"]["@alice:example.org"] = json!(100);
        }
        room.send("alice", "m.room.power_levels", Some(""), levels);
        let names: Vec<String> = (0..members).map(|n| format!("user{n}")).collect();
        for name in names.iter().map(String::as_str).chain(["mod"]) {
            room.send(name, "m.room.member", Some(user(name).as_str()), json!({ "membership": "join" }));
        }
        let mut world = World::new(&room.rules);
        room.events.iter().for_each(|pdu| world.add(pdu.clone()));
        let mut split = Self { room, world, here: StateTree::new(), there: Vec::new() };
        let before = split.room.state.clone();
        let common = split.room.events.len();
        for name in &names {
            split.here = split.say(name, name, &json!({ "membership": "join", "displayname": "here" }));
        }
        split.room.state = before;
        // The other side goes on from before the split, later in time.
        let last = split.room.events[common - 1].clone();
        split.room.events.push(last);
        for (n, name) in names.iter().enumerate() {
            let (leave, ban) = (json!({ "membership": "leave" }), json!({ "membership": "ban" }));
            let join = json!({ "membership": "join", "displayname": "there" });
            let (by, content) = match n % 4 {
                0 => (name.as_str(), &leave),
                1 => ("mod", &ban),
                _ => (name.as_str(), &join),
            };
            let state = split.say(by, name, content);
            split.there.push(state);
        }
        split
    }

    fn say(&mut self, by: &str, of: &str, content: &serde_json::Value) -> StateTree {
        let pdu = self.room.send(by, "m.room.member", Some(user(of).as_str()), content.clone());
        self.world.add(pdu.clone());
        self.world.states_after[&pdu.event_id].clone()
    }

    /// Follows the other side, and gives what was asked at most for one of its events but the first.
    fn follow(&self) -> usize {
        let rules = &self.room.rules;
        let mut last = Resolution::from(StateTree::new());
        let mut asked_max = 0;
        for (n, there) in self.there.iter().enumerate() {
            let states = [self.here.clone(), there.clone()];
            let graph = Counting { world: &self.world, asked: Cell::new(0) };
            last = last.follow(rules, &states, &graph).unwrap();
            assert_eq!(last.state, Resolution::of(rules, &states, &self.world).unwrap().state);
            if n > 0 {
                asked_max = asked_max.max(graph.asked.get());
            }
        }
        let is_out =
            |pdu: &Pdu| matches!(pdu.membership(), Some(MembershipState::Leave | MembershipState::Ban));
        let left = self.world.pdus(&last.state);
        let left = left.values().filter(|pdu| is_out(pdu)).count();
        assert_eq!(left, self.there.len() / 2, "those who left and those who were banned");
        asked_max
    }
}

/// Counts what is asked for.
struct Counting<'w> {
    world: &'w World,
    asked: Cell<usize>,
}

impl Counting<'_> {
    fn count(&self) -> &World {
        self.asked.set(self.asked.get() + 1);
        self.world
    }
}

impl Graph for Counting<'_> {
    fn event(&self, id: &EventId) -> Lookup<Arc<Pdu>> {
        self.count().event(id)
    }

    fn event_by_nid(&self, nid: EventNid) -> Lookup<Arc<Pdu>> {
        self.count().event_by_nid(nid)
    }

    fn event_nid(&self, id: &EventId) -> Option<EventNid> {
        self.count().event_nid(id)
    }

    fn auth_chain(&self, nid: EventNid) -> Option<Arc<AuthChain>> {
        self.count().auth_chain(nid)
    }

    fn state_key(&self, nid: StateKeyNid) -> Option<(StateEventType, String)> {
        self.count().state_key(nid)
    }

    fn state_key_nid(&self, event_type: &StateEventType, state_key: &str) -> Option<StateKeyNid> {
        self.count().state_key_nid(event_type, state_key)
    }
}

#[test]
fn an_event_of_the_other_side_costs_the_same_however_many_there_are() {
    let asked = [16, 48].map(|members| Split::of(&RoomVersionId::V11, members).follow());
    assert!(asked[1] <= asked[0], "{asked:?}");
}

#[test]
fn each_event_of_the_other_side_gives_what_a_resolution_anew_gives() {
    for version in [RoomVersionId::V6, RoomVersionId::V12] {
        Split::of(&version, 24).follow();
    }
}
