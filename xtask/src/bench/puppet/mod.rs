//! Other homeservers, as far as a benchmark needs them: they have names, keys and users, join the rooms of the server
//! under test, send it events, and take what it sends.
//!
//! All of them are addresses of the loopback network (`127.1.0.1:PORT`, ...) behind one TLS listener ([`host`]), so a
//! thousand servers cost one socket. Knows nothing of Myelin's crates: Synapse talks to them as well.

mod event;
mod host;
mod room;

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use http::{HeaderValue, Method};
use serde_json::{Value, json};

pub use self::{
    event::{Pdu, Place, ROOM_VERSION, id_of, sign_as, unpadded},
    host::Host,
    room::{HostedRoom, joined},
};
use super::client::Connection;

/// The name of the server under test, which both kinds have.
const SUBJECT: &str = "localhost";

/// One such server, with one connection to the server under test.
pub struct Puppet {
    pub name: String,
    key: SigningKey,
    connection: Connection,
}

impl Puppet {
    /// The `number`th server behind `host`; numbers start from 0.
    pub async fn open(host: &Host, subject: SocketAddr, number: usize) -> Result<Self> {
        Ok(Self { name: host.name_of(number), key: host.key(), connection: Connection::open(subject).await? })
    }

    pub fn user(&self, number: usize) -> String {
        format!("@u{number}:{}", self.name)
    }

    /// A signed event of one of this server's users.
    pub fn event(
        &self,
        place: &Place<'_>,
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Pdu {
        let mut event = json!({
            "room_id": place.room_id,
            "sender": sender,
            "type": event_type,
            "content": content,
            "prev_events": place.prev_events,
            "auth_events": place.auth_events,
            "depth": place.depth,
            "origin_server_ts": now_ms(),
        });
        if let Some(state_key) = state_key {
            event["state_key"] = state_key.into();
        }
        event::seal(event, &self.name, &self.key)
    }

    /// Joins a user to a room of the server under test. Returns the join and the answer to it, with all members.
    pub async fn join(&mut self, room_id: &str, user: &str) -> Result<(Pdu, Value)> {
        self.join_asking(room_id, user, "").await
    }

    /// The same without the members, as servers ask.
    pub async fn join_partially(&mut self, room_id: &str, user: &str) -> Result<(Pdu, Value)> {
        self.join_asking(room_id, user, "?omit_members=true").await
    }

    async fn join_asking(&mut self, room_id: &str, user: &str, query: &str) -> Result<(Pdu, Value)> {
        let (room, user_in_path) = (escaped(room_id), escaped(user));
        let uri = format!("/_matrix/federation/v1/make_join/{room}/{user_in_path}?ver={ROOM_VERSION}");
        let made = self.request(Method::GET, &uri, None).await?;
        let mut template = made["event"].clone();
        template["origin_server_ts"] = now_ms().into();
        for field in ["origin", "unsigned", "hashes", "signatures", "event_id"] {
            template.as_object_mut().context("a template is an object")?.remove(field);
        }
        let pdu = event::seal(template, &self.name, &self.key);
        let uri = format!("/_matrix/federation/v2/send_join/{room}/{}{query}", escaped(&pdu.event_id));
        let answer = self.request(Method::PUT, &uri, Some(&pdu.json)).await?;
        Ok((pdu, answer))
    }

    /// A transaction as it will be sent, signature included.
    pub fn transaction(&self, pdus: &[Pdu]) -> Transaction {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let uri = format!("/_matrix/federation/v1/send/bench{number}");
        let last = pdus.last().map(|pdu| pdu.event_id.clone()).unwrap_or_default();
        let events: Vec<&Value> = pdus.iter().map(|pdu| &pdu.json).collect();
        let content = json!({ "origin": self.name, "origin_server_ts": now_ms(), "pdus": events });
        let authorization = self.authorization("PUT", &uri, Some(&content));
        Transaction { pdus: pdus.len(), last, uri, authorization, body: content.to_string().into() }
    }

    /// Fails if the server under test refuses one of the events.
    pub async fn send(&mut self, transaction: &Transaction) -> Result<()> {
        let Transaction { uri, authorization, body, .. } = transaction;
        let answer = self.connection.call(Method::PUT, uri, Some(authorization), body.clone()).await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        let outcomes = answer["pdus"].as_object().context("no outcomes")?;
        match outcomes.iter().find(|(_, outcome)| outcome.get("error").is_some()) {
            Some((event_id, outcome)) => bail!("{event_id} was refused: {outcome}"),
            None => Ok(()),
        }
    }

    async fn request(&mut self, method: Method, uri: &str, content: Option<&Value>) -> Result<Value> {
        let authorization = self.authorization(method.as_str(), uri, content);
        let body = content.map_or_else(Bytes::new, |content| content.to_string().into());
        let answer = self.connection.call(method, uri, Some(&authorization), body).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    fn authorization(&self, method: &str, uri: &str, content: Option<&Value>) -> HeaderValue {
        let mut signed = json!({ "method": method, "uri": uri, "origin": self.name, "destination": SUBJECT });
        if let Some(content) = content {
            signed["content"] = content.clone();
        }
        let sig = event::unpadded(&self.key.sign(signed.to_string().as_bytes()).to_bytes());
        let header = format!(
            r#"X-Matrix origin="{}",destination="{SUBJECT}",key="{}",sig="{sig}""#,
            self.name,
            event::KEY_ID
        );
        HeaderValue::try_from(header).unwrap_or(HeaderValue::from_static(""))
    }
}

pub struct Transaction {
    /// How many PDUs, and the id of the last.
    pub pdus: usize,
    pub last: String,
    uri: String,
    authorization: HeaderValue,
    body: Bytes,
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Percent-encodes an identifier for a path.
pub fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
