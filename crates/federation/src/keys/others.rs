//! What is known of the keys of other servers: in memory, and in the store.

use std::{collections::HashMap, sync::Arc};

use myelin_store::{
    Batch,
    backend::CommitFuture,
    tables::{KeyAnswerRecord, SERVER_KEYS, ServerKeysRecord},
};
use myelin_view::View;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName, serde::Base64, signatures::PublicKeySet};

use super::{answer::KeyAnswer, attempts::Attempts, fetch::Flight, lanes::Lanes};
use crate::Client;

/// Servers whose keys are in memory.
const SERVERS_MAX: usize = 20_000;
/// Answers kept of one server: the newest, and those that alone have some key.
const ANSWERS_MAX: usize = 16;

pub(super) struct Others {
    pub(super) view: View,
    pub(super) client: Arc<Client>,
    pub(super) notaries: Vec<OwnedServerName>,
    /// To have servers' keys from themselves, and from notaries.
    pub(super) attempts: Attempts,
    pub(super) notary_attempts: Attempts,
    /// The same for keys that others have named.
    pub(super) caused_notary_attempts: Attempts,
    /// Requests that are on their way, by the server that they are about.
    pub(super) flights: Mutex<HashMap<OwnedServerName, Flight>>,
    pub(super) lanes: Lanes,
    known: Cache<OwnedServerName, Arc<Known>>,
    /// Held while an answer is laid beside those that are there.
    adding: Mutex<()>,
}

/// One server's answers. The first that has a key decides over it: what the server itself said last goes first, however
/// long it once claimed that an earlier answer holds.
#[derive(Debug, Default, Clone)]
pub(super) struct Known {
    answers: Vec<Arc<KeyAnswer>>,
}

impl Others {
    pub(super) fn new(view: View, client: Arc<Client>, notaries: Vec<OwnedServerName>) -> Arc<Self> {
        Arc::new(Self {
            view,
            client,
            notaries,
            attempts: Attempts::default(),
            notary_attempts: Attempts::default(),
            caused_notary_attempts: Attempts::default(),
            flights: Mutex::default(),
            lanes: Lanes::default(),
            known: Cache::new(SERVERS_MAX),
            adding: Mutex::new(()),
        })
    }

    /// What is known, without asking anybody.
    pub(super) async fn known(&self, server: &ServerName) -> Arc<Known> {
        if let Some(known) = self.known.get(server) {
            return known;
        }
        let row = self.view.store.get(&SERVER_KEYS, &server.to_string()).await;
        let row = row.unwrap_or_else(|error| {
            tracing::error!(%error, %server, "stored keys cannot be read");
            None
        });
        let known = Arc::new(row.map(|row| Known::load(server, &row)).unwrap_or_default());
        if !known.answers.is_empty() {
            self.known.insert(server.to_owned(), known.clone());
        }
        known
    }

    /// Adds an answer, durably. One from a notary never replaces a key that is known by another value.
    pub(super) async fn keep(
        &self,
        answer: KeyAnswer,
        from_notary: bool,
    ) -> Result<(), myelin_store::CommitError> {
        let loaded = self.known(&answer.server).await;
        let Some(commit) = self.add(answer, from_notary, loaded) else { return Ok(()) };
        commit.await.map(drop)
    }

    fn add(&self, answer: KeyAnswer, from_notary: bool, loaded: Arc<Known>) -> Option<CommitFuture> {
        let _adding = self.adding.lock();
        let server = answer.server.clone();
        let known = self.known.get(&server).unwrap_or(loaded);
        if from_notary && known.contradicts(&answer) {
            tracing::warn!(%server, "a notary says something else of a server's keys than the server itself");
            return None;
        }
        let mut known = Known::clone(&known);
        known.add(Arc::new(answer), from_notary);
        let mut batch = Batch::new();
        batch.put(&SERVER_KEYS, &server.to_string(), &known.record());
        self.known.insert(server, Arc::new(known));
        // Enqueued before the lock is released: the rows of one server are written in the order of its answers.
        Some(self.view.store.commit(batch))
    }
}

impl Known {
    fn load(server: &ServerName, row: &ServerKeysRecord) -> Self {
        let answers = row.answers.iter().map(|kept| KeyAnswer::check(server, &kept.json, kept.fetched_ms));
        let answers = answers.filter_map(|answer| match answer {
            Ok(answer) => Some(Arc::new(answer)),
            Err(error) => {
                tracing::error!(%error, %server, "a stored answer about keys is damaged");
                None
            }
        });
        Self { answers: answers.collect() }
    }

    pub(super) fn valid_at(&self, at_ms: u64) -> PublicKeySet {
        let mut keys: HashMap<&String, (&Base64, u64)> = HashMap::new();
        for (id, key, until_ms) in self.answers.iter().flat_map(|answer| answer.keys()) {
            keys.entry(id).or_insert((key, until_ms));
        }
        let valid = keys.into_iter().filter(|(_, (_, until_ms))| at_ms <= *until_ms);
        valid.map(|(id, (key, _))| (id.clone(), key.clone())).collect()
    }

    pub(super) fn newest(&self) -> Option<&Arc<KeyAnswer>> {
        self.answers.first()
    }

    /// The newest answer, and for each key that it lacks the newest that has it; empty `key_ids` ask for all keys.
    pub(super) fn answers_with(&self, key_ids: &[String]) -> Vec<Arc<KeyAnswer>> {
        if key_ids.is_empty() {
            return self.answers.clone();
        }
        let mut wanted = Vec::new();
        for key_id in key_ids {
            let answer = self.answers.iter().find(|answer| answer.has_key(key_id)).or(self.newest());
            wanted.extend(
                answer.filter(|answer| !wanted.iter().any(|have| Arc::ptr_eq(have, answer))).cloned(),
            );
        }
        wanted
    }

    fn contradicts(&self, answer: &KeyAnswer) -> bool {
        let mut known = self.answers.iter().flat_map(|answer| answer.keys());
        known.any(|(id, key, _)| answer.keys().any(|(other, value, _)| other == id && value != key))
    }

    fn add(&mut self, answer: Arc<KeyAnswer>, from_notary: bool) {
        match from_notary && !self.gives_way_to(&answer) {
            true => self.answers.push(answer),
            false => self.answers.insert(0, answer),
        }
        let mut seen = std::collections::HashSet::new();
        self.answers.retain(|answer| {
            let before = seen.len();
            seen.extend(answer.keys().map(|(id, ..)| id.clone()));
            seen.len() > before
        });
        self.answers.truncate(ANSWERS_MAX);
    }

    /// Whether what a notary has of the server now goes before what is known: once that is not trusted any more, and not
    /// to bring a key back that the server has retired.
    fn gives_way_to(&self, answer: &KeyAnswer) -> bool {
        let Some(newest) = self.newest() else { return true };
        let over = newest.trusted_until_ms() < answer.fetched_ms.min(answer.trusted_until_ms());
        let retired = |id: &String| self.answers.iter().any(|known| known.retires(id));
        over && !answer.keys().any(|(id, ..)| retired(id) && !answer.retires(id))
    }

    fn record(&self) -> ServerKeysRecord {
        let answers = self.answers.iter();
        let answers =
            answers.map(|kept| KeyAnswerRecord { json: kept.json.clone(), fetched_ms: kept.fetched_ms });
        ServerKeysRecord { answers: answers.collect() }
    }
}
