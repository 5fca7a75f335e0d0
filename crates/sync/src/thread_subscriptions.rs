//! Thread subscriptions (MSC4306) and what became of them (MSC4308). Per user and thread one row, and one by position.

use std::collections::BTreeMap;

use myelin_core::{Position, UserNid};
use myelin_store::{
    Batch, CommitError, Direction,
    codec::AtPosition,
    log::LogEntry,
    tables::{THREAD_SUBSCRIPTIONS, THREAD_SUBSCRIPTIONS_BY_POSITION, ThreadRef, ThreadSubscriptionRecord},
};
use ruma::{EventId, RoomId};

use crate::{Error, Requester, Sync, json::Object};

/// Attempts against other devices of the user that change the same subscription.
const ATTEMPTS: usize = 8;
/// Changes in one answer.
pub const CHANGES_MAX: usize = 512;
/// Rows looked through for them, where some refer to rooms that are gone.
const ROWS_MAX: usize = 2 * CHANGES_MAX;

/// Why a thread cannot be subscribed to.
#[derive(Debug, thiserror::Error)]
pub enum SubscriptionError {
    #[error(transparent)]
    Sync(#[from] Error),
    #[error("The event that is to cause the subscription is not in the thread.")]
    NotInThread,
    #[error("The thread was unsubscribed from after the event that is to cause the subscription.")]
    Unsubscribed,
}

/// Changes of subscriptions as clients get them.
#[derive(Default)]
pub struct Changes {
    /// (room, root) -> subscription, with when it changed.
    threads: BTreeMap<String, Vec<(String, Position, ThreadSubscriptionRecord)>>,
    /// There are more, up to here.
    more_until: Option<Position>,
}

impl Sync {
    /// Whether the client subscribed by itself; `None` if the user is not subscribed.
    pub async fn thread_subscription(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        root: &EventId,
    ) -> Result<Option<bool>, Error> {
        let placed = self.visible_event(requester, room_id, root).await?;
        let key = (requester.user, placed.event.room, root.to_string());
        let row = self.view.store.get(&THREAD_SUBSCRIPTIONS, &key).await?;
        Ok(row.filter(|row| row.value.subscribed).map(|row| row.value.automatic))
    }

    /// Durable when it returns. `cause`: the event for which the client subscribes by itself.
    pub async fn subscribe_to_thread(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        root: &EventId,
        cause: Option<&EventId>,
    ) -> Result<(), SubscriptionError> {
        let placed = self.visible_event(requester, room_id, root).await?;
        let cause = match cause {
            Some(cause) => Some(self.visible_event(requester, room_id, cause).await?),
            None => None,
        };
        let in_thread = |event: &myelin_view::Event| {
            event.pdu.relates_to().is_some_and(|to| to.rel_type == "m.thread" && to.event_id == *root)
        };
        if cause.as_ref().is_some_and(|cause| !in_thread(&cause.event)) {
            return Err(SubscriptionError::NotInThread);
        }
        let key = (requester.user, placed.event.room, root.to_string());
        for _ in 0..ATTEMPTS {
            let held = self.view.store.get(&THREAD_SUBSCRIPTIONS, &key).await.map_err(Error::from)?;
            if let (Some(held), Some(cause)) = (&held, &cause) {
                if held.value.subscribed {
                    return Ok(());
                }
                if cause.order < held.position.into() {
                    return Err(SubscriptionError::Unsubscribed);
                }
            }
            let record = ThreadSubscriptionRecord { subscribed: true, automatic: cause.is_some() };
            if self.put_subscription(&key, held.as_ref(), record).await? {
                return Ok(());
            }
        }
        Err(Error::Busy.into())
    }

    /// Durable when it returns. Also for who is not subscribed: the client is not to subscribe by itself.
    pub async fn unsubscribe_from_thread(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        root: &EventId,
    ) -> Result<(), Error> {
        let placed = self.visible_event(requester, room_id, root).await?;
        let key = (requester.user, placed.event.room, root.to_string());
        for _ in 0..ATTEMPTS {
            let held = self.view.store.get(&THREAD_SUBSCRIPTIONS, &key).await?;
            let record = ThreadSubscriptionRecord { subscribed: false, automatic: false };
            if self.put_subscription(&key, held.as_ref(), record).await? {
                return Ok(());
            }
        }
        Err(Error::Busy)
    }

    /// `false`: somebody else was first.
    async fn put_subscription(
        &self,
        key: &(UserNid, myelin_core::RoomNid, String),
        held: Option<&AtPosition<ThreadSubscriptionRecord>>,
        record: ThreadSubscriptionRecord,
    ) -> Result<bool, Error> {
        if held.is_some_and(|held| held.value == record) {
            return Ok(true);
        }
        let (user, room, root) = key;
        let mut batch = Batch::new();
        batch.require_unchanged(&THREAD_SUBSCRIPTIONS, key, held);
        if let Some(held) = held {
            batch.delete(&THREAD_SUBSCRIPTIONS_BY_POSITION, &(*user, held.position));
        }
        let position = batch.log(&LogEntry::ThreadSubscription { user: *user });
        batch.put(&THREAD_SUBSCRIPTIONS, key, &AtPosition { position, value: record });
        let by_position = ThreadRef { room: *room, root: root.clone() };
        batch.put(&THREAD_SUBSCRIPTIONS_BY_POSITION, &(*user, position), &by_position);
        match self.view.store.commit(batch).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict { .. }) => Ok(false),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }

    /// The newest changes in `(since, until]`.
    pub async fn thread_subscriptions(
        &self,
        user: UserNid,
        since: Position,
        until: Position,
        limit: usize,
    ) -> Result<Changes, Error> {
        let mut changes = Changes::default();
        let limit = limit.clamp(1, CHANGES_MAX);
        let (from, to) = ((user, since.next()), (user, Position(until.0.saturating_add(1))));
        let table = &THREAD_SUBSCRIPTIONS_BY_POSITION;
        let mut rows =
            self.view.store.range(table, &from, &to, Direction::Reverse, ROWS_MAX.min(limit + 1)).await?;
        if rows.len() > limit {
            changes.more_until = rows.pop().map(|((_, position), _)| position);
        }
        let keys: Vec<_> = rows.iter().map(|(_, thread)| (user, thread.room, thread.root.clone())).collect();
        let held = self.view.store.multi_get(&THREAD_SUBSCRIPTIONS, &keys).await?;
        for ((_, room, root), row) in keys.into_iter().zip(held) {
            let (Some(row), Some(info)) = (row, self.view.interner.room_info(room).await?) else { continue };
            let of_room = changes.threads.entry(info.room_id.to_string()).or_default();
            of_room.push((root, row.position, row.value));
        }
        Ok(changes)
    }

    /// `GET /thread_subscriptions`: backwards from `from`, not beyond `to`.
    pub async fn thread_subscription_page(
        &self,
        requester: &Requester,
        from: Option<Position>,
        to: Option<Position>,
        limit: usize,
    ) -> Result<String, Error> {
        let now = self.view.feed.caught_up().await;
        let until = from.unwrap_or(now).min(now);
        let since = to.unwrap_or(Position::ZERO);
        let changes = self.thread_subscriptions(requester.user, since, until, limit).await?;
        let mut json = String::new();
        changes.push("end", Object::open(&mut json));
        Ok(json)
    }
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// `more`: the key of the token by which the rest can be asked for.
    pub fn push(&self, more: &str, mut out: Object<'_>) {
        for (key, subscribed) in [("subscribed", true), ("unsubscribed", false)] {
            let mut text = String::new();
            let mut rooms = Object::open(&mut text);
            for (room, threads) in &self.threads {
                let mut of_room =
                    threads.iter().filter(|(_, _, held)| held.subscribed == subscribed).peekable();
                if of_room.peek().is_none() {
                    continue;
                }
                let mut roots = rooms.object(room);
                for (root, position, held) in of_room {
                    let mut thread = roots.object(root);
                    if subscribed {
                        thread.bool("automatic", held.automatic);
                    }
                    thread.number("bump_stamp", position.0);
                    thread.close();
                }
                roots.close();
            }
            let any = !rooms.is_empty();
            rooms.close();
            if any {
                out.raw(key, &text);
            }
        }
        if let Some(until) = self.more_until {
            out.string(more, &format!("ts{}", until.0));
        }
        out.close();
    }
}

/// A token of [`Changes::push`].
pub fn parse_token(text: &str) -> Option<Position> {
    text.strip_prefix("ts")?.parse().ok().map(Position).filter(|position| position.placeholder().is_none())
}
