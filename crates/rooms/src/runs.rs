//! Work in the background: profiles into member events, following the log from a durable cursor, and the departure of
//! deactivated users.

use std::{sync::Arc, time::Duration};

use myelin_core::UserNid;
use myelin_store::{
    log::LogEntry,
    readers::{self, LogReader},
    tables::Membership,
};

use crate::{Error, MembershipChange, Rooms, Sender};

/// Between two looks at the log; what a client changes twice within it is propagated once.
const PAUSE: Duration = Duration::from_millis(50);
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Follows the log for changed profiles. One room at a time, so that it never crowds out what people wait for.
pub async fn run_profile_propagation(rooms: Arc<Rooms>) {
    let clock = rooms.view.env.clock.clone();
    loop {
        if let Err(error) = rooms.propagate_profiles().await {
            tracing::error!(%error, "profiles cannot be propagated; trying again");
            clock.sleep(RETRY_PAUSE).await;
        }
    }
}

impl Rooms {
    /// Runs until the store fails.
    async fn propagate_profiles(&self) -> Result<(), Error> {
        let mut reader = LogReader::resume(&self.view.store, readers::PROFILE_PROPAGATION).await?;
        loop {
            reader.wait().await;
            self.view.env.clock.sleep(PAUSE).await;
            let page = reader.page().await?;
            let mut changed: Vec<UserNid> =
                page.iter().filter_map(|(_, entry)| changed_profile(entry)).collect();
            changed.sort_unstable();
            changed.dedup();
            for user in &changed {
                self.propagate_profile(*user).await?;
            }
            reader.advance(&page, !changed.is_empty()).await.map_err(store_error)?;
        }
    }

    async fn propagate_profile(&self, user: UserNid) -> Result<(), Error> {
        let sender = self.local_sender(user).await?;
        // What was joined with the old profile is among the user's rooms from here on.
        self.view.feed.caught_up().await;
        for (room, of_user) in &*self.view.user_rooms.load(user).await? {
            if of_user.membership == Membership::Join {
                unless_refused(self.update_profile(&sender, *room).await)?;
            }
        }
        Ok(())
    }

    /// For deactivated users: leaves every room that the user is in, is invited to or knocks on. Idempotent.
    pub async fn leave_all(&self, user: UserNid) -> Result<(), Error> {
        let sender = self.local_sender(user).await?;
        // The store, not the cache: the log may not have been taken in yet.
        self.view.user_rooms.forget(user);
        for (room, of_user) in &*self.view.user_rooms.load(user).await? {
            let present =
                matches!(of_user.membership, Membership::Join | Membership::Invite | Membership::Knock);
            let Some(info) = self.view.interner.room_info(*room).await?.filter(|_| present) else { continue };
            if self.outside(&sender.user_id, &info.room_id).await?.is_some() {
                unless_refused(self.leave_outside(&sender, &info.room_id, None).await)?;
                continue;
            }
            unless_refused(self.leave(&sender, &info.room_id, MembershipChange::default()).await)?;
        }
        Ok(())
    }

    async fn local_sender(&self, user: UserNid) -> Result<Sender, Error> {
        let user_id = self.view.interner.user_id(user).await?;
        Ok(Sender { user, user_id: (*user_id).to_owned(), guest: false, suspended: false, admin: false })
    }
}

fn changed_profile(entry: &LogEntry) -> Option<UserNid> {
    match entry {
        LogEntry::Profile { user } => Some(*user),
        _ => None,
    }
}

/// A room that does not let it happen is left alone; what fails otherwise is tried again.
fn unless_refused(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error @ (Error::Store(_) | Error::Busy)) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "a room was passed over");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn store_error(error: myelin_store::CommitError) -> Error {
    match error {
        myelin_store::CommitError::Conflict { .. } => Error::Busy,
        myelin_store::CommitError::Store(error) => error.into(),
    }
}
