//! The one task about a server: it begins when something waits, and ends when nothing does or the server fails.

use std::{sync::Arc, time::Duration};

use futures::future::{Either, select};
use http::{Method, StatusCode};
use myelin_store::{Batch, tables::OUTBOX};
use ruma::{OwnedServerName, ServerName};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Sender, backoff,
    transaction::{Answer, Transaction},
};
use crate::{Budget, RequestError};

/// A transaction may take as long as the receiver needs for the events in it.
const BUDGET: Budget = Budget { timeout: Duration::from_secs(60), body_size_max: 1024 * 1024 };
/// A server that takes longer than this keeps nobody else from departing.
const PERMIT_TIME: Duration = Duration::from_secs(3);
/// After so long a failure, typing and presence are not worth keeping.
const EPHEMERAL_TIME_MS: u64 = 60_000;
/// A transaction that was refused as such so often in a row is taken apart.
const UNBEARABLE_AFTER: u32 = 3;
const ERROR_SIZE_MAX: usize = 500;

/// The right to depart.
enum Turn {
    Healthy(OwnedSemaphorePermit),
    /// Held to the end of the attempt.
    Dead(#[expect(dead_code, reason = "held, not looked at")] OwnedSemaphorePermit),
    /// It gave a sign of life: it does not stand in line behind those that did not.
    Woken,
}

impl Sender {
    pub(super) async fn depart(self: Arc<Self>, server: OwnedServerName) {
        loop {
            let turn = self.turn(&server).await;
            let prepared = self.prepare(&server).await;
            match prepared {
                Ok(Some(transaction)) => {
                    if !self.attempt(&server, &transaction, turn).await {
                        return;
                    }
                }
                Ok(None) if self.rests(&server) => return,
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%server, %error, "a transaction could not be put together");
                    self.note_own_failure(&server, &error.to_string());
                    self.end(&server);
                    return;
                }
            }
        }
    }

    /// Waits until the budgets allow an attempt.
    async fn turn(&self, server: &ServerName) -> Turn {
        let failing = self.state.lock().destinations.get(server).is_some_and(|d| d.health.failures > 0);
        if !failing {
            // The semaphores are never closed.
            return self.healthy.clone().acquire_owned().await.map_or(Turn::Woken, Turn::Healthy);
        }
        let mut permit = Box::pin(self.dead.clone().acquire_owned());
        loop {
            let mut life = Box::pin(self.life.notified());
            life.as_mut().enable();
            if self.note_queueing(server) {
                return Turn::Woken;
            }
            match select(permit, life).await {
                Either::Left((permit, _)) => {
                    if let Some(destination) = self.state.lock().destinations.get_mut(server) {
                        destination.queueing = false;
                    }
                    return permit.map_or(Turn::Woken, Turn::Dead);
                }
                Either::Right(((), waiting)) => permit = waiting,
            }
        }
    }

    /// Whether a sign of life came meanwhile.
    fn note_queueing(&self, server: &ServerName) -> bool {
        let state = &mut *self.state.lock();
        let Some(destination) = state.destinations.get_mut(server) else { return true };
        let woken = std::mem::take(&mut destination.woken);
        destination.queueing = !woken;
        woken
    }

    /// `false`: the server failed, and the task ends.
    async fn attempt(&self, server: &ServerName, transaction: &Arc<Transaction>, turn: Turn) -> bool {
        let uri = format!("/_matrix/federation/v1/send/{}", transaction.id);
        if let Some(destination) = self.state.lock().destinations.get_mut(server) {
            destination.health.last_attempt_ms = self.view.env.now_ms();
            destination.heard = false;
        }
        let sending =
            Box::pin(self.client.request_shared(server, Method::PUT, &uri, transaction.body.clone(), BUDGET));
        let outcome = match turn {
            Turn::Healthy(permit) => match select(sending, self.view.env.clock.sleep(PERMIT_TIME)).await {
                Either::Left((outcome, _)) => outcome,
                Either::Right(((), sending)) => {
                    drop(permit);
                    sending.await
                }
            },
            Turn::Dead(_) | Turn::Woken => sending.await,
        };
        match outcome {
            Ok(answer) => {
                self.note_answer(server, &answer);
                let noted = self.note_delivery(server, transaction).await;
                if !noted {
                    self.note_own_failure(server, "what was delivered could not be taken out of the outbox");
                    self.end(server);
                }
                noted
            }
            Err(error) => {
                self.note_failure(server, transaction, &error);
                if is_unbearable(&error) {
                    self.take_apart(server, transaction).await;
                }
                self.end(server);
                false
            }
        }
    }

    fn note_answer(&self, server: &ServerName, answer: &[u8]) {
        let answer: Answer = serde_json::from_slice(answer).unwrap_or_default();
        for (event_id, error) in answer.errors() {
            self.counters.refused_pdus.add(1);
            tracing::info!(%server, event_id, error, "the server does not take an event");
        }
    }

    /// `false`: it would be sent again.
    async fn note_delivery(&self, server: &ServerName, transaction: &Transaction) -> bool {
        self.counters.delivered.add(1);
        self.counters.pdus.add(transaction.pdus.len() as u64);
        self.counters.edus.add(transaction.edus as u64);
        let deleted = self.delete_from_outbox(server, transaction).await;
        let now_ms = self.view.env.now_ms();
        let state = &mut *self.state.lock();
        let Some(destination) = state.destinations.get_mut(server) else { return deleted };
        if destination.health.failures > 0 {
            tracing::info!(%server, failures = destination.health.failures, "the server answers again");
        }
        destination.delivered(transaction, now_ms);
        if destination.recorded.is_some() {
            self.ledger_changed.notify_one();
        }
        deleted
    }

    async fn delete_from_outbox(&self, server: &ServerName, transaction: &Transaction) -> bool {
        if transaction.outbox.is_empty() {
            return true;
        }
        let mut batch = Batch::new();
        for position in &transaction.outbox {
            batch.delete(&OUTBOX, &(server.to_string(), *position));
        }
        // What stays is sent once more; whoever gets it knows it by its id.
        let deleted = self.view.store.commit(batch).await;
        deleted
            .inspect_err(|error| tracing::error!(%server, %error, "what is done with stays in the outbox"))
            .is_ok()
    }

    fn note_failure(&self, server: &ServerName, transaction: &Transaction, error: &RequestError) {
        self.counters.failed.add(1);
        let now_ms = self.view.env.now_ms();
        let said: String = error.to_string().chars().take(ERROR_SIZE_MAX).collect();
        let state = &mut *self.state.lock();
        let Some(destination) = state.destinations.get_mut(server) else { return };
        let failures = destination.health.failures + 1;
        let wait_ms = asked_for(error).unwrap_or_else(|| backoff::wait_ms(&self.view.env, failures));
        if failures == 1 {
            tracing::info!(%server, error = said, wait_ms, "the server does not take a transaction");
        } else {
            tracing::debug!(%server, error = said, failures, wait_ms, "the server still takes no transaction");
        }
        destination.health.refused =
            matches!(error, RequestError::Status { status, .. } if !is_away(*status));
        destination.failed(transaction, now_ms, wait_ms, said);
        if now_ms >= destination.health.failing_since_ms + EPHEMERAL_TIME_MS {
            destination.forget_ephemeral();
        }
    }

    /// A transaction that the server cannot bear keeps back nothing else.
    async fn take_apart(&self, server: &ServerName, transaction: &Transaction) {
        let now_ms = self.view.env.now_ms();
        let given_up = {
            let state = &mut *self.state.lock();
            let Some(destination) = state.destinations.get_mut(server) else { return };
            let often = destination.careful || destination.health.failures >= UNBEARABLE_AFTER;
            often && destination.take_apart(transaction, now_ms)
        };
        if given_up {
            self.counters.given_up.add(1);
            let (pdus, outbox) = (&transaction.pdus, &transaction.outbox);
            tracing::error!(%server, ?pdus, ?outbox, "the server never takes this: it is passed over");
            self.delete_from_outbox(server, transaction).await;
        }
    }

    /// The store failed, not the server.
    fn note_own_failure(&self, server: &ServerName, error: &str) {
        let now_ms = self.view.env.now_ms();
        let state = &mut *self.state.lock();
        let Some(destination) = state.destinations.get_mut(server) else { return };
        let wait_ms = backoff::wait_ms(&self.view.env, 1);
        let health = &mut destination.health;
        if health.failures == 0 {
            (health.failures, health.failing_since_ms) = (1, now_ms);
        }
        health.retry_at_ms = now_ms + wait_ms;
        health.last_error = Some(format!("this server: {error}"));
    }

    /// The task ends; the next one begins when the wait is over.
    fn end(&self, server: &ServerName) {
        if let Some(destination) = self.state.lock().destinations.get_mut(server) {
            destination.in_flight = false;
        }
        self.retries_changed.notify_one();
        self.ledger_changed.notify_one();
    }

    /// The task ends unless something has come meanwhile.
    fn rests(&self, server: &ServerName) -> bool {
        let state = &mut *self.state.lock();
        let Some(destination) = state.destinations.get_mut(server) else { return true };
        destination.in_flight = destination.has_work();
        if !destination.in_flight {
            destination.careful = false;
            destination.lacking_since_ms = None;
            self.ledger_changed.notify_one();
        }
        !destination.in_flight
    }
}

/// Answers that a proxy gives for a server that is down.
fn is_away(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// What is sent is the matter, not that it is sent.
fn is_unbearable(error: &RequestError) -> bool {
    let RequestError::Status { status, .. } = error else { return false };
    matches!(
        *status,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
    )
}

fn asked_for(error: &RequestError) -> Option<u64> {
    let RequestError::Status { status: StatusCode::TOO_MANY_REQUESTS, body, .. } = error else { return None };
    body.get("retry_after_ms")?.as_u64().map(backoff::asked_for_ms)
}
