//! A simulated user: one account, one device, one connection. Reads only the JSON that it must.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderValue, Method};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Connection;

const SLIDING: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";

/// One `/sync` answer.
pub struct Synced {
    pub next_batch: String,
    pub body: Bytes,
}

impl Synced {
    pub fn mentions(&self, marker: &str) -> bool {
        memchr::memmem::find(&self.body, marker.as_bytes()).is_some()
    }
}

pub struct User {
    pub id: String,
    pub device: String,
    address: SocketAddr,
    authorization: HeaderValue,
    connection: Connection,
}

impl User {
    /// `POST /register` with the dummy stage, which every homeserver with open registration offers.
    pub async fn register(address: SocketAddr, name: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Registered {
            user_id: String,
            device_id: String,
            access_token: String,
        }
        let mut connection = Connection::open(address).await?;
        let request = json!({
            "username": name, "password": "correct horse", "auth": { "type": "m.login.dummy" },
        });
        let answer =
            connection.call(Method::POST, "/_matrix/client/v3/register", None, bytes_of(&request)).await?;
        let registered: Registered = serde_json::from_slice(&answer)?;
        let authorization = HeaderValue::from_str(&format!("Bearer {}", registered.access_token))?;
        let Registered { user_id: id, device_id: device, .. } = registered;
        Ok(Self { id, device, address, authorization, connection })
    }

    /// The same device over one more connection.
    pub async fn also(&self) -> Result<Self> {
        Ok(Self {
            id: self.id.clone(),
            device: self.device.clone(),
            address: self.address,
            authorization: self.authorization.clone(),
            connection: Connection::open(self.address).await?,
        })
    }

    pub async fn get(&mut self, path: &str) -> Result<Bytes> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    pub async fn put(&mut self, path: &str, body: &Value) -> Result<Bytes> {
        self.call(Method::PUT, path, bytes_of(body)).await
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Bytes> {
        self.call(Method::POST, path, bytes_of(body)).await
    }

    /// A room that anybody may join. Returns its id.
    pub async fn create_room(&mut self) -> Result<String> {
        #[derive(Deserialize)]
        struct Created {
            room_id: String,
        }
        let answer = self.post("createRoom", &json!({ "preset": "public_chat" })).await?;
        Ok(serde_json::from_slice::<Created>(&answer)?.room_id)
    }

    pub async fn join(&mut self, room: &str) -> Result<()> {
        self.post(&format!("rooms/{room}/join"), &json!({})).await.map(drop)
    }

    /// Sends an `m.room.message` with this content; its event id, if one asks, is in the answer.
    pub async fn send(&mut self, room: &str, content: &Bytes) -> Result<Bytes> {
        static TRANSACTION: AtomicU64 = AtomicU64::new(0);
        let transaction = TRANSACTION.fetch_add(1, Ordering::Relaxed);
        let path = format!("rooms/{room}/send/m.room.message/t{transaction}");
        self.call(Method::PUT, &path, content.clone()).await
    }

    /// `query` is without the leading `?`. Presence is left out of every workload.
    pub async fn sync(&mut self, query: &str) -> Result<Synced> {
        #[derive(Deserialize)]
        struct Tokens {
            next_batch: String,
        }
        let body = self.get(&format!("sync?set_presence=offline&{query}")).await?;
        let tokens: Tokens = serde_json::from_slice(&body).context("a sync without next_batch")?;
        Ok(Synced { next_batch: tokens.next_batch, body })
    }

    /// One sliding sync through a window on the 20 most active rooms; the answer's position stands for `next_batch`.
    pub async fn window(&mut self, pos: Option<&str>, timeout_ms: u64) -> Result<Synced> {
        #[derive(Deserialize)]
        struct Positions {
            pos: String,
        }
        let pos = pos.map(|pos| format!("&pos={pos}")).unwrap_or_default();
        let target = format!("{SLIDING}?timeout={timeout_ms}&set_presence=offline{pos}");
        let list = json!({
            "ranges": [[0, 19]],
            "timeline_limit": 1,
            "required_state": [["m.room.member", "$LAZY"], ["m.room.member", "$ME"], ["m.room.encryption", ""],
                ["m.room.name", ""], ["m.room.canonical_alias", ""], ["m.room.power_levels", ""]],
        });
        let extensions = json!({ "account_data": { "enabled": true }, "receipts": { "enabled": true } });
        let body = json!({ "conn_id": "bench", "lists": { "all": list }, "extensions": extensions });
        let authorization = Some(&self.authorization);
        let body = self.connection.call(Method::POST, &target, authorization, bytes_of(&body)).await?;
        let positions: Positions = serde_json::from_slice(&body).context("a sliding sync without pos")?;
        Ok(Synced { next_batch: positions.pos, body })
    }

    /// A request outside of `/_matrix/client/v3`.
    pub async fn raw(&mut self, method: Method, target: &str, body: Bytes) -> Result<Bytes> {
        self.connection.call(method, target, Some(&self.authorization), body).await
    }

    async fn call(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let target = format!("/_matrix/client/v3/{path}");
        self.connection.call(method, &target, Some(&self.authorization), body).await
    }
}

/// The event id in the answer to a send.
pub fn event_id(answer: &[u8]) -> Result<String> {
    #[derive(Deserialize)]
    struct Sent {
        event_id: String,
    }
    Ok(serde_json::from_slice::<Sent>(answer)?.event_id)
}

/// The content of a message that makes a PDU of about 700 bytes; `marker` is findable in it.
pub fn message(marker: &str) -> Bytes {
    bytes_of(&json!({ "msgtype": "m.text", "body": format!("{marker:.<150}") }))
}

fn bytes_of(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_found_in_the_body_of_a_sync() {
        let synced = Synced { next_batch: String::new(), body: message("round-7 ") };
        assert!(synced.mentions("round-7 "));
        assert!(!synced.mentions("round-8 "));
    }

    #[test]
    fn messages_have_the_same_size_whatever_the_marker() {
        assert_eq!(message("a").len(), message("a longer marker").len());
    }
}
