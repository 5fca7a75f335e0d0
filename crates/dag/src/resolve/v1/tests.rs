use ruma::{OwnedEventId, RoomVersionId, events::StateEventType};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use crate::{
    Pdu, StateTree,
    resolve::{resolve, tests::World},
    samples::{SampleRoom, user},
};

/// A room of version 1 in which alice has 100, bob 50 and carol, dave 0, about to be forked.
struct Fork {
    room: SampleRoom,
    world: World,
    base: OwnedEventId,
}

/// Who sends what: the end of a branch is the state after it.
type Step = (&'static str, &'static str, &'static str, Value);

impl Fork {
    fn new() -> Self {
        let mut room = SampleRoom::new(&RoomVersionId::V1);
        for name in ["bob", "carol", "dave"] {
            room.send(name, "m.room.member", Some(user(name).as_str()), membership("join"));
        }
        let base =
            room.send("alice", "m.room.power_levels", Some(""), levels(&[("bob", 50)])).event_id.clone();
        let mut world = World::new(&room.rules);
        room.events.iter().for_each(|pdu| world.add(pdu.clone()));
        Self { room, world, base }
    }

    /// The ids of a branch's events, the last of which is its tip.
    fn branch(&mut self, steps: &[Step]) -> Vec<OwnedEventId> {
        let mut ids = vec![self.base.clone()];
        for (sender, event_type, state_key, content) in steps {
            let prev = self.event(ids.last().unwrap()).clone();
            let state = self.world.pdus(&self.world.states_after[&prev.event_id]);
            let state_key = (*event_type != "m.room.message").then_some(*state_key);
            let event = self.room.new_event(sender, event_type, state_key, content.clone());
            let pdu = self.room.make(event, &[&prev], &state, 9_000);
            ids.push(pdu.event_id.clone());
            self.world.add(pdu.into());
        }
        ids.split_off(1)
    }

    fn event(&self, id: &OwnedEventId) -> &Pdu {
        self.world.events.iter().find(|pdu| pdu.event_id == *id).unwrap()
    }

    /// The winner for a key.
    fn resolved(&self, tips: &[&OwnedEventId], event_type: &str, state_key: &str) -> OwnedEventId {
        let states: Vec<StateTree> = tips.iter().map(|tip| self.world.states_after[*tip].clone()).collect();
        let state = resolve(&self.room.rules, &states, &self.world).unwrap();
        let reversed: Vec<StateTree> = states.into_iter().rev().collect();
        assert_eq!(resolve(&self.room.rules, &reversed, &self.world).unwrap(), state);
        self.world.ids(&state)[&(StateEventType::from(event_type), state_key.to_owned())].clone()
    }
}

fn membership(membership: &str) -> Value {
    json!({ "membership": membership })
}

fn levels(users: &[(&str, i64)]) -> Value {
    let mut all = json!({ "@alice:example.org": 100 });
    users.iter().for_each(|(name, level)| all[format!("@{name}:example.org")] = json!(level));
    json!({ "users": all })
}

fn message(sender: &'static str) -> Step {
    (sender, "m.room.message", "", json!({ "body": "hi" }))
}

fn power_levels(sender: &'static str, users: &[(&str, i64)]) -> Step {
    (sender, "m.room.power_levels", "", levels(users))
}

fn topic(sender: &'static str) -> Step {
    (sender, "m.room.topic", "", json!({ "topic": sender }))
}

fn member(sender: &'static str, wants: &str) -> Step {
    (sender, "m.room.member", "@dave:example.org", membership(wants))
}

#[test]
fn the_deeper_power_levels_win_if_the_shallower_allow_them() {
    let mut fork = Fork::new();
    let shallow = fork.branch(&[power_levels("alice", &[("bob", 50), ("carol", 50)])]);
    let deep = fork.branch(&[message("alice"), power_levels("alice", &[("bob", 40)])]);
    assert_eq!(fork.resolved(&[&shallow[0], &deep[1]], "m.room.power_levels", ""), deep[1]);
}

#[test]
fn power_levels_of_somebody_who_was_demoted_lose() {
    let mut fork = Fork::new();
    let demoted = fork.branch(&[power_levels("alice", &[])]);
    let deep = fork.branch(&[message("bob"), power_levels("bob", &[("bob", 50), ("carol", 50)])]);
    assert_eq!(fork.resolved(&[&demoted[0], &deep[1]], "m.room.power_levels", ""), demoted[0]);
}

#[test]
fn of_equal_depth_the_lower_hash_wins() {
    for steps in [
        [topic("alice"), topic("bob")],
        [power_levels("alice", &[("bob", 50)]), power_levels("alice", &[("bob", 49)])],
    ] {
        let mut fork = Fork::new();
        let key = steps[0].1;
        let ids = steps.map(|step| fork.branch(&[step]).remove(0));
        let lowest = ids.iter().min_by_key(|id| Sha1::digest(id.as_bytes())).unwrap();
        assert_eq!(fork.resolved(&[&ids[0], &ids[1]], key, ""), *lowest);
    }
}

#[test]
fn memberships_are_changed_one_after_the_other_while_the_rules_allow_it() {
    // Per row: the shallow change, the deep change, and whether the deep one wins.
    let table = [
        (member("alice", "ban"), member("dave", "leave"), false, "who is banned cannot leave"),
        (member("dave", "leave"), member("alice", "ban"), true, "who has left can be banned"),
        (member("bob", "leave"), member("dave", "leave"), false, "who was kicked has left already"),
        (member("dave", "leave"), member("bob", "leave"), true, "who has left can be kicked once more"),
    ];
    for (first, second, deep_wins, why) in table {
        let mut fork = Fork::new();
        let shallow = fork.branch(&[first]);
        let deep = fork.branch(&[message("alice"), second]);
        let winner = fork.resolved(&[&shallow[0], &deep[1]], "m.room.member", "@dave:example.org");
        assert_eq!(winner, if deep_wins { deep[1].clone() } else { shallow[0].clone() }, "{why}");
    }
}

#[test]
fn memberships_are_judged_by_the_join_rules_that_won() {
    let mut fork = Fork::new();
    let join_rule = |rule: &str| ("alice", "m.room.join_rules", "", json!({ "join_rule": rule }));
    let left = fork.branch(&[member("dave", "leave"), join_rule("invite")]);
    fork.base = fork.branch(&[member("dave", "leave")]).remove(0);
    let back = fork.branch(&[message("alice"), member("dave", "join")]);
    assert_eq!(fork.resolved(&[&left[1], &back[1]], "m.room.join_rules", ""), left[1]);
    assert_eq!(fork.resolved(&[&left[1], &back[1]], "m.room.member", "@dave:example.org"), left[0]);
}

#[test]
fn other_state_is_the_deepest_that_the_new_power_levels_allow() {
    let mut fork = Fork::new();
    let demoted = fork.branch(&[topic("alice"), power_levels("alice", &[])]);
    let deep = fork.branch(&[message("bob"), message("bob"), topic("bob")]);
    assert_eq!(fork.resolved(&[&demoted[1], &deep[2]], "m.room.topic", ""), demoted[0]);
    // With the power levels as they were, depth decides.
    assert_eq!(fork.resolved(&[&demoted[0], &deep[2]], "m.room.topic", ""), deep[2]);
}

#[test]
fn if_none_is_allowed_the_shallowest_stays() {
    let mut fork = Fork::new();
    let first = fork.branch(&[topic("bob")]);
    let second = fork.branch(&[message("bob"), topic("bob")]);
    let demoted = fork.branch(&[message("alice"), message("alice"), power_levels("alice", &[])]);
    assert_eq!(fork.resolved(&[&first[0], &second[1], &demoted[2]], "m.room.topic", ""), first[0]);
}

#[test]
fn what_some_states_lack_is_not_in_conflict() {
    let mut fork = Fork::new();
    let with = fork.branch(&[topic("alice")]);
    let without = fork.branch(&[message("alice")]);
    assert_eq!(fork.resolved(&[&with[0], &without[0]], "m.room.topic", ""), with[0]);
}
