//! Policy servers are asked for their signatures (Server-Server API, "Asking for a Policy Server signature on an event").
//!
//! One that has not answered several times is spared for a while, instead of each event waiting for it: what comes from
//! elsewhere meanwhile waits a little, what is made here is refused. An error is an answer: one event may be more than it
//! can take. What it said is remembered for those who ask again for the same event.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use myelin_core::Env;
use myelin_dag::Pdu;
use myelin_rooms::{PolicyServers, PolicySignatures};
use quick_cache::sync::Cache;
use ruma::{OwnedEventId, OwnedServerName, ServerName};
use serde_json::value::RawValue;

use crate::{Budget, Client, Peers, RequestError};

const SIGN: &str = "/_matrix/policy/v1/sign";
/// Less than the PDUs of a room may hold up the answer to their transaction.
const BUDGET: Budget = Budget { timeout: Duration::from_secs(8), body_size_max: 64 * 1024 };
/// Answers that are remembered, and for how long.
const REMEMBERED_MAX: usize = 10_000;
const REMEMBERED_MS: u64 = 10 * 60_000;
/// Questions in a row that got no answer, after which it is spared.
const SILENCES_MIN: u32 = 3;

type Signatures = std::collections::BTreeMap<OwnedServerName, std::collections::BTreeMap<String, String>>;

pub struct PolicyClient {
    client: Arc<Client>,
    env: Env,
    /// Which of them have not answered this question, whatever else they answer.
    health: Peers,
    /// By policy server and event: when it was said, and what.
    said: Cache<(OwnedServerName, OwnedEventId), (u64, Result<PolicySignatures, String>)>,
}

impl PolicyClient {
    pub fn new(client: Arc<Client>, env: Env) -> Self {
        Self { client, health: Peers::new(env.clone()), env, said: Cache::new(REMEMBERED_MAX) }
    }

    async fn verdict(&self, via: &ServerName, pdu: &Pdu) -> Result<PolicySignatures, String> {
        let key = (via.to_owned(), pdu.event_id.clone());
        let now_ms = self.env.now_ms();
        if let Some((_, said)) = self.said.get(&key).filter(|(at_ms, _)| now_ms < at_ms + REMEMBERED_MS) {
            return said;
        }
        if self.is_spared(via) {
            return Err(format!("The policy server {via} has not answered for a while."));
        }
        let answer = self.ask(via, pdu).await;
        self.note_health(via, &answer);
        let lasts = answer.as_ref().map_or_else(RequestError::is_refusal, |_| true);
        let said = answer.map_err(|error| match error {
            RequestError::Status { message, .. } if !message.is_empty() => message,
            other => format!("The policy server of the room cannot be asked: {other}."),
        });
        if lasts {
            self.said.insert(key, (self.env.now_ms(), said.clone()));
        }
        said
    }

    async fn ask(&self, via: &ServerName, pdu: &Pdu) -> Result<PolicySignatures, RequestError> {
        let raw: &RawValue = serde_json::from_str(&pdu.json).map_err(|_| RequestError::Content)?;
        let mut answer: Signatures = self.client.post(via, SIGN, &raw, BUDGET).await?;
        Ok(answer.remove(via).unwrap_or_default().into_iter().collect())
    }

    fn note_health(&self, via: &ServerName, answer: &Result<PolicySignatures, RequestError>) {
        match answer {
            Ok(_) | Err(RequestError::Status { .. }) => self.health.heard_from(via),
            Err(RequestError::Transport(error)) => self.health.failed(via, error),
            Err(_) => {}
        }
    }
}

impl PolicyServers for PolicyClient {
    fn sign<'a>(
        &'a self,
        via: &'a ServerName,
        pdu: &'a Pdu,
    ) -> BoxFuture<'a, Result<PolicySignatures, String>> {
        self.verdict(via, pdu).boxed()
    }

    fn is_spared(&self, via: &ServerName) -> bool {
        let silences = self.health.failing(via).map_or(0, |failing| failing.times);
        silences >= SILENCES_MIN && self.health.rests(via)
    }
}
