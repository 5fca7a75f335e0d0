//! A device with keys of its own.

use myelin_dag::SigningKey;
use myelin_testkit::{
    client::{Client, percent},
    server::{Answer, Server},
};
use ruma::CanonicalJsonObject;
use serde_json::{Value, json};

pub struct Phone {
    pub client: Client,
    pub device_id: String,
    key: SigningKey,
}

impl Phone {
    pub async fn new(server: &Server, name: &str) -> Self {
        let client = Client::register(server, name).await;
        let who = client.get(server, "/_matrix/client/v3/account/whoami").await.ok();
        Self::of(client, who["device_id"].as_str().unwrap())
    }

    fn of(client: Client, device_id: &str) -> Self {
        let mut seed = [5; 32];
        seed.iter_mut().zip(device_id.bytes()).for_each(|(seed, byte)| *seed = byte);
        let key = SigningKey::from_seed(device_id, seed).unwrap();
        Self { client, device_id: device_id.to_owned(), key }
    }

    pub fn user_id(&self) -> &str {
        &self.client.user_id
    }

    pub fn device_keys(&self, version: u64) -> Value {
        signed_device_keys(self.user_id(), &self.device_id, version, &self.key)
    }

    pub async fn upload(&self, server: &Server, body: &Value) -> Answer {
        self.client.post(server, "/_matrix/client/v3/keys/upload", body).await
    }

    pub async fn upload_device_keys(&self, server: &Server, version: u64) {
        self.upload(server, &json!({ "device_keys": self.device_keys(version) })).await.ok();
    }

    pub async fn query(&self, server: &Server, user_id: &str) -> Value {
        let body = json!({ "device_keys": { user_id: [] } });
        self.client.post(server, "/_matrix/client/v3/keys/query", &body).await.ok()
    }

    /// The version of a user's first device, as somebody sees it.
    pub async fn version_of(&self, server: &Server, user_id: &str) -> Option<u64> {
        let answer = self.query(server, user_id).await;
        let devices = answer["device_keys"][user_id].as_object()?;
        devices.values().next()?["version"].as_u64()
    }

    pub async fn send(&self, server: &Server, txn: &str, to: (&str, &str), content: Value) -> Answer {
        let path = format!("/_matrix/client/v3/sendToDevice/m.test/{txn}");
        let body = json!({ "messages": { to.0: { to.1: content } } });
        self.client.put(server, &path, &body).await
    }

    pub async fn sync(&self, server: &Server, since: Option<&str>) -> Value {
        let since = since.map_or(String::new(), |since| format!("&since={since}"));
        self.client.get(server, &format!("/_matrix/client/v3/sync?set_presence=offline{since}")).await.ok()
    }

    pub async fn join(&self, server: &Server, room_id: &str) -> Answer {
        let path = format!("/_matrix/client/v3/join/{}", percent(room_id));
        self.client.post(server, &path, &json!({})).await
    }

    pub async fn leave(&self, server: &Server, room_id: &str) -> Answer {
        let path = format!("/_matrix/client/v3/rooms/{}/leave", percent(room_id));
        self.client.post(server, &path, &json!({})).await
    }

    pub async fn public_room(&self, server: &Server) -> String {
        let body = json!({ "preset": "public_chat", "room_version": "11" });
        let room = self.client.post(server, "/_matrix/client/v3/createRoom", &body).await.ok();
        room["room_id"].as_str().unwrap().to_owned()
    }
}

/// `version` makes them different.
pub fn signed_device_keys(user_id: &str, device_id: &str, version: u64, key: &SigningKey) -> Value {
    let mut keys = json!({
        "user_id": user_id,
        "device_id": device_id,
        "version": version,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": { format!("ed25519:{device_id}"): key.public_key_base64() },
    });
    let canonical: CanonicalJsonObject = serde_json::from_value(keys.clone()).unwrap();
    let signature = key.sign(serde_json::to_string(&canonical).unwrap().as_bytes());
    keys["signatures"] = json!({ user_id: { format!("ed25519:{device_id}"): signature } });
    keys
}

pub fn users(value: &Value) -> Vec<String> {
    let users = value.as_array().into_iter().flatten();
    users.map(|user| user.as_str().unwrap_or_default().to_owned()).collect()
}
