//! Walks every table of a snapshot and reports what does not fit together.

mod events;
mod interned;
mod log;
mod members;
mod receipts;
mod rows;
mod state;

use std::fmt;

use myelin_core::{EventNid, Position, StateKeyNid};

use super::{OnProgress, Progress};
use crate::{
    Error, Snapshot, Store,
    backend::RawRead,
    codec::{KeyPart, Value},
    tables::{EventRecord, LOG, RoomRecord, Table},
};

/// Findings kept in a report; a damaged store may have millions, and the first ones tell enough.
const FINDINGS_MAX: usize = 1000;

/// Something wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub table: &'static str,
    pub key: Vec<u8>,
    /// For a person: what is wrong with the row.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]: {}", self.table, self.key.escape_ascii(), self.problem)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The store was verified as it was at this position.
    pub position: Position,
    pub rows: u64,
    /// The first findings, in the order of the steps.
    pub findings: Vec<Finding>,
    /// All findings, kept or not.
    pub findings_total: u64,
}

/// What a node of a state tree refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateNode {
    pub children: Vec<[u8; 16]>,
    pub entries: Vec<(StateKeyNid, EventNid)>,
}

/// What the room rules know and the store does not. Errors are sentences for a person.
pub trait Knowledge: Send + Sync {
    /// The event is what its id and its content hash say.
    fn check_event(&self, room: &RoomRecord, event: &EventRecord) -> Result<(), String>;
    /// The node is what its key says; what it refers to.
    fn read_node(&self, key: &[u8; 16], bytes: &[u8]) -> Result<StateNode, String>;
    /// The root of the empty state, which no row stands for.
    fn empty_state(&self) -> [u8; 16];
}

/// Nothing is known: hashes and what is inside of state nodes go unchecked.
pub struct NoKnowledge;

impl Knowledge for NoKnowledge {
    fn check_event(&self, _: &RoomRecord, _: &EventRecord) -> Result<(), String> {
        Ok(())
    }

    fn read_node(&self, _: &[u8; 16], _: &[u8]) -> Result<StateNode, String> {
        Ok(StateNode::default())
    }

    fn empty_state(&self) -> [u8; 16] {
        [0; 16]
    }
}

/// Verifies the store as it is now; it may be written to meanwhile.
pub async fn verify(
    store: &Store,
    knowledge: &dyn Knowledge,
    on_progress: OnProgress<'_>,
) -> Result<Report, Error> {
    let snapshot = store.snapshot().await?;
    let last = snapshot.read().last(&LOG).await.ok().flatten();
    let position = last.map_or(Position::ZERO, |(position, _)| position);
    let report = Report { position, ..Report::default() };
    let mut verifier = Verifier { snapshot, knowledge, on_progress, report, step: ("", 0, 0) };
    verifier.run().await?;
    Ok(verifier.report)
}

const STEPS: usize = 7;

struct Verifier<'a> {
    snapshot: Snapshot,
    knowledge: &'a dyn Knowledge,
    on_progress: OnProgress<'a>,
    report: Report,
    /// Name, number, rows.
    step: (&'static str, usize, u64),
}

/// A row that something refers to.
enum Found<V> {
    Missing,
    /// It is there, but does not decode; reported with all such rows, once.
    Unreadable,
    Row(V),
}

impl<V> Found<V> {
    fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }

    fn row(&self) -> Option<&V> {
        match self {
            Self::Row(value) => Some(value),
            Self::Missing | Self::Unreadable => None,
        }
    }
}

impl Verifier<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        self.check_rows().await?;
        self.check_log().await?;
        self.check_interned().await?;
        self.check_events().await?;
        self.check_states().await?;
        self.check_members().await?;
        self.check_receipts().await
    }

    fn read(&self) -> &dyn RawRead {
        &*self.snapshot.raw
    }

    fn begin(&mut self, step: &'static str) {
        self.step = (step, self.step.1 + 1, 0);
        self.advance(0);
    }

    fn advance(&mut self, rows: usize) {
        self.step.2 += rows as u64;
        let (step, step_number, rows) = self.step;
        (self.on_progress)(Progress { step, step_number, steps: STEPS, rows });
    }

    fn found<K: KeyPart, V>(&mut self, table: &Table<K, V>, key: &K, problem: String) {
        self.record(Finding { table: table.name, key: key.to_key().bytes, problem });
    }

    fn record(&mut self, finding: Finding) {
        self.report.findings_total += 1;
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        }
    }

    /// One answer per key.
    async fn load_all<K: KeyPart, V: Value>(
        &self,
        table: &Table<K, V>,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Found<V>>, Error> {
        let keys = keys.into_iter().map(|key| key.to_key().bytes).collect();
        let found = self.read().multi_get(table.id, keys).await?;
        Ok(found.into_iter().map(to_found).collect())
    }

    /// Whether each key has a row.
    async fn are_there<K: KeyPart, V>(
        &self,
        table: &Table<K, V>,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<bool>, Error> {
        let keys = keys.into_iter().map(|key| key.to_key().bytes).collect();
        Ok(self.read().multi_get(table.id, keys).await?.iter().map(Option::is_some).collect())
    }
}

fn to_found<V: Value>(bytes: Option<bytes::Bytes>) -> Found<V> {
    match bytes {
        None => Found::Missing,
        Some(bytes) => V::decode(&bytes).map_or(Found::Unreadable, Found::Row),
    }
}

#[cfg(test)]
mod tests;
