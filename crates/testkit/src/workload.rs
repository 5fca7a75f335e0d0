//! Many clients doing random things on one server that crashes now and then, and what must hold all the time:
//!
//! - what was acknowledged is there, exactly once, also when its transaction was repeated after a crash;
//! - every client's view of a room, put together from syncs and pages, is what really happened, in order and once;
//! - the state that a client put together is the server's;
//! - a long poll wakes when something happens, not when its time is over.
//!
//! Everything follows from the seed.

use std::{collections::BTreeMap, time::Duration};

use futures::future::{Either, join_all, select};
use http::Method;
use myelin_core::Env;
use myelin_store::memory::MemoryDisk;
use myelin_testenv::Sim;
use serde_json::{Value, json};

use crate::{
    below,
    client::{Client, percent, text},
    server::{Answer, Server},
};

/// A wake-up takes a few flushes, never the time of the poll.
const WAKE_UP_MS_MAX: u64 = 1_000;
const POLL_MS: u64 = 30_000;

#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub users: usize,
    pub steps: usize,
    /// One crash in so many steps, on average.
    pub steps_per_crash: usize,
}

pub struct Workload {
    seed: u64,
    options: Options,
    env: Env,
    server: Option<Server>,
    sim: Sim,
    clients: Vec<Client>,
    rooms: Vec<String>,
    /// Numbers of the messages sent; the body says the number.
    sent: usize,
    /// Body -> event id, of acknowledged messages.
    acknowledged: BTreeMap<String, (String, String)>,
}

/// A request that changes something.
struct Action {
    client: usize,
    method: Method,
    path: String,
    body: Value,
    /// (room, body) of a message: repeated until acknowledged.
    message: Option<(String, String)>,
}

impl Workload {
    /// Runs the workload of a seed to its end.
    ///
    /// # Panics
    /// With the seed, when something does not hold.
    pub fn run(seed: u64, options: Options) {
        let sim = Sim::new(seed);
        let server = Server::start(&sim, MemoryDisk::default());
        let mut workload = Self {
            seed,
            options,
            env: sim.env(),
            server: Some(server),
            sim,
            clients: Vec::new(),
            rooms: Vec::new(),
            sent: 0,
            acknowledged: BTreeMap::new(),
        };
        workload.prepare();
        for _ in 0..workload.options.steps {
            workload.step();
        }
        workload.check();
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("the server runs between steps")
    }

    fn chance(&self, one_in: usize) -> bool {
        below(&self.env, one_in) == 0
    }

    fn prepare(&mut self) {
        for number in 0..self.options.users {
            let server = self.server();
            let client = server.sim.block_on(Client::register(server, &format!("user{number}")));
            self.clients.push(client);
        }
        self.create_room();
    }

    fn step(&mut self) {
        match below(&self.env, 12) {
            0 if self.rooms.len() < 4 => self.create_room(),
            1..=4 => self.sync_somebody(),
            5 => self.check_wake_up(),
            _ => self.act(),
        }
    }

    fn create_room(&mut self) {
        let client = below(&self.env, self.clients.len());
        let body = json!({ "preset": "public_chat", "name": format!("room {}", self.rooms.len()) });
        let server = self.server();
        let create = self.clients[client].post(server, "/_matrix/client/v3/createRoom", &body);
        let answer = server.sim.block_on(create).ok();
        self.rooms.push(text(&answer["room_id"]));
    }

    fn sync_somebody(&mut self) {
        let (client, limit) = (below(&self.env, self.clients.len()), 1 + below(&self.env, 12));
        let mut somebody = self.clients.swap_remove(client);
        let server = self.server();
        server.sim.block_on(somebody.sync(server, limit, 0));
        self.clients.push(somebody);
    }

    /// Several actions at once; perhaps the machine crashes in the middle of them.
    fn act(&mut self) {
        let count = 1 + below(&self.env, 4);
        let actions: Vec<_> = (0..count).map(|_| self.any_action()).collect();
        let crash = self.chance(self.options.steps_per_crash);
        let answers = self.perform(&actions, crash);
        for (action, answer) in actions.iter().zip(answers) {
            self.note(action, answer);
        }
    }

    /// `None`: the machine went down before the answer.
    fn perform(&mut self, actions: &[Action], crash: bool) -> Vec<Option<Answer>> {
        let server = self.server();
        let all = join_all(actions.iter().map(|action| self.request(server, action)));
        if !crash {
            return server.sim.block_on(all).into_iter().map(Some).collect();
        }
        let until = self.env.clock.sleep(Duration::from_millis(below(&self.env, 12) as u64));
        let ended = match server.sim.block_on(select(Box::pin(all), until)) {
            Either::Left((answers, _)) => answers.into_iter().map(Some).collect(),
            Either::Right(_) => actions.iter().map(|_| None).collect(),
        };
        self.restart();
        ended
    }

    fn restart(&mut self) {
        let platters = self.server.take().map(|server| server.crash()).unwrap_or_default();
        self.server = Some(Server::start(&self.sim, platters));
    }

    async fn request(&self, server: &Server, action: &Action) -> Answer {
        let token = self.clients[action.client].token.as_str();
        server.request(action.method.clone(), &action.path, Some(token), Some(&action.body)).await
    }

    /// Notes what a message's answer says; without an answer, asks again under the same transaction id.
    fn note(&mut self, action: &Action, answer: Option<Answer>) {
        let Some((room, body)) = &action.message else { return };
        let answer = answer.unwrap_or_else(|| {
            let server = self.server();
            server.sim.block_on(self.request(server, action))
        });
        assert!(!answer.status.is_server_error(), "seed {}: {answer:?}", self.seed);
        if answer.is_ok() {
            let event_id = text(&answer.json["event_id"]);
            self.acknowledged.insert(body.clone(), (room.clone(), event_id));
        }
    }

    fn any_action(&mut self) -> Action {
        let client = below(&self.env, self.clients.len());
        let room = self.rooms[below(&self.env, self.rooms.len())].clone();
        let other = self.clients[below(&self.env, self.clients.len())].user_id.clone();
        let base = format!("/_matrix/client/v3/rooms/{}", percent(&room));
        let post = |what: &str, body: Value| (Method::POST, format!("{base}/{what}"), body, None);
        let (method, path, body, message) = match below(&self.env, 16) {
            0..=2 => post("join", json!({})),
            3 => post("leave", json!({})),
            4 => post("invite", json!({ "user_id": other })),
            5 if self.chance(3) => post("kick", json!({ "user_id": other })),
            6 => {
                let body = json!({ "topic": format!("topic {}", self.sent) });
                (Method::PUT, format!("{base}/state/m.room.topic/"), body, None)
            }
            7 => {
                let name = self.clients[client].user_id.clone();
                let path = format!("/_matrix/client/v3/profile/{}/displayname", percent(&name));
                (Method::PUT, path, json!({ "displayname": format!("name {}", self.sent) }), None)
            }
            8 => match self.own_message(&room) {
                Some(event) => {
                    let path = format!("{base}/redact/{}/r{}", percent(&event), self.sent);
                    (Method::PUT, path, json!({}), None)
                }
                None => post("join", json!({})),
            },
            _ => self.message(&room, &base),
        };
        self.sent += 1;
        Action { client, method, path, body, message }
    }

    fn message(&self, room: &str, base: &str) -> (Method, String, Value, Option<(String, String)>) {
        let body = format!("message {}", self.sent);
        let path = format!("{base}/send/m.room.message/t{}", self.sent);
        let content = json!({ "msgtype": "m.text", "body": body });
        (Method::PUT, path, content, Some((room.to_owned(), body)))
    }

    fn own_message(&self, room: &str) -> Option<String> {
        let here: Vec<_> = self.acknowledged.values().filter(|(r, _)| r == room).collect();
        here.get(below(&self.env, here.len())).map(|(_, event)| event.clone())
    }

    /// Somebody waits; somebody else sends; the first hears of it at once.
    fn check_wake_up(&mut self) {
        let waiter = below(&self.env, self.clients.len());
        let mut somebody = self.clients.swap_remove(waiter);
        let server = self.server.as_ref().expect("the server runs between steps");
        // Nothing is pending for them.
        server.sim.block_on(async {
            self.env.clock.sleep(Duration::from_millis(200)).await;
            somebody.sync(server, 20, 0).await;
        });
        let joined = somebody.rooms.iter().find(|(_, view)| view.joined).map(|(id, _)| id.clone());
        let sender = joined.as_ref().and_then(|room| {
            let inside = |client: &&Client| client.rooms.get(room).is_some_and(|view| view.joined);
            self.clients.iter().find(inside)
        });
        let (Some(room), Some(sender)) = (joined, sender) else {
            self.clients.push(somebody);
            return;
        };
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/w{}", percent(&room), self.sent);
        self.sent += 1;
        let body = json!({ "msgtype": "m.text", "body": "wake up" });
        let started_ms = self.env.now_ms();
        let (poll, sent) =
            server.sim.block_on(futures::future::join(somebody.sync(server, 20, POLL_MS), async {
                self.env.clock.sleep(Duration::from_millis(50)).await;
                sender.put(server, &path, &body).await
            }));
        if sent.is_ok() {
            let took_ms = self.env.now_ms() - started_ms;
            assert!(took_ms < WAKE_UP_MS_MAX, "seed {}: the poll woke after {took_ms} ms", self.seed);
            let event = sent.json["event_id"].clone();
            let events = poll["rooms"]["join"][&room]["timeline"]["events"].as_array();
            let found = events.is_some_and(|events| events.iter().any(|e| e["event_id"] == event));
            assert!(found, "seed {}: {event} is not in {poll}", self.seed);
        }
        self.clients.push(somebody);
    }

    /// After everything: what must hold at rest.
    fn check(&mut self) {
        let server = self.server.as_ref().expect("the server runs between steps");
        let seed = self.seed;
        server.sim.block_on(async {
            // Background work (profiles) comes to rest.
            self.env.clock.sleep(Duration::from_secs(20)).await;
            let mut truths = BTreeMap::new();
            for room in &self.rooms {
                let truth = server.truth(room).await;
                let unique: std::collections::BTreeSet<_> = truth.iter().collect();
                assert_eq!(unique.len(), truth.len(), "seed {seed}: an event stands twice in {room}");
                truths.insert(room.clone(), truth);
            }
            for (body, (room, event)) in &self.acknowledged {
                assert!(truths[room].contains(event), "seed {seed}: '{body}' was acknowledged and is lost");
            }
            for client in &mut self.clients {
                for limit in [3, 50] {
                    client.sync(server, limit, 0).await;
                }
                check_client(seed, server, client, &truths).await;
            }
        });
    }
}

async fn check_client(seed: u64, server: &Server, client: &Client, truths: &BTreeMap<String, Vec<String>>) {
    let joined = client.get(server, "/_matrix/client/v3/joined_rooms").await.ok();
    let joined: Vec<_> = joined["joined_rooms"].as_array().into_iter().flatten().map(text).collect();
    let user = &client.user_id;
    for (room, view) in &client.rooms {
        assert_eq!(view.joined, joined.contains(room), "seed {seed}: is {user} in {room}?");
        if !view.joined {
            continue;
        }
        assert_eq!(view.timeline, truths[room], "seed {seed}: {user}'s timeline of {room} is not the truth");
        let path = format!("/_matrix/client/v3/rooms/{}/state", percent(room));
        let state = client.get(server, &path).await.ok();
        let key =
            |event: &Value| ((text(&event["type"]), text(&event["state_key"])), text(&event["event_id"]));
        let state: BTreeMap<_, _> = state.as_array().into_iter().flatten().map(key).collect();
        assert_eq!(view.state, state, "seed {seed}: {user}'s state of {room} is not the server's");
    }
    for room in &joined {
        assert!(client.rooms.contains_key(room), "seed {seed}: {user} has not heard of joining {room}");
    }
}
