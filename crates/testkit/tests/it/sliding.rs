//! Sliding sync as clients meet it: windows, subscriptions, positions, what a room says.

use http::Method;
use myelin_store::memory::MemoryDisk;
use myelin_testkit::{
    client::{Client, percent, text},
    env::Sim,
    server::{Answer, Server},
    sliding::{PATH, Sliding},
};
use serde_json::{Value, json};

/// One server and what users do on it.
pub struct Place {
    sim: Sim,
    server: Option<Server>,
    count: std::cell::Cell<usize>,
}

impl Place {
    pub fn new() -> Self {
        let sim = Sim::new(1);
        let server = Some(Server::start(&sim, MemoryDisk::default()));
        Self { sim, server, count: Default::default() }
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    fn restart(&mut self) {
        let platters = self.server.take().expect("it runs").crash();
        self.server = Some(Server::start(&self.sim, platters));
    }

    pub fn run<F: Future>(&self, future: F) -> F::Output {
        self.server().sim.block_on(future)
    }

    pub fn user(&self, name: &str) -> Client {
        self.run(Client::register(self.server(), name))
    }

    pub fn asks(&self, user: &Client, method: Method, path: &str, body: &Value) -> Answer {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/_matrix/client/v3/{path}") };
        self.run(self.server().request(method, &path, Some(&user.token), Some(body)))
    }

    pub fn puts(&self, user: &Client, path: &str, body: &Value) -> Value {
        self.asks(user, Method::PUT, path, body).ok()
    }

    pub fn posts(&self, user: &Client, path: &str, body: &Value) -> Value {
        self.asks(user, Method::POST, path, body).ok()
    }

    pub fn room(&self, user: &Client, body: Value) -> String {
        text(&self.posts(user, "createRoom", &body)["room_id"])
    }

    pub fn rooms(&self, user: &Client, count: usize) -> Vec<String> {
        (0..count)
            .map(|n| self.room(user, json!({ "preset": "public_chat", "name": format!("{n}") })))
            .collect()
    }

    pub fn says(&self, user: &Client, room: &str, body: &str) -> String {
        self.sends(user, room, "m.room.message", &json!({ "msgtype": "m.text", "body": body }))
    }

    pub fn sends(&self, user: &Client, room: &str, kind: &str, content: &Value) -> String {
        self.count.set(self.count.get() + 1);
        let path = format!("rooms/{}/send/{kind}/t{}", percent(room), self.count.get());
        text(&self.puts(user, &path, content)["event_id"])
    }

    pub fn sets(&self, user: &Client, room: &str, kind: &str, key: &str, content: &Value) {
        self.puts(user, &format!("rooms/{}/state/{kind}/{}", percent(room), percent(key)), content);
    }

    pub fn does(&self, user: &Client, room: &str, what: &str, body: &Value) {
        self.posts(user, &format!("rooms/{}/{what}", percent(room)), body);
    }

    pub fn looks(&self, sliding: &mut Sliding, body: &Value) -> Value {
        self.run(sliding.sync(self.server(), body, 0))
    }

    pub fn looks_in_vain(&self, sliding: &Sliding, body: &Value) -> Answer {
        self.run(sliding.ask(self.server(), body, 0)).expect("an answer")
    }
}

pub fn list(from: u64, to: u64, limit: u64) -> Value {
    json!({ "lists": { "l": { "ranges": [[from, to]], "timeline_limit": limit, "required_state": [] } } })
}

fn filtered(filters: Value) -> Value {
    let mut body = list(0, 99, 1);
    body["lists"]["l"]["filters"] = filters;
    body
}

fn ids(answer: &Value) -> Vec<String> {
    answer["rooms"].as_object().into_iter().flatten().map(|(id, _)| id.clone()).collect()
}

fn sorted(mut rooms: Vec<String>) -> Vec<String> {
    rooms.sort();
    rooms
}

fn bodies(room: &Value) -> Vec<String> {
    let events = room["timeline"].as_array().into_iter().flatten();
    events.map(|event| text(&event["content"]["body"])).collect()
}

fn state_keys(room: &Value) -> Vec<(String, String)> {
    let events = room["required_state"].as_array().into_iter().flatten();
    let mut keys: Vec<_> = events.map(|event| (text(&event["type"]), text(&event["state_key"]))).collect();
    keys.sort();
    keys
}

#[test]
fn the_window_shows_the_most_active_rooms_and_each_of_them_once() {
    let place = Place::new();
    let ann = place.user("ann");
    let rooms = place.rooms(&ann, 6);
    place.says(&ann, &rooms[0], "up");
    let mut client = Sliding::of(&ann, "");
    let answer = place.looks(&mut client, &list(0, 1, 1));
    assert_eq!(answer["lists"]["l"]["count"], 6);
    assert_eq!(sorted(ids(&answer)), sorted(vec![rooms[0].clone(), rooms[5].clone()]));
    let room = &answer["rooms"][&rooms[0]];
    assert_eq!(
        (&room["initial"], &room["limited"], &room["num_live"]),
        (&json!(true), &json!(true), &json!(0))
    );
    assert_eq!((room["name"].as_str(), bodies(room)), (Some("0"), vec!["up".to_owned()]));
    assert_eq!((&room["membership"], &room["lists"]), (&json!("join"), &json!(["l"])));
    assert_eq!((&room["joined_count"], &room["invited_count"]), (&json!(1), &json!(0)));
    assert!(room["required_state"].is_null() && room["heroes"].is_null() && room["is_dm"].is_null());

    let answer = place.looks(&mut client, &list(0, 3, 1));
    assert_eq!(
        sorted(ids(&answer)),
        sorted(vec![rooms[4].clone(), rooms[3].clone()]),
        "the others are known"
    );
    assert_eq!(ids(&place.looks(&mut client, &list(0, 3, 1))), Vec::<String>::new());

    place.says(&ann, &rooms[1], "now");
    let answer = place.looks(&mut client, &list(0, 3, 1));
    assert_eq!(ids(&answer), [rooms[1].clone()]);
    assert_eq!(
        (&answer["rooms"][&rooms[1]]["initial"], &answer["rooms"][&rooms[1]]["num_live"]),
        (&json!(true), &json!(1))
    );
    place.says(&ann, &rooms[1], "then");
    let answer = place.looks(&mut client, &list(0, 3, 5));
    assert_eq!(answer["rooms"][&rooms[1]]["initial"], Value::Null);
}

#[test]
fn what_happened_out_of_sight_is_told_when_the_room_comes_back() {
    let mut place = Place::new();
    let ann = place.user("ann");
    let rooms = place.rooms(&ann, 3);
    let mut client = Sliding::of(&ann, "");
    place.looks(&mut client, &list(0, 9, 10));
    let subscribed = |room: &str| json!({ "room_subscriptions": { room: { "timeline_limit": 10, "required_state": [["m.room.topic", ""]] } } });
    place.looks(&mut client, &subscribed(&rooms[2]));
    for n in 0..3 {
        place.says(&ann, &rooms[0], &format!("{n}"));
        assert_eq!(ids(&place.looks(&mut client, &subscribed(&rooms[2]))), Vec::<String>::new());
    }
    place.sets(&ann, &rooms[0], "m.room.topic", "", &json!({ "topic": "news" }));
    place.restart();
    place.looks(&mut client, &subscribed(&rooms[2]));
    place.restart();
    let answer = place.looks(&mut client, &subscribed(&rooms[0]));
    let room = &answer["rooms"][&rooms[0]];
    assert_eq!(bodies(room), ["0", "1", "2", ""]);
    assert_eq!((&room["initial"], &room["limited"]), (&Value::Null, &json!(false)));
    assert_eq!(state_keys(room), [("m.room.topic".to_owned(), String::new())]);
    assert_eq!(client.restarts, 0);
}

#[test]
fn a_question_asked_again_gets_the_same_answer() {
    let place = Place::new();
    let ann = place.user("ann");
    let rooms = place.rooms(&ann, 2);
    let mut client = Sliding::of(&ann, "");
    place.looks(&mut client, &list(0, 0, 5));
    place.says(&ann, &rooms[1], "a");
    place.says(&ann, &rooms[0], "b");
    let first = place.looks_in_vain(&client, &list(0, 9, 5)).ok();
    place.says(&ann, &rooms[0], "c");
    let second = place.looks_in_vain(&client, &list(0, 9, 5)).ok();
    let third = place.looks_in_vain(&client, &list(0, 9, 5)).ok();
    assert_eq!(bodies(&first["rooms"][&rooms[1]]), bodies(&third["rooms"][&rooms[1]]));
    assert_eq!(second["rooms"][&rooms[0]]["num_live"], 2);
    assert_eq!(second["rooms"][&rooms[0]]["initial"], true);
    // Any of these answers can be gone on from.
    for answer in [&first, &third] {
        client.pos = Some(text(&answer["pos"]));
        let next = place.looks_in_vain(&client, &list(0, 9, 5)).ok();
        assert_eq!(next["rooms"][&rooms[1]], Value::Null, "{next}");
    }
}

#[test]
fn positions_that_are_not_known_are_refused() {
    let place = Place::new();
    let (ann, bob) = (place.user("ann"), place.user("bob"));
    place.rooms(&ann, 1);
    let mut client = Sliding::of(&ann, "one");
    place.looks(&mut client, &list(0, 9, 1));
    let pos = client.pos.clone();
    let others = [
        Sliding { pos: pos.clone(), ..Sliding::of(&bob, "one") },
        Sliding { pos: pos.clone(), ..Sliding::of(&ann, "two") },
        Sliding { pos: Some("p1_2_3_4".to_owned()), ..Sliding::of(&ann, "one") },
        Sliding { pos: Some("nonsense".to_owned()), ..Sliding::of(&ann, "one") },
        Sliding { pos: pos.map(|pos| pos.replacen('p', "p9", 1)), ..Sliding::of(&ann, "one") },
    ];
    for other in others {
        let answer = place.looks_in_vain(&other, &list(0, 9, 1));
        assert_eq!(
            (answer.status.as_u16(), &answer.json["errcode"]),
            (400, &json!("M_UNKNOWN_POS")),
            "{:?}",
            other.pos
        );
    }
    place.looks(&mut client, &list(0, 9, 1));
}

#[test]
fn connections_of_a_device_do_not_know_of_each_other_and_are_bounded() {
    let place = Place::new();
    let ann = place.user("ann");
    place.rooms(&ann, 1);
    let mut first = Sliding::of(&ann, "first");
    assert_eq!(ids(&place.looks(&mut first, &list(0, 9, 1))).len(), 1);
    for n in 0..16 {
        place.run(place.server().view.env.clock.sleep(std::time::Duration::from_millis(5)));
        let mut other = Sliding::of(&ann, &format!("other{n}"));
        assert_eq!(ids(&place.looks(&mut other, &list(0, 9, 1))).len(), 1);
    }
    let answer = place.looks_in_vain(&first, &list(0, 9, 1));
    assert_eq!(answer.json["errcode"], "M_UNKNOWN_POS", "the one that was idle longest is gone");
}

#[test]
fn a_raised_limit_shows_more_of_the_timeline() {
    let place = Place::new();
    let ann = place.user("ann");
    let room = place.rooms(&ann, 1).remove(0);
    (0..5).for_each(|n| drop(place.says(&ann, &room, &format!("{n}"))));
    let mut client = Sliding::of(&ann, "");
    let answer = place.looks(&mut client, &list(0, 9, 1));
    assert_eq!(bodies(&answer["rooms"][&room]), ["4"]);
    place.says(&ann, &room, "5");
    let answer = place.looks_in_vain(&client, &list(0, 9, 3)).ok();
    let told = &answer["rooms"][&room];
    assert_eq!(bodies(told), ["3", "4", "5"]);
    assert_eq!(
        (&told["unstable_expanded_timeline"], &told["num_live"], &told["initial"]),
        (&json!(true), &json!(1), &Value::Null)
    );
    client.pos = Some(text(&answer["pos"]));
    assert_eq!(ids(&place.looks(&mut client, &list(0, 9, 3))), Vec::<String>::new());
    assert_eq!(ids(&place.looks(&mut client, &list(0, 9, 2))), Vec::<String>::new());
    assert_eq!(
        ids(&place.looks(&mut client, &list(0, 9, 3))),
        Vec::<String>::new(),
        "it still has those three"
    );
}

#[test]
fn required_state_is_what_was_asked_for() {
    let place = Place::new();
    let (ann, bob) = (place.user("ann"), place.user("bob"));
    let room = place.rooms(&ann, 1).remove(0);
    place.does(&bob, &room, "join", &json!({}));
    let asking = |required: Value| {
        let mut body = list(0, 9, 1);
        body["lists"]["l"]["required_state"] = required;
        body
    };
    let key = |kind: &str, key: &str| (kind.to_owned(), key.to_owned());
    let member = |user: &Client| key("m.room.member", &user.user_id);
    let table = [
        (json!([]), vec![]),
        (json!([["m.room.name", ""]]), vec![key("m.room.name", "")]),
        (json!([["m.room.member", "$ME"]]), vec![member(&ann)]),
        (json!([["m.room.member", "*"]]), vec![member(&ann), member(&bob)]),
        // The last event is Bob's joining.
        (
            json!([["m.room.member", "$LAZY"], ["m.room.name", ""]]),
            vec![member(&bob), key("m.room.name", "")],
        ),
        (json!([["*", &ann.user_id]]), vec![member(&ann)]),
    ];
    for (required, expected) in table {
        let mut client = Sliding::of(&ann, "");
        let answer = place.looks(&mut client, &asking(required.clone()));
        assert_eq!(state_keys(&answer["rooms"][&room]), expected, "{required}");
    }
    let mut client = Sliding::of(&ann, "");
    let answer = place.looks(&mut client, &asking(json!([["*", "*"]])));
    assert_eq!(state_keys(&answer["rooms"][&room]).len(), 8, "{answer}");

    let mut client = Sliding::of(&ann, "");
    place.looks(&mut client, &asking(json!([["m.room.name", ""]])));
    place.sets(&ann, &room, "m.room.topic", "", &json!({ "topic": "t" }));
    let answer = place.looks(&mut client, &asking(json!([["m.room.name", ""]])));
    assert_eq!(state_keys(&answer["rooms"][&room]), [], "nobody asked for the topic");
    let answer = place.looks(&mut client, &asking(json!([["m.room.name", ""], ["m.room.topic", ""]])));
    assert_eq!(state_keys(&answer["rooms"][&room]), [key("m.room.topic", "")], "now somebody did");
    place.sets(&ann, &room, "m.room.name", "", &json!({ "name": "new" }));
    let answer = place.looks(&mut client, &asking(json!([["m.room.name", ""], ["m.room.topic", ""]])));
    assert_eq!(state_keys(&answer["rooms"][&room]), [key("m.room.name", "")]);
    assert_eq!(answer["rooms"][&room]["name"], "new");
    place.sets(&ann, &room, "m.room.name", "", &json!({}));
    let answer = place.looks(&mut client, &list(0, 9, 1));
    assert_eq!(answer["rooms"][&room].get("name"), Some(&Value::Null), "the name is gone");
    assert_eq!(answer["rooms"][&room]["heroes"], json!([{ "user_id": bob.user_id, "displayname": "bob" }]));
}

#[test]
fn lazy_members_come_once() {
    let place = Place::new();
    let (ann, bob) = (place.user("ann"), place.user("bob"));
    let room = place.rooms(&ann, 1).remove(0);
    place.does(&bob, &room, "join", &json!({}));
    place.says(&ann, &room, "hi");
    let mut body = list(0, 9, 1);
    body["lists"]["l"]["required_state"] = json!([["m.room.member", "$LAZY"]]);
    let mut client = Sliding::of(&ann, "");
    let members =
        |answer: &Value| state_keys(&answer["rooms"][&room]).into_iter().map(|key| key.1).collect::<Vec<_>>();
    assert_eq!(members(&place.looks(&mut client, &body)), std::slice::from_ref(&ann.user_id));
    place.says(&bob, &room, "1");
    assert_eq!(members(&place.looks(&mut client, &body)), std::slice::from_ref(&bob.user_id));
    place.says(&bob, &room, "2");
    assert_eq!(members(&place.looks(&mut client, &body)), Vec::<String>::new());
}

#[test]
fn filters_choose_rooms() {
    let place = Place::new();
    let (ann, bob) = (place.user("ann"), place.user("bob"));
    let plain = place.room(&ann, json!({ "name": "Plain room" }));
    let encryption = json!([{ "type": "m.room.encryption", "state_key": "", "content": { "algorithm": "m.megolm.v1.aes-sha2" } }]);
    let encrypted = place.room(&ann, json!({ "initial_state": encryption }));
    let space = place.room(&ann, json!({ "creation_content": { "type": "m.space" } }));
    place.sets(&ann, &space, "m.space.child", &plain, &json!({ "via": ["sim.test"] }));
    let invited = place.room(&bob, json!({ "invite": [ann.user_id] }));
    let own = format!("user/{}", percent(&ann.user_id));
    place.puts(&ann, &format!("{own}/account_data/m.direct"), &json!({ &bob.user_id: [encrypted] }));
    place.puts(&ann, &format!("{own}/rooms/{}/tags/m.favourite", percent(&plain)), &json!({}));
    let table = [
        (json!({}), vec![&plain, &encrypted, &space, &invited]),
        (json!({ "is_dm": true }), vec![&encrypted]),
        (json!({ "is_dm": false }), vec![&plain, &space, &invited]),
        (json!({ "is_encrypted": true }), vec![&encrypted]),
        (json!({ "is_encrypted": false, "is_invite": false }), vec![&plain, &space]),
        (json!({ "is_invite": true }), vec![&invited]),
        (json!({ "is_invited": true }), vec![&invited]),
        (json!({ "room_types": ["m.space"] }), vec![&space]),
        (json!({ "room_types": [null] }), vec![&plain, &encrypted, &invited]),
        (json!({ "not_room_types": ["m.space"] }), vec![&plain, &encrypted, &invited]),
        (json!({ "room_types": ["m.space"], "not_room_types": ["m.space"] }), vec![]),
        (json!({ "spaces": [space] }), vec![&plain]),
        (json!({ "spaces": ["!none:sim.test"] }), vec![]),
        (json!({ "tags": ["m.favourite"] }), vec![&plain]),
        (json!({ "not_tags": ["m.favourite"] }), vec![&encrypted, &space, &invited]),
        (json!({ "room_name_like": "LAIN" }), vec![&plain]),
        (json!({ "is_dm": true, "is_invite": true }), vec![]),
    ];
    for (filters, expected) in table {
        let mut client = Sliding::of(&ann, "");
        let answer = place.looks(&mut client, &filtered(filters.clone()));
        assert_eq!(sorted(ids(&answer)), sorted(expected.into_iter().cloned().collect()), "{filters}");
        assert_eq!(answer["lists"]["l"]["count"], ids(&answer).len());
    }
    let mut client = Sliding::of(&ann, "");
    let answer = place.looks(&mut client, &list(0, 9, 1));
    assert_eq!(answer["rooms"][&encrypted]["is_dm"], true);
}

#[test]
fn invites_and_knocks_come_stripped_and_their_end_is_told() {
    let place = Place::new();
    let (ann, bob) = (place.user("ann"), place.user("bob"));
    let room = place.room(&bob, json!({ "name": "secret", "preset": "private_chat" }));
    place.says(&bob, &room, "not for you");
    place.does(&bob, &room, "invite", &json!({ "user_id": ann.user_id }));
    let mut body = list(0, 9, 5);
    body["lists"]["l"]["required_state"] = json!([["m.room.member", "$ME"]]);
    let mut client = Sliding::of(&ann, "");
    let answer = place.looks(&mut client, &body);
    let told = &answer["rooms"][&room];
    assert_eq!(
        (&told["membership"], &told["timeline"], &told["joined_count"]),
        (&json!("invite"), &Value::Null, &Value::Null)
    );
    let stripped: Vec<_> =
        told["invite_state"].as_array().unwrap().iter().map(|event| text(&event["type"])).collect();
    assert!(stripped.contains(&"m.room.name".to_owned()) && stripped.contains(&"m.room.member".to_owned()));
    assert!(told["bump_stamp"].is_u64());
    place.does(&ann, &room, "leave", &json!({}));
    let told = place.looks(&mut client, &body)["rooms"][&room].clone();
    assert_eq!(told["membership"], "leave");
    assert_eq!(told["required_state"][0]["content"]["membership"], "leave");
    assert_eq!(told["timeline"].as_array().map(Vec::len), Some(1), "nothing but the end of it: {told}");
    assert_eq!(ids(&place.looks(&mut client, &body)), Vec::<String>::new());

    place.sets(&bob, &room, "m.room.join_rules", "", &json!({ "join_rule": "knock" }));
    place.posts(&ann, &format!("knock/{}", percent(&room)), &json!({}));
    let told = place.looks(&mut client, &body)["rooms"][&room].clone();
    assert_eq!(told["membership"], "knock");
    assert!(told["invite_state"].is_array());
}

#[test]
fn who_is_ignored_invites_nobody() {
    let place = Place::new();
    let (ann, bob) = (place.user("ann"), place.user("bob"));
    let path = format!("user/{}/account_data/m.ignored_user_list", percent(&ann.user_id));
    place.puts(&ann, &path, &json!({ "ignored_users": { &bob.user_id: {} } }));
    let room = place.room(&bob, json!({ "invite": [ann.user_id] }));
    let mut client = Sliding::of(&ann, "");
    let mut body = list(0, 9, 5);
    body["room_subscriptions"] = json!({ &room: { "timeline_limit": 1, "required_state": [] } });
    let answer = place.looks(&mut client, &body);
    assert_eq!((ids(&answer).len(), &answer["lists"]["l"]["count"]), (0, &json!(0)));
}

#[test]
fn a_room_is_shown_up_to_where_it_was_left() {
    let place = Place::new();
    let (ann, bob) = (place.user("ann"), place.user("bob"));
    let room = place.rooms(&bob, 1).remove(0);
    place.does(&ann, &room, "join", &json!({}));
    let mut client = Sliding::of(&ann, "");
    place.looks(&mut client, &list(0, 9, 5));
    place.says(&bob, &room, "before");
    place.does(&bob, &room, "kick", &json!({ "user_id": ann.user_id }));
    place.says(&bob, &room, "after");
    let told = place.looks(&mut client, &list(0, 9, 5))["rooms"][&room].clone();
    assert_eq!(
        (&told["membership"], bodies(&told)),
        (&json!("leave"), vec!["before".to_owned(), String::new()])
    );
    place.says(&bob, &room, "long after");
    assert_eq!(ids(&place.looks(&mut client, &list(0, 9, 5))), Vec::<String>::new());

    // Who was thrown out hears of it on a new connection, too; who left by themselves does not.
    let mut other = Sliding::of(&ann, "other");
    let told = place.looks(&mut other, &list(0, 9, 1))["rooms"][&room].clone();
    assert_eq!((&told["membership"], &told["initial"]), (&json!("leave"), &json!(true)));
    place.does(&ann, &room, "join", &json!({}));
    let told = place.looks(&mut client, &list(0, 9, 3))["rooms"][&room].clone();
    assert_eq!((&told["membership"], &told["initial"]), (&json!("join"), &json!(true)));
    place.does(&ann, &room, "leave", &json!({}));
    let mut third = Sliding::of(&ann, "third");
    assert_eq!(ids(&place.looks(&mut third, &list(0, 9, 1))), Vec::<String>::new());
}

#[test]
fn only_rooms_of_ones_own_can_be_subscribed_to() {
    let place = Place::new();
    let (ann, bob) = (place.user("ann"), place.user("bob"));
    let room = place.rooms(&bob, 1).remove(0);
    place.says(&bob, &room, "hi");
    let body = json!({ "room_subscriptions": {
        &room: { "timeline_limit": 5, "required_state": [["*", "*"]] },
        "!none:sim.test": { "timeline_limit": 5, "required_state": [] },
    } });
    let mut client = Sliding::of(&ann, "");
    assert_eq!(ids(&place.looks(&mut client, &body)), Vec::<String>::new());
    place.does(&ann, &room, "join", &json!({}));
    assert_eq!(ids(&place.looks(&mut client, &body)), [room]);
}

#[test]
fn messages_bump_their_room_and_other_events_do_not() {
    let place = Place::new();
    let ann = place.user("ann");
    let room = place.rooms(&ann, 1).remove(0);
    place.says(&ann, &room, "a");
    let mut client = Sliding::of(&ann, "");
    let first = place.looks(&mut client, &list(0, 9, 3))["rooms"][&room]["bump_stamp"].as_u64().unwrap();
    place.sets(&ann, &room, "m.room.topic", "", &json!({ "topic": "t" }));
    let told = place.looks(&mut client, &list(0, 9, 3))["rooms"][&room].clone();
    assert_eq!(told["bump_stamp"], Value::Null, "{told}");
    let mut other = Sliding::of(&ann, "other");
    assert_eq!(place.looks(&mut other, &list(0, 9, 1))["rooms"][&room]["bump_stamp"], first);
    place.says(&ann, &room, "b");
    let then = place.looks(&mut client, &list(0, 9, 3))["rooms"][&room]["bump_stamp"].as_u64().unwrap();
    assert!(then > first);
}

#[test]
fn a_wait_ends_with_news_and_only_with_news() {
    let place = Place::new();
    let (ann, bob) = (place.user("ann"), place.user("bob"));
    let rooms = place.rooms(&ann, 2);
    place.does(&bob, &rooms[0], "join", &json!({}));
    let body = json!({ "room_subscriptions": { &rooms[0]: { "timeline_limit": 5, "required_state": [] } } });
    let mut client = Sliding::of(&ann, "");
    place.looks(&mut client, &body);
    let env = place.server().view.env.clone();
    let started_ms = env.now_ms();
    let server = place.server();
    let send = |room: &str, n: u32| {
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/w{n}", percent(room));
        let user = if n == 2 { bob.clone() } else { ann.clone() };
        async move { user.put(server, &path, &json!({ "msgtype": "m.text", "body": "hi" })).await.ok() }
    };
    let (answer, _) = place.run(futures::future::join(client.sync(server, &body, 30_000), async {
        env.clock.sleep(std::time::Duration::from_millis(100)).await;
        send(&rooms[1], 1).await;
        env.clock.sleep(std::time::Duration::from_millis(5_000)).await;
        send(&rooms[0], 2).await;
    }));
    assert_eq!(ids(&answer), [rooms[0].clone()]);
    let took_ms = env.now_ms() - started_ms;
    assert!((5_000..6_000).contains(&took_ms), "{took_ms} ms");
    let answer = place.run(client.sync(place.server(), &body, 2_000));
    assert_eq!(ids(&answer), Vec::<String>::new(), "the time is over");
}

#[test]
fn a_daily_round_writes_nothing() {
    let place = Place::new();
    let ann = place.user("ann");
    let rooms = place.rooms(&ann, 2);
    let mut client = Sliding::of(&ann, "");
    place.looks(&mut client, &list(0, 9, 5));
    let state = |client: &Sliding| client.pos.as_ref().unwrap().split('_').next().unwrap().to_owned();
    let before = state(&client);
    for n in 0..5 {
        place.says(&ann, &rooms[n % 2], "x");
        assert_eq!(ids(&place.looks(&mut client, &list(0, 9, 5))).len(), 1);
    }
    assert_eq!(state(&client), before);
}

#[test]
fn the_form_of_v4_says_the_same() {
    let place = Place::new();
    let ann = place.user("ann");
    let room = place.rooms(&ann, 1).remove(0);
    let path = "/_matrix/client/v4/sync";
    let body = |pos: Option<&Value>| {
        let required =
            json!({ "include": [{}], "exclude": [{ "type": "m.room.create" }], "lazy_members": true });
        let mut body = json!({ "conn_id": "main", "lists": { "l": { "range": [0, 9], "timeline_limit": 2, "required_state": required } } });
        if let Some(pos) = pos {
            body["pos"] = pos.clone();
        }
        body
    };
    let answer = place.posts(&ann, path, &body(None));
    let told = &answer["rooms"][&room];
    let keys = state_keys(told);
    assert!(keys.contains(&("m.room.name".to_owned(), String::new())));
    assert!(!keys.iter().any(|key| key.0 == "m.room.create"));
    assert_eq!(told["timeline"].as_array().map(Vec::len), Some(2));
    place.says(&ann, &room, "hi");
    let answer = place.posts(&ann, path, &body(Some(&answer["pos"])));
    assert_eq!(bodies(&answer["rooms"][&room]), ["hi"]);
    let bob = place.user("bob");
    place.does(&ann, &room, "invite", &json!({ "user_id": bob.user_id }));
    let answer = place.posts(&bob, path, &body(None));
    assert!(answer["rooms"][&room]["stripped_state"].is_array());
    let from = text(&answer["pos"]);
    place.does(&bob, &room, "join", &json!({}));
    let page = place.asks(
        &bob,
        Method::GET,
        &format!("rooms/{}/messages?dir=b&from={from}", percent(&room)),
        &Value::Null,
    );
    assert!(page.ok()["chunk"].is_array(), "a position is a place in every timeline");
}

#[test]
fn hostile_questions_are_refused_or_bounded() {
    let place = Place::new();
    let ann = place.user("ann");
    place.rooms(&ann, 2);
    let many = |count: usize, value: Value| {
        (0..count).map(|n| (format!("!{n}:sim.test"), value.clone())).collect::<serde_json::Map<_, _>>()
    };
    let plain = json!({ "timeline_limit": 1, "required_state": [] });
    let ranges: Vec<_> = (0..100).map(|n| json!([n, n])).collect();
    let patterns: Vec<_> = (0..500).map(|n| json!(["m.x", format!("{n}")])).collect();
    let refused = [
        json!({ "lists": many(101, plain.clone()) }),
        json!({ "room_subscriptions": many(101, plain.clone()) }),
        json!({ "lists": { "x".repeat(65): plain } }),
        json!({ "lists": { "l": { "ranges": ranges, "timeline_limit": 1, "required_state": [] } } }),
        json!({ "lists": { "l": { "timeline_limit": 1, "required_state": patterns } } }),
        json!({ "extensions": { "receipts": { "enabled": true, "rooms": vec!["!a:b"; 300] } } }),
        json!({ "extensions": { "to_device": { "enabled": true, "since": "yesterday" } } }),
        filtered(json!({ "tags": vec!["t"; 300] })),
    ];
    for body in refused {
        let answer = place.asks(&ann, Method::POST, PATH, &body);
        assert_eq!(
            (answer.status.as_u16(), &answer.json["errcode"]),
            (400, &json!("M_INVALID_PARAM")),
            "{body}"
        );
    }
    for body in [
        json!({ "lists": [] }),
        json!({ "lists": { "l": {} } }),
        list(0, 1, 1)["lists"]
            .clone()
            .as_object()
            .map(|_| json!({ "lists": { "l": { "timeline_limit": -1 } } }))
            .unwrap(),
    ] {
        let answer = place.asks(&ann, Method::POST, PATH, &body);
        assert_eq!((answer.status.as_u16(), &answer.json["errcode"]), (400, &json!("M_BAD_JSON")), "{body}");
    }
    let mut long = Sliding::of(&ann, &"c".repeat(65));
    assert_eq!(place.looks_in_vain(&long, &list(0, 1, 1)).json["errcode"], "M_INVALID_PARAM");
    long.conn_id = "c".repeat(64);
    let answer = place.looks(&mut long, &list(0, 9_007_199_254_740_991, 9_007_199_254_740_991));
    assert_eq!(ids(&answer).len(), 2);
    assert_eq!(
        place.asks(&ann, Method::POST, &format!("{PATH}?set_presence=asleep"), &json!({})).json["errcode"],
        "M_INVALID_PARAM"
    );
    assert_eq!(place.posts(&ann, PATH, &json!({ "txn_id": "t" }))["txn_id"], "t");
}

#[test]
fn a_device_that_logs_out_leaves_nothing_behind() {
    let place = Place::new();
    let ann = place.user("ann");
    place.rooms(&ann, 1);
    let mut client = Sliding::of(&ann, "");
    place.looks(&mut client, &list(0, 9, 1));
    let rows = || {
        let user = &place.server().view.interner;
        let user = place.run(user.lookup_user(ann.user_id.as_str().try_into().unwrap())).unwrap().unwrap();
        let (table, forward) = (&myelin_store::tables::SLIDING_CONNECTIONS, myelin_store::Direction::Forward);
        place.run(place.server().view.store.scan(table, &user, forward, 100)).unwrap().len()
    };
    assert_eq!(rows(), 1);
    place.posts(&ann, "logout", &json!({}));
    assert_eq!(rows(), 0);
}
