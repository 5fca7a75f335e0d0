//! A client that keeps what it was shown, as a real one does, and complains when that does not fit together.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, StatusCode};
use myelin_core::{SyncToken, TimelineOrder};
use serde_json::{Value, json};

use crate::{
    gaps::{self, Told},
    server::{Answer, Server},
};

/// Pages read to fill one gap.
const GAP_PAGES_MAX: usize = 500;

/// State is put together from `state` and the timeline, unless `state_after` says so.
#[derive(Default, Clone)]
pub struct Client {
    pub user_id: String,
    pub token: String,
    pub since: Option<String>,
    pub rooms: BTreeMap<String, RoomView>,
    pub invites: BTreeMap<String, Value>,
    /// The words of to-device messages (`org.myelin.letter`), in the order in which they came.
    pub letters: Vec<String>,
    /// Asks for `state_after` and takes state from nowhere else.
    pub state_after: bool,
}

/// A room as one client knows it.
#[derive(Default, Clone)]
pub struct RoomView {
    /// Event ids, oldest first, without gaps.
    pub timeline: Vec<String>,
    /// (type, state key) -> event id.
    pub state: BTreeMap<(String, String), String>,
    /// The events of timeline and state as they were shown.
    pub events: BTreeMap<String, Value>,
    pub typing: BTreeSet<String>,
    /// User -> the event that the newest public receipt names.
    pub read: BTreeMap<String, String>,
    pub joined: bool,
    /// Type -> content.
    pub account_data: BTreeMap<String, Value>,
    /// Unread notifications and highlights.
    pub unread: Option<(u64, u64)>,
}

impl Client {
    /// Registers a user.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn register(server: &Server, name: &str) -> Self {
        let body = json!({ "username": name, "password": "secret of the simulation", "auth": { "type": "m.login.dummy" } });
        let answer =
            server.request(Method::POST, "/_matrix/client/v3/register", None, Some(&body)).await.ok();
        Self { user_id: text(&answer["user_id"]), token: text(&answer["access_token"]), ..Self::default() }
    }

    pub async fn get(&self, server: &Server, path: &str) -> Answer {
        server.request(Method::GET, path, Some(&self.token), None).await
    }

    pub async fn post(&self, server: &Server, path: &str, body: &Value) -> Answer {
        server.request(Method::POST, path, Some(&self.token), Some(body)).await
    }

    pub async fn put(&self, server: &Server, path: &str, body: &Value) -> Answer {
        server.request(Method::PUT, path, Some(&self.token), Some(body)).await
    }

    /// One sync: asks, takes in, fills gaps. `limit` is that of the timeline.
    ///
    /// # Panics
    /// If what comes contradicts what the client knows, or the server goes down.
    pub async fn sync(&mut self, server: &Server, limit: usize, timeout_ms: u64) -> Value {
        let answer = self.try_sync(server, limit, timeout_ms).await;
        answer.expect("the server goes on until it has answered")
    }

    /// `None`: the server went down meanwhile; the client knows what it knew before.
    ///
    /// # Panics
    /// If what comes contradicts what the client knows.
    pub async fn try_sync(&mut self, server: &Server, limit: usize, timeout_ms: u64) -> Option<Value> {
        let filter = format!(r#"{{"room":{{"timeline":{{"limit":{limit}}}}}}}"#);
        let filter = percent(&filter);
        let mut path =
            format!("/_matrix/client/v3/sync?filter={filter}&timeout={timeout_ms}&set_presence=offline");
        if self.state_after {
            path.push_str("&use_state_after=true");
        }
        if let Some(since) = &self.since {
            path = format!("{path}&since={since}");
        }
        let answer = self.try_get(server, &path).await?.ok();
        self.check_gaps(server, &answer, limit).await;
        let gaps = self.fill_gaps(server, &answer).await?;
        self.take_in(&answer, gaps, limit);
        self.since = Some(text(&answer["next_batch"]));
        Some(answer)
    }

    async fn try_get(&self, server: &Server, path: &str) -> Option<Answer> {
        server.try_request(Method::GET, path, Some(&self.token), None).await
    }

    /// Nobody who follows a room is to page back for what the server has had to show.
    async fn check_gaps(&self, server: &Server, answer: &Value, limit: usize) {
        let order = |token: &str| token.parse().map(|token: SyncToken| TimelineOrder::from(token.position));
        let Some(since) = self.since.as_deref().map(|since| order(since).expect("a token")) else { return };
        let until = order(answer["next_batch"].as_str().unwrap_or_default()).expect("a token");
        for (room_id, room) in ["join", "leave"].iter().flat_map(|section| entries(&answer["rooms"][section]))
        {
            let timeline = &room["timeline"];
            let last =
                self.rooms.get(room_id).filter(|view| view.joined).and_then(|view| view.timeline.last());
            let Some(last) = last.filter(|_| timeline["limited"] == true) else { continue };
            let shown = timeline["events"].as_array().into_iter().flatten();
            let shown = shown.filter_map(|event| event["event_id"].as_str()).collect();
            let state_fits_start = !self.state_after;
            let told = Told { room_id, last, since: Some(since), until, shown, limit, state_fits_start };
            gaps::check(server, &self.user_id, &told).await;
        }
    }

    async fn fill_gaps(&self, server: &Server, answer: &Value) -> Option<BTreeMap<String, Vec<Value>>> {
        let mut gaps = BTreeMap::new();
        let nothing = RoomView::default();
        for section in ["join", "leave"] {
            for (room_id, room) in entries(&answer["rooms"][section]) {
                let known = self.rooms.get(room_id).filter(|view| view.joined);
                let wanted = section == "join" || known.is_some();
                if wanted && room["timeline"]["limited"] == true {
                    let from = text(&room["timeline"]["prev_batch"]);
                    let gap = self.fill_gap(server, room_id, from, known.unwrap_or(&nothing)).await;
                    // Who has forgotten the room besides reads nothing of it.
                    let gap = if section == "leave" { gap.unwrap_or_default() } else { gap? };
                    gaps.insert(room_id.clone(), gap);
                }
            }
        }
        Some(gaps)
    }

    fn take_in(&mut self, answer: &Value, mut gaps: BTreeMap<String, Vec<Value>>, limit: usize) {
        let letters = answer["to_device"]["events"].as_array().into_iter().flatten();
        self.letters.extend(letters.map(|letter| text(&letter["content"]["words"])));
        for (room_id, room) in entries(&answer["rooms"]["join"]) {
            self.invites.remove(room_id);
            self.take_in_joined(room_id, room, gaps.remove(room_id).unwrap_or_default(), limit);
        }
        for (room_id, room) in entries(&answer["rooms"]["leave"]) {
            self.invites.remove(room_id);
            if self.rooms.get(room_id).is_some_and(|view| view.joined) {
                self.take_in_joined(room_id, room, gaps.remove(room_id).unwrap_or_default(), limit);
            }
            self.rooms.entry(room_id.clone()).or_default().joined = false;
        }
        for (room_id, _) in entries(&answer["rooms"]["knock"]) {
            self.invites.remove(room_id);
            self.rooms.entry(room_id.clone()).or_default().joined = false;
        }
        for (room_id, room) in entries(&answer["rooms"]["invite"]) {
            // Left and invited again since the last sync.
            self.rooms.entry(room_id.clone()).or_default().joined = false;
            self.invites.insert(room_id.clone(), room["invite_state"].clone());
        }
    }

    fn take_in_joined(&mut self, room_id: &str, room: &Value, gap: Vec<Value>, limit: usize) {
        let mut view = self.rooms.remove(room_id).unwrap_or_default();
        if !view.joined {
            // Newly joined: start anew.
            view = RoomView { joined: true, ..RoomView::default() };
        }
        let events = room["timeline"]["events"].as_array().cloned().unwrap_or_default();
        assert!(events.len() <= limit, "{} events in a timeline of at most {limit}", events.len());
        for event in gap {
            view.append(event);
        }
        for event in room["state"]["events"].as_array().into_iter().flatten() {
            view.set_state(event);
        }
        for event in events {
            let id = text(&event["event_id"]);
            assert!(!view.timeline.contains(&id), "{} saw {id} twice in {room_id}", self.user_id);
            if !self.state_after {
                view.set_state(&event);
            }
            view.append(event);
        }
        for event in room["state_after"]["events"].as_array().into_iter().flatten() {
            view.set_state(event);
        }
        for event in room["ephemeral"]["events"].as_array().into_iter().flatten() {
            view.take_in_ephemeral(event);
        }
        for event in room["account_data"]["events"].as_array().into_iter().flatten() {
            view.account_data.insert(text(&event["type"]), event["content"].clone());
        }
        let unread = &room["unread_notifications"];
        if let (Some(notifications), Some(highlights)) =
            (unread["notification_count"].as_u64(), unread["highlight_count"].as_u64())
        {
            view.unread = Some((notifications, highlights));
        }
        self.rooms.insert(room_id.to_owned(), view);
    }

    /// Pages back from `from` to what the client has, or to the beginning. Oldest first.
    pub(crate) async fn fill_gap(
        &self,
        server: &Server,
        room_id: &str,
        from: String,
        view: &RoomView,
    ) -> Option<Vec<Value>> {
        let mut found = Vec::new();
        let mut from = Some(from);
        for _ in 0..GAP_PAGES_MAX {
            let Some(token) = from else { break };
            let path =
                format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=7&from={token}", percent(room_id));
            let page = self.try_get(server, &path).await?;
            if page.status == StatusCode::FORBIDDEN {
                // Put out, and perhaps invited again, since the sync: the next one says so.
                return None;
            }
            let page = page.ok();
            for event in page["chunk"].as_array().into_iter().flatten() {
                let id = text(&event["event_id"]);
                if view.timeline.last() == Some(&id) {
                    found.reverse();
                    return Some(found);
                }
                assert!(
                    !view.timeline.contains(&id),
                    "the gap in {room_id} runs past what {} has",
                    self.user_id
                );
                found.push(event.clone());
            }
            from = page["end"].as_str().map(str::to_owned);
        }
        assert!(
            view.timeline.is_empty(),
            "the gap in {room_id} does not end where {}'s view does",
            self.user_id
        );
        found.reverse();
        Some(found)
    }
}

impl RoomView {
    /// The event of the state, if the client has seen it.
    pub fn state_event(&self, event_type: &str, state_key: &str) -> Option<&Value> {
        self.events.get(self.state.get(&(event_type.to_owned(), state_key.to_owned()))?)
    }

    pub(crate) fn append(&mut self, event: Value) {
        let id = text(&event["event_id"]);
        self.timeline.push(id.clone());
        self.events.insert(id, event);
    }

    pub(crate) fn set_state(&mut self, event: &Value) {
        if let Some(state_key) = event["state_key"].as_str() {
            let id = text(&event["event_id"]);
            self.state.insert((text(&event["type"]), state_key.to_owned()), id.clone());
            self.events.insert(id, event.clone());
        }
    }

    pub(crate) fn take_in_ephemeral(&mut self, event: &Value) {
        let content = &event["content"];
        match event["type"].as_str() {
            Some("m.typing") => {
                self.typing = content["user_ids"].as_array().into_iter().flatten().map(text).collect();
            }
            Some("m.receipt") => {
                for (event_id, receipts) in entries(content) {
                    for (user, _) in entries(&receipts["m.read"]) {
                        self.read.insert(user.clone(), event_id.clone());
                    }
                }
            }
            _ => {}
        }
    }
}

/// Percent-encodes what may not stand in a path or a query.
pub fn percent(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
