//! What was there before the index: events from the newest number downwards, then members, then accounts, a page at a time.
//! How far it is lies in the index, so a restart goes on where the last commit was.

use std::sync::Arc;

use myelin_core::{EventNid, RoomNid, UserNid};
use myelin_store::{
    Direction,
    tables::{ACCOUNTS, EVENTS, MEMBERS, Placement, VerdictRecord},
};
use myelin_view::Event;

use crate::{Error, Search, documents::may_be_found, index::Writing};

const PAGE: usize = 500;

impl Search {
    /// One page of whatever is still to come.
    pub(crate) async fn backfill(&self, writing: &mut Writing) -> Result<(), Error> {
        if writing.progress.events_below > EventNid(0) {
            self.backfill_events(writing).await?;
        } else if let Some(after) = writing.progress.members_after {
            writing.progress.members_after = self.backfill_members(writing, after, None).await?;
        } else if let Some(after) = writing.progress.accounts_after {
            writing.progress.accounts_after = self.backfill_accounts(writing, after).await?;
        } else if let Some((room, after)) = writing.progress.rooms.pop_first() {
            let end = Some(RoomNid(room.0.saturating_add(1)));
            if let Some((_, after)) = self.backfill_members(writing, (room, after), end).await? {
                writing.progress.rooms.insert(room, after);
            }
        }
        self.index.write(writing, false).await
    }

    async fn backfill_events(&self, writing: &mut Writing) -> Result<(), Error> {
        let (from, to) = (EventNid(0), writing.progress.events_below);
        let rows = self.view.store.range(&EVENTS, &from, &to, Direction::Reverse, PAGE).await?;
        writing.progress.events_below = match rows.last() {
            Some((last, _)) if rows.len() == PAGE => *last,
            _ => EventNid(0),
        };
        for (nid, row) in rows {
            let record = &row.value;
            let shown = !matches!(record.placement, Placement::Outside | Placement::Told)
                && record.verdict == VerdictRecord::Accepted;
            if !shown || !may_be_found(&record.json) {
                continue;
            }
            let Some(info) = self.view.interner.room_info(record.room).await? else { continue };
            // Not through the cache: it is for what people read now.
            let event = Arc::new(Event::from_row(nid, row, &info)?);
            self.take_in_event(writing, &event).await?;
        }
        Ok(())
    }

    /// Where to go on; `None` at the end.
    async fn backfill_members(
        &self,
        writing: &mut Writing,
        (room, user): (RoomNid, UserNid),
        end: Option<RoomNid>,
    ) -> Result<Option<(RoomNid, UserNid)>, Error> {
        let from = (room, UserNid(user.0.saturating_add(1)));
        let to = (end.unwrap_or(RoomNid(u64::MAX)), UserNid(0));
        let rows = self.view.store.range(&MEMBERS, &from, &to, Direction::Forward, PAGE).await?;
        let next = rows.last().filter(|_| rows.len() == PAGE).map(|(key, _)| *key);
        for ((room, user), _) in rows {
            writing.push(self.member_change(room, user).await?, self.view.env.now_ms());
        }
        Ok(next)
    }

    async fn backfill_accounts(
        &self,
        writing: &mut Writing,
        after: UserNid,
    ) -> Result<Option<UserNid>, Error> {
        let (from, to) = (UserNid(after.0.saturating_add(1)), UserNid(u64::MAX));
        let rows = self.view.store.range(&ACCOUNTS, &from, &to, Direction::Forward, PAGE).await?;
        let next = rows.last().filter(|_| rows.len() == PAGE).map(|(user, _)| *user);
        for (user, _) in rows {
            writing.push(self.account_change(user).await?, self.view.env.now_ms());
        }
        Ok(next)
    }
}
