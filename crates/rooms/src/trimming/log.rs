//! The old end of the log. What somebody may still read from it stays:
//!
//! - Readers with a durable cursor ([`readers::ALL`]) have read what goes; while one of them has no cursor, nothing goes.
//! - Other processes follow from memory. What goes is a day old and far behind; one that slept for longer notices.
//! - Other servers that are behind get what they lack from the log only if that is not much, which is kept in any case.
//! - Tokens of clients name positions; what happened since is read from the tables of rooms and users, not from the log.
//! - The last row tells the position when a store is opened, and is never among the old ones.

use std::collections::VecDeque;

use myelin_core::Position;
use myelin_store::{
    Batch, Direction, readers,
    tables::{LOG, LOG_CURSORS},
};

use super::PAGE;
use crate::{Error, Rooms};

/// At least so many entries stay. Invariant: more than other servers are replayed, and than a cursor lies behind its reader.
const KEPT_MIN: u64 = 200_000;
const AGE_MS_MIN: u64 = 24 * 3600 * 1000;
/// Times of which it is remembered where the log ended.
const ENDS_MAX: usize = 100;

/// What one process knows of the age of the log.
pub struct OldLog {
    kept_min: u64,
    /// With the time, newest last.
    ends: VecDeque<(u64, Position)>,
    /// What is before it has gone already.
    begins: Position,
}

impl Default for OldLog {
    fn default() -> Self {
        Self { kept_min: KEPT_MIN, ends: VecDeque::new(), begins: Position::ZERO }
    }
}

impl OldLog {
    fn note_end(&mut self, now_ms: u64, end: Position) {
        self.ends.push_back((now_ms, end));
        if self.ends.len() > ENDS_MAX {
            self.ends.pop_front();
        }
    }

    /// What is before this is old.
    fn old_until(&self, now_ms: u64, end: Position) -> Position {
        let old = self.ends.iter().rev().find(|(at_ms, _)| at_ms + AGE_MS_MIN <= now_ms);
        let far = Position(end.0.saturating_sub(self.kept_min));
        old.map_or(Position::ZERO, |(_, end)| far.min(*end))
    }
}

impl Rooms {
    pub(super) async fn trim_log(&self, old: &mut OldLog) -> Result<(), Error> {
        let (now_ms, end) = (self.view.env.now_ms(), self.view.feed.published());
        old.note_end(now_ms, end);
        let until = old.old_until(now_ms, end).min(self.read_by_all().await?);
        while old.begins < until {
            let rows = self.view.store.range(&LOG, &old.begins, &until, Direction::Forward, PAGE).await?;
            let mut batch = Batch::new();
            rows.iter().for_each(|(position, _)| batch.delete(&LOG, position));
            let more = self.trimmed(batch, rows.len()).await?;
            old.begins = if more { rows.last().map_or(until, |(last, _)| last.next()) } else { until };
        }
        Ok(())
    }

    /// Up to where every durable reader is.
    async fn read_by_all(&self) -> Result<Position, Error> {
        let names = readers::ALL.map(str::to_owned);
        let cursors = self.view.store.multi_get(&LOG_CURSORS, &names).await?;
        let read = cursors.into_iter().map(|cursor| cursor.map_or(Position::ZERO, |cursor| cursor.position));
        Ok(read.min().unwrap_or(Position::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use myelin_store::tables::Cursor;

    use super::*;
    use crate::tests::world::World;

    fn first(world: &World) -> Position {
        let rows = world.run(world.view.store.range(
            &LOG,
            &Position::ZERO,
            &Position(u64::MAX >> 1),
            Direction::Forward,
            1,
        ));
        rows.unwrap()[0].0
    }

    fn reads(world: &World, name: &str, position: Position) {
        let mut batch = Batch::new();
        batch.put(&LOG_CURSORS, &name.to_owned(), &Cursor { position });
        world.run(world.view.store.commit(batch)).unwrap();
    }

    #[test]
    fn what_is_old_and_read_by_all_goes_and_the_newest_stays() {
        let world = World::new(1);
        let alice = world.user("alice");
        let room = world.public_room(&alice);
        (0..700).for_each(|n| drop(world.say(&alice, &room, &n.to_string()).unwrap()));
        let mut old = OldLog { kept_min: 20, ..OldLog::default() };
        let trims = |old: &mut OldLog| world.run(world.rooms.trim_log(old)).unwrap();
        let end = world.view.store.position();
        let day = Duration::from_millis(AGE_MS_MIN);
        trims(&mut old);
        world.sim.clock().advance(day);
        trims(&mut old);
        assert_eq!(first(&world), Position(1), "nobody has said how far they are");
        for name in readers::ALL {
            reads(&world, name, end);
        }
        reads(&world, readers::ALL[1], Position(5));
        trims(&mut old);
        assert_eq!(first(&world), Position(5), "what one has not read stays");
        reads(&world, readers::ALL[1], end);
        world.say(&alice, &room, "new").unwrap();
        trims(&mut old);
        assert_eq!(first(&world).0, world.view.store.position().0 - 20);
        world.sim.clock().advance(day);
        trims(&mut old);
        let again = world.restarted();
        assert_eq!(
            again.view.store.position(),
            world.view.store.position(),
            "the position is known from the last row"
        );
        again.say(&alice, &room, "goes on").unwrap();
        let mut young = OldLog { kept_min: 1, ..OldLog::default() };
        again.run(again.rooms.trim_log(&mut young)).unwrap();
        assert!(first(&again) < again.view.store.position(), "after a start nothing is old");
    }
}
