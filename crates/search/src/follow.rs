//! Following the log: which documents an entry makes stale, and when what was gathered is committed.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use myelin_core::{EventNid, Position, RoomNid, TimelineOrder, UserNid};
use myelin_store::{
    Direction,
    log::LogEntry,
    tables::{LOG, TIMELINE},
};
use myelin_view::Event;
use tokio::sync::Notify;

use crate::{
    Error, Search,
    collector::Best,
    documents::{Concerns, concerns},
    index::Writing,
};

/// Log rows read at a time.
const LOG_PAGE: usize = 512;
/// A message can be found this much later at the latest, or when somebody searches.
const COMMIT_EVERY: Duration = Duration::from_millis(500);
/// The same while what was there before is gone through: fewer, larger segments.
const COMMIT_EVERY_IN_BACKFILL: Duration = Duration::from_secs(3);
const UNCOMMITTED_MAX: usize = 20_000;
/// Positions without anything to index after which the cursor is written nevertheless.
const POSITIONS_MAX: u64 = 50_000;
/// Between two pages of the back-fill, so that it does not take a whole processor.
const BREATH: Duration = Duration::from_millis(10);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// A search waits this long for what was just written.
const PATIENCE: Duration = Duration::from_millis(500);
/// Messages found by the text of one edit.
const SHOWN_MAX: usize = 16;

#[derive(Default)]
pub struct Following {
    running: AtomicBool,
    hurried: AtomicBool,
    wake: Notify,
}

/// What to do after a round.
enum Next {
    GoOn,
    Commit,
    Wait,
}

/// What entries of the log touch.
#[derive(Default)]
struct Touched {
    events: BTreeSet<EventNid>,
    purged: Vec<EventNid>,
    members: BTreeSet<(RoomNid, UserNid)>,
    accounts: BTreeSet<UserNid>,
    rooms: BTreeSet<RoomNid>,
    history: Vec<(RoomNid, TimelineOrder, TimelineOrder)>,
}

impl Search {
    /// Keeps the index up for ever. Spawn it once per process.
    pub async fn run(self: Arc<Self>) {
        let clock = self.view.env.clock.clone();
        self.following.running.store(true, Ordering::SeqCst);
        loop {
            let now = self.view.feed.caught_up().await;
            match self.round(now, false).await {
                Ok(Next::GoOn) => clock.sleep(BREATH).await,
                Ok(Next::Commit) => {
                    futures::select_biased! {
                        () = self.following.wake.notified().fuse() => {}
                        () = clock.sleep(COMMIT_EVERY).fuse() => {}
                    }
                }
                Ok(Next::Wait) => self.view.feed.moved_past(now).await,
                Err(error) => {
                    tracing::warn!(%error, "the search index cannot be kept up; trying again");
                    clock.sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
    }

    /// What is durable at the call can be found when this returns, unless the index lags far behind.
    pub(crate) async fn catch_up(&self) -> Result<(), Error> {
        let now = self.view.feed.caught_up().await;
        if !self.following.running.load(Ordering::SeqCst) {
            while let Next::GoOn = self.round(now, true).await? {}
            return Ok(());
        }
        if self.index.searchable() < now {
            self.following.hurried.store(true, Ordering::SeqCst);
            self.following.wake.notify_one();
            self.view.env.timeout(PATIENCE, self.index.searchable_up_to(now)).await;
        }
        Ok(())
    }

    async fn round(&self, now: Position, at_once: bool) -> Result<Next, Error> {
        let mut slot = self.index.slot.lock().await;
        let mut writing = match slot.take() {
            Some(writing) => writing,
            None => self.open(now).await?,
        };
        self.follow(&mut writing, now).await?;
        let backfilling = !writing.progress.is_complete();
        if backfilling {
            self.backfill(&mut writing).await?;
        }
        let more = !writing.progress.is_complete();
        let every = if more { COMMIT_EVERY_IN_BACKFILL } else { COMMIT_EVERY };
        let (since_ms, now_ms) = (writing.uncommitted_since_ms, self.view.env.now_ms());
        let due = self.following.hurried.swap(false, Ordering::SeqCst)
            || (at_once && !more)
            || writing.uncommitted >= UNCOMMITTED_MAX
            || u128::from(now_ms.saturating_sub(since_ms)) >= every.as_millis();
        let idle = now.0.saturating_sub(writing.committed_log.0) >= POSITIONS_MAX;
        let completed = backfilling && !more;
        if (writing.uncommitted > 0 && due) || idle || completed {
            self.index.write(&mut writing, true).await?;
        } else if writing.uncommitted == 0 {
            self.index.advance(&writing);
        }
        if completed {
            tracing::info!("the search index has everything that was there before it");
        }
        let waiting = writing.uncommitted > 0;
        *slot = Some(writing);
        Ok(if more {
            Next::GoOn
        } else if waiting {
            Next::Commit
        } else {
            Next::Wait
        })
    }

    async fn open(&self, now: Position) -> Result<Writing, Error> {
        let held = self.index.reopen(now).await?;
        let writing = match held {
            Some(writing) if self.is_of_this_store(&writing).await? => writing,
            _ => {
                tracing::info!("a new search index is begun");
                self.index.begin(now).await?
            }
        };
        self.index.show(&writing);
        Ok(writing)
    }

    async fn is_of_this_store(&self, writing: &Writing) -> Result<bool, Error> {
        let Some((nid, event_id)) = &writing.progress.witness else { return Ok(true) };
        let event = self.view.events.load(*nid).await?;
        Ok(event.is_some_and(|event| event.pdu.event_id == event_id.as_str()))
    }

    async fn follow(&self, writing: &mut Writing, now: Position) -> Result<(), Error> {
        while writing.progress.log < now {
            let (from, to) = (writing.progress.log.next(), now.next());
            let rows = self.view.store.range(&LOG, &from, &to, Direction::Forward, LOG_PAGE).await?;
            if rows.first().is_some_and(|(first, _)| *first != from) {
                tracing::info!("the log does not reach back to the search index: a new one is begun");
                *writing = self.index.begin(now).await?;
                self.index.show(writing);
                return Ok(());
            }
            let last = rows.last().map_or(now, |(position, _)| *position);
            let mut touched = Touched::default();
            rows.iter().for_each(|(_, entry)| touched.take_in(entry));
            self.take_in(writing, touched).await?;
            writing.progress.log = last;
            self.index.write(writing, false).await?;
        }
        Ok(())
    }

    async fn take_in(&self, writing: &mut Writing, mut touched: Touched) -> Result<(), Error> {
        for (room, from, to) in &touched.history {
            let (from, to) = ((*room, *from), (*room, TimelineOrder(to.0.saturating_add(1))));
            let rows = self.view.store.range(&TIMELINE, &from, &to, Direction::Forward, LOG_PAGE).await?;
            touched.events.extend(rows.into_iter().map(|(_, event)| event));
        }
        let events: Vec<_> = touched.events.into_iter().collect();
        for event in self.view.events.load_many(&events).await?.into_iter().flatten() {
            self.take_in_event(writing, &event).await?;
        }
        let now_ms = self.view.env.now_ms();
        for event in touched.purged {
            writing.push(self.index.fields.without_event(event), now_ms);
        }
        for (room, user) in touched.members {
            writing.push(self.member_change(room, user).await?, now_ms);
        }
        for user in touched.accounts {
            writing.push(self.account_change(user).await?, now_ms);
        }
        writing.progress.rooms.extend(touched.rooms.into_iter().map(|room| (room, UserNid(0))));
        Ok(())
    }

    pub(crate) async fn take_in_event(&self, writing: &mut Writing, event: &Arc<Event>) -> Result<(), Error> {
        let now_ms = self.view.env.now_ms();
        match concerns(event) {
            Concerns::Nothing => return Ok(()),
            Concerns::Event(id) => {
                if let Some(event) = self.neighbour(event, &id).await? {
                    writing.push(self.event_change(&event).await?, now_ms);
                }
            }
            Concerns::Redacted(id) => {
                if let Some(gone) = self.neighbour(event, &id).await? {
                    for shown in self.found_by(writing, gone.nid).await? {
                        writing.push(self.event_change(&shown).await?, now_ms);
                    }
                    writing.push(self.event_change(&gone).await?, now_ms);
                }
            }
        }
        let newest = writing.progress.witness.as_ref().is_none_or(|(nid, _)| *nid < event.nid);
        if newest {
            writing.progress.witness = Some((event.nid, event.pdu.event_id.to_string()));
        }
        Ok(())
    }

    /// The messages that are found by the text of an edit: what it edited cannot be told from a redacted event.
    async fn found_by(&self, writing: &mut Writing, edit: EventNid) -> Result<Vec<Arc<Event>>, Error> {
        if writing.uncommitted > 0 {
            self.index.write(writing, true).await?;
        }
        let query = self.index.fields.shown_by(edit);
        let best = Best { by_score: false, below: None, keep: SHOWN_MAX };
        let found = self.index.look_up(query, best).await?;
        let nids: Vec<_> = found.hits.iter().map(|hit| EventNid(hit.event)).collect();
        Ok(self.view.events.load_many(&nids).await?.into_iter().flatten().collect())
    }
}

impl Touched {
    fn take_in(&mut self, entry: &LogEntry) {
        match entry {
            LogEntry::Event { room, event, member, .. } => {
                self.events.insert(*event);
                self.members.extend(member.map(|user| (*room, user)));
            }
            LogEntry::History { room, from, to } => self.history.push((*room, *from, *to)),
            LogEntry::Purged { events, .. } => self.purged.extend(events),
            LogEntry::Completed { room } => {
                self.rooms.insert(*room);
            }
            LogEntry::Profile { user } | LogEntry::Account { user } => {
                self.accounts.insert(*user);
            }
            _ => {}
        }
    }
}
