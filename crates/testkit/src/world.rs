//! Several servers and their users, as stories are told.
//!
//! ```no_run
//! # use myelin_testkit::world::World;
//! let world = World::new(1).servers(["a.test", "b.test"]);
//! let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
//! let room = alice.creates_public_room();
//! bob.joins(&room);
//! alice.sends(&room, "hello");
//! bob.sees(&room, "hello");
//! world.cut(&["a.test"], &["b.test"]);
//! alice.sends(&room, "is anybody there?");
//! world.heal();
//! bob.sees(&room, "is anybody there?");
//! world.agree(&room);
//! ```
//!
//! Everything a user does is a request to the Client-Server API of their server; everything they see came through
//! `/sync`. Nothing waits for real time: conditions are waited for in simulated time, with a limit.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use myelin_core::Env;
use myelin_store::memory::MemoryDisk;
use myelin_testenv::Sim;
use ruma::{OwnedServerName, ServerName, UserId};

use crate::{
    agreement,
    faults::Faults,
    network::Network,
    server::Server,
    settings::Settings,
    user::{Room, User},
};

/// Simulated time within which everything has to happen that happens at all.
pub const PATIENCE: Duration = Duration::from_secs(900);
/// How often a condition that nobody announces is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Cheap to clone; clones are the same world. When a test fails in it, it prints its seed and what went over the network.
#[derive(Clone)]
pub struct World(Rc<Inner>);

struct Inner {
    seed: u64,
    sim: Sim,
    network: Network,
    omits_members: Cell<bool>,
    places: RefCell<BTreeMap<OwnedServerName, Place>>,
}

enum Place {
    On(Rc<Server>),
    Off(MemoryDisk),
}

impl World {
    pub fn new(seed: u64) -> Self {
        let sim = Sim::new(seed);
        let network = Network::new(&sim);
        network.set_faults(Faults::healthy());
        Self(Rc::new(Inner {
            seed,
            sim,
            network,
            omits_members: Cell::default(),
            places: RefCell::default(),
        }))
    }

    /// Servers that start from now on leave members out of every room that somebody joins through them, however small.
    #[must_use]
    pub fn omitting_members(self, omits: bool) -> Self {
        self.0.omits_members.set(omits);
        self
    }

    /// Servers that have just been installed and switched on.
    #[must_use]
    pub fn servers<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Self {
        for name in names {
            self.0.places.borrow_mut().insert(server_name(name), Place::Off(MemoryDisk::default()));
            self.start(name);
        }
        self
    }

    /// Registers a user at the server that the id names.
    ///
    /// # Panics
    /// If that is refused.
    pub fn user(&self, user_id: &str) -> User {
        let user_id = <&UserId>::try_from(user_id).expect("a user id");
        User::register(self, user_id)
    }

    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    pub fn env(&self) -> Env {
        self.0.sim.env()
    }

    pub fn network(&self) -> &Network {
        &self.0.network
    }

    pub fn names(&self) -> Vec<OwnedServerName> {
        self.0.places.borrow().keys().cloned().collect()
    }

    /// Runs until `future` is done; all servers work meanwhile.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        self.0.sim.block_on(future)
    }

    /// Lets simulated time pass.
    pub fn pass(&self, duration: Duration) {
        self.run(self.env().clock.sleep(duration));
    }

    /// Waits until something holds; answers how many simulated milliseconds that took.
    ///
    /// # Panics
    /// If it does not hold within [`PATIENCE`].
    #[track_caller]
    pub fn wait_until(&self, what: &str, condition: impl AsyncFnMut() -> bool) -> u64 {
        let (held, took_ms) = self.run(self.holds_in_time(condition));
        assert!(held, "seed {}: in vain waited until {what}", self.seed());
        took_ms
    }

    async fn holds_in_time(&self, mut condition: impl AsyncFnMut() -> bool) -> (bool, u64) {
        let env = self.env();
        let started_ms = env.now_ms();
        let patience_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
        loop {
            let took_ms = env.now_ms() - started_ms;
            if condition().await {
                return (true, took_ms);
            }
            if took_ms > patience_ms {
                return (false, took_ms);
            }
            env.clock.sleep(LOOK_AGAIN).await;
        }
    }

    /// `None` while it is off.
    pub fn server(&self, name: &str) -> Option<Rc<Server>> {
        match self.0.places.borrow().get(<&ServerName>::try_from(name).ok()?)? {
            Place::On(server) => Some(server.clone()),
            Place::Off(_) => None,
        }
    }

    pub fn running(&self) -> Vec<(OwnedServerName, Rc<Server>)> {
        let places = self.0.places.borrow();
        let on = places.iter().filter_map(|(name, place)| match place {
            Place::On(server) => Some((name.clone(), server.clone())),
            Place::Off(_) => None,
        });
        on.collect()
    }

    /// The power goes at one server, if it is on: its memory is gone, its disk has a prefix of what was under way.
    pub fn crash(&self, name: &str) {
        if let Some(server) = self.server(name) {
            self.0.network.note(&format!("{name} crashes"));
            let platters = server.crash();
            self.0.places.borrow_mut().insert(server_name(name), Place::Off(platters));
        }
    }

    /// # Panics
    /// If there is no such server, or it is on.
    pub fn start(&self, name: &str) {
        let name = server_name(name);
        let place = self.0.places.borrow_mut().remove(&name);
        let Some(Place::Off(platters)) = place else { panic!("'{name}' is on, or not of this world") };
        self.0.network.note(&format!("{name} starts"));
        let mut settings = Settings::new(&name);
        if self.0.omits_members.get() {
            settings.whole_state_max = 0;
        }
        let server = Server::start_with(&self.0.network, settings, &self.0.sim, platters);
        self.0.places.borrow_mut().insert(name, Place::On(Rc::new(server)));
    }

    pub fn restart(&self, name: &str) {
        self.crash(name);
        self.start(name);
    }

    /// No message gets from the one group to the other, either way.
    pub fn cut(&self, some: &[&str], others: &[&str]) {
        let [some, others] = [some, others].map(|names| names.iter().map(|name| server_name(name)));
        let (some, others): (Vec<_>, Vec<_>) = (some.collect(), others.collect());
        let [some, others] =
            [&some, &others].map(|names| names.iter().map(|name| &**name).collect::<Vec<_>>());
        self.0.network.note(&format!("{some:?} is cut from {others:?}"));
        self.change_faults(|faults| faults.cut(&some, &others));
    }

    /// No message gets from the one to the other; the other way is open.
    pub fn cut_way(&self, from: &str, to: &str) {
        self.change_faults(|faults| faults.cut_way(&server_name(from), &server_name(to)));
    }

    pub fn change_faults(&self, change: impl FnOnce(&mut Faults)) {
        let mut faults = self.0.network.faults();
        change(&mut faults);
        self.0.network.set_faults(faults);
    }

    /// From now on nothing goes wrong.
    pub fn heal(&self) {
        self.0.network.note("the network heals");
        self.0.network.set_faults(Faults::healthy());
    }

    /// Waits until all servers that take part in the room hold the same current state and the same extremities. Answers how
    /// many simulated milliseconds that took.
    ///
    /// # Panics
    /// If they do not within [`PATIENCE`], with what they disagree on.
    #[track_caller]
    pub fn agree(&self, room: &Room) -> u64 {
        let agreed = async || agreement::differences(&self.running(), &room.id).await.is_empty();
        let (held, took_ms) = self.run(self.holds_in_time(agreed));
        if !held {
            let differences = self.run(agreement::differences(&self.running(), &room.id));
            panic!("seed {}: no agreement on {}:\n{}", self.seed(), room.id, differences.join("\n"));
        }
        took_ms
    }

    /// (type, state key) -> event id of the room's current state at one server; empty if it does not know the room.
    ///
    /// # Panics
    /// If the server is off.
    pub async fn state_of(&self, name: &str, room: &Room) -> BTreeMap<(String, String), String> {
        let server = self.server(name).expect("a server that is on");
        agreement::current_state(&server, &room.id).await
    }

    /// The forward extremities of a room at one server.
    pub fn extremities_at(&self, name: &str, room: &Room) -> BTreeSet<String> {
        let server = self.server(name).expect("a server that is on");
        self.run(agreement::extremities(&server, &room.id))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the network of seed {}, oldest first:", self.seed);
            self.network.trace().iter().for_each(|line| eprintln!("{line}"));
        }
        for place in self.places.get_mut().values() {
            if let Place::On(server) = place {
                server.sim.switch_off();
            }
        }
        self.sim.switch_off();
    }
}

fn server_name(name: &str) -> OwnedServerName {
    name.try_into().expect("a server name")
}
