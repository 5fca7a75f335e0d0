//! A client that keeps what it was shown, as a real one does, and complains when that does not fit together.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use crate::server::{Answer, Server};

/// Pages read to fill one gap.
const GAP_PAGES_MAX: usize = 500;

#[derive(Clone)]
pub struct Client {
    pub user_id: String,
    pub token: String,
    pub since: Option<String>,
    pub rooms: BTreeMap<String, RoomView>,
    pub invites: BTreeMap<String, Value>,
}

/// A room as one client knows it.
#[derive(Default, Clone)]
pub struct RoomView {
    /// Event ids, oldest first, without gaps.
    pub timeline: Vec<String>,
    /// (type, state key) -> event id.
    pub state: BTreeMap<(String, String), String>,
    pub joined: bool,
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
        Self {
            user_id: text(&answer["user_id"]),
            token: text(&answer["access_token"]),
            since: None,
            rooms: BTreeMap::new(),
            invites: BTreeMap::new(),
        }
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
    /// If what comes contradicts what the client knows.
    pub async fn sync(&mut self, server: &Server, limit: usize, timeout_ms: u64) -> Value {
        let filter = format!(r#"{{"room":{{"timeline":{{"limit":{limit}}}}}}}"#);
        let filter = percent(&filter);
        let mut path =
            format!("/_matrix/client/v3/sync?filter={filter}&timeout={timeout_ms}&set_presence=offline");
        if let Some(since) = &self.since {
            path = format!("{path}&since={since}");
        }
        let answer = self.get(server, &path).await.ok();
        self.take_in(server, &answer, limit).await;
        self.since = Some(text(&answer["next_batch"]));
        answer
    }

    async fn take_in(&mut self, server: &Server, answer: &Value, limit: usize) {
        for (room_id, room) in entries(&answer["rooms"]["join"]) {
            self.invites.remove(room_id);
            self.take_in_joined(server, room_id, room, limit).await;
        }
        for (room_id, room) in entries(&answer["rooms"]["leave"]) {
            self.invites.remove(room_id);
            if self.rooms.get(room_id).is_some_and(|view| view.joined) {
                self.take_in_joined(server, room_id, room, limit).await;
            }
            self.rooms.entry(room_id.clone()).or_default().joined = false;
        }
        for (room_id, room) in entries(&answer["rooms"]["invite"]) {
            // Left and invited again since the last sync.
            self.rooms.entry(room_id.clone()).or_default().joined = false;
            self.invites.insert(room_id.clone(), room["invite_state"].clone());
        }
    }

    async fn take_in_joined(&mut self, server: &Server, room_id: &str, room: &Value, limit: usize) {
        let mut view = self.rooms.remove(room_id).unwrap_or_default();
        if !view.joined {
            // Newly joined: start anew.
            view = RoomView { joined: true, ..RoomView::default() };
        }
        let events = room["timeline"]["events"].as_array().cloned().unwrap_or_default();
        assert!(events.len() <= limit, "{} events in a timeline of at most {limit}", events.len());
        if room["timeline"]["limited"] == true {
            let gap = self.fill_gap(server, room_id, &room["timeline"]["prev_batch"], &view).await;
            view.timeline.extend(gap);
        }
        for event in room["state"]["events"].as_array().into_iter().flatten() {
            view.set_state(event);
        }
        for event in &events {
            let id = text(&event["event_id"]);
            assert!(!view.timeline.contains(&id), "{} saw {id} twice in {room_id}", self.user_id);
            view.timeline.push(id);
            view.set_state(event);
        }
        self.rooms.insert(room_id.to_owned(), view);
    }

    /// Pages back from `prev_batch` to what the client has, or to the beginning. Oldest first.
    async fn fill_gap(
        &self,
        server: &Server,
        room_id: &str,
        prev_batch: &Value,
        view: &RoomView,
    ) -> Vec<String> {
        let mut found = Vec::new();
        let mut from = Some(text(prev_batch));
        for _ in 0..GAP_PAGES_MAX {
            let Some(token) = from else { break };
            let path =
                format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=7&from={token}", percent(room_id));
            let page = self.get(server, &path).await.ok();
            for event in page["chunk"].as_array().into_iter().flatten() {
                let id = text(&event["event_id"]);
                if view.timeline.last() == Some(&id) {
                    found.reverse();
                    return found;
                }
                assert!(
                    !view.timeline.contains(&id),
                    "the gap in {room_id} runs past what {} has",
                    self.user_id
                );
                found.push(id);
            }
            from = page["end"].as_str().map(str::to_owned);
        }
        assert!(
            view.timeline.is_empty(),
            "the gap in {room_id} does not end where {}'s view does",
            self.user_id
        );
        found.reverse();
        found
    }
}

impl RoomView {
    fn set_state(&mut self, event: &Value) {
        if let Some(state_key) = event["state_key"].as_str() {
            self.state.insert((text(&event["type"]), state_key.to_owned()), text(&event["event_id"]));
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
