//! The one path by which rooms are written.
//!
//! A writer takes its turn at the room ([`slots`]), acts on a [`Draft`] of the newest head (durable or not), enqueues
//! the batch, lets the next one take its turn, and only then waits for durability. Many commits of one room so share
//! one fsync, and each requires the head that it was built on: if one fails, all built on it fail, and try again.
//!
//! Invariant: whatever becomes of the waiting side (a client that hangs up drops it), a commit that was enqueued is
//! followed to its end: [`commit::Commit`] hands itself to the spawner when it is dropped. Whether the commit is then
//! seen by readers does not even depend on that, since the feed lands what is staged.

mod commit;
mod draft;
mod named;
mod notify;
mod rows;
mod slots;
mod transactions;

use std::time::Duration;

use myelin_core::RoomNid;
use myelin_store::{Batch, CommitError, tables::ROOM_HEADS};
use myelin_view::RoomSnapshot;

use self::{commit::Commit, slots::Turn};
pub use self::{
    draft::Draft,
    rows::{Change, member_id},
    slots::{SlotRef, Writers},
    transactions::{Begun, Transactions, UnderWay},
};
use crate::{Error, Rooms, policy::Approvals};

/// Tries before a command gives up against other writers.
const ATTEMPTS_MAX: u32 = 12;
/// Added to the pause per attempt.
const PAUSE: Duration = Duration::from_millis(2);

/// What somebody wants of a room.
pub trait Command: Sync {
    type Output: Send;

    /// Guards, then appends to the draft. May be called again on a newer head.
    fn act(&self, draft: &mut Draft<'_>) -> impl Future<Output = Result<Self::Output, Error>> + Send;
}

impl Rooms {
    /// Carries out a command on the newest head of a room; done when it is durable.
    pub(crate) async fn run<C: Command>(&self, room: RoomNid, command: &C) -> Result<C::Output, Error> {
        self.run_on(room, None, command).await
    }

    /// As [`Rooms::run`]; where the room has no head yet, the draft starts with `new`.
    pub(crate) async fn run_on<C: Command>(
        &self,
        room: RoomNid,
        new: Option<&RoomSnapshot>,
        command: &C,
    ) -> Result<C::Output, Error> {
        let (mut approvals, mut attempt) = (Approvals::default(), 0);
        while attempt < ATTEMPTS_MAX {
            let turn = self.writers.turn(room).await;
            let mut draft = Draft::of(self, &turn, room, attempt, new).await?;
            draft.policy_answers = approvals.answers();
            let output = match command.act(&mut draft).await {
                Err(Error::Unapproved(wanted)) => {
                    drop(draft);
                    approvals.bring(self, turn.pass_on(), *wanted).await?;
                    continue;
                }
                done => done?,
            };
            match self.settle(draft, turn).await {
                Ok(()) => return Ok(output),
                Err(CommitError::Conflict { .. }) => self.view.env.clock.sleep(PAUSE * attempt).await,
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
            attempt += 1;
        }
        Err(Error::Busy)
    }

    async fn settle(&self, draft: Draft<'_>, turn: Turn) -> Result<(), CommitError> {
        if draft.is_empty() {
            return self.settle_nothing(draft, turn).await;
        }
        let commit = Commit::submit(self, draft.seal(), Some(turn));
        commit.wait().await
    }

    /// A command that found nothing to do still waits for what it saw to be durable.
    async fn settle_nothing(&self, draft: Draft<'_>, turn: Turn) -> Result<(), CommitError> {
        if !turn.slot().is_in_flight() {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.require_unchanged(&ROOM_HEADS, &draft.room.nid(), draft.base_head());
        let barrier = self.view.store.commit(batch);
        drop(turn);
        barrier.await.map(drop)
    }

    /// Commits the first events of a room that nobody knows yet.
    pub(crate) async fn settle_new(&self, draft: Draft<'_>) -> Result<(), Error> {
        match Commit::submit(self, draft.seal(), None).wait().await {
            Ok(()) => Ok(()),
            Err(CommitError::Conflict { .. }) => Err(Error::Busy),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }
}
