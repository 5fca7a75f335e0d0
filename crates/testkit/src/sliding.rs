//! A client of sliding sync that keeps what it was shown, and complains when that does not fit together.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use myelin_core::{SlidingToken, TimelineOrder};
use serde_json::{Value, json};

use crate::{
    client::{Client, RoomView, percent, text},
    gaps::{self, Told},
    server::{Answer, Server},
};

pub const PATH: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";

/// Everything of every room.
pub fn everything() -> Value {
    json!([["*", "*"]])
}

/// Beside the session it has nothing in common with the [`Client`] that it is made of.
#[derive(Clone)]
pub struct Sliding {
    pub client: Client,
    pub conn_id: String,
    pub pos: Option<String>,
    pub rooms: BTreeMap<String, RoomView>,
    pub invites: BTreeSet<String>,
    /// (room, type) -> content; "" for what is global.
    pub account_data: BTreeMap<(String, String), Value>,
    /// Unread notifications and highlights.
    pub unread: BTreeMap<String, (u64, u64)>,
    /// Answers thrown away because the position was not known, so that the client began anew.
    pub restarts: usize,
}

impl Sliding {
    pub fn of(client: &Client, conn_id: &str) -> Self {
        Self {
            client: Client {
                user_id: client.user_id.clone(),
                token: client.token.clone(),
                ..Client::default()
            },
            conn_id: conn_id.to_owned(),
            pos: None,
            rooms: BTreeMap::new(),
            invites: BTreeSet::new(),
            account_data: BTreeMap::new(),
            unread: BTreeMap::new(),
            restarts: 0,
        }
    }

    /// The answer as it came; the client takes nothing in. `None`: the server went down meanwhile.
    pub async fn ask(&self, server: &Server, body: &Value, timeout_ms: u64) -> Option<Answer> {
        let mut path = format!("{PATH}?timeout={timeout_ms}&set_presence=offline");
        if let Some(pos) = &self.pos {
            path = format!("{path}&pos={pos}");
        }
        let mut body = body.clone();
        body["conn_id"] = json!(self.conn_id);
        server.try_request(Method::POST, &path, Some(&self.client.token), Some(&body)).await
    }

    /// One sync: asks, takes in, fills gaps. Begins anew if the server does not know the position any more.
    ///
    /// # Panics
    /// If what comes contradicts what the client knows, or the server goes down.
    pub async fn sync(&mut self, server: &Server, body: &Value, timeout_ms: u64) -> Value {
        self.try_sync(server, body, timeout_ms).await.expect("the server goes on until it has answered")
    }

    /// `None`: the server went down meanwhile; the client knows what it knew before.
    ///
    /// # Panics
    /// If what comes contradicts what the client knows.
    pub async fn try_sync(&mut self, server: &Server, body: &Value, timeout_ms: u64) -> Option<Value> {
        let answer = self.ask(server, body, timeout_ms).await?;
        let answer = if answer.json["errcode"] == "M_UNKNOWN_POS" {
            *self = Self { restarts: self.restarts + 1, ..Self::of(&self.client, &self.conn_id) };
            self.ask(server, body, timeout_ms).await?.ok()
        } else {
            answer.ok()
        };
        self.check_gaps(server, body, &answer).await;
        let mut next = self.clone();
        for (room_id, room) in entries(&answer["rooms"]) {
            next.take_in_room(server, room_id, room).await?;
        }
        next.take_in_extensions(&answer["extensions"]);
        next.pos = Some(text(&answer["pos"]));
        *self = next;
        Some(answer)
    }

    /// As [`Client`] does; where the client asks for all rooms alike.
    async fn check_gaps(&self, server: &Server, body: &Value, answer: &Value) {
        let mut lists = entries(&body["lists"]);
        let (Some((_, list)), None, true) =
            (lists.next(), lists.next(), body["room_subscriptions"].is_null())
        else {
            return;
        };
        let limit = list["timeline_limit"].as_u64().and_then(|limit| limit.try_into().ok());
        let until = answer["pos"].as_str().and_then(|pos| pos.parse::<SlidingToken>().ok());
        let (Some(limit), Some(until)) = (limit, until) else { return };
        for (room_id, room) in entries(&answer["rooms"]) {
            let joins_on = room["initial"] != true && room["unstable_expanded_timeline"] != true;
            let last = self.rooms.get(room_id).filter(|view| joins_on && view.joined);
            let Some(last) = last.and_then(|view| view.timeline.last()).filter(|_| room["limited"] == true)
            else {
                continue;
            };
            let shown = room["timeline"].as_array().into_iter().flatten();
            let shown = shown.filter_map(|event| event["event_id"].as_str()).collect();
            let until = TimelineOrder::from(until.position);
            let told = Told { room_id, last, since: None, until, shown, limit, state_fits_start: false };
            gaps::check(server, &self.client.user_id, &told).await;
        }
    }

    async fn take_in_room(&mut self, server: &Server, room_id: &str, room: &Value) -> Option<()> {
        let mut view = self.rooms.remove(room_id).unwrap_or_default();
        let was_joined = view.joined;
        view.joined = room["membership"] == "join";
        if room["membership"] == "invite" {
            assert!(room["invite_state"].is_array(), "{room}");
            self.invites.insert(room_id.to_owned());
        } else {
            self.invites.remove(room_id);
        }
        if room["initial"] == true {
            view = RoomView { joined: view.joined, ..RoomView::default() };
        }
        if view.joined || was_joined {
            let events = self.new_events(server, room_id, room, &view).await;
            // Who has forgotten the room besides reads nothing of it.
            let events = if view.joined { events? } else { events.unwrap_or_default() };
            events.into_iter().for_each(|event| view.append(event));
            for event in room["required_state"].as_array().into_iter().flatten() {
                view.set_state(event);
            }
        }
        if let (Some(notifications), Some(highlights)) =
            (room["notification_count"].as_u64(), room["highlight_count"].as_u64())
        {
            self.unread.insert(room_id.to_owned(), (notifications, highlights));
        }
        self.rooms.insert(room_id.to_owned(), view);
        Some(())
    }

    /// What follows in the timeline on what the client has.
    async fn new_events(
        &self,
        server: &Server,
        room_id: &str,
        room: &Value,
        view: &RoomView,
    ) -> Option<Vec<Value>> {
        let events = room["timeline"].as_array().cloned().unwrap_or_default();
        let is_known = |event: &Value| view.timeline.contains(&text(&event["event_id"]));
        let known = events.iter().rposition(is_known);
        let expanded = room["unstable_expanded_timeline"] == true;
        assert!(
            known.is_none() || expanded,
            "{} saw an event twice in {room_id}: {room}",
            self.client.user_id
        );
        if let Some(known) = known {
            return Some(events[known + 1..].to_vec());
        }
        let has_timeline = room["prev_batch"].is_string();
        if room["limited"] != true || !has_timeline {
            return Some(events);
        }
        let mut all = self.client.fill_gap(server, room_id, text(&room["prev_batch"]), view).await?;
        all.extend(events);
        Some(all)
    }

    fn take_in_extensions(&mut self, extensions: &Value) {
        for event in extensions["account_data"]["global"].as_array().into_iter().flatten() {
            self.account_data.insert((String::new(), text(&event["type"])), event["content"].clone());
        }
        for (room_id, events) in entries(&extensions["account_data"]["rooms"]) {
            for event in events.as_array().into_iter().flatten() {
                self.account_data.insert((room_id.clone(), text(&event["type"])), event["content"].clone());
            }
        }
        for extension in ["receipts", "typing"] {
            for (room_id, event) in entries(&extensions[extension]["rooms"]) {
                self.rooms.entry(room_id.clone()).or_default().take_in_ephemeral(event);
            }
        }
    }
}

/// The state of a room by the server's own word.
///
/// # Panics
/// If the client may not see it.
pub async fn state_of(server: &Server, client: &Client, room_id: &str) -> BTreeMap<(String, String), String> {
    let path = format!("/_matrix/client/v3/rooms/{}/state", percent(room_id));
    let state = client.get(server, &path).await.ok();
    let key = |event: &Value| ((text(&event["type"]), text(&event["state_key"])), text(&event["event_id"]));
    state.as_array().into_iter().flatten().map(key).collect()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
