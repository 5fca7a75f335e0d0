//! Random histories: what every client shows is what happened, in order and once.

use std::collections::BTreeMap;

use myelin_core::{Position, SyncToken};
use myelin_rooms::{CreateRoom, Preset};
use myelin_sync::v2::StateForm;
use myelin_view::Event;
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use ruma::{OwnedRoomId, events::room::member::MembershipState as M};
use serde_json::json;

use super::{
    client::{Client, Shown},
    world::{User, World},
};

const SEEDS: u64 = 60;
const STEPS: usize = 120;
const VISIBILITIES: [&str; 4] = ["world_readable", "shared", "invited", "joined"];

#[test]
fn clients_show_the_rooms_truth_in_order_and_once() {
    for seed in 0..SEEDS {
        History::new(seed).play();
    }
}

struct History {
    seed: u64,
    rng: ChaCha8Rng,
    world: World,
    users: Vec<User>,
    rooms: Vec<OwnedRoomId>,
    clients: Vec<Client>,
}

impl History {
    fn new(seed: u64) -> Self {
        let world = World::new(seed);
        let users: Vec<_> = ["ann", "bob", "cid", "dot"].iter().map(|name| world.user(name)).collect();
        let public = world.public_room(&users[0]);
        let request = CreateRoom { preset: Some(Preset::PrivateChat), ..CreateRoom::default() };
        let knocking = world.create(&users[0], request);
        world.set(&users[0], &knocking, "m.room.join_rules", "", json!({ "join_rule": "knock" })).unwrap();
        world.ignore(&users[2], &users[3]);
        let clients = users.iter().enumerate().map(|(n, user)| {
            let mut client = Client::with_filter(user, r#"{"room":{"timeline":{"limit":3}}}"#);
            client.state_form = if n % 2 == 0 { StateForm::Before } else { StateForm::After };
            client
        });
        let clients = clients.collect();
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { seed, rng, world, users, rooms: vec![public, knocking], clients }
    }

    fn play(mut self) {
        for _ in 0..STEPS {
            self.step();
        }
        for n in 0..self.clients.len() {
            self.clients[n].follow(&self.world);
            let position = self.clients[n].since.unwrap().position;
            assert!(position <= self.world.view.feed.published());
            for room in self.rooms.clone() {
                self.check(n, &room);
            }
        }
    }

    /// What is not allowed right now does not happen.
    fn step(&mut self) {
        let room = self.rooms.choose(&mut self.rng).unwrap().clone();
        let actor = self.users.choose(&mut self.rng).unwrap().clone();
        let other = self.users.choose(&mut self.rng).unwrap().clone();
        let world = &self.world;
        match self.rng.random_range(0..20) {
            0..6 => drop(world.say(&actor, &room, "hello")),
            6 => drop(world.set(&self.users[0], &room, "m.room.topic", "", json!({ "topic": "t" }))),
            7 => {
                let visibility = VISIBILITIES.choose(&mut self.rng).unwrap();
                let content = json!({ "history_visibility": visibility });
                world.set(&self.users[0], &room, "m.room.history_visibility", "", content).ok();
            }
            8..11 => drop(world.join(&actor, &room)),
            11 => drop(world.leave(&actor, &room)),
            12 => drop(world.invite(&self.users[0], &room, &other)),
            13 if other.sender != self.users[0].sender => drop(world.kick(&self.users[0], &room, &other)),
            14 if other.sender != self.users[0].sender => drop(world.ban(&self.users[0], &room, &other)),
            15 => drop(world.unban(&self.users[0], &room, &other)),
            16 => drop(world.knock(&actor, &room)),
            17 => drop(world.forget(&actor, &room)),
            18 => {
                let timeline = world.timeline(&room);
                let target = timeline.choose(&mut self.rng).unwrap();
                if target.state_key.is_none() {
                    world.redact(&actor, &room, &target.pdu.event_id).ok();
                }
            }
            _ => {
                let n = self.rng.random_range(0..self.clients.len());
                self.clients[n].follow(&self.world);
            }
        }
    }

    fn check(&self, n: usize, room: &OwnedRoomId) {
        let truth = Truth::of(&self.world, &self.users[n], &self.users[3], n == 2, room);
        let context = format!("seed {}, {}, {room}", self.seed, self.users[n].sender.user_id);
        let nothing = Shown::default();
        let shown = self.clients[n].rooms.get(room.as_str()).unwrap_or(&nothing);
        // Who had left before the first sync never hears of the room.
        let long_gone = truth.section == "leave" && shown.section.is_empty();
        let unheard = n == 2 && truth.invited_by_ignored;
        if !long_gone && !unheard {
            assert_eq!(shown.section, truth.section, "{context}");
        }
        if truth.section == "join" {
            assert_eq!(shown.timeline, truth.visible, "{context}");
            assert_eq!(shown.state, truth.state, "{context}");
        } else if shown.section == "leave" {
            // Of the time after leaving a client hears only what became of its own membership.
            let stay: Vec<_> = truth.visible_until_left.clone();
            let held: Vec<_> = shown.timeline.iter().filter(|id| stay.contains(id)).cloned().collect();
            let mut once = shown.timeline.clone();
            once.sort();
            once.dedup();
            assert_eq!(once.len(), shown.timeline.len(), "{context}: nothing twice");
            let seen_the_stay = !held.is_empty() || !shown.joined_once || stay.is_empty();
            assert!(seen_the_stay && stay.ends_with(&held), "{context}: {held:?} of {stay:?}");
        }
    }
}

/// The rules of the specification, applied to the timeline from its start.
struct Truth {
    section: &'static str,
    visible: Vec<String>,
    visible_until_left: Vec<String>,
    state: BTreeMap<(String, String), String>,
    invited_by_ignored: bool,
}

impl Truth {
    fn of(world: &World, user: &User, ignored: &User, ignores: bool, room: &OwnedRoomId) -> Self {
        let timeline = world.timeline(room);
        let own = |event: &Event| {
            let is_own = event.pdu.state_key.as_deref() == Some(user.sender.user_id.as_str());
            event.pdu.membership().filter(|_| is_own)
        };
        let joins = |event: &Event| own(event) == Some(M::Join);
        let (mut membership, mut visibility) = (None::<M>, "shared".to_owned());
        let (mut visible, mut until_left) = (Vec::new(), Vec::new());
        let (mut state, mut inviter) = (BTreeMap::new(), None);
        for (index, event) in timeline.iter().enumerate() {
            let later = timeline[index + 1..].iter().any(|event| joins(event));
            let before = visibility.clone();
            if event.pdu.event_type.to_string() == "m.room.history_visibility" {
                visibility = event.pdu.content_field("history_visibility").unwrap();
            }
            let seen = own(event).is_some()
                || may_see(&before, membership.as_ref(), later)
                || may_see(&visibility, membership.as_ref(), later);
            let unwanted = ignores && event.state_key.is_none() && event.pdu.sender == ignored.sender.user_id;
            if seen && !unwanted {
                visible.push(event.pdu.event_id.to_string());
            }
            if let Some(now) = own(event) {
                if membership == Some(M::Join) && matches!(now, M::Leave | M::Ban) {
                    until_left = visible.clone();
                }
                inviter = (now == M::Invite).then(|| event.pdu.sender.clone());
                membership = Some(now);
            }
            if let Some(key) = &event.pdu.state_key {
                let key = (event.pdu.event_type.to_string(), key.clone());
                state.insert(key, event.pdu.event_id.to_string());
            }
        }
        let section = match membership {
            Some(M::Join) => "join",
            Some(M::Invite) => "invite",
            Some(M::Knock) => "knock",
            Some(_) => "leave",
            None => "",
        };
        let invited_by_ignored = inviter.is_some_and(|inviter| inviter == ignored.sender.user_id);
        Self { section, visible, visible_until_left: until_left, state, invited_by_ignored }
    }
}

fn may_see(visibility: &str, membership: Option<&M>, later: bool) -> bool {
    match (visibility, membership) {
        ("world_readable", _) | (_, Some(M::Join)) => true,
        ("invited", Some(M::Invite)) => true,
        ("invited" | "joined", _) => false,
        _ => later,
    }
}

#[test]
fn tokens_of_the_future_start_anew() {
    let world = World::new(1);
    let ann = world.user("ann");
    let room = world.public_room(&ann);
    let mut client = Client::new(&ann);
    client.since = Some(SyncToken { position: Position(1_000_000), ephemeral: 0, to_device: None });
    let answer = client.sync(&world);
    assert!(answer["rooms"]["join"][room.as_str()]["state"]["events"].is_array());
    assert!(client.since.unwrap().position < Position(1_000_000));
}
