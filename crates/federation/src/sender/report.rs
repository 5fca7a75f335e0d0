//! How it stands with other servers, for operators.

use myelin_core::Position;
use myelin_store::{Direction, Store, tables::OUTBOX};
use ruma::{OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};

use super::{Sender, ledger, queue::Destination};

/// Rows of an outbox that are counted.
const COUNTED_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It has got everything.
    UpToDate,
    /// Something is on its way.
    Sending,
    /// It did not take the last transaction; another attempt comes.
    BackingOff,
}

impl Standing {
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::UpToDate, "up_to_date"), (Self::Sending, "sending"), (Self::BackingOff, "backing_off")];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(standing, _)| *standing == self).map_or("", |(_, name)| name)
    }

    fn of(destination: &Destination) -> Self {
        match destination.health.failures {
            0 if destination.oldest().is_none() && !destination.in_flight => Self::UpToDate,
            0 => Self::Sending,
            _ => Self::BackingOff,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub server: OwnedServerName,
    pub standing: Standing,
    pub failures: u32,
    /// Times are in milliseconds since the epoch.
    pub failing_since_ms: Option<u64>,
    pub next_attempt_ms: Option<u64>,
    pub last_success_ms: Option<u64>,
    pub last_error: Option<String>,
    /// An attempt is being made or waits for its turn.
    pub attempting: bool,
    pub waiting: Waiting,
}

/// What waits for a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Events in memory; more may be in the log.
    pub events: usize,
    /// Not everything is in memory: from this position on it is read from the log or caught up with.
    pub in_log_from: Option<u64>,
    /// The position from which on the server may lack something.
    pub behind_from: Option<u64>,
    pub receipts: usize,
    /// To-device messages and device lists; counted only for a single server.
    pub edus: Option<usize>,
    pub typing_rooms: usize,
    pub presence: usize,
    /// The transaction that was not answered: its id, events and EDUs.
    pub unanswered: Option<(String, usize, usize)>,
}

impl Sender {
    /// Every server that was sent to since the start, or is behind.
    pub fn destinations(&self) -> Vec<Report> {
        let state = self.state.lock();
        let mut reports: Vec<_> =
            state.destinations.iter().map(|(name, queue)| report(name, queue)).collect();
        reports.sort_by(|a, b| a.server.cmp(&b.server));
        reports
    }

    pub async fn destination(&self, server: &ServerName) -> Result<Option<Report>, myelin_store::Error> {
        let found = self.state.lock().destinations.get(server).map(|queue| report(server, queue));
        let Some(mut report) = found else { return Ok(None) };
        report.waiting.edus = Some(waiting_edus(&self.view.store, server).await?);
        Ok(Some(report))
    }

    pub(super) fn count(&self, standing: Standing) -> u64 {
        let state = self.state.lock();
        state.destinations.values().filter(|queue| Standing::of(queue) == standing).count() as u64
    }
}

/// The same from the store of a server that does not run: only those that are behind.
pub async fn stored(store: &Store) -> Result<Vec<Report>, myelin_store::Error> {
    let mut reports = Vec::new();
    for (server, record) in ledger::stored(store).await? {
        let edus = waiting_edus(store, &server).await?;
        let mut report = report(&server, &Destination::restored(record));
        report.waiting.edus = Some(edus);
        reports.push(report);
    }
    Ok(reports)
}

async fn waiting_edus(store: &Store, server: &ServerName) -> Result<usize, myelin_store::Error> {
    Ok(store.scan(&OUTBOX, &server.to_string(), Direction::Forward, COUNTED_MAX).await?.len())
}

fn report(server: &ServerName, queue: &Destination) -> Report {
    let health = &queue.health;
    let failing = health.failures > 0;
    let unanswered = queue.transaction.as_ref().filter(|_| failing);
    Report {
        server: server.to_owned(),
        standing: Standing::of(queue),
        failures: health.failures,
        failing_since_ms: failing.then_some(health.failing_since_ms),
        next_attempt_ms: (failing && queue.has_work()).then_some(health.retry_at_ms),
        last_success_ms: health.last_success_ms,
        last_error: health.last_error.clone(),
        attempting: queue.in_flight,
        waiting: Waiting {
            events: queue.pdus.len() + unanswered.map_or(0, |transaction| transaction.pdus.len()),
            in_log_from: queue.missed_from.map(|position: Position| position.0),
            behind_from: queue.oldest().map(|position| position.0),
            receipts: queue.receipts.len(),
            edus: None,
            typing_rooms: queue.typing_rooms.len(),
            presence: queue.presence.len(),
            unanswered: unanswered.map(|t| (t.id.clone(), t.pdus.len(), t.edus)),
        },
    }
}
