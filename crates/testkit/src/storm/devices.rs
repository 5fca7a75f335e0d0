//! To-device messages in a storm: each that a server took arrives at its device, once.

use std::collections::BTreeMap;

use http::Method;
use serde_json::json;

use super::{
    Storm,
    actions::{Action, Kind},
};

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
        }
        missing
    }
}
