//! A world for tests: the memory store, simulated time, cheap passwords.

use std::sync::Arc;

use myelin_core::Env;
use myelin_store::{
    Store,
    memory::{Memory, MemoryDisk},
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
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { password_cost: CHEAP, ..Config::default() };
        configure(&mut config);
        Self::open(Sim::new(1), MemoryDisk::default(), config)
    }

    /// A second process on the same store.
    pub fn another_node(&self) -> Self {
        Self::open(self.sim.clone(), self.disk.clone(), self.users.config().clone())
    }

    fn open(sim: Sim, disk: MemoryDisk, config: Config) -> Self {
        let store = Store::new(Arc::new(Memory::open(disk.clone())));
        let view = View::new(store, sim.env(), server_name!("example.org").to_owned());
        let users = Arc::new(Users::new(view.clone(), config));
        let env = sim.env();
        env.spawner.spawn("feed", Box::pin(view.feed.clone().run(env.clock.clone())));
        Self { sim, disk, view, users }
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
