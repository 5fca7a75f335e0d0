//! A world for tests: the memory store, simulated time, cheap passwords.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use myelin_core::{Env, Position};
use myelin_store::{
    Error, Store,
    backend::{Backend, CommitFuture, KeyRange, RawBatch, RawRead, Row, ScanDirection},
    memory::{Memory, MemoryDisk},
    tables::TableId,
};
use myelin_testenv::Sim;
use myelin_view::View;
use ruma::server_name;

use crate::{
    Config, DeviceRequest, Grant, PasswordCost, Users,
    registration::{Registered, Registration},
};

pub(crate) const CHEAP: PasswordCost = PasswordCost { memory_kib: 8, iterations: 1 };

pub(crate) fn env() -> Env {
    Sim::new(1).env()
}

pub(crate) struct World {
    pub sim: Sim,
    pub disk: MemoryDisk,
    pub view: View,
    pub users: Arc<Users>,
    interleaved: bool,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { password_cost: CHEAP, ..Config::default() };
        configure(&mut config);
        Self::open(Sim::new(1), MemoryDisk::default(), config, false)
    }

    /// Operations that run at once take turns at every read, so that each of them reads before any of them commits.
    pub fn interleaved() -> Self {
        let config = Config { password_cost: CHEAP, ..Config::default() };
        Self::open(Sim::new(1), MemoryDisk::default(), config, true)
    }

    /// A second process on the same store.
    pub fn another_node(&self) -> Self {
        Self::open(self.sim.clone(), self.disk.clone(), self.users.config().clone(), self.interleaved)
    }

    fn open(sim: Sim, disk: MemoryDisk, config: Config, interleaved: bool) -> Self {
        let memory = Memory::open(disk.clone());
        let store = match interleaved {
            true => Store::new(Arc::new(Interleaved(memory))),
            false => Store::new(Arc::new(memory)),
        };
        let view = View::new(store, sim.env(), server_name!("example.org").to_owned());
        let users = Arc::new(Users::new(view.clone(), config));
        let env = sim.env();
        env.spawner.spawn("feed", Box::pin(view.feed.clone().run(env.clock.clone())));
        Self { sim, disk, view, users, interleaved }
    }

    pub fn run<F: Future>(&self, future: F) -> F::Output {
        self.sim.block_on(future)
    }

    pub fn advance_ms(&self, ms: u64) {
        self.sim.clock().advance(std::time::Duration::from_millis(ms));
    }

    pub async fn register(&self, username: &str) -> Grant {
        let registration = Registration {
            username: Some(username.to_owned()),
            password: Some(format!("{username}'s password")),
            login: Some(DeviceRequest::default()),
            ..Registration::default()
        };
        let Registered { grant, .. } = self.users.register(&registration).await.unwrap();
        grant.unwrap()
    }
}

/// The memory store, giving way to other tasks after each read.
struct Interleaved(Memory);

impl RawRead for Interleaved {
    fn get(&self, table: TableId, key: Vec<u8>) -> BoxFuture<'_, Result<Option<Bytes>, Error>> {
        Box::pin(async move {
            let found = self.0.get(table, key).await;
            tokio::task::yield_now().await;
            found
        })
    }

    fn multi_get(
        &self,
        table: TableId,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Bytes>>, Error>> {
        self.0.multi_get(table, keys)
    }

    fn scan(
        &self,
        table: TableId,
        range: KeyRange,
        direction: ScanDirection,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Row>, Error>> {
        Box::pin(async move {
            let rows = self.0.scan(table, range, direction, limit).await;
            tokio::task::yield_now().await;
            rows
        })
    }
}

impl Backend for Interleaved {
    fn submit(&self, batch: RawBatch) -> CommitFuture {
        self.0.submit(batch)
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn RawRead>, Error>> {
        self.0.snapshot()
    }

    fn position(&self) -> Position {
        self.0.position()
    }

    fn wait_past(&self, seen: Position) -> BoxFuture<'_, Position> {
        self.0.wait_past(seen)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.0.close()
    }
}
