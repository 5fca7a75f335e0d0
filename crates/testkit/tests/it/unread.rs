//! Unread counts against a model that asks every user's rules about every event.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use myelin_push::{Circumstances, Outcome, Permissions, Ruleset, Subject, edit};
use myelin_store::{
    Direction,
    tables::{NOTIFIED_USERS, NOTIFYING, QUIET_SPANS},
};
use myelin_sync::{notifications::NotificationsRequest, receipts::NewReceipt};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, push::Ruleset as Rules};
use serde_json::{Value, json, value::to_raw_value};

use super::{
    client::Client,
    world::{User, World},
};

const SEEDS: u64 = 24;
const STEPS: usize = 90;
const BY_THREAD: &str = r#"{"room":{"timeline":{"unread_thread_notifications":true}}}"#;

#[test]
fn counts_in_sync_are_those_of_a_model_that_asks_everybody() {
    for seed in 0..SEEDS {
        History::new(seed).play();
    }
}

#[test]
fn what_everybody_is_notified_of_is_written_down_once() {
    let world = World::new(1);
    let ann = world.user("ann");
    let room = world.public_room(&ann);
    let users: Vec<_> = (0..40).map(|n| world.user(&format!("u{n}"))).collect();
    users.iter().for_each(|user| drop(world.join(user, &room).unwrap()));
    change(&world, &users[0], |rules| mute(rules, room.as_str(), true));
    world.say(&ann, &room, "hello").unwrap();
    let mention =
        json!({ "body": "u1", "m.mentions": { "user_ids": ["@u1:localhost", "@nobody:localhost"] } });
    world.send(&ann, &room, "m.room.message", mention).unwrap();
    let nid = world.snapshot(&room).nid();
    let store = &world.view.store;
    let shared = world.run(store.scan(&NOTIFYING, &nid, Direction::Forward, 99)).unwrap();
    let own = world.run(store.scan(&NOTIFIED_USERS, &nid, Direction::Forward, 99)).unwrap();
    let spans = world.run(store.scan(&QUIET_SPANS, &nid, Direction::Forward, 99)).unwrap();
    assert_eq!((shared.len(), own.len(), spans.len()), (2, 1, 1));
    let unread = |user: &User| {
        let total =
            world.run(world.sync.unread(user.requester.user, &world.snapshot(&room))).unwrap().total();
        (total.notification_count, total.highlight_count)
    };
    assert_eq!(unread(&users[0]), (0, 0), "muted");
    assert_eq!(unread(&users[1]), (2, 1), "mentioned");
    assert_eq!(unread(&users[2]), (2, 0));
    let ((), reads) = world.reads_of(|| {
        for user in &users {
            world.run(world.sync.unread(user.requester.user, &world.snapshot(&room))).unwrap();
        }
    });
    let ((), again) = world.reads_of(|| {
        world.say(&ann, &room, "again").unwrap();
    });
    let ((), counted) = world.reads_of(|| users.iter().for_each(|user| assert!(unread(user).0 < 4)));
    assert!(reads > 0 && again < 40);
    assert_eq!(counted, 0, "where they stand is remembered");
}

#[test]
fn a_receipt_on_another_device_is_news_even_if_receipts_are_not_asked_for() {
    let world = World::new(1);
    let (ann, bob) = (world.user("ann"), world.user("bob"));
    let room = world.public_room(&ann);
    world.join(&bob, &room).unwrap();
    let event = world.say(&ann, &room, "x").unwrap();
    let mut client = Client::with_filter(&bob, r#"{"room":{"ephemeral":{"types":[]}}}"#);
    let counts = |answer: &Value| answer["rooms"]["join"][room.as_str()]["unread_notifications"].clone();
    assert_eq!(counts(&client.sync(&world)), json!({ "notification_count": 1, "highlight_count": 0 }));
    let receipt = NewReceipt { receipt_type: "m.read.private".to_owned(), thread_id: String::new() };
    world.run(world.sync.set_receipt(&bob.requester, &room, &event, &receipt)).unwrap();
    assert_eq!(counts(&client.sync(&world)), json!({ "notification_count": 0, "highlight_count": 0 }));
    assert!(counts(&client.sync(&world)).is_null());
}

#[test]
fn a_mention_in_a_muted_room_is_news_even_if_messages_are_not_asked_for() {
    let world = World::new(1);
    let (ann, bob) = (world.user("ann"), world.user("bob"));
    let room = world.public_room(&ann);
    world.join(&bob, &room).unwrap();
    change(&world, &bob, |rules| mute(rules, room.as_str(), true));
    let mut client = Client::with_filter(&bob, r#"{"room":{"timeline":{"types":["org.other"]}}}"#);
    let counts = |answer: &Value| answer["rooms"]["join"][room.as_str()]["unread_notifications"].clone();
    client.sync(&world);
    world.say(&ann, &room, "anybody?").unwrap();
    assert!(counts(&client.sync(&world)).is_null(), "muted");
    let mention = json!({ "body": "bob?", "m.mentions": { "user_ids": ["@bob:localhost"] } });
    world.send(&ann, &room, "m.room.message", mention).unwrap();
    assert_eq!(counts(&client.sync(&world)), json!({ "notification_count": 1, "highlight_count": 1 }));
}

#[test]
fn notifications_are_listed_newest_first_of_all_rooms() {
    let world = World::new(1);
    let (ann, bob) = (world.user("ann"), world.user("bob"));
    let rooms: Vec<_> = (0..3).map(|_| world.public_room(&ann)).collect();
    rooms.iter().for_each(|room| drop(world.join(&bob, room).unwrap()));
    let mut expected = Vec::new();
    for n in 0..12 {
        let mentions = if n % 4 == 0 { json!({ "user_ids": ["@bob:localhost"] }) } else { json!({}) };
        let content = json!({ "body": "x", "msgtype": "m.text", "m.mentions": mentions });
        let id = world.send(&ann, &rooms[n % 3], "m.room.message", content).unwrap();
        world.relate(&ann, &rooms[n % 3], "m.annotation", &id, "+");
        expected.insert(0, (id.to_string(), n % 4 == 0));
    }
    let redacted = expected.remove(5).0;
    world.redact(&ann, &rooms[(12 - 1 - 5) % 3], &redacted.try_into().unwrap()).unwrap();
    let list = |limit: u64, only_highlights: bool| {
        let (mut ids, mut from) = (Vec::new(), None);
        loop {
            let request = NotificationsRequest { from, limit: Some(limit), only_highlights };
            let answer = world.run(world.sync.notifications(&bob.requester, &request)).unwrap();
            let answer: Value = serde_json::from_str(&answer).unwrap();
            for item in answer["notifications"].as_array().unwrap() {
                let highlight = item["actions"].to_string().contains("highlight");
                ids.push((item["event"]["event_id"].as_str().unwrap().to_owned(), highlight));
                assert_eq!(item["read"], false);
                assert!(item["ts"].is_u64() && item["room_id"].is_string());
            }
            match answer["next_token"].as_str() {
                Some(token) => from = Some(token.to_owned()),
                None => return ids,
            }
        }
    };
    for limit in [1, 2, 5, 50] {
        assert_eq!(list(limit, false), expected, "{limit} at a time");
        let highlights: Vec<_> = expected.iter().filter(|(_, highlight)| *highlight).cloned().collect();
        assert_eq!(list(limit, true), highlights, "highlights, {limit} at a time");
    }
    let receipt = NewReceipt { receipt_type: "m.read".to_owned(), thread_id: String::new() };
    let last = expected[0].0.as_str().try_into().unwrap();
    world.run(world.sync.set_receipt(&bob.requester, &rooms[11 % 3], last, &receipt)).unwrap();
    let request = NotificationsRequest { limit: Some(1), ..NotificationsRequest::default() };
    let answer = world.run(world.sync.notifications(&bob.requester, &request)).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["notifications"][0]["read"], true);
    let bad = NotificationsRequest { from: Some("x".to_owned()), ..NotificationsRequest::default() };
    assert!(world.run(world.sync.notifications(&bob.requester, &bad)).is_err());
}

fn change(world: &World, user: &User, change: impl Fn(&mut Rules) -> Result<(), edit::Error>) {
    let (nid, id) = (user.sender.user, &user.sender.user_id);
    world.run(world.users.change_push_rules(nid, id, change)).unwrap();
}

fn mute(rules: &mut Rules, room: &str, muted: bool) -> Result<(), edit::Error> {
    if !muted {
        return match edit::delete(rules, edit::Kind::Room, room) {
            Err(edit::Error::NotFound) => Ok(()),
            other => other,
        };
    }
    put(rules, edit::Kind::Room, room, json!({ "actions": [] }))
}

fn put(rules: &mut Rules, kind: edit::Kind, id: &str, definition: Value) -> Result<(), edit::Error> {
    let definition: edit::Definition = serde_json::from_value(definition).unwrap();
    edit::put(rules, kind, id, &definition, &edit::Place::default())
}

/// An event as the model remembers it.
struct Said {
    id: OwnedEventId,
    room: usize,
    sender: usize,
    /// Index of the thread's root.
    thread: Option<usize>,
    outcomes: Vec<Outcome>,
    redacted: bool,
}

#[derive(Clone, Default)]
struct Stay {
    joined: bool,
    /// Events before this index are read, whatever their thread.
    everywhere: usize,
    /// The same by thread; `None` is the main timeline.
    threads: BTreeMap<Option<usize>, usize>,
}

struct History {
    seed: u64,
    rng: ChaCha8Rng,
    world: World,
    users: Vec<User>,
    rooms: Vec<OwnedRoomId>,
    clients: Vec<Client>,
    /// What the clients show: by user and room, the main count and those of threads.
    shown: BTreeMap<(usize, usize), Value>,
    said: Vec<Said>,
    stays: Vec<Vec<Stay>>,
    ignored: Vec<BTreeSet<usize>>,
}

impl History {
    fn new(seed: u64) -> Self {
        let world = World::new(seed);
        let users: Vec<_> = ["ann", "bob", "cid", "dot"].iter().map(|name| world.user(name)).collect();
        let rooms = vec![world.public_room(&users[0]), world.public_room(&users[0])];
        let clients = users
            .iter()
            .enumerate()
            .map(|(n, user)| Client::with_filter(user, if n % 2 == 0 { BY_THREAD } else { "{}" }));
        let clients = clients.collect();
        let mut stays = vec![vec![Stay::default(); rooms.len()]; users.len()];
        stays[0].iter_mut().for_each(|stay| stay.joined = true);
        let ignored = vec![BTreeSet::new(); users.len()];
        let (rng, shown, said) = (ChaCha8Rng::seed_from_u64(seed), BTreeMap::new(), Vec::new());
        Self { seed, rng, world, users, rooms, clients, shown, said, stays, ignored }
    }

    fn play(mut self) {
        for step in 0..STEPS {
            self.step();
            if step % 30 == 29 {
                // What was acknowledged is on the disk; everything else is gone.
                self.world = self.world.reopened(self.seed + 1_000 + step as u64);
            }
            let user = self.rng.random_range(0..self.users.len());
            self.follow(user);
            self.check(user, step);
        }
        for user in 0..self.users.len() {
            self.follow(user);
            self.check(user, STEPS);
        }
    }

    fn step(&mut self) {
        let room = self.rng.random_range(0..self.rooms.len());
        let user = self.rng.random_range(0..self.users.len());
        match self.rng.random_range(0..20) {
            0..9 => self.speak(user, room),
            9 => self.redact(room),
            10..12 => self.join(user, room),
            12 => self.leave(user, room),
            13..17 => self.read(user, room),
            17 => self.ignore(user),
            _ => self.edit(user, room),
        }
    }

    fn speak(&mut self, user: usize, room: usize) {
        let here: Vec<usize> = (0..self.said.len()).filter(|n| self.said[*n].room == room).collect();
        let target = here.choose(&mut self.rng).copied();
        let mut content = json!({ "msgtype": "m.text", "body": "it is time for tea" });
        let mut kind = "m.room.message";
        let mut thread = None;
        match self.rng.random_range(0..8) {
            0 => content["msgtype"] = "m.notice".into(),
            1 => {
                let whom = self.users.choose(&mut self.rng).unwrap().sender.user_id.clone();
                content["m.mentions"] = json!({ "user_ids": [whom] });
            }
            2 => content["m.mentions"] = json!({ "room": true }),
            3 | 4 => {
                let Some(target) = target else { return };
                if let Some(of_target) = self.said[target].thread {
                    thread = Some(of_target);
                } else {
                    thread = Some(target);
                }
                let root = &self.said[thread.unwrap()].id;
                content["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": root });
            }
            5 => {
                let Some(target) = target.filter(|target| !self.said[*target].redacted) else { return };
                kind = "m.reaction";
                thread = self.said[target].thread;
                let id = &self.said[target].id;
                let key = self.said.len().to_string();
                content =
                    json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": id, "key": key } });
            }
            6 => content["body"] = "nothing to see".into(),
            _ => {}
        }
        let Ok(id) = self.world.send(&self.users[user], &self.rooms[room], kind, content.clone()) else {
            return;
        };
        let outcomes = (0..self.users.len()).map(|of| self.outcome(of, user, room, kind, &content)).collect();
        let index = self.said.len();
        self.said.push(Said { id, room, sender: user, thread, outcomes, redacted: false });
        let held = self.stays[user][room].threads.entry(thread).or_default();
        *held = index + 1;
    }

    /// What the rules of `of` say of an event of `sender`.
    fn outcome(&self, of: usize, sender: usize, room: usize, kind: &str, content: &Value) -> Outcome {
        if !self.stays[of][room].joined {
            return Outcome::NOTHING;
        }
        let owner = &self.users[of].sender;
        let rules = self.world.run(self.world.users.push_rules(owner.user, &owner.user_id)).unwrap();
        let ignored: HashSet<OwnedUserId> =
            self.ignored[of].iter().map(|n| self.users[*n].sender.user_id.clone()).collect();
        let rules = Ruleset::compile(&rules, ignored);
        let content = to_raw_value(content).unwrap();
        let (id, room_id) = (ruma::event_id!("$any"), &self.rooms[room]);
        let sender_id = &self.users[sender].sender.user_id;
        let subject = Subject::new(id, room_id, sender_id, kind, None, &content);
        let permissions = Permissions::new(if sender == 0 { i64::MAX } else { 0 }, []);
        let member_count = self.stays.iter().filter(|stays| stays[room].joined).count() as u64;
        let around = Circumstances {
            owner: Some(&owner.user_id),
            display_name: None,
            member_count,
            permissions: &permissions,
        };
        rules.outcome(&subject, &around)
    }

    fn redact(&mut self, room: usize) {
        let here: Vec<usize> = (0..self.said.len()).filter(|n| self.said[*n].room == room).collect();
        let Some(target) = here.choose(&mut self.rng).copied() else { return };
        // The creator may, and does not read by it.
        if self.world.redact(&self.users[0], &self.rooms[room], &self.said[target].id).is_ok() {
            self.said[target].redacted = true;
        }
    }

    fn join(&mut self, user: usize, room: usize) {
        if !self.stays[user][room].joined {
            self.world.join(&self.users[user], &self.rooms[room]).unwrap();
            let stay = &mut self.stays[user][room];
            stay.joined = true;
            stay.everywhere = self.said.len();
        }
    }

    fn leave(&mut self, user: usize, room: usize) {
        if user != 0 && self.stays[user][room].joined {
            self.world.leave(&self.users[user], &self.rooms[room]).unwrap();
            self.stays[user][room].joined = false;
            self.shown.remove(&(user, room));
        }
    }

    fn read(&mut self, user: usize, room: usize) {
        let here: Vec<usize> = (0..self.said.len()).filter(|n| self.said[*n].room == room).collect();
        let Some(target) = here.choose(&mut self.rng).copied() else { return };
        let threaded = self.rng.random_bool(0.5);
        let kind = ["m.read", "m.read.private"].choose(&mut self.rng).unwrap();
        let thread = self.said[target].thread;
        let thread_id = match thread {
            _ if !threaded => String::new(),
            Some(root) => self.said[root].id.to_string(),
            None => "main".to_owned(),
        };
        let receipt = NewReceipt { receipt_type: (*kind).to_owned(), thread_id };
        let set = self.world.sync.set_receipt(
            &self.users[user].requester,
            &self.rooms[room],
            &self.said[target].id,
            &receipt,
        );
        if self.world.run(set).is_err() {
            return;
        }
        let stay = &mut self.stays[user][room];
        let held = if threaded { stay.threads.entry(thread).or_default() } else { &mut stay.everywhere };
        *held = (*held).max(target + 1);
    }

    fn ignore(&mut self, user: usize) {
        // Not the one who redacts: then the count would change with an event that is not shown.
        let other = self.rng.random_range(1..self.users.len());
        self.ignored[user] =
            if self.rng.random_bool(0.5) { BTreeSet::new() } else { BTreeSet::from([other]) };
        let users = self.ignored[user].iter();
        let list: serde_json::Map<String, Value> =
            users.map(|n| (self.users[*n].sender.user_id.to_string(), json!({}))).collect();
        let content = json!({ "ignored_users": list });
        self.world.put_account_data(&self.users[user], None, "m.ignored_user_list", content);
    }

    fn edit(&mut self, user: usize, room: usize) {
        let (on, which) = (self.rng.random_bool(0.5), self.rng.random_range(0..6));
        let room_id = self.rooms[room].clone();
        change(&self.world, &self.users[user], |rules| {
            let rule = match which {
                0 | 1 => return mute(rules, room_id.as_str(), on),
                2 => (edit::Kind::Underride, ".m.rule.message"),
                3 => (edit::Kind::Override, ".m.rule.is_user_mention"),
                4 => (edit::Kind::Override, ".m.rule.master"),
                _ if on => {
                    let actions = json!(["notify", { "set_tweak": "highlight" }]);
                    let definition = json!({ "pattern": "tea", "actions": actions });
                    return put(rules, edit::Kind::Content, "tea", definition);
                }
                _ => {
                    edit::delete(rules, edit::Kind::Content, "tea").ok();
                    return Ok(());
                }
            };
            edit::set_enabled(rules, rule.0, rule.1, on)
        });
    }

    fn follow(&mut self, user: usize) {
        let answer = self.clients[user].sync(&self.world);
        for (n, room) in self.rooms.iter().enumerate() {
            let room = &answer["rooms"]["join"][room.as_str()];
            if room.is_object() {
                let threads = room.get("unread_thread_notifications").cloned().unwrap_or_else(|| json!({}));
                let counts = json!({ "main": room["unread_notifications"], "threads": threads });
                self.shown.insert((user, n), counts);
            }
        }
    }

    fn check(&self, user: usize, step: usize) {
        for room in 0..self.rooms.len() {
            let stay = &self.stays[user][room];
            if !stay.joined {
                continue;
            }
            let mut by_thread: BTreeMap<Option<usize>, (u64, u64)> = BTreeMap::from([(None, (0, 0))]);
            for (index, said) in self.said.iter().enumerate() {
                let read = stay.everywhere.max(stay.threads.get(&said.thread).copied().unwrap_or_default());
                let outcome = said.outcomes[user];
                if said.room == room
                    && index >= read
                    && said.sender != user
                    && !said.redacted
                    && outcome.notify
                {
                    let counts = by_thread.entry(said.thread).or_default();
                    counts.0 += 1;
                    counts.1 += u64::from(outcome.highlight);
                }
            }
            let json =
                |counts: (u64, u64)| json!({ "notification_count": counts.0, "highlight_count": counts.1 });
            let expected = if user.is_multiple_of(2) {
                let threads = by_thread.iter().filter_map(|(thread, counts)| {
                    Some((self.said[(*thread)?].id.to_string(), json(*counts)))
                });
                let threads: serde_json::Map<String, Value> = threads.collect();
                json!({ "main": json(by_thread[&None]), "threads": threads })
            } else {
                let total =
                    by_thread.values().fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1));
                json!({ "main": json(total), "threads": {} })
            };
            let shown = self.shown.get(&(user, room));
            assert_eq!(shown, Some(&expected), "seed {}, step {step}, user {user}, room {room}", self.seed);
        }
    }
}
