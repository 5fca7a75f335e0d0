//! To-device messages in a storm: each that a server took arrives at its device, once. And keys of devices: what their
//! server holds is what all others hand out.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use super::{
    Storm,
    actions::{Action, Kind},
};
use crate::{client::text, user::User};

/// What a liar says that others wrote.
pub(super) const FORGED: &str = "forged";

/// A to-device message that a server took.
pub(super) struct Letter {
    pub to: usize,
    pub words: String,
}

impl Storm {
    pub(super) fn letter(&self, user: usize) -> Action {
        let (to, words) = (self.any(self.users.len()), format!("letter {}", self.done));
        let path = format!("sendToDevice/org.myelin.letter/l{}", self.done);
        let id = self.users[to].id.as_str();
        let body = json!({ "messages": { id: { "*": { "words": words } } } });
        Action { user, method: Method::PUT, path, body, kind: Kind::Letter { to, words } }
    }

    /// Those that did not arrive.
    ///
    /// # Panics
    /// If one came twice.
    pub(super) fn missing_letters(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let seed = self.world.seed();
        for (number, user) in self.users.iter().enumerate() {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            let words = user.shows(|client| client.letters.clone());
            words.into_iter().for_each(|words| *counts.entry(words).or_default() += 1);
            for letter in self.letters.iter().filter(|letter| letter.to == number) {
                if !counts.contains_key(&letter.words) {
                    missing.push(format!("'{}' has not come to {}", letter.words, user.id));
                }
            }
            let twice = counts.iter().find(|(_, count)| **count > 1);
            assert!(twice.is_none(), "seed {seed}: {} got {twice:?}", user.id);
            assert!(!counts.contains_key(FORGED), "seed {seed}: {} got what nobody wrote", user.id);
        }
        missing
    }

    /// Keys for the user's device in the place of those that it has.
    pub(super) fn new_keys(&self, user: usize) -> Action {
        let id = &self.users[user].id;
        let asked = self.users[user].request(Method::GET, "account/whoami", None);
        let device = self.world.run(asked).map(|answer| text(&answer.json["device_id"])).unwrap_or_default();
        let keys = json!({
            "user_id": id,
            "device_id": device,
            "algorithms": ["m.megolm.v1.aes-sha2"],
            "keys": { format!("ed25519:{device}"): format!("{:0>42}A", self.done) },
            "signatures": {},
        });
        let (path, body) = ("keys/upload".to_owned(), json!({ "device_keys": keys }));
        Action { user, method: Method::POST, path, body, kind: Kind::Other }
    }

    /// Users whose devices have other keys at another server than at their own.
    pub(super) fn unknown_keys(&self) -> Vec<String> {
        let mut unknown = Vec::new();
        for owner in &self.users {
            let truth = self.world.run(keys_of(owner, owner));
            for other in self.users.iter().filter(|other| other.server != owner.server) {
                let told = self.world.run(keys_of(owner, other));
                if told != truth {
                    unknown.push(format!("{} has {told} as the keys of {}: {truth}", other.id, owner.id));
                }
            }
        }
        unknown
    }
}

async fn keys_of(owner: &User, asked_by: &User) -> Value {
    let body = json!({ "device_keys": { owner.id.as_str(): [] } });
    let answer = asked_by.request(Method::POST, "keys/query", Some(body)).await;
    let mut answer = answer.expect("all servers are on").ok();
    let mut devices = answer["device_keys"][&owner.id].take();
    for device in devices.as_object_mut().into_iter().flat_map(|devices| devices.values_mut()) {
        device.as_object_mut().map(|device| device.remove("unsigned"));
    }
    devices
}
