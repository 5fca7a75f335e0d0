//! The rooms of a local user, from `user_rooms`, dropped when the log says that one of them changed.

use std::sync::Arc;

use imbl::OrdMap;
use myelin_core::{EventNid, Position, RoomNid, UserNid};
use myelin_store::{
    Direction, Store,
    tables::{Membership, USER_ROOMS},
};
use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache};

use crate::Error;

/// Sum of room counts over the users kept.
const CACHE_WEIGHT: u64 = 500_000;
const EXPECTED_USERS: usize = 5_000;
const ROOMS_MAX: usize = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserRoom {
    pub membership: Membership,
    /// The member event.
    pub event: EventNid,
    /// When the membership became so.
    pub position: Position,
    pub forgotten: bool,
    pub was_joined: bool,
}

type Rooms = Arc<OrdMap<RoomNid, UserRoom>>;

#[derive(Clone)]
struct ByRooms;

impl Weighter<UserNid, Rooms> for ByRooms {
    fn weight(&self, _: &UserNid, rooms: &Rooms) -> u64 {
        rooms.len() as u64 + 8
    }
}

pub struct UserRooms {
    store: Store,
    cache: Cache<UserNid, Rooms, ByRooms>,
    /// Counts invalidations: a load that one overtook is not kept. Held while the cache is changed.
    generation: Mutex<u64>,
}

impl UserRooms {
    pub fn new(store: Store) -> Self {
        let cache = Cache::with_weighter(EXPECTED_USERS, CACHE_WEIGHT, ByRooms);
        Self { store, cache, generation: Mutex::new(0) }
    }

    /// All rooms in which the user has a membership, forgotten ones included. It may be newer than a position read
    /// before: compare [`UserRoom::position`].
    pub async fn load(&self, user: UserNid) -> Result<Rooms, Error> {
        if let Some(rooms) = self.cache.get(&user) {
            return Ok(rooms);
        }
        let generation = *self.generation.lock();
        let rows = self.store.scan(&USER_ROOMS, &user, Direction::Forward, ROOMS_MAX).await?;
        let rooms = rows.into_iter().map(|((_, room), row)| {
            let position = row.position;
            let row = row.value;
            let (membership, event) = (row.membership, row.event);
            (
                room,
                UserRoom {
                    membership,
                    event,
                    position,
                    forgotten: row.forgotten,
                    was_joined: row.was_joined,
                },
            )
        });
        let rooms: Rooms = Arc::new(rooms.collect());
        self.keep(user, &rooms, generation);
        Ok(rooms)
    }

    fn keep(&self, user: UserNid, rooms: &Rooms, generation: u64) {
        let now = self.generation.lock();
        if *now == generation {
            self.cache.insert(user, rooms.clone());
        }
    }

    pub fn forget(&self, user: UserNid) {
        let mut generation = self.generation.lock();
        *generation += 1;
        self.cache.remove(&user);
    }
}

#[cfg(test)]
mod tests {
    use myelin_store::memory::Memory;

    use super::*;

    #[test]
    fn what_was_read_before_a_change_is_not_kept() {
        let user_rooms = UserRooms::new(Store::new(Arc::new(Memory::open(Default::default()))));
        let user = UserNid(1);
        let before = *user_rooms.generation.lock();
        user_rooms.forget(user);
        user_rooms.keep(user, &Rooms::default(), before);
        assert!(user_rooms.cache.get(&user).is_none());
        let after = *user_rooms.generation.lock();
        user_rooms.keep(user, &Rooms::default(), after);
        assert!(user_rooms.cache.get(&user).is_some());
    }
}
