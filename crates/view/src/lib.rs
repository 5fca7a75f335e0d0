//! The shared read side: what is hot in memory, and the log as it arrives.
//!
//! - [`Interner`]: strings to numeric ids and back.
//! - [`Events`]: loaded events, parsed once.
//! - [`States`]: state trees by root.
//! - [`RoomViews`]: one immutable [`RoomSnapshot`] per hot room; readers take no lock.
//! - [`Staging`]: events on their way into the store.
//! - [`UserRooms`]: the rooms of a local user.
//! - [`Ignored`]: whom a local user ignores.
//! - [`View::invite_permission`]: whose invites a local user wants.
//! - [`PushRules`]: the push rules of local users, and whose may matter for an event.
//! - [`Acls`]: which servers may take part in a room.
//! - [`ServerMembers`]: the users of one server whom a room has heard of.
//! - [`Erased`]: local users whose content was erased.
//! - [`KeyStocks`], [`Inboxes`]: what devices have in stock of one-time keys, and which have no messages waiting.
//! - [`Retention`]: how long the messages of a room are kept.
//! - [`StickyEvents`]: events that hold for a while.
//! - [`Feed`]: tails the commit log, keeps the newest entries at hand and wakes who waits.
//! - [`ephemeral`]: typing and presence, which are state and never queued (DESIGN 2).
//!
//! Everything here can be dropped and loaded again. Written by `myelin-rooms` (snapshots, events) and by the log;
//! read by everybody. Must not know: HTTP, authorisation decisions, what a sync response looks like.

mod acls;
pub mod ephemeral;
mod erased;
mod error;
mod event;
mod events;
mod feed;
mod ignored;
mod inboxes;
mod interner;
mod invites;
mod key_stocks;
mod push_rules;
mod retention;
mod room;
mod rooms;
mod server_members;
mod staging;
mod states;
mod sticky;
mod user_rooms;
mod waiters;

use std::sync::Arc;

use myelin_core::{Env, Metrics, RoomNid, UserNid};
use myelin_store::{
    Direction, NidAllocator, Store,
    log::LogEntry,
    tables::{MEMBERS, Membership, SERVER_ROOMS},
};
use ruma::OwnedServerName;

pub use acls::Acls;
pub use erased::Erased;
pub use error::Error;
pub use event::{DELAYED_BY, DUMMY_EVENT, Event, placement_of};
pub use events::Events;
pub use feed::{Feed, Recent};
pub use ignored::Ignored;
pub use inboxes::{BeforeLook, Inboxes};
pub use interner::{Interner, StateKey};
pub use invites::InvitePermission;
pub use key_stocks::{KeyStock, KeyStocks};
pub use push_rules::{PushRules, Rulebook};
pub use retention::{Retention, RetentionPolicy};
pub use room::{RoomInfo, RoomSnapshot};
pub use rooms::RoomViews;
pub use server_members::ServerMembers;
pub use staging::{Landing, Staging};
pub use states::States;
pub use sticky::{STICKY_MS_MAX, StickyEvents};
pub use user_rooms::{UserRoom, UserRooms};
pub use waiters::Waiter;

const ROOMS_OF_SERVER_MAX: usize = 1_000_000;

/// One process's view of one store. Cheap to clone.
#[derive(Clone)]
pub struct View {
    pub store: Store,
    pub env: Env,
    pub server_name: OwnedServerName,
    pub nids: Arc<NidAllocator>,
    pub interner: Arc<Interner>,
    pub events: Arc<Events>,
    pub states: Arc<States>,
    pub rooms: Arc<RoomViews>,
    pub staging: Arc<Staging>,
    pub user_rooms: Arc<UserRooms>,
    pub ignored: Arc<Ignored>,
    pub push_rules: Arc<PushRules>,
    pub erased: Arc<Erased>,
    pub acls: Arc<Acls>,
    pub server_members: Arc<ServerMembers>,
    pub key_stocks: Arc<KeyStocks>,
    pub inboxes: Arc<Inboxes>,
    pub sticky: Arc<StickyEvents>,
    pub retention: Arc<Retention>,
    pub feed: Arc<Feed>,
    pub ephemeral: Arc<ephemeral::Ephemeral>,
    pub metrics: Arc<Metrics>,
}

impl View {
    /// Nothing runs yet: spawn [`Feed::run`] to follow the log.
    pub fn new(store: Store, env: Env, server_name: OwnedServerName) -> Self {
        let nids = Arc::new(NidAllocator::new(store.clone()));
        let interner = Arc::new(Interner::new(store.clone(), nids.clone(), server_name.clone()));
        let events = Arc::new(Events::new(store.clone(), interner.clone()));
        let states = Arc::new(States::new(store.clone()));
        let rooms = Arc::new(RoomViews::new(store.clone(), interner.clone(), states.clone()));
        let staging = Arc::new(Staging::new(events.clone(), rooms.clone()));
        let user_rooms = Arc::new(UserRooms::new(store.clone()));
        let feed = Arc::new(Feed::new(store.clone(), rooms.clone(), staging.clone(), user_rooms.clone()));
        let ignored = Arc::new(Ignored::new(store.clone()));
        let push_rules = Arc::new(PushRules::new(store.clone(), interner.clone()));
        let erased = Arc::new(Erased::new(store.clone()));
        let key_stocks = Arc::new(KeyStocks::new(store.clone()));
        let inboxes = Arc::new(Inboxes::default());
        let sticky = Arc::new(StickyEvents::new(store.clone(), env.clone()));
        let stale = (ignored.clone(), erased.clone(), key_stocks.clone(), inboxes.clone(), sticky.clone());
        let (read, rules) = (events.clone(), push_rules.clone());
        feed.listen(move |position, entry| {
            if let LogEntry::Purged { events, .. } = entry {
                events.iter().for_each(|event| read.forget(*event));
            }
            stale.0.take_in(entry);
            stale.1.take_in(entry);
            stale.2.take_in(entry);
            stale.3.take_in(entry);
            stale.4.take_in(position, entry);
            rules.take_in(entry);
        });
        let ephemeral = Arc::new(ephemeral::Ephemeral::new(env.now_ms(), feed.clone()));
        let server_members = Arc::new(ServerMembers::new(interner.clone()));
        Self {
            store,
            env,
            server_name,
            nids,
            interner,
            events,
            states,
            rooms,
            staging,
            user_rooms,
            ignored,
            push_rules,
            erased,
            acls: Arc::new(Acls::new()),
            server_members,
            key_stocks,
            inboxes,
            sticky,
            retention: Arc::new(Retention::new(RetentionPolicy::default())),
            feed,
            ephemeral,
            metrics: Arc::default(),
        }
    }

    /// A state event of a room's current state.
    pub async fn current_state_event(
        &self,
        room: &RoomSnapshot,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Arc<Event>>, Error> {
        let Some(key) = self.interner.lookup_state_key(event_type, state_key).await? else { return Ok(None) };
        match room.current_state.get(key) {
            Some(nid) => self.events.load(nid).await,
            None => Ok(None),
        }
    }

    /// The room's hot snapshot, by room id; `None` if this server does not hold the room.
    pub async fn room_by_id(&self, room_id: &ruma::RoomId) -> Result<Option<Arc<RoomSnapshot>>, Error> {
        match self.interner.lookup_room(room_id).await? {
            Some(nid) => self.rooms.load(nid).await,
            None => Ok(None),
        }
    }

    /// The same room once all its members are known. Gives up after a while, with what there is.
    pub async fn completed(&self, room: Arc<RoomSnapshot>) -> Result<Arc<RoomSnapshot>, Error> {
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(90);
        if !room.members_omitted {
            return Ok(room);
        }
        let nid = room.nid();
        let complete = async {
            loop {
                let seen = self.feed.caught_up().await;
                match self.rooms.load(nid).await? {
                    Some(room) if room.members_omitted => self.feed.moved_past(seen).await,
                    other => return Ok::<_, Error>(other),
                }
            }
        };
        match self.env.timeout(PATIENCE, complete).await {
            Some(outcome) => Ok(outcome?.unwrap_or(room)),
            None => Ok(room),
        }
    }

    pub fn is_local(&self, user: &ruma::UserId) -> bool {
        user.server_name() == self.server_name
    }

    /// The rooms that a server takes part in together with this one.
    pub async fn rooms_of_server(&self, server: &ruma::ServerName) -> Result<Vec<RoomNid>, Error> {
        let server = server.as_str().to_owned();
        let rows = self.store.scan(&SERVER_ROOMS, &server, Direction::Forward, ROOMS_OF_SERVER_MAX).await?;
        Ok(rows.into_iter().filter(|(_, row)| row.value.joined).map(|((_, room), _)| room).collect())
    }

    /// The rooms that a remote user shares with somebody here.
    pub async fn rooms_of_remote_user(&self, user: UserNid) -> Result<Vec<RoomNid>, Error> {
        let user_id = self.interner.user_id(user).await?;
        let rooms = self.rooms_of_server(user_id.server_name()).await?;
        let keys: Vec<_> = rooms.into_iter().map(|room| (room, user)).collect();
        let mut shared = Vec::new();
        for ((room, _), row) in keys.iter().zip(self.store.multi_get(&MEMBERS, &keys).await?) {
            if row.is_some_and(|row| row.value.membership == Membership::Join)
                && self.rooms.load(*room).await?.is_some_and(|room| !room.local_joined.is_empty())
            {
                shared.push(*room);
            }
        }
        Ok(shared)
    }
}
