//! A large room that a puppet hosts: what a server asks when it joins it.

use std::collections::HashMap;

use anyhow::{Context, Result};
use http::Method;
use serde_json::{Value, json};

use super::{
    Host, Pdu, Place, ROOM_VERSION,
    event::{self},
    now_ms,
};

/// Over so many servers the members are spread.
const SERVERS: usize = 20;

pub struct HostedRoom {
    pub room_id: String,
    resident: String,
    /// Everything, oldest first; all of it is state.
    events: Vec<Pdu>,
    by_id: HashMap<String, usize>,
    /// Create, power levels, join rules: what a join is authorised by.
    auth: Vec<String>,
    servers: Vec<String>,
}

impl HostedRoom {
    /// A public room with so many members besides its creator.
    pub fn build(host: &Host, members: usize) -> Self {
        let names: Vec<String> = (0..SERVERS).map(|number| host.name_of(number)).collect();
        let resident = names[0].clone();
        let mut room = Self {
            room_id: format!("!large{members}:{resident}"),
            resident,
            events: Vec::new(),
            by_id: HashMap::new(),
            auth: Vec::new(),
            servers: names,
        };
        room.begin(host);
        for number in 0..members {
            let user = format!("@m{number}:{}", room.servers[number % SERVERS]);
            let content = json!({ "membership": "join", "displayname": format!("Member {number}") });
            let auth = room.auth.clone();
            room.append(host, &user, "m.room.member", &user, content, auth);
        }
        room
    }

    fn begin(&mut self, host: &Host) {
        let creator = format!("@creator:{}", self.resident);
        let create = json!({ "room_version": ROOM_VERSION });
        let create = self.append(host, &creator, "m.room.create", "", create, vec![]);
        let content = json!({ "membership": "join" });
        let joined = self.append(host, &creator, "m.room.member", &creator, content, vec![create.clone()]);
        let auth = vec![create.clone(), joined.clone()];
        let levels = json!({ "users": { &creator: 100 } });
        let levels = self.append(host, &creator, "m.room.power_levels", "", levels, auth);
        let auth = vec![create.clone(), joined, levels.clone()];
        let rules = json!({ "join_rule": "public" });
        let rules = self.append(host, &creator, "m.room.join_rules", "", rules, auth.clone());
        let visibility = json!({ "history_visibility": "shared" });
        self.append(host, &creator, "m.room.history_visibility", "", visibility, auth);
        self.auth = vec![create, levels, rules];
    }

    fn append(
        &mut self,
        host: &Host,
        sender: &str,
        event_type: &str,
        state_key: &str,
        content: Value,
        auth_events: Vec<String>,
    ) -> String {
        let place = self.place(auth_events);
        let event = json!({
            "room_id": self.room_id,
            "sender": sender,
            "type": event_type,
            "state_key": state_key,
            "content": content,
            "prev_events": place.prev_events,
            "auth_events": place.auth_events,
            "depth": place.depth,
            "origin_server_ts": now_ms(),
        });
        let server = sender.split_once(':').map_or("", |(_, server)| server);
        let pdu = event::seal(event, server, &host.key());
        let event_id = pdu.event_id.clone();
        self.by_id.insert(event_id.clone(), self.events.len());
        self.events.push(pdu);
        event_id
    }

    fn place(&self, auth_events: Vec<String>) -> Place<'_> {
        Place {
            room_id: &self.room_id,
            prev_events: self.events.last().map(|last| last.event_id.clone()).into_iter().collect(),
            auth_events,
            depth: self.events.len() as u64 + 1,
        }
    }

    /// `None` if the question is not about this room, or not known.
    pub fn answer(&self, method: &Method, uri: &str, body: &[u8]) -> Option<Value> {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let mut segments = path.strip_prefix("/_matrix/federation/")?.split('/').skip(1);
        let what = segments.next()?;
        let subject = unescaped(segments.next()?);
        if what == "event" {
            return self.event(&subject).map(|event| self.pdus(std::iter::once(event)));
        }
        if subject != self.room_id {
            return None;
        }
        match (method, what) {
            (&Method::GET, "make_join") => Some(self.template(&unescaped(segments.next()?))),
            (&Method::PUT, "send_join") => Some(self.accept(query, body)),
            (&Method::GET, "state") => Some(json!({ "pdus": self.all(), "auth_chain": self.auth_chain() })),
            (&Method::GET, "state_ids") => Some(self.state_ids()),
            (&Method::GET, "event_auth") => Some(json!({ "auth_chain": self.auth_chain() })),
            (&Method::GET, "backfill") => Some(self.pdus(std::iter::empty())),
            (&Method::POST, "get_missing_events") => Some(json!({ "events": [] })),
            _ => None,
        }
    }

    fn template(&self, user: &str) -> Value {
        let place = self.place(self.auth.clone());
        json!({
            "room_version": ROOM_VERSION,
            "event": {
                "room_id": self.room_id,
                "sender": user,
                "type": "m.room.member",
                "state_key": user,
                "content": { "membership": "join" },
                "prev_events": place.prev_events,
                "auth_events": place.auth_events,
                "depth": place.depth,
                "origin_server_ts": now_ms(),
            },
        })
    }

    fn accept(&self, query: &str, body: &[u8]) -> Value {
        let partial = query.contains("omit_members=true");
        let is_member = |pdu: &&Pdu| pdu.json["type"] == "m.room.member";
        let state: Vec<&Value> =
            self.events.iter().filter(|pdu| !partial || !is_member(pdu)).map(|pdu| &pdu.json).collect();
        let event: Value = serde_json::from_slice(body).unwrap_or_default();
        json!({
            "origin": self.resident,
            "members_omitted": partial,
            "servers_in_room": self.servers,
            "state": state,
            "auth_chain": self.auth_chain(),
            "event": event,
        })
    }

    fn state_ids(&self) -> Value {
        let ids: Vec<&str> = self.events.iter().map(|pdu| &*pdu.event_id).collect();
        let chain: Vec<Value> = ids.iter().take(4).map(|id| (*id).into()).collect();
        json!({ "pdu_ids": ids, "auth_chain_ids": chain })
    }

    /// The first four events authorise all others.
    fn auth_chain(&self) -> Vec<&Value> {
        self.events.iter().take(4).map(|pdu| &pdu.json).collect()
    }

    fn all(&self) -> Vec<&Value> {
        self.events.iter().map(|pdu| &pdu.json).collect()
    }

    fn event(&self, event_id: &str) -> Option<&Pdu> {
        self.events.get(*self.by_id.get(event_id)?)
    }

    fn pdus<'a>(&self, pdus: impl Iterator<Item = &'a Pdu>) -> Value {
        let pdus: Vec<&Value> = pdus.map(|pdu| &pdu.json).collect();
        json!({ "origin": self.resident, "origin_server_ts": now_ms(), "pdus": pdus })
    }
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = (*first == b'%').then(|| tail.get(..2)).flatten();
        let decoded = escape.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The members that a `joined_members` answer shows.
pub fn joined(answer: &[u8]) -> Result<usize> {
    let answer: Value = serde_json::from_slice(answer)?;
    Ok(answer["joined"].as_object().context("no members")?.len())
}
