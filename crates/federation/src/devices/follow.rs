//! Follows the log from a durable cursor for memberships that matter to device lists.
//!
//! - A local user comes into a room: servers that did not share one with them before are told to fetch their devices.
//! - A remote user shares no room with anybody here any more: what is held of them is dropped, since nobody will say that
//!   it has become old.

use std::{collections::BTreeSet, time::Duration};

use myelin_core::{EventNid, RoomNid, UserNid};
use myelin_store::{
    log::LogEntry,
    readers::{self, LogReader},
    tables::Membership,
};
use myelin_users::Error;
use ruma::OwnedServerName;

use super::Devices;

/// Between two looks at the log.
const PAUSE: Duration = Duration::from_millis(50);
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// A member event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moved {
    room: RoomNid,
    user: UserNid,
    event: EventNid,
}

impl Devices {
    pub(super) async fn run_follow(&self) {
        loop {
            if let Err(error) = self.follow().await {
                tracing::error!(%error, "device lists cannot follow the log; trying again");
                self.view.env.clock.sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Runs until the store fails.
    async fn follow(&self) -> Result<(), Error> {
        let mut reader = LogReader::resume(&self.view.store, readers::DEVICE_LISTS).await?;
        loop {
            reader.wait().await;
            self.view.env.clock.sleep(PAUSE).await;
            // Snapshots of rooms and the rooms of users are as new as the log from here on.
            self.view.feed.caught_up().await;
            let page = reader.page().await?;
            let moved: Vec<_> = page.iter().filter_map(|(_, entry)| moved(entry)).collect();
            for moved in &moved {
                self.take_in(*moved).await?;
            }
            reader.advance(&page, !moved.is_empty()).await?;
        }
    }

    async fn take_in(&self, moved: Moved) -> Result<(), Error> {
        let Moved { room, user, event } = moved;
        let Some(snapshot) = self.view.rooms.load(room).await? else { return Ok(()) };
        let local = self.view.interner.is_local(user).await?;
        match (local, snapshot.is_joined(user)) {
            (true, true) if !self.was_joined(event).await? => self.introduce(user, room).await,
            (true, false) if snapshot.local_joined.is_empty() => {
                for (other, _) in snapshot.joined() {
                    self.drop_stranger(other).await?;
                }
                Ok(())
            }
            (false, false) => self.drop_stranger(user).await,
            _ => Ok(()),
        }
    }

    /// Whether the member event changed something other than who is in.
    async fn was_joined(&self, event: EventNid) -> Result<bool, Error> {
        let Some(event) = self.view.events.load(event).await? else { return Ok(false) };
        let (Some(root), Some(key)) = (event.state_before, event.state_key) else { return Ok(false) };
        let Some(before) = self.view.states.load(root).await?.get(key) else { return Ok(false) };
        let before = self.view.events.load(before).await?;
        let membership = before.and_then(|event| event.pdu.membership());
        Ok(membership.as_ref().map(Membership::from) == Some(Membership::Join))
    }

    async fn introduce(&self, user: UserNid, room: RoomNid) -> Result<(), Error> {
        let mut new = self.servers_of(room).await?;
        for (other, held) in &*self.view.user_rooms.load(user).await? {
            if new.is_empty() {
                return Ok(());
            }
            if *other != room && held.membership == Membership::Join {
                let known = self.servers_of(*other).await?;
                new.retain(|server| !known.contains(server));
            }
        }
        if new.is_empty() { Ok(()) } else { self.users.announce_device_list(user, &new).await }
    }

    async fn servers_of(&self, room: RoomNid) -> Result<BTreeSet<OwnedServerName>, Error> {
        let room = self.view.rooms.load(room).await?;
        let servers = room.iter().flat_map(|room| room.servers.keys().cloned());
        Ok(servers.filter(|server| *server != self.view.server_name).collect())
    }

    async fn drop_stranger(&self, user: UserNid) -> Result<(), Error> {
        if self.view.interner.is_local(user).await? || !self.users.holds_device_list(user).await? {
            return Ok(());
        }
        match self.view.rooms_of_remote_user(user).await?.is_empty() {
            true => self.users.drop_device_list(user).await,
            false => Ok(()),
        }
    }
}

fn moved(entry: &LogEntry) -> Option<Moved> {
    match entry {
        LogEntry::Event { room, member: Some(user), event, .. } => {
            Some(Moved { room: *room, user: *user, event: *event })
        }
        _ => None,
    }
}
