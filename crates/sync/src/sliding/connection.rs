//! What a connection has been told: per room, up to where and as what. Stored only when it changes, and before the position
//! that names it is given out; a connection whose rooms are all up to date goes on under the same state.

use std::sync::Arc;

use imbl::OrdMap;
use myelin_core::{Position, RoomNid, SlidingToken, UserNid, limits};
use myelin_store::{
    Batch, CommitError, Direction,
    tables::{SLIDING_CONNECTIONS, SentRoomRecord, SlidingConnectionRecord},
};
use quick_cache::{Weighter, sync::Cache};

use super::request::{Request, RoomConfig};
use crate::{Error, Requester, Sync};

/// Sum of the rooms of the states kept in memory.
const CACHE_WEIGHT: u64 = 300_000;
const EXPECTED_CONNECTIONS: usize = 5_000;
/// Attempts to find a number that nobody else has taken.
const ATTEMPTS: usize = 8;

#[derive(Clone, Debug, Default)]
pub struct Connection {
    pub rooms: OrdMap<RoomNid, SentRoom>,
}

#[derive(Clone, Debug)]
pub struct SentRoom {
    pub config: Arc<RoomConfig>,
    /// `None`: up to the position that the client comes with.
    pub until: Option<Position>,
}

/// A connection as a request finds it.
pub struct Held {
    pub token: Option<SlidingToken>,
    pub connection: Arc<Connection>,
}

type Key = (UserNid, String, String, u64);

#[derive(Clone)]
struct ByRooms;

impl Weighter<Key, Arc<Connection>> for ByRooms {
    fn weight(&self, _: &Key, connection: &Arc<Connection>) -> u64 {
        connection.rooms.len() as u64 + 8
    }
}

pub struct Connections {
    cache: Cache<Key, Arc<Connection>, ByRooms>,
}

impl Default for Connections {
    fn default() -> Self {
        Self { cache: Cache::with_weighter(EXPECTED_CONNECTIONS, CACHE_WEIGHT, ByRooms) }
    }
}

impl Connection {
    fn from_record(record: SlidingConnectionRecord) -> Self {
        let configs: Vec<_> = record.configs.into_iter().map(RoomConfig::from_record).map(Arc::new).collect();
        let rooms = record.rooms.into_iter().filter_map(|room| {
            let config = configs.get(room.config as usize)?.clone();
            Some((room.room, SentRoom { config, until: room.until }))
        });
        Self { rooms: rooms.collect() }
    }

    fn record(&self) -> SlidingConnectionRecord {
        let mut configs: Vec<&Arc<RoomConfig>> = Vec::new();
        let mut rooms = Vec::with_capacity(self.rooms.len());
        for (room, sent) in &self.rooms {
            let same = |held: &&Arc<RoomConfig>| Arc::ptr_eq(held, &sent.config) || **held == sent.config;
            let config = configs.iter().position(same).unwrap_or_else(|| {
                configs.push(&sent.config);
                configs.len() - 1
            });
            rooms.push(SentRoomRecord { room: *room, config: config as u32, until: sent.until });
        }
        SlidingConnectionRecord {
            configs: configs.into_iter().map(|config| config.record()).collect(),
            rooms,
        }
    }
}

impl Sync {
    /// `M_UNKNOWN_POS` if the position was not given to this connection, or is no longer known.
    pub(super) async fn held_connection(&self, request: &Request, now: Position) -> Result<Held, Error> {
        let Some(pos) = &request.pos else {
            return Ok(Held { token: None, connection: Arc::default() });
        };
        let token: SlidingToken = pos.parse().map_err(|_| Error::UnknownPos)?;
        if token.owner != owner_of(request) || token.position > now {
            return Err(Error::UnknownPos);
        }
        let connection = match token.state {
            0 => Arc::default(),
            state => self.load_connection(key_of(request, state)).await?.ok_or(Error::UnknownPos)?,
        };
        Ok(Held { token: Some(token), connection })
    }

    async fn load_connection(&self, key: Key) -> Result<Option<Arc<Connection>>, Error> {
        if let Some(connection) = self.connections.cache.get(&key) {
            return Ok(Some(connection));
        }
        let Some(record) = self.view.store.get(&SLIDING_CONNECTIONS, &key).await? else { return Ok(None) };
        let connection = Arc::new(Connection::from_record(record));
        self.connections.cache.insert(key, connection.clone());
        Ok(Some(connection))
    }

    /// Durable when it returns: the number of the state.
    pub(super) async fn keep_connection(
        &self,
        request: &Request,
        held: &Held,
        next: Connection,
    ) -> Result<u64, Error> {
        let next = Arc::new(next);
        let parent = held.token.map_or(0, |token| token.state);
        for _ in 0..ATTEMPTS {
            let (batch, state) = self.connection_batch(request, parent, &next).await?;
            match self.view.store.commit(batch).await {
                Ok(_) => {
                    self.connections.cache.insert(key_of(request, state), next);
                    return Ok(state);
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::Busy)
    }

    async fn connection_batch(
        &self,
        request: &Request,
        parent: u64,
        next: &Connection,
    ) -> Result<(Batch, u64), Error> {
        const ROWS_MAX: usize =
            2 * limits::SLIDING_CONNECTIONS_PER_DEVICE_MAX * limits::SLIDING_STATES_PER_CONNECTION_MAX;
        let device = (request.requester.user, request.requester.device_id.clone());
        let rows = self.view.store.scan(&SLIDING_CONNECTIONS, &device, Direction::Forward, ROWS_MAX).await?;
        let held: Vec<_> = rows.into_iter().map(|(key, _)| (key.2, key.3)).collect();
        let newest = held.iter().filter(|(id, _)| *id == request.conn_id).map(|(_, state)| *state).max();
        // Numbers rise with time, so that of many connections the one that was idle longest is known.
        let state = self.view.env.now_ms().max(newest.unwrap_or(parent).saturating_add(1));
        let mut batch = Batch::new();
        for (id, old) in outdated(&held, &request.conn_id, parent) {
            let key = (device.0, device.1.clone(), id, old);
            batch.delete(&SLIDING_CONNECTIONS, &key);
            self.connections.cache.remove(&key);
        }
        let key = key_of(request, state);
        batch.require_absent(&SLIDING_CONNECTIONS, &key);
        batch.put(&SLIDING_CONNECTIONS, &key, &next.record());
        Ok((batch, state))
    }
}

/// States that go when a new one of `conn_id` comes, made from `parent`: what is older than the parent, then the oldest of
/// those whose answers may have been lost, then whole connections of the device, the one that was idle longest first.
fn outdated(held: &[(String, u64)], conn_id: &str, parent: u64) -> Vec<(String, u64)> {
    let mut gone = Vec::new();
    let mut own: Vec<u64> = held.iter().filter(|(id, _)| id == conn_id).map(|(_, state)| *state).collect();
    own.sort_unstable();
    let rivals: Vec<_> = own.iter().copied().filter(|state| *state > parent).collect();
    let spare = rivals.len().saturating_sub(limits::SLIDING_STATES_PER_CONNECTION_MAX - 2);
    gone.extend(own.iter().filter(|state| **state < parent).map(|state| (conn_id.to_owned(), *state)));
    gone.extend(rivals[..spare].iter().map(|state| (conn_id.to_owned(), *state)));

    let mut others: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
    for (id, state) in held.iter().filter(|(id, _)| id != conn_id) {
        let newest = others.entry(id.as_str()).or_default();
        *newest = (*newest).max(*state);
    }
    let mut by_age: Vec<_> = others.into_iter().map(|(id, newest)| (newest, id)).collect();
    by_age.sort_unstable();
    let surplus = by_age.len().saturating_sub(limits::SLIDING_CONNECTIONS_PER_DEVICE_MAX - 1);
    for (_, idle) in &by_age[..surplus] {
        gone.extend(held.iter().filter(|(id, _)| id == idle).cloned());
    }
    gone
}

fn key_of(request: &Request, state: u64) -> Key {
    let Requester { user, device_id, .. } = &request.requester;
    (*user, device_id.clone(), request.conn_id.clone(), state)
}

/// FNV-1a: a check against mix-ups. What a position gives access to is decided by who asks, never by the position.
pub(super) fn owner_of(request: &Request) -> u32 {
    let Requester { user_id, device_id, .. } = &request.requester;
    let parts = [user_id.as_str(), device_id.as_str(), request.conn_id.as_str()];
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(rows: &[(&str, u64)]) -> Vec<(String, u64)> {
        rows.iter().map(|(id, state)| ((*id).to_owned(), *state)).collect()
    }

    #[test]
    fn the_state_that_the_client_has_and_newer_ones_stay() {
        let rows = held(&[("a", 1), ("a", 2), ("a", 3), ("b", 1)]);
        assert_eq!(outdated(&rows, "a", 2), held(&[("a", 1)]));
        let lost = held(&[("a", 2), ("a", 3), ("a", 4), ("a", 5)]);
        assert_eq!(outdated(&lost, "a", 2), held(&[("a", 3)]), "the oldest of many that were lost");
        assert_eq!(outdated(&lost, "a", 0), held(&[("a", 2), ("a", 3)]), "begun anew");
    }

    #[test]
    fn connections_of_a_device_are_bounded() {
        let max = limits::SLIDING_CONNECTIONS_PER_DEVICE_MAX as u64;
        let rows: Vec<_> = (0..max).map(|n| (format!("c{n}"), 100 - n)).collect();
        assert_eq!(outdated(&rows, "new", 0), vec![(format!("c{}", max - 1), 101 - max)]);
        assert_eq!(outdated(&rows, "c3", 97), Vec::new());
    }

    #[test]
    fn records_say_everything() {
        let config = |limit| Arc::new(RoomConfig { timeline_limit: limit, ..RoomConfig::default() });
        let mut connection = Connection::default();
        for n in 0..5 {
            let until = (n == 3).then_some(Position(7));
            connection.rooms.insert(RoomNid(n), SentRoom { config: config(n as usize % 2), until });
        }
        let record = connection.record();
        assert_eq!(record.configs.len(), 2);
        let back = Connection::from_record(record);
        for (room, sent) in &connection.rooms {
            let other = &back.rooms[room];
            assert_eq!((&other.config, other.until), (&sent.config, sent.until));
        }
    }
}
