//! What other servers send: judged, queued, completed by what lacks; with a puppet as the other server.

use std::time::Duration;

use http::{Method, StatusCode};
use myelin_dag::{NewEvent, Parents, Pdu, SigningKey};
use myelin_store::tables::{INBOUND_PDUS, VerdictRecord};
use myelin_testkit::{
    client::{Client, percent},
    env::Sim,
    network::Network,
    puppet::{Place, Puppet, Reply, end_of, json_of, state_of},
    server::Server,
};
use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedServerName, ServerName,
    signatures::hash_and_sign_event,
};
use serde_json::{Value, json, value::to_raw_value};

/// Home of Alice, with a puppet that has Bob, who is in Alice's room.
pub(super) struct Stage {
    pub home: Server,
    pub name: OwnedServerName,
    pub alice: Client,
    pub room: OwnedRoomId,
    pub puppet: Puppet,
}

pub(super) fn event(sender: &str, kind: &str, state_key: Option<&str>, content: &Value) -> NewEvent {
    NewEvent {
        sender: sender.try_into().unwrap(),
        event_type: kind.into(),
        state_key: state_key.map(ToOwned::to_owned),
        content: to_raw_value(content).unwrap(),
        redacts: None,
        sticky_duration_ms: None,
    }
}

impl Stage {
    pub(super) fn new() -> Self {
        Self::in_network(&Sim::new(1), &Network::default())
    }

    pub(super) fn in_network(sim: &Sim, network: &Network) -> Self {
        Self::with_version("11", sim, network)
    }

    pub(super) fn with_version(version: &str, sim: &Sim, network: &Network) -> Self {
        Self::with_room(sim, network, |home, alice| {
            let body = json!({ "preset": "public_chat", "room_version": version });
            let room = sim.block_on(alice.post(home, "/_matrix/client/v3/createRoom", &body)).ok();
            room["room_id"].as_str().unwrap().try_into().unwrap()
        })
    }

    fn with_room(sim: &Sim, network: &Network, room: impl FnOnce(&Server, &Client) -> OwnedRoomId) -> Self {
        let name: OwnedServerName = "home.test".try_into().unwrap();
        let home = Server::start_in(network, &name, sim, Default::default());
        let alice = sim.block_on(Client::register(&home, "alice"));
        let room = room(&home, &alice);
        let puppet = Puppet::connect(network, "remote.test");
        let stage = Self { home, name, alice, room, puppet };
        stage.joins("bob");
        stage
    }

    /// In a room that was made on another server, which Alice has joined and has power in.
    pub(super) fn in_a_room_from_elsewhere(version: &str) -> (Self, Server) {
        let (sim, network) = (Sim::new(1), Network::default());
        let origin = Server::start_in(&network, "origin.test".try_into().unwrap(), &sim, Default::default());
        let owner = sim.block_on(Client::register(&origin, "owner"));
        let mut users = json!({ "@alice:home.test": 100, owner.user_id.as_str(): 100 });
        if version == "12" {
            // Who has made it has more power than any level.
            users = json!({ "@alice:home.test": 100 });
        }
        let body = json!({
            "preset": "public_chat", "room_version": version, "power_level_content_override": { "users": users },
        });
        let made = sim.block_on(owner.post(&origin, "/_matrix/client/v3/createRoom", &body)).ok();
        let room: OwnedRoomId = made["room_id"].as_str().unwrap().try_into().unwrap();
        let stage = Self::with_room(&sim, &network, |home, alice| {
            let path = format!("/_matrix/client/v3/join/{}?via=origin.test", percent(room.as_str()));
            sim.block_on(alice.post(home, &path, &json!({}))).ok();
            room
        });
        (stage, origin)
    }

    pub(super) fn run<F: Future>(&self, future: F) -> F::Output {
        let output = self.home.sim.block_on(future);
        self.home.sim.settle();
        output
    }

    pub(super) fn joins(&self, localpart: &str) -> Pdu {
        self.joins_from(&self.puppet, localpart)
    }

    /// A user of another server than Bob's.
    pub(super) fn joins_from(&self, puppet: &Puppet, localpart: &str) -> Pdu {
        let user = puppet.user(localpart);
        let join =
            event(user.as_str(), "m.room.member", Some(user.as_str()), &json!({ "membership": "join" }));
        let join = self.run(puppet.makes_next(&self.home.view, &self.room, join));
        assert_eq!(self.run(puppet.sends(&self.name, &[&join])).json, accepted(&[&join]));
        join
    }

    pub(super) fn message_at(&self, body: &str, place: Place) -> Pdu {
        let message =
            event("@bob:remote.test", "m.room.message", None, &json!({ "msgtype": "m.text", "body": body }));
        self.run(self.puppet.makes_in(&self.home.view, &self.room, message, place))
    }

    pub(super) fn end(&self) -> Place {
        self.run(end_of(&self.home.view, &self.room))
    }

    /// Messages one after the other, after the end of the room.
    pub(super) fn line(&self, count: usize) -> Vec<Pdu> {
        let mut place = self.end();
        let mut line = Vec::new();
        for number in 0..count {
            let message = self.message_at(&number.to_string(), place);
            place = after(&message);
            line.push(message);
        }
        line
    }

    pub(super) fn sends(&self, pdus: &[&Pdu]) -> Value {
        let reply = self.run(self.puppet.sends(&self.name, pdus));
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.json);
        reply.json
    }

    fn requests(&self, transaction_id: &str, body: &Value) -> Reply {
        let uri = format!("/_matrix/federation/v1/send/{transaction_id}");
        self.run(self.puppet.requests(&self.name, Method::PUT, &uri, Some(body)))
    }

    fn timeline(&self) -> Vec<String> {
        self.run(self.home.truth(self.room.as_str()))
    }

    pub(super) fn shows(&self, pdu: &Pdu) -> bool {
        self.timeline().contains(&pdu.event_id.to_string())
    }

    pub(super) fn place_of(&self, pdu: &Pdu) -> Option<usize> {
        self.timeline().iter().position(|id| *id == pdu.event_id.as_str())
    }

    pub(super) fn verdict(&self, id: &OwnedEventId) -> Option<VerdictRecord> {
        let event = self.run(self.home.view.events.load_by_id(id)).unwrap();
        event.map(|event| event.verdict.clone())
    }

    pub(super) fn sets(&self, kind: &str, key: &str, content: &Value) -> OwnedEventId {
        let path = format!("/_matrix/client/v3/rooms/{}/state/{kind}/{key}", self.room);
        let answer = self.run(self.alice.put(&self.home, &path, content)).ok();
        answer["event_id"].as_str().unwrap().try_into().unwrap()
    }

    pub(super) fn passes(&self, duration: Duration) {
        self.run(self.home.sim.env().clock.sleep(duration));
    }

    pub(super) fn extremities(&self) -> usize {
        let room = self.run(self.home.view.room_by_id(&self.room)).unwrap().unwrap();
        room.head.extremities.len()
    }

    /// The puppet knows everything that Alice's server has in the room.
    pub(super) fn tells_puppet(&self, before: &Pdu) {
        self.tells(&self.puppet, [before]);
    }

    /// A puppet knows that this is the state before each of these.
    pub(super) fn tells<'a>(&self, puppet: &Puppet, before: impl IntoIterator<Item = &'a Pdu>) {
        let state = self.run(state_of(&self.home.view, &self.room));
        state.iter().for_each(|pdu| puppet.knows(pdu));
        let ids: Vec<_> = state.iter().map(|pdu| pdu.event_id.clone()).collect();
        before.into_iter().for_each(|pdu| puppet.knows_state(pdu, ids.clone()));
    }

    /// Alice reads back: a page, and where the next one begins.
    pub(super) fn reads_back(&self, from: Option<&str>) -> (Vec<Value>, Option<String>) {
        let from = from.map_or_else(String::new, |from| format!("&from={from}"));
        let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=100{from}", self.room);
        let page = self.run(self.alice.get(&self.home, &path)).ok();
        let end = page["end"].as_str().map(ToOwned::to_owned);
        (page["chunk"].as_array().unwrap().clone(), end)
    }
}

pub(super) fn after(pdu: &Pdu) -> Place {
    Place { prev_events: vec![pdu.event_id.clone()], depth: pdu.depth + 1 }
}

pub(super) fn accepted(pdus: &[&Pdu]) -> Value {
    let pdus: serde_json::Map<_, _> = pdus.iter().map(|pdu| (pdu.event_id.to_string(), json!({}))).collect();
    json!({ "pdus": pdus })
}

fn error_of<'a>(reply: &'a Value, pdu: &Pdu) -> &'a str {
    reply["pdus"][pdu.event_id.as_str()]["error"].as_str().unwrap_or_default()
}

/// Nothing is missing between events that come together, or before the one before is durable.
#[test]
fn events_that_come_together_join_on_to_each_other() {
    let stage = Stage::new();
    let line = stage.line(6);
    let (first, others) = line.split_at(1);
    stage.sends(&[&first[0]]);
    stage.sends(&others.iter().collect::<Vec<_>>());
    let mut alice = Client::clone(&stage.alice);
    let synced = stage.run(alice.sync(&stage.home, 10, 0));
    let events = synced["rooms"]["join"][stage.room.as_str()]["timeline"]["events"].as_array().unwrap();
    assert_eq!(events.len(), 10, "{events:?}");
}

#[test]
fn what_can_be_judged_is_judged_before_the_answer() {
    let stage = Stage::new();
    let line = stage.line(3);
    let pdus: Vec<_> = line.iter().collect();
    assert_eq!(stage.sends(&pdus), accepted(&pdus));
    let timeline = stage.timeline();
    let sent: Vec<_> = line.iter().map(|pdu| pdu.event_id.to_string()).collect();
    assert_eq!(timeline[timeline.len() - 3..], sent);
    let mut alice = Client::clone(&stage.alice);
    let synced = stage.run(alice.sync(&stage.home, 10, 0));
    let events = synced["rooms"]["join"][stage.room.as_str()]["timeline"]["events"].as_array().unwrap();
    assert_eq!(events.last().unwrap()["content"]["body"], "2");
}

#[test]
fn a_repeated_transaction_gets_its_first_answer() {
    let stage = Stage::new();
    let [message, other] = stage.line(2).try_into().unwrap();
    let body = |pdu: &Pdu| json!({ "pdus": [json_of(pdu)], "edus": [] });
    assert_eq!(stage.requests("same", &body(&message)).json, accepted(&[&message]));
    assert_eq!(stage.requests("same", &body(&other)).json, accepted(&[&message]), "not looked at");
    assert!(!stage.shows(&other));
    assert_eq!(stage.requests("next", &body(&other)).json, accepted(&[&other]));
    assert!(stage.shows(&other));
}

#[test]
fn transactions_have_limits() {
    let stage = Stage::new();
    let line = stage.line(51);
    let pdus: Vec<_> = line.iter().map(json_of).collect();
    let reply = stage.requests("many", &json!({ "pdus": pdus, "edus": [] }));
    assert_eq!((reply.status, reply.json["errcode"].as_str()), (StatusCode::BAD_REQUEST, Some("M_BAD_JSON")));
    let edus = vec![json!({ "edu_type": "m.typing", "content": {} }); 101];
    assert_eq!(stage.requests("edus", &json!({ "pdus": [], "edus": edus })).status, StatusCode::BAD_REQUEST);
    assert!(!stage.shows(&line[0]));
}

#[test]
fn what_is_forged_is_dropped_and_takes_nothing_along() {
    let stage = Stage::new();
    let [good, bad] = stage.line(2).try_into().unwrap();
    let mut forged = json_of(&bad);
    forged["origin_server_ts"] = json!(1);
    let unsigned = json_of(&stage.message_at("unsigned", stage.end()));
    let mut unsigned = unsigned;
    unsigned["signatures"] = json!({});
    let nonsense = json!({ "room_id": stage.room, "type": 7 });
    let elsewhere = json!({ "room_id": "!nowhere:remote.test", "type": "m.room.message" });
    let pdus = json!([forged, unsigned, nonsense, elsewhere, 5, json_of(&good)]);
    let reply = stage.run(stage.puppet.sends_transaction(&stage.name, pdus, json!([])));
    assert_eq!(reply.status, StatusCode::OK);
    let answers = reply.json["pdus"].as_object().unwrap();
    assert_eq!(answers.len(), 3, "{answers:?}");
    assert_eq!(answers.values().filter(|answer| answer.get("error").is_some()).count(), 2);
    assert_eq!(answers[good.event_id.as_str()], json!({}));
    assert!(stage.shows(&good));
}

/// What Synapse would go on sending, if the transaction were refused.
#[test]
fn one_event_or_message_that_is_too_much_harms_no_other() {
    let stage = Stage::new();
    let [good, bad] = stage.line(2).try_into().unwrap();
    let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    let with = |content: Value| {
        let mut pdu = json_of(&bad);
        pdu["content"] = content;
        pdu
    };
    let letter = |words: &str, more: Value| {
        let messages = json!({ stage.alice.user_id.as_str(): { "*": { "words": words, "more": more } } });
        json!({ "edu_type": "m.direct_to_device", "content": {
            "sender": "@bob:remote.test", "type": "m.test", "message_id": words, "messages": messages,
        } })
    };
    let pdus = json!([
        with(json!({ "body": deep(150) })),
        with(json!({ "body": "x".repeat(200_000) })),
        with(json!({ "body": "DIGITS" })),
        deep(1_000),
        null,
        json_of(&good),
    ]);
    let edus = json!([
        letter("too deep", deep(150)),
        letter("deep", deep(80)),
        { "edu_type": "m.typing" },
        { "edu_type": 7, "content": {} },
        deep(1_000),
        null,
        "m.typing",
        letter("good", json!({})),
    ]);
    let body = json!({ "origin": "remote.test", "origin_server_ts": 1, "pdus": pdus, "edus": edus });
    let text = myelin_dag::canonical::canonicalize_request(body.to_string().as_bytes()).unwrap();
    let text = text.replace("\"DIGITS\"", &"9".repeat(400));
    let uri = "/_matrix/federation/v1/send/deep";
    let reply = stage.run(stage.puppet.requests_text(&stage.name, Method::PUT, uri, text));
    assert_eq!((reply.status, reply.json), (StatusCode::OK, accepted(&[&good])));
    assert!(stage.shows(&good));
    let mut alice = Client::clone(&stage.alice);
    stage.run(alice.sync(&stage.home, 10, 0));
    assert_eq!(alice.letters, ["deep", "good"]);
}

#[test]
fn who_joins_and_types_in_the_same_transaction_is_seen_to_type() {
    let stage = Stage::new();
    let other = Puppet::connect(stage.puppet.network(), "other.test");
    let carol = other.user("carol");
    let join = event(carol.as_str(), "m.room.member", Some(carol.as_str()), &json!({ "membership": "join" }));
    let join = stage.run(other.makes_next(&stage.home.view, &stage.room, join));
    let typing = json!({ "room_id": stage.room, "user_id": carol, "typing": true });
    let edus = json!([{ "edu_type": "m.typing", "content": typing }]);
    let reply = stage.run(other.sends_transaction(&stage.name, json!([json_of(&join)]), edus));
    assert_eq!(reply.json, accepted(&[&join]));
    let mut alice = Client::clone(&stage.alice);
    stage.run(alice.sync(&stage.home, 10, 0));
    assert!(alice.rooms[stage.room.as_str()].typing.contains(carol.as_str()));
}

#[test]
fn a_transaction_may_be_as_large_as_synapse_makes_them() {
    let stage = Stage::new();
    let [good] = stage.line(1).try_into().unwrap();
    let edu = json!({ "edu_type": "org.example.large", "content": { "x": "x".repeat(125_000) } });
    let reply = stage.run(stage.puppet.sends_transaction(
        &stage.name,
        json!([json_of(&good)]),
        json!(vec![edu; 100]),
    ));
    assert_eq!((reply.status, reply.json), (StatusCode::OK, accepted(&[&good])));
}

#[test]
fn content_that_does_not_match_its_hash_is_redacted() {
    let stage = Stage::new();
    let [message] = stage.line(1).try_into().unwrap();
    let mut tampered = json_of(&message);
    tampered["content"]["body"] = json!("something else");
    let reply = stage.run(stage.puppet.sends_transaction(&stage.name, json!([tampered]), json!([])));
    assert_eq!(reply.json, accepted(&[&message]));
    let held = stage.run(stage.home.view.events.load_by_id(&message.event_id)).unwrap().unwrap();
    assert_eq!(held.pdu.content.get(), "{}");
}

#[test]
fn rejected_and_soft_failed_events_are_kept_and_not_shown() {
    let stage = Stage::new();
    let end = stage.end();
    let name = event("@bob:remote.test", "m.room.name", Some(""), &json!({ "name": "Bob's" }));
    let name = stage.run(stage.puppet.makes_next(&stage.home.view, &stage.room, name));
    assert_eq!(stage.sends(&[&name]), accepted(&[&name]));
    assert!(matches!(stage.verdict(&name.event_id), Some(VerdictRecord::Rejected { .. })));
    let late = stage.message_at("from before the ban", end);
    stage.sets("m.room.member", "@bob:remote.test", &json!({ "membership": "ban" }));
    assert_eq!(stage.sends(&[&late]), accepted(&[&late]));
    assert!(matches!(stage.verdict(&late.event_id), Some(VerdictRecord::SoftFailed { .. })));
    assert!(!stage.shows(&name) && !stage.shows(&late));
}

#[test]
fn a_server_that_the_room_shuts_out_is_not_heard() {
    let stage = Stage::new();
    let [message] = stage.line(1).try_into().unwrap();
    let acl = json!({ "allow": ["*"], "deny": ["REMOTE.*"] });
    stage.sets("m.room.server_acl", "", &acl);
    let reply = stage.sends(&[&message]);
    assert!(error_of(&reply, &message).contains("take part"), "{reply}");
    assert_eq!(stage.verdict(&message.event_id), None);
}

#[test]
fn a_gap_is_filled_in_order() {
    let stage = Stage::new();
    let line = stage.line(45);
    let last = line.last().unwrap();
    let before = stage.timeline();
    assert_eq!(stage.sends(&[last]), accepted(&[last]));
    stage.passes(Duration::from_secs(1));
    let expected: Vec<_> =
        before.into_iter().chain(line.iter().map(|pdu| pdu.event_id.to_string())).collect();
    assert_eq!(stage.timeline(), expected);
    assert_eq!(stage.extremities(), 1);
    let asked = stage.puppet.asked();
    assert!(asked.iter().all(|asked| !asked.contains("state")), "{asked:?}");
}

#[test]
fn where_a_gap_cannot_be_filled_the_state_is_fetched() {
    let stage = Stage::new();
    let line = stage.line(5);
    stage.puppet.says("/_matrix/federation/v1/get_missing_events", StatusCode::NOT_FOUND, json!({}));
    stage.tells_puppet(&line[3]);
    assert_eq!(stage.sends(&[&line[4]]), accepted(&[&line[4]]));
    stage.passes(Duration::from_secs(1));
    assert!(stage.shows(&line[4]), "{:?}", stage.puppet.asked());
    assert!(!stage.shows(&line[3]), "held, with the state before it, but not shown");
    let held = stage.run(stage.home.view.events.load_by_id(&line[3].event_id)).unwrap().unwrap();
    assert!(held.state_before.is_some() && held.accepted());
    let extremities = stage.end().prev_events;
    assert_eq!(stage.sends(&[&line[3]]), accepted(&[&line[3]]));
    assert!(stage.shows(&line[3]), "late, but shown");
    assert_eq!(stage.end().prev_events, extremities);
    // The room goes on from there.
    let [next] = stage.line(1).try_into().unwrap();
    assert_eq!(stage.sends(&[&next]), accepted(&[&next]));
    assert!(stage.shows(&next));
}

/// A liar, or somebody who joined late, has an event and the state before it, and nothing of what came before that.
#[test]
fn the_state_before_an_event_is_asked_for_though_nobody_has_its_parents() {
    let stage = Stage::new();
    let line = stage.line(5);
    stage.puppet.forgets(&line[2].event_id);
    stage.tells_puppet(&line[3]);
    assert_eq!(stage.sends(&[&line[4]]), accepted(&[&line[4]]));
    stage.passes(Duration::from_secs(1));
    assert!(stage.shows(&line[4]), "{:?}", stage.puppet.asked());
}

#[test]
fn who_does_not_answer_is_asked_again_before_a_gap_is_left() {
    let stage = Stage::new();
    let line = stage.line(5);
    let path = "/_matrix/federation/v1/get_missing_events";
    stage.puppet.says(path, StatusCode::BAD_GATEWAY, json!({}));
    stage.tells_puppet(&line[3]);
    assert_eq!(stage.sends(&[&line[4]]), accepted(&[&line[4]]));
    stage.passes(Duration::from_secs(1));
    assert!(!stage.shows(&line[4]), "there would be a gap");
    stage.puppet.says_no_more(path);
    stage.passes(Duration::from_secs(40));
    assert!(line.iter().all(|pdu| stage.shows(pdu)), "{:?}", stage.puppet.asked());
}

#[test]
fn a_large_state_is_fetched_as_a_whole() {
    let stage = Stage::new();
    let users = json!({ stage.alice.user_id.as_str(): 100, "@bob:remote.test": 100 });
    stage.sets("m.room.power_levels", "", &json!({ "users": users }));
    let held: Vec<_> = stage.run(state_of(&stage.home.view, &stage.room));
    let mut state: Vec<_> = held.iter().map(|pdu| pdu.event_id.clone()).collect();
    held.iter().for_each(|pdu| stage.puppet.knows(pdu));
    let mut place = stage.end();
    for number in 0..80 {
        let content = json!({ "n": number });
        let event = event("@bob:remote.test", "org.example.fact", Some(&number.to_string()), &content);
        let pdu = stage.run(stage.puppet.makes_in(&stage.home.view, &stage.room, event, place));
        place = after(&pdu);
        stage.puppet.knows_state(&pdu, state.clone());
        state.push(pdu.event_id.clone());
    }
    stage.puppet.says("/_matrix/federation/v1/get_missing_events", StatusCode::OK, json!({ "events": [] }));
    let message = stage.message_at("after all that", place);
    stage.sends(&[&message]);
    stage.passes(Duration::from_secs(1));
    assert!(stage.shows(&message));
    let path = format!("/_matrix/client/v3/rooms/{}/state/org.example.fact/79", stage.room);
    assert_eq!(stage.run(stage.alice.get(&stage.home, &path)).ok(), json!({ "n": 79 }));
    let asked = stage.puppet.asked();
    let singly = asked.iter().filter(|asked| asked.contains("/event/")).count();
    assert!(singly <= 1 && asked.iter().any(|asked| asked.contains("/state/")), "{asked:?}");
}

/// Carol's join, which is not held, and a message of hers that claims to be allowed by it. The puppets know both.
pub(super) fn claims_authority(stage: &Stage, puppets: &[&Puppet]) -> (Pdu, Pdu) {
    let carol = stage.puppet.user("carol");
    let join = event(carol.as_str(), "m.room.member", Some(carol.as_str()), &json!({ "membership": "join" }));
    let join = stage.run(stage.puppet.makes_next(&stage.home.view, &stage.room, join));
    let held: Vec<_> = stage.run(state_of(&stage.home.view, &stage.room));
    let message = event(carol.as_str(), "m.room.message", None, &json!({ "body": "hi" }));
    let of_room = |kind: &str| {
        held.iter().find(|pdu| pdu.event_type.to_string() == kind).map(|pdu| pdu.event_id.clone())
    };
    let auth_events = [of_room("m.room.create"), of_room("m.room.power_levels"), Some(join.event_id.clone())];
    let Place { prev_events, depth } = stage.end();
    let parents = Parents {
        room_id: Some(stage.room.clone()),
        prev_events,
        auth_events: auth_events.into_iter().flatten().collect(),
        depth,
        names: None,
    };
    let message = stage.puppet.makes(&ruma::RoomVersionId::V11, message, parents, 1_000);
    for puppet in puppets {
        held.iter().for_each(|pdu| puppet.knows(pdu));
        puppet.knows(&join);
        puppet.knows(&message);
    }
    (join, message)
}

#[test]
fn auth_events_that_lack_are_fetched_and_checked() {
    let stage = Stage::new();
    let (join, message) = claims_authority(&stage, &[&stage.puppet]);
    let carol = stage.puppet.user("carol");
    stage.sends(&[&message]);
    stage.passes(Duration::from_secs(1));
    assert_eq!(stage.verdict(&join.event_id), Some(VerdictRecord::Accepted), "held as an outlier");
    let verdict = stage.verdict(&message.event_id);
    assert!(
        matches!(verdict, Some(VerdictRecord::Rejected { .. })),
        "not in the state before it: {verdict:?}"
    );
    // The join comes in its place, and counts.
    assert_eq!(stage.sends(&[&join]), accepted(&[&join]));
    let next = event(carol.as_str(), "m.room.message", None, &json!({ "body": "hi again" }));
    let next = stage.run(stage.puppet.makes_next(&stage.home.view, &stage.room, next));
    assert_eq!(stage.sends(&[&next]), accepted(&[&next]));
    assert!(stage.shows(&next));
}

#[test]
fn a_repeat_while_it_is_under_way_waits_for_the_same_answer() {
    let stage = Stage::new();
    let [message] = stage.line(1).try_into().unwrap();
    let body = json!({ "pdus": [json_of(&message)], "edus": [] });
    let uri = "/_matrix/federation/v1/send/twice";
    let send = || stage.puppet.requests(&stage.name, Method::PUT, uri, Some(&body));
    let (first, second) = stage.run(futures::future::join(send(), send()));
    assert_eq!((first.json, second.json), (accepted(&[&message]), accepted(&[&message])));
    let shown = stage.timeline().iter().filter(|id| **id == message.event_id).count();
    assert_eq!(shown, 1);
}

#[test]
fn what_nobody_gives_is_tried_again_and_delays_nothing_else() {
    let stage = Stage::new();
    let line = stage.line(2);
    stage.puppet.says("/_matrix/federation/v1/get_missing", StatusCode::BAD_GATEWAY, json!({}));
    stage.puppet.says("/_matrix/federation/v1/state", StatusCode::BAD_GATEWAY, json!({}));
    let [fine] = [stage.message_at("fine", stage.end())];
    assert_eq!(stage.sends(&[&line[1], &fine]), accepted(&[&line[1], &fine]));
    stage.passes(Duration::from_secs(2));
    assert!(stage.shows(&fine) && !stage.shows(&line[1]));
    assert_eq!(stage.sends(&[&line[0]]), accepted(&[&line[0]]));
    stage.passes(Duration::from_secs(60));
    assert!(stage.shows(&line[1]), "what it lacked has come");
}

#[test]
fn extremities_that_pile_up_are_merged_unseen() {
    let stage = Stage::new();
    let place = stage.end();
    let forks: Vec<_> = (0..12).map(|n| stage.message_at(&n.to_string(), place.clone())).collect();
    let pdus: Vec<_> = forks.iter().collect();
    assert_eq!(stage.sends(&pdus), accepted(&pdus));
    stage.passes(Duration::from_secs(1));
    assert_eq!(stage.extremities(), 1);
    let mut alice = Client::clone(&stage.alice);
    let synced = stage.run(alice.sync(&stage.home, 100, 0));
    let events = synced["rooms"]["join"][stage.room.as_str()]["timeline"]["events"].as_array().unwrap();
    assert!(events.iter().all(|event| event["type"] != "org.matrix.dummy_event"));
    assert_eq!(events.iter().filter(|event| event["type"] == "m.room.message").count(), 12);
}

#[test]
fn only_the_origin_of_a_request_may_send_a_transaction() {
    let stage = Stage::new();
    let [message] = stage.line(1).try_into().unwrap();
    let other: &ServerName = "elsewhere.test".try_into().unwrap();
    let uri = "/_matrix/federation/v1/send/1";
    let body = json!({ "pdus": [json_of(&message)], "edus": [] });
    let request = stage.home.request(Method::PUT, uri, None, Some(&body));
    assert_eq!(stage.run(request).status, StatusCode::UNAUTHORIZED, "{other}");
    assert!(!stage.shows(&message));
}

/// The signature of a policy server with this key.
fn policy_signature(key: &SigningKey, pdu: &Pdu) -> Value {
    let rules = myelin_dag::rules(&ruma::RoomVersionId::V11).unwrap();
    let mut object: CanonicalJsonObject = serde_json::from_str(&pdu.json).unwrap();
    hash_and_sign_event("remote.test", key.pair(), &mut object, &rules.redaction).unwrap();
    let object = serde_json::to_value(object).unwrap();
    json!({ "remote.test": { "ed25519:policy_server": object["signatures"]["remote.test"]["ed25519:policy_server"] } })
}

#[test]
fn the_policy_server_of_the_room_is_asked() {
    let stage = Stage::new();
    let key = SigningKey::from_seed("policy_server", [5; 32]).unwrap();
    let policy = json!({ "via": "remote.test", "public_keys": { "ed25519": key.public_key_base64() } });
    stage.sets("m.room.policy", "", &policy);
    let [good, unsigned] = stage.line(2).try_into().unwrap();
    let sign = "/_matrix/policy/v1/sign";
    stage.puppet.says(sign, StatusCode::OK, policy_signature(&key, &good));
    assert_eq!(stage.sends(&[&good]), accepted(&[&good]));
    assert_eq!(stage.verdict(&good.event_id), Some(VerdictRecord::Accepted));
    let held = stage.run(stage.home.view.events.load_by_id(&good.event_id)).unwrap().unwrap();
    assert!(held.pdu.json.contains("ed25519:policy_server"), "kept for those who get it from here");
    assert_eq!(stage.sends(&[&unsigned]), accepted(&[&unsigned]));
    let verdict = stage.verdict(&unsigned.event_id);
    let Some(VerdictRecord::SoftFailed { reason }) = verdict else { panic!("{verdict:?}") };
    assert!(reason.contains("policy server"), "{reason}");
    assert_eq!(stage.puppet.asked().iter().filter(|asked| asked.contains(sign)).count(), 2);
}

#[test]
fn the_policy_server_is_asked_about_what_is_made_here() {
    let stage = Stage::new();
    let key = SigningKey::from_seed("policy_server", [5; 32]).unwrap();
    let policy = json!({ "via": "remote.test", "public_keys": { "ed25519": key.public_key_base64() } });
    stage.sets("m.room.policy", "", &policy);
    let sign = "/_matrix/policy/v1/sign";
    let refusal = json!({ "errcode": "M_FORBIDDEN", "error": "This looks like spam." });
    stage.puppet.says(sign, StatusCode::BAD_REQUEST, refusal);
    let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/1", stage.room);
    let answer = stage.run(stage.alice.put(&stage.home, &path, &json!({ "body": "spam" })));
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(answer.json["error"], "This looks like spam.");
    stage.sets("m.room.policy", "", &json!({}));
    let answer = stage.run(stage.alice.put(&stage.home, &path, &json!({ "body": "spam" })));
    assert_eq!(answer.status, StatusCode::OK, "the room has no policy server any more");
}

#[test]
fn an_event_that_comes_after_one_of_another_room_is_dropped() {
    let stage = Stage::new();
    let body = json!({ "preset": "public_chat", "room_version": "11" });
    let other = stage.run(stage.alice.post(&stage.home, "/_matrix/client/v3/createRoom", &body)).ok();
    let other: OwnedRoomId = other["room_id"].as_str().unwrap().try_into().unwrap();
    let mut place = stage.end();
    place.prev_events.extend(stage.run(end_of(&stage.home.view, &other)).prev_events);
    let message = stage.message_at("astray", place);
    assert!(error_of(&stage.sends(&[&message]), &message).contains("another room"));
    assert_eq!(stage.verdict(&message.event_id), None);
}

#[test]
fn what_was_acknowledged_survives_a_restart() {
    let stage = Stage::new();
    let line = stage.line(2);
    stage.puppet.says("/_matrix/federation/v1/get_missing", StatusCode::BAD_GATEWAY, json!({}));
    stage.puppet.says("/_matrix/federation/v1/state", StatusCode::BAD_GATEWAY, json!({}));
    assert_eq!(stage.sends(&[&line[1]]), accepted(&[&line[1]]));
    let rows = stage.run(stage.home.view.store.read().all(&INBOUND_PDUS, 10)).unwrap();
    assert_eq!(rows.len(), 1, "durable");
    let Stage { home, name, room, puppet, .. } = stage;
    let sim = home.sim.rebooted();
    let network = puppet.network().clone();
    let home = Server::start_in(&network, &name, &sim, home.crash());
    sim.block_on(puppet.sends(&name, &[&line[0]]));
    sim.block_on(sim.env().clock.sleep(Duration::from_secs(120)));
    let timeline = sim.block_on(home.truth(room.as_str()));
    assert!(timeline.contains(&line[1].event_id.to_string()));
    let rows = sim.block_on(home.view.store.read().all(&INBOUND_PDUS, 10)).unwrap();
    assert!(rows.is_empty(), "and taken off the queue");
}
