//! The log is dense from its first row, and its entries speak of what is there.

use myelin_core::{EventNid, Position, RoomNid};

use super::Verifier;
use crate::{
    Error,
    log::LogEntry,
    maintenance::pages::TypedPages,
    tables::{LOG, LOG_CURSORS, TIMELINE},
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
        for ((position, room, event), found) in events.iter().zip(timeline) {
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
