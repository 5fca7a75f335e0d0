//! What the workloads share: the server, accounts that are registered once (hashing a password is not what
//! is measured), and the sizes.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt as _;
use futures::TryStreamExt as _;
use futures::stream;
use serde_json::json;

use super::drive::Limit;
use super::server::Server;
use super::user::{User, message};

/// At once; more only queues at the server's password hashing.
const REGISTRATIONS_CONCURRENT: usize = 4;

/// How much of each workload, by number of operations. `time` ends a workload that a slow server cannot finish.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub time: Duration,
    pub sends: usize,
    pub fanouts: [usize; 2],
    pub rounds: usize,
    pub rooms: usize,
    /// Messages and further members in each of those rooms.
    pub fill: usize,
    pub idle_syncs: usize,
    pub wakeups: usize,
    /// Rooms of a user who looks through a window, and how often the window is opened.
    pub windowed_rooms: usize,
    pub windows: usize,
    pub initial_syncs: usize,
    pub joins: usize,
    pub history: usize,
    pub pages: usize,
    pub state_keys: usize,
    pub state_reads: usize,
    pub creations: usize,
    pub ephemeral: usize,
    pub disk_events: usize,
    /// PDUs from other servers.
    pub inbound: usize,
    /// Other servers in one room.
    pub destinations: usize,
    /// Members of a room on another server.
    pub large_room: usize,
    /// Members of a room that splits, and those of them who change on both sides.
    pub split_room: usize,
    pub disputed: usize,
    /// Local members of a room in which messages are judged by push rules, and the messages.
    pub audience: usize,
    pub judged: usize,
    /// One-time keys that are claimed, and queries of keys.
    pub claims: usize,
    pub key_queries: usize,
    /// Messages between devices.
    pub to_device: usize,
    /// Messages that are searched.
    pub search_messages: usize,
    pub searches: usize,
    /// Files that are uploaded and downloaded.
    pub files: usize,
    /// Uploads of 50 MB at the same time.
    pub uploads_at_once: usize,
}

impl Sizes {
    pub fn full() -> Self {
        Self {
            time: Duration::from_secs(30),
            sends: 10_000,
            fanouts: [100, 1_000],
            rounds: 20,
            rooms: 200,
            fill: 10,
            idle_syncs: 10_000,
            wakeups: 200,
            windowed_rooms: 1_000,
            windows: 300,
            initial_syncs: 20,
            joins: 1_000,
            history: 2_000,
            pages: 1_000,
            state_keys: 2_000,
            state_reads: 50,
            creations: 300,
            ephemeral: 10_000,
            disk_events: 20_000,
            inbound: 16_000,
            destinations: 1_000,
            large_room: 20_000,
            split_room: 10_000,
            disputed: 1_000,
            audience: 10_000,
            judged: 500,
            claims: 8_000,
            key_queries: 5_000,
            to_device: 10_000,
            search_messages: 100_000,
            searches: 2_000,
            files: 64,
            uploads_at_once: 64,
        }
    }

    pub fn quick() -> Self {
        Self {
            time: Duration::from_secs(6),
            sends: 2_000,
            fanouts: [100, 300],
            rounds: 8,
            rooms: 200,
            fill: 2,
            idle_syncs: 5_000,
            wakeups: 50,
            windowed_rooms: 200,
            windows: 50,
            initial_syncs: 8,
            joins: 300,
            history: 500,
            pages: 100,
            state_keys: 500,
            state_reads: 10,
            creations: 100,
            ephemeral: 2_000,
            disk_events: 3_000,
            inbound: 3_200,
            destinations: 200,
            large_room: 2_000,
            split_room: 2_000,
            disputed: 200,
            audience: 1_000,
            judged: 100,
            claims: 1_600,
            key_queries: 500,
            to_device: 2_000,
            search_messages: 5_000,
            searches: 300,
            files: 16,
            uploads_at_once: 16,
        }
    }

    pub fn limit(&self, operations: usize) -> Limit {
        Limit { operations, time: self.time }
    }
}

/// A user in many rooms, whose syncs are measured, and the one who owns them.
pub struct Busy {
    pub reader: User,
    pub owner: User,
    pub rooms: Vec<String>,
}

pub struct World {
    pub server: Server,
    pub sizes: Sizes,
    users: Vec<User>,
    busy: Option<Busy>,
    registered: usize,
}

/// What a workload that needs several of them borrows at once.
pub struct Parts<'a> {
    pub server: &'a Server,
    pub users: &'a mut [User],
}

impl World {
    pub fn new(server: Server, sizes: Sizes) -> Self {
        Self { server, sizes, users: Vec::new(), busy: None, registered: 0 }
    }

    /// The first `count` of the accounts that workloads share.
    pub async fn users(&mut self, count: usize) -> Result<Parts<'_>> {
        let missing = count.saturating_sub(self.users.len());
        let fresh = self.fresh_users(missing).await?;
        self.users.extend(fresh);
        Ok(Parts { server: &self.server, users: &mut self.users[..count] })
    }

    /// Accounts that are in no room.
    pub async fn fresh_users(&mut self, count: usize) -> Result<Vec<User>> {
        let address = self.server.address;
        stream::iter(self.fresh_names(count))
            .map(|name| async move { User::register(address, &name).await })
            .buffered(REGISTRATIONS_CONCURRENT)
            .try_collect()
            .await
    }

    /// Accounts that join a room and are heard of no more; every `watchful`th one has a push rule of its own, for `keyword`.
    pub async fn crowd(&mut self, room: &str, count: usize, watchful: usize, keyword: &str) -> Result<()> {
        let address = self.server.address;
        let rule = json!({ "pattern": keyword, "actions": ["notify", { "set_tweak": "highlight" }] });
        let rule = &rule;
        stream::iter(self.fresh_names(count).enumerate().map(Ok))
            .try_for_each_concurrent(REGISTRATIONS_CONCURRENT, |(number, name)| async move {
                let mut user = User::register(address, &name).await?;
                if number.is_multiple_of(watchful) {
                    user.put("pushrules/global/content/watched", rule).await?;
                }
                user.join(room).await
            })
            .await
    }

    fn fresh_names(&mut self, count: usize) -> impl Iterator<Item = String> + use<> {
        let first = self.registered;
        self.registered += count;
        (first..first + count).map(|number| format!("bench{number}"))
    }

    pub async fn fresh_user(&mut self) -> Result<User> {
        self.fresh_users(1).await?.pop().context("no user was registered")
    }

    /// The user in many rooms; made at the first call.
    pub async fn busy(&mut self) -> Result<(&Server, &mut Busy)> {
        if self.busy.is_none() {
            self.busy = Some(self.make_busy().await?);
        }
        Ok((&self.server, self.busy.as_mut().context("made above")?))
    }

    async fn make_busy(&mut self) -> Result<Busy> {
        let Sizes { rooms: count, fill, .. } = self.sizes;
        let mut owner = self.fresh_user().await?;
        let mut reader = self.fresh_user().await?;
        let others = self.users(fill.min(3)).await?.users;
        let mut rooms = Vec::with_capacity(count);
        for number in 0..count {
            let room = owner.create_room().await?;
            let name = json!({ "name": format!("Room {number}") });
            owner.put(&format!("rooms/{room}/state/m.room.name/"), &name).await?;
            reader.join(&room).await?;
            for other in others.iter_mut() {
                other.join(&room).await?;
            }
            for line in 0..fill {
                owner.send(&room, &message(&format!("line {line} "))).await?;
            }
            rooms.push(room);
        }
        Ok(Busy { reader, owner, rooms })
    }
}

/// A room of the first of `users`, which the others have joined.
pub async fn shared_room(users: &mut [User]) -> Result<String> {
    let (owner, others) = users.split_first_mut().context("a room needs an owner")?;
    let room = owner.create_room().await?;
    stream::iter(others.iter_mut().map(Ok))
        .try_for_each_concurrent(8, |other| {
            let room = &room;
            async move { other.join(room).await }
        })
        .await?;
    Ok(room)
}
