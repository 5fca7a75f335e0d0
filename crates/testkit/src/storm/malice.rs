//! A server in a storm that means no good. It lets a user of its own into the rooms as others do, and then says what it
//! likes. What every real server must make of that is in the checks of the storm: nothing unlawful is held, nobody is
//! held up, and all agree in the end.

use http::{Method, StatusCode};
use myelin_dag::{Names, NewEvent, Parents, Pdu, build, needs_names, room_version};
use ruma::{OwnedEventId, OwnedUserId, RoomId, RoomVersionId, ServerName, events::TimelineEventType};
use serde_json::{Value, json};

use super::{Breadth, Storm, devices::FORGED};
use crate::{
    client::percent,
    puppet::{Place, Puppet, end_of, json_of, state_of},
    server::Server,
    user::Room,
};

pub(super) const NAME: &str = "evil.test";
/// More bytes than an event may have.
const TOO_LARGE: usize = 70_000;
/// More events than a transaction may have.
const TOO_MANY: usize = 51;
/// More ancestors than it gives at a time.
const LONG_CHAIN: usize = 45;
/// Questions that it answers with nonsense when it feels like it.
const NONSENSE_ABOUT: [&str; 4] = ["get_missing_events", "state_ids", "state", "event_auth"];

pub(super) struct Villain {
    puppet: Puppet,
    user: OwnedUserId,
    count: usize,
}

/// A room at a server that is lied to.
struct Scene<'a> {
    server: &'a Server,
    room_id: &'a RoomId,
    version: RoomVersionId,
    end: Place,
}

impl Villain {
    pub fn new(puppet: Puppet) -> Self {
        let user = puppet.user("mallory");
        Self { puppet, user, count: 0 }
    }

    pub fn keys(&self) -> ruma::signatures::PublicKeySet {
        self.puppet.key().public_key_set()
    }

    /// As any server does, in room versions from `oldest` on. What comes of it is seen later.
    async fn joins(&mut self, room: &Room, via: &ServerName, oldest: u8) -> Option<()> {
        let (room_id, user) = (percent(&room.id), percent(self.user.as_str()));
        let versions: Vec<_> = (oldest..=12).map(|version| format!("ver={version}")).collect();
        let uri = format!("/_matrix/federation/v1/make_join/{room_id}/{user}?{}", versions.join("&"));
        let made = self.puppet.try_requests(via, Method::GET, &uri, None).await.ok()?;
        let room_version: RoomVersionId = made.json["room_version"].as_str()?.try_into().ok()?;
        let event = &made.json["event"];
        let (prev_events, auth_events) = (ids_in(&event["prev_events"])?, ids_in(&event["auth_events"])?);
        let content = json!({ "membership": "join" });
        let join = NewEvent::state(self.user.clone(), "m.room.member", self.user.as_str(), &content).ok()?;
        let names = self.names(&room_version, prev_events.iter().chain(&auth_events));
        let parents = Parents {
            room_id: Some(room.id.as_str().try_into().ok()?),
            prev_events,
            auth_events,
            depth: event["depth"].as_u64()?,
            names,
        };
        let now_ms = self.puppet.network().now_ms();
        let pdu = self.puppet.makes(&room_version, join, parents, now_ms);
        let uri = format!("/_matrix/federation/v2/send_join/{room_id}/{}", percent(pdu.event_id.as_str()));
        self.puppet.try_requests(via, Method::PUT, &uri, Some(&json_of(&pdu))).await.ok()?;
        Some(())
    }

    /// A name that was not used before, in the first two room versions.
    fn names<'a>(
        &mut self,
        version: &RoomVersionId,
        referred: impl Iterator<Item = &'a OwnedEventId>,
    ) -> Option<Names> {
        if !room_version::rules(version).is_some_and(|rules| needs_names(&rules)) {
            return None;
        }
        self.count += 1;
        let event_id = format!("$named{}:{NAME}", self.count).try_into().expect("an event id");
        Some(Names { event_id, reference_hashes: referred.map(|id| (id.clone(), String::new())).collect() })
    }

    fn says(&mut self, body: &str) -> NewEvent {
        self.count += 1;
        let content = json!({ "msgtype": "m.text", "body": format!("{body} {}", self.count) });
        self.event("m.room.message", None, &content)
    }

    fn event(&self, kind: &str, state_key: Option<&str>, content: &Value) -> NewEvent {
        NewEvent {
            sender: self.user.clone(),
            event_type: TimelineEventType::from(kind),
            state_key: state_key.map(ToOwned::to_owned),
            content: serde_json::value::to_raw_value(content).expect("JSON"),
            redacts: None,
            sticky_duration_ms: None,
        }
    }

    async fn makes(&self, scene: &Scene<'_>, event: NewEvent, place: Place) -> Pdu {
        self.puppet.makes_in(&scene.server.view, scene.room_id, event, place).await
    }

    /// The event with other parents than it should have.
    fn misplaced(
        &mut self,
        scene: &Scene<'_>,
        event: NewEvent,
        prev: Vec<OwnedEventId>,
        auth: Vec<OwnedEventId>,
    ) -> Pdu {
        let names = self.names(&scene.version, prev.iter().chain(&auth));
        let parents = Parents {
            room_id: Some(scene.room_id.to_owned()),
            prev_events: prev,
            auth_events: auth,
            depth: scene.end.depth,
            names,
        };
        self.puppet.makes(&scene.version, event, parents, self.puppet.network().now_ms())
    }

    /// Events one after the other, the first after one that there is not. None of them is sent.
    async fn chain_from_nowhere(&mut self, scene: &Scene<'_>, length: usize) -> Vec<Pdu> {
        let nowhere = scene.name(&format!("$nowhere{}", self.count));
        let mut place = Place { prev_events: vec![nowhere], depth: scene.end.depth };
        let mut chain = Vec::with_capacity(length);
        for _ in 0..length {
            let event = self.says("before");
            let pdu = self.makes(scene, event, place).await;
            place = Place { prev_events: vec![pdu.event_id.clone()], depth: pdu.depth + 1 };
            chain.push(pdu);
        }
        chain
    }

    /// Two events that come after each other: possible where servers name their events.
    async fn circle(&mut self, scene: &Scene<'_>) -> Vec<Value> {
        let names = ["one", "other"].map(|name| scene.name(&format!("${name}{}", self.count)));
        let mut circle = Vec::new();
        for (name, prev) in names.iter().zip(names.iter().rev()) {
            let event = self.says("in a circle");
            let place = Place { prev_events: vec![prev.clone()], depth: scene.end.depth };
            let (view, room) = (&scene.server.view, scene.room_id);
            let pdu = self.puppet.makes_named(view, room, name.as_str(), event, place, &[]).await;
            circle.push(json_of(&pdu));
        }
        circle
    }

    /// An event after what comes from nowhere and after the end of the room.
    async fn child_of(&mut self, scene: &Scene<'_>, parent: &Pdu) -> Pdu {
        let mut prev_events = vec![parent.event_id.clone()];
        prev_events.extend(scene.end.prev_events.iter().take(1).cloned());
        let child = self.says("a child");
        self.makes(scene, child, Place { prev_events, depth: parent.depth.max(scene.end.depth) + 1 }).await
    }

    /// The state of the room as the server has it, but for some of what it does not need itself.
    async fn pretended_state(&self, scene: &Scene<'_>, left_out: impl Fn() -> bool) -> Vec<OwnedEventId> {
        let state = state_of(&scene.server.view, scene.room_id).await;
        state.iter().for_each(|pdu| self.puppet.knows(pdu));
        let needed = |pdu: &Pdu| {
            pdu.event_type == TimelineEventType::RoomCreate
                || pdu.event_type == TimelineEventType::RoomPowerLevels
                || pdu.state_key.as_deref() == Some(self.user.as_str())
        };
        let told = state.iter().filter(|pdu| needed(pdu) || !left_out());
        told.map(|pdu| pdu.event_id.clone()).collect()
    }

    /// Answers questions about what it made with things that have nothing to do with them.
    fn talks_nonsense(&self, events: &[Value]) {
        let ids = ["$nonsense", "no event id", "$more"];
        let answers = [
            json!({ "events": events }),
            json!({ "pdu_ids": ids, "auth_chain_ids": ids }),
            json!({ "pdus": events, "auth_chain": [5, events] }),
            json!({ "auth_chain": events }),
        ];
        for (about, answer) in NONSENSE_ABOUT.iter().zip(answers) {
            self.puppet.says(&question(about), StatusCode::OK, answer);
        }
    }

    fn talks_sense(&self) {
        NONSENSE_ABOUT.iter().for_each(|about| self.puppet.says_no_more(&question(about)));
    }

    /// An event of somebody else's user, signed by nobody but this server.
    fn forged(&mut self, scene: &Scene<'_>, sender: &str) -> Option<Pdu> {
        let content = json!({ "msgtype": "m.text", "body": "I never said that" });
        let event =
            NewEvent { sender: sender.try_into().ok()?, ..self.event("m.room.message", None, &content) };
        let rules = room_version::rules(&scene.version)?;
        let names = self.names(&scene.version, scene.end.prev_events.iter());
        let parents = Parents {
            room_id: Some(scene.room_id.to_owned()),
            prev_events: scene.end.prev_events.clone(),
            auth_events: Vec::new(),
            depth: scene.end.depth,
            names,
        };
        build(&rules, event, parents, self.puppet.network().now_ms(), self.puppet.key()).ok()
    }
}

impl Scene<'_> {
    fn events_are_named(&self) -> bool {
        room_version::rules(&self.version).is_some_and(|rules| needs_names(&rules))
    }

    /// An id of this server's making, in the form of the room's version.
    fn name(&self, opaque: &str) -> OwnedEventId {
        let server = if self.events_are_named() { format!(":{NAME}") } else { String::new() };
        format!("{opaque}{server}").try_into().expect("an event id")
    }
}

/// Those in a field of a template: in the first two room versions each with a hash.
fn ids_in(field: &Value) -> Option<Vec<OwnedEventId>> {
    let ids = field.as_array()?.iter().map(|entry| entry.get(0).unwrap_or(entry).as_str()?.try_into().ok());
    ids.collect()
}

fn question(about: &str) -> String {
    format!("/_matrix/federation/v1/{about}/")
}

impl Storm {
    /// The villain gets into a room, or does something in one that it is in.
    pub(super) fn do_harm(&mut self) {
        let Some(mut villain) = self.villain.take() else { return };
        let room = self.rooms[self.any(self.rooms.len())].clone();
        let running = self.world.running();
        if !running.is_empty() {
            let (name, server) = &running[self.any(running.len())];
            self.world.run(self.harm(&mut villain, &room, name, server));
        }
        self.villain = Some(villain);
    }

    async fn harm(&self, villain: &mut Villain, room: &Room, name: &ServerName, server: &Server) {
        let room_id = <&RoomId>::try_from(room.id.as_str()).expect("a room id");
        let Ok(Some(snapshot)) = server.view.room_by_id(room_id).await else { return };
        let in_every_version = self.options.breadth >= Breadth::Full;
        if needs_names(&snapshot.info.rules) && !in_every_version {
            return;
        }
        let evil = <&ServerName>::try_from(NAME).expect("a server name");
        if !snapshot.has_server(evil) {
            let oldest = if in_every_version { 1 } else { 3 };
            self.world.env().timeout(super::CLIENT_PATIENCE, villain.joins(room, name, oldest)).await;
            return;
        }
        let end = end_of(&server.view, room_id).await;
        let scene = Scene { server, room_id, version: snapshot.info.version.clone(), end };
        if scene.events_are_named() && self.chance(4) {
            let pdus = villain.circle(&scene).await;
            self.world.network().note(&format!("{NAME} sends a circle in {room_id} to {name}"));
            let sent = villain.puppet.tries_to_send(name, json!(pdus), json!([]));
            self.world.env().timeout(super::CLIENT_PATIENCE, sent).await;
            return;
        }
        let (what, pdus, edus) = match self.options.breadth >= Breadth::Broad && self.chance(4) {
            true => self.lies_beside_events(villain, &scene).await,
            false => {
                let (what, pdus) = self.lies(villain, &scene).await;
                (what, pdus, json!([]))
            }
        };
        self.world.network().note(&format!("{NAME} sends {what} in {room_id} to {name}"));
        let sent = villain.puppet.tries_to_send(name, json!(pdus), edus);
        self.world.env().timeout(super::CLIENT_PATIENCE, sent).await;
    }

    async fn lies(&self, villain: &mut Villain, scene: &Scene<'_>) -> (&'static str, Vec<Value>) {
        let end = || scene.end.clone();
        let message = villain.says("from the villain");
        villain.talks_sense();
        match self.any(15) {
            0 => ("too much", {
                let mut json = json_of(&villain.makes(scene, message, end()).await);
                json["content"]["body"] = "x".repeat(TOO_LARGE).into();
                vec![json]
            }),
            1 => ("another content than was hashed", {
                let mut json = json_of(&villain.makes(scene, message, end()).await);
                json["content"]["body"] = "something else".into();
                vec![json]
            }),
            2 => ("words of others", {
                let user = &self.users[self.any(self.users.len())].id;
                villain.forged(scene, user).iter().map(json_of).collect()
            }),
            3 => ("an event that nobody authorised", {
                let nowhere = vec![scene.name("$nowhere")];
                vec![json_of(&villain.misplaced(scene, message, end().prev_events, nowhere))]
            }),
            4 => ("the child of what it keeps to itself", {
                let hidden = villain.makes(scene, message, end()).await;
                villain.puppet.forgets(&hidden.event_id);
                let place = Place { prev_events: vec![hidden.event_id.clone()], depth: hidden.depth + 1 };
                let child = villain.says("a child");
                vec![json_of(&villain.makes(scene, child, place).await)]
            }),
            5 => ("an event after those of another room", {
                let other = &self.rooms[self.any(self.rooms.len())].id;
                let other = <&RoomId>::try_from(other.as_str()).expect("a room id");
                match scene.server.view.room_by_id(other).await {
                    Ok(Some(_)) => {
                        let place = end_of(&scene.server.view, other).await;
                        vec![json_of(&villain.makes(scene, message, place).await)]
                    }
                    _ => Vec::new(),
                }
            }),
            6 => ("power for itself", {
                let content = json!({ "users": { villain.user.as_str(): 100 } });
                let levels = villain.event("m.room.power_levels", Some(""), &content);
                let levels = villain.makes(scene, levels, end()).await;
                let place = Place { prev_events: vec![levels.event_id.clone()], depth: levels.depth + 1 };
                let topic = villain.event("m.room.topic", Some(""), &json!({ "topic": "mine" }));
                let mut topic = villain.makes(scene, topic, place.clone()).await;
                let mut auth = topic.auth_events.to_vec();
                auth.push(levels.event_id.clone());
                let by_levels = villain.event("m.room.topic", Some(""), &json!({ "topic": "all mine" }));
                topic = villain.misplaced(scene, by_levels, vec![topic.event_id.clone()], auth);
                vec![json_of(&levels), json_of(&topic)]
            }),
            7 => ("a ban that it may not speak", {
                let user = self.users[self.any(self.users.len())].id.clone();
                let ban = villain.event("m.room.member", Some(&user), &json!({ "membership": "ban" }));
                vec![json_of(&villain.makes(scene, ban, end()).await)]
            }),
            8 => ("somebody else's join", {
                let user = self.users[self.any(self.users.len())].id.clone();
                let join = villain.event("m.room.member", Some(&user), &json!({ "membership": "join" }));
                vec![json_of(&villain.makes(scene, join, end()).await)]
            }),
            9 => {
                ("no JSON that is an event", vec![json!({ "room_id": scene.room_id, "type": 5 }), json!([1])])
            }
            10 => ("two things at once", {
                let one = villain.makes(scene, message, end()).await;
                let other = villain.says("the other thing");
                let other = villain.makes(scene, other, end()).await;
                vec![json_of(&one), json_of(&other)]
            }),
            number @ 11..=13 => self.half_truths(villain, scene, message, number).await,
            _ => ("a message", vec![json_of(&villain.makes(scene, message, end()).await)]),
        }
    }

    /// What it has no say in, or no server has to bear.
    async fn lies_beside_events(
        &self,
        villain: &mut Villain,
        scene: &Scene<'_>,
    ) -> (&'static str, Vec<Value>, Value) {
        let user = &self.users[self.any(self.users.len())].id;
        let said = self.spoken.first().map_or("$nothing", |spoken| &spoken.event_id);
        let edu = |kind: &str, content: Value| json!([{ "edu_type": kind, "content": content }]);
        match self.any(6) {
            0 => ("that somebody else types", Vec::new(), {
                let content = json!({ "room_id": scene.room_id, "user_id": user, "typing": true });
                edu("m.typing", content)
            }),
            1 => ("what somebody else read", Vec::new(), {
                let receipt = json!({ "event_ids": [said], "data": { "ts": 4_000_000_000_000_u64 } });
                edu("m.receipt", json!({ scene.room_id.as_str(): { "m.read": { user: receipt } } }))
            }),
            2 => ("keys of somebody else's device", Vec::new(), {
                let content = json!({
                    "user_id": user, "device_id": "EVIL", "stream_id": 1, "prev_id": [], "keys": {
                        "user_id": user, "device_id": "EVIL", "algorithms": [], "keys": {}, "signatures": {},
                    },
                });
                edu("m.device_list_update", content)
            }),
            3 => ("a letter that somebody else wrote", Vec::new(), {
                let messages = json!({ user: { "*": { "words": FORGED } } });
                let content = json!({
                    "sender": user, "type": "org.myelin.letter", "message_id": "forged", "messages": messages,
                });
                edu("m.direct_to_device", content)
            }),
            4 => (
                "more events than fit",
                {
                    let message = villain.says("one of many");
                    let message = json_of(&villain.makes(scene, message, scene.end.clone()).await);
                    vec![message; TOO_MANY]
                },
                json!([]),
            ),
            _ => (
                "EDUs that are none",
                Vec::new(),
                json!([
                    { "edu_type": "m.typing", "content": 5 },
                    { "edu_type": "m.receipt", "content": { scene.room_id.as_str(): [] } },
                    { "edu_type": "m.device_list_update", "content": { "user_id": villain.user, "prev_id": "x" } },
                    { "edu_type": "org.example.unknown", "content": {} },
                ]),
            ),
        }
    }

    /// Events that may well be lawful, after what the servers are to ask it for.
    async fn half_truths(
        &self,
        villain: &mut Villain,
        scene: &Scene<'_>,
        message: NewEvent,
        number: usize,
    ) -> (&'static str, Vec<Value>) {
        match number {
            11 => ("an event after a state of its own making", {
                let parent = villain.chain_from_nowhere(scene, 1).await.remove(0);
                let state = villain.pretended_state(scene, || self.chance(4)).await;
                villain.puppet.knows_state(&parent, state);
                vec![json_of(&villain.child_of(scene, &parent).await)]
            }),
            12 => ("the end of a long chain from nowhere", {
                let chain = villain.chain_from_nowhere(scene, LONG_CHAIN).await;
                match chain.last() {
                    Some(last) => vec![json_of(&villain.child_of(scene, last).await)],
                    None => Vec::new(),
                }
            }),
            _ => ("an event about which it talks nonsense", {
                let hidden = villain.makes(scene, message, scene.end.clone()).await;
                villain.puppet.forgets(&hidden.event_id);
                let mut foreign = json_of(&hidden);
                foreign["room_id"] = json!("!elsewhere:evil.test");
                villain.talks_nonsense(&[foreign, json!(5), json!({ "type": "m.room.message" })]);
                vec![json_of(&villain.child_of(scene, &hidden).await)]
            }),
        }
    }
}
