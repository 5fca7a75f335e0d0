//! Joining, knocking, inviting and leaving between servers, through the real routers of both sides.

mod arriving;
mod fall_back;
mod gate;
mod hang_ups;
mod invites;
mod joins;
mod keyless;
mod knocks;
mod leaves;
mod liars;
mod partial;
mod partial_clients;
mod refusals;
mod third_party;

use std::collections::BTreeSet;

use http::StatusCode;
use myelin_store::memory::MemoryDisk;
use myelin_testkit::{
    client::{Client, percent, text},
    env::Sim,
    network::Network,
    puppet::{end_of, json_of},
    server::{Answer, Server},
};
use ruma::ServerName;
use serde_json::{Value, json};

/// Servers `a.test`, `b.test`, … in one network and one thread.
pub struct Net {
    pub sim: Sim,
    pub network: Network,
    pub servers: Vec<Server>,
}

impl Net {
    pub fn new(count: usize) -> Self {
        Self::over(count, Sim::new(7), Network::default())
    }

    /// The same with a network in which time passes: who does not answer is not waited for without end.
    pub fn in_time(count: usize) -> Self {
        let sim = Sim::new(7);
        let network = Network::new(&sim);
        Self::over(count, sim, network)
    }

    fn over(count: usize, sim: Sim, network: Network) -> Self {
        let names = ["a.test", "b.test", "c.test", "d.test"];
        let start = |name: &&str| {
            let name = <&ServerName>::try_from(*name).expect("a server name");
            Server::start_in(&network, name, &sim, MemoryDisk::default())
        };
        let servers = names[..count].iter().map(start).collect();
        Self { sim, network, servers }
    }

    pub fn run<F: Future>(&self, future: F) -> F::Output {
        let output = self.sim.block_on(future);
        self.sim.settle();
        output
    }

    pub fn pass(&self, seconds: u64) {
        self.run(self.sim.env().clock.sleep(std::time::Duration::from_secs(seconds)));
    }

    /// Simulated milliseconds that something takes.
    pub fn takes_ms(&self, deed: impl FnOnce()) -> u64 {
        let began_ms = self.sim.env().now_ms();
        deed();
        self.sim.env().now_ms() - began_ms
    }

    /// What a user is to a room, as `asks` is told.
    pub fn membership(&self, at: usize, asks: &Client, room: &str, user: &Client) -> Value {
        let (room, user) = (percent(room), percent(&user.user_id));
        let path = format!("/_matrix/client/v3/rooms/{room}/state/m.room.member/{user}");
        self.run(asks.get(&self.servers[at], &path)).json["membership"].clone()
    }

    pub fn user(&self, at: usize, name: &str) -> Client {
        self.run(Client::register(&self.servers[at], name))
    }

    pub fn create(&self, at: usize, user: &Client, body: Value) -> String {
        let answer = self.run(user.post(&self.servers[at], "/_matrix/client/v3/createRoom", &body));
        text(&answer.ok()["room_id"])
    }

    pub fn public_room(&self, at: usize, user: &Client, version: &str) -> String {
        self.create(at, user, json!({ "preset": "public_chat", "room_version": version }))
    }

    /// `action`: what comes after the room id.
    pub fn act(&self, at: usize, user: &Client, room: &str, action: &str, body: Value) -> Answer {
        let path = format!("/_matrix/client/v3/rooms/{}/{action}", percent(room));
        self.run(user.post(&self.servers[at], &path, &body))
    }

    pub fn join(&self, at: usize, user: &Client, room: &str, via: &str) -> Answer {
        self.join_via(at, user, room, &[via])
    }

    pub fn join_via(&self, at: usize, user: &Client, room: &str, via: &[&str]) -> Answer {
        let via: Vec<_> = via.iter().map(|server| format!("via={server}")).collect();
        let path = format!("/_matrix/client/v3/join/{}?{}", percent(room), via.join("&"));
        self.run(user.post(&self.servers[at], &path, &json!({})))
    }

    pub fn knock(&self, at: usize, user: &Client, room: &str, via: &str) -> Answer {
        let path = format!("/_matrix/client/v3/knock/{}?via={via}", percent(room));
        self.run(user.post(&self.servers[at], &path, &json!({})))
    }

    pub fn set(&self, at: usize, user: &Client, room: &str, kind: &str, content: Value) -> Answer {
        let path = format!("/_matrix/client/v3/rooms/{}/state/{kind}", percent(room));
        self.run(user.put(&self.servers[at], &path, &content))
    }

    /// Joined members as one server has them.
    pub fn members(&self, at: usize, room: &str) -> BTreeSet<String> {
        let view = &self.servers[at].view;
        self.run(async {
            let room = view.room_by_id(room.try_into().expect("a room id")).await.expect("readable");
            let mut members = BTreeSet::new();
            for (user, _) in room.expect("the room").joined() {
                members.insert(view.interner.user_id(user).await.expect("a user").to_string());
            }
            members
        })
    }

    /// The newest event of a room as one server has it.
    pub fn end(&self, at: usize, room: &str) -> String {
        let place = self.sim.block_on(end_of(&self.servers[at].view, room.try_into().expect("a room id")));
        place.prev_events[0].to_string()
    }

    /// An event of the current state as it travels.
    pub fn pdu(&self, at: usize, room: &str, kind: &str) -> Value {
        let view = &self.servers[at].view;
        self.sim.block_on(async {
            let room = view.room_by_id(room.try_into().expect("a room id")).await.expect("readable");
            let event = view.current_state_event(&room.expect("the room"), kind, "").await.expect("readable");
            json_of(&event.expect("the event").pdu)
        })
    }

    /// The event ids of the current state as one server has it.
    pub fn state(&self, at: usize, room: &str) -> BTreeSet<String> {
        let view = &self.servers[at].view;
        self.run(async {
            let room = view.room_by_id(room.try_into().expect("a room id")).await.expect("readable");
            let nids: Vec<_> = room.expect("the room").current_state.iter().map(|(_, nid)| nid).collect();
            let events = view.events.load_many(&nids).await.expect("readable");
            events.into_iter().flatten().map(|event| event.pdu.event_id.to_string()).collect()
        })
    }

    pub fn sync(&self, at: usize, user: &mut Client) -> Value {
        self.run(user.sync(&self.servers[at], 20, 0))
    }
}

#[track_caller]
pub fn refused(answer: &Answer, status: StatusCode, errcode: &str) {
    assert_eq!((answer.status, answer.json["errcode"].as_str()), (status, Some(errcode)), "{}", answer.json);
}

pub const VERSIONS: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];
