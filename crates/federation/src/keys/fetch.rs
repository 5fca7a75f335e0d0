//! How answers about keys come here: from the server itself, else from notaries. One request per server at a time, with
//! back-off.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{FutureExt, future::Shared};
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{
    Wanted,
    answer::KeyAnswer,
    others::{Known, Others},
};
use crate::Budget;

/// Requests for keys at once.
pub(super) const LANES: usize = 64;
/// A server is not asked again sooner, whatever keys are said to be lacking.
const INTERVAL_MS: u64 = 30_000;
/// After failures: doubled from this to that.
const BACKOFF_MS: u64 = 10_000;
const BACKOFF_MS_MAX: u64 = 30 * 60_000;
const DIRECT: Budget = Budget { timeout: Duration::from_secs(10), body_size_max: 64 * 1024 };
const NOTARY: Budget = Budget { timeout: Duration::from_secs(20), body_size_max: 8 * 1024 * 1024 };
/// Servers in one question to a notary.
const NOTARY_BATCH: usize = 100;

/// The last attempt to get a server's keys from itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    failures: u32,
    at_ms: u64,
    next_ms: u64,
}

#[derive(Deserialize)]
struct NotaryAnswer {
    server_keys: Vec<Box<RawValue>>,
}

impl Others {
    /// What is known of a server's keys; new ones are asked for in good time.
    pub(super) async fn lookup(self: Arc<Self>, server: &ServerName) -> Arc<Known> {
        let known = self.known(server).await;
        if known.newest().is_some_and(|answer| answer.is_stale(self.view.env.now_ms())) {
            drop(self.clone().flight(server.to_owned()));
        }
        known
    }

    /// Asks the server itself, unless that was in vain a moment ago. Completes when the answer is stored.
    pub(super) async fn fetch(self: Arc<Self>, server: OwnedServerName) {
        if let Some(flight) = self.flight(server) {
            flight.await;
        }
    }

    pub(super) fn is_alive(&self, server: &ServerName) {
        if let Some(mut attempt) = self.attempts.get(server)
            && attempt.failures > 0
        {
            attempt.next_ms = attempt.next_ms.min(attempt.at_ms + INTERVAL_MS);
            self.attempts.insert(server.to_owned(), attempt);
        }
    }

    pub(super) fn has_notaries(&self) -> bool {
        !self.notaries.is_empty()
    }

    /// Goes on when nobody waits any more.
    fn flight(
        self: Arc<Self>,
        server: OwnedServerName,
    ) -> Option<Shared<futures::future::BoxFuture<'static, ()>>> {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&server) {
            return Some(flight.clone());
        }
        let now_ms = self.view.env.now_ms();
        if self.attempts.get(&server).is_some_and(|attempt| now_ms < attempt.next_ms) {
            return None;
        }
        let (this, about) = (self.clone(), server.clone());
        let work = async move {
            this.ask(&about).await;
            this.flights.lock().remove(&about);
        };
        let flight = work.boxed().shared();
        flights.insert(server, flight.clone());
        self.view.env.spawner.spawn("keys of a server", flight.clone().boxed());
        Some(flight)
    }

    async fn ask(&self, server: &ServerName) {
        let Ok(_lane) = self.lanes.acquire().await else { return };
        let failures = self.attempts.get(server).map_or(0, |attempt| attempt.failures);
        let outcome = self.ask_directly(server).await;
        let at_ms = self.view.env.now_ms();
        let attempt = match outcome {
            Ok(()) => Attempt { failures: 0, at_ms, next_ms: at_ms + INTERVAL_MS },
            Err(reason) => {
                tracing::info!(%server, reason, "the keys of a server could not be had from it");
                let wait_ms = BACKOFF_MS.saturating_mul(1 << failures.min(16)).min(BACKOFF_MS_MAX);
                Attempt { failures: failures.saturating_add(1), at_ms, next_ms: at_ms + wait_ms }
            }
        };
        self.attempts.insert(server.to_owned(), attempt);
    }

    async fn ask_directly(&self, server: &ServerName) -> Result<(), String> {
        let json = self.client.get_unsigned::<Box<RawValue>>(server, "/_matrix/key/v2/server", DIRECT).await;
        let json = json.map_err(|error| error.to_string())?;
        let answer = KeyAnswer::check(server, json.get(), self.view.env.now_ms());
        let answer = answer.map_err(|error| error.to_string())?;
        self.keep(answer, false).await.map_err(|error| error.to_string())
    }

    /// Asks notaries, one after the other, for keys that are still lacking.
    pub(super) async fn ask_notaries(self: &Arc<Self>, lacking: &[Wanted]) {
        let mut lacking: Vec<&Wanted> = lacking.iter().collect();
        for notary in &self.notaries {
            lacking.retain(|wanted| wanted.server != *notary);
            for batch in lacking.chunks(NOTARY_BATCH) {
                if let Err(reason) = self.ask_notary(notary, batch).await {
                    tracing::info!(%notary, reason, "a notary could not be asked for keys");
                    break;
                }
            }
            let mut still = Vec::new();
            for wanted in lacking {
                let valid = self.known(&wanted.server).await.valid_at(wanted.at_ms);
                if valid.is_empty() || !wanted.key_ids.iter().all(|id| valid.contains_key(id)) {
                    still.push(wanted);
                }
            }
            lacking = still;
            if lacking.is_empty() {
                return;
            }
        }
    }

    async fn ask_notary(self: &Arc<Self>, notary: &ServerName, batch: &[&Wanted]) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        let now_ms = self.view.env.now_ms();
        self.clone().fetch_if_unknown(notary).await;
        let notary_keys = self.known(notary).await.valid_at(now_ms);
        let question = question(batch);
        let answer = self.client.post::<NotaryAnswer>(notary, "/_matrix/key/v2/query", &question, NOTARY);
        let answer = answer.await.map_err(|error| failed(&error))?;
        for json in &answer.server_keys {
            let Ok(answer) = KeyAnswer::read(json.get(), now_ms) else { continue };
            let asked = batch.iter().any(|wanted| wanted.server == answer.server);
            if asked && answer.check_signed_by(notary, &notary_keys).is_ok() {
                self.keep(answer, true).await.map_err(|error| failed(&error))?;
            }
        }
        Ok(())
    }

    async fn fetch_if_unknown(self: Arc<Self>, server: &ServerName) {
        if self.known(server).await.valid_at(self.view.env.now_ms()).is_empty() {
            self.fetch(server.to_owned()).await;
        }
    }
}

fn question(batch: &[&Wanted]) -> serde_json::Value {
    let mut servers: BTreeMap<&ServerName, BTreeMap<&str, serde_json::Value>> = BTreeMap::new();
    for wanted in batch {
        let criteria = json!({ "minimum_valid_until_ts": wanted.at_ms });
        let keys = servers.entry(&wanted.server).or_default();
        keys.extend(wanted.key_ids.iter().map(|id| (id.as_str(), criteria.clone())));
    }
    json!({ "server_keys": servers })
}
