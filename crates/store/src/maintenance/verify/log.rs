//! The log is dense from its first row, and its entries speak of what is there.

use std::collections::HashSet;

use myelin_core::{EventNid, Position, RoomNid};

use super::{Found, Verifier};
use crate::{
    Error,
    codec::AtPosition,
    log::LogEntry,
    maintenance::pages::TypedPages,
    tables::{EVENTS, EventRecord, LOG, LOG_CURSORS, TIMELINE},
};

impl Verifier<'_> {
    pub(super) async fn check_log(&mut self) -> Result<(), Error> {
        self.begin("log");
        let mut pages = TypedPages::of(&LOG);
        let mut previous: Option<Position> = None;
        while let Some(rows) = pages.next(self.read()).await? {
            for (position, _) in &rows {
                if let Some(previous) = previous.filter(|p| p.next() != *position) {
                    let missing = position.0.saturating_sub(previous.0 + 1);
                    self.found(&LOG, position, format!("{missing} log entries before it are missing"));
                }
                previous = Some(*position);
            }
            self.check_logged_events(&rows).await?;
            self.advance(rows.len());
        }
        self.check_cursors().await
    }

    async fn check_logged_events(&mut self, rows: &[(Position, LogEntry)]) -> Result<(), Error> {
        let events: Vec<(Position, RoomNid, EventNid)> = rows
            .iter()
            .filter_map(|(position, entry)| match entry {
                LogEntry::Event { room, event, .. } => Some((*position, *room, *event)),
                _ => None,
            })
            .collect();
        let keys = events.iter().map(|(position, room, _)| (*room, (*position).into()));
        let timeline = self.load_all(&TIMELINE, keys).await?;
        let missing = events.iter().zip(&timeline).filter(|(_, found)| found.is_missing());
        let missing: Vec<EventNid> = missing.map(|((_, _, event), _)| *event).collect();
        let purged = self.purged_among(&missing).await?;
        for ((position, room, event), found) in events.iter().zip(timeline) {
            if purged.contains(event) {
                continue;
            }
            if found.is_missing() {
                let problem = format!("says that {event:?} is in the timeline of {room:?} here; it is not");
                self.found(&LOG, position, problem);
            } else if let Some(other) = found.row().filter(|other| *other != event) {
                let problem = format!("speaks of {event:?}, but the timeline has {other:?} here");
                self.found(&LOG, position, problem);
            }
        }
        Ok(())
    }

    /// Messages whose time was over are redacted by themselves, and in no timeline.
    async fn purged_among(&self, events: &[EventNid]) -> Result<HashSet<EventNid>, Error> {
        let rows = self.load_all(&EVENTS, events.iter().copied()).await?;
        let is_purged = |(nid, row): (&EventNid, Found<AtPosition<EventRecord>>)| {
            row.row().is_some_and(|row| row.value.redacted_by == Some(*nid)).then_some(*nid)
        };
        Ok(events.iter().zip(rows).filter_map(is_purged).collect())
    }

    async fn check_cursors(&mut self) -> Result<(), Error> {
        let mut pages = TypedPages::of(&LOG_CURSORS);
        while let Some(rows) = pages.next(self.read()).await? {
            for (name, cursor) in rows {
                if cursor.position > self.report.position {
                    let problem = format!("is past the last position, at {:?}", cursor.position);
                    self.found(&LOG_CURSORS, &name, problem);
                }
            }
        }
        Ok(())
    }
}
