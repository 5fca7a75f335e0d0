//! A batch on its way, and what follows from its outcome.

use std::sync::Arc;

use futures::future::poll_fn;
use myelin_core::{EventNid, Position, Spawner, UserNid};
use myelin_store::{
    Batch, CommitError,
    backend::{CommitFuture, Committed},
};
use myelin_view::{Landing, RoomSnapshot, RoomViews, Staging, UserRooms};

use super::slots::{Advance, SlotRef, Turn};
use crate::{Rooms, resolution::Resolutions};

/// A finished draft, or two of them in one batch.
pub struct Sealed {
    pub batch: Batch,
    /// Events with the index of their log entry.
    pub landings: Vec<(u32, Landing)>,
    /// Events that are stored, but not in the timeline.
    pub outside: Vec<Landing>,
    pub users: Vec<UserNid>,
    /// The room whose turn this is (the last one drafted).
    pub head: Arc<RoomSnapshot>,
    pub joined: Vec<UserNid>,
    /// Whether an event that counted is rejected now.
    pub rejects_held: bool,
}

pub struct Commit {
    future: Option<CommitFuture>,
    outcome: Outcome,
    spawner: Arc<dyn Spawner>,
}

/// Knows what to do when the answer comes, once.
struct Outcome {
    staging: Arc<Staging>,
    rooms: Arc<RoomViews>,
    user_rooms: Arc<UserRooms>,
    /// With the index of their log entry.
    events: Vec<(u32, EventNid)>,
    outside: Vec<EventNid>,
    users: Vec<UserNid>,
    head: Arc<RoomSnapshot>,
    slot: Option<(SlotRef, u64)>,
    /// Those that may be others now.
    resolutions: Option<Arc<Resolutions>>,
}

impl Commit {
    /// Enqueues the batch and passes the turn on.
    pub fn submit(rooms: &Rooms, sealed: Sealed, turn: Option<Turn>) -> Self {
        let view = &rooms.view;
        let events = sealed.landings.iter().map(|(entry, landing)| (*entry, landing.event.nid)).collect();
        let outside = sealed.outside.iter().map(|landing| landing.event.nid).collect();
        let all = || sealed.landings.iter().map(|(_, landing)| landing).chain(&sealed.outside);
        let slot = turn.as_ref().map(|turn| {
            let events = all().map(|landing| landing.event.clone()).collect();
            let (head, joined) = (sealed.head.clone(), sealed.joined.clone());
            let advance = Advance { head, events, joined, rejects_held: sealed.rejects_held };
            (turn.slot().clone(), turn.advance(advance))
        });
        for landing in sealed.landings.into_iter().map(|(_, landing)| landing).chain(sealed.outside) {
            view.staging.stage(landing);
        }
        let future = view.store.commit(sealed.batch);
        let outcome = Outcome {
            staging: view.staging.clone(),
            rooms: view.rooms.clone(),
            user_rooms: view.user_rooms.clone(),
            events,
            outside,
            users: sealed.users,
            head: sealed.head,
            slot,
            resolutions: sealed.rejects_held.then(|| rooms.resolutions.clone()),
        };
        Self { future: Some(future), outcome, spawner: view.env.spawner.clone() }
    }

    /// Completes when the batch is durable and in view.
    pub async fn wait(mut self) -> Result<(), CommitError> {
        let answer = poll_fn(|context| match &mut self.future {
            Some(future) => future.as_mut().poll(context),
            None => std::task::Poll::Pending,
        })
        .await;
        self.future = None;
        self.outcome.apply(answer)
    }
}

impl Drop for Commit {
    /// Nobody waits any more: the answer is still to be followed.
    fn drop(&mut self) {
        let Some(future) = self.future.take() else { return };
        let outcome = self.outcome.take();
        let task = async move {
            if let Err(error) = outcome.apply(future.await) {
                tracing::debug!(%error, "a commit that nobody waited for failed");
            }
        };
        self.spawner.spawn("finish a commit", Box::pin(task));
    }
}

impl Outcome {
    fn apply(&self, answer: Result<Committed, CommitError>) -> Result<(), CommitError> {
        match answer {
            Ok(committed) => {
                self.land(committed);
                Ok(())
            }
            Err(error) => {
                self.withdraw();
                Err(error)
            }
        }
    }

    fn land(&self, committed: Committed) {
        for (entry, event) in &self.events {
            self.staging.land(*event, Position(committed.first.0 + u64::from(*entry)));
        }
        self.outside.iter().for_each(|event| self.staging.land_outside(*event));
        self.users.iter().for_each(|user| self.user_rooms.forget(*user));
        self.forget_resolutions();
        if let Some((slot, epoch)) = &self.slot {
            slot.landed(*epoch, &self.nids().collect::<Vec<_>>(), self.resolutions.is_some());
        }
    }

    fn withdraw(&self) {
        self.nids().for_each(|event| self.staging.withdraw(event));
        self.forget_resolutions();
        self.rooms.forget(self.head.nid());
        if let Some((slot, epoch)) = &self.slot {
            slot.failed(*epoch);
        }
    }

    /// The new verdict was to be seen since the batch was enqueued.
    fn forget_resolutions(&self) {
        if let Some(resolutions) = &self.resolutions {
            resolutions.forget();
        }
    }

    fn nids(&self) -> impl Iterator<Item = EventNid> + '_ {
        self.events.iter().map(|(_, event)| *event).chain(self.outside.iter().copied())
    }

    fn take(&mut self) -> Self {
        Self {
            staging: self.staging.clone(),
            rooms: self.rooms.clone(),
            user_rooms: self.user_rooms.clone(),
            events: std::mem::take(&mut self.events),
            outside: std::mem::take(&mut self.outside),
            users: std::mem::take(&mut self.users),
            head: self.head.clone(),
            slot: self.slot.take(),
            resolutions: self.resolutions.take(),
        }
    }
}
