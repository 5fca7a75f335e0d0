//! How answers about keys come here: from the server itself, else from notaries. One request per server at a time, with
//! back-off.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{
    Wanted,
    answer::KeyAnswer,
    attempts::Attempts,
    lanes::{Asker, Busy},
    others::{Known, Others},
};
use crate::Budget;

/// Servers whose keys are being looked for at once, those that wait for a lane included.
const FLIGHTS_MAX: usize = 10_000;
/// The longest time after which a server is asked again that did not answer.
const BACKOFF_MAX: Duration = Duration::from_secs(30 * 60);
/// The same for notaries about one server.
const NOTARY_BACKOFF_MAX: Duration = Duration::from_secs(10 * 60);
const DIRECT: Budget = Budget { timeout: Duration::from_secs(10), body_size_max: 64 * 1024 };
const NOTARY: Budget = Budget { timeout: Duration::from_secs(20), body_size_max: 8 * 1024 * 1024 };
/// Servers in one question to a notary.
const NOTARY_BATCH: usize = 100;

pub(super) type Flight = Shared<BoxFuture<'static, ()>>;

#[derive(Deserialize)]
struct NotaryAnswer {
    server_keys: Vec<Box<RawValue>>,
}

impl Others {
    /// What is known of a server's keys; new ones are asked for in good time.
    pub(super) async fn lookup(self: Arc<Self>, server: &ServerName, asker: Asker<'_>) -> Arc<Known> {
        let known = self.known(server).await;
        if known.newest().is_some_and(|answer| answer.is_stale(self.view.env.now_ms())) {
            drop(self.clone().flight(server.to_owned(), asker));
        }
        known
    }

    /// Asks the server itself, unless that was in vain a moment ago. Completes when the answer is stored.
    pub(super) async fn fetch(
        self: Arc<Self>,
        server: OwnedServerName,
        asker: Asker<'_>,
    ) -> Result<(), Busy> {
        // Before it is under way: nobody else who looks for the same keys waits for this.
        let _turn = self.lanes.turn(asker).await;
        if let Some(flight) = self.flight(server, asker)? {
            flight.await;
        }
        Ok(())
    }

    pub(super) fn is_alive(&self, server: &ServerName) {
        for attempts in [&self.attempts, &self.notary_attempts, &self.caused_notary_attempts] {
            attempts.is_alive(server);
        }
    }

    pub(super) fn has_notaries(&self) -> bool {
        !self.notaries.is_empty()
    }

    /// Goes on when nobody waits any more.
    fn flight(self: Arc<Self>, server: OwnedServerName, asker: Asker<'_>) -> Result<Option<Flight>, Busy> {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&server) {
            return Ok(Some(flight.clone()));
        }
        if self.attempts.rests(&server, self.view.env.now_ms()) {
            return Ok(None);
        }
        if flights.len() >= FLIGHTS_MAX {
            return Err(Busy);
        }
        let lane = self.lanes.enter(asker)?;
        let (this, about) = (self.clone(), server.clone());
        let work = async move {
            let waited = lane.wait().await;
            this.ask(&about).await;
            drop((waited, lane));
            this.flights.lock().remove(&about);
        };
        let flight = work.boxed().shared();
        flights.insert(server, flight.clone());
        self.view.env.spawner.spawn("keys of a server", flight.clone().boxed());
        Ok(Some(flight))
    }

    async fn ask(&self, server: &ServerName) {
        let outcome = AssertUnwindSafe(self.ask_directly(server)).catch_unwind().await;
        // Whoever waits for it does not fall with it, and it does not stay under way for ever.
        let outcome = outcome.unwrap_or_else(|_| Err("looking for them made this server panic".to_owned()));
        let now_ms = self.view.env.now_ms();
        match outcome {
            Ok(()) => self.attempts.succeeded(server, now_ms),
            Err(reason) => {
                tracing::info!(%server, reason, "the keys of a server could not be had from it");
                self.attempts.failed(server, now_ms, BACKOFF_MAX);
            }
        }
    }

    async fn ask_directly(&self, server: &ServerName) -> Result<(), String> {
        let json = self.client.get_unsigned::<Box<RawValue>>(server, "/_matrix/key/v2/server", DIRECT).await;
        let json = json.map_err(|error| error.to_string())?;
        let answer = KeyAnswer::check(server, json.get(), self.view.env.now_ms());
        let answer = answer.map_err(|error| error.to_string())?;
        self.keep(answer, false).await.map_err(|error| error.to_string())
    }

    /// Asks notaries, one after the other, for keys that are still lacking and that they were not asked for just now.
    pub(super) async fn ask_notaries(self: &Arc<Self>, lacking: &[Wanted], asker: Asker<'_>) {
        let now_ms = self.view.env.now_ms();
        // Keys that somebody else has invented do not keep this server from those that it needs.
        let attempts = match asker {
            Asker::Here => &self.notary_attempts,
            _ => &self.caused_notary_attempts,
        };
        let due = |wanted: &&Wanted| !attempts.rests(&wanted.server, now_ms);
        let asked: Vec<&Wanted> = lacking.iter().filter(due).collect();
        let mut lacking = asked.clone();
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
                if !wanted.is_among(&self.known(&wanted.server).await.valid_at(wanted.at_ms)) {
                    still.push(wanted);
                }
            }
            lacking = still;
            if lacking.is_empty() {
                break;
            }
        }
        self.note_notaries(attempts, &asked, &lacking);
    }

    fn note_notaries(&self, attempts: &Attempts, asked: &[&Wanted], lacking: &[&Wanted]) {
        let now_ms = self.view.env.now_ms();
        let lacking: BTreeSet<_> = lacking.iter().map(|wanted| &wanted.server).collect();
        let asked: BTreeSet<_> = asked.iter().map(|wanted| &wanted.server).collect();
        for server in asked {
            match lacking.contains(server) {
                true => attempts.failed(server, now_ms, NOTARY_BACKOFF_MAX),
                false => attempts.succeeded(server, now_ms),
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
            // Without its keys nothing that it says is believed.
            self.fetch(server.to_owned(), Asker::Here).await.ok();
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
