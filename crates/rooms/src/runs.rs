//! Work in the background on member events, following the log from a durable cursor: profiles go into them, and guests
//! leave where they are no longer let in (Client-Server API, "Guest access"). And the departure of deactivated users.

use std::{sync::Arc, time::Duration};

use myelin_core::{Position, RoomNid, StateKeyNid, TimelineOrder, UserNid};
use myelin_dag::state_tree::NodeHash;
use myelin_store::{
    Direction,
    log::LogEntry,
    readers::{self, LogReader},
    tables::{ACCOUNTS, AccountKind, CURRENT_STATES, Membership},
};

use crate::{Error, MembershipChange, Rooms, Sender, commands::join::admits_guests};

const GUEST_ACCESS: &str = "m.room.guest_access";
/// Accounts that are looked at together.
const MEMBERS_PAGE: usize = 500;
/// Between two looks at the log; what a client changes twice within it is propagated once.
const PAUSE: Duration = Duration::from_millis(50);
const RETRY_PAUSE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Profile(UserNid),
    Guests(RoomNid),
}

/// Follows the log for changed profiles and changed access of guests. One room at a time, so that it never crowds out
/// what people wait for.
pub async fn run_member_upkeep(rooms: Arc<Rooms>) {
    let clock = rooms.view.env.clock.clone();
    loop {
        if let Err(error) = rooms.keep_members_up().await {
            tracing::error!(%error, "member events cannot be kept up to date; trying again");
            clock.sleep(RETRY_PAUSE).await;
        }
    }
}

impl Rooms {
    /// Runs until the store fails.
    async fn keep_members_up(&self) -> Result<(), Error> {
        let mut reader = LogReader::resume(&self.view.store, readers::MEMBER_UPKEEP).await?;
        loop {
            reader.wait().await;
            self.view.env.clock.sleep(PAUSE).await;
            let page = reader.page().await?;
            let guest_access = self.view.interner.lookup_state_key(GUEST_ACCESS, "").await?;
            let mut changed: Vec<Work> =
                page.iter().filter_map(|(_, entry)| work_of(entry, guest_access)).collect();
            for (position, entry) in &page {
                if let (LogEntry::Resolved { room, user: None }, Some(key)) = (entry, guest_access)
                    && self.has_turned(*room, *position, key).await?
                {
                    changed.push(Work::Guests(*room));
                }
            }
            changed.sort_unstable();
            changed.dedup();
            for work in &changed {
                match work {
                    Work::Profile(user) => self.propagate_profile(*user).await?,
                    Work::Guests(room) => self.see_guests_out(*room).await?,
                }
            }
            reader.advance(&page, !changed.is_empty()).await.map_err(store_error)?;
        }
    }

    /// Whether the current state has another event of this key since it last changed.
    async fn has_turned(&self, room: RoomNid, at: Position, key: StateKeyNid) -> Result<bool, Error> {
        let (from, until) = ((room, TimelineOrder::MIN), (room, TimelineOrder::from(at.next())));
        let rows = self.view.store.range(&CURRENT_STATES, &from, &until, Direction::Reverse, 2).await?;
        let mut events = Vec::with_capacity(rows.len());
        for (_, row) in rows {
            events.push(self.view.states.load(NodeHash(row.root)).await?.get(key));
        }
        Ok(matches!(&*events, [now, before] if now != before))
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

    /// Guests of this server leave a room that does not let them in any more.
    async fn see_guests_out(&self, room: RoomNid) -> Result<(), Error> {
        self.view.feed.caught_up().await;
        let Some(room) = self.view.rooms.load(room).await? else { return Ok(()) };
        let access = self.view.current_state_event(&room, GUEST_ACCESS, "").await?;
        if admits_guests(access.as_deref()) {
            return Ok(());
        }
        let members: Vec<UserNid> = room.local_joined.iter().copied().collect();
        for page in members.chunks(MEMBERS_PAGE) {
            let accounts = self.view.store.multi_get(&ACCOUNTS, page).await?;
            for (user, account) in page.iter().zip(accounts) {
                if account.is_some_and(|account| account.kind == AccountKind::Guest) {
                    let sender = self.local_sender(*user).await?;
                    let change = MembershipChange::default();
                    unless_refused(self.leave(&sender, &room.info.room_id, change).await)?;
                }
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

fn work_of(entry: &LogEntry, guest_access: Option<StateKeyNid>) -> Option<Work> {
    match entry {
        LogEntry::Profile { user } => Some(Work::Profile(*user)),
        LogEntry::Event { room, state_key: Some(key), .. } if Some(*key) == guest_access => {
            Some(Work::Guests(*room))
        }
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
