//! What goes to other servers, when, and together with what: the stories of seeds 000 and 001.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use futures::FutureExt;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use myelin_dag::NewEvent;
use myelin_store::{
    Batch, Direction,
    memory::MemoryDisk,
    outbox,
    tables::{DESTINATIONS, LOG_CURSORS, OUTBOX},
};
use myelin_testenv::Sim;
use myelin_testkit::{
    client::{Client, percent},
    network::Network,
    puppet::Puppet,
    server::Server,
};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedServerName, ServerName};
use serde_json::{Value, json, value::to_raw_value};

/// What another server does with transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Answers,
    Fails(StatusCode),
    /// Takes a minute to fail.
    Hangs,
    /// Does what was asked, and the answer is lost.
    LosesAnswers,
    /// Does what was asked, and says so ten seconds later.
    Ponders,
    /// Refuses transactions with this in it.
    Chokes(&'static str),
}

/// A transaction as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrived {
    pub uri: String,
    pub body: Value,
    pub at_ms: u64,
    pub taken: bool,
}

impl Arrived {
    pub fn edus(&self, edu_type: &str) -> Vec<Value> {
        let edus = self.body["edus"].as_array().into_iter().flatten();
        edus.filter(|edu| edu["edu_type"] == edu_type).map(|edu| edu["content"].clone()).collect()
    }

    pub fn pdus(&self) -> Vec<Value> {
        self.body["pdus"].as_array().cloned().unwrap_or_default()
    }
}

struct Ear {
    mood: Mood,
    arrived: Vec<Arrived>,
    under_way: usize,
    under_way_max: usize,
}

/// Another server: a puppet that joins rooms, and an ear that notes what arrives.
#[derive(Clone)]
pub struct Remote {
    pub puppet: Puppet,
    ear: Arc<Mutex<Ear>>,
}

impl Remote {
    fn connect(network: &Network, sim: &Sim, name: &str) -> Self {
        let puppet = Puppet::connect(network, name);
        let ear = Ear { mood: Mood::Answers, arrived: Vec::new(), under_way: 0, under_way_max: 0 };
        let remote = Self { puppet, ear: Arc::new(Mutex::new(ear)) };
        let (listening, env) = (remote.clone(), sim.env());
        let inner = network.router_of(remote.name()).expect("the puppet");
        let answer = move |request: Request<Body>| {
            let (remote, env, inner) = (listening.clone(), env.clone(), inner.clone());
            async move { remote.hear(request, &env, inner).await }
        };
        network.connect(remote.name(), Router::new().fallback(answer));
        remote
    }

    pub fn name(&self) -> &ServerName {
        self.puppet.name()
    }

    async fn hear(
        &self,
        request: Request<Body>,
        env: &myelin_core::Env,
        puppet: Router,
    ) -> axum::response::Response {
        use axum::response::IntoResponse;
        use tower::ServiceExt;
        if !request.uri().path().starts_with("/_matrix/federation/v1/send/") {
            return puppet.oneshot(request).await.into_response();
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await.expect("in memory").to_bytes();
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let mood = {
            let mut ear = self.ear.lock();
            let taken = match ear.mood {
                Mood::Answers | Mood::LosesAnswers | Mood::Ponders => true,
                Mood::Chokes(on) => !body.to_string().contains(on),
                Mood::Fails(_) | Mood::Hangs => false,
            };
            let mood = match ear.mood {
                Mood::Chokes(_) if taken => Mood::Answers,
                mood => mood,
            };
            let arrived = Arrived { uri: parts.uri.to_string(), body, at_ms: env.now_ms(), taken };
            ear.arrived.push(arrived);
            ear.under_way += 1;
            ear.under_way_max = ear.under_way_max.max(ear.under_way);
            mood
        };
        match mood {
            Mood::Hangs => env.clock.sleep(Duration::from_secs(60)).await,
            Mood::Ponders => env.clock.sleep(Duration::from_secs(10)).await,
            _ => {}
        }
        self.ear.lock().under_way -= 1;
        match mood {
            Mood::Answers | Mood::Ponders => (StatusCode::OK, r#"{"pdus":{}}"#).into_response(),
            Mood::Fails(status) => (status, "{}").into_response(),
            Mood::Chokes(_) => (StatusCode::BAD_REQUEST, "{}").into_response(),
            Mood::Hangs | Mood::LosesAnswers => (StatusCode::BAD_GATEWAY, "{}").into_response(),
        }
    }

    /// Transactions that it has not answered yet.
    pub fn under_way(&self) -> usize {
        self.ear.lock().under_way
    }

    pub fn is(&self, mood: Mood) {
        self.ear.lock().mood = mood;
    }

    pub fn arrived(&self) -> Vec<Arrived> {
        self.ear.lock().arrived.clone()
    }

    /// Transactions that it took since the last call.
    pub fn taken(&self) -> Vec<Arrived> {
        std::mem::take(&mut self.ear.lock().arrived).into_iter().filter(|a| a.taken).collect()
    }

    /// The bodies of messages that it took since the last call, in order.
    pub fn messages(&self) -> Vec<String> {
        let pdus = self.taken().into_iter().flat_map(|arrived| arrived.pdus());
        pdus.filter_map(|pdu| pdu["content"]["body"].as_str().map(str::to_owned)).collect()
    }
}

/// Home of Alice, who is in a room with users of other servers.
pub struct Stage {
    pub sim: Sim,
    pub network: Network,
    home: Option<Server>,
    pub alice: Client,
    pub room: OwnedRoomId,
    pub remotes: Vec<Remote>,
}

pub fn home_name() -> OwnedServerName {
    "home.test".try_into().expect("a server name")
}

impl Stage {
    /// With one server named `remote0.test`.
    pub fn new() -> Self {
        Self::with(1)
    }

    pub fn with(remotes: usize) -> Self {
        let (sim, network) = (Sim::new(1), Network::default());
        let home = Server::start_in(&network, &home_name(), &sim.rebooted(), MemoryDisk::default());
        let alice = home.sim.block_on(Client::register(&home, "alice"));
        let mut stage = Self {
            sim,
            network,
            home: Some(home),
            alice,
            room: "!none:home.test".try_into().expect("a room id"),
            remotes: Vec::new(),
        };
        stage.room = stage.create_room();
        for number in 0..remotes {
            let name = format!("remote{number}.test");
            let remote = Remote::connect(&stage.network, &stage.home().sim, &name);
            stage.joins(&remote, &stage.room.clone(), "bob");
            stage.remotes.push(remote);
        }
        stage.wait(10);
        stage.remotes.iter().for_each(|remote| drop(remote.taken()));
        stage
    }

    pub fn home(&self) -> &Server {
        self.home.as_ref().expect("it runs")
    }

    pub fn run<F: Future>(&self, future: F) -> F::Output {
        self.home().sim.block_on(future)
    }

    pub fn wait(&self, seconds: u64) {
        let clock = self.home().view.env.clock.clone();
        self.run(async move { clock.sleep(Duration::from_secs(seconds)).await });
        self.home().sim.settle();
    }

    /// The machine loses its power, and gets it back.
    pub fn crash(&mut self) {
        let disk = self.home.take().expect("it runs").crash();
        let sim = self.sim.rebooted();
        self.home = Some(Server::start_in(&self.network, &home_name(), &sim, disk));
    }

    pub fn remote(&self) -> &Remote {
        &self.remotes[0]
    }

    pub fn create_room(&self) -> OwnedRoomId {
        let body = json!({ "preset": "public_chat", "room_version": "11" });
        let room = self.run(self.alice.post(self.home(), "/_matrix/client/v3/createRoom", &body)).ok();
        room["room_id"].as_str().expect("a room").try_into().expect("a room id")
    }

    /// A user of the remote joins a room.
    pub fn joins(&self, remote: &Remote, room: &OwnedRoomId, localpart: &str) {
        let user = remote.puppet.user(localpart);
        let join = NewEvent {
            sender: user.clone(),
            event_type: "m.room.member".into(),
            state_key: Some(user.to_string()),
            content: to_raw_value(&json!({ "membership": "join" })).expect("JSON"),
            redacts: None,
            sticky_duration_ms: None,
        };
        let reply = self.run(async {
            let join = remote.puppet.makes_next(&self.home().view, room, join).await;
            remote.puppet.sends(&home_name(), &[&join]).await
        });
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.json);
        let joined = self.run(self.home().view.room_by_id(room)).expect("readable").expect("the room");
        assert!(joined.has_server(remote.name()), "{}", reply.json);
    }

    pub fn says(&self, room: &OwnedRoomId, body: &str) -> String {
        let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{}", percent(body));
        let content = json!({ "msgtype": "m.text", "body": body });
        let answer = self.run(self.alice.put(self.home(), &path, &content)).ok();
        answer["event_id"].as_str().expect("an event id").to_owned()
    }

    pub fn types(&self, typing: bool, timeout_ms: u64) {
        let user = percent(&self.alice.user_id);
        let path = format!("/_matrix/client/v3/rooms/{}/typing/{user}", self.room);
        let body = json!({ "typing": typing, "timeout": timeout_ms });
        self.run(self.alice.put(self.home(), &path, &body)).ok();
    }

    pub fn reads(&self, receipt_type: &str, event_id: &str, body: &Value) {
        let path =
            format!("/_matrix/client/v3/rooms/{}/receipt/{receipt_type}/{}", self.room, percent(event_id));
        self.run(self.alice.post(self.home(), &path, body)).ok();
    }

    pub fn membership(&self, what: &str, room: &OwnedRoomId, user: &str) {
        let path = format!("/_matrix/client/v3/rooms/{room}/{what}");
        self.run(self.alice.post(self.home(), &path, &json!({ "user_id": user }))).ok();
    }

    /// Puts numbered EDUs for the remote into the outbox.
    pub fn puts(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let mut batch = Batch::new();
            let content =
                json!({ "message_id": number, "sender": self.alice.user_id, "type": "t", "messages": {} });
            outbox::put(&mut batch, self.remote().name().as_str(), "m.direct_to_device", content.to_string());
            self.run(self.home().view.store.commit(batch)).expect("committed");
        }
    }

    pub fn is_recorded(&self, server: &ServerName) -> bool {
        let row = self.run(self.home().view.store.get(&DESTINATIONS, &server.to_string()));
        row.expect("readable").is_some()
    }
}

const HOUR: u64 = 60 * 60;

fn to_device(arrived: &[Arrived]) -> Vec<u64> {
    let edus = arrived.iter().flat_map(|arrived| arrived.edus("m.direct_to_device"));
    edus.filter_map(|edu| edu["message_id"].as_u64()).collect()
}

pub fn typing(arrived: &[Arrived]) -> Vec<bool> {
    let edus = arrived.iter().flat_map(|arrived| arrived.edus("m.typing"));
    edus.filter_map(|edu| edu["typing"].as_bool()).collect()
}

#[test]
fn messages_go_to_the_other_servers_at_once_and_in_order() {
    let stage = Stage::with(2);
    let numbers: Vec<_> = (0..120).map(|number| format!("message {number}")).collect();
    numbers.iter().for_each(|body| drop(stage.says(&stage.room, body)));
    stage.wait(1);
    for remote in &stage.remotes {
        let arrived = remote.arrived();
        assert!(arrived.iter().all(|a| a.pdus().len() <= 50 && a.body["origin"] == "home.test"));
        let ids: std::collections::BTreeSet<_> = arrived.iter().map(|a| a.uri.clone()).collect();
        assert_eq!(ids.len(), arrived.len(), "every transaction has its own id");
        assert_eq!(remote.messages(), numbers);
    }
    stage.wait(10);
    let cursor = stage.run(stage.home().view.store.get(&LOG_CURSORS, &"federation".to_owned()));
    assert_eq!(cursor.expect("readable").expect("written").position, stage.home().view.store.position());
    assert!(!stage.is_recorded(stage.remote().name()), "who is up to date has no row");
}

#[test]
fn what_is_sent_is_counted() {
    let stage = Stage::with(2);
    let sent = || {
        let text = stage.home().view.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix("myelin_federation_sent_pdus_total "));
        line.and_then(|count| count.parse::<u64>().ok()).expect("a number")
    };
    let before = sent();
    stage.says(&stage.room, "hello");
    stage.wait(1);
    assert_eq!(sent(), before + 2);
    let text = stage.home().view.metrics.render();
    assert!(text.contains("myelin_federation_destinations{state=\"up_to_date\"} 2"), "{text}");
    let answer = stage.run(stage.home().request(http::Method::GET, "/metrics", None, None));
    assert_eq!(answer.status, StatusCode::OK);
}

#[test]
fn operators_see_what_waits_and_why_and_can_ask_again() {
    let stage = Stage::new();
    let (remote, sender) = (stage.remote(), stage.home().federation.sender.clone());
    remote.is(Mood::Fails(StatusCode::BAD_GATEWAY));
    stage.says(&stage.room, "waiting");
    stage.puts(0..2);
    stage.wait(HOUR);
    let report = stage.run(sender.destination(remote.name())).expect("readable").expect("a report");
    assert_eq!((report.waiting.events, report.waiting.edus), (1, Some(2)));
    assert!(report.failures > 3 && report.failing_since_ms.is_some() && report.next_attempt_ms.is_some());
    assert!(report.last_error.is_some_and(|error| error.contains("502")));
    remote.is(Mood::Answers);
    assert_eq!(sender.retry(Some(remote.name())), 1);
    stage.wait(1);
    assert_eq!(remote.messages(), ["waiting"]);
    let report = stage.run(sender.destination(remote.name())).expect("readable").expect("a report");
    assert_eq!((report.failures, report.waiting.behind_from, report.last_error), (0, None, None));
}

#[test]
fn what_other_servers_made_is_theirs_to_send() {
    let stage = Stage::with(2);
    let message = NewEvent {
        sender: stage.remote().puppet.user("bob"),
        event_type: "m.room.message".into(),
        state_key: None,
        content: to_raw_value(&json!({ "body": "mine" })).expect("JSON"),
        redacts: None,
        sticky_duration_ms: None,
    };
    let remote = stage.remote().puppet.clone();
    let reply = stage.run(async {
        let message = remote.makes_next(&stage.home().view, &stage.room, message).await;
        remote.sends(&home_name(), &[&message]).await
    });
    assert_eq!(reply.status, StatusCode::OK);
    stage.wait(60);
    stage.remotes.iter().for_each(|remote| assert!(remote.arrived().is_empty()));
}

#[test]
fn typing_hitches_a_ride_with_a_receipt() {
    let stage = Stage::new();
    let event = stage.says(&stage.room, "hello");
    stage.wait(10);
    stage.remote().taken();
    stage.types(true, 20_000);
    stage.home().sim.settle();
    assert_eq!(stage.remote().arrived(), [], "the bus waits for its time");
    stage.reads("m.read", &event, &json!({}));
    stage.home().sim.settle();
    let clock = stage.home().view.env.clock.clone();
    stage.run(async move { clock.sleep(Duration::from_millis(200)).await });
    let arrived = stage.remote().taken();
    let [bus] = &*arrived else { panic!("one bus: {arrived:?}") };
    assert_eq!(typing(&arrived), [true]);
    let receipts = bus.edus("m.receipt");
    let receipt = &receipts[0][stage.room.as_str()]["m.read"][&stage.alice.user_id];
    assert_eq!(receipt["event_ids"], json!([event]));
    stage.wait(10);
    assert!(typing(&stage.remote().taken()).is_empty(), "it was said already");
}

#[test]
fn the_bus_leaves_by_schedule_when_nothing_else_does() {
    let stage = Stage::new();
    stage.types(true, 30_000);
    stage.wait(4);
    let arrived = stage.remote().taken();
    assert_eq!(typing(&arrived), [true]);
    let said = &arrived[0].edus("m.typing")[0];
    assert_eq!((&said["user_id"], &said["room_id"]), (&json!(stage.alice.user_id), &json!(stage.room)));
}

#[test]
fn typing_works_more_than_once_per_room() {
    let stage = Stage::new();
    for round in 0..5 {
        stage.types(true, 30_000);
        stage.wait(4);
        assert_eq!(typing(&stage.remote().taken()), [true], "round {round}");
        stage.types(false, 0);
        stage.wait(4);
        assert_eq!(typing(&stage.remote().taken()), [false], "round {round}");
    }
}

#[test]
fn typing_that_times_out_stops_elsewhere_without_any_other_traffic() {
    let stage = Stage::new();
    stage.types(true, 5_000);
    stage.wait(20);
    assert_eq!(typing(&stage.remote().taken()), [true, false]);
}

/// The bus never saw the start: it rode along with a message, and the stop came before the next departure.
#[test]
fn a_short_start_that_hitched_a_ride_is_taken_back() {
    let stage = Stage::new();
    stage.types(true, 30_000);
    stage.says(&stage.room, "on my way");
    stage.home().sim.settle();
    assert_eq!(typing(&stage.remote().taken()), [true]);
    stage.types(false, 0);
    stage.wait(4);
    assert_eq!(typing(&stage.remote().taken()), [false]);
    stage.wait(60);
    assert!(typing(&stage.remote().taken()).is_empty(), "it is said once");
}

/// As before, but nobody knows yet whether the start has arrived.
#[test]
fn a_start_that_is_still_under_way_is_taken_back() {
    let stage = Stage::new();
    stage.remote().is(Mood::Ponders);
    stage.types(true, 30_000);
    stage.says(&stage.room, "on my way");
    stage.home().sim.settle();
    assert_eq!(typing(&stage.remote().taken()), [true]);
    stage.types(false, 0);
    stage.wait(60);
    assert_eq!(typing(&stage.remote().taken()), [false]);
}

#[test]
fn who_goes_on_typing_is_said_to_go_on() {
    let stage = Stage::new();
    for _ in 0..6 {
        stage.types(true, 30_000);
        stage.wait(10);
    }
    let said = typing(&stage.remote().taken());
    assert!(said.len() >= 2 && said.iter().all(|typing| *typing), "{said:?}");
}

#[test]
fn a_stop_reaches_a_server_that_failed_when_it_was_due() {
    let stage = Stage::new();
    stage.types(true, 30_000);
    stage.wait(4);
    stage.remote().is(Mood::Fails(StatusCode::BAD_GATEWAY));
    stage.types(false, 0);
    stage.wait(5);
    stage.remote().is(Mood::Answers);
    stage.wait(40);
    assert_eq!(typing(&stage.remote().taken()), [true, false]);
}

#[test]
fn private_receipts_stay_here_and_threads_are_kept_apart() {
    let stage = Stage::new();
    let (first, second) = (stage.says(&stage.room, "one"), stage.says(&stage.room, "two"));
    stage.wait(5);
    stage.remote().taken();
    stage.reads("m.read.private", &second, &json!({}));
    stage.wait(30);
    assert_eq!(stage.remote().arrived(), []);
    stage.reads("m.read", &first, &json!({}));
    stage.reads("m.read", &second, &json!({ "thread_id": "main" }));
    stage.wait(5);
    let arrived = stage.remote().taken();
    let said: Vec<_> = arrived.iter().flat_map(|arrived| arrived.edus("m.receipt")).collect();
    let of_alice = |edu: &Value| edu[stage.room.as_str()]["m.read"][&stage.alice.user_id].clone();
    let said: Vec<_> = said.iter().map(of_alice).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!((&said[0]["event_ids"][0], &said[0]["data"]["thread_id"]), (&json!(first), &Value::Null));
    assert_eq!((&said[1]["event_ids"][0], &said[1]["data"]["thread_id"]), (&json!(second), &json!("main")));
}

#[test]
fn presence_goes_to_servers_that_share_a_room() {
    let stage = Stage::new();
    let path = format!("/_matrix/client/v3/presence/{}/status", percent(&stage.alice.user_id));
    let status = json!({ "presence": "online", "status_msg": "here" });
    stage.run(stage.alice.put(stage.home(), &path, &status)).ok();
    stage.wait(5);
    let arrived = stage.remote().taken();
    let said: Vec<_> = arrived.iter().flat_map(|arrived| arrived.edus("m.presence")).collect();
    let push = &said.first().expect("it was said")["push"][0];
    assert_eq!((&push["user_id"], &push["presence"]), (&json!(stage.alice.user_id), &json!("online")));
}

#[test]
fn to_device_messages_arrive_once_in_order_and_first() {
    let stage = Stage::new();
    stage.remote().is(Mood::Fails(StatusCode::SERVICE_UNAVAILABLE));
    stage.puts(0..130);
    stage.says(&stage.room, "after them");
    stage.wait(2);
    stage.remote().is(Mood::Answers);
    stage.wait(60);
    let taken = stage.remote().taken();
    assert!(taken.iter().all(|a| a.body["edus"].as_array().is_some_and(|edus| edus.len() <= 100)));
    assert_eq!(to_device(&taken), (0..130).collect::<Vec<_>>());
    let name = stage.remote().name().to_string();
    let rows = stage.run(stage.home().view.store.scan(&OUTBOX, &name, Direction::Forward, 10));
    assert!(rows.expect("readable").is_empty(), "what was delivered is deleted");
}

#[test]
fn who_is_kicked_or_no_longer_invited_hears_of_it() {
    let stage = Stage::new();
    let remote = stage.remote();
    let bob = remote.puppet.user("bob");
    stage.membership("kick", &stage.room, bob.as_str());
    stage.wait(2);
    let pdus: Vec<_> = remote.taken().iter().flat_map(Arrived::pdus).collect();
    assert_eq!(pdus.len(), 1);
    assert_eq!((&pdus[0]["state_key"], &pdus[0]["content"]["membership"]), (&json!(bob), &json!("leave")));
    stage.says(&stage.room, "not for them");
    stage.wait(30);
    assert_eq!(remote.arrived(), []);
    stage.membership("ban", &stage.room, bob.as_str());
    stage.wait(2);
    let pdus: Vec<_> = remote.taken().iter().flat_map(Arrived::pdus).collect();
    assert_eq!(pdus[0]["content"]["membership"], "ban");
}

#[test]
fn a_thousand_servers_cost_no_more_rows_than_one() {
    let few = rows_of_a_message(&Stage::with(1));
    let stage = Stage::with(300);
    assert_eq!(rows_of_a_message(&stage), few);
    for remote in &stage.remotes {
        assert_eq!(remote.messages(), ["to all"]);
    }
}

fn rows_of_a_message(stage: &Stage) -> usize {
    let count = || {
        let all = myelin_store::tables::ALL.iter();
        let range = || myelin_store::backend::KeyRange { start: Vec::new(), end: None };
        let direction = myelin_store::backend::ScanDirection::Forward;
        let backend = stage.home().view.store.backend().clone();
        all.map(|table| {
            backend
                .scan(table.id, range(), direction, 1_000_000)
                .now_or_never()
                .map_or(0, |rows| rows.expect("readable").len())
        })
        .sum::<usize>()
    };
    let before = stage.run(async { count() });
    stage.says(&stage.room, "to all");
    stage.wait(20);
    stage.run(async { count() }) - before
}
