//! One server on a simulated disk.

use std::{collections::BTreeSet, sync::Arc};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use myelin_api::{AppState, Parts, Serves, Shutdown, router};
use myelin_core::{EventNid, TimelineOrder};
use myelin_dag::SigningKey;
use myelin_federation::{
    Federation, Identity, IdentitySetup, PresencePolicy, Setup, Wire, media::RemoteMedia,
};
use myelin_media::{Media, preview, preview::Previews};
use myelin_rooms::Rooms;
use myelin_search::{DirectoryVisibility, Place, Search};
use myelin_store::{
    Batch, Direction, Store,
    log::LogEntry,
    memory::MemoryDisk,
    tables::{ACCOUNTS, AccountRecord, EVENTS, TIMELINE},
};
use myelin_sync::Sync;
use myelin_testenv::Sim;
use myelin_users::Users;
use myelin_view::View;
use ruma::{RoomId, ServerName, UserId, server_name};
use serde_json::Value;
use tower::ServiceExt;

use crate::{disk::SimDisk, machine, network::Network, settings::Settings};

const TIMELINE_MAX: usize = 1_000_000;

/// Running until it is dropped or crashed.
pub struct Server {
    pub sim: Sim,
    pub view: View,
    pub users: Arc<Users>,
    pub federation: Federation,
    pub media: Arc<Media>,
    disk: SimDisk,
    router: Router,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: StatusCode,
    pub json: Value,
}

impl Answer {
    /// The body of a success.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.json);
        self.json
    }

    pub fn is_ok(&self) -> bool {
        self.status == StatusCode::OK
    }
}

impl Server {
    /// A server of its own, on a machine that has just been switched on.
    ///
    /// # Panics
    /// If the parts do not fit together: a test cannot go on.
    pub fn start(sim: &Sim, platters: MemoryDisk) -> Self {
        Self::start_in(&Network::default(), server_name!("sim.test"), &sim.rebooted(), platters)
    }

    /// A server in a network, on a machine of its own that has just been switched on. `sim` is any machine of the world.
    ///
    /// # Panics
    /// If the parts do not fit together: a test cannot go on.
    pub fn start_in(network: &Network, name: &ServerName, sim: &Sim, platters: MemoryDisk) -> Self {
        Self::start_with(network, Settings::new(name), sim, platters)
    }

    /// The same with other settings.
    ///
    /// # Panics
    /// If the parts do not fit together: a test cannot go on.
    pub fn start_with(network: &Network, settings: Settings, sim: &Sim, platters: MemoryDisk) -> Self {
        let Settings { edge: config, accounts, identity_servers, whole_state_max } = settings;
        let name = &*config.server_name.clone();
        let sim = sim.machine();
        let env = sim.env();
        let disk = SimDisk::open(platters, env.clone());
        let view = View::new(Store::new(Arc::new(disk.clone())), env.clone(), config.server_name.clone());
        let users = Arc::new(Users::new(view.clone(), accounts));
        let key = Arc::new(signing_key(name));
        let wire = Wire::new(&view, key.clone(), network.port_of(name));
        let rooms = Arc::new(Rooms::new(view.clone(), key.clone(), wire.policy.clone()));
        let sync = Sync::new(view.clone());
        let federation = Federation::new(Setup {
            view: view.clone(),
            rooms: rooms.clone(),
            users: users.clone(),
            sync: sync.clone(),
            key,
            wire,
            notaries: network.notaries(),
            presence: PresencePolicy::default(),
            whole_state_max,
        });
        let media = Media::new(myelin_media::Setup {
            view: view.clone(),
            config: myelin_media::Config::default(),
            objects: disk.objects(),
            origin: Arc::new(RemoteMedia::new(federation.client.clone())),
            pages: network.web_of(name),
        });
        let previews =
            Previews::new(media.clone(), preview::Config { enabled: true, ..preview::Config::default() });
        env.spawner.spawn("feed", Box::pin(view.feed.clone().run(env.clock.clone())));
        env.spawner.spawn("typing expiry", Box::pin(sync.clone().run_expiry()));
        env.spawner.spawn("member upkeep", Box::pin(myelin_rooms::run_member_upkeep(rooms.clone())));
        env.spawner.spawn("trimming", Box::pin(myelin_rooms::trimming::run_trimming(rooms.clone())));
        env.spawner.spawn("retention", Box::pin(myelin_rooms::retention::run_retention(rooms.clone())));
        env.spawner
            .spawn("delayed events", Box::pin(myelin_rooms::delayed::run_delayed_events(rooms.clone())));
        federation.start(&env);
        let shutdown = Shutdown::never();
        let (held, files, accounts) = (federation.clone(), media.clone(), users.clone());
        // Nothing runs it: who searches brings it up to date.
        let search = Search::new(view.clone(), sync.clone(), Place::Memory, DirectoryVisibility::default());
        let identity = Arc::new(Identity::new(IdentitySetup {
            view: view.clone(),
            rooms: rooms.clone(),
            handshakes: federation.handshakes.clone(),
            key: Arc::new(signing_key(name)),
            transport: network.identity_servers_of(name),
            trusted: identity_servers,
        }));
        let parts = Parts {
            view: view.clone(),
            users,
            rooms,
            sync,
            federation,
            media,
            previews,
            search,
            identity,
            config,
            shutdown,
        };
        let router = router(AppState::new(parts), Serves::ALL);
        network.connect_machine(name, router.clone(), sim.clone());
        Self { router, sim, view, users: accounts, federation: held, media: files, disk }
    }

    /// Everything in memory is gone, every task ends where it stands; what the disk kept is handed on.
    pub fn crash(&self) -> MemoryDisk {
        let platters = self.disk.crash();
        self.sim.switch_off();
        platters
    }

    /// Whether nothing gets onto the disk from now on, and so nothing is acknowledged.
    pub fn stalls_disk(&self, stalled: bool) {
        self.disk.stall(stalled);
    }

    /// Asks and waits for the answer.
    ///
    /// # Panics
    /// If the server goes down before it answers.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Answer {
        let answer = self.try_request(method, path, token, body).await;
        answer.expect("the server goes on until it has answered")
    }

    /// `None`: the server went down before it answered.
    pub async fn try_request(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Option<Answer> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = body.map_or_else(Body::empty, |json| Body::from(json.to_string()));
        self.try_call(request.body(body).expect("a request")).await
    }

    /// What a network needs to reach it again.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// By which it signs events and requests.
    pub fn signing_key(&self) -> SigningKey {
        signing_key(&self.view.server_name)
    }

    /// A request as it is.
    ///
    /// # Panics
    /// If the server goes down before it answers.
    pub async fn call(&self, request: Request<Body>) -> Answer {
        self.try_call(request).await.expect("the server goes on until it has answered")
    }

    /// The answer as it is: status, headers, body.
    ///
    /// # Panics
    /// If the server goes down before it answers.
    pub async fn call_raw(&self, request: Request<Body>) -> (StatusCode, HeaderMap, Bytes) {
        let response = self.router.clone().oneshot(request).await.expect("the router cannot fail");
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, body.collect().await.expect("bodies are in memory").to_bytes())
    }

    /// Makes a user a server administrator.
    ///
    /// # Panics
    /// If there is no such account.
    pub async fn make_admin(&self, user_id: &str) {
        let user_id = <&UserId>::try_from(user_id).expect("a user id");
        let user = self.view.interner.lookup_user(user_id).await.expect("readable").expect("a known user");
        let store = &self.view.store;
        let account = store.get(&ACCOUNTS, &user).await.expect("readable").expect("an account");
        let mut batch = Batch::new();
        batch.put(&ACCOUNTS, &user, &AccountRecord { admin: true, ..account });
        batch.log(&LogEntry::Account { user });
        store.commit(batch).await.expect("committed");
        self.view.feed.caught_up().await;
    }

    async fn try_call(&self, request: Request<Body>) -> Option<Answer> {
        let router = self.router.clone();
        let answer = async move {
            let response = router.oneshot(request).await.expect("the router cannot fail");
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await.expect("bodies are in memory").to_bytes();
            Answer { status: parts.status, json: serde_json::from_slice(&bytes).unwrap_or_default() }
        };
        machine::run_while_asked(&self.sim.env(), answer).await
    }

    /// Events that were filled into the timeline of a room after others had been shown that follow them.
    ///
    /// # Panics
    /// As [`Server::truth`].
    pub async fn filled_in(&self, room_id: &str) -> BTreeSet<String> {
        let filled = |order: &TimelineOrder| order.0 >= 0 && order.position().is_none();
        let timeline = self.timeline(room_id).await;
        timeline.into_iter().filter(|(order, _)| filled(order)).map(|(_, id)| id).collect()
    }

    /// The event ids of a room in timeline order, from the tables: what really happened.
    ///
    /// # Panics
    /// If the room is not there or its rows do not fit together.
    pub async fn truth(&self, room_id: &str) -> Vec<String> {
        self.timeline(room_id).await.into_iter().map(|(_, id)| id).collect()
    }

    pub(crate) async fn timeline(&self, room_id: &str) -> Vec<(TimelineOrder, String)> {
        let room_id = <&RoomId>::try_from(room_id).expect("a room id");
        let room = self.view.interner.lookup_room(room_id).await.expect("readable").expect("the room");
        let store = &self.view.store;
        let rows = store.scan(&TIMELINE, &room, Direction::Forward, TIMELINE_MAX).await.expect("readable");
        let nids: Vec<EventNid> = rows.iter().map(|(_, nid)| *nid).collect();
        let events = store.multi_get(&EVENTS, &nids).await.expect("readable");
        let ids = events.into_iter().map(|row| row.expect("a timeline row has its event").value.event_id);
        rows.iter().map(|((_, order), _)| *order).zip(ids).collect()
    }
}

/// Every server has its own key, the same after each start.
pub fn signing_key(name: &ServerName) -> SigningKey {
    let mut seed = [7; 32];
    seed.iter_mut().zip(name.as_str().bytes()).for_each(|(seed, byte)| *seed = byte);
    SigningKey::from_seed("sim", seed).expect("a key from a seed")
}
