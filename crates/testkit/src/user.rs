//! What users do and see, in the words of a story. An action is one request and must succeed; `try_*` answers what the
//! server said.

use std::cell::RefCell;

use http::Method;
use ruma::UserId;
use serde_json::{Value, json};

use crate::{
    client::{Client, RoomView, percent, text},
    server::Answer,
    world::World,
};

/// Events in the timeline of one sync.
const TIMELINE_LIMIT: usize = 20;

/// A room as a story refers to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Room {
    pub id: String,
    /// A server that takes part in it: whom others ask when they join.
    pub via: String,
}

pub struct User {
    pub id: String,
    pub server: String,
    world: World,
    token: String,
    client: RefCell<Client>,
}

impl User {
    pub(crate) fn register(world: &World, user_id: &UserId) -> Self {
        let name = user_id.server_name().as_str();
        let server = world.server(name).expect("a server that is on");
        let client = world.run(Client::register(&server, user_id.localpart()));
        let (id, token) = (client.user_id.clone(), client.token.clone());
        let client = RefCell::new(Client { state_after: true, ..client });
        Self { id, server: name.to_owned(), world: world.clone(), token, client }
    }

    /// The access token, for requests that have no words of their own.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// `None`: the server is off, or went down before it answered.
    pub async fn request(&self, method: Method, path: &str, body: Option<Value>) -> Option<Answer> {
        self.requests(method, &format!("/_matrix/client/v3/{path}"), body).await
    }

    /// The same with a whole path.
    pub async fn requests(&self, method: Method, path: &str, body: Option<Value>) -> Option<Answer> {
        let server = self.world.server(&self.server)?;
        server.try_request(method, path, Some(&self.token), body.as_ref()).await
    }

    #[track_caller]
    fn does(&self, method: Method, path: &str, body: Value) -> Value {
        match self.world.run(self.request(method.clone(), path, Some(body))) {
            Some(answer) if answer.is_ok() => answer.json,
            Some(answer) => panic!("{} {method} {path}: {} {}", self.id, answer.status, answer.json),
            None => panic!("{} {method} {path}: the server is off", self.id),
        }
    }

    /// What the server says to a request of the client API below `/_matrix/client/v3/`.
    #[track_caller]
    pub fn tries(&self, method: Method, path: &str, body: Value) -> Answer {
        self.world.run(self.request(method, path, Some(body))).expect("the server is on")
    }

    #[track_caller]
    pub fn gets(&self, path: &str) -> Value {
        let answer = self.world.run(self.request(Method::GET, path, None)).expect("the server is on");
        answer.ok()
    }

    #[track_caller]
    pub fn creates_room(&self, body: Value) -> Room {
        let created = self.does(Method::POST, "createRoom", body);
        Room { id: text(&created["room_id"]), via: self.server.clone() }
    }

    #[track_caller]
    pub fn creates_public_room(&self) -> Room {
        self.creates_room(json!({ "preset": "public_chat" }))
    }

    #[track_caller]
    pub fn joins(&self, room: &Room) {
        self.does(Method::POST, &join_path(room), json!({}));
    }

    pub fn tries_to_join(&self, room: &Room) -> Answer {
        self.tries(Method::POST, &join_path(room), json!({}))
    }

    #[track_caller]
    pub fn invites(&self, room: &Room, user: &Self) {
        self.acts(room, "invite", json!({ "user_id": user.id }));
    }

    #[track_caller]
    pub fn leaves(&self, room: &Room) {
        self.acts(room, "leave", json!({}));
    }

    #[track_caller]
    pub fn kicks(&self, room: &Room, user: &Self) {
        self.acts(room, "kick", json!({ "user_id": user.id }));
    }

    /// Answers the event id of the ban.
    #[track_caller]
    pub fn bans(&self, room: &Room, user: &Self) -> String {
        self.acts(room, "ban", json!({ "user_id": user.id }));
        let path =
            format!("rooms/{}/state/m.room.member/{}?format=event", percent(&room.id), percent(&user.id));
        text(&self.gets(&path)["event_id"])
    }

    #[track_caller]
    pub fn unbans(&self, room: &Room, user: &Self) {
        self.acts(room, "unban", json!({ "user_id": user.id }));
    }

    /// `POST /rooms/{room}/{what}`.
    #[track_caller]
    pub fn acts(&self, room: &Room, what: &str, body: Value) -> Value {
        self.does(Method::POST, &format!("rooms/{}/{what}", percent(&room.id)), body)
    }

    /// Sends a message; answers its event id.
    #[track_caller]
    pub fn sends(&self, room: &Room, body: &str) -> String {
        let path = format!("rooms/{}/send/m.room.message/{}", percent(&room.id), self.transaction_id());
        text(&self.does(Method::PUT, &path, json!({ "msgtype": "m.text", "body": body }))["event_id"])
    }

    #[track_caller]
    pub fn redacts(&self, room: &Room, event_id: &str) -> String {
        let path =
            format!("rooms/{}/redact/{}/{}", percent(&room.id), percent(event_id), self.transaction_id());
        text(&self.does(Method::PUT, &path, json!({}))["event_id"])
    }

    /// Sets a piece of state; answers its event id.
    #[track_caller]
    pub fn sets(&self, room: &Room, event_type: &str, state_key: &str, content: Value) -> String {
        let path = format!("rooms/{}/state/{event_type}/{}", percent(&room.id), percent(state_key));
        text(&self.does(Method::PUT, &path, content)["event_id"])
    }

    /// The content of a piece of state at the own server; `Null` if there is none.
    pub fn state(&self, room: &Room, event_type: &str, state_key: &str) -> Value {
        let path = format!("rooms/{}/state/{event_type}/{}", percent(&room.id), percent(state_key));
        let answer = self.world.run(self.request(Method::GET, &path, None)).expect("the server is on");
        if answer.is_ok() { answer.json } else { Value::Null }
    }

    /// Gives users power, above what the room has.
    #[track_caller]
    pub fn gives_power(&self, room: &Room, user: &Self, level: i64) {
        let mut levels = self.state(room, "m.room.power_levels", "");
        levels["users"][&user.id] = json!(level);
        self.sets(room, "m.room.power_levels", "", levels);
    }

    #[track_caller]
    pub fn types(&self, room: &Room) {
        self.sets_typing(room, json!({ "typing": true, "timeout": 30_000 }));
    }

    #[track_caller]
    pub fn stops_typing(&self, room: &Room) {
        self.sets_typing(room, json!({ "typing": false }));
    }

    #[track_caller]
    pub fn sets_typing(&self, room: &Room, body: Value) {
        let path = format!("rooms/{}/typing/{}", percent(&room.id), percent(&self.id));
        self.does(Method::PUT, &path, body);
    }

    #[track_caller]
    pub fn reads(&self, room: &Room, event_id: &str) {
        let path = format!("rooms/{}/receipt/m.read/{}", percent(&room.id), percent(event_id));
        self.does(Method::POST, &path, json!({}));
    }

    /// Waits until a message with that body is in the timeline. Answers how many simulated milliseconds that took, as
    /// everything here that waits.
    #[track_caller]
    pub fn sees(&self, room: &Room, body: &str) -> u64 {
        self.sees_in(room, &format!("the message '{body}'"), |view| {
            view.timeline.iter().any(|id| view.events[id]["content"]["body"] == body)
        })
    }

    #[track_caller]
    pub fn sees_event(&self, room: &Room, event_id: &str) -> u64 {
        self.sees_in(room, event_id, |view| view.timeline.iter().any(|id| id == event_id))
    }

    /// Waits until the membership of a user, oneself included, is what the client shows.
    #[track_caller]
    pub fn sees_member(&self, room: &Room, user: &Self, membership: &str) -> u64 {
        self.sees_in(room, &format!("{} as '{membership}'", user.id), |view| {
            let event = view.state_event("m.room.member", &user.id);
            event.map_or("leave", |event| event["content"]["membership"].as_str().unwrap_or_default())
                == membership
        })
    }

    #[track_caller]
    pub fn sees_state(&self, room: &Room, event_type: &str, state_key: &str, content: &Value) -> u64 {
        self.sees_in(room, &format!("{event_type} '{state_key}': {content}"), |view| {
            view.state_event(event_type, state_key).is_some_and(|event| event["content"] == *content)
        })
    }

    #[track_caller]
    pub fn sees_typing(&self, room: &Room, user: &Self) -> u64 {
        self.sees_in(room, &format!("{} typing", user.id), |view| view.typing.contains(&user.id))
    }

    #[track_caller]
    pub fn sees_nobody_typing(&self, room: &Room) -> u64 {
        self.sees_in(room, "nobody typing", |view| view.typing.is_empty())
    }

    #[track_caller]
    pub fn sees_read(&self, room: &Room, user: &Self, event_id: &str) -> u64 {
        self.sees_in(room, &format!("that {} read {event_id}", user.id), |view| {
            view.read.get(&user.id).is_some_and(|id| id == event_id)
        })
    }

    #[track_caller]
    pub fn sees_invite(&self, room: &Room) -> u64 {
        self.sees_that(&format!("an invite to {}", room.id), |client| client.invites.contains_key(&room.id))
    }

    #[track_caller]
    pub fn sees_no_invite(&self, room: &Room) -> u64 {
        self.sees_that(&format!("no invite to {}", room.id), |client| !client.invites.contains_key(&room.id))
    }

    /// Waits until the client shows the room as joined.
    #[track_caller]
    pub fn sees_room(&self, room: &Room) -> u64 {
        self.sees_in(room, "the room", |view| view.joined)
    }

    /// Waits until the client shows the room as left.
    #[track_caller]
    pub fn sees_room_left(&self, room: &Room) -> u64 {
        self.sees_in(room, "the room as left", |view| !view.joined)
    }

    #[track_caller]
    pub fn sees_in(&self, room: &Room, what: &str, condition: impl Fn(&RoomView) -> bool) -> u64 {
        let condition = |client: &Client| client.rooms.get(&room.id).is_some_and(&condition);
        self.sees_that(&format!("{what} in {}", room.id), condition)
    }

    /// Syncs until the client shows something.
    #[track_caller]
    pub fn sees_that(&self, what: &str, condition: impl Fn(&Client) -> bool) -> u64 {
        self.world.wait_until(&format!("{} sees {what}", self.id), async || {
            self.syncs().await;
            condition(&self.client.borrow())
        })
    }

    /// One sync, now.
    pub fn syncs_now(&self) {
        self.world.run(self.syncs());
    }

    /// One sync, unless the server is off.
    pub async fn syncs(&self) {
        let Some(server) = self.world.server(&self.server) else { return };
        let mut client = self.client.take();
        client.try_sync(&server, TIMELINE_LIMIT, 0).await;
        self.client.replace(client);
    }

    /// What the client shows now.
    pub fn shows<T>(&self, read: impl FnOnce(&Client) -> T) -> T {
        read(&self.client.borrow())
    }

    /// A transaction id that was not used before.
    pub fn transaction_id(&self) -> String {
        self.world.env().random_string(12)
    }
}

fn join_path(room: &Room) -> String {
    format!("join/{}?via={via}&server_name={via}", percent(&room.id), via = percent(&room.via))
}
