//! Several servers in bad weather: users do random things while the network loses, delays, duplicates and cuts, and while
//! servers crash; then the weather clears, and everybody has to agree. What must hold:
//!
//! - all the time: no event is held that the rules do not allow, and the state before an event is the same on every server;
//!   no request fails with an internal error; no client is shown an event twice, or a gap where its server has none; what
//!   waits is bounded;
//! - in the end: all servers in a room hold the same state and the same extremities; what was acknowledged is there, once;
//!   every client shows what its server holds; every to-device message that was taken has arrived, once; who read what
//!   is known to all; nobody types; nothing is left in a queue; every store is sound.
//!
//! Everything follows from the seed.

mod actions;
mod bounds;
mod clients;
mod devices;
mod malice;
mod rest;

use std::time::Duration;

use futures::future::join_all;
use ruma::signatures::PublicKeyMap;
use serde_json::json;

use self::{
    actions::{Action, Kind},
    devices::Letter,
    malice::Villain,
};
use crate::{
    below,
    client::{Client, text},
    faults::Faults,
    lawful::{self, Holding},
    puppet::Puppet,
    server::{Answer, signing_key},
    sliding::Sliding,
    user::{Room, User},
    world::World,
};

/// A client that has waited so long asks again another time.
const CLIENT_PATIENCE: Duration = Duration::from_secs(90);
const ROOMS_MAX: usize = 4;
/// Steps between two looks at everything that must hold all the time.
const STEPS_PER_CHECK: usize = 20;

#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub servers: usize,
    pub users_per_server: usize,
    pub steps: usize,
    /// On average; `usize::MAX` for never.
    pub steps_per_crash: usize,
    pub steps_per_change_of_weather: usize,
    /// Room versions to choose from.
    pub versions: &'static [&'static str],
    /// One of the servers in the rooms lies.
    pub malice: bool,
    pub breadth: Breadth,
    /// Rooms are joined before all their members are known.
    pub omits_members: bool,
}

/// What users and liars do. A seed that failed before there was more to do fails only with that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Breadth {
    Narrow,
    /// Rarer actions, and lies beside events.
    Broad,
    /// Liars are in rooms of every version, and users follow their rooms by both kinds of sync.
    Full,
}

/// What a storm was like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub actions: usize,
    pub succeeded: usize,
    pub crashes: usize,
    /// Simulated milliseconds from clear weather to agreement in all rooms.
    pub agreed_after_ms: u64,
    /// A hash of all that went over the network, and when: equal seeds have equal ones.
    pub fingerprint: u64,
}

/// An acknowledged message.
struct Spoken {
    room: usize,
    event_id: String,
    body: String,
    server: String,
}

pub struct Storm {
    world: World,
    options: Options,
    users: Vec<User>,
    /// By sliding sync they follow their rooms, too.
    sliding: Vec<Sliding>,
    rooms: Vec<Room>,
    spoken: Vec<Spoken>,
    /// Messages whose answer did not come; asked again under the same transaction id in the end.
    unanswered: Vec<Action>,
    villain: Option<Villain>,
    letters: Vec<Letter>,
    done: usize,
    outcome: Outcome,
}

impl Storm {
    /// Runs the storm of a seed to its end.
    ///
    /// # Panics
    /// With the seed, when something does not hold.
    pub fn run(seed: u64, options: Options) -> Outcome {
        let names: Vec<_> = (0..options.servers).map(|number| format!("s{number}.test")).collect();
        let world = World::new(seed).omitting_members(options.omits_members);
        let world = world.servers(names.iter().map(String::as_str));
        let mut storm = Self {
            world,
            options,
            users: Vec::new(),
            sliding: Vec::new(),
            rooms: Vec::new(),
            spoken: Vec::new(),
            unanswered: Vec::new(),
            villain: None,
            letters: Vec::new(),
            done: 0,
            outcome: Outcome::default(),
        };
        storm.prepare(&names);
        for step in 1..=options.steps {
            storm.step();
            if step % STEPS_PER_CHECK == 0 {
                storm.check_always();
            }
        }
        storm.rest();
        storm.outcome.fingerprint = storm.world.network().fingerprint();
        storm.outcome
    }

    fn prepare(&mut self, names: &[String]) {
        for (name, number) in
            names.iter().flat_map(|name| (0..self.options.users_per_server).map(move |n| (name, n)))
        {
            self.users.push(self.world.user(&format!("@u{number}:{name}")));
        }
        if self.options.breadth >= Breadth::Full {
            let followed = self.users.iter().map(|user| Sliding::of(&user.shows(Client::clone), "storm"));
            self.sliding = followed.collect();
        }
        if self.options.malice {
            self.villain = Some(Villain::new(Puppet::connect(self.world.network(), malice::NAME)));
        }
        self.create_room();
        let room = self.rooms[0].clone();
        for user in &self.users {
            user.tries_to_join(&room);
        }
    }

    fn chance(&self, one_in: usize) -> bool {
        one_in != usize::MAX && below(&self.world.env(), one_in) == 0
    }

    fn any(&self, count: usize) -> usize {
        below(&self.world.env(), count)
    }

    fn step(&mut self) {
        if self.chance(self.options.steps_per_change_of_weather) {
            self.change_weather();
        }
        match self.any(16) {
            0 if self.rooms.len() < ROOMS_MAX => self.create_room(),
            1 | 2 => self.sync(self.any(self.users.len())),
            3 => self.world.pass(Duration::from_secs(self.any(20) as u64)),
            4 if self.chance(8) => self.world.pass(Duration::from_secs(60 * self.any(200) as u64)),
            14 | 15 if self.villain.is_some() => self.do_harm(),
            _ => self.act(),
        }
    }

    fn sync(&mut self, user: usize) {
        self.world.run(self.users[user].syncs());
        let server = self.world.server(&self.users[user].server);
        if let (Some(server), Some(sliding)) = (server, self.sliding.get_mut(user)) {
            self.world.run(sliding.try_sync(&server, &clients::sliding_request(), 0));
        }
    }

    fn create_room(&mut self) {
        let creator = &self.users[self.any(self.users.len())];
        let version = self.options.versions[self.any(self.options.versions.len())];
        let preset = if self.chance(4) { "private_chat" } else { "public_chat" };
        let body = json!({ "preset": preset, "room_version": version });
        let request = creator.request(http::Method::POST, "createRoom", Some(body));
        if let Some(answer) = self.world.run(request) {
            self.world.network().note(&format!("{} makes a room of version {version}", creator.id));
            self.rooms.push(Room { id: text(&answer.ok()["room_id"]), via: creator.server.clone() });
        }
    }

    fn change_weather(&mut self) {
        let names = self.world.names();
        let mut faults = match self.any(3) {
            0 => Faults::healthy(),
            _ => Faults::stormy(),
        };
        if self.chance(2) {
            let (some, others): (Vec<_>, Vec<_>) = names.iter().partition(|_| self.chance(2));
            let [some, others] =
                [some, others].map(|group| group.into_iter().map(|name| &**name).collect::<Vec<_>>());
            self.world.network().note(&format!("{some:?} is cut from {others:?}"));
            faults.cut(&some, &others);
            faults.cuts_are_silent = self.chance(2);
        }
        let one = || names[self.any(names.len())].clone();
        match self.any(5) {
            0 => faults.slow = [(one(), Duration::from_secs(8))].into(),
            1 => faults.cut_way(&one(), &one()),
            2 => faults.keyless = [one()].into(),
            _ => {}
        }
        self.world.network().set_faults(faults);
        self.switch_on_all();
    }

    fn switch_on_all(&self) {
        for name in self.world.names() {
            if self.world.server(name.as_str()).is_none() {
                self.world.start(name.as_str());
            }
        }
    }

    /// Several actions at once; perhaps a server crashes in the middle of them.
    fn act(&mut self) {
        let count = 1 + self.any(5);
        let actions: Vec<_> = (0..count).map(|_| self.any_action()).collect();
        let crash = self.chance(self.options.steps_per_crash);
        self.outcome.crashes += usize::from(crash);
        let all = join_all(actions.iter().map(|action| self.perform(action)));
        let (answers, ()) = self.world.run(futures::future::join(all, self.maybe_crash(crash)));
        for (action, answer) in actions.into_iter().zip(answers) {
            self.note(action, answer);
        }
    }

    async fn perform(&self, action: &Action) -> Option<Answer> {
        let user = &self.users[action.user];
        let request = user.request(action.method.clone(), &action.path, Some(action.body.clone()));
        let answer = self.world.env().timeout(CLIENT_PATIENCE, request).await.flatten();
        let said = answer.as_ref().map_or("no answer".to_owned(), |answer| match answer.is_ok() {
            true => text(&answer.json["event_id"]),
            false => format!("{} {}", answer.status, answer.json),
        });
        let Action { method, path, body, .. } = action;
        self.world.network().note(&format!("{} {method} {path} {body}: {said}", user.id));
        answer
    }

    async fn maybe_crash(&self, crash: bool) {
        if !crash {
            return;
        }
        let env = self.world.env();
        let names = self.world.names();
        let name = names[below(&env, names.len())].as_str();
        env.clock.sleep(Duration::from_millis(below(&env, 600) as u64)).await;
        self.world.crash(name);
        // Else it stays off until the weather changes.
        if below(&env, 4) != 0 {
            env.clock.sleep(Duration::from_secs(below(&env, 10) as u64)).await;
            self.switch_on_all();
        }
    }

    fn note(&mut self, action: Action, answer: Option<Answer>) {
        self.outcome.actions += 1;
        let Some(answer) = answer else {
            if matches!(action.kind, Kind::Message { .. } | Kind::Letter { .. }) {
                self.unanswered.push(action);
            }
            return;
        };
        // Others' faults are 502 and 504.
        let own_fault = answer.status == http::StatusCode::INTERNAL_SERVER_ERROR;
        assert!(!own_fault, "seed {}: {} {}: {answer:?}", self.world.seed(), action.method, action.path);
        if !answer.is_ok() {
            return;
        }
        self.outcome.succeeded += 1;
        let via = self.users[action.user].server.clone();
        match action.kind {
            Kind::Message { room, body } => {
                let event_id = text(&answer.json["event_id"]);
                self.spoken.push(Spoken { room, event_id, body, server: via });
            }
            Kind::Letter { to, words } => self.letters.push(Letter { to, words }),
            Kind::Upgrade => self.rooms.push(Room { id: text(&answer.json["replacement_room"]), via }),
            Kind::Other => {}
        }
    }

    /// What must hold at any time.
    fn check_always(&self) {
        let faults = self.world.network().own_faults();
        assert!(faults.is_empty(), "seed {}: {}", self.world.seed(), faults.join("\n"));
        self.check_bounds();
        let keys = self.keys();
        for room in &self.rooms {
            let mut holdings = Vec::new();
            for (name, server) in self.world.running() {
                let Some(holding) = self.world.run(Holding::of(&server, &room.id)) else { continue };
                let breaches = holding.breaches(&keys);
                let seed = self.world.seed();
                assert!(breaches.is_empty(), "seed {seed}: {} at {name}:\n{}", room.id, breaches.join("\n"));
                holdings.push((name.to_string(), holding));
            }
            let contradictions = lawful::contradictions(&holdings);
            if !contradictions.is_empty() {
                eprintln!("--- {}:\n{}", room.id, lawful::comparison(&holdings).join("\n"));
                panic!("seed {}: {}:\n{}", self.world.seed(), room.id, contradictions.join("\n"));
            }
        }
    }

    fn keys(&self) -> PublicKeyMap {
        let names = self.world.names();
        let real = names.iter().map(|name| (name.to_string(), signing_key(name).public_key_set()));
        let villain = self.villain.iter().map(|villain| (malice::NAME.to_owned(), villain.keys()));
        real.chain(villain).collect()
    }
}
