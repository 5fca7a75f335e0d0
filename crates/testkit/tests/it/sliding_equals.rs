//! Random histories with crashes: who looks through a window that they move about ends with the same view as who syncs
//! everything (`/v3/sync`), whatever answers were lost on the way.

use std::collections::BTreeMap;

use http::Method;
use myelin_core::Env;
use myelin_store::memory::MemoryDisk;
use myelin_testkit::{
    below,
    client::{Client, percent, text},
    env::Sim,
    server::{Answer, Server},
    sliding::{Sliding, everything, state_of},
};
use serde_json::{Value, json};

const USERS: usize = 4;
const ROOMS: usize = 4;
const STEPS: usize = 90;
/// Syncs with nothing left out until nothing is new.
const ROUNDS_MAX: usize = 10;

/// Seeds that once failed stay here.
#[test]
fn fixed_seeds() {
    for seed in (0..10).chain([1_974_534_145, 325_386_242]) {
        History::new(seed, 8).play();
    }
}

/// A failure prints its seed: add it above.
#[test]
fn fresh_seeds() {
    let base = u64::from(std::process::id()) << 16;
    for seed in base..base + 6 {
        History::new(seed, 8).play();
    }
}

#[test]
fn without_crashes() {
    for seed in 100..104 {
        History::new(seed, usize::MAX).play();
    }
}

struct History {
    seed: u64,
    steps_per_crash: usize,
    env: Env,
    sim: Sim,
    server: Option<Server>,
    /// The same users twice.
    whole: Vec<Client>,
    sliding: Vec<Sliding>,
    rooms: Vec<String>,
    /// Room -> events that can be read.
    messages: BTreeMap<String, Vec<String>>,
    count: usize,
}

impl History {
    fn new(seed: u64, steps_per_crash: usize) -> Self {
        let sim = Sim::new(seed);
        let server = Server::start(&sim, MemoryDisk::default());
        let mut history = Self {
            seed,
            steps_per_crash,
            env: sim.env(),
            sim,
            server: Some(server),
            whole: Vec::new(),
            sliding: Vec::new(),
            rooms: Vec::new(),
            messages: BTreeMap::new(),
            count: 0,
        };
        history.prepare();
        history
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("the server runs between steps")
    }

    fn below(&self, bound: usize) -> usize {
        below(&self.env, bound)
    }

    fn prepare(&mut self) {
        for n in 0..USERS {
            let server = self.server();
            let client = server.sim.block_on(Client::register(server, &format!("user{n}")));
            self.sliding.push(Sliding::of(&client, "main"));
            self.whole.push(Client { state_after: true, ..client });
        }
        for n in 0..ROOMS {
            let body = json!({ "preset": "public_chat", "name": format!("room {n}") });
            let created = self.request(n % USERS, Method::POST, "/_matrix/client/v3/createRoom", &body).ok();
            self.rooms.push(text(&created["room_id"]));
        }
    }

    fn request(&self, user: usize, method: Method, path: &str, body: &Value) -> Answer {
        let server = self.server();
        server.sim.block_on(server.request(method, path, Some(&self.whole[user].token), Some(body)))
    }

    fn play(mut self) {
        for _ in 0..STEPS {
            match self.below(10) {
                0 | 1 => self.sync_whole(),
                2..5 => self.sync_sliding(),
                _ => self.act(),
            }
            if self.below(self.steps_per_crash) == 0 && self.steps_per_crash != usize::MAX {
                let platters = self.server.take().expect("it runs").crash();
                self.server = Some(Server::start(&self.sim, platters));
            }
        }
        self.check();
    }

    fn sync_whole(&mut self) {
        let n = self.below(USERS);
        let limit = 1 + self.below(8);
        let mut client = std::mem::take(&mut self.whole[n]);
        let server = self.server();
        server.sim.block_on(client.sync(server, limit, 0));
        self.whole[n] = client;
    }

    /// A look through any window; the answer may be lost, and the next question may be another one.
    fn sync_sliding(&mut self) {
        let n = self.below(USERS);
        let body = self.any_window();
        let lost = self.below(4) == 0;
        let mut client = self.sliding[n].clone();
        let server = self.server();
        if lost {
            server.sim.block_on(client.ask(server, &body, 0)).expect("an answer").ok();
        } else {
            server.sim.block_on(client.sync(server, &body, 0));
            assert_eq!(client.restarts, 0, "seed {}: {} had to begin anew", self.seed, client.client.user_id);
            self.sliding[n] = client;
        }
    }

    fn any_window(&self) -> Value {
        let extensions = json!({
            "account_data": { "enabled": self.below(4) > 0 },
            "receipts": { "enabled": self.below(4) > 0 },
            "typing": { "enabled": true },
        });
        let mut body = json!({ "lists": {}, "room_subscriptions": {}, "extensions": extensions });
        if self.below(5) > 0 {
            body["lists"]["all"] = json!({
                "ranges": [[0, self.below(ROOMS)]],
                "timeline_limit": self.below(8),
                "required_state": everything(),
            });
        }
        if self.below(3) == 0 {
            let room = &self.rooms[self.below(ROOMS)];
            body["room_subscriptions"][room] =
                json!({ "timeline_limit": 1 + self.below(8), "required_state": everything() });
        }
        body
    }

    fn act(&mut self) {
        let user = self.below(USERS);
        let room = self.rooms[self.below(ROOMS)].clone();
        let (own, other) = (self.whole[user].user_id.clone(), self.whole[self.below(USERS)].user_id.clone());
        let base = format!("/_matrix/client/v3/rooms/{}", percent(&room));
        let data = format!("/_matrix/client/v3/user/{}/rooms/{}/account_data", percent(&own), percent(&room));
        self.count += 1;
        let count = self.count;
        let message = || {
            (
                Method::PUT,
                format!("{base}/send/m.room.message/t{count}"),
                json!({ "msgtype": "m.text", "body": format!("{count}") }),
            )
        };
        let (method, path, body) = match self.below(16) {
            0..3 => (Method::POST, format!("{base}/join"), json!({})),
            3 => (Method::POST, format!("{base}/leave"), json!({})),
            4 => (Method::POST, format!("{base}/invite"), json!({ "user_id": other })),
            5 => (Method::POST, format!("{base}/kick"), json!({ "user_id": other })),
            6 => (Method::PUT, format!("{base}/state/m.room.topic/"), json!({ "topic": format!("{count}") })),
            7 => (Method::PUT, format!("{data}/m.tag"), json!({ "tags": { format!("u.{count}"): {} } })),
            8..11 => match self.any_message(&room) {
                Some(event) => {
                    (Method::POST, format!("{base}/receipt/m.read/{}", percent(&event)), json!({}))
                }
                None => message(),
            },
            _ => message(),
        };
        let answer = self.request(user, method, &path, &body);
        assert!(!answer.status.is_server_error(), "seed {}: {answer:?}", self.seed);
        if let Some(event) = answer.json["event_id"].as_str().filter(|_| path.contains("/send/")) {
            self.messages.entry(room).or_default().push(event.to_owned());
        }
    }

    fn any_message(&self, room: &str) -> Option<String> {
        let events = self.messages.get(room)?;
        events.get(self.below(events.len())).cloned()
    }

    fn check(&mut self) {
        let server = self.server.as_ref().expect("it runs");
        let all = json!({
            "lists": { "all": { "timeline_limit": 5, "required_state": everything() } },
            "extensions": {
                "account_data": { "enabled": true }, "receipts": { "enabled": true }, "typing": { "enabled": true },
            },
        });
        for n in 0..USERS {
            let (whole, sliding) = (&mut self.whole[n], &mut self.sliding[n]);
            server.sim.block_on(async {
                whole.sync(server, 50, 0).await;
                whole.sync(server, 50, 0).await;
                for round in 0.. {
                    let answer = sliding.sync(server, &all, 0).await;
                    if answer["rooms"] == json!({}) && answer["extensions"] == json!({}) {
                        break;
                    }
                    assert!(
                        round < ROUNDS_MAX,
                        "seed {}: there is always something new: {answer}",
                        self.seed
                    );
                }
                let context = format!("seed {}, {}", self.seed, whole.user_id);
                compare(server, whole, sliding, &context).await;
            });
        }
    }
}

async fn compare(server: &Server, whole: &Client, sliding: &Sliding, context: &str) {
    let invited: Vec<_> = whole.invites.keys().cloned().collect();
    assert_eq!(sliding.invites.iter().cloned().collect::<Vec<_>>(), invited, "{context}: invites");
    let joined = |(id, view): (&String, &myelin_testkit::client::RoomView)| view.joined.then(|| id.clone());
    let rooms: Vec<_> = whole.rooms.iter().filter_map(joined).collect();
    assert_eq!(sliding.rooms.iter().filter_map(joined).collect::<Vec<_>>(), rooms, "{context}: joined rooms");
    for room in rooms {
        let (whole_view, view) = (&whole.rooms[&room], &sliding.rooms[&room]);
        let context = format!("{context}, {room}");
        assert_eq!(view.timeline, whole_view.timeline, "{context}: timeline");
        assert_eq!(view.state, state_of(server, whole, &room).await, "{context}: state");
        assert_eq!(view.state, whole_view.state, "{context}: state");
        for (user, event) in &view.read {
            assert_eq!(Some(event), whole_view.read.get(user), "{context}: what {user} read");
        }
        let own = &whole.user_id;
        assert_eq!(view.read.get(own), whole_view.read.get(own), "{context}: what they read themselves");
        let of_room = sliding.account_data.iter().filter(|((id, _), _)| *id == room);
        let data: BTreeMap<_, _> =
            of_room.map(|((_, kind), content)| (kind.clone(), content.clone())).collect();
        assert_eq!(data, whole_view.account_data, "{context}: account data");
        if let Some(unread) = whole_view.unread {
            assert_eq!(sliding.unread.get(&room), Some(&unread), "{context}: unread counts");
        }
    }
}
